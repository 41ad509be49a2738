"""rqcore_web.events: one stream of all that happens in a real instance, and nothing missed silently."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from rqcore_web.events import Event, Hub, wanting
from rqcore_web.spool import Spool

from rqcore.errors import UnreachableError
from rqcore.instance import Instance
from rqcore.testing import PATIENCE, RunningInstance

HELLO = '#!/bin/sh\necho "run greeting" >&3\necho "done fine" >&3\n'


class Ear:
    """A listener of a hub, and what it has heard so far."""

    def __init__(self, hub: Hub, **given: Any) -> None:
        self.heard: list[Event] = []
        self._events = hub.listen(**given)

    async def next(self) -> Event:
        async with asyncio.timeout(PATIENCE):
            self.heard.append(await anext(self._events))
        return self.heard[-1]

    async def until(self, kind: str, queue: str = "", **fields: Any) -> Event:
        """The next event of this type, of this queue if one is given, with these fields."""
        while True:
            event = await self.next()
            fits = all(event.data.get(name) == value for name, value in fields.items())
            if event.type == kind and queue in ("", event.queue) and fits:
                return event

    async def all(self) -> list[Event]:
        """What is there to hear without waiting for more."""
        heard = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                async for event in self._events:
                    heard.append(event)  # noqa: PERF401 - those before the time-out count
        return heard


@contextlib.asynccontextmanager
async def hub_of(rq: RunningInstance, spool: type[Spool] = Spool) -> AsyncIterator[Hub]:
    """A hub that follows the instance, as the site has one."""
    made = spool(Instance(rq.directory))
    hub = Hub(made)
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()
        made.close()


@pytest.fixture
def rq(rq_instance: RunningInstance) -> RunningInstance:
    rq_instance.queue("test", HELLO)
    return rq_instance.start()


def following(
    act: Callable[[Hub, Ear], Awaitable[None]], rq: RunningInstance, spool: type[Spool] = Spool
) -> None:
    """Run it with a hub that follows the queue ``test``, and an ear from its beginning on."""

    async def run() -> None:
        async with hub_of(rq, spool) as hub:
            ear = Ear(hub)
            await ear.until("queue", "test", status="UP")
            await act(hub, ear)

    asyncio.run(run())


def told(*kinds: str) -> Hub:
    """A hub of no instance that has been told such events."""
    hub = Hub(Spool(Instance(Path("/nowhere"))))
    for number, kind in enumerate(kinds):
        hub.tell(kind, "test", {"n": number})
    return hub


# --- what is told


def test_all_that_happens_to_a_message_is_told(rq: RunningInstance) -> None:
    async def act(_: Hub, ear: Ear) -> None:
        assert [(e.type, e.queue) for e in ear.heard] == [("reset", "test"), ("queue", "test")]
        msg_id = rq.send("test", due=5)
        done = await ear.until("state", new="done")
        assert (done.data["status"], done.data["due"], done.data["msg_id"]) == ("fine", 5, msg_id)
        states = [e for e in ear.heard if e.type == "state"]
        assert [e.data["step"] for e in states] == ["create", "start", "finish"]
        times = [e.data["at"] for e in states]
        assert times == sorted(times)
        said = [e.data["status"] for e in ear.heard if e.type == "status"]
        assert "greeting" in said
        counts = (await ear.until("counts", "test")).data["counts"]
        assert counts == {"prep": 0, "que": 0, "run": 0, "done": 1, "relayed": 0, "err": 0}
        numbers = [event.number for event in ear.heard]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len({event.id for event in ear.heard}) == len(numbers)

    following(act, rq)


def test_a_queue_that_is_another_is_told(rq: RunningInstance) -> None:
    async def act(_: Hub, ear: Ear) -> None:
        rq.manager.ask("pause_queue", "test")
        await ear.until("queue", "test", status="PAUSE", oper="UP", problem="")
        rq.manager.ask("resume_queue", "test")
        await ear.until("queue", "test", status="UP")

    following(act, rq)


def test_queues_come_go_and_come_again(rq: RunningInstance) -> None:
    async def act(hub: Hub, ear: Ear) -> None:
        for _ in range(2):
            rq.manager.ask(
                "create_queue", {"name": "new", "script": str(rq.directory / "code/test.script")}
            )
            await ear.until("child", "new", state="running")
            await ear.until("reset", "new")
            rq.send("new")
            await ear.until("state", "new", new="done")
            rq.manager.ask("delete_queue", "new")
            await ear.until("child", "new", state="stopped")
        rq.send("test")
        await ear.until("state", "test", new="done")
        assert list(hub._queues) == ["test"]

    following(act, rq)


def test_a_queue_whose_process_is_killed_is_followed_again(rq: RunningInstance) -> None:
    async def act(_: Hub, ear: Ear) -> None:
        for restarts in (1, 2):
            rq.kill(rq.ask("test", "describe")["pid"])
            lost = await ear.until("child", "test", state="waiting")
            assert lost.data["problem"] == "was killed by signal 9"
            await ear.until("child", "test", state="running", restarts=restarts)
            await ear.until("reset", "test")
            await ear.until("queue", "test", status="UP")
            rq.send("test")
            await ear.until("state", "test", new="done")

    following(act, rq)


def test_a_queue_that_cannot_run_is_told_with_the_reason_and_followed_when_it_can(
    rq: RunningInstance,
) -> None:
    config = rq.directory / "queue/test/config.json"
    good = config.read_text()

    async def act(hub: Hub, ear: Ear) -> None:
        config.write_text("{")
        rq.kill(rq.ask("test", "describe")["pid"])
        await ear.until("child", "test", state="failed")
        condition = await ear.until("queue", "test", status="ERROR")
        while "config.json" not in condition.data["problem"]:
            condition = await ear.until("queue", "test", status="ERROR")
        while hub._counting:  # who listens is told the counts, too, when something changed
            await asyncio.wait(hub._tasks, return_when=asyncio.FIRST_COMPLETED)
        assert not timers(), "it is asked again and again whether it runs"
        config.write_text(good)
        rq.manager.ask("reload")
        await ear.until("reset", "test")
        rq.send("test")
        await ear.until("state", "test", new="done")

    following(act, rq)


def timers() -> list[object]:
    """What would wake this process up though nothing happens."""
    scheduled: list[asyncio.TimerHandle] = getattr(asyncio.get_running_loop(), "_scheduled")  # noqa: B009 - nobody else knows
    return [handle for handle in scheduled if not handle.cancelled()]


def test_nothing_wakes_up_while_nothing_happens(rq: RunningInstance) -> None:
    async def act(_: Hub, ear: Ear) -> None:
        rq.send("test")
        await ear.until("counts", "test")
        before = rq.ask("test", "describe")["wakeups"]
        assert not timers()
        # The question itself is the only thing that the queue's process wakes up for.
        assert rq.ask("test", "describe")["wakeups"] - before <= 3

    following(act, rq)


def test_when_the_manager_is_lost_and_found_everything_is_looked_at_anew(
    rq: RunningInstance,
) -> None:
    async def act(hub: Hub, ear: Ear) -> None:
        rq.send("test")
        seen = (await ear.until("state", new="done")).id
        assert rq.process is not None
        manager, queue = rq.process.pid, rq.ask("test", "describe")["pid"]
        before = len(ear.heard)
        rq.kill(manager)
        rq.wait()
        with contextlib.suppress(ProcessLookupError):
            rq.kill(queue)
        rq.start()
        reset = await ear.until("reset")
        while reset.queue:
            reset = await ear.until("reset")
        # The queue and the manager are found again in any order.
        while not any(
            event.type == "queue" and event.data.get("status") == "UP"
            for event in ear.heard[before:]
        ):
            await ear.next()
        msg_id = rq.send("test")
        await ear.until("state", "test", new="done", msg_id=msg_id)
        late = Ear(hub, since=seen)
        assert (await late.next()).type == "reset", "ids from before are not known any more"

    following(act, rq)


class WithoutManager(Spool):
    """Its manager ends what the hub follows at once, the first time, while the queues go on."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self.times = itertools.count()
        peer, spool = self.manager, self

        class Ending:
            call, ask, close = peer.call, peer.ask, peer.close

            @contextlib.asynccontextmanager
            async def subscribe(self, args: Mapping[str, Any]) -> AsyncIterator[Any]:
                async with peer.subscribe(args) as events:
                    yield _none() if next(spool.times) == 0 else events

        self.manager = cast("Any", Ending())


