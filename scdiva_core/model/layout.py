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
)
