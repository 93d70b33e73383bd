"""Golden values of the published architecture, computed by the authors' own code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.diffusion.corruption import Corruption
from scdiva_core.diffusion.objective import denoising_loss
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel

TOLERANCE = 1e-4
SMALL = ScDiVaConfig(
    vocab_size=61,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=64,
    value_head_size=512,
    pad_fill_id=58,
    bos_id=59,
    eos_id=60,
    heads=(),
)

Golden = dict[str, Tensor]


@pytest.fixture(scope="module")
def golden(reference_root: Path) -> Golden:
    return load_file(reference_root / "parity" / "small.safetensors")


@pytest.fixture(scope="module")
def small(golden: Golden) -> ScDiVaModel:
    model = ScDiVaModel(SMALL)
    prefix = "weights."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)})
    return model.eval()


@pytest.fixture(scope="module")
def layout(reference_root: Path) -> dict:
    return json.loads((reference_root / "parity" / "layout.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full() -> Iterator[ScDiVaModel]:
    """Full size, with the weights of the reference's formula."""
    model = ScDiVaModel(ScDiVaConfig(heads=()))
    ones = ("norm1.weight", "norm2.weight", "final_norm.weight", "latent_encoder.mlp.1.weight")
    with torch.no_grad():
        state = model.state_dict()
        for i, name in enumerate(sorted(state)):
            drawn = np.random.RandomState(i).standard_normal(state[name].numel())
            values = torch.from_numpy((0.05 * drawn).astype(np.float32)).view(state[name].shape)
            state[name].copy_(values + 1 if name.endswith(ones) else values)
    return model.eval()


def difference(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return (found.double() - expected.double()).abs().max().item()


@pytest.mark.parametrize("case", ["masked", "unmasked"])
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "autograd"])
def test_small_network_gives_the_published_numbers(small: ScDiVaModel, golden: Golden, case: str, grad: bool) -> None:
    mask = golden["input.mask"].bool() if case == "masked" else None
    with torch.set_grad_enabled(grad):
        output = small(golden["input.gene_ids"], golden["input.values"], mask=mask)
        logits, values = small.gene_logits(output.tokens), small.gene_values(output.tokens)
    real = golden["input.gene_ids"] != SMALL.pad_id
    assert difference(output.cells, golden[f"{case}.hidden"][:, 0]) <= TOLERANCE
    assert difference(output.tokens[real], golden[f"{case}.hidden"][:, 1:][real]) <= TOLERANCE
    assert difference(logits[real], golden[f"{case}.gene_logits"][real]) <= TOLERANCE
    assert difference(values[real], golden[f"{case}.values"][real]) <= TOLERANCE
    assert difference(output.anchor, golden["anchor"]) <= TOLERANCE


def test_padding_positions_too_hold_the_published_numbers(small: ScDiVaModel, golden: Golden) -> None:
    output = small(golden["input.gene_ids"], golden["input.values"], mask=golden["input.mask"].bool())
    assert difference(output.hidden, golden["masked.hidden"]) <= TOLERANCE


def test_loss_over_the_masked_positions_is_the_published_one(small: ScDiVaModel, golden: Golden) -> None:
    mask = golden["input.mask"].bool()
    ids = golden["input.gene_ids"]
    batch = TokenBatch(ids, golden["input.values"], (ids != 0).sum(dim=1))
    loss = denoising_loss(small, batch, Corruption(mask, mask, torch.full((3,), 0.5)))
    assert difference(loss.identity, golden["loss.identity"]) <= TOLERANCE
    assert difference(loss.value, golden["loss.value"]) <= TOLERANCE
    assert difference(loss.total, golden["loss.total"]) <= TOLERANCE


def test_every_golden_output_depends_on_the_mask(golden: Golden) -> None:
    assert difference(golden["masked.hidden"], golden["unmasked.hidden"]) > 0.1


@pytest.mark.parametrize("case", ["masked", "unmasked"])
def test_attention_hook_sees_the_weights_and_changes_nothing(small: ScDiVaModel, golden: Golden, case: str) -> None:
    ids, values = golden["input.gene_ids"], golden["input.values"]
    mask = golden["input.mask"].bool() if case == "masked" else None
    seen: list[tuple[int, Tensor]] = []
    with torch.no_grad():
        watched = small(ids, values, mask=mask, on_attention=lambda i, w: seen.append((i, w)))
        fused = small(ids, values, mask=mask)
    assert difference(watched.hidden, fused.hidden) <= TOLERANCE
    assert difference(watched.hidden, golden[f"{case}.hidden"]) <= TOLERANCE
    assert [index for index, _ in seen] == [0, 1]
    for _, weights in seen:
        assert weights.shape == (3, 4, 18, 18)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 4, 18))
        assert (weights[1, :, :, 13:] == 0).all(), "the five padding keys of row 1"
        assert (weights[0] > 0).all()
        assert weights.std() > 0.005, "attention is not uniform"


def test_state_dict_has_the_published_names_and_shapes(full: ScDiVaModel, layout: dict) -> None:
    assert {name: list(tensor.shape) for name, tensor in full.state_dict().items()} == layout["state_dict"]


def test_parameters_are_as_many_as_published(full: ScDiVaModel, layout: dict) -> None:
    assert full.count_parameters() == layout["parameters"] == 94_482_433
    assert full.count_parameters(heads=True) == 94_482_433


def test_heads_of_ours_do_not_count_as_the_denoiser() -> None:
    model = ScDiVaModel(ScDiVaConfig(**{**vars(SMALL), "heads": ("latent", "perturbation")}))
    head = sum(p.numel() for p in model.heads.parameters())
    assert head > 0
    assert model.count_parameters(heads=True) == model.count_parameters() + head


def test_full_network_gives_the_published_numbers(full: ScDiVaModel, reference_root: Path) -> None:
    golden = load_file(reference_root / "parity" / "full.safetensors")
    with torch.inference_mode():
        output = full(golden["input.gene_ids"], golden["input.values"], mask=golden["input.mask"].bool())
        logits = full.gene_logits(output.tokens)
        values = full.gene_values(output.tokens)
    assert difference(output.hidden, golden["hidden"]) <= TOLERANCE
    assert difference(logits[..., :64], golden["gene_logits_first_64"]) <= TOLERANCE
    assert difference(logits.logsumexp(dim=-1), golden["gene_logits_logsumexp"]) <= TOLERANCE
    assert difference(values, golden["values"]) <= TOLERANCE
