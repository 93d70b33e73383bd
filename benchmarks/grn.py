"""Regulatory networks: seconds and memory of attention between genes and of what stands beside it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import markdown
from scdiva_core.baselines.grn import spearman, tree_importance
from scdiva_core.data.regulons import regulons
from scdiva_core.engine import Engine
from scdiva_core.model.attention_choice import AttentionChoice
from scdiva_core.tasks.cell_sample import read_cells
from scdiva_core.tasks.embedding import embed_cells
from scdiva_core.tasks.grn_attention import accumulate, choose_block
from scdiva_core.tasks.grn_evidence import partial_correlation
from scdiva_core.tasks.grn_scores import stability
from scdiva_core.tasks.regulon_activity import regulon_activity

ROOT = Path(__file__).resolve().parent.parent
FILE = Path(os.environ.get("SCDIVA_DATA") or ROOT / ".." / "shared" / "data") / "corpus" / "kang2018_pbmc_ifnb.h5ad"
CELLS = 5000
TREES = (1000, 100, 500)  # cells, regulators, targets
TOP = 10


def table() -> str:
    """Every step over 5,000 cells; embedding them is the reference. A sentence where the file is not there."""
    if not FILE.is_file():
        return f"No {FILE.name} in {FILE.parent}: set SCDIVA_DATA for the table on regulatory networks."
    # A process of its own, whose peak memory is that of the network alone.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        steps, attention_peak, peak = pool.submit(measured).result()
    reference = steps[0][1]
    rows = [[what, f"{seconds:.1f}", f"{seconds / reference:.2f}"] for what, seconds in steps]
    title = f"A regulatory network; peak memory {attention_peak:.1f} GB with attention, {peak:.1f} GB in all"
    return markdown(title, ["what", "seconds", "ratio"], rows)


def measured() -> tuple[list[tuple[str, float]], float, float]:
    """Seconds of each step, and the process' peak memory in GB after attention and at the end."""
    engine, steps = Engine("default", "cpu"), []
    choice = AttentionChoice.of(engine.folder, engine.model.sha256)

    def timed(what: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = work()
        steps.append((what, time.perf_counter() - began))
        return found

    tokenizer = engine.model.tokenizer
    with engine.open(FILE) as dataset:
        cells = np.random.default_rng(0).choice(dataset.n_obs, CELLS, replace=False)
        sample = read_cells(tokenizer, dataset, cells, engine.vocabulary)
        chunks, done = [(0, sample.expression)], np.zeros(CELLS, bool)
        embed = (engine.model, tokenizer, chunks, sample.gene_ids, done, lambda *_: None)
        timed(f"embedding {CELLS:,} cells (reference)", lambda: embed_cells(*embed))
        block = choose_block(sample, regulons().regulators)
        genes = (sample.expression, block.regulators, block.targets)
        pairs = f"{block.shape[0]} x {block.shape[1]:,} genes"
        sums = timed(f"attention, {pairs}", lambda: accumulate(engine.model, sample, block, heads=choice.heads))
        attention_peak = _peak()
        drawn = {"centred": choice.centred}
        timed("stability, 200 draws", lambda: stability(sums, choice.direction, TOP, **drawn))
        timed(f"Spearman, {pairs}", lambda: spearman(*genes))
        timed(f"partial correlation, {pairs}", lambda: partial_correlation(*genes))
        few = [part[:n] for part, n in zip(genes, TREES, strict=True)]
        timed("trees, {:,} cells, {} x {} genes".format(*TREES), lambda: tree_importance(*few))
        timed(f"activity of all regulons in {CELLS:,} cells", lambda: regulon_activity(dataset, cells))
    return steps, attention_peak, _peak()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
