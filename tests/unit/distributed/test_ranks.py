"""Two processes that train together end where one does; what one of them suffers, the other does not hide."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.prepare import prepare
from scdiva_core.data.studies import Studies
from scdiva_core.errors import JobError
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.training.pretrain import pretrain
from scdiva_core.training.ranks import ALONE, Ranks, join_ranks
from scdiva_core.training.settings import PretrainSettings
from tests.labelled_corpus import write_labelled_files, write_tables

ROOT = Path(__file__).resolve().parents[3]
SIZES = "--hidden-size 16 --num-layers 1 --num-heads 2 --intermediate-size 16 --max-genes 30".split()
# 7 cells of 4 and 3 rows; so few targets' identities are scored that which ones they are matters.
SETTINGS = PretrainSettings(
    steps=12,
    batch_size=7,
    warmup_steps=2,
    validate_every=6,
    save_every=4,
    validation_cells=20,
    max_identity_targets=9,
    finish_cells=32,
    finish_steps=2,
)
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from scdiva_core.data.corpus import Corpus
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.training.pretrain import pretrain
from scdiva_core.training.ranks import join_ranks
from scdiva_core.training.settings import PretrainSettings

corpus, config, settings, out = sys.argv[1:]
ranks, device = join_ranks("cpu")
if ranks.number:
    torch.manual_seed(99)
config, settings = ScDiVaConfig.from_dict(json.loads(config)), PretrainSettings(**json.loads(settings))
model = pretrain(Corpus(corpus), config, Path(out), settings, device=device, ranks=ranks)
if ranks.is_first:
    torch.save(model.state_dict(), Path(out) / "whole.pt")
"""

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def torchrun(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT, **pipes, **options)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny corpus with labelled and unlabelled cells."""
    made = tmp_path_factory.mktemp("ranks")
    tables = Studies.read(write_tables(made / "tables"))
    prepare(write_labelled_files(made), made / "corpus", studies=tables, min_cells=20, shard_cells=60)
    return made / "corpus"


def configuration(corpus: Corpus) -> ScDiVaConfig:
    return ScDiVaConfig(
        vocab_size=len(corpus.vocabulary),
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        intermediate_size=16,
        value_head_size=16,
        max_genes=30,
        dropout=0.0,
        pad_id=0,
        mask_id=1,
        pad_fill_id=2,
        bos_id=3,
        eos_id=4,
        heads=("latent", "annotation", "batch_integration"),
        latent_pooling="anchor+tokens",
        num_cell_types=len(corpus.classes),
    )


def test_two_processes_end_where_one_does(folder: Path, tmp_path: Path) -> None:
    corpus = Corpus(folder)
    config = configuration(corpus)
    (tmp_path / "train.py").write_text(SCRIPT)
    plain = json.dumps(asdict(config)), json.dumps(asdict(SETTINGS))
    process = torchrun(tmp_path / "train.py", folder, *plain, tmp_path / "two")
    alone = pretrain(corpus, config, tmp_path / "one", SETTINGS)
    said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    whole = torch.load(tmp_path / "two" / "whole.pt", weights_only=True)
    for name, weight in alone.state_dict().items():
        torch.testing.assert_close(
            whole[name], weight, rtol=0, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        timings = {"seconds", "cells_per_second"}
        assert {k: v for k, v in second.items() if k not in timings} == pytest.approx(
            {k: v for k, v in first.items() if k not in timings}, abs=1e-4
        )
    assert {"total", "annotation", "validation_total", "finish_alignment"} <= {name for line in one for name in line}


def command(folder: Path, out: Path) -> list[str]:
    options = ["pretrain", str(folder), "-o", str(out), *SIZES, "--device", "cpu", "--batch-size", "8"]
    return options + "--steps 150 --save-every 5 --validate-every 150 --finish-cells 16 --finish-steps 2".split()


@pytest.fixture(scope="module")
def killed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.Popen[str], str, str]:
    """Folder of a run of two processes, the second of which was killed, its end and what it said."""
    out = tmp_path_factory.mktemp("killed") / "out"
    process = torchrun("-m", "scdiva_core", *command(folder, out))
    while not (out / "state.pt").is_file() and process.poll() is None:
        time.sleep(0.05)
    second = [child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1"]
    second[0].send_signal(signal.SIGKILL)
    return out, process, *process.communicate(timeout=100)


def test_a_process_that_dies_ends_the_others(killed: tuple[Path, subprocess.Popen[str], str, str]) -> None:
    out, process, printed, told = killed
    assert process.returncode != 0
    assert printed == ""
    assert "Signal 9 (SIGKILL)" in told
    assert 5 <= torch.load(out / "state.pt", weights_only=True)["step"] < 150
    assert not (out / "model.safetensors").exists()


def test_the_same_command_goes_on_and_the_first_process_alone_speaks(
    folder: Path, killed: tuple[Path, subprocess.Popen[str], str, str], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(killed[0], tmp_path / "out"))
    saved = torch.load(out / "state.pt", weights_only=True)["step"]
    process = torchrun("-m", "scdiva_core", *command(folder, out))
    printed, told = process.communicate(timeout=100)
    assert process.returncode == 0, told
    assert printed == f"{out}\n"
    said = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    expected = [step for step in range(50, 151, 50) if step > saved]
    assert [line["step"] for line in said] == [*expected, 150, 150, 150], "training, validation, the heads, validation"
    assert records(out)[-len(said) :] == said
    assert (out / "model.safetensors").is_file()


def test_without_torchrun_there_is_one_process() -> None:
    assert join_ranks("cpu") == (ALONE, "cpu")
    assert (ALONE.is_first, ALONE.is_alone, ALONE.rows(7)) == (True, True, slice(0, 7))


@pytest.mark.parametrize(("size", "count"), [(7, 2), (32, 5), (3, 3)])
def test_every_row_belongs_to_one_process(size: int, count: int) -> None:
    rows = [Ranks(number, count).rows(size) for number in range(count)]
    assert [row for part in rows for row in range(size)[part]] == list(range(size))
    lengths = [part.stop - part.start for part in rows]
    assert max(lengths) - min(lengths) <= 1


def test_more_processes_than_cells_in_a_batch(folder: Path, tmp_path: Path) -> None:
    corpus = Corpus(folder)
    config = configuration(corpus)
    with pytest.raises(JobError, match="There are 9 processes, but 7 cells in a batch"):
        pretrain(corpus, config, tmp_path / "out", SETTINGS, ranks=Ranks(3, 9))
    assert not (tmp_path / "out").exists()
