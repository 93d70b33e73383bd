"""Files of tensors that belong to a checkpoint's weights: written in one step, checked before anything is read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from scdiva_core.errors import CheckpointError
from scdiva_core.model.checkpoint import file_sha256, find_weights

HINT = "Restore the checkpoint's own file, or make it again from the corpus."

Told = Mapping[str, Any]
Shapes = Mapping[str, list[int]]


def write_companion(path: str | Path, tensors: Mapping[str, NDArray[Any]], told: Told) -> None:
    """Write tensors with what is told of them, JSON in the file's metadata; an older file is replaced.

    Parameters
    ----------
    path
        In the checkpoint's folder.
    tensors
        By name.
    told
        ``weights`` among it: SHA-256 of the weights that the file belongs to, in hexadecimal.
    """
    path = Path(path)
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with tempfile.TemporaryDirectory(dir=path.parent) as stage:
        partial = Path(stage) / path.name
        save_file(whole, partial, {"told": json.dumps(told)})
        os.replace(partial, path)


def read_companion(
    path: Path, types: Mapping[str, str], weights: str | None, check: Callable[[Told, Shapes], None]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a file of `write_companion`; names, types and shapes are checked from its header first.

    Parameters
    ----------
    path
        Of the file.
    types
        Type of each tensor as safetensors names it; the file must hold these and no others.
    weights
        SHA-256 of the weights that it must belong to; when None, that of the weights beside it.
    check
        Called with what is told and the shapes; raises CheckpointError where they contradict each other. A KeyError,
        ValueError or TypeError of its own means that something is not told, or is of the wrong kind.

    Returns
    -------
    tuple of dict
        What is told, and the tensors.

    Raises
    ------
    CheckpointError
        The file is missing, damaged or belongs to other weights; or there are no weights beside it.
    """
    weights = weights or file_sha256(find_weights(path.parent))
    try:
        with safe_open(path, framework="numpy") as file:
            parts = {name: file.get_slice(name) for name in sorted(file.keys())}
            try:
                told = json.loads((file.metadata() or {})["told"])
                _check_weights(path, told["weights"], weights)
                _check_types(path, {name: part.get_dtype() for name, part in parts.items()}, types)
                check(told, {name: list(part.get_shape()) for name, part in parts.items()})
            except (KeyError, ValueError, TypeError) as error:
                msg = f"{path.name} does not say what it holds."
                raise CheckpointError(msg, HINT) from error
            return told, {name: file.get_tensor(name) for name in types}
    except (OSError, SafetensorError) as error:
        msg = f"{path.name} cannot be read."
        raise CheckpointError(msg, HINT) from error


def check_names(path: Path, told: Told) -> None:
    """Refuse ``ids`` and ``names`` of cell types that are no text, or not one name for each of different ids."""
    ids, names = told["ids"], told["names"]
    lists = isinstance(ids, list) and isinstance(names, list)
    if not lists or not all(isinstance(text, str) for text in [*ids, *names]):
        refuse(path, "has names that are no text")
    if not len(ids) == len(names) == len(set(ids)):
        refuse(path, f"has {len(set(ids))} different ids for {len(names)} names of cell types")


def refuse(path: Path, problem: str) -> NoReturn:
    """Raise the error of a file that contradicts itself."""
    msg = f"{path.name} {problem}."
    raise CheckpointError(msg, HINT)


def _check_weights(path: Path, told: str, weights: str) -> None:
    if told != weights:
        msg = f"{path.name} was made with weights {told[:12]}, but the checkpoint has {weights[:12]}."
        raise CheckpointError(msg, "What belongs to other weights cannot be used: make it again.")


def _check_types(path: Path, found: Mapping[str, str], types: Mapping[str, str]) -> None:
    if set(found) != set(types):
        refuse(path, f"holds {', '.join(found) or 'nothing'}; expected {', '.join(sorted(types))}")
    for name, kind in types.items():
        if found[name] != kind:
            refuse(path, f"has {name} of type {found[name]}, expected {kind}")
