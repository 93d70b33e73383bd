"""Preparing a corpus from real files, going on after a stop, and drawing cells from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiva_core.data.corpus import Corpus, batches, spans
from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.hgnc import gene_names
from scdiva_core.data.prepare import SPECIAL_TOKENS, prepare
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import DataError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def corpus(corpus_folder: Path) -> Corpus:
    return Corpus(corpus_folder)


@pytest.fixture
def copy(corpus_folder: Path, tmp_path: Path) -> Path:
    """A copy of the corpus that may be damaged."""
    return Path(shutil.copytree(corpus_folder, tmp_path / "corpus"))


def dense(corpus: Corpus) -> np.ndarray:
    rows = corpus.take(np.arange(len(corpus)))
    return sp.csr_matrix((rows.counts, rows.gene_ids, rows.indptr), (len(rows), len(corpus.vocabulary))).toarray()


def test_counts_are_those_of_the_files(corpus: Corpus, corpus_files: list[Path]) -> None:
    found, start = dense(corpus), 0
    tokens = {token: i for i, token in enumerate(corpus.vocabulary.tokens)}
    compared = 0
    for file in corpus_files:
        cells = anndata.read_h5ad(file)
        counts = cells.X.toarray()
        for column, name in enumerate(cells.var_names):
            if name in tokens:
                expected = counts[:, column]
                assert np.array_equal(found[start : start + cells.n_obs, tokens[name]], expected), name
                compared += 1
        start += cells.n_obs
    assert start == len(corpus) == 240
    assert compared > 800


def test_vocabulary_is_approved_genes_that_enough_cells_detect(corpus: Corpus, corpus_files: list[Path]) -> None:
    tokens = corpus.vocabulary.tokens
    assert tokens[:5] == SPECIAL_TOKENS
    assert list(tokens[5:]) == sorted(tokens[5:])
    assert ((dense(corpus) > 0).sum(axis=0)[5:] >= 20).all()
    cells = pd.Series(0, index=sorted(gene_names().approved))
    for file in corpus_files:
        data = anndata.read_h5ad(file)
        detected = pd.Series(np.asarray((data.X > 0).sum(axis=0)).ravel(), index=data.var_names)
        cells = cells.add(detected[detected.index.isin(cells.index)], fill_value=0)
    assert set(cells.index[cells >= 20]) <= set(tokens)
    assert ((cells > 0) & (cells < 20)).any(), "some genes are too rare"


def test_statistics_are_those_of_the_training_cells(corpus: Corpus) -> None:
    counts = dense(corpus)[corpus.cells("training")].astype(float)
    logged = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 10_000)
    np.testing.assert_allclose(corpus.gene_mean, logged.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(corpus.gene_std, logged.std(axis=0), atol=1e-4)
    seen = logged.sum(axis=0) > 0
    expected = scipy.stats.entropy(logged[:, seen], axis=0) / np.log(len(logged))
    np.testing.assert_allclose(corpus.entropy[seen], expected, atol=1e-5)
    assert (corpus.entropy[~seen] == 1).all()


def test_whole_donors_are_held_out(corpus: Corpus, corpus_files: list[Path]) -> None:
    donors = anndata.read_h5ad(corpus_files[0], backed="r").obs["donor"].to_numpy()
    held_out = corpus.cells("validation")
    assert held_out.tolist() == np.flatnonzero(donors == "d3").tolist()
    training = corpus.cells("training")
    assert sorted([*training, *held_out]) == list(range(240))


def test_log_values_are_what_a_data_set_gives(corpus: Corpus, corpus_files: list[Path]) -> None:
    rows = corpus.take(np.arange(20))
    expected_counts = dense(corpus)[:20].astype(float)
    expected = np.log1p(expected_counts / expected_counts.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(
        rows.sparse(rows.log1p(), len(corpus.vocabulary)).to_dense().numpy(), expected, rtol=1e-5
    )
    with open_h5ad(corpus_files[0], corpus.vocabulary) as dataset:
        _, block = next(dataset.chunks(20))
    # Genes outside the vocabulary count in a file's totals and are gone from a corpus.
    np.testing.assert_allclose(block.toarray(), expected[:, dataset.gene_ids], atol=0.05)


def test_cells_come_in_the_order_asked_for(corpus: Corpus) -> None:
    asked = np.array([239, 0, 119, 120, 49, 50, 50, 3])
    rows = corpus.take(asked)
    whole = dense(corpus)
    found = sp.csr_matrix((rows.counts, rows.gene_ids, rows.indptr), (8, len(corpus.vocabulary))).toarray()
    assert np.array_equal(found, whole[asked])
    assert len(corpus.take(np.array([], int))) == 0


def test_second_run_keeps_what_is_there(copy: Path, corpus_files: list[Path], capsys: pytest.CaptureFixture) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in copy.glob("*-0*.safetensors")}
    lines: list[str] = []
    prepare(corpus_files, copy, min_cells=20, shard_cells=50, report=lines.append)
    after = {path.name: path.stat().st_mtime_ns for path in copy.glob("*-0*.safetensors")}
    assert before == after
    assert len(before) == 6
    assert [line for line in lines if "kept" in line] == [f"{file.name}: kept 120 cells" for file in corpus_files]


def test_changed_file_is_done_again_and_the_other_kept(copy: Path, corpus_files: list[Path], tmp_path: Path) -> None:
    vocabulary = Corpus(copy).vocabulary
    files = [Path(shutil.copy(file, tmp_path)) for file in corpus_files]
    cells = anndata.read_h5ad(files[0])[:90].copy()
    cells.write_h5ad(files[0])
    lines: list[str] = []
    prepare(files, copy, vocabulary=vocabulary, shard_cells=50, report=lines.append)
    assert any(line.startswith("kang2018.h5ad: 90 cells") for line in lines)
    assert any(line == "zheng2017.h5ad: kept 120 cells" for line in lines)
    again = Corpus(copy)
    assert len(again) == 210
    known = vocabulary.match(list(cells.var_names)).ids >= 0
    assert dense(again)[:90].sum() == cells.X[:, known].sum()


KILLED = """
import os, sys
from pathlib import Path
from scdiva_core.data import prepare as module
from scdiva_core.data.prepare import prepare

