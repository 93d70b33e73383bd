"""The embedding's tables on tiny networks: every rival has its row, and what is missing is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from benchmarks import embedding
from benchmarks.bert import MISSING, bert_model
from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel

CPU = torch.device("cpu")
TINY = replace(embedding.SMALL, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, max_genes=40)


def rows_of(table: str) -> list[list[str]]:
    """Cells of a Markdown table's body."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def rival(config: ScDiVaConfig, device: torch.device) -> Callable[[TokenBatch], torch.Tensor]:
    """Another network in BertModel's place, so that its rows are tested where transformers is not installed."""
    model = ScDiVaModel(config).eval().to(device)

    def encode(batch: TokenBatch) -> torch.Tensor:
        assert batch.gene_ids.shape[1] == config.max_genes, "padded to the greatest length"
        return model.encode(batch)["latent"]

    return encode


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """Networks that are to be compiled run as they are: compiling takes seconds each, and is tested elsewhere."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("with_bert", [False, True])
def test_gemm_table_shares_the_rate_of_a_matrix_product(monkeypatch: pytest.MonkeyPatch, with_bert: bool) -> None:
    monkeypatch.setattr(embedding, "bert_encoder", rival if with_bert else lambda *_: None)
    table = embedding.gemm_table(TINY, CPU, product=64, turns=1)
    rows = rows_of(table)
    names = ["matrix product, 64 x 64, float32 (reference)", "this network, float32", "this network, float32, compiled"]
    assert [row[0] for row in rows] == names + ["transformers.BertModel of equal size, float32"] * with_bert
    assert [row[1] == "" for row in rows] == [True] + [False] * (len(rows) - 1)
    assert rows[0][3] == "1.00"
    assert all(number(cells) > 0 for _, cells, *_ in rows[1:])
    assert (MISSING in table) is not with_bert
    assert "rows of 40 genes, 1 layers, hidden 16, CPU" in table


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("with_bert", [False, True])
def test_bucket_table_has_a_row_for_each_way_and_network(monkeypatch: pytest.MonkeyPatch, with_bert: bool) -> None:
    monkeypatch.setattr(embedding, "bert_encoder", rival if with_bert else lambda *_: None)
    cases = [embedding.Case(name, TINY, 12, 1) for name in ("one", "two")]
    table = embedding.bucket_table(cases, CPU)
    rows, ways = rows_of(table), 4 if with_bert else 3
    assert [row[0] for row in rows] == ["one"] * ways + ["two"] * ways
    ours = ["length buckets (this project)", "length buckets, compiled"]
    assert [row[1] for row in rows[:3]] == ["padded, float32 (reference)", *ours]
    assert {row[2] for row in rows} == {"12"}
    for row in rows:
        reference = next(other for other in rows if other[0] == row[0])
        assert number(row[4]) == pytest.approx(number(row[3]) / number(reference[3]), rel=0.02, abs=0.01)
    assert (MISSING in table) is not with_bert


def test_padding_reaches_the_greatest_length_and_changes_no_vector() -> None:
    model = ScDiVaModel(TINY).eval()
    expression, gene_ids = embedding._demo_cells(6)
    rows = model.tokenizer.serialize(*short(expression), gene_ids)
    wide, tight = embedding._wide(rows, range(6), TINY), rows.batch(slice(None), pad_id=TINY.pad_id)
    assert wide.gene_ids.shape == (6, 40)
    assert tight.gene_ids.shape[1] == 9
    with torch.inference_mode():
        torch.testing.assert_close(model.encode(wide)["latent"], model.encode(tight)["latent"], rtol=1e-4, atol=1e-5)


def short(expression) -> tuple:
    """Nine genes of each cell, as a CSR matrix's three arrays."""
    starts = expression.indptr[:-1]
    taken = (starts[:, None] + range(9)).ravel()
    return range(0, 9 * len(starts) + 1, 9), expression.indices[taken], expression.data[taken]


def test_operations_are_those_of_the_matrix_products() -> None:
    config = ScDiVaConfig(
        vocab_size=50,
        pad_fill_id=47,
        bos_id=48,
        eos_id=49,
        hidden_size=4,
        num_layers=2,
        num_heads=1,
        intermediate_size=8,
        heads=(),
    )
    layer = 11 * 2 * (4 * 4 * 4 + 3 * 4 * 8) + 2 * 2 * 11 * 11 * 4
    assert embedding.flops_per_cell(config, 10) == 2 * layer + 10 * 2 * 2 * 4 * 4


def test_bert_is_of_equal_size_where_it_is_installed() -> None:
    bert = bert_model(TINY)
    assert (bert is not None) is (find_spec("transformers") is not None)
    if bert is not None:
        own = [each.numel() for layer in ScDiVaModel(TINY).layers for each in layer.parameters() if each.ndim == 2]
        assert sum(own) == sum(each.numel() for each in bert.encoder.parameters() if each.ndim == 2)
