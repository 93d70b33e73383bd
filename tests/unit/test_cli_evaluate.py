"""The command ``evaluate perturbation``: measured knockouts beside what a checkpoint and its baselines predict."""

from __future__ import annotations

from pathlib import Path

import anndata
import pandas as pd
import pytest

from scdiva_core.cli import main
from tests.small_perturbations import DOUBLES, SINGLES, write_perturbations


@pytest.fixture
def arguments(
    small_cells: anndata.AnnData, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    file = write_perturbations(tmp_path / "p.h5ad", list(small_cells.var_names))
    what = ["--perturbation", "perturbation", "--control", "ctrl", "--batch", "batch"]
    return ["evaluate", "perturbation", str(file), *what, "--checkpoint", str(tiny_checkpoint), "--device", "cpu"]


def test_tables_and_words_of_what_was_never_shown(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "new" / "out"
    assert main([*arguments, "-o", str(out)]) == 0
    assert capsys.readouterr().out.split() == [str(out / "zero_shot.md")]
    scores = pd.read_csv(out / "zero_shot.csv")
    assert set(scores["perturbation"]) <= {*SINGLES, *DOUBLES}
    assert {"scdiva", "co_expression", "mean", "no_change", "random"} <= set(scores["method"])
    assert (out / "zero_shot.md").read_text().count("\n") > 3
    assert {"perturbation", "symbol", "measured", "changed"} <= set(pd.read_csv(out / "zero_shot_genes.csv"))


def test_a_column_that_is_not_there_is_named(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments[arguments.index("--batch") + 1] = "site"
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 1
    assert "has no column 'site'" in capsys.readouterr().err
