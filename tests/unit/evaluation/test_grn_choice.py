"""Heads chosen on small sets of real cells: against a plain recount, and when the choice is all heads."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from scdiva_core.data.regulons import Regulons
from scdiva_core.errors import DataError
from scdiva_core.evaluation.grn_choice import (
    CELLS,
    CO_EXPRESSION,
    ChosenAttention,
    CorpusCells,
    choose_attention,
    read_corpus_cells,
)
from scdiva_core.model.attention_choice import ATTENTION_FILE, AttentionChoice
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.cell_sample import CellSample
from scdiva_core.tasks.grn_attention import accumulate, choose_block
from scdiva_core.tasks.grn_scores import attention_scores

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo"
SETS = (
    CorpusCells("B cells", "kang2018_pbmc_ifnb_3k", {"cell_type": "B", "condition": "CTRL"}),
    CorpusCells("monocytes", "kang2018_pbmc_ifnb_3k", {"cell_type": "CD14 Mono"}),
    CorpusCells("all blood", "kang2018_pbmc_ifnb_3k", {}),
)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ScDiVaModel:
    return ScDiVaModel.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def folder(model: ScDiVaModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kang's cells with the genes that the network knows."""
    cells = anndata.read_h5ad(DEMO / "kang2018_pbmc_ifnb_3k.h5ad")
    known = model.vocabulary.match(list(cells.var_names)).ids >= 0
    folder = tmp_path_factory.mktemp("corpus")
    cells[:, known].write_h5ad(folder / "kang2018_pbmc_ifnb_3k.h5ad")
    return folder


@pytest.fixture(scope="module")
def samples(model: ScDiVaModel, folder: Path) -> dict[str, CellSample]:
    return read_corpus_cells(model, folder, SETS, most_cells=120)


def reference(model: ScDiVaModel, sample: CellSample, way: AttentionChoice) -> Regulons:
    """The twenty pairs each of the twelve most read genes that a way of reading puts on top, as if they were known."""
    often = np.argsort(-np.diff(sample.tokens.indptr), kind="stable")[:12]
    block = choose_block(sample, [sample.symbols[i] for i in often])
    scores = attention_scores(accumulate(model, sample, block, heads=way.heads), way.direction)
    rows = [
        (sample.symbols[regulator], sample.symbols[block.targets[place]], 1)
        for regulator, row in zip(block.regulators, scores, strict=True)
        for place in np.argsort(np.nan_to_num(-row, nan=np.inf))[:20]
    ]
    return Regulons(pd.DataFrame(rows, columns=["regulator", "target", "sign"]))


@pytest.fixture(scope="module")
def known(model: ScDiVaModel, samples: dict[str, CellSample]) -> Regulons:
    return reference(model, samples["all blood"], AttentionChoice(((1, 2),), "from"))


@pytest.fixture(scope="module")
def chosen(model: ScDiVaModel, samples: dict[str, CellSample], known: Regulons) -> ChosenAttention:
    return choose_attention(model, samples, reference=known)


def test_cells_are_those_that_are_meant(folder: Path, model: ScDiVaModel, samples: dict[str, CellSample]) -> None:
    obs = anndata.read_h5ad(folder / "kang2018_pbmc_ifnb_3k.h5ad", backed="r").obs
    controls = obs.iloc[samples["B cells"].cells]
    assert set(controls["cell_type"]) == {"B"}
    assert set(controls["condition"]) == {"CTRL"}
    assert len(samples["all blood"]) == 120
    with pytest.raises(DataError, match="No cell of kang2018_pbmc_ifnb_3k has cell_type = Neuron"):
        read_corpus_cells(model, folder, [CorpusCells("none", SETS[0].file, {"cell_type": "Neuron"})])
    with pytest.raises(DataError, match="No cell of kang2018_pbmc_ifnb_3k has tissue = blood"):
        read_corpus_cells(model, folder, [CorpusCells("none", SETS[0].file, {"tissue": "blood"})])


