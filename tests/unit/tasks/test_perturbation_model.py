"""Predicting with a checkpoint that was fine-tuned on perturbations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, CheckpointError, DataError
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.tasks.perturbation_model import PerturbationModel
from scdiva_core.training.finetune_perturbation import finetune_perturbation
from scdiva_core.training.finetune_settings import PerturbationSettings
from scdiva_core.training.perturbation_cells import read_perturbations
from tests.small_perturbations import N_CONTROL, N_GENES, write_perturbations

CONTROL = np.arange(N_CONTROL)


@pytest.fixture(scope="module")
def file(small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_perturbations(tmp_path_factory.mktemp("perturbed") / "p.h5ad", list(small_cells.var_names))


@pytest.fixture
def dataset(file: Path, small_vocabulary: GeneVocabulary) -> Iterator[H5adDataset]:
    with open_h5ad(file, small_vocabulary) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(
    file: Path, small_vocabulary: GeneVocabulary, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Learned from all but ``B2M`` and ``B2M+TMSB4X``; do not alter."""
    with open_h5ad(file, small_vocabulary) as opened:
        names, options = opened.obs["perturbation"], {"control": "ctrl", "kind": "knockout", "max_genes": 64}
        cells = read_perturbations(opened, small_vocabulary, names, **options)
    settings = PerturbationSettings(epochs=2, cells=4, batch_size=8, learning_rate=1e-3, validation_share=0.0)
    kept = [name for name in cells.targets if "B2M" not in name]
    tuned = finetune_perturbation(load_pretrained(tiny_checkpoint), cells.only(kept), settings=settings)
    return tuned.save(tmp_path_factory.mktemp("made") / "checkpoint")


@pytest.fixture
def predictor(folder: Path) -> PerturbationModel:
    return PerturbationModel(load_pretrained(folder))


def test_perturbations_that_were_never_measured(predictor: PerturbationModel, dataset: H5adDataset) -> None:
    told: list[tuple[int, int, str]] = []
    asked = [("B2M",), ("TMSB4X", "B2M"), ("ACTB",), ("LYZ",)]
    found = predictor.predict(dataset, CONTROL, asked, progress=lambda *words: told.append(words))
    assert [(one.genes, one.measured, one.seen) for one in found] == [
        (("B2M",), False, ()),
        (("TMSB4X", "B2M"), False, ("TMSB4X",)),
        (("ACTB",), True, ("ACTB",)),
        (("LYZ",), False, ()),
    ]
    assert all((one.kind, one.n_cells, len(one.table)) == ("knockout", N_CONTROL, N_GENES) for one in found)
    assert np.isfinite(found[0].table[["before", "change", "spread"]].to_numpy()).all()
    assert not np.allclose(found[0].table["change"], found[2].table["change"])
    before = np.concatenate([block.toarray() for _, block in dataset.chunks()])[:N_CONTROL].mean(axis=0)
    np.testing.assert_allclose(found[0].table["before"], before, rtol=1e-5)
    assert found[0].table["symbol"].tolist() == list(dataset.gene_symbols)
    assert told[0] == (0, 4, "Predicting perturbations")
    assert told[-1] == (4, 4, "Predicting perturbations")


def test_the_change_is_the_mean_over_cells(predictor: PerturbationModel, dataset: H5adDataset) -> None:
    expression = next(dataset.chunks())[1].toarray()[:20]
    each = predictor.changes(dataset.gene_ids, expression, predictor.targets(("B2M",)))
    assert each.shape == (20, N_GENES)
    (found,) = predictor.predict(dataset, CONTROL[:20], [("B2M",)])
    np.testing.assert_allclose(found.table["change"], each.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.table["spread"], each.std(axis=0), atol=1e-5)
    assert predictor.predict(dataset, CONTROL, [("B2M",)], most_cells=7)[0].n_cells == 7


def test_the_order_of_the_genes_of_a_file_does_not_count(
    predictor: PerturbationModel, file: Path, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    cells = anndata.read_h5ad(file)
    cells[:, ::-1].copy().write_h5ad(tmp_path / "reversed.h5ad")
    with open_h5ad(file, small_vocabulary) as one, open_h5ad(tmp_path / "reversed.h5ad", small_vocabulary) as other:
        tables = [predictor.predict(opened, CONTROL, [("B2M",)])[0].table for opened in (one, other)]
    np.testing.assert_allclose(tables[0]["change"], tables[1]["change"], atol=1e-5)


def test_genes_that_a_file_lacks_are_left_out(
    predictor: PerturbationModel, small_h5ad: Path, small_vocabulary: GeneVocabulary, file: Path, tmp_path: Path
) -> None:
    anndata.read_h5ad(file)[:, :15].copy().write_h5ad(tmp_path / "few.h5ad")
    with open_h5ad(tmp_path / "few.h5ad", small_vocabulary) as few:
        assert len(predictor.predict(few, CONTROL, [("ACTB",)])[0].table) == 15
    with open_h5ad(small_h5ad, small_vocabulary) as larger:
        assert len(predictor.predict(larger, CONTROL, [("ACTB",)])[0].table) == N_GENES


def test_what_cannot_be_predicted(predictor: PerturbationModel, dataset: H5adDataset) -> None:
    with pytest.raises(DataError, match="vocabulary lacks nonsense"):
        predictor.predict(dataset, CONTROL, [("B2M", "nonsense")])
    with pytest.raises(DataError, match="0 genes are to be perturbed"):
        predictor.predict(dataset, CONTROL, [()])
    with pytest.raises(DataError, match="no control cell"):
        predictor.predict(dataset, [], [("B2M",)])
    with pytest.raises(Cancelled):
        predictor.predict(dataset, CONTROL, [("B2M",)], cancelled=lambda: True)


def test_other_checkpoints_are_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="not fine-tuned on perturbations"):
        PerturbationModel(load_pretrained(tiny_checkpoint))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "does not say how perturbations are read"),
        ({"kind": "mutation"}, "does not say how"),
        ({"value": "high"}, "does not say how"),
        ({"value": float("nan")}, "does not say how"),
        ({"genes": "ACTB"}, "does not say how"),
        ({"trained_on": None}, "does not say how"),
        ({"genes": []}, "names 0 genes"),
        ({"genes": ["ACTB", "nonsense"]}, "names 2 genes, 1 unknown"),
    ],
)
def test_damaged_cards_are_refused(folder: Path, change: dict[str, object] | None, message: str) -> None:
    model = load_pretrained(folder)
    record = json.loads(json.dumps(model.card["perturbation"]))
    model.card = {"perturbation": record | change} if change is not None else {}
    with pytest.raises(CheckpointError, match=message):
        PerturbationModel(model)
