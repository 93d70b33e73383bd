"""Denoised expression of the open data set: computed as a job, looked at gene by gene, taken home as a layer."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import scipy.sparse as sp
import streamlit as st
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pages._ui import (
    downloads,
    errors,
    export,
    frame,
    jobs_panel,
    maps,
    reconstruction_work,
    resources,
    state,
    view,
    words,
)
from pages._ui.annotation_work import group_columns
from pages._ui.gene_box import one_gene
from pages._ui.parts import figure
from pages._ui.reconstruction_words import HELP, SMOOTHED
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.figures.denoised import before_after
from scdiva_core.figures.scatter import Canvas
from scdiva_core.tasks.denoising import LAYER, MEANING, write_denoised

_MAP_PIXELS = 400
_TITLE_TOP = 0.95
_KEPT = "Nothing of it is kept before it is whole: the next try starts over."


def beside(choice: state.Choice, cells: H5adDataset, found: maps.Found, name: str) -> None:
    """Offer it where there is no reconstruction, for it needs none.

    Parameters
    ----------
    choice, cells, found, name
        As for `section`.
    """
    place = st.expander(
        "Denoised expression of the whole file",
        icon=":material/blur_on:",
        key="rec-denoised-beside",
        on_change="rerun",
    )
    if place.open:
        with place:
            section(choice, cells, found, name)


def section(choice: state.Choice, cells: H5adDataset, found: maps.Found, name: str) -> None:
    """Draw the tab.

    Parameters
    ----------
    choice, cells, found
        The open data set and its maps.
    name
        Of the data set.
    """
    st.warning(SMOOTHED, icon=":material/blur_on:")
    values = reconstruction_work.denoised(cells)
    if values is None:
        _ask(choice, cells)
    else:
        with errors.shown():
            _one_gene(choice, cells, found, values, name)
        _take_home(cells, name)
    with st.expander("Copy the denoising as Python", icon=":material/code:"):
        st.code(reconstruction_work.denoise_python(choice), language="python")


def _ask(choice: state.Choice, cells: H5adDataset) -> None:
    job = reconstruction_work.denoise_job(choice)
    submit = partial(reconstruction_work.submit_denoise, choice)
    if job is not None:
        jobs_panel.waiting(job, job.title, submit, kept=_KEPT, key="rec-denoise")
        return
    st.markdown("The file has not been denoised with this checkpoint.", help=HELP["denoised"])
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            f"Denoise all {words.number(cells.n_obs)} cells",
            key="rec-denoise",
            icon=":material/blur_on:",
            on_click=errors.kept(submit),
        )
        seconds = reconstruction_work.denoise_seconds(cells)
        st.caption(
            f"About {words.duration(seconds)} on this machine; you can leave the page meanwhile.", help=HELP["time"]
        )


def _one_gene(choice: state.Choice, cells: H5adDataset, found: maps.Found, values: sp.csc_matrix, name: str) -> None:
    symbols = np.asarray(cells.gene_symbols, object)
    read = np.flatnonzero(values.getnnz(axis=0))
    if not len(read):
        st.info("The model reads no gene of these cells, so there is nothing to look at.", icon=":material/info:")
        return
    columns = {symbols[column]: column for column in read}
    first = symbols[read[np.argmax(_variances(values)[read])]]
    gene = one_gene(
        "Gene",
        tuple(columns),
        first,
        key="rec-denoised-gene",
        help_text="Genes that the model reads in at least one cell; first the one that varies most.",
    )
    after = np.asarray(values[:, [columns[gene]]].todense(), np.float32).ravel()
    before = resources.gene_values(choice, gene)
    seen = np.zeros(cells.n_obs, bool)
    column = columns[gene]
    seen[values.indices[values.indptr[column] : values.indptr[column + 1]]] = True
    _numbers(gene, before, after, seen)
    file = f"{_mark()}{name}-{gene}"
    if found.maps:
        _maps(cells, found, gene, before, after, file)
    else:
        _violins(cells, gene, before[seen], after[seen], seen, file)


def _variances(values: sp.csc_matrix) -> NDArray[np.float64]:
    """Variance of each column over all cells."""
    squares = values.multiply(values).mean(axis=0)
    return np.asarray(squares).ravel() - np.square(np.asarray(values.mean(axis=0)).ravel())


def _numbers(gene: str, before: np.ndarray, after: np.ndarray, seen: np.ndarray) -> None:
    """Say how much smoother the gene became."""
    told = f"The model reads {words.as_text(gene)} in {words.count(int(seen.sum()), 'cell')}; in all others it is 0."
    one, two = before[seen], after[seen]
    if len(one) > 2 and np.ptp(one) > 0:
        told += f" In these its standard deviation is {one.std():.2f} as measured and {two.std():.2f} denoised"
        told += f"; rank correlation of both {spearmanr(one, two).statistic:.2f}." if np.ptp(two) > 0 else "."
    st.markdown(told, help=HELP["denoised"])


def _maps(cells: H5adDataset, found: maps.Found, gene: str, before: np.ndarray, after: np.ndarray, file: str) -> None:
    shape = next(iter(found.maps.values()))
    top = float(max(before.max(), after.max()))

    def draw(values: np.ndarray, title: str, *, dark: bool, narrow: bool = False) -> go.Figure:
        note = frame.weights_note()
        canvas = Canvas(title=title, axes=shape.axes, note=note, height=_MAP_PIXELS, dark=dark, narrow=narrow)
        colouring = view.Numbers("log1p", values)
        made = view.draw(shape, colouring, cells.obs_names, shown=None, canvas=canvas, names_on_picture=False)
        if not narrow:
            made.update_layout(title_y=_TITLE_TOP)  # two lines need room in a low figure
        # One scale for both, or the smoother one would look as rich as the other.
        return made.update_traces(
            {"marker.cmin": 0.0, "marker.cmax": top}, selector=lambda trace: trace.marker.cmin is not None
        )

    for place, values, what in zip(st.columns(2), (before, after), ("as measured", "denoised"), strict=True):
        title = f"{gene}, {what}"
        with place:
            figure(
                lambda dark, values=values, title=title: draw(values, title, dark=dark, narrow=frame.is_phone()),
                f"{file}-{what}",
                key=f"rec-map-{what}",
                paper=lambda values=values, title=title: draw(values, title, dark=False),
                alt=f"Map of the cells coloured by {title}",
            )


def _violins(cells: H5adDataset, gene: str, before: np.ndarray, after: np.ndarray, seen: np.ndarray, file: str) -> None:
    columns = group_columns(cells)
    groups = np.full(len(before), "all cells", object)
    if columns:
        groups = cells.obs[columns[0]].astype(object).to_numpy()[seen]
    title = ". ".join(filter(None, [frame.weights_note(), gene]))
    figure(
        lambda dark: before_after(before, after, groups, title=title, dark=dark),
        f"{file}-denoised",
        key="rec-violins",
        alt=f"{gene} as measured and denoised, in the cells where the model reads it",
    )
    st.caption("Embed the cells (page Embedding) to see the gene on their map.")


def _take_home(cells: H5adDataset, name: str) -> None:
    st.markdown(f"**Take it home** as `layers['{LAYER}']` of a new file", help=f"{MEANING[0].upper()}{MEANING[1:]}.")
    st.caption("A copy of your file with the layer added; your own file is never written to.")
    if not st.button("Prepare .h5ad", icon=":material/deployed_code:", key="rec-h5ad"):
        return
    with errors.shown(), st.spinner("Writing the file …"):
        done = write_denoised(
            cells,
            downloads.new_export(f"{_mark()}{export.file_name(Path(name).stem)}-denoised.h5ad"),
            reconstruction_work.denoised(cells).tocsr(),
            resources.engine().provenance(cells),
        )
        label = f"Download .h5ad ({words.size(done.stat().st_size)})"
        st.link_button(label, downloads.address(done), type="primary", icon=":material/download:")


def _mark() -> str:
    """What files of random weights are called first."""
    return "random-weights-" if resources.engine().card().random_weights else ""
