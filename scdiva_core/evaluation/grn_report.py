"""An evaluation of networks as Markdown: tables, how they were made, and what they come to in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scdiva_core.tasks.grn_honesty import CO_EXPRESSION, EXPOSURE

_NOTES = (
    "Of each set the same cells, genes and pairs for every method: at most {most_regulators:,} regulators and "
    "{most_targets:,} targets, those first that most cells have among the tokens that the model reads; no gene with "
    "itself; only regulators of which the reference knows a target. AUPRC and early precision (BEELINE: precision "
    "among the best k pairs, k known ones) are given over the share of known pairs, so that 1 is random. In brackets "
    "the middle 95 % of {draws} bootstrap draws of the regulators. *Against co-expression*: AUPRC ratio less that of "
    "co-expression, draw by draw; *against read together* likewise. Co-expression: size of Spearman's correlation. "
    "Partial correlation: its size, given all other regulators and the number of genes that a cell expresses, shrunk "
    "after Ledoit and Wolf. Read together: cells that have both genes among their tokens, for references know more of "
    "genes that are often seen. Tree "
    "ensemble: extremely randomised trees as in GENIE3. Random: mean of {random_runs} runs, in brackets the spread of "
    "single ones.",
    "A reference is far from complete and collected from many tissues: a ratio near 1 says that scores and reference "
    "do not agree, not which of them is wrong.",
)


def to_markdown(result: Mapping[str, Any]) -> str:
    """Write a result of `scdiva_core.evaluation.grn.evaluate_grn` as a Markdown page.

    Parameters
    ----------
    result
        As returned, or read back from JSON.
    """
    checkpoint, settings = result["checkpoint"], result["settings"]
    lines = [
        "# Gene regulatory networks, evaluated",
        "",
        f"Checkpoint: {checkpoint['name']}, {checkpoint['parameters']:,} parameters, "
        f"SHA-256 `{checkpoint['sha256']}`. {_choice(settings['choice'])}",
        "",
        "## In words",
        "",
    ]
    for cells in result["sets"].values():
        for name, found in cells["references"].items():
            lines.append(f"- {cells['title']}, {name}: {found['verdict']}")
        lines.append(f"- {cells['title']}: {_removal(cells['removal'], settings)}")
    lines.append("")
    for note in _NOTES:
        lines += [note.format(**settings), ""]
    for cells in result["sets"].values():
        lines += _set(cells)
    if result["regulon"] is not None:
        lines += _regulon(result["regulon"])
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return "\n".join([*lines, f"Made with {versions}.", ""])


def _choice(choice: Mapping[str, Any]) -> str:
    heads = "all heads" if choice["heads"] is None else f"heads {', '.join(f'{a}.{b}' for a, b in choice['heads'])}"
    direction = {
        "from": "from the regulator to the target",
        "to": "from the target to the regulator",
        "both": "both directions",
    }[choice["direction"]]
    told = f"Attention: {heads} (layer.head, from 0), {direction}{', centred' if choice['centred'] else ''}"
    return f"{told}; chosen on {choice['chosen_on']}." if choice["chosen_on"] else f"{told}; nothing was chosen."


def _removal(removal: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    if not removal["changed"]:
        return "no cells were removed."
    cells = "one cell" if removal["cells"] == 1 else f"{removal['cells']} cells"
    return (
        f"without {cells}, {removal['mean']:.1%} of the {removal['edges']:,} best edges ({settings['top']} of each "
        f"regulator) change, at most {max(removal['changed']):.1%}, in {len(removal['changed'])} draws."
    )


def _set(cells: Mapping[str, Any]) -> list[str]:
    lines = [
        f"## {cells['title']}",
        "",
        f"{cells['cells']:,} cells, {cells['regulators']:,} regulators, {cells['targets']:,} targets; "
        f"{cells['without_a_cell']:.1%} of the pairs are never among the tokens of one cell; attention has them last.",
        "",
    ]
    for name, found in cells["references"].items():
        first = found["methods"][0]
        lines += [
            f"### {name}",
            "",
            f"{found['regulators']:,} regulators with a known target, {first['n_pairs']:,} pairs, {first['n_true']:,} "
            f"known ({first['density'] or 0:.2%}).",
            "",
            "| method | AUPRC ratio | early precision ratio | against co-expression | against read together |",
            "| --- | ---: | ---: | ---: | ---: |",
            *(_row(row) for row in found["methods"]),
            "",
            "| attention of | AUPRC ratio | early precision ratio |",
            "| --- | ---: | ---: |",
            *(_row(row) for row in found["heads"]),
            "",
        ]
    return lines


def _row(row: Mapping[str, Any]) -> str:
    cells = [row["method"], *(_spread(row, name, "ratio") for name in ("auprc", "epr"))]
    if "auprc_gain" in row:
        cells.append("" if row["method"] == CO_EXPRESSION else _spread(row, "auprc", "gain"))
        cells.append("" if row["method"] == EXPOSURE else _spread(row, "exposure", "gain"))
    return f"| {' | '.join(cells)} |"


def _spread(row: Mapping[str, Any], name: str, kind: str) -> str:
    """``1.23 (1.10 to 1.35)``."""
    stem, form = (name, ".2f") if kind == "ratio" else (f"{name}_gain", "+.2f")
    numbers = [row[f"{name}_{kind}"], row[f"{stem}_low"], row[f"{stem}_high"]]
    if None in numbers:
        return ""
    value, low, high = (f"{number:{form}}" for number in numbers)
    return f"{value} ({low} to {high})"


def _regulon(regulon: Mapping[str, Any]) -> list[str]:
    edges: Sequence[Mapping[str, Any]] = regulon["edges"]
    regulator = edges[0]["regulator"]
    lines = [f"## {regulator} in {regulon['set']}", ""]
    for hit in regulon["hits"]:
        lines.append(
            f"- Of its best {hit['top']} targets {hit['hits']} are known to {regulon['reference']}; chance gives "
            f"{hit['expected']:.1f} ({hit['known']} of {hit['targets']:,} genes are known), p = {hit['p']:.2g}."
        )
    lines += [
        "",
        "| target | attention | cells | stability | Spearman | partial | sign | known | knockout |",
        "| --- |" + " ---: |" * 8,
    ]
    for edge in edges:
        knockout = "" if edge["knockout"] is None else f"{edge['knockout']:+.3f}"
        numbers = [f"{edge['attention']:.2f}", f"{edge['cells']:,}", f"{edge['stability']:.2f}"]
        numbers += [f"{edge['spearman']:.2f}", f"{edge['partial']:.3f}", f"{edge['sign']:+d}" if edge["sign"] else ""]
        target = f"**{edge['target']}**" if edge["known"] else edge["target"]
        lines.append(f"| {' | '.join([target, *numbers, edge['known'], knockout])} |")
    return [*lines, ""]
