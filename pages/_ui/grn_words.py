"""What the page GRN calls things, and what its terms mean."""

from __future__ import annotations

NO_PROOF = "Attention is no proof of regulation."

WHAT_IT_IS = """
**What attention is.** To read a gene of a cell, the model weighs all other genes of that cell. Here its weights between
regulators (transcription factors) and other genes are averaged over the cells, after taking off what any two genes of
the same rank would get. 0 is an ordinary pair.

**What it is not.** It has no sign: a strong edge may raise or lower its target, or neither. The arrow says who is
called the regulator, not what causes what. Genes that are high in the same cells attract attention whether or not one
regulates the other. Many known targets are missing from any reference, and many that are in it act in other tissues.

**What speaks for an edge.** It stays when cells are drawn anew (stability); it is known (CollecTRI); other measures
agree. The comparison here says how far attention found known edges in these very cells, beside methods that need no
model.
"""

DIRECTIONS = {
    "": "The checkpoint's choice",
    "from": "Regulator attends to target",
    "to": "Target attends to regulator",
    "both": "Mean of both",
}
"""Directions of attention that can be asked for; the empty one leaves it to the checkpoint."""

EVIDENCE = {
    "attention": "Attention z",
    "stability": "Stability",
    "known": "Known",
    "effect": "Effect",
    "cells": "Cells",
    "spearman": "Spearman",
    "partial": "Partial",
    "knockout": "Knockout",
}
"""Columns of evidence, and what they are called."""

EFFECTS = {1: "raises", -1: "lowers", 0: "unknown"}
"""Signs of an edge in words."""

HELP = {
    "cells": "Cells in which attention is read. Cells of one type give its network; a mixture mostly shows which genes "
    "mark which type. Cell sets are made on the page Embedding.",
    "against": "A second set of cells, read for the same genes: the tab Compare sets shows which edges differ.",
    "most": "Of a larger set so many cells are drawn. More cells take longer and make edges steadier.",
    "top": "Targets that are kept of each regulator, those with the most attention first.",
    "heads": "The model reads with several layers, each with several heads, and every head looks for something else. "
    "The tab How far to trust it shows which of them agree with known regulation.",
    "direction": "In attention one gene asks (the query) and another answers (the key). Either side can be the "
    "regulator. It says nothing of cause or sign: neither way means that the one acts on the other.",
    "knockout": "Removes each of the N regulators with the strongest edges from the cells and lets the model predict "
    "its targets. 0 skips it.",
    "panel": "Measures how well attention, correlation, tree ensembles and chance find known edges in these cells, and "
    "each layer and head alone.",
    "time": "From this machine's speed, the cells, and what else is asked for.",
    "regulators": "Transcription factors to show; all when none is chosen.",
    "each": "Targets of each regulator that are drawn, those with the most attention first.",
    "genes": "Genes in the picture at most. Edges are taken by attention; the line below says how many are not drawn.",
    "known only": "Only edges that CollecTRI lists: curated and collected from the literature, of all tissues.",
    "gene": "Shows its edges alone, with their evidence. A click on a gene in the picture does the same.",
    "attention": "How much more the model attends between the two genes than between any two of the same ranks, in "
    "standard deviations, averaged over the cells; pairs that few cells show are drawn towards 0.",
    "stability": "Share of 200 draws of the cells in which the target is among its regulator's best. Below 80 % the "
    "edge is broken in the picture.",
    "shared": "Cells in which the model reads both genes.",
    "spearman": "Rank correlation of the two genes over the cells.",
    "partial": "Correlation that remains when all other genes of the network are held fixed.",
    "effect": "Sign of the partial correlation where it is beyond what shuffled cells give; unknown elsewhere. "
    "Attention itself has no sign.",
    "known": "What CollecTRI says of this pair; empty where it does not list it.",
    "knocked": "Predicted log-fold change of the target when the regulator is removed. Only where it was asked for.",
    "share": "Share of the cells in which the model reads the regulator.",
    "stable": "Its edges that at least 80 % of the draws have.",
    "known targets": "Targets in the reference (CollecTRI) among the genes of this network.",
    "hits": "Known targets among its edges here.",
    "expected": "Hits that as many random targets would give.",
    "p": "Chance of so many hits or more (hypergeometric test).",
    "q": "p corrected for the number of regulators (Benjamini-Hochberg): of what has q ≤ 0.05, one in twenty is "
    "expected to be chance.",
    "path": "The way with the strongest edges. A step is the shorter the more attention its edge has.",
    "against arrows": "Also from a target to its regulator, so that two targets of one regulator are connected.",
    "activity": "How active the regulator is in each cell, judged by its known targets (univariate linear model of "
    "decoupler on CollecTRI). Made of expression, not of attention.",
    "betweenness": "Share of the shortest ways between other genes that lead through this one.",
    "pagerank": "Where a walk along the arrows ends up: high where regulators of regulators meet.",
    "eigenvector": "High for genes whose neighbours are high, arrows ignored.",
    "difference": "Attention in the first set less that in the second.",
    "difference q": "Whether the difference is more than drawing cells anew gives, corrected over all pairs of the "
    "network.",
    "auprc": "Area under the precision-recall curve over that of random scores: 1 is chance.",
    "epr": "Of as many best-scored pairs as there are known ones: share that is known, over chance.",
    "module": "Genes whose attention is shown: those that are regulators as rows or columns, all others opposite.",
}

COLUMN_HELP = {
    "attention": HELP["attention"],
    "stability": HELP["stability"],
    "cells": HELP["shared"],
    "spearman": HELP["spearman"],
    "partial": HELP["partial"],
    "effect": HELP["effect"],
    "known": HELP["known"],
    "knockout": HELP["knocked"],
}
"""Of the columns of `EVIDENCE`."""


def head_name(layer: int, head: int) -> str:
    """What a layer and head, both from 0, are called: people count from 1."""
    return f"layer {layer + 1}, head {head + 1}"
