"""From cells to labels: which sources, the work itself, and what has been computed before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st

from pages._ui import controls, errors, resources, state, words
from pages._ui.annotation_words import HELP, SOURCE_HELP, title
from pages._ui.review_log import ReviewLog
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.engine_annotation import TITLES, Annotated, annotate, available_sources, preselected, stored_annotation
from scdiva_core.errors import ScDiVaError
from scdiva_core.tasks.annotation import LabelCalls
from scdiva_core.tasks.review_session import LabelSettings, Review, prepare_review

Key = tuple[str, ...]

_IN_URL = "labels"


class _NotStoredError(LookupError):
    """Raised inside a cached function: nothing is cached then."""


@dataclass(frozen=True)
class Labelled:
    """Labels that are there.

    Parameters
    ----------
    settings
        What they were computed with.
    annotated
        The labels of every source.
    key
        What they were computed from, for caches.
    """

    settings: LabelSettings
    annotated: Annotated
    key: Key

    def sources(self) -> list[str]:
        """Names of all sources, the consensus last if there is one."""
        return [*self.annotated.calls, *(["consensus"] if self.annotated.consensus is not None else [])]

    def others(self, source: str) -> list[LabelCalls]:
        """Labels of all sources but one; the consensus is none of them."""
        return [calls for name, calls in self.annotated.calls.items() if name != source]


def labels(choice: state.Choice, cells: H5adDataset, log: ReviewLog) -> Labelled | None:
    """Fetch the labels, or let the user choose sources and compute them.

    Parameters
    ----------
    choice, cells
        The open data set.
    log
        A review in progress says which labels it is of.

    Returns
    -------
    Labelled or None
        None (and the page says what to do) as long as there are none.
    """
    offered = available_sources(resources.engine())
    settings = _wanted(cells, log, offered)
    key = (cells.sha256, str(choice), log.model_sha256, settings.to_text())
    step = state.take_labels_step()
    annotated = _look_up(key, cells, settings)
    if annotated is None and step == "asked" and _compute(cells, settings):
        annotated = _look_up(key, cells, settings)
    if annotated is None:
        with st.container(border=True, key="label-sources"):
            st.markdown("**These cells have no labels yet.** Choose who shall name them.")
            if step == "cancelled":
                st.info("Cancelled. Sources that were finished are kept.", icon=":material/info:")
            _form(cells, settings, offered)
        return None
    names = ", ".join(title(source) for source in annotated.calls)
    with st.expander(f"Label sources: {words.as_text(names)}", icon=":material/label:"):
        _form(cells, settings, offered)
    return Labelled(settings, annotated, key)


def group_columns(cells: H5adDataset) -> list[str]:
    """Columns of obs that name groups of cells, the likely label column first."""
    return _group_columns((cells.sha256, str(cells.path)), cells)


@st.cache_data(show_spinner=False, scope="session", max_entries=8)
def _group_columns(key: Key, _cells: H5adDataset) -> list[str]:
    found = controls.Source(_cells, {}, {}).categories()
    return [option.removeprefix("obs:") for option in found if option.startswith("obs:")]


def review(labelled: Labelled, source: str, cells: H5adDataset, clusters: np.ndarray) -> Review:
    """Weigh the evidence on the labels of a source and queue the cells.

    Parameters
    ----------
    labelled
        All labels.
    source
        Whose labels are reviewed.
    cells
        The open data set, embedded.
    clusters
        Int ``[n_cells]``.
    """
    settings = str(state.settings())  # they shape the clusters
    with st.spinner("Finding the cells nearest to each …", show_time=True):
        neighbors = resources.engine().neighbors(cells)
    return _review((*labelled.key, source, settings), labelled, source, neighbors, clusters)


@st.cache_resource(show_spinner="Ordering the cells by doubt …", scope="session", max_entries=4)
def _review(key: Key, _labelled: Labelled, _source: str, _neighbors: np.ndarray, _clusters: np.ndarray) -> Review:
    return prepare_review(
        _labelled.annotated.labels(_source),
        _labelled.others(_source),
        neighbors=_neighbors,
        clusters=_clusters,
        novelty=_labelled.annotated.novelty,
        ontology=cell_ontology(),
    )


def _wanted(cells: H5adDataset, log: ReviewLog, offered: tuple[str, ...]) -> LabelSettings:
    """What this session asked for, else what a review or the URL says, else the checkpoint's default."""
    linked = LabelSettings.from_text(st.query_params.get(_IN_URL, ""))
    default = LabelSettings(preselected(offered))
    for settings in (state.label_settings(cells.sha256), log.settings, linked):
        if settings is not None and (settings.sources or settings.columns):
            columns = {*settings.columns, *([] if settings.batch_key is None else [settings.batch_key])}
            there = set(settings.sources) <= set(offered) and columns <= set(cells.obs)
            return settings if there else default
    return default


