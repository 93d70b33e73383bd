"""Command ``reconstruct``: how well the model rebuilds hidden genes, beside simple methods, and denoised expression."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdiva_core.cli_progress import TerminalProgress, warn
from scdiva_core.errors import DataError

if TYPE_CHECKING:  # other commands start without it
    from scdiva_core.engine_reconstruction import ReconstructionResult, ReconstructionSettings

_TABLES = ("table", "comparisons", "types", "genes", "profiles")


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = commands.add_parser(
        "reconstruct",
        help="hide genes of cells and rebuild them",
        description=(
            "Hide part of the genes of some cells, at random or those of a list, and rebuild which genes they are and "
            "their values: in one pass and by iterative unmasking, with the published anchor, through which hidden "
            "genes leak, and without, beside the population mean, kNN imputation, the rank alone and chance. Writes "
            "table.csv, comparisons.csv, types.csv, genes.csv, profiles.csv and summary.json into a folder. --denoise "
            "also writes a copy of the input with a layer 'scdiva_denoised'. The input is never changed."
        ),
    )
    parser.add_argument("input", type=Path, help="an .h5ad file with raw counts or log1p values")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--masks", default="15,30,50,70,95", help="percent of the genes hidden (default: %(default)s)")
    parser.add_argument("--genes", help="hide these genes instead (imputation), separated by commas")
    parser.add_argument("--denoise", type=Path, metavar="FILE", help="the new .h5ad file with denoised expression")
    parser.add_argument("--group", metavar="COLUMN", help="column of obs for errors by cell type")
    parser.add_argument("--subset", metavar="COLUMN=VALUE", help="rebuild these cells only")
    parser.add_argument("-n", "--most-cells", type=int, default=100, help="cells drawn at most (default: 100)")
    parser.add_argument(
        "--iterative-cells", type=int, default=10, help="of them rebuilt iteratively too, slow (default: 10)"
    )
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
    """Rebuild, write the files, and print what was found and where it is."""
    from scdiva_core.engine import Engine
    from scdiva_core.engine_cells import subset
    from scdiva_core.engine_reconstruction import reconstruct
    from scdiva_core.engine_reconstruction_denoising import denoise
    from scdiva_core.tasks.denoising import write_denoised
    from scdiva_core.tasks.export import checked_target

    settings = _settings(options)
    engine = Engine(options.checkpoint, options.device)
    with engine.open(
        options.input, matrix=options.matrix, gene_column=options.gene_column, values=options.values
    ) as dataset:
        for warning in dataset.preflight.warnings:
            warn(warning)
        if options.denoise is not None:
            checked_target(dataset.path, options.denoise)
        cells = None if options.subset is None else subset(dataset, options.subset)
        progress = TerminalProgress()
        found = reconstruct(engine, dataset, settings, cells, progress=progress)
        progress.end()
        _told(found)
        _write(found, engine.provenance(dataset), options.output)
        if options.denoise is not None:
            progress = TerminalProgress()
            values = denoise(engine, dataset, seed=options.seed, progress=progress)
            progress.end()
            print(write_denoised(dataset, options.denoise, values, engine.provenance(dataset)))
    print(options.output)


def _settings(options: argparse.Namespace) -> ReconstructionSettings:
    from scdiva_core.engine_reconstruction import ReconstructionSettings

    try:
        masks = tuple(float(part) / 100 for part in options.masks.split(","))
    except ValueError:
        msg = f"--masks is {options.masks!r}."
        raise DataError(msg, "Write percents separated by commas, such as 15,50.") from None
    return ReconstructionSettings(
        cells=options.subset or "all",
        masks=masks,
        genes=tuple(name.strip() for name in (options.genes or "").split(",") if name.strip()),
        most_cells=options.most_cells,
        iterative_cells=options.iterative_cells,
        group_key=options.group,
        seed=options.seed,
    )


def _told(found: ReconstructionResult) -> None:
    for warning in found.summary["warnings"]:
        warn(warning)
    for words in ("caption", "verdict", "leak"):
        if found.summary[words]:
            print(found.summary[words])


def _write(found: ReconstructionResult, provenance: dict[str, Any], folder: Path) -> None:
    from scdiva_core.data.spreadsheet import as_csv

    folder.mkdir(parents=True, exist_ok=True)
    for name in _TABLES:
        table = getattr(found, name)
        if table is None:  # one of an earlier run must not stay
            (folder / f"{name}.csv").unlink(missing_ok=True)
        else:
            (folder / f"{name}.csv").write_bytes(as_csv(table))
    counts = {name: getattr(found, name) for name in ("n_cells", "n_rebuilt", "n_population")}
    content = {**counts, **found.summary, "settings": found.settings.to_dict(), "provenance": provenance}
    (folder / "summary.json").write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
