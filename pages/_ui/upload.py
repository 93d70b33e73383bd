"""Uploads that go straight to disk: ``PUT /api/upload/{name}`` beside the Streamlit app.

Streamlit's own uploader holds the whole file in memory and does not give it back. This route keeps
a megabyte at a time. The file's name is only a label: it is stored by its content hash.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pages._ui.upload_keeping import (
    keep_days,
    note_use,
    positive,
    quota_bytes,
    remove_unused,
    tidy,
    uploads_folder,
    used,
)
from scdiva_core.errors import PathError, ScDiVaError

TOKEN_HEADER = "X-Scdiva-Upload-Token"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_TOKEN_VARIABLE = "SCDIVA_UPLOAD_TOKEN"
_BLOCK_BYTES = 1 << 20
_SPARE_BYTES = 1 << 30  # left free for results and for the rest of the machine
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UploadRefusedError(ScDiVaError):
    """An upload that is not accepted, with the HTTP status that says so."""

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.status = status


def upload_routes() -> list[Route]:
    """Routes for ``st.App(..., routes=upload_routes())``; old files are removed now and then once a day."""
    tidy()
    return [Route("/api/upload/{name:path}", _receive, methods=["PUT"])]


def upload_token() -> str:
    """Secret of this server that an upload must carry; hand it to the browser with the page.

    It lives in the environment, because Streamlit reloads modules when a source file changes and
    routes made before that must go on accepting it.
    """
    return os.environ.setdefault(_TOKEN_VARIABLE, secrets.token_urlsafe(32))


def max_upload_bytes() -> int:
    """Largest file accepted: ``SCDIVA_MAX_UPLOAD_GB`` (10^9 bytes each), 20 by default.

    Raises
    ------
    ScDiVaError
        If the variable is not a positive number.
    """
    return int(positive("SCDIVA_MAX_UPLOAD_GB", "20", "gigabytes") * 1e9)


def upload_rules() -> str:
    """What the upload tab says of limits and retention, in words.

    Raises
    ------
    ScDiVaError
        If one of the settings is not a number.
    """
    size, quota, days = _gigabytes(max_upload_bytes()), quota_bytes(), keep_days()
    together = f" All uploads share {_gigabytes(quota)}; {_gigabytes(used())} are taken." if quota else ""
    return (
        f"A file may have up to {size}.{together} "
        f"A file that nobody has opened for {days:g} days is removed; what was computed from it stays."
    )


def uploaded_path(sha256: str) -> Path:
    """File of a finished upload.

    Raises
    ------
    PathError
        If the hash is not one, or no such file was uploaded.
    """
    path = uploads_folder() / f"{sha256}.h5ad"
    if not _SHA256.fullmatch(sha256) or not path.is_file():
        message = f"There is no upload {sha256[:12]!r} on this server."
        raise PathError(message, "Upload the file again; one that is not used for long is removed.")
    note_use(path)
    return path


def label(name: str) -> str:
    """Return what may be shown of a file name that came from a browser: no folders, no control characters."""
    last = re.split(r"[/\\]", name)[-1]
    clean = "".join(character for character in last if character.isprintable()).strip(". ")
    return clean[:200] or "upload.h5ad"


async def _receive(request: Request) -> Response:
    try:
        _check_sender(request)
        _check_size(request.headers.get("content-length"))
        sha256, size = await _store(request.stream())
    except ScDiVaError as error:
        status = error.status if isinstance(error, UploadRefusedError) else 500
        return JSONResponse({"error": error.message, "hint": error.hint}, status)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    name = label(request.path_params["name"])
    return JSONResponse({"sha256": sha256, "name": name, "size": size}, 201)


def _check_sender(request: Request) -> None:
    """Refuse a page of another website: it has another origin and cannot know the token."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        message = "The upload came from a page of another address."
        hint = "Open the app at the address it is served from; a proxy in between must pass the Host header on."
        raise UploadRefusedError(403, message, hint)
    sent = request.headers.get(TOKEN_HEADER, "")
    if not hmac.compare_digest(sent.encode(), upload_token().encode()):
        message = "The upload does not carry this server's token."
        raise UploadRefusedError(403, message, "Reload the page, then upload again.")


