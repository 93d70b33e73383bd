"""Marker genes by hand on a made-up corpus, and on real cells by their definition and by what is known of blood."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.prepare import prepare
from scdiva_core.data.studies import Studies
from scdiva_core.model.markers import MarkerTable
from scdiva_core.training.markers import marker_genes
from tests.labelled_corpus import DATASETS, LABELS, write_tables

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo"

B, NK, MONO = ("CL:0000236", "B cell"), ("CL:0000623", "natural killer cell"), ("CL:0000860", "classical monocyte")
T, CD8 = ("CL:0000084", "T cell"), ("CL:0000625", "CD8-positive, alpha-beta T cell")

COUNTS = {
    # Counts of five cells of B and x in study one, of B and y in study two.
    "MS4A1": ("B", 40, 20),
    "CD19": ("B", 30, 0),
    "CD52": ("B", 50, 50, "x", 50),
    "CXCR4": ("B", 50, 50, "x", 50),
    "LIMD2": ("B", 50, 50, "x", 50),
    "LTB": ("B", 50, 50, "x", 50),
    "CD74": ("B", 1, 64, "y", 64),
    "NKG7": ("x", 30),
    "GNLY": ("x", [30, 30, 0, 0, 0]),
    "LYZ": ("y", 100),
    "CD79A": ("B", [90, 0, 0, 0, 0], [90, 0, 0, 0, 0]),
    "CD79B": ("B", [8, 8, 0, 0, 0], [8, 8, 0, 0, 0]),
    "MT-CO1": ("B", 40, 40),
    "RPL10": ("B", 40, 40),
    "RPS6KA1": ("B", 10, 10),
    "MALAT1": ("B", 40, 40),
    "HLA-F-AS1": ("B", 40, 40),
    "FTH1P3": ("B", 40, 40),
}
"""Raw counts by gene: of B in both studies, of x in the first and of y in the second; 0 where nothing is said."""


def written(folder: Path, x: tuple[str, str], y: tuple[str, str], cells: int = 5) -> Corpus:
    """Prepare both studies; every cell has 10,000 counts, ACTB fills them up. One more cell of each is held out."""
    held_out = cells
    for study, other in (("one", "x"), ("two", "y")):
        table = np.zeros((2, cells + 1, len(COUNTS) + 1), np.float32)
        for column, told in enumerate(COUNTS.values()):
            for place, kind in enumerate(told):
                if kind == "B":
                    table[0, :cells, column] = np.resize(told[place + 1 + (study == "two")], cells)
                elif kind == other:
                    table[1, :cells, column] = np.resize(told[place + 1], cells)
        table[:, held_out, list(COUNTS).index("LYZ")] = 9000
        table[:, :, -1] = 10_000 - table.sum(axis=2)
        obs = pd.DataFrame({"type": np.repeat(["B", other], cells + 1), "donor": "a"})
        obs.loc[[held_out, 2 * held_out + 1], "donor"] = "b"
        obs.index = obs.index.astype(str)
        made = anndata.AnnData(table.reshape(-1, len(COUNTS) + 1), obs)
        made.var_names = [*COUNTS, "ACTB"]
        folder.mkdir(exist_ok=True)
        made.write_h5ad(folder / f"{study}.h5ad")
    entry = '[[dataset]]\nname = "{0}"\ntitle = "{0}"\nsource = "made up"\nlabel_column = "type"\n'
    entry += 'donor_column = "donor"\nheld_out = ["b"]\n'
    rows = [("one", "B", *B), ("one", "x", *x), ("two", "B", *B), ("two", "y", *y)]
    labels = tuple("\t".join([*row, "class", ""]) for row in rows)
    studies = Studies.read(write_tables(folder / "tables", entry.format("one") + entry.format("two"), labels))
    prepare([folder / "one.h5ad", folder / "two.h5ad"], folder / "corpus", studies=studies, min_cells=1)
    return Corpus(folder / "corpus")


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> MarkerTable:
    return marker_genes(written(tmp_path_factory.mktemp("made_up") / "files", NK, MONO))


def told(table: MarkerTable, term: str, sign: str) -> dict[str, tuple[float, float, float]]:
    return {row.symbol: (row.log2_fold_change, row.share_inside, row.share_outside) for row in table.of(term, sign)}


def fold(inside: float, outside: float) -> float:
    return float(np.log2((inside + 0.1) / (outside + 0.1)))


def test_the_least_of_three_fold_changes_counts(made_up: MarkerTable) -> None:
    """Natural killer cells are most like B cells, for both have CD52 and others; the first study holds both."""
    found = told(made_up, B[0], "positive")
    within, overall, nearest = (fold(40, 0) + fold(20, 0)) / 2, fold(30, 0), fold(40, 0)
    assert within < overall < nearest
    assert list(found) == ["CD19", "MS4A1", "RPS6KA1", "CD79B"], "the highest first"
    assert found["MS4A1"] == (pytest.approx(within, abs=1e-4), 1.0, 0.0)
    assert found["RPS6KA1"] == (pytest.approx(fold(10, 0), abs=1e-4), 1.0, 0.0)
    assert found["CD79B"] == (pytest.approx(fold(3.2, 0), abs=1e-4), 0.4, 0.0)


def test_a_gene_that_a_study_lacks_says_nothing_there(made_up: MarkerTable) -> None:
    """Nobody in the second study shows CD19: its B cells do not halve the first one's."""
    assert told(made_up, B[0], "positive")["CD19"] == (pytest.approx(fold(30, 0), abs=1e-4), 1.0, 0.0)


