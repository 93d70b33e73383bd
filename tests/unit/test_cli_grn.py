"""The command ``grn``: what it writes, what it prints where, what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import networkx as nx
import pandas as pd
import pytest

from scdiva_core.cli import main

FEW = ["--top", "3", "--no-panel"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of these tests stay with the tests."""
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))


@pytest.fixture
def model(tiny_checkpoint: Path) -> list[str]:
    return ["--checkpoint", str(tiny_checkpoint), "--device", "cpu"]


def test_a_network_for_each_group(
    small_h5ad: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "new" / "out"
    assert main(["grn", str(small_h5ad), *model, *FEW, "--group", "cell_type", "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(out)
    folders = sorted(out.iterdir())
    assert folders
    for folder in folders:
        edges = pd.read_csv(folder / "edges.csv")
        told = json.loads((folder / "summary.json").read_text())
        assert told["caption"] in printed.out
        assert told["settings"]["cells"].startswith("cell_type=")
        network = nx.read_graphml(io.BytesIO((folder / "network.graphml").read_bytes()))
        assert network.number_of_edges() == len(edges)
        assert not (folder / "honesty.csv").exists()
        assert (folder / "regulons.gmt").read_text().count("\n") > 0


def test_panel_and_comparison_of_two_sets(small_h5ad: Path, model: list[str], tmp_path: Path) -> None:
    donors = pd.Series(_column(small_h5ad, "donor")).unique()[:2]
    sets = ["--subset", f"donor={donors[0]}", "--against", f"donor={donors[1]}"]
    assert main(["grn", str(small_h5ad), *model, *sets, "--top", "3", "-o", str(tmp_path / "out")]) == 0
    for name in ("edges", "regulons", "honesty", "heads", "contrast"):
        assert len(pd.read_csv(tmp_path / "out" / f"{name}.csv")), name
    assert main(["grn", str(small_h5ad), *model, *FEW, "-o", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "contrast.csv").exists(), "a table of an earlier run does not stay"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group", "nothing"], "has no column 'nothing'"),
        (["--group", "cell"], "has 50 cells"),
        (["--subset", "donor"], "'donor' names no value"),
        (["--top", "0"], "top is 0"),
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
    if options == ["--group", "cell"]:
        options = ["--group", "barcode"]
        small_h5ad = _with_barcodes(small_h5ad, tmp_path)
    assert main(["grn", str(small_h5ad), *model, *FEW, *options, "-o", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err


def _column(path: Path, name: str) -> list[str]:
    import anndata

    return anndata.read_h5ad(path).obs[name].astype(str).tolist()


def _with_barcodes(path: Path, folder: Path) -> Path:
    import anndata

    cells = anndata.read_h5ad(path)
    cells.obs["barcode"] = [f"cell {number}" for number in range(cells.n_obs)]
    cells.write_h5ad(folder / "barcodes.h5ad")
    return folder / "barcodes.h5ad"
