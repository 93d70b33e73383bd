"""A network: first in words, then as picture, regulators, comparison, heat map and what speaks for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from pages._ui import (
    code_lines,
    frame,
    grn_compare,
    grn_module,
    grn_network,
    grn_regulons,
    grn_trust,
    grn_work,
    jobs_panel,
    maps,
    report_grn,
    reports,
    resources,
    state,
    words,
)
from pages._ui.grn_parts import Shown
from pages._ui.grn_words import NO_PROOF
from pages._ui.grn_work import Asked
from scdiva_core.data.h5ad import H5adDataset

_KEPT = "Nothing of a network is kept before it is whole: the next try starts over."
_NO_COMMAND = (
    "The command line takes the cells of one value of a column of obs, and reads the attention of the checkpoint's "
    "choice."
)


def section(choice: state.Choice, cells: H5adDataset, found: maps.Found, item: Asked, name: str) -> None:
    """Draw the result, or how far it is, or why there is none.

    Parameters
    ----------
    choice, cells, found
        The open data set and its maps.
    item
        What was asked for.
    name
        Of the data set.
    """
    result = grn_work.result(cells, item)
    if result is None:
        submit = partial(grn_work.submit, choice, item)
        jobs_panel.waiting(grn_work.job(choice, item), item.title, submit, kept=_KEPT, key="grn")
        return
    random = resources.engine().card().random_weights
    title = f"{item.title}. {frame.weights_note()}" if random else item.title
    shown = Shown(choice, cells, found, item, result, title, f"{name}-{item.title}")
    st.subheader(words.as_text(item.title))
    _in_words(shown)
    python, command = grn_work.as_python(choice, item, cells.n_obs), grn_work.command_line(choice, cells, item)
    reports.button(
        lambda origin: report_grn.report(origin, result, item.title),
        cells,
        name,
        python=python,
        command=command,
        why_none=_NO_COMMAND,
        job=grn_work.job(choice, item),
        file=shown.file,
        key="grn-report",
    )
    draw: dict[str, Callable[[Shown], None]] = {"Network": grn_network.section, "Regulons": grn_regulons.section}
    if result.contrast is not None:
        draw["Compare sets"] = grn_compare.section
    draw |= {"Module": grn_module.section, "How far to trust it": grn_trust.section}
    for tab, content in zip(st.tabs(list(draw), key="grn-tabs", on_change="rerun"), draw.values(), strict=True):
        if tab.open:  # all figures at once would be slow to draw and to send
            with tab:
                content(shown)
    code_lines.show(python, command, why_none=_NO_COMMAND)


def _in_words(shown: Shown) -> None:
    summary = shown.result.summary
    with st.container(border=True, key="grn-caption"):
        st.markdown(words.as_text(summary["caption"]))
        if summary["verdict"]:
            st.markdown(words.as_text(summary["verdict"]))
        st.markdown(f"**{NO_PROOF}** It has no sign, and an arrow is no cause.")
        for warning in summary["warnings"]:
            st.markdown(f":material/info: {words.as_text(warning)}")
