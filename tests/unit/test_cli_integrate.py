"""The commands ``integrate`` and ``finetune integration``."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import pandas as pd
import pytest

from scdiva_core.cli import main
from scdiva_core.model.checkpoint import load_pretrained


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))


@pytest.fixture
def model(tiny_checkpoint: Path) -> list[str]:
    return ["--checkpoint", str(tiny_checkpoint), "--device", "cpu"]


@pytest.fixture
def files(small_cells: anndata.AnnData, tmp_path: Path) -> list[str]:
    small_cells[:80, :-100].copy().write_h5ad(tmp_path / "one.h5ad")
    small_cells[80:].copy().write_h5ad(tmp_path / "two.h5ad")
    return [str(tmp_path / "one.h5ad"), str(tmp_path / "two.h5ad")]


def test_two_files_become_one_integrated(
    files: list[str], model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert main(["integrate", *files, "--label", "cell_type", "--seeds", "1", "-o", str(out), *model]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].startswith("2 files with 160 cells and 1,200 genes together; 1,100 genes are in all of them")
    assert lines[-1] == str(out)
    assert "genes are missing from some of the joined files" in printed.err
    names = {path.name for path in out.iterdir()}
    assert names == {"table.csv", "judged.csv", "apart.csv", "summary.json", "integrated.h5ad", "checkpoint"}
    table = pd.read_csv(out / "table.csv")
    joined = anndata.read_h5ad(out / "integrated.h5ad")
    assert {f"X_{name}" for name in table["method"]} <= set(joined.obsm)
    assert set(joined.obs["file"]) == {"one", "two"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["verdict"] in lines
    assert load_pretrained(out / "checkpoint").card["integration"]["batches"] == ["one", "two"]


def test_the_overlap_alone(files: list[str], model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["integrate", *files, "--overlap", *model]) == 0
    assert capsys.readouterr().out.startswith("2 files with 160 cells")
    assert sorted(path.name for path in tmp_path.glob("*.h5ad")) == ["one.h5ad", "two.h5ad"]


def test_what_is_missing_on_the_command_line_is_said(
    files: list[str], model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["integrate", files[0], "-o", str(tmp_path / "out"), *model]) == 1
    assert "Name it with --batch" in capsys.readouterr().err
    assert main(["integrate", *files, *model]) == 1
    assert "Give one with -o" in capsys.readouterr().err


def test_finetune_integration_writes_a_checkpoint(
    small_h5ad: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "made"
    asked = ["finetune", "integration", str(small_h5ad), "--batch", "donor", "-o", str(folder), *model]
    assert main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    card = load_pretrained(folder).card["integration"]
    assert lines[0].split() == ["round", "seconds", "cells", "contrast", "type-ASW", "batch-ASW", "score"]
    curve = [line.split() for line in lines[1 : len(card["curve"]) + 1]]
    assert [row[-1] for row in curve] == [f"{record['score']:.3f}" for record in card["curve"]]
    assert curve[0][3] == "-"
    assert card["taught_by"] == "clusters"
    assert lines[-2:] == [card["words"], str(folder)]
