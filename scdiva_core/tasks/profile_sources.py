"""Naming cells by the profiles of a checkpoint, alone and together with its trained head."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import CheckpointError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.model.profiles import Profiles, joint_logits
from scdiva_core.tasks.annotation import LabelCalls
from scdiva_core.tasks.label_sources import head_logits
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

_CHUNK_CELLS = 4096


def profile_scores(
    profiles: Profiles, dataset: H5adDataset, *, progress: Progress = silent, cancelled: IsCancelled = never
) -> NDArray[np.float32]:
    """Score each cell under each type by the genes that the file has: float32 ``[n, k]``, log-likelihoods.

    Parameters
    ----------
    profiles
        Of the checkpoint whose vocabulary the data set was opened with.
    dataset
        Read once, in chunks.
    progress, cancelled
        Called once a chunk.

    Raises
    ------
    DataError
        The file has too few of the profiles' genes.
    """
    discriminant = profiles.over(dataset.gene_ids)
    scores = np.empty((dataset.n_obs, len(profiles.ids)), np.float32)
    for start, block in dataset.chunks(_CHUNK_CELLS):
        stop_if(cancelled)
        progress(start, dataset.n_obs, "Comparing expression with cell type profiles")
        scores[start : start + block.shape[0]] = discriminant.scores(block)
    progress(dataset.n_obs, dataset.n_obs, "Comparing expression with cell type profiles")
    return scores


def profile_calls(profiles: Profiles, scores: NDArray[np.float32]) -> LabelCalls:
    """Name cells by their profiles alone.

    Parameters
    ----------
    profiles, scores
        See `profile_scores`.
    """
    return LabelCalls.from_probabilities(
        "profiles", profiles.ids, profiles.names, profile_probabilities(profiles, scores)
    )


def profile_probabilities(profiles: Profiles, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities ``[n, k]`` by the profiles alone; parameters as for `profile_calls`."""
    return torch.softmax(torch.from_numpy(scores).double() / profiles.temperature, dim=1).numpy()


def joint_calls(
    model: ScDiVaModel, profiles: Profiles, latents: NDArray[np.float32], scores: NDArray[np.float32]
) -> LabelCalls:
    """Name cells by the trained head and the profiles together: what the project trusts most.

    Parameters
    ----------
    model
        In evaluation mode.
    profiles
        Of the same weights.
    latents
        float32 ``[n, latent_dim]`` of the same cells.
    scores
        See `profile_scores`.

    Raises
    ------
    CheckpointError
        The checkpoint names no types, or others than the profiles.
    """
    probabilities = joint_probabilities(model, profiles, latents, scores)
    return LabelCalls.from_probabilities("scdiva", profiles.ids, profiles.names, probabilities)


def joint_probabilities(
    model: ScDiVaModel, profiles: Profiles, latents: NDArray[np.float32], scores: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Probabilities ``[n, k]`` of head and profiles together; parameters and errors as for `joint_calls`."""
    head = head_logits(model, latents)
    if model.labels.ids != profiles.ids:
        msg = f"The head names {len(model.labels.ids)} cell types, the profiles {len(profiles.ids)} others."
        raise CheckpointError(msg, "Restore the checkpoint's own files.")
    both = joint_logits(head, torch.from_numpy(scores).double() / profiles.temperature)
    return torch.softmax(both / profiles.joint_temperature, dim=1).numpy()
