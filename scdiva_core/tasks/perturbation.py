"""Genes removed, scaled or masked in cells, and how far that moves the cells' latents.

The paper is silent on how to perturb; this is our reading. A perturbed cell is serialised anew and encoded as any other
cell, its anchor from its perturbed tokens. A cell in which that changes no token is not run: it shifts by exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import Tokenizer, TokenRows
from scdiva_core.errors import DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.cell_sample import CellSample, read_cells
from scdiva_core.tasks.embedding import TokenBudget, encode_rows
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent

Mode = Literal["knockout", "scale", "mask"]

MOST_GENES = 3
"""Genes perturbed at once."""

_COPIES = 2048  # perturbed copies held as tokens at a time


@dataclass(frozen=True)
class Perturbation:
    """What is done to one to three genes of a cell.

    Parameters
    ----------
    genes
        Any names of the genes: symbol, older symbol, alias or Ensembl id.
    mode
        ``"knockout"``: the values become 0, so the tokens go and those below move up. ``"scale"``: the expression
        (counts per 10,000) is multiplied by `factor`, and the token moves to its new rank. ``"mask"``: the token keeps
        its place, but gene and value are hidden, which leaves all other ranks as they were.
    factor
        For ``"scale"``: above 0, below 1 to knock down, above 1 to over-express.

    Raises
    ------
    DataError
        No gene, more than three, one of them twice, or a factor that makes no sense.
    """

    genes: tuple[str, ...]
    mode: Mode = "knockout"
    factor: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "genes", tuple(str(gene) for gene in self.genes))
        if not 1 <= len(self.genes) <= MOST_GENES or len(set(self.genes)) < len(self.genes):
            msg = f"{len(self.genes)} genes to perturb ({', '.join(self.genes) or 'none'})."
            raise DataError(msg, f"Choose 1 to {MOST_GENES} different genes.")
        if self.mode not in get_args(Mode):
            msg = f"Unknown perturbation {self.mode!r}."
            raise DataError(msg, "Choose 'knockout', 'scale' or 'mask'.")
        scales = math.isfinite(self.factor) and self.factor > 0 and self.factor != 1
        if self.mode == "scale" and not scales:
            msg = f"Expression cannot be scaled by {self.factor:g}."
            raise DataError(msg, "Choose a factor between 0 and 1 or above 1; a knockout stands for 0.")
        if self.mode != "scale" and self.factor != 0:
            msg = f"The factor {self.factor:g} means nothing to {self.mode!r}."
            raise DataError(msg, "Leave it out, or choose 'scale'.")

    @property
    def title(self) -> str:
        """For people: ``SPI1 and CEBPA knocked out``, ``GATA1 x 2``, ``SPI1 masked``."""
        *others, last = self.genes
        names = f"{', '.join(others)} and {last}" if others else last
        return {"knockout": f"{names} knocked out", "scale": f"{names} x {self.factor:g}", "mask": f"{names} masked"}[
            self.mode
        ]


def read_sample(
    model: ScDiVaModel,
    tokenizer: Tokenizer,
    dataset: H5adDataset,
    cells: ArrayLike,
    *,
    latents: NDArray[np.float32] | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> CellSample:
    """Read and serialise cells, and encode them where their latents are not known.

    Parameters
    ----------
    model, tokenizer
        As for `scdiva_core.tasks.embedding.embed_cells`.
    dataset
        Open file.
    cells
        Places of the cells in the file.
    latents
        float32 ``[n_obs, d]`` of the whole file. On CUDA they are computed anew all the same: stored ones are rounded
        to bfloat16, and that error is as large as what one gene does.
    progress, cancelled
        Called once a chunk of the file, then once a batch.

    Raises
    ------
    DataError
        No cells, or places outside the file.
    Cancelled
        The user stopped.
    """
    sample = read_cells(tokenizer, dataset, cells, model.vocabulary, progress=progress, cancelled=cancelled)
    if latents is None or model.device.type == "cuda":
        vectors = _gathered(model, sample.rows, None, progress, cancelled)
    else:
        vectors = np.asarray(latents[sample.cells], np.float32)
    return replace(sample, latents=vectors)


def perturbed_rows(
    tokenizer: Tokenizer, sample: CellSample, perturbation: Perturbation, rows: NDArray[np.integer]
) -> TokenRows:
    """Tokens of some cells of the sample after a perturbation; masked tokens are still there (`hidden_tokens`).

    Parameters
    ----------
    tokenizer
        That of the sample.
    sample, perturbation
        What is perturbed, and how. Genes that a cell does not express stay at 0.
    rows
        int ``[m]`` rows of the sample.
    """
    part = sample.expression[rows]
    if perturbation.mode != "mask":
        touched = np.isin(part.indices, sample.columns(perturbation.genes))
        factor = perturbation.factor  # 0 for a knockout
        part.data[touched] = np.log1p(factor * np.expm1(part.data[touched].astype(np.float64)))
    return tokenizer.serialize(part.indptr, part.indices, part.data, sample.gene_ids)


def hidden_tokens(sample: CellSample, perturbation: Perturbation, rows: TokenRows) -> NDArray[np.bool_]:
    """Which of the rows' tokens a perturbation masks, bool ``[len(rows.gene_ids)]``; none unless it is a mask."""
    if perturbation.mode != "mask":
        return np.zeros(len(rows.gene_ids), bool)
    return np.isin(rows.gene_ids, sample.gene_ids[sample.columns(perturbation.genes)])


