"""Command ``embed``: vectors, map and clusters of a file's cells, computed here or by the workers of a dask cluster."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdiva_core.cli_progress import warn
from scdiva_core.errors import DataError

if TYPE_CHECKING:  # other commands start without it
    from scdiva_core.data.h5ad import H5adDataset
    from scdiva_core.engine import Engine
    from scdiva_core.tasks.neighbors import ProjectionSettings


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = commands.add_parser(
        "embed",
        help="embed the cells of an .h5ad file",
        description=(
            "Write a copy of the input with obsm['X_scdiva'], a UMAP in obsm['X_umap_scdiva'], Leiden clusters "
            "in obs['leiden_scdiva'] and the provenance in uns['scdiva']. The input is never changed. An "
            "interrupted run goes on where it stopped."
        ),
    )
    parser.add_argument("input", type=Path, help="an .h5ad file with raw counts or log1p values")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="the new .h5ad file; with --scheduler also a .zarr store, which holds no expression",
    )
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="have torch compile the network first, for very many cells: a minute at the start",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="embed on the workers of this dask scheduler, tcp://host:port; they must see the same paths",
    )
    parser.add_argument("--matrix", help="'X', 'raw/X' or 'layers/NAME'; recognised when left out")
    parser.add_argument("--gene-column", help="column of var with gene names, 'index' for its index")
    parser.add_argument(
        "--values",
        choices=("auto", "counts", "log1p"),
        default="auto",
        help="what the values are, if they are not recognised correctly (default: auto)",
    )
    parser.add_argument("--no-map", action="store_true", help="leave out neighbours, Leiden and UMAP")
    parser.add_argument("--n-neighbors", type=int, default=15, help="of the neighbour graph (default: 15)")
    parser.add_argument("--resolution", type=float, default=1.0, help="of Leiden (default: 1.0)")
    parser.add_argument("--seed", type=int, default=0, help="of UMAP and Leiden (default: 0)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Embed, write the file, and print its path."""
    from scdiva_core.engine import Engine
    from scdiva_core.tasks.export import checked_target
    from scdiva_core.tasks.neighbors import ProjectionSettings

    if options.output.suffix == ".zarr" and options.scheduler is None:
        msg = f"{options.output.name} would be a zarr store, which only --scheduler writes."
        raise DataError(msg, "Choose a name that ends in .h5ad.")
    if options.compile and options.scheduler is not None:
        msg = "--compile is for this machine, but --scheduler leaves the embedding to others."
        raise DataError(msg, "Leave one of them out.")
    settings = ProjectionSettings(n_neighbors=options.n_neighbors, resolution=options.resolution, seed=options.seed)
    engine = Engine(options.checkpoint, "auto" if options.scheduler else options.device)
    if engine.card().random_weights:
        warn("these weights are random; the embedding means nothing")
    if options.compile:
        engine.model.compile_layers()
    with engine.open(
        options.input, matrix=options.matrix, gene_column=options.gene_column, values=options.values
    ) as dataset:
        checked_target(dataset.path, options.output)
        for warning in dataset.preflight.warnings:
            warn(warning)
        if options.scheduler is None:
            written = _embed_here(engine, dataset, options, settings)
        else:
            written = _embed_on_workers(engine, dataset, options, settings)
    print(written)


def _embed_here(
    engine: Engine, dataset: H5adDataset, options: argparse.Namespace, settings: ProjectionSettings
) -> Path:
    from scdiva_core.tasks.export import write_result

    progress = _Progress()
    embedding = engine.embed(dataset, progress=progress)
    maps = [] if options.no_map else [engine.project(dataset, settings=settings, progress=progress)]
    progress.end()
    provenance = engine.provenance(dataset)
    return write_result(dataset, options.output, embedding=embedding, provenance=provenance, projections=maps)


def _embed_on_workers(
    engine: Engine, dataset: H5adDataset, options: argparse.Namespace, settings: ProjectionSettings
) -> Path:
    from scdiva_core.distributed.embedding import embed_on_workers
    from scdiva_core.distributed.result import cluster_provenance, finished_store, keep_embedding, write_store
    from scdiva_core.tasks.export import write_result
    from scdiva_core.tasks.neighbors import project

    target, as_store = options.output, options.output.suffix == ".zarr"
    if as_store and finished_store(engine, dataset, target, None if options.no_map else settings):
        return target
    if not as_store and engine.stored_embedding(dataset) is not None:
        return _embed_here(engine, dataset, options, settings)
    progress = _Progress()
    made = embed_on_workers(engine, dataset, target, options.scheduler, device=options.device, progress=progress)
    maps = [] if options.no_map else [project(made.vectors.values(), "X_scdiva", settings, progress=progress)]
    progress.end()
    if as_store:
        return write_store(engine, dataset, made, target, maps[0] if maps else None)
    values, provenance = made.vectors.values(), cluster_provenance(engine, dataset, made)
    written = write_result(dataset, target, embedding=values, provenance=provenance, projections=maps)
    keep_embedding(engine, dataset, made)
    made.vectors.remove()
    return written


class _Progress:
    """One line on standard error: what is going on, how far, how fast, how long still."""

    def __init__(self) -> None:
        self._message, self._began, self._first = "", 0.0, 0

    def __call__(self, done: int, total: int, message: str) -> None:
        """Report; see `scdiva_core.tasks.progress.Progress`."""
        now = time.monotonic()
        if message != self._message:
            self._message, self._began, self._first = message, now, done
        line = f"{message}: {done:,} of {total:,}"
        elapsed, finished = now - self._began, done - self._first
        if finished and elapsed > 0.5:
            rate = finished / elapsed
            line += f", {rate:,.0f}/s, {(total - done) / rate:,.0f} s left"
        end = "\r" if sys.stderr.isatty() else "\n"
        print(line.ljust(78), end=end, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the last line standing."""
        if sys.stderr.isatty():
            print(file=sys.stderr)
