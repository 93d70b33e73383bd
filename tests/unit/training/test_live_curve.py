"""The curve of a training on disk: written a line a round, read while it grows."""

from __future__ import annotations

from pathlib import Path

from scdiva_core.training.live_curve import LiveCurve, curve_path, read_curve


def test_it_lies_beside_the_folder_of_the_checkpoint(tmp_path: Path) -> None:
    assert curve_path(tmp_path / "a.b") == tmp_path / "a.b.curve.jsonl"


def test_records_are_read_back_in_their_order(tmp_path: Path) -> None:
    path = curve_path(tmp_path / "new" / "made")
    assert read_curve(path) == []
    report = LiveCurve(path)
    records = [{"round": 0, "loss": None, "macro_f1": 0.5}, {"round": 1, "loss": 0.25, "macro_f1": 0.75}]
    for record in records:
        report(record)
    assert read_curve(path) == records


def test_a_line_that_is_half_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "curve"
    LiveCurve(path)({"epoch": 0})
    with path.open("a") as file:
        file.write('{"epoch": 1, "lo')
    assert read_curve(path) == [{"epoch": 0}]


def test_a_training_that_went_on_from_an_earlier_round_replaces_what_followed_it(tmp_path: Path) -> None:
    report = LiveCurve(tmp_path / "curve")
    for epoch, loss in ((0, 9), (1, 8), (2, 7), (1, 6), (2, 5)):
        report({"epoch": epoch, "loss": loss})
    assert [record["loss"] for record in read_curve(tmp_path / "curve")] == [9, 6, 5]
