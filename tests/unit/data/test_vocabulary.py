"""Gene vocabulary: matching names of any kind, and the files it is read from."""

from __future__ import annotations

import hashlib
import json
import string

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiva_core.data.hgnc import gene_names
from scdiva_core.data.vocabulary import GeneVocabulary, human_genes
from scdiva_core.errors import VocabularyError

TOKENS = [
    "<pad>",
    "<mask>",
    "CD3D",
    "TENT5C",
    "SELENOF",
    "HLA-A",
    "NKX2-1",
    "LINC01238",
    "<unused_8>",
    "<eos>",
]


@pytest.fixture(scope="module")
def vocabulary() -> GeneVocabulary:
    return GeneVocabulary(TOKENS)


def test_reserved_tokens_are_no_genes(vocabulary: GeneVocabulary) -> None:
    assert vocabulary.gene_ids.tolist() == [2, 3, 4, 5, 6, 7]
    assert vocabulary.gene_ids.dtype == np.int64
    assert len(vocabulary) == 10
    assert vocabulary.match(["<pad>", "<unused_8>"]).n_known == 0


def test_hash_is_that_of_the_joined_tokens(vocabulary: GeneVocabulary) -> None:
    assert vocabulary.sha256 == hashlib.sha256("\n".join(TOKENS).encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "token", "how"),
    [
        ("CD3D", "CD3D", "symbol"),
        ("ENSG00000167286", "CD3D", "ensembl"),
        ("ENSG00000167286.9", "CD3D", "ensembl"),
        ("FAM46C", "TENT5C", "previous"),
        ("SEP15", "SELENOF", "alias"),
        ("HLA.A", "HLA-A", "symbol"),  # R's make.names
        ("CD3D-1", "CD3D", "symbol"),  # anndata's var_names_make_unique
        ("CD3D.1", "CD3D", "symbol"),  # R's make.unique
    ],
)
def test_a_gene_is_found_by_each_of_its_names(vocabulary: GeneVocabulary, name: str, token: str, how: str) -> None:
    match = vocabulary.match([name])
    assert match.ids.tolist() == [TOKENS.index(token)]
    assert match.how == (how,)


@pytest.mark.parametrize("name", ["cd3d", "Cd3d", "", "nan", "NKX2", "ENSG00000000000", "TRAC", "U73166.2", "CD3"])
def test_what_is_not_the_gene_is_not_matched(vocabulary: GeneVocabulary, name: str) -> None:
    assert vocabulary.match([name]).how == ("unknown",)


def test_current_symbol_wins_over_another_genes_older_name() -> None:
    names = gene_names()
    assert names.resolve("MARCH2") == ("MARCHF2", "previous")
    assert names.resolve("C1ORF112") == (
        names.previous["C1orf112"],
        "alias",
    )  # written in capitals throughout
    assert not set(names.previous) & set(names.approved)
    assert not set(names.aliases) & (set(names.approved) | set(names.previous))


def test_a_name_of_two_genes_is_not_used(reference_root) -> None:
    table = pd.read_parquet(reference_root / "tables" / "hgnc.parquet")
    table = table[table["symbol"].isin(gene_names().approved)]
    aliases = table["alias_symbols"].str.split("|").explode()
    counts = aliases[aliases != ""].value_counts()
    shared = [name for name in counts[counts > 1].index if gene_names().resolve(name) is not None]
    # Those that resolve do so as a symbol or previous symbol, never as the alias that two genes claim.
    assert all(gene_names().resolve(name)[1] != "alias" for name in shared)
    assert len(counts[counts > 1]) > 500


def test_old_tokens_are_found_by_new_names() -> None:
    match = GeneVocabulary(["FAM46C", "ENSG00000167286.3", "SEP15"]).match(["TENT5C", "CD3D", "SELENOF"])
    assert match.ids.tolist() == [0, 1, 2]
    assert match.how == ("previous", "symbol", "alias")


def test_direct_token_wins_over_an_older_spelling_of_the_same_gene() -> None:
    assert GeneVocabulary(["FAM46C", "TENT5C"]).match(["TENT5C", "FAM46C", "ENSG00000183508"]).ids.tolist() == [
        1,
        0,
        1,
    ]


def test_duplicates_share_an_id(vocabulary: GeneVocabulary) -> None:
    match = vocabulary.match(["CD3D", "CD3D-1", "ENSG00000167286", "unheard of"])
    assert match.ids.tolist() == [2, 2, 2, -1]
    assert (match.n_known, match.n_total, match.fraction) == (3, 4, 0.75)


def test_older_symbol_with_suffix_needs_its_base_beside_it(vocabulary: GeneVocabulary) -> None:
    assert vocabulary.match(["FAM46C-1"]).n_known == 0
    assert vocabulary.match(["FAM46C", "FAM46C-1"]).n_known == 2


def test_second_name_is_tried_where_the_first_is_unknown(vocabulary: GeneVocabulary) -> None:
    match = vocabulary.match(["CD3D", "gene 2"], ["ENSG00000206503", "ENSG00000206503"])
    assert match.ids.tolist() == [2, 5]
    assert match.how == ("symbol", "ensembl")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["CD3D", "HLA-A", "what"], "symbols"),
        (["ENSG00000167286.1", "ENSG00000206503"], "ensembl"),
        (["ENSG00000167286", "HLA-A"], "mixed"),
        (["0", "1", "2"], "unknown"),
        ([], "unknown"),
    ],
)
def test_kind_of_names(vocabulary: GeneVocabulary, names: list[str], kind: str) -> None:
    assert vocabulary.match(names).kind == kind


