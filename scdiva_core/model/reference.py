"""Labelled cells that ship with a checkpoint, as latents alone: what new cells are compared with.

``reference.safetensors`` lies beside the weights and holds a byte for each coordinate: coordinate ``j`` of cell ``i``
is ``latents[i, j] * scale[j] + center[j]``. Names and the digest of the weights that made the latents are JSON in its
metadata. There is no expression in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiva_core.model.companion import Shapes, Told, check_names, read_companion, refuse, write_companion

REFERENCE_FILE = "reference.safetensors"

NEIGHBORS = 15
"""Reference cells that a cell is compared with."""

_TYPES = {"latents": "I8", "center": "F32", "scale": "F32", "labels": "I16", "study_of": "I16"}
_STEPS = 127  # of a signed byte to either side of the centre


@dataclass(frozen=True, eq=False)
class Reference:
    """Latents of labelled training cells.

    Attributes
    ----------
    latents
        float32 ``[n, d]``.
    labels
        int16 ``[n]`` index into ``ids``.
    ids, names
        Cell Ontology id and name of each label.
    studies
        Names of the studies that the cells are of.
    study_of
        int16 ``[n]`` index into ``studies``.
    weights
        SHA-256 of the weights file that made the latents, in hexadecimal.
    """

    latents: NDArray[np.float32]
    labels: NDArray[np.int16]
    ids: tuple[str, ...]
    names: tuple[str, ...]
    studies: tuple[str, ...]
    study_of: NDArray[np.int16]
    weights: str

    def __len__(self) -> int:
        return len(self.latents)

    def save(self, path: str | Path) -> None:
        """Write the file in one step; a coordinate moves by at most half a 254th of its range.

        Parameters
        ----------
        path
            `REFERENCE_FILE` in the checkpoint's folder; an older file is replaced.
        """
        low, high = self.latents.min(axis=0), self.latents.max(axis=0)
        center = ((low + high) / 2).astype(np.float32)
        scale = np.where(high > low, (high - low) / (2 * _STEPS), 1).astype(np.float32)
        steps = np.rint((self.latents - center) / scale).clip(-_STEPS, _STEPS)
        tensors = {
            "latents": steps.astype(np.int8),
            "center": center,
            "scale": scale,
            "labels": self.labels.astype(np.int16),
            "study_of": self.study_of.astype(np.int16),
        }
        told = {"ids": self.ids, "names": self.names, "studies": self.studies}
        write_companion(path, tensors, {**told, "weights": self.weights})

    @classmethod
    def load(cls, path: str | Path, weights: str | None = None) -> Reference:
        """Read the file; shapes and types are checked from its header before any latent is read.

        Parameters
        ----------
        path
            Written by `save`.
        weights
            SHA-256 of the weights that the latents must be of, `ScDiVaModel.sha256`; when None, that of the weights
            beside the file.

        Raises
        ------
        CheckpointError
            The file is missing, damaged, contradicts itself, or was made with other weights; or there are no weights
            beside it.
        """
        path = Path(path)
        told, tensors = read_companion(path, _TYPES, weights, partial(_check, path))
        _check_values(path, tensors, told)
        return cls(
            latents=tensors["latents"].astype(np.float32) * tensors["scale"] + tensors["center"],
            labels=tensors["labels"],
            ids=tuple(told["ids"]),
            names=tuple(told["names"]),
            studies=tuple(told["studies"]),
            study_of=tensors["study_of"],
            weights=told["weights"],
        )


def _check(path: Path, told: Told, shapes: Shapes) -> None:
    check_names(path, told)
    if not isinstance(told["studies"], list) or not all(isinstance(name, str) for name in told["studies"]):
        refuse(path, "has names that are no text")
    shape = shapes["latents"]
    if len(shape) != 2 or min(shape) < 1:
        refuse(path, f"has latents of shape {shape}, expected cells and coordinates")
    sizes = {"center": shape[1], "scale": shape[1], "labels": shape[0], "study_of": shape[0]}
    for name, size in sizes.items():
        if shapes[name] != [size]:
            refuse(path, f"has {name} of shape {shapes[name]}, expected [{size}]")


def _check_values(path: Path, tensors: Mapping[str, NDArray[Any]], told: Mapping[str, Any]) -> None:
    if not np.isfinite(tensors["center"]).all() or not (np.isfinite(tensors["scale"]) & (tensors["scale"] > 0)).all():
        refuse(path, "has coordinates that are not finite")
    for name, known in (("labels", told["ids"]), ("study_of", told["studies"])):
        values = tensors[name]
        if values.min() < 0 or values.max() >= len(known):
            refuse(path, f"has {name} from {values.min()} to {values.max()}, but {len(known)} to choose from")
