"""umap-learn with what numba compiles for it kept on disk: each new process compiles for half a minute otherwise."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

_LOADING = threading.Lock()

# Compiled at their first call, and left out of numba's cache by umap-learn 0.5.
_UMAP = {
    "umap.umap_": ("smooth_knn_dist", "compute_membership_strengths"),
    "umap.layouts": ("_nb_optimize_layout_euclidean_single_epoch",),
}


def umap_learn() -> ModuleType:
    """Import ``umap.umap_``; call this before scanpy does, for what is imported first stays.

    pynndescent, which umap imports, compiles a hundred distances with declared types whenever it is imported, without
    a cache (its issue 111); they are compiled once for each installation here. What takes a distance as an argument
    is not: numba knows such a function by its address in memory, and so would never find it again. Nothing of what is
    computed changes.

    Returns
    -------
    module
        ``umap.umap_``.

    Raises
    ------
    RuntimeError
        numba finds no folder to write to, neither beside the library nor in the user's cache; pynndescent alone
        raises it there as well. The variable ``NUMBA_CACHE_DIR`` names one.
    """
    with _LOADING:
        return _loaded()


@cache
def _loaded() -> ModuleType:
    with _kept_on_disk():
        for name in _UMAP:
            importlib.import_module(name)
    for name, functions in _UMAP.items():
        for function in functions:
            getattr(importlib.import_module(name), function).enable_caching()
    return importlib.import_module("umap.umap_")


@contextmanager
def _kept_on_disk() -> Iterator[None]:
    """Turn numba's cache on for functions whose types are declared, which are compiled as they are defined."""
    import numba  # half a second, and the server needs none of it

    plain = numba.njit

    def njit(*args: Any, **options: Any) -> Any:
        declared = bool(args) and not callable(args[0])
        return plain(*args, **(options | {"cache": True} if declared else options))

    numba.njit = njit
    try:
        yield
    finally:
        numba.njit = plain
