"""Preparing a corpus from real files: what it keeps, what it makes anew, what it refuses, and going on after a stop."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats

from scdiva_core.data.corpus import Corpus
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


def test_statistics_are_those_of_the_training_cells(corpus: Corpus, corpus_files: list[Path]) -> None:
    totals = np.concatenate([anndata.read_h5ad(file).X.sum(axis=1).A1 for file in corpus_files])
    logged = np.log1p(dense(corpus) / totals[:, None] * 10_000)[corpus.cells("training")]
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


def test_manifest_says_what_is_in_it(corpus_folder: Path, corpus: Corpus) -> None:
    manifest = json.loads((corpus_folder / "corpus.json").read_text())
    assert manifest["n_cells"] == 240
    assert manifest["vocabulary_sha256"] == corpus.vocabulary.sha256
    told = ("name", "n_cells", "validation_cells", "labelled_cells", "batches")
    assert [tuple(item[key] for key in told) for item in manifest["datasets"]] == [
        ("kang2018", 120, 30, 0, ["kang2018"]),
        ("zheng2017", 120, 0, 0, ["zheng2017"]),
    ]
    assert (manifest["labels"], manifest["classes"], manifest["class_names"]) == ({}, [], [])


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


def test_a_damaged_shard_is_mended_as_the_hint_says(copy: Path, corpus_files: list[Path], corpus: Corpus) -> None:
    shard = sorted(copy.glob("*-0*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"Shard {shard.name} of the corpus cannot be read") as caught:
        prepare(corpus_files, copy, min_cells=20, shard_cells=50)
    assert caught.value.hint.startswith("Delete it and the folder 'unpacked' beside it, then run 'prepare' again")
    shard.unlink()
    shutil.rmtree(copy / "unpacked")
    lines: list[str] = []
    prepare(corpus_files, copy, min_cells=20, shard_cells=50, report=lines.append)
    assert "zheng2017.h5ad: kept 120 cells" in lines
    assert np.array_equal(dense(Corpus(copy)), dense(corpus))


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


def test_donors_of_whom_all_would_be_held_out_are_refused(corpus_files: list[Path], tmp_path: Path) -> None:
    """The last two are too small for a tenth, and the one before them is all the rest."""
    cells = anndata.read_h5ad(corpus_files[0])
    cells.obs["donor"] = ["a"] * (cells.n_obs - 2) + ["b", "c"]
    cells.write_h5ad(tmp_path / "uneven.h5ad")
    with pytest.raises(DataError, match="Every cell of the 1 files is held out") as caught:
        prepare([tmp_path / "uneven.h5ad"], tmp_path / "out", min_cells=20)
    assert "--donor-column" in caught.value.hint


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
