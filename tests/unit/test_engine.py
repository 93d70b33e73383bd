"""The engine: results that are stored, found again, resumed, and never mixed up."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from scdiva_core import engine_jobs
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.engine import Engine
from scdiva_core.errors import Cancelled, CheckpointError, DataError
from scdiva_core.store import ResultStore
from scdiva_core.tasks.embedding import embed_cells, population_entropy
from scdiva_core.tasks.neighbors import ProjectionSettings

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
MAP = ProjectionSettings(n_neighbors=10, n_pcs=8)


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture
def engine(tiny_checkpoint: Path, store: ResultStore) -> Engine:
    return Engine(tiny_checkpoint, "cpu", store)


@pytest.fixture
def dataset(engine: Engine, small_h5ad: Path) -> Iterator[H5adDataset]:
    with engine.open(small_h5ad) as opened:
        yield opened


@pytest.fixture(scope="module")
def large_h5ad(small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,400 cells: three batches on a CPU."""
    path = tmp_path_factory.mktemp("large") / "large.h5ad"
    anndata.read_h5ad(DEMO / "tenx_pbmc3k.h5ad")[:1400, small_cells.var_names].copy().write_h5ad(path)
    return path


@pytest.fixture
def altered(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that may be changed."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "altered"))


def count_cells(engine: Engine) -> list[int]:
    """Sizes of the batches that go through the network from now on."""
    sizes: list[int] = []
    engine.model.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    return sizes


def test_embedding_is_stored_and_found_by_another_engine(
    engine: Engine, dataset: H5adDataset, tiny_checkpoint: Path, store: ResultStore
) -> None:
    assert engine.stored_embedding(dataset) is None
    found = engine.embed(dataset)
    assert found.shape == (160, 8)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.std(axis=0).min() > 0
    second = Engine(tiny_checkpoint, "cpu", ResultStore(store.root))
    sizes = count_cells(second)
    assert np.array_equal(second.stored_embedding(dataset), found)
    assert np.array_equal(second.embed(dataset), found)
    assert sizes == []
    (entry,) = store.entries()
    assert entry.meta["data_sha256"] == dataset.sha256
    assert entry.meta["checkpoint_sha256"] == engine.model.sha256


def test_a_cancelled_embedding_goes_on_with_the_cells_that_are_left(
    engine: Engine, large_h5ad: Path, tiny_checkpoint: Path, store: ResultStore, tmp_path: Path
) -> None:
    sizes, asked = count_cells(engine), iter([False, True])
    with engine.open(large_h5ad) as dataset:
        with pytest.raises(Cancelled):
            engine.embed(dataset, cancelled=lambda: next(asked))
        assert engine.stored_embedding(dataset) is None
        first = sum(sizes)
        assert 0 < first < 1400
        second = Engine(tiny_checkpoint, "cpu", ResultStore(store.root))
        sizes, seen = count_cells(second), []
        resumed = second.embed(dataset, progress=lambda *state: seen.append(state))
        assert sum(sizes) == 1400 - first
        assert seen[0][:2] == (first, 1400)
        assert seen[-1][:2] == (1400, 1400)
        unbroken = Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path / "other")).embed(dataset)
    np.testing.assert_allclose(resumed, unbroken, atol=1e-5)


def test_another_matrix_of_the_file_has_another_result(
    engine: Engine, small_cells: anndata.AnnData, tmp_path: Path
) -> None:
    cells = small_cells.copy()
    cells.layers["half"] = cells.X.copy()
    cells.layers["half"].data[::2] += 3
    cells.write_h5ad(tmp_path / "two.h5ad")
    with engine.open(tmp_path / "two.h5ad") as dataset:
        assert dataset.preflight.recommended == "X"
        first = np.array(engine.embed(dataset))
    with engine.open(tmp_path / "two.h5ad", matrix="layers/half") as dataset:
        assert engine.stored_embedding(dataset) is None
        assert not np.allclose(engine.embed(dataset), first, atol=1e-3)


@pytest.mark.parametrize("change", ["weights", "entropies", "no entropies", "config"])
def test_another_checkpoint_has_other_results(
    engine: Engine, dataset: H5adDataset, altered: Path, store: ResultStore, change: str
) -> None:
    before = np.array(engine.embed(dataset))
    model = Engine(altered, "cpu", store).model
    if change == "weights":
        with torch.no_grad():
            model.final_norm.weight.mul_(2)
        model.save_pretrained(altered)
    elif change == "entropies":
        model.tokenizer = Tokenizer(model.tokenizer.entropy[::-1].copy(), 64)
        model.save_pretrained(altered)
    elif change == "no entropies":
        (altered / "serialization.safetensors").unlink()
    else:
        config = json.loads((altered / "config.json").read_text())
        (altered / "config.json").write_text(json.dumps({**config, "max_genes": 20}))
    other = Engine(altered, "cpu", store)
    assert other.stored_embedding(dataset) is None, "never another checkpoint's result"
    assert not np.allclose(other.embed(dataset), before, atol=1e-4)
    assert np.array_equal(engine.stored_embedding(dataset), before)


