"""Four ways to name cells: the trained head, the nearest reference cells, marker genes, and the user's own column."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.ontology import CellOntology
from scdiva_core.errors import CheckpointError, DataError
from scdiva_core.model.markers import Marker, MarkerTable
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.model.reference import NEIGHBORS, Reference
from scdiva_core.tasks.annotation import UNKNOWN, LabelCalls
from scdiva_core.tasks.novelty import check_width
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

MARKER_TEMPERATURE = 0.25
"""Marker scores are divided by it before the softmax (our choice): a type whose markers lie half a standard deviation
higher is then e^2, about seven times, as probable. On the corpus' held-out donors this value had the least calibration
error of nine from 0.1 to 1; it is still above 0.1, so these probabilities rank cells and promise little."""

FEWEST_MARKERS = 3
"""Positive markers that a data set must detect for a type to be considered; the mean of one or two is mostly noise."""

_LARGEST = 10.0  # standard deviations, as scanpy's scaling cuts them: a rare gene's one cell is no outlier to follow
_BLOCK = 16_384
_CHUNK_CELLS = 4096


def head_calls(model: ScDiVaModel, latents: NDArray[np.float32]) -> LabelCalls:
    """Name cells by the annotation head; parameters and errors as for `head_logits`."""
    probabilities = torch.softmax(head_logits(model, latents), dim=1).numpy()
    return LabelCalls.from_probabilities("head", model.labels.ids, model.labels.names, probabilities)


@torch.inference_mode()
def head_logits(model: ScDiVaModel, latents: NDArray[np.float32]) -> torch.Tensor:
    """Logits of the annotation head, divided by the checkpoint's temperature: float64 ``[n, k]`` on the CPU.

    Parameters
    ----------
    model
        In evaluation mode.
    latents
        float32 ``[n, latent_dim]`` of the same checkpoint.

    Raises
    ------
    CheckpointError
        The checkpoint has no annotation head, or does not say what its outputs mean.
    """
    if "annotation" not in model.heads or model.labels is None:
        msg = "This checkpoint has no annotation head with named outputs."
        raise CheckpointError(msg, "Name cells by markers or by a column instead, or open another checkpoint.")
    logits = torch.empty((len(latents), len(model.labels.ids)), dtype=torch.float64)
    for start in range(0, len(latents), _BLOCK):
        block = torch.from_numpy(np.array(latents[start : start + _BLOCK], np.float32)).to(model.device)
        logits[start : start + _BLOCK] = model.heads["annotation"](block).double().cpu()
    return logits / model.labels.temperature


def neighbor_calls(
    reference: Reference,
    latents: NDArray[np.float32],
    k: int = NEIGHBORS,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> LabelCalls:
    """Name cells by their nearest reference cells.

    Each neighbour votes for its label with the inverse of its Euclidean distance (Dudani 1976 in scikit-learn's form);
    at distance 0 only the neighbours that lie there vote.

    Parameters
    ----------
    reference
        Of the same weights as the latents.
    latents
        float32 ``[n, d]``.
    k
        Neighbours; all reference cells where there are fewer.
    progress, cancelled
        Called between blocks of cells.

    Raises
    ------
    CheckpointError
        Latents and reference have different numbers of coordinates.
    """
    check_width(reference, latents)
    search = NearestNeighbors(n_neighbors=min(k, len(reference)), algorithm="brute").fit(reference.latents)
    width = len(reference.ids)
    probabilities = np.empty((len(latents), width), np.float32)
    for start in range(0, len(latents), _BLOCK):
        stop_if(cancelled)
        progress(start, len(latents), "Comparing cells with the reference")
        distances, places = search.kneighbors(latents[start : start + _BLOCK])
        votes = _votes(distances)
        rows = np.arange(len(votes))[:, None] * width
        tally = np.bincount((rows + reference.labels[places]).ravel(), votes.ravel(), minlength=len(votes) * width)
        probabilities[start : start + _BLOCK] = tally.reshape(-1, width)
    progress(len(latents), len(latents), "Comparing cells with the reference")
    return LabelCalls.from_probabilities("knn", reference.ids, reference.names, probabilities)


def marker_calls(
    markers: MarkerTable, dataset: H5adDataset, *, progress: Progress = silent, cancelled: IsCancelled = never
) -> LabelCalls:
    """Name cells by the marker genes that they show.

    A type's score is the mean of its positive markers less the mean of its negative ones, each gene's log1p expression
    standardised over the data set and cut at 10 standard deviations; a softmax over the types at `MARKER_TEMPERATURE`
    makes probabilities of it. The standardisation is relative: a data set of one type alone cannot be named this way.

    Parameters
    ----------
    markers
        Of the checkpoint; genes that no cell of the data set expresses are left out, and types with fewer than
        `FEWEST_MARKERS` positive ones left.
    dataset
        Read once, in chunks; only the marker genes' values are kept, about a kilobyte a cell.
    progress, cancelled
        Called once a chunk.

    Raises
    ------
    DataError
        No type has enough markers in this data set.
    """
    symbols = {marker.symbol for marker in markers.rows}
    columns = np.array([i for i, symbol in enumerate(dataset.gene_symbols) if symbol in symbols], int)
    blocks = [sp.csr_matrix((0, len(columns)), dtype=np.float32)]
    for start, block in dataset.chunks(_CHUNK_CELLS):
        stop_if(cancelled)
        progress(start, dataset.n_obs, "Reading marker genes")
        blocks.append(block[:, columns])
    progress(dataset.n_obs, dataset.n_obs, "Reading marker genes")
    values = sp.vstack(blocks, format="csr")
    place = {dataset.gene_symbols[column]: gene for gene, column in enumerate(columns)}
    ids, scores = _marker_scores(markers, values, place)
    if not ids:
        msg = f"{dataset.path.name} detects {len(columns)} of {len(symbols)} marker genes, for no cell type enough."
        raise DataError(msg, f"A type needs {FEWEST_MARKERS} positive ones; choose another source of labels.")
    names = [markers.names[term] for term in ids]
    return LabelCalls.from_probabilities("markers", ids, names, softmax(scores / MARKER_TEMPERATURE, axis=1))


def column_calls(values: pd.Series, ontology: CellOntology) -> LabelCalls:
    """Take labels from a column of ``obs``, all of them for certain.

    Parameters
    ----------
    values
        One value a cell; missing and blank ones are unknown.
    ontology
        A value that is a Cell Ontology id, or a term's name or synonym in either case, means that term; any other stays
        free text without id.
    """
    codes, found = pd.factorize(values)
    meaning = _Meaning(ontology)
    told = [meaning(str(text)) for text in found]
    labels = sorted(set(filter(None, told)), key=lambda label: (label[1].casefold(), label))
    place = {label: number for number, label in enumerate(labels)}
    # A code of -1, for a missing value, finds the UNKNOWN at the end.
    best = np.array([*(place.get(label, UNKNOWN) for label in told), UNKNOWN], np.int32)[codes]
    certain = (best != UNKNOWN).astype(np.float32)
    none = np.full(len(best), UNKNOWN, np.int32)
    return LabelCalls(
        f"obs: {values.name}",
        tuple(term for term, _ in labels),
        tuple(name for _, name in labels),
        best,
        runner_up=none,
        third=none,
        probability=certain,
        margin=certain,
        entropy=1 - certain,
    )


class _Meaning:
    """Looks up what a text means: Cell Ontology id (or "") and name; None for a blank text."""

    def __init__(self, ontology: CellOntology) -> None:
        self._ontology = ontology
        self._terms = {synonym.casefold(): term for term in ontology.ids for synonym in ontology.synonyms(term)}
        # Names after synonyms: a term's own name beats another's synonym.
        for term in ontology.ids:
            self._terms[term.casefold()] = self._terms[ontology.name(term).casefold()] = term

    def __call__(self, text: str) -> tuple[str, str] | None:
        text = text.strip()
        term = self._terms.get(text.casefold())
        if term is not None:
            return term, self._ontology.name(term)
        return ("", text) if text else None


def _votes(distances: NDArray[np.floating]) -> NDArray[np.float64]:
    """Weight of each neighbour, the sum of a row being 1."""
    distances = distances.astype(np.float64)
    here = distances == 0
    weights = np.where(here.any(axis=1, keepdims=True), here, 1 / np.where(here, 1, distances))
    return weights / weights.sum(axis=1, keepdims=True)


def _marker_scores(
    markers: MarkerTable, values: sp.csr_matrix, place: dict[str, int]
) -> tuple[list[str], NDArray[np.float64]]:
    """Types with enough detected markers, and score of each cell for each of them ``[n, n_types]``."""
    n_cells = max(values.shape[0], 1)
    mean = np.bincount(values.indices, values.data, minlength=values.shape[1]) / n_cells
    squares = np.bincount(values.indices, values.data.astype(np.float64) ** 2, minlength=values.shape[1]) / n_cells
    deviation = np.sqrt(np.maximum(squares - mean**2, 0))
    varies = deviation > 1e-6
    cut = (mean + _LARGEST * deviation)[values.indices]
    values = sp.csr_matrix((np.minimum(values.data, cut), values.indices, values.indptr), shape=values.shape)

    def weights(genes: tuple[Marker, ...]) -> tuple[NDArray[np.float64], int]:
        there = [place[gene.symbol] for gene in genes if gene.symbol in place and varies[place[gene.symbol]]]
        column = np.zeros(len(mean))
        column[there] = 1 / deviation[there] / max(len(there), 1)
        return column, len(there)

    ids, columns = [], []
    for term in markers.names:
        (positive, n_positive), (negative, _) = (weights(markers.of(term, sign)) for sign in ("positive", "negative"))
        if n_positive >= FEWEST_MARKERS:
            ids.append(term)
            columns.append(positive - negative)
    if not ids:
        return [], np.zeros((values.shape[0], 0))
    matrix = np.stack(columns, axis=1)
    return ids, values @ matrix - mean @ matrix
