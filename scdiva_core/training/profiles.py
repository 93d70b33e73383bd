"""Profiles of a labelled corpus: what the types' cells have in common, and by how much studies disagree about it.

All of it is our choice but the discriminant itself. Two studies of one type differ by protocol, not by biology; the
directions in which they do are given a large variance, so that the discriminant does not go by them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from scdiva_core.data.corpus import Corpus
from scdiva_core.errors import CheckpointError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.model.profiles import Profiles, joint_logits, standardised
from scdiva_core.training.batches import make_batch
from scdiva_core.training.genes import LEAST_DEVIATION, variable_genes
from scdiva_core.training.losses import fitted_temperature
from scdiva_core.training.reference import check_origin, classed_cells, drawn_evenly

N_TELLING = 2000
"""Genes that differ most between types, beside the variable ones."""

RANK = 30
"""Directions of the covariance that are kept; all others count as noise of single genes."""

STUDY_WEIGHT = 10.0
"""What a deviation between studies of one type weighs against one between its cells."""

EXTRA_NOISE = 0.1
"""Share of the mean variance that is added to every gene's noise."""

MOST_CELLS = 500
"""Cells of a type at most."""

HOTTEST = 256.0
"""Highest temperature of the scores: thousands of genes, counted as if each told something new, are far too sure."""

_CELLS = 32


@torch.no_grad()
def build_profiles(model: ScDiVaModel, corpus: Corpus, *, seed: int) -> Profiles:
    """Compute profiles on training cells of known type, and temperatures on held-out donors.

    Parameters
    ----------
    model
        Loaded from its file and with an annotation head over the corpus' classes; put in evaluation mode.
    corpus
        Of the model's vocabulary.
    seed
        Chooses the cells.

    Raises
    ------
    CheckpointError
        The model was not loaded from a file, has another vocabulary or no annotation head; or a class of the corpus has
        no cell.
    """
    check_origin(model, corpus)
    if "annotation" not in model.heads or model.labels is None or model.labels.ids != corpus.classes:
        msg = "This model has no annotation head over the corpus' cell types."
        raise CheckpointError(msg, "Train one first: its probabilities and those of the profiles are joined.")
    cells, classes = classed_cells(corpus)
    chosen = drawn_evenly(classes, corpus.dataset_of[cells], MOST_CELLS, np.random.default_rng(seed))
    cells, classes = cells[chosen], classes[chosen]
    if lacking := len(corpus.classes) - len(np.unique(classes)):
        msg = f"{lacking} of the corpus' {len(corpus.classes)} cell types have no training cell."
        raise CheckpointError(msg, "Prepare the corpus with its table of labels.")
    genes = np.union1d(variable_genes(corpus, seed=seed), _telling_genes(corpus, cells, classes)).astype(np.int32)
    mean, deviation = corpus.gene_mean[genes], np.maximum(corpus.gene_std[genes], LEAST_DEVIATION)
    values = standardised(_expression(corpus, cells, genes), mean, deviation)
    centers, spread = _centers(values, classes, corpus.dataset_of[cells], len(corpus.classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rank = min(RANK, *spread.shape)
        _, singular, right = torch.svd_lowrank(torch.from_numpy(spread), q=min(rank + 10, *spread.shape), niter=4)
    loadings = (right[:, :rank] * singular[:rank]).numpy()
    variance = (spread**2).sum(axis=0)
    noise = np.maximum(variance - (loadings**2).sum(axis=1), 0) + EXTRA_NOISE * max(float(variance.mean()), 1e-6)
    profiles = Profiles(
        ids=corpus.classes,
        names=tuple(corpus.manifest["class_names"]),
        gene_ids=genes,
        mean=mean,
        deviation=deviation,
        centers=centers,
        loadings=loadings,
        noise=noise.astype(np.float32),
        temperature=1.0,
        joint_temperature=1.0,
        weights=model.sha256,
    )
    return _calibrated(profiles, model, corpus)


def _expression(corpus: Corpus, cells: NDArray[np.integer], genes: NDArray[np.integer]) -> NDArray[np.float32]:
    """log1p of counts per 10,000, dense ``[n, g]``."""
    column = np.full(len(corpus.vocabulary), -1)
    column[genes] = np.arange(len(genes))
    rows = corpus.take(cells)
    kept = column[rows.gene_ids] >= 0
    values = np.zeros((len(rows), len(genes)), np.float32)
    values[rows.rows[kept], column[rows.gene_ids[kept]]] = rows.log1p()[kept]
    return values


def _telling_genes(corpus: Corpus, cells: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Genes with the largest variance between types over that within them, every type counting the same."""
    rows, n_genes, sizes = corpus.take(cells), len(corpus.vocabulary), np.bincount(classes)
    place, values = classes[rows.rows] * n_genes + rows.gene_ids, rows.log1p().astype(np.float64)
    means, squares = (
        np.bincount(place, powers, minlength=len(sizes) * n_genes).reshape(-1, n_genes) / sizes[:, None]
        for powers in (values, values**2)
    )
    ratio = means.var(axis=0) / (np.maximum(squares - means**2, 0).mean(axis=0) + LEAST_DEVIATION**2)
    best = np.argsort(-ratio, kind="stable")[:N_TELLING]
    return best[ratio[best] > 0]


def _centers(
    values: NDArray[np.float32], classes: NDArray[np.int64], studies: NDArray[np.integer], n_classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean of each type ``[k, g]``, and rows whose squares sum to the covariance around it.

    A type's mean is that of its studies, each weighted with the root of its cells. Types weigh the same in the
    covariance, however many cells they have.
    """
    sizes = np.bincount(classes, minlength=n_classes)
    centers = np.empty((n_classes, values.shape[1]), np.float32)
    within, between = np.empty_like(values), []
    for number, size in enumerate(sizes):
        means, weights = [], []
        for study in np.unique(studies[classes == number]):
            group = (classes == number) & (studies == study)
            means.append(values[group].mean(axis=0))
            weights.append(group.sum() ** 0.5)
            within[group] = (values[group] - means[-1]) / (size * n_classes) ** 0.5
        share = np.array(weights, np.float32) / sum(weights)
        centers[number] = share @ np.stack(means)
        if len(means) > 1:
            between += [(mean - centers[number]) * weight**0.5 for mean, weight in zip(means, share, strict=True)]
    if not between:
        return centers, within
    # Two studies a type are the rule: half of the rows are as many types, over which this is the mean.
    return centers, np.concatenate([within, np.stack(between) * (STUDY_WEIGHT * 2 / len(between)) ** 0.5])


def _calibrated(profiles: Profiles, model: ScDiVaModel, corpus: Corpus) -> Profiles:
    """Fit both temperatures on the validation cells of known type; without such cells they stay 1."""
    cells, classes = classed_cells(corpus, "validation")
    if not len(cells):
        return profiles
    truth, rng = torch.from_numpy(classes), np.random.default_rng(0)
    model.eval()
    logits = []
    for start in range(0, len(cells), _CELLS):
        batch = make_batch(corpus, model.tokenizer, cells[start : start + _CELLS], rng)
        logits.append(model.predict(batch.tokens, "annotation").double().cpu())
    discriminant = profiles.over(np.arange(len(corpus.vocabulary)))
    values = _expression(corpus, cells, discriminant.columns)
    scores = torch.from_numpy(discriminant.scores_of_used(values)).double()
    profiles = replace(profiles, temperature=fitted_temperature(scores, truth, most=HOTTEST))
    joint = joint_logits(torch.cat(logits) / model.labels.temperature, scores / profiles.temperature)
    return replace(profiles, joint_temperature=fitted_temperature(joint, truth))
