"""Cell Ontology: names, synonyms and kinship of cell types, offline."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from scdiva_core.errors import DataError
from scdiva_core.lazy import cached_property

_TABLE = Path(__file__).resolve().parents[2] / "assets" / "ontology" / "cell_ontology.tsv.gz"


@dataclass(frozen=True)
class _Term:
    """One cell type: its name, other names, and the types it is directly a kind of."""

    name: str
    synonyms: tuple[str, ...]
    parents: tuple[str, ...]


class CellOntology:
    """Cell types and which is a kind of which; obsolete ones are not in it. Get it from `cell_ontology`.

    Parameters
    ----------
    terms
        Cell Ontology id such as ``"CL:0000084"`` -> its term; parents are ids of other terms.
    """

    def __init__(self, terms: dict[str, _Term]) -> None:
        self._terms = terms

    def __contains__(self, term: object) -> bool:
        return term in self._terms

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of all terms, ascending."""
        return tuple(self._terms)

    def name(self, term: str) -> str:
        """Name of a term, as the ontology spells it.

        Parameters
        ----------
        term
            A Cell Ontology id, here and in the other methods.

        Raises
        ------
        DataError
            The ontology has no such term, or it is obsolete; so do the other methods.
        """
        return self._term(term).name

    def synonyms(self, term: str) -> tuple[str, ...]:
        """Other names of a term."""
        return self._term(term).synonyms

    def parents(self, term: str) -> tuple[str, ...]:
        """Ids of what the term is directly a kind of; several or, for the root, none."""
        return self._term(term).parents

    def ancestors(self, term: str) -> frozenset[str]:
        """Ids of all that the term is a kind of, itself included."""
        self._term(term)
        return self._above[term]

    def descendants(self, term: str) -> frozenset[str]:
        """Ids of all kinds of the term, itself included."""
        self._term(term)
        return self._below[term]

    def search(self, text: str, limit: int = 20) -> tuple[str, ...]:
        """Find terms by id, name or synonym, in either case.

        Parameters
        ----------
        text
            What was typed; blanks around it do not count.
        limit
            Most terms to return.

        Returns
        -------
        tuple of str
            Ids: first those called exactly so, then those with a name that begins so, then those with it inside;
            among equals the shortest such name first, a synonym after a name. Empty for empty text.
        """
        wanted = text.strip().casefold()
        if not wanted:
            return ()
        fits = ((_fit(wanted, spellings), term) for term, spellings in self._spellings.items())
        found = sorted((fit, term) for fit, term in fits if fit is not None)
        return tuple(term for _, term in found[: max(limit, 0)])

    def nearest(self, term: str, among: Iterable[str]) -> str | None:
        """Find the most specific of some terms that the term is, or is a kind of.

        Parameters
        ----------
        term
            What is to be expressed.
        among
            Ids to choose from.

        Returns
        -------
        str or None
            The one with the fewest descendants, the lower id among equals; None when the term is none of them.
        """
        fitting = self.ancestors(term).intersection(among)
        return min(fitting, key=lambda other: (len(self._below[other]), other), default=None)

    def _term(self, term: str) -> _Term:
        try:
            return self._terms[term]
        except KeyError:
            msg = f"{term!r} is no current term of the Cell Ontology."
            raise DataError(msg, "Ids look like CL:0000084; search for the cell type by its name.") from None

    @cached_property
    def _above(self) -> dict[str, frozenset[str]]:
        above: dict[str, frozenset[str]] = {}

        def walk(term: str) -> frozenset[str]:
            if term not in above:
                above[term] = frozenset([term]).union(*map(walk, self._terms[term].parents))
            return above[term]

        return {term: walk(term) for term in self._terms}

    @cached_property
    def _below(self) -> dict[str, frozenset[str]]:
        below: dict[str, list[str]] = {term: [] for term in self._terms}
        for term, ancestors in self._above.items():
            for ancestor in ancestors:
                below[ancestor].append(term)
        return {term: frozenset(terms) for term, terms in below.items()}

    @cached_property
    def _spellings(self) -> dict[str, tuple[str, ...]]:
        """Id, name and synonyms of each term, as `search` compares them."""
        return {
            term: tuple(spelling.casefold() for spelling in (term, entry.name, *entry.synonyms))
            for term, entry in self._terms.items()
        }


def _fit(wanted: str, spellings: tuple[str, ...]) -> tuple[int, int, int] | None:
    """Rank the best of the spellings: exact, prefix or inside; its length; its place. None where none holds it."""
    fits = [
        (0 if spelling == wanted else 1 if spelling.startswith(wanted) else 2, len(spelling), place)
        for place, spelling in enumerate(spellings)
        if wanted in spelling
    ]
    return min(fits, default=None)


@lru_cache(maxsize=1)
def cell_ontology() -> CellOntology:
    """Load the table that ships in ``assets/ontology`` (a few hundredths of a second, once a process).

    Returns
    -------
    CellOntology
        3,324 cell types of the release of 2026-03-26.
    """
    rows = (line.split("\t") for line in gzip.decompress(_TABLE.read_bytes()).decode().splitlines()[1:])
    return CellOntology(
        {term: _Term(name, _split(synonyms), _split(parents)) for term, name, synonyms, parents in rows}
    )


def _split(cell: str) -> tuple[str, ...]:
    return tuple(filter(None, cell.split("|")))
