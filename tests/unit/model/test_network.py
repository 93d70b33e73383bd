"""The denoiser beyond its golden values: what leaks, what does not matter, and the model card's calls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from scdiva_core.data.tokenizer import TokenBatch, Tokenizer
from scdiva_core.errors import CheckpointError, DataError
from scdiva_core.model.network import ScDiVaModel

Make = Callable[..., ScDiVaModel]
Draw = Callable[..., TokenBatch]


@pytest.fixture
def masked_case(token_batch: Draw) -> tuple[TokenBatch, torch.Tensor, TokenBatch]:
    """A batch, a mask, and the same batch with other genes and values under the mask."""
    batch = token_batch(12, 9)
    mask = torch.zeros(2, 12, dtype=torch.bool)
    mask[:, [1, 4, 7]] = True
    ids, values = batch.gene_ids.clone(), batch.values.clone()
    ids[mask] = torch.tensor([50, 51, 52, 53, 54, 55])
    values[mask] += 3.0
    return batch, mask, TokenBatch(ids, values, batch.lengths)


@torch.no_grad()
def test_visible_anchor_hides_what_lies_under_the_mask(tiny_model: Make, masked_case: tuple) -> None:
    model, (batch, mask, other) = tiny_model(), masked_case
    one = model(batch.gene_ids, batch.values, mask=mask, anchor_from="visible")
    two = model(other.gene_ids, other.values, mask=mask, anchor_from="visible")
    assert torch.equal(one.hidden, two.hidden)
    assert torch.equal(one.anchor, two.anchor)


@torch.no_grad()
def test_published_clean_anchor_leaks_what_lies_under_the_mask(tiny_model: Make, masked_case: tuple) -> None:
    model, (batch, mask, other) = tiny_model(), masked_case
    one = model(batch.gene_ids, batch.values, mask=mask)
    two = model(other.gene_ids, other.values, mask=mask)
    assert not torch.allclose(one.anchor, two.anchor, atol=1e-3)
    assert not torch.allclose(one.tokens, two.tokens, atol=1e-3), "the leak reaches the tokens"


@torch.no_grad()
def test_visible_tokens_still_matter_to_the_visible_anchor(tiny_model: Make, masked_case: tuple) -> None:
    model, (batch, mask, _) = tiny_model(), masked_case
    values = batch.values.clone()
    values[0, 0] += 3.0
    one = model(batch.gene_ids, batch.values, mask=mask, anchor_from="visible")
    two = model(batch.gene_ids, values, mask=mask, anchor_from="visible")
    assert not torch.allclose(one.anchor[0], two.anchor[0], atol=1e-3)
    assert torch.allclose(one.anchor[1], two.anchor[1])


@torch.no_grad()
def test_a_row_with_every_token_masked_is_finite(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(), token_batch(6)
    output = model(batch.gene_ids, batch.values, mask=torch.ones(1, 6, dtype=torch.bool), anchor_from="visible")
    assert torch.isfinite(output.hidden).all()


@torch.no_grad()
@pytest.mark.parametrize("pad_id", [0, 2], ids=["pad", "pad_fill"])
def test_more_padding_changes_nothing(tiny_model: Make, token_batch: Draw, pad_id: int) -> None:
    model, batch = tiny_model(), token_batch(10, 7)
    short = TokenBatch(batch.gene_ids[1:, :7], batch.values[1:, :7], batch.lengths[1:])
    ids = torch.nn.functional.pad(short.gene_ids, (0, 20), value=pad_id)
    values = torch.nn.functional.pad(short.values, (0, 20), value=5.0)  # what stands there is not read
    alone, padded = model(short.gene_ids, short.values), model(ids, values)
    torch.testing.assert_close(padded.hidden[:, :8], alone.hidden, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_other_cells_of_a_batch_change_nothing(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(), token_batch(10, 7, 1, 10)
    together = model.encode(batch)["latent"]
    for row, length in enumerate([10, 7, 1, 10]):
        alone = model.encode(
            TokenBatch(
                batch.gene_ids[row : row + 1, :length],
                batch.values[row : row + 1, :length],
                torch.tensor([length]),
            )
        )["latent"]
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["anchor", "anchor+tokens"])
@pytest.mark.parametrize("pad_id", [0, 2], ids=["pad", "pad_fill"])
def test_more_padding_leaves_the_latent_alone(tiny_model: Make, token_batch: Draw, pooling: str, pad_id: int) -> None:
    model, batch = tiny_model(heads=("latent",), latent_pooling=pooling), token_batch(7, 7)
    ids = torch.nn.functional.pad(batch.gene_ids, (0, 20), value=pad_id)
    values = torch.nn.functional.pad(batch.values, (0, 20), value=5.0)  # what stands there is not read
    alone, padded = model.encode(batch), model.encode(TokenBatch(ids, values, batch.lengths))
    for name in ("mu", "logvar"):
        torch.testing.assert_close(padded[name], alone[name], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone["mu"][0], alone["mu"][1], atol=1e-3)


@torch.no_grad()
def test_the_latent_reads_the_anchor_and_beside_it_the_tokens(tiny_model: Make, token_batch: Draw) -> None:
    batch = token_batch(9, 4)
    model = tiny_model(heads=("latent",))
    output, head = model(batch.gene_ids, batch.values), model.heads["latent"]
    torch.testing.assert_close(model.encode(batch)["mu"], head.mu(output.cells))
    model = tiny_model(heads=("latent",), latent_pooling="anchor+tokens")
    output, head = model(batch.gene_ids, batch.values), model.heads["latent"]
    means = torch.stack([output.tokens[0].mean(dim=0), output.tokens[1, :4].mean(dim=0)])
    expression = torch.zeros(2, 60).scatter_add_(1, batch.gene_ids, batch.values)
    state = torch.cat([output.cells, means, expression @ head.gene_vectors.weight], dim=1)
    torch.testing.assert_close(model.encode(batch)["mu"], head.mu(state))


@torch.no_grad()
@pytest.mark.parametrize(
    "changes", [{}, {"heads": ("latent",)}, {"heads": ("latent",), "latent_pooling": "anchor+tokens"}]
)
def test_a_masked_token_keeps_its_place_and_tells_nothing(tiny_model: Make, masked_case: tuple, changes: dict) -> None:
    model, (batch, mask, other) = tiny_model(**changes), masked_case
    one, two = model.encode(batch, mask)["latent"], model.encode(other, mask)["latent"]
    assert torch.equal(one, two)
    assert not torch.allclose(one, model.encode(batch)["latent"], atol=1e-3)
    kept = [[i for i in range(length) if not mask[row, i]] for row, length in enumerate((12, 9))]
    removed = TokenBatch(batch.gene_ids[:1, kept[0]], batch.values[:1, kept[0]], torch.tensor([9]))
    assert not torch.allclose(one[:1], model.encode(removed)["latent"], atol=1e-3), "ranks stay as they were"


@torch.no_grad()
def test_the_latent_reads_no_state_of_a_masked_token(tiny_model: Make, masked_case: tuple) -> None:
    model, (batch, mask, _) = tiny_model(heads=("latent",), latent_pooling="anchor+tokens"), masked_case
    output = model(batch.gene_ids, batch.values, mask=mask, anchor_from="visible")
    seen = ~mask
    seen[1, 9:] = False
    means = torch.stack([output.tokens[row, seen[row]].mean(dim=0) for row in range(2)])
    expression = torch.zeros(2, 60).scatter_add_(1, batch.gene_ids, batch.values * seen)
    state = torch.cat([output.cells, means, expression @ model.heads["latent"].gene_vectors.weight], dim=1)
    torch.testing.assert_close(model.encode(batch, mask)["mu"], model.heads["latent"].mu(state))


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"heads": ("latent",), "latent_pooling": "anchor+tokens"}])
def test_a_row_without_genes_is_embedded_without_nan(tiny_model: Make, changes: dict) -> None:
    empty = TokenBatch(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3), torch.tensor([0, 0]))
    latent = tiny_model(**changes).encode(empty)["latent"]
    assert torch.isfinite(latent).all()
    assert torch.equal(latent[0], latent[1])


@torch.no_grad()
def test_order_of_the_genes_matters_through_their_ranks_alone(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(), token_batch(10)
    back = torch.arange(9, -1, -1)
    forwards = model(batch.gene_ids, batch.values)
    backwards = model(batch.gene_ids[:, back], batch.values[:, back])
    torch.testing.assert_close(forwards.anchor, backwards.anchor)
    assert not torch.allclose(forwards.cells, backwards.cells, atol=1e-3)


@torch.no_grad()
def test_perturbed_cells_get_the_pert_vector_and_others_do_not(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(heads=("perturbation",)), token_batch(8, 8)
    plain = model(batch.gene_ids, batch.values)
    flagged = model(batch.gene_ids, batch.values, perturbed=torch.tensor([True, False]))
    torch.testing.assert_close(flagged.anchor[0] - plain.anchor[0], model.heads["perturbation"].pert)
    torch.testing.assert_close(flagged.hidden[1], plain.hidden[1])
    assert not torch.allclose(flagged.cells[0], plain.cells[0], atol=1e-3)


def test_perturbed_cells_need_the_head(tiny_model: Make, token_batch: Draw) -> None:
    batch = token_batch(4)
    with pytest.raises(CheckpointError, match=r"no perturbation head \(it has: none\)"):
        tiny_model()(batch.gene_ids, batch.values, perturbed=torch.tensor([True]))


def test_rows_longer_than_the_model_takes_are_refused(tiny_model: Make, token_batch: Draw) -> None:
    model = tiny_model(max_genes=10)
    assert model(*_pair(token_batch(10))).tokens.shape == (1, 10, 32)
    with pytest.raises(DataError, match="Rows of 11 genes, but this model takes at most 10") as caught:
        model(*_pair(token_batch(11)))
    assert "tokenizer" in caught.value.hint


def _pair(batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    return batch.gene_ids, batch.values


@pytest.fixture(scope="module")
def card_model(tiny_model: Make) -> ScDiVaModel:
    """Small in width, with the model card's output sizes."""
    heads = ("latent", "annotation", "batch_integration")
    return tiny_model(300, heads=heads, latent_dim=128, num_cell_types=100)


