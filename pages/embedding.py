"""Embedding: run the model over the cells, look at them, select, compare with PCA, take the result home."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from pages._ui import (
    compare,
    controls,
    datasets,
    errors,
    export,
    frame,
    jobs_panel,
    maps,
    resources,
    sets_panel,
    state,
    take_home,
    view,
    words,
)
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.figures.raster import Window
from scdiva_core.figures.sample import MAX_DRAWN
from scdiva_core.figures.scatter import Canvas

frame.require("embedding")

_BESIDE = "Side by side"


def page() -> None:
    """Draw the page."""
    choice = state.choice()
    name = datasets.display_name(choice, resources.project())
    st.title("Embedding")
    cells = resources.dataset(choice)
    found = maps.available(cells)
    what = "a vector" if found.embedding is None else f"{found.embedding.shape[1]} numbers"
    st.caption(
        f"{words.as_text(name)} · {words.number(cells.n_obs)} cells · the genes of each cell become {what}, "
        "drawn as a UMAP.",
        help=words.HELP["umap"],
    )
    note = frame.banner()
    if found.embedding is None:
        _not_yet(choice, cells)
    if found.maps:
        _viewer(choice, cells, found, name, note)


def _not_yet(choice: state.Choice, cells: H5adDataset) -> None:
    """Say what is going on or what to do, while there is no embedding of this checkpoint."""
    settings = state.settings()
    job = jobs_panel.embedding_job(choice, settings)
    if job is not None and job.active:
        jobs_panel.progress_card(job, ready=lambda: bool(maps.computed(cells)))
        return
    with st.container(border=True, key="not-yet"):
        if job is not None and job.state == "failed":
            errors.show_failure(job)
        elif job is not None and job.state == "cancelled":
            st.info("Embedding was cancelled. What was done is kept: starting again goes on from there.")
        else:
            st.markdown("**These cells have not been embedded with this checkpoint yet.**")
        _start_button(choice, cells, again=job is not None)


def _start_button(choice: state.Choice, cells: H5adDataset, *, again: bool) -> None:
    seconds = resources.estimate_seconds(cells.preflight)
    st.caption(f"About {words.duration(seconds)} on this machine, plus UMAP and Leiden.", help=words.HELP["time"])
    st.button(
        "Try again" if again else f"Embed {words.number(cells.n_obs)} cells",
        type="primary",
        icon=":material/bubble_chart:",
        key="embed",
        on_click=errors.kept(jobs_panel.submit_embedding),
        args=(choice, state.settings()),
    )


def _viewer(choice: state.Choice, cells: H5adDataset, found: maps.Found, name: str, note: str) -> None:
    sets = sets_panel.Sets(cells, found.maps)
    source = controls.Source(cells, found.clusters, sets.masks)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="tools"):
        colouring = controls.colour_controls(source)
        shown_maps = _pick_maps(found.maps)
        shown = controls.filter_control(source)
        point_size, names_on_picture = controls.appearance_control()
        maps.settings_control()
    if colouring is None:
        st.info(f"This column has more than {view.MOST_LABELS} different values: it names cells, not groups.")
        return

    # Read here: an export runs later, on a thread without a page.
    dark, narrow = frame.is_dark(), len(shown_maps) > 1 or frame.is_phone()
    windows = _windows(cells)

    def figure(cell_map: view.CellMap, *, on_screen: bool) -> go.Figure:
        canvas = Canvas(
            title=f"{name}: {cell_map.name}, {colouring.label}",
            axes=cell_map.axes,
            note=note if cell_map.representation == "X_scdiva" else cell_map.note,
            dark=dark and on_screen,
            point_size=point_size,
            narrow=narrow and on_screen,
        )
        return view.draw(
            cell_map,
            colouring,
            cells.obs_names,
            shown=shown,
            canvas=canvas,
            names_on_picture=names_on_picture,
            window=windows.get(cell_map.representation),
            fine=not on_screen,
        )

    picture, panel = st.columns([3, 1], gap="medium")
    with picture:
        selections = _pictures(figure, shown_maps, cells.n_obs)
        _zoom(windows, selections)
        _caption(shown_maps, windows, shown, found)
    with panel:
        sets_panel.panel(sets, selections, shown)
    if found.embedding is not None and found.pca is not None:
        key = (cells.sha256, str(choice), resources.engine().card().sha256)
        compare.comparison(source, found.embedding, found.pca, key)
    take_home.section(choice, cells, found, sets, shown_maps, figure, name)


def _pick_maps(available: dict[str, view.CellMap]) -> list[view.CellMap]:
    names = list(available)
    if {"ScDiVa", "PCA"} <= available.keys():
        names.insert(1, _BESIDE)
    if len(names) == 1:
        return [available[names[0]]]
    picked = st.segmented_control(
        "Picture",
        names,
        default=names[0],
        required=True,
        key="picture",
        bind="query-params",
        help=f"ScDiVa: UMAP of the model's embedding. PCA: {words.HELP['pca']}",
    )
    return [available["ScDiVa"], available["PCA"]] if picked == _BESIDE else [available[picked]]


def _pictures(figure, shown_maps: list[view.CellMap], n_cells: int) -> list[sets_panel.Selection]:
    selections = []
    for column, cell_map in zip(st.columns(len(shown_maps)), shown_maps, strict=True):
        drawn = figure(cell_map, on_screen=True)
        with column:
            event = st.plotly_chart(
                drawn,
                theme=None,
                key=f"picture-{cell_map.representation}-{state.selection_round()}",
                on_select="rerun",
                selection_mode=("box", "lasso"),
                config=export.plotly_config(f"{cell_map.name}-umap"),
                alt=f"Scatter plot of {n_cells:,} cells: {drawn.layout.title.text}",
            )
        selections.append(sets_panel.Selection(cell_map, event.selection))
    return selections


def _windows(cells: H5adDataset) -> dict[str, Window]:
    """Representation -> the part of its map that is looked at; maps drawn in another way begin whole."""
    kept: dict[object, dict[str, Window]] = st.session_state.setdefault("_windows", {})
    return kept.setdefault((cells.sha256, state.settings()), {})


def _zoom(windows: dict[str, Window], selections: list[sets_panel.Selection]) -> None:
    """Let the user look closer, where the picture is made here and plotly would only magnify its pixels."""
    if not any(view.is_raster(selection.cell_map) for selection in selections):
        return
    drawn = {
        selection.cell_map.representation: recipe
        for selection in selections
        if (recipe := selection.recipe()) is not None
    }
    zoomed = [item.cell_map.representation for item in selections if item.cell_map.representation in windows]
    with st.container(horizontal=True, key="zoom"):
        st.button(
            "Zoom to the selection",
            icon=":material/zoom_in:",
            key="zoom-in",
            disabled=not drawn,
            help="Draw around cells first (box or lasso). The part is drawn anew, sharper; from "
            f"{words.number(MAX_DRAWN)} cells down each is a point with its name.",
            on_click=_zoom_in,
            args=(windows, drawn),
        )
        st.button(
            "Whole picture",
            icon=":material/zoom_out_map:",
            key="zoom-out",
            disabled=not zoomed,
            on_click=_zoom_out,
            args=(windows, zoomed),
        )


def _zoom_in(windows: dict[str, Window], drawn: dict[str, sets_panel.Recipe]) -> None:
    for representation, recipe in drawn.items():
        window = Window(min(recipe["x"]), max(recipe["x"]), min(recipe["y"]), max(recipe["y"]))
        if window.left < window.right and window.low < window.high:
            windows[representation] = window
    state.clear_selection()


def _zoom_out(windows: dict[str, Window], zoomed: list[str]) -> None:
    for representation in zoomed:
        del windows[representation]
    state.clear_selection()


def _caption(
    shown_maps: list[view.CellMap], windows: dict[str, Window], shown: np.ndarray | None, found: maps.Found
) -> None:
    parts, n_cells = [], len(shown_maps[0].coordinates)
    raster = False
    for item in shown_maps:
        window = windows.get(item.representation)
        raster = raster or view.is_raster(item, window)
        if window is not None:
            what = "this part" if len(shown_maps) == 1 else f"this part of the {words.as_text(item.name)} map"
            inside = window.inside(item.coordinates).sum()
            parts.append(f"{words.number(inside)} of {words.number(n_cells)} cells lie in {what}.")
    if raster:
        parts.append(
            "All cells are drawn, as one picture: a pixel has the colour of most of its cells, or their mean, and is "
            "stronger where cells are many. Pointing at it names no cell, and a click does nothing: draw around cells."
        )
    sketched = {item.representation: item.sketched for item in found.projections}
    sketched |= {f"{maps.SAVED}{name}": item.projection.sketched for name, item in found.saved.items()}
    if size := next(filter(None, (sketched.get(item.representation) for item in shown_maps)), None):
        parts.append(
            f"Map and clusters were computed on a sketch of {words.number(size)} cells that keeps rare kinds; every "
            "other cell lies by its nearest among them and has their cluster."
        )
    if shown is not None:
        parts.append(f"{words.number(shown.sum())} of {words.number(n_cells)} cells pass the filter.")
    parts.append("Near means alike; the size of a gap between islands means nothing.")
    st.caption(" ".join(parts))


page()
