"""The stream of events, by real curl: what happens is told, and told again to who missed it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, Self

import pytest
from rqcore_web import sse
from rqcore_web.events import Hub
from starlette.requests import Request

if TYPE_CHECKING:
    from tests.conftest import Web


@dataclass
class Said:
    id: str = ""
    event: str = ""
    data: Any = None


class Stream:
    """A curl that follows the events; use it as a context."""

    def __init__(self, web: Web, query: str = "", last: str = "") -> None:
        self.headers: list[str] = []
        command = ["curl", "-sSN", "-D", "/dev/stderr", "--max-time", "60"]
        if last:
            command += ["-H", f"Last-Event-ID: {last}"]
        self._process = subprocess.Popen(
            [*command, f"{web.url}api/v1/events{query}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        # It listens once the first lines are there: how long to wait before coming again, and the id.
        assert self._pipe().readline() == "retry: 2000\n"
        assert self._pipe().readline() == "\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def _pipe(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def events(self) -> Iterator[Said]:
        """One after the other; comments are left out."""
        found = Said()
        for line in self._pipe():
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n":
                if found != Said():
                    yield found
                found = Said()
            elif name in ("id", "event"):
                setattr(found, name, value)
            elif name == "data":
                found.data = json.loads(value)

    def until(self, event: str, **fields: Any) -> Said:
        """The next event of this type with these fields in its data."""
        for said in self.events():
            if said.event == event and fields.items() <= said.data.items():
                return said
        raise AssertionError(f"the stream ended before {event} {fields}")


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("test", shared.HELLO)
    shared.rq.queue("other", shared.HELLO)
    return shared.start()


def test_what_happens_is_told(site: Web) -> None:
    with Stream(site) as stream:
        first = next(stream.events())
        assert (first.event, first.data) == ("", None)
        assert first.id
        msg_id = site.rq.send("test")
        for old, new, status in ((None, "que", ""), ("que", "run", ""), ("run", "done", "fine")):
            said = stream.until("state", queue="test", msg_id=msg_id, old=old, new=new)
            assert said.id
            assert said.data["status"] == status
        assert stream.until("counts", queue="test").data["counts"]["done"] > 0


def test_only_what_is_asked_for(site: Web) -> None:
    with Stream(site, "?queue=other&types=state,job") as stream:
        site.rq.until("test", site.rq.send("test"), "done")
        msg_id = site.rq.send("other")
        heard = []
        for said in stream.events():
            if said.event:
                heard.append(said)
            if said.data and said.data.get("new") == "done":
                break
    assert {(said.event, said.data["queue"], said.data["msg_id"]) for said in heard} == {
        ("state", "other", msg_id)
    }


def test_nothing_is_missed_over_a_lost_connection(site: Web) -> None:
    with Stream(site, "?types=state") as stream:
        msg_id = site.rq.send("test")
        seen = stream.until("state", msg_id=msg_id, new="que")
    # While nobody listens:
    others = [site.rq.send("test") for _ in range(30)]
    for other in others:
        site.rq.until("test", other, "done")
    with Stream(site, "?types=state", last=seen.id) as stream:
        told = []
        for said in stream.events():
            told.append((said.data["msg_id"], said.data["new"]))
            if told[-1] == (others[-1], "done"):
                break
    for one in (msg_id, *others):
        wanted = ["run", "done"] if one == msg_id else ["que", "run", "done"]
        assert [state for name, state in told if name == one] == wanted


def test_a_listener_that_saw_nothing_yet_knows_where_to_go_on(site: Web) -> None:
    with Stream(site) as stream:
        seen = next(stream.events()).id
    msg_id = site.rq.send("test")
    site.rq.until("test", msg_id, "done")
    with Stream(site, last=seen) as stream:
        stream.until("state", msg_id=msg_id, new="que")


@pytest.mark.parametrize("last", ["nonsense", "1-1", "999999999999999-5"])
def test_whoever_missed_more_than_is_known_is_told_to_look_anew(site: Web, last: str) -> None:
    with Stream(site, "?types=job&queue=test", last=last) as stream:
        assert next(stream.events()).event == "reset"


@pytest.mark.parametrize(
    ("query", "status"), [("?types=all", 422), ("?queue=nobody", 404), ("?since=1", 422)]
)
def test_what_cannot_be_followed(site: Web, query: str, status: int) -> None:
    answer = site.curl(f"api/v1/events{query}")
    assert (answer.status, answer.json()["status"]) == (status, status)


def test_its_headers(site: Web) -> None:
    head = site.curl("api/v1/events", "-I")
    assert head.status == 200
    assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert head.headers["cache-control"] == "no-store"


def test_it_ends_with_the_service_and_comes_back(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    with Stream(web) as stream:
        seen = next(stream.events()).id
        web.rq.stop()
        assert [said.event for said in stream.events() if said.event == "state"] == []
    web.rq.start()
    with Stream(web, last=seen) as stream:
        assert next(stream.events()).event == "reset"


# --- one response


class Client:
    """The other end of a response, without a network."""

    def __init__(self, events: Any) -> None:
        self.hub = Hub(None)  # type: ignore[arg-type]  # it follows nobody
        self.got = b""
        self.grown = asyncio.Event()
        self.gone = asyncio.Event()
        app = SimpleNamespace(state=SimpleNamespace(site=SimpleNamespace(hub=self.hub)))
        request = Request({"type": "http", "method": "GET", "headers": [], "app": app})
        response = sse.response(request, events, keep_alive=0.01)
        self.task = asyncio.create_task(response({}, self._receive, self._send))

    async def _receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.got += message.get("body", b"")
        self.grown.set()

    async def until(self, wanted: bytes) -> None:
        async with asyncio.timeout(30):
            while wanted not in self.got:
                self.grown.clear()
                await self.grown.wait()


class Events:
    """Events that a test gives one by one; knows whether it was closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[sse.Said | Exception | None] = asyncio.Queue()
        self.closed = False

    async def each(self) -> AsyncIterator[sse.Said]:
        try:
            while (said := await self.queue.get()) is not None:
                if isinstance(said, Exception):
                    raise said
                yield said
        finally:
            self.closed = True


@pytest.mark.parametrize("end", ["client", "site", "events"])
def test_a_quiet_stream_is_kept_alive_and_ends_with_either_end(end: str) -> None:
    async def follow() -> None:
        events = Events()
        client = Client(events.each())
        await client.until(b": still here\n\n: still here\n\n")
        events.queue.put_nowait(("1", "state", {}))
        await client.until(b"id: 1\nevent: state\ndata: {}\n\n")
        if end == "client":
            client.gone.set()
        elif end == "site":
            client.hub.close()
        else:
            events.queue.put_nowait(None)
        async with asyncio.timeout(30):
            await client.task
        assert events.closed
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(follow())


def test_what_fails_while_it_is_told_is_not_swallowed() -> None:
    async def follow() -> None:
        events = Events()
        client = Client(events.each())
        events.queue.put_nowait(ValueError("a defect"))
        with pytest.raises(ValueError, match="a defect"):
            await client.task
        assert events.closed

    asyncio.run(follow())


# --- the format


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        (("7-1", "state", {"a": 1}), b'id: 7-1\nevent: state\ndata: {"a": 1}\n\n'),
        (("", "", "two\nlines"), b"data: two\ndata: lines\n\n"),
        (("7-1", "", ""), b"id: 7-1\n\n"),
        (("", "log", "half \ud800"), b"event: log\ndata: half ?\n\n"),
    ],
)
def test_how_an_event_is_written(said: sse.Said, lines: bytes) -> None:
    assert sse.encode(said) == lines
