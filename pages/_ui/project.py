"""What a project keeps on disk: its cell sets for each file, and what its uploads were called."""

from __future__ import annotations

import json
import os
import tempfile
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

    def cell_sets(self, data_sha256: str) -> dict[str, Any] | None:
        """Return the cell sets made on a file, as they were handed to `save_cell_sets`."""
        return self._read().get("cell_sets", {}).get(data_sha256)

    def save_cell_sets(self, data_sha256: str, sets: dict[str, Any]) -> None:
        """Keep the cell sets of a file, recipes and history."""
        content = self._read()
        content.setdefault("cell_sets", {})[data_sha256] = sets
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
