"""Checkpoints with heads of ours: what the latent reads, and what the annotation head's outputs mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import CheckpointError
from scdiva_core.model.checkpoint import load_pretrained, save_pretrained
from scdiva_core.model.network import CellLabels, ScDiVaModel

HEADS = ("latent", "annotation", "batch_integration")
LABELS = CellLabels(
    ("CL:0000236", "CL:0000451", "CL:0000623", "CL:0000625", "CL:0000860", "CL:0000875"),
    ("B cell", "dendritic cell", "NK", "CD8 T", "classical monocyte", "non-classical monocyte"),
    1.25,
)


def vocabulary(size: int = 60) -> GeneVocabulary:
    return GeneVocabulary(["<pad>", "<mask>", "<pad_fill>", "<bos>", "<eos>", *(f"GENE{i}" for i in range(size - 5))])


@pytest.fixture
def model(tiny_model: Callable[..., ScDiVaModel]) -> ScDiVaModel:
    made = tiny_model(heads=HEADS, latent_pooling="anchor+tokens")
    made.vocabulary, made.labels = vocabulary(), LABELS
    return made


@pytest.fixture
def folder(model: ScDiVaModel, tmp_path: Path) -> Path:
    save_pretrained(model, tmp_path / "saved")
    return tmp_path / "saved"


def reconfigure(folder: Path, **changes: Any) -> None:
    """Change ``config.json``; None leaves a key out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_labels_are_given_back(folder: Path) -> None:
    assert load_pretrained(folder).labels == LABELS
    assert json.loads((folder / "labels.json").read_text()) == json.loads(json.dumps(asdict(LABELS)))


def test_saving_over_a_checkpoint_with_labels_keeps_none_of_them(model: ScDiVaModel, folder: Path) -> None:
    model.labels = None
    save_pretrained(model, folder)
    assert not (folder / "labels.json").exists()
    assert load_pretrained(folder).labels is None


def test_a_checkpoint_need_not_name_its_outputs(folder: Path) -> None:
    (folder / "labels.json").unlink()
    assert load_pretrained(folder).labels is None


def test_labels_without_an_annotation_head_are_not_read(
    tiny_model: Callable[..., ScDiVaModel], folder: Path, tmp_path: Path
) -> None:
    plain = tiny_model(heads=("latent",))
    plain.vocabulary = vocabulary()
    save_pretrained(plain, tmp_path / "plain")
    (tmp_path / "plain" / "labels.json").write_bytes((folder / "labels.json").read_bytes())
    assert load_pretrained(tmp_path / "plain").labels is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"names"', "null", "{}", '{"ids": 5, "names": 5, "temperature": 1}', "\N{BOMB}\x00"]
)
def test_labels_that_cannot_be_read(folder: Path, text: str) -> None:
    (folder / "labels.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"labels\.json cannot be read") as caught:
        load_pretrained(folder)
    assert "own file" in caught.value.hint


def test_labels_that_are_no_text(folder: Path) -> None:
    (folder / "labels.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(CheckpointError, match=r"labels\.json cannot be read"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": LABELS.ids[:5]}, "5 ids and 6 names of cell types, but the annotation head 6 outputs"),
        ({"names": (*LABELS.names, "one more")}, "6 ids and 7 names of cell types"),
        ({"ids": LABELS.ids[:5], "names": LABELS.names[:5]}, "5 ids and 5 names"),
        ({"temperature": 0}, r"the temperature 0\.0, which is no positive number"),
        ({"temperature": -1.5}, r"the temperature -1\.5"),
        ({"temperature": float("nan")}, "the temperature nan"),
        ({"temperature": float("inf")}, "the temperature inf"),
        ({"temperature": "warm"}, "could not convert string to float"),
        ({"temperature": None}, "cannot be read"),
    ],
)
def test_labels_that_do_not_fit_the_head(folder: Path, changes: dict[str, Any], message: str) -> None:
    (folder / "labels.json").write_text(json.dumps(asdict(LABELS) | changes))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_pretrained(folder)
    assert "labels.json" in caught.value.message


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["anchor", "anchor+tokens"])
def test_what_the_latent_reads_survives(
    tiny_model: Callable[..., ScDiVaModel], token_batch: Callable, tmp_path: Path, pooling: str
) -> None:
    model, batch = tiny_model(heads=HEADS, latent_pooling=pooling), token_batch(9, 5)
    for buffer in model.heads.buffers():
        buffer.add_(0.5)
    model.vocabulary = vocabulary()
    save_pretrained(model, tmp_path)
    loaded = load_pretrained(tmp_path)
    assert loaded.config.latent_pooling == pooling
    assert torch.equal(loaded.encode(batch)["mu"], model.encode(batch)["mu"])
    reconfigure(tmp_path, latent_pooling=None, latent_dim=None, num_cell_types=None)
    assert load_pretrained(tmp_path).config == model.config, "taken from the shapes"


