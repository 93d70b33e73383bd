"""Names of human genes, from the table that ships with the app."""

from __future__ import annotations

from scdiva_core.data.hgnc import gene_names


def test_every_other_name_leads_to_its_gene() -> None:
    names = gene_names()
    others = names.others()
    assert {"CD20", "ENSG00000156738"} <= set(others["MS4A1"])
    assert sum(map(len, others.values())) == len(names.ensembl) + len(names.previous) + len(names.aliases)
    for symbol, known in others.items():
        assert {names.resolve(name)[0] for name in known} == {symbol}
