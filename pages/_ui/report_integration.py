"""An integration as a report."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from pages._ui import view
from pages._ui.integration_words import BARS, HELP, LOSSES, MEASURES, SCORES
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_integration import FINETUNED, IntegrationResult
from scdiva_core.figures.integration import metric_bars
from scdiva_core.figures.scatter import Canvas
from scdiva_core.figures.training_curve import training_curve
from scdiva_core.report.contents import Origin, Picture, Report, Section, Table, Text, choices
from scdiva_core.tasks.integration import METHODS, apart_in_words
from scdiva_core.tasks.neighbors import Projection

_MOST_DRAWN = 30_000  # cells of each picture, as on the page
_OURS = [name for name in METHODS if name.startswith("scdiva")]


def report(
    origin: Origin,
    result: IntegrationResult,
    title: str,
    cells: H5adDataset,
    drawn: Mapping[str, Projection | None],
) -> Report:
    """Write what integration did.

    Parameters
    ----------
    origin
        Where it comes from.
    result, title
        Of the integration.
    cells
        The open data set.
    drawn
        Method -> its map; None where it was not drawn.
    """
    told = result.summary
    plain = [Text(told[name]) for name in ("apart", "taught") if told[name]]
    warnings = [Text(words, "warning") for words in told["warnings"]]
    sections = [
        Section("What came out", (Text(told["verdict"], "verdict"), *plain, *warnings)),
        *_maps(origin, result, cells, drawn),
        *_measures(origin, result),
        *_apart(result),
        *_training(origin, result),
    ]
    return Report(title, choices(result.settings.to_dict()), tuple(sections), origin)


def _maps(
    origin: Origin, result: IntegrationResult, cells: H5adDataset, drawn: Mapping[str, Projection | None]
) -> list[Section]:
    """Before and after: the embedding as it is and the best of the others, by batch and by type."""
    after = FINETUNED if FINETUNED in result.vectors else "harmony"
    columns = [name for name in (result.settings.batch_key, result.settings.label_key) if name is not None]
    items = []
    for column in columns:
        colouring = view.column_colouring(cells.obs[column], column)
        for method in ("scdiva", after):
            found = drawn.get(method)
            if found is None or colouring is None:
                continue
            name = METHODS[method]
            note = origin.warning if method in _OURS else ""
            cell_map = view.CellMap(name, method, found.coordinates, ("UMAP 1", "UMAP 2"), note)
            canvas = Canvas(title=f"{name}: {column}", axes=cell_map.axes, note=note)
            options = {"shown": None, "canvas": canvas, "names_on_picture": False, "limit": _MOST_DRAWN}
            figure = view.draw(cell_map, colouring, cells.obs_names, **options)
            items.append(Picture(figure, f"Map of the cells by {name}, coloured by {column}"))
    return [Section("Before and after", (*items, Text(HELP["before and after"])))] if items else []


def _measures(origin: Origin, result: IntegrationResult) -> list[Section]:
    chance = result.summary["chance"]
    sections = []
    if result.judged is not None:
        sections.append(_measured(origin, "Cells that only judged", HELP["judged"], result.judged, chance["judged"]))
    said = HELP["all cells"] if result.judged is not None else ""
    return [*sections, _measured(origin, "All cells", said, result.table, chance["table"])]


def _measured(origin: Origin, title: str, said: str, rows: pd.DataFrame, chance: dict[str, float]) -> Section:
    options = {"measures": BARS, "highlighted": _OURS, "chance": chance, "note": origin.warning}
    named = rows.assign(method=[METHODS.get(name, name) for name in rows["method"]])
    every = pd.concat([named, pd.DataFrame([{"method": "By chance", **chance}])], ignore_index=True)
    columns = {"method": "Method", **{name: label for name, label in MEASURES.items() if name in rows}}
    items = (
        Picture(
            metric_bars(rows, METHODS, **options),
            "Bars of each method: types held together and batches mixed",
            f"Dotted: by chance. {HELP['chance']}",
        ),
        Table(every, columns, "Methods with all measures, 0 to 1, higher is better"),
    )
    return Section(f"Measures: {title.lower()}", (*([Text(said)] if said else []), *items))


def _apart(result: IntegrationResult) -> list[Section]:
    found = result.apart
    if found is None or not len(found):
        return []
    methods = {name: METHODS.get(name, name) for name in result.vectors}
    told = [Text(f"{name}: {apart_in_words(found, method)}") for method, name in methods.items()]
    index = {"label": "Type", "batch": "Batch", "n_cells": "Cells"}
    rows = found.pivot_table(index=list(index), columns="method", values="purity", observed=True).reset_index()
    table = Table(rows, {**index, **methods}, "Purity of the clusters of types that only one batch has, by method")
    return [Section("Types that only one batch has", (*told, table, Text(HELP["apart"])))]


def _training(origin: Origin, result: IntegrationResult) -> list[Section]:
    curve = list(result.curve)
    if not curve:
        return []
    best = max(range(len(curve)), key=lambda number: curve[number]["score"])
    figure = training_curve(curve, LOSSES, SCORES, best=best, note=origin.warning)
    columns = {"round": "Round", "seconds": "Seconds", "cells_seen": "Cells seen", **LOSSES, **SCORES}
    items = (
        Picture(figure, "Losses and scores of each round of the fine-tuning", HELP["curve"]),
        Table(pd.DataFrame(curve), columns, "Rounds of the fine-tuning"),
        Text(
            "The training ends by the clock: another machine may do more or fewer rounds in that time, and then the "
            "fine-tuned numbers differ."
        ),
    )
    return [Section("Training", items)]
