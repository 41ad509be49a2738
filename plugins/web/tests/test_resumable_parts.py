"""The parts of resumable uploads by themselves: bytes on disk, records, room, whose turn it is."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rqcore_web import flow
from rqcore_web.flow import Flow
from rqcore_web.formnames import BodyError
from rqcore_web.options import Options
from rqcore_web.problems import ProblemError
from rqcore_web.resumable import partfile, partial, shelf
from rqcore_web.resumable.partfile import PartFile
from rqcore_web.resumable.partial import Partial
from rqcore_web.resumable.record import Records, boot_id
from rqcore_web.resumable.shelf import Shelf
from rqcore_web.space import Space

from rqcore.errors import NotFoundError, UnreachableError
from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from rqcore_web.events import Event
    from rqcore_web.site import Site

MEGA = 1 << 20


class Queues:
    """What uploads ask of the spool: the state of each message, as the test has it."""

    def __init__(self) -> None:
        self.states: dict[str, str | Exception] = {}

    async def ask(self, _queue: str, _command: str, args: dict[str, Any]) -> str:
        state = self.states.get(args["msg_id"], NotFoundError("msg not found"))
        if isinstance(state, Exception):
            raise state
        return state


def make_site(tmp: Path, **options: Any) -> Site:
    """As much of a site as uploads see; what the hub hears is told to ``site.hear``."""
    heard: list[Callable[[Event], None]] = []
    told: list[dict[str, Any]] = []
    site = SimpleNamespace(
        options=Options(**options), tmp=tmp, instance=SimpleNamespace(directory=tmp / "instance"),
        hub=SimpleNamespace(tap=heard.append, mention=lambda *event: told.append(event[2])),
        spool=Queues(), heard=heard, told=told,
    )  # fmt: skip
    site.shelf = Shelf(cast("Site", site))
    return cast("Site", site)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


@pytest.fixture(autouse=True)
def nothing_stays_promised() -> Iterator[None]:
    yield
    assert Space.promised == 0


async def create(
    site: Site, name: str = "f", length: int | None = None, msg_id: str = "m"
) -> Partial:
    queues = cast("Queues", site.spool)
    queues.states.setdefault(msg_id, "prep")
    return await site.shelf.create("q", msg_id, name, length, "", "who")


async def until(fact: Callable[[], object]) -> None:
    """Wait until this is so."""
    async with asyncio.timeout(PATIENCE):
        while not fact():
            await asyncio.to_thread(threading.Event().wait, 0.005)


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def receive(upload: Partial, data: bytes | AsyncIterator[bytes]) -> None:
    stream = pieces(data) if isinstance(data, bytes) else data
    async with upload.turn() as turn:
        await upload.receive(stream, turn)


def content(upload: Partial) -> bytes:
    return Path(path(upload)).read_bytes()


def path(upload: Partial) -> str:
    return upload.attachable(cast("Any", None)).path


def digests(data: bytes) -> tuple[int, str, str]:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return len(data), md5, hashlib.sha256(data).hexdigest()


def reloaded(site: Site) -> Site:
    """The site after its service was killed and started again."""
    for one in site.shelf.all():
        one.stop()
    made = make_site(site.tmp, keep_free=site.options.keep_free)
    made.shelf.load()
    return made


# --- blocks on their way


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=10), st.integers(1, 50), st.integers(0, 12))
def test_whoever_is_cancelled_has_lost_no_bytes(
    monkeypatch: pytest.MonkeyPatch, data: list[bytes], block: int, turns: int
) -> None:
    """Wherever a writer is cancelled: what it was given until then is written, in order."""
    monkeypatch.setattr(flow, "_BLOCK", block)
    written, taken = bytearray(), bytearray()

    async def run() -> None:
        one = Flow(written.extend)

        async def feed() -> None:
            for piece in data:
                taken.extend(piece)
                await one.write(piece)

        task = asyncio.ensure_future(feed())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.drain()

    asyncio.run(run())
    assert written == taken


def test_what_a_write_fails_with_is_told_once_and_nothing_is_written_after_it() -> None:
    calls: list[int] = []

    def put(block: bytearray) -> None:
        calls.append(len(block))
        raise OSError(errno.ENOSPC, "full")

    async def run() -> None:
        one = Flow(put)
        await one.write(b"x" * MEGA)
        with pytest.raises(OSError, match="full"):
            await one.write(b"y" * MEGA)
        await one.drain()

    asyncio.run(run())
    assert calls == [MEGA]


# --- the bytes on disk


def part(tmp_path: Path, size: int = 0, synced: int = 0) -> tuple[PartFile, list[int]]:
    noted: list[int] = []
    return PartFile(str(tmp_path / "part"), size, synced, noted.append), noted


@given(st.lists(st.binary(max_size=30), max_size=6), st.integers(0, 100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_digests_are_the_same_wherever_a_process_ended(
    tmp_path: Path, data: list[bytes], cut: int
) -> None:
    whole = b"".join(data)
    (tmp_path / "part").write_bytes(whole[:cut])
    file, _ = part(tmp_path, len(whole[:cut]))
    assert file.behind == bool(whole[:cut])
    at = len(whole[:cut])
    file.write(memoryview(whole[at : at + 7]))
    if file.behind:
        file.catch_up()
    file.write(memoryview(whole[at + 7 :]))
    file.sync()
    file.close()
    found = file.digest()
    assert (found.size, found.md5, found.sha256) == digests(whole)
    assert (tmp_path / "part").read_bytes() == whole
    (tmp_path / "part").unlink()


def test_bytes_may_come_while_those_before_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every moment at which a block can come between two reads."""
    monkeypatch.setattr(partfile, "_READ", 3)
    old, new = os.urandom(20), [os.urandom(5) for _ in range(8)]
    (tmp_path / "part").write_bytes(old)
    file, _ = part(tmp_path, len(old))
    rest, pread = list(new), os.pread

    def reading(fd: int, size: int, at: int) -> bytes:
        data = pread(fd, size, at)
        if rest:
            file.write(memoryview(rest.pop(0)))
        return data

    monkeypatch.setattr(os, "pread", reading)
    file.catch_up()
    assert not file.behind
    for block in rest:
        file.write(memoryview(block))
    file.close()
    found = file.digest()
    assert (found.size, found.md5, found.sha256) == digests(old + b"".join(new))


