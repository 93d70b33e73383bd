"""Reading a prepared corpus: its cells, their labels and batches, and drawing from them."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiva_core.data.corpus import CellDraws, Corpus, spans
from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.prepare import prepare
from scdiva_core.data.studies import Studies
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import DataError
from tests.labelled_corpus import MEMBERS, write_labelled_files, write_tables


@pytest.fixture(scope="module")
def corpus(corpus_folder: Path) -> Corpus:
    return Corpus(corpus_folder)


@pytest.fixture
def copy(corpus_folder: Path, tmp_path: Path) -> Path:
    """A copy of the corpus that may be damaged."""
    return Path(shutil.copytree(corpus_folder, tmp_path / "corpus"))


@pytest.fixture(scope="module")
def labelled_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_labelled_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def labelled(labelled_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("labelled")
    studies = Studies.read(write_tables(folder / "tables"))
    prepare(labelled_files, folder, studies=studies, min_cells=20, shard_cells=60)
    return Corpus(folder)


def dense(corpus: Corpus, cells: np.ndarray) -> np.ndarray:
    rows = corpus.take(cells)
    return sp.csr_matrix((rows.counts, rows.gene_ids, rows.indptr), (len(rows), len(corpus.vocabulary))).toarray()


@pytest.fixture(scope="module")
def whole(corpus: Corpus) -> np.ndarray:
    return dense(corpus, np.arange(len(corpus)))


@settings(max_examples=60, deadline=None)
@given(asked=st.lists(st.integers(0, 239), max_size=30))
def test_cells_come_in_the_order_asked_for(corpus: Corpus, whole: np.ndarray, asked: list[int]) -> None:
    """Six shards: of 50, 50 and 20 cells of either file."""
    cells = np.array(asked, int)
    rows = corpus.take(cells)
    assert len(rows) == len(asked)
    assert np.array_equal(dense(corpus, cells), whole[cells])
    assert np.array_equal(rows.totals, corpus.take(np.arange(240)).totals[cells])


def test_ids_ascend_within_a_cell_and_no_count_is_zero(corpus: Corpus) -> None:
    rows = corpus.take(np.arange(240))
    assert (rows.counts > 0).all()
    within = np.diff(rows.rows) == 0
    assert (np.diff(rows.gene_ids)[within] > 0).all()
    assert (rows.indptr.dtype, rows.gene_ids.dtype, rows.totals.dtype) == (np.int64, np.int32, np.float64)


@pytest.fixture(scope="module")
def halved(corpus: Corpus, corpus_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The same files with every other gene left out of the vocabulary."""
    folder = tmp_path_factory.mktemp("halved")
    tokens = corpus.vocabulary.tokens
    prepare(corpus_files, folder, vocabulary=GeneVocabulary([*tokens[:5], *tokens[5::2]]), shard_cells=50)
    return Corpus(folder)


def test_totals_are_over_all_genes_of_the_file(halved: Corpus, corpus_files: list[Path]) -> None:
    expected = np.concatenate([np.asarray(anndata.read_h5ad(file).X.sum(axis=1)).ravel() for file in corpus_files])
    assert np.array_equal(halved.take(np.arange(240)).totals, expected)
    known = dense(halved, np.arange(240)).sum(axis=1)
    assert (known < 0.8 * expected).mean() > 0.9, "the vocabulary lacks much of what the cells have"


def test_log_values_are_what_a_data_set_gives(halved: Corpus, corpus_files: list[Path]) -> None:
    """What a network is trained on is what it is shown of the same file later, genes without a token or not."""
    for number, file in enumerate(corpus_files):
        rows = halved.take(np.arange(120) + 120 * number)
        found = rows.sparse(rows.log1p(), len(halved.vocabulary)).to_dense().numpy()
        with open_h5ad(file, halved.vocabulary) as dataset:
            _, block = next(dataset.chunks(120))
            np.testing.assert_allclose(found[:, dataset.gene_ids], block.toarray(), rtol=1e-6)
            assert np.count_nonzero(found) == block.nnz


