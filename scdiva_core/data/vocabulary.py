"""Gene vocabulary of a checkpoint: token ids, and how the genes of a data set are matched to them.

A data set may name genes by symbol, Ensembl id (any version), previous symbol or alias; a vocabulary may do
the same, since that of the published model is not known. Both are therefore led to the approved HGNC symbol.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from scdiva_core.data.hgnc import gene_names, is_ensembl, without_version
from scdiva_core.data.vocabulary_files import read_tokens
from scdiva_core.errors import VocabularyError
from scdiva_core.lazy import cached_property

_SPECIAL = re.compile(r"<.*>|\[.*\]", re.DOTALL)
_MADE_UNIQUE = re.compile(r"(.+?)[-.]\d{1,2}", re.DOTALL)  # anndata appends "-1", R's make.unique ".1"
_RANK = {"symbol": 0, "ensembl": 1, "previous": 2, "alias": 3}
_MOST_REMEMBERED = 200_000  # names: symbols and ids of one organism
_SAME_KIND = 0.9  # share of names of one kind above which the others are taken for stray ones


@dataclass(frozen=True)
class GeneMatch:
    """Which gene of a data set is which token.

    Parameters
    ----------
    ids
        Token id of each gene, int64 [n_vars]; -1 where unknown. One id may occur several times.
    how
        What each gene was found by: ``"symbol"``, ``"ensembl"``, ``"previous"``, ``"alias"`` or
        ``"unknown"``.
    kind
        What the names look like: ``"symbols"``, ``"ensembl"``, ``"mixed"`` or ``"unknown"``.
    """

    ids: np.ndarray
    how: tuple[str, ...]
    kind: str

    @property
    def n_known(self) -> int:
        """Number of genes with a token."""
        return int(np.count_nonzero(self.ids >= 0))

    @property
    def n_total(self) -> int:
        """Number of genes of the data set."""
        return len(self.ids)

    @property
    def fraction(self) -> float:
        """Share of the data set's genes that have a token (0 for no genes)."""
        return self.n_known / self.n_total if self.n_total else 0.0


