"""Command ``knockout``: what the model expects when genes are removed or scaled, as tables."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdiva_core.cli_progress import TerminalProgress, warn
from scdiva_core.errors import DataError

if TYPE_CHECKING:  # other commands start without it
    import pandas as pd
    from numpy.typing import NDArray

    from scdiva_core.data.h5ad import H5adDataset
    from scdiva_core.engine import Engine

_SHOWN = 10  # genes of a screen that are printed
_NAMED = 5  # genes in a warning


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = commands.add_parser(
        "knockout",
        help="ask what the model expects when genes are removed or scaled",
        description=(
            "Perturb genes in cells and compare how far the cells move with what random genes expressed alike do. "
            "Writes groups.csv, directions.csv, transitions.csv, cells.csv, expression.csv and summary.json into a "
            "folder and prints a sentence. With --screen many genes are perturbed one at a time, and screen.csv is "
            "written; an interrupted screen goes on when the same command is repeated. This is what the model "
            "expects and no experiment."
        ),
    )
    parser.add_argument("input", type=Path, help="an .h5ad file with raw counts or log1p values")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--genes",
        type=_names,
        metavar="GENE,...",
        help="one perturbation of up to three genes: several are perturbed together, not one after the other",
    )
    what.add_argument(
        "--screen",
        metavar="WHICH",
        help="perturb each alone: 'regulators' (transcription factors), 'variable', a file of names, or GENE,GENE,...",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the tables")
    parser.add_argument(
        "--mode",
        choices=("knockout", "scale", "mask"),
        default="knockout",
        help="remove the genes, scale their expression, or hide them in their places (default: knockout)",
    )
    parser.add_argument(
        "--factor", type=float, default=0.0, help="for --mode scale: below 1 to knock down, above 1 to over-express"
    )
    parser.add_argument("--group", metavar="COLUMN", help="column of obs with cell types (default: Leiden clusters)")
    parser.add_argument("--donor", metavar="COLUMN", help="column of obs with donors, for a test over donors")
    parser.add_argument("--subset", metavar="COLUMN=VALUE", help="perturb these cells only")
    parser.add_argument(
        "-n", "--most-cells", type=int, metavar="MOST", help="cells drawn at most (default: 500; of a screen 1,000)"
    )
    parser.add_argument("--n-null", type=int, default=100, help="random genes to compare with (default: 100)")
    parser.add_argument("--no-expression", action="store_true", help="do not predict the expression of other genes")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")
    parser.add_argument("--matrix", help="'X', 'raw/X' or 'layers/NAME'; recognised when left out")
    parser.add_argument("--gene-column", help="column of var with gene names, 'index' for its index")
    parser.add_argument(
        "--values",
        choices=("auto", "counts", "log1p"),
        default="auto",
        help="what the values are, if they are not recognised correctly (default: auto)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Perturb, write the tables, and print what was found and where it is."""
    from scdiva_core.engine import Engine
    from scdiva_core.engine_cells import subset

    engine = Engine(options.checkpoint, options.device)
    if engine.card().random_weights:
        warn("these weights are random; the numbers mean nothing")
    with engine.open(
        options.input, matrix=options.matrix, gene_column=options.gene_column, values=options.values
    ) as dataset:
        cells = None if options.subset is None else subset(dataset, options.subset)
        options.output.mkdir(parents=True, exist_ok=True)
        for warning in dataset.preflight.warnings:
            warn(warning)
        (_perturb if options.screen is None else _screen)(engine, dataset, options, cells)
    print(options.output)


def _perturb(
    engine: Engine, dataset: H5adDataset, options: argparse.Namespace, cells: NDArray[np.int64] | None
) -> None:
    from scdiva_core.engine_knockout import KnockoutSettings, knockout

    settings = KnockoutSettings(
        options.genes,
        donor_key=options.donor,
        expression=not options.no_expression,
        **_common(options),
    )
    progress = TerminalProgress()
    found = knockout(engine, dataset, settings, cells, progress=progress)
    progress.end()
    for name in ("groups", "directions", "transitions", "cells", "expression", "donors", "field", "control"):
        _write(getattr(found, name), options.output / f"{name}.csv")
    for warning in found.summary["warnings"]:
        warn(warning)
    counts = {name: getattr(found, name) for name in ("n_cells", "n_sampled", "n_expressing", "n_read")}
    summary = {**counts, **found.summary, "null": found.null.tolist()}
    _write_summary(engine, dataset, options.output, settings.to_dict(), summary)
    print(found.summary["caption"])


def _screen(engine: Engine, dataset: H5adDataset, options: argparse.Namespace, cells: NDArray[np.int64] | None) -> None:
    from scdiva_core.engine_knockout import ScreenSettings, screen

    genes = _screened(dataset, options.screen, cells, options.seed)
    settings = ScreenSettings(genes, **_common(options))
    progress = TerminalProgress()
    table = screen(engine, dataset, settings, cells, progress=progress)
    progress.end()
    _write(table, options.output / "screen.csv")
    refused = table["refused"] != ""
    clear = int((table["q"] <= 0.05).sum())
    counts = {"n_tested": int((~refused).sum()), "n_refused": int(refused.sum()), "n_beyond_random": clear}
    _write_summary(engine, dataset, options.output, settings.to_dict(), counts)
    shown = table[~refused][["gene", "effect", "z", "p", "q", "n_read", "direction"]].head(_SHOWN)
    if len(shown):
        print(shown.to_string(index=False, float_format="{:.3g}".format))
    print(f"{len(table):,} genes: {clear:,} beyond random genes (q at most 0.05), {refused.sum():,} refused")


def _common(options: argparse.Namespace) -> dict[str, Any]:
    """Settings that a perturbation and a screen share."""
    most = {} if options.most_cells is None else {"most_cells": options.most_cells}
    named = {"mode": options.mode, "factor": options.factor, "group_key": options.group, "n_null": options.n_null}
    return {**named, **most, "seed": options.seed, "cells": options.subset or "all"}


def _screened(dataset: H5adDataset, which: str, cells: NDArray[np.int64] | None, seed: int) -> tuple[str, ...]:
    """Genes of a screen; names that are no gene of the file are told and left out."""
    from scdiva_core.tasks.knockout_genes import parse_gene_list, screen_genes

    if which in ("regulators", "variable"):
        genes = screen_genes(dataset, which, cells, seed=seed)
        if not genes:
            msg = f"These cells express none of the {which} genes often enough for a screen."
            raise DataError(msg, "Choose more cells, or name the genes.")
        return genes
    text = Path(which).read_text(encoding="utf-8") if Path(which).is_file() else which
    found, unknown = parse_gene_list(text, dataset)
    if unknown:
        named = "; ".join(f"{name}: {why}" for name, why in list(unknown.items())[:_NAMED])
        rest = f"; and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
        warn(f"{len(unknown):,} names left out ({named}{rest})")
    if not found:
        msg = f"None of the names in {which[:80]!r} is a gene of this file that the model knows."
        raise DataError(msg, "Give 'regulators', 'variable', a file of gene names, or names with commas between.")
    return tuple(found)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _write(table: pd.DataFrame | None, path: Path) -> None:
    """Write a table; one that there is none of must not stay from an earlier run."""
    from scdiva_core.data.spreadsheet import as_csv

    if table is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(as_csv(table))


def _write_summary(
    engine: Engine, dataset: H5adDataset, folder: Path, settings: dict[str, Any], found: dict[str, Any]
) -> None:
    content = {**found, "settings": settings, "provenance": engine.provenance(dataset)}
    (folder / "summary.json").write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
