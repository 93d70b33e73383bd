"""A network as a report."""

from __future__ import annotations

import numpy as np

from pages._ui.grn_words import DIRECTIONS, EFFECTS, EVIDENCE, HELP, NO_PROOF, WHAT_IT_IS, head_name
from scdiva_core.engine_grn import GrnResult
from scdiva_core.figures.grn_network import network_figure
from scdiva_core.figures.grn_panels import head_agreement, honesty_intervals
from scdiva_core.report.contents import Facts, Origin, Picture, Report, Section, Table, Text, choices
from scdiva_core.tasks.grn_graph import graph, layout, select

_EACH, _GENES = 5, 80  # targets of each regulator and genes that the page draws unless others are chosen
_EDGE = {"regulator": "Regulator", "target": "Target"}
_REGULONS = {
    "regulator": "Regulator",
    "share": "Read by",
    "edges": "Edges",
    "stable": "Stable",
    "known": "Known targets",
    "hits": "Hits",
    "expected": "Expected",
    "p": "p",
    "q": "q",
}
_RATIOS = {"auprc": "AUPRC ratio", "epr": "Early precision ratio"}


def report(origin: Origin, result: GrnResult, title: str) -> Report:
    """Write what a network is and how far to trust it.

    Parameters
    ----------
    origin
        Where it comes from.
    result, title
        Of the network.
    """
    told = result.summary
    verdict = [Text(told["verdict"], "verdict")] if told["verdict"] else []
    proof = Text(f"{NO_PROOF} It has no sign, and an arrow is no cause.", "warning")
    warnings = [Text(words, "warning") for words in told["warnings"]]
    sections = [
        Section("What came out", (Text(told["caption"], "verdict"), *verdict, proof, *warnings)),
        _network(result, title),
        _regulons(result),
        *_contrast(result),
        _trust(result, title),
    ]
    return Report(title, (*choices(result.settings.to_dict()), *_read(result)), tuple(sections), origin)


def _network(result: GrnResult, title: str) -> Section:
    chosen = select(result.edges, per_regulator=min(_EACH, result.settings.top), most_nodes=_GENES)
    drawn = graph(chosen.edges)
    alt = f"{drawn.number_of_edges():,} edges between {len(drawn):,} genes"
    columns = {**_EDGE, **EVIDENCE}
    if result.edges["knockout"].isna().all():
        columns.pop("knockout")
    edges = result.edges.assign(effect=result.edges["sign"].map(EFFECTS))
    strongest = edges.sort_values("attention", ascending=False, kind="stable")
    says = f"{chosen.says} Arrows lead to the target, a bar at the end says that it is lowered."
    picture = Picture(network_figure(drawn, layout(drawn), title=title), alt, says)
    return Section("Network", (picture, Table(strongest, columns, "Edges, those with the most attention first")))


def _regulons(result: GrnResult) -> Section:
    table = Table(result.regulons, _REGULONS, "Regulators with their known targets, hits and p")
    return Section("Do regulators hit their known targets more often than chance?", (table, Text(HELP["p"])))


def _contrast(result: GrnResult) -> list[Section]:
    if result.contrast is None:
        return []
    first, second = result.settings.cells, result.settings.against
    columns = {
        **_EDGE,
        "first": f"In {first}",
        "second": f"In {second}",
        "difference": "Difference",
        "p": "p",
        "q": "q",
    }
    clear = int((result.contrast["q"] <= 0.05).sum())
    said = (
        f"{clear:,} of {len(result.contrast):,} edges differ between {first} ({result.n_sampled:,} cells) and {second} "
        f"({result.n_against:,} cells), at q ≤ 0.05. The same genes were read in both. A difference of attention is no "
        "difference of regulation: a gene that is expressed more is read more."
    )
    table = Table(result.contrast, columns, "Edges by how sure their difference is")
    return [Section("Two sets of cells compared", (Text(said), table))]


def _trust(result: GrnResult, title: str) -> Section:
    items: list[Text | Picture | Table] = []
    if result.honesty is not None:
        columns = {"method": "Method"}
        for measure, label in _RATIOS.items():
            columns |= {f"{measure}_ratio": label, f"{measure}_low": "from", f"{measure}_high": "to"}
        columns |= {"n_pairs": "Pairs", "n_true": "Known"}
        alt = "How much better than chance each method finds known edges, with intervals"
        items += [
            Picture(honesty_intervals(result.honesty, title=title), alt, f"{HELP['auprc']} {HELP['epr']}"),
            Table(result.honesty, columns, "Methods with their ratios over chance"),
        ]
    if result.heads is not None:
        items += _heads(result, title)
    items += [Text(" ".join(part.split()).replace("**", "")) for part in WHAT_IT_IS.strip().split("\n\n")]
    return Section("How far to trust it", tuple(items))


def _heads(result: GrnResult, title: str) -> list[Text | Picture | Table]:
    rows = result.heads
    ratios = np.full((rows["layer"].max() + 1, rows["head"].max() + 1), np.nan)
    ratios[rows["layer"], rows["head"]] = rows["auprc_ratio"]
    used = rows[rows["used"]]
    chosen = [] if len(used) == len(rows) else list(zip(used["layer"], used["head"], strict=True))
    named = rows.assign(layer=rows["layer"] + 1, head=rows["head"] + 1)
    columns = {"layer": "Layer", "head": "Head", **{f"{name}_ratio": label for name, label in _RATIOS.items()}}
    return [
        Picture(
            head_agreement(ratios, chosen=chosen, title=title),
            "Agreement of each layer and head with known regulons, 1 for chance",
            "Picking the best head here and then judging by the same edges would flatter it: a choice should be made "
            "on other cells.",
        ),
        Table(named, {**columns, "used": "In use"}, "Layers and heads with their ratios over chance"),
    ]


def _read(result: GrnResult) -> Facts:
    """Which attention was read."""
    told = result.summary
    return (
        ("attention read", "; ".join(head_name(*head) for head in told["heads"])),
        ("read in the direction", DIRECTIONS[told["direction"]]),
        ("chosen on", told["chosen_on"] or "nothing"),
        ("each gene's own mean taken off", "yes" if told["centred"] else "no"),
    )
