"""A drop zone that sends a file to the upload route, with progress and cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from pages._ui.upload import TOKEN_HEADER, label, max_upload_bytes, uploaded_path

_HERE = Path(__file__).parent
_component = st.components.v2.component(
    "scdiva_uploader",
    html=(_HERE / "uploader.html").read_text(encoding="utf-8"),
    css=(_HERE / "uploader.css").read_text(encoding="utf-8"),
    js=(_HERE / "uploader.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True)
class UploadResult:
    """A file that was uploaded.

    Attributes
    ----------
    sha256
        Hash of its bytes.
    name
        What it was called in the browser; for showing only.
    size
        In bytes.
    path
        Where it lies on the server.
    """

    sha256: str
    name: str
    size: int
    path: Path


def uploader(key: str, token: str) -> UploadResult | None:
    """Show the drop zone; return the last file it uploaded, None before that and after an error.

    Errors and cancellation are told in the zone itself; ``st.session_state[key]["result"]`` then
    holds ``{"error", "hint"}``.

    Parameters
    ----------
    key
        Of the widget.
    token
        `pages._ui.upload.upload_token`.

    Raises
    ------
    PathError
        If the file has been removed from the server since.
    """
    data = {"token": token, "header": TOKEN_HEADER, "maxBytes": max_upload_bytes()}
    reply = _component(key=key, data=data, on_result_change=lambda: None).result
    # The reply comes from a browser: only its hash and name are used, and both are checked.
    if not isinstance(reply, Mapping) or "sha256" not in reply:
        return None
    sha256 = str(reply["sha256"])
    path = uploaded_path(sha256)
    return UploadResult(sha256, label(str(reply.get("name", ""))), path.stat().st_size, path)
