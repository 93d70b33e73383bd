"""``python -m benchmarks.large -n 1000000 --genes 20000``: views and maps of a made-up file of very many cells.

The file is written block by block. Its embedding is made up as well, in place of hours of computing, and put into the
store the way the engine puts its own; everything after that is what the pages and the jobs do. Each part runs in a
process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from benchmarks.timing import markdown

_TYPES, _PER_CELL, _BLOCK = 30, 500, 20_000
_WIDTH = 128
_FEW = 3000  # cells of the file that views are compared with


def main() -> None:
    """Make the file, run each part, print one table."""
    parser = argparse.ArgumentParser(prog="benchmarks.large", description=__doc__)
    parser.add_argument("-n", "--cells", type=int, default=1_000_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument(
        "--folder", type=Path, help="where file and results (8 GB for a million cells) stay, for a second run"
    )
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--embed", type=int, default=0, metavar="N", help="also embed the first N cells for real")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for part in (_write, _embedding, _columns, _map, _neighbours, _view, _browser):
            rows += _apart(part, asked, folder)
        if asked.embed:
            rows += _apart(_embed, asked, folder)
    print(f"The embedding of these {asked.cells:,} cells is made up; nothing else is.\n")
    print(markdown(f"{asked.cells:,} cells x {asked.genes:,} genes", ["what", "seconds", "note"], rows))


def _apart(part: Callable[..., None], asked: argparse.Namespace, folder: Path) -> list[list[str]]:
    """Run a part in a fresh process; its rows and one with the peak of its memory."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(part, asked, folder, there))
    child.start()
    there.close()
    try:
        rows = here.recv()
    except EOFError:
        sys.exit(f"{part.__name__} ended without a result")
    child.join()
    for row in rows:
        print("  ".join(row), file=sys.stderr, flush=True)
    return rows


def _run(part: Callable[..., None], asked: argparse.Namespace, folder: Path, there: Any) -> None:
    clock = _Clock()
    part(clock, asked, folder)
    unit = 1e9 if sys.platform == "darwin" else 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    there.send([*clock.rows, [f"{part.__doc__.rstrip('.')}: peak memory", "", f"{peak:.2f} GB, mapped files included"]])


