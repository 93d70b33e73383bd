"""How well a predicted change of expression agrees with the measured one, perturbation by perturbation.

A delta is the mean log1p expression of the perturbed cells less that of the control cells, one number a gene: a
(natural) log fold change. Leave the perturbed genes out of every array: that their own expression falls or rises is no
prediction. Numbers that are not defined, such as the correlation with a constant, are NaN.
"""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

FDR = 0.05
"""Benjamini-Hochberg q below which a gene counts as changed."""

TOP = 20
"""Genes of the hit rate."""

_ROUNDING = 1e-7  # a spread below it is what float32 leaves of the difference of two equal numbers


def changed_genes(
    perturbed: sp.csr_matrix | ArrayLike, control: sp.csr_matrix | ArrayLike, fdr: float = FDR
) -> NDArray[np.bool_]:
    """Mark the genes, bool ``[n_genes]``, whose expression truly differs: scanpy's Wilcoxon rank-sum test, then BH.

    Parameters
    ----------
    perturbed, control
        log1p expression ``[n_cells, n_genes]`` of each side; two cells or more. Cells count as independent.
    fdr
        Highest q.
    """
    import scanpy as sc  # seconds to import

    sides = [sp.csr_matrix(side) for side in (perturbed, control)]
    cells = anndata.AnnData(sp.vstack(sides, format="csr"))
    cells.obs["side"] = np.repeat(["perturbed", "control"], [side.shape[0] for side in sides])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a gene that is the same in all cells divides 0 by 0, which scanpy mends
        sc.tl.rank_genes_groups(
            cells, "side", groups=["perturbed"], reference="control", method="wilcoxon", tie_correct=True
        )
    found = cells.uns["rank_genes_groups"]
    changed = np.zeros(cells.n_vars, bool)
    changed[found["names"]["perturbed"].astype(int)] = found["pvals_adj"]["perturbed"] < fdr
    return changed


