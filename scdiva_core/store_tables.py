"""Tables as arrays that the store can keep."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiva_core.store import StoredResult


def packed(table: pd.DataFrame) -> NDArray[np.void]:
    """Turn a table into a structured array, which the store can keep; text becomes fixed-width, missing text empty.

    Parameters
    ----------
    table
        Columns of numbers, booleans or text. Its index is dropped.
    """
    texts = {name: table[name].fillna("").astype(str) for name in table if table[name].dtype == object}
    widths = {name: f"U{max(text.str.len().max(), 1) if len(text) else 1}" for name, text in texts.items()}
    return np.asarray(table.assign(**texts).to_records(index=False, column_dtypes=widths))


def unpacked(entry: StoredResult, name: str) -> pd.DataFrame | None:
    """Read a table that `packed` made, with the ``attrs`` of the entry's notes; None where the entry has none."""
    if name not in entry.arrays:
        return None
    table = pd.DataFrame(np.array(entry.arrays[name]))
    table.attrs.update(entry.meta.get("attrs", {}).get(name, {}))
    return table
