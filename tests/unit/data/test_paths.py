"""Paths from a user stay below the data folder; hashes follow the bytes."""

from __future__ import annotations

import hashlib
import os

import pytest

from scdiva_core.data.paths import file_sha256, safe_path
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


def test_hash_follows_the_bytes(root) -> None:
    path = root / "sub" / "a.h5ad"
    assert file_sha256(path) == hashlib.sha256(b"a").hexdigest()
    path.write_bytes(b"other")
    assert file_sha256(path) == hashlib.sha256(b"other").hexdigest()
    path.unlink()
    with pytest.raises(PathError, match=r"a\.h5ad' cannot be read"):
        file_sha256(path)
