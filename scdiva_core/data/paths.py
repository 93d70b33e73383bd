"""Files that a user names: where they may lie, and what their bytes are."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path

from scdiva_core.data.hashes import keep_sha256, known_sha256
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
    _hand_out(target)
    return target


def check_again(path: str | Path) -> Path:
    """Make sure that a path which another process checked some time ago is still its own, as `confirm` does here.

    Raises
    ------
    PathError
        A link stands in the place of the file or of a folder above it now, or there is no file any more.
    """
    target = Path(path)
    try:
        own = target.resolve() == target and target.is_file()
    except (OSError, RuntimeError):
        own = False
    if not own:
        message = f"The file {target.name!r} is no longer where it was when this was asked for."
        raise PathError(message, "Open it again and start anew; if it was not moved, ask who changes the data folder.")
    _hand_out(target)
    return target


def _hand_out(target: Path) -> None:
    _handed_out[str(target)] = None
    while len(_handed_out) > _MOST_HANDED_OUT:
        _handed_out.popitem(last=False)


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


def file_sha256(path: str | Path, kept: str | Path | None = None) -> str:
    """Hash a file's bytes; the result is kept while its size and time of change stay the same.

    Parameters
    ----------
    path
        Any file.
    kept
        Folder where hashes of large files outlive this process; None for nowhere.

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
        return _file_sha256(str(path), stat.st_size, stat.st_mtime_ns, None if kept is None else str(kept))
    except OSError as error:
        message = f"The file {Path(path).name!r} cannot be read: {error.strerror}."
        raise PathError(message, "Check that it is still there and that you may read it.") from error


@lru_cache(maxsize=256)
def _file_sha256(path: str, size: int, mtime_ns: int, kept: str | None) -> str:
    """Hash once; `size` and `mtime_ns` are part of the key only."""
    del size, mtime_ns
    with open(path, "rb") as file:
        stat = os.fstat(file.fileno())
        found = None if kept is None else known_sha256(Path(kept), stat)
        if found is None:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if kept is not None and os.fstat(file.fileno()).st_ctime_ns == stat.st_ctime_ns:
                keep_sha256(Path(kept), stat, found)
    return found