def test_what_only_one_background_shows_is_no_marker(made_up: MarkerTable) -> None:
    found = {row.symbol for row in made_up.rows if row.sign == "positive"}
    assert "CD74" not in found, "a mark of the second study; of all studies monocytes have twice as much as B cells"
    assert "CD52" not in found, "twice the mean of the other classes, but the nearest class has it too"
    assert "CD79A" not in found, "in a fifth of the cells"
    assert not found & {"MT-CO1", "RPL10", "MALAT1", "HLA-F-AS1", "FTH1P3"}


def test_the_other_classes_have_theirs(made_up: MarkerTable) -> None:
    assert made_up.names == dict([B, NK, MONO])
    assert told(made_up, NK[0], "positive") == {
        "NKG7": (pytest.approx(fold(30, 0), abs=1e-4), 1.0, 0.0),
        "GNLY": (pytest.approx(fold(12, 0), abs=1e-4), 0.4, 0.0),
    }
    assert told(made_up, MONO[0], "positive") == {"LYZ": (pytest.approx(fold(100, 0), abs=1e-4), 1.0, 0.0)}


def test_negative_markers_are_those_of_the_most_similar_class(made_up: MarkerTable) -> None:
    assert told(made_up, B[0], "negative") == {"NKG7": (pytest.approx(fold(0, 30), abs=1e-4), 0.0, 1.0)}, (
        "not GNLY, which 40 % of the killer cells show, nor LYZ, which no natural killer cell has"
    )
    lacking = told(made_up, NK[0], "negative")
    assert {"MS4A1", "CD19", "RPS6KA1", "CD74"} == set(lacking)
    assert lacking["MS4A1"] == (pytest.approx(fold(0, 30), abs=1e-4), 0.0, 1.0)


def test_kinds_of_a_class_are_not_held_against_it(tmp_path: Path) -> None:
    """CD8 T cells of another study are T cells."""
    table = marker_genes(written(tmp_path / "files", T, CD8))
    assert set(told(table, T[0], "positive")) == {"NKG7", "GNLY"}
    assert set(told(table, CD8[0], "positive")) == {"LYZ"}
    assert {"MS4A1", "CD52", "CD74"} <= set(told(table, CD8[0], "negative")) | set(told(table, T[0], "negative"))
    assert "LYZ" not in told(table, T[0], "negative")
    assert "NKG7" not in told(table, CD8[0], "negative")