def test_log_values_of_a_cell_by_hand(corpus_files: list[Path], tmp_path: Path) -> None:
    cells = anndata.read_h5ad(corpus_files[0])[:, ["CD74", "FTL", "RPL13"]].copy()
    counts = np.tile([3, 2, 15], (120, 1))
    counts[-1] = [0, 0, 8]  # the last cell has no gene of the vocabulary
    cells.X = sp.csr_matrix(counts.astype(np.float32))
    cells.write_h5ad(tmp_path / "made.h5ad")
    tokens = ["<pad>", "<mask>", "<pad_fill>", "<bos>", "<eos>", "CD74", "FTL"]
    prepare([tmp_path / "made.h5ad"], tmp_path / "out", vocabulary=GeneVocabulary(tokens))
    rows = Corpus(tmp_path / "out").take(np.array([119, 0, 119]))
    assert rows.totals.tolist() == [8, 20, 8]
    assert rows.indptr.tolist() == [0, 0, 2, 2]
    assert rows.gene_ids.tolist() == [5, 6]
    np.testing.assert_allclose(rows.log1p(), [np.log(1501), np.log(1001)], rtol=1e-6)


def test_a_folder_that_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a prepared corpus") as caught:
        Corpus(tmp_path)
    assert "prepare" in caught.value.hint
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(DataError, match="is not a prepared corpus"):
        Corpus(tmp_path)