def test_a_write_that_fails_leaves_what_was_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = part(tmp_path)
    file.write(memoryview(b"12345"))
    write = os.write
    calls: list[int] = []

    def failing(fd: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:3])

    monkeypatch.setattr(os, "write", failing)
    with pytest.raises(OSError, match="No space"):
        file.write(memoryview(b"67890"))
    monkeypatch.undo()
    assert (tmp_path / "part").read_bytes() == b"12345"
    file.write(memoryview(b"67890"))
    file.close()
    assert (file.digest().size, file.digest().sha256) == (
        10,
        hashlib.sha256(b"1234567890").hexdigest(),
    )


def test_what_could_not_be_cut_off_after_a_write_that_failed_is_cut_off_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = part(tmp_path)
    file.write(memoryview(b"12345"))
    write = os.write

    def failing(fd: int, data: Any) -> int:
        if len(data) < 5:
            raise OSError(errno.EIO, "Input/output error")
        return write(fd, data[:3])

    def refused(_fd: int, _size: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "write", failing)
    monkeypatch.setattr(os, "ftruncate", refused)
    with pytest.raises(OSError, match="Read-only"):
        file.write(memoryview(b"67890"))
    monkeypatch.undo()
    file.close()
    assert (file.size, (tmp_path / "part").read_bytes()) == (5, b"12345678")
    file.write(memoryview(b"67890"))
    file.close()
    assert (tmp_path / "part").read_bytes() == b"1234567890"
    assert file.digest().sha256 == hashlib.sha256(b"1234567890").hexdigest()


