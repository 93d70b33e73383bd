"""Hostile ``.h5ad`` files, made from small sound ones: the same seed gives the same file.

A quarter has changed bytes only, the others a changed structure (`tests.hostile_structure`), some of them both.
"""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import h5py
import numpy as np
import scipy.sparse as sp

from tests.hostile_structure import BOMBS, CHANGES

DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo" / "tenx_pbmc3k.h5ad"
METADATA = re.compile(rb"TREE|HEAP|SNOD|OHDR|OCHK|GCOL|FRHP|FSHD|FHDB|BTHD|BTLF|FAHD|EAHD|EASB|\x89HDF")


def sound_files(folder: Path) -> list[Path]:
    """Write six small sound files of 40 cells by 300 genes; every storage and both file layouts are among them."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = anndata.read_h5ad(DEMO)[:40]
    detected = np.asarray((cells.X > 0).sum(axis=0)).ravel()
    cells = cells[:, np.sort(np.argsort(-detected, kind="stable")[:300])].copy()
    counts = sp.csr_matrix(cells.X, dtype=np.float32)
    cells.X = counts
    cells.obs["score"] = np.linspace(0, 1, 40)
    cells.obs["note"] = [f"cell {i}" for i in range(40)]
    cells.obs["good"] = np.arange(40) % 2 == 0
    cells.var["symbol"] = np.array(cells.var_names, dtype=object)
    cells.obsm["X_umap"] = np.arange(80, dtype=np.float32).reshape(40, 2)
    cells.uns["note"] = "kept"
    made = [folder / f"{name}.h5ad" for name in ("csr", "csc", "dense", "lzf", "raw", "latest")]
    cells.write_h5ad(made[0], compression="gzip")
    for path, matrix, compression in ((made[1], counts.tocsc(), None), (made[2], counts.toarray(), "gzip")):
        cells.X = matrix
        cells.write_h5ad(path, compression=compression)
    cells.X = counts
    cells.write_h5ad(made[3], compression="lzf")
    cells.layers["counts"] = counts.copy()
    cells.raw = cells.copy()
    cells.X = np.log1p(counts)
    cells.write_h5ad(made[4])
    with h5py.File(made[4]) as old, h5py.File(made[5], "w", libver="latest") as new:
        new.attrs.update(old.attrs)
        for name in old:
            old.copy(name, new)
    return made


def write_hostile(path: Path, seed: int, sound: list[Path], outside: Path) -> str:
    """Write one hostile file and say what was done to it.

    Parameters
    ----------
    path
        Where to.
    seed
        Number of the file.
    sound
        What `sound_files` made.
    outside
        Existing file that nobody must touch; links lead there.
    """
    rng = np.random.default_rng(seed)
    base = sound[seed % len(sound)]
    path.write_bytes(base.read_bytes())
    said, names = [base.stem], list(CHANGES)
    if seed % 4:
        chosen = {names[i] for i in rng.integers(len(names), size=rng.choice([1, 1, 1, 2, 3]))}
        harmless, bombs = sorted(chosen - BOMBS), sorted(chosen & BOMBS)
        # A bomb comes alone and last: another change would read it here.
        said += [_change(path, name, rng, outside) for name in (*harmless, *bombs[:1])]
    if seed % 4 == 0 or rng.random() < 0.15:
        kind = int(rng.integers(6))
        path.write_bytes(changed_bytes(path.read_bytes(), kind, rng))
        said.append(f"bytes {kind}")
    return f"{seed}: {', '.join(said)}"


def _change(path: Path, name: str, rng: np.random.Generator, outside: Path) -> str:
    """Apply one change of structure; one that does not fit this file leaves it half done, which is hostile too."""
    try:
        with h5py.File(path, "r+", libver="latest" if name == "huge_attribute" else None) as file:
            CHANGES[name](file, rng, outside)
    except (LookupError, ValueError, TypeError, OSError, RuntimeError, AttributeError):
        return f"{name} (half)"
    return name


def changed_bytes(content: bytes, kind: int, rng: np.random.Generator) -> bytes:
    """Change bytes anywhere, single bits, a run, near metadata, or in the superblock; or cut the file short."""
    data = bytearray(content)
    places = [found.start() for found in METADATA.finditer(content)]
    match kind:
        case 0:
            for position in rng.integers(0, len(data), rng.integers(1, 40)):
                data[position] = rng.integers(256)
        case 1:
            for position in rng.integers(0, len(data), rng.integers(1, 6)):
                data[position] ^= 1 << int(rng.integers(8))
        case 2:
            start, length = int(rng.integers(len(data))), int(rng.integers(1, 200))
            data[start : start + length] = rng.bytes(len(data[start : start + length]))
        case 3:
            for position in rng.choice(places, 3) + rng.integers(4, 64, 3):
                data[position % len(data)] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
        case 4:
            data[int(rng.integers(8, 96))] = rng.integers(256)
        case _:
            del data[int(rng.integers(len(data))) :]
    return bytes(data)
