"""The image's recipe, followed without a container: what it copies is enough to start, and its health check sees it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def command(instruction: str) -> list[str]:
    """Words of an instruction in its JSON form."""
    return json.loads(re.search(rf"{instruction} .*?(\[.*\])", RECIPE)[1])


def here(words: list[str], port: int) -> list[str]:
    """The same with this interpreter and another port."""
    return [sys.executable if word == "python" else word.replace("8501", str(port)) for word in words]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with what the recipe copies, and nothing else."""
    folder = tmp_path / "image"
    folder.mkdir()
    for source, target in re.findall(r"^COPY (\S+) (\S+)$", RECIPE, re.MULTILINE):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, folder / target)
    return folder


def test_what_is_copied_starts_and_is_found_healthy(image: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check = here(command("HEALTHCHECK"), port)
    environment = {**os.environ, "SCDIVA_HOME": str(tmp_path / "home"), "SCDIVA_DATA_ROOT": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    words = here(command("ENTRYPOINT"), port)
    assert "--server.address=0.0.0.0" in words
    words[words.index("--server.address=0.0.0.0")] = "--server.address=127.0.0.1"
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0, "nothing answers yet"
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen(words, cwd=image, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(150):
            if subprocess.run(check, capture_output=True, check=False).returncode == 0:
                break
            assert child.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        else:
            pytest.fail((tmp_path / "log").read_text())
    finally:
        child.terminate()
        child.wait(timeout=20)


def test_what_is_left_out_of_the_context_is_what_is_not_copied() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for line in re.findall(r"^COPY (.+) \S+$", RECIPE, re.MULTILINE) for source in line.split()}
    assert kept == copied


@pytest.mark.parametrize(("torch", "code"), [("cuda", 0), ("tpu", 2)])
def test_a_build_argument_that_means_nothing_ends_the_build(torch: str, code: int, tmp_path: Path) -> None:
    script = re.search(r"^RUN (case .*? esac)", RECIPE, re.MULTILINE)[1]
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env={**os.environ, "TORCH": torch}, check=False)
    assert done.returncode == code
