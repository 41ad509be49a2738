"""What a script finds in its message's directory, also when that is not as it left it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rqcore_router.plan import Job, Plan, is_planned
from rqcore_router.script import route

from rqcore.errors import RefusedError

PLAN = Plan("it", 1, "relay", log=False, count=0, copies=("/q/a", "/q/b"))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A message that runs in an instance that does not."""
    folder = tmp_path / "queue" / "rq_router" / "run" / "20260101.0000.00.000.1" / "job"
    folder.mkdir(parents=True)
    (folder.parent / "msg").write_text('{"dest": "test"}')
    (tmp_path / "config").mkdir()
    return Job({
        "RQ_MSG_DIR": str(folder), "RQ_MSG_ID": folder.parent.name,
        "RQ_FULL_MSG_ID": "http://a:1/q/rq_router/20260101.0000.00.000.1",
        "RQ_ORIG_MSG_ID": "http://b:1/q/x/20250101.0000.00.000.1",
        "RQ_HOST": "http://a:1/", "RQ_HOSTNAMES": "http://a:1/ http://alias:1/",
    })  # fmt: skip


def test_where_it_is(job: Job, tmp_path: Path) -> None:
    assert (job.directory, job.queue) == (str(tmp_path), "rq_router")
    assert job.message().dest == "test"
    assert job.attachments() == []


def test_a_plan_counts_once_a_copy_may_have_been_made(job: Job) -> None:
    assert job.begun() is None
    job.note(PLAN)
    assert job.begun() is None
    Path(job.note_of(1)).touch()
    assert job.begun() == PLAN
    queue = str(Path(job.folder).parents[2])
    assert not is_planned(queue, "20260101.0000.00.000.1")  # it runs, it does not wait


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"copies": 1}', '{"copies": [], "x": 1}'])
def test_a_note_that_is_none_is_refused_in_words(job: Job, text: str) -> None:
    Path(job.folder, "router.json").write_text(text)
    with pytest.raises(RefusedError, match="copies may have been made; look for them, then remove"):
        job.begun()
    assert route(job).startswith("err ")


def test_a_message_that_is_none(job: Job) -> None:
    Path(job.folder, "../msg").write_text("{")
    assert route(job).startswith("err the message's file cannot be used: not JSON")


def test_without_rules_it_waits(job: Job) -> None:
    assert route(job) == "resend 10-there is no rules file config/rq_router_rules.toml"


def test_digests_that_nobody_tells_are_taken_anew(
    job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(job.folder).parent / "attach"
    folder.mkdir()
    for name in ("b", "a", ".hidden"):
        (folder / name).touch()
    found = [(name, path, digest) for name, path, digest in job.attachments()]
    assert found == [(name, str(folder / name), None) for name in ("a", "b")]
    assert "the attachments are read anew: queue rq_router does not run" in capfd.readouterr().out
