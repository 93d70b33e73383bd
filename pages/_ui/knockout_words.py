"""What the page Knockout calls things, and what its terms mean."""

from __future__ import annotations

from scdiva_core.tasks.perturbation import Mode

NO_EXPERIMENT = "This is what the model expects; it is no experiment."

EXPRESSION_RELIABILITY = (
    "**The default checkpoint does not beat co-expression here.** On measured knockouts (Papalexi 2021, four genes) "
    "its predicted changes follow the measured ones with a Spearman correlation of 0.02; co-expression with the "
    "knocked-out gene gives 0.12, random changes 0.03. Take the ranking as ideas to test, no more."
)
"""Said beside predicted expression; measured by ``scdiva_core.evaluation.perturbation``, without training on any."""

ACTIONS: dict[str, tuple[str, Mode]] = {
    "out": ("Knock out", "knockout"),
    "down": ("Knock down", "scale"),
    "up": ("Over-express", "scale"),
    "hide": ("Hide", "mask"),
}
"""What can be done to a gene: its name on the page, and the engine's mode."""

FACTORS = {"down": (0.5, 0.25, 0.1), "up": (2.0, 4.0, 10.0)}
"""Factors offered for an action."""

HELP = {
    "genes": "One to three genes that are perturbed together, in the same cells. Type to search by symbol, "
    "older name, alias or Ensembl id. A list can be pasted: Enter takes it.",
    "find": "Symbol, older name, alias or Ensembl id, or a part of one: lists what matches, with the cells "
    "that express it.",
    "action": "Knock out: the genes' values become 0 and the cell is read anew. Knock down and over-express: their "
    "counts are multiplied by a factor. Hide: the genes keep their place but the model sees neither name nor value; "
    "a control for the shift of ranks that a removal brings.",
    "factor": "What the counts of the genes are multiplied by. A cell that does not express a gene stays at 0.",
    "cells": "Cells in which the genes are perturbed. Cell sets are made on the page Embedding.",
    "groups": "Results are given for each group. Directions point to the middles of these groups.",
    "donors": "With a column that names donors, the effect is also tested over donors: cells of one donor are alike, "
    "not replicates.",
    "most": "Of a larger set so many cells are drawn, each group with its share. More cells take longer and make "
    "small effects clearer.",
    "expression": "What the model expects all other genes to do, no gene seeing its own value. Takes the most time.",
    "time": "From this machine's speed, the cells that read the genes, and the random genes to compare with.",
    "detection": "Share of the cells that express the gene at all.",
    "read": "The model reads a cell's most telling genes only, up to a limit. A gene below it is expressed, but not "
    "read, and perturbing it changes nothing.",
    "shift": "How far a cell's embedding moves: 1 − cosine similarity of its latent before and after, 0 for not at "
    "all. Mean over the cells that read the genes.",
    "null": "The same done to random genes that are expressed alike in these cells (mean and detection). A real effect "
    "is larger than nearly all of theirs.",
    "q": "p corrected for the number of tests (Benjamini-Hochberg): of what has q ≤ 0.05, one in twenty is expected to "
    "be chance.",
    "directions": "Change of the cosine between a cell and the middle of each group. Towards: closer than random genes "
    "bring it; away: further off; neither: no more than random genes do.",
    "transitions": "To which group's middle each reading cell lies nearest, before and after.",
    "field": "Each arrow is the mean move of the cells around it, read off the cells that they come to resemble. The "
    "small picture is the control: what moves there moves by chance.",
    "noise": "Standard deviation of the change from one random way of hiding genes to the next. A smaller change is "
    "none.",
    "masked": "Hiding a gene leaves all ranks as they are. The share of the shift that remains when the gene is hidden "
    "instead of removed is due to the gene; the rest may be due to the ranks of the others.",
    "donor test": "Mean shift beyond random genes in each donor, and a t-test over donors.",
    "screen": "Each gene alone, with what is done, cells and groups as chosen above. A run that was stopped goes on "
    "where it was.",
    "regulators": "Transcription factors with known targets (CollecTRI) that at least 10 of the cells express, the "
    "most detected first.",
    "variable": "Genes that vary most for their mean, that at least 10 of the cells express.",
    "pasted": "Symbols, older names, aliases or Ensembl ids, with commas, blanks or new lines between them.",
}
