"""What the page Reconstruction calls things, what its terms mean, and a result in a few sentences."""

from __future__ import annotations

import pandas as pd

from pages._ui import words
from scdiva_core.baselines.reconstruction import NEIGHBOURS as NEAREST
from scdiva_core.engine_reconstruction_result import (
    MEAN,
    NAMED,
    NEIGHBOURS,
    ONE_PASS,
    ONE_PASS_LEAKING,
    RANK,
    ReconstructionResult,
)

MEASURES = {
    "identity": "Identity accuracy",
    "l_dist": "L-Dist",
    "bleu": "BLEU",
    "spearman": "Spearman",
    "mse": "MSE",
    "r2": "R2",
}
"""Measures, and what they are called."""

QUESTIONS = {"gene": "A gene by its name", "place": "A hidden place", "both": "Both"}
"""What methods are told, and what that is called."""

HIDINGS = {"share": "A share of the genes", "genes": "Genes of a list"}
"""What can be hidden."""

SEES = {False: "visible genes only", True: "hidden genes too (leak)"}
"""What reaches a method."""

SMOOTHED = (
    "Denoised values are predictions: they pull cells towards what is usual for cells like them, so real differences "
    "between cells, types and conditions shrink or vanish, and genes become more alike than they are. **Look at them; "
    "do not test them.** In a test for differential expression (DE) they give false findings: use measured counts."
)
"""What whoever uses the layer must know."""

HELP = {
    "cells": "Cells of which a part of the genes is hidden and rebuilt. Simple methods learn from all other cells of "
    "the file. Cell sets are made on the page Embedding.",
    "hidden": "A share of each cell's genes at random shows what the model knows in general. A list asks for certain "
    "genes (imputation): they are hidden in every cell that expresses them.",
    "shares": "How much of each cell's expressed genes is hidden, 15 to 95 %. Several give a curve; each takes as long "
    "as the first.",
    "genes": "Symbols, older symbols, aliases or Ensembl ids, separated by commas, blanks or lines.",
    "types": "Column of obs with cell types: errors are shown type by type, and one cell of each type gene by gene.",
    "most": "Of a larger set so many cells are drawn, never more than half of the file: simple methods learn from the "
    "others.",
    "iterative": "Of the cells, so many are also rebuilt step by step: the surest genes first, then the rest with "
    "these in sight. A cell takes some twenty times as long as in one pass. 0 skips it.",
    "steps": "Rounds in which a cell is rebuilt step by step.",
    "time": "From this machine's speed and what is asked for.",
    "question": "**A gene by its name**: the gene's name is told, its value is asked, and no place tells its rank; so "
    "are simple methods asked (population mean, kNN imputation). **A hidden place**: neither gene nor value is told, "
    "but the place is, which is the gene's rank among the cell's; 'rank alone' is all that can be known from that.",
    "leak": "The anchor is a summary of the cell that the model reads beside its genes. As published it is made from "
    "all genes, the hidden ones too, so what is hidden reaches the model: it leaks. The honest figure makes the anchor "
    "from visible genes only.",
    "population": "For each gene its mean value among the other cells of the file that express it.",
    "neighbours": f"The mean of the gene among the {NEAREST} other cells that are nearest by visible genes, drawn a "
    "little towards its mean in all of them.",
    "interval": "95 % bootstrap interval over cells.",
    "gain": "How much better ours is on the same cells, positive where it is better, whichever way the measure runs.",
    "cell": "The first cell of each type is kept gene by gene, 12 cells at most.",
    "profile": "Every point is a hidden gene. On the dotted line its value is rebuilt rightly.",
    "gene errors": "Root mean squared error of each gene over the cells in which it was hidden, by two methods. Below "
    "the dotted line the model is better.",
    "denoised": "Every gene that the model reads in a cell is hidden once, with a fifth of the cell's genes, and "
    "predicted from the rest. Nothing is filled in: a gene that a cell does not express stays 0.",
}

