"""rqcore_relay.job: what a script learns of its message, and the notes that survive it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_relay.job import Job, Notes, Upload

ID = "20260101.0000.00.000.1"
FAR = "http://far:3333/q/test/20260101.0000.00.000.7"
TEXT = st.text(st.characters(exclude_categories=()))
UPLOADS = st.builds(Upload, st.text(), st.integers(0), st.integers(), st.integers(0))
NOTES = st.builds(
    Notes,
    TEXT,
    TEXT,
    st.integers(0),
    st.floats(1, 1e12),
    TEXT,
    TEXT,
    st.dictionaries(TEXT, UPLOADS),
)


def make(folder: Path, environ: dict[str, str] | None = None, **message: Any) -> Job:
    home = folder / "rq/queue/relay/run" / ID
    (home / "job").mkdir(parents=True, exist_ok=True)
    (home / "msg").write_text(json.dumps({"dest": "http://far:3333/q/test", **message}))
    return Job({
        "RQ_MSG_DIR": f"{home}/job", "RQ_MSG_ID": ID, "RQ_HOST": "http://me:3333/root/",
        "RQ_HOSTNAMES": "http://me:3333/root/ http://alias/", "RQ_COUNT": "3",
        "RQ_ORIG_MSG_ID": "http://first/q/a/1", **(environ or {}),
    })  # fmt: skip


def test_what_it_learns(tmp_path: Path) -> None:
    job = make(tmp_path, param2="x \udcff", max_count=7)
    assert job.directory == str(tmp_path / "rq")
    assert (job.queue, job.msg_id, job.count, job.max_count) == ("relay", ID, 3, 7)
    job.notes.count = 4
    assert job.fields() == {
        "dest": "http://far:3333/q/test", "src": "", "count": 4, "max_count": 7, "param1": "",
        "param2": "x \udcff", "param3": "", "param4": "", "post_run_webhook": [],
        "orig_msg_id": "http://first/q/a/1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dest", "forced", "url"),
    [
        ("http://far:3333/q/test/", False, "http://far:3333/q/test"),
        ("test", False, ""),
        ("test", True, "http://me:3333/root/q/test"),
        ("/q/test", True, "http://me:3333/root/q/test"),
    ],
)
def test_where_it_goes(tmp_path: Path, dest: str, forced: bool, url: str) -> None:
    assert make(tmp_path, {"RQ_FORCE_REMOTE": "1"} if forced else {}, dest=dest).url == url


@given(NOTES)
def test_notes_come_back_as_they_were(notes: Notes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        job = make(Path(folder))
        job.notes = notes
        job.note(sync=False)
        assert make(Path(folder)).notes == notes


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "7", '{"key": 1}', '{"uploads": 3}', '{"uploads": {"a": {}}}'],
)
def test_damaged_notes_are_none(tmp_path: Path, content: str) -> None:
    folder = Path(make(tmp_path).folder)
    (folder / "relay.json").write_text(content)
    (folder / "relay_id").write_text(f"{FAR}\n")
    job = make(tmp_path)
    assert (job.notes.key, job.notes.uploads, job.relay_id) == ("", {}, FAR)


def test_the_id_is_known_from_before_its_commit(tmp_path: Path) -> None:
    """Also when a power cut took the file away that the contract knows."""
    job = make(tmp_path)
    job.prepared(FAR)
    assert make(tmp_path).relay_id == FAR
    job.notes.committing = FAR
    job.note()
    for content in (None, ""):
        file = Path(job.folder, "relay_id")
        file.unlink() if content is None else file.write_text(content)
        assert make(tmp_path).relay_id == FAR


def test_arrived_and_forgotten(tmp_path: Path) -> None:
    job = make(tmp_path)
    job.notes.key, job.notes.kind, job.notes.first = "k", "rqcore", 7.0
    job.prepared(FAR)
    job.forget()
    again = make(tmp_path)
    assert (again.notes, again.relay_id) == (Notes(kind="rqcore", first=7.0), "")
    job.prepared(FAR)
    job.arrived(FAR)
    again = make(tmp_path)
    assert (again.notes.committed, again.relay_id) == (FAR, "")
    assert sorted(os.listdir(job.folder)) == ["relay.json"]


def test_a_series_of_tries_begins_with_the_count(tmp_path: Path) -> None:
    job = make(tmp_path)
    job.notes.first = 7.0
    job.note()
    assert make(tmp_path).notes.first == 7.0
    assert make(tmp_path, {"RQ_COUNT": "0"}).notes.first > 1e9


def test_a_disk_that_is_full_is_an_error(tmp_path: Path) -> None:
    job = make(tmp_path)
    os.rename(job.folder, f"{job.folder}.away")
    with pytest.raises(FileNotFoundError, match=r"relay\.json"):
        job.note()
