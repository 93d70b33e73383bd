"""Quota and retention of uploads, a full disk, a clock that goes back, and tables that spreadsheets open."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from pages._ui.downloads import new_export
from pages._ui.upload import HDF5_SIGNATURE, TOKEN_HEADER, upload_routes, upload_rules, upload_token, uploaded_path
from pages._ui.upload_keeping import keep_days, quota_bytes, remove_unused, uploads_folder
from scdiva_core.data.hdf5 import open_hdf5
from scdiva_core.data.spreadsheet import as_csv
from scdiva_core.errors import PathError, ScDiVaError
from scdiva_core.jobs import JobQueue
from scdiva_core.store import ResultStore, home
from tests.hostile_structure import HOSTILE_TEXTS

DAY = 24 * 3600
FILE = HDF5_SIGNATURE + bytes(3_000_000)


@pytest.fixture(autouse=True)
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path))
    for name in ("SCDIVA_MAX_UPLOAD_GB", "SCDIVA_UPLOAD_QUOTA_GB", "SCDIVA_UPLOAD_DAYS"):
        monkeypatch.delenv(name, raising=False)
    return uploads_folder()


def stored(name: str, days_ago: float = 0.0) -> Path:
    """A real HDF5 file among the uploads, last used so long ago."""
    path = uploads_folder() / "new"
    with h5py.File(path, "w") as file:
        file["name"] = name
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path = path.rename(path.with_name(f"{sha256}.h5ad"))
    then = time.time() - days_ago * DAY
    os.utime(path, (then, then))
    return path


def put(content: Any) -> Any:
    client = TestClient(Starlette(routes=upload_routes()), base_url="http://localhost:8501")
    headers = {TOKEN_HEADER: upload_token(), "Origin": "http://localhost:8501"}
    return client.put("/api/upload/x.h5ad", content=content, headers=headers)


# --- retention ---


def test_only_what_nobody_used_for_so_long_is_removed() -> None:
    old, young = stored("old", 31), stored("young", 29)
    assert remove_unused() == [old.stem]
    assert (old.exists(), young.exists()) == (False, True)
    with pytest.raises(PathError, match="Upload the file again"):
        uploaded_path(old.stem)


def test_the_days_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    stored("a", 2)
    monkeypatch.setenv("SCDIVA_UPLOAD_DAYS", "3")
    assert remove_unused() == []
    monkeypatch.setenv("SCDIVA_UPLOAD_DAYS", "1.5")
    assert len(remove_unused()) == 1


def test_use_is_noted_and_caches_still_know_the_file() -> None:
    path = stored("used", 31)
    before = path.stat()
    assert uploaded_path(path.stem) == path
    assert remove_unused() == []
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_file_that_is_open_is_kept() -> None:
    path = stored("open", 31)
    with open_hdf5(path):
        os.utime(path, (1, 1))  # reading set the time of access
        assert remove_unused() == []
    assert remove_unused() == [path.stem]


def test_a_file_that_a_job_waits_for_is_kept() -> None:
    path = stored("wanted", 31)
    queue = JobQueue(home() / "jobs")
    job = queue.submit("module:name", {"path": str(path)}, title="Embed", owner="me")
    assert remove_unused() == []
    queue.cancel(job.id)
    assert remove_unused() == [path.stem]


def test_results_stay() -> None:
    path = stored("old", 31)
    store = ResultStore(home() / "results")
    key = store.key("embed", path.stem, "c", {})
    store.put(key, {"values": np.zeros(3)}, {})
    assert remove_unused() == [path.stem]
    assert store.get(key) is not None


def test_the_server_removes_at_its_start_and_goes_on_with_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored("old", 31)
    monkeypatch.setenv("SCDIVA_UPLOAD_DAYS", "a month")
    upload_routes()
    assert path.exists()
    monkeypatch.delenv("SCDIVA_UPLOAD_DAYS")
    upload_routes()
    assert not path.exists()


def test_a_clock_that_was_set_back_removes_nothing(uploads: Path) -> None:
    """What was written before the clock went back has times to come."""
    path = stored("tomorrow", -400)
    part, exported = uploads / ".upload-a.part", new_export("x.h5ad")
    store = ResultStore(home() / "results")
    temporary = store.root / ".tmp-a"
    temporary.mkdir()
    part.write_bytes(b"")
    for place in (part, exported.parent, temporary):
        os.utime(place, (time.time() + 400 * DAY,) * 2)
    upload_routes()
    new_export("y.h5ad")
    ResultStore(store.root)
    assert all(place.exists() for place in (path, part, exported.parent, temporary))


def test_jobs_run_in_order_though_the_clock_went_back() -> None:
    from scdiva_core.jobs_claims import claim

    queue = JobQueue(home() / "jobs")
    jobs = [queue.submit("module:name", {"n": n}, title=str(n), owner="me") for n in range(2)]
    with queue.transaction() as table:
        table.execute("UPDATE jobs SET created = ? WHERE id = ?", (time.time() + 400 * DAY, jobs[0].id))
    assert [job.title for job in queue.jobs()] == ["1", "0"]
    assert claim(queue, "cpu", "cpu").id == jobs[0].id


# --- quota ---


def test_what_goes_beyond_the_quota_is_refused(monkeypatch: pytest.MonkeyPatch, uploads: Path) -> None:
    monkeypatch.setenv("SCDIVA_UPLOAD_QUOTA_GB", "0.005")
    assert put(FILE).status_code == 201
    reply = put(FILE + b"another")
    assert reply.status_code == 507
    assert reply.json()["error"] == "All uploads together may take 0.01 GB; with this file they would take 0.01 GB."
    assert "SCDIVA_UPLOAD_QUOTA_GB; after 30 days" in reply.json()["hint"]
    assert len(list(uploads.iterdir())) == 1


def test_the_quota_holds_for_a_body_of_unknown_length(monkeypatch: pytest.MonkeyPatch, uploads: Path) -> None:
    monkeypatch.setenv("SCDIVA_UPLOAD_QUOTA_GB", "0.005")
    sent = []

    def body() -> Any:
        yield HDF5_SIGNATURE
        for _ in range(50):
            sent.append(1)
            yield bytes(1 << 20)

    assert put(body()).status_code == 507
    assert list(uploads.iterdir()) == []


def test_files_out_of_use_make_room(monkeypatch: pytest.MonkeyPatch, uploads: Path) -> None:
    monkeypatch.setenv("SCDIVA_UPLOAD_QUOTA_GB", "0.005")
    client_ready = put(FILE)  # the server has started: what follows is not its first tidying
    old = uploads / f"{client_ready.json()['sha256']}.h5ad"
    headers = {TOKEN_HEADER: upload_token()}
    client = TestClient(Starlette(routes=upload_routes()))
    os.utime(old, (1, 1))
    assert client.put("/api/upload/y.h5ad", content=FILE + b"another", headers=headers).status_code == 201
    assert not old.exists()


def test_without_a_quota_only_the_disk_counts() -> None:
    assert quota_bytes() is None
    assert keep_days() == 30


@pytest.mark.parametrize("variable", ["SCDIVA_UPLOAD_QUOTA_GB", "SCDIVA_UPLOAD_DAYS"])
@pytest.mark.parametrize("value", ["many", "-1", "0", "nan", "inf"])
def test_a_setting_that_is_no_number_says_so(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ScDiVaError, match=f"{variable} is '{value}', not a number of"):
        upload_rules()


def test_the_rules_are_told_in_words(monkeypatch: pytest.MonkeyPatch, uploads: Path) -> None:
    assert upload_rules() == (
        "A file may have up to 20.00 GB. A file that nobody has opened for 30 days is removed; "
        "what was computed from it stays."
    )
    (uploads / "a").write_bytes(bytes(20_000_000))
    monkeypatch.setenv("SCDIVA_UPLOAD_QUOTA_GB", "50")
    assert "All uploads share 50.00 GB; 0.02 GB are taken." in upload_rules()


# --- a full disk ---


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_meanwhile_is_told(monkeypatch: pytest.MonkeyPatch, uploads: Path) -> None:
    part = uploads / ".upload-x.part"
    part.symlink_to("/dev/full")  # the system's own answer to a write on a full disk
    descriptor = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr("pages._ui.upload.tempfile.mkstemp", lambda **_: (descriptor, str(part)))
    reply = put(FILE)
    assert reply.status_code == 507
    assert reply.json()["error"].startswith("The disk was full after")
    assert list(uploads.iterdir()) == []


# --- tables that spreadsheets open ---


def test_no_cell_of_a_table_is_a_formula_or_hides_anything() -> None:
    texts = [*HOSTILE_TEXTS, "  =1+1", "\n=1", "\uff1dcmd", "\u2066a", "a\r=1", "T cell", "CD4+"]
    table = pd.DataFrame({"=HYPERLINK(1)": texts, "@b": pd.Categorical(texts), "n": -1.5}, index=texts)
    rows = list(csv.reader(io.StringIO(as_csv(table, "cell").decode(), newline="")))
    assert rows[0] == ["cell", "'=HYPERLINK(1)", "'@b", "n"]
    assert len(rows) == len(texts) + 1
    for row in rows[1:]:
        assert row[0] == row[1] == row[2]
        assert not row[0].lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
        assert not set(row[0]) & set("\x00\x1b\u202e\u2066")
    assert {row[3] for row in rows[1:]} == {"-1.5"}
    assert [row[0] for row in rows[-2:]] == ["T cell", "CD4+"]