def test_nothing_is_written_behind_a_file_that_is_shorter_than_it_was(tmp_path: Path) -> None:
    file, _ = part(tmp_path)
    file.write(memoryview(b"12345"))
    file.close()
    (tmp_path / "part").write_bytes(b"123")
    with pytest.raises(OSError, match="shorter than it was"):
        file.write(memoryview(b"67890"))
    assert file.size == 5


def test_it_is_brought_to_the_disk_and_noted_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partfile, "_FLUSH", 10)
    monkeypatch.setattr(partfile, "_NOTE", 25)
    file, noted = part(tmp_path)
    for _ in range(12):
        file.write(memoryview(b"12345"))
    file.close()
    assert noted == [30, 60]


def test_a_file_that_is_shorter_than_it_was_cannot_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"123")
    file, _ = part(tmp_path, 5)
    with pytest.raises(OSError, match="shorter than it was"):
        file.catch_up()


# --- after the end of a process, and of the machine


def test_after_the_end_of_a_process_all_is_there_and_of_the_machine_what_was_synced(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partfile, "_FLUSH", MEGA)
    monkeypatch.setattr(partfile, "_NOTE", MEGA)
    data = os.urandom(2 * MEGA + 99)

    async def run() -> None:
        upload = await create(site)
        await receive(upload, pieces(data[:MEGA], data[MEGA : 2 * MEGA], data[2 * MEGA :]))
        assert reloaded(site).shelf.get(upload.record.uid).offset == len(data)
        for boot in ("another boot", ""):
            monkeypatch.setattr("rqcore_web.resumable.record.boot_id", lambda boot=boot: boot)
            (found,) = reloaded(site).shelf.all()
            assert found.offset == 2 * MEGA
        # From now on this boot is the one that counts.
        monkeypatch.setattr("rqcore_web.resumable.record.boot_id", lambda: "another boot")
        (found,) = reloaded(site).shelf.all()
        await receive(found, data[2 * MEGA :])
        (found,) = reloaded(site).shelf.all()
        assert found.offset == len(data)
        digest = await found.finish()
        assert (digest.size, digest.md5, digest.sha256) == digests(data)
        await found.end(NotFoundError("over"))

    asyncio.run(run())
    assert os.listdir(site.tmp) == []


def test_this_machine_has_a_boot() -> None:
    assert len(boot_id()) == 36


def test_a_complete_one_stays_known(site: Site) -> None:
    async def run() -> None:
        upload = await create(site, length=4)
        await receive(upload, b"data")
        digest = await upload.finish()
        await upload.attached(digest)
        assert len(os.listdir(site.tmp)) == 1
        (found,) = reloaded(site).shelf.all()
        assert (found.complete, found.offset, found.left) == (True, 4, 0)
        assert await found.settled() == 4
        assert found.record.digest == {
            "size": 4, "md5": digest.md5, "sha256": digest.sha256,
        }  # fmt: skip
        await found.end(NotFoundError("over"))

    asyncio.run(run())
    assert os.listdir(site.tmp) == []


def test_whoever_finishes_while_it_is_still_read_again_is_told_to_ask_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "_PATIENCE", 0.01)
    go_on, pread = threading.Event(), os.pread

    def reading(fd: int, size: int, at: int) -> bytes:
        assert go_on.wait(PATIENCE)
        return pread(fd, size, at)

    async def run() -> None:
        await receive(await create(site, length=4), b"data")
        (found,) = reloaded(site).shelf.all()
        monkeypatch.setattr(os, "pread", reading)
        with pytest.raises(ProblemError, match=r"upload-checking") as caught:
            await found.finish()
        assert caught.value.headers == {"Retry-After": "5"}
        assert "the last 4 of them" in caught.value.detail
        go_on.set()
        monkeypatch.setattr(partial, "_PATIENCE", PATIENCE)
        assert (await found.finish()).sha256 == hashlib.sha256(b"data").hexdigest()
        await found.end(NotFoundError("over"))

    asyncio.run(run())