def _check_size(content_length: str | None) -> None:
    """Refuse what will not fit before the first byte is read."""
    size = int(content_length) if content_length and content_length.isdecimal() else 0
    if size > max_upload_bytes():
        raise _too_large(size)
    _check_quota(size)
    free = shutil.disk_usage(uploads_folder()).free - _SPARE_BYTES
    if size > free:
        message = f"The file has {_gigabytes(size)}; {_gigabytes(max(free, 0))} are free for uploads."
        raise _disk_full(message)


def _check_quota(more: int) -> None:
    """Refuse what goes beyond the quota of all uploads, after those out of use have made room."""
    quota = quota_bytes()
    if quota is None or used() + more <= quota:
        return
    remove_unused()
    if (taken := used()) + more > quota:
        message = f"All uploads together may take {_gigabytes(quota)}; with this file they would take "
        message += f"{_gigabytes(taken + more)}."
        hint = f"Open the file by path instead, or set SCDIVA_UPLOAD_QUOTA_GB; after {keep_days():g} days without use "
        raise UploadRefusedError(507, message, f"{hint}a file is removed.")


async def _store(chunks: AsyncIterator[bytes]) -> tuple[str, int]:
    """Write the body below a temporary name and rename it to its hash; leave nothing otherwise."""
    folder = uploads_folder()
    descriptor, name = tempfile.mkstemp(prefix=".upload-", suffix=".part", dir=folder)
    temporary, digest, size = Path(name), hashlib.sha256(), 0

    def write(block: bytes) -> None:
        digest.update(block)
        file.write(block)

    try:
        with os.fdopen(descriptor, "wb") as file:
            async for block in _blocks(chunks):
                if size == 0:
                    _check_signature(block)
                size += len(block)
                if size > max_upload_bytes():
                    raise _too_large(size)
                await run_in_threadpool(write, block)  # hashing and the disk must not hold up the pages
                _check_quota(0)
            if size == 0:
                _check_signature(b"")
            file.flush()
            await run_in_threadpool(os.fsync, file.fileno())
        temporary.replace(folder / f"{digest.hexdigest()}.h5ad")
    except OSError as error:
        if error.errno in _FULL:
            message = f"The disk was full after {_gigabytes(size)}."
            raise _disk_full(message) from error
        message = f"The server cannot write the file ({error.strerror})."
        raise UploadRefusedError(500, message, "Check the permissions of the folder SCDIVA_HOME.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return digest.hexdigest(), size


async def _blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Join chunks to about a megabyte; the first block comes as soon as the signature is complete."""
    held = bytearray()
    wanted = len(HDF5_SIGNATURE)
    async for chunk in chunks:
        held += chunk
        if len(held) >= wanted:
            yield bytes(held)
            held.clear()
            wanted = _BLOCK_BYTES
    if held:
        yield bytes(held)


def _check_signature(start: bytes) -> None:
    if not start.startswith(HDF5_SIGNATURE):
        what = f"it begins with {start[:8]!r}" if start else "it is empty"
        message = f"This is not an .h5ad file: {what}, not with the HDF5 signature."
        hint = "Save the data with AnnData.write_h5ad. Files that are compressed (.gz, .zip) must be unpacked."
        raise UploadRefusedError(415, message, hint)


def _too_large(size: int) -> UploadRefusedError:
    message = f"The file has {_gigabytes(size)} or more; the limit is {_gigabytes(max_upload_bytes())}."
    hint = "Open it by path instead, or set SCDIVA_MAX_UPLOAD_GB on the server."
    return UploadRefusedError(413, message, hint)


def _disk_full(message: str) -> UploadRefusedError:
    return UploadRefusedError(507, message, "Free space on the server's disk, or open the file by path instead.")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
