"""Names of human genes, from the table that ships with the app."""

from __future__ import annotations

from scdiva_core.data.hgnc import gene_names


def test_every_other_name_leads_to_its_gene() -> None:
    names = gene_names()
    others = names.others()
    assert {"CD20", "ENSG00000156738"} <= set(others["MS4A1"])
    assert sum(map(len, others.values())) == len(names.ensembl) + len(names.previous) + len(names.aliases)
    leads = {name: (names.resolve(name) or ("",))[0] == symbol for symbol, known in others.items() for name in known}
    # HGNC lists one withdrawn Ensembl id among the aliases; as an id it is no gene's.
    assert [name for name, there in leads.items() if not there] == ["ENSG00000184796"]
