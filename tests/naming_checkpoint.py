"""A small checkpoint that names blood cells: an untrained network, with the companions that real cells give it."""

from __future__ import annotations

from pathlib import Path

import anndata
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.prepare import prepare
from scdiva_core.data.studies import Studies
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.model.checkpoint import save_pretrained
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import CellLabels, ScDiVaModel
from scdiva_core.training.companions import write_companions
from scdiva_core.training.initial import initialise
from tests.labelled_corpus import HEADER

_DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo" / "tenx_pbmc3k.h5ad"

_TABLE = """\
[[dataset]]
name = "pbmc"
title = "Blood"
label_column = "cell_type"
donor_column = "person"
held_out = ["p3"]
source = "10x Genomics"
"""
_LABELS = (
    "pbmc\tB\tCL:0000236\tB cell\tclass\t",
    "pbmc\tCD14 Monocytes\tCL:0000860\tclassical monocyte\tclass\t",
    "pbmc\tCD4 T\tCL:0000624\tCD4-positive, alpha-beta T cell\tclass\t",
    "pbmc\tCD8 T\tCL:0000625\tCD8-positive, alpha-beta T cell\tclass\t",
    "pbmc\tDendritic\tCL:0000451\tdendritic cell\tclass\t",
    "pbmc\tFCGR3A Monocytes\tCL:0000875\tnon-classical monocyte\tclass\t",
    "pbmc\tMegakaryocytes\tCL:0000556\tmegakaryocyte\tclass\t",
    "pbmc\tNK\tCL:0000623\tnatural killer cell\tclass\t",
)


def write_naming_checkpoint(folder: Path, work: Path) -> Path:
    """Save a checkpoint that offers every source of labels for the first demo; some seconds.

    Its profiles, reference and markers are of half of the demo's own cells, so that most cells of it are named right.

    Parameters
    ----------
    folder
        Where to; made when absent.
    work
        An empty folder for the corpus.
    """
    cells = anndata.read_h5ad(_DEMO)[::2].copy()
    cells.obs["person"] = [f"p{place % 4}" for place in range(cells.n_obs)]
    cells.write_h5ad(work / "pbmc.h5ad")
    (work / "datasets.toml").write_text(_TABLE, encoding="utf-8")
    (work / "labels.tsv").write_text("\n".join([HEADER, *_LABELS, ""]), encoding="utf-8")
    prepare([work / "pbmc.h5ad"], work / "corpus", studies=Studies.read(work), min_cells=3)
    corpus = Corpus(work / "corpus")
    config = ScDiVaConfig(
        vocab_size=len(corpus.vocabulary),
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        intermediate_size=32,
        value_head_size=8,
        max_genes=64,
        pad_fill_id=2,
        bos_id=3,
        eos_id=4,
        heads=("latent", "annotation", "batch_integration"),
        latent_dim=16,
        num_cell_types=len(corpus.classes),
        latent_pooling="anchor+tokens",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ScDiVaModel(config)
    initialise(model, corpus, genes="svd", seed=0)
    model.vocabulary, model.tokenizer = corpus.vocabulary, Tokenizer(corpus.entropy, config.max_genes)
    model.has_entropy = True
    model.labels = CellLabels(corpus.classes, tuple(corpus.manifest["class_names"]))
    model.card = {"name": "naming test model", "description": "Untrained.", "provisional": True}
    save_pretrained(model, folder)
    write_companions(folder, corpus, seed=0)
    return folder
