"""Prepared files are served from disk to who knows their address, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from pages._ui.downloads import address, download_routes, new_export


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path))
    return TestClient(Starlette(routes=download_routes()))


def test_an_export_is_sent_under_its_name(client: TestClient) -> None:
    export = new_export("my cells.h5ad")
    export.write_bytes(b"content")
    reply = client.get(address(export))
    assert reply.content == b"content"
    assert "my%20cells.h5ad" in reply.headers["content-disposition"]


@pytest.mark.parametrize("path", ["0" * 32 + "/x.h5ad", "../uploads", "%2e%2e/x", "0" * 32 + "/%2e%2e%2fsecret"])
def test_nothing_else_is_sent(client: TestClient, tmp_path: Path, path: str) -> None:
    (tmp_path / "exports" / ("0" * 32)).mkdir(parents=True)
    (tmp_path / "exports" / "secret").write_text("secret", encoding="utf-8")
    assert client.get(f"/api/download/{path}").status_code == 404
