"""Tables of an ``.h5ad`` file (``obs``, ``var``): which columns there are, and reading them.

Encodings are those of anndata's on-disk specification 0.2 (since 0.7, 2020) and the ``__categories`` of 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import h5py
import numpy as np
import pandas as pd

from scdiva_core.data.hdf5 import Array, attribute, keys, member, most_memory, most_rows, subgroup, text_attribute
from scdiva_core.errors import DataError
from scdiva_core.lazy import cached_property

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
        index = table._parts(index_name)[0]
        table.length = len(index)
        most = most_rows(node)
        if table.length > most:
            message = f"The table {name!r} declares {table.length:,} rows; {most:,} are the most for such a file."
            raise DataError(message, hint)
        table._describe(index.memory_bytes)
        return table

    def _describe(self, taken: int) -> None:
        """Look at the headers of columns, until the table would take more memory than is sensible."""
        found, most = [], most_memory(self.group)
        names = [name for name in keys(self.group) if name not in (self.index_name, "__categories")]
        position = self._order()
        names.sort(key=lambda name: position.get(name, len(position)))
        for name in names[:_MOST_COLUMNS]:
            try:
                column, size = self._header(name)
            except DataError as error:
                self.left_out[name] = error.message
                continue
            if taken + size > most:
                self.left_out[name] = f"the table would take more than {most:,} bytes of memory"
                continue
            taken += size
            found.append(column)
        self.columns = tuple(found)
        if len(names) > _MOST_COLUMNS:
            rest = f"{names[_MOST_COLUMNS]} and {len(self.group) - _MOST_COLUMNS - 2:,} more"  # the index is one
            self.left_out[rest] = f"{_MOST_COLUMNS:,} columns are the most that are read"

    def _order(self) -> dict[str, int]:
        """Place of each column as the file says it; empty where it does not."""
        order = attribute(self.group, "column-order")
        if order is None:
            return {}
        if not isinstance(order, np.ndarray) or order.ndim != 1:
            message = f"The attribute 'column-order' of {self.group.name} is no list of names."
            raise DataError(message, "Open the file in anndata and write it anew.")
        return {str(name): i for i, name in enumerate(order)}

    def _header(self, name: str) -> tuple[ObsColumn, int]:
        """Describe a column and say how many bytes of memory it takes."""
        values, categories = self._parts(name)
        if len(values) != self.length:
            message = f"Column {name!r} has {len(values):,} values for {self.length:,} rows."
            raise DataError(message)
        if categories is not None:
            return ObsColumn(name, "category", len(categories)), values.memory_bytes + categories.memory_bytes
        return ObsColumn(name, "text" if values.is_text else _KINDS[values.dtype.kind]), values.memory_bytes

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
        if self._legacy is not None and member(self._legacy, name) is not None:
            return Array(self.group, name, found=node), Array(self._legacy, name)
        return Array(self.group, name, found=node), None

    @cached_property
    def _legacy(self) -> h5py.Group | None:
        """Categories as anndata kept them before 0.7; asked for once, not for each of thousands of columns."""
        return subgroup(self.group, "__categories")

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

    def frame(self, index: np.ndarray) -> pd.DataFrame:
        """Read the whole table.

        Parameters
        ----------
        index
            Names of the rows, object array of str ``[length]``: what `index` returns.

        Raises
        ------
        DataError
            As for `values`; or columns of text share long texts and would fill the memory.
        """
        data, characters, most = {}, 0, most_memory(self.group)
        for column in self.columns:
            data[column.name] = values = self.values(column.name)
            if column.kind == "text":
                characters += sum(len(text) for text in values if text is not None)
            if characters > most:
                message = f"The texts of the table take more than {most:,} bytes of memory."
                raise DataError(message, "Open the file in anndata, remove columns of long text, and write it anew.")
        return pd.DataFrame(data, index=pd.Index(index, dtype=object))


def _nullable(values: Array, mask: Array) -> pd.api.extensions.ExtensionArray | np.ndarray:
    """Join values with their mask of missing ones."""
    missing = mask.read().astype(bool)
    if len(missing) != len(values):
        message = f"{mask.label} has {len(missing):,} values, {values.label} {len(values):,}."
        raise DataError(message, "Open the file in anndata and write it anew.")
    if values.is_text:
        return np.where(missing, None, values.text())
    return pd.Series(values.read()).convert_dtypes(convert_floating=False).mask(missing).array
