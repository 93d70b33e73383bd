"""Which genes can be perturbed: a table to choose from, search in it, pasted lists, and lists to screen."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from functools import lru_cache
from typing import Literal, get_args

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.hgnc import gene_names, is_ensembl
from scdiva_core.data.regulons import regulons
from scdiva_core.errors import DataError
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if
from scdiva_core.tasks.relabelled import texts

Kind = Literal["regulators", "variable"]

DETECTION_IN = "detection in "
"""What the column of a group begins with in `gene_table`."""

FEWEST_CELLS = 10
"""Cells of the set that must express a gene for a screen to try it (our choice: fewer tell nothing of the set)."""

MAX_CELLS = 5_000
"""Cells that the search for variable genes sees at most (our choice, to bound memory)."""

_CHUNK_CELLS = 4096
_SEPARATORS = re.compile(r"[\s,;]+")
_QUOTES = "\"'"


def gene_table(
    dataset: H5adDataset,
    groups: ArrayLike | None,
    cells: ArrayLike | None = None,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> pd.DataFrame:
    """Say of each gene how many cells express it, in all and by group.

    Parameters
    ----------
    dataset
        Read once, in chunks.
    groups
        ``[n_obs]`` name of each cell's group, such as a column of ``obs``; cells without one count in no group. None
        for no groups.
    cells
        Places of the cells to count, in any order; all cells of the file when None.
    progress, cancelled
        Called once a chunk.

    Returns
    -------
    DataFrame
        One row for each gene of the file that the model knows, in the order of ``dataset.gene_ids``: ``symbol``;
        ``detection`` (share of the cells with a value above 0, whether or not the gene is among the tokens that the
        model reads); ``mean`` (of log1p of counts per 10,000, over all the cells); then for each group with a cell, in
        sorted order, `DETECTION_IN` and its name. ``attrs["cells"]`` is the number of cells, ``attrs["sizes"]`` that
        of each group.

    Raises
    ------
    DataError
        There are no cells, places outside the file, or not as many groups as the file has cells.
    Cancelled
        The user stopped.
    """
    places = _places(dataset, cells)
    names, member = _membership(dataset, groups, places)
    detected, total = np.zeros((member.shape[0], len(dataset.gene_ids))), np.zeros(len(dataset.gene_ids))
    for start, block in dataset.chunks(_CHUNK_CELLS):
        stop_if(cancelled)
        progress(start, dataset.n_obs, "Counting the cells that express each gene")
        part = member[:, start : start + block.shape[0]]
        detected += (part @ (block > 0)).toarray()
        total += (part[[0]] @ block).toarray()[0]
    progress(dataset.n_obs, dataset.n_obs, "Counting the cells that express each gene")
    sizes = np.asarray(member.sum(axis=1)).ravel()
    shares = detected / sizes[:, None]
    columns = {"symbol": dataset.gene_symbols, "detection": shares[0], "mean": total / sizes[0]}
    columns |= {f"{DETECTION_IN}{name}": share for name, share in zip(names, shares[1:], strict=True)}
    table = pd.DataFrame(columns)
    counts = sizes.astype(int).tolist()
    table.attrs = {"cells": counts[0], "sizes": dict(zip(names, counts[1:], strict=True))}
    return table


def find_genes(table: pd.DataFrame, text: str) -> pd.DataFrame:
    """Search a table of genes by any name, in either case.

    Parameters
    ----------
    table
        From `gene_table`.
    text
        What was typed: symbol, older symbol, alias or Ensembl id, or a part of it; blanks around it do not count.

    Returns
    -------
    DataFrame
        Rows of the table, indexed from 0, and ``found_as``: the other name by which a gene was found, empty where it
        was its symbol. First the gene called exactly so, then one with exactly such another name, then symbols that
        begin so, symbols with it inside, and last other names that begin so; among equals the most detected first.
        For empty text all genes.
    """
    wanted = text.strip().casefold()
    folded = table["symbol"].str.casefold()
    rank = np.full(len(table), np.inf)
    found_as = np.full(len(table), "", dtype=object)
    rank[folded.str.contains(wanted, regex=False)] = 3
    rank[folded.str.startswith(wanted)] = 2
    if wanted:
        others = _other_names(wanted)
        approved = [_approved(symbol) for symbol in table["symbol"]]
        for row, name in ((row, others[gene]) for row, gene in enumerate(approved) if gene in others):
            new = 1 if name.casefold() == wanted else 4
            if new < rank[row]:
                rank[row], found_as[row] = new, name
        rank[folded == wanted] = 0
        found_as[folded == wanted] = ""
    found = table.assign(found_as=found_as, rank=rank)[np.isfinite(rank)]
    found = found.sort_values(["rank", "detection", "symbol"], ascending=[True, False, True], kind="stable")
    return found.drop(columns="rank").reset_index(drop=True)


def parse_gene_list(text: str, dataset: H5adDataset) -> tuple[dict[str, str], dict[str, str]]:
    """Read a pasted list of genes.

    Parameters
    ----------
    text
        Names separated by commas, semicolons, spaces, tabs or new lines, with or without quotes: symbols, older
        symbols, aliases or Ensembl ids, in either case. A symbol goes before the alias of another gene, and an alias as
        it is spelt before one in another case.
    dataset
        Open file.

    Returns
    -------
    found : dict
        Symbol, as in ``dataset.gene_symbols``, -> the name that was given, in the order given; of names of one gene
        the first.
    unknown : dict
        Name that was given -> why no gene of the file was found for it; of spellings in another case the first.
    """
    here: dict[str, str] = {}
    for symbol in dataset.gene_symbols:
        here.setdefault(_approved(symbol), symbol)
    folded = {name.casefold(): name for name in here}
    found: dict[str, str] = {}
    others: dict[str, tuple[str, list[str]]] = {}
    for name in filter(None, (part.strip(_QUOTES) for part in _SEPARATORS.split(text))):
        genes = _genes_called(name, folded)
        if len(genes) == 1 and genes[0] in here:
            found.setdefault(here[genes[0]], name)
        else:
            others.setdefault(name.casefold(), (name, genes))
    in_file = {_approved(str(name)) for name in dataset.var_names} if others else set()
    return found, {name: _why_not(genes, in_file) for name, genes in others.values()}


def screen_genes(
    dataset: H5adDataset,
    kind: Kind,
    cells: ArrayLike | None = None,
    *,
    most: int | None = 500,
    seed: int = 0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> tuple[str, ...]:
    """List genes worth a screen over some cells.

    Parameters
    ----------
    dataset
        Read once, in chunks.
    kind
        ``"regulators"``: transcription factors with known targets (`scdiva_core.data.regulons`), the most detected
        first. ``"variable"``: genes that vary most for their mean (Satija 2015, scanpy's default flavour), the most
        variable first.
    cells
        Places of the cells, in any order; all cells of the file when None.
    most
        Genes at most; None for all.
    seed
        Draws `MAX_CELLS` of more cells, for variable genes only.
    progress, cancelled
        Called once a chunk.

    Returns
    -------
    tuple of str
        Symbols, as in ``dataset.gene_symbols``, that at least `FEWEST_CELLS` of the cells express; of variable genes,
        of the cells drawn. Empty where there are none.

    Raises
    ------
    DataError
        As for `gene_table`, or there is no such kind.
    Cancelled
        The user stopped.
    """
    if kind not in get_args(Kind):
        msg = f"There is no list of {kind!r} genes."
        raise DataError(msg, f"Choose {' or '.join(map(repr, get_args(Kind)))}.")
    if kind == "variable":
        return _variable(dataset, _places(dataset, cells), most, seed, progress, cancelled)
    table = gene_table(dataset, None, cells, progress=progress, cancelled=cancelled)
    known = regulons().regulators
    often = (table["detection"] * table.attrs["cells"]).round() >= FEWEST_CELLS
    table = table[often & table["symbol"].map(_approved).isin(known)]
    table = table.sort_values(["detection", "symbol"], ascending=[False, True], kind="stable")
    return tuple(table["symbol"].iloc[:most])


def _variable(
    dataset: H5adDataset,
    places: NDArray[np.int64],
    most: int | None,
    seed: int,
    progress: Progress,
    cancelled: IsCancelled,
) -> tuple[str, ...]:
    import scanpy as sc  # seconds to import

    if len(places) > MAX_CELLS:
        places = np.sort(np.random.default_rng(seed).choice(places, MAX_CELLS, replace=False))
    parts = []
    for start, block in dataset.chunks(_CHUNK_CELLS):
        stop_if(cancelled)
        progress(start, dataset.n_obs, "Looking for variable genes")
        first, last = np.searchsorted(places, [start, start + block.shape[0]])
        parts.append(block[places[first:last] - start])
    values = sp.vstack(parts, format="csr")
    often = np.flatnonzero(values.getnnz(axis=0) >= FEWEST_CELLS)
    progress(dataset.n_obs, dataset.n_obs, "Looking for variable genes")
    if not len(often):
        return ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy warns of missing raw counts, which this flavour does not need
        scores = sc.pp.highly_variable_genes(anndata.AnnData(values[:, often]), inplace=False)["dispersions_norm"]
    order = np.argsort(-scores.fillna(-np.inf).to_numpy(), kind="stable")
    return tuple(dataset.gene_symbols[column] for column in often[order[:most]])


def _places(dataset: H5adDataset, cells: ArrayLike | None) -> NDArray[np.int64]:
    """Places without repeats, ascending."""
    places = np.unique(np.arange(dataset.n_obs) if cells is None else np.asarray(cells, np.int64))
    if not len(places) or places[0] < 0 or places[-1] >= dataset.n_obs:
        found = f"cells {places[0]} to {places[-1]}" if len(places) else "no cells"
        msg = f"There are {dataset.n_obs:,} cells in the file, and {found} were chosen."
        raise DataError(msg, "Choose a cell set of this file.")
    return places


def _membership(
    dataset: H5adDataset, groups: ArrayLike | None, places: NDArray[np.int64]
) -> tuple[list[str], sp.csc_matrix]:
    """Names of the groups, and which cell is in the set (first row) and in each group, float64 ``[1 + k, n_obs]``."""
    labels = texts([None] * dataset.n_obs if groups is None else groups)
    if len(labels) != dataset.n_obs:
        msg = f"There are {len(labels):,} groups, but {dataset.path.name} has {dataset.n_obs:,} cells."
        raise DataError(msg, "Give one value for each cell of the file.")
    codes, names = pd.factorize(labels.iloc[places], sort=True)
    rows = np.concatenate([np.zeros_like(codes), 1 + codes[codes >= 0]])
    columns = np.concatenate([places, places[codes >= 0]])
    shape = (1 + len(names), dataset.n_obs)
    return list(names), sp.csc_matrix((np.ones(len(rows)), (rows, columns)), shape)


@lru_cache(maxsize=1)
def _folded_names() -> dict[str, tuple[tuple[str, str], ...]]:
    """Every name of a gene without regard to case -> (name, approved symbol) of each that has it."""
    names = gene_names()
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for other in ({symbol: symbol for symbol in names.approved}, names.ensembl, names.previous, names.aliases):
        for name, symbol in other.items():
            found[name.casefold()].append((name, symbol))
    return {name: tuple(pairs) for name, pairs in found.items()}


def _other_names(wanted: str) -> dict[str, str]:
    """Approved symbol -> the name of the gene that is `wanted`, or else the shortest that begins so."""
    best: dict[str, str] = {}
    for folded, pairs in _folded_names().items():
        if folded.startswith(wanted):
            for name, symbol in pairs:
                if symbol not in best or len(name) < len(best[symbol]):
                    best[symbol] = name
    return best


def _approved(symbol: str) -> str:
    """Approved symbol of a gene of a data set; itself where HGNC does not know it."""
    gene = gene_names().resolve(symbol)
    return gene[0] if gene else symbol


def _genes_called(name: str, here: dict[str, str]) -> list[str]:
    """Approved symbols that a name stands for: none, one, or several whose aliases differ in case only."""
    folded = name.casefold()
    if folded in here:
        return [here[folded]]
    genes = {symbol for _, symbol in _folded_names().get(folded, ())}
    if symbols := [symbol for symbol in genes if symbol.casefold() == folded]:
        return symbols
    if gene := gene_names().resolve(name.upper() if is_ensembl(name.upper()) else name):
        return [gene[0]]
    return sorted(genes)


def _why_not(genes: list[str], in_file: set[str]) -> str:
    if not genes:
        return "no human gene is known by this name, or several are"
    if len(genes) > 1:
        return f"could be {' or '.join(genes)}"
    if genes[0] in in_file:
        return f"the file has {genes[0]}, but the model does not know it"
    return f"{genes[0]} is not in this file"
