"""The user's checkpoints: what each is worth, and using, renaming, taking home and deleting one."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import streamlit as st

from pages._ui import checkpoints, downloads, errors, frame, state, words
from pages._ui.checkpoints import Own
from pages._ui.finetune_words import HELP, LOSSES, PAGES, SCORES, levels_of, record_of
from pages._ui.parts import figure, table
from scdiva_core.errors import ScDiVaError
from scdiva_core.figures.training_curve import training_curve

_SHOWN = "finetune-shown"
_ROWS, _TABLE_PIXELS = 9, 340


def section() -> None:
    """Draw the list and the checkpoint that is looked at: the latest, until another one is chosen."""
    own = checkpoints.mine()
    if not own and not state.deleted_checkpoints():
        st.info(
            "You have no checkpoint of your own yet. Choose above what shall be learned, then press **Fine-tune**. "
            "While it trains you see its curves; at the end, in words, whether it beats simpler ways.",
            icon=":material/tune:",
        )
        return
    st.subheader(f"Your checkpoints ({len(own)})")
    shown = own.get(st.session_state.get(_SHOWN)) or next(iter(own.values()), None)
    with st.container(border=True, key="finetune-list"):
        for item in own.values():
            _row(item, shown)
        if state.deleted_checkpoints():
            st.button("Undo the deletion", key="finetune-undo", type="tertiary", icon=":material/undo:", on_click=_undo)
    if state.checkpoint_list_problem() is not None:
        errors.show(state.checkpoint_list_problem())
    if shown is not None:
        _looked_at(shown)


def _row(item: Own, shown: Own | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"finetune-item-{item.id}"):
        mark = ":material/visibility: " if item == shown else ""
        used = " :green-badge[in use]" if item.id == state.checkpoint() else ""
        st.markdown(
            f"{mark}**{words.as_text(item.name)}**{used}  \n:small[:gray[{_facts(item)}]]",
            width="stretch",
        )
        st.button(
            "Show",
            key=f"finetune-show-{item.id}",
            type="tertiary",
            disabled=bool(mark),
            on_click=_show,
            args=(item.id,),
        )
        st.button(
            "Use",
            key=f"finetune-use-{item.id}",
            type="tertiary",
            disabled=bool(used),
            help=HELP["use"],
            on_click=checkpoints.use,
            args=(item.id,),
        )


def _facts(item: Own) -> str:
    base = record_of(item.card, item.task).get("base", {}).get("name", "")
    told = [checkpoints.TASKS.get(item.task, item.task), f"{item.made[:10]}, {item.made[11:16]} UTC"]
    told += [f"from {words.as_text(base)}"] if base else []
    return " · ".join([*told, words.size(item.n_bytes)])


def _looked_at(item: Own) -> None:
    record = record_of(item.card, item.task)
    with st.container(border=True, key="finetune-result"):
        st.subheader(words.as_text(item.name))
        if record.get("words"):
            st.markdown(words.as_text(record["words"]))
        _actions(item)
        if record.get("curve"):
            _curve(item, record)
        _groups(item, record)


def _curve(item: Own, record: dict) -> None:
    st.markdown("**How the training went**", help=HELP["curve"])
    best = record.get("best_round", record.get("best_epoch"))
    figure(
        lambda dark: training_curve(
            record["curve"],
            LOSSES[item.task],
            SCORES[item.task],
            best=best,
            levels=levels_of(record, item.task),
            note=_note(item),
            dark=dark,
        ),
        f"{item.name}-training",
        key="finetune-curve",
        alt="Losses and held-out scores of each round, beside what simpler ways reach",
    )
    with st.expander("All rounds", icon=":material/table_rows:"):
        rows = pd.DataFrame(record["curve"])
        step = "epoch" if "epoch" in rows else "round"
        named = {step: "Round", "seconds": "Seconds", "cells_seen": "Cells seen"}
        named |= {name: told for name, told in {**LOSSES[item.task], **SCORES[item.task]}.items() if name in rows}
        help_texts = {name: text for name, text in HELP.items() if name in named}
        height = _TABLE_PIXELS if len(rows) > _ROWS else None
        name = f"{item.name}-rounds"
        table(rows, named, name, key="finetune-rounds", alt="A row a round", help_texts=help_texts, height=height)


def _note(item: Own) -> str:
    card = item.card
    if card.get("random_weights"):
        return frame.RANDOM
    return "Provisional checkpoint" if card.get("provisional") else ""


def _groups(item: Own, record: dict) -> None:
    """What it learned, with the cells that taught."""
    left_out = record.get("left_out") or {}
    if item.task == "annotation" and record.get("classes"):
        rows = pd.DataFrame(record["classes"])
        columns = {"label": "Label in the file", "name": "Cell type", "id": "Id", "training_cells": "Cells that taught"}
        _table(rows, columns | {"validation_cells": "Cells that judged"}, f"Labels that it names ({len(rows)})", item)
    if item.task == "perturbation":
        taught, judged = record.get("trained_on", {}), record.get("judged_by", {})
        rows = pd.DataFrame(
            [(name, size, "taught") for name, size in taught.items()]
            + [(name, size, "judged") for name, size in judged.items()],
            columns=["name", "cells", "use"],
        )
        columns = {"name": "Perturbation", "cells": "Cells", "use": "What for"}
        _table(rows, columns, f"Perturbations that it saw ({len(rows)})", item)
    if left_out:
        rows = pd.DataFrame({"name": list(left_out), "why": list(left_out.values())})
        _table(rows, {"name": "Name", "why": "Why"}, f"Left out ({len(rows)})", item)


def _table(rows: pd.DataFrame, columns: dict[str, str], title: str, item: Own) -> None:
    with st.expander(title, icon=":material/table_rows:"):
        height = _TABLE_PIXELS if len(rows) > _ROWS else None
        key = f"finetune-{title.split(' (')[0].replace(' ', '-').lower()}"
        table(rows, columns, f"{item.name}-{title.split(' (')[0]}", key=key, alt=title, height=height)


def _actions(item: Own) -> None:
    page, path = PAGES.get(item.task, PAGES["integration"])
    used = item.id == state.checkpoint()
    with st.container(horizontal=True, vertical_alignment="center", key="finetune-actions"):
        st.button(
            "In use" if used else "Use this checkpoint",
            key="finetune-use",
            type="primary",
            icon=":material/check:" if used else ":material/play_arrow:",
            disabled=used,
            help=HELP["use"],
            on_click=checkpoints.use,
            args=(item.id,),
        )
        if st.button(f"Go to {page} with it", key="finetune-go", icon=":material/arrow_forward:"):
            checkpoints.use(item.id)
            st.switch_page(path, query_params=state.url())
        with st.popover("Rename", icon=":material/edit:"):
            name = st.text_input("New name", item.name, key=f"finetune-new-name-{item.id}-{item.name}", max_chars=80)
            st.button("Rename", key="finetune-rename", on_click=_rename, args=(item.id, name))
        _download(item)
        busy = checkpoints.in_use(item.id)
        st.button(
            "Delete",
            key="finetune-delete",
            icon=":material/delete:",
            disabled=busy,
            help="A job is at work with it." if busy else HELP["delete"],
            on_click=_delete,
            args=(item.id,),
        )


def _download(item: Own) -> None:
    """Pack it when asked, then offer it: it is streamed from disk."""
    if st.button(
        "Prepare .zip",
        key="finetune-zip",
        icon=":material/folder_zip:",
        help="Weights (safetensors), vocabulary, labels and card. Unpacked, the folder opens like any checkpoint: "
        "SCDIVA_CHECKPOINT, or --checkpoint on the command line.",
    ):
        packed = checkpoints.as_zip(item)
        label = f"Download .zip ({words.size(packed.stat().st_size)})"
        st.link_button(label, downloads.address(packed), type="primary", icon=":material/download:")


def _show(checkpoint_id: str) -> None:
    st.session_state[_SHOWN] = checkpoint_id


def _rename(checkpoint_id: str, name: str) -> None:
    _tried(lambda: checkpoints.rename(checkpoint_id, name))


def _delete(checkpoint_id: str) -> None:
    _tried(lambda: checkpoints.delete(checkpoint_id))


def _undo() -> None:
    _tried(checkpoints.undo_delete)


def _tried(act: Callable[[], None]) -> None:
    try:
        act()
    except ScDiVaError as error:
        state.set_checkpoint_list_problem(error)
    else:
        state.set_checkpoint_list_problem(None)
