"""Command ``integrate``: batches, or several files, brought together in several ways and measured."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdiva_core.cli_progress import TerminalProgress, warn
from scdiva_core.errors import DataError

if TYPE_CHECKING:  # other commands start without it
    from scdiva_core.data.h5ad import H5adDataset
    from scdiva_core.engine import Engine
    from scdiva_core.engine_integration import IntegrateSettings, IntegrationResult

_TABLES = ("table", "judged", "apart")
_FILE_COLUMN = "file"  # of obs, where several files are joined


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = commands.add_parser(
        "integrate",
        help="mix the batches of a file, or several files",
        description=(
            "Bring batches together by PCA centred in each batch, Harmony, the model's embedding, that with Harmony, "
            "and the model fine-tuned on these very cells, and measure each: types held together, batches mixed, and "
            "types of one batch alone kept apart. Several files are joined first, over the union of their genes. "
            "Writes table.csv, judged.csv, apart.csv, summary.json, integrated.h5ad (every representation in obsm) and "
            "the fine-tuned checkpoint into a folder. The inputs are never changed. To see what files have in common "
            "without integrating them, give --overlap."
        ),
    )
    parser.add_argument("inputs", type=Path, nargs="+", help="one .h5ad file with batches, or several to be joined")
    parser.add_argument("-o", "--output", type=Path, help="folder for the files")
    parser.add_argument("--overlap", action="store_true", help="only say what genes several files have in common")
    parser.add_argument(
        "--batch", metavar="COLUMN", help=f"column of obs with the batches ('{_FILE_COLUMN}' where files are joined)"
    )
    parser.add_argument(
        "--label", metavar="COLUMN", help="column of obs with the types; else clusters stand in for them"
    )
    parser.add_argument("--no-finetune", action="store_true", help="only what needs no training")
    parser.add_argument("--minutes", type=float, default=5.0, help="budget of the fine-tuning (default: 5)")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions behind each measure (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Integrate, write the files, and print what was found and where it is."""
    from scdiva_core.data.concatenate import concatenate, overlap
    from scdiva_core.engine import Engine
    from scdiva_core.engine_integration import integrate

    engine, several = Engine(options.checkpoint, options.device), len(options.inputs) > 1
    if several or options.overlap:
        print(overlap(options.inputs, engine.vocabulary).words)
    if options.overlap:
        return
    if options.output is None:
        msg = "No folder was given for the results."
        raise DataError(msg, "Give one with -o, or look at the overlap alone with --overlap.")
    if not several and options.batch is None:
        msg = "One file has batches in a column of obs, and none was named."
        raise DataError(msg, "Name it with --batch, or give several files.")
    progress, path, joined = TerminalProgress(), options.inputs[0], None
    if several:
        path = joined = concatenate(options.inputs, options.output, _FILE_COLUMN, engine.vocabulary, progress=progress)
    with engine.open(path) as dataset:
        settings = _settings(options, several)
        found = integrate(engine, dataset, settings, progress=progress)
        progress.end()
        for warning in [*dataset.preflight.warnings, *found.summary["warnings"]]:
            warn(warning)
        _write(found, engine, dataset, options.output)
    if joined is not None:
        joined.unlink()  # all of it is in integrated.h5ad
    for name in ("taught", "verdict", "apart"):
        if found.summary[name]:
            print(found.summary[name])
    print(options.output)


def _settings(options: argparse.Namespace, several: bool) -> IntegrateSettings:
    from scdiva_core.engine_integration import IntegrateSettings

    return IntegrateSettings(
        batch_key=options.batch or _FILE_COLUMN if several else options.batch,
        label_key=options.label,
        finetune=not options.no_finetune,
        minutes=options.minutes,
        seeds=options.seeds,
        seed=options.seed,
    )


def _write(found: IntegrationResult, engine: Engine, dataset: H5adDataset, folder: Path) -> None:
    from anndata.io import write_elem

    from scdiva_core.data.hdf5 import subgroup
    from scdiva_core.data.spreadsheet import as_csv
    from scdiva_core.tasks.export import write_copy, write_record

    folder.mkdir(parents=True, exist_ok=True)
    for name in _TABLES:
        table = getattr(found, name)
        if table is None:  # one of an earlier run must not stay
            (folder / f"{name}.csv").unlink(missing_ok=True)
        else:
            (folder / f"{name}.csv").write_bytes(as_csv(table))
    content = {**found.summary, "settings": found.settings.to_dict(), "provenance": engine.provenance(dataset)}
    content["curve"] = list(found.curve)
    (folder / "summary.json").write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")

    def fill(file: Any) -> None:
        if subgroup(file, "obsm") is None:
            write_elem(file, "obsm", {})
        for name, vectors in found.vectors.items():
            write_elem(file["obsm"], f"X_{name}", vectors)
        write_record(file, {"integration": {**found.settings.to_dict(), "verdict": found.summary["verdict"]}})

    write_copy(dataset, folder / "integrated.h5ad", fill)
    if found.checkpoint is not None:
        shutil.copytree(found.checkpoint, folder / "checkpoint", dirs_exist_ok=True)
