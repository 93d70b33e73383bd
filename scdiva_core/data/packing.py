"""Bits and numbers as short text, for JSON and SQLite: zlib, then base64."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from numpy.typing import NDArray


def pack_bytes(content: bytes) -> str:
    """Compress bytes into ASCII text."""
    return base64.b64encode(zlib.compress(content)).decode("ascii")


def unpack_bytes(text: str, size: int) -> bytes:
    """Read what `pack_bytes` wrote.

    Parameters
    ----------
    text
        Perhaps from a stranger's file: no more than one byte above `size` is ever unpacked.
    size
        Number of bytes that it must hold.

    Raises
    ------
    ValueError
        The text is damaged, or holds another number of bytes.
    """
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(base64.b64decode(text), size + 1)
    except (TypeError, zlib.error) as error:
        msg = f"no packed bytes ({error})"
        raise ValueError(msg) from error
    if len(content) != size or not stream.eof:
        msg = f"{len(content)} bytes instead of {size}"
        raise ValueError(msg)
    return content


def pack_mask(mask: NDArray[np.bool_]) -> str:
    """Compress a mask of cells, bool ``[n_obs]``, one bit a cell."""
    return pack_bytes(np.packbits(mask).tobytes())


def unpack_mask(text: str, n_obs: int) -> NDArray[np.bool_]:
    """Read what `pack_mask` wrote.

    Parameters
    ----------
    text
        The packed mask.
    n_obs
        Number of cells.

    Returns
    -------
    ndarray
        bool ``[n_obs]``.

    Raises
    ------
    ValueError
        The text is damaged, or the mask of another number of cells (to the next eight).
    """
    content = unpack_bytes(text, (n_obs + 7) // 8)
    return np.unpackbits(np.frombuffer(content, np.uint8), count=n_obs).astype(bool)