def test_without_entropies_the_data_set_s_own_are_used(dataset: H5adDataset, altered: Path, store: ResultStore) -> None:
    (altered / "serialization.safetensors").unlink()
    engine = Engine(altered, "cpu", store)
    assert engine.card().has_entropy is False
    found = engine.embed(dataset)

    def embedded(tokenizer: Tokenizer) -> np.ndarray:
        values = np.zeros((160, 8), np.float32)
        embed_cells(
            engine.model,
            tokenizer,
            dataset.chunks(),
            dataset.gene_ids,
            np.zeros(160, bool),
            values.__setitem__,
        )
        return values

    own = Tokenizer(population_entropy(dataset, len(engine.vocabulary)), 64)
    np.testing.assert_allclose(found, embedded(own), atol=1e-5)
    assert not np.allclose(found, embedded(engine.model.tokenizer), atol=1e-3), "not plain sorting"


def test_cells_without_detected_genes_give_no_nan(engine: Engine, small_cells: anndata.AnnData, tmp_path: Path) -> None:
    cells = small_cells.copy()
    cells.X.data[cells.X.indptr[3] : cells.X.indptr[5]] = 0
    cells.write_h5ad(tmp_path / "empty.h5ad")
    with engine.open(tmp_path / "empty.h5ad") as dataset:
        found = engine.embed(dataset)
        made = engine.project(dataset, settings=MAP)
    assert np.isfinite(found).all()
    assert np.array_equal(found[3], found[4])
    assert np.isfinite(made.coordinates).all()


def test_two_threads_share_one_engine(engine: Engine, large_h5ad: Path, small_h5ad: Path, tmp_path: Path) -> None:
    results: dict[str, np.ndarray] = {}
    sizes = count_cells(engine)

    def work(name: str, path: Path) -> None:
        with engine.open(path) as dataset:
            results[name] = np.array(engine.embed(dataset))

    jobs = [("a", large_h5ad), ("b", large_h5ad), ("c", small_h5ad)]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert np.array_equal(results["a"], results["b"])
    assert sum(sizes) == 1400 + 160, "nothing is computed twice"
    alone = Engine(engine.checkpoint, "cpu", ResultStore(tmp_path / "alone"))
    with alone.open(large_h5ad) as dataset:
        np.testing.assert_allclose(results["a"], alone.embed(dataset), atol=1e-5)


@pytest.mark.parametrize("genes", [0.0, 12.5, 1e6])
def test_estimates_are_positive_and_grow_with_the_cells(engine: Engine, genes: float) -> None:
    few = engine.estimate_seconds(100, genes)
    assert 0 < few < np.inf
    assert engine.estimate_seconds(100_000_000, genes) > few


def test_projection_repeats_and_is_stored(
    engine: Engine, dataset: H5adDataset, tiny_checkpoint: Path, tmp_path: Path, store: ResultStore
) -> None:
    assert engine.stored_projection(dataset, representation="X_scdiva", settings=MAP) is None
    made = engine.project(dataset, settings=MAP)
    assert made.representation == "X_scdiva"
    fetched = Engine(tiny_checkpoint, "cpu", ResultStore(store.root)).stored_projection(
        dataset, representation="X_scdiva", settings=MAP
    )
    assert np.array_equal(fetched.coordinates, made.coordinates)
    assert np.array_equal(fetched.leiden, made.leiden)
    again = Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path / "other")).project(dataset, settings=MAP)
    assert np.array_equal(again.coordinates, made.coordinates)
    assert np.array_equal(again.leiden, made.leiden)
    other = ProjectionSettings(n_neighbors=10, n_pcs=8, seed=1)
    assert engine.stored_projection(dataset, representation="X_scdiva", settings=other) is None


def test_baseline_map_is_drawn_from_components_not_from_the_network(engine: Engine, dataset: H5adDataset) -> None:
    sizes = count_cells(engine)
    made = engine.project(dataset, representation="X_pca", settings=MAP)
    assert sizes == []
    assert made.representation == "X_pca"
    components = engine.stored_components(dataset, MAP)
    assert components.shape == (160, 8)
    assert np.array_equal(engine.components(dataset, MAP), components)
    ours = engine.project(dataset, settings=MAP)
    assert not np.allclose(ours.coordinates, made.coordinates)


def test_a_representation_that_is_not_known_is_refused(engine: Engine, dataset: H5adDataset) -> None:
    with pytest.raises(DataError, match="'X_umap' is no representation") as caught:
        engine.project(dataset, representation="X_umap", settings=MAP)
    assert "X_scdiva" in caught.value.hint


def test_too_few_cells_for_a_map(engine: Engine, small_cells: anndata.AnnData, tmp_path: Path) -> None:
    small_cells[:4].copy().write_h5ad(tmp_path / "few.h5ad")
    with engine.open(tmp_path / "few.h5ad") as dataset:
        assert engine.embed(dataset).shape == (4, 8)
        with pytest.raises(DataError, match="4 cells are too few for a map"):
            engine.project(dataset)


