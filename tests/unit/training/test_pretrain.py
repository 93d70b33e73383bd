"""Pre-training: it learns, resumes to the bit, repeats to the bit, and needs hardly anything installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.errors import CheckpointError, DataError
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.pretrain import pretrain
from scdiva_core.training.settings import PretrainSettings

ROOT = Path(__file__).resolve().parents[3]
SHORT = PretrainSettings(steps=12, batch_size=16, warmup_steps=2, validate_every=6, save_every=4, validation_cells=20)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same_weights(one: ScDiVaModel, two: ScDiVaModel) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def finished(corpus: Corpus, network: ScDiVaConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Model and folder of an unbroken short run."""
    folder = tmp_path_factory.mktemp("run") / "unbroken"
    return pretrain(corpus, network, folder, SHORT, card={"name": "short"}), folder


class Stopped(Exception):
    """Stands for whatever ends a run from outside."""


def stop_at(step: int) -> Callable[[dict[str, Any]], None]:
    def report(record: dict[str, Any]) -> None:
        if record["step"] == step:
            raise Stopped

    return report


def test_loss_on_held_out_donors_falls(corpus: Corpus, network: ScDiVaConfig, tmp_path: Path) -> None:
    settings = replace(SHORT, steps=80, validate_every=10, learning_rate=3e-3)
    pretrain(corpus, replace(network, dropout=0.0), tmp_path, settings)
    validations = [record for record in records(tmp_path) if "validation_total" in record]
    first, last = validations[0], validations[-1]
    for name in ("identity", "total"):
        assert last[f"validation_{name}"] < 0.95 * first[f"validation_{name}"]
    assert last["validation_expression"] < first["validation_expression"]
    uniform = np.log(len(corpus.vocabulary))
    assert last["validation_identity"] < uniform - 0.5, "better than guessing"


