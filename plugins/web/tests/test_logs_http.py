"""Logs over HTTP, of a real instance, with real curl: listed, read, searched and followed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from tests.conftest import Web

LOG = b"one\ntwo \x1b[31mred\x1b[0m words\nthree <b>bold</b>\n"


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    """An instance with a queue; its tests put what they need into the directories of messages."""
    shared.rq.queue("test", shared.HELLO)
    shared.rq.queue("waits", shared.WAITS)
    return shared.start()


def done(web: Web, **files: bytes) -> tuple[str, Path]:
    """A message that is done: its id and its ``job``, with ``stdio.log`` and these files in it."""
    msg_id = web.rq.send("test")
    job = Path(web.rq.until("test", msg_id, "done")["path"]) / "job"
    for name, content in {"stdio.log": LOG, **files}.items():
        (job / name).write_bytes(content)
    return msg_id, job


def api(msg_id: str, rest: str, queue: str = "test") -> str:
    return f"api/v1/queues/{queue}/messages/{msg_id}/{rest}"


class Listening:
    """A real curl that listens to server-sent events."""

    def __init__(self, url: str, *options: str) -> None:
        self._curl = subprocess.Popen(
            ["curl", "-sSN", "--max-time", str(PATIENCE), *options, url], stdout=subprocess.PIPE
        )

    def next(self, kind: str = "") -> Any:
        """The data of the next event (of this kind)."""
        assert self._curl.stdout is not None
        event = ""
        for line in self._curl.stdout:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data" and kind in ("", event):
                return json.loads(value)
        raise EOFError(kind)

    def until(self, **wanted: Any) -> dict[str, Any]:
        """The next event whose data has these values."""
        while True:
            data: dict[str, Any] = self.next()
            if wanted.items() <= data.items():
                return data

    def ended(self) -> bool:
        """Has the stream come to its own end, after nothing more?"""
        assert self._curl.stdout is not None
        rest = self._curl.stdout.read()
        return not rest.strip() and self._curl.wait() == 0

    def close(self) -> None:
        self._curl.kill()
        self._curl.communicate()


@contextmanager
def listening(web: Web, path: str, *options: str) -> Iterator[Listening]:
    made = Listening(f"{web.url}{path}", *options)
    try:
        yield made
    finally:
        made.close()


# --- which there are, and their bytes


def test_the_files_of_job_are_listed_with_where_to_read_them(site: Web) -> None:
    msg_id, job = done(site, **{"result 1%.txt": b"x" * 10, ".hidden": b"no"})
    (job / "link").symlink_to("stdio.log")
    (job / os.fsdecode(b"bytes\xff")).write_bytes(b"odd")
    items = site.curl(api(msg_id, "logs")).json()["items"]
    assert [(item["name"], item["size"]) for item in items] == [
        ("bytes�", 3), ("result 1%.txt", 10), ("stdio.log", len(LOG)),
    ]  # fmt: skip
    for item, content in zip(items, (b"odd", b"x" * 10, LOG), strict=True):
        assert site.curl(item["url"].removeprefix("/")).body == content
        assert site.curl(item["page"].removeprefix("/")).status == 200


def test_a_log_is_read_by_ranges_and_is_never_active(site: Web) -> None:
    msg_id, _ = done(site, **{"page.html": b"<script>alert(1)</script>"})
    part = site.curl(api(msg_id, "logs/stdio.log"), "-H", "Range: bytes=4-6")
    assert (part.status, part.body) == (206, b"two")
    assert part.headers["content-range"] == f"bytes 4-6/{len(LOG)}"
    tail = site.curl(api(msg_id, "logs/stdio.log"), "-H", "Range: bytes=-7")
    assert tail.body == LOG[-7:]
    page = site.curl(api(msg_id, "logs/page.html"))
    assert page.headers["content-type"] == "text/plain; charset=utf-8"
    assert "sandbox" in page.headers["content-security-policy"]
    saved = site.curl(api(msg_id, "logs/stdio.log?download=1"))
    assert saved.headers["content-disposition"].startswith("attachment")
    assert saved.body == LOG


@pytest.mark.parametrize(
    "name",
    [
        "none", ".hidden", "link", "fifo", "folder", "..%2Fmsg", "%2Fetc%2Fpasswd", "..", "%00",
        "stdio.log%00", "folder%2Ffile", "%2E%2E%2Fmsg", "x" * 300,
    ],
)  # fmt: skip
@pytest.mark.parametrize("act", ["", "/search?q=a"])
def test_nothing_but_the_files_of_job_is_ever_read(site: Web, name: str, act: str) -> None:
    msg_id, job = done(site, **{".hidden": b"hidden"})
    (job / "link").symlink_to("/etc/passwd")
    os.mkfifo(job / "fifo")
    (job / "folder").mkdir()
    (job / "folder" / "file").write_text("deep")
    answer = site.curl(api(msg_id, f"logs/{name}{act}"), "--path-as-is")
    assert answer.status in (400, 404), answer.text
    assert b"root:" not in answer.body


@pytest.mark.parametrize("path", ["logs", "logs/stdio.log", "logs/stdio.log/events"])
def test_a_message_or_queue_that_is_not_there_is_404(site: Web, path: str) -> None:
    assert site.curl(api("20260101.0000.00.000.1", path)).status == 404
    assert site.curl(api("20260101.0000.00.000.1", path, "nobody")).status == 404


# --- search


def test_text_is_found_forwards_and_backwards_with_regard_to_case_or_not(site: Web) -> None:
    msg_id, _ = done(site, a=b"Ab ab\nAB\n")

    def found(query: str) -> Any:
        return site.curl(api(msg_id, f"logs/a/search?{query}")).json()

    assert found("q=ab") == {"matches": [{"offset": 0, "line_offset": 0}], "next": 1, "size": 9}
    assert found("q=ab&case=1")["matches"] == [{"offset": 3, "line_offset": 0}]
    assert found("q=ab&from=4")["matches"] == [{"offset": 6, "line_offset": 6}]
    assert found("q=ab&direction=backward")["matches"] == [{"offset": 6, "line_offset": 6}]
    assert found("q=ab&direction=backward&from=3")["matches"] == [{"offset": 0, "line_offset": 0}]
    assert found("q=ab&limit=9") == {
        "matches": [{"offset": at, "line_offset": line} for at, line in ((0, 0), (3, 0), (6, 6))],
        "next": None, "size": 9,
    }  # fmt: skip
    assert found("q=.*") == {"matches": [], "next": None, "size": 9}


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("", "characters of one line"),
        ("q=a%0Ab", "characters of one line"),
        ("q=a&from=-1", "from: must be"),
        ("q=a&from=1e9", "from: must be"),
        ("q=a&from=" + "9" * 40, "from: must be"),
        ("q=a&limit=0", "limit: must be"),
        ("q=a&limit=1001", "limit: must be"),
        ("q=a&case=maybe", "case: must be one of"),
        ("q=a&direction=up", "direction: must be"),
    ],
)
def test_a_search_that_cannot_be_done_is_refused_in_words(site: Web, query: str, word: str) -> None:
    msg_id, _ = done(site)
    answer = site.curl(api(msg_id, f"logs/stdio.log/search?{query}"))
    assert answer.status == 422
    assert word in answer.json()["detail"]


def test_attachments_are_searched_and_followed_too(site: Web, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("some notes\nwith a needle\n")
    answer = site.rq.ask("test", "prep_message", {"dest": "test"})
    msg_id = answer.rpartition("/")[2]
    args = {"msg_id": msg_id, "pathname": str(tmp_path / "notes.txt")}
    site.rq.ask("test", "attach_message", args)
    found = site.curl(api(msg_id, "attachments/notes.txt/search?q=needle")).json()
    assert found["matches"] == [{"offset": 18, "line_offset": 11}]
    with listening(site, api(msg_id, "attachments/notes.txt/events")) as events:
        assert events.next("log")["size"] == 25
        site.rq.ask("test", "commit_message", {"msg_id": msg_id})
        assert events.until(state="done")["size"] == 25
        assert events.ended()
    page = site.curl(f"q/test/{msg_id}/tailview/notes.txt")
    assert page.status == 200
    assert "with a needle" in page.text
    assert site.curl(f"q/test/{msg_id}/tailview/other.txt").status == 404


# --- follow


def test_growth_and_the_end_are_told(site: Web, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    msg_id = site.rq.send("waits", param1=str(fifo))
    site.rq.until("waits", msg_id, "run")
    with listening(site, api(msg_id, "logs/stdio.log/events", "waits")) as events:
        assert events.until(size=len("ready\n"))["state"] == "run"
        with fifo.open("w") as feed:
            feed.write("more\n")
            feed.flush()
            assert events.until(size=len("ready\nmore\n"))["state"] == "run"
            feed.write("end\n")
        last = events.until(state="done")
        assert last["size"] == len("ready\nmore\nend\n")
        assert events.ended()


def test_the_text_is_told_from_an_offset_on_in_whole_characters(site: Web, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    msg_id = site.rq.send("waits", param1=str(fifo))
    with site.rq.client("waits") as client:
        grown = client.subscribe({"msg_id": msg_id, "log": True}, timeout=30)
        while next(grown).get("size", 0) < len("ready\n"):
            pass
    with listening(site, api(msg_id, "logs/stdio.log/events?from=3", "waits")) as events:
        assert events.next("text") == {"offset": 3, "text": "dy\n"}
        with fifo.open("wb") as feed:
            feed.write("é€😀".encode()[:-1])
            feed.flush()
            assert events.next("text") == {"offset": 6, "text": "é€"}
            feed.write("😀\n".encode()[-2:])
            feed.flush()
            assert events.next("text") == {"offset": 11, "text": "😀\n"}
            feed.write(b"\xe2\x82")
        assert events.next("text") == {"offset": 16, "text": "�"}
        assert events.next("end")["size"] == 18
        assert events.ended()
    seen = ["-H", "Last-Event-ID: 16"]
    with listening(site, api(msg_id, "logs/stdio.log/events?from=3", "waits"), *seen) as again:
        assert again.next("text") == {"offset": 16, "text": "�"}


def test_a_log_that_comes_later_is_waited_for_through_the_states(site: Web) -> None:
    answer = site.rq.ask("test", "prep_message", {"dest": "test", "param1": "world"})
    msg_id = answer.rpartition("/")[2]
    assert site.curl(api(msg_id, "logs")).json() == {"items": []}
    with listening(site, api(msg_id, "logs/stdio.log/events")) as events:
        assert events.next("log") == {"state": "prep", "size": None, "file": ""}
        site.rq.ask("test", "commit_message", {"msg_id": msg_id})
        assert events.next("end")["size"] == len("hello world\n")
        assert events.ended()


def test_other_files_of_job_are_followed_also_when_they_are_replaced(
    site: Web, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    msg_id = site.rq.send("waits", param1=str(fifo))
    job = Path(site.rq.until("waits", msg_id, "run")["path"]) / "job"
    with listening(site, api(msg_id, "logs/report/events?from=0", "waits")) as events:
        assert events.next("log")["size"] is None
        (job / "other").write_text("nobody asks for it")
        (job / "report").write_text("a")
        first = events.until(size=1)
        (job / "new").write_text("bc")
        (job / "new").rename(job / "report")
        assert events.next("text") == {"offset": 0, "text": "bc"}
        second = events.until(size=2)
        assert second["file"] != first["file"]
        (job / "report").write_text("")
        assert events.until(size=0)["file"] == second["file"]
        (job / "report").unlink()
        assert events.until(size=None)["state"] == "run"
        fifo.write_text("")
        assert events.until(state="done")["size"] is None


def test_a_message_that_is_deleted_ends_the_stream(site: Web) -> None:
    answer = site.rq.ask("test", "prep_message", {"dest": "test"})
    msg_id = answer.rpartition("/")[2]
    with listening(site, api(msg_id, "logs/stdio.log/events")) as events:
        events.next("log")
        site.rq.ask("test", "delete_message", {"msg_id": msg_id})
        assert events.next("end")["state"] == ""
        assert events.ended()


def test_a_queue_process_that_is_killed_ends_no_stream(web: Web, tmp_path: Path) -> None:
    web.rq.queue("waits", web.WAITS)
    web.start()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    msg_id = web.rq.send("waits", param1=str(fifo))
    web.rq.until("waits", msg_id, "run")
    with listening(web, api(msg_id, "logs/stdio.log/events", "waits")) as events:
        assert events.until(state="run", size=len("ready\n"))
        web.rq.kill(int(web.rq.ask("waits", "describe")["pid"]))
        web.rq.serving("waits")
        # It runs again, and its log goes on where it was.
        assert events.until(size=len("ready\nready\n"), state="run")
        fifo.write_text("end\n")
        assert events.until(state="done")["size"] == len("ready\nready\nend\n")


def test_where_the_system_tells_of_no_changes_files_are_looked_at(web: Web, tmp_path: Path) -> None:
    web.rq.environ["RQ_PORTABLE"] = "1"
    web.rq.queue("waits", web.WAITS)
    web.start()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    msg_id = web.rq.send("waits", param1=str(fifo))
    web.rq.until("waits", msg_id, "run")
    with listening(web, api(msg_id, "logs/stdio.log/events", "waits")) as events:
        assert events.until(size=len("ready\n"))
        with fifo.open("w") as feed:
            feed.write("more\n")
            feed.flush()
            assert events.until(size=len("ready\nmore\n"))["state"] == "run"
        assert events.until(state="done")


# --- pages


def test_without_javascript_the_end_is_shown_as_text(site: Web) -> None:
    msg_id, job = done(site)
    page = site.curl(f"q/test/{msg_id}/tailviewlog/stdio.log")
    assert page.status == 200
    assert "two red words\nthree &lt;b&gt;bold&lt;/b&gt;\n" in page.text
    (job / "stdio.log").write_bytes(b"beginning\n" + b"x" * 70_000 + b"\nlast\n")
    page = site.curl(f"q/test/{msg_id}/tailviewlog/stdio.log")
    assert "beginning" not in page.text
    assert "xlast" not in page.text
    assert ">last\n" in page.text
    assert "The last lines of" in page.text


def test_a_log_that_is_not_there_is_waited_for_but_another_file_is_not(site: Web) -> None:
    msg_id, job = done(site)
    (job / "stdio.log").unlink()
    page = site.curl(f"q/test/{msg_id}/tailviewlog/stdio.log")
    assert page.status == 200
    assert "Nothing has been printed." in page.text
    assert site.curl(f"q/test/{msg_id}/tailviewlog/other.log").status == 404
    assert site.curl(f"q/test/{msg_id}/tailviewlog/.hidden").status == 404


def test_names_in_any_letters_are_quoted_in_every_url(site: Web) -> None:
    name = "ö '\"<&>?#% x.txt"
    msg_id, _ = done(site, **{name: b"odd name\n"})
    page = site.curl(f"q/test/{msg_id}/tailviewlog/{quote(name, safe='')}")
    assert page.status == 200
    assert "odd name" in page.text
    assert f"logs/{quote(name, safe='')}/events" in page.text
    assert site.curl(api(msg_id, f"logs/{quote(name, safe='')}")).body == b"odd name\n"


def test_a_full_id_names_the_message_as_well(site: Web) -> None:
    msg_id, _ = done(site)
    full = site.rq.message("test", msg_id)["full_id"]
    assert site.curl(f"q/test/{full}/tailviewlog/stdio.log").status == 200