class _Clock:
    """Times steps."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []

    def time(self, what: str, work: Callable[[], Any], note: Callable[[Any], str] = lambda made: "") -> Any:
        began = time.perf_counter()
        made = work()
        self.rows.append([what, f"{time.perf_counter() - began:.2f}", note(made)])
        return made


def _write(clock: _Clock, asked: argparse.Namespace, folder: Path) -> None:
    """Writing the file."""
    if (folder / "cells.h5ad").exists():
        return
    clock.time("file written", lambda: write_cells(folder / "part.h5ad", asked.cells, asked.genes))
    (folder / "part.h5ad").rename(folder / "cells.h5ad")
    clock.rows[-1][2] = f"{(folder / 'cells.h5ad').stat().st_size / 1e9:.1f} GB"


def write_cells(path: Path, n_cells: int, n_genes: int, seed: int = 0) -> None:
    """Write counts of made-up cells, some 500 genes each, block by block.

    Parameters
    ----------
    path
        The file.
    n_cells, n_genes
        Its size; the genes are the first ones that the default vocabulary knows.
    seed
        Of everything.
    """
    from scdiva_core.data.vocabulary import human_genes

    vocabulary = human_genes()
    rng = np.random.default_rng(seed)
    kinds = types_of(n_cells, seed)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(kinds, [f"type {kind}" for kind in range(_TYPES)]),
            "donor": pd.Categorical.from_codes(rng.integers(0, 20, n_cells), [f"donor {i}" for i in range(20)]),
            "age": rng.integers(20, 90, n_cells).astype(np.float32),
        },
        index=[f"cell{number}" for number in range(n_cells)],
    )
    var = pd.DataFrame(index=[vocabulary.tokens[token] for token in vocabulary.gene_ids[:n_genes]])
    anndata.AnnData(sp.csr_matrix((n_cells, len(var)), dtype=np.float32), obs, var).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X/data"], file["X/indices"], file["X/indptr"]
        entries, options = 0, {"maxshape": (None,), "chunks": (1 << 18,)}
        data = file["X"].create_dataset("data", (0,), np.float32, **options)
        indices = file["X"].create_dataset("indices", (0,), np.int32, **options)
        pointers = [np.zeros(1, np.int64)]
        for start in range(0, n_cells, _BLOCK):
            block = min(_BLOCK, n_cells - start)
            # Gaps between genes, not genes: ascending and different at once.
            genes = np.cumsum(rng.integers(1, 2 * len(var) // _PER_CELL, (block, _PER_CELL), np.int32), axis=1)
            there = genes < len(var)
            more = int(there.sum())
            for stored, values in ((data, rng.geometric(0.4, more)), (indices, genes[there])):
                stored.resize((entries + more,))
                stored[entries:] = values
            pointers.append(entries + np.cumsum(there.sum(axis=1)))
            entries += more
        file["X/indptr"] = np.concatenate(pointers)


def types_of(n_cells: int, seed: int = 0) -> np.ndarray:
    """Type of each cell, some a thousand times rarer than others."""
    shares = np.geomspace(1, 1e-3, _TYPES)
    return np.random.default_rng(seed).choice(_TYPES, n_cells, p=shares / shares.sum()).astype(np.int8)


def _opened(asked: argparse.Namespace, folder: Path) -> Any:
    from scdiva_core.data.h5ad import open_h5ad
    from scdiva_core.engine import Engine
    from scdiva_core.store import ResultStore

    engine = Engine(asked.checkpoint, "cpu", ResultStore(folder / "results"))
    return engine, open_h5ad(folder / "cells.h5ad", engine.vocabulary, columns=folder / "columns")


def _embedding(clock: _Clock, asked: argparse.Namespace, folder: Path) -> None:
    """Storing a made-up embedding."""
    from scdiva_core import engine as engine_module

    engine, cells = _opened(asked, folder)
    clock.time("sha-256 of the file", lambda: cells.sha256)
    rng = np.random.default_rng(1)
    centres, kinds = rng.normal(0, 1, (_TYPES, _WIDTH)), types_of(asked.cells)

    def made_up(*parts: Any, **_: Any) -> None:
        done, write = parts[4:6]
        for start in range(0, len(done), 50_000):
            rows = np.arange(start, min(start + 50_000, len(done)))
            width = engine_module.embedding_width(engine.model)
            vectors = centres[kinds[rows], :width] + rng.normal(0, 0.5, (len(rows), width))
            write(rows, vectors.astype(np.float32))

    engine_module.embed_cells = made_up
    clock.time("made-up embedding stored", lambda: engine.embed(cells), lambda made: f"{made.shape}")


def _columns(clock: _Clock, asked: argparse.Namespace, folder: Path) -> None:
    """Writing genes beside the file."""
    from scdiva_core.data.gene_columns import write_gene_columns

    _, cells = _opened(asked, folder)
    size = lambda path: f"{path.stat().st_size / 1e9:.1f} GB"  # noqa: E731
    clock.time("genes beside the file (once)", lambda: write_gene_columns(cells, folder / "columns"), size)


def _map(clock: _Clock, asked: argparse.Namespace, folder: Path) -> None:
    """Drawing the map."""
    engine, cells = _opened(asked, folder)
    seconds: dict[str, float] = {}
    began = time.perf_counter()

    def report(done: int, total: int, message: str) -> None:
        seconds.setdefault(message, time.perf_counter() - began)

    clock.time("neighbours, Leiden, UMAP", lambda: engine.project(cells, progress=report), lambda _: _steps(seconds))


def _steps(seconds: dict[str, float]) -> str:
    return "begun at: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())


def _neighbours(clock: _Clock, asked: argparse.Namespace, folder: Path) -> None:
    """Finding each cell's nearest."""
    engine, cells = _opened(asked, folder)
    clock.time("15 nearest of each cell", lambda: engine.neighbors(cells), lambda made: f"{made.shape}")


