"""Finding the matrices of an ``.h5ad`` file, and checking their headers before anything is read."""

from __future__ import annotations

import h5py
import numpy as np

from scdiva_core.data.hdf5 import Array, attribute, keys, member, subgroup, text_attribute
from scdiva_core.data.matrix import CscMatrix, CsrMatrix, DenseMatrix, Matrix, MatrixInfo
from scdiva_core.errors import DataError

_MOST = 2**31 - 1
_HINT = "Open the file in anndata and write it anew."


def matrix_places(file: h5py.File) -> list[tuple[h5py.Group, str, str]]:
    """List where a file keeps matrices: ``X``, ``raw/X``, then the layers.

    Parameters
    ----------
    file
        Open ``.h5ad`` file.

    Returns
    -------
    list of tuple
        Parent group, key and name, as `open_matrix` takes them.
    """
    found = [(file, "X", "X")] if member(file, "X") is not None else []
    raw, layers = subgroup(file, "raw"), subgroup(file, "layers")
    if raw is not None and member(raw, "X") is not None:
        found.append((raw, "X", "raw/X"))
    if layers is not None:
        found += [(layers, key, f"layers/{key}") for key in keys(layers)]
    return found


def open_matrix(parent: h5py.Group, key: str, name: str) -> Matrix:
    """Check the header of a matrix.

    Parameters
    ----------
    parent, key
        Group, and the name of the matrix in it.
    name
        How messages call the matrix: ``"X"``, ``"raw/X"`` or ``"layers/<name>"``.

    Returns
    -------
    Matrix
        Nothing but headers and the pointers of a sparse matrix has been read.

    Raises
    ------
    DataError
        It is missing, holds no numbers, or its parts disagree.
    """
    group = subgroup(parent, key)
    if group is None:
        values = Array(parent, key, ndim=2)
        return DenseMatrix(_info(name, "dense", values, values.shape, values.stored_bytes), values)
    layout, shape = _sparse_header(group, name)
    data, indices, pointers = Array(group, "data"), Array(group, "indices"), Array(group, "indptr")
    stored = data.stored_bytes + indices.stored_bytes + pointers.stored_bytes
    info = _info(name, layout, data, shape, stored)
    if any(part.is_text or part.dtype.kind not in "iu" for part in (indices, pointers)):
        message = f"{name} has indices of type {indices.dtype} and pointers of type {pointers.dtype}."
        raise DataError(message, f"Both must be whole numbers. {_HINT}")
    indptr = _checked_pointers(info, data, indices, pointers)
    return (CsrMatrix if layout == "csr" else CscMatrix)(info, data, indices, indptr)


def _sparse_header(group: h5py.Group, name: str) -> tuple[str, tuple[int, int]]:
    """Return ``"csr"`` or ``"csc"`` and the declared shape (anndata's attributes, new or before 0.7)."""
    layout = text_attribute(group, "encoding-type") or text_attribute(group, "h5sparse_format")
    shape = attribute(group, "shape")
    shape = attribute(group, "h5sparse_shape") if shape is None else shape
    layout = str(layout).removesuffix("_matrix")
    if layout not in ("csr", "csc"):
        message = f"{name} has the encoding {layout!r}; csr_matrix, csc_matrix or a plain array is expected."
        raise DataError(message, _HINT)
    if np.shape(shape) != (2,) or np.asarray(shape).dtype.kind not in "iu":
        message = f"{name} does not declare its shape as two whole numbers."
        raise DataError(message, _HINT)
    return layout, (int(shape[0]), int(shape[1]))


def _info(name: str, layout: str, values: Array, shape: tuple[int, ...], stored: int) -> MatrixInfo:
    if values.is_text:
        message = f"{name} holds text where numbers are expected."
        raise DataError(message, "Convert the matrix to numbers in anndata and write the file anew.")
    if min(shape) < 1 or max(shape) > _MOST:
        message = f"{name} declares {shape[0]:,} cells and {shape[1]:,} genes; 1 to {_MOST:,} can be read."
        raise DataError(message, "Choose a file with cells and genes in it.")
    nnz = None if layout == "dense" else len(values)
    return MatrixInfo(name, layout, str(values.dtype), (shape[0], shape[1]), nnz, stored)


def _checked_pointers(info: MatrixInfo, data: Array, indices: Array, pointers: Array) -> np.ndarray:
    """Read the row (or column) pointers, int64 [major + 1], and hold them against the other parts."""
    major, minor = info.shape if info.format == "csr" else info.shape[::-1]
    if len(pointers) != major + 1 or len(data) != len(indices):
        message = (
            f"{info.name} declares {info.shape[0]:,} cells and {info.shape[1]:,} genes but has "
            f"{len(pointers):,} pointers, {len(data):,} values and {len(indices):,} indices."
        )
        raise DataError(message, _HINT)
    indptr = pointers.read().astype(np.int64)
    steps = np.diff(indptr)
    if indptr[0] != 0 or indptr[-1] != len(data) or steps.min() < 0:
        message = f"{info.name} has pointers that do not rise from 0 to its {len(data):,} values."
        raise DataError(message, _HINT)
    if steps.max() > minor:  # would also let one cell fill the memory
        message = f"{info.name} keeps {int(steps.max()):,} values where {minor:,} are the most."
        raise DataError(message, _HINT)
    return indptr
