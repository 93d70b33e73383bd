"""Checkpoints on disk and on the hub: weights, configuration, vocabulary, entropies, card.

A checkpoint is a folder: ``model.safetensors`` (or a published ``.bin``/``.pt``), ``config.json``, a vocabulary
(``vocab.json``, ``vocab.txt`` or ``gene_vocab.csv``), and of ours ``serialization.safetensors`` (population
entropies), ``labels.json`` (what the annotation head's outputs mean), ``profiles.safetensors``,
``reference.safetensors`` and ``markers.tsv`` (what else names cell types), ``card.json`` (where it comes from),
``README.md`` (its model card) and ``evaluation.json`` (what it is worth). Weights are never read through pickled code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import CheckpointError, VocabularyError
from scdiva_core.model.card_text import read_card_text
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.hub import download_checkpoint
from scdiva_core.model.layout import COMPANION_FILES, MADE_FROM_WEIGHTS, VOCABULARY_FILES, WEIGHT_FILES
from scdiva_core.model.network import CellLabels, ScDiVaModel

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def load_pretrained(source: str | Path) -> ScDiVaModel:
    """Load a checkpoint folder, weights file, or hub id, in evaluation mode and float32.

    Parameters
    ----------
    source
        Folder, ``.safetensors``/``.bin``/``.pt``/``.pth`` file with its companions beside it, or ``"owner/name"``.

    Raises
    ------
    CheckpointError
        Weights are missing, truncated, pickled code, not finite, or of another shape; the first three tensors
        that disagree are named. Random weights are never filled in.
    VocabularyError
        No vocabulary lies beside the weights, or it has another size than the network.
    HubError
        The hub cannot be reached or lacks the checkpoint.
    """
    weights = find_weights(source)
    folder = weights.parent
    vocabulary = _read_vocabulary(folder)
    tensors = read_weights(weights)
    config = _read_config(folder, tensors)
    if len(vocabulary) != config.vocab_size:
        sizes = f"{len(vocabulary):,} tokens, the network {config.vocab_size:,}"
        msg = f"The vocabulary beside {weights.name} has {sizes}."
        raise VocabularyError(msg, "Use the vocabulary file that came with these weights.")
    model = _empty_model(config)
    _check_tensors(tensors, model.state_dict(), weights.name)
    model.load_state_dict(tensors)
    model.vocabulary = vocabulary
    model.sha256 = file_sha256(weights)
    entropy = _read_entropy(folder, config)
    if entropy is not None:
        model.tokenizer = Tokenizer(entropy.numpy(), config.max_genes)
        model.has_entropy = True
    model.labels = _read_labels(folder, config)
    model.card = read_card(folder)
    model.card_text = read_card_text(folder)
    return model.eval()


def save_pretrained(model: ScDiVaModel, directory: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a checkpoint folder that `load_pretrained` reads back.

    Parameters
    ----------
    model
        A model with its vocabulary set.
    directory
        Made when absent; files of the same name are replaced, each in one step.
    dtype
        Type of the stored weights; float16 halves the file.

    Raises
    ------
    VocabularyError
        The model has no vocabulary, so that nobody could use the file.
    """
    if model.vocabulary is None:
        msg = "This model has no vocabulary, and weights without one cannot be used."
        raise VocabularyError(msg, "Set model.vocabulary to a GeneVocabulary before saving.")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        stage = Path(temporary)
        model.config.to_file(stage / "config.json")
        model.vocabulary.to_file(stage / "vocab.json")
        if model.has_entropy:
            save_file({"entropy": torch.from_numpy(model.tokenizer.entropy)}, stage / "serialization.safetensors")
        if model.labels is not None:
            content = json.dumps(asdict(model.labels), indent=1)
            (stage / "labels.json").write_text(content + "\n", encoding="utf-8")
        if model.card:
            (stage / "card.json").write_text(json.dumps(model.card, indent=2) + "\n", encoding="utf-8")
        tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
        save_file(tensors, stage / "model.safetensors")
        written = {file.name for file in stage.iterdir()}
        for file in sorted(stage.iterdir(), key=lambda path: path.name == "model.safetensors"):
            os.replace(file, folder / file.name)
        for name in ("serialization.safetensors", "labels.json", "card.json", *MADE_FROM_WEIGHTS):
            if name not in written:  # of another checkpoint that was here
                (folder / name).unlink(missing_ok=True)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file, unwrapped and without ``module.`` prefixes.

    Raises
    ------
    CheckpointError
        The file is truncated, holds code, or holds something other than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen kinds for a broken file
        msg = f"{path.name} ({path.stat().st_size:,} bytes) cannot be read as weights: {_first_line(error)}"
        hint = "It may be truncated, or hold pickled code, which is never run. Download it again."
        raise CheckpointError(msg, hint) from error
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        msg = f"{path.name} holds no table of tensors."
        raise CheckpointError(msg, "Expected a state dict, or one under 'state_dict' or 'model_state_dict'.")
    return {_without_prefix(str(name)): tensor for name, tensor in content.items()}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(folder: Path) -> dict[str, Any]:
    """Read ``card.json`` of a checkpoint; empty when there is none or it is not a JSON object."""
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def find_weights(source: str | Path) -> Path:
    """Return the weights file of a checkpoint; one on the hub is fetched.

    Parameters
    ----------
    source
        As `load_pretrained` takes it.

    Raises
    ------
    CheckpointError
        There is no checkpoint, or a folder without weights.
    HubError
        The hub cannot be reached or lacks the checkpoint.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
        others = sorted(path.glob("*.safetensors"))
        others = [other for other in others if other.name not in COMPANION_FILES]
        if found is None and len(others) == 1:
            found = others[0]
        if found is None:
            msg = f"The folder {path} holds no weights."
            raise CheckpointError(msg, f"Expected one of {', '.join(WEIGHT_FILES)} there.")
        return found
    if path.is_file():
        return path
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return find_weights(download_checkpoint(source))
    msg = f"There is no checkpoint at {source}."
    raise CheckpointError(msg, "Give a folder, a weights file, or a hub id such as 'owner/name'.")


class _Undrawn(TorchFunctionMode):
    """Leaves new parameters as they lie in memory.

    The device "meta" would do so too, but has torch load its compiler, which takes longer than all the rest.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


