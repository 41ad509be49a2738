"""A message that somebody reads over the web is not cleaned away meanwhile."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from rqcore_web import reading
from rqcore_web.files import file_response
from starlette.requests import Request


@pytest.fixture
def message(tmp_path: Path) -> Path:
    (tmp_path / "msg").write_text("{}")
    (tmp_path / "attach").mkdir()
    (tmp_path / "attach" / "data").write_bytes(b"x" * 1_000_000)
    return tmp_path


def is_read(message: Path) -> bool:
    """As the cleaner asks."""
    fd = os.open(message / "msg", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def request(method: str = "GET") -> Request:
    scope = {"type": "http", "method": method, "path": "/x", "query_string": b"", "headers": []}
    return Request(scope)


def test_a_download_holds_its_message_from_the_request_to_the_last_byte(message: Path) -> None:
    assert not is_read(message)
    answer = file_response(request(), str(message / "attach" / "data"), filename="data")
    held = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(_: Any) -> None:
        held.append(is_read(message))

    asyncio.run(answer({"type": "http", "method": "GET"}, receive, send))
    assert len(held) > 3
    assert all(held)
    assert not is_read(message)


def test_two_can_read_at_once_and_an_answer_that_is_never_sent_lets_go(message: Path) -> None:
    path = str(message / "attach" / "data")
    first, second = (file_response(request(), path, filename="data") for _ in range(2))
    assert is_read(message)
    del first
    assert is_read(message)
    del second
    assert not is_read(message)


def test_whoever_reads_in_a_block_holds_it_to_its_end(message: Path) -> None:
    with reading.held(str(message)):
        assert is_read(message)
    assert not is_read(message)


def test_what_cannot_be_held_is_read_without(message: Path, tmp_path: Path) -> None:
    fd = os.open(message / "msg", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)  # it is being removed
    assert reading.hold(str(message)) == -1
    os.close(fd)
    assert reading.hold(str(tmp_path / "attach")) == -1
    reading.let_go(-1)
