"""Files that a user names: where they may lie, and what their bytes are."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path

from scdiva_core.errors import PathError

_MOST_HANDED_OUT = 4096
_handed_out: OrderedDict[str, None] = OrderedDict()


def safe_path(path: str | Path, root: str | Path) -> Path:
    """Resolve a path that a user gave and make sure that it stays below a folder.

    Parameters
    ----------
    path
        Absolute, or relative to `root`. Symbolic links and ``..`` are followed before the check.
    root
        Folder that must hold the file.

    Returns
    -------
    Path
        Absolute path of a regular file, free of symbolic links.

    Raises
    ------
    PathError
        The path leaves `root`, does not exist, or is not a regular file.
    """
    try:
        folder = Path(root).resolve(strict=True)
        target = (folder / path).resolve()
        inside = target.is_relative_to(folder)
        regular = inside and target.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # loops of links, null bytes, names too long
        message = f"The path {str(path)!r} cannot be followed."
        raise PathError(message, "Give the path of a file below the data folder.") from error
    if not inside:
        message = f"The path {str(path)!r} leads out of the data folder."
        raise PathError(message, "Move or copy the file below the data folder, or start with another one.")
    if not regular:
        message = f"There is no file {str(path)!r} in the data folder."
        raise PathError(message, "Check the spelling; folders and devices cannot be opened.")
    _handed_out[str(target)] = None
    while len(_handed_out) > _MOST_HANDED_OUT:
        _handed_out.popitem(last=False)
    return target


def confirm(path: Path, descriptor: int) -> None:
    """Make sure that a file that was opened is the one that `safe_path` allowed.

    Between the check and the opening somebody may have put a link in the place of the file or of a folder above it.
    Paths that did not come from `safe_path` (a user's own, on the command line) may be links.

    Parameters
    ----------
    path
        What was opened.
    descriptor
        The open file.

    Raises
    ------
    PathError
        The path leads elsewhere now, or something else was opened.
    """
    if str(path) not in _handed_out:
        return
    opened = os.fstat(descriptor)
    try:
        there = path.lstat()
        same = path.resolve() == path and (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)
    except (OSError, RuntimeError):
        same = False
    if not same:
        message = f"The file {path.name!r} was replaced while it was opened."
        raise PathError(message, "Open it again; if that happens once more, ask who changes the data folder.")


def file_sha256(path: str | Path) -> str:
    """Hash a file's bytes; the result is kept while its size and time of change stay the same.

    Parameters
    ----------
    path
        Any file.

    Returns
    -------
    str
        Hexadecimal SHA-256.

    Raises
    ------
    PathError
        The file is gone or may not be read.
    """
    try:
        stat = Path(path).stat()
        return _file_sha256(str(path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        message = f"The file {Path(path).name!r} cannot be read: {error.strerror}."
        raise PathError(message, "Check that it is still there and that you may read it.") from error


@lru_cache(maxsize=256)
def _file_sha256(path: str, size: int, mtime_ns: int) -> str:
    """Hash once; `size` and `mtime_ns` are part of the key only."""
    del size, mtime_ns
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
