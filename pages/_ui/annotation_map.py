"""The picture of the labels, and how they compare with labels that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from pages._ui import controls, errors, export, frame, maps, sets_panel, state, view, words
from pages._ui.annotation_words import HELP, REVIEW, title
from pages._ui.annotation_work import Labelled, group_columns
from pages._ui.review_session import Session
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.figures.annotation import reliability
from scdiva_core.figures.scatter import Canvas
from scdiva_core.tasks.annotation import UNKNOWN, LabelCalls
from scdiva_core.tasks.label_truth import TruthCheck, check_labels
from scdiva_core.tasks.review_session import disagreement

_WAYS = {"label": "Label", "confidence": "Confidence", "disagreement": "Disagreement", "novelty": "Novelty"}
_MOST_DRAWN = 30_000  # cells; each decision draws them anew, which shall take less than a second
_PICTURE_PIXELS = 560  # the item at hand shall not be far below
_MEANINGS = {
    "label": "Grey cells are unknown: no source says what they are, or they are unlike the reference.",
    "confidence": HELP["confidence"],
    "disagreement": HELP["disagreement"],
    "novelty": HELP["novelty"],
}


def source_control(labelled: Labelled, *, begun: bool) -> str:
    """Let the user choose whose labels are shown: a source's, the consensus', or those of the review.

    Parameters
    ----------
    labelled
        All labels.
    begun
        Whether a review of them is in progress.
    """
    return st.selectbox(
        "Labels of",
        [*([REVIEW] if begun else []), *labelled.sources()],
        format_func=title,
        key="labels-of",
        help=HELP["source"],
        width=300,
    )


def picture(
    cells: H5adDataset,
    found: maps.Found,
    labelled: Labelled,
    source: str,
    session: Session | None,
    *,
    name: str,
    note: str,
) -> sets_panel.Selection:
    """Draw the cells.

    Parameters
    ----------
    cells, found
        The open data set and its maps.
    labelled
        All labels.
    source
        Whose are shown, of `source_control`.
    session
        The review; None while labels of another one are shown.
    name, note
        Name of the data set, and the warning that travels with pictures of the model.

    Returns
    -------
    Selection
        What was drawn around.
    """
    annotated = labelled.annotated
    own = session.source if session is not None and source == REVIEW else source
    calls, others = annotated.labels(own), labelled.others(own)
    ways = [way for way in _WAYS if _there(way, labelled, others)]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="label-tools"):
        way = st.segmented_control(
            "Colour by",
            ways,
            default="label",
            format_func=_WAYS.get,
            required=True,
            key="label-colour",
            help="Label; how sure the source is; how many other sources say something else; how far a cell is from "
            "the reference.",
        )
        shape = _shape_control(found)
        only = session is not None and st.toggle(
            "Item at hand only", key="show-item", help="Dims all cells but those of the item that you are reviewing."
        )
        point_size, names_on_picture = controls.appearance_control()
    current = session.current if session is not None else None
    colouring = _colouring(way, calls, others, labelled, session if source == REVIEW else None)
    shown = current.mask(cells.n_obs) if only and current is not None else None
    canvas = Canvas(
        title=f"{name}: {_WAYS[way].lower()}, {title(source)}",
        axes=shape.axes,
        height=_PICTURE_PIXELS,
        note=note if shape.representation == "X_scdiva" else shape.note,
        dark=frame.is_dark(),
        point_size=point_size,
        narrow=frame.is_phone(),
    )

    def figure(on: Canvas) -> go.Figure:
        drawn = {"shown": shown, "canvas": on, "names_on_picture": names_on_picture, "limit": _MOST_DRAWN}
        return view.draw(shape, colouring, cells.obs_names, **drawn)

    event = st.plotly_chart(
        figure(canvas),
        theme=None,
        key=f"picture-labels-{shape.representation}-{state.selection_round()}",
        on_select="rerun",
        selection_mode=("box", "lasso"),
        config=export.plotly_config(f"{name}-{way}"),
        alt=f"Scatter plot of {cells.n_obs:,} cells coloured by {_WAYS[way].lower()}",
    )
    subset = f" Drawn: a random subset of {words.number(_MOST_DRAWN)} cells." if cells.n_obs > _MOST_DRAWN else ""
    st.caption(f"{_MEANINGS[way]}{subset} Draw around cells to split them off an item.")
    with st.container(horizontal=True):
        export.figure_downloads(
            lambda: figure(replace(canvas, dark=False, narrow=False)),
            f"{name}-{way}",
            key="figure-labels",
            size=(960, 720),
        )
    return sets_panel.Selection(shape, event.selection)


def _there(way: str, labelled: Labelled, others: list[LabelCalls]) -> bool:
    if way == "disagreement":
        return bool(others) and len(labelled.annotated.calls) > 1
    return way != "novelty" or labelled.annotated.novelty is not None


def _shape_control(found: maps.Found) -> view.CellMap:
    names = list(found.maps)
    return (
        found.maps[st.selectbox("Picture", names, key="label-map", width=160)]
        if len(names) > 1
        else found.maps[names[0]]
    )


def _colouring(
    way: str, calls: LabelCalls, others: list[LabelCalls], labelled: Labelled, session: Session | None
) -> view.Colouring:
    if way == "confidence":
        return view.Numbers("confidence", np.where(calls.best == UNKNOWN, np.nan, calls.probability))
    if way == "disagreement":
        return view.Numbers("share of other sources that disagree", disagreement(calls, others, cell_ontology()))
    if way == "novelty":
        return view.Numbers("novelty (above 1: unlike the reference)", labelled.annotated.novelty)
    # One list of names for all sources: a type keeps its colour from one to the next.
    used = {
        said.names[code] for said in labelled.annotated.calls.values() for code in np.unique(said.best) if code >= 0
    }
    if session is None:
        shown = np.array([*calls.names, ""], object)[calls.best]
    else:
        shown = np.where(session.state.names == "unknown", "", session.state.names)
    names = sorted({*used, *shown} - {""}, key=str.casefold)
    place = {label: code for code, label in enumerate(names)} | {"": -1}
    return view.Categories("label", np.array([place[label] for label in shown]), tuple(names))


def truth(cells: H5adDataset, labelled: Labelled, source: str) -> None:
    """Compare the labels of a source with a column that the user trusts, if the file has one.

    Parameters
    ----------
    cells
        The open data set.
    labelled
        All labels.
    source
        Whose labels are judged.
    """
    columns = group_columns(cells)
    place = st.expander(
        "Check against labels that you trust", icon=":material/fact_check:", key="truth", on_change="rerun"
    )
    if not place.open:
        return
    with place:
        if not columns:
            st.caption("The file has no column of labels (obs) to compare with.")
            return
        column = st.selectbox(
            "Column with true labels",
            columns,
            index=None,
            key="truth-column",
            placeholder="none: choose one to see accuracy and calibration",
            help=HELP["truth"],
            persist_state="session",
        )
        if column is None:
            return
        with errors.shown():
            _judged(check_labels(labelled.annotated.labels(source), cells.obs[column], cell_ontology()), column, source)
            if column in labelled.settings.columns:
                st.warning(
                    "This column is one of the label sources, so agreement with it proves little.",
                    icon=":material/warning:",
                )


def _judged(found: TruthCheck, column: str, source: str) -> None:
    facts = (
        (
            "Right",
            words.percent(found.accuracy),
            f"Share of {words.number(found.n_judged)} cells. Unknown is not right.",
        ),
        ("Commonest type alone", words.percent(found.majority), HELP["baseline"]),
        ("Called unknown", words.percent(found.unknown), HELP["unknown"]),
    )
    for place, (label, value, help_text) in zip(st.columns(3), facts, strict=True):
        place.metric(label, value, help=help_text)
    gain = found.accuracy - found.majority
    verdict = "is better than" if gain > 0.02 else "**is no better than**"
    st.markdown(
        f"{words.as_text(title(source))} {verdict} calling every cell {words.as_text(found.majority_name)}. "
        "A label counts as right when it is the true type or a kind of it."
    )
    if found.left_out:
        left = ", ".join(f"{label} ({words.number(size)})" for label, size in found.left_out.items())
        st.caption(f"Not judged, for no Cell Ontology term is meant: {words.as_text(left)}.")
    if source.startswith("obs: "):
        st.caption("A column states no confidence, so there is no calibration to show.")
    elif found.calibration_error is not None:
        st.markdown("**Is confidence honest?**", help=HELP["calibration"])
        drawn = reliability(found.confidence, found.correct, dark=frame.is_dark())
        st.plotly_chart(
            drawn,
            theme=None,
            key="reliability",
            config=export.plotly_config(f"{column}-reliability"),
            alt="Share of labels that are right, by stated confidence",
        )
        with st.container(horizontal=True):
            export.figure_downloads(
                lambda: reliability(found.confidence, found.correct),
                f"{column}-reliability",
                key="figure-reliability",
                size=(960, drawn.layout.height),
            )
        st.caption(
            f"Stated confidence is off by {words.percent(found.calibration_error)} on average (expected calibration "
            f"error, {words.number(len(found.correct))} named cells). Above the line labels are better than they "
            "say. Where the true label is coarser, confidence is that of all its kinds together."
        )
