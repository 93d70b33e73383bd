"""What the page Integration calls things, and what its terms mean."""

from __future__ import annotations

WHAT_FOR = (
    "bring cells of several donors, runs or files together, see what each method does to batches and types, and keep "
    "the result as an embedding for every page."
)

MEASURES = {
    "avg_bio": "Avg-Bio",
    "nmi": "NMI",
    "ari": "ARI",
    "type_asw": "Type ASW",
    "avg_batch": "Avg-Batch",
    "batch_asw": "Batch ASW",
    "graph_connectivity": "Connectivity",
    "ilisi": "iLISI",
    "clisi": "cLISI",
    "kbet": "kBET",
}
"""Columns of the tables of measures, in the order shown."""

BARS = {
    "avg_bio": "Types held together (Avg-Bio)",
    "avg_batch": "Batches mixed (Avg-Batch)",
    "ilisi": "Batches among neighbours (iLISI)",
}
"""Measures that are drawn."""

LOSSES = {"reconstruction": "reconstruction", "adversary": "telling batches apart", "contrast": "telling types apart"}
"""Losses of the fine-tuning."""

SCORES = {"score": "score that chooses", "type_asw": "types held together", "batch_asw": "batches mixed"}
"""What is measured on cells that only judge."""

HELP = {
    "batch": "Column of obs (annotations of cells) that says which cells were measured together: donor, run, sample, "
    "file. Differences between these that are not biology are to vanish.",
    "type": "Column of obs with cell types. Fine-tuning draws cells of a type together, whatever their batch, and the "
    "measures ask whether types hold together. Without one, clusters stand in, and little can be measured.",
    "finetune": "Teaches a copy of the model on these very cells: to rebuild the genes, to hide the batch, and to keep "
    "types apart. Only its last layer before the embedding learns. The methods that need no training are made in any "
    "case.",
    "minutes": "Budget of the training. It ends earlier when it gets no better; the best so far counts.",
    "time": "From this machine's speed and the number of cells: embedding, all methods, measures and maps.",
    "taught": "These weights were chosen on the same cells that judged them, which flatters them a little.",
    "before and after": "UMAP of the vectors of each method. Well mixed batches lie on each other within a type; types "
    "stay apart.",
    "linked": "Draw around cells in one picture: the other one shows where the same cells are.",
    "judged": "Fine-tuning learned from the labels of four fifths of the cells. These are the others: only here the "
    "comparison is fair.",
    "all cells": "Fine-tuning has seen the labels of most of these cells, so that this table flatters it.",
    "chance": "The vectors of PCA, dealt out to the cells at random: batches are mixed perfectly, and nothing is known "
    "of types.",
    "apart": "Over-correction: a type that only one batch has is mixed into another one. Purity is the share of the "
    "type in the clusters of its cells; from 0.9 on it counts as kept.",
    "curve": "Above, what is minimised. Below, what is measured after each round on cells that only judge; the round "
    "with the best score is kept.",
    "save": "Keeps the vectors, their map and their clusters under a name. They are then on the pages Embedding, "
    "Annotation and Knockout, in cell sets and in downloads, whichever checkpoint is chosen. The map stays as it is "
    "drawn now.",
    "checkpoint": "The fine-tuned network itself. Every page then computes with it; the sidebar leads back. It names "
    "no cell types.",
    "files": "Cells of all files over the union of their genes, in a new file; the files themselves stay as they are.",
    "file column": "New column of obs that says which file a cell is from.",
}

MEASURE_HELP = {
    "avg_bio": "Mean of NMI, ARI and type ASW: are types held together?",
    "nmi": "Normalised mutual information of Leiden clusters and types, at the best resolution.",
    "ari": "Adjusted Rand index of Leiden clusters and types, at the best resolution; 0 by chance.",
    "type_asw": "Silhouette width of the types, scaled to 0 to 1; 0.5 by chance.",
    "avg_batch": "Mean of batch ASW and graph connectivity: are batches mixed?",
    "batch_asw": "Within each type, how little the silhouette tells batches apart; 1 is mixed.",
    "graph_connectivity": "Share of each type that hangs together in the graph of neighbours.",
    "ilisi": "How many batches a cell's neighbourhood effectively holds, scaled: 0 one, 1 all alike.",
    "clisi": "How few types a cell's neighbourhood effectively holds, scaled: 1 one, 0 all alike.",
    "kbet": "Share of neighbourhoods whose batches are as in the whole type (chi-squared test).",
}
"""Of the columns of `MEASURES`; all are higher the better."""
