"""PCA beside ScDiVa, in words and numbers."""

from __future__ import annotations

import numpy as np
import streamlit as st

from pages._ui import controls, words
from scdiva_core.metrics.embedding import AgreementComparison, compare_agreement

_VERDICTS = {
    "better": "ScDiVa keeps cells of the same label closer together than PCA does.",
    "equal": "**ScDiVa does not beat PCA here**: the difference is within its error.",
    "worse": "**ScDiVa does not beat PCA here**: PCA keeps cells of the same label closer together.",
}


@st.cache_data(show_spinner="Comparing with PCA …", scope="session", max_entries=16)
def _compared(key: tuple[str, ...], _model: np.ndarray, _pca: np.ndarray, _labels: np.ndarray) -> AgreementComparison:
    return compare_agreement(_model, _pca, _labels)


def comparison(source: controls.Source, model: np.ndarray, pca: np.ndarray, key: tuple[str, ...]) -> None:
    """Show how well each representation's neighbourhoods agree with a label column.

    Parameters
    ----------
    source
        Where the labels are.
    model, pca
        Float ``[n_cells, d]``, the representations themselves, not their pictures.
    key
        What they were computed from.
    """
    columns = {
        name: item for name, item in source.categories().items() if name.startswith("obs:") and len(item.names) > 1
    }
    with st.container(border=True, key="comparison"):
        st.subheader("What the model adds", help=words.HELP["agreement"])
        if not columns:
            st.caption(
                "The file has no label column, so there is nothing to measure: compare the two pictures by eye. "
                "PCA is the standard method without any model."
            )
            return
        name = st.selectbox("Measured by", list(columns), format_func=controls.option_label, key="measured_by")
        codes, labels = columns[name].codes, np.asarray([*columns[name].names, None], dtype=object)
        try:
            found = _compared((*key, name), model, pca, labels[codes])
        except ValueError:
            st.caption("Too few labelled cells to measure.")
            return
        _numbers(found, controls.option_label(name))


def _numbers(found: AgreementComparison, label: str) -> None:
    model, pca = found.model, found.baseline
    facts = (
        ("ScDiVa", model.agreement, "The embedding of the running checkpoint."),
        ("PCA", pca.agreement, words.HELP["pca"]),
        ("By chance", model.random, "The same with the labels shuffled: the level of no information."),
    )
    for column, (name, share, help_text) in zip(st.columns(3), facts, strict=True):
        column.metric(name, words.percent(share), help=help_text)
    st.markdown(_VERDICTS[found.verdict])
    st.caption(
        f"Share of each cell's {model.k} nearest neighbours with the same {words.as_text(label)}, mean over "
        f"{words.number(model.n_cells)} cells and {model.n_labels} labels. Difference "
        f"{100 * found.difference:+.1f} ± {100 * found.standard_error:.1f} percentage points (standard error). "
        "The labels are somebody's opinion too, and often were made with the help of PCA."
    )
