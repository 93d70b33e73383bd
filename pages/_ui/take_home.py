"""Taking the result home: a new .h5ad, a table, figures, and the lines of Python that make it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages._ui import (
    controls,
    datasets,
    downloads,
    export,
    jobs_panel,
    maps,
    report_embedding,
    reports,
    resources,
    sets_panel,
    state,
    view,
    words,
)
from pages._ui.saved_list import slug
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.spreadsheet import as_csv
from scdiva_core.tasks.export import write_result
from scdiva_core.tasks.neighbors import ProjectionSettings

Draw = Callable[..., go.Figure]


def section(
    choice: state.Choice,
    cells: H5adDataset,
    found: maps.Found,
    sets: sets_panel.Sets,
    shown_maps: list[view.CellMap],
    figure: Draw,
    name: str,
) -> None:
    """Draw the downloads.

    Parameters
    ----------
    choice, cells, name
        The open data set.
    found
        What there is of it.
    sets
        The user's cell sets.
    shown_maps
        Pictures on the page.
    figure
        ``figure(cell_map, on_screen=False)`` draws one of them.
    """
    with st.container(border=True, key="take-home"):
        st.subheader("Take it home")
        data, pictures = st.columns(2)
        with data:
            st.caption("Data. Your own file is never written to.")
            with st.container(horizontal=True):
                if found.embedding is not None:
                    _h5ad(cells, found, sets, name)
                _csv(cells, found, sets, name)
                _report(choice, cells, found, sets, shown_maps, figure, name)
        with pictures:
            st.caption("Figure, as it is on the page but on white.")
            for cell_map in shown_maps:
                with st.container(horizontal=True):
                    if len(shown_maps) > 1:
                        st.markdown(f"**{cell_map.name}**")
                    export.figure_downloads(
                        lambda cell_map=cell_map: figure(cell_map, on_screen=False),
                        f"{name}-{cell_map.name}",
                        key=f"figure-{cell_map.representation}",
                        size=(960, 720),
                    )
    with st.expander("Copy as Python", icon=":material/code:"):
        st.code(as_python(choice, state.settings()), language="python")


def table(cells: H5adDataset, found: maps.Found, sets: sets_panel.Sets) -> pd.DataFrame:
    """One row a cell: coordinates of each map, clusters, cell sets, the file's obs columns."""
    made = computed(cells, found, sets)
    return pd.concat([made, cells.obs.drop(columns=made.columns, errors="ignore")], axis=1)


def computed(cells: H5adDataset, found: maps.Found, sets: sets_panel.Sets) -> pd.DataFrame:
    """One row a cell, without what the file says of it: coordinates of each map, clusters, cell sets."""
    columns: dict[str, object] = {}
    for cell_map in found.maps.values():
        for axis, values in enumerate(cell_map.coordinates.T, start=1):
            columns[f"{maps.column_name(cell_map.representation)}_{axis}"] = values
    clusters = {f"leiden_{maps.column_name(name)}": codes for name, codes in found.clusters.items()}
    masks = {f"set: {name}": mask for name, mask in sets.masks.items()}
    return pd.DataFrame({**columns, **clusters, **masks}, index=cells.obs.index)


def as_python(choice: state.Choice, settings: ProjectionSettings) -> str:
    """Lines that compute the same embedding and picture."""
    options = "".join(
        f", {name}={value!r}"
        for name, value, plain in (("matrix", choice.matrix, None), ("values", choice.values, "auto"))
        if value != plain
    )
    return f"""from scdiva_core.engine import Engine, ProjectionSettings

engine = Engine({resources.checkpoint()!r}, device={resources.device()!r})
with engine.open({str(datasets.locate(choice))!r}{options}) as cells:
    embedding = engine.embed(cells)  # float32 [n_cells, d], rows in the file's order
    settings = {settings!r}
    picture = engine.project(cells, representation="X_scdiva", settings=settings)
    baseline = engine.project(cells, representation="X_pca", settings=settings)
picture.coordinates, picture.leiden  # UMAP [n_cells, 2], cluster of each cell
"""


def _h5ad(cells: H5adDataset, found: maps.Found, sets: sets_panel.Sets, name: str) -> None:
    """Write the file when asked, then offer it: it may be large and is streamed from disk."""
    done: Path | None = None
    saved = {title: replace(item.projection, representation=f"X_{slug(title)}") for title, item in found.saved.items()}
    if st.button(
        "Prepare .h5ad",
        icon=":material/deployed_code:",
        key="prepare-h5ad",
        help="A copy of your file with the embedding and those you saved, their maps, clusters and cell sets added.",
    ):
        with st.spinner("Writing the file …"):
            done = write_result(
                cells,
                downloads.new_export(f"{export.file_name(Path(name).stem)}-scdiva.h5ad"),
                embedding=found.embedding,
                provenance=resources.engine().provenance(cells),
                projections=[*found.projections, *saved.values()],
                cell_sets=sets.sets,
                embeddings={item.representation: found.saved[title].vectors for title, item in saved.items()},
            )
    if done is not None:
        label = f"Download .h5ad ({words.size(done.stat().st_size)})"
        st.link_button(label, downloads.address(done), type="primary", icon=":material/download:")


def _csv(cells: H5adDataset, found: maps.Found, sets: sets_panel.Sets, name: str) -> None:
    st.download_button(
        "Table (CSV)",
        data=lambda: as_csv(table(cells, found, sets), "cell"),
        file_name=f"{export.file_name(name, 'cells')}.csv",
        mime="text/csv",
        icon=":material/table:",
        key="download-csv",
        help="One row a cell: coordinates, obs columns, clusters, cell sets.",
        on_click="ignore",
    )


def _report(
    choice: state.Choice,
    cells: H5adDataset,
    found: maps.Found,
    sets: sets_panel.Sets,
    shown_maps: list[view.CellMap],
    figure: Draw,
    name: str,
) -> None:
    settings = state.settings()
    source = controls.Source(cells, found.clusters, sets.masks)
    chosen = st.session_state.get("measured_by")
    reports.button(
        lambda origin: report_embedding.report(
            origin,
            found,
            settings,
            report_embedding.label_column(source, chosen),
            shown_maps,
            lambda cell_map: figure(cell_map, on_screen=False),
            computed(cells, found, sets),
        ),
        cells,
        name,
        python=as_python(choice, settings),
        command=report_embedding.command_line(choice, settings),
        why_none=report_embedding.NO_COMMAND,
        job=jobs_panel.embedding_job(choice, settings),
        file=name,
        key="embedding-report",
    )
