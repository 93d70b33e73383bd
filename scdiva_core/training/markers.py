"""Marker genes of a labelled corpus, with numpy alone.

All of it is our choice. A gene that tells a type from everything else may still be that of its tissue or of the one
study that sampled it, so it is held against three backgrounds, and the worst of the three counts.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.hgnc import gene_names
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.lazy import cached_property
from scdiva_core.model.markers import MOST, Marker, MarkerTable, Sign
from scdiva_core.training.reference import classed_cells

LEAST_SHARE = 0.25
"""Share of a class' cells that must detect a positive marker."""

LEAST_FOLD = 0.5
"""Log2 fold change that a positive marker must reach against each of the three backgrounds."""

PSEUDOCOUNT = 0.1
"""Counts per 10,000 added before a ratio is taken, so that a rare gene cannot rise without bounds."""

SIMILAR_SHARE, ABSENT_SHARE = 0.5, 0.05
"""Least share of the most similar class, and share that a class stays below, for a negative marker."""

FEWEST_CELLS = 5
"""Cells of a class that a study must hold to be heard about it."""

_BLOCK = 4096
_DECIMALS = 4

# Mitochondrial, ribosomal and non-coding genes tell of a cell's state and of the protocol. RPS6K... are kinases.
_NO_MARKER = re.compile(
    r"MT-.+|MTRNR.+|MT(ND|CO|ATP|CYB)\w*P\d+|RP(L|S(?!6K))P?\d.*|RPSA.*|FAU|"
    r"MALAT1|NEAT1|XIST|TSIX|LINC\d.*|LOC\d+|MIR.+|SNHG\d+|SNOR.+|RN(U\d|7S|Y\d|A\d).*|.+-(AS|DT|IT|OT)\d*|"
    r"ENSG\d+.*|RP\d+-.+|[A-Z]{2}\d{6}\.\d+"
)
_PSEUDOGENE = re.compile(r"(.{4,})P\d+")  # of the gene before the P; shorter ones are as often genes, such as CHMP7


def marker_genes(corpus: Corpus) -> MarkerTable:
    """Find genes that speak for and against each class, among training cells of one known class.

    Means of a class are over its studies, each counted once, if they hold five cells of it. A gene that none of these
    cells of a study shows counts as not measured there: files list different genes. Kinds of a class, and what it is a
    kind of, are never held against it.

    A *positive* marker is detected in at least a quarter of the class. Its ``log2_fold_change`` is the least of three,
    each at least 0.5, of mean counts per 10,000 (plus 0.1) of the class against

    - the mean of the other classes of the same study, averaged over the studies that hold others,
    - the mean of the other classes of all studies,
    - the most similar class, in the studies that hold both; over all studies where none does.

    The most similar class has the highest correlation of mean log1p profiles, each gene centred over the classes.
    ``share_outside`` is the mean over the other classes of all studies. The highest product of fold change and
    ``share_inside`` comes first, 20 at most: what few cells show must stand out the more.

    A *negative* marker is detected in at least half of the most similar class and in less than 5 % of this one;
    ``share_outside`` and ``log2_fold_change`` are against that class. The largest difference of shares comes first, 10
    at most.

    Mitochondrial and ribosomal genes, non-coding RNAs and pseudogenes are left out, known by their symbols.

    Parameters
    ----------
    corpus
        Prepared with its tables of labels.

    Returns
    -------
    MarkerTable
        In the order of the classes; without those for which no gene qualifies, or that have no other class.
    """
    profiles = _Profiles(corpus)
    rows = []
    for number in range(len(corpus.classes)):
        if len(profiles.of(number)) and profiles.others(number).any():
            rows += _markers(profiles, number, "positive") + _markers(profiles, number, "negative")
    return MarkerTable(tuple(rows))


