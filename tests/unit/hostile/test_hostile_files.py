"""A hundred hostile files, opened as the app does: each is read or refused, and nothing outside is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.hostile_files import sound_files, write_hostile
from tests.hostile_run import Child, Watch, run

pytestmark = pytest.mark.fuzz
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
FILES = 100


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sound_files(tmp_path_factory.mktemp("sound"))


@on_linux
def test_each_is_read_or_refused(tmp_path: Path) -> None:
    report = run(tmp_path, range(FILES))
    assert not report.problems, "\n".join(report.problems)
    assert report.files == FILES
    # Neither all sound nor all refused at the door: the files reach deep into the reader.
    assert min(report.outcomes["read"], report.outcomes["refused"]) > FILES // 4
    assert report.peak_bytes < 1 << 30


def test_sound_files_are_read(sound: list[Path]) -> None:
    child = Child()
    try:
        assert [child.open(path)["outcome"] for path in sound] == ["read"] * len(sound)
    finally:
        child.stop()


def test_the_same_seed_gives_the_same_file(sound: list[Path], tmp_path: Path) -> None:
    outside = tmp_path / "outside.h5"
    for seed in (4, 7, 22, 38):
        contents = []
        for name in ("a", "b"):
            said = write_hostile(tmp_path / name, seed, sound, outside)
            contents.append((said, (tmp_path / name).read_bytes()))
        assert contents[0] == contents[1]


def test_a_crash_and_a_hang_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "child.py"
    script.write_text(
        "import os, resource, sys, time\n"
        "print('{\"peak\": 0}', flush=True)\n"
        "for line in sys.stdin:\n"
        "    if 'crash' in line:\n"
        "        os.kill(os.getpid(), 11)\n"
        "    if 'busy' in line:\n"
        "        resource.setrlimit(resource.RLIMIT_CPU, (1, 2))\n"
        "    while 'busy' in line:\n"
        "        pass\n"
        "    time.sleep(60)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr("tests.hostile_run._CHILD", script)
    child = Child()
    assert [child.open(Path(name))["outcome"] for name in ("crash", "busy")] == ["crash", "hang"]
    monkeypatch.setattr("tests.hostile_run.DEADLINE", 0.5)
    assert child.open(Path("asleep"))["outcome"] == "hang"


@on_linux
def test_a_touch_would_be_seen(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["X"] = np.zeros(3)
    watch = Watch(tmp_path)
    assert not watch.touched()
    h5py.File(tmp_path / "secret.h5").close()
    assert watch.touched()
    assert not watch.touched()
    watch.close()
