"""The upload route: to disk by content hash, for this server's own page, leaving nothing when it fails."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from pages._ui.upload import (
    HDF5_SIGNATURE,
    TOKEN_HEADER,
    max_upload_bytes,
    upload_routes,
    upload_token,
    uploaded_path,
    uploads_folder,
)
from scdiva_core.errors import PathError, ScDiVaError

FILE = HDF5_SIGNATURE + bytes(range(256)) * 5000  # more than a block
SHA256 = hashlib.sha256(FILE).hexdigest()


@pytest.fixture(autouse=True)
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path))
    monkeypatch.delenv("SCDIVA_MAX_UPLOAD_GB", raising=False)
    return tmp_path / "uploads"


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=upload_routes()), base_url="http://localhost:8501")


def put(client: TestClient, name: str = "cells.h5ad", content: Any = FILE, **headers: str) -> Any:
    sent = {TOKEN_HEADER: upload_token(), "Origin": "http://localhost:8501", **headers}
    return client.put(f"/api/upload/{name}", content=content, headers=sent)


def left(uploads: Path) -> list[str]:
    return sorted(path.name for path in uploads.iterdir())


def test_a_file_is_stored_by_its_hash(client: TestClient, uploads: Path) -> None:
    reply = put(client)
    assert reply.status_code == 201
    assert reply.json() == {"sha256": SHA256, "name": "cells.h5ad", "size": len(FILE)}
    assert left(uploads) == [f"{SHA256}.h5ad"]
    assert uploaded_path(SHA256).read_bytes() == FILE
    assert uploaded_path(SHA256).stat().st_mode & 0o777 == 0o600
    assert uploads.stat().st_mode & 0o777 == 0o700


def test_the_same_file_twice_is_one_file(client: TestClient, uploads: Path) -> None:
    assert put(client, "one.h5ad").json()["sha256"] == put(client, "two.h5ad").json()["sha256"]
    assert left(uploads) == [f"{SHA256}.h5ad"]


@pytest.mark.parametrize("size", [8, 9, 1 << 20, (1 << 20) + 8, 3_000_001])
@pytest.mark.parametrize("chunk", [3, 65_536, 2 << 20])
def test_any_size_in_any_chunks_arrives_whole(client: TestClient, size: int, chunk: int) -> None:
    if chunk == 3:
        size = min(size, 3_001)
    content = (HDF5_SIGNATURE + os.urandom(1000) * (size // 1000 + 1))[:size]
    pieces = (content[start : start + chunk] for start in range(0, size, chunk))
    reply = put(client, content=pieces)
    assert reply.json()["size"] == size
    assert uploaded_path(hashlib.sha256(content).hexdigest()).read_bytes() == content


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("..%2f..%2fx", "x"),
        ("..%5c..%5cx.h5ad", "x.h5ad"),
        ("%2e%2e", "upload.h5ad"),
        ("a%00b%09%1b[31m.h5ad", "ab[31m.h5ad"),
        ("C:%5Cdata%5Cmy cells.h5ad", "my cells.h5ad"),
        ("%E7%B4%B0%E8%83%9E.h5ad", "細胞.h5ad"),
        ("%3Cimg src=x onerror=alert(1)%3E.h5ad", "<img src=x onerror=alert(1)>.h5ad"),
        ("n" * 5000, "n" * 200),
    ],
)
def test_a_name_is_a_label_and_never_a_place(client: TestClient, uploads: Path, name: str, shown: str) -> None:
    reply = put(client, name)
    assert reply.status_code == 201
    assert reply.json()["name"] == shown
    assert left(uploads) == [f"{SHA256}.h5ad"]
    assert left(uploads.parent) == ["uploads"]


@pytest.mark.parametrize(
    "content", [b"", b"\x89HD", b"\x1f\x8b gzip", b"PK\x03\x04" * 10], ids=["empty", "short", "gz", "zip"]
)
def test_what_is_no_hdf5_file_is_refused(client: TestClient, uploads: Path, content: bytes) -> None:
    reply = put(client, content=content)
    assert reply.status_code == 415
    assert reply.json()["error"].startswith("This is not an .h5ad file: it ")
    assert "write_h5ad" in reply.json()["hint"]
    assert left(uploads) == []


def test_a_wrong_file_is_refused_before_it_is_read_to_its_end(client: TestClient, uploads: Path) -> None:
    reads = 0

    async def body() -> Any:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b"not hdf5" * 8192, "more_body": True}

    sent = call(client.app, body)
    assert sent[0]["status"] == 415
    assert reads == 1
    assert left(uploads) == []


def call(app: Any, receive: Any) -> list[dict[str, Any]]:
    """One PUT straight into the application, with a body that the test controls."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (TOKEN_HEADER.lower().encode(), upload_token().encode())]
    path = "/api/upload/x.h5ad"
    scope = {"type": "http", "method": "PUT", "path": path, "headers": headers, "query_string": b""}
    asyncio.run(app({**scope, "raw_path": path.encode(), "http_version": "1.1"}, receive, send))
    return sent


