"""Parts of the Python and of the commands that make a result again."""

from __future__ import annotations

import numpy as np
import streamlit as st

from pages._ui import datasets, resources, state
from scdiva_core.data.packing import pack_mask

UNPACKING = "import numpy as np\n\nfrom scdiva_core.data.packing import unpack_mask\n"
"""Imports of lines that hold cells of `packed_cells`."""


def packed_cells(places: np.ndarray, n_obs: int) -> str:
    """Expression for the places of some cells.

    Parameters
    ----------
    places
        int64, ascending.
    n_obs
        Cells of the data set.
    """
    mask = np.isin(np.arange(n_obs), places)
    return f"np.flatnonzero(unpack_mask({pack_mask(mask)!r}, {n_obs}))"


def engine_line() -> str:
    """Line that makes the engine of this server."""
    return f"engine = Engine({resources.checkpoint()!r}, device={resources.device()!r})"


def opening_line(choice: state.Choice) -> str:
    """Line that opens a data set as ``cells``, in the way in which it is read."""
    options = "".join(
        f", {name}={value!r}"
        for name, value, plain in (("matrix", choice.matrix, None), ("values", choice.values, "auto"))
        if value != plain
    )
    return f"with engine.open({str(datasets.locate(choice))!r}{options}) as cells:"


def reading_flags(choice: state.Choice) -> list[str]:
    """Flags of the command line for the checkpoint and for how the file is read; none for what is so by default."""
    return [
        part
        for name, value, plain in (
            ("--checkpoint", resources.checkpoint(), "default"),
            ("--device", resources.device(), "auto"),
            ("--matrix", choice.matrix, None),
            ("--values", choice.values, "auto"),
        )
        if value != plain
        for part in (name, value)
    ]


def show(python: str, command: str | None, *, why_none: str) -> None:
    """Offer them.

    Parameters
    ----------
    python
        Lines.
    command
        For a shell; None where the command line has no words for it.
    why_none
        Said then.
    """
    with st.expander("Copy as Python or as a command", icon=":material/code:"):
        st.code(python, language="python")
        if command is None:
            st.caption(why_none)
        else:
            st.code(command, language="bash")
