"""Which attention heads of a checkpoint are read for gene networks, as chosen once on training cells."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from scdiva_core.errors import CheckpointError
from scdiva_core.model.checkpoint import file_sha256, find_weights

ATTENTION_FILE = "attention.json"

_Direction = Literal["from", "to", "both"]
_HINT = "Restore the checkpoint's own file, or remove it: then all heads are read."


@dataclass(frozen=True)
class AttentionChoice:
    """How attention is read; by default all heads in both directions.

    Attributes
    ----------
    heads
        Layer and head of each that is read, both from 0; None for all.
    direction
        ``"from"`` the regulator to the target, ``"to"`` the regulator, or the mean of ``"both"``.
    centred
        Whether each gene's own mean is taken off.
    chosen_on
        Cells that it was chosen on, for people; empty where nothing was chosen.
    """

    heads: tuple[tuple[int, int], ...] | None = None
    direction: _Direction = "both"
    centred: bool = False
    chosen_on: str = ""

    @classmethod
    def of(cls, folder: str | Path, weights: str | None = None) -> AttentionChoice:
        """Read `ATTENTION_FILE` of a checkpoint's folder; all heads where there is none.

        Parameters
        ----------
        folder
            Of the checkpoint.
        weights
            SHA-256 of its weights (`ScDiVaModel.sha256`); computed from the file when None.

        Raises
        ------
        CheckpointError
            The file is damaged, or was made with other weights.
        """
        path = Path(folder) / ATTENTION_FILE
        if not path.exists():
            return cls()
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            made_with = str(told["weights"])
            choice = cls(_heads(told["heads"]), told["direction"], told["centred"], told["chosen_on"])
        except (OSError, KeyError, ValueError, TypeError) as error:
            msg = f"{path.name} does not say which heads are read."
            raise CheckpointError(msg, _HINT) from error
        if choice.direction not in get_args(_Direction) or not isinstance(choice.centred, bool):
            msg = f"{path.name} has the direction {choice.direction!r} and centred {choice.centred!r}."
            raise CheckpointError(msg, _HINT)
        weights = weights or file_sha256(find_weights(Path(folder)))
        if made_with != weights:
            msg = f"{path.name} was made with weights {made_with[:12]}, but the checkpoint has {weights[:12]}."
            raise CheckpointError(msg, "Heads of other weights mean nothing here: choose them again.")
        return choice

    def key(self) -> dict[str, Any]:
        """What a result that was read this way hangs on, as plain values."""
        return {"heads": self.heads, "direction": self.direction, "centred": self.centred}

    def save(self, folder: str | Path, weights: str, figures: Mapping[str, Any]) -> None:
        """Write `ATTENTION_FILE` in one step; an older file is replaced.

        Parameters
        ----------
        folder
            Of the checkpoint.
        weights
            SHA-256 of its weights.
        figures
            That the choice was made by, as JSON holds them; kept for people, not read back.
        """
        told = {
            "weights": weights,
            "heads": self.heads,
            "direction": self.direction,
            "centred": self.centred,
            "chosen_on": self.chosen_on,
            "figures": dict(figures),
        }
        with tempfile.TemporaryDirectory(dir=folder) as stage:
            partial = Path(stage) / ATTENTION_FILE
            partial.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            os.replace(partial, Path(folder) / ATTENTION_FILE)


def _heads(told: Any) -> tuple[tuple[int, int], ...] | None:
    """Heads as JSON tells them; a ValueError where they are no pairs of whole numbers."""
    if told is None:
        return None
    heads = tuple((layer, head) for layer, head in told)
    if not heads or not all(type(number) is int and number >= 0 for head in heads for number in head):
        raise ValueError(told)
    return heads