def test_nearly_all_genes_of_real_data_are_known(data_root) -> None:
    import anndata

    found = anndata.read_h5ad(data_root / "demo" / "tenx_pbmc3k.h5ad", backed="r").var
    by_symbol = human_genes().match(list(found.index))
    by_id = human_genes().match(list(found["gene_id"]))
    assert by_symbol.fraction > 0.8
    assert by_id.fraction > 0.85
    both = (by_symbol.ids >= 0) & (by_id.ids >= 0)
    assert (by_symbol.ids == by_id.ids)[both].mean() > 0.99


def test_bundled_table_agrees_with_its_source(reference_root) -> None:
    table = pd.read_parquet(reference_root / "tables" / "hgnc.parquet").dropna(subset=["ensembl_id"])
    table = table[table["symbol"].isin(gene_names().approved)].drop_duplicates("ensembl_id", keep=False)
    assert len(table) > 42_000
    assert all(gene_names().ensembl[row.ensembl_id] == row.symbol for row in table.itertuples())


# --- files ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vocab.json", json.dumps({"<pad>": 0, "CD3D": 1, "HLA-A": 3})),
        ("vocab.json", json.dumps(["<pad>", "CD3D", "<unused_2>", "HLA-A"])),
        ("vocab.txt", "<pad>\nCD3D\n<unused_2>\nHLA-A\n"),
        ("vocab.txt", "\ufeff<pad>\r\nCD3D\r\n<unused_2>\r\nHLA-A"),
        ("gene_vocab.csv", "gene,id\nHLA-A,3\n<pad>,0\nCD3D,1\n"),
        ("gene_vocab.csv", ",symbol\n0,<pad>\n1,CD3D\n3,HLA-A\n"),
        ("gene_vocab.csv", "token\n<pad>\nCD3D\n<unused_2>\nHLA-A\n"),
        ("gene_vocab.csv", "<pad>\nCD3D\n<unused_2>\nHLA-A\n"),
    ],
)
def test_every_file_form_is_read(tmp_path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    tokens = GeneVocabulary.from_file(tmp_path / name).tokens
    assert tokens == ("<pad>", "CD3D", "<unused_2>", "HLA-A")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", b"{", "not JSON"),
        ("vocab.json", b"[" * 100_000, "not JSON"),
        ("vocab.json", b'{"CD3D": "x"}', "the id 'x'"),
        ("vocab.json", b'{"CD3D": -1}', "the id -1"),
        ("vocab.json", b'{"CD3D": 99999999999}', "no token id"),
        ("vocab.json", b'{"CD3D": true}', "no token id"),
        ("vocab.json", b'{"CD3D": 1, "CD4": 1}', "gives id 1 to both 'CD3D' and 'CD4'"),
        ("vocab.json", b"[1, 2]", "neither a mapping"),
        ("vocab.json", b'["CD3D", "CD3D"]', "names 'CD3D' twice"),
        ("vocab.json", b'["<pad>"]', "no gene among its 1 tokens"),
        ("vocab.txt", b"CD3D\n\nCD4\n", "Token 1 of the vocabulary is empty"),
        ("vocab.txt", b"\xff\xfeC\x00", "not UTF-8"),
        ("gene_vocab.csv", b"a,b\n1,2\n", "no column called gene or token"),
        ("gene_vocab.csv", b"gene,id\nCD3D\n", "2 cells"),
        ("gene_vocab.csv", b"", "no gene"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VocabularyError, match=message):
        GeneVocabulary.from_file(tmp_path / name)


def test_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(VocabularyError, match=r"vocab\.json cannot be read: No such file"):
        GeneVocabulary.from_file(tmp_path / "vocab.json")


# --- properties ---

names = st.text(string.ascii_uppercase + string.digits + "-._ ", min_size=1, max_size=8)
token_lists = st.lists(names, min_size=1, max_size=30, unique=True)
queries = st.lists(names | st.sampled_from(sorted(gene_names().previous)[:500]), max_size=30)


@given(tokens=token_lists)
def test_every_gene_token_finds_itself(tokens: list[str]) -> None:
    assert GeneVocabulary(tokens).match(tokens).ids.tolist() == list(range(len(tokens)))


@given(tokens=token_lists, query=queries, seed=st.integers(0, 2**32 - 1))
def test_order_of_names_does_not_matter(tokens: list[str], query: list[str], seed: int) -> None:
    vocabulary = GeneVocabulary(tokens)
    order = np.random.default_rng(seed).permutation(len(query))
    ids = vocabulary.match(query).ids
    assert vocabulary.match([query[i] for i in order]).ids.tolist() == ids[order].tolist()


@given(tokens=token_lists, query=queries)
def test_ids_and_reasons_agree(tokens: list[str], query: list[str]) -> None:
    vocabulary = GeneVocabulary(tokens)
    match = vocabulary.match(query)
    assert match.ids.shape == (len(query),)
    assert set(match.ids.tolist()) <= {-1, *vocabulary.gene_ids.tolist()}
    assert [word == "unknown" for word in match.how] == (match.ids < 0).tolist()


@settings(max_examples=50)
@given(version=st.integers(0, 99), pick=st.integers(0, 40_000))
def test_version_of_an_ensembl_id_does_not_matter(version: int, pick: int) -> None:
    gene, symbol = list(gene_names().ensembl.items())[pick]
    match = human_genes().match([gene, f"{gene}.{version}", symbol])
    assert len(set(match.ids.tolist())) == 1
    assert match.n_known == 3


@settings(max_examples=50)
@given(tokens=st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=20, unique=True))
def test_written_vocabulary_reads_back(tmp_path_factory, tokens: list[str]) -> None:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.json"
    vocabulary = GeneVocabulary([*tokens, "CD3D!"])
    vocabulary.to_file(path)
    again = GeneVocabulary.from_file(path)
    assert again.tokens == vocabulary.tokens
    assert again.sha256 == vocabulary.sha256
