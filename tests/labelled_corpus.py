"""Two small labelled files, and the tables that say what their labels mean."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np

_DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo"

DATASETS = """\
[[dataset]]
name = "kang"
title = "Blood, control and interferon beta"
label_column = "cell_type"
batch_column = "condition"
donor_column = "person"
held_out = ["p2"]
source = "Kang 2018"

[[dataset]]
name = "pbmc"
title = "Blood"
label_column = "cell_type"
source = "10x Genomics"
"""

HEADER = "dataset\tlabel\tontology_id\tontology_name\tuse\tnote"
LABELS = (
    "kang\tB\tCL:0000236\tB cell\tclass\t",
    "kang\tB Activated\tCL:0000236\tB cell\tclass\ta state",
    "kang\tCD14 Mono\tCL:0000860\tclassical monocyte\tclass\t",
    "kang\tCD16 Mono\tCL:0000875\tnon-classical monocyte\tclass\t",
    "kang\tCD4 Memory T\tCL:0000897\tCD4-positive, alpha-beta memory T cell\tclass\t",
    "kang\tCD4 Naive T\tCL:0000895\tnaive thymus-derived CD4-positive, alpha-beta T cell\tclass\t",
    "kang\tCD8 T\tCL:0000625\tCD8-positive, alpha-beta T cell\tclass\t",
    "kang\tDC\t\t\tnone\tof two kinds",
    "kang\tNK\tCL:0000623\tnatural killer cell\tclass\t",
    "kang\tT activated\tCL:0000084\tT cell\tgroup\tCD4 or CD8 is not said",
    "pbmc\tB\tCL:0000236\tB cell\tclass\t",
    "pbmc\tCD14 Monocytes\tCL:0000860\tclassical monocyte\tclass\t",
    "pbmc\tCD4 T\tCL:0000624\tCD4-positive, alpha-beta T cell\tgroup\tnaive or memory is not said",
    "pbmc\tCD8 T\tCL:0000625\tCD8-positive, alpha-beta T cell\tclass\t",
    "pbmc\tDendritic\tCL:0000451\tdendritic cell\tclass\t",
    "pbmc\tFCGR3A Monocytes\tCL:0000875\tnon-classical monocyte\tclass\t",
    "pbmc\tMegakaryocytes\tCL:0000556\tmegakaryocyte\tclass\t",
    "pbmc\tNK\tCL:0000623\tnatural killer cell\tclass\t",
)

MEMBERS = {
    "CL:0000084": ["CL:0000625", "CL:0000895", "CL:0000897"],
    "CL:0000236": ["CL:0000236"],
    "CL:0000451": ["CL:0000451"],
    "CL:0000556": [],
    "CL:0000623": ["CL:0000623"],
    "CL:0000624": ["CL:0000895", "CL:0000897"],
    "CL:0000625": ["CL:0000625"],
    "CL:0000860": ["CL:0000860"],
    "CL:0000875": ["CL:0000875"],
    "CL:0000895": ["CL:0000895"],
    "CL:0000897": ["CL:0000897"],
}
"""Classes that a cell of each label may be: of the dendritic cells there are five, of the megakaryocytes only four."""


def write_labelled_files(folder: Path) -> list[Path]:
    """Write ``kang.h5ad`` (160 cells, two conditions, four made-up people) and ``pbmc.h5ad`` (109 cells)."""
    kang = anndata.read_h5ad(_DEMO / "kang2018_pbmc_ifnb_3k.h5ad")
    stimulated = np.flatnonzero(kang.obs["condition"] == "STIM")
    kang = _with_frequent_genes(kang[[*range(90), *stimulated[:70]]], 500)
    kang.obs["person"] = [f"p{i % 4}" for i in range(160)]
    kang.write_h5ad(folder / "kang.h5ad")
    pbmc = anndata.read_h5ad(_DEMO / "tenx_pbmc3k.h5ad")
    rare = pbmc.obs["cell_type"].isin(["Megakaryocytes", "Dendritic"]).to_numpy()
    chosen = [np.flatnonzero(~rare)[:100]]
    for label, cells in (("Megakaryocytes", 4), ("Dendritic", 5)):
        chosen.append(np.flatnonzero(pbmc.obs["cell_type"] == label)[:cells])
    _with_frequent_genes(pbmc[np.concatenate(chosen)], 450).write_h5ad(folder / "pbmc.h5ad")
    return [folder / "kang.h5ad", folder / "pbmc.h5ad"]


def write_tables(folder: Path, datasets: str = DATASETS, labels: tuple[str, ...] = LABELS) -> Path:
    """Write ``datasets.toml`` and ``labels.tsv`` into a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "datasets.toml").write_text(datasets, encoding="utf-8")
    (folder / "labels.tsv").write_text("\n".join([HEADER, *labels, ""]), encoding="utf-8")
    return folder


def _with_frequent_genes(cells: anndata.AnnData, genes: int) -> anndata.AnnData:
    detected = np.asarray((cells.X > 0).sum(axis=0)).ravel()
    return cells[:, np.sort(np.argsort(-detected, kind="stable")[:genes])].copy()
