"""Opening an ``.h5ad`` file and streaming it as log1p of counts per 10,000 over the model's genes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NoReturn, TypeVar
from weakref import WeakValueDictionary

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdiva_core.data.blocks import joined
from scdiva_core.data.gene_columns import columns_path, read_gene_column
from scdiva_core.data.hdf5 import open_hdf5
from scdiva_core.data.hgnc import gene_names
from scdiva_core.data.inspection import Inspection, inspect_file
from scdiva_core.data.paths import file_sha256
from scdiva_core.data.preflight import CHUNK_ROWS, MIN_SHARE, Preflight, report
from scdiva_core.data.values import GeneColumns, count_bad, has_bad, log_normalised
from scdiva_core.data.vocabulary import GeneMatch, GeneVocabulary
from scdiva_core.errors import DataError, GeneMatchError
from scdiva_core.lazy import cached_property

Values = Literal["auto", "counts", "log1p"]
_Table = TypeVar("_Table", pd.DataFrame, np.ndarray)

# Tables of the cells, for as long as a data set holds them: twenty people look at a million cells with one of each.
_tables: WeakValueDictionary[tuple[object, ...], pd.DataFrame | np.ndarray] = WeakValueDictionary()
_reading: WeakValueDictionary[tuple[object, ...], threading.Lock] = WeakValueDictionary()
_reading_lock = threading.Lock()


def open_h5ad(
    path: str | Path,
    vocabulary: GeneVocabulary,
    *,
    matrix: str | None = None,
    gene_column: str | None = None,
    values: Values = "auto",
    min_share: float = MIN_SHARE,
    columns: str | Path | None = None,
) -> H5adDataset:
    """Open a file for streaming; no values but a small sample are read.

    Parameters
    ----------
    path
        An ``.h5ad`` file; it is never written to.
    vocabulary
        Genes of the checkpoint.
    matrix
        ``"X"``, ``"raw/X"`` or ``"layers/<name>"``; the recommended one when None.
    gene_column
        Column of ``var`` with the gene names, ``"index"`` for its index; found by comparing when None.
    values
        ``"counts"`` or ``"log1p"`` to override what was recognised from the values.
    min_share
        Least share of the file's genes that the vocabulary must know.
    columns
        Folder of what is kept of large files: their hash, and side files by gene (see `write_gene_columns`), from
        which `H5adDataset.gene` reads where it can.

    Returns
    -------
    H5adDataset
        To be closed, or used in a ``with`` statement.

    Raises
    ------
    GeneMatchError
        Too few genes are known.
    DataError
        The file is damaged, or its values are scaled, not finite, or not recognised.
    """
    if values not in ("auto", "counts", "log1p"):
        message = f"Values cannot be read as {values!r}."
        raise DataError(message, "Choose 'auto', 'counts' or 'log1p'.")
    file = open_hdf5(path)
    try:
        found = inspect_file(file, vocabulary, matrix, gene_column)
        _check_share(found, vocabulary, min_share)
        dataset = H5adDataset(file, found, vocabulary, found.chosen.kind if values == "auto" else values, columns)
        dataset.check_sample()
    except BaseException:
        file.close()
        raise
    return dataset


def _check_share(found: Inspection, vocabulary: GeneVocabulary, min_share: float) -> None:
    match = found.genes.match
    if match.fraction >= min_share and match.n_known:
        return
    expected = ", ".join(vocabulary.tokens[i] for i in vocabulary.gene_ids[:3])
    message = (
        f"The model knows {match.n_known:,} of the {match.n_total:,} genes ({match.fraction:.1%}); "
        f"at least {min_share:.0%} are needed. Expected names such as {expected}; "
        f"found {', '.join(map(str, found.genes.names[:3]))}."
    )
    raise GeneMatchError(message, "Choose the column with human gene symbols or Ensembl ids (ENSG...).")


class H5adDataset:
    """Cells of an open ``.h5ad`` file over the genes that a vocabulary knows; made by `open_h5ad`.

    Parameters
    ----------
    file
        Open file; closed with the data set.
    found
        Its inspection.
    vocabulary
        Genes of the checkpoint.
    value_kind
        What the values are taken for: ``"counts"``, ``"log1p"`` or ``"normalised"``.
    columns
        Folder of side files by gene; None for none.

    Attributes
    ----------
    path
        The file.
    n_obs
        Number of cells.
    preflight
        What was found before reading.
    genes
        Token of each gene of the matrix.
    gene_ids
        Token ids that occur, int64 [n_genes], ascending.
    var_names
        Gene names of the matrix as they were matched, object array of str [n_vars].
    """

    def __init__(
        self,
        file: h5py.File,
        found: Inspection,
        vocabulary: GeneVocabulary,
        value_kind: str,
        columns: str | Path | None = None,
    ) -> None:
        self._file, self._found, self._vocabulary = file, found, vocabulary
        self._side_files = columns
        self._matrix = found.chosen.matrix
        self._columns = GeneColumns(found.genes.match.ids)
        self.path = Path(file.filename)
        self.n_obs, self.n_vars = self._matrix.shape
        self.preflight: Preflight = report(file, found, matched=True)
        self.genes: GeneMatch = found.genes.match
        self.gene_ids: np.ndarray = self._columns.gene_ids
        self.var_names: np.ndarray = found.genes.names
        self.value_kind = value_kind

    def __enter__(self) -> H5adDataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; values can no longer be read."""
        self._file.close()

    @cached_property
    def obs(self) -> pd.DataFrame:
        """Table of the cells, indexed by their names; shared with whoever has the file open: change a copy."""
        return self._shared("obs", lambda: self._found.obs.frame(self.obs_names))

    @cached_property
    def obs_names(self) -> np.ndarray:
        """Names of the cells, object array of str [n_obs]; shared as `obs` is."""
        return self._shared("obs_names", self._found.obs.index)

    def _shared(self, what: str, read: Callable[[], _Table]) -> _Table:
        """Return what this process has read of these very bytes already, or read it."""
        stat = os.fstat(self._file.id.get_vfd_handle())
        key = (what, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        with _reading_lock:
            own = _reading.setdefault(key, threading.Lock())
        with own:  # who comes second waits for this table, and for no other file's
            table = _tables.get(key)
            if table is None:
                table = _tables[key] = read()
        return table

    @cached_property
    def gene_symbols(self) -> tuple[str, ...]:
        """Symbol of each of `gene_ids`; the token itself where it is no Ensembl id."""
        symbols = gene_names().ensembl
        tokens = (self._vocabulary.tokens[i] for i in self.gene_ids)
        return tuple(symbols.get(token.partition(".")[0], token) for token in tokens)

    @property
    def sha256(self) -> str:
        """Hash of the file's bytes, in hexadecimal; computed once while size and time of change stay."""
        return file_sha256(self.path, self._side_files)

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Read all cells in order as log1p of counts per 10,000.

        Counts are normalised by the cell's total over all genes of the matrix, known or not; log values are
        taken as they are. Genes that share a token are summed (log values: as counts).

        Parameters
        ----------
        rows
            Cells of a chunk; the last one may be shorter.

        Yields
        ------
        tuple of int and csr_matrix
            First cell, and values float32 [rows, n_genes] whose columns follow `gene_ids`.

        Raises
        ------
        DataError
            Values that are NaN, infinite or negative, with their number and the first cell; a damaged file.
        """
        blocks = (
            (start, log_normalised(block, self._columns, self.value_kind))
            for start, block in self._checked_blocks(rows)
        )
        yield from joined(blocks, rows, self.n_obs)

    def cells(self, start: int, stop: int) -> sp.csr_matrix:
        """Read consecutive cells as `chunks` does, and no others.

        A file stored by gene is passed over once for every few thousand cells.

        Parameters
        ----------
        start, stop
            First cell and the one after the last.

        Returns
        -------
        csr_matrix
            float32 [stop - start, n_genes] whose columns follow `gene_ids`.

        Raises
        ------
        DataError
            As for `chunks`.
        """
        blocks = self._checked_blocks(stop - start, start, stop)
        pieces = [log_normalised(block, self._columns, self.value_kind) for _, block in blocks]
        return pieces[0] if len(pieces) == 1 else sp.vstack(pieces, format="csr")

    def count_chunks(self, rows: int = CHUNK_ROWS) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Read all cells in order as raw counts.

        Parameters
        ----------
        rows
            Cells of a chunk; the last one may be shorter.

        Yields
        ------
        tuple of int and csr_matrix
            First cell, and counts float32 [rows, n_genes] whose columns follow `gene_ids`.

        Raises
        ------
        DataError
            The matrix holds no counts, or as for `chunks`.
        """
        name = self._matrix.info.name
        if self.value_kind != "counts":
            message = f"{name} holds no raw counts ({self.preflight.value_reason})."
            raise DataError(message, "Choose a matrix or a file with raw counts.")
        blocks = ((start, self._columns.pick(self._whole(start, block))) for start, block in self._checked_blocks(rows))
        yield from joined(blocks, rows, self.n_obs)

    def count_totals(self) -> np.ndarray:
        """Sum the raw counts of each cell over all genes, known or not, in one pass: float64 [n_obs].

        Raises
        ------
        DataError
            As for `chunks`.
        """
        blocks = self._checked_blocks(CHUNK_ROWS)
        return np.concatenate([np.asarray(block.sum(axis=1, dtype=np.float64)).ravel() for _, block in blocks])

    def gene(self, symbol: str) -> np.ndarray:
        """Read one gene of all cells: at once from a side file by gene, else in one pass over the file.

        Parameters
        ----------
        symbol
            Any name of the gene: symbol, older symbol, alias or Ensembl id.

        Returns
        -------
        ndarray
            log1p of counts per 10,000, float32 [n_obs].

        Raises
        ------
        DataError
            The file or the vocabulary does not hold the gene.
        """
        token = int(self._vocabulary.match([symbol]).ids[0])
        column = int(np.searchsorted(self.gene_ids, token))
        if token < 0 or column == len(self.gene_ids) or self.gene_ids[column] != token:
            where = "the model's vocabulary" if token < 0 else "this file"
            message = f"The gene {symbol!r} is not in {where}."
            raise DataError(message, "Choose a gene from the list of detected genes.")
        if self._side_files is not None:
            path = columns_path(self, self._side_files)
            found = read_gene_column(path, column, self.n_obs, len(self.gene_ids))
            if found is not None:
                return found
        pieces = [chunk[:, [column]].toarray()[:, 0] for _, chunk in self.chunks()]
        return np.concatenate(pieces)

    def check_sample(self) -> None:
        """Refuse at once what the sampled values already show to be unusable.

        Raises
        ------
        DataError
            Negative or not finite values, with their number in the whole matrix; or nothing but zeros.
        """
        values = self._found.chosen.sample.values
        if values.size and not (np.isfinite(values) & (values >= 0)).all():
            self._refuse()
        if self.value_kind == "unknown":
            message = f"{self._matrix.info.name} cannot be read: {self.preflight.value_reason}."
            raise DataError(message, "Choose another matrix, or say whether it holds counts or log1p values.")

    def _checked_blocks(
        self, rows: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, sp.csr_matrix]]:
        for first, block in self._matrix.blocks(rows, start, stop):
            if has_bad(block, self.value_kind):
                self._refuse()
            yield first, block

    def _refuse(self) -> NoReturn:
        """Count the bad values of the whole matrix, which takes one more pass, and name the first cell."""
        kind = self.value_kind if self.value_kind in ("counts", "log1p") else "normalised"
        bad = count_bad(self._matrix.blocks(CHUNK_ROWS), kind)
        there = [name for name, kind in self.preflight.kinds.items() if kind in ("counts", "log1p")]
        message = (
            f"{self._matrix.info.name} holds values that cannot be used: {bad}; "
            f"the first is in cell {self.obs_names[bad.first_cell]!r}."
        )
        if there and there != [self._matrix.info.name]:
            raise DataError(message, f"Choose another matrix of the file: {', '.join(there)}.")
        raise DataError(message, "Use raw counts or log1p values, not scaled ones, and remove such cells.")

    def _whole(self, start: int, block: sp.csr_matrix) -> sp.csr_matrix:
        broken = np.flatnonzero(block.data != np.floor(block.data))
        if broken.size:
            cell = start + int(np.searchsorted(block.indptr, broken[0], side="right")) - 1
            message = (
                f"{self._matrix.info.name} holds no raw counts throughout: cell {self.obs_names[cell]!r} has "
                f"the value {block.data[broken[0]]:.6g}."
            )
            raise DataError(message, "Choose a matrix or a file with raw counts.")
        return block
