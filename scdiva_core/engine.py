"""One checkpoint on one device: every task of the pages and the command line, with its results on disk."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scdiva_core.data.h5ad import H5adDataset, Values, open_h5ad
from scdiva_core.data.preflight import Preflight, preflight
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import CheckpointError, DataError
from scdiva_core.lazy import cached_property
from scdiva_core.model.checkpoint import find_weights, load_pretrained
from scdiva_core.model.profiles import PROFILES_FILE, Profiles
from scdiva_core.store import ResultStore, StoredResult, home
from scdiva_core.tasks.embedding import (
    CHUNK_CELLS,
    embed_cells,
    embedding_width,
    population_entropy,
)
from scdiva_core.tasks.neighbors import Projection, ProjectionSettings, nearest_cells, principal_components, project
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent
from scdiva_core.tasks.speed import Speed

DEFAULT_CHECKPOINT = Path(__file__).resolve().parent.parent / "assets" / "checkpoints" / "default"
"""The checkpoint that ships with the project."""


@dataclass(frozen=True)
class ModelCard:
    """What runs, as measured on the loaded network and not as claimed elsewhere.

    Parameters
    ----------
    name, description
        As the checkpoint's card has them.
    sha256
        Of the weights file; None for random weights.
    parameters, parameters_total
        Counted: the published denoiser's part, and with the heads.
    layers, hidden_size, attention_heads, heads, max_genes
        Architecture.
    vocabulary_size
        Genes known, reserved tokens not counted.
    device, dtype
        Where and in which precision it computes.
    seed
        Of its training, when known.
    provisional
        True while the project itself does not yet vouch for this checkpoint's quality.
    random_weights
        True when nothing was ever trained; every result must then say so.
    has_entropy
        False when the data set's own entropies stand in for the population's.
    training
        The checkpoint's training record; empty when it brings none.
    text
        The README.md beside the weights, Markdown as it was written; empty when there is none.
    """

    name: str
    description: str
    sha256: str | None
    parameters: int
    parameters_total: int
    layers: int
    hidden_size: int
    attention_heads: int
    heads: tuple[str, ...]
    max_genes: int
    vocabulary_size: int
    device: str
    dtype: str
    seed: int | None
    provisional: bool
    random_weights: bool
    has_entropy: bool
    training: dict[str, Any] = field(default_factory=dict)
    text: str = ""


class Engine:
    """A loaded checkpoint, ready for every task; safe to share between threads.

    Parameters
    ----------
    checkpoint
        ``"default"``, a folder, a weights file, or a hub id.
    device
        ``"auto"`` (CUDA, then MPS, then CPU), or a torch device name.
    store
        Where results are kept; the user's own store when None.

    Attributes
    ----------
    folder
        Where the weights lie, with what else there is of the checkpoint.

    Raises
    ------
    CheckpointError, VocabularyError, HubError
        The checkpoint cannot be loaded as it is.
    """

    def __init__(
        self, checkpoint: str | Path = "default", device: str = "auto", store: ResultStore | None = None
    ) -> None:
        self.checkpoint = str(checkpoint)
        self.device = choose_device(device)
        weights = find_weights(DEFAULT_CHECKPOINT if self.checkpoint == "default" else checkpoint)
        self.folder = weights.parent
        self.model = load_pretrained(weights)
        self.model.to(self.device)
        self.store = store if store is not None else ResultStore(home() / "results")
        self._speed = Speed(self.model)
        self._computing = threading.Lock()  # one forward pass at a time: a second would only fight for memory

    @property
    def vocabulary(self) -> GeneVocabulary:
        """Genes of the checkpoint."""
        return self.model.vocabulary

    @cached_property
    def profiles(self) -> Profiles | None:
        """Profiles of the checkpoint's cell types; None where it has none.

        Raises
        ------
        CheckpointError
            The file is damaged, or belongs to other weights.
        """
        path = self.folder / PROFILES_FILE
        return Profiles.load(path, self.model.sha256) if path.is_file() else None

    def card(self) -> ModelCard:
        """Describe the running model."""
        model, card = self.model, self.model.card
        settings = card.get("training")
        settings = settings if isinstance(settings, dict) else {}
        return ModelCard(
            name=str(card.get("name") or Path(self.checkpoint).name),
            description=str(card.get("description") or "This checkpoint brings no description."),
            sha256=model.sha256,
            parameters=model.count_parameters(),
            parameters_total=model.count_parameters(heads=True),
            layers=model.config.num_layers,
            hidden_size=model.config.hidden_size,
            attention_heads=model.config.num_heads,
            heads=model.config.heads,
            max_genes=model.config.max_genes,
            vocabulary_size=len(self.vocabulary.gene_ids),
            device=str(self.device),
            dtype="bfloat16 autocast" if self.device.type == "cuda" else "float32",
            seed=settings.get("seed"),
            provisional=bool(card.get("provisional", False)),
            random_weights=model.sha256 is None or bool(card.get("random_weights", False)),
            has_entropy=model.has_entropy,
            training=settings,
            text=model.card_text,
        )

    def preflight(self, path: str | Path, *, matrix: str | None = None, gene_column: str | None = None) -> Preflight:
        """Look at a file against this checkpoint's genes, without loading it."""
        return preflight(path, self.vocabulary, matrix=matrix, gene_column=gene_column)

    def open(
        self,
        path: str | Path,
        *,
        matrix: str | None = None,
        gene_column: str | None = None,
        values: Values = "auto",
    ) -> H5adDataset:
        """Open a file over this checkpoint's genes; see `scdiva_core.data.h5ad.open_h5ad`."""
        intake = {"matrix": matrix, "gene_column": gene_column, "values": values}
        return open_h5ad(path, self.vocabulary, columns=self.columns, **intake)

    @property
    def columns(self) -> Path:
        """Folder of genes beside files, next to the store; see `write_gene_columns`."""
        return self.store.root.parent / "columns"

    def estimate_seconds(self, n_obs: int, genes_per_cell: float) -> float:
        """Seconds that embedding will take, from a few batches timed once.

        Parameters
        ----------
        n_obs
            Cells.
        genes_per_cell
            Detected genes of a typical cell.
        """
        return n_obs * self._speed.seconds(genes_per_cell)

    def embed(
        self, dataset: H5adDataset, *, progress: Progress = silent, cancelled: IsCancelled = never
    ) -> NDArray[np.float32]:
        """Embed all cells, or fetch the result; goes on where an earlier run was stopped.

        Returns
        -------
        ndarray
            float32 ``[n_obs, d]``, d being the latent's width (or the hidden width without a latent head).

        Raises
        ------
        Cancelled
            The user stopped; finished batches are kept.
        """
        stored = self.stored_embedding(dataset)
        if stored is not None:
            return stored
        partial = self.store.partial(self._key("embedding", dataset), dataset.n_obs, embedding_width(self.model))
        with self._computing:
            embed_cells(
                self.model,
                self._tokenizer(dataset),
                dataset.chunks(CHUNK_CELLS),
                dataset.gene_ids,
                partial.done,
                partial.write,
                progress=progress,
                cancelled=cancelled,
            )
        meta = {**self._meta("embedding", dataset), "compiled": self.model.compiled}
        return partial.finish(meta).arrays["values"]

    def stored_embedding(self, dataset: H5adDataset) -> NDArray[np.float32] | None:
        """The embedding if it was computed before, memory-mapped; else None."""
        stored = self.store.get(self._key("embedding", dataset))
        return None if stored is None else stored.arrays["values"]

    def neighbors(self, dataset: H5adDataset) -> NDArray[np.int32]:
        """Each cell's nearest others in the embedding, int32 ``[n_obs, k]``, computed or fetched; see `nearest_cells`.

        Raises
        ------
        DataError
            There is but one cell.
        """
        key = self._key("neighbors", dataset)
        stored = self.store.get(key)
        if stored is None:
            found = nearest_cells(self.embed(dataset)).astype(np.int32)
            stored = self.store.put(key, {"values": found}, self._meta("neighbors", dataset))
        return stored.arrays["values"]

    def components(
        self,
        dataset: H5adDataset,
        settings: ProjectionSettings,
        *,
        progress: Progress = silent,
        cancelled: IsCancelled = never,
    ) -> NDArray[np.float32]:
        """PCA of the data set, float32 ``[n_obs, n_pcs]``, computed or fetched."""
        stored = self.stored_components(dataset, settings)
        if stored is not None:
            return stored
        vectors = principal_components(dataset, settings, progress=progress, cancelled=cancelled)
        key = self._components_key(dataset, settings)
        return self.store.put(key, {"values": vectors}, self._meta("pca", dataset)).arrays["values"]

    def stored_components(self, dataset: H5adDataset, settings: ProjectionSettings) -> NDArray[np.float32] | None:
        """The PCA if it was computed before; else None."""
        stored = self.store.get(self._components_key(dataset, settings))
        return None if stored is None else stored.arrays["values"]

    def project(
        self,
        dataset: H5adDataset,
        *,
        representation: str = "X_scdiva",
        settings: ProjectionSettings = ProjectionSettings(),  # noqa: B008 - frozen
        progress: Progress = silent,
        cancelled: IsCancelled = never,
    ) -> Projection:
        """Neighbours, Leiden and UMAP of the embedding or of PCA, computed or fetched.

        Raises
        ------
        DataError
            Too few cells for a map, or an unknown representation.
        Cancelled
            The user stopped.
        """
        if representation not in ("X_scdiva", "X_pca"):
            msg = f"{representation!r} is no representation that can be drawn."
            raise DataError(msg, "Choose 'X_scdiva' or 'X_pca'.")
        stored = self.stored_projection(dataset, representation=representation, settings=settings)
        if stored is not None:
            return stored
        if representation == "X_pca":
            vectors = self.components(dataset, settings, progress=progress, cancelled=cancelled)
        else:
            vectors = self.embed(dataset, progress=progress, cancelled=cancelled)
        made = project(vectors, representation, settings, progress=progress, cancelled=cancelled)
        key = self._projection_key(dataset, representation, settings)
        arrays = {"coordinates": made.coordinates, "leiden": made.leiden}
        self.store.put(key, arrays, {**self._meta("projection", dataset), "sketched": made.sketched})
        return made

    def stored_projection(
        self, dataset: H5adDataset, *, representation: str, settings: ProjectionSettings
    ) -> Projection | None:
        """The map if it was drawn before; else None."""
        stored: StoredResult | None = self.store.get(self._projection_key(dataset, representation, settings))
        if stored is None:
            return None
        arrays, sketched = stored.arrays, stored.meta.get("sketched")
        return Projection(arrays["coordinates"], arrays["leiden"], representation, settings, sketched)

    def provenance(self, dataset: H5adDataset) -> dict[str, Any]:
        """What a result was made from: hashes, versions and choices, as plain values."""
        card, stored = self.card(), self.store.get(self._key("embedding", dataset))
        return {
            **self._meta("embedding", dataset),
            "model": card.name,
            "provisional": card.provisional,
            "random_weights": card.random_weights,
            "matrix": dataset.preflight.recommended,
            "values": dataset.value_kind,
            "genes_known": dataset.genes.n_known,
            "genes_total": dataset.genes.n_total,
            "device": card.device,
            "dtype": card.dtype,
            "compiled": self.model.compiled if stored is None else stored.meta.get("compiled", False),
        }

    def _tokenizer(self, dataset: H5adDataset) -> Tokenizer:
        if self.model.has_entropy:
            return self.model.tokenizer
        config = self.model.config
        return Tokenizer(population_entropy(dataset, config.vocab_size), config.max_genes)

    def _meta(self, task: str, dataset: H5adDataset) -> dict[str, Any]:
        return {
            "task": task,
            "data_sha256": dataset.sha256,
            "n_obs": dataset.n_obs,
            # A folder by its name alone: results are shared, and a path says who made them and where.
            "checkpoint": Path(self.checkpoint).name if Path(self.checkpoint).exists() else self.checkpoint,
            "checkpoint_sha256": self.model.sha256,
        }

    def _key(self, task: str, dataset: H5adDataset, **params: Any) -> str:
        intake = {
            "matrix": dataset.preflight.recommended,
            "gene_column": dataset.preflight.gene_column,
            "values": dataset.value_kind,
        }
        return self.store.key(task, dataset.sha256, self._fingerprint(), {**intake, **params})

    def _components_key(self, dataset: H5adDataset, settings: ProjectionSettings) -> str:
        return self._key("pca", dataset, n_pcs=settings.n_pcs, seed=settings.seed)

    def _projection_key(self, dataset: H5adDataset, representation: str, settings: ProjectionSettings) -> str:
        return self._key("projection", dataset, representation=representation, settings=asdict(settings))

    def _fingerprint(self) -> str:
        """What an embedding depends on besides the data: weights, configuration, genes, entropies, arithmetic."""
        model = self.model
        entropies = model.tokenizer.entropy.tobytes() if model.has_entropy else b""
        config = json.dumps(asdict(model.config), sort_keys=True).encode()
        digest = hashlib.sha256(config + entropies).hexdigest()
        arithmetic = "bf16" if self.device.type == "cuda" else "f32"
        return f"{model.sha256}-{self.vocabulary.sha256}-{digest}-{arithmetic}"


def choose_device(name: str) -> torch.device:
    """Turn ``"auto"`` or a device name into a device that is there.

    Raises
    ------
    CheckpointError
        The device is not available on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    try:
        device = torch.device(name)
        there = available.get(device.type, False) and (device.index or 0) < max(torch.cuda.device_count(), 1)
    except RuntimeError:  # no device name at all
        there = False
    if not there:
        names = ", ".join(kind for kind, usable in available.items() if usable)
        msg = f"The device {name!r} is not available here."
        raise CheckpointError(msg, f"Choose 'auto' or one of: {names}.")
    return device