@pytest.mark.parametrize(("pooling", "width"), [("anchor", 32), ("anchor+tokens", 96)])
def test_without_config_sizes_and_pooling_are_those_of_the_shapes(
    tiny_model: Callable[..., ScDiVaModel], tmp_path: Path, pooling: str, width: int
) -> None:
    defaults = {"pad_fill_id": 41815, "bos_id": 41816, "eos_id": 41817, "num_heads": 8, "max_genes": 1200}
    model = tiny_model(41818, heads=("annotation", "latent"), latent_pooling=pooling, **defaults)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary(41818).tokens))
    (tmp_path / "labels.json").write_text(json.dumps(asdict(LABELS)))
    loaded = load_pretrained(tmp_path)
    assert loaded.heads["latent"].mu.weight.shape == (8, width)
    found = loaded.config
    assert (found.latent_pooling, found.latent_dim, found.num_cell_types) == (pooling, 8, 6)
    assert found.heads == ("annotation", "latent")
    assert loaded.labels == LABELS


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ("anchor", r"latent_pooling is 'anchor' in config\.json, but anchor\+tokens in the weights"),
        ("mean", r"latent_pooling is 'mean'"),
        (["anchor"], r"latent_pooling is \['anchor'\]"),
    ],
)
def test_a_pooling_that_the_weights_contradict_is_refused(folder: Path, pooling: Any, message: str) -> None:
    reconfigure(folder, latent_pooling=pooling)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(folder)


def test_tokens_that_the_weights_do_not_read_are_refused(
    tiny_model: Callable[..., ScDiVaModel], tmp_path: Path
) -> None:
    model = tiny_model(heads=("latent",))
    model.vocabulary = vocabulary()
    save_pretrained(model, tmp_path)
    reconfigure(tmp_path, latent_pooling="anchor+tokens")
    with pytest.raises(CheckpointError, match=r"latent_pooling is 'anchor\+tokens' in config\.json, but anchor in"):
        load_pretrained(tmp_path)


def test_a_latent_head_of_neither_width_is_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["heads.latent.mu.weight"] = state["heads.latent.mu.weight"][:, :40].clone()
    save_file(state, folder / "model.safetensors")
    reconfigure(folder, latent_pooling=None)
    with pytest.raises(CheckpointError, match=r"heads\.latent\.mu\.weight is \[8, 40\], expected \[8, 96\]"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("gene_vectors.weight", r"heads\.latent\.center is not part of the network"),
        ("center", r"heads\.latent\.center is missing"),
        ("scale", r"heads\.latent\.scale is missing"),
        ("mu.bias", r"heads\.latent\.mu\.bias is missing"),
    ],
)
def test_a_latent_head_that_lacks_a_part_is_refused(folder: Path, absent: str, message: str) -> None:
    state = load_file(folder / "model.safetensors")
    del state[f"heads.latent.{absent}"]
    save_file(state, folder / "model.safetensors")
    reconfigure(folder, latent_pooling=None)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(folder)