def test_what_cannot_be_read_again_is_told(site: Site) -> None:
    async def run() -> None:
        await receive(await create(site, length=4), b"data")
        (found,) = reloaded(site).shelf.all()
        os.truncate(path(found), 2)
        for _ in range(2):
            with pytest.raises(ProblemError, match=r"cannot be read again: .*shorter"):
                await found.finish()
        await found.end(NotFoundError("over"))

    asyncio.run(run())


# --- whose turn it is


def test_one_that_finishes_is_not_disturbed(site: Site) -> None:
    async def run() -> None:
        upload = await create(site, length=4)
        done: list[str] = []

        async def first() -> None:
            async with upload.turn() as turn:
                await upload.receive(pieces(b"data"), turn)
                finishing.set()
                await go_on.wait()
                done.append("first")

        finishing, go_on = asyncio.Event(), asyncio.Event()
        task = asyncio.ensure_future(first())
        await finishing.wait()
        assert await upload.settled() == 4  # who only asks is told at once

        async def second() -> None:
            async with upload.turn():
                done.append("second")

        later = asyncio.ensure_future(second())
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(task, later)
        assert done == ["first", "second"]
        await upload.end(NotFoundError("over"))

    asyncio.run(run())


def test_who_asks_for_the_offset_is_told_what_is_on_its_way_to_the_disk_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is cut while its last bytes wait for a slow disk: they came, and count."""
    begun, go_on, write = threading.Event(), threading.Event(), PartFile.write

    def slow_write(part: PartFile, block: memoryview) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        write(part, block)

    monkeypatch.setattr(PartFile, "write", slow_write)

    async def cut() -> AsyncIterator[bytes]:
        yield b"data"
        raise ConnectionResetError

    async def run() -> None:
        upload = await create(site, length=8)
        first = asyncio.ensure_future(receive(upload, cut()))
        await asyncio.to_thread(begun.wait, PATIENCE)
        asked = asyncio.ensure_future(upload.settled())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asked.done()
        go_on.set()
        assert await asked == 4
        with pytest.raises(ConnectionResetError):
            await first
        await upload.end(NotFoundError("over"))

    asyncio.run(run())


def test_one_that_was_still_looked_at_when_a_newer_one_came_brings_nothing(site: Site) -> None:
    """Its connection may be cut long since: an offset that was told holds, and the newer one works."""

    async def late(upload: Partial, arrival: int) -> None:
        with pytest.raises(ProblemError, match="newer"):
            async with upload.turn(arrival):
                pytest.fail("it had a turn")

    async def run() -> None:
        upload = await create(site, length=4)
        arrival = upload.arrived()
        assert await upload.settled() == 0
        await late(upload, arrival)
        arrival = upload.arrived()
        async with upload.turn() as turn:
            await late(upload, arrival)
            await upload.receive(pieces(b"data"), turn)
        assert upload.offset == 4
        await upload.end(NotFoundError("over"))

    asyncio.run(run())


def test_of_many_that_come_the_last_one_works(site: Site) -> None:
    """Each takes over from the one before; all bytes that were taken are there, in order."""
    blocks = [bytes([n]) * 1000 for n in range(20)]

    async def run() -> None:
        upload = await create(site)

        async def stream(block: bytes) -> AsyncIterator[bytes]:
            yield block
            if block is not blocks[-1]:
                await asyncio.Event().wait()

        async def one(block: bytes) -> None:
            async with upload.turn() as turn:
                await upload.receive(stream(block), turn)

        answers = await asyncio.gather(*map(one, blocks), return_exceptions=True)
        assert answers[-1] is None
        assert {type(answer) for answer in answers[:-1]} == {ProblemError}
        data = content(upload)
        assert data.endswith(blocks[-1])
        assert list(data[::1000]) == sorted(set(data))
        digest = await upload.finish()
        assert (digest.size, digest.md5, digest.sha256) == digests(data)
        await upload.end(NotFoundError("over"))

    asyncio.run(run())


def test_whoever_waits_for_one_that_is_gone_is_told_why(site: Site) -> None:
    async def run() -> None:
        upload = await create(site)
        await site.shelf.drop(upload, "it was cancelled")
        for asked in (upload.settled(), receive(upload, b"x")):
            with pytest.raises(NotFoundError, match="it was cancelled"):
                await asked
        with pytest.raises(NotFoundError, match="begin anew"):
            site.shelf.get(upload.record.uid)

    asyncio.run(run())


def test_it_is_told_how_far_it_is_and_not_too_often(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        told = cast("Any", site).told
        monkeypatch.setattr(partial, "_TOLD_EVERY", PATIENCE)
        upload = await create(site, length=5 * MEGA)
        await receive(upload, pieces(*[b"x" * MEGA] * 5))
        told_of = [(one["offset"], one["active"], one["over"]) for one in told]
        assert told_of[0] == (0, False, False)
        assert told_of[-1] == (5 * MEGA, False, False)
        assert len(told_of) == 2
        monkeypatch.setattr(partial, "_TOLD_EVERY", 0.0)
        del told[:]
        other = await create(site, "g")
        await receive(other, pieces(*[b"x" * MEGA] * 5))
        assert len(told) == 7
        assert {one["id"] for one in told} == {other.record.uid}
        for one in (upload, other):
            await site.shelf.drop(one, "over")
            assert told[-1]["over"]

    asyncio.run(run())


# --- room


def promised() -> int:
    return Space.promised


def room(monkeypatch: pytest.MonkeyPatch, site: Site, size: int) -> None:
    """Let the file system have so many bytes, of which uploads take what they hold."""

    def statvfs(_: str) -> Any:
        held = sum(
            entry.stat().st_size for entry in os.scandir(site.tmp) if ".json" not in entry.name
        )
        return SimpleNamespace(f_bavail=size - held, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", statvfs)


def test_room_is_promised_while_a_client_is_there_and_for_a_while_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, keep_free=0)
    room(monkeypatch, site, 1000)

    async def run() -> None:
        upload = await create(site, "a", 800)
        assert promised() == 800
        with pytest.raises(BodyError, match="no room"):
            await create(site, "b", 300)
        await receive(upload, b"x" * 500)
        assert promised() == 300  # a client that was cut off comes again
        upload.stop()  # as after `client_timeout`: see the next test
        assert not upload.busy
        other = await create(site, "b", 400)
        # And it may go on, as far as there is room then.
        with pytest.raises(BodyError, match="no room"):
            upload.promise(300)
        await other.end(NotFoundError("over"))
        upload.promise(300)
        assert promised() == 300
        await upload.end(NotFoundError("over"))

    asyncio.run(run())


def test_a_client_that_is_silent_for_too_long_is_promised_nothing_any_more(tmp_path: Path) -> None:
    site = make_site(tmp_path, client_timeout=0.05)

    async def run() -> None:
        upload = await create(site, "a", 800)
        await receive(upload, b"x" * 500)
        await until(lambda: not upload.busy)
        assert promised() == 0
        await upload.end(NotFoundError("over"))

    asyncio.run(run())


def test_a_disk_that_is_full_in_the_middle_leaves_what_came_and_its_room_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, keep_free=0)
    room(monkeypatch, site, 10 * MEGA)

    async def run() -> None:
        upload = await create(site, "a", 6 * MEGA)

        async def stream() -> AsyncIterator[bytes]:
            yield b"x" * 2 * MEGA
            await until(lambda: upload.offset == 2 * MEGA)
            room(monkeypatch, site, 2 * MEGA)  # somebody else wrote to the disk
            yield b"x" * MEGA
            yield b"x" * 3 * MEGA

        with pytest.raises(BodyError, match="no room") as caught:
            await receive(upload, stream())
        assert caught.value.status == 507
        assert upload.offset == 2 * MEGA
        assert not upload.busy
        assert promised() == 0
        # There is room again: it goes on where it was.
        room(monkeypatch, site, 10 * MEGA)
        upload.promise(4 * MEGA)
        await receive(upload, b"x" * 4 * MEGA)
        assert (await upload.finish()).size == 6 * MEGA
        await upload.end(NotFoundError("over"))

    asyncio.run(run())


def test_what_nobody_goes_on_with_gives_its_room_to_others_the_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, keep_free=0)
    room(monkeypatch, site, 1000)

    async def run() -> None:
        for age, name in enumerate(("newest", "middle", "oldest")):
            upload = await create(site, name)
            await receive(upload, b"x" * 250)
            upload.stop()  # its client is silent for long
            upload.touched = time() - age
        active = await create(site, "active")
        await receive(active, b"x" * 100)
        for length, names in (
            (100, {"newest", "middle", "oldest", "active"}),  # there is room
            (951, {"newest", "middle", "oldest", "active"}),  # nothing that could be given up helps
            (300, {"newest", "middle", "active"}),
            (899, {"active"}),
        ):
            await site.shelf.make_room(length)
            assert {one.record.name for one in site.shelf.all()} == names
        await site.shelf.drop(active, "over")

    asyncio.run(run())
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_made_is_no_upload(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Records, "write", failing)

    async def run() -> None:
        with pytest.raises(BodyError, match="takes no more") as caught:
            await create(site, length=10)
        assert caught.value.status == 507
        assert site.shelf.all() == []

    asyncio.run(run())
    assert os.listdir(site.tmp) == []


def test_so_many_uploads_are_known_and_no_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MOST", 2)

    async def run() -> None:
        made = [await create(site, name) for name in "ab"]
        with pytest.raises(ProblemError, match="2 uploads are under way already"):
            await create(site, "c")
        made[0] = await create(site, "a")  # one in place of another
        for upload in made:
            await site.shelf.drop(upload, "over")

    asyncio.run(run())


# --- sweeping


async def swept(site: Site) -> set[str]:
    await site.shelf.sweep()
    return {one.record.msg_id for one in site.shelf.all()}


def test_what_is_too_old_or_has_lost_its_message_is_swept(site: Site) -> None:
    async def run() -> None:
        states: dict[str, str | Exception] = {
            "here": "prep", "went": "que", "gone": NotFoundError("msg not found"),
            "silent": UnreachableError("queue q does not run"), "old": "prep",
        }  # fmt: skip
        cast("Queues", site.spool).states.update(states)
        for msg_id in states:
            upload = await create(site, msg_id=msg_id)
            if msg_id == "old":
                upload.touched = time() - 24 * 3600 - 1
        assert await swept(site) == {"here", "silent"}
        again = reloaded(site)
        cast("Queues", again.spool).states.update(states)
        assert await swept(again) == {"here", "silent"}
        for one in again.shelf.all():
            os.utime(path(one), (1, 1))
            os.utime(path(one) + ".json", (1, 1))
        assert await swept(reloaded(again)) == set()

    asyncio.run(run())
    assert os.listdir(site.tmp) == []


def test_what_is_old_is_swept_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "_SWEEP", 0.01)

    async def run() -> None:
        upload = await create(site)
        upload.touched = 0
        await until(lambda: not site.shelf.all())
        await site.shelf.close()

    asyncio.run(run())


def test_an_event_ends_the_uploads_of_its_message_alone(site: Site) -> None:
    def event(kind: str, queue: str, **data: Any) -> Event:
        return cast("Event", SimpleNamespace(type=kind, queue=queue, data=data))

    async def run() -> None:
        (hear,) = cast("Any", site).heard
        for msg_id in ("a", "b"):
            await create(site, "f", msg_id=msg_id)
            await create(site, "g", msg_id=msg_id)
        hear(event("status", "q", msg_id="a"))
        hear(event("state", "q", msg_id="a", new="prep"))
        hear(event("state", "other", msg_id="a", new="que"))
        hear(event("state", "q", msg_id="a", new="que"))
        await until(lambda: len(site.shelf.all()) == 2)
        assert {one.record.msg_id for one in site.shelf.all()} == {"b"}
        # What was missed is looked for.
        cast("Queues", site.spool).states["b"] = "done"
        hear(event("reset", "other"))
        hear(event("reset", "q"))
        await until(lambda: not os.listdir(site.tmp))
        await site.shelf.close()

    asyncio.run(run())
