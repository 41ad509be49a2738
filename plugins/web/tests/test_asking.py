"""rqcore_web.asking and .spool: questions to a real instance, and to one that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from rqcore_web.asking import DownError, refusal
from rqcore_web.spool import Spool

from rqcore.errors import NotFoundError, RefusedError, RqError, UnreachableError
from rqcore.instance import Instance
from rqcore.testing import RunningInstance

DONE = "#!/bin/sh\necho done >&3\n"


@pytest.fixture
def rq(rq_instance: RunningInstance) -> RunningInstance:
    for name in ("webhook", "test", "another"):
        rq_instance.queue(name, DONE)
    return rq_instance.start()


def with_spool(rq: RunningInstance, act: Callable[[Spool], Awaitable[None]]) -> None:
    async def run() -> None:
        spool = Spool(Instance(rq.directory))
        try:
            await act(spool)
        finally:
            spool.close()

    asyncio.run(run())


def test_questions_and_answers(rq: RunningInstance) -> None:
    async def act(spool: Spool) -> None:
        full_id = await spool.ask("test", "create_message", {"dest": "test"})
        assert full_id.startswith("http://localhost:3333/q/test/")
        assert await spool.queue("test").call("ping") == ["pong"]
        assert await spool.manager.ask("queues") == ["another", "test", "webhook"]
        assert spool.names() == ["another", "test", "webhook"]
        found = await asyncio.gather(*(spool.ask("test", "config") for _ in range(100)))
        assert {config["name"] for config in found} == {"test"}

    with_spool(rq, act)


@pytest.mark.parametrize(
    ("queue", "command", "args", "error", "said"),
    [
        ("nosuch", "ping", {}, NotFoundError, "no such queue: nosuch"),
        ("../config", "ping", {}, NotFoundError, "no such queue"),
        ("test", "get_message", {"msg_id": "20200101.0000.00.000.1"}, NotFoundError, "msg not found"),
        ("test", "create_message", {}, RefusedError, "dest"),
        ("test", "no_such", {}, RefusedError, "queue test does not know the command no_such"),
    ],
)  # fmt: skip
def test_refusals_are_raised(
    rq: RunningInstance,
    queue: str,
    command: str,
    args: dict[str, str],
    error: type[RqError],
    said: str,
) -> None:
    async def act(spool: Spool) -> None:
        with pytest.raises(error, match=said):
            await spool.ask(queue, command, args)

    with_spool(rq, act)


def test_what_is_down_is_told_apart(rq: RunningInstance) -> None:
    rq.manager.ask("down_queue", "test")

    async def act(spool: Spool) -> None:
        with pytest.raises(DownError, match="status: DOWN"):
            await spool.ask("test", "create_message", {"dest": "test"})
        described = await spool.describe("test")
        assert (described["alive"], described["status"]) == (True, "DOWN")

    with_spool(rq, act)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("msg not found", NotFoundError), ("cannot find message", NotFoundError),
        ("no such queue: x", NotFoundError), ("status: DOWN", DownError),
        ("the queue is stopping; try again in a moment", UnreachableError),
        ("anything else", RefusedError),
    ],
)  # fmt: skip
def test_what_a_reason_stands_for(reason: str, kind: type[RqError]) -> None:
    assert type(refusal(reason)) is kind


def test_a_process_that_was_started_again_is_asked_by_a_new_connection(rq: RunningInstance) -> None:
    async def act(spool: Spool) -> None:
        first = (await spool.describe("test"))["pid"]
        await asyncio.to_thread(rq.kill, first)
        await asyncio.to_thread(rq.serving, "test")
        assert (await spool.describe("test"))["pid"] != first

    with_spool(rq, act)


def test_a_queue_that_does_not_run_is_described_with_the_reason(rq: RunningInstance) -> None:
    async def act(spool: Spool) -> None:
        (rq.directory / "queue/test/config.json").write_text("{")
        pid = (await spool.describe("test"))["pid"]
        async with spool.manager.subscribe({}) as events:
            await asyncio.to_thread(rq.kill, pid)
            async for event in events:
                if event["state"] == "failed":
                    break
        described = await spool.describe("test")
        assert (described["alive"], described["status"], described["pid"]) == (False, "ERROR", 0)
        assert "config.json" in described["problem"]
        with pytest.raises(UnreachableError, match="queue test does not run"):
            await spool.ask("test", "ping")

    with_spool(rq, act)


def test_without_an_instance_everything_is_told_to_be_away(tmp_path: Path) -> None:
    async def run() -> None:
        spool = Spool(Instance(tmp_path))
        with pytest.raises(UnreachableError, match="the manager does not run"):
            await spool.manager.ask("ping")
        assert spool.names() == []
        assert await spool.describe_all() == []

    asyncio.run(run())


def test_the_connections_of_a_queue_that_is_gone_are_closed(rq: RunningInstance) -> None:
    async def act(spool: Spool) -> None:
        peer = spool.queue("test")
        await peer.ask("config")
        under_way = asyncio.create_task(peer.ask("config"))
        await asyncio.sleep(0)
        await spool.manager.ask("delete_queue", "another")
        await asyncio.to_thread(rq.manager.ask, "delete_queue", "test")
        with pytest.raises(NotFoundError):
            spool.queue("test")
        await asyncio.gather(under_way, return_exceptions=True)
        assert not peer._idle

    with_spool(rq, act)


def test_who_gives_up_waiting_leaves_no_answer_for_the_next(rq: RunningInstance) -> None:
    async def act(spool: Spool) -> None:
        peer = spool.queue("test")
        for _ in range(20):
            asking = asyncio.create_task(peer.call("num_messages"))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert await peer.call("ping") == ["pong"]

    with_spool(rq, act)
