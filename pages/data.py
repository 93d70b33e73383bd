"""Data: choose a data set, see what is in it before anything is loaded, check its quality."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import cards, datasets, errors, export, frame, jobs_panel, resources, state, words
from pages._ui.upload import upload_rules, upload_token
from pages._ui.uploader import uploader
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.preflight import Preflight
from scdiva_core.data.spreadsheet import as_csv
from scdiva_core.errors import ScDiVaError
from scdiva_core.figures.violin import violins

frame.require("data")

_QUALITY = {
    "total_counts": ("Counts a cell", None),
    "n_genes_by_counts": ("Genes detected a cell", None),
    "pct_counts_mt": ("Mitochondrial counts, %", words.HELP["mitochondrial"]),
}


def page() -> None:
    """Draw the page."""
    st.title("Data")
    st.caption("Your file is read where it lies and never changed. Nothing leaves this machine.")
    choice, found = state.choice(), None
    # Above what else can be opened, which fills a phone's first screen.
    with errors.shown():
        found = resources.preflight(choice)
    demos, by_path, upload = st.tabs(["Demo data", "Open a file", "Upload"])
    with demos:
        _demos()
    with by_path:
        _by_path()
    with upload:
        _upload()
    st.page_link(
        "pages/integration.py",
        label="Put several files together on the page Integration",
        icon=":material/library_add:",
        query_params=state.url(),
    )
    if problem := state.problem():
        errors.show(problem)
        if found is not None:
            st.caption("The data set below is still open.")
    st.space("small")
    if found is not None:
        with errors.shown():
            _current(choice, found)


def _open(choice: state.Choice) -> None:
    """Open a data set, or keep the one that is open and remember why."""
    try:
        resources.preflight(choice)
    except ScDiVaError as error:
        state.set_problem(error)
    else:
        state.choose(choice)


def _demos() -> None:
    for column, demo in zip(st.columns(len(datasets.DEMOS)), datasets.DEMOS, strict=True):
        chosen = state.choice().data == demo.name
        with column, st.container(border=True, height="stretch", vertical_alignment="distribute"):
            with st.container(gap="xsmall"):
                st.markdown(f"**{demo.title}**")
                st.caption(f"{words.number(demo.n_cells)} cells · {demo.tissue}")
                st.markdown(demo.description)
            with st.container(gap="xsmall"):
                st.caption(f"{demo.source} · {demo.licence}")
                st.button(
                    "Open" if not chosen else "Is open",
                    key=f"demo-{demo.name}",
                    icon=":material/check:" if chosen else ":material/folder_open:",
                    disabled=chosen,
                    on_click=_open,
                    args=(state.Choice(demo.name),),
                )


def _by_path() -> None:
    with st.form("by-path", border=False):
        path = st.text_input(
            "Path of an .h5ad file",
            placeholder="cells.h5ad",
            help="Below the data root (SCDIVA_DATA_ROOT). The file is read in place, however large it is.",
        )
        st.caption(f"Data root: `{datasets.data_root()}`")
        if st.form_submit_button("Open", icon=":material/folder_open:") and path.strip():
            _open(state.Choice(path.strip()))
            st.rerun()


def _upload() -> None:
    result = uploader(state.upload_key(), upload_token())
    st.caption(upload_rules())
    if result is not None:
        resources.project().remember_upload(result.sha256, result.name)
        state.next_upload()
        _open(state.Choice(result.sha256))
        st.rerun()


def _current(choice: state.Choice, found: Preflight) -> None:
    name = datasets.display_name(choice, resources.project())
    with st.container(border=True, key="preflight"):
        left, right = st.columns([3, 1], vertical_alignment="center")
        left.subheader(words.as_text(name), help=words.HELP["preflight"])
        cards.preflight_card(choice, found)
        cells = resources.dataset(choice)
        with right:
            _embed_button(choice, cells)
    _quality(choice, name)


def _embed_button(choice: state.Choice, cells: H5adDataset) -> None:
    settings = state.settings()
    stored = resources.engine().stored_projection(cells, representation="X_scdiva", settings=settings)
    label = "Show the embedding" if stored is not None else f"Embed {words.number(cells.n_obs)} cells"
    if st.button(label, type="primary", icon=":material/bubble_chart:", key="embed", width="stretch"):
        if stored is None:
            jobs_panel.submit_embedding(choice, settings)
        st.switch_page("pages/embedding.py", query_params=state.url())


def _quality(choice: state.Choice, name: str) -> None:
    st.subheader("Quality of the cells", help="What to look at before trusting any picture of the data.")
    table = resources.quality(choice)
    columns = {key: table[key] for key in _QUALITY if key in table and table[key].notna().any()}
    if table.attrs.get("sampled"):
        st.caption(f"Measured on a fixed random subset of {words.number(len(table))} cells.")
    for place, (key, values) in zip(st.columns(len(columns)), columns.items(), strict=True):
        label, help_text = _QUALITY[key]
        with place, st.container(border=True):
            st.markdown(f"**{label}**", help=help_text)
            figure = violins({label: values.to_numpy()}, height=260, dark=frame.is_dark())
            middle = f"median {values.median():,.4g}"
            alt = f"Violin of {label.lower()} over {len(values):,} cells, {middle}"
            st.plotly_chart(figure, theme=None, key=f"quality-{key}", config=export.plotly_config(key), alt=alt)
            low, high = values.quantile([0.05, 0.95])
            st.caption(f"{middle} · 90 % of cells between {low:,.4g} and {high:,.4g}")
    _quality_downloads(table, {_QUALITY[key][0]: values for key, values in columns.items()}, name)


def _quality_downloads(table: pd.DataFrame, columns: dict[str, pd.Series], name: str) -> None:
    with st.container(horizontal=True):
        st.download_button(
            "CSV",
            data=lambda: as_csv(table, "cell"),
            file_name=f"{export.file_name(name, 'quality')}.csv",
            mime="text/csv",
            icon=":material/download:",
            help="One row a cell.",
            on_click="ignore",
        )
        arrays = {label: values.to_numpy() for label, values in columns.items()}
        export.figure_downloads(
            lambda: violins(arrays, title=name), f"{name}-quality", key="quality-figure", size=(1000, 420)
        )


page()
