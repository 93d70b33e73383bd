"""What a project keeps on disk: cell sets of each file, what uploads were called, which checkpoints are the user's."""

from __future__ import annotations

import json
import os
import tempfile
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
        content = self._read()
        content.setdefault("uploads", {})[sha256] = name
        self._write(content)

    def uploads(self) -> dict[str, str]:
        """Return the project's uploads and joined files: SHA-256 -> name, the latest last."""
        return self._read().get("uploads", {})

    def saved_embeddings(self, data_sha256: str) -> list[dict[str, str]]:
        """Return the embeddings of a file that were saved, as they were handed to `keep_embeddings`."""
        return self._read().get("embeddings", {}).get(data_sha256, [])

    def keep_embeddings(self, data_sha256: str, entries: list[dict[str, str]]) -> None:
        """Keep names and keys of a file's saved embeddings; the vectors lie in the result store."""
        content = self._read()
        content.setdefault("embeddings", {})[data_sha256] = entries
        self._write(content)

    def cell_sets(self, data_sha256: str) -> dict[str, Any] | None:
        """Return the cell sets made on a file, as they were handed to `save_cell_sets`."""
        return self._read().get("cell_sets", {}).get(data_sha256)

    def save_cell_sets(self, data_sha256: str, sets: dict[str, Any]) -> None:
        """Keep the cell sets of a file, recipes and history."""
        content = self._read()
        content.setdefault("cell_sets", {})[data_sha256] = sets
        self._write(content)

    def checkpoints(self) -> dict[str, dict[str, str]]:
        """Return the user's checkpoints: id -> ``name``, ``task`` and ``made`` (date and time), the latest first."""
        found = self._read().get("checkpoints", {})
        return dict(sorted(found.items(), key=lambda item: item[1]["made"], reverse=True))

    def remember_checkpoint(self, checkpoint_id: str, *, name: str, task: str) -> None:
        """Keep that a checkpoint is the user's; one that is known stays as it is."""
        content = self._read()
        entry = {"name": name, "task": task, "made": datetime.now(UTC).isoformat(timespec="milliseconds")}
        if content.setdefault("checkpoints", {}).setdefault(checkpoint_id, entry) is entry:
            self._write(content)

    def forget_checkpoint(self, checkpoint_id: str) -> dict[str, str]:
        """Take a checkpoint off the list, and return what stood there for `put_back_checkpoint`."""
        content = self._read()
        entry = content.get("checkpoints", {}).pop(checkpoint_id, {})
        self._write(content)
        return entry

    def put_back_checkpoint(self, checkpoint_id: str, entry: dict[str, str]) -> None:
        """List a checkpoint again as it was."""
        content = self._read()
        content.setdefault("checkpoints", {})[checkpoint_id] = entry
        self._write(content)

    def rename_checkpoint(self, checkpoint_id: str, name: str) -> None:
        """Call a checkpoint otherwise."""
        content = self._read()
        content["checkpoints"][checkpoint_id]["name"] = name
        self._write(content)

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
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._file.parent, suffix=".tmp")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
            Path(name).replace(self._file)
        except OSError as error:
            message = f"The project cannot be saved ({error.strerror})."
            raise StoreError(message, "Free space on the disk and check the folder SCDIVA_HOME.") from error
