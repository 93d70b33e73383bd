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
