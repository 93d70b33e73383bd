"""Evaluation of reconstruction: every set, mask and method, and a page that says it."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scdiva_core import cli_evaluate
from scdiva_core.data.studies import Studies
from scdiva_core.engine import Engine
from scdiva_core.errors import DataError
from scdiva_core.evaluation.reconstruction import SETS, evaluate_reconstruction, to_markdown
from scdiva_core.store import ResultStore

NAME = "tenx_pbmc3k"


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def data(small_h5ad: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small file in the place of one set."""
    folder = tmp_path_factory.mktemp("eval")
    shutil.copy(small_h5ad, folder / f"{NAME}.h5ad")
    return folder


@pytest.fixture(scope="module")
def result(engine: Engine, data: Path) -> dict[str, Any]:
    studies = Studies.read(cli_evaluate.TABLES)
    sizes = {"masks": (0.2, 0.6), "cells": 12, "iterative_cells": 3}
    return evaluate_reconstruction(engine, data, studies, sets=[NAME], **sizes)


def test_masks_methods_and_leaks_are_all_there(result: dict[str, Any]) -> None:
    found = result["sets"][NAME]
    assert (found["title"], found["n_cells"], found["n_rebuilt"], found["n_population"]) == ("Blood, 3k", 160, 12, 148)
    assert len(found["table"]) == 2 * 9
    assert {(row["mask"], row["leaks"], row["n"]) for row in found["table"]} == {
        (mask, leaks, n) for mask in (0.2, 0.6) for leaks in (False, True) for n in (12, 3)
    }
    assert {row["group"] for row in found["types"]} > {"B"}
    named = next(row for row in found["table"] if row["told"] == "gene")
    assert named["identity"] is None
    assert named["mse"] > 0
    assert result["settings"] == {"masks": [0.2, 0.6], "cells": 12, "iterative_cells": 3}
    assert result["checkpoint"]["name"] == "tiny"


def test_the_page_holds_words_definitions_and_the_table(result: dict[str, Any]) -> None:
    page = to_markdown(json.loads(json.dumps(result, allow_nan=False)))
    found = result["sets"][NAME]
    assert f"- Blood, 3k: {found['verdict']}\n" in page
    assert f"- Blood, 3k: {found['leak']}\n" in page
    assert "neither their definitions nor the share that was hidden" in page
    row = next(row for row in found["table"] if row["method"] == "kNN imputation")
    mse = f"{row['mse']:.3f} ({row['mse_low']:.3f} to {row['mse_high']:.3f})"
    line = next(line for line in page.splitlines() if line.startswith("| 20% | kNN imputation | gene |  | 12 |"))
    assert mse in line
    assert line.count("|") == page.splitlines()[page.splitlines().index(line) - 1].count("|")
    leaking = [line for line in page.splitlines() if "clean anchor | place | yes |" in line]
    assert len(leaking) == 4


def test_sets_that_are_not_there_are_refused(engine: Engine, data: Path) -> None:
    studies = Studies.read(cli_evaluate.TABLES)
    for name in ("brain", SETS[1]):
        with pytest.raises(DataError, match=f"no evaluation set {name} in"):
            evaluate_reconstruction(engine, data, studies, sets=[name])


def test_the_command_writes_both_files(
    engine: Engine, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    parser = argparse.ArgumentParser()
    cli_evaluate.add(parser.add_subparsers(required=True))
    out = tmp_path / "new" / "out"
    arguments = ["evaluate", "reconstruction", "--data", data, "-o", out, "--device", "cpu", "--sets", NAME]
    arguments += ["-n", 4, "--iterative-cells", 0, "--checkpoint", engine.checkpoint]
    options = parser.parse_args([str(each) for each in arguments])
    options.run(options)
    printed = capsys.readouterr()
    assert printed.out == f"{out / 'reconstruction.md'}\n"
    assert f"{NAME}: rebuilding 4 of 160 cells\n" in printed.err
    assert list(json.loads((out / "reconstruction.json").read_text(encoding="utf-8"))["sets"]) == [NAME]
    assert (out / "reconstruction.md").read_text(encoding="utf-8").startswith("# Reconstruction, evaluated\n")
