"""An embedding with its maps as a report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages._ui import code_lines, controls, datasets, maps, state, view, words
from scdiva_core.metrics.embedding import AgreementComparison, compare_agreement
from scdiva_core.report.contents import Origin, Picture, Report, Section, Table, Text, choices
from scdiva_core.tasks.neighbors import ProjectionSettings

NO_COMMAND = "The command line knows neither the least distance of UMAP nor the number of components of PCA."

_PLAIN = ProjectionSettings()
_VERDICTS = {
    "better": "ScDiVa keeps cells of the same label closer together than PCA does",
    "equal": "ScDiVa does not beat PCA here: the difference is within its error",
    "worse": "ScDiVa does not beat PCA here: PCA keeps cells of the same label closer together",
}


def command_line(choice: state.Choice, settings: ProjectionSettings) -> str | None:
    """Command that writes the same embedding, map and clusters; None for what the command line has no words for."""
    if (settings.min_dist, settings.n_pcs) != (_PLAIN.min_dist, _PLAIN.n_pcs):
        return None
    parts = ["python", "-m", "scdiva_core", "embed", str(datasets.locate(choice)), "-o", "embedded.h5ad"]
    for flag, value, plain in (
        ("--n-neighbors", settings.n_neighbors, _PLAIN.n_neighbors),
        ("--resolution", settings.resolution, _PLAIN.resolution),
        ("--seed", settings.seed, _PLAIN.seed),
    ):
        parts += [flag, f"{value:g}" if isinstance(value, float) else str(value)] if value != plain else []
    return shlex.join([*parts, *code_lines.reading_flags(choice)])


def report(
    origin: Origin,
    found: maps.Found,
    settings: ProjectionSettings,
    labels: view.Categories | None,
    shown_maps: Sequence[view.CellMap],
    draw: Callable[[view.CellMap], go.Figure],
    rows: pd.DataFrame,
) -> Report:
    """Write what an embedding looks like, and what it adds to PCA.

    Parameters
    ----------
    origin, found
        Where it comes from, and what there is of it.
    settings
        How maps were drawn.
    labels
        That both representations are judged by; None where there are none.
    shown_maps, draw
        Pictures on the page, and what draws one of them for paper.
    rows
        A row a cell: coordinates, clusters and cell sets.
    """
    pictures = [_picture(cell_map, draw(cell_map), rows) for cell_map in shown_maps]
    sketched = [item.sketched for item in found.projections if item.sketched]
    if sketched:
        pictures.append(
            Text(
                f"Map and clusters were computed on a sketch of {words.number(sketched[0])} cells that keeps rare "
                "kinds; every other cell lies by its nearest among them and has their cluster."
            )
        )
    pictures.append(Text("Near means alike; the size of a gap between islands means nothing."))
    sections = [
        Section("What came out", tuple(_told(found, labels, len(rows)))),
        Section("Maps", tuple(pictures)),
        *_clusters(found),
        _cells(rows),
    ]
    return Report("Embedding of the cells", choices(settings.to_dict()), tuple(sections), origin)


def label_column(source: controls.Source, chosen: str | None) -> view.Categories | None:
    """Labels that the page judges by: the chosen column, else the first that has groups.

    Parameters
    ----------
    source
        Where labels are.
    chosen
        As the page's field has it, ``"obs:..."``.
    """
    found = [item for name, item in source.categories().items() if name.startswith("obs:") and len(item.names) > 1]
    return next((item for item in found if f"obs:{item.label}" == chosen), found[0] if found else None)


def _picture(cell_map: view.CellMap, figure: go.Figure, rows: pd.DataFrame) -> Picture:
    return Picture(figure, f"Scatter plot of {len(rows):,} cells on the map {cell_map.name}")


def _told(found: maps.Found, labels: view.Categories | None, n_cells: int) -> list[Text | Table]:
    if found.embedding is None:
        return [Text("These cells have not been embedded with this checkpoint; the maps are what else there is.")]
    width = found.embedding.shape[1]
    items: list[Text | Table] = [Text(f"Each of {n_cells:,} cells became a vector of {width} numbers.")]
    if found.pca is None or labels is None:
        return [*items, Text("There are no labels to measure by: compare the pictures by eye.")]
    names = np.asarray([*labels.names, None], dtype=object)
    try:
        compared = compare_agreement(found.embedding, found.pca, names[labels.codes])
    except ValueError:
        return [*items, Text("Too few labelled cells to compare with PCA.")]
    return [*items, *_compared(compared, labels.label)]


def _compared(found: AgreementComparison, label: str) -> list[Text | Table]:
    model, pca = found.model, found.baseline
    shares = {"ScDiVa": model.agreement, "PCA": pca.agreement, "By chance": model.random}
    rows = pd.DataFrame({"method": list(shares), "agreement": list(shares.values())})
    return [
        Text(f"{_VERDICTS[found.verdict]}.", "verdict"),
        Table(rows, {"method": "Method", "agreement": "Agreement"}, f"Agreement of neighbours, by {label}"),
        Text(
            f"Share of each cell's {model.k} nearest neighbours with the same {label}, mean over {model.n_cells:,} "
            f"cells and {model.n_labels} labels. Difference {100 * found.difference:+.1f} ± "
            f"{100 * found.standard_error:.1f} percentage points (standard error). The labels are somebody's opinion "
            "too, and often were made with the help of PCA."
        ),
    ]


def _clusters(found: maps.Found) -> list[Section]:
    tables = []
    for projection in found.projections:
        cluster, n_cells = np.unique(projection.leiden, return_counts=True)
        title = f"Leiden clusters ({maps.title(projection.representation)})"
        rows = pd.DataFrame({"cluster": cluster, "n": n_cells})
        tables.append(Table(rows, {"cluster": "Cluster", "n": "Cells"}, title))
    return [Section("Clusters", tuple(tables))] if tables else []


def _cells(rows: pd.DataFrame) -> Section:
    named = rows.rename_axis(index="cell").reset_index()
    columns = {name: "Cell" if name == "cell" else str(name) for name in named}
    return Section("Cells", (Table(named, columns, "Place on each map, cluster and cell sets of each cell"),))
