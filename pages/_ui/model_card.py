"""What is said of a checkpoint and what was measured of it: its card, its evaluation, the types it can name."""

from __future__ import annotations

import shlex

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages._ui import errors, export, frame, resources, words
from scdiva_core.data.spreadsheet import as_csv
from scdiva_core.engine import ModelCard
from scdiva_core.evaluation.report import MEASURES, TITLES
from scdiva_core.evaluation.tables import FILE, MEAN, Evaluation, Grid, read_evaluation, rival
from scdiva_core.evaluation.verdicts import METHODS
from scdiva_core.figures.evaluation import Dots, dot_plot
from scdiva_core.model.card_text import Rows, as_part_of_a_page, split_tables
from scdiva_core.model.network import CellLabels

_TABS = {
    "classification": "Cell types",
    "clusters": "Clusters",
    "integration": "Batches",
    "annotation": "Annotation",
    "mixing": "Studies pooled",
}

_UNBROKEN = "\N{NO-BREAK SPACE}"

_MEANING = {
    "knn_accuracy": "Share of cells whose 15 nearest neighbours vote for the cell's own published type. 1 is perfect.",
    "knn_macro_f1": "How well the vote of a cell's 15 nearest neighbours tells its published type, type by type: a "
    "rare type counts as much as a common one. 1 is perfect.",
    "probe_accuracy": "Share of cells whose published type a simple classifier (a weighted sum of the embedding's "
    "numbers) tells right. 1 is perfect.",
    "probe_macro_f1": "How well a simple classifier (a weighted sum of the embedding's numbers) tells published types, "
    "type by type: a rare type counts as much as a common one. 1 is perfect.",
    "ari": "Adjusted Rand index: how well clusters found without labels match the published types. 0 is chance, 1 "
    "perfect.",
    "nmi": "Normalised mutual information: how much the clusters tell of the published types. 0 is nothing, 1 all.",
    "silhouette": "How much nearer a cell lies to its own type than to the next one. From -1 to 1; more is better.",
    "avg_bio": "Whether cell types stay apart while batches are mixed: mean of NMI, ARI and silhouette. 1 is perfect.",
    "avg_batch": "Whether cells of one type lie together whichever batch they are from. 1 is perfectly mixed; read it "
    "beside Avg-Bio, for what tells nothing apart mixes perfectly.",
    "batch_asw": "Whether the batches of a type can be told apart by distance. 1: not at all, which is wanted.",
    "graph_connectivity": "Share of a type's cells that hang together in the graph of neighbours. 1 is all of them.",
    "accuracy": "Share of cells that are given the type that the set's authors published, without a look at any of "
    "their labels. 1 is perfect.",
    "macro_f1": "How well cells are given the type that the set's authors published, without a look at any of their "
    "labels, type by type: a rare type counts as much as a common one. 1 is perfect.",
    "balanced_accuracy": "Mean over types of the share of their cells that is named right. 1 is perfect.",
    "calibration_error": "How far the stated confidence is from the share that is right. 0 is perfect: less is better.",
}


def card_text(card: ModelCard) -> None:
    """Show the README.md beside the weights."""
    with st.container(border=True, key="card-text"):
        for piece in split_tables(as_part_of_a_page(card.text)):
            if isinstance(piece, str):
                st.markdown(piece, anchors=False)
            else:
                st.table(_unique(piece), hide_index=True, width="content")
        if not card.text:
            st.caption("This checkpoint brings no model card: there is no README.md beside its weights.")


def _unique(rows: Rows) -> pd.DataFrame:
    """Table whose headings differ, as Arrow wants it, if only by invisible signs; a spread stays with its number."""
    headings = [
        heading + "\N{ZERO WIDTH SPACE}" * rows[0][:place].count(heading) for place, heading in enumerate(rows[0])
    ]
    return pd.DataFrame(rows[1:], columns=headings).replace(" ± ", f"{_UNBROKEN}±{_UNBROKEN}", regex=True)


def cell_types(labels: CellLabels | None) -> None:
    """List what the annotation head can name; nothing for a checkpoint that names no types."""
    if labels is None:
        return
    with st.expander(f"Cell types that it can name ({len(labels.ids)})", icon=":material/label:", key="cell-types"):
        st.caption("Terms of the Cell Ontology. A cell of any other type is given one of these all the same.")
        table = pd.DataFrame({"Cell type": labels.names, "Cell Ontology id": labels.ids})
        st.dataframe(table, hide_index=True, width="stretch")
        _csv("Cell types (CSV)", table, "cell-types")