def test_the_head_that_agrees_is_chosen(chosen: ChosenAttention) -> None:
    assert chosen.choice.heads == ((1, 2),)
    assert chosen.choice.direction == "from"
    assert not chosen.choice.centred
    assert chosen.choice.chosen_on == "B cells (94), monocytes (120), all blood (120)"
    best = chosen.table.iloc[0]
    assert (best["method"], best["heads"], best["direction"]) == ("attention", "1.2", "from")
    assert chosen.left_out["set"].tolist() == [each.title for each in SETS]
    assert (chosen.left_out["heads"] == "1.2").all()
    assert (chosen.left_out["chosen"] > chosen.left_out["all_heads"]).all()


def test_figures_are_those_of_a_plain_recount(
    model: ScDiVaModel, samples: dict[str, CellSample], known: Regulons, chosen: ChosenAttention
) -> None:
    sample = samples["monocytes"]
    block = choose_block(sample, known.regulators)
    sums = accumulate(model, sample, block, heads=[(0, 0), (0, 1), (0, 2), (0, 3)], folds=1)
    scores = attention_scores(sums, "to")
    pairs = set(zip(known.table["regulator"], known.table["target"], strict=True))
    names = np.array(sample.symbols)
    truth = np.array([[(r, t) in pairs for t in names[block.targets]] for r in names[block.regulators]])
    truth &= block.pairs()
    usable = block.pairs() & truth.any(axis=1, keepdims=True)
    density = truth[usable].mean()
    worst = np.nan_to_num(scores, nan=-9.0)
    table = chosen.table
    row = table[(table["heads"] == "0.0 0.1 0.2 0.3") & (table["direction"] == "to") & ~table["centred"]]
    assert row["monocytes"].item() == pytest.approx(
        average_precision_score(truth[usable], worst[usable]) / density, rel=1e-2
    )
    assert {CO_EXPRESSION, CELLS} <= set(table["method"])
    sets = [each.title for each in SETS]
    np.testing.assert_allclose(table[sets].mean(axis=1), table["mean"])


def test_all_heads_are_read_unless_something_is_better(model: ScDiVaModel, samples: dict[str, CellSample]) -> None:
    known = reference(model, samples["all blood"], AttentionChoice())
    found = choose_attention(model, samples, reference=known).choice
    assert (found.heads, found.direction, found.centred) == (None, "both", False)


def test_the_file_holds_the_choice_with_its_figures(chosen: ChosenAttention, tmp_path: Path) -> None:
    chosen.save(tmp_path, "abc")
    assert AttentionChoice.of(tmp_path, "abc") == chosen.choice
    figures = json.loads((tmp_path / ATTENTION_FILE).read_text())["figures"]
    assert len(figures["left_out"]) == 3
    kept = {(row["method"], row["heads"], row["direction"], row["centred"]) for row in figures["table"]}
    assert ("attention", "1.2", "from", False) in kept
    assert ("attention", "all", "both", False) in kept
    assert {(CO_EXPRESSION, "", "", False), (CELLS, "", "", False)} <= kept
    assert len(kept) < 13


def test_what_nothing_can_be_chosen_on_is_refused(
    model: ScDiVaModel, samples: dict[str, CellSample], known: Regulons
) -> None:
    with pytest.raises(DataError, match="1 sets of cells"):
        choose_attention(model, {"one": samples["B cells"]}, reference=known)
    table = known.table
    table["target"] = "A1BG"
    with pytest.raises(DataError, match=r"knows none of the [\d,]+ pairs of B cells"):
        choose_attention(model, samples, reference=Regulons(table))


def test_the_shipped_choice_belongs_to_the_shipped_weights() -> None:
    folder = DEMO.parent / "checkpoints" / "default"
    choice = AttentionChoice.of(folder)
    assert choice.chosen_on.startswith("blood monocytes (400), lung lavage macrophages (400)")
    figures = json.loads((folder / ATTENTION_FILE).read_text())["figures"]
    assert len(figures["left_out"]) == 6
