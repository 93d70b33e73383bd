"""What is said of a file before it is loaded, and which files are refused at the door."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.preflight import preflight
from scdiva_core.data.vocabulary import GeneVocabulary, human_genes
from scdiva_core.errors import DataError


def write(adata: anndata.AnnData, path: Path) -> Path:
    adata.write_h5ad(path)
    return path


def test_real_file_is_described(data_root: Path) -> None:
    path = data_root / "demo" / "kang2018_pbmc_ifnb_3k.h5ad"
    found = preflight(path, human_genes())
    assert (found.n_obs, found.n_vars, found.size_bytes) == (3000, 13534, path.stat().st_size)
    assert (found.recommended, found.value_kind) == ("X", "counts")
    assert "whole numbers" in found.value_reason
    assert (found.gene_column, found.gene_kind) == (None, "symbols")
    assert found.share_known == found.genes_known / 13534 > 0.8
    assert [(column.name, column.kind, column.n_unique) for column in found.obs_columns] == [
        ("cell_type", "category", 10),
        ("condition", "category", 2),
    ]
    info = found.matrices[0]
    assert (info.name, info.format, info.dtype, info.shape) == ("X", "csr", "uint16", (3000, 13534))
    assert 0 < info.bytes_on_disk < path.stat().st_size
    assert found.detected_genes == info.nnz / 3000
    assert json.loads(json.dumps(found.to_dict()))["obs_columns"][0]["n_unique"] == 10


def test_genes_are_not_counted_without_a_vocabulary(data_root: Path) -> None:
    found = preflight(data_root / "demo" / "tenx_pbmc3k.h5ad")
    assert (found.genes_known, found.share_known) == (None, None)
    assert found.gene_kind == "symbols"


def test_memory_estimate_is_near_what_reading_takes(data_root: Path) -> None:
    with open_h5ad(data_root / "corpus" / "hao2021_pbmc_1k.h5ad", human_genes()) as dataset:
        tracemalloc.start()
        for _ in dataset.chunks():
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert 0.6 * peak < dataset.preflight.estimated_memory_bytes < 1.6 * peak


def test_dense_files_estimate_detected_genes(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.X = adata.X.toarray()
    found = preflight(write(adata, tmp_path / "a.h5ad"))
    assert found.matrices[0].nnz is None
    assert found.detected_genes == pytest.approx(pbmc.X.nnz / 60)


# --- what the values are ---


def logged(adata: anndata.AnnData, total: float) -> None:
    sc.pp.normalize_total(adata, target_sum=total)
    sc.pp.log1p(adata)


CHANGES: dict[str, Callable[[anndata.AnnData], None]] = {
    "counts": lambda adata: None,
    "log1p": lambda adata: logged(adata, 1e4),
    "normalised": lambda adata: sc.pp.normalize_total(adata, target_sum=1e6),
    "scaled": lambda adata: sc.pp.scale(adata),
}


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("kind", list(CHANGES))
def test_kind_of_values_is_recognised(pbmc, tmp_path: Path, kind: str, form: str) -> None:
    adata = pbmc.copy()
    adata.X = adata.X.toarray().astype(np.float32)
    CHANGES[kind](adata)
    adata.X = adata.X if form == "dense" else sp.csr_matrix(adata.X).asformat(form)
    found = preflight(write(adata, tmp_path / "a.h5ad"))
    assert found.value_kind == kind
    assert any(kind == "counts" or "negative" in text or "scaled to 10,000" in text for text in found.warnings) or (
        kind == "log1p"
    )


def test_small_normalised_values_are_not_taken_for_logarithms(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.X = adata.X.astype(np.float32)
    sc.pp.normalize_total(adata, target_sum=50)
    found = preflight(write(adata, tmp_path / "a.h5ad"))
    assert found.value_kind == "normalised"
    assert "every sampled cell sums to 50" in found.value_reason


def test_logarithms_of_another_total_are_said(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.X = adata.X.astype(np.float32)
    logged(adata, 1e6)
    found = preflight(write(adata, tmp_path / "a.h5ad"))
    assert any("sum to about 1,000,000 a cell; the model expects 10,000" in text for text in found.warnings)


def test_all_zero_and_not_finite_samples_are_unknown(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.X = adata.X.toarray().astype(np.float32) * 0
    assert "no value other than zero" in preflight(write(adata, tmp_path / "zero.h5ad")).value_reason
    adata.X[2, 3] = np.nan
    assert "1 of 1 sampled values are not finite" in preflight(write(adata, tmp_path / "nan.h5ad")).value_reason


def test_counts_of_all_genes_are_recommended(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.raw = adata.copy()
    adata = adata[:, :200].copy()
    adata.layers["spliced"] = adata.X.copy()
    adata.X = adata.X.astype(np.float32)
    logged(adata, 1e4)
    found = preflight(write(adata, tmp_path / "a.h5ad"))
    assert found.recommended == "raw/X"
    assert found.n_vars == 700
    assert found.kinds == {"X": "log1p", "raw/X": "counts", "layers/spliced": "counts"}
    assert any("counts of 700 genes only" in text for text in found.warnings)
    del adata.raw
    assert preflight(write(adata, tmp_path / "b.h5ad")).recommended == "X"


@pytest.mark.parametrize(("share", "words"), [(0.5, None), (0.3, "results will be weaker"), (0.1, "will be refused")])
def test_low_shares_of_known_genes_warn(pbmc, tmp_path: Path, share: float, words: str | None) -> None:
    path = write(pbmc, tmp_path / "a.h5ad")
    found = preflight(path, GeneVocabulary(list(pbmc.var_names[: int(share * 700)])), gene_column="index")
    assert found.share_known == pytest.approx(share)
    warnings = [text for text in found.warnings if "The model knows" in text]
    assert [words in text for text in warnings] == ([True] if words else [])


def test_genes_summed_are_said(tmp_path: Path) -> None:
    adata = anndata.AnnData(np.ones((3, 3)), var=pd.DataFrame(index=["CD3D", "CD3D-1", "CD4"]))
    found = preflight(write(adata, tmp_path / "a.h5ad"), human_genes())
    assert "1 genes share their token with another one and are summed with it." in found.warnings


# --- damaged and hostile files ---


def replace(file: h5py.File, name: str, data: object, **options: object) -> None:
    """Put other values where a data set was, keeping its attributes."""
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, data=data, **options).attrs.update(attributes)


def huge_shape(file: h5py.File) -> None:
    file["X"].attrs["shape"] = [2**40, 700]


def never_written(file: h5py.File) -> None:
    del file["X"]
    file.create_dataset("X", shape=(60, 2**28), chunks=(1, 2**20), dtype="f4")


def outside(file: h5py.File) -> None:
    del file["X"]
    file.create_dataset("X", shape=(60, 700), dtype="u1", external=[("/etc/passwd", 0, 42_000)])


def virtual(file: h5py.File) -> None:
    del file["X"]
    layout = h5py.VirtualLayout((60, 700), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "X", (60, 700))
    file.create_virtual_dataset("X", layout)


def linked(file: h5py.File) -> None:
    del file["X"]
    file["X"] = h5py.ExternalLink("/dev/zero", "X")


def soft_linked(file: h5py.File) -> None:
    file.move("X", "uns/hidden")
    file["X"] = h5py.SoftLink("/uns/hidden")


DAMAGE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "no X": (lambda f: f.__delitem__("X"), "no matrix that can be read"),
    "no obs": (lambda f: f.__delitem__("obs"), "no table 'obs'"),
    "no var": (lambda f: f.__delitem__("var"), "no table 'var'"),
    "no index": (lambda f: f["obs"].attrs.__delitem__("_index"), "does not say which column holds its names"),
    "index is a path": (lambda f: f["obs"].attrs.__setitem__("_index", "../var/gene"), "no data set"),
    "old table": (
        lambda f: (f.__delitem__("obs"), f.__setitem__("obs", np.zeros(60, "i4,f4"))),
        "before 0.7",
    ),
    "short pointers": (lambda f: replace(f, "X/indptr", f["X/indptr"][:-1]), "has 60 pointers"),
    "falling pointers": (lambda f: replace(f, "X/indptr", f["X/indptr"][:][::-1]), "do not rise from 0"),
    "fewer values": (lambda f: replace(f, "X/data", f["X/data"][:-5]), "values and"),
    "fewer cells": (lambda f: replace(f, "obs/cell", f["obs/cell"][:-5]), "but obs has 55 rows"),
    "huge shape": (huge_shape, "declares 1,099,511,627,776 cells"),
    "no shape": (lambda f: f["X"].attrs.__delitem__("shape"), "does not declare its shape"),
    "other encoding": (lambda f: f["X"].attrs.__setitem__("encoding-type", "coo"), "the encoding 'coo'"),
    "text": (lambda f: replace(f, "X/data", ["a"] * len(f["X/data"])), "holds text"),
    "complex": (lambda f: replace(f, "X/data", f["X/data"][:] * 1j), "neither numbers nor text"),
    "float indices": (lambda f: replace(f, "X/indices", f["X/indices"][:] * 1.0), "indices of type float64"),
    "never written": (never_written, "declares 64,424,509,440 bytes but stores 0"),
    "external": (outside, "keeps its values in another file"),
    "virtual": (virtual, "keeps its values in another file"),
    "external link": (linked, "is a link to another place"),
    "soft link": (soft_linked, "is a link to another place"),
    "index in range": (lambda f: replace(f, "X/indices", f["X/indices"][:] + 650), "outside 0 to 699"),
}


@pytest.mark.parametrize("case", list(DAMAGE))
def test_damage_is_refused_with_the_reason(pbmc, tmp_path: Path, case: str) -> None:
    path = write(pbmc, tmp_path / "a.h5ad")
    damage, message = DAMAGE[case]
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(DataError, match=message) as caught:
        preflight(path, human_genes())
    assert caught.value.hint


def test_what_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_bytes(b"barcode,CD3D\n")
    with pytest.raises(DataError, match=r"'a\.h5ad' \(13 bytes\) is not an HDF5 file"):
        preflight(tmp_path / "a.h5ad")
    with pytest.raises(DataError, match=r"There is no file 'b\.h5ad'"):
        preflight(tmp_path / "b.h5ad")


def test_truncated_file_is_refused(pbmc, tmp_path: Path) -> None:
    path = write(pbmc, tmp_path / "a.h5ad")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="truncated"):
        preflight(path)


def test_damaged_text_that_hangs_the_library_is_refused(pbmc, tmp_path: Path) -> None:
    path = write(pbmc, tmp_path / "a.h5ad")
    content = bytearray(path.read_bytes())
    first = content.find(b"GCOL\x01") + 16
    content[first : first + 16] = bytes(16)  # an object of no size: HDF5 never gets past it
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"The text at byte [\d,]+ of the file is damaged"):
        preflight(path)


def test_reference_to_gigabytes_of_text_is_refused(pbmc, tmp_path: Path) -> None:
    path = write(pbmc, tmp_path / "a.h5ad")
    with h5py.File(path) as file:
        place = file["var/gene"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[place + 3] = 0xF0  # highest byte of the first name's length
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"References to text at byte {place:,} of the file are damaged"):
        preflight(path)


def test_a_damaged_layer_or_column_is_left_out_and_said(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.layers["broken"] = adata.X.copy()
    adata.obs["short"] = 1.0
    path = write(adata, tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        replace(file, "layers/broken/indptr", np.zeros(3, int))
        replace(file, "obs/short", np.zeros(3))
    found = preflight(path)
    assert [info.name for info in found.matrices] == ["X"]
    assert any("layers/broken is left out: layers/broken declares 60 cells" in text for text in found.warnings)
    assert "Column 'short' of obs is left out: Column 'short' has 3 values for 60 rows." in found.warnings
    with pytest.raises(DataError, match="layers/broken declares"):
        preflight(path, matrix="layers/broken")


def test_unknown_compression_is_named(pbmc, tmp_path: Path) -> None:
    path = write(pbmc, tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        values = file["X/data"][:]
        del file["X/data"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((100,))
        properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple(values.shape)
        kind = h5py.h5t.py_create(values.dtype)
        h5py.h5d.create(file["X"].id, b"data", kind, space, dcpl=properties)
        file["X/data"][:] = values
    with pytest.raises(DataError, match="compressed with Zstandard"):
        preflight(path)