def _look_up(key: Key, cells: H5adDataset, settings: LabelSettings) -> Annotated | None:
    if not settings.sources and not settings.columns:
        return None
    try:
        return _stored(key, cells, settings)
    except _NotStoredError:
        return None


@st.cache_resource(show_spinner=False, scope="session", max_entries=3)
def _stored(key: Key, _cells: H5adDataset, _settings: LabelSettings) -> Annotated:
    options = {"columns": _settings.columns, "unknown": _settings.unknown, "batch_key": _settings.batch_key}
    found = stored_annotation(resources.engine(), _cells, _settings.sources, **options)
    if found is None:
        raise _NotStoredError
    return found


def _form(cells: H5adDataset, settings: LabelSettings, offered: tuple[str, ...]) -> None:
    columns = group_columns(cells)
    if not offered:
        st.caption(
            "This checkpoint names no cell types by itself, so there is nothing but the labels in your file to start "
            "from. Open a checkpoint with an annotation head to have cells named (page *Model*)."
        )
        if not columns:
            st.caption("This file has no column of labels either.")
            return
    sources = st.multiselect(
        "Label sources",
        offered,
        default=[source for source in settings.sources if source in offered],
        format_func=TITLES.get,
        key="label-source-names",
        help=HELP["sources"],
        placeholder="none" if not offered else "choose at least one",
        disabled=not offered,
    )
    for source in offered:
        st.caption(f"**{TITLES[source]}**: {SOURCE_HELP[source]}")
    chosen = st.multiselect(
        "Your own labels (optional)",
        columns,
        default=[column for column in settings.columns if column in columns],
        key="label-columns",
        help=HELP["columns"],
        placeholder="no column" if columns else "the file has no column of labels",
        disabled=not columns,
    )
    unknown = st.toggle(
        "Call cells unknown that are unlike the reference",
        value=settings.unknown,
        key="label-unknown",
        help=HELP["unknown"],
        disabled=not offered,
    )
    batch_key = st.selectbox(
        "Batch column (optional)",
        columns,
        index=columns.index(settings.batch_key) if settings.batch_key in columns else None,
        key="label-batch",
        help=HELP["batch"],
        placeholder="one batch",
        disabled=not columns or not unknown,
    )
    new = LabelSettings(tuple(sources), tuple(chosen), unknown, batch_key)
    st.button(
        f"Name {words.number(cells.n_obs)} cells",
        type="primary",
        icon=":material/label:",
        key="annotate",
        disabled=not (sources or chosen),
        on_click=_ask,
        args=(cells.sha256, new),
    )


def _ask(data_sha256: str, settings: LabelSettings) -> None:
    state.set_label_settings(data_sha256, settings, compute=True)
    # So that a reload of the browser finds them again.
    st.query_params[_IN_URL] = settings.to_text()


def _compute(cells: H5adDataset, settings: LabelSettings) -> bool:
    """Name the cells, in the page: a click on Cancel ends the run at the next step; what is finished is stored."""
    place = st.empty()
    with place.container(border=True, key="naming"):
        st.markdown(f"**Naming {words.number(cells.n_obs)} cells …**")
        bar = st.progress(0.0, text="beginning")
        st.button(
            "Cancel",
            icon=":material/close:",
            key="cancel-labels",
            help="Sources that are finished are kept.",
            on_click=state.cancel_labels,
        )
        st.caption("Stay on this page until it is done: leaving it stops the work after the step at hand.")

    def progress(done: int, total: int, message: str) -> None:
        bar.progress(min(done / max(total, 1), 1.0), text=words.as_text(message))

    options = {"columns": settings.columns, "unknown": settings.unknown, "batch_key": settings.batch_key}
    try:
        annotate(resources.engine(), cells, settings.sources, **options, progress=progress)
    except ScDiVaError as error:
        place.empty()
        errors.show(error)
        return False
    place.empty()
    return True
