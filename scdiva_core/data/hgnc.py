"""Human gene names: approved symbols, Ensembl ids, previous symbols and aliases (HGNC)."""

from __future__ import annotations

import gzip
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_TABLE = Path(__file__).resolve().parents[2] / "assets" / "genes" / "hgnc.tsv.gz"
_ENSEMBL = re.compile(r"ENS[A-Z]{0,6}G\d{11}(?:\.\d+)?(?:_PAR_Y)?")


def is_ensembl(name: str) -> bool:
    """Tell whether a name is an Ensembl gene id, with or without a version.

    Parameters
    ----------
    name
        Any string.
    """
    return name.startswith("ENS") and _ENSEMBL.fullmatch(name) is not None


def without_version(ensembl_id: str) -> str:
    """Drop the version (and GENCODE's ``_PAR_Y``) of an Ensembl gene id.

    Parameters
    ----------
    ensembl_id
        A name for which `is_ensembl` holds.
    """
    return ensembl_id.partition(".")[0].removesuffix("_PAR_Y")


@dataclass(frozen=True)
class GeneNames:
    """Every name by which a human gene is known, each leading to its approved symbol.

    Parameters
    ----------
    approved
        Approved symbols, in alphabetical order.
    ensembl
        Ensembl gene id without version -> approved symbol.
    previous, aliases
        Older or informal symbol -> approved symbol. A name shared by two genes is in neither, nor is a name
        that is itself an approved symbol.
    """

    approved: dict[str, None]
    ensembl: dict[str, str]
    previous: dict[str, str]
    aliases: dict[str, str]

    def resolve(self, name: str) -> tuple[str, str] | None:
        """Find the approved symbol of a name.

        Parameters
        ----------
        name
            Symbol or Ensembl id.

        Returns
        -------
        tuple of str, or None
            Approved symbol and how it was found: ``"symbol"``, ``"ensembl"``, ``"previous"`` or ``"alias"``.
        """
        if name in self.approved:
            return name, "symbol"
        if is_ensembl(name):
            symbol = self.ensembl.get(without_version(name))
            return None if symbol is None else (symbol, "ensembl")
        if name in self.previous:
            return self.previous[name], "previous"
        return (self.aliases[name], "alias") if name in self.aliases else None

    def others(self) -> dict[str, tuple[str, ...]]:
        """Approved symbol -> every other name that leads to it: Ensembl id, previous symbols, aliases."""
        found: dict[str, list[str]] = defaultdict(list)
        for names in (self.ensembl, self.previous, self.aliases):
            for name, symbol in names.items():
                found[symbol].append(name)
        return {symbol: tuple(names) for symbol, names in found.items()}


@lru_cache(maxsize=1)
def gene_names() -> GeneNames:
    """Load the table that ships in ``assets/genes`` (about 0.2 s, once a process).

    Returns
    -------
    GeneNames
        44,827 approved genes.
    """
    rows = [line.split("\t") for line in gzip.decompress(_TABLE.read_bytes()).decode().splitlines()[1:]]
    approved = dict.fromkeys(row[1] for row in rows)
    previous = _unambiguous((name, row[1]) for row in rows for name in row[2].split("|"))
    older = {name: symbol for name, symbol in previous.items() if symbol and name not in approved}
    # Matrices written in capitals throughout spell C1orf112 as C1ORF112.
    capitals = {name.upper(): symbol for name, symbol in (older | {name: name for name in approved}).items()}
    aliases = capitals | _unambiguous((name, row[1]) for row in rows for name in row[3].split("|"))
    return GeneNames(
        approved=approved,
        ensembl={row[0]: row[1] for row in rows if row[0]},
        previous=older,
        # What was the former symbol of two genes stays ambiguous even if it is one gene's alias.
        aliases={
            name: symbol for name, symbol in aliases.items() if symbol and name not in approved and name not in previous
        },
    )


def _unambiguous(pairs: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    """Map each name to its symbol, or to None where two genes claim it or the name is empty."""
    found: dict[str, str | None] = {"": None}
    for name, symbol in pairs:
        found[name] = symbol if found.get(name, symbol) == symbol else None
    return found
