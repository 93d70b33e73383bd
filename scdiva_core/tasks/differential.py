"""Genes that tell a set of cells from others: cell by cell to mark the set, donor by donor to make a claim of it.

Cells of one donor are alike, so they are no replicates: a test that counts them as such finds differences between any
two donors (Squair 2021). Each table says in ``attrs["words"]`` what its p-values rest on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import DataError
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if
from scdiva_core.tasks.relabelled import texts

MAX_CELLS = 20_000
"""Cells of a side that the rank test sees at most (our choice, to bound memory and time)."""

FEWEST_DONOR_CELLS = 10
"""Cells that a donor must have on a side to count there (our choice; fewer make a noisy sum)."""

FEWEST_DONORS = 2
"""Donors that each side needs: without a second one nothing says how much donors differ."""

_FEWEST_CELLS = 2  # of a side, for a variance
_FEWEST_COUNTS = 10  # molecules over all sums for a gene to be tested, as DESeq2's vignette filters
_ROUGH_CELLS = 25  # up to here the rank sum is not quite normal (scanpy's own hint)
_GENES_AT_ONCE = 1000
_CHUNK_CELLS = 4096
_SIDES = ("inside", "outside")


def differential_genes(
    dataset: H5adDataset,
    cells: NDArray[np.bool_],
    background: NDArray[np.bool_],
    *,
    max_cells: int = MAX_CELLS,
    seed: int = 0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> pd.DataFrame:
    """Rank genes by how well they mark a set: scanpy's Wilcoxon rank-sum test, corrected for ties.

    Cells count as independent, which they are not: the p-values order genes and prove nothing of donors.

    Parameters
    ----------
    dataset
        Read once, in chunks.
    cells, background
        bool ``[n_obs]``: the set, and what it is compared with; they share no cell.
    max_cells
        Of a larger side so many are drawn.
    seed
        Of the draw.
    progress, cancelled
        Called once a chunk of cells and once a thousand genes.

    Returns
    -------
    DataFrame
        One row for each gene of the file that the model knows, the highest score first: ``symbol``; ``score`` (z of
        the rank sum); ``log2_fold_change`` (scanpy's, of expm1 of mean log1p; of a gene that one side lacks it is a
        large number without meaning); ``p``; ``q`` (Benjamini-Hochberg over all rows); ``share_inside`` and
        ``share_outside`` (of the cells compared that detect the gene). ``attrs["words"]`` says what was compared,
        ``attrs["replicates"]`` is ``"cells"``.

    Raises
    ------
    DataError
        A side is no mask of these cells or has fewer than two, or the sides overlap.
    Cancelled
        The user stopped.
    """
    sides = _sides(dataset, cells, background, _FEWEST_CELLS)
    rng = np.random.default_rng(seed)
    inside, outside = (_drawn(side, max_cells, rng) for side in sides)
    chosen = inside | outside
    blocks = [sp.csr_matrix((0, len(dataset.gene_ids)), dtype=np.float32)]
    for start, block in dataset.chunks(_CHUNK_CELLS):
        stop_if(cancelled)
        progress(start, 2 * dataset.n_obs, "Reading the cells to compare")
        blocks.append(block[chosen[start : start + block.shape[0]]])
    values = sp.vstack(blocks, format="csc")

    def genes_done(done: int, total: int) -> None:
        stop_if(cancelled)
        progress(dataset.n_obs + dataset.n_obs * done // total, 2 * dataset.n_obs, "Comparing genes")

    table = pd.DataFrame({"symbol": dataset.gene_symbols})
    table = table.join(_wilcoxon(values, inside[chosen], genes_done))
    table.insert(4, "q", false_discovery_control(table["p"]) if len(table) else table["p"])
    progress(2 * dataset.n_obs, 2 * dataset.n_obs, "Comparing genes")
    table = table.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    table.attrs = {"words": _cell_words(sides, (inside, outside), seed), "replicates": "cells"}
    return table


def pseudobulk_genes(
    dataset: H5adDataset,
    cells: NDArray[np.bool_],
    background: NDArray[np.bool_],
    donors: ArrayLike,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> pd.DataFrame:
    """Compare a set with others by sums over donors: DESeq2's negative binomial model (Love 2014; pydeseq2).

    The raw counts of a donor's cells on a side are one sample. When the same donors are on both sides, the donor is a
    factor of the model, as in a paired test.

    Parameters
    ----------
    dataset
        With raw counts; read once, in chunks.
    cells, background
        bool ``[n_obs]``: the set, and what it is compared with; they share no cell.
    donors
        ``[n_obs]`` donor of each cell; cells without one are left out.
    progress, cancelled
        Called once a chunk; the fit itself cannot be stopped.

    Returns
    -------
    DataFrame
        As of `differential_genes`, the highest score first, with ``score`` the Wald statistic, ``log2_fold_change``
        that of the model, shares over the cells that were summed, and ``base_mean``, the mean of the sums after
        normalisation. Genes with fewer than ten molecules in all are not tested and have neither score nor p; ``p``
        is also missing for an outlier by Cook's distance, and ``q`` for a gene too rare to be found (DESeq2's
        independent filtering). ``attrs["words"]`` names the number of donors, ``attrs["replicates"]`` is ``"donors"``.

    Raises
    ------
    DataError
        Fewer than `FEWEST_DONORS` donors have `FEWEST_DONOR_CELLS` cells on a side, no gene is detected often
        enough, the matrix holds no raw counts, or as for `differential_genes`.
    Cancelled
        The user stopped.
    """
    sides = _sides(dataset, cells, background, 0)
    codes, names = pd.factorize(_for_cells(dataset, "donors", texts(donors)), sort=True)
    sample = np.where(codes >= 0, np.where(sides[0], 0, len(names)) + codes, -1)
    sample[~(sides[0] | sides[1])] = -1
    sizes = np.bincount(sample[sample >= 0], minlength=2 * len(names)).reshape(2, len(names))
    enough = sizes >= FEWEST_DONOR_CELLS
    _check_donors(enough)
    side, donor = np.nonzero(enough)
    place = np.full(enough.size + 1, -1)  # the last for cells that are in no sample
    place[np.flatnonzero(enough)] = np.arange(len(side))
    blocks = dataset.count_chunks(_CHUNK_CELLS)
    counts, detected = _sums(
        _watched(blocks, 2 * dataset.n_obs, "Adding up counts by donor", progress, cancelled),
        place[sample],
        len(side),
        len(dataset.gene_ids),
    )
    stop_if(cancelled)
    progress(dataset.n_obs, 2 * dataset.n_obs, "Fitting a model of each gene")
    paired = bool((enough[0] == enough[1]).all())
    table = _deseq2(counts, side, donor if paired else None)
    for number, name in enumerate(_SIDES):
        table[f"share_{name}"] = detected[side == number].sum(axis=0) / sizes[number, enough[number]].sum()
    table.insert(0, "symbol", dataset.gene_symbols)
    table["base_mean"] = table.pop("base_mean")
    progress(2 * dataset.n_obs, 2 * dataset.n_obs, "Fitting a model of each gene")
    table = table.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    nameless = int(((codes < 0) & (sides[0] | sides[1])).sum())
    table.attrs = {"words": _donor_words(sizes, enough, paired, nameless), "replicates": "donors"}
    return table


def marker_profile(
    dataset: H5adDataset,
    symbols: Sequence[str],
    groups: ArrayLike,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> pd.DataFrame:
    """Say how much of a few genes each group of cells shows, for a dot plot.

    Parameters
    ----------
    dataset
        Read once, in chunks.
    symbols
        Genes, as in ``dataset.gene_symbols``; those that the data set lacks are left out.
    groups
        ``[n_obs]`` name of each cell's group; cells without one are left out.
    progress, cancelled
        Called once a chunk.

    Returns
    -------
    DataFrame
        One row for each group and symbol, groups in sorted order: ``group``, ``symbol``, ``mean_log1p`` (over all
        cells of the group) and ``share`` (of its cells that detect the gene).

    Raises
    ------
    DataError
        The groups are not of these cells.
    Cancelled
        The user stopped.
    """
    codes, names = pd.factorize(_for_cells(dataset, "groups", texts(groups)), sort=True)
    place = {symbol: column for column, symbol in enumerate(dataset.gene_symbols)}
    there = np.array([symbol for symbol in dict.fromkeys(symbols) if symbol in place], dtype=object)
    columns = np.array([place[symbol] for symbol in there], dtype=int)
    blocks = ((start, block[:, columns]) for start, block in dataset.chunks(_CHUNK_CELLS))
    watched = _watched(blocks, dataset.n_obs, "Reading marker genes", progress, cancelled)
    sums, detected = _sums(watched, codes, len(names), len(columns))
    progress(dataset.n_obs, dataset.n_obs, "Reading marker genes")
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))[:, None]
    return pd.DataFrame(
        {
            "group": np.repeat(np.asarray(names, dtype=object), len(columns)),
            "symbol": np.tile(there, len(names)),
            "mean_log1p": (sums / sizes).ravel(),
            "share": (detected / sizes).ravel(),
        }
    )


def _sides(
    dataset: H5adDataset, cells: NDArray[np.bool_], background: NDArray[np.bool_], fewest: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    sides = tuple(_for_cells(dataset, "marks of cells", np.asarray(mask, bool)) for mask in (cells, background))
    if shared := int((sides[0] & sides[1]).sum()):
        msg = f"{shared:,} cells are on both sides of the comparison."
        raise DataError(msg, "Compare sets that share no cell.")
    sizes = [int(mask.sum()) for mask in sides]
    if min(sizes) < fewest:
        msg = f"{_number(sizes[0], 'cell')} inside and {sizes[1]:,} outside are too few to compare."
        raise DataError(msg, f"Choose at least {fewest} on each side.")
    return sides


def _for_cells(dataset: H5adDataset, what: str, values: ArrayLike) -> NDArray:
    values = np.asarray(values)
    if values.shape != (dataset.n_obs,):
        msg = f"There are {len(values):,} {what}, but {dataset.path.name} has {dataset.n_obs:,} cells."
        raise DataError(msg, "Give one value for each cell of the file.")
    return values


def _drawn(side: NDArray[np.bool_], most: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    places = np.flatnonzero(side)
    if len(places) <= most:
        return side
    chosen = np.zeros(len(side), bool)
    chosen[rng.choice(places, most, replace=False)] = True
    return chosen


def _wilcoxon(values: sp.csc_matrix, inside: NDArray[np.bool_], genes_done: Callable[[int, int], None]) -> pd.DataFrame:
    """Test each column; one that no cell expresses is level, as scanpy has it: score 0, p 1."""
    import scanpy as sc  # seconds to import, and only this comparison needs it

    columns = ["score", "log2_fold_change", "p", "share_inside", "share_outside"]
    table = np.tile([0.0, 0.0, 1.0, 0.0, 0.0], (values.shape[1], 1))
    obs = pd.DataFrame(
        {"side": pd.Categorical(np.where(inside, *_SIDES), _SIDES)}, index=np.arange(len(inside)).astype(str)
    )
    detected = np.flatnonzero(values.getnnz(axis=0))
    for start in range(0, len(detected), _GENES_AT_ONCE):
        genes_done(start, len(detected))
        genes = detected[start : start + _GENES_AT_ONCE]
        part = anndata.AnnData(values[:, genes].tocsr(), obs.copy(), pd.DataFrame(index=genes.astype(str)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a gene that is the same in all cells divides 0 by 0, which scanpy mends
            sc.tl.rank_genes_groups(
                part, "side", groups=_SIDES[:1], reference=_SIDES[1], method="wilcoxon", tie_correct=True, pts=True
            )
        found = part.uns["rank_genes_groups"]
        places = found["names"][_SIDES[0]].astype(int)
        for column, name in enumerate(("scores", "logfoldchanges", "pvals")):
            table[places, column] = found[name][_SIDES[0]]
        table[genes, 3:] = found["pts"][list(_SIDES)]
    return pd.DataFrame(table, columns=columns)


def _check_donors(enough: NDArray[np.bool_]) -> None:
    n_inside, n_outside = (int(row.sum()) for row in enough)
    if min(n_inside, n_outside) < FEWEST_DONORS:
        msg = (
            f"{_number(n_inside, 'donor')} inside and {_number(n_outside, 'donor')} outside "
            f"with {FEWEST_DONOR_CELLS} cells or more are too few: each side needs {FEWEST_DONORS}."
        )
        raise DataError(msg, "Choose larger sets or another donor column, or compare cells, whose p-values only rank.")


def _watched(
    blocks: Iterable[tuple[int, sp.csr_matrix]],
    total: int,
    message: str,
    progress: Progress,
    cancelled: IsCancelled,
) -> Iterator[tuple[int, sp.csr_matrix]]:
    for start, block in blocks:
        stop_if(cancelled)
        progress(start, total, message)
        yield start, block


def _sums(
    blocks: Iterable[tuple[int, sp.csr_matrix]], member: NDArray[np.integer], n_groups: int, n_genes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of values, and number of cells with any, float64 ``[n_groups, n_genes]``; a member of -1 is in no group."""
    sums, detected = np.zeros((n_groups, n_genes)), np.zeros((n_groups, n_genes))
    for start, block in blocks:
        groups = member[start : start + block.shape[0]]
        rows = np.flatnonzero(groups >= 0)
        adder = sp.csr_matrix((np.ones(len(rows)), (groups[rows], rows)), (n_groups, block.shape[0]))
        sums += (adder @ block).toarray()
        detected += (adder @ (block > 0)).toarray()
    return sums, detected


