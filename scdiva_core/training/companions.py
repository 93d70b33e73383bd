"""What ships beside trained weights to name cells with: profiles, reference and markers, made of the corpus."""

from __future__ import annotations

from pathlib import Path

from scdiva_core.data.corpus import Corpus
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.markers import MARKERS_FILE
from scdiva_core.model.profiles import PROFILES_FILE
from scdiva_core.model.reference import REFERENCE_FILE
from scdiva_core.training.markers import marker_genes
from scdiva_core.training.profiles import build_profiles
from scdiva_core.training.reference import build_reference


def write_companions(folder: Path, corpus: Corpus, *, seed: int) -> None:
    """Write the three files of a checkpoint that names the corpus' cell types; for any other, nothing.

    Parameters
    ----------
    folder
        Holds the finished checkpoint; it is loaded from there, so that latents are those of the stored weights.
    corpus
        That it was trained on.
    seed
        Chooses cells.

    Raises
    ------
    CheckpointError
        The checkpoint does not fit the corpus.
    """
    model = load_pretrained(folder)
    if model.labels is None:
        return
    marker_genes(corpus).save(folder / MARKERS_FILE)
    build_reference(model, corpus, seed=seed).save(folder / REFERENCE_FILE)
    build_profiles(model, corpus, seed=seed).save(folder / PROFILES_FILE)
