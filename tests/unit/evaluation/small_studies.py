"""Small real data sets with tables that describe them: a labelled corpus, two evaluation sets and a checkpoint."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.prepare import prepare
from scdiva_core.data.studies import Studies
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import CellLabels, ScDiVaModel

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo"

KANG = {
    "CD14 Mono": "CL:0000860",
    "CD16 Mono": "CL:0000875",
    "CD4 Naive T": "CL:0000895",
    "CD4 Memory T": "CL:0000897",
    "CD8 T": "CL:0000625",
    "B": "CL:0000236",
    "B Activated": "CL:0000236",
    "NK": "CL:0000623",
    "DC": "CL:0000451",
}
"""What Kang's labels mean; "T activated" is any T cell."""

PBMC = {
    "CD4 T": "CL:0000624",
    "CD8 T": "CL:0000625",
    "B": "CL:0000236",
    "NK": "CL:0000623",
    "CD14 Monocytes": "CL:0000860",
    "FCGR3A Monocytes": "CL:0000875",
    "Dendritic": "CL:0000451",
    "Megakaryocytes": "CL:0000556",
}
"""What the labels of PBMC 3k mean."""

N_GENES = 1500


def write_corpus(folder: Path) -> Corpus:
    """Prepare 600 of Kang's cells, four made-up donors, one of them held out."""
    files, tables = folder / "files", folder / "tables"
    cells = _cells("kang2018_pbmc_ifnb_3k", slice(0, 600))
    cells.obs["donor"] = np.array(["d1", "d2", "d3", "d4"])[np.arange(600) % 4]
    files.mkdir(parents=True)
    cells.write_h5ad(files / "kang.h5ad")
    entry = 'label_column = "cell_type"\ndonor_column = "donor"\nheld_out = ["d4"]'
    rows = [("kang", label, term, "class") for label, term in KANG.items()]
    rows.append(("kang", "T activated", "CL:0000084", "group"))
    _write_tables(tables, {"kang": entry}, rows)
    prepare([files / "kang.h5ad"], folder / "corpus", studies=Studies.read(tables), min_cells=3)
    return Corpus(folder / "corpus")


def write_evaluation(folder: Path) -> tuple[Path, Path]:
    """Write ``blood`` (PBMC 3k) and ``stimulated`` (other cells of Kang's, two batches), and tables that describe them.

    Returns the folders of both.
    """
    data, tables = folder / "data", folder / "tables"
    data.mkdir(parents=True)
    _cells("tenx_pbmc3k", slice(0, 300)).write_h5ad(data / "blood.h5ad")
    _cells("kang2018_pbmc_ifnb_3k", slice(600, 900)).write_h5ad(data / "stimulated.h5ad")
    rows = [("blood", label, term, "class") for label, term in PBMC.items()]
    rows += [("stimulated", label, term, "class") for label, term in KANG.items()]
    rows.append(("stimulated", "T activated", "", "none"))
    entries = {
        "blood": 'label_column = "cell_type"',
        "stimulated": 'label_column = "cell_type"\nbatch_column = "condition"',
        "unlabelled": "",
    }
    _write_tables(tables, entries, rows)
    return data, tables


def write_checkpoint(folder: Path, corpus: Corpus, *, names_types: bool = True) -> Path:
    """Save an untrained network over the corpus' genes, with an annotation head or without."""
    torch.manual_seed(0)
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
        heads=("latent", "annotation") if names_types else ("latent",),
        latent_dim=16,
        num_cell_types=len(corpus.classes),
    )
    model = ScDiVaModel(config)
    model.vocabulary, model.tokenizer = corpus.vocabulary, Tokenizer(corpus.entropy, config.max_genes)
    model.has_entropy = True
    if names_types:
        model.labels = CellLabels(corpus.classes, tuple(map(cell_ontology().name, corpus.classes)), 2.0)
    model.card = {"name": "small", "random_weights": True}
    model.save_pretrained(folder)
    return folder


def _cells(name: str, rows: slice) -> anndata.AnnData:
    """Some cells of a demo file, in random order, over the genes that most of its cells express."""
    cells = anndata.read_h5ad(DEMO / f"{name}.h5ad")
    cells = cells[np.random.default_rng(0).permutation(cells.n_obs)[rows]]
    detected = np.asarray((cells.X > 0).sum(axis=0)).ravel()
    return cells[:, np.sort(np.argsort(-detected, kind="stable")[:N_GENES])].copy()


def _write_tables(folder: Path, entries: dict[str, str], rows: list[tuple[str, str, str, str]]) -> None:
    folder.mkdir(parents=True)
    tables = [
        f'[[dataset]]\nname = "{name}"\ntitle = "Cells, {name}"\nsource = "demo"\n{entry}\n'
        for name, entry in entries.items()
    ]
    (folder / "datasets.toml").write_text("\n".join(tables), encoding="utf-8")
    lines = ["dataset\tlabel\tontology_id\tontology_name\tuse\tnote"]
    for name, label, term, use in rows:
        lines.append("\t".join((name, label, term, cell_ontology().name(term) if term else "", use, "")))
    (folder / "labels.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
