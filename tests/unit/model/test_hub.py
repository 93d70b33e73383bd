"""Checkpoints through a real hub client, from a small server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel

ROOT = Path(__file__).resolve().parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

LOAD = """
import json, sys
from scdiva_core.errors import ScDiVaError
from scdiva_core.model.network import ScDiVaModel
for name in sys.argv[1:]:
    try:
        model = ScDiVaModel.from_pretrained(name)
        print(json.dumps({"sha256": model.sha256, "genes": len(model.vocabulary), "card": model.card}))
    except ScDiVaError as error:
        print(json.dumps({"error": type(error).__name__, "message": error.message, "hint": error.hint}))
"""


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories: the list of files, and each file with its hash."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.requests: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def _answer(self, *, with_body: bool) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append(f"{self.command} {path}")
        for name, folder in self.server.repositories.items():
            if path == f"/api/models/{name}":
                files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                content = json.dumps({"id": name, "sha": COMMIT, "siblings": files}).encode()
                return self._send(content, {"Content-Type": "application/json"}, with_body)
            prefix = f"/{name}/resolve/main/"
            if path.startswith(prefix) and (folder / path.removeprefix(prefix)).is_file():
                file = folder / path.removeprefix(prefix)
                headers = {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
                return self._send(file.read_bytes(), headers, with_body)
        error = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        return self._send(b'{"error": "Repository not found"}', error, with_body, status=404)

    def _send(self, body: bytes, headers: dict[str, str], with_body: bool, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _digest(file: Path) -> str:
    """A name for this content; hashing half a gigabyte for each request would take longer than sending it."""
    stat = file.stat()
    return hashlib.sha1(f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()


@contextmanager
def hub(repositories: dict[str, Path]) -> Iterator[Hub]:
    server = Hub(repositories)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(code: str, endpoint: str, cache: Path, *arguments: str, **environment: str) -> str:
    """Run code in a fresh process: the hub's client reads its environment when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "no_proxy": "*", **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(endpoint: str, cache: Path, *names: str, **environment: str) -> list[dict]:
    """Load checkpoints one after the other; what each of them is, or why it was refused."""
    return [json.loads(line) for line in run(LOAD, endpoint, cache, *names, **environment).splitlines()[-len(names) :]]


def test_checkpoint_is_fetched_once_and_then_survives_without_the_hub(tiny_checkpoint: Path, tmp_path: Path) -> None:
    expected = hashlib.sha256((tiny_checkpoint / "model.safetensors").read_bytes()).hexdigest()
    cache = tmp_path / "cache"
    with hub({"owner/tiny": tiny_checkpoint}) as server:
        first, second = load(server.endpoint, cache, "owner/tiny", "owner/tiny")
        fetched = [line for line in server.requests if line.startswith("GET") and "/resolve/" in line]
    assert first == second
    assert first["sha256"] == expected
    assert first["card"]["name"] == "tiny"
    assert len(fetched) == len(set(fetched)) == 5, "the second time nothing is"
    kept, absent = load(server.endpoint, cache, "owner/tiny", "owner/never-fetched")
    assert kept == first, "the server is gone, the copy is not"
    assert absent["error"] == "HubError"
    assert "could not be reached for 'owner/never-fetched'" in absent["message"]
    assert "folder's path" in absent["hint"]
    assert load(server.endpoint, cache, "owner/tiny", HF_HUB_OFFLINE="1") == [first]


def test_only_the_files_of_a_checkpoint_are_fetched_and_what_is_none_is_refused(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    names = ("full", "empty", "bare")
    repositories = {f"owner/{name}": tmp_path / name for name in names}
    for folder in repositories.values():
        folder.mkdir()
    full, empty, bare = repositories.values()
    for file in tiny_checkpoint.iterdir():
        (full / file.name).symlink_to(file)
    for name in ("training_data.h5ad", "modeling.py", "pytorch_model.bin"):
        (full / name).write_bytes(b"never wanted")
    labels = {"ids": list("abcdef"), "names": list("ABCDEF"), "temperature": 1}
    (full / "labels.json").write_text(json.dumps(labels))
    (empty / "README.md").write_text("# Soon")
    (empty / "vocab.json").write_text('["<pad>", "A"]')
    for name in ("model.safetensors", "config.json"):
        (bare / name).symlink_to(tiny_checkpoint / name)

    with hub(repositories) as server:
        found = load(server.endpoint, tmp_path / "cache", *repositories, "owner/absent")
        fetched = {line.rpartition("/")[2] for line in server.requests if "owner/full/resolve/" in line}

    assert "sha256" in found[0]
    assert fetched == {"labels.json", *(file.name for file in tiny_checkpoint.iterdir())}
    assert [refused["error"] for refused in found[1:]] == ["HubError", "VocabularyError", "HubError"]
    assert found[1]["message"] == "owner/empty holds no weights among its 2 files."
    assert "model.safetensors" in found[1]["hint"]
    assert "vocabulary is missing" in found[2]["message"]
    assert "no repository 'owner/absent'" in found[3]["message"]
    assert "spelling" in found[3]["hint"]


# The model card's quick-start, line for line but for the first import.
QUICK_START = """
import torch
from scdiva_core.model.network import ScDiVaModel

model = ScDiVaModel.from_pretrained("warming666/ScDiVa")
model.eval()

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model.to(device)

input_data = torch.randn(2, 41818).to(device)

with torch.no_grad():
    embeddings = model.encode(input_data)
    print(embeddings['latent'].shape)
    predictions = model.predict(input_data, task="annotation")
    print(predictions.shape)
"""


@pytest.fixture
def one_layer(tmp_path: Path) -> Iterator[Path]:
    """A checkpoint of the published genes and width in one layer, its weights drawn on purpose; removed afterwards."""
    folder = tmp_path / "ScDiVa"
    model = ScDiVaModel(ScDiVaConfig(num_layers=1))
    genes = [f"GENE{i}" for i in range(41818 - 5)]
    model.vocabulary = GeneVocabulary(["<pad>", "<mask>", *genes, "<pad_fill>", "<bos>", "<eos>"])
    model.card = {"name": "drawn for a test", "random_weights": True}
    model.save_pretrained(folder)
    del model
    yield folder
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.stat().st_size > 1 << 20:
            file.unlink()


def test_quick_start_of_the_model_card_runs(one_layer: Path, tmp_path: Path) -> None:
    with hub({"warming666/ScDiVa": one_layer}) as server:
        printed = run(QUICK_START, server.endpoint, tmp_path / "cache")
    assert printed.splitlines() == [str(torch.Size([2, 128])), str(torch.Size([2, 100]))]
