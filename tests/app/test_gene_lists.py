"""Lists of genes to search among: fetched by their address, with every name of each gene."""

from __future__ import annotations

import gc
import gzip
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from pages._ui.gene_lists import gene_list, gene_list_routes


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=gene_list_routes()))


def test_a_list_has_each_gene_once_with_its_other_names(client: TestClient) -> None:
    reply = client.get(gene_list(("SPI1", "MS4A1", "NOT-A-GENE", "FAM129A", "MS4A1")).address)
    genes = {line.split("\t")[0]: line.split("\t")[1:] for line in reply.text.split("\n")}
    assert list(genes) == ["FAM129A", "MS4A1", "NOT-A-GENE", "SPI1"]
    assert {"CD20", "ENSG00000156738"} <= set(genes["MS4A1"])
    assert "PU.1" in genes["SPI1"]
    assert "NIBAN1" in genes["FAM129A"], "a file with an older name is searched by the approved one too"
    assert genes["NOT-A-GENE"] == []
    assert "MS4A1" not in genes["MS4A1"]


def test_equal_lists_have_one_address_that_browsers_may_keep(client: TestClient) -> None:
    made = gene_list(("CD3D", "LYZ"))
    assert gene_list(("LYZ", "CD3D")).address == made.address != gene_list(("LYZ",)).address
    reply = client.get(made.address)
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert "immutable" in reply.headers["cache-control"]
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_list_that_many_ask_for_at_once_stays(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, compress = threading.Barrier(4), gzip.compress

    def together(*args: object, **more: object) -> bytes:
        at_once.wait(timeout=30)
        return compress(*args, **more)

    monkeypatch.setattr(gzip, "compress", together)
    with ThreadPoolExecutor(4) as threads:
        addresses = {made.address for made in threads.map(gene_list, [("GNLY", "NKG7")] * 4)}
    gc.collect()
    assert [client.get(address).text.count("\n") for address in addresses] == [1]


def test_a_list_stays_when_the_same_genes_in_another_order_are_forgotten(client: TestClient) -> None:
    kept = gene_list(("CD14", "FCGR3A"))
    gene_list(("FCGR3A", "CD14"))
    gene_list.cache_clear()
    gc.collect()
    assert client.get(kept.address).status_code == 200


@pytest.mark.parametrize("digest", ["0" * 64, "..", "%2e%2e%2fsecret"])
def test_an_address_leads_to_a_list_or_nowhere(client: TestClient, digest: str) -> None:
    assert client.get(f"/api/genes/{digest}").status_code == 404
