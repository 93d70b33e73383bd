"""Command ``evaluate``: judge a checkpoint on sets that it has never seen."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

TABLES = Path(__file__).resolve().parent.parent / "assets" / "evaluation"
"""What the evaluation sets are, and what their labels mean."""


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    evaluate = commands.add_parser(
        "evaluate",
        help="compare a checkpoint with its baselines",
        description="Judge a checkpoint on sets that it has never seen, beside what it must beat.",
    )
    tasks = evaluate.add_subparsers(required=True, metavar="task")
    parser = tasks.add_parser(
        "embedding",
        help="cell types, clusters, batches and annotation",
        description=(
            "Compare the embedding with PCA, Harmony and the same network untrained, and the named cell types with "
            "logistic regression. Writes embedding.json and embedding.md. Embeddings that were computed before are "
            "kept."
        ),
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the evaluation sets, .h5ad files")
    parser.add_argument("--corpus", type=Path, required=True, help="folder made by 'prepare'")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the two results")
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="sets to use; all that are in the folder if left out")
    parser.add_argument("--seeds", type=int, default=5, help="repetitions with other folds (default: 5)")
    parser.set_defaults(run=run)
    _add_perturbation(tasks)
    _add_grn(tasks)
    _add_reconstruction(tasks)
    _add_integration(tasks)


def _add_perturbation(tasks: Any) -> None:
    parser = tasks.add_parser(
        "perturbation",
        help="predicted against measured knockouts",
        description=(
            "Compare what the checkpoint predicts for knockouts that it was never shown with a Perturb-seq file, "
            "beside co-expression, the mean of the other knockouts, no change and random. With --finetune also what it "
            "predicts for perturbations held out when it learns from the file, beside additive and ridge baselines; a "
            "run that was stopped goes on. Writes tables (CSV) and what they come to in words (Markdown)."
        ),
    )
    parser.add_argument("input", type=Path, help="an .h5ad file with one perturbation a cell")
    parser.add_argument("--perturbation", required=True, metavar="COLUMN", help="column of obs; targets joined by +")
    parser.add_argument("--control", required=True, metavar="VALUE", help="what control cells are called in it")
    parser.add_argument("--kind", choices=("knockout", "activation"), default="knockout", help="default: knockout")
    parser.add_argument("--batch", metavar="COLUMN", help="column of obs with batches, within which changes count")
    parser.add_argument("--finetune", action="store_true", help="fine-tune too, once for each of five folds; minutes")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")
    parser.set_defaults(run=run_perturbation)


def _add_grn(tasks: Any) -> None:
    parser = tasks.add_parser(
        "grn",
        help="attention against known regulation",
        description=(
            "Compare the attention of a checkpoint with co-expression, partial correlation, tree ensembles and random "
            "scores: how well each finds regulator-target pairs that are known. Writes grn.json and grn.md. Half an "
            "hour on two cores."
        ),
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the evaluation sets, .h5ad files and grn/")
    parser.add_argument("--tables", type=Path, help="folder of more references, DoRothEA and TRRUST")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the two results")
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="sets to use; all if left out")
    parser.set_defaults(run=run_grn)


def _add_reconstruction(tasks: Any) -> None:
    parser = tasks.add_parser(
        "reconstruction",
        help="hidden genes against rebuilt ones",
        description=(
            "Rebuild hidden genes and values of cells, in one pass and iteratively, with the published anchor, through "
            "which they leak, and without, beside the population mean, kNN imputation, the rank alone and chance. "
            "Writes reconstruction.json and reconstruction.md. Some twenty minutes on two cores."
        ),
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the evaluation sets, .h5ad files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the two results")
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="sets to use; blood, pancreas and lung if left out")
    parser.add_argument("-n", "--cells", type=int, default=100, help="cells of each set (default: 100)")
    parser.add_argument(
        "--iterative-cells", type=int, default=8, help="of them rebuilt iteratively too, slow (default: 8)"
    )
    parser.set_defaults(run=run_reconstruction)


def _add_integration(tasks: Any) -> None:
    parser = tasks.add_parser(
        "integration",
        help="batches mixed and types held together",
        description=(
            "Compare PCA, PCA centred in each batch, Harmony and the checkpoint, as it is, with Harmony, and "
            "fine-tuned with and without labels. Writes integration.json and integration.md. Some ten minutes on two "
            "cores."
        ),
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the evaluation sets, .h5ad files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the two results")
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="sets to use; pancreas and lung if left out")
    parser.add_argument("--minutes", type=float, default=5.0, help="budget of each fine-tuning (default: 5)")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions behind each measure (default: 3)")
    parser.set_defaults(run=run_integration)


def run_integration(options: argparse.Namespace) -> None:
    """Evaluate and write ``integration.json`` and ``integration.md``; print where."""
    from scdiva_core.data.studies import Studies
    from scdiva_core.engine import Engine
    from scdiva_core.evaluation.integration import evaluate_integration, to_markdown

    options.output.mkdir(parents=True, exist_ok=True)
    result = evaluate_integration(
        Engine(options.checkpoint, options.device),
        options.data,
        Studies.read(TABLES),
        sets=options.sets,
        minutes=options.minutes,
        seeds=options.seeds,
        report=lambda line: print(line, file=sys.stderr),
    )
    (options.output / "integration.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (options.output / "integration.md").write_text(to_markdown(result), encoding="utf-8")
    print(options.output / "integration.md")


def run_reconstruction(options: argparse.Namespace) -> None:
    """Evaluate and write ``reconstruction.json`` and ``reconstruction.md``; print where."""
    from scdiva_core.data.studies import Studies
    from scdiva_core.engine import Engine
    from scdiva_core.evaluation.reconstruction import evaluate_reconstruction, to_markdown

    options.output.mkdir(parents=True, exist_ok=True)
    result = evaluate_reconstruction(
        Engine(options.checkpoint, options.device),
        options.data,
        Studies.read(TABLES),
        sets=options.sets,
        cells=options.cells,
        iterative_cells=options.iterative_cells,
        report=lambda line: print(line, file=sys.stderr),
    )
    (options.output / "reconstruction.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (options.output / "reconstruction.md").write_text(to_markdown(result), encoding="utf-8")
    print(options.output / "reconstruction.md")


def run_grn(options: argparse.Namespace) -> None:
    """Evaluate and write ``grn.json`` and ``grn.md``; print where."""
    from scdiva_core.engine import Engine
    from scdiva_core.evaluation.grn import evaluate_grn
    from scdiva_core.evaluation.grn_report import to_markdown
    from scdiva_core.evaluation.grn_sets import chosen_sets

    sets = chosen_sets(options.sets)
    options.output.mkdir(parents=True, exist_ok=True)
    result = evaluate_grn(
        Engine(options.checkpoint, options.device),
        options.data,
        tables=options.tables,
        sets=sets,
        report=lambda line: print(line, file=sys.stderr),
    )
    (options.output / "grn.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (options.output / "grn.md").write_text(to_markdown(result), encoding="utf-8")
    print(options.output / "grn.md")


def run_perturbation(options: argparse.Namespace) -> None:
    """Evaluate, write the tables and the words, print both files' places."""
    from scdiva_core.data.spreadsheet import as_csv
    from scdiva_core.engine import Engine
    from scdiva_core.evaluation.perturbation import measured_knockouts
    from scdiva_core.evaluation.perturbation_finetuned import evaluate_finetuned
    from scdiva_core.training.finetune_cells import tokenizer_of
    from scdiva_core.training.perturbation_cells import read_perturbations

    engine, folder = Engine(options.checkpoint, options.device), options.output
    folder.mkdir(parents=True, exist_ok=True)
    with engine.open(options.input) as dataset:
        tokenizer = tokenizer_of(engine.model, dataset)
        if options.kind == "knockout":
            columns = {"column": options.perturbation, "control": options.control, "batch_column": options.batch}
            found = measured_knockouts(engine.model, tokenizer, dataset, **columns)
            (folder / "zero_shot.csv").write_bytes(as_csv(found.scores))
            (folder / "zero_shot_genes.csv").write_bytes(as_csv(found.genes))
            (folder / "zero_shot.md").write_text(
                f"# {found.title}\n\n{found.words}\n\n{found.note}\n", encoding="utf-8"
            )
            print(folder / "zero_shot.md")
        if options.finetune:
            cells = read_perturbations(
                dataset,
                engine.vocabulary,
                dataset.obs[options.perturbation],
                control=options.control,
                kind=options.kind,
                max_genes=engine.model.config.max_genes,
                batches=None if options.batch is None else dataset.obs[options.batch],
            )
            report = {"report": lambda line: print(line, file=sys.stderr)}
            tuned = evaluate_finetuned(engine.model, cells, folder / "folds", tokenizer=tokenizer, **report)
            (folder / "finetuned.csv").write_bytes(as_csv(tuned.scores))
            (folder / "finetuned.md").write_text(tuned.to_markdown(), encoding="utf-8")
            print(folder / "finetuned.md")


def run(options: argparse.Namespace) -> None:
    """Evaluate and write ``embedding.json`` and ``embedding.md``; print where."""
    from scdiva_core.data.corpus import Corpus
    from scdiva_core.data.studies import Studies
    from scdiva_core.engine import Engine
    from scdiva_core.evaluation.embedding import evaluate_embedding
    from scdiva_core.evaluation.report import to_markdown

    options.output.mkdir(parents=True, exist_ok=True)
    corpus, studies = Corpus(options.corpus), Studies.read(TABLES)
    result = evaluate_embedding(
        Engine(options.checkpoint, options.device),
        options.data,
        corpus,
        studies,
        sets=options.sets,
        seeds=options.seeds,
        report=lambda line: print(line, file=sys.stderr),
    )
    (options.output / "embedding.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (options.output / "embedding.md").write_text(to_markdown(result), encoding="utf-8")
    print(options.output / "embedding.md")
