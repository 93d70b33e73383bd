"""Head, nearest reference cells, marker genes and a column: each against an independent account of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, CheckpointError, DataError
from scdiva_core.model.markers import Marker, MarkerTable, Sign
from scdiva_core.model.network import CellLabels, ScDiVaModel
from scdiva_core.model.reference import Reference
from scdiva_core.tasks import label_sources
from scdiva_core.tasks.annotation import LabelCalls
from scdiva_core.tasks.label_sources import column_calls, head_calls, marker_calls, neighbor_calls

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo"
B, NK, MONO = ("CL:0000236", "B cell"), ("CL:0000623", "natural killer cell"), ("CL:0000860", "classical monocyte")
T_CELL = "CL:0000084"
IDS, NAMES = tuple(zip(B, NK, MONO, strict=True))


def reference(latents: np.ndarray, labels: list[int] | np.ndarray) -> Reference:
    labels = np.asarray(labels, np.int16)
    return Reference(np.asarray(latents, np.float32), labels, IDS, NAMES, ("one",), 0 * labels, "0" * 64)


def says(calls: LabelCalls) -> list[str]:
    return [calls.names[label] if label >= 0 else "unknown" for label in calls.best]


# The head.


@pytest.fixture
def model(tiny_model: Callable[..., ScDiVaModel]) -> ScDiVaModel:
    made = tiny_model(heads=("latent", "annotation"))
    made.labels = CellLabels(tuple(f"CL:{i}" for i in range(6)), tuple("abcdef"), 3.0)
    return made


@torch.no_grad()
def test_the_head_is_calibrated_by_its_temperature(model: ScDiVaModel, token_batch: Callable) -> None:
    batch = token_batch(9, 5, 7, 12)
    latents = model.encode(batch)["latent"].numpy()
    latents.flags.writeable = False  # as a result from the store is
    expected = torch.softmax(model.predict(batch) / 3.0, dim=1).numpy()
    calls = head_calls(model, latents)
    assert (calls.source, calls.ids, calls.names) == ("head", model.labels.ids, model.labels.names)
    assert calls.best.tolist() == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose(calls.probability, expected.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(calls.entropy, -(expected * np.log(expected)).sum(axis=1) / np.log(6), rtol=1e-4)


def test_blocks_do_not_show(model: ScDiVaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    whole = head_calls(model, latents), neighbor_calls(reference(latents[:20], np.arange(20) % 3), latents)
    monkeypatch.setattr(label_sources, "_BLOCK", 7)
    parts = head_calls(model, latents), neighbor_calls(reference(latents[:20], np.arange(20) % 3), latents)
    for one, two in zip(whole, parts, strict=True):
        assert np.array_equal(one.best, two.best)
        np.testing.assert_allclose(one.probability, two.probability, rtol=1e-5)


@pytest.mark.parametrize("lacks", ["head", "names"])
def test_a_checkpoint_that_names_no_types_is_refused(tiny_model: Callable[..., ScDiVaModel], lacks: str) -> None:
    silent = tiny_model(heads=("latent",) if lacks == "head" else ("latent", "annotation"))
    with pytest.raises(CheckpointError, match="no annotation head with named outputs"):
        head_calls(silent, np.zeros((3, 8), np.float32))


# The nearest reference cells.


def test_neighbours_vote_by_the_inverse_of_their_distance() -> None:
    """A cell at 0; reference cells at 1 (B), -2 (NK), 4 (B), and one far away."""
    calls = neighbor_calls(reference([[1], [-2], [4], [100]], [0, 1, 0, 2]), np.zeros((1, 1), "f4"), k=3)
    weights = np.array([1 / 1 + 1 / 4, 1 / 2]) / (1 / 1 + 1 / 2 + 1 / 4)
    assert says(calls) == ["B cell"]
    assert calls.names[calls.runner_up[0]] == "natural killer cell"
    assert calls.third.tolist() == [-1]
    assert calls.probability[0] == pytest.approx(weights[0])
    assert calls.margin[0] == pytest.approx(weights[0] - weights[1])
    assert calls.source == "knn"
    np.testing.assert_allclose(calls.probabilities, [[*weights, 0]], atol=1e-3)


def test_a_cell_on_top_of_a_reference_cell_is_of_its_type() -> None:
    calls = neighbor_calls(reference([[3], [3], [4]], [2, 2, 0]), np.array([[3]], np.float32))
    assert (says(calls), calls.probability.tolist()) == (["classical monocyte"], [1.0])


def test_votes_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    known, labels = rng.normal(size=(90, 5)).astype(np.float32), rng.integers(0, 3, 90)
    cells = rng.normal(size=(40, 5)).astype(np.float32)
    expected = KNeighborsClassifier(15, weights="distance").fit(known, labels).predict_proba(cells)
    calls = neighbor_calls(reference(known, labels), cells)
    assert calls.best.tolist() == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose(calls.probability, expected.max(axis=1), rtol=1e-4)


def test_latents_of_another_width_are_refused() -> None:
    with pytest.raises(CheckpointError, match="The reference has 2 coordinates, these cells 3"):
        neighbor_calls(reference(np.zeros((4, 2)), [0] * 4), np.zeros((5, 3), np.float32))


def test_the_search_tells_how_far_it_is_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_sources, "_BLOCK", 10)
    known, seen = reference(np.eye(4), [0, 1, 2, 0]), []
    neighbor_calls(known, np.ones((25, 4), np.float32), progress=lambda done, total, _: seen.append((done, total)))
    assert seen == [(0, 25), (10, 25), (20, 25), (25, 25)]
    with pytest.raises(Cancelled):
        neighbor_calls(known, np.ones((25, 4), np.float32), cancelled=lambda: True)


# Marker genes.

BLOOD = {
    (*B, "positive"): ("CD79A", "CD79B", "MS4A1", "HLA-DRA", "CD74"),
    (*B, "negative"): ("S100A8", "LYZ"),
    (*NK, "positive"): ("NKG7", "GNLY", "GZMB", "PRF1", "CST7"),
    (*NK, "negative"): ("CD3D",),
    (*MONO, "positive"): ("S100A8", "S100A9", "LYZ", "FCN1"),
}


def table(genes: dict[tuple[str, str, Sign], tuple[str, ...]]) -> MarkerTable:
    return MarkerTable(
        tuple(
            Marker(term, name, gene, sign, 1.0, 0.5, 0.1) for (term, name, sign), all_ in genes.items() for gene in all_
        )
    )


def dense(dataset: H5adDataset) -> pd.DataFrame:
    values = np.concatenate([block.toarray() for _, block in dataset.chunks()])
    return pd.DataFrame(values.astype(float), columns=list(dataset.gene_symbols))


def scores(dataset: H5adDataset, genes: dict[tuple[str, str, Sign], tuple[str, ...]]) -> pd.DataFrame:
    """Mean of standardised positive markers less that of negative ones, gene by gene."""
    values = dense(dataset)
    values = values.loc[:, values.std() > 0]
    z = ((values - values.mean()) / values.std(ddof=0)).clip(upper=10)
    found: dict[str, pd.Series] = {}
    for (_, name, sign), all_ in genes.items():
        mean = z[[gene for gene in all_ if gene in z]].mean(axis=1)
        found[name] = found.get(name, 0) + (mean if sign == "positive" else -mean)
    return pd.DataFrame(found)


def test_markers_score_as_told(dataset: H5adDataset) -> None:
    calls = marker_calls(table(BLOOD), dataset)
    expected = np.exp(scores(dataset, BLOOD) / 0.25)
    expected = expected.div(expected.sum(axis=1), axis=0)
    assert (calls.source, calls.ids, calls.names) == ("markers", IDS, NAMES)
    assert says(calls) == expected.idxmax(axis=1).tolist()
    np.testing.assert_allclose(calls.probability, expected.max(axis=1), rtol=1e-3)


def test_markers_find_the_types_of_real_cells(dataset: H5adDataset) -> None:
    meant = {"B": B[1], "NK": NK[1], "CD14 Monocytes": MONO[1]}
    truth = dataset.obs["cell_type"].astype(str).map(meant)
    asked = truth.notna().to_numpy()
    assert asked.sum() > 50
    found = np.array(says(marker_calls(table(BLOOD), dataset)))[asked]
    assert np.mean(found == truth[asked]) > 0.9


def test_chunks_do_not_show(dataset: H5adDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = marker_calls(table(BLOOD), dataset)
    monkeypatch.setattr(label_sources, "_CHUNK_CELLS", 30)
    seen: list[int] = []
    parts = marker_calls(table(BLOOD), dataset, progress=lambda done, total, _: seen.append(done))
    assert np.array_equal(whole.best, parts.best)
    np.testing.assert_allclose(whole.probability, parts.probability, rtol=1e-4)
    assert seen == [0, 30, 60, 90, 120, 150, 160]
    with pytest.raises(Cancelled):
        marker_calls(table(BLOOD), dataset, cancelled=lambda: True)


def test_a_type_with_too_few_markers_here_is_left_out(dataset: H5adDataset) -> None:
    few = BLOOD | {(*NK, "positive"): ("NKG7", "GNLY", "no gene", "ALB")}
    assert marker_calls(table(few), dataset).ids == (B[0], MONO[0])
    with pytest.raises(DataError, match=r"small\.h5ad detects 2 of 3 marker genes, for no cell type enough") as caught:
        marker_calls(table({(*NK, "positive"): ("NKG7", "GNLY", "no gene")}), dataset)
    assert "needs 3 positive ones" in caught.value.hint


def test_one_cells_rare_gene_does_not_decide_for_its_type(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    """160 cells make z-scores of at most 12.6; they are cut at 10."""
    cells = small_cells.copy()
    rare = [gene for gene in cells.var_names if gene not in sum(BLOOD.values(), ())][:3]
    changed = cells.to_df()
    changed[rare] = 0.0
    changed.loc[changed.index[0], rare] = 9.0
    cells.X = changed.to_numpy(np.float32)
    cells.write_h5ad(tmp_path / "rare.h5ad")
    genes = BLOOD | {(T_CELL, "T cell", "positive"): tuple(rare)}
    with open_h5ad(tmp_path / "rare.h5ad", small_vocabulary) as opened:
        calls = marker_calls(table(genes), opened)
        expected = scores(opened, genes)
    assert expected["T cell"][0] == 10
    assert says(calls)[0] == "T cell"
    rest = np.exp((expected.loc[0] - 10) / 0.25)
    assert calls.probability[0] == pytest.approx(1 / rest.sum(), rel=1e-3)


# A column.


def test_a_column_means_terms_where_it_can() -> None:
    values = pd.Series(
        ["T cell", " t CELL", "CL:0000084", "T-lymphocyte", "my cells", "My cells", None, "  ", "Treg", "cl:0000236"],
        name="mine",
    )
    calls = column_calls(values, cell_ontology())
    ids = [calls.ids[label] if label >= 0 else None for label in calls.best]
    assert ids == [T_CELL, T_CELL, T_CELL, T_CELL, "", "", None, None, "CL:0000815", B[0]]
    assert says(calls) == [
        *["T cell"] * 4,
        "my cells",
        "My cells",
        *["unknown"] * 2,
        "regulatory T cell",
        "B cell",
    ]
    assert calls.source == "obs: mine"
    assert len(calls.ids) == len(calls.names) == 5, "each label once"
    known = [1.0] * 6 + [0.0] * 2 + [1.0] * 2
    assert calls.probability.tolist() == calls.margin.tolist() == known
    assert calls.entropy.tolist() == [1 - one for one in known]
    assert set(calls.runner_up.tolist()) == set(calls.third.tolist()) == {-1}


def test_every_name_means_its_own_term_whatever_synonyms_others_have() -> None:
    ontology = cell_ontology()
    calls = column_calls(pd.Series([ontology.name(term).upper() for term in ontology.ids], name="x"), ontology)
    assert [calls.ids[label] for label in calls.best] == list(ontology.ids)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(pd.Categorical(["b", None, "a"], categories=["a", "b", "never"]), name="x"),
        pd.Series(["b", pd.NA, "a"], dtype="string", name="x"),
        pd.Series(["b", np.nan, "a"], name="x"),
    ],
    ids=["categories", "strings", "objects"],
)
def test_columns_of_every_kind_are_read(values: pd.Series) -> None:
    calls = column_calls(values, cell_ontology())
    assert (calls.names, calls.best.tolist()) == (("a", "b"), [1, -1, 0])


def test_numbers_are_names_of_clusters() -> None:
    calls = column_calls(pd.Series([2, 10, 2], name="leiden"), cell_ontology())
    assert says(calls) == ["2", "10", "2"]
    assert calls.ids == ("", "")


def test_an_empty_column_knows_nothing() -> None:
    calls = column_calls(pd.Series([None, None], name="x", dtype=object), cell_ontology())
    assert (calls.ids, calls.best.tolist()) == ((), [-1, -1])