def _deseq2(counts: NDArray[np.float64], side: NDArray[np.integer], donor: NDArray[np.integer] | None) -> pd.DataFrame:
    """Fit each gene's sums ``[n_samples, n_genes]``, with a factor of the donor where one is given."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    tested = np.flatnonzero(counts.sum(axis=0) >= _FEWEST_COUNTS)
    if not len(tested):
        msg = f"No gene has {_FEWEST_COUNTS} molecules or more in these cells."
        raise DataError(msg, "Choose larger sets.")
    samples = [f"sample {number}" for number in range(len(side))]
    about = pd.DataFrame({"side": np.array(_SIDES)[side]}, index=samples)
    if donor is not None:
        about["donor"] = [f"donor {number}" for number in donor]
    whole = pd.DataFrame(counts[:, tested].astype(np.int64), samples, tested.astype(str))
    one_core = DefaultInference(n_cpus=1)  # a page's server must not start processes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples, or a trend that is a mean: DESeq2 says what it does about them
        design = "~side" if donor is None else "~donor + side"
        fitted = DeseqDataSet(counts=whole, metadata=about, design=design, inference=one_core, quiet=True)
        fitted.deseq2()
        stats = DeseqStats(fitted, contrast=["side", *_SIDES], inference=one_core, quiet=True)
        stats.summary()
    names = {"stat": "score", "log2FoldChange": "log2_fold_change", "pvalue": "p", "padj": "q"}
    table = stats.results_df.set_axis(tested)[list(names)].rename(columns=names).reindex(range(counts.shape[1]))
    table["base_mean"] = (counts / fitted.obs["size_factors"].to_numpy()[:, None]).mean(axis=0)
    return table


def _cell_words(sides: Sequence[NDArray[np.bool_]], drawn: Sequence[NDArray[np.bool_]], seed: int) -> str:
    n_inside, n_outside = (int(side.sum()) for side in drawn)
    words = (
        f"{n_inside:,} cells inside were compared with {n_outside:,} outside as if each cell were independent, which "
        "cells of one donor are not: the p-values rank genes that mark the set and are no evidence beyond these cells."
    )
    for name, whole, part in zip(_SIDES, sides, drawn, strict=True):
        if part.sum() < whole.sum():
            words += f" The {part.sum():,} cells {name} were drawn at random from {whole.sum():,} (seed {seed})."
    if min(n_inside, n_outside) <= _ROUGH_CELLS:
        words += f" With {_ROUGH_CELLS} cells or fewer on a side the p-values are rough."
    return words


def _donor_words(sizes: NDArray[np.integer], enough: NDArray[np.bool_], paired: bool, nameless: int) -> str:
    n_inside, n_outside = (int(row.sum()) for row in enough)
    if paired:
        words = f"{n_inside} donors, each on both sides, are the replicates (paired): "
    else:
        words = f"{n_inside} donors inside and {n_outside} outside are the replicates (not paired): "
    words += "the counts of a donor's cells on a side were added up."
    both = int(enough.all(axis=0).sum())
    if both and not paired:
        words += f" {_number(both, 'donor')} on both sides counted as two, because others are on one side only."
    few = int(((sizes > 0) & ~enough).any(axis=0).sum())
    gone = [f"{_number(few, 'donor')} with fewer than {FEWEST_DONOR_CELLS} cells on a side, there"] if few else []
    gone += [f"{_number(nameless, 'cell')} without a donor"] if nameless else []
    words += f" Left out: {'; '.join(gone)}." if gone else ""
    if min(n_inside, n_outside) == FEWEST_DONORS:
        words += " Two donors can show large differences only."
    return words


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
