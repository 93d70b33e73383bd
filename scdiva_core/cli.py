"""Command line: ``python -m scdiva_core COMMAND``; ``--help`` lists the commands.

Results go to files and standard output, progress and errors to standard error. Exit codes: 0 done, 1 the input
or a choice is wrong (the message says what to do), 2 the command line is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from scdiva_core import (
    cli_annotate,
    cli_embed,
    cli_evaluate,
    cli_finetune,
    cli_grn,
    cli_integrate,
    cli_knockout,
    cli_reconstruct,
)
from scdiva_core.errors import CheckpointError, ScDiVaError

_EPILOG = """examples:
  python -m scdiva_core info cells.h5ad
  python -m scdiva_core embed cells.h5ad -o cells.scdiva.h5ad
  python -m scdiva_core annotate cells.h5ad -o cells.annotated.h5ad --source scdiva,knn,markers
  python -m scdiva_core knockout cells.h5ad --genes SPI1,GATA1 --group cell_type -o knockout
  python -m scdiva_core grn cells.h5ad --group cell_type -o networks
  python -m scdiva_core integrate a.h5ad b.h5ad --label cell_type -o together
  python -m scdiva_core reconstruct cells.h5ad --group cell_type -o rebuilt
  python -m scdiva_core prepare corpus/*.h5ad -o shards
  python -m scdiva_core pretrain shards -o my-checkpoint --steps 2000
  python -m scdiva_core finetune annotation cells.h5ad --label cell_type -o my-checkpoint
  python -m scdiva_core evaluate embedding --data eval --corpus shards -o report

Every command explains its options: python -m scdiva_core embed --help"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ScDiVaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'A file'}: {error.strerror or error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scdiva_core",
        description="ScDiVa: embed single cells with a masked-diffusion foundation model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_info(commands)
    cli_embed.add(commands)
    cli_annotate.add(commands)
    cli_knockout.add(commands)
    cli_grn.add(commands)
    cli_integrate.add(commands)
    cli_reconstruct.add(commands)
    _add_prepare(commands)
    _add_pretrain(commands)
    cli_finetune.add(commands)
    cli_evaluate.add(commands)
    return parser


def _add_info(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="describe a data file or a checkpoint",
        description="Look at an .h5ad file without loading it, or describe a checkpoint. Prints JSON.",
    )
    parser.add_argument("file", nargs="?", type=Path, help="an .h5ad file; left out, the checkpoint is described")
    _add_checkpoint(parser)
    parser.set_defaults(run=_info)


def _add_prepare(commands: Any) -> None:
    parser = commands.add_parser(
        "prepare",
        help="turn .h5ad files into a training corpus",
        description=(
            "Write packed shards, one vocabulary and population entropies. Needs raw counts. Whole donors are held out "
            "for validation. Data sets that are done are kept when the command is repeated. The folder may be carried "
            "to another machine without its subfolder 'unpacked', which is made anew there."
        ),
    )
    parser.add_argument("files", nargs="+", type=Path, help=".h5ad files with raw counts")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the corpus")
    parser.add_argument(
        "--studies",
        type=Path,
        help="folder with datasets.toml and labels.tsv: donors to hold out, batches, labels as Cell Ontology terms",
    )
    parser.add_argument("--vocabulary", type=Path, help="vocab.json to use instead of the genes that are seen")
    parser.add_argument("--min-cells", type=int, default=30, help="cells that must detect a gene (default: 30)")
    parser.add_argument(
        "--donor-column",
        nargs="+",
        default=["donor", "donor_id", "batch"],
        help="without --studies: columns of obs that may name the donor, in order of preference",
    )
    parser.set_defaults(run=_prepare)


def _add_pretrain(commands: Any) -> None:
    from scdiva_core.training.settings import PretrainSettings

    defaults = PretrainSettings()
    parser = commands.add_parser(
        "pretrain",
        help="train a checkpoint on a prepared corpus",
        description=(
            "Masked-diffusion pre-training. Writes log.jsonl as it goes; an interrupted run resumes when the "
            "same command is repeated. Needs only torch, numpy and safetensors. Several processes share each batch "
            "when torchrun starts them: torchrun --nproc-per-node 2 -m scdiva_core pretrain ..."
        ),
    )
    parser.add_argument("corpus", type=Path, help="folder made by 'prepare'")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train (default: auto)"
    )
    parser.add_argument("--name", default="ScDiVa", help="name on the checkpoint's card")
    parser.add_argument("--description", default="", help="a sentence for the checkpoint's card")
    parser.add_argument("--provisional", action="store_true", help="mark the checkpoint as not yet to be trusted")
    for option, value in (
        ("hidden-size", 128),
        ("num-layers", 3),
        ("num-heads", 4),
        ("intermediate-size", 512),
        ("max-genes", 512),
    ):
        parser.add_argument(f"--{option}", type=int, default=value, help=f"(default: {value})")
    parser.add_argument(
        "--dropout",
        type=float,
        default=0.0,
        help="(default: 0; above 0 attention on a CPU is many times slower)",
    )
    for field in fields(PretrainSettings):
        value = getattr(defaults, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(value, str):
            choices = {"precision": ("auto", "bf16", "float32"), "initial_genes": ("svd", "random")}
            parser.add_argument(flag, choices=choices[field.name], default=value, help=f"(default: {value})")
        else:
            parser.add_argument(flag, type=type(value), default=value, help=f"(default: {value})")
    parser.set_defaults(run=_pretrain)


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")


def _info(options: argparse.Namespace) -> None:
    from scdiva_core.engine import Engine

    engine = Engine(options.checkpoint, options.device)
    if options.file is None:
        content = asdict(engine.card())
        del content["text"]  # a page of Markdown, which lies beside the weights
    else:
        content = engine.preflight(options.file).to_dict()
    print(json.dumps(content, indent=2, default=str))


def _prepare(options: argparse.Namespace) -> None:
    from scdiva_core.data.prepare import prepare
    from scdiva_core.data.studies import Studies
    from scdiva_core.data.vocabulary import GeneVocabulary

    vocabulary = None if options.vocabulary is None else GeneVocabulary.from_file(options.vocabulary)
    prepare(
        options.files,
        options.output,
        studies=None if options.studies is None else Studies.read(options.studies),
        vocabulary=vocabulary,
        min_cells=options.min_cells,
        donor_columns=options.donor_column,
        report=lambda line: print(line, file=sys.stderr),
    )
    print(options.output)


def _pretrain(options: argparse.Namespace) -> None:
    import torch

    from scdiva_core.data.corpus import Corpus
    from scdiva_core.model.config import ScDiVaConfig
    from scdiva_core.training.pretrain import pretrain
    from scdiva_core.training.ranks import join_ranks
    from scdiva_core.training.settings import PretrainSettings

    corpus = Corpus(options.corpus)
    config = ScDiVaConfig(
        vocab_size=len(corpus.vocabulary),
        hidden_size=options.hidden_size,
        num_layers=options.num_layers,
        num_heads=options.num_heads,
        intermediate_size=options.intermediate_size,
        value_head_size=options.hidden_size,
        max_genes=options.max_genes,
        dropout=options.dropout,
        pad_id=0,
        mask_id=1,
        pad_fill_id=2,
        bos_id=3,
        eos_id=4,
        heads=("latent", "annotation", "batch_integration") if corpus.classes else ("latent", "batch_integration"),
        latent_pooling="anchor+tokens",
        num_cell_types=max(len(corpus.classes), 1),
    )
    names = [field.name for field in fields(PretrainSettings)]
    settings = PretrainSettings(**{name: getattr(options, name) for name in names})
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        msg = "The device 'cuda' is not available here."
        raise CheckpointError(msg, "Choose 'cpu' or 'auto'.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    ranks, device = join_ranks(device)
    card = {"name": options.name, "description": options.description, "provisional": options.provisional}
    pretrain(
        corpus,
        config,
        options.output,
        settings,
        device=device,
        card=card,
        report=lambda record: print(json.dumps(record), file=sys.stderr),
        ranks=ranks,
    )
    if ranks.is_first:
        print(options.output)