def _empty_model(config: ScDiVaConfig) -> ScDiVaModel:
    """Build a network without drawing its weights: half of the time to load a full-size one."""
    with _Undrawn():
        return ScDiVaModel(config)


def _read_vocabulary(folder: Path) -> GeneVocabulary:
    for name in VOCABULARY_FILES:
        if (folder / name).is_file():
            return GeneVocabulary.from_file(folder / name)
    msg = f"The vocabulary is missing: none of {', '.join(VOCABULARY_FILES)} lies in {folder}."
    raise VocabularyError(msg, "Without it no token can be tied to a gene. Put the checkpoint's own file there.")


def _read_config(folder: Path, tensors: Mapping[str, Tensor]) -> ScDiVaConfig:
    """Read ``config.json``; what it leaves out is taken from the tensors' shapes."""
    values = _shapes_as_config(tensors)
    path = folder / "config.json"
    if path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            msg = f"{path.name} is not valid JSON: {_first_line(error)}"
            raise CheckpointError(msg, "Restore the checkpoint's own config.json.") from error
        if not isinstance(stored, dict):
            msg = f"{path.name} is not a JSON object."
            raise CheckpointError(msg, "Restore the checkpoint's own config.json.")
        return _checked_config(ScDiVaConfig.from_dict(values | stored), values)
    return ScDiVaConfig.from_dict(values)


def _checked_config(config: ScDiVaConfig, shapes: Mapping[str, Any]) -> ScDiVaConfig:
    """Refuse sizes that the tensors contradict, before a network of such sizes is built."""
    hint = "Use the config.json that belongs to these weights."
    for name, size in shapes.items():
        if name != "heads" and getattr(config, name) != size:
            msg = f"{name} is {getattr(config, name)!r} in config.json, but {size} in the weights."
            raise CheckpointError(msg, hint)
    absent = [head for head in config.heads if head not in shapes["heads"]]
    if absent:
        msg = f"config.json names heads that the weights lack: {', '.join(absent)}."
        raise CheckpointError(msg, hint)
    return config


def _shapes_as_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    sizes = {
        "vocab_size": ("gene_embedding.weight", 0),
        "hidden_size": ("gene_embedding.weight", 1),
        "intermediate_size": ("layers.0.mlp.gate_proj.weight", 0),
        "value_head_size": ("value_head.0.weight", 0),
        "latent_dim": ("heads.latent.mu.weight", 0),
        "num_cell_types": ("heads.annotation.out.weight", 0),
        "num_batches": ("heads.batch_discriminator.classifier.out.weight", 0),
    }
    values: dict[str, Any] = {
        name: tensors[key].shape[axis]
        for name, (key, axis) in sizes.items()
        if key in tensors and tensors[key].ndim == 2
    }
    if any(name.startswith("heads.latent.") for name in tensors):
        reads_tokens = "heads.latent.gene_vectors.weight" in tensors
        values["latent_pooling"] = "anchor+tokens" if reads_tokens else "anchor"
    layers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    if layers:
        values["num_layers"] = len(layers)
    values["heads"] = sorted({name.split(".")[1] for name in tensors if name.startswith("heads.")})
    return values


def _check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: str) -> None:
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not part of the network" for name in found if name not in expected]
    problems += [
        f"{name} is {list(found[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    problems += [
        f"{name} holds NaN or infinite values"
        for name, tensor in found.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if problems:
        rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        msg = f"{file} does not fit the network: {'; '.join(problems[:3])}{rest}."
        raise CheckpointError(msg, "Use weights of this architecture, with the config.json that belongs to them.")


def _read_entropy(folder: Path, config: ScDiVaConfig) -> Tensor | None:
    path = folder / "serialization.safetensors"
    if not path.is_file():
        return None
    try:
        entropy = load_file(path)["entropy"]
    except (SafetensorError, KeyError, OSError) as error:
        msg = f"{path.name} cannot be read: {_first_line(error)}"
        raise CheckpointError(
            msg, "Restore the checkpoint's own file, or remove it to use the data set's own."
        ) from error
    if entropy.shape != (config.vocab_size,):
        msg = f"{path.name} has entropies of shape {list(entropy.shape)}, expected [{config.vocab_size}]."
        raise CheckpointError(msg, "Restore the checkpoint's own file.")
    return entropy.float()


def _read_labels(folder: Path, config: ScDiVaConfig) -> CellLabels | None:
    path = folder / "labels.json"
    if "annotation" not in config.heads or not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        labels = CellLabels(tuple(stored["ids"]), tuple(stored["names"]), float(stored["temperature"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path.name} cannot be read: {_first_line(error)}"
        raise CheckpointError(msg, "Restore the checkpoint's own file.") from error
    if not len(labels.ids) == len(labels.names) == config.num_cell_types:
        found = f"{len(labels.ids)} ids and {len(labels.names)} names"
        msg = f"{path.name} has {found} of cell types, but the annotation head {config.num_cell_types} outputs."
        raise CheckpointError(msg, "Restore the checkpoint's own file.")
    if not 0 < labels.temperature < math.inf:
        msg = f"{path.name} has the temperature {labels.temperature}, which is no positive number."
        raise CheckpointError(msg, "Restore the checkpoint's own file.")
    return labels


def _without_prefix(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
