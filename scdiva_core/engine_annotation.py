"""All sources of labels behind one call: each is computed once, kept, and found again.

A source's labels are stored under what they were made from: the cells, the weights, and whatever of the checkpoint the
source reads besides. The user's own columns are read anew each time, and so is the consensus: both take milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.paths import file_sha256
from scdiva_core.engine import Engine
from scdiva_core.errors import CheckpointError, DataError, StoreError
from scdiva_core.model.markers import MARKERS_FILE, MarkerTable
from scdiva_core.model.profiles import PROFILES_FILE
from scdiva_core.model.reference import REFERENCE_FILE, Reference
from scdiva_core.store import StoredResult
from scdiva_core.tasks.annotation import LabelCalls, with_unknown
from scdiva_core.tasks.consensus import Consensus, consensus
from scdiva_core.tasks.label_sources import column_calls, head_calls, marker_calls, neighbor_calls
from scdiva_core.tasks.novelty import novelty, strangeness
from scdiva_core.tasks.profile_sources import joint_calls, profile_calls, profile_scores
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

SOURCES = ("scdiva", "head", "profiles", "knn", "markers")
"""Sources that a checkpoint may offer, the one to trust most first; ``"scdiva"`` is head and profiles together."""

TITLES = {
    "scdiva": "ScDiVa (trained head and profiles)",
    "head": "Trained head alone",
    "profiles": "Expression profiles alone",
    "knn": "Nearest reference cells",
    "markers": "Marker genes",
    "consensus": "Consensus of the sources",
}
"""Names for people, of the sources and of their consensus."""

_TOGETHER = ("scdiva", "profiles", "knn")

_FILES = {"scdiva": PROFILES_FILE, "profiles": PROFILES_FILE, "knn": REFERENCE_FILE, "markers": MARKERS_FILE}
_HEADED = ("scdiva", "head")
_FORMAT = 2  # part of every key: raise it when a source says something else of the same files

_INTEGERS, _FLOATS = ("best", "runner_up", "third"), ("probability", "margin", "entropy")

_SECONDS = {"embedding": 100.0, "profiles": 1.0, "head": 0.1, "knn": 1.0, "markers": 1.0}
"""What a step takes beside the others, typically: it sets the step's part of the bar, nothing else."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """What the chosen sources say of a data set.

    Attributes
    ----------
    calls
        Labels of each source, in the order asked for; the user's columns last, as ``"obs: <column>"``.
    consensus
        What most of them say; None with fewer than two.
    novelty
        float32 ``[n_obs]`` distance to the reference, above 1 for cells unlike it, see
        `scdiva_core.tasks.novelty.novelty`; None when the checkpoint has no reference.
    """

    calls: dict[str, LabelCalls]
    consensus: Consensus | None
    novelty: NDArray[np.float32] | None

    def labels(self, source: str) -> LabelCalls:
        """Labels of one source, or of the consensus.

        Parameters
        ----------
        source
            A key of ``calls``, or ``"consensus"``.

        Raises
        ------
        DataError
            It was not asked for, or there is no consensus of a single source.
        """
        if source == "consensus" and self.consensus is not None:
            return self.consensus.calls
        if source not in self.calls:
            msg = f"These labels hold no {source!r}."
            raise DataError(msg, f"Choose from {', '.join(self.calls)}, or annotate with that source too.")
        return self.calls[source]


def available_sources(engine: Engine) -> tuple[str, ...]:
    """Sources that the checkpoint offers, in the order of `SOURCES`: the first is the default; empty for none.

    Parameters
    ----------
    engine
        Of the checkpoint. Its files are looked for, not read: one that is damaged shows when it is used.
    """
    named = engine.model.labels is not None and "annotation" in engine.model.heads
    there = {source for source, file in _FILES.items() if (engine.folder / file).is_file()} | {"head"}
    return tuple(source for source in SOURCES if source in there and (named or source not in _HEADED))


def preselected(available: Sequence[str]) -> tuple[str, ...]:
    """Sources to begin a review with: the best, and others that are good enough to contradict it.

    Their consensus names the evaluation sets better than any one of them; markers, which err more often, are left to
    those who ask for them.

    Parameters
    ----------
    available
        Of `available_sources`.
    """
    return tuple(source for source in _TOGETHER if source in available) or tuple(available[:1])


def annotate(
    engine: Engine,
    dataset: H5adDataset,
    sources: Sequence[str],
    *,
    columns: Sequence[str] = (),
    unknown: bool = True,
    batch_key: str | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Annotated:
    """Name the cells by each source and by their consensus, or fetch what was found before.

    Parameters
    ----------
    engine
        Embeds the cells first when they are not embedded yet.
    dataset
        Opened by this engine.
    sources
        Of `available_sources`; may be empty when there are columns.
    columns
        Of ``obs``, as sources beside the others.
    unknown
        Call cells unknown that lie beyond what the reference holds, whatever a source says of them. The user's own
        columns stay as they are, and so does everything when the checkpoint has no reference.
    batch_key
        Column of ``obs`` with batches that were measured apart, each of which may lie off the reference as a whole.
    progress
        One bar over all that has to be computed, in units of the step at work; never called when all is stored.
    cancelled
        Asked before each step and within it.

    Raises
    ------
    DataError
        Nothing was chosen, or something that is no source or no column; or the file has too few of the genes that a
        source compares.
    CheckpointError
        The checkpoint does not offer a source, or its file is damaged.
    Cancelled
        The user stopped; embedded cells and finished sources are kept.
    """
    _check(engine, dataset, sources, [*columns, *([] if batch_key is None else [batch_key])])
    available = available_sources(engine)
    if lacking := [source for source in sources if source not in available]:
        msg = f"This checkpoint does not offer the source {lacking[0]!r}."
        raise CheckpointError(msg, f"It offers: {', '.join(available) or 'none'}. Or use a column of your own.")
    steps = _missing_steps(engine, dataset, sources)
    for number, step in enumerate(steps):
        stop_if(cancelled)
        _STEPS[step](engine, dataset, _part(progress, steps, number), cancelled)
    found = stored_annotation(engine, dataset, sources, columns=columns, unknown=unknown, batch_key=batch_key)
    if found is None:
        msg = "Labels were removed from the store while others were computed."
        raise StoreError(msg, "Run the step again.")
    return found


def stored_annotation(
    engine: Engine,
    dataset: H5adDataset,
    sources: Sequence[str],
    *,
    columns: Sequence[str] = (),
    unknown: bool = True,
    batch_key: str | None = None,
) -> Annotated | None:
    """What `annotate` would return, if all of it was computed before; else None.

    Parameters
    ----------
    engine, dataset, sources, columns, unknown, batch_key
        As for `annotate`. A source that the checkpoint does not offer is one that is not stored.

    Raises
    ------
    DataError
        Nothing was chosen, or something that is no source or no column.
    """
    _check(engine, dataset, sources, [*columns, *([] if batch_key is None else [batch_key])])
    entries = {source: _entry(engine, dataset, source) for source in _with_reference(engine, sources)}
    if None in entries.values():
        return None
    batches = None if batch_key is None else dataset.obs[batch_key]
    strange = novelty(entries["knn"].arrays["strangeness"], batches) if "knn" in entries else None
    calls = {source: _unpacked(source, entries[source]) for source in sources}
    if unknown and strange is not None:
        calls = {source: with_unknown(said, strange) for source, said in calls.items()}
    ontology = cell_ontology()
    for column in columns:
        said = column_calls(dataset.obs[column], ontology)
        calls[said.source] = said
    agreed = consensus(list(calls.values()), ontology) if len(calls) > 1 else None
    return Annotated(calls, agreed, strange)


def _check(engine: Engine, dataset: H5adDataset, sources: Sequence[str], columns: Sequence[str]) -> None:
    if not sources and not columns:
        msg = "No source of labels is chosen."
        offered = ", ".join(available_sources(engine)) or "no source"
        raise DataError(msg, f"This checkpoint offers {offered}; a column of obs is one too.")
    if strange := [source for source in sources if source not in SOURCES]:
        msg = f"{strange[0]!r} is no source of labels."
        raise DataError(msg, f"Choose from {', '.join(SOURCES)}.")
    if absent := [column for column in columns if column not in dataset.obs]:
        msg = f"{dataset.path.name} has no column {absent[0]!r}."
        raise DataError(msg, f"Columns of obs: {', '.join(map(str, dataset.obs)) or 'none'}.")


def _with_reference(engine: Engine, sources: Sequence[str]) -> tuple[str, ...]:
    """The sources, and the reference when there is one: novelty comes from it whoever names the cells."""
    asked = {*sources, *({"knn"} & set(available_sources(engine)))}
    return tuple(source for source in SOURCES if source in asked)


def _missing_steps(engine: Engine, dataset: H5adDataset, sources: Sequence[str]) -> list[str]:
    """What is to be computed, in order; a step makes what is stored under its name, and perhaps more."""
    lacking = [source for source in _with_reference(engine, sources) if _entry(engine, dataset, source) is None]
    steps = list(dict.fromkeys("profiles" if source == "scdiva" else source for source in lacking))
    embedded = all(step == "markers" for step in steps) or engine.stored_embedding(dataset) is not None
    return steps if embedded else ["embedding", *steps]


def _embed(engine: Engine, dataset: H5adDataset, progress: Progress, cancelled: IsCancelled) -> None:
    engine.embed(dataset, progress=progress, cancelled=cancelled)


def _ask_head(engine: Engine, dataset: H5adDataset, progress: Progress, _: IsCancelled) -> None:
    progress(0, dataset.n_obs, "Asking the trained head")
    _keep(engine, dataset, head_calls(engine.model, engine.embed(dataset)))
    progress(dataset.n_obs, dataset.n_obs, "Asking the trained head")


def _compare_profiles(engine: Engine, dataset: H5adDataset, progress: Progress, cancelled: IsCancelled) -> None:
    """Both sources that need the scores at once, for reading the expression is what takes long."""
    scores = profile_scores(engine.profiles, dataset, progress=progress, cancelled=cancelled)
    _keep(engine, dataset, profile_calls(engine.profiles, scores))
    if "scdiva" in available_sources(engine):
        _keep(engine, dataset, joint_calls(engine.model, engine.profiles, engine.embed(dataset), scores))


def _compare_reference(engine: Engine, dataset: H5adDataset, progress: Progress, cancelled: IsCancelled) -> None:
    reference = Reference.load(engine.folder / REFERENCE_FILE, engine.model.sha256)
    latents = engine.embed(dataset)
    calls = neighbor_calls(reference, latents, progress=progress, cancelled=cancelled)
    progress(dataset.n_obs, dataset.n_obs, "Finding the cells nearest to each")
    neighbors = engine.neighbors(dataset) if dataset.n_obs > 1 else np.empty((dataset.n_obs, 0), np.int32)
    _keep(engine, dataset, calls, strangeness=strangeness(reference, latents, neighbors))


def _compare_markers(engine: Engine, dataset: H5adDataset, progress: Progress, cancelled: IsCancelled) -> None:
    markers = MarkerTable.load(engine.folder / MARKERS_FILE)
    _keep(engine, dataset, marker_calls(markers, dataset, progress=progress, cancelled=cancelled))


_STEPS: dict[str, Callable[[Engine, H5adDataset, Progress, IsCancelled], None]] = {
    "embedding": _embed,
    "profiles": _compare_profiles,
    "head": _ask_head,
    "knn": _compare_reference,
    "markers": _compare_markers,
}


def _part(progress: Progress, steps: Sequence[str], number: int) -> Progress:
    """Report a step as its part of the whole; in units of that step, so that the rate is in its cells."""
    seconds = [_SECONDS[step] for step in steps]
    before, share = (sum(some) / sum(seconds) for some in (seconds[:number], [seconds[number]]))

    def report(done: int, total: int, message: str) -> None:
        whole = total / share
        words = f"{message}, {done:,} of {total:,} cells"
        words += f" (step {number + 1} of {len(steps)})" if len(steps) > 1 else ""
        progress(round(before * whole + done), round(whole), words)

    return report


def _key(engine: Engine, dataset: H5adDataset, source: str) -> str:
    """Key of a source's labels; it must be available."""
    made_of: dict[str, Any] = {"source": source, "format": _FORMAT}
    if source in _FILES:
        made_of["file"] = file_sha256(engine.folder / _FILES[source])
    if source in _HEADED:  # names and temperature do not lie in the weights
        made_of["labels"] = asdict(engine.model.labels)
    return engine._key("annotation", dataset, **made_of)