MEASURE_HELP = {
    "identity": "Share of the hidden places of a cell where the right gene is named, averaged over cells. 1 is best.",
    "l_dist": "Fewest insertions, deletions and substitutions that turn the rebuilt sequence of genes into the true "
    "one (Levenshtein), over the number of hidden places. 0 is best, 1 is as bad as naming nothing right.",
    "bleu": "Share of the runs of one to four genes of the rebuilt sequence that the true one has too (BLEU). Visible "
    "genes count, so a small mask alone makes it high: read it beside 'random'.",
    "spearman": "Rank correlation of true and rebuilt values over the hidden genes of a cell, averaged over cells. 1 "
    "is best. At a hidden place the rank alone gives nearly 1.",
    "mse": "Mean squared error of log1p values of the hidden genes. 0 is best.",
    "r2": "1 less the squared error over that of the cell's own mean of its hidden genes. 1 is best, 0 is no better "
    "than that mean, below 0 is worse.",
}

WORDS = {"better": "better than", "worse": "worse than", "no clear difference": "not clearly different from"}
"""Of `scdiva_core.tasks.reconstruction_scores.comparisons`, in a sentence."""


def verdict(result: ReconstructionResult) -> list[str]:
    """Say what was found in sentences, Markdown: values from visible genes, naming from them, then the leak.

    Parameters
    ----------
    result
        Of `scdiva_core.engine_reconstruction.reconstruct`. What could not be compared is left out.
    """
    pairs = {(row.ours, row.theirs, row.measure): row for row in result.comparisons.itertuples()}
    told = [
        _values(pairs.get((NAMED, MEAN, "mse")), pairs.get((NAMED, NEIGHBOURS, "mse"))),
        _names(pairs.get((ONE_PASS, RANK, "identity"))),
        _leak(pairs.get((ONE_PASS_LEAKING, ONE_PASS, "identity"))),
    ]
    return [sentence for sentence in told if sentence]


def _values(mean: object, neighbours: object) -> str:
    rows = [(row, name) for row, name in ((mean, "the population mean"), (neighbours, "kNN imputation")) if row]
    if not rows:
        return ""
    first = rows[0][0]
    judged = " and ".join(f"{WORDS[row.word]} {name}" for row, name in rows)
    numbers = "; ".join(f"{name.removeprefix('the ')} {row.theirs_mean:.3f}, {_gain(row)}" for row, name in rows)
    return (
        f"**Values of hidden genes, from visible genes only: ScDiVa is {judged}.** Squared error of log1p values "
        f"{first.ours_mean:.3f}; {numbers}; {words.count(first.n, 'cell')}."
    )


def _names(row: object) -> str:
    if not row:
        return ""
    return (
        f"**Which genes are hidden, from visible genes only: ScDiVa is {WORDS[row.word]} rank alone.** "
        f"Named rightly {words.percent(row.ours_mean)}, by rank alone {words.percent(row.theirs_mean)}, {_points(row)}."
    )


def _leak(row: object) -> str:
    if not row:
        return ""
    told = f"{words.percent(row.ours_mean)} are named rightly, against {words.percent(row.theirs_mean)} without leak"
    if row.word == "better":
        told += ". The difference is what the model sees, not what it infers"
    elif row.word == "no clear difference":
        told += ": no clear difference, so this checkpoint makes little of the leak"
    return f"**With the published anchor hidden genes leak to the model.** So {told}."


def _gain(row: object) -> str:
    return f"gain {row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})".replace("-", "−")


def _points(row: object) -> str:
    """A gain of shares, in percentage points."""
    gain, low, high = (f"{100 * value:+.2f}" for value in (row.difference, row.low, row.high))
    return f"gain {gain} points ({low} to {high})".replace("-", "−")


def percents(shares: tuple[float, ...]) -> str:
    """Shares as people write them: 15, 30 and 50 %."""
    numbers = [f"{share * 100:g}" for share in shares]
    return f"{' and '.join(filter(None, [', '.join(numbers[:-1]), numbers[-1]]))} %"


def unseen_genes(result: ReconstructionResult) -> list[str]:
    """Genes of the list that were hidden too seldom for a number of their own."""
    there = set(result.genes["symbol"])
    return [gene for gene in result.settings.genes if gene not in there]


def with_words(table: pd.DataFrame) -> pd.DataFrame:
    """Add columns in words to the table of all numbers: ``asked`` and ``sees``."""
    return table.assign(asked=table["told"].map(QUESTIONS), sees=table["leaks"].map(SEES))
