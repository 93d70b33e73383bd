"""The tables of data sets and labels that ship: complete, true to the files, and consistent between studies."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import read_elem

from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.studies import Studies, Study
from scdiva_core.data.vocabulary import human_genes

ASSETS = Path(__file__).resolve().parents[3] / "assets"
FOLDERS = {"corpus": "corpus", "evaluation": "eval"}
STUDIES = {table: Studies.read(ASSETS / table) for table in FOLDERS}
NAMES = [(table, name) for table, studies in STUDIES.items() for name in studies.studies]
LABELLED = [(table, name) for table, name in NAMES if STUDIES[table].study(name).label_column]
PLACENTA = "placenta_decidua_220"

# A gene, and the terms whose cells and whose kinds' cells express it more than others do: textbook knowledge.
MARKERS = {
    "CL:0000084": "CD3D",
    "CL:0000625": "CD8A",
    "CL:0000236": "CD79A",
    "CL:0000623": "NKG7",
    "CL:0000786": "MZB1",
    "CL:0000097": "TPSAB1",
    "CL:0000235": "C1QA",
    "CL:0000860": "S100A8",
    "CL:0000875": "FCGR3A",
    "CL:0000775": "FCGR3B",
    "CL:0000451": "HLA-DPB1",
    "CL:0000115": "VWF",
    "CL:0002138": "PROX1",
    "CL:0000057": "DCN",
    "CL:0000669": "PDGFRB",
    "CL:0000359": "ACTA2",
    "CL:0000169": "INS",
    "CL:0000171": "GCG",
    "CL:0000173": "SST",
    "CL:0002275": "PPY",
    "CL:0005019": "GHRL",
    "CL:0002064": "CPA1",
    "CL:0002079": "KRT19",
    "CL:0002062": "AGER",
    "CL:0002063": "SFTPC",
    "CL:1000271": "FOXJ1",
    "CL:0002129": "MYL7",
    "CL:0000136": "ADIPOQ",
    "CL:0000584": "FABP1",
    "CL:0019031": "MUC2",
    "CL:0000510": "DEFA5",
    "CL:0002250": "OLFM4",
    "CL:0000577": "TPH1",
    "CL:0002279": "GCG",
    "CL:0002204": "TRPM5",
    "CL:0000125": "PLP1",
}


def file_of(data_root: Path, table: str, name: str) -> Path:
    return data_root / FOLDERS[table] / f"{name}.h5ad"


def obs_of(data_root: Path, table: str, name: str) -> pd.DataFrame:
    with h5py.File(file_of(data_root, table, name)) as file:
        return read_elem(file["obs"])


def expression_and_terms(data_root: Path, table: str, name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """log1p values of the marker genes that the file holds, and the ontology id of each cell, empty where unused."""
    studies = STUDIES[table]
    study = studies.study(name)
    with open_h5ad(file_of(data_root, table, name), human_genes(), values=study.values) as dataset:
        values = sp.vstack([chunk for _, chunk in dataset.chunks()], format="csc")
        places = {symbol: place for place, symbol in enumerate(dataset.gene_symbols)}
        genes = {one: values[:, [places[one]]].toarray()[:, 0] for one in set(MARKERS.values()) & set(places)}
        labels = dataset.obs[study.label_column].astype(str)
    return genes, np.array([studies.label(name, label)[0] for label in labels])


@pytest.mark.parametrize("table", FOLDERS)
def test_every_file_has_an_entry_and_every_entry_a_file(table: str, data_root: Path) -> None:
    files = sorted(path.stem for path in (data_root / FOLDERS[table]).glob("*.h5ad"))
    assert sorted(STUDIES[table].studies) == files


@pytest.mark.parametrize(("table", "name"), LABELLED)
def test_every_label_has_a_row_and_no_row_is_too_many(table: str, name: str, data_root: Path) -> None:
    studies = STUDIES[table]
    there = set(obs_of(data_root, table, name)[studies.study(name).label_column].astype(str))
    assert set(studies.labels[name]) == there


@pytest.mark.parametrize(("table", "name"), NAMES)
def test_the_columns_are_in_the_file(table: str, name: str, data_root: Path) -> None:
    study, obs = STUDIES[table].study(name), obs_of(data_root, table, name)
    columns = [column for column in (study.label_column, study.batch_column, study.donor_column) if column]
    assert set(columns) <= set(obs.columns)
    if not study.label_column:
        assert "cell_type" not in obs


@pytest.mark.parametrize("study", [study for study in STUDIES["corpus"].studies.values() if study.held_out])
def test_held_out_donors_are_there_and_leave_most_cells_to_train(study: Study, data_root: Path) -> None:
    donors = obs_of(data_root, "corpus", study.name)[study.donor_column].astype(str)
    assert set(study.held_out) <= set(donors)
    assert 0.1 < donors.isin(study.held_out).mean() < 0.3


def test_the_evaluation_holds_nobody_out_and_knows_no_groups() -> None:
    studies = STUDIES["evaluation"]
    assert all(not study.held_out for study in studies.studies.values())
    assert {use for labels in studies.labels.values() for _, use in labels.values()} == {"class"}


@pytest.mark.parametrize("table", FOLDERS)
def test_every_unused_label_says_why(table: str) -> None:
    with (ASSETS / table / "labels.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows
    assert [row["label"] for row in rows if row["use"] == "none" and not row["note"]] == []
    assert [(row["dataset"], row["label"]) for row in rows] == sorted((row["dataset"], row["label"]) for row in rows)


@pytest.mark.parametrize(
    ("meaning", "labels"),
    [
        ("classical monocyte", ["kang:CD14 Mono", "travaglini:classical monocyte", "kong:Monocytes S100A8 S100A9"]),
        ("non-classical monocyte", ["kang:CD16 Mono", "travaglini:non-classical monocyte", "kanemaru:CD16+Mo"]),
        ("CD8-positive, alpha-beta T cell", ["kang:CD8 T", "tenx_pbmc4k:T_CD8", "kong:T cells CD8"]),
        ("CD4-positive, alpha-beta memory T cell", ["kang:CD4 Memory T"]),
        ("naive thymus-derived CD4-positive, alpha-beta T cell", ["kang:CD4 Naive T", "kong:T cells Naive CD4"]),
        ("CD4-positive, CD25-positive, alpha-beta regulatory T cell", ["kong:Tregs"]),
        ("B cell", ["kang:B", "kang:B Activated", "liao:B", "tenx_pbmc4k:B", "kanemaru:B", "travaglini:B cell"]),
        ("natural killer cell", ["kang:NK", "liao:NK", "tenx_pbmc4k:NK", "kanemaru:NK_CD16hi"]),
        ("mast cell", ["liao:Mast", "baron2016:mast", "kong:Mast cells", "travaglini:basophil"]),
        ("plasma cell", ["liao:Plasma", "kong:Plasma cells", "kanemaru:B_plasma", "travaglini:plasma cell"]),
        ("macrophage", ["liao:Macrophages", "kong:Macrophages LYVE1", "kanemaru:MoMP", "baron2016:macrophage"]),
        ("conventional dendritic cell", ["liao:mDC", "kong:DC1", "kong:Mature DCs"]),
        ("endothelial cell of artery", ["kanemaru:EC5_art", "kong:Endothelial cells LTC4S SEMA3G"]),
        ("vein endothelial cell", ["kanemaru:EC6_ven", "kong:Endothelial cells DARC"]),
        ("endothelial cell of lymphatic vessel", ["kanemaru:EC8_ln", "kong:Lymphatics"]),
        ("pancreatic stellate cell", ["baron2016:activated_stellate", "baron2016:quiescent_stellate"]),
        ("fibroblast", ["kanemaru:FB4_activated", "kong:Fibroblasts ADAMDEC1", "travaglini:fibroblast"]),
    ],
)
def test_one_biology_has_one_term_in_every_study(meaning: str, labels: list[str]) -> None:
    studies = STUDIES["corpus"]
    for place in labels:
        prefix, label = place.split(":")
        (name,) = [name for name in studies.studies if name.startswith(prefix)]
        term, use = studies.label(name, label)
        assert (place, use, cell_ontology().name(term)) == (place, "class", meaning)


def test_coarse_labels_are_groups_and_what_has_no_type_is_unused() -> None:
    studies = STUDIES["corpus"]
    coarse = {"T cell", "CD4-positive, alpha-beta T cell", "lymphocyte", "epithelial cell", "mononuclear phagocyte"}
    groups = {cell_ontology().name(term) for term in set(studies.ontology_ids) - studies.classes}
    assert groups == coarse | {"perivascular cell"}
    for name, label in [
        ("liao2020_lung_lavage_covid", "unassigned"),
        ("tenx_pbmc4k_half", "?"),
        ("kanemaru2023_heart_1k", "unclassified"),
        ("kong2023_gut_crohns_1k", "Cycling cells"),
        ("kong2023_gut_crohns_1k", "Epithelial HBB HBA"),
        ("tian2019_cell_lines", "A549"),
    ]:
        assert studies.label(name, label) == ("", "none")


@pytest.mark.parametrize(
    ("table", "name"), [pair for pair in LABELLED if pair[1] not in (PLACENTA, "tian2019_cell_lines")]
)
def test_cells_of_a_term_express_its_marker_more_than_the_others(table: str, name: str, data_root: Path) -> None:
    genes, terms = expression_and_terms(data_root, table, name)
    checked = 0
    for term, symbol in MARKERS.items():
        inside = np.isin(terms, list(cell_ontology().descendants(term)))
        others = (terms != "") & ~np.isin(
            terms, list(cell_ontology().descendants(term) | cell_ontology().ancestors(term))
        )
        if inside.sum() < 5 or symbol not in genes:
            continue
        values = genes[symbol]
        assert values[inside].mean() > values[others].mean() + 0.05, f"{cell_ontology().name(term)}: {symbol}"
        checked += 1
    assert checked >= 4


def test_the_labels_of_a_scrambled_matrix_are_unused(data_root: Path) -> None:
    # In whole cells, genes of one pathway vary together; here they do not, so that no label can be true.
    def together(name: str, one: str, other: str) -> float:
        with open_h5ad(file_of(data_root, "corpus", name), human_genes()) as dataset:
            return float(np.corrcoef(dataset.gene(one), dataset.gene(other))[0, 1])

    for pair in [("HLA-DRA", "CD74"), ("MT-CO1", "MT-CO2"), ("C1QA", "C1QB"), ("COL1A1", "COL1A2")]:
        assert abs(together(PLACENTA, *pair)) < 0.15
    assert together("travaglini2020_lung_1k", "HLA-DRA", "CD74") > 0.7
    assert set(STUDIES["corpus"].labels[PLACENTA].values()) == {("", "none")}