def _entry(engine: Engine, dataset: H5adDataset, source: str) -> StoredResult | None:
    if source not in available_sources(engine):
        return None
    return engine.store.get(_key(engine, dataset, source))


def _keep(engine: Engine, dataset: H5adDataset, calls: LabelCalls, **more: NDArray[Any]) -> None:
    """Store all probabilities, and the rest as one int32 array ``[6, n_obs]``: three rows are the bits of float32."""
    rows = [np.asarray(getattr(calls, name), np.int32) for name in _INTEGERS]
    rows += [np.ascontiguousarray(getattr(calls, name), np.float32).view(np.int32) for name in _FLOATS]
    told = {"task": "annotation", "source": calls.source, "ids": calls.ids, "names": calls.names}
    meta = {**engine.provenance(dataset), **told}
    arrays = {"calls": np.stack(rows), "probabilities": calls.probabilities, **more}
    engine.store.put(_key(engine, dataset, calls.source), arrays, meta)


def _unpacked(source: str, entry: StoredResult) -> LabelCalls:
    """Read what `_keep` wrote."""
    rows = dict(zip((*_INTEGERS, *_FLOATS), np.array(entry.arrays["calls"]), strict=True))
    rows |= {name: rows[name].view(np.float32) for name in _FLOATS}
    probabilities = entry.arrays["probabilities"]
    return LabelCalls(source, tuple(entry.meta["ids"]), tuple(entry.meta["names"]), probabilities=probabilities, **rows)
