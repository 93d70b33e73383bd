"""Hashes of large files, kept on disk: a server that starts anew need not read gigabytes to know a file again."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

_NAME = "hashes.sqlite"
_WORTH_BYTES = 64_000_000  # what is smaller is hashed in a tenth of a second
_SETTLED_SECONDS = 5  # clocks of file systems are coarse: a file that was just changed may change again unseen
_SCHEMA = "CREATE TABLE IF NOT EXISTS hashes (stamp TEXT PRIMARY KEY, sha256 TEXT NOT NULL)"


def known_sha256(folder: Path, stat: os.stat_result) -> str | None:
    """Return the hash that was kept for a file; None when there is none, or the table cannot be read.

    Parameters
    ----------
    folder
        Where hashes are kept.
    stat
        Of the file: device, inode, size, and times of change of content and entry have to be the same.
    """
    if stat.st_size < _WORTH_BYTES or not (folder / _NAME).is_file():
        return None
    with suppress(sqlite3.Error, OSError), closing(_table(folder)) as table:
        row = table.execute("SELECT sha256 FROM hashes WHERE stamp = ?", (_stamp(stat),)).fetchone()
        return None if row is None else row[0]
    return None


def keep_sha256(folder: Path, stat: os.stat_result, sha256: str) -> None:
    """Keep the hash of a large file that has not changed for some seconds; a full disk does no harm."""
    if stat.st_size < _WORTH_BYTES or abs(time.time() - stat.st_ctime) < _SETTLED_SECONDS:
        return
    with suppress(sqlite3.Error, OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(_table(folder)) as table, table:
            table.execute(_SCHEMA)
            table.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?)", (_stamp(stat), sha256))


def _table(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / _NAME, timeout=2)


def _stamp(stat: os.stat_result) -> str:
    return "-".join(map(str, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)))
