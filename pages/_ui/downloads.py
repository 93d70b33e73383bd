"""Large results, streamed from disk: ``GET /api/download/{token}/{name}`` beside the Streamlit app.

Streamlit's download button reads the whole file into memory and keeps it while the user is connected. Here a
result lies in ``exports/<token>/`` below `home`; whoever was told the random token may fetch it, for a day.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import streamlit as st
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from scdiva_core.store import home

_TOKEN = re.compile(r"[0-9a-f]{32}")
_STALE_SECONDS = 24 * 3600


def download_routes() -> list[Route]:
    """Routes for ``st.App(..., routes=download_routes())``."""
    return [Route("/api/download/{token}/{name}", _send, methods=["GET"])]


def new_export(name: str) -> Path:
    """Path in a folder of its own where a result can be written; exports of yesterday are removed.

    Parameters
    ----------
    name
        What the browser shall call it.
    """
    folder = home() / "exports"
    folder.mkdir(mode=0o700, exist_ok=True)
    for old in folder.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    place = folder / secrets.token_hex(16)
    place.mkdir(mode=0o700)
    return place / name


def address(export: Path) -> str:
    """URL of a finished export, from the server's root."""
    return from_root(f"/api/download/{export.parent.name}/{quote(export.name)}")


def from_root(path: str) -> str:
    """URL of a route of ours, below the path that the app is mounted at."""
    base = st.get_option("server.baseUrlPath").strip("/")
    return f"/{base}{path}" if base else path


async def _send(request: Request) -> Response:
    token, name = request.path_params["token"], request.path_params["name"]
    path = home() / "exports" / token / name
    # Neither part may lead out of the folder: the token is hexadecimal, and the name is that of a direct child.
    if not _TOKEN.fullmatch(token) or Path(name).name != name or not path.is_file():
        return PlainTextResponse("This download is no longer there. Prepare it again in the app.", 404)
    return FileResponse(path, media_type="application/octet-stream", filename=name)
