"""What the parts of a reconstruction's page share: the result at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st

from pages._ui import maps, state
from pages._ui.reconstruction_words import MEASURE_HELP, MEASURES
from pages._ui.reconstruction_work import Asked
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_reconstruction import ReconstructionResult


@dataclass(frozen=True)
class Shown:
    """A reconstruction on the page.

    Parameters
    ----------
    choice, cells, found
        The open data set and its maps.
    item, result
        What was asked for, and what came of it.
    title
        Of its figures: whose cells, after the warning of random weights.
    file
        What files of it are called.
    """

    choice: state.Choice
    cells: H5adDataset
    found: maps.Found
    item: Asked
    result: ReconstructionResult
    title: str
    file: str


def choose_measure(key: str, *, first: str, offered: Mapping[str, str] = MEASURES) -> str:
    """Let the user choose a measure, with its definition below.

    Parameters
    ----------
    key
        Of the field.
    first
        Chosen before anybody has.
    offered
        Measure -> what it is called.
    """
    measure = st.segmented_control(
        "Measure",
        list(offered),
        default=first,
        required=True,
        format_func=offered.get,
        key=key,
        wrap=True,
        help="\n\n".join(f"**{name}**: {MEASURE_HELP[measure]}" for measure, name in offered.items()),
    )
    st.caption(MEASURE_HELP[measure])
    return measure