@torch.no_grad()
def test_quick_start_of_the_model_card(card_model: ScDiVaModel) -> None:
    cells = torch.randn(2, 300)
    embeddings = card_model.encode(cells)
    assert {name: list(x.shape) for name, x in embeddings.items()} == dict.fromkeys(
        ("latent", "mu", "logvar"), [2, 128]
    )
    assert torch.equal(embeddings["latent"], embeddings["mu"])
    assert list(card_model.predict(cells, task="annotation").shape) == [2, 100]
    assert list(card_model.predict(cells, task="batch_integration").shape) == [2, 300]
    assert torch.equal(card_model.predict(cells), card_model.predict(cells, "annotation"))


@torch.no_grad()
def test_dense_rows_are_serialised_by_value(card_model: ScDiVaModel) -> None:
    dense = torch.zeros(1, 300)
    dense[0, [10, 20, 30]] = torch.tensor([1.0, 3.0, 2.0])
    dense[0, 40] = -5.0  # not expressed
    dense[0, [0, 1, 2, 3, 4]] = 9.0  # reserved ids stand for no gene
    tokens = card_model.tokenize(dense)
    assert tokens.gene_ids.tolist() == [[20, 30, 10]]
    assert tokens.values.tolist() == [[3.0, 2.0, 1.0]]
    assert tokens.lengths.tolist() == [3]
    torch.testing.assert_close(card_model.encode(dense)["mu"], card_model.encode(tokens)["mu"])


