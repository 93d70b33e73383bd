"""Which batches, which types, whether the model is fine-tuned; how long it takes, and the button."""

from __future__ import annotations

import streamlit as st

from pages._ui import errors, integration_work, state, words
from pages._ui.annotation_work import group_columns
from pages._ui.asked_list import AskedList
from pages._ui.integration_words import HELP
from pages._ui.integration_work import Asked
from scdiva_core.data.concatenate import record_of
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_integration import IntegrateSettings, check_batch_column
from scdiva_core.errors import ScDiVaError

_LIKELY = ("donor", "batch", "sample", "patient", "individual", "subject", "replicate", "library", "run", "lane")
_LESS_LIKELY = ("study", "dataset", "site", "tech", "method", "assay", "protocol", "condition", "stim", "file")
_TYPES = ("type", "celltype", "annotation", "label", "ontology", "cluster")
_TYPE = 3  # rank of a column named like one of types
_MOST_BATCHES = 100
_NAMED = 6  # batches whose cells are said
_PLAIN = IntegrateSettings("batch")


def section(choice: state.Choice, cells: H5adDataset, asked: AskedList[Asked]) -> None:
    """Draw the form, or say what to do with a file that has no batches.

    Parameters
    ----------
    choice, cells
        The open data set.
    asked
        Integrations of the session; a click on the button adds one.
    """
    columns = group_columns(cells)
    offered = batch_columns(cells, columns)
    with st.container(border=True, key="integration-form"):
        st.subheader("Which batches?")
        if not offered:
            st.info(
                "This file has no column that says which batch a cell is from: no column of obs with two groups or "
                "more. Put it together with another file above, or add a column such as *donor* or *sample* to it and "
                "open it again.",
                icon=":material/join:",
            )
            return
        settings = _chosen(cells, columns, offered)
        if settings is not None:
            _run(choice, cells, Asked(settings), asked)


def batch_columns(cells: H5adDataset, columns: list[str]) -> list[str]:
    """Columns of obs that may say the batch, the likeliest first; none where all are named like types.

    Parameters
    ----------
    cells
        The open data set.
    columns
        Those that name groups.
    """
    counts = {name: cells.obs[name].nunique() for name in columns}
    record = record_of(cells)
    joined = None if record is None else record["batch_key"]
    fit = [name for name in columns if 2 <= counts[name] <= _MOST_BATCHES]
    if all(_rank(name) == _TYPE and name != joined for name in fit):
        return []
    return sorted(fit, key=lambda name: (name != joined, _rank(name), columns.index(name)))


def _rank(name: str) -> int:
    """Smaller for a name that more likely means batches; types come last."""
    lower = name.lower()
    for rank, kinds in ((0, _LIKELY), (_TYPE, _TYPES), (1, _LESS_LIKELY)):
        if any(word in lower for word in kinds):
            return rank
    return 2


def _chosen(cells: H5adDataset, columns: list[str], offered: list[str]) -> IntegrateSettings | None:
    """What the fields say; None (with a word why) where they say no batches."""
    first, second = st.columns(2, vertical_alignment="top")
    with first:
        batch_key = st.selectbox(
            "Batches",
            offered,
            index=0 if _rank(offered[0]) < 2 or record_of(cells) else None,
            placeholder="choose a column",
            key=f"integration-batch-{cells.sha256[:12]}",
            help=HELP["batch"],
        )
    with second:
        labels = [name for name in columns if name != batch_key]
        likely = next((place for place, name in enumerate(labels) if _rank(name) == _TYPE), None)
        label_key = st.selectbox(
            "Cell types (optional)",
            [None, *labels],
            index=0 if likely is None else likely + 1,
            format_func=lambda name: "none: clusters stand in" if name is None else name,
            key=f"integration-type-{cells.sha256[:12]}-{batch_key}",
            help=HELP["type"],
        )
    if batch_key is None:
        st.info("Choose the column that says which cells were measured together.", icon=":material/info:")
        return None
    st.caption(_sizes(cells, batch_key))
    if label_key is None:
        st.caption(
            "No types: Leiden clusters of ScDiVa's vectors after Harmony stand in for them, and nothing but iLISI can "
            "be measured."
        )
    left, right = st.columns(2, vertical_alignment="center")
    finetune = left.toggle(
        "Fine-tune ScDiVa on these cells",
        value=True,
        key="integration-finetune",
        help=HELP["finetune"],
        persist_state="session",
    )
    minutes = right.number_input(
        "Minutes at most",
        0.5,
        240.0,
        _PLAIN.minutes,
        0.5,
        "%.1f",
        key="integration-minutes",
        help=HELP["minutes"],
        disabled=not finetune,
        persist_state="session",
    )
    return IntegrateSettings(batch_key, label_key, finetune, float(minutes) if finetune else _PLAIN.minutes)


def _sizes(cells: H5adDataset, batch_key: str) -> str:
    """Cells of each batch, the largest first."""
    sizes = cells.obs[batch_key].astype(str).value_counts()
    told = ", ".join(f"{name} {words.count(size, 'cell')}" for name, size in sizes.head(_NAMED).items())
    more = f", and {len(sizes) - _NAMED} more down to {words.count(sizes.iloc[-1], 'cell')}"
    return f"{len(sizes)} batches: {words.as_text(told)}{more if len(sizes) > _NAMED else ''}."


def _run(choice: state.Choice, cells: H5adDataset, item: Asked, asked: AskedList[Asked]) -> None:
    try:
        check_batch_column(cells, item.settings.batch_key)
        seconds = integration_work.seconds(cells, item)
    except ScDiVaError as error:
        errors.show(error)
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Integrate",
            key="integration-run",
            type="primary",
            icon=":material/join:",
            on_click=_begin,
            args=(choice, cells, asked, item),
        )
        if seconds == 0:
            st.caption("Computed before: shown at once.")
            return
        st.caption(
            f"About {words.duration(seconds)} on this machine; you can leave the page meanwhile.", help=HELP["time"]
        )


def _begin(choice: state.Choice, cells: H5adDataset, asked: AskedList[Asked], item: Asked) -> None:
    asked.show(item)
    if not integration_work.is_there(cells, item):
        integration_work.submit(choice, item)