def reading_rows(tokenizer: Tokenizer, sample: CellSample, perturbation: Perturbation) -> NDArray[np.int64]:
    """Rows of the sample, ascending, in which a perturbed gene is among the tokens before or after."""
    columns = sample.columns(perturbation.genes)
    before = np.diff(sample.tokens[:, columns].tocsr().indptr) > 0
    if perturbation.mode == "scale" and perturbation.factor > 1:
        # A gene below the last token may rise into the row.
        below = np.flatnonzero((np.diff(sample.expressed[:, columns].tocsr().indptr) > 0) & ~before)
        after = perturbed_rows(tokenizer, sample, perturbation, below)
        owner = np.repeat(below, after.lengths)
        before[owner[np.isin(after.gene_ids, sample.gene_ids[columns])]] = True
    return np.flatnonzero(before)


def check_read(tokenizer: Tokenizer, sample: CellSample, perturbation: Perturbation) -> None:
    """Refuse a gene that no cell of the sample reads.

    Raises
    ------
    DataError
        With the numbers of cells that express the gene, and that read it; or as for `CellSample.columns`.
    """
    for gene, column in zip(perturbation.genes, sample.columns(perturbation.genes), strict=True):
        alone = Perturbation((gene,), perturbation.mode, perturbation.factor)
        if len(reading_rows(tokenizer, sample, alone)):
            continue
        expressing, n = int(sample.expressed[:, [column]].nnz), len(sample)
        msg = f"None of the {n:,} cells reads {gene}, so nothing can change: {expressing:,} of {n:,} express it"
        msg += f", all below the {sample.max_genes:,} genes that the model reads of a cell." if expressing else "."
        raise DataError(msg, "Choose a gene that these cells express, or cells that express this gene.")


@dataclass(frozen=True, eq=False)
class Effect:
    """A perturbation of every cell of a sample.

    Attributes
    ----------
    perturbation
        What was done.
    expressed
        bool ``[n]``, True where the cell expresses a perturbed gene.
    read
        bool ``[n]``, True where a token changed. Cells that express a gene and do not read it have it below the genes
        that the model reads.
    after
        float32 ``[n, d]`` latents of the perturbed cells; those of the sample where nothing was read.
    cosine
        float32 ``[n]`` 1 - cosine similarity of the latents before and after; exactly 0 where nothing was read.
    l2
        float32 ``[n]`` Euclidean distance of the two.
    """

    perturbation: Perturbation
    expressed: NDArray[np.bool_]
    read: NDArray[np.bool_]
    after: NDArray[np.float32]
    cosine: NDArray[np.float32]
    l2: NDArray[np.float32]

    @property
    def mean_shift(self) -> float:
        """Mean cosine shift of the reading cells."""
        return float(self.cosine[self.read].mean(dtype=np.float64))


