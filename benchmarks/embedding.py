"""Embedding: share of the machine's GEMM rate, and what length buckets save over padding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import best_seconds, markdown
from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.tokenizer import TokenBatch, Tokenizer
from scdiva_core.data.vocabulary import human_genes
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.embedding import embed_cells

DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo" / "tenx_pbmc3k.h5ad"
LENGTH = 1200


def gemm_table() -> str:
    """Full-size network at 1,200 genes against the plain matrix product of its own layers, float32 on the CPU."""
    config = ScDiVaConfig(heads=())
    model = ScDiVaModel(config).eval()
    cells = 2
    ids = torch.randint(2, config.pad_fill_id, (cells, LENGTH))
    values = torch.rand(cells, LENGTH)
    rows, width, inner = cells * (LENGTH + 1), config.hidden_size, config.intermediate_size
    left, up, down = torch.randn(rows, width), torch.randn(width, inner), torch.randn(inner, width)
    with torch.inference_mode():
        embed, product = best_seconds([lambda: model(ids, values), lambda: left @ up @ down], turns=8)
    model_rate = cells * flops_per_cell(config, LENGTH) / embed / 1e9
    gemm_rate = 4 * rows * width * inner / product / 1e9
    table = [
        ["network, 94.48M parameters, 1,200 genes", f"{model_rate:.0f}", f"{model_rate / gemm_rate:.2f}"],
        [f"matrix product {rows} x {width} x {inner} and back (reference)", f"{gemm_rate:.0f}", "1.00"],
    ]
    title = f"Embedding on the CPU, float32, {torch.get_num_threads()} threads ({cells / embed:.2f} cells/s)"
    return markdown(title, ["what", "GFLOP/s", "ratio"], table)


def bucket_table() -> str:
    """The pbmc3k demo in length buckets against every cell padded to 1,200; random weights, for speed only."""
    published = ScDiVaConfig(vocab_size=len(human_genes()), heads=())
    small = replace(published, hidden_size=128, num_layers=3, num_heads=4, intermediate_size=512)
    table = []
    for name, config, n_cells, turns in (
        ("3 layers, hidden 128", small, None, 1),
        ("12 layers, hidden 512 (published size)", published, 32, 2),
    ):
        buckets, padded, n_cells = _seconds(ScDiVaModel(config).eval(), n_cells, turns)
        rates = [f"{n_cells / buckets:.1f}", f"{n_cells / padded:.1f}", f"{padded / buckets:.2f}"]
        table.append([name, f"{n_cells:,}", *rates])
    header = ["network", "cells", "buckets, cells/s", "padded to 1,200, cells/s", "ratio"]
    return markdown("Length buckets on the pbmc3k demo", header, table)


def flops_per_cell(config: ScDiVaConfig, length: int) -> float:
    """Multiply-adds times two of one cell's matrix products, anchor and attention included."""
    width, tokens = config.hidden_size, length + 1
    inputs = length * 2 * width * width * 2
    layer = tokens * 2 * (4 * width * width + 3 * width * config.intermediate_size) + 4 * tokens * tokens * width
    return inputs + config.num_layers * layer


def _seconds(model: ScDiVaModel, n_cells: int | None, turns: int) -> tuple[float, float, int]:
    with open_h5ad(DEMO, human_genes()) as dataset:
        _, expression = next(iter(dataset.chunks(dataset.n_obs)))
        gene_ids = dataset.gene_ids
    if n_cells is not None:
        expression = expression[np.random.default_rng(0).choice(expression.shape[0], n_cells, replace=False)]
    expression = expression.tocsr()
    tokenizer = Tokenizer.unweighted(model.config.vocab_size, LENGTH)
    done = np.zeros(expression.shape[0], bool)

    def buckets() -> None:
        embed_cells(model, tokenizer, [(0, expression)], gene_ids, done, lambda cells, vectors: None)

    def padded() -> None:
        rows = tokenizer.serialize(expression.indptr, expression.indices, expression.data, gene_ids)
        size = max(1_250_000 // model.config.hidden_size // (LENGTH + 1), 1)
        for start in range(0, len(rows), size):
            batch = rows.batch(np.arange(start, min(start + size, len(rows))), pad_id=model.config.pad_id)
            fill = LENGTH - batch.gene_ids.shape[1]
            wide = TokenBatch(
                torch.nn.functional.pad(batch.gene_ids, (0, fill), value=model.config.pad_id),
                torch.nn.functional.pad(batch.values, (0, fill)),
                batch.lengths,
            )
            with torch.inference_mode():
                model.encode(wide)

    return (*best_seconds([buckets, padded], turns), expression.shape[0])
