"""What numba compiles for a map is compiled once for an installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import numpy as np

from scdiva_core import compiled
from scdiva_core.tasks.neighbors import ProjectionSettings, project

ROOT = Path(__file__).resolve().parents[2]

_DRAWN_ANEW = """
import sys

import numpy as np
from numba.core import event

from scdiva_core.tasks.neighbors import ProjectionSettings, project

with event.install_recorder("numba:compile") as compiling:
    made = project(np.load(sys.argv[1]), "X_scdiva", ProjectionSettings())
np.save(sys.argv[2], made.coordinates)
print(*{record.data["dispatcher"].py_func.__qualname__ for _, record in compiling.buffer})
"""


def test_a_new_process_draws_the_same_map_and_compiles_nothing(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    np.save(tmp_path / "points.npy", points)
    here = project(points, "X_scdiva", ProjectionSettings()).coordinates
    command = [sys.executable, "-c", _DRAWN_ANEW, str(tmp_path / "points.npy"), str(tmp_path / "drawn.npy")]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    np.testing.assert_array_equal(np.load(tmp_path / "drawn.npy"), here)
    assert ran.stdout.split() == []


def test_functions_of_others_are_compiled_as_they_say() -> None:
    compiled.umap_learn()

    @numba.njit("f8(f8)")
    def doubled(value: float) -> float:
        return 2 * value

    assert doubled(2.0) == 4.0
    assert not doubled.stats.cache_path, "numba's cache was left on for everybody"
