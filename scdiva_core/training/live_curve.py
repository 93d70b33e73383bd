"""The curve of a training that is going on, on disk, so that another process can draw it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_STEPS = ("round", "epoch")


def curve_path(folder: str | Path) -> Path:
    """Where the curve of a checkpoint that is being made lies: beside its folder."""
    folder = Path(folder)
    return folder.with_name(folder.name + ".curve.jsonl")


class LiveCurve:
    """Writes each record of a training as a line of JSON at the end of a file; a ``report`` of the fine-tunings.

    Parameters
    ----------
    path
        See `curve_path`; its folder is made when absent. Remove the file once the checkpoint is complete.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, record: dict[str, Any]) -> None:
        """Add a record: plain values, ``round`` or ``epoch`` among them."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def read_curve(path: str | Path) -> list[dict[str, Any]]:
    """Read what is there so far, in the order of the rounds; empty where nothing is.

    A round that stands there again replaces the earlier one and all that followed it: the training was killed, and
    went on from there. A last line that is half written is left out.

    Parameters
    ----------
    path
        As `LiveCurve` was given it.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    curve: list[dict[str, Any]] = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        curve = [earlier for earlier in curve if _step(earlier) < _step(record)]
        curve.append(record)
    return curve


def _step(record: dict[str, Any]) -> int:
    return next(record[name] for name in _STEPS if name in record)
