"""A reconstruction as a report."""

from __future__ import annotations

import numpy as np

from pages._ui import words
from pages._ui.reconstruction_words import HELP, MEASURE_HELP, MEASURES, unseen_genes, verdict, with_words
from scdiva_core.engine_reconstruction import ReconstructionResult
from scdiva_core.engine_reconstruction_result import MEAN, NAMED, NEIGHBOURS, ONE_PASS
from scdiva_core.figures.reconstruction import gene_errors, mask_curve, method_dots, type_bars
from scdiva_core.report.contents import Origin, Picture, Report, Section, Table, Text, choices
from scdiva_core.tasks.reconstruction_scores import FEWEST_TOKENS

_DRAWN = {"mse": "gene", "identity": None}  # measure -> what is told; None for all that have the measure
_COMPARED = {
    "ours": "This",
    "theirs": "against",
    "measure": "Measure",
    "word": "is",
    "ours_mean": "This has",
    "theirs_mean": "the other",
    "difference": "Gain",
    "low": "from",
    "high": "to",
    "n": "Cells",
}
_GENES = {
    "symbol": "Gene",
    "n": "Hidden in",
    "mean": "Mean value",
    f"mse: {NAMED}": "MSE ScDiVa",
    f"mse: {MEAN}": "MSE mean",
    f"mse: {NEIGHBOURS}": "MSE kNN",
    f"spearman: {NAMED}": "Spearman ScDiVa",
    f"spearman: {NEIGHBOURS}": "Spearman kNN",
    f"identity: {ONE_PASS}": "Named rightly",
}


def report(origin: Origin, result: ReconstructionResult, title: str) -> Report:
    """Write how well cells were rebuilt.

    Parameters
    ----------
    origin
        Where it comes from.
    result, title
        Of the reconstruction.
    """
    sections = [_words(result), *_methods(result, title), *_genes(result, title), *_types(result, title)]
    return Report(title, choices(result.settings.to_dict()), tuple(sections), origin)


def _words(result: ReconstructionResult) -> Section:
    told = result.summary
    items = [Text(told["caption"])]
    items += [Text(sentence.replace("**", ""), "verdict") for sentence in verdict(result)]
    if unseen := unseen_genes(result):
        items.append(
            Text(
                f"Hidden in fewer than {FEWEST_TOKENS} of these cells, so without a number of their own: "
                f"{', '.join(unseen)}.",
                "warning",
            )
        )
    items += [Text(warning, "warning") for warning in told["warnings"]]
    items += [Text(HELP[name].replace("**", "")) for name in ("question", "leak")]
    return Section("What came out", tuple(items))


def _methods(result: ReconstructionResult, title: str) -> list[Section]:
    rows, pictures = result.table, []
    for measure, told in _DRAWN.items():
        if not np.isfinite(rows[measure]).any():
            continue
        draw = method_dots if rows["mask"].nunique() == 1 else mask_curve
        alt = f"{MEASURES[measure]} of each method by the share of the genes that was hidden"
        pictures.append(Picture(draw(rows, measure, told=told, title=title), alt, MEASURE_HELP[measure]))
    columns = {"mask": "Hidden", "method": "Method", "asked": "Asked", "sees": "Sees", "n": "Cells", **MEASURES}
    compared = result.comparisons.assign(measure=result.comparisons["measure"].map(MEASURES))
    tables = (
        Table(with_words(rows), columns, "Every measure of every method at every share hidden, means over cells"),
        Table(compared, _COMPARED, "Who is better than whom, on the same cells, all shares together"),
        Text(f"{HELP['gain']} {HELP['interval']}"),
    )
    return [Section("All methods", (*pictures, *tables))]


def _genes(result: ReconstructionResult, title: str) -> list[Section]:
    if result.genes.empty:
        return []
    items = (
        Picture(
            gene_errors(result.genes, NAMED, MEAN, title=title),
            "Error of each gene by the model against that by the population mean",
            HELP["gene errors"],
        ),
        Table(result.genes, _GENES, "Errors of each gene, those hidden most often first"),
    )
    share = "" if result.settings.genes else f", {words.percent(result.summary['mask'], 0)} of the cells' genes hidden"
    return [Section(f"Gene by gene{share}", items)]


def _types(result: ReconstructionResult, title: str) -> list[Section]:
    types = result.types
    if types is None:
        return []
    mask = min(set(types["mask"]), key=lambda share: abs(share - result.summary["mask"]))
    drawn = type_bars(
        types[types["mask"] == mask],
        "mse",
        (NAMED, MEAN, NEIGHBOURS),
        title=f"{title}, {words.percent(mask, 0)} hidden",
    )
    columns = {"group": "Type", "mask": "Hidden", "method": "Method", "n": "Cells", **MEASURES}
    items = (
        Picture(drawn, "Squared error of the cells of each type", MEASURE_HELP["mse"]),
        Table(types, columns, "Every measure of every method for each type"),
    )
    return [Section("Type by type", items)]
