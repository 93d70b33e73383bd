"""What a perturbation did: first in words, then as map, cell types, directions, genes and controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages._ui import code_lines, errors, jobs_panel, knockout_work, maps, report_knockout, reports, state, words
from pages._ui.knockout_list import Asked
from pages._ui.knockout_words import EXPRESSION_RELIABILITY, HELP, NO_EXPERIMENT
from pages._ui.parts import figure, table
from pages._ui.report_knockout import digits
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_knockout import KnockoutResult
from scdiva_core.figures.perturbation import arrow_map, expression_volcano
from scdiva_core.figures.perturbation_bars import ranked_bars

_KEPT = "The embedding is kept; the perturbation itself begins anew."
_NO_COMMAND = (
    "The command line takes the cells of one value of a column of obs. Take the file home with its cell sets (page "
    "Embedding): each is a column there."
)


@dataclass(frozen=True)
class Shown:
    """A result on the page.

    Parameters
    ----------
    item, result
        What was asked for, and what came of it.
    file
        What files of it are called.
    """

    item: Asked
    result: KnockoutResult
    file: str

    @property
    def title(self) -> str:
        """What was perturbed, and where."""
        return self.item.title


def section(choice: state.Choice, cells: H5adDataset, found: maps.Found, item: Asked, name: str) -> None:
    """Draw the result, or how far it is, or why there is none.

    Parameters
    ----------
    choice, cells, found
        The open data set and its map.
    item
        What was asked for.
    name
        Of the data set.
    """
    result = knockout_work.result(cells, item)
    if result is None:
        waiting("knockout", choice, item, kept=_KEPT)
        return
    shown = Shown(item, result, f"{name}-{item.title}")
    st.subheader(words.as_text(item.title))
    _in_words(shown)
    _report(choice, cells, found, shown, name)
    draw: dict[str, Callable[[], None]] = {
        "Map": lambda: _map(choice, shown, found),
        "Cell types": lambda: _groups(shown),
        "Directions": lambda: _directions(shown),
        "Genes": lambda: _genes(shown),
        "Controls": lambda: _controls(shown),
    }
    for tab, content in zip(st.tabs(list(draw), key="ko-tabs", on_change="rerun"), draw.values(), strict=True):
        if tab.open:  # nine figures at once would be slow to draw and to send
            with tab:
                content()
    code(choice, cells, item)


def code(choice: state.Choice, cells: H5adDataset, item: Asked) -> None:
    """Offer the lines of Python and the command that make a result again."""
    code_lines.show(
        knockout_work.as_python(choice, item, cells.n_obs),
        knockout_work.command_line(choice, cells, item),
        why_none=_NO_COMMAND,
    )


def waiting(kind: knockout_work.Kind, choice: state.Choice, item: Asked, *, kept: str) -> None:
    """Say how far work is that has no result yet, or why it ended without one.

    Parameters
    ----------
    kind, choice, item
        Which work.
    kept
        What becomes of what is done when it is cancelled.
    """
    jobs_panel.waiting(
        knockout_work.job(kind, choice, item),
        item.title,
        partial(knockout_work.submit, kind, choice, item, item.title),
        kept=kept,
        key=f"ko-{kind}",
    )


def _in_words(shown: Shown) -> None:
    summary = shown.result.summary
    with st.container(border=True, key="ko-caption"):
        st.markdown(words.as_text(summary["caption"]))
        st.markdown(f"Every other cell shifts by exactly 0. **{NO_EXPERIMENT}**", help=HELP["read"])
        for warning in summary["warnings"]:
            st.markdown(f":material/info: {words.as_text(warning)}")


def _report(choice: state.Choice, cells: H5adDataset, found: maps.Found, shown: Shown, name: str) -> None:
    points = found.maps["ScDiVa"].coordinates
    reports.button(
        lambda origin: report_knockout.report(origin, shown.result, shown.title, points),
        cells,
        name,
        python=knockout_work.as_python(choice, shown.item, cells.n_obs),
        command=knockout_work.command_line(choice, cells, shown.item),
        why_none=_NO_COMMAND,
        job=knockout_work.job("knockout", choice, shown.item),
        file=shown.file,
        key="ko-report",
    )


def _map(choice: state.Choice, shown: Shown, found: maps.Found) -> None:
    result = shown.result
    if result.field is None or result.control is None:
        st.info("The arrows have not been drawn on this map yet.", icon=":material/info:")
        st.button(
            "Draw them",
            key="ko-arrows-again",
            icon=":material/near_me:",
            on_click=errors.kept(knockout_work.submit),
            args=("knockout", choice, shown.item, f"Arrows: {shown.title}"),
        )
        return
    points = found.maps["ScDiVa"].coordinates
    st.markdown("**Where the cells move on the map**", help=HELP["field"])
    figure(
        lambda dark: arrow_map(points, result.field, result.control, title=shown.title, dark=dark),
        f"{shown.file}-map",
        key="ko-map",
        alt=f"Arrows on the map of the cells: {shown.title}, beside a control",
    )
    st.caption(
        "Arrows are enlarged, both pictures alike. Believe a direction only where it differs from the control; the "
        "map keeps neighbours, not distances."
    )
    with st.expander("Arrows as a table"):
        arrows = result.field.assign(what="perturbed")
        columns = {"what": "What", "x": "UMAP 1", "y": "UMAP 2", "dx": "Move 1", "dy": "Move 2", "n": "Cells"}
        both = [arrows, result.control.assign(what="control")]
        table(
            pd.concat(both, ignore_index=True),
            columns,
            f"{shown.file}-arrows",
            key="ko-arrows",
            alt="Arrows of the map",
            height=260,
        )


def bars(shown: Shown, *, dark: bool) -> go.Figure:
    """Shift of each group, over its null."""
    return report_knockout.bars(shown.result, shown.title, dark=dark)


def heat(shown: Shown, *, dark: bool) -> go.Figure:
    """Directions of each group."""
    return report_knockout.heat(shown.result, shown.title, dark=dark)


def _groups(shown: Shown) -> None:
    st.markdown("**How far each cell type moves**", help=f"{HELP['shift']} {HELP['null']}")
    figure(
        lambda dark: bars(shown, dark=dark),
        f"{shown.file}-cell-types",
        key="ko-bars",
        alt=f"Mean shift of each group of cells over the band of random genes: {shown.title}",
    )
    table(
        shown.result.groups,
        report_knockout.GROUPS,
        f"{shown.file}-cell-types",
        key="ko-groups-table",
        alt="Shift of each group of cells",
        help_texts={"n_read": HELP["read"], "shift": HELP["shift"], "null_mean": HELP["null"], "q": HELP["q"]},
    )
    st.caption("Where fewer than 10 cells read the genes, there is no p.")


def _directions(shown: Shown) -> None:
    result = shown.result
    st.markdown("**Towards which cell types, away from which**", help=HELP["directions"])
    figure(
        lambda dark: heat(shown, dark=dark),
        f"{shown.file}-directions",
        key="ko-heat",
        alt=f"Change of cosine of each group of cells to each other: {shown.title}",
    )
    table(
        result.directions.sort_values("q", kind="stable"),
        report_knockout.DIRECTIONS,
        f"{shown.file}-directions",
        key="ko-directions-table",
        alt="Direction of each group of cells to each other",
        help_texts={"word": HELP["directions"], "null_mean": HELP["null"], "q": HELP["q"], "n": HELP["read"]},
        height=280,
    )
    st.markdown("**Which group the cells are nearest to, before and after**", help=HELP["transitions"])
    figure(
        lambda dark: report_knockout.flows(result, shown.title, dark=dark),
        f"{shown.file}-transitions",
        key="ko-sankey",
        alt=f"Flow of cells from the group nearest before to the one nearest after: {shown.title}",
    )
    table(
        result.transitions,
        report_knockout.TRANSITIONS,
        f"{shown.file}-transitions",
        key="ko-transitions-table",
        alt="Cells by nearest group before and after",
        height=220,
    )


def _genes(shown: Shown) -> None:
    result = shown.result
    if result.expression is None:
        st.info(
            "Predicted expression was not asked for. Switch it on above and run this again.", icon=":material/info:"
        )
        return
    st.warning(EXPRESSION_RELIABILITY, icon=":material/science:")
    rows = result.expression
    figure(
        lambda dark: expression_volcano(rows, title=shown.title, dark=dark),
        f"{shown.file}-volcano",
        key="ko-volcano",
        alt=f"Predicted change of each gene against its q: {shown.title}",
    )
    figure(
        lambda dark: ranked_bars(rows, "change", axis="predicted change of log1p", title=shown.title, dark=dark),
        f"{shown.file}-ranked",
        key="ko-ranked",
        alt=f"Genes with the largest predicted change: {shown.title}",
    )
    table(
        rows,
        report_knockout.EXPRESSION,
        f"{shown.file}-expression",
        key="ko-expression-table",
        alt="Predicted change of each gene, the largest first",
        help_texts={"noise": HELP["noise"], "q": HELP["q"], "detection": HELP["detection"]},
        height=320,
    )
    st.caption("Predicted log1p of counts per 10,000. Levels are the model's: compare changes, not levels.")


def _controls(shown: Shown) -> None:
    result, summary = shown.result, shown.result.summary
    st.markdown("**Among random genes**", help=HELP["null"])
    figure(
        lambda dark: report_knockout.null(result, shown.title, dark=dark),
        f"{shown.file}-null",
        key="ko-null",
        alt=f"Shifts of matched random genes, and of the perturbation: {shown.title}",
    )
    _facts(shown)
    st.markdown("**Over donors**", help=HELP["donor test"])
    st.markdown(words.as_text(report_knockout.donors_in_words(summary)))
    if result.donors is not None and len(result.donors):
        table(
            result.donors,
            report_knockout.DONORS,
            f"{shown.file}-donors",
            key="ko-donors-table",
            alt="Shift beyond random genes in each donor",
        )
    with st.expander("Every cell as a table"):
        table(
            result.cells,
            report_knockout.CELLS,
            f"{shown.file}-cells",
            key="ko-cells-table",
            alt="Shift of every cell",
            height=300,
        )


def _facts(shown: Shown) -> None:
    result, summary = shown.result, shown.result.summary
    unread = result.n_expressing - result.n_read
    facts = [
        ("Mean shift", digits(summary["shift"]), HELP["shift"]),
        ("Random genes, 90 %", f"{digits(summary['null_low'])} to {digits(summary['null_high'])}", HELP["null"]),
        ("Express it, not read", words.number(unread), HELP["read"]),
    ]
    if summary["masked"] is not None:
        share = "–" if summary["remaining"] is None else words.percent(summary["remaining"], 0)
        facts.append(("Left when hidden", share, HELP["masked"]))
    for place, (label, value, help_text) in zip(st.columns(len(facts)), facts, strict=True):
        place.metric(label, value, help=help_text)
    if hidden := report_knockout.hidden_in_words(summary):
        st.caption(hidden)
