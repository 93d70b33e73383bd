"""The heads that are read for gene networks: written, read back, and refused where they belong to other weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scdiva_core.errors import CheckpointError
from scdiva_core.model.attention_choice import ATTENTION_FILE, AttentionChoice
from scdiva_core.model.network import ScDiVaModel

CHOICE = AttentionChoice(((0, 1), (2, 3)), "from", centred=True, chosen_on="three sets")


def test_a_choice_is_read_back(tmp_path: Path) -> None:
    CHOICE.save(tmp_path, "abc", {"table": [{"set": "blood", "ratio": 1.25}]})
    assert AttentionChoice.of(tmp_path, "abc") == CHOICE
    told = json.loads((tmp_path / ATTENTION_FILE).read_text())
    assert told["figures"] == {"table": [{"set": "blood", "ratio": 1.25}]}
    AttentionChoice().save(tmp_path, "abc", {})
    assert AttentionChoice.of(tmp_path, "abc") == AttentionChoice()
    assert [path.name for path in tmp_path.iterdir()] == [ATTENTION_FILE]


def test_without_a_file_all_heads_are_read_in_both_directions(tmp_path: Path) -> None:
    choice = AttentionChoice.of(tmp_path)
    assert (choice.heads, choice.direction, choice.centred, choice.chosen_on) == (None, "both", False, "")


def test_a_key_tells_ways_of_reading_apart() -> None:
    assert CHOICE.key() == AttentionChoice(CHOICE.heads, "from", centred=True, chosen_on="others").key()
    assert CHOICE.key() != AttentionChoice(CHOICE.heads, "to", centred=True).key()
    assert CHOICE.key() != AttentionChoice(None, "from", centred=True).key()


def test_heads_of_other_weights_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for path in tiny_checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = ScDiVaModel.from_pretrained(tmp_path).sha256
    CHOICE.save(tmp_path, weights, {})
    assert AttentionChoice.of(tmp_path) == CHOICE
    CHOICE.save(tmp_path, "f" * 64, {})
    with pytest.raises(CheckpointError, match=f"made with weights ffffffffffff, but the checkpoint has {weights[:12]}"):
        AttentionChoice.of(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": []}, "does not say which heads"),
        ({"heads": [[0, 1], [2]]}, "does not say which heads"),
        ({"heads": [[0, -1]]}, "does not say which heads"),
        ({"heads": [[0, 1.5]]}, "does not say which heads"),
        ({"heads": 3}, "does not say which heads"),
        ({"direction": "up"}, "the direction 'up' and centred True"),
        ({"centred": "no"}, "the direction 'from' and centred 'no'"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    CHOICE.save(tmp_path, "abc", {})
    path = tmp_path / ATTENTION_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        AttentionChoice.of(tmp_path, "abc")


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / ATTENTION_FILE).write_text("{")
    with pytest.raises(CheckpointError, match="does not say which heads"):
        AttentionChoice.of(tmp_path, "abc")
