"""Tables of an ``.h5ad`` file (``obs``, ``var``): which columns there are, and reading them.

Encodings are those of anndata's on-disk specification 0.2 (since 0.7, 2020) and the ``__categories`` of 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import h5py
import numpy as np
import pandas as pd

from scdiva_core.data.hdf5 import Array, attribute, keys, member, subgroup, text_attribute
from scdiva_core.errors import DataError

_MOST_COLUMNS = 2_000
_KINDS = {"f": "number", "i": "number", "u": "number", "b": "bool"}
_NULLABLE = {"nullable-integer": "number", "nullable-boolean": "bool", "nullable-string-array": "text"}


@dataclass(frozen=True)
class ObsColumn:
    """Header of one column.

    Parameters
    ----------
    name
        Column name.
    kind
        ``"category"``, ``"number"``, ``"text"`` or ``"bool"``.
    n_unique
        Number of categories; None for other kinds, whose values are not read for it.
    """

    name: str
    kind: str
    n_unique: int | None = None


@dataclass
class Table:
    """``obs`` or ``var`` of an open file; values are read on demand.

    Parameters
    ----------
    group
        HDF5 group of the table.
    index_name
        Column that holds the row names.
    length
        Number of rows.
    columns
        Columns that can be read, in the file's order.
    left_out
        Columns that cannot, with the reason.
    """

    group: h5py.Group
    index_name: str
    length: int = 0
    columns: tuple[ObsColumn, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, parent: h5py.Group, name: str) -> Table:
        """Read the header of a table.

        Parameters
        ----------
        parent
            The file, or its ``raw`` group.
        name
            ``"obs"`` or ``"var"``.

        Raises
        ------
        DataError
            The table is missing, of the form before anndata 0.7, or has no index.
        """
        node = member(parent, name)
        hint = "Open it in a current anndata and write it anew."
        if isinstance(node, h5py.Dataset):
            message = f"The table {name!r} is in the form of anndata before 0.7 (2020)."
            raise DataError(message, hint)
        if node is None:
            message = f"The file has no table {name!r}."
            raise DataError(message, "It is not a complete .h5ad file: write it anew with anndata.")
        index_name = text_attribute(node, "_index")
        if index_name is None:
            message = f"The table {name!r} does not say which column holds its names (attribute '_index')."
            raise DataError(message, hint)
        table = cls(node, index_name)
        table.length = len(table._parts(index_name)[0])
        table._describe()
        return table

    def _describe(self) -> None:
        found = []
        names = [name for name in keys(self.group) if name not in (self.index_name, "__categories")]
        order = attribute(self.group, "column-order")
        position = {str(n): i for i, n in enumerate(order)} if isinstance(order, np.ndarray) else {}
        names.sort(key=lambda name: position.get(name, len(position)))
        for name in names[:_MOST_COLUMNS]:
            try:
                found.append(self._header(name))
            except DataError as error:
                self.left_out[name] = error.message
        self.columns = tuple(found)
        if len(names) > _MOST_COLUMNS:
            rest = f"{names[_MOST_COLUMNS]} and {len(names) - _MOST_COLUMNS - 1:,} more"
            self.left_out[rest] = f"{_MOST_COLUMNS:,} columns are the most that are read"

    def _header(self, name: str) -> ObsColumn:
        values, categories = self._parts(name)
        if len(values) != self.length:
            message = f"Column {name!r} has {len(values):,} values for {self.length:,} rows."
            raise DataError(message)
        if categories is not None:
            return ObsColumn(name, "category", len(categories))
        return ObsColumn(name, "text" if values.is_text else _KINDS[values.dtype.kind])

    def _parts(self, name: str) -> tuple[Array, Array | None]:
        """Return the arrays of a column: its values (or codes) and its categories, if any."""
        node = member(self.group, name)
        if isinstance(node, h5py.Group):
            encoding = text_attribute(node, "encoding-type")
            if encoding == "categorical":
                return Array(node, "codes"), Array(node, "categories")
            if encoding in _NULLABLE:
                return Array(node, "values"), None
            message = f"Column {name!r} has the encoding {encoding!r}, which is not read."
            raise DataError(message)
        legacy = subgroup(self.group, "__categories")
        if legacy is not None and member(legacy, name) is not None:
            return Array(self.group, name), Array(legacy, name)
        return Array(self.group, name), None

    def index(self) -> np.ndarray:
        """Read the row names, object array of str [length]."""
        return self.text(self.index_name)

    def text(self, name: str) -> np.ndarray:
        """Read a column as strings; missing values are empty.

        Parameters
        ----------
        name
            One of `columns`, or the index.

        Returns
        -------
        ndarray
            Object array of str [length].
        """
        column = pd.Series(self.values(name))
        return column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=object)

    def values(self, name: str) -> pd.Categorical | np.ndarray | pd.api.extensions.ExtensionArray:
        """Read a column.

        Parameters
        ----------
        name
            One of `columns`.

        Returns
        -------
        pandas.Categorical, extension array or ndarray
            Categories stay categories; text is an object array.

        Raises
        ------
        DataError
            Codes that name no category, categories that occur twice, or a damaged file.
        """
        values, categories = self._parts(name)
        if categories is not None:
            return self._categorical(name, values, categories)
        node = self.group[name]
        if isinstance(node, h5py.Group) and member(node, "mask") is not None:
            return _nullable(values, Array(node, "mask"))
        return values.text() if values.is_text else values.read()

    def _categorical(self, name: str, values: Array, categories: Array) -> pd.Categorical:
        codes = values.read()
        labels = pd.Index(categories.text() if categories.is_text else categories.read())
        hint = "Open the file in anndata, convert the column to text, and write it anew."
        whole = codes.dtype.kind in "iu"
        if not whole or (codes.size and not -1 <= codes.min() <= codes.max() < len(labels)):
            message = f"The column {name!r} has codes that name none of its {len(labels):,} categories."
            raise DataError(message, hint)
        if not labels.is_unique or labels.hasnans:
            message = f"The column {name!r} names a category twice or leaves it empty."
            raise DataError(message, hint)
        node = self.group[name]
        ordered = attribute(node, "ordered")
        ordered = isinstance(ordered, (bool, np.bool_)) and bool(ordered)
        return pd.Categorical.from_codes(codes.astype(np.int64), labels, ordered=ordered)

    def frame(self) -> pd.DataFrame:
        """Read the whole table, its index as strings."""
        data = {column.name: self.values(column.name) for column in self.columns}
        return pd.DataFrame(data, index=pd.Index(self.index(), dtype=object))


def _nullable(values: Array, mask: Array) -> pd.api.extensions.ExtensionArray | np.ndarray:
    """Join values with their mask of missing ones."""
    missing = mask.read().astype(bool)
    if len(missing) != len(values):
        message = f"{mask.label} has {len(missing):,} values, {values.label} {len(values):,}."
        raise DataError(message, "Open the file in anndata and write it anew.")
    if values.is_text:
        return np.where(missing, None, values.text())
    return pd.Series(values.read()).convert_dtypes(convert_floating=False).mask(missing).array
