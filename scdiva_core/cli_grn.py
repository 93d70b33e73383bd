"""Command ``grn``: regulatory networks from the model's attention, as tables and files for other programs."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdiva_core.cli_progress import TerminalProgress, warn
from scdiva_core.errors import DataError

if TYPE_CHECKING:  # other commands start without it
    from numpy.typing import NDArray

    from scdiva_core.data.h5ad import H5adDataset
    from scdiva_core.engine import Engine
    from scdiva_core.engine_grn import GrnResult, GrnSettings

_TABLES = ("regulons", "honesty", "heads", "contrast")
_FEWEST = 50  # cells of a group that gets a network
_SHOWN = 10  # values of a column that are named


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = commands.add_parser(
        "grn",
        help="read regulatory networks off the model's attention",
        description=(
            "Score regulators and targets by attention over cells, beside co-expression, stability, known regulons and "
            "how far attention can be trusted on these very genes. Writes edges.csv, regulons.csv, honesty.csv, "
            "heads.csv, network.graphml, regulons.gmt and summary.json into a folder, with --group into one folder a "
            "group. Attention is no proof of regulation."
        ),
    )
    parser.add_argument("input", type=Path, help="an .h5ad file with raw counts or log1p values")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--group", metavar="COLUMN", help="a network for each value of a column of obs")
    parser.add_argument("--subset", metavar="COLUMN=VALUE", help="read these cells only")
    parser.add_argument("--against", metavar="COLUMN=VALUE", help="compare with these cells: writes contrast.csv")
    parser.add_argument("-n", "--most-cells", type=int, default=2000, help="cells drawn at most (default: 2,000)")
    parser.add_argument("--top", type=int, default=20, help="targets of each regulator (default: 20)")
    parser.add_argument(
        "--knockout", type=int, default=0, metavar="N", help="predict knockouts of the N strongest regulators (slow)"
    )
    parser.add_argument(
        "--no-panel", action="store_true", help="do not compare with other methods, nor layers and heads"
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
    """Make the networks, write the files, and print what was found and where it is."""
    from scdiva_core.engine import Engine
    from scdiva_core.engine_cells import subset

    engine = Engine(options.checkpoint, options.device)
    if engine.card().random_weights:
        warn("these weights are random; the networks mean nothing")
    with engine.open(
        options.input, matrix=options.matrix, gene_column=options.gene_column, values=options.values
    ) as dataset:
        for warning in dataset.preflight.warnings:
            warn(warning)
        cells = None if options.subset is None else subset(dataset, options.subset)
        against = None if options.against is None else subset(dataset, options.against)
        for name, places, folder in _wanted(dataset, options, cells):
            _one(engine, dataset, _settings(options, name), places, against, folder)
    print(options.output)


def _settings(options: argparse.Namespace, name: str) -> GrnSettings:
    from scdiva_core.engine_grn import GrnSettings

    return GrnSettings(
        cells=name,
        against=options.against,
        most_cells=options.most_cells,
        top=options.top,
        knockout=options.knockout,
        panel=not options.no_panel,
        seed=options.seed,
    )


def _wanted(
    dataset: H5adDataset, options: argparse.Namespace, cells: NDArray[np.int64] | None
) -> list[tuple[str, NDArray[np.int64] | None, Path]]:
    """Name, cells and folder of each network."""
    from scdiva_core.engine_cells import column

    if options.group is None:
        return [(options.subset or "all", cells, options.output)]
    values = column(dataset, options.group)
    if cells is not None:
        values = values.iloc[cells]
    sizes = values.value_counts()
    if few := [name for name in sizes.index if sizes[name] < _FEWEST]:
        warn(f"groups of fewer than {_FEWEST} cells are left out: {', '.join(sorted(few)[:_SHOWN])}")
    names = sorted(set(sizes.index) - set(few))
    if not names:
        msg = f"No value of {options.group!r} has {_FEWEST} cells."
        raise DataError(msg, "Choose another column, or leave out --group.")
    folders = {name: re.sub(r"[^\w.+-]+", "_", name).strip("._") or "group" for name in names}
    if len(set(map(str.casefold, folders.values()))) < len(names):
        folders = {name: f"{place}_{folder}" for place, (name, folder) in enumerate(folders.items())}
    return [
        (f"{options.group}={name}", values.index[values == name].to_numpy(np.int64), options.output / folders[name])
        for name in names
    ]


def _one(
    engine: Engine,
    dataset: H5adDataset,
    settings: GrnSettings,
    cells: NDArray[np.int64] | None,
    against: NDArray[np.int64] | None,
    folder: Path,
) -> None:
    from scdiva_core.engine_grn import grn

    progress = TerminalProgress()
    found = grn(engine, dataset, settings, cells, against, progress=progress)
    progress.end()
    for warning in found.summary["warnings"]:
        warn(warning)
    folder.mkdir(parents=True, exist_ok=True)
    _write(found, engine.provenance(dataset), folder)
    print(found.summary["caption"])
    if found.summary["verdict"]:
        print(found.summary["verdict"])


def _write(found: GrnResult, provenance: dict[str, Any], folder: Path) -> None:
    from scdiva_core.data.spreadsheet import as_csv
    from scdiva_core.tasks.grn_export import to_gmt, to_graphml
    from scdiva_core.tasks.grn_graph import graph

    (folder / "edges.csv").write_bytes(as_csv(found.edges))
    for name in _TABLES:
        table = getattr(found, name)
        if table is None:  # one of an earlier run must not stay
            (folder / f"{name}.csv").unlink(missing_ok=True)
        else:
            (folder / f"{name}.csv").write_bytes(as_csv(table))
    (folder / "regulons.gmt").write_text(to_gmt(found.edges), encoding="utf-8")
    (folder / "network.graphml").write_bytes(to_graphml(graph(found.edges)))
    counts = {name: getattr(found, name) for name in ("n_cells", "n_sampled", "n_against", "regulators", "targets")}
    content = {**counts, **found.summary, "settings": found.settings.to_dict(), "provenance": provenance}
    (folder / "summary.json").write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
