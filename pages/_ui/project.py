"""What a project keeps on disk: cell sets of each file, what uploads were called, which checkpoints are the user's."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scdiva_core.errors import StoreError
from scdiva_core.store import home


class Project:
    """One user's project, a folder below `home`; no two users share its name.

    Parameters
    ----------
    name
        16 hexadecimal digits.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._file = home() / "projects" / name / "project.json"

    def upload_name(self, sha256: str) -> str | None:
        """What an upload was called in the browser."""
        return self._read().get("uploads", {}).get(sha256)

    def remember_upload(self, sha256: str, name: str) -> None:
        """Keep an upload's name."""
        with self._changing() as content:
            content.setdefault("uploads", {})[sha256] = name

    def uploads(self) -> dict[str, str]:
        """Return the project's uploads and joined files: SHA-256 -> name, the latest last."""
        return self._read().get("uploads", {})

    def saved_embeddings(self, data_sha256: str) -> list[dict[str, str]]:
        """Return names and keys of the saved embeddings of a file; the vectors lie in the result store."""
        return self._read().get("embeddings", {}).get(data_sha256, [])

    def change_embeddings(
        self, data_sha256: str, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]
    ) -> None:
        """Replace a file's saved embeddings by what `change` makes of them; nobody else changes them meanwhile."""
        with self._changing() as content:
            kept = content.setdefault("embeddings", {})
            kept[data_sha256] = change(kept.get(data_sha256, []))

    def cell_sets(self, data_sha256: str) -> dict[str, Any] | None:
        """Return the cell sets made on a file, as `CellSets.to_dict` writes them."""
        return self._read().get("cell_sets", {}).get(data_sha256)

    def change_cell_sets(self, data_sha256: str, change: Callable[[dict[str, Any] | None], dict[str, Any]]) -> None:
        """Replace the cell sets of a file by what `change` makes of them; nobody else changes them meanwhile."""
        with self._changing() as content:
            kept = content.setdefault("cell_sets", {})
            kept[data_sha256] = change(kept.get(data_sha256))

    def checkpoints(self) -> dict[str, dict[str, str]]:
        """Return the user's checkpoints: id -> ``name``, ``task`` and ``made`` (date and time), the latest first."""
        found = self._read().get("checkpoints", {})
        return dict(sorted(found.items(), key=lambda item: item[1]["made"], reverse=True))

    def remember_checkpoint(self, checkpoint_id: str, *, name: str, task: str) -> None:
        """Keep that a checkpoint is the user's; one that is known stays as it is."""
        if checkpoint_id in self._read().get("checkpoints", {}):
            return
        entry = {"name": name, "task": task, "made": datetime.now(UTC).isoformat(timespec="milliseconds")}
        with self._changing() as content:
            content.setdefault("checkpoints", {}).setdefault(checkpoint_id, entry)

    def forget_checkpoint(self, checkpoint_id: str) -> dict[str, str]:
        """Take a checkpoint off the list, and return what stood there for `put_back_checkpoint`."""
        with self._changing() as content:
            return content.get("checkpoints", {}).pop(checkpoint_id, {})

    def put_back_checkpoint(self, checkpoint_id: str, entry: dict[str, str]) -> None:
        """List a checkpoint again as it was."""
        with self._changing() as content:
            content.setdefault("checkpoints", {})[checkpoint_id] = entry

    def rename_checkpoint(self, checkpoint_id: str, name: str) -> None:
        """Call a checkpoint otherwise."""
        with self._changing() as content:
            content["checkpoints"][checkpoint_id]["name"] = name

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Content of the file, written back at the end; other tabs and servers wait until then."""
        with self._locked():
            content = self._read()
            yield content
            self._write(content)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self._file.parent / "project.lock").open("w")
        except OSError as error:
            raise _not_saved(error) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            message = f"The project file {self._file.name} of project {self.name} cannot be read."
            raise StoreError(message, "Restore it from a backup, or remove 'project=' from the URL.") from error

    def _write(self, content: dict[str, Any]) -> None:
        """Replace the file as a whole: a reader never sees half of it."""
        try:
            descriptor, name = tempfile.mkstemp(dir=self._file.parent, suffix=".tmp")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
            Path(name).replace(self._file)
        except OSError as error:
            raise _not_saved(error) from error


def _not_saved(error: OSError) -> StoreError:
    message = f"The project cannot be saved ({error.strerror})."
    return StoreError(message, "Free space on the disk and check the folder SCDIVA_HOME.")