def evaluation(card: ModelCard) -> None:
    """Show how the running weights compare with what needs no checkpoint, as far as it was measured."""
    with st.container(border=True, key="evaluation"):
        st.subheader("Measured beside what needs no model")
        with errors.shown():
            found = read_evaluation(resources.engine().folder)
            if found is None:
                _none()
            elif found.sha256 != card.sha256:
                st.info(
                    f"The {FILE} beside these weights belongs to other weights (SHA-256 "
                    f"{words.as_text(found.sha256[:8])}…), so nothing of it is shown.",
                    icon=":material/info:",
                )
            else:
                _measured(found, card)


def _none() -> None:
    st.caption(
        "These weights have not been evaluated, or the result does not lie beside them. This makes one; then copy "
        f"its embedding.json beside the weights as {FILE}."
    )
    st.code(
        "python -m scdiva_core evaluate embedding --data SETS --corpus CORPUS -o RESULT "
        f"--checkpoint {shlex.quote(resources.checkpoint())}",
        language="bash",
        wrap_lines=True,
    )


def _measured(found: Evaluation, card: ModelCard) -> None:
    measures = found.measures()
    group = st.segmented_control(
        "What was tested",
        list(measures),
        default=next(iter(measures)),
        format_func=_TABS.get,
        required=True,
        key="evaluation-group",
    )
    measure = st.segmented_control(
        "Measured as",
        measures[group],
        default=next((name for name in measures[group] if found.in_words(group, name)), measures[group][0]),
        format_func=MEASURES.get,
        required=True,
        key=f"measure-{group}",
    )
    grid = found.grid(group, measure)
    st.markdown(f"**{TITLES[group]}: {MEASURES[measure]}**")
    st.caption(_MEANING[measure])
    in_words = found.in_words(group, measure)
    if in_words:
        st.markdown(f"**In words:** {words.as_text(' '.join(in_words))}")
    st.plotly_chart(
        _figure(grid, group, measure, dark=frame.is_dark(), narrow=frame.is_phone()),
        theme=None,
        key=f"evaluation-{group}-{measure}",
        config={**export.plotly_config(f"{card.name}-{measure}"), "displayModeBar": False, "scrollZoom": False},
        alt=f"Dot plot of {MEASURES[measure]}; the table below has its numbers",
    )
    on_paper = _figure(grid, group, measure)
    with st.container(horizontal=True):
        export.figure_downloads(
            lambda: on_paper,
            f"{card.name}-{measure}",
            key=f"figure-{group}-{measure}",
            size=(960, on_paper.layout.height),
        )
    st.table(_table(grid), alt=f"{MEASURES[measure]}, a row each set, a column each method")
    st.caption("The best of each row is bold.")
    with st.expander("How this was measured", icon=":material/straighten:"):
        st.markdown(words.as_text(found.notes[group]))
    _downloads(found, card)


def _figure(grid: Grid, group: str, measure: str, *, dark: bool = False, narrow: bool = False) -> go.Figure:
    methods = list(METHODS)
    dots = [
        Dots(
            METHODS[method],
            grid.values[method].to_numpy(),
            grid.texts[method].tolist(),
            methods.index(method),
            prominent=method in ("scdiva", rival(group)),
        )
        for method in grid.values
    ]
    return dot_plot(grid.values.index.tolist(), dots, axis=MEASURES[measure], dark=dark, narrow=narrow)


def _table(grid: Grid) -> pd.DataFrame:
    """Markdown in every cell; names of sets come from a file. A number and its spread stay on one line."""
    unbroken = grid.texts.replace(" ", _UNBROKEN, regex=True)
    bold = unbroken.where(~grid.best, "**" + unbroken + "**")
    return bold.rename(columns=METHODS, index=words.as_text)


def _downloads(found: Evaluation, card: ModelCard) -> None:
    path = resources.engine().folder / FILE  # read here: the file is sent on a thread without a session
    with st.container(horizontal=True):
        table = found.scores.assign(set=found.scores["set"].replace(MEAN, "(mean)"))
        _csv("All numbers (CSV)", table, f"{card.name}-evaluation")
        st.download_button(
            "All numbers (JSON)",
            data=path.read_bytes,
            file_name=f"{export.file_name(card.name, 'evaluation')}.json",
            mime="application/json",
            icon=":material/data_object:",
            key="evaluation-json",
            on_click="ignore",
        )


def _csv(label: str, table: pd.DataFrame, name: str) -> None:
    st.download_button(
        label,
        data=lambda: as_csv(table),
        file_name=f"{export.file_name(name)}.csv",
        mime="text/csv",
        icon=":material/table:",
        key=f"csv-{label}",
        on_click="ignore",
    )
