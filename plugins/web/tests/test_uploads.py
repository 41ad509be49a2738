"""Uploads: streamed, hashed, bounded, refused in time, and nothing left behind whatever happens."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rqcore_web import flow
from rqcore_web.forms import BodyError
from rqcore_web.options import Options
from rqcore_web.resumable.shelf import Shelf
from rqcore_web.space import Space
from rqcore_web.uploads import Uploaded, clear_leftovers, incoming, receive

from rqcore.durable import Incoming

if TYPE_CHECKING:
    from rqcore_web.site import Site

MEGA = 1 << 20


def make_site(tmp: Path, **options: Any) -> Site:
    """As much of a site as an upload sees."""
    site = SimpleNamespace(
        options=Options(**options), tmp=tmp, instance=SimpleNamespace(directory=tmp / "instance"),
        hub=SimpleNamespace(tap=lambda _: None, mention=lambda *_: None),
    )  # fmt: skip
    site.shelf = Shelf(cast("Site", site))
    return cast("Site", site)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


@pytest.fixture(autouse=True)
def nothing_stays_promised() -> Any:
    yield
    assert Space.promised == 0


def digest(data: bytes) -> tuple[int, str, str]:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return len(data), md5, hashlib.sha256(data).hexdigest()


def content(uploaded: Uploaded) -> bytes:
    return Path(uploaded.path).read_bytes()


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


@pytest.mark.parametrize("size", [0, 1, MEGA - 1, MEGA, MEGA + 1, 5 * MEGA + 7])
@pytest.mark.parametrize("told", [True, False])
def test_what_comes_lies_on_the_disk_with_its_digests(site: Site, size: int, told: bool) -> None:
    data = os.urandom(size)

    async def run() -> None:
        chunks = [data[i : i + 65_536] for i in range(0, size, 65_536)]
        async with receive(pieces(*chunks), site, size if told else None) as uploaded:
            assert content(uploaded) == data
            found = uploaded.digest
            assert (found.size, found.md5, found.sha256) == digest(data)
            args = uploaded.attach_to("id", "name")
            assert args["pathname"] == uploaded.path
            assert args["digest"] == {"size": size, "md5": found.md5, "sha256": found.sha256}

    asyncio.run(run())
    assert os.listdir(site.tmp) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 60))
def test_however_it_comes_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: list[bytes], block: int
) -> None:
    monkeypatch.setattr(flow, "_BLOCK", block)

    async def run() -> None:
        async with receive(pieces(*data), make_site(tmp_path), None) as uploaded:
            assert content(uploaded) == b"".join(data)

    asyncio.run(run())
    assert os.listdir(tmp_path) == []


def refused(site: Site, length: int | None, *data: bytes) -> BodyError:
    async def run() -> BodyError:
        with pytest.raises(BodyError) as caught:
            async with receive(pieces(*data), site, length):
                raise AssertionError("it was taken")
        return caught.value

    error = asyncio.run(run())
    assert os.listdir(site.tmp) == []
    return error


def test_what_is_too_large_is_refused_before_and_while_it_comes(tmp_path: Path) -> None:
    site = make_site(tmp_path, max_upload=1000)
    for length, data in ((1001, []), (None, [b"x" * 600] * 2)):
        error = refused(site, length, *data)
        assert error.status == 413
        assert "at most 1000 bytes are taken (max_upload)" in str(error)


def room(monkeypatch: pytest.MonkeyPatch, free: list[int]) -> None:
    """Let the file system have so many bytes free: one after the other, the last for ever."""

    def statvfs(path: str) -> Any:
        return SimpleNamespace(f_bavail=free.pop(0) if len(free) > 1 else free[0], f_frsize=1)

    monkeypatch.setattr(os, "statvfs", statvfs)


def test_what_does_not_fit_is_refused_before_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, [1000])
    error = refused(make_site(tmp_path, keep_free=400), 601)
    assert error.status == 507
    assert "1000 bytes free, of which 400 are kept (keep_free), and 601 are needed" in str(error)


@pytest.mark.parametrize("length", [None, 2 * MEGA])
def test_what_does_not_fit_any_more_is_refused_while_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int | None
) -> None:
    room(monkeypatch, [*([100 * MEGA] * (1 if length is None else 2)), 1])
    error = refused(make_site(tmp_path), length, b"x" * MEGA, b"y" * MEGA)
    assert error.status == 507


def test_uploads_under_way_are_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, [1000])
    site = make_site(tmp_path, keep_free=0)

    async def run() -> None:
        async with incoming(site, 600) as first:
            for length in (401, None):
                with pytest.raises(BodyError, match="no room for the upload"):
                    async with receive(pieces(b"x" * 401), site, length):
                        raise AssertionError("it was taken")
            await first.write(b"x" * 600)
            await first.finish()
            assert Space.promised == 0
            async with receive(pieces(b"x" * 401), site, 401):
                pass

    asyncio.run(run())


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EIO, 503), (errno.EROFS, 503)],
)
@pytest.mark.parametrize("act", ["write", "finish"])
def test_a_disk_that_fails_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int, status: int, act: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Incoming, act, fail)
    error = refused(site, None, b"x" * 2 * MEGA, b"y" * 2 * MEGA)
    assert error.status == status
    assert f"{site.tmp} takes no more: {os.strerror(number)}" in str(error)


def test_a_place_that_is_gone_is_told(tmp_path: Path) -> None:
    site = make_site(tmp_path / "gone")

    async def run() -> None:
        for length in (5, None):
            with pytest.raises(BodyError, match="takes no more: No such file") as caught:
                async with receive(pieces(b"12345"), site, length):
                    raise AssertionError("it was taken")
            assert caught.value.status == 503

    asyncio.run(run())


def test_one_block_is_written_while_the_next_is_received_and_no_more_are_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, writes = threading.Event(), []
    really = Incoming.write

    def write(self: Incoming, block: Any) -> None:
        writes.append(len(block))
        assert go_on.wait(30)
        really(self, block)

    monkeypatch.setattr(Incoming, "write", write)

    async def run() -> None:
        async with incoming(site, None) as upload:
            await upload.write(b"x" * MEGA)  # goes to the thread, which waits
            await upload.write(b"y" * (MEGA - 1))  # is gathered meanwhile
            third = asyncio.ensure_future(upload.write(b"z"))
            await asyncio.sleep(0)
            assert not third.done()  # the client is kept waiting
            go_on.set()
            await third
            assert (await upload.finish()).digest.size == 2 * MEGA

    asyncio.run(run())
    assert writes[:2] == [MEGA, MEGA]


@pytest.mark.parametrize("when", ["receiving", "writing"])
def test_whoever_is_cancelled_leaves_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    go_on, under_way = threading.Event(), threading.Event()
    really = Incoming.write

    def write(self: Incoming, block: Any) -> None:
        under_way.set()
        assert go_on.wait(30)
        really(self, block)

    monkeypatch.setattr(Incoming, "write", write)
    if when == "receiving":
        go_on.set()

    async def stream() -> AsyncIterator[bytes]:
        yield b"x" * MEGA
        await asyncio.to_thread(under_way.wait, 30)
        if when == "writing":
            yield b"x" * MEGA
        await asyncio.Event().wait()

    async def upload() -> None:
        async with receive(stream(), site, 5 * MEGA):
            raise AssertionError("it was taken")

    async def run() -> None:
        task = asyncio.ensure_future(upload())
        await asyncio.to_thread(under_way.wait, 30)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert os.listdir(site.tmp) == []


def test_what_a_killed_service_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path)
    monkeypatch.setattr(Incoming, "discard", lambda _: None)
    other = SimpleNamespace(
        options=Options(), tmp=tmp_path, instance=SimpleNamespace(directory="/x"), shelf=site.shelf
    )

    async def leave(of: Site) -> None:
        async with receive(pieces(b"x"), of, None):
            pass

    asyncio.run(leave(site))
    asyncio.run(leave(cast("Site", other)))
    (tmp_path / "mine").touch()
    assert len(os.listdir(tmp_path)) == 3
    clear_leftovers(site)
    assert len(os.listdir(tmp_path)) == 2
    assert "mine" in os.listdir(tmp_path)