def test_dense_rows_follow_the_checkpoint_s_entropies(tiny_model: Make) -> None:
    model = tiny_model()
    entropy = np.ones(60, np.float32)
    entropy[30] = 0.2
    model.tokenizer = Tokenizer(entropy, 2)
    dense = torch.zeros(1, 60)
    dense[0, [10, 20, 30]] = torch.tensor([3.0, 2.0, 1.0])
    assert model.tokenize(dense).gene_ids.tolist() == [[30, 10]], "1 / 0.2 = 5 outranks 3; the third is cut"


@torch.no_grad()
def test_negative_values_count_as_not_expressed(card_model: ScDiVaModel) -> None:
    dense = torch.randn(3, 300)
    torch.testing.assert_close(card_model.encode(dense)["mu"], card_model.encode(dense.clamp(min=0))["mu"])
    nothing = card_model.encode(-torch.rand(1, 300))["mu"]
    assert torch.isfinite(nothing).all()


def test_tokenising_leaves_the_caller_s_matrix_alone(card_model: ScDiVaModel) -> None:
    dense = torch.rand(2, 300)
    before = dense.clone()
    card_model.tokenize(dense)
    assert torch.equal(dense, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_counted_and_refused(card_model: ScDiVaModel, bad: float) -> None:
    dense = torch.rand(2, 300)
    dense[1, 3:5] = bad
    with pytest.raises(DataError, match="2 values are NaN or infinite"):
        card_model.encode(dense)


@pytest.mark.parametrize("shape", [(2, 299), (2, 1, 300), (300,)])
def test_a_dense_matrix_of_another_shape_is_refused(card_model: ScDiVaModel, shape: tuple) -> None:
    with pytest.raises(DataError, match=r"Expected a \[cells, 300\] matrix, found \[") as caught:
        card_model.encode(torch.rand(shape))
    assert str(shape[-1]) in caught.value.message


def test_unknown_task_is_refused(card_model: ScDiVaModel) -> None:
    with pytest.raises(CheckpointError, match="Unknown task 'latent'") as caught:
        card_model.predict(torch.rand(1, 300), task="latent")
    assert "annotation" in caught.value.hint


def test_a_task_without_its_head_is_refused(tiny_model: Make) -> None:
    with pytest.raises(CheckpointError, match=r"no annotation head \(it has: latent\)"):
        tiny_model(heads=("latent",)).predict(torch.rand(1, 60), task="annotation")


@torch.no_grad()
def test_without_latent_head_the_anchor_state_is_the_latent(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(), token_batch(5, 5)
    found = model.encode(batch)
    torch.testing.assert_close(found["latent"], model(batch.gene_ids, batch.values).cells)
    assert torch.equal(found["logvar"], torch.zeros(2, 32))


def test_dropout_is_off_in_evaluation(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(dropout=0.5), token_batch(9)
    one, two = (model(batch.gene_ids, batch.values).hidden for _ in range(2))
    assert torch.equal(one, two)
    model.train()
    one, two = (model(batch.gene_ids, batch.values).hidden for _ in range(2))
    assert not torch.allclose(one, two)


def test_padding_row_of_a_new_network_is_zero(tiny_config: Callable) -> None:
    model = ScDiVaModel(tiny_config())
    assert not model.gene_embedding.weight[0].any()
    assert model.gene_embedding.weight[1:].any(dim=1).all()
    assert model.sha256 is None
