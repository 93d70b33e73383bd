"""One test a threat of SECURITY.md that lies in a data file or its place."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.hdf5 import Array, open_hdf5
from scdiva_core.data.obsm import obsm_widths, read_obsm
from scdiva_core.data.paths import file_sha256, safe_path
from scdiva_core.data.preflight import preflight
from scdiva_core.data.vocabulary import human_genes
from scdiva_core.errors import DataError, PathError
from scdiva_core.tasks.export import write_result
from tests.hostile_files import sound_files
from tests.hostile_run import Watch
from tests.hostile_structure import repeat_reference

CELLS = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sound_files(tmp_path_factory.mktemp("sound"))[0]


@pytest.fixture
def sound(made: Path, tmp_path: Path) -> Path:
    """A sound file of 40 cells, in a folder of its own."""
    path = tmp_path / "root" / "cells.h5ad"
    path.parent.mkdir()
    path.write_bytes(made.read_bytes())
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[tuple[Path, Watch]]:
    """A file that nobody must touch, and what tells whether somebody did."""
    if sys.platform != "linux":
        pytest.skip("inotify is Linux's")
    path = tmp_path / "outside" / "secret.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=np.ones((CELLS, 300), "f4"), maxshape=(None, 300))
    watch = Watch(path.parent)
    yield path, watch
    watch.close()


def change(path: Path, what: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "r+") as file:
        what(file)


# --- paths ---


def test_a_link_put_in_place_after_the_check_is_refused(sound: Path, made: Path) -> None:
    allowed = safe_path("cells.h5ad", sound.parent)
    open_hdf5(allowed).close()
    sound.rename(sound.with_name("old"))
    sound.symlink_to(made)
    with pytest.raises(PathError, match=r"'cells\.h5ad' was replaced while it was opened"):
        open_hdf5(allowed)
    open_hdf5(made).close()


def test_a_folder_replaced_by_a_link_after_the_check_is_refused(sound: Path) -> None:
    allowed = safe_path("root/cells.h5ad", sound.parent.parent)
    sound.parent.rename(sound.parent.with_name("moved"))
    sound.parent.symlink_to(sound.parent.with_name("moved"))
    with pytest.raises(PathError, match="was replaced"):
        open_hdf5(allowed)


def test_a_path_of_the_user_s_own_may_be_a_link(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "link.h5ad").symlink_to(sound)
    assert preflight(tmp_path / "link.h5ad").n_obs == CELLS


# --- other files behind the file ---


def growing(file: h5py.File, source: str) -> None:
    """Put a virtual X that grows with its source: HDF5 opens that to tell the shape."""
    del file["X"]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    space = h5py.h5s.create_simple((CELLS, 300), (h5py.h5s.UNLIMITED, 300))
    space.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (1, 1), (1, 300))
    properties.set_virtual(space, source.encode(), b"X", space)
    h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, space, properties)


@pytest.mark.parametrize(
    "place", ["X", "obs/note", "obsm/X_umap", "obsm/X_scdiva", "uns", "uns/scdiva", "uns/scdiva/model"]
)
def test_no_link_is_followed_not_even_when_results_are_written(
    sound: Path, outside: tuple[Path, Watch], place: str
) -> None:
    secret, watch = outside

    def link(file: h5py.File) -> None:
        if place in file:
            del file[place]
        file[place] = h5py.ExternalLink(str(secret), "/X")

    change(sound, link)
    watch.touched()
    with pytest.raises(DataError, match=f"{place} is a link to another place"):
        export(sound)
    assert not watch.touched()


def test_a_link_that_nobody_reads_is_copied_and_not_followed(sound: Path, outside: tuple[Path, Watch]) -> None:
    secret, watch = outside
    change(sound, lambda file: file["uns"].__setitem__("other", h5py.ExternalLink(str(secret), "/X")))
    watch.touched()
    export(sound)
    assert not watch.touched()


def test_a_virtual_data_set_is_refused_before_its_sources_are_opened(sound: Path, outside: tuple[Path, Watch]) -> None:
    secret, watch = outside
    change(sound, lambda file: growing(file, str(secret)))
    watch.touched()
    with pytest.raises(DataError, match="X keeps its values in another file"):
        preflight(sound)
    assert not watch.touched()


def export(path: Path) -> None:
    with open_h5ad(path, human_genes(), min_share=0.01) as cells:
        embedding = np.zeros((cells.n_obs, 2), np.float32)
        write_result(cells, path.with_name("out.h5ad"), embedding=embedding, provenance={})


# --- little that becomes much ---


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_many_references_to_one_long_text_are_refused(sound: Path, compression: str | None) -> None:
    def bomb(file: h5py.File) -> None:
        del file["obs/note"]
        made = file.create_dataset("obs/note", (CELLS,), h5py.string_dtype(), chunks=(CELLS,), compression=compression)
        made[0] = "a" * 1_000_000
        file.flush()
        repeat_reference(made)

    change(sound, bomb)
    with (
        open_hdf5(sound) as file,
        pytest.raises(DataError, match=r"note (have|has) more than [\d,]+ (bytes|characters)"),
    ):
        Array(file["obs"], "note").text()


def test_an_attribute_of_long_texts_is_refused(sound: Path) -> None:
    def bomb(file: h5py.File) -> None:
        file["uns"].attrs["long"] = "a" * 60_000
        file["uns/text"] = "a" * 2_000_000
        file["obs"].attrs["column-order"] = np.array(["note"] * 3000, dtype=object)

    change(sound, bomb)
    with pytest.raises(DataError, match="'column-order' of /obs may lead to 3,000 long texts"):
        preflight(sound)


def test_more_rows_than_bytes_are_refused(sound: Path) -> None:
    def bomb(file: h5py.File) -> None:
        name = file["obs"].attrs["_index"]
        del file[f"obs/{name}"]
        file.create_dataset(f"obs/{name}", (5_000_000,), "S1", chunks=(1_000_000,), compression=9)[:] = b"a"

    change(sound, bomb)
    with pytest.raises(DataError, match="'obs' declares 5,000,000 rows; 1,[0-9,]+ are the most for such a file"):
        preflight(sound)


def test_columns_that_would_fill_the_memory_are_left_out(sound: Path) -> None:
    """1,400 columns that share the bytes of one would take 1.4 GB."""
    rows = 130_000

    def bomb(file: h5py.File) -> None:
        table = file.create_group("table")
        table.attrs["_index"] = "name"
        table.create_dataset("name", data=np.arange(rows).astype("S6"), compression=1)
        table.create_dataset("c0", data=np.zeros(rows), chunks=(rows,), compression=9)
        for i in range(1, 1400):
            table[f"c{i}"] = table["c0"]

    from scdiva_core.data.frames import Table

    change(sound, bomb)
    with open_hdf5(sound) as file:
        table = Table.open(file, "table")
    assert 900 < len(table.columns) < 1100
    assert len(table.columns) + len(table.left_out) == 1400
    assert all("would take more than 1,0" in reason for reason in table.left_out.values())


def test_a_piece_much_larger_than_its_values_is_refused(sound: Path) -> None:
    def bomb(file: h5py.File) -> None:
        del file["obs/score"]
        file.create_dataset("obs/score", (CELLS,), "f8", maxshape=(None,), chunks=(2**23,), compression=1)[:] = 0

    change(sound, bomb)
    reasons = [text for text in preflight(sound).warnings if "'score'" in text]
    assert reasons == ["Column 'score' of obs is left out: obs/score declares 320 bytes in pieces of 67,108,864."]


def test_declared_but_not_stored_is_refused(sound: Path) -> None:
    def bomb(file: h5py.File) -> None:
        del file["obsm/X_umap"]
        file.create_dataset("obsm/X_umap", (CELLS, 2**40), "f4", chunks=(1, 2**20))

    change(sound, bomb)
    assert obsm_widths(sound) == {}
    with pytest.raises(DataError, match="declares [0-9,]+ bytes but stores 0"):
        read_obsm(sound, "X_umap")


def test_a_million_categories_are_read(sound: Path) -> None:
    def many(file: h5py.File) -> None:
        del file["obs/cell_type/categories"]
        names = np.arange(1_000_000).astype("S7")
        file["obs/cell_type"].create_dataset("categories", data=names, compression=1)

    change(sound, many)
    found = {column.name: column for column in preflight(sound).obs_columns}
    assert found["cell_type"].n_unique == 1_000_000
    with open_h5ad(sound, human_genes(), min_share=0.01) as cells:
        assert len(cells.obs["cell_type"].cat.categories) == 1_000_000


def test_more_columns_than_can_be_shown_are_left_out_and_counted(sound: Path) -> None:
    def many(file: h5py.File) -> None:
        node, group = file["obs/score"].id, file["obs"].id
        for i in range(120_000):
            h5py.h5o.link(node, group, b"c%d" % i)

    change(sound, many)
    found = preflight(sound)
    assert len(found.obs_columns) == 2_000
    assert any("118,0" in text and "2,000 columns are the most that are read" in text for text in found.warnings)


# --- names ---


def test_names_that_mislead_are_not_shown(sound: Path) -> None:
    def mislead(file: h5py.File) -> None:
        for name in ("\u202egnp", "a\x1b[31m", "tab\t", "fine"):
            file[f"obs/{name}"] = file["obs/score"]
        h5py.h5o.link(file["obs/score"].id, file["obs"].id, b"\xff\xfe")

    change(sound, mislead)
    names = {column.name for column in preflight(sound).obs_columns}
    assert "fine" in names
    assert all(name.isprintable() for name in names)
    assert not any("gnp" in name or "31m" in name or "tab" in name for name in names)


# --- what happens to a file while it is open ---


def test_a_file_deleted_while_open_is_read_to_its_end(sound: Path) -> None:
    with open_h5ad(sound, human_genes(), min_share=0.01) as cells:
        sound.unlink()
        assert sum(chunk.shape[0] for _, chunk in cells.chunks(rows=16)) == CELLS
        assert len(cells.obs) == CELLS
        with pytest.raises(PathError, match="cannot be read"):
            file_sha256(cells.path)


def test_a_file_deleted_between_opening_and_report_is_reported(sound: Path) -> None:
    from scdiva_core.data.inspection import inspect_file
    from scdiva_core.data.preflight import report

    size = sound.stat().st_size
    with open_hdf5(sound) as file:
        sound.unlink()
        assert report(file, inspect_file(file), matched=False).size_bytes == size


def test_a_file_cut_short_while_open_is_refused(sound: Path) -> None:
    with open_h5ad(sound, human_genes(), min_share=0.01) as cells:
        os.truncate(sound, 2048)
        with pytest.raises(DataError, match="damaged|cannot be read"):  # of X the library may have kept it all
            cells.obs.memory_usage()


def test_a_file_written_anew_is_searched_anew(sound: Path) -> None:
    open_hdf5(sound).close()
    content = bytearray(sound.read_bytes())
    first = content.find(b"GCOL\x01") + 16
    content[first : first + 16] = bytes(16)
    sound.write_bytes(content)
    with pytest.raises(DataError, match="The text at byte"):
        open_hdf5(sound)


# --- a full disk ---


def test_a_full_disk_leaves_no_half_result(sound: Path) -> None:
    """A limit on the size of files stands for the full disk: the system refuses the write in the same way."""
    with open_h5ad(sound, human_genes(), min_share=0.01) as cells:
        embedding = np.zeros((cells.n_obs, 50_000), np.float32)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (sound.stat().st_size + 100_000, hard))
        try:
            with pytest.raises(DataError, match="cannot be written"):
                write_result(cells, sound.with_name("out.h5ad"), embedding=embedding, provenance={})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in sound.parent.iterdir()] == ["cells.h5ad"]
