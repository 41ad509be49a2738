"""The writer: it never waits for the disk, writes the newest, and nothing twice at once."""

from __future__ import annotations

import threading

from rqcore_relay.writer import Writer

from rqcore.testing import PATIENCE


def test_the_newest_is_written_and_many_at_once() -> None:
    newest, written = [0], list[int]()
    writer = Writer(lambda: written.append(newest[0]))
    for _ in range(1000):
        newest[0] += 1
        writer.put()
    writer.flush()
    assert written[-1] == 1000
    assert len(written) < 100
    writer.flush()
    writer.put()
    writer.flush()
    assert written[-1] == 1000


def test_what_comes_while_it_writes_is_written_afterwards() -> None:
    begun, go_on, written = threading.Event(), threading.Event(), list[str]()
    newest = ["first"]

    def write() -> None:
        text = newest[0]
        begun.set()
        assert go_on.wait(PATIENCE)
        written.append(text)

    writer = Writer(write)
    writer.put()
    assert begun.wait(PATIENCE)
    newest[0] = "second"
    writer.put()  # returns although the first is still being written
    assert written == []
    go_on.set()
    writer.flush()
    assert written == ["first", "second"]
