"""Transcription factors and the genes they switch on or off (CollecTRI), offline."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from scdiva_core.data.hgnc import gene_names
from scdiva_core.errors import DataError
from scdiva_core.lazy import cached_property

COMPLEXES: dict[str, tuple[str, ...]] = {
    "AP1": ("FOS", "FOSB", "FOSL1", "FOSL2", "JUN", "JUNB", "JUND"),
    "NFKB": ("NFKB1", "NFKB2", "REL", "RELA", "RELB"),
}
"""Regulators that are no single gene, with the genes of their subunits, as OmniPath lists them."""

_TABLE = Path(__file__).resolve().parents[2] / "assets" / "regulons" / "regulons.tsv.gz"
_COLUMNS = ("regulator", "target", "sign")
_SIGNS = {"1": 1, "-1": -1}


class Regulons:
    """Which regulator acts on which gene, and in which direction. Get it from `regulons`.

    Parameters
    ----------
    table
        Columns ``regulator``, ``target`` and ``sign``, as `table` returns them.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table

    @property
    def table(self) -> pd.DataFrame:
        """All interactions, a copy: ``regulator``, ``target`` (str) and ``sign`` (int8: 1 raises, -1 lowers)."""
        return self._table.copy()

    @cached_property
    def regulators(self) -> tuple[str, ...]:
        """Approved symbols of the regulators that are genes, ascending; `COMPLEXES` are none."""
        return tuple(sorted(self._places.keys() - COMPLEXES.keys()))

    def targets(self, regulator: str) -> pd.DataFrame:
        """Genes that a regulator acts on.

        Parameters
        ----------
        regulator
            One of `regulators`, or of `COMPLEXES`; a complex's targets are not repeated for its subunits.

        Returns
        -------
        DataFrame
            ``target`` and ``sign``, targets ascending, indexed from 0.

        Raises
        ------
        DataError
            It is not among the regulators.
        """
        if regulator not in self._places:
            msg = f"{regulator!r} is none of the {len(self.regulators):,} regulators with known targets."
            raise DataError(msg, "Choose a transcription factor by its approved symbol, such as SPI1.")
        return self._table.loc[self._places[regulator], ["target", "sign"]].reset_index(drop=True)

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        return dict(self._table.groupby("regulator").indices)

    @classmethod
    def load(cls, path: str | Path) -> Regulons:
        """Read and check a table.

        Parameters
        ----------
        path
            Gzipped, tab-separated text with a header; sorted by regulator and target.

        Raises
        ------
        DataError
            The file is missing or no such table; a name is no approved symbol, a sign neither 1 nor -1, or a pair
            out of order or there twice. The line is named.
        """
        path = Path(path)
        rows = list(_rows(path))
        if not rows:
            _refuse(path, 1, "no interaction follows the header")
        table = pd.DataFrame(rows, columns=list(_COLUMNS))
        return cls(table.astype({"sign": np.int8}))


@lru_cache(maxsize=1)
def regulons() -> Regulons:
    """Load the table that ships in ``assets/regulons`` (about 0.1 s, once a process).

    Returns
    -------
    Regulons
        38,319 interactions of 1,112 genes and 2 complexes (Mueller-Dott 2023).

    Raises
    ------
    DataError
        The file is damaged.
    """
    return Regulons.load(_TABLE)


def _rows(path: Path) -> Iterator[tuple[str, str, int]]:
    """Rows of the file, each checked against the one before."""
    try:
        header, *lines = gzip.decompress(path.read_bytes()).decode().splitlines() or [""]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        msg = f"{path.name} cannot be read."
        raise DataError(msg, "Restore the app's own file.") from error
    if tuple(header.split("\t")) != _COLUMNS:
        _refuse(path, 1, f"the header is another one; expected {', '.join(_COLUMNS)}, separated by tabs")
    approved = gene_names().approved
    last = ("", "")
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        if len(cells) != len(_COLUMNS):
            _refuse(path, number, f"{len(cells)} columns instead of {len(_COLUMNS)}")
        regulator, target, sign = cells
        if regulator not in approved and regulator not in COMPLEXES:
            _refuse(path, number, f"{regulator!r} is no approved gene symbol")
        if target not in approved:
            _refuse(path, number, f"{target!r} is no approved gene symbol")
        if sign not in _SIGNS:
            _refuse(path, number, f"the sign is {sign!r}, expected 1 or -1")
        if (regulator, target) <= last:
            _refuse(path, number, f"{regulator} and {target} are out of order or there twice")
        last = (regulator, target)
        yield regulator, target, _SIGNS[sign]


def _refuse(path: Path, line: int, problem: str) -> NoReturn:
    msg = f"{path.name}, line {line}: {problem}."
    raise DataError(msg, "Restore the app's own file.")
