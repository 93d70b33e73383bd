"""Genes beside a file are what the file says, whoever writes them, and what cannot be read is not used."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

from scdiva_core.data import gene_columns
from scdiva_core.data.gene_columns import columns_path, read_gene_column, write_gene_columns
from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, StoreError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "columns"


@pytest.fixture
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 40 cells and less: the 160 cells lie in several."""
    monkeypatch.setattr(gene_columns, "_BLOCK_CELLS", 50)
    read = H5adDataset.chunks
    monkeypatch.setattr(H5adDataset, "chunks", lambda self, rows=20: read(self, rows))


def expected(path: Path, vocabulary: GeneVocabulary) -> np.ndarray:
    with open_h5ad(path, vocabulary) as dataset:
        return np.vstack([chunk.toarray() for _, chunk in dataset.chunks()])


@pytest.mark.usefixtures("many_blocks")
def test_every_gene_is_what_the_file_says(small_h5ad: Path, small_vocabulary: GeneVocabulary, folder: Path) -> None:
    table = expected(small_h5ad, small_vocabulary)
    with open_h5ad(small_h5ad, small_vocabulary) as dataset:
        path = write_gene_columns(dataset, folder)
        for column in (*range(0, table.shape[1], 50), table.shape[1] - 1):
            found = read_gene_column(path, column, 160, table.shape[1])
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, table[:, column])
    with h5py.File(path) as file:
        assert list(file["starts"]) == [0, 40, 80, 120]


def test_the_data_set_reads_them_and_not_the_file(
    small_h5ad: Path, small_vocabulary: GeneVocabulary, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_h5ad(small_h5ad, small_vocabulary, columns=folder) as dataset:
        symbol = dataset.gene_symbols[3]
        slow = dataset.gene(symbol)
        write_gene_columns(dataset, folder)
        monkeypatch.setattr(H5adDataset, "chunks", None)
        np.testing.assert_array_equal(dataset.gene(symbol), slow)
        assert slow.any()


def test_another_reading_of_the_file_has_genes_of_its_own(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, folder: Path, tmp_path: Path
) -> None:
    cells = small_cells.copy()
    cells.layers["double"] = cells.X * 2
    cells.write_h5ad(tmp_path / "two.h5ad")
    names = set()
    for options in ({}, {"matrix": "layers/double"}, {"values": "log1p"}):
        with open_h5ad(tmp_path / "two.h5ad", small_vocabulary, **options) as dataset:
            names.add(columns_path(dataset, folder))
    fewer = GeneVocabulary([token for token in small_vocabulary.tokens if token != cells.var_names[5]])
    with open_h5ad(tmp_path / "two.h5ad", fewer) as dataset:
        names.add(columns_path(dataset, folder))
    assert len(names) == 4


def test_a_damaged_side_file_is_passed_over_and_written_anew(
    small_h5ad: Path, small_vocabulary: GeneVocabulary, folder: Path
) -> None:
    with open_h5ad(small_h5ad, small_vocabulary, columns=folder) as dataset:
        symbol = dataset.gene_symbols[3]
        expected_values = dataset.gene(symbol)
        path = write_gene_columns(dataset, folder)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
        np.testing.assert_array_equal(dataset.gene(symbol), expected_values)
        write_gene_columns(dataset, folder)
        assert read_gene_column(path, 3, 160, len(dataset.gene_ids)) is not None


def test_work_that_is_stopped_leaves_nothing_behind(
    small_h5ad: Path, small_vocabulary: GeneVocabulary, folder: Path
) -> None:
    seen: list[int] = []

    def stop(done: int) -> None:
        seen.append(done)
        raise Cancelled

    with open_h5ad(small_h5ad, small_vocabulary) as dataset, pytest.raises(Cancelled):
        write_gene_columns(dataset, folder, stop)
    assert seen == [160]
    assert list(folder.iterdir()) == []


def test_two_writers_at_once_leave_one_whole_file(
    small_h5ad: Path, small_vocabulary: GeneVocabulary, folder: Path
) -> None:
    def write(_: int) -> Path:
        with open_h5ad(small_h5ad, small_vocabulary) as dataset:
            return write_gene_columns(dataset, folder)

    with ThreadPoolExecutor(4) as pool:
        written = set(pool.map(write, range(4)))
    assert [*folder.iterdir()] == [*written]
    assert read_gene_column(written.pop(), 0, 160, len(gene_ids(small_h5ad, small_vocabulary))) is not None


def gene_ids(path: Path, vocabulary: GeneVocabulary) -> np.ndarray:
    with open_h5ad(path, vocabulary) as dataset:
        return dataset.gene_ids


def test_a_disk_that_is_nearly_full_is_left_alone(
    small_h5ad: Path, small_vocabulary: GeneVocabulary, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gene_columns, "_ENTRY_BYTES", 1 << 40)
    with (
        open_h5ad(small_h5ad, small_vocabulary) as dataset,
        pytest.raises(StoreError, match=r"GB beside the file, and [\d.,]+ GB are free") as caught,
    ):
        write_gene_columns(dataset, folder)
    assert "takes longer" in caught.value.hint
    assert list(folder.iterdir()) == []


_FULL = """
import resource, signal, sys
from pathlib import Path
from scdiva_core.data.gene_columns import write_gene_columns
from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.vocabulary import human_genes
from scdiva_core.errors import StoreError

source, folder = map(Path, sys.argv[1:])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_h5ad(source, human_genes()) as dataset:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        write_gene_columns(dataset, folder)
    except StoreError as error:
        print(error)
print([path.name for path in folder.iterdir()])
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on the size of files")
def test_a_disk_that_fills_up_on_the_way_ends_in_words(small_h5ad: Path, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(small_h5ad), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be kept beside it" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
