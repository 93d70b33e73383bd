"""What the page Annotation calls things, and what its terms mean."""

from __future__ import annotations

from scdiva_core.engine_annotation import TITLES

REVIEW = "review"
"""Labels as they have been decided, among the sources to look at."""

SOURCE_HELP = {
    "scdiva": "what the project trusts most: the trained head and the expression profiles, taken together.",
    "head": "a small classifier on the model's embedding, trained with the checkpoint.",
    "profiles": "mean expression of each type in the training data, compared gene by gene.",
    "knn": "a vote of the labelled reference cells that lie nearest in the embedding.",
    "markers": "genes known to be high in a type, less those that it lacks. Rough, but easy to check by eye.",
}

HELP = {
    "sources": "Each source names every cell on its own. With two or more there is also a consensus: the label that "
    "most of them stand behind.",
    "columns": "Labels that your file brings along (columns of obs) take part like any other source. Names and ids of "
    "the Cell Ontology are recognised; other text is kept as it is.",
    "unknown": "A cell that lies far from every type of the reference, and whose nearest cells in your file do too, is "
    "called unknown, whatever a source says of it. Expect about 1 in 12 cells of known types among them. Your own "
    "columns are left as they are.",
    "batch": "Column of obs with batches that were measured apart, such as protocols or sites. Each is compared with "
    "the reference by itself, so that a protocol that shifts all its cells does not make them unknown.",
    "source": "Whose labels the picture shows and, before the first decision, which labels you review.",
    "confidence": "The probability that the source gives to its label, between 0 and 1, corrected on cells that were "
    "kept aside (temperature). A consensus is as confident as its sources together.",
    "disagreement": "Share of the other sources that say something else. One that is merely coarser or finer, such as "
    "T cell beside naive T cell, does not count as something else.",
    "novelty": "Distance to the nearest type of the reference, mean of a cell and its 15 nearest cells in your file. "
    "Above 1 they are unlike anything in the reference.",
    "truth": "A column with labels that you trust. It is only compared with, never used to name cells.",
    "calibration": "If confidence is honest, of the cells with confidence 0.8 four in five are right: the points lie "
    "on the diagonal. The error is the mean distance from it.",
    "baseline": "How often the commonest type alone would be right. Labels worth having do clearly better.",
    "queue": "Every cell is in one item: cells of one cluster with one label and like doubt. The item that is "
    "most likely to be wrong comes first.",
    "doubt": "How much speaks against the label, 0 to 1: nearest cells and sources with another label weigh most, "
    "then low confidence and distance to the reference.",
    "kinds": "cluster: cells with the label of most of their cluster; minority: cells with another label; doubtful: "
    "cells with that label that stand out in doubt.",
    "candidates": "What all sources and the nearest cells propose for these cells, each with the same weight.",
    "markers": "Size: share of the cells that show the gene. Colour: how much of it, mean log1p of counts per 10,000.",
    "reason": "Kept in the log and in every export. Optional.",
    "reviewer": "Stands beside each of your decisions in the log and in exports.",
    "relabel": "Search the Cell Ontology by name or synonym. Without a search, labels already in use are offered.",
    "part": "Give the new label to all cells of the item, or split off a part of them.",
    "donors": "Cells of one donor are alike and no replicates. With a column that names donors, counts are added up by "
    "donor and donors are compared (pydeseq2); without one, p-values rank genes and prove nothing.",
    "schema": "The Cell Annotation Schema: labels, terms, reasons and authors as JSON, for cell atlases.",
}

KINDS = {
    "cluster": "as its cluster",
    "minority": "differs from its cluster",
    "doubtful": "stands out in doubt",
}

DONE = {"accept": "accepted", "relabel": "relabelled", "split": "split off", "reject": "rejected", "skip": "skipped"}


def title(source: str) -> str:
    """Name of a source for people: of `SOURCES`, the consensus, a column of the user's, or the review.

    Parameters
    ----------
    source
        As `scdiva_core.engine_annotation` names it, or `REVIEW`.
    """
    if source == REVIEW:
        return "As reviewed"
    return TITLES.get(source) or f"Your column {source.removeprefix('obs: ')}"
