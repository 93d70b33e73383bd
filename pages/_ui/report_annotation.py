"""Labels as a report: where they come from, how many cells have which, and what was decided."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pages._ui import code_lines, datasets, state, view
from pages._ui.annotation_words import DONE, HELP, title
from pages._ui.review_session import Session
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.errors import ScDiVaError
from scdiva_core.figures.annotation import reliability
from scdiva_core.figures.scatter import Canvas
from scdiva_core.report.contents import Facts, Origin, Picture, Report, Section, Table, Text
from scdiva_core.tasks.label_truth import TruthCheck, check_labels
from scdiva_core.tasks.neighbors import Projection

NO_COMMAND = (
    "The command line writes the labels of a single source of the checkpoint, or the consensus of all sources: it has "
    "no words for others."
)

_MOST_DRAWN = 30_000  # cells of the picture, as on the page
_UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Labels:
    """What a report of labels is made of; read while there is a session.

    Parameters
    ----------
    session
        The review, begun or not.
    drawn
        Map of the embedding; None where it was not drawn.
    truth
        Column of obs that the user compares with; None for none.
    """

    session: Session
    drawn: Projection | None
    truth: str | None


def as_python(choice: state.Choice, session: Session) -> str:
    """Lines that make the labels that a review starts from."""
    asked = session.labelled.settings
    options = f"columns={asked.columns!r}, unknown={asked.unknown}, batch_key={asked.batch_key!r}"
    return f"""from scdiva_core.engine import Engine
from scdiva_core.engine_annotation import annotate

{code_lines.engine_line()}
{code_lines.opening_line(choice)}
    annotated = annotate(engine, cells, {asked.sources!r}, {options})