def _view(clock: _Clock, asked: argparse.Namespace, folder: Path) -> None:
    """Views, as a page makes them."""
    from pages._ui import view
    from scdiva_core.data.cellsets import select
    from scdiva_core.figures.raster import Window
    from scdiva_core.figures.scatter import Canvas
    from scdiva_core.tasks.neighbors import ProjectionSettings

    engine, cells = clock.time("model and file opened", lambda: _opened(asked, folder))
    clock.time("sha-256 of the file", lambda: cells.sha256, lambda _: "once a server and file")
    found = clock.time(
        "map fetched",
        lambda: engine.stored_projection(cells, representation="X_scdiva", settings=ProjectionSettings()),
    )
    shape = view.CellMap("ScDiVa", "X_scdiva", found.coordinates, ("UMAP 1", "UMAP 2"))
    clock.time("table of the cells read", lambda: cells.obs)
    names = clock.time("names of the cells read", lambda: cells.obs_names)
    options = {"shown": None, "canvas": Canvas(title="benchmark"), "names_on_picture": True}
    size = lambda text: f"{len(text) / 1e6:.2f} MB sent"  # noqa: E731

    def sent(colouring: view.Colouring, **more: Any) -> str:
        return view.draw(shape, colouring, names, **options, **more).to_json()

    types = view.column_colouring(cells.obs["cell_type"], "cell_type")
    clock.time("first view: figure made and serialised", lambda: sent(types), size)
    clock.time("the same again", lambda: sent(types), size)
    low, high = np.percentile(found.coordinates, [20, 80], axis=0)
    turn = np.linspace(0, 2 * np.pi, 300)
    lasso = {"kind": "lasso", "representation": "X_scdiva"}
    lasso["x"], lasso["y"] = (
        ((high + low)[axis] / 2 + (high - low)[axis] / 2 * wave(turn)).tolist()
        for axis, wave in enumerate((np.cos, np.sin))
    )
    count = lambda mask: f"{mask.sum():,} cells, {len(turn)} corners"  # noqa: E731
    clock.time("lasso: cells chosen", lambda: select(lasso, cells, {"X_scdiva": found.coordinates}), count)
    clock.time("view drawn again after the lasso", lambda: sent(types), size)
    clock.time("zoom: part drawn anew", lambda: sent(types, window=Window(low[0], high[0], low[1], high[1])), size)
    gene = cells.gene_symbols[len(cells.gene_symbols) // 2]
    values = clock.time("gene read", lambda: cells.gene(gene), lambda made: f"{np.count_nonzero(made):,} cells")
    clock.time("gene drawn", lambda: sent(view.Numbers(gene, values)), size)
    clock.time("another gene read", lambda: cells.gene(cells.gene_symbols[7]))


def _browser(clock: _Clock, asked: argparse.Namespace, folder: Path) -> None:
    """Views in a browser."""
    from benchmarks.large_browser import look

    engine, cells = _opened(asked, folder)
    few = folder / "few.h5ad"
    if not few.exists():
        write_cells(few, _FEW, asked.genes)
    with engine.open(few) as small:
        engine.project(small)
    look(clock.time, folder, "cells.h5ad", few.name, cells.gene_symbols[7::4000])


def _embed(clock: _Clock, asked: argparse.Namespace, folder: Path) -> None:
    """Embedding for real."""
    part = folder / "part.h5ad"
    write_cells(part, asked.embed, asked.genes)
    engine, _ = _opened(asked, folder)
    with engine.open(part) as cells:
        clock.time(f"{asked.embed:,} cells embedded", lambda: engine.embed(cells), lambda made: f"{made.shape}")


if __name__ == "__main__":
    main()
