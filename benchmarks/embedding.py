"""Embedding: share of the machine's GEMM rate, what length buckets save over padding, and BERT of equal size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from benchmarks.bert import MISSING, bert_encoder
from benchmarks.timing import best_seconds, markdown
from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.tokenizer import TokenBatch, Tokenizer, TokenRows
from scdiva_core.data.vocabulary import human_genes
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.embedding import TokenBudget, embed_cells

DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo" / "tenx_pbmc3k.h5ad"
PUBLISHED = ScDiVaConfig(vocab_size=len(human_genes()), heads=())
SMALL = replace(PUBLISHED, hidden_size=128, num_layers=3, num_heads=4, intermediate_size=512)


@dataclass(frozen=True)
class Case:
    """A network, and how many of the demo's cells it is timed on how often."""

    name: str
    config: ScDiVaConfig
    cells: int
    turns: int


CPU_CASES = (
    Case("3 layers, hidden 128", SMALL, 256, 2),
    Case("12 layers, hidden 512 (published size)", PUBLISHED, 16, 2),
)
CUDA_CASES = tuple(replace(case, cells=2700, turns=3) for case in CPU_CASES)


def tables() -> Iterator[str]:
    """Both tables on the CPU, then on the GPU where there is one; random weights, for speed only."""
    cpu = torch.device("cpu")
    yield gemm_table(PUBLISHED, cpu, product=2048, turns=6)
    yield bucket_table(CPU_CASES, cpu)
    if torch.cuda.is_available():
        gpu = torch.device("cuda")
        yield gemm_table(PUBLISHED, gpu, product=8192, turns=10)
        yield bucket_table(CUDA_CASES, gpu)


def gemm_table(config: ScDiVaConfig, device: torch.device, *, product: int, turns: int) -> str:
    """Rows of the greatest length, without padding, against the rate of a large matrix product.

    Parameters
    ----------
    config
        The network; `max_genes` is the length of the rows.
    device
        Where all is timed. On CUDA the product is in bfloat16, and the network in both precisions.
    product
        Rows and columns of the matrices.
    turns
        How often each is timed.
    """
    model, length = ScDiVaModel(config).eval().to(device), config.max_genes
    compiled, cells = _compiled(model), TokenBudget(model).cells(length)
    ids = torch.randint(2, config.pad_fill_id, (cells, length))
    batch = TokenBatch(ids, torch.rand(ids.shape), torch.full((cells,), length)).to(device)
    on_cuda, inputs = device.type == "cuda", _input_flops(config, length)
    kind = torch.bfloat16 if on_cuda else torch.float32
    left, right = (torch.randn(product, product, device=device, dtype=kind) for _ in range(2))
    rivals = [(f"matrix product, {product} x {product}, {_spelled(kind)} (reference)", 0, 2 * product**3)]
    work: list[Callable[[], object]] = [lambda: left @ right]
    whole = cells * flops_per_cell(config, length)
    if on_cuda:
        rivals += [("this network, bfloat16", cells, whole), ("this network, bfloat16, compiled", cells, whole)]
        work += [lambda: _in_bfloat16(model, batch), lambda: _in_bfloat16(compiled, batch)]
    rivals += [("this network, float32", cells, whole), ("this network, float32, compiled", cells, whole)]
    work += [lambda: model.encode(batch), lambda: compiled.encode(batch)]
    bert = bert_encoder(config, device)
    if bert:
        rivals.append(("transformers.BertModel of equal size, float32", cells, whole - cells * inputs))
        work.append(lambda: bert(batch))
    with torch.inference_mode():
        seconds = best_seconds([_waiting(device, one) for one in work], turns)
    rates = [flops / each / 1e9 for (_, _, flops), each in zip(rivals, seconds, strict=True)]
    rows = [
        [name, f"{count / each:.2f}" if count else "", f"{rate:,.0f}", f"{rate / rates[0]:.2f}"]
        for (name, count, _), each, rate in zip(rivals, seconds, rates, strict=True)
    ]
    size = f"{config.num_layers} layers, hidden {config.hidden_size}"
    title = f"Embedding rows of {length:,} genes, {size}, {_described(device)}"
    return _said(markdown(title, ["what", "cells/s", "GFLOP/s", "ratio"], rows), bert)