labels = annotated.labels({session.source!r})
labels.names, labels.best, labels.probability  # types; place of each cell's type, -1 for unknown; its probability
"""


def command_line(choice: state.Choice, session: Session) -> str | None:
    """Command that writes them; None for what the command line has no words for."""
    asked = session.labelled.settings
    alone = len(asked.sources) + len(asked.columns) == 1
    if not asked.sources or not (alone or session.source == "consensus"):
        return None
    parts = ["python", "-m", "scdiva_core", "annotate", str(datasets.locate(choice)), "-o", "labelled.h5ad"]
    parts += ["--source", ",".join(asked.sources)]
    parts += ["--batch", asked.batch_key] if asked.batch_key else []
    parts += [] if asked.unknown else ["--no-unknown"]
    parts += ["--column", *asked.columns] if asked.columns else []
    return shlex.join([*parts, *code_lines.reading_flags(choice)])


def report(origin: Origin, labels: Labels) -> Report:
    """Write what the cells are called, by whom, and what was decided.

    Parameters
    ----------
    origin
        Where the labels come from.
    labels
        What there is of them.
    """
    session = labels.session
    sections = [
        Section("What came out", tuple(_told(session))),
        *_map(origin, labels),
        *_truth(labels),
        *_decisions(session),
    ]
    return Report("Labels of the cells", _asked(session), tuple(sections), origin)


def _asked(session: Session) -> Facts:
    asked = session.labelled.settings
    return (
        ("sources", ", ".join(title(name) for name in asked.sources) or "none"),
        ("columns of the file", ", ".join(asked.columns) or "none"),
        ("cells unlike the reference are called unknown", "yes" if asked.unknown else "no"),
        ("batch column", asked.batch_key or "none"),
        ("labels of", title(session.source)),
        ("decided by", ", ".join(sorted({event.who for event in session.state.applied})) or "nobody yet"),
    )


def _told(session: Session) -> list[Text | Table]:
    now = session.state
    unknown = int((now.names == _UNKNOWN).sum())
    rows = pd.DataFrame({"label": now.names, "term": now.ids, "confidence": session.annotation.label_confidence})
    counted = rows.groupby(["label", "term"], sort=False).agg(n=("label", "size"), confidence=("confidence", "mean"))
    counted = counted.reset_index().sort_values(["n", "label"], ascending=[False, True], kind="stable")
    kinds = counted.loc[counted["label"] != _UNKNOWN, "label"].nunique()
    what = "as reviewed" if session.log.begun is not None else "not reviewed by anybody"
    columns = {"label": "Label", "term": "Cell Ontology", "n": "Cells", "confidence": "Confidence"}
    return [
        Text(
            f"{len(now.names):,} cells have {kinds:,} labels ({title(session.source)}), {what}; {unknown:,} are "
            "unknown.",
            "verdict",
        ),
        Text(HELP["unknown"]),
        Table(counted, columns, "Cells of each label"),
        Text(f"{HELP['confidence']} Labels that a person chose have none."),
    ]


def _map(origin: Origin, labels: Labels) -> list[Section]:
    if labels.drawn is None:
        return []
    cells, names = labels.session.cells, labels.session.state.names
    known = sorted({*names} - {_UNKNOWN}, key=str.casefold)
    place = {name: code for code, name in enumerate(known)} | {_UNKNOWN: -1}
    colouring = view.Categories("label", np.array([place[name] for name in names]), tuple(known))
    cell_map = view.CellMap("ScDiVa", "X_scdiva", labels.drawn.coordinates, ("UMAP 1", "UMAP 2"), origin.warning)
    canvas = Canvas(title=f"{origin.data_set}: labels", axes=cell_map.axes, note=origin.warning)
    options = {"shown": None, "canvas": canvas, "names_on_picture": False, "limit": _MOST_DRAWN}
    figure = view.draw(cell_map, colouring, cells.obs_names, **options)
    picture = Picture(figure, f"Scatter plot of {cells.n_obs:,} cells coloured by label", "Grey cells are unknown.")
    return [Section("Map", (picture,))]


def _truth(labels: Labels) -> list[Section]:
    session, column = labels.session, labels.truth
    if column is None:
        return []
    calls = session.labelled.annotated.labels(session.source)
    try:
        found = check_labels(calls, session.cells.obs[column], cell_ontology())
    except ScDiVaError as error:
        return [Section("Beside labels that are trusted", (Text(str(error), "warning"),))]
    said = Text(
        f"{title(session.source)}, before any review: {found.accuracy:.1%} of {found.n_judged:,} cells are right by "
        f"the column {column}. Calling every cell {found.majority_name} would be right for {found.majority:.1%}. "
        f"{found.unknown:.1%} were called unknown, which is not right.",
        "verdict",
    )
    shares = {"Right": found.accuracy, "Commonest type alone": found.majority, "Called unknown": found.unknown}
    rows = pd.DataFrame({"what": list(shares), "share": list(shares.values())})
    table = Table(rows, {"what": "What", "share": "Share of cells"}, f"Compared with the column {column}")
    return [
        Section("Beside labels that are trusted", (said, table, *_used(session, column), *_honesty(session, found)))
    ]


def _used(session: Session, column: str) -> list[Text]:
    if column not in session.labelled.settings.columns:
        return []
    return [Text("This column is one of the label sources, so agreement with it proves little.", "warning")]


def _honesty(session: Session, found: TruthCheck) -> list[Picture]:
    if session.source.startswith("obs: ") or found.calibration_error is None:
        return []
    said = f"Stated confidence is off by {found.calibration_error:.1%} on average (expected calibration error)."
    drawn = reliability(found.confidence, found.correct)
    return [Picture(drawn, "Share of labels that are right, by stated confidence", f"{said} {HELP['calibration']}")]


def _decisions(session: Session) -> list[Section]:
    again = Text(
        "The lines below make the labels that a review starts from. Decisions of people cannot be computed again: they "
        "are in the log that goes into the exported .h5ad."
    )
    applied = session.state.applied
    if not applied:
        return [Section("Decisions", (Text("Nobody has decided on any cell yet."), again))]
    rows = [
        (event.time[:19].replace("T", " "), event.who, DONE[event.action], event.label_name, event.why)
        for event in reversed(applied)
    ]
    table = pd.DataFrame(rows, columns=["time", "who", "what", "label", "why"])
    table.insert(3, "n", [int(event.mask().sum()) for event in reversed(applied)])
    columns = {"time": "Time (UTC)", "who": "Who", "what": "What", "n": "Cells", "label": "Label", "why": "Reason"}
    return [Section("Decisions", (Table(table, columns, "Decisions in effect, the latest first"), again))]
