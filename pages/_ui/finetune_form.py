"""What shall be learned, from which columns, for how long; what that would teach, and the button."""

from __future__ import annotations

import streamlit as st

from pages._ui import checkpoints, code_lines, datasets, errors, finetune_work, resources, state, view, words
from pages._ui.annotation_work import group_columns
from pages._ui.finetune_words import CAPTIONS, HELP, TASKS
from pages._ui.integration_form import batch_columns
from pages._ui.parts import table
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_finetune import MINUTES, FinetuneRequest, Lesson
from scdiva_core.errors import DataError, ScDiVaError

_PERTURBED = ("perturb", "guide", "target", "knock", "sgrna", "grna", "crispr", "gene", "condition", "treatment")
_CONTROLS = ("control", "ctrl", "non-targeting", "nontargeting", "nt", "negctrl", "unperturbed", "mock", "wt", "none")
_TYPES = ("type", "label", "annotation", "ontology", "cluster")
_KINDS = {"knockout": "knocked out or down", "activation": "activated"}
_MOST_MINUTES = 24 * 60.0
_MOST_PERTURBATIONS = 20_000
_NAMED = 5  # labels that are left out and named
_ROWS, _TABLE_PIXELS = 9, 340


def section(choice: state.Choice, cells: H5adDataset) -> None:
    """Draw the form.

    Parameters
    ----------
    choice, cells
        The open data set.
    """
    with st.container(border=True, key="finetune-form"):
        st.subheader("What shall it learn?")
        task = st.radio(
            "What shall it learn?",
            list(TASKS),
            format_func=TASKS.get,
            captions=list(CAPTIONS.values()),
            key="finetune-task",
            label_visibility="collapsed",
            persist_state="session",
        )
        columns = group_columns(cells)
        if task == "perturbation":
            columns = [*columns, *_wide_columns(cells.sha256, cells)]
        if not columns:
            st.info(
                "This file says nothing of its cells that could be learned: obs has no column with two groups or more. "
                "Add one, such as cell_type or donor, and open the file again.",
                icon=":material/table_rows:",
            )
            return
        asked = {"annotation": _annotation, "perturbation": _perturbation, "integration": _integration}[task](
            cells, columns
        )
        rest = _rest(cells, task, choice)
        if isinstance(asked, str):
            st.info(asked, icon=":material/info:")
        else:
            _offer(choice, cells, {"task": task, **asked, **rest})