def pearson_delta(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Pearson correlation of deltas ``[n_genes]`` (PearsonDelta; Roohani 2024, GEARS); NaN where one is constant."""
    predicted, measured = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if min(predicted.std(), measured.std()) < _ROUNDING:
        return float("nan")
    return float(pearsonr(predicted, measured).statistic)


def centroid_pearson(predicted: ArrayLike, measured: ArrayLike, centroid: ArrayLike) -> float:
    """Pearson correlation of what sets a perturbation apart from all others (Ahlmann-Eltze 2025; Vinas Torne 2025).

    Both deltas are taken against the mean of all perturbations instead of the control, so that what every perturbation
    has in common, which the mean predicts as well, earns nothing. NaN where one is then constant, as the mean itself. A
    prediction much smaller than the centroid scores as no change does, which need not be 0: read it beside that.

    Parameters
    ----------
    predicted, measured
        Deltas against the control, ``[n_genes]``.
    centroid
        Mean delta of the perturbations that were open to the predictor, ``[n_genes]``.
    """
    centroid = np.asarray(centroid, np.float64)
    return pearson_delta(np.asarray(predicted) - centroid, np.asarray(measured) - centroid)


def de_mse(predicted: ArrayLike, measured: ArrayLike, changed: ArrayLike) -> float:
    """Mean squared error over the truly changed genes, in log1p units squared; NaN where no gene changed.

    The sources of DE-MSE differ in which genes they take (often the top 20); all with q < 0.05 are our choice.

    Parameters
    ----------
    predicted, measured
        Deltas ``[n_genes]``.
    changed
        bool ``[n_genes]``; see `changed_genes`.
    """
    changed = np.asarray(changed, bool)
    if not changed.any():
        return float("nan")
    return float(np.square(np.asarray(predicted, np.float64) - np.asarray(measured, np.float64))[changed].mean())


def de_auprc(predicted: ArrayLike, changed: ArrayLike) -> float:
    """Average precision of the size of the predicted change at telling truly changed genes from the others.

    By chance it is the share of changed genes. NaN where all or none changed.

    Parameters
    ----------
    predicted
        Delta ``[n_genes]``; its sign does not count.
    changed
        bool ``[n_genes]``; see `changed_genes`.
    """
    changed = np.asarray(changed, bool)
    if changed.all() or not changed.any():
        return float("nan")
    return float(average_precision_score(changed, np.abs(np.asarray(predicted, np.float64))))


def fold_change_spearman(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Rank correlation of the deltas ``[n_genes]``, that is of log fold changes; NaN where one is constant."""
    predicted, measured = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if min(predicted.std(), measured.std()) < _ROUNDING:
        return float("nan")
    return float(spearmanr(predicted, measured).statistic)


def hit_rate(predicted: ArrayLike, measured: ArrayLike, top: int = TOP) -> float:
    """Share of the genes that changed most which the prediction too has among its most changed ones (HR@20).

    Which genes of equal size come first is decided by their order, so a prediction of no change says nothing: NaN.

    Parameters
    ----------
    predicted, measured
        Deltas ``[n_genes]``; signs do not count.
    top
        How many genes; all where there are fewer, which is then always a full hit.
    """
    predicted, measured = np.abs(np.asarray(predicted, np.float64)), np.abs(np.asarray(measured, np.float64))
    if predicted.max(initial=0) < _ROUNDING:
        return float("nan")
    most = [set(np.argsort(-sizes, kind="stable")[:top].tolist()) for sizes in (predicted, measured)]
    return len(most[0] & most[1]) / min(top, len(measured))


def sign_accuracy(predicted: ArrayLike, measured: ArrayLike, changed: ArrayLike) -> float:
    """Share of the truly changed genes whose direction is right; NaN where no gene changed.

    A prediction of exactly 0 names no direction and counts as half right, as a coin does.

    Parameters
    ----------
    predicted, measured
        Deltas ``[n_genes]``.
    changed
        bool ``[n_genes]``; see `changed_genes`.
    """
    changed = np.asarray(changed, bool)
    if not changed.any():
        return float("nan")
    product = np.sign(np.asarray(predicted, np.float64)) * np.sign(np.asarray(measured, np.float64))
    return float(((product[changed] + 1) / 2).mean())


def retrieval_rank(predicted: ArrayLike, measured: ArrayLike, row: int) -> float:
    """Share of the other perturbations whose measured delta is nearer to the prediction than the true one.

    0 at best, 0.5 by chance, for a prediction of no change, and on average for one that is the same for all
    perturbations. After the rank metric of PerturBench (Wu 2024), which ranks predictions around a measured delta; this
    is the other way round, so that it needs one prediction only. Near is meant by cosine; equals count half.

    Parameters
    ----------
    predicted
        Delta ``[n_genes]``.
    measured
        Deltas of all perturbations, ``[n_perturbations, n_genes]``; the same genes for all, none of them a target.
    row
        Which one was meant.
    """
    similarity = cosine_similarity(np.asarray(predicted, np.float64)[None], np.asarray(measured, np.float64))[0]
    others = np.delete(similarity, row)
    if not len(others):
        return float("nan")
    return float(((others > similarity[row]) + 0.5 * (others == similarity[row])).mean())


def paired_gain(
    ours: ArrayLike, theirs: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float, int]:
    """Mean of ``ours - theirs`` over perturbations, with a 95 % bootstrap interval (Efron 1979).

    Parameters
    ----------
    ours, theirs
        One score a perturbation, ``[n_perturbations]``; those where either is NaN do not count.
    resamples, seed
        Of the perturbations, with replacement.

    Returns
    -------
    tuple
        Mean, lower and upper end, and how many perturbations count; NaN where none does.
    """
    gains = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    gains = gains[np.isfinite(gains)]
    if not len(gains):
        return float("nan"), float("nan"), float("nan"), 0
    drawn = np.random.default_rng(seed).integers(0, len(gains), (resamples, len(gains)))
    low, high = np.quantile(gains[drawn].mean(axis=1), [0.025, 0.975])
    return float(gains.mean()), float(low), float(high), len(gains)


def score_delta(
    predicted: ArrayLike, measured: ArrayLike, changed: ArrayLike, centroid: ArrayLike | None = None
) -> dict[str, float]:
    """Every measure of one predicted delta that needs no other perturbation than the centroid.

    Parameters
    ----------
    predicted, measured
        Deltas ``[n_genes]``.
    changed
        bool ``[n_genes]``; see `changed_genes`.
    centroid
        See `centroid_pearson`, which is left out where this is None.

    Returns
    -------
    dict
        ``pearson_delta``, ``de_mse``, ``de_auprc``, ``fold_change_spearman``, ``hit_rate``, ``sign_accuracy``, and
        ``centroid_pearson``.
    """
    scores = {
        "pearson_delta": pearson_delta(predicted, measured),
        "de_mse": de_mse(predicted, measured, changed),
        "de_auprc": de_auprc(predicted, changed),
        "fold_change_spearman": fold_change_spearman(predicted, measured),
        "hit_rate": hit_rate(predicted, measured),
        "sign_accuracy": sign_accuracy(predicted, measured, changed),
    }
    if centroid is not None:
        scores["centroid_pearson"] = centroid_pearson(predicted, measured, centroid)
    return scores