def test_a_corpus_of_an_older_form_asks_to_be_prepared_again(copy: Path) -> None:
    manifest = json.loads((copy / "corpus.json").read_text())
    del manifest["labels"], manifest["classes"]
    (copy / "corpus.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="unfinished or of an older form") as caught:
        Corpus(copy)
    assert "Run the same 'prepare' again" in caught.value.hint


@pytest.mark.parametrize("damage", ["absent", "truncated"])
def test_a_lost_shard_is_named(copy: Path, damage: str) -> None:
    shard = sorted(copy.glob("*-0*.safetensors"))[1]
    if damage == "absent":
        shard.unlink()
    else:
        os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(DataError, match=f"Shard {shard.name} of the corpus cannot be read"):
        Corpus(copy)


def test_a_lost_statistics_file_is_named(copy: Path) -> None:
    os.truncate(copy / "statistics.safetensors", 30)
    with pytest.raises(DataError, match=r"The file statistics\.safetensors of the corpus cannot be read"):
        Corpus(copy)


def test_without_its_unpacked_form_a_corpus_is_the_same(copy: Path, whole: np.ndarray) -> None:
    shutil.rmtree(copy / "unpacked")
    assert np.array_equal(dense(Corpus(copy), np.arange(240)), whole)


def test_labels_are_those_of_the_files_as_terms(labelled: Corpus, labelled_files: list[Path]) -> None:
    terms = {
        "B Activated": "CL:0000236",
        "NK": "CL:0000623",
        "T activated": "CL:0000084",
        "CD14 Monocytes": "CL:0000860",
        "CD14 Mono": "CL:0000860",
        "CD4 T": "CL:0000624",
        "Megakaryocytes": "CL:0000556",
    }
    published = np.concatenate([anndata.read_h5ad(file, backed="r").obs["cell_type"] for file in labelled_files])
    for label, term in terms.items():
        found = labelled.labels[published == label]
        assert len(found) > 2
        assert {labelled.label_ids[i] for i in found} == {term}, label
    unused = np.flatnonzero(published == "DC")
    assert len(unused) == 8
    assert (labelled.labels[unused] == -1).all()
    assert np.flatnonzero(labelled.labels == -1).tolist() == unused.tolist()


def test_members_are_the_classes_that_a_label_may_be(labelled: Corpus) -> None:
    assert labelled.label_ids == tuple(MEMBERS)
    assert labelled.members.shape == (11, 8)
    for label, row in zip(labelled.label_ids, labelled.members, strict=True):
        assert [labelled.classes[i] for i in np.flatnonzero(row)] == MEMBERS[label], label


def test_data_sets_and_technical_batches_are_numbered_through(labelled: Corpus, labelled_files: list[Path]) -> None:
    assert labelled.dataset_of.tolist() == [0] * 160 + [1] * 109
    conditions = anndata.read_h5ad(labelled_files[0], backed="r").obs["condition"].to_numpy()
    assert labelled.batch_of[:160].tolist() == [{"CTRL": 0, "STIM": 1}[name] for name in conditions]
    assert (labelled.batch_of[160:] == 2).all(), "a data set without a batch column is one batch"
    assert labelled.n_batches == 3


def test_a_corpus_without_labels_has_none(corpus: Corpus) -> None:
    assert corpus.label_ids == corpus.classes == ()
    assert corpus.members.shape == (0, 0)
    assert (corpus.labels == -1).all()
    assert corpus.batch_of.tolist() == corpus.dataset_of.tolist() == [0] * 120 + [1] * 120
    assert corpus.n_batches == 2


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_data_sets_and_labels_are_drawn_by_a_power_of_their_size(labelled: Corpus, balance: float) -> None:
    """1 draws cells alike; 0 draws data sets, and labels within one, alike."""
    cells = labelled.cells("training")
    groups = list(zip(labelled.dataset_of[cells].tolist(), labelled.labels[cells].tolist(), strict=True))
    sizes, in_dataset = Counter(groups), Counter(dataset for dataset, _ in groups)
    weight = {}
    for (dataset, label), size in sizes.items():
        labels = sum(n**balance for (other, _), n in sizes.items() if other == dataset)
        datasets = sum(n**balance for n in in_dataset.values())
        weight[dataset, label] = size**balance / labels * in_dataset[dataset] ** balance / datasets
    draws = CellDraws(labelled, 100, 0, balance)
    drawn = np.concatenate([draws.batch(step) for step in range(300)])
    found = Counter(zip(labelled.dataset_of[drawn].tolist(), labelled.labels[drawn].tolist(), strict=True))
    assert set(found) == set(weight)
    observed, expected = ([table[group] for group in weight] for table in (found, weight))
    assert scipy.stats.chisquare(observed, 30_000 * np.array(expected)).pvalue > 1e-4
    share = np.bincount(labelled.dataset_of[drawn])[0] / 30_000
    by_hand = {0.0: 0.5, 0.5: 120**0.5 / (120**0.5 + 109**0.5), 1.0: 120 / 229}[balance]
    assert share == pytest.approx(by_hand, abs=0.015)
    if balance == 1:
        each = np.bincount(drawn, minlength=len(labelled))[cells]
        assert scipy.stats.chisquare(each).pvalue > 1e-4, "every cell alike"


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_only_training_cells_are_drawn_and_all_of_them(labelled: Corpus, balance: float) -> None:
    draws = CellDraws(labelled, 200, 1, balance)
    drawn = np.concatenate([draws.batch(step) for step in range(200)])
    assert set(drawn.tolist()) == set(labelled.cells("training").tolist())


@given(seed=st.integers(0, 2**31), step=st.integers(0, 10**6), size=st.integers(1, 64))
def test_a_batch_depends_on_seed_and_step_alone(labelled: Corpus, seed: int, step: int, size: int) -> None:
    draws = CellDraws(labelled, size, seed, 0.5)
    draws.batch(step + 1)
    batch = draws.batch(step)
    assert batch.shape == (size,)
    assert np.array_equal(batch, CellDraws(labelled, size, seed, 0.5).batch(step))


def test_batches_differ_between_steps_and_seeds(labelled: Corpus) -> None:
    first = CellDraws(labelled, 50, 0, 0.5)
    assert not np.array_equal(first.batch(0), first.batch(1))
    assert not np.array_equal(first.batch(0), CellDraws(labelled, 50, 1, 0.5).batch(0))


def test_cells_without_labels_are_drawn_as_one_label(corpus: Corpus) -> None:
    draws = CellDraws(corpus, 100, 0, 0.0)
    drawn = np.concatenate([draws.batch(step) for step in range(100)])
    assert set(drawn.tolist()) == set(corpus.cells("training").tolist())
    assert (corpus.dataset_of[drawn] == 0).mean() == pytest.approx(0.5, abs=0.02), "90 cells against 120"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=8))
def test_spans_are_ranges_end_to_end(runs: list[tuple[int, int]]) -> None:
    starts, lengths = (np.array([run[i] for run in runs], int) for i in (0, 1))
    expected = [place for start, length in runs for place in range(start, start + length)]
    assert spans(starts, lengths).tolist() == expected
