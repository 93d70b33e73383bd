"""The command ``finetune annotation``: from labels in a file to a checkpoint that names them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import anndata
import pytest

from scdiva_core import cli_finetune
from scdiva_core.cli import main
from scdiva_core.data.paths import file_sha256
from scdiva_core.model.checkpoint import load_pretrained
from tests.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))


@pytest.fixture
def model(tiny_checkpoint: Path) -> list[str]:
    return ["--checkpoint", str(tiny_checkpoint), "--device", "cpu", "--minutes", "2"]


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    last = printed.err.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_from_labels_to_a_checkpoint_that_annotates(
    small_h5ad: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, out = tmp_path / "checkpoint", tmp_path / "out.h5ad"
    before = file_sha256(small_h5ad)
    arguments = ["finetune", "annotation", str(small_h5ad), "--label", "cell_type", "-o", str(folder), *model]
    assert main([*arguments, "--batch", "donor", "--seed", "1"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].split() == ["round", "seconds", "cells", "loss", "macro-F1", "accuracy"]
    card = load_pretrained(folder).card["finetuned"]
    curve = [line.split() for line in lines[1 : len(card["curve"]) + 1]]
    assert [int(row[0]) for row in curve] == list(range(len(curve)))
    assert curve[0][3] == "-"
    assert [row[4] for row in curve] == [f"{record['macro_f1']:.3f}" for record in card["curve"]]
    assert lines[-1] == str(folder)
    assert lines[-2] == card["words"]
    assert "the frozen latent: macro-F1" in lines[-2]
    for label, reason in card["left_out"].items():
        assert f"left out: {label} ({reason})" in lines
    assert card["left_out"], "the file has rare types"
    assert "Embedding labelled cells: " in printed.err
    assert file_sha256(small_h5ad) == before == card["data"]["sha256"]
    assert card["data"]["held_out"]
    assert main(["embed", str(small_h5ad), "-o", str(out), "--checkpoint", str(folder), "--no-map"]) == 0
    assert anndata.read_h5ad(out).obsm["X_scdiva"].shape == (160, 8)
    capsys.readouterr()
    assert main(["info", "--checkpoint", str(folder), "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny, fine-tuned on small"


def test_labels_without_a_term_are_named(
    small_cells: anndata.AnnData, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cells = small_cells.copy()
    cells.obs["group"] = ["mine" if i % 3 else "B cell" for i in range(160)]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    arguments = ["finetune", "annotation", str(tmp_path / "cells.h5ad"), "--label", "group"]
    assert main([*arguments, "-o", str(tmp_path / "made"), *model]) == 0
    assert "so that the label stands as its id: mine\n" in capsys.readouterr().out
    labels = load_pretrained(tmp_path / "made").labels
    assert labels.ids == ("CL:0000236", "mine")
    assert labels.names == ("B cell", "mine")


def test_an_interrupt_keeps_the_best_so_far(
    small_h5ad: Path,
    model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = cli_finetune._print_round

    def interrupted(record: dict[str, Any]) -> None:
        whole(record)
        if record["round"] == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cli_finetune, "_print_round", interrupted)
    before = signal.getsignal(signal.SIGINT)
    arguments = ["finetune", "annotation", str(small_h5ad), "--label", "cell_type", "-o", str(tmp_path / "made")]
    assert main([*arguments, *model]) == 0
    printed = capsys.readouterr()
    assert "stopping; the best so far is kept" in printed.err
    assert "It was stopped" in printed.out
    card = load_pretrained(tmp_path / "made").card["finetuned"]
    assert (card["stopped"], len(card["curve"])) == ("cancelled", 3)
    assert signal.getsignal(signal.SIGINT) is before


def test_two_interrupts_leave_at_once(
    small_h5ad: Path,
    model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cli_finetune, "_print_round", interrupted)
    arguments = ["finetune", "annotation", str(small_h5ad), "--label", "cell_type", "-o", str(tmp_path / "made")]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, *model])
    assert caught.value.code == 130
    assert "nothing is kept" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--label", "absent"], "has no column 'absent' in obs. Choose one of: "),
        (["--batch", "absent"], "has no column 'absent' in obs. Choose one of: "),
        (["--minutes", "0"], "The budget is 0 minutes"),
        (["--label", "donor", "--batch", "donor"], "Of the classes that the others teach, the held-out donors"),
        (["--checkpoint", "nowhere at all"], "There is no checkpoint at nowhere at all"),
    ],
)
def test_choices_that_are_refused(
    small_h5ad: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, extra: list[str], message: str
) -> None:
    out = ["-o", str(tmp_path / "made")]
    arguments = ["finetune", "annotation", str(small_h5ad), "--label", "cell_type", *out, *model, *extra]
    assert message in refused(arguments, capsys)
    assert not (tmp_path / "made").exists()


def test_a_folder_in_use_is_refused_before_any_work(
    small_h5ad: Path, tiny_checkpoint: Path, model: list[str], capsys: pytest.CaptureFixture
) -> None:
    before = {path.name: path.read_bytes() for path in tiny_checkpoint.iterdir()}
    arguments = ["finetune", "annotation", str(small_h5ad), "--label", "cell_type", "-o", str(tiny_checkpoint)]
    assert main([*arguments, *model]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert "holds files already" in printed.err
    assert {path.name: path.read_bytes() for path in tiny_checkpoint.iterdir()} == before


def test_random_weights_are_said_to_be_so(small_h5ad: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_tiny_checkpoint(tmp_path / "random", random_weights=True)
    arguments = ["finetune", "annotation", str(small_h5ad), "--label", "cell_type", "-o", str(tmp_path / "made")]
    assert main([*arguments, "--checkpoint", str(folder), "--device", "cpu"]) == 0
    assert "warning: these weights are random; most of them stay so" in capsys.readouterr().err
    assert load_pretrained(tmp_path / "made").card["random_weights"] is True


def test_its_help_says_what_it_does(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "annotation", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("last third of the layers", "whole donors", "logistic regression", "(default: 10)", "Ctrl-C stops"):
        assert words in text