def bucket_table(cases: Sequence[Case], device: torch.device) -> str:
    """The pbmc3k demo as the app embeds it against every cell padded to the greatest length in float32.

    Parameters
    ----------
    cases
        Networks over `human_genes`.
    device
        Where all is timed; on CUDA the app's way is in bfloat16.
    """
    way = "length buckets" + (", bfloat16" if device.type == "cuda" else "")
    table, bert = [], None
    for case in cases:
        model, length = ScDiVaModel(case.config).eval().to(device), case.config.max_genes
        tokenizer = Tokenizer.unweighted(case.config.vocab_size, length)
        expression, gene_ids = _demo_cells(case.cells)
        n_cells = expression.shape[0]
        rivals = [
            ("padded, float32 (reference)", _padded(model, model.encode, tokenizer, expression, gene_ids)),
            (f"{way} (this project)", _bucketed(model, tokenizer, expression, gene_ids)),
            (f"{way}, compiled", _bucketed(_compiled(model), tokenizer, expression, gene_ids)),
        ]
        bert = bert_encoder(case.config, device)
        if bert:
            rivals.append(
                ("transformers.BertModel, padded, float32", _padded(model, bert, tokenizer, expression, gene_ids))
            )
        with torch.inference_mode():
            seconds = best_seconds([_waiting(device, work) for _, work in rivals], case.turns)
        table += [
            [case.name, what, f"{n_cells:,}", f"{n_cells / each:.1f}", f"{seconds[0] / each:.2f}"]
            for (what, _), each in zip(rivals, seconds, strict=True)
        ]
    title = f"Embedding the pbmc3k demo, padded to {cases[0].config.max_genes:,} or not, {_described(device)}"
    return _said(markdown(title, ["network", "what", "cells", "cells/s", "ratio"], table), bert)


def flops_per_cell(config: ScDiVaConfig, length: int) -> float:
    """Multiply-adds times two of one cell's matrix products, anchor and attention included."""
    width, tokens = config.hidden_size, length + 1
    layer = tokens * 2 * (4 * width * width + 3 * width * config.intermediate_size) + 4 * tokens * tokens * width
    return _input_flops(config, length) + config.num_layers * layer


def _input_flops(config: ScDiVaConfig, length: int) -> float:
    """The part of the value encoder and the input projection, which BERT has not."""
    return length * 2 * config.hidden_size**2 * 2


def _compiled(model: ScDiVaModel) -> ScDiVaModel:
    """A copy with compiled layers."""
    made = deepcopy(model)
    made.compile_layers()
    return made


def _in_bfloat16(model: ScDiVaModel, batch: TokenBatch) -> None:
    with torch.autocast("cuda", torch.bfloat16):
        model.encode(batch)


def _waiting(device: torch.device, work: Callable[[], object]) -> Callable[[], None]:
    """The same work, ended only when the device has done it."""

    def whole() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return whole


def _demo_cells(n_cells: int) -> tuple[sp.csr_matrix, NDArray[np.int64]]:
    """Expression of some cells of the demo, drawn once for all, and the columns' token ids."""
    with open_h5ad(DEMO, human_genes()) as dataset:
        _, expression = next(iter(dataset.chunks(dataset.n_obs)))
        gene_ids = dataset.gene_ids
    drawn = np.random.default_rng(0).permutation(expression.shape[0])[:n_cells]
    return expression[drawn].tocsr(), gene_ids


def _bucketed(
    model: ScDiVaModel, tokenizer: Tokenizer, expression: sp.csr_matrix, gene_ids: NDArray[np.int64]
) -> Callable[[], None]:
    done = np.zeros(expression.shape[0], bool)
    return lambda: embed_cells(model, tokenizer, [(0, expression)], gene_ids, done, lambda cells, vectors: None)


def _padded(
    model: ScDiVaModel,
    encode: Callable[[TokenBatch], object],
    tokenizer: Tokenizer,
    expression: sp.csr_matrix,
    gene_ids: NDArray[np.int64],
) -> Callable[[], None]:
    size, config = TokenBudget(model).cells(tokenizer.max_genes), model.config

    def run() -> None:
        rows = tokenizer.serialize(expression.indptr, expression.indices, expression.data, gene_ids)
        for start in range(0, len(rows), size):
            encode(_wide(rows, np.arange(start, min(start + size, len(rows))), config))

    return run


def _wide(rows: TokenRows, chosen: NDArray[np.int64], config: ScDiVaConfig) -> TokenBatch:
    """The chosen rows padded to the greatest length."""
    batch = rows.batch(chosen, pad_id=config.pad_id)
    fill = (0, config.max_genes - batch.gene_ids.shape[1])
    ids = torch.nn.functional.pad(batch.gene_ids, fill, value=config.pad_id)
    return TokenBatch(ids, torch.nn.functional.pad(batch.values, fill), batch.lengths)


def _spelled(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def _described(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _said(table: str, bert: object) -> str:
    return table if bert else f"{table}\n\n{MISSING}"
