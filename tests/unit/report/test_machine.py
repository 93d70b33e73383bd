"""What a report says of data, checkpoint, versions and machine."""

from __future__ import annotations

import platform
import socket
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from scdiva_core.engine import Engine
from scdiva_core.report import machine
from scdiva_core.store import ResultStore


def test_versions_are_those_that_are_installed() -> None:
    found = dict(machine.versions())
    assert found["Python"] == platform.python_version()
    assert found["torch"] == version("torch")
    assert {"numpy", "umap-learn", "leidenalg", "anndata"} <= set(found)


def test_the_number_of_threads_is_told_and_no_name_of_machine_or_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    found = dict(machine.machine("cpu"))
    assert found["Threads"] == f"{torch.get_num_threads()} (OMP_NUM_THREADS=5)"
    assert found["Device"] == "cpu"
    assert socket.gethostname() not in " ".join(found.values())
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert dict(machine.machine("cpu"))["Threads"] == str(torch.get_num_threads())


def test_file_and_weights_are_told_by_their_fingerprints(
    tiny_checkpoint: Path, small_h5ad: Path, tmp_path: Path
) -> None:
    engine = Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path))
    with engine.open(small_h5ad) as cells:
        data = dict(machine.data_facts(cells))
    assert data["File"] == small_h5ad.name
    assert data["SHA-256"] == sha256(small_h5ad.read_bytes()).hexdigest()
    assert data["Size"] == f"{small_h5ad.stat().st_size:,} bytes"
    assert (data["Cells"], data["Matrix"], data["Values taken for"]) == ("160", "X", "counts")
    checkpoint = dict(machine.checkpoint_facts(engine.card()))
    assert checkpoint["Name"] == "tiny"
    assert checkpoint["SHA-256"] == engine.card().sha256
    assert checkpoint["Seed of training"] == "7"
