"""What a configuration accepts, and the spellings it reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scdiva_core.errors import CheckpointError
from scdiva_core.model.config import ScDiVaConfig

PUBLISHED_CAPITALS = {
    "VOCAB_SIZE": 61,
    "HIDDEN_DIM": 32,
    "N_LAYERS": 2,
    "N_HEADS": 4,
    "D_HID": 64,
    "DROPOUT": 0.2,
    "MAX_GENE_LEN": 99,
    "ROPE_THETA": 5000.0,
    "PAD_TOKEN_ID": 3,
    "MASK_TOKEN_ID": 4,
    "PAD_FILL_GENE_ID": 58,
    "BOS_GENE_ID": 59,
    "EOS_GENE_ID": 60,
}


def test_defaults_are_the_published_model() -> None:
    config = ScDiVaConfig()
    sizes = (config.vocab_size, config.hidden_size, config.num_layers, config.num_heads)
    assert sizes == (41818, 512, 12, 8)
    assert (config.intermediate_size, config.max_genes, config.latent_dim, config.num_cell_types) == (
        2048,
        1200,
        128,
        100,
    )
    assert config.reserved_ids == (0, 1, 41815, 41816, 41817)
    assert config.padding_ids == (0, 41815)
    assert config.latent_pooling == "anchor"


def test_file_gives_back_what_was_written(tmp_path: Path, tiny_config: Callable) -> None:
    config = tiny_config(heads=("latent", "annotation"), dropout=0.25, latent_pooling="anchor+tokens")
    config.to_file(tmp_path / "config.json")
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["model_type"] == "scdiva"
    assert ScDiVaConfig.from_dict(stored) == config


def test_published_capitals_are_read() -> None:
    config = ScDiVaConfig.from_dict({**PUBLISHED_CAPITALS, "heads": []})
    assert (config.vocab_size, config.hidden_size, config.num_layers, config.num_heads) == (61, 32, 2, 4)
    assert (config.intermediate_size, config.max_genes, config.rope_theta) == (64, 99, 5000.0)
    assert config.dropout == 0.2
    assert config.reserved_ids == (3, 4, 58, 59, 60)


def test_published_transformers_spelling_is_read() -> None:
    config = ScDiVaConfig.from_dict(
        {
            "num_genes": 41900,
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "hidden_dropout_prob": 0.0,
            "max_position_embeddings": 500,
            "architectures": ["ScDiVaModel"],
        }
    )
    assert (config.vocab_size, config.num_layers, config.num_heads, config.max_genes) == (41900, 3, 2, 500)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers must be a positive whole number, found 0"),
        ({"hidden_size": 32.0}, "hidden_size must be a positive whole number, found 32.0"),
        ({"vocab_size": "60"}, "vocab_size must be a positive whole number, found '60'"),
        ({"hidden_size": 36, "num_heads": 8}, "36 hidden units do not split into 8 heads"),
        ({"hidden_size": 36, "num_heads": 4}, "36 hidden units do not split into 4 heads of even width"),
        ({"heads": ("latent", "oracle")}, r"unknown heads \['oracle'\]"),
        ({"heads": ("annotation",)}, r"heads \['annotation'\] read the latent"),
        ({"pad_fill_id": 60}, "pad_fill_id is 60, but there are 60 token ids"),
        ({"mask_id": -1}, "mask_id is -1, but there are 60 token ids"),
        ({"eos_id": None}, "eos_id is None"),
        ({"latent_pooling": "mean"}, r"latent_pooling is 'mean'\. Choose one of: anchor, anchor\+tokens"),
        ({"latent_pooling": "anchor+mean"}, r"latent_pooling is 'anchor\+mean'"),
        ({"latent_pooling": None}, "latent_pooling is None"),
    ],
)
def test_what_no_network_can_be_is_refused(tiny_config: Callable, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        tiny_config(**changes)


@pytest.mark.parametrize("values", [{"num_heads": [8]}, {"heads": 3}, {"hidden_size": None}])
def test_values_of_the_wrong_kind_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="config"):
        ScDiVaConfig.from_dict(values)


def test_a_row_longer_than_any_genome_is_refused() -> None:
    with pytest.raises(CheckpointError, match="max_genes is 1,000,000,000"):
        ScDiVaConfig(max_genes=1_000_000_000)
