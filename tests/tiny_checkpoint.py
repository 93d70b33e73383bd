"""A very small checkpoint with the genes of the demo data, untrained and saying so."""

from __future__ import annotations

from pathlib import Path

import h5py
import torch

from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.model.checkpoint import save_pretrained
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel

_DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo" / "tenx_pbmc3k.h5ad"


def write_tiny_checkpoint(folder: Path, *, provisional: bool = True, random_weights: bool = False) -> Path:
    """Save a two-layer network over the genes of PBMC 3k; about a second.

    Parameters
    ----------
    folder
        Where to; made when absent.
    provisional, random_weights
        What its card says of it.
    """
    with h5py.File(_DEMO) as file:
        genes = file["var"][file["var"].attrs["_index"]].asstr()[:]
    tokens = ["<pad>", "<mask>", *genes, "<pad_fill>", "<bos>", "<eos>"]
    n = len(tokens)
    config = ScDiVaConfig(
        vocab_size=n,
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        intermediate_size=32,
        value_head_size=8,
        max_genes=48,
        pad_fill_id=n - 3,
        bos_id=n - 2,
        eos_id=n - 1,
        heads=("latent",),
        latent_dim=16,
    )
    torch.manual_seed(0)
    model = ScDiVaModel(config)
    model.vocabulary = GeneVocabulary(tokens)
    model.card = {
        "name": "tiny test model",
        "description": "One layer, untrained.",
        "provisional": provisional,
        "random_weights": random_weights,
        "training": {"datasets": [{"name": "none", "cells": 0, "source": "-"}], "seed": 0},
    }
    save_pretrained(model, folder)
    return folder
