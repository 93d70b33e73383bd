"""Knockout: where known regulators rank among all, and what a screen costs beside plain embedding."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.timing import markdown
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_screen import ScreenSettings, screen
from scdiva_core.store import ResultStore
from scdiva_core.tasks.knockout_genes import screen_genes
from scdiva_core.tasks.neighbors import ProjectionSettings

DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo"
MOST_CELLS = 1000

# Demo set, column and value of the cells (the cluster richest in a gene where there is none), and regulators that are
# known to shape them (Orkin 2008 for blood lineages; Platanias 2005 for interferon).
KNOWN = (
    ("tenx_pbmc3k", "cell_type", "CD14 Monocytes", ("SPI1", "CEBPA", "CEBPB")),
    ("tenx_pbmc3k", "cell_type", "B", ("PAX5", "EBF1")),
    ("zheng2017_bone_marrow_healthy1", "cluster", "HBA1", ("GATA1", "KLF1", "TAL1")),
    ("kang2018_pbmc_ifnb_3k", "condition", "STIM", ("STAT1", "STAT2", "IRF9", "IRF7")),
)


def tables() -> Iterator[str]:
    """One table after the other."""
    engine = Engine("default", "cpu")
    rows = []
    for name, column, value, regulators in KNOWN:
        with engine.open(DEMO / f"{name}.h5ad") as dataset:
            rows += _ranks(engine, dataset, f"{name}: {value}", _cells(engine, dataset, column, value), regulators)
    header = ["cells", "regulator", "cells that read it", "shift", "z", "p", "rank by shift", "rank by z", "tested"]
    yield markdown("Known regulators knocked out, among all regulators that the cells read", header, rows)
    yield speed_table(engine)


def _cells(engine: Engine, dataset: H5adDataset, column: str, value: str) -> np.ndarray:
    if column != "cluster":
        return np.flatnonzero(dataset.obs[column] == value)
    clusters = engine.project(dataset, settings=ProjectionSettings()).leiden
    gene = dataset.gene_symbols.index(value)
    expression = np.concatenate([block[:, [gene]].toarray().ravel() for _, block in dataset.chunks()])
    means = [expression[clusters == cluster].mean() for cluster in range(clusters.max() + 1)]
    return np.flatnonzero(clusters == int(np.argmax(means)))


def _ranks(
    engine: Engine, dataset: H5adDataset, title: str, cells: np.ndarray, regulators: tuple[str, ...]
) -> list[list[str]]:
    genes = screen_genes(dataset, "regulators", cells, most=None)
    settings = ScreenSettings(tuple(dict.fromkeys((*genes, *regulators))), most_cells=MOST_CELLS, cells=title)
    table = screen(engine, dataset, settings, cells).set_index("gene")
    tested = table[(table["refused"] == "") & table["z"].notna()]
    by_shift, by_z = (tested[name].rank(ascending=False, method="min") for name in ("effect", "z"))
    rows = []
    for gene in regulators:
        if gene not in tested.index:
            reason = table["refused"].get(gene, "the file or the model lacks it") or "too few cells to test"
            rows.append([title, gene, f"refused: {reason}", *[""] * 6])
            continue
        row = tested.loc[gene]
        numbers = [f"{row['n_read']:,}", f"{row['effect']:.2e}", f"{row['z']:.2f}", f"{row['p']:.3f}"]
        rows.append([title, gene, *numbers, f"{by_shift[gene]:.0f}", f"{by_z[gene]:.0f}", f"{len(tested)}"])
    return rows


def speed_table(engine: Engine) -> str:
    """A screen of 500 regulators over 1,000 cells, nothing of it kept from before but the embedding."""
    with engine.open(DEMO / "kang2018_pbmc_ifnb_3k.h5ad") as dataset, tempfile.TemporaryDirectory() as folder:
        genes = screen_genes(dataset, "regulators", most=500)
        fresh = Engine("default", "cpu", ResultStore(Path(folder)))
        began = time.perf_counter()
        fresh.embed(dataset)
        embedding = (time.perf_counter() - began) / dataset.n_obs * MOST_CELLS
        fresh.project(dataset, settings=ProjectionSettings())
        began = time.perf_counter()
        screen(fresh, dataset, ScreenSettings(genes, most_cells=MOST_CELLS, cells="all"))
        seconds = time.perf_counter() - began
    table = [
        [f"embedding {MOST_CELLS:,} cells (reference)", f"{embedding:.1f}", "1.00"],
        [
            f"{len(genes)} regulators knocked out in them, random genes included",
            f"{seconds:.1f}",
            f"{seconds / embedding:.2f}",
        ],
    ]
    return markdown("A screen", ["what", "seconds", "ratio"], table)
