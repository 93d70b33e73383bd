"""The command ``finetune perturbation``: from a Perturb-seq file to a checkpoint that predicts."""

from __future__ import annotations

from pathlib import Path

import anndata
import pytest

from scdiva_core.cli import main
from scdiva_core.data.paths import file_sha256
from scdiva_core.model.checkpoint import load_pretrained
from tests.small_perturbations import write_perturbations


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def file(small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_perturbations(tmp_path_factory.mktemp("perturbed") / "p.h5ad", list(small_cells.var_names))


@pytest.fixture
def arguments(file: Path, tiny_checkpoint: Path, tmp_path: Path) -> list[str]:
    what = ["--perturbation", "perturbation", "--control", "ctrl", "--kind", "knockout"]
    model = ["--checkpoint", str(tiny_checkpoint), "--device", "cpu", "--minutes", "0.05"]
    return ["finetune", "perturbation", str(file), *what, *model, "-o", str(tmp_path / "new" / "made")]


def test_from_measured_perturbations_to_a_checkpoint(
    arguments: list[str], file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before, folder = file_sha256(file), tmp_path / "new" / "made"
    assert main([*arguments, "--batch", "batch"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    record = load_pretrained(folder).card["perturbation"]
    assert lines[0] == "left out: RPL5 (3 cells; a perturbation needs 10)"
    assert lines[1].split() == ["pass", "seconds", "cells", "loss", "Spearman"]
    curve = [line.split() for line in lines[2 : 2 + len(record["curve"])]]
    assert [row[4] for row in curve] == [f"{entry['spearman']:.3f}" for entry in record["curve"]]
    assert curve[0][3] == "-"
    assert lines[-2:] == [record["words"], str(folder)]
    assert record["data"] == {
        "name": "p.h5ad",
        "sha256": before,
        "control": "ctrl",
        "n_cells": 220,
        "control_cells": 60,
    }
    assert file_sha256(file) == before
    assert [path.name for path in folder.parent.iterdir()] == ["made"], "what a killed run would need is gone"
    assert "Reading perturbed cells: 223" in printed.err
    assert main(arguments) == 1
    assert "holds files already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--control", "none"], "0 cells are 'none'; at least 10 control cells are needed"),
        (["--perturbation", "absent"], "has no column 'absent' in obs. Choose one of: "),
        (["--perturbation", "batch", "--control", "one"], "0 perturbations can be used (left out: two: the vocabulary"),
        (["--minutes", "0"], "The budget is 0 minutes"),
    ],
)
def test_choices_that_are_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, changed: list[str], message: str
) -> None:
    assert main([*arguments, *changed]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_the_kind_must_be_said(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    place = arguments.index("--kind")
    with pytest.raises(SystemExit):
        main(arguments[:place] + arguments[place + 2 :])
    assert "--kind" in capsys.readouterr().err
