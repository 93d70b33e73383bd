"""The command: what it writes, what it prints where."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from scdiva_core import cli_evaluate
from tests.unit.evaluation.conftest import Small


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    cli_evaluate.add(parser.add_subparsers(required=True))
    return parser


def test_it_writes_a_table_and_a_page(
    small: Small,
    parser: argparse.ArgumentParser,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cli_evaluate, "TABLES", small.tables)
    out = tmp_path / "new" / "out"
    arguments = ["evaluate", "embedding", "--data", small.data, "--corpus", small.corpus.folder, "-o", out]
    arguments += ["--checkpoint", small.engine.checkpoint, "--device", "cpu", "--sets", "stimulated", "--seeds", "1"]
    options = parser.parse_args([str(argument) for argument in arguments])
    options.run(options)
    printed = capsys.readouterr()
    assert printed.out == f"{out / 'embedding.md'}\n"
    assert "stimulated: measuring\n" in printed.err
    result = json.loads((out / "embedding.json").read_text(encoding="utf-8"))
    assert list(result["sets"]) == ["stimulated"]
    assert result["settings"]["seeds"] == 1
    assert (out / "embedding.md").read_text(encoding="utf-8").startswith("# Embedding, evaluated\n")


def test_its_help_says_what_it_does(parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["evaluate", "embedding", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("PCA, Harmony and the same network untrained", "embedding.json", "made by 'prepare'", "(default: 5)"):
        assert words in text


def test_the_projects_own_tables_are_used() -> None:
    assert {path.name for path in cli_evaluate.TABLES.iterdir()} >= {"datasets.toml", "labels.tsv"}