written = 0
real = os.replace
def replace(source, target):
    global written
    real(source, target)
    written += str(target).endswith(".safetensors")
    if written == 4:
        os._exit(9)
module.os.replace = replace
prepare([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]), min_cells=20, shard_cells=50)
"""


def test_killed_between_two_shards_it_is_unfinished_and_goes_on(
    corpus_files: list[Path], corpus: Corpus, tmp_path: Path
) -> None:
    folder = tmp_path / "corpus"
    command = [sys.executable, "-c", KILLED, str(folder), *map(str, corpus_files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 9, done.stderr
    assert len(list(folder.glob("*-0*.safetensors"))) == 4
    with pytest.raises(DataError, match=r"The corpus in .* is unfinished") as caught:
        Corpus(folder)
    assert "prepare" in caught.value.hint
    lines: list[str] = []
    prepare(corpus_files, folder, min_cells=20, shard_cells=50, report=lines.append)
    assert "kang2018.h5ad: kept 120 cells" in lines
    assert np.array_equal(dense(Corpus(folder)), dense(corpus))


def test_stopped_while_a_finished_corpus_is_prepared_anew_it_is_unfinished(
    copy: Path, corpus_files: list[Path]
) -> None:
    """Else the new vocabulary would be read with the old shards."""
    broken = copy.parent / "broken.h5ad"
    broken.write_bytes(b"no data")
    fewer = GeneVocabulary(Corpus(copy).vocabulary.tokens[:-50])
    with pytest.raises(DataError):
        prepare([*corpus_files, broken], copy, vocabulary=fewer, shard_cells=50)
    with pytest.raises(DataError, match="unfinished"):
        Corpus(copy)


def test_a_folder_that_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a prepared corpus") as caught:
        Corpus(tmp_path)
    assert "prepare" in caught.value.hint
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(DataError, match="is not a prepared corpus"):
        Corpus(tmp_path)


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


def test_names_of_data_sets_never_collide_with_the_corpus_s_own_files(
    corpus_files: list[Path], corpus: Corpus, tmp_path: Path
) -> None:
    files = [
        Path(shutil.copy(file, tmp_path / name))
        for file, name in zip(corpus_files, ("corpus.h5ad", "vocab.h5ad"), strict=True)
    ]
    for _ in range(2):
        prepare(files, tmp_path / "out", min_cells=20, shard_cells=50)
        again = Corpus(tmp_path / "out")
        assert again.vocabulary.tokens == corpus.vocabulary.tokens
        assert np.array_equal(dense(again), dense(corpus))


def test_two_files_of_one_name_are_refused(corpus_files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Two of the 2 files share a name"):
        prepare([corpus_files[0], tmp_path / corpus_files[0].name], tmp_path / "out")


def test_a_misspelt_file_changes_nothing(copy: Path, corpus_files: list[Path]) -> None:
    with pytest.raises(DataError, match=r"1 of the 3 files are not there, the first is .*typo\.h5ad"):
        prepare([*corpus_files, copy / "typo.h5ad"], copy, min_cells=20)
    assert len(Corpus(copy)) == 240
    with pytest.raises(DataError, match="1 of the 1 files are not there"):
        prepare([copy / "typo.h5ad"], copy.parent / "new")
    assert not (copy.parent / "new").exists()


def test_without_donors_nothing_can_be_held_out(corpus_files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="None of the 1 files has a donor column") as caught:
        prepare(corpus_files[1:], tmp_path / "out", min_cells=20)
    assert "donor_id" in caught.value.hint
    with pytest.raises(DataError, match="unfinished"):
        Corpus(tmp_path / "out")


def test_files_without_raw_counts_are_refused(corpus_files: list[Path], tmp_path: Path) -> None:
    cells = anndata.read_h5ad(corpus_files[0])
    cells.X = cells.X.astype(np.float32).log1p()
    cells.write_h5ad(tmp_path / "logged.h5ad")
    with pytest.raises(DataError, match="holds no raw counts"):
        prepare([tmp_path / "logged.h5ad"], tmp_path / "out", min_cells=20)


def test_counts_above_sixteen_bits_survive(corpus_files: list[Path], tmp_path: Path) -> None:
    cells = anndata.read_h5ad(corpus_files[0])
    cells.X = cells.X.astype(np.uint32)
    cells.X.data[0] = 100_000
    cells.write_h5ad(tmp_path / "deep.h5ad")
    prepare([tmp_path / "deep.h5ad"], tmp_path / "out", min_cells=20)
    assert dense(Corpus(tmp_path / "out")).max() == 100_000


def test_manifest_says_what_is_in_it(corpus_folder: Path, corpus: Corpus) -> None:
    manifest = json.loads((corpus_folder / "corpus.json").read_text())
    assert manifest["n_cells"] == 240
    assert manifest["vocabulary_sha256"] == corpus.vocabulary.sha256
    assert [(item["name"], item["n_cells"], item["validation_cells"]) for item in manifest["datasets"]] == [
        ("kang2018", 120, 30),
        ("zheng2017", 120, 0),
    ]


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), size=st.integers(1, 25), seed=st.integers(0, 99), start=st.integers(0, 30))
def test_batches_cover_an_epoch_once_and_resume_anywhere(n: int, size: int, seed: int, start: int) -> None:
    cells = np.arange(100, 100 + n)
    drawn = list(islice(batches(cells, size, seed), start + 12))
    per_epoch = max(n // size, 1)
    for epoch in range(len(drawn) // per_epoch):
        seen = np.concatenate(drawn[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert len(set(seen)) == len(seen) == min(per_epoch * size, n)
        assert set(seen) <= set(cells)
    for one, two in zip(drawn[start:], batches(cells, size, seed, start), strict=False):
        assert np.array_equal(one, two)


def test_batches_differ_between_epochs_and_seeds() -> None:
    cells = np.arange(40)
    first, second = (b.tolist() for b in islice(batches(cells, 40, seed=1), 2))
    assert sorted(first) == sorted(second)
    assert first != second
    assert next(batches(cells, 40, seed=2)).tolist() != first


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=8))
def test_spans_are_ranges_end_to_end(runs: list[tuple[int, int]]) -> None:
    starts, lengths = (np.array([run[i] for run in runs], int) for i in (0, 1))
    expected = [place for start, length in runs for place in range(start, start + length)]
    assert spans(starts, lengths).tolist() == expected
