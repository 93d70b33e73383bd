"""Numbers as people read them, and what the jargon means."""

from __future__ import annotations

HELP = {
    "cells": "Rows of the matrix: one cell (or droplet, or nucleus) each.",
    "genes": "Columns of the matrix.",
    "preflight": "A look at the file's headers, names and a small sample of its values, before anything is loaded.",
    "matrix": "An .h5ad file can hold several matrices of the same cells: X, raw/X and layers. "
    "Raw counts are best; the recommended one is chosen unless you say otherwise.",
    "values": "The model reads log1p of counts per 10,000: each cell's counts are scaled to a total of 10,000, "
    "then the natural logarithm of 1 + value is taken. Counts are converted, logarithms are taken as they are.",
    "gene ids": "How genes are named: symbols such as CD3D, or Ensembl ids such as ENSG00000167286. "
    "Older symbols and aliases are recognised through HGNC's tables.",
    "obs": "Annotations of cells: the columns of the file's obs table, such as cell type or donor.",
    "memory": "Peak memory that reading and embedding take beyond the program itself (estimate).",
    "time": "Measured on this machine's speed with the running checkpoint (estimate).",
    "umap": "Uniform Manifold Approximation and Projection: puts cells that are alike close together in two "
    "dimensions. Near means alike; the distance between islands and their size mean little.",
    "leiden": "Leiden clustering: groups of cells that are more connected to each other, among their nearest "
    "neighbours, than to the rest. It knows nothing of cell types.",
    "resolution": "Higher values give more, smaller clusters.",
    "neighbours": "How many nearest cells each cell is connected to, for UMAP and Leiden. More gives a "
    "smoother, less detailed picture.",
    "pca": "Principal component analysis of log1p values of the 2,000 most variable genes: the standard method without "
    "any model, shown so that you can see what the model adds.",
    "log": "Numbers are coloured by log(1 + value): differences among small values become visible.",
    "linear": "Gene values as counts per 10,000 instead of their log1p.",
    "agreement": "For each cell, the share of its 15 nearest neighbours with the same label, averaged over cells. "
    "100 % means that every neighbourhood is pure.",
    "lasso": "Draw around cells in the picture, then give them a name. Switch to box select in its toolbar.",
    "cell set": "A named group of cells together with the recipe that selects it, so that it can be made again.",
    "parameters": "Numbers that were learned in training, counted in the model that is running.",
    "sha256": "Fingerprint of the weights: two checkpoints with the same fingerprint are the same.",
    "provisional": "This checkpoint has not been shown to beat PCA at telling cell types apart.",
    "seed": "Start of the random numbers: with the same seed the same file gives the same picture.",
    "overlap": "Genes of the open data set that this model has a token for.",
    "mitochondrial": "Share of a cell's counts from mitochondrial genes (names beginning with MT-). High values "
    "often mean a damaged cell.",
}


def number(value: float) -> str:
    """Whole number with thousands separated."""
    return f"{value:,.0f}"


def count(number_of: int, what: str) -> str:
    """Whole number with its noun, which takes an s unless there is one."""
    return f"{number(number_of)} {what}{'' if number_of == 1 else 's'}"


def percent(share: float, digits: int = 1) -> str:
    """Share as a percentage."""
    return f"{share:.{digits}%}".replace("%", " %")


def size(n_bytes: float) -> str:
    """Bytes in the largest unit that gives a number above one."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= step:
            return f"{n_bytes / step:,.1f} {unit}"
    return f"{n_bytes:.0f} bytes"


def duration(seconds: float) -> str:
    """Time in the unit people would use."""
    if seconds < 1:
        return "less than a second"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def as_text(name: object) -> str:
    r"""Text from a file, safe inside Streamlit's Markdown: no link, image, formula or colour comes of it."""
    escaped = "".join(f"\\{sign}" if sign in r"\`*_{}[]()#+-.!|<>~$:&" else sign for sign in str(name))
    return " ".join(escaped.split())
