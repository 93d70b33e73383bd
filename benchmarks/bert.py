"""``transformers.BertModel`` of the size of our network, as a rival in the embedding tables."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch

from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.model.config import ScDiVaConfig

MISSING = "transformers.BertModel is left out: install benchmarks/requirements.txt."

Encode = Callable[[TokenBatch], torch.Tensor]


def bert_model(config: ScDiVaConfig) -> torch.nn.Module | None:
    """Make a BertModel with random weights; None where transformers is not installed.

    Parameters
    ----------
    config
        Our network. Vocabulary, depth, width and heads are taken over; its gated feed-forward layer has three matrices
        to BERT's two, so BERT's is half as wide again, and the layers' matrices hold equally many weights.
    """
    if find_spec("transformers") is None:
        return None
    # By name: it is not among what is installed to run or to test.
    transformers = import_module("transformers")
    settings = transformers.BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.intermediate_size * 3 // 2,
        max_position_embeddings=config.max_genes + 1,
        pad_token_id=config.pad_id,
        attn_implementation="sdpa",
    )
    return transformers.BertModel(settings, add_pooling_layer=False).eval()


def bert_encoder(config: ScDiVaConfig, device: torch.device) -> Encode | None:
    """Make the function that encodes with a `bert_model`; None where transformers is not installed.

    Parameters
    ----------
    config
        Our network.
    device
        Where it computes.

    Returns
    -------
    callable or None
        Token rows ``[B, L]`` to float32 ``[B, hidden]``, the state of a token put before them as our anchor is. It
        reads the gene ids; it has no place for values.
    """
    bert = bert_model(config)
    if bert is None:
        return None
    bert.to(device)

    def encode(batch: TokenBatch) -> torch.Tensor:
        batch = batch.to(device)
        ids = torch.nn.functional.pad(batch.gene_ids, (1, 0), value=config.mask_id)
        attended = (ids != config.pad_id).long()
        return bert(input_ids=ids, attention_mask=attended).last_hidden_state[:, 0]

    return encode