def test_a_stopped_run_goes_on_to_the_very_same_weights(
    corpus: Corpus, network: ScDiVaConfig, finished: tuple, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        pretrain(corpus, network, tmp_path, SHORT, report=stop_at(6))
    assert (tmp_path / "state.pt").is_file()
    assert not (tmp_path / "model.safetensors").exists()
    steps: list[int] = []
    torch.manual_seed(123)  # the global generator must not matter
    resumed = pretrain(corpus, network, tmp_path, SHORT, report=lambda record: steps.append(record["step"]))
    assert min(steps) == 6, "went on from the state of step 4"
    assert same_weights(resumed, finished[0])
    assert not (tmp_path / "state.pt").exists()
    last, unbroken = records(tmp_path)[-1], records(finished[1])[-1]
    assert {k: v for k, v in last.items() if k.startswith("validation")} == {
        k: v for k, v in unbroken.items() if k.startswith("validation")
    }


def test_two_runs_with_one_seed_agree_and_another_seed_differs(
    corpus: Corpus, network: ScDiVaConfig, finished: tuple, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    again = pretrain(corpus, network, tmp_path / "again", SHORT)
    assert same_weights(again, finished[0])
    other = pretrain(corpus, network, tmp_path / "other", replace(SHORT, seed=1))
    assert not torch.allclose(other.gene_head.weight, again.gene_head.weight, atol=1e-4)


def test_training_leaves_the_global_generators_alone(corpus: Corpus, network: ScDiVaConfig, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    pretrain(corpus, network, tmp_path, replace(SHORT, steps=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("changes", [{"learning_rate": 1e-4}, {"steps": 99}, {"seed": 4}])
def test_a_run_does_not_resume_with_other_settings(
    corpus: Corpus, network: ScDiVaConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(Stopped):
        pretrain(corpus, network, tmp_path, SHORT, report=stop_at(6))
    with pytest.raises(CheckpointError, match="holds an unfinished run with other settings") as caught:
        pretrain(corpus, network, tmp_path, replace(SHORT, **changes))
    assert "another folder" in caught.value.hint
    with pytest.raises(CheckpointError, match="other settings"):
        pretrain(corpus, replace(network, dropout=0.5), tmp_path, SHORT)


def test_the_log_tells_the_run(finished: tuple) -> None:
    lines = records(finished[1])
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert {line["step"] for line in lines} == {6, 12}
    terms = {"identity", "value", "total", "expression", "annotation", "kl"}
    training = next(line for line in lines if "total" in line)
    validation = next(line for line in lines if "validation_total" in line)
    assert terms <= set(training)
    assert {f"validation_{name}" for name in terms} <= set(validation)
    for line in lines:
        assert {"step", "seconds", "cells_per_second", "learning_rate"} <= set(line)
        assert all(np.isfinite(value) for value in line.values())
    settings = SHORT
    expected = training["identity"] + 10 * training["value"]
    expected += settings.expression_weight * training["expression"] + settings.kl_weight * training["kl"]
    assert training["total"] == pytest.approx(expected, rel=1e-3)
    assert training["annotation"] == 0, "nothing is labelled"


def test_learning_rate_warms_up_and_falls_to_a_tenth(corpus: Corpus, network: ScDiVaConfig, tmp_path: Path) -> None:
    pretrain(corpus, network, tmp_path, replace(SHORT, steps=20, warmup_steps=4, validate_every=1, validation_cells=2))
    rates = {line["step"]: line["learning_rate"] / SHORT.learning_rate for line in records(tmp_path)}
    assert [rates[step] for step in (1, 2, 3, 4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    falling = [rates[step] for step in range(5, 21)]
    assert falling == sorted(falling, reverse=True)
    expected = [0.1 + 0.9 * (1 + np.cos(np.pi * k / 16)) / 2 for k in range(16)]
    assert falling == pytest.approx(expected)


def test_the_checkpoint_opens_like_any_other(finished: tuple, corpus: Corpus) -> None:
    trained, folder = finished
    loaded = ScDiVaModel.from_pretrained(folder)
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, trained.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert loaded.vocabulary.tokens == corpus.vocabulary.tokens
    assert loaded.has_entropy
    assert np.array_equal(loaded.tokenizer.entropy, corpus.entropy)
    assert loaded.card["name"] == "short"
    told = loaded.card["training"]
    assert (told["steps"], told["cells_seen"], told["seed"], told["device"]) == (12, 192, 0, "cpu")
    assert told["settings"]["batch_size"] == 16
    assert [data["name"] for data in told["datasets"]] == ["kang2018", "zheng2017"]
    assert told["validation"]["validation_total"] > 0
    assert not trained.training


def test_a_vocabulary_of_another_size_is_refused(corpus: Corpus, network: ScDiVaConfig, tmp_path: Path) -> None:
    wrong = replace(network, vocab_size=network.vocab_size + 1)
    with pytest.raises(CheckpointError, match=f"{len(corpus.vocabulary):,} tokens, the configuration"):
        pretrain(corpus, wrong, tmp_path / "out", SHORT)
    assert not (tmp_path / "out").exists()


def test_without_latent_head_only_the_published_loss_is_left(
    corpus: Corpus, network: ScDiVaConfig, tmp_path: Path
) -> None:
    plain = replace(network, heads=())
    pretrain(corpus, plain, tmp_path, replace(SHORT, steps=2, expression_weight=0.0))
    training = records(tmp_path)[0]
    assert "expression" not in training
    assert training["total"] == pytest.approx(training["identity"] + 10 * training["value"], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"save_every": 0}, "save_every is 0"),
        ({"thinned_share": 1.5}, r"thinned_share is 1\.5"),
        ({"visible_share": -0.1}, r"visible_share is -0\.1"),
        ({"short_share": 2}, "short_share is 2"),
        ({"balance": 1.01}, r"balance is 1\.01"),
        ({"label_smoothing": -1}, "label_smoothing is -1"),
        ({"finish_cells": 0}, "finish_cells is 0"),
        ({"finish_steps": -1}, "finish_steps is -1"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PretrainSettings(**changes)


BARE = """
import importlib.metadata as metadata
import re, sys
from importlib.machinery import PathFinder

def closure(names):
    found, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            found.add(name)
            waiting += [re.match(r"[A-Za-z0-9._-]+", need)[0] for need in needs if "extra ==" not in need]
    return found

kept = closure(["torch", "numpy", "safetensors"])
owners = metadata.packages_distributions()
blocked = {
    package
    for package, distributions in owners.items()
    if not kept & {re.sub(r"[-_.]+", "-", name).lower() for name in distributions}
}
assert {"scipy", "pandas", "anndata", "h5py", "scanpy", "sklearn"} <= blocked

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in blocked
        return None if absent else super().find_spec(name, path, target)

sys.meta_path = [finder for finder in sys.meta_path if "Builtin" in str(finder) or "Frozen" in str(finder)]
sys.meta_path.append(Bare)
import scdiva_core.training.pretrain
from scdiva_core.cli import main
code = main(["pretrain", sys.argv[1], "-o", sys.argv[2], "--steps", "2", "--batch-size", "8", "--device", "cpu",
             "--hidden-size", "16", "--num-layers", "1", "--num-heads", "2", "--intermediate-size", "16",
             "--finish-cells", "8", "--finish-steps", "2"])
assert code == 0, code
assert not blocked & {name.partition(".")[0] for name in sys.modules}
"""


def test_training_needs_only_torch_numpy_and_safetensors(corpus_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BARE, str(corpus_folder), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out")
    assert ScDiVaModel.from_pretrained(tmp_path / "out").card["training"]["steps"] == 2


def test_a_configuration_without_the_heads_that_the_loss_reads_is_refused(
    corpus: Corpus, network: ScDiVaConfig, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="lacks: batch_integration, latent"):
        pretrain(corpus, replace(network, heads=()), tmp_path, SHORT)


def test_a_damaged_state_says_what_to_do(corpus: Corpus, network: ScDiVaConfig, tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read.*Delete it to begin anew"):
        pretrain(corpus, network, tmp_path, SHORT)


def test_the_log_of_a_resumed_run_says_nothing_twice(corpus: Corpus, network: ScDiVaConfig, tmp_path: Path) -> None:
    often = replace(SHORT, validate_every=3)
    with pytest.raises(Stopped):
        pretrain(corpus, network, tmp_path, often, report=stop_at(6))
    assert [record["step"] for record in records(tmp_path)] == [3, 6]
    pretrain(corpus, network, tmp_path, often)
    steps = [record["step"] for record in records(tmp_path) if "validation_total" in record]
    assert steps == [3, 6, 9, 12]
