"""A scheduler and four workers, started by the commands that the README gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from distributed import Client

from tests.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[3]


def start_scheduler(log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a scheduler on a free port; its process and address."""
    process = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", log=log)
    while process.poll() is None:
        found = re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text())
        if found:
            return process, found[1]
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(log.read_text())


def start(*arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a dask process in the checkout."""
    command = [sys.executable, "-m", "dask", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that `start` started, and what it started."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a scheduler with four workers of one thread each."""
    folder = tmp_path_factory.mktemp("cluster")
    process, address = start_scheduler(folder / "scheduler.log")
    sizes = ["--nthreads", "1", "--nworkers", "4", "--no-dashboard"]
    workers = start("worker", address, *sizes, "--local-directory", str(folder), log=folder / "workers.log")
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(4, timeout=100)
        client.run(import_module, "scdiva_core.distributed.worker")  # a second or two each
    yield address
    stop(workers)
    stop(process)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained network over the genes of PBMC 3k, without entropies."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))
