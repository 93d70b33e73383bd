"""The reference that ships with a checkpoint: labelled training cells, a few of each type and study, as latents."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from scdiva_core.data.corpus import Corpus
from scdiva_core.errors import CheckpointError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.model.reference import Reference
from scdiva_core.training.batches import make_batch

_CELLS = 32


def classed_cells(
    corpus: Corpus, part: Literal["training", "validation"] = "training"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cells that are known to be of one class.

    A coarse label with one class left below it does not say that its cells are of that class: such cells are left out.

    Parameters
    ----------
    corpus
        Prepared with its tables of labels; one without labels has no such cells.
    part
        Of the corpus.

    Returns
    -------
    tuple of ndarray
        Index of each cell, ascending, and number of its class, both int64 ``[n]``.
    """
    own = np.array([label in corpus.classes for label in corpus.label_ids] + [False])
    own[:-1] &= corpus.members.sum(axis=1) == 1
    cells = corpus.cells(part)
    cells = cells[own[corpus.labels[cells]]]  # a label of -1 finds the False at the end
    place = {term: number for number, term in enumerate(corpus.classes)}
    class_of = np.array([place.get(label, -1) for label in corpus.label_ids] + [-1])
    return cells, class_of[corpus.labels[cells]]


@torch.no_grad()
def build_reference(model: ScDiVaModel, corpus: Corpus, *, per_class: int = 100, seed: int) -> Reference:
    """Embed labelled training cells, the same number of each study as far as they go.

    Parameters
    ----------
    model
        Loaded from its file, so that the reference names the weights it belongs to; put in evaluation mode.
    corpus
        Of the model's vocabulary.
    per_class
        Cells of a class at most.
    seed
        Of the draw.

    Raises
    ------
    CheckpointError
        The model was not loaded from a file or has another vocabulary; the corpus has no cell of a known class, or
        no two of one class that differ.
    """
    check_origin(model, corpus)
    cells, classes = classed_cells(corpus)
    if not len(cells):
        msg = f"None of the {len(corpus):,} cells of the corpus is labelled with a final cell type."
        raise CheckpointError(msg, "Prepare the corpus with its table of labels.")
    rng = np.random.default_rng(seed)
    chosen = drawn_evenly(classes, corpus.dataset_of[cells], per_class, rng)
    cells, labels = cells[chosen], classes[chosen].astype(np.int16)
    model.eval()
    latents = []
    for start in range(0, len(cells), _CELLS):
        batch = make_batch(corpus, model.tokenizer, cells[start : start + _CELLS], rng)
        latents.append(model.encode(batch.tokens)["latent"].float().cpu().numpy())
    whole = np.concatenate(latents)
    return Reference(
        latents=whole,
        labels=labels,
        ids=corpus.classes,
        names=tuple(corpus.manifest["class_names"]),
        studies=tuple(dataset["name"] for dataset in corpus.manifest["datasets"]),
        study_of=corpus.dataset_of[cells],
        weights=model.sha256,
    )


def check_origin(model: ScDiVaModel, corpus: Corpus) -> None:
    """Refuse a model that a corpus cannot be compared with.

    Parameters
    ----------
    model
        Loaded from its file.
    corpus
        Of the model's vocabulary.

    Raises
    ------
    CheckpointError
        It is not so.
    """
    if model.sha256 is None or model.vocabulary is None:
        msg = "This model was not loaded from a file, and what ships with it names the weights that it belongs to."
        raise CheckpointError(msg, "Save the model, load it again, and go on with that one.")
    if model.vocabulary.sha256 != corpus.vocabulary.sha256:
        sizes = f"{len(model.vocabulary):,} tokens, the corpus another one of {len(corpus.vocabulary):,}"
        msg = f"The model has a vocabulary of {sizes}."
        raise CheckpointError(msg, "Prepare the corpus with the model's vocabulary.")


def drawn_evenly(
    classes: NDArray[np.int64], studies: NDArray[np.integer], most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw cells of each class from its studies in turn, until there are enough; their places, ascending.

    Parameters
    ----------
    classes, studies
        Of each cell.
    most
        Cells of a class.
    rng
        Of the draw.
    """
    shuffled = rng.permutation(len(classes))
    groups = classes * (int(studies.max()) + 1) + studies
    in_turn = shuffled[np.argsort(_place_in_group(groups[shuffled]), kind="stable")]
    return np.sort(in_turn[_place_in_group(classes[in_turn]) < most])


def _place_in_group(groups: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many of the same group come before each item, int64 ``[n]``."""
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return place
