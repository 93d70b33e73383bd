"""Regulons: what ships is CollecTRI, and a damaged table is refused by its line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from scdiva_core.data.hgnc import gene_names
from scdiva_core.data.regulons import COMPLEXES, Regulons, regulons
from scdiva_core.errors import DataError

SHIPPED = Path(__file__).resolve().parents[3] / "assets" / "regulons" / "regulons.tsv.gz"
HEADER = "regulator\ttarget\tsign"


@pytest.fixture
def written(tmp_path: Path):
    """Write lines below the header as a table."""

    def write(*lines: str, header: str = HEADER) -> Path:
        path = tmp_path / "regulons.tsv.gz"
        path.write_bytes(gzip.compress("\n".join([header, *lines, ""]).encode()))
        return path

    return write


def signs(regulator: str) -> dict[str, int]:
    return regulons().targets(regulator).set_index("target")["sign"].to_dict()


def test_well_known_targets_are_there_with_their_direction() -> None:
    assert signs("SPI1")["CSF1R"] == 1
    assert signs("PAX5")["CD19"] == 1
    assert signs("STAT1")["IRF1"] == 1
    assert signs("TP53")["CDKN1A"] == 1
    assert signs("GATA1")["GATA2"] == -1
    assert signs("BCL6")["PRDM1"] == -1
    assert signs("SNAI1")["CDH1"] == -1


def test_the_table_that_ships_has_the_size_its_readme_tells() -> None:
    table = regulons().table
    assert list(table) == ["regulator", "target", "sign"]
    assert (len(table), table["regulator"].nunique(), table["target"].nunique()) == (38_319, 1_114, 5_925)
    assert table["sign"].dtype == "int8"
    assert table["sign"].value_counts().to_dict() == {1: 33_170, -1: 5_149}
    assert not (table["regulator"] == table["target"]).any()
    text = (SHIPPED.parent / "README.md").read_text(encoding="utf-8")
    assert "38,319 interactions of 1,114 regulators with 5,925 target genes" in text
    assert f"AP1 ({len(signs('AP1'))} targets) and NFKB ({len(signs('NFKB'))})" in text


def test_the_file_carries_no_time_so_that_it_can_be_made_again_byte_for_byte() -> None:
    raw = SHIPPED.read_bytes()
    assert raw[4:8] == bytes(4)
    assert gzip.compress(gzip.decompress(raw), 9, mtime=0) == raw


def test_regulators_are_approved_genes_in_order_and_complexes_stand_apart() -> None:
    found = regulons().regulators
    assert len(found) == 1_112
    assert list(found) == sorted(set(found))
    assert set(found) <= gene_names().approved.keys()
    assert {"SPI1", "CEBPA", "PAX5", "EBF1", "GATA1", "STAT1", "STAT2", "IRF9", "JUN", "RELA"} <= set(found)
    assert not set(found) & COMPLEXES.keys()
    assert {part for parts in COMPLEXES.values() for part in parts} <= gene_names().approved.keys()
    assert signs("NFKB")["NFKBIA"] == 1


def test_targets_are_those_of_the_table_and_no_one_can_alter_it() -> None:
    table = regulons().table
    expected = table[table["regulator"] == "IRF9"][["target", "sign"]].reset_index(drop=True)
    found = regulons().targets("IRF9")
    pd.testing.assert_frame_equal(found, expected)
    assert len(found) == 24
    found["sign"] = 0
    table["sign"] = 0
    assert set(regulons().table["sign"]) == {1, -1}
    assert set(regulons().targets("IRF9")["sign"]) <= {1, -1}


def test_a_gene_that_regulates_nothing_known_is_refused_with_what_to_do() -> None:
    with pytest.raises(DataError, match=r"'ALB' is none of the 1,112 regulators.*approved symbol, such as SPI1"):
        regulons().targets("ALB")


def test_a_sound_table_is_read(written) -> None:
    found = Regulons.load(written("NFKB\tIL6\t1", "SPI1\tCSF1R\t1", "SPI1\tGATA1\t-1"))
    assert found.regulators == ("SPI1",)
    assert found.targets("SPI1").to_dict("list") == {"target": ["CSF1R", "GATA1"], "sign": [1, -1]}
    assert found.targets("NFKB").to_dict("list") == {"target": ["IL6"], "sign": [1]}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["SPI1\tCSF1R"], "line 2: 2 columns instead of 3"),
        (["PU.1\tCSF1R\t1"], "line 2: 'PU.1' is no approved gene symbol"),
        (["SPI1\tCSF1R\t1", "SPI1\tNFKB\t1"], "line 3: 'NFKB' is no approved gene symbol"),
        (["SPI1\tCSF1R\t+1"], r"line 2: the sign is '\+1', expected 1 or -1"),
        (["SPI1\tCSF1R\t0"], "line 2: the sign is '0', expected 1 or -1"),
        (["SPI1\tCSF1R\t1", "SPI1\tCSF1R\t-1"], "line 3: SPI1 and CSF1R are out of order or there twice"),
        (["SPI1\tCSF1R\t1", "GATA1\tHBB\t1"], "line 3: GATA1 and HBB are out of order or there twice"),
        ([], "line 1: no interaction follows the header"),
    ],
)
def test_a_wrong_line_is_named(written, lines: list[str], problem: str) -> None:
    with pytest.raises(DataError, match=rf"regulons.tsv.gz, {problem}.*Restore the app's own file"):
        Regulons.load(written(*lines))


def test_another_table_is_refused_by_its_header(written) -> None:
    with pytest.raises(DataError, match="line 1: the header is another one; expected regulator, target, sign"):
        Regulons.load(written("SPI1\tCSF1R\t1", header="source\ttarget\tweight"))


@pytest.mark.parametrize("damage", ["cut", "changed", "plain", "bytes", "missing"])
def test_a_damaged_file_is_refused_in_words(tmp_path: Path, damage: str) -> None:
    raw = SHIPPED.read_bytes()
    path = tmp_path / "regulons.tsv.gz"
    damaged = {
        "cut": raw[: len(raw) // 2],
        "changed": raw[:5000] + bytes(byte ^ 255 for byte in raw[5000:5100]) + raw[5100:],
        "plain": gzip.decompress(raw),
        "bytes": gzip.compress(b"\xff\xfe\x80"),
    }
    if damage in damaged:
        path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match="regulons.tsv.gz cannot be read. Restore the app's own file."):
        Regulons.load(path)


def test_it_agrees_with_the_published_release(reference_root: Path) -> None:
    release = pd.read_csv(reference_root / "tables" / "collectri.csv.gz")

    def approved(name: str) -> str | None:
        return name if name in COMPLEXES else (gene_names().resolve(name) or [None])[0]

    release["regulator"], release["target"] = release["source"].map(approved), release["target"].map(approved)
    released = release.dropna().drop_duplicates(["regulator", "target"]).set_index(["regulator", "target"])["sign"]
    ours = regulons().table.set_index(["regulator", "target"])["sign"]
    shared = ours.index.intersection(released.index)
    # OmniPath names one of the genes that share a protein, the release another: IFNA1 and IFNA13, HBA1 and HBA2.
    assert len(ours) - len(shared) == 95
    assert (ours[shared] != released[shared]).sum() == 3
    # Left out here: what only TRRUST or HTRIdb report, and genes that act on themselves.
    assert len(shared) / len(released) == pytest.approx(0.888, abs=0.001)