def test_a_file_that_says_it_is_too_large_is_refused(
    client: TestClient, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCDIVA_MAX_UPLOAD_GB", "0.001")
    reply = put(client)
    assert reply.status_code == 413
    assert reply.json()["error"] == "The file has 0.00 GB or more; the limit is 0.00 GB."
    assert "SCDIVA_MAX_UPLOAD_GB" in reply.json()["hint"]
    assert left(uploads) == []


def test_a_file_that_grows_too_large_is_refused(
    client: TestClient, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCDIVA_MAX_UPLOAD_GB", "0.001")
    assert put(client, content=iter([FILE])).status_code == 413  # no Content-Length
    assert left(uploads) == []


def test_a_file_that_does_not_fit_on_the_disk_is_refused(
    client: TestClient, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCDIVA_MAX_UPLOAD_GB", "1e9")
    reply = put(client, **{"Content-Length": str(shutil.disk_usage(uploads).free)})
    assert reply.status_code == 507
    assert "are free for uploads" in reply.json()["error"]
    assert "Free space" in reply.json()["hint"]
    assert left(uploads) == []


@pytest.mark.parametrize("token", ["", "wrong", "ü", None])
def test_without_the_token_nothing_is_stored(client: TestClient, uploads: Path, token: str | None) -> None:
    headers = {} if token is None else {TOKEN_HEADER: token.encode()}
    reply = client.put("/api/upload/x.h5ad", content=FILE, headers=headers)
    assert reply.status_code == 403
    assert reply.json()["error"] == "The upload does not carry this server's token."
    assert "Reload the page" in reply.json()["hint"]
    assert left(uploads) == []


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost:9999",
        "http://localhost",
        "null",
        "http://localhost:8501.evil",
    ],
)
def test_another_website_cannot_upload_even_with_the_token(client: TestClient, uploads: Path, origin: str) -> None:
    reply = put(client, Origin=origin)
    assert reply.status_code == 403
    assert "another address" in reply.json()["error"]
    assert left(uploads) == []


def test_a_program_without_origin_may_upload_with_the_token(client: TestClient) -> None:
    reply = client.put("/api/upload/x.h5ad", content=FILE, headers={TOKEN_HEADER: upload_token()})
    assert reply.status_code == 201


def test_only_put_is_served(client: TestClient) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert client.request(method, "/api/upload/x.h5ad").status_code == 405


def test_the_token_is_long_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(upload_token()) >= 32
    assert upload_token() == upload_token()


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", "a" * 64, "A" * 64])
def test_what_was_not_uploaded_has_no_path(sha256: str) -> None:
    with pytest.raises(PathError, match="There is no upload .*Upload the file again"):
        uploaded_path(sha256)


@pytest.mark.parametrize("limit", ["20 GB", "-1", "0", "nan", "inf"])
def test_a_limit_that_is_no_number_says_so(client: TestClient, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setenv("SCDIVA_MAX_UPLOAD_GB", limit)
    with pytest.raises(ScDiVaError, match="not a number of gigabytes"):
        max_upload_bytes()
    assert put(client).status_code == 500
    assert put(client).json()["error"].startswith("SCDIVA_MAX_UPLOAD_GB is")


def test_the_default_limit_is_twenty_gigabytes() -> None:
    assert max_upload_bytes() == 20_000_000_000


def test_what_a_killed_server_left_is_removed_after_a_day(uploads: Path) -> None:
    folder = uploads_folder()
    old, new = folder / ".upload-old.part", folder / ".upload-new.part"
    for path in (old, new):
        path.write_bytes(HDF5_SIGNATURE)
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    upload_routes()
    assert left(uploads) == [".upload-new.part"]


@pytest.fixture
def port() -> Iterator[int]:
    """Port of a real server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # so that a test may connect before the server has started
        config = uvicorn.Config(Starlette(routes=upload_routes()), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def test_an_aborted_upload_leaves_nothing(port: int, uploads: Path) -> None:
    head = (
        f"PUT /api/upload/x.h5ad HTTP/1.1\r\nHost: localhost\r\n"
        f"{TOKEN_HEADER}: {upload_token()}\r\nContent-Length: {10 * len(FILE)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + FILE)
        wait_for(lambda: any(path.stat().st_size for path in uploads.iterdir()))
        assert left(uploads)[0].endswith(".part")
    wait_for(lambda: left(uploads) == [])


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
