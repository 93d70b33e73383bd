"""Before and after: two methods side by side, and the same cells marked in both."""

from __future__ import annotations

from functools import partial

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from pages._ui import errors, export, frame, integration_work, jobs_panel, maps, sets_panel, state, view, words
from pages._ui.annotation_work import group_columns
from pages._ui.integration_parts import Shown, note, title
from pages._ui.integration_words import HELP
from scdiva_core.figures.scatter import Canvas

_AXES = ("UMAP 1", "UMAP 2")
_OTHER = "Other column …"
_MOST_DRAWN = 30_000  # cells of each picture
_PIXELS = 560
_NAMED = 5  # batches of a selection that are counted


def section(shown: Shown) -> None:
    """Draw the tab."""
    methods, colouring = _controls(shown)
    found = {method: _cell_map(shown, method) for method in shown.methods}
    if any(found[method] is None for method in methods):
        _draw_first(shown, methods)
        return
    if colouring is None:
        st.info(f"This column has more than {view.MOST_LABELS} different values: it names cells, not groups.")
        return
    own = {cell_map.name: cell_map for cell_map in found.values() if cell_map is not None}
    sets, kept = sets_panel.Sets(shown.cells, {**shown.found.maps, **own}), state.marked(shown.item.key)
    selections = [] if kept is None else [sets_panel.Selection(found[kept[0]], kept[1])]
    recipe = next((selection.recipe() for selection in selections), None)
    marked = None if recipe is None else sets.select(recipe)
    for place, side, method in zip(st.columns(2, gap="medium"), ("left", "right"), methods, strict=True):
        with place:
            _draw(shown, side, method, found[method], colouring, marked)
    _caption(shown, marked)
    with st.container(key="integration-sets"):
        sets_panel.panel(sets, selections, None)


def _controls(shown: Shown) -> tuple[list[str], view.Colouring | None]:
    """The two methods, and what cells are coloured by."""
    methods, ours = shown.methods, shown.best_of_ours
    firsts = {"left": "scdiva", "right": ours if ours != "scdiva" else "harmony"}
    chosen = []
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="integration-tools"):
        for side in firsts:
            chosen.append(
                st.selectbox(
                    side.capitalize(),
                    methods,
                    index=methods.index(firsts[side]),
                    format_func=title,
                    key=f"integration-{side}-{shown.item.key}",
                    width=260,
                    help=HELP["before and after"] if side == "left" else None,
                )
            )
        settings = shown.item.settings
        own = {settings.batch_key: f"Batch: {settings.batch_key}"}
        own |= {settings.label_key: f"Type: {settings.label_key}"} if settings.label_key else {}
        others = [name for name in group_columns(shown.cells) if name not in own]
        column = st.segmented_control(
            "Colour by",
            [*own, *([_OTHER] if others else [])],
            default=settings.batch_key,
            format_func=lambda name: own.get(name, name),
            required=True,
            key=f"integration-colour-{shown.item.key}",
        )
        if column == _OTHER:
            column = st.selectbox("Column", others, key=f"integration-column-{shown.item.key}", width=180)
    return chosen, view.column_colouring(shown.cells.obs[column], column)


def _draw_first(shown: Shown, methods: list[str]) -> None:
    """Say how far the maps are, or offer to draw them."""
    job = integration_work.job(shown.choice, shown.item)
    if job is not None and job.active:
        cells, item = shown.cells, shown.item
        jobs_panel.progress_card(
            job,
            ready=lambda: all(integration_work.drawn(cells, item, method) is not None for method in methods),
            kept="Maps that are drawn are kept.",
        )
        return
    st.info("These vectors have not been drawn with the map settings of now.", icon=":material/info:")
    st.button(
        "Draw the maps",
        key="integration-draw",
        icon=":material/bubble_chart:",
        on_click=errors.kept(integration_work.submit),
        args=(shown.choice, shown.item),
    )


def _cell_map(shown: Shown, method: str) -> view.CellMap | None:
    """The cells on the plane of a method; None where it was not drawn."""
    projection = integration_work.drawn(shown.cells, shown.item, method)
    name = f"{title(method)}, by {shown.item.settings.batch_key}"
    if projection is None:
        return None
    return view.CellMap(name, f"{maps.INTEGRATED}{name}", projection.coordinates, _AXES, note(method))


def _draw(
    shown: Shown,
    side: str,
    method: str,
    cell_map: view.CellMap,
    colouring: view.Colouring,
    marked: np.ndarray | None,
) -> None:
    # Read here: an export runs later, on a thread without a page.
    dark = frame.is_dark()

    def figure(*, on_screen: bool) -> go.Figure:
        canvas = Canvas(
            title=f"{title(method)}: {colouring.label}",
            axes=_AXES,
            note=cell_map.note,
            height=_PIXELS,
            dark=dark and on_screen,
            narrow=on_screen,
        )
        drawn = {"shown": marked, "canvas": canvas, "names_on_picture": False, "limit": _MOST_DRAWN}
        return view.draw(cell_map, colouring, shown.cells.obs_names, **drawn)

    file, key = f"{shown.file}-{title(method)}", f"picture-integration-{side}-{method}-{shown.item.key}"
    st.plotly_chart(
        figure(on_screen=True),
        theme=None,
        key=key,
        on_select=partial(_mark, shown.item.key, method, key),
        selection_mode=("box", "lasso"),
        config=export.plotly_config(file),
        alt=f"Scatter plot of {shown.cells.n_obs:,} cells by {title(method)}, coloured by {colouring.label}",
    )
    with st.container(horizontal=True):
        export.figure_downloads(
            lambda: figure(on_screen=False), file, key=f"integration-figure-{side}", size=(960, 720)
        )


def _mark(owner: str, method: str, key: str) -> None:
    """Keep what was just drawn on a picture; called before the page runs again."""
    selection = st.session_state[key]["selection"]
    drawn = {
        kind: [{axis: list(shape[axis]) for axis in "xy"} for shape in selection[kind]] for kind in ("lasso", "box")
    }
    if any(drawn.values()):
        state.mark(owner, method, drawn)


def _caption(shown: Shown, marked: np.ndarray | None) -> None:
    told = HELP["linked"]
    if marked is not None:
        sizes = shown.cells.obs[shown.item.settings.batch_key].astype(str)[marked].value_counts()
        parts = ", ".join(f"{name} {words.number(size)}" for name, size in sizes.head(_NAMED).items())
        more = " and others" if len(sizes) > _NAMED else ""
        told = f"{words.count(int(marked.sum()), 'cell')} marked in both pictures: {words.as_text(parts)}{more}."
    if shown.cells.n_obs > _MOST_DRAWN:
        told += f" Drawn: a fixed random subset of {words.number(_MOST_DRAWN)} cells."
    st.caption(told)