def test_card_tells_what_runs(engine: Engine, tiny_checkpoint: Path) -> None:
    card = engine.card()
    assert (card.name, card.description, card.provisional, card.random_weights) == (
        "tiny",
        "Untrained.",
        True,
        False,
    )
    assert (card.layers, card.hidden_size, card.attention_heads, card.max_genes) == (2, 32, 4, 64)
    assert card.heads == ("latent", "annotation", "batch_integration")
    assert card.vocabulary_size == len(engine.vocabulary) - 5
    assert card.parameters == engine.model.count_parameters() < card.parameters_total
    assert (card.device, card.dtype, card.seed, card.has_entropy) == ("cpu", "float32", 7, True)
    assert card.sha256 == engine.model.sha256
    assert json.dumps(card.training)
    assert engine.checkpoint == str(tiny_checkpoint)


@pytest.mark.parametrize(
    "card", [{"training": None}, {"training": "long"}, {"name": None}, {"training": {"seed": "x"}}]
)
def test_an_odd_card_is_still_told(altered: Path, store: ResultStore, card: dict) -> None:
    (altered / "card.json").write_text(json.dumps(card))
    told = Engine(altered, "cpu", store).card()
    assert isinstance(told.name, str)
    assert isinstance(told.training, dict)


def test_provenance_is_plain_and_complete(engine: Engine, dataset: H5adDataset) -> None:
    record = json.loads(json.dumps(engine.provenance(dataset)))
    assert record["data_sha256"] == dataset.sha256
    assert record["checkpoint_sha256"] == engine.model.sha256
    assert record["matrix"] == "X"
    assert record["values"] == "counts"
    assert record["genes_known"] == record["genes_total"] == 1200
    assert record["provisional"] is True
    assert record["checkpoint"] == Path(engine.checkpoint).name, "no path of the machine it was made on"
    assert record["device"] == "cpu"


def test_provenance_says_whether_the_kept_embedding_was_compiled(engine: Engine, dataset: H5adDataset) -> None:
    engine.embed(dataset)
    assert engine.provenance(dataset)["compiled"] is False
    engine.model.compile_layers()
    engine.embed(dataset)
    assert engine.provenance(dataset)["compiled"] is False, "it was fetched, not computed again"


def unavailable() -> list[str]:
    absent = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    return ["banana", "tpu:0", "cpu:zero", "cuda:999", *(name for name, away in absent.items() if away)]


@pytest.mark.parametrize("device", unavailable())
def test_devices_that_are_not_there(tiny_checkpoint: Path, store: ResultStore, device: str) -> None:
    with pytest.raises(CheckpointError, match=f"The device '{device}' is not available here") as caught:
        Engine(tiny_checkpoint, device, store)
    assert "cpu" in caught.value.hint


def test_automatic_device_is_one_that_is_there(tiny_checkpoint: Path, store: ResultStore) -> None:
    device = Engine(tiny_checkpoint, "auto", store).device
    assert torch.zeros(1, device=device).device.type == device.type


def test_preflight_counts_the_checkpoint_s_genes(engine: Engine, small_h5ad: Path) -> None:
    found = engine.preflight(small_h5ad)
    assert (found.n_obs, found.genes_known, found.value_kind) == (160, 1200, "counts")


class Context:
    """What a worker gives its job."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[str] = []
        self.stop_after = stop_after

    def progress(self, done: float, total: float, message: str = "", rate: float | None = None) -> None:
        assert 0 <= done <= total
        self.seen.append(message)

    def cancelled(self) -> bool:
        return self.stop_after is not None and len(self.seen) >= self.stop_after


@pytest.fixture
def payload(
    tiny_checkpoint: Path, small_h5ad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict]:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    engine_jobs._engine.cache_clear()
    return {
        "path": str(small_h5ad),
        "checkpoint": str(tiny_checkpoint),
        "device": "cpu",
        "matrix": None,
        "gene_column": None,
        "values": "auto",
        "settings": MAP.to_dict(),
    }


def test_job_embeds_and_draws_both_maps(payload: dict, small_h5ad: Path) -> None:
    context = Context()
    assert engine_jobs.embed(json.loads(json.dumps(payload)), context) == {"n_obs": 160}
    engine = Engine(payload["checkpoint"], "cpu")
    with engine.open(small_h5ad) as dataset:
        assert engine.stored_embedding(dataset) is not None
        for representation in ("X_scdiva", "X_pca"):
            assert engine.stored_projection(dataset, representation=representation, settings=MAP) is not None
    assert context.seen[0] == "Embedding cells"
    assert context.seen.index("Finding neighbours") < context.seen.index("Computing PCA")


def test_job_stops_when_asked(payload: dict) -> None:
    with pytest.raises(Cancelled):
        engine_jobs.embed(payload, Context(stop_after=3))