def test_a_queue_that_went_on_while_the_manager_was_lost_is_told_of_again(
    rq: RunningInstance,
) -> None:
    """A listener was told to look anew in place of all that waited for him, that queue's too."""

    async def act(_: Hub, ear: Ear) -> None:
        reset = await ear.until("reset")
        while reset.queue:
            reset = await ear.until("reset")
        await ear.until("queue", "test", status="UP")

    following(act, rq, WithoutManager)


class CutOff(Spool):
    """Its queues cut the hub off at once, the first two times, and then do not answer once."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self.times = itertools.count()

    def queue(self, name: str) -> Any:
        peer = super().queue(name)
        spool = self

        class Cutting:
            call, ask = peer.call, peer.ask

            @contextlib.asynccontextmanager
            async def subscribe(self, args: Mapping[str, Any]) -> AsyncIterator[Any]:
                time = next(spool.times)
                if time == 2:
                    raise UnreachableError("it does not answer")
                async with peer.subscribe(args) as events:
                    yield _none() if time < 2 else events

        return Cutting()


async def _none() -> AsyncIterator[Any]:
    return
    yield


def test_one_that_runs_and_has_cut_us_off_is_followed_again(rq: RunningInstance) -> None:
    async def act(_: Hub, ear: Ear) -> None:
        await ear.until("reset", "test")
        await ear.until("reset", "test")
        rq.send("test")
        await ear.until("state", "test", new="done")

    following(act, rq, CutOff)


class Broken(Spool):
    """A defect of ours."""

    async def ask(self, name: str, command: str, args: Mapping[str, Any] | None = None) -> Any:
        if command == "num_messages":
            raise RuntimeError("a defect")
        return await super().ask(name, command, args)


def test_what_fails_in_the_background_is_told(
    rq: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(hub: Hub, ear: Ear) -> None:
        for _ in range(2):
            rq.send("test")
            await ear.until("state", new="done")
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait(hub._tasks, return_when=asyncio.FIRST_COMPLETED)

    caplog.set_level(logging.ERROR)
    following(act, rq, Broken)
    assert "a task of the hub failed" in caplog.text


# --- listening


def test_whoever_comes_back_gets_what_he_missed() -> None:
    async def run() -> None:
        hub = told("state", "state")
        seen = hub.last_id
        for number in range(3):
            hub.tell("status", "test", {"n": number})
        assert [e.data["n"] for e in await Ear(hub, since=seen).all()] == [0, 1, 2]
        assert await Ear(hub, since=hub.last_id).all() == []
        first = f"{seen.partition('-')[0]}-0"
        assert len(await Ear(hub, since=first).all()) == 5
        few = Ear(hub, since=first, wanted=wanting("test", ["state"]))
        assert [e.type for e in await few.all()] == ["state", "state"]

    asyncio.run(run())


@pytest.mark.parametrize(
    "since",
    ["x", "-", "EPOCH-", "EPOCH-3", "EPOCH-x", "EPOCH--1", "0-1", "EPOCH-" + "9" * 6000, "2"],
)
def test_an_id_that_is_not_known_means_to_look_anew(since: str) -> None:
    async def run() -> None:
        hub = told("state", "state")
        ear = Ear(hub, since=since.replace("EPOCH", hub.last_id.partition("-")[0]))
        (reset,) = await ear.all()
        assert (reset.type, reset.queue, reset.id) == ("reset", "", hub.last_id)
        hub.tell("state", "test", {})
        assert [e.type for e in await Ear(hub, since=reset.id).all()] == ["state"]

    asyncio.run(run())


def test_what_is_told_between_the_call_and_the_first_look_is_heard() -> None:
    async def run() -> None:
        hub = told("state")
        ear = Ear(hub)
        hub.tell("status", "test", {})
        assert [e.type for e in await ear.all()] == ["status"]

    asyncio.run(run())


def test_only_so_much_is_remembered() -> None:
    async def run() -> None:
        hub = told("state")
        first = hub.last_id
        for number in range(5000):
            hub.tell("state", "test", {"n": number})
        assert len(await Ear(hub, since=first).all()) == 5000
        hub.tell("state", "test", {})
        assert [e.type for e in await Ear(hub, since=first).all()] == ["reset"]
        for _ in range(300):
            hub.tell("status", "test", {"status": "x" * 65536})
        kept = await Ear(hub, since=hub._past[0].id).all()
        assert sum(len(e.data["status"]) for e in kept) <= 8 << 20

    asyncio.run(run())


def test_a_listener_that_does_not_keep_up_looks_anew_and_harms_nobody() -> None:
    async def run() -> None:
        hub = told()
        slow, quick = Ear(hub), Ear(hub)
        for ear in (slow, quick):  # they listen now
            hub.tell("state", "test", {})
            assert (await ear.next()).type == "state"
        await quick.all()
        heard = 0
        for number in range(12_000):
            hub.tell("state", "test", {"n": number})
            if number % 1000 == 0:
                heard += len(await quick.all())
        heard += len(await quick.all())
        assert heard == 12_000
        late = await slow.all()
        assert late[0].type == "reset"
        assert [e.data["n"] for e in late[1:]] == list(range(12_000 - len(late) + 1, 12_000))
        assert len(late) <= 5001

    asyncio.run(run())


@pytest.mark.parametrize("breaks", ["tap", "listener"])
def test_one_that_breaks_harms_nobody(breaks: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        hub = told()

        def broken(event: Event) -> Any:
            raise ValueError(f"cannot bear {event.type}")

        heard: list[str] = []
        bad = Ear(hub, **({"wanted": broken} if breaks == "listener" else {}))
        good = Ear(hub)
        if breaks == "tap":
            hub.tap(broken)
        hub.tap(lambda event: heard.append(event.type))
        await bad.all()
        hub.tell("state", "test", {})
        assert [e.type for e in await good.all()] == ["state"]
        assert heard == ["state"]
        await bad._events.aclose()

    asyncio.run(run())
    assert caplog.text.count("ValueError: cannot bear state") >= 1


def test_closing_ends_every_listener() -> None:
    async def run() -> None:
        hub = told()
        waiting = [asyncio.create_task(Ear(hub).next()) for _ in range(3)]
        await asyncio.sleep(0)
        hub.close()
        for task in waiting:
            with pytest.raises(StopAsyncIteration):
                await task
        with pytest.raises(StopAsyncIteration):
            await Ear(hub).next()
        assert not hub._listeners

    asyncio.run(run())


@pytest.mark.parametrize(
    ("queue", "types", "expected"),
    [
        ("", (), ["state a", "reset a", "reset b", "reset", "child"]),
        ("a", (), ["state a", "reset a", "reset", "child"]),
        ("", ("state",), ["state a", "reset a", "reset b", "reset"]),
        ("b", ("status",), ["reset b", "reset"]),
    ],
)
def test_what_is_wanted(queue: str, types: tuple[str, ...], expected: list[str]) -> None:
    hub = Hub(Spool(Instance(Path("/nowhere"))))
    heard: list[str] = []
    wanted = wanting(queue, types)
    hub.tap(
        lambda event: heard.append(f"{event.type} {event.queue}".strip()) if wanted(event) else None
    )
    for kind, name in (
        ("state", "a"),
        ("reset", "a"),
        ("reset", "b"),
        ("reset", ""),
        ("child", ""),
    ):
        hub.tell(kind, name, {})
    assert heard == expected