@st.cache_data(show_spinner=False, scope="session", max_entries=8)
def _wide_columns(sha256: str, _cells: H5adDataset) -> list[str]:
    """Columns with more values than any picture shows: a large screen perturbs thousands of genes."""
    texts = [column.name for column in _cells.preflight.obs_columns if column.kind in ("category", "text")]
    counts = {name: _cells.obs[name].nunique() for name in texts}
    most = min(_MOST_PERTURBATIONS, _cells.n_obs // 2)  # more would name cells
    return [name for name, count in counts.items() if view.MOST_LABELS < count <= most]


def _annotation(cells: H5adDataset, columns: list[str]) -> dict | str:
    """What the fields say, or what to do where they do not suffice; so do the next two."""
    left, right = st.columns(2, vertical_alignment="top")
    label = left.selectbox(
        "Column with the cell types",
        columns,
        index=next((place for place, name in enumerate(columns) if _like(name, _TYPES)), None),
        placeholder="choose a column",
        key=f"finetune-label-{cells.sha256[:12]}",
        help=HELP["label"],
    )
    others = [name for name in batch_columns(cells, columns) if name != label]
    batch = right.selectbox(
        "Donors or batches (optional)",
        others,
        index=None,
        placeholder="no column: cells are drawn at random" if others else "the file has no such column",
        disabled=not others,
        key=f"finetune-donor-{cells.sha256[:12]}",
        help=HELP["donor"],
    )
    if label is None:
        return "Choose the column with the names that shall be learned."
    return {"label_key": label, "batch_key": batch}


def _perturbation(cells: H5adDataset, columns: list[str]) -> dict | str:
    left, middle, right = st.columns(3, vertical_alignment="top")
    label = left.selectbox(
        "Column with the perturbed gene",
        columns,
        index=next((place for place, name in enumerate(columns) if _like(name, _PERTURBED)), None),
        placeholder="choose a column",
        key=f"finetune-perturbed-{cells.sha256[:12]}",
        help=HELP["perturbed"],
    )
    values = [] if label is None else sorted(set(cells.obs[label].dropna().astype(str)), key=str.casefold)
    control = middle.selectbox(
        "Unperturbed cells are called",
        values,
        index=next((place for place, value in enumerate(values) if value.casefold() in _CONTROLS), None),
        placeholder="choose a value",
        disabled=not values,
        key=f"finetune-control-{cells.sha256[:12]}-{label}",
        help=HELP["control"],
    )
    kind = right.selectbox(
        "The genes were",
        list(_KINDS),
        index=None,
        format_func=_KINDS.get,
        placeholder="choose what was done",
        key="finetune-kind",
        help=HELP["kind"],
        persist_state="session",
    )
    others = [name for name in batch_columns(cells, columns) if name != label]
    batch = st.selectbox(
        "Batches (optional)",
        others,
        index=None,
        placeholder="no column" if others else "the file has no such column",
        disabled=not others,
        key=f"finetune-perturbed-batch-{cells.sha256[:12]}",
        help=HELP["perturbed batch"],
    )
    if None in (label, control, kind):
        return (
            "Choose the column with the perturbed gene of each cell, what it calls unperturbed cells, and what was "
            "done to the genes. This needs a Perturb-seq file: cells of many perturbations, and unperturbed ones."
        )
    return {"label_key": label, "batch_key": batch, "control": control, "kind": kind}


def _integration(cells: H5adDataset, columns: list[str]) -> dict | str:
    left, right = st.columns(2, vertical_alignment="top")
    offered = batch_columns(cells, columns)
    batch = left.selectbox(
        "Batches",
        offered,
        index=0 if offered and not _like(offered[0], _TYPES) else None,
        placeholder="choose a column" if offered else "the file has no such column",
        key=f"finetune-batch-{cells.sha256[:12]}",
        help=HELP["batch"],
    )
    labels = [name for name in columns if name != batch]
    label = right.selectbox(
        "Cell types (optional)",
        labels,
        index=next((place for place, name in enumerate(labels) if _like(name, _TYPES)), None),
        placeholder="no column: clusters stand in",
        key=f"finetune-types-{cells.sha256[:12]}-{batch}",
        help=HELP["type"],
    )
    if batch is None:
        return "Choose the column that says which cells were measured together."
    return {"batch_key": batch, "label_key": label}


def _rest(cells: H5adDataset, task: str, choice: state.Choice) -> dict:
    """Budget, name and seed."""
    name_place, minutes_place, seed_place = st.columns([4, 2, 2], vertical_alignment="top")
    suggested = _free_name(f"{datasets.display_name(choice, resources.project())}: {checkpoints.TASKS[task]}")
    name = name_place.text_input(
        "Name of the checkpoint",
        value=suggested,
        max_chars=80,
        # A new field once the name is taken, so that the next suggestion shows.
        key=f"finetune-name-{cells.sha256[:12]}-{suggested}",
        help=HELP["name"],
    )
    minutes = minutes_place.number_input(
        "Minutes at most",
        0.5,
        _MOST_MINUTES,
        MINUTES[task],
        key=f"finetune-minutes-{task}",
        help=HELP["minutes"],
        persist_state="session",
    )
    seed = seed_place.number_input(
        "Seed", 0, 2**31 - 1, 0, key="finetune-seed", help=HELP["seed"], persist_state="session"
    )
    return {"minutes": float(minutes), "seed": int(seed), "name": " ".join(name.split())}


def _taken() -> set[str]:
    names = {own.name for own in checkpoints.mine().values()}
    return names | {finetune_work.request_of(job).name for job in finetune_work.running()}


def _free_name(name: str) -> str:
    taken = _taken()
    return next(free for free in (name, *(f"{name} {number}" for number in range(2, 999))) if free not in taken)


def _offer(choice: state.Choice, cells: H5adDataset, asked: dict) -> None:
    """Say what would be learned, and offer to begin."""
    try:
        request = FinetuneRequest(**asked)
        found = finetune_work.learned(choice, cells, request)
        _check_name(request.name)
    except ScDiVaError as error:
        errors.show(error)
        return
    _told(request, found)
    again = finetune_work.same_running(choice, request)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Fine-tune",
            key="finetune-run",
            type="primary",
            icon=":material/tune:",
            disabled=again,
            on_click=errors.kept(finetune_work.submit),
            args=(choice, request),
        )
        st.caption("This very training is under way." if again else _time(request, found))
    code_lines.show(
        finetune_work.as_python(choice, request),
        finetune_work.command_line(choice, request),
        why_none="The command line reads the recommended matrix of a file.",
    )


