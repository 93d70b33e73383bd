"""The command ``reconstruct``: what it writes, what it prints where, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import pandas as pd
import pytest

from scdiva_core.cli import main
from scdiva_core.tasks.denoising import LAYER

FEW = ["-n", "10", "--iterative-cells", "0", "--masks", "30"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of these tests stay with the tests."""
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))


@pytest.fixture
def model(tiny_checkpoint: Path) -> list[str]:
    return ["--checkpoint", str(tiny_checkpoint), "--device", "cpu"]


def test_tables_words_and_a_denoised_copy(
    small_h5ad: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, copy, before = tmp_path / "new" / "out", tmp_path / "denoised.h5ad", small_h5ad.read_bytes()
    command = ["reconstruct", str(small_h5ad), *model, *FEW, "-o", str(out)]
    assert main([*command, "--group", "cell_type", "--denoise", str(copy)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-2:] == [str(copy), str(out)]
    told = json.loads((out / "summary.json").read_text())
    for words in ("caption", "verdict", "leak"):
        assert told[words] in printed.out
    assert "warning: Only 10 cells were rebuilt" in printed.err
    assert set(pd.read_csv(out / "table.csv")["mask"]) == {0.3}
    for name in ("comparisons", "types", "genes", "profiles"):
        assert len(pd.read_csv(out / f"{name}.csv")), name
    assert small_h5ad.read_bytes() == before
    assert anndata.read_h5ad(copy).layers[LAYER].nnz > 0
    assert main(command) == 0
    assert not (out / "types.csv").exists(), "a table of an earlier run does not stay"


def test_genes_to_impute_in_some_cells(small_h5ad: Path, model: list[str], tmp_path: Path) -> None:
    asked = ["--genes", "RPL13, MALAT1", "--subset", "donor=d1"]
    assert main(["reconstruct", str(small_h5ad), *model, *FEW, *asked, "-o", str(tmp_path)]) == 0
    settings = json.loads((tmp_path / "summary.json").read_text())["settings"]
    assert settings["genes"] == ["RPL13", "MALAT1"]
    assert settings["cells"] == "donor=d1"
    profiles = pd.read_csv(tmp_path / "profiles.csv")
    assert set(profiles.loc[profiles["hidden"], "symbol"]) <= {"RPL13", "MALAT1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--masks", "15,many"], "--masks is '15,many'"),
        (["--masks", "100"], "share of 1 of the tokens"),
        (["--genes", "NOSUCHGENE"], "'NOSUCHGENE' is not in"),
        (["--group", "nothing"], "has no column 'nothing'"),
        (["-n", "0"], "most_cells is 0"),
    ],
)
def test_wrong_choices_are_told(
    options: list[str],
    message: str,
    small_h5ad: Path,
    model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    assert main(["reconstruct", str(small_h5ad), *model, *FEW, *options, "-o", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert not (tmp_path / "out").exists()


def test_the_input_is_no_place_for_the_result(
    small_h5ad: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = small_h5ad.read_bytes()
    command = ["reconstruct", str(small_h5ad), *model, *FEW, "-o", str(tmp_path), "--denoise", str(small_h5ad)]
    assert main(command) == 1
    assert "never changed" in capsys.readouterr().err
    assert small_h5ad.read_bytes() == before
