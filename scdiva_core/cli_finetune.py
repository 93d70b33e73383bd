"""Command ``finetune``: teach a checkpoint the labels, the perturbations or the batches of one file."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scdiva_core.errors import Cancelled, DataError

_HEADER = "round   seconds    cells    loss  macro-F1  accuracy"
_PERTURBATION_HEADER = "pass   seconds    cells    loss  Spearman"
_INTEGRATION_HEADER = "round   seconds    cells  contrast  type-ASW  batch-ASW   score"


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    finetune = commands.add_parser(
        "finetune",
        help="teach a checkpoint the labels, the perturbations or the batches of a file",
        description="Make a new checkpoint from one that is there and what one file says of its cells.",
    )
    tasks = finetune.add_subparsers(required=True, metavar="task")
    parser = tasks.add_parser(
        "annotation",
        help="name the file's own cell types",
        description=(
            "Train the last third of the layers and a new head on the labels of a column of obs, the rest being "
            "frozen, and write a checkpoint that names these labels. A fifth of the labelled cells, or whole donors, "
            "are held out; macro-F1 on them chooses the weights and is compared with logistic regression on the frozen "
            "latent. The input is never changed. Ctrl-C stops and keeps the best so far."
        ),
    )
    parser.add_argument(
        "--label", required=True, metavar="COLUMN", help="column of obs with the labels; empty is unlabelled"
    )
    parser.add_argument(
        "--batch", metavar="COLUMN", help="column of obs with the donor or batch: whole ones are held out"
    )
    _add_common(parser, minutes=10.0)
    parser.set_defaults(run=run)
    _add_perturbation(tasks)
    _add_integration(tasks)


def _add_perturbation(tasks: Any) -> None:
    parser = tasks.add_parser(
        "perturbation",
        help="predict perturbations that were not measured",
        description=(
            "Train the whole network on the measured perturbations of a Perturb-seq file, and write a checkpoint that "
            "predicts the expression change of others. A fifth of the perturbations are held out; rank correlation of "
            "predicted and measured change on them chooses the weights and is compared with the mean of the others. "
            "The input is never changed. Ctrl-C stops and keeps the best so far; a run that was killed goes on when "
            "the command is repeated."
        ),
    )
    parser.add_argument(
        "--perturbation", required=True, metavar="COLUMN", help="column of obs with the perturbed genes, joined by '+'"
    )
    parser.add_argument("--control", required=True, metavar="VALUE", help="what the column says of unperturbed cells")
    parser.add_argument(
        "--kind", required=True, choices=("knockout", "activation"), help="what was done to the perturbed genes"
    )
    parser.add_argument(
        "--batch", metavar="COLUMN", help="column of obs with the batch: cells are compared with controls of their own"
    )
    _add_common(parser, minutes=30.0)
    parser.set_defaults(run=run_perturbation)


def _add_integration(tasks: Any) -> None:
    parser = tasks.add_parser(
        "integration",
        help="mix batches and keep types apart",
        description=(
            "Train the latent head on the batches of a file: reconstruction, a batch discriminator behind a reversed "
            "gradient, and contrast between types, and write a checkpoint whose embedding mixes these batches. The "
            "denoiser stays as it is. A fifth of the cells is held out; types held together and batches mixed on them "
            "choose the weights. The input is never changed. Ctrl-C stops and keeps the best so far."
        ),
    )
    parser.add_argument("--batch", required=True, metavar="COLUMN", help="column of obs with the batches")
    parser.add_argument(
        "--label", metavar="COLUMN", help="column of obs with the types; else clusters stand in for them"
    )
    _add_common(parser, minutes=5.0)
    parser.set_defaults(run=run_integration)


def _add_common(parser: argparse.ArgumentParser, *, minutes: float) -> None:
    parser.add_argument("input", type=Path, help="an .h5ad file with raw counts or log1p values")
    parser.add_argument("-o", "--output", type=Path, required=True, help="new folder of the checkpoint")
    parser.add_argument("--minutes", type=float, default=minutes, help=f"budget of time (default: {minutes:g})")
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the training (default: 0)")


def run(options: argparse.Namespace) -> None:
    """Fine-tune on labels and save; print the curve, what it was worth, and last where the checkpoint is."""
    asked = {"label_key": options.label, "batch_key": options.batch}
    tuned = _finetuned("annotation", asked, options, _print_round, random="most of them stay so")
    _print_left_out(tuned.left_out)
    labels = tuned.model.labels
    free = [name for term, name in zip(labels.ids, labels.names, strict=True) if term == name]
    if free:
        print(f"no single term of the Cell Ontology, so that the label stands as its id: {', '.join(free)}")
    print(tuned.words)
    print(options.output)


def run_perturbation(options: argparse.Namespace) -> None:
    """Fine-tune on perturbations and save; print the curve, what it was worth, and last where the checkpoint is."""
    asked = {"label_key": options.perturbation, "batch_key": options.batch}
    asked |= {"control": options.control, "kind": options.kind}
    print(_finetuned("perturbation", asked, options, _print_pass).words)
    print(options.output)


def run_integration(options: argparse.Namespace) -> None:
    """Fine-tune on batches and save; print the curve, what it was worth, and last where the checkpoint is."""
    asked = {"label_key": options.label, "batch_key": options.batch}
    print(_finetuned("integration", asked, options, _print_integration_round).words)
    print(options.output)


def _finetuned(
    task: str,
    asked: dict[str, Any],
    options: argparse.Namespace,
    report: Callable[[dict[str, Any]], None],
    *,
    random: str = "no fine-tuning mends that",
) -> Any:
    """Do what the three commands have in common."""
    from scdiva_core.engine import Engine
    from scdiva_core.engine_finetune import FinetuneRequest, finetune, lesson
    from scdiva_core.training.finetune_result import new_folder

    request = FinetuneRequest(task, **asked, minutes=options.minutes, seed=options.seed)
    folder = new_folder(options.output)
    engine = Engine(options.checkpoint, options.device)
    if engine.card().random_weights:
        print(f"warning: these weights are random; {random}", file=sys.stderr)
    with engine.open(options.input) as dataset, _stopped_by_interrupt() as cancelled:
        for warning in dataset.preflight.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if task == "perturbation":  # may be many, and the training long
            _print_left_out(lesson(engine, dataset, request).left_out)
        told = {"progress": _Progress(), "cancelled": cancelled, "report": report}
        try:
            return finetune(engine, dataset, request, folder, **told)
        except Cancelled as error:
            msg = "Stopped before there was anything to keep."
            raise DataError(msg, "Repeat the command to begin anew.") from error


def _print_left_out(left_out: dict[str, str]) -> None:
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")


def _print_round(record: dict[str, Any]) -> None:
    """One line of the curve; the first is the new head alone on the frozen latent."""
    if record["round"] == 0:
        print(_HEADER)
    loss = "-" if record["loss"] is None else f"{record['loss']:.3f}"
    line = f"{record['round']:>5}  {record['seconds']:>8.1f}  {record['cells_seen']:>7,}  {loss:>6}"
    print(f"{line}  {record['macro_f1']:>8.3f}  {record['accuracy']:>8.3f}", flush=True)


def _print_pass(record: dict[str, Any]) -> None:
    """One line of the curve; the first is the new head alone on the frozen network."""
    if record["epoch"] == 0:
        print(_PERTURBATION_HEADER)
    loss, score = ("-" if record[name] is None else f"{record[name]:.3f}" for name in ("loss", "spearman"))
    line = f"{record['epoch']:>4}  {record['seconds']:>8.1f}  {record['cells_seen']:>7,}  {loss:>6}"
    print(f"{line}  {score:>8}", flush=True)


def _print_integration_round(record: dict[str, Any]) -> None:
    """One line of the curve; the first is the latent as it was."""
    if record["round"] == 0:
        print(_INTEGRATION_HEADER)
    contrast = "-" if record["contrast"] is None else f"{record['contrast']:.3f}"
    line = f"{record['round']:>5}  {record['seconds']:>8.1f}  {record['cells_seen']:>7,}  {contrast:>8}"
    scores = f"{record['type_asw']:>8.3f}  {record['batch_asw']:>9.3f}  {record['score']:>6.3f}"
    print(f"{line}  {scores}", flush=True)


class _Progress:
    """What is going on, on standard error; outside a terminal each kind of work once."""

    def __init__(self) -> None:
        self._message = ""

    def __call__(self, done: int, total: int, message: str) -> None:
        """Report; as `scdiva_core.tasks.progress.Progress`."""
        if sys.stderr.isatty():
            print(f"{message}: {done:,} of {total:,}".ljust(78), end="\r", file=sys.stderr, flush=True)
        elif message != self._message:
            print(f"{message}: {total:,}", file=sys.stderr, flush=True)
        self._message = message


@contextmanager
def _stopped_by_interrupt() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C end the work in order and the second at once."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            print("interrupted; nothing is kept", file=sys.stderr)
            sys.exit(130)
        asked = True
        print("stopping; the best so far is kept (Ctrl-C again leaves at once)", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