def _check_name(name: str) -> None:
    if not name or name in _taken():
        msg = "The checkpoint needs a name." if not name else f"You have a checkpoint called {name!r}."
        raise DataError(msg, "Choose another name.")


def _told(request: FinetuneRequest, found: Lesson) -> None:
    used, left_out = found.used, found.left_out
    teach, judge = int(used["teach"].sum()), int(used["judge"].sum())
    what = {"annotation": "label", "perturbation": "perturbation", "integration": "batch"}[request.task]
    if request.task == "annotation":
        held = f"all cells of {_listed(found.held_out)}" if found.held_out else "drawn at random within each label"
        st.markdown(
            f"**{len(used)} labels** are learned from {words.number(teach)} cells; {words.number(judge)} cells only "
            f"judge ({held}).",
            help=HELP["judge"],
        )
    elif request.task == "perturbation":
        held = used.loc[used["judge"] > 0, "name"].tolist()
        judging = f"{len(held)} others only judge ({_listed(held)})" if held else "too few are left to hold any out"
        st.markdown(
            f"**{len(used) - len(held)} perturbations** are learned from {words.number(teach)} cells; {judging}.",
            help=HELP["judge"],
        )
    else:
        st.markdown(
            f"**{len(used)} batches** of {words.number(teach + judge)} cells; about a fifth of them only judges. "
            + ("" if request.label_key else "Leiden clusters stand in for cell types."),
            help=HELP["judge"],
        )
    if left_out:
        st.markdown(f":material/info: Left out: {_listed([f'{name} ({why})' for name, why in left_out.items()])}.")
    with st.expander(f"Cells of each {what}", icon=":material/table_rows:"):
        headings = {"name": what.capitalize(), "teach": "Cells that teach", "judge": "Cells that judge"}
        headings |= {"left_out": "Left out, because"} if left_out else {}
        height = _TABLE_PIXELS if len(found.groups) > _ROWS else None
        name = f"fine-tune-{request.label_key or request.batch_key}"
        table(found.groups, headings, name, key="finetune-groups", alt=f"Cells of each {what}", height=height)


def _time(request: FinetuneRequest, found: Lesson) -> str:
    if not found.enough:
        needed = words.duration(found.seconds_reading)
        return (
            f":material/warning: **{request.minutes:g} min may not suffice**: reading the cells alone takes about "
            f"{needed} on this machine, and nothing would be left for learning. Give it more time."
        )
    told = [f"At most {words.duration(60 * request.minutes)}, less when it gets no better"]
    if found.seconds_reading:
        told.append(f"reading the cells takes {_about(found.seconds_reading)}")
    if found.seconds_round:
        told.append(f"a round {_about(found.seconds_round)}")
    return f"{'; '.join(told)}. You can leave the page meanwhile."


def _about(seconds: float) -> str:
    return words.duration(seconds) if seconds < 1 else f"about {words.duration(seconds)}"


def _listed(names: list[str] | tuple[str, ...]) -> str:
    first = ", ".join(words.as_text(name) for name in names[:_NAMED])
    return first if len(names) <= _NAMED else f"{first} and {len(names) - _NAMED} more"


def _like(name: str, kinds: tuple[str, ...]) -> bool:
    return any(kind in name.casefold() for kind in kinds)