def test_a_corpus_without_labels_has_no_markers(corpus: Corpus) -> None:
    assert marker_genes(corpus) == MarkerTable(())


@pytest.fixture(scope="module")
def kang(tmp_path_factory: pytest.TempPathFactory) -> MarkerTable:
    """Markers of 1,500 blood cells over the 2,500 genes that most of them show."""
    folder = tmp_path_factory.mktemp("kang")
    cells = anndata.read_h5ad(DEMO / "kang2018_pbmc_ifnb_3k.h5ad")[:1500]
    detected = np.asarray((cells.X > 0).sum(axis=0)).ravel()
    cells = cells[:, np.sort(np.argsort(-detected, kind="stable")[:2500])].copy()
    cells.obs["person"] = [f"p{i % 4}" for i in range(cells.n_obs)]
    cells.write_h5ad(folder / "kang.h5ad")
    datasets = DATASETS.split("\n[[dataset]]")[0] + "\n"
    labels = tuple(row for row in LABELS if row.startswith("kang"))
    studies = Studies.read(write_tables(folder / "tables", datasets, labels))
    prepare([folder / "kang.h5ad"], folder / "corpus", studies=studies)
    return marker_genes(Corpus(folder / "corpus"))


@pytest.mark.parametrize(
    ("term", "known"),
    [
        (B[0], {"CD79A", "CD74", "HLA-DQA1"}),
        (NK[0], {"GNLY", "GZMB", "NKG7"}),
        (MONO[0], {"S100A8", "S100A9", "LYZ"}),
        ("CL:0000875", {"FCGR3A", "MS4A7", "VMO1"}),
    ],
)
def test_markers_of_blood_cells_are_the_known_ones(kang: MarkerTable, term: str, known: set[str]) -> None:
    assert known <= set(told(kang, term, "positive"))


@pytest.fixture(scope="module")
def blood(labelled: Corpus) -> MarkerTable:
    return marker_genes(labelled)


def test_markers_of_real_cells_keep_their_definition(blood: MarkerTable, labelled: Corpus) -> None:
    shares = class_shares(labelled)
    for row in blood.rows:
        assert row.share_inside == pytest.approx(shares.loc[row.ontology_id, row.symbol], abs=1e-4)
        assert row.name == labelled.manifest["class_names"][labelled.classes.index(row.ontology_id)]
        if row.sign == "positive":
            others = shares.drop(index=row.ontology_id)[row.symbol]
            assert row.share_outside == pytest.approx(others.mean(), abs=1e-4), "no class is a kind of another"
            assert row.share_inside >= 0.25
            assert row.log2_fold_change >= 0.5
        else:
            assert row.share_inside < 0.05
            assert row.share_outside >= 0.5
    for term in blood.names:
        positive, negative = blood.of(term, "positive"), blood.of(term, "negative")
        assert len(positive) <= 20
        assert len(negative) <= 10
        merits = [row.log2_fold_change * row.share_inside for row in positive]
        assert all(one >= two - 1e-3 for one, two in pairwise(merits))
    assert not [row.symbol for row in blood.rows if row.symbol.startswith(("MT-", "RPL", "RPS"))]


def class_shares(corpus: Corpus) -> pd.DataFrame:
    """Share of each class' training cells that detect each gene, the mean over studies with five cells that have it."""
    rows = corpus.take(np.arange(len(corpus)))
    detected = rows.sparse(np.ones(len(rows.gene_ids), np.float32), len(corpus.vocabulary)).to_dense().numpy()
    table = pd.DataFrame(detected, columns=corpus.vocabulary.tokens)
    table["term"] = [corpus.label_ids[label] if label >= 0 else "" for label in corpus.labels]
    table["study"] = corpus.dataset_of
    table = table.iloc[corpus.cells("training")]
    table = table[table["term"].isin(corpus.classes)]
    groups = table.groupby(["term", "study"])
    shares = groups.mean()[groups.size() >= 5]
    measured = shares.groupby("study").transform("max") > 0
    return shares.where(measured).groupby("term").mean()
