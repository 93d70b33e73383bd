"""Paths from a user stay below the data folder; hashes follow the bytes."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing

import pytest

from scdiva_core.data import hashes, paths
from scdiva_core.data.paths import check_again, file_sha256, safe_path
from scdiva_core.errors import PathError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "sub" / "a.h5ad").write_bytes(b"a")
    (tmp_path / "secret.h5ad").write_bytes(b"s")
    return tmp_path / "data"


def test_relative_and_absolute_paths_below_the_root(root) -> None:
    assert safe_path("sub/a.h5ad", root) == (root / "sub" / "a.h5ad").resolve()
    assert safe_path(root / "sub" / ".." / "sub" / "a.h5ad", root) == (root / "sub" / "a.h5ad").resolve()


def test_link_within_the_root_is_followed(root) -> None:
    (root / "link.h5ad").symlink_to(root / "sub" / "a.h5ad")
    assert safe_path("link.h5ad", root).name == "a.h5ad"


@pytest.mark.parametrize("path", ["../secret.h5ad", "sub/../../secret.h5ad", "/etc/passwd"])
def test_ways_out_are_refused(root, path: str) -> None:
    with pytest.raises(PathError, match="leads out of the data folder"):
        safe_path(path, root)


def test_link_out_of_the_root_is_refused(root) -> None:
    (root / "link.h5ad").symlink_to(root.parent / "secret.h5ad")
    with pytest.raises(PathError, match="leads out"):
        safe_path("link.h5ad", root)


def test_folder_with_the_roots_name_as_prefix_is_outside(root) -> None:
    (root.parent / "data2").mkdir()
    (root.parent / "data2" / "a.h5ad").write_bytes(b"a")
    with pytest.raises(PathError, match="leads out"):
        safe_path("../data2/a.h5ad", root)


@pytest.mark.parametrize("path", ["", ".", "sub", "missing.h5ad"])
def test_only_files_are_given_back(root, path: str) -> None:
    with pytest.raises(PathError, match="no file"):
        safe_path(path, root)


def test_pipes_are_no_files(root) -> None:
    os.mkfifo(root / "pipe.h5ad")
    with pytest.raises(PathError, match="no file"):
        safe_path("pipe.h5ad", root)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_impossible_names_are_refused(root, path: str) -> None:
    with pytest.raises(PathError, match="cannot be followed|no file"):
        safe_path(path, root)


def test_loop_of_links_is_refused(root) -> None:
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(PathError, match="cannot be followed|no file"):
        safe_path("loop", root)


def test_a_link_that_came_after_the_check_of_another_process_is_refused(root) -> None:
    path = safe_path("sub/a.h5ad", root)
    assert check_again(str(path)) == path
    path.rename(root / "b.h5ad")
    with pytest.raises(PathError, match="no longer where it was"):
        check_again(path)
    path.symlink_to(root.parent / "secret.h5ad")
    with pytest.raises(PathError, match="no longer where it was"):
        check_again(path)
    path.unlink()
    (root / "b.h5ad").rename(path)
    (root / "sub").rename(root.parent / "elsewhere")
    (root / "sub").symlink_to(root.parent / "elsewhere")
    with pytest.raises(PathError, match="no longer where it was"):
        check_again(path)


def test_the_hash_of_a_large_file_outlives_the_process(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_SETTLED_SECONDS", 0)
    path, kept = tmp_path / "large", tmp_path / "kept"
    with path.open("wb") as file:
        file.truncate(65_000_000)
    right = file_sha256(path, kept)
    with closing(sqlite3.connect(kept / "hashes.sqlite")) as table, table:
        table.execute("UPDATE hashes SET sha256 = 'read from the table'")
    paths._file_sha256.cache_clear()
    assert file_sha256(path, kept) == "read from the table"
    assert file_sha256(path) == right
    path.touch()
    assert file_sha256(path, kept) == right
    (kept / "hashes.sqlite").write_bytes(b"no table at all")
    paths._file_sha256.cache_clear()
    assert file_sha256(path, kept) == right


def test_the_hash_of_a_file_that_has_just_changed_is_not_kept(tmp_path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(65_000_000)
    file_sha256(path, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_hash_follows_the_bytes(root) -> None:
    path = root / "sub" / "a.h5ad"
    assert file_sha256(path) == hashlib.sha256(b"a").hexdigest()
    path.write_bytes(b"other")
    assert file_sha256(path) == hashlib.sha256(b"other").hexdigest()
    path.unlink()
    with pytest.raises(PathError, match=r"a\.h5ad' cannot be read"):
        file_sha256(path)