class _Profiles:
    """Mean expression and detection of each gene in each class of each study; NaN where it was not measured."""

    def __init__(self, corpus: Corpus) -> None:
        self.ids, self.names = corpus.classes, corpus.manifest["class_names"]
        self.symbols = tuple(_symbol(token) for token in corpus.vocabulary.tokens)
        cells, classes = classed_cells(corpus)
        n_studies, n_genes = len(corpus.manifest["datasets"]), len(self.symbols)
        keys, group, sizes = np.unique(
            classes * n_studies + corpus.dataset_of[cells], return_inverse=True, return_counts=True
        )
        sums = np.zeros((3, len(keys) * n_genes))
        for start in range(0, len(cells), _BLOCK):
            rows = corpus.take(cells[start : start + _BLOCK])
            place = group[start : start + _BLOCK][rows.rows] * n_genes + rows.gene_ids
            log1p = rows.log1p().astype(np.float64)
            for sum_, values in zip(sums, (np.expm1(log1p), log1p, None), strict=True):
                sum_ += np.bincount(place, values, minlength=sums.shape[1])
        heard = sizes >= FEWEST_CELLS
        self.class_of, self.study_of = np.divmod(keys[heard], n_studies)
        means = sums.reshape(3, len(keys), n_genes)[:, heard] / sizes[heard, None]
        for study in np.unique(self.study_of):
            groups = np.flatnonzero(self.study_of == study)
            means[:, groups[:, None], np.flatnonzero(means[2, groups].max(axis=0) == 0)] = np.nan
        self.expression, self.log1p, self.share = means
        self.usable = np.array([_may_mark(symbol) for symbol in self.symbols])
        self.usable[np.setdiff1d(np.arange(n_genes), corpus.vocabulary.gene_ids)] = False

    def of(self, number: int) -> NDArray[np.int64]:
        """Groups of a class, one of each study that holds it."""
        return np.flatnonzero(self.class_of == number)

    def others(self, number: int) -> NDArray[np.bool_]:
        """Classes with cells that are neither this one, nor a kind of it, nor what it is a kind of."""
        ontology = cell_ontology()
        kin = ontology.ancestors(self.ids[number]) | ontology.descendants(self.ids[number])
        return np.array([len(self.of(k)) > 0 and term not in kin for k, term in enumerate(self.ids)])

    def by_class(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the studies of each class, ``[n_classes, n_genes]``; NaN where no study is heard about it."""
        return np.stack([_mean(values[self.of(k)]) for k in range(len(self.ids))])

    @cached_property
    def class_expression(self) -> NDArray[np.float64]:
        """Mean counts per 10,000 of each class."""
        return self.by_class(self.expression)

    @cached_property
    def class_share(self) -> NDArray[np.float64]:
        """Share of each class' cells that detect each gene."""
        return self.by_class(self.share)

    @cached_property
    def similarity(self) -> NDArray[np.float64]:
        """Correlation of centred mean profiles, ``[n_classes, n_classes]``."""
        profiles = self.by_class(self.log1p)
        profiles = np.nan_to_num(profiles - _mean(profiles))[:, self.usable]
        profiles -= profiles.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(profiles, axis=1, keepdims=True)
        profiles = profiles / np.maximum(lengths, 1e-12)
        return profiles @ profiles.T

    def most_similar(self, number: int) -> int:
        """The other class whose profile is most like that of this one."""
        return int(np.where(self.others(number), self.similarity[number], -np.inf).argmax())


def _markers(profiles: _Profiles, number: int, sign: Sign) -> list[Marker]:
    """Markers of one sign, the best first."""
    nearest = profiles.most_similar(number)
    inside = profiles.class_share[number]
    if sign == "positive":
        outside = _mean(profiles.class_share[profiles.others(number)])
        folds = np.fmin.reduce(_three_folds(profiles, number, nearest))
        fits, merit = (inside >= LEAST_SHARE) & (folds >= LEAST_FOLD), folds * inside
    else:
        outside = profiles.class_share[nearest]
        folds = _fold(profiles.class_expression[number], profiles.class_expression[nearest])
        fits, merit = (outside >= SIMILAR_SHARE) & (inside < ABSENT_SHARE), outside - inside
    genes = np.flatnonzero(fits & profiles.usable)
    genes = genes[np.argsort(-merit[genes], kind="stable")][: MOST[sign]]
    return [
        Marker(
            profiles.ids[number],
            profiles.names[number],
            profiles.symbols[gene],
            sign,
            *(round(float(values[gene]), _DECIMALS) for values in (folds, inside, outside)),
        )
        for gene in genes
    ]


def _three_folds(profiles: _Profiles, number: int, nearest: int) -> list[NDArray[np.float64]]:
    """Log2 fold changes against other classes of the same study, of all studies, and against the nearest class."""
    others = profiles.others(number)
    same_study, same_nearest = [], []
    for group in profiles.of(number):
        beside = (profiles.study_of == profiles.study_of[group]) & others[profiles.class_of]
        if beside.any():
            same_study.append(_fold(profiles.expression[group], _mean(profiles.expression[beside])))
        for rival in np.flatnonzero(beside & (profiles.class_of == nearest)):
            same_nearest.append(_fold(profiles.expression[group], profiles.expression[rival]))
    expression = profiles.class_expression
    folds = [_fold(expression[number], _mean(expression[others]))]
    folds += [_mean(np.stack(same_study))] if same_study else []
    folds.append(_mean(np.stack(same_nearest)) if same_nearest else _fold(expression[number], expression[nearest]))
    return folds


def _fold(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log2((inside + PSEUDOCOUNT) / (outside + PSEUDOCOUNT))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the rows that were measured; NaN where none was."""
    measured = ~np.isnan(values)
    total, rows = np.where(measured, values, 0).sum(axis=0), measured.sum(axis=0)
    return np.divide(total, rows, out=np.full(values.shape[1], np.nan), where=rows > 0)


def _may_mark(symbol: str) -> bool:
    pseudogene = _PSEUDOGENE.fullmatch(symbol)
    return not (_NO_MARKER.fullmatch(symbol) or (pseudogene and pseudogene[1] in gene_names().approved))


def _symbol(token: str) -> str:
    """Approved symbol of an Ensembl id; any other token as it is, which is how a data set names its genes."""
    return gene_names().ensembl.get(token.partition(".")[0], token)