class GeneVocabulary:
    """Token strings of a checkpoint; the position in the list is the token id.

    Parameters
    ----------
    tokens
        Gene names and reserved tokens (``"<pad>"``, ``"<mask>"``, ``"<unused_7>"`` or in square brackets).

    Raises
    ------
    VocabularyError
        No token, an empty one, or one that occurs twice.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens: tuple[str, ...] = tuple(tokens)
        self._ids = {token: i for i, token in enumerate(self.tokens) if not _SPECIAL.fullmatch(token)}
        self._check()
        self._found: dict[str, tuple[int, str] | None] = {}
        self.gene_ids: np.ndarray = np.fromiter(self._ids.values(), dtype=np.int64, count=len(self._ids))

    def _check(self) -> None:
        hint = "Use the vocabulary file that belongs to the checkpoint: one gene name for each token id."
        if not self._ids:
            message = f"The vocabulary holds no gene among its {len(self.tokens):,} tokens."
            raise VocabularyError(message, hint)
        if "" in self._ids:
            message = f"Token {self._ids['']:,} of the vocabulary is empty."
            raise VocabularyError(message, hint)
        if len(set(self.tokens)) < len(self.tokens):
            seen: set[str] = set()
            twice = next(t for t in self.tokens if t in seen or seen.add(t))  # type: ignore[func-returns-value]
            message = f"The vocabulary names {twice!r} twice ({len(self.tokens):,} tokens)."
            raise VocabularyError(message, hint)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def sha256(self) -> str:
        """Hash of the tokens joined by newlines, in hexadecimal."""
        return hashlib.sha256("\n".join(self.tokens).encode()).hexdigest()

    @classmethod
    def from_file(cls, path: str | Path) -> GeneVocabulary:
        """Read ``.json`` ({token: id} or list), ``.txt`` (a token a line) or ``.csv`` (token and id columns).

        Parameters
        ----------
        path
            File of one of these three kinds. Ids that a file leaves out become ``<unused_N>``.

        Raises
        ------
        VocabularyError
            The file is missing or malformed; the message says how.
        """
        return cls(read_tokens(Path(path)))

    def to_file(self, path: str | Path) -> None:
        """Write the tokens as a JSON list.

        Parameters
        ----------
        path
            File to write; an older one is replaced.
        """
        Path(path).write_text(json.dumps(self.tokens, indent=0), encoding="utf-8")

    def match(self, names: Sequence[str], alternates: Sequence[str] | None = None) -> GeneMatch:
        """Match the genes of a data set to token ids.

        In order: the very token; an Ensembl id whatever its version; the approved symbol; a previous symbol;
        an alias that only one gene has; and for names that nobody knows, the name with hyphens for dots (R
        writes ``HLA.A``) and the name without the ``-1`` or ``.1`` that made a duplicate unique. An approved
        symbol is never read as another gene's alias.

        Parameters
        ----------
        names
            Gene names, [n_vars].
        alternates
            Second name of each gene, tried where the first is unknown, [n_vars].

        Returns
        -------
        GeneMatch
            Genes that lead to the same token share its id.
        """
        names = [str(name) for name in names]
        present = frozenset(names)
        found = [self._find(name, present) for name in names]
        if alternates is not None:
            others = [str(name) for name in alternates]
            present = frozenset(others)
            found = [hit if hit[0] >= 0 else self._find(name, present) for hit, name in zip(found, others, strict=True)]
        ids = np.fromiter((hit[0] for hit in found), dtype=np.int64, count=len(found))
        how = tuple(hit[1] for hit in found)
        return GeneMatch(ids=ids, how=how, kind=_kind(names, how))

    def _find(self, name: str, present: frozenset[str]) -> tuple[int, str]:
        """Return token id (-1) and how it was found; `present` are all names of the data set."""
        hit = self._find_exactly(name)
        if hit is None and "." in name:
            hit = self._find_exactly(name.replace(".", "-"))  # R's make.names turns HLA-A into HLA.A
        if hit is not None:
            return hit
        suffixed = _MADE_UNIQUE.fullmatch(name)
        hit = self._find_exactly(suffixed[1]) if suffixed else None
        # A clone name such as U73166.2 must not be read as an older name of something else plus a suffix.
        if hit is None or (suffixed[1] not in present and hit[1] in ("previous", "alias")):
            return -1, "unknown"
        return hit

    def _find_exactly(self, name: str) -> tuple[int, str] | None:
        """Look a name up once: the next session, or the next column, has the same names."""
        found = self._found.get(name, ())
        if found == ():
            if len(self._found) >= _MOST_REMEMBERED:
                self._found.clear()
            found = self._found[name] = self._looked_up(name)
        return found

    def _looked_up(self, name: str) -> tuple[int, str] | None:
        """Return token id (-1 for a gene the vocabulary lacks) and how; None for a name nobody knows."""
        ensembl = is_ensembl(name)
        if name in self._ids:
            return self._ids[name], "ensembl" if ensembl else "symbol"
        if ensembl and without_version(name) in self._by_ensembl:
            return self._by_ensembl[without_version(name)], "ensembl"
        gene = gene_names().resolve(name)
        if gene is None:
            return None
        token = self._by_symbol.get(gene[0])
        if token is None:
            return -1, "unknown"
        # The name is current but the token is old: what links them is the token's age.
        return token[0], token[1] if gene[1] == "symbol" and token[1] != "ensembl" else gene[1]

    @cached_property
    def _by_ensembl(self) -> dict[str, int]:
        """Token ids of Ensembl tokens by their id without version."""
        return {without_version(token): i for token, i in reversed(self._ids.items()) if is_ensembl(token)}

    @cached_property
    def _by_symbol(self) -> dict[str, tuple[int, str]]:
        """Token id, and how it names the gene, by approved symbol; the most direct token wins."""
        best: dict[str, tuple[int, str]] = {}
        resolve = gene_names().resolve
        for token, i in self._ids.items():
            gene = resolve(token)
            if gene and (gene[0] not in best or _RANK[gene[1]] < _RANK[best[gene[0]][1]]):
                best[gene[0]] = (i, gene[1])
        return best


@lru_cache(maxsize=1)
def human_genes() -> GeneVocabulary:
    """All approved human symbols as a vocabulary, to judge gene names before a checkpoint is chosen.

    Returns
    -------
    GeneVocabulary
        Shared instance; token ids mean nothing outside it.
    """
    return GeneVocabulary(tuple(gene_names().approved))


def _kind(names: Sequence[str], how: Sequence[str]) -> str:
    """Say what the names look like from their spelling and from what was found."""
    share = sum(map(is_ensembl, names)) / len(names) if names else 0.0
    if share >= _SAME_KIND:
        return "ensembl"
    if share > 1 - _SAME_KIND:
        return "mixed"
    return "symbols" if any(word not in ("unknown", "ensembl") for word in how) else "unknown"