def effect(
    model: ScDiVaModel,
    tokenizer: Tokenizer,
    sample: CellSample,
    perturbation: Perturbation,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Effect:
    """Perturb every cell of a sample; one forward for each cell that reads the genes.

    Raises
    ------
    DataError
        No cell reads one of the genes, or as for `CellSample.columns`.
    Cancelled
        The user stopped.
    """
    check_read(tokenizer, sample, perturbation)
    rows = reading_rows(tokenizer, sample, perturbation)
    work = [(perturbation, rows)]
    (vectors,) = perturbed_latents(model, tokenizer, sample, work, progress=progress, cancelled=cancelled)
    columns = sample.columns(perturbation.genes)
    expressed = np.diff(sample.expressed[:, columns].tocsr().indptr) > 0
    read = np.zeros(len(sample), bool)
    read[rows] = True
    after, cosine, l2 = sample.latents.copy(), np.zeros(len(sample), np.float32), np.zeros(len(sample), np.float32)
    after[rows] = vectors
    cosine[rows] = cosine_shift(sample.latents[rows], vectors)
    l2[rows] = np.linalg.norm(vectors.astype(np.float64) - sample.latents[rows], axis=1)
    return Effect(perturbation, expressed, read, after, cosine, l2)


def perturbed_latents(
    model: ScDiVaModel,
    tokenizer: Tokenizer,
    sample: CellSample,
    work: Sequence[tuple[Perturbation, NDArray[np.integer]]],
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> list[NDArray[np.float32]]:
    """Latents of perturbed cells, those of all perturbations in the same batches.

    Parameters
    ----------
    model, tokenizer, sample
        The cells and what encodes them.
    work
        Each perturbation, and the rows of the sample that it is done to.
    progress, cancelled
        Called once a batch; units are perturbed cells.

    Returns
    -------
    list of ndarray
        For each perturbation float32 ``[rows, d]``.
    """
    ends = np.cumsum([len(rows) for _, rows in work], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    out = np.empty((total, sample.latents.shape[1]), np.float32)
    budget = TokenBudget(model)
    done = 0
    for pieces in _blocks(work):
        tokens = [perturbed_rows(tokenizer, sample, perturbation, rows) for perturbation, rows in pieces]
        hidden = [hidden_tokens(sample, each[0], rows) for each, rows in zip(pieces, tokens, strict=True)]
        block, masked = _joined(tokens), np.concatenate(hidden)

        def report(finished: int, _: int, message: str, before: int = done) -> None:
            progress(before + finished, total, message)

        part = _gathered(model, block, masked if masked.any() else None, report, cancelled, budget, "Perturbing cells")
        out[done : done + len(part)] = part
        done += len(part)
    return np.split(out, ends[:-1]) if len(work) else []


def cosine_shift(before: NDArray[np.floating], after: NDArray[np.floating]) -> NDArray[np.float32]:
    """Compute 1 - cosine similarity of each row, float32 ``[n]``.

    As half the squared distance of the unit vectors, which keeps shifts that 1 - cosine would round away.
    """
    one, other = (vectors.astype(np.float64) for vectors in (before, after))
    one, other = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (one, other))
    return (0.5 * np.square(one - other).sum(axis=1)).astype(np.float32)


def _blocks(
    work: Sequence[tuple[Perturbation, NDArray[np.integer]]],
) -> Iterator[list[tuple[Perturbation, NDArray[np.integer]]]]:
    """Cut the work, in its order, into pieces of `_COPIES` perturbed cells."""
    pieces, room = [], _COPIES
    for perturbation, rows in work:
        start = 0
        while start < len(rows):
            piece = rows[start : start + room]
            pieces.append((perturbation, piece))
            start, room = start + len(piece), room - len(piece)
            if not room:
                yield pieces
                pieces, room = [], _COPIES
    if pieces:
        yield pieces


def _joined(parts: Sequence[TokenRows]) -> TokenRows:
    lengths = np.concatenate([part.lengths for part in parts])
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    ids, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("gene_ids", "values"))
    return TokenRows(indptr, ids, values)


def _gathered(
    model: ScDiVaModel,
    rows: TokenRows,
    hidden: NDArray[np.bool_] | None,
    progress: Progress,
    cancelled: IsCancelled,
    budget: TokenBudget | None = None,
    message: str = "Embedding cells",
) -> NDArray[np.float32]:
    """Latents of all rows, ``[n, d]``."""
    out, done = np.empty((len(rows), 0), np.float32), 0
    batches = encode_rows(model, rows, budget or TokenBudget(model), hidden=hidden, exact=True, cancelled=cancelled)
    for places, vectors in batches:
        if not out.size:
            out = np.empty((len(rows), vectors.shape[1]), np.float32)
        out[places] = vectors
        done += len(places)
        progress(done, len(rows), message)
    return out
