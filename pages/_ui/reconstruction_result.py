"""A reconstruction: first in words, then as curve, tables, one cell, genes and types, and the denoised layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from pages._ui import (
    code_lines,
    frame,
    jobs_panel,
    maps,
    reconstruction_denoised,
    reconstruction_genes,
    reconstruction_scores,
    reconstruction_work,
    report_reconstruction,
    reports,
    resources,
    state,
    words,
)
from pages._ui.reconstruction_parts import Shown
from pages._ui.reconstruction_words import HELP, unseen_genes, verdict
from pages._ui.reconstruction_work import Asked
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.tasks.reconstruction_scores import FEWEST_TOKENS

_KEPT = "Nothing of a reconstruction is kept before it is whole: the next try starts over."
_NO_COMMAND = "The command line takes the cells of one value of a column of obs, and the usual number of steps."


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
    result = reconstruction_work.result(cells, item)
    if result is None:
        submit = partial(reconstruction_work.submit, choice, item)
        jobs_panel.waiting(reconstruction_work.job(choice, item), item.title, submit, kept=_KEPT, key="rec")
        reconstruction_denoised.beside(choice, cells, found, name)
        return
    random = resources.engine().card().random_weights
    title = f"{frame.weights_note()}. {item.title}" if random else item.title  # a long title is cut at its end
    file = f"{'random-weights-' if random else ''}{name}-{item.title}"
    shown = Shown(choice, cells, found, item, result, title, file)
    st.subheader(words.as_text(item.title))
    _in_words(shown)
    _report(shown, name)
    draw: dict[str, Callable[[], None]] = {
        "Mask curve": partial(reconstruction_scores.curve, shown),
        "Table": partial(reconstruction_scores.tables, shown),
        "One cell": partial(reconstruction_genes.one_cell, shown),
        "Genes and types": partial(reconstruction_genes.genes_and_types, shown),
        "Denoised layer": partial(reconstruction_denoised.section, choice, cells, found, name),
    }
    for tab, content in zip(st.tabs(list(draw), key="rec-tabs", on_change="rerun"), draw.values(), strict=True):
        if tab.open:  # all figures at once would be slow to draw and to send
            with tab:
                content()
    code_lines.show(
        reconstruction_work.as_python(choice, item, cells.n_obs),
        reconstruction_work.command_line(choice, cells, item),
        why_none=_NO_COMMAND,
    )


def _report(shown: Shown, name: str) -> None:
    choice, cells, item = shown.choice, shown.cells, shown.item
    reports.button(
        lambda origin: report_reconstruction.report(origin, shown.result, item.title),
        cells,
        name,
        python=reconstruction_work.as_python(choice, item, cells.n_obs),
        command=reconstruction_work.command_line(choice, cells, item),
        why_none=_NO_COMMAND,
        job=reconstruction_work.job(choice, item),
        file=shown.file,
        key="rec-report",
    )


def _in_words(shown: Shown) -> None:
    result = shown.result
    with st.container(border=True, key="rec-caption"):
        st.markdown(words.as_text(result.summary["caption"]))
        st.markdown(
            "\n".join(f"- {sentence}" for sentence in verdict(result)), help=f"{HELP['question']}\n\n{HELP['leak']}"
        )
        if unseen := unseen_genes(result):
            st.markdown(
                f":material/info: Hidden in fewer than {FEWEST_TOKENS} of these cells, so without a number of their "
                f"own: {words.as_text(', '.join(unseen))}."
            )
        for warning in result.summary["warnings"]:
            st.markdown(f":material/info: {words.as_text(warning)}")
