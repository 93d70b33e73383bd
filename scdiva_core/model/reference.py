"""Labelled cells that ship with a checkpoint, as latents alone: what new cells are compared with.

``reference.safetensors`` lies beside the weights and holds a byte for each coordinate: coordinate ``j`` of cell ``i``
is ``latents[i, j] * scale[j] + center[j]``. Names, the distance at which cells count as unknown, and the digest of the
weights that made the latents are JSON in its metadata. There is no expression in it.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from scdiva_core.errors import CheckpointError
from scdiva_core.model.checkpoint import file_sha256, find_weights

REFERENCE_FILE = "reference.safetensors"

NEIGHBORS = 15
"""Reference cells that a cell is compared with."""

NOVELTY_QUANTILE = 0.99
"""Share of the reference's own cells that lie nearer to their like than the distance called its novelty."""

_TYPES = {"latents": "I8", "center": "F32", "scale": "F32", "labels": "I16", "study_of": "I16"}
_STEPS = 127  # of a signed byte to either side of the centre
_HINT = "Restore the checkpoint's own file, or make it again from the corpus."


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
    novelty
        Distance beyond which a cell is unlike the reference, see `own_novelty`.
    weights
        SHA-256 of the weights file that made the latents, in hexadecimal.
    """

    latents: NDArray[np.float32]
    labels: NDArray[np.int16]
    ids: tuple[str, ...]
    names: tuple[str, ...]
    studies: tuple[str, ...]
    study_of: NDArray[np.int16]
    novelty: float
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
            "labels": np.ascontiguousarray(self.labels, np.int16),
            "study_of": np.ascontiguousarray(self.study_of, np.int16),
        }
        told = {"ids": self.ids, "names": self.names, "studies": self.studies}
        told |= {"novelty": self.novelty, "weights": self.weights}
        path = Path(path)
        with tempfile.TemporaryDirectory(dir=path.parent) as stage:
            partial = Path(stage) / path.name
            save_file(tensors, partial, {"reference": json.dumps(told)})
            os.replace(partial, path)

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
        weights = weights or file_sha256(find_weights(path.parent))
        try:
            with safe_open(path, framework="numpy") as file:
                told = _told(path, file.metadata() or {})
                if told["weights"] != weights:
                    found = f"weights {told['weights'][:12]}, but the checkpoint has {weights[:12]}"
                    msg = f"{path.name} was made with {found}."
                    raise CheckpointError(msg, "Latents of different weights cannot be compared: make it again.")
                parts = {name: file.get_slice(name) for name in sorted(file.keys())}
                headers = {name: (part.get_dtype(), list(part.get_shape())) for name, part in parts.items()}
                _check_headers(path, headers)
                tensors = {name: file.get_tensor(name) for name in _TYPES}
        except (OSError, SafetensorError) as error:
            msg = f"{path.name} cannot be read."
            raise CheckpointError(msg, _HINT) from error
        _check_values(path, tensors, told)
        return cls(
            latents=tensors["latents"].astype(np.float32) * tensors["scale"] + tensors["center"],
            labels=tensors["labels"],
            ids=tuple(told["ids"]),
            names=tuple(told["names"]),
            studies=tuple(told["studies"]),
            study_of=tensors["study_of"],
            novelty=float(told["novelty"]),
            weights=weights,
        )


def own_novelty(latents: NDArray[np.float32], labels: NDArray[np.integer], k: int = NEIGHBORS) -> float:
    """Distance that 99 of 100 reference cells keep below.

    A cell's distance is the mean of those to its ``k`` nearest other cells of the same label (all of them, where there
    are fewer); cells that are alone with their label do not count.

    Parameters
    ----------
    latents
        float32 ``[n, d]``.
    labels
        int ``[n]``.
    k
        Neighbours.

    Raises
    ------
    CheckpointError
        No two cells of one label lie apart, so that there is no distance to go by.
    """
    distances = [np.zeros(1, np.float32)]
    for label in np.unique(labels):
        cells = torch.from_numpy(latents[labels == label])
        if len(cells) < 2:
            continue
        apart = torch.cdist(cells, cells, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(math.inf)
        distances.append(apart.topk(min(k, len(cells) - 1), largest=False).values.mean(dim=1).numpy())
    novelty = float(np.quantile(np.concatenate(distances[1:] or distances), NOVELTY_QUANTILE))
    if not novelty > 0:
        msg = f"Among the {len(latents):,} reference cells no two of one label lie apart."
        raise CheckpointError(msg, "Take more cells of each label.")
    return novelty


def _told(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the metadata say, of the right kinds and in agreement with itself."""
    try:
        told = json.loads(metadata["reference"])
        lists = [told[name] for name in ("ids", "names", "studies")]
        texts = [text for values in lists for text in values] + [told["weights"]]
        novelty = float(told["novelty"])
    except (KeyError, ValueError, TypeError) as error:
        msg = f"{path.name} does not say what its cells are."
        raise CheckpointError(msg, _HINT) from error
    if not all(isinstance(values, list) for values in lists) or not all(isinstance(text, str) for text in texts):
        _refuse(path, "has names that are no text")
    ids, names, _ = lists
    if len(ids) != len(names) or len(set(ids)) < len(ids):
        _refuse(path, f"has {len(set(ids))} different ids for {len(names)} names of cell types")
    if not 0 < novelty < math.inf:
        _refuse(path, f"has the novelty {novelty}, which is no distance")
    return told


def _check_headers(path: Path, found: Mapping[str, tuple[str, list[int]]]) -> None:
    if set(found) != set(_TYPES):
        _refuse(path, f"holds {', '.join(found) or 'nothing'}; expected {', '.join(sorted(_TYPES))}")
    types = {name: kind for name, (kind, _) in found.items()}
    if wrong := [name for name, kind in _TYPES.items() if types[name] != kind]:
        _refuse(path, f"has {wrong[0]} of type {types[wrong[0]]}, expected {_TYPES[wrong[0]]}")
    shape = found["latents"][1]
    if len(shape) != 2 or min(shape) < 1:
        _refuse(path, f"has latents of shape {shape}, expected cells and coordinates")
    sizes = {"center": shape[1], "scale": shape[1], "labels": shape[0], "study_of": shape[0]}
    for name, size in sizes.items():
        if found[name][1] != [size]:
            _refuse(path, f"has {name} of shape {found[name][1]}, expected [{size}]")


def _check_values(path: Path, tensors: Mapping[str, NDArray[Any]], told: Mapping[str, Any]) -> None:
    if not np.isfinite(tensors["center"]).all() or not (np.isfinite(tensors["scale"]) & (tensors["scale"] > 0)).all():
        _refuse(path, "has coordinates that are not finite")
    for name, known in (("labels", told["ids"]), ("study_of", told["studies"])):
        values = tensors[name]
        if values.min() < 0 or values.max() >= len(known):
            _refuse(path, f"has {name} from {values.min()} to {values.max()}, but {len(known)} to choose from")


def _refuse(path: Path, problem: str) -> NoReturn:
    msg = f"{path.name} {problem}."
    raise CheckpointError(msg, _HINT)
