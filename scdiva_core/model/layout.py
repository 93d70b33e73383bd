"""File names of a checkpoint folder, in the order in which they are looked for."""

from __future__ import annotations

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "model.bin", "model.pt", "model.pth")
VOCABULARY_FILES = ("vocab.json", "vocab.txt", "gene_vocab.csv")
COMPANION_FILES = (
    "config.json",
    "serialization.safetensors",
    "labels.json",
    "card.json",
    "README.md",
    "evaluation.json",
    "profiles.safetensors",
    "reference.safetensors",
    "markers.tsv",
)
"""Of ours; a checkpoint may lack any of them."""

MADE_FROM_WEIGHTS = ("profiles.safetensors", "reference.safetensors", "markers.tsv")
"""Companions that are worth nothing beside other weights."""
