"""``rq top``: on a real terminal, fed by a real system; its pieces by themselves."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_cli.top.draw import View, frame
from rqcore_cli.top.model import Model
from rqcore_cli.top.screen import split_keys

from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Gate, Rq, Terminal

WORDS_TEXT = f"{sys.executable} -m rqcore_cli"
NOW = 1_800_000_000.0


def row(lines: list[str], name: str) -> list[str]:
    return next((line.split() for line in lines if line.startswith(name)), [])


def given_back(screen: Terminal) -> bool:
    modes = screen.current_modes() == screen.modes
    return not screen.other_screen and screen.cursor_shown and modes


# --- as a user sees it


@pytest.mark.process
def test_it_shows_what_happens_while_it_happens(
    rq: Rq, running: RunningInstance, terminal: Callable[..., Terminal], gate: Gate
) -> None:
    running.queue("other", "#!/bin/sh\necho done >&3\n")
    running.manager.ask("reload")
    screen = terminal()
    screen.until(lambda t: row(t.lines, "work")[1:2] == ["UP"])
    assert not given_back(screen)
    waits = running.send("work", param1="wait", param3=gate.path)
    lines = screen.until("working")
    assert row(lines, "work")[2:5] == ["0", "1/2", "0"], "QUE, RUN, ERR"
    assert any(f"work/{waits}" in line for line in lines)
    running.send("work", param1="err", param2="badly")
    lines = screen.until("said badly")
    assert row(screen.until(lambda t: row(t.lines, "work")[4:5] == ["1"]), "work")[3] == "1/2"
    gate.open()
    lines = screen.until("waited")
    assert [line for line in lines if waits in line and " done " in line]
    reason = running.directory / "reason"
    reason.write_text("until Monday\n")
    reason.rename(running.directory / "config" / "work.pause")
    screen.until(lambda t: row(t.lines, "work")[1:2] == ["PAUSE"])
    screen.type("\x1b[F")
    screen.until("work: until Monday")

    screen.type("/oth")
    screen.until("filter: oth")
    screen.type("\r")
    lines = screen.until(lambda t: not row(t.lines, "work") and row(t.lines, "other"))
    screen.type("\x1b")
    screen.until(lambda t: row(t.lines, "work"))
    screen.type("\x1b[C\x1b[C")
    screen.until("by run")
    screen.type("p")
    screen.until("PAUSED")
    running.send("other")
    running.until("other", running.send("other"))
    assert not any("other/" in line for line in screen.lines), "the picture stands still"
    screen.type("p")
    screen.until("other/")

    screen.resize(40, 12)
    lines = screen.until(lambda t: max(map(len, t.lines)) <= 40 and row(t.lines, "work"))
    assert len(lines) == 12
    screen.type("q")
    assert screen.wait() == 0
    assert given_back(screen)


@pytest.mark.process
@pytest.mark.parametrize(
    "how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda n: n.name
)
def test_the_terminal_is_given_back_when_it_is_ended(
    how: signal.Signals, rq: Rq, running: RunningInstance, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal()
    screen.until("work")
    assert screen.current_modes() != screen.modes
    os.kill(screen.process.pid, how)
    assert screen.wait() == (130 if how is signal.SIGINT else -how)
    assert given_back(screen)


@pytest.mark.process
def test_control_z_gives_the_terminal_to_the_shell_and_fg_takes_it_again(
    rq: Rq, running: RunningInstance, terminal: Callable[..., Terminal]
) -> None:
    rq.environ["PS1"] = "shell> "
    shell = terminal("bash", "--norc", "--noprofile", "-i")
    shell.until(lambda t: "shell> " in t.usual)
    shell.type(f"{WORDS_TEXT} top\r")
    shell.until("work")
    shell.type("\x1a")
    shell.until(lambda t: not t.other_screen and "Stopped" in t.usual)
    assert shell.cursor_shown
    shell.type("fg\r")
    shell.until("work")
    shell.type("q")
    shell.until(lambda t: not t.other_screen)
    shell.type("exit\r")
    assert shell.wait() == 0


@pytest.mark.process
def test_it_outlives_the_system_and_sees_it_come_back(
    rq: Rq, running: RunningInstance, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal()
    screen.until(lambda t: row(t.lines, "work")[1:2] == ["UP"])
    running.queue("newer", "#!/bin/sh\n")
    running.manager.ask("reload")
    screen.until(lambda t: row(t.lines, "newer")[1:2] == ["UP"])
    running.manager.ask("delete_queue", "newer")
    screen.until(lambda t: not row(t.lines, "newer"))
    pid = running.ask("work", "describe")["pid"]
    running.kill(pid)
    screen.until(lambda t: row(t.lines, "work")[1:2] == ["UP"])
    assert running.process is not None
    running.process.send_signal(signal.SIGTERM)
    assert running.wait() == 0
    screen.until("RQ does not run")
    running.start()
    screen.until(lambda t: row(t.lines, "work")[1:2] == ["UP"])
    screen.type("q")
    assert screen.wait() == 0


@pytest.mark.process
def test_without_a_terminal_it_shows_how_they_are_and_ends(
    rq: Rq, running: RunningInstance, gate: Gate
) -> None:
    waits = running.send("work", param1="wait", param3=gate.path)
    running.until("work", waits, "run", matching=lambda m: "working" in m["status"])
    out = rq("top").out.splitlines()
    assert out[1].split() == ["work", "UP", "0", "0", "1", "0", "0", "0", "1/2"]
    assert out[-1].split()[0] == f"work/{waits}"
    assert out[-1].endswith("working")
    found = rq("top", "--json").json()
    assert [queue["name"] for queue in found["queues"]] == ["work"]
    assert found["queues"][0]["running"][0]["msg_id"] == waits
    assert rq.on_terminal("top", "--once")[0] == 0
    gate.open()
    running.stop()
    assert "rq start" in rq("top", status=5).err


@pytest.mark.process
def test_while_nothing_happens_nothing_is_asked(
    rq: Rq, running: RunningInstance, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal()
    screen.until(lambda t: row(t.lines, "work")[1:2] == ["UP"])
    client = running.client("work")
    before = client.ask("describe")["wakeups"]
    seen = {screen.lines[0][-8:]}

    def two_ticks_later(t: Terminal) -> bool:
        seen.add(t.lines[0][-8:])
        return len(seen) > 2

    screen.until(two_ticks_later)
    # One wake-up may be the asking itself.
    assert client.ask("describe")["wakeups"] - before <= 1
    screen.type("q")
    assert screen.wait() == 0


# --- its pieces


def described(name: str, **more: object) -> dict[str, object]:
    counts = {"prep": 0, "que": 0, "run": 0, "done": 0, "relayed": 0, "err": 0}
    return {"name": name, "status": "UP", "problem": "", "workers": 1, "counts": counts,
            "running": [], **more}  # fmt: skip


def moved(
    old: str | None, new: str | None, msg_id: str = "20270115.0800.00.000.1"
) -> dict[str, object]:
    return {
        "event": "state",
        "msg_id": msg_id,
        "old": old,
        "new": new,
        "status": "said so",
        "at": NOW,
    }


def managed(*names: str) -> dict[str, object]:
    children = [
        {"kind": "queue", "name": name, "state": "running", "problem": ""} for name in names
    ]
    return {"version": "1", "directory": "/rq", "env": "test", "children": children}


def model_of(*names: str) -> Model:
    model = Model()
    model.on_manager(managed(*names), names)
    for name in names:
        model.on_described(name, described(name))
    return model


def test_counts_follow_the_events() -> None:
    model = model_of("a")
    for old, new in ((None, "que"), ("que", "run")):
        assert not model.on_event("a", moved(old, new), NOW)
    queue = model.queues["a"]
    assert (queue.count("que"), queue.count("run"), list(queue.running)) == (
        0,
        1,
        ["20270115.0800.00.000.1"],
    )
    model.on_event(
        "a", {"event": "status", "msg_id": "20270115.0800.00.000.1", "status": "5 of 9"}, NOW
    )
    assert queue.running["20270115.0800.00.000.1"].status == "5 of 9"
    assert queue.doubtful == NOW
    model.on_event("a", moved("run", "err"), NOW)
    assert queue.per_minute(NOW) == (0, 1)
    assert queue.per_minute(NOW + 61) == (0, 0)
    assert not queue.running
    assert model.on_event("a", {"event": "queue", "status": "DOWN", "problem": "full"}, NOW)
    model.on_described("a", described("a", status="DOWN"))
    assert model.queues["a"].doubtful is None
    assert not model.on_event("a", {"event": "of a later version"}, NOW)


def test_a_queue_that_is_deleted_is_shown_no_more() -> None:
    model = model_of("a", "b")
    model.on_manager(managed("a"), ["a"])
    assert list(model.queues) == ["a"]
    model.on_manager(managed("a"), ["a", "made by hand"])
    assert model.queues["made by hand"].status == "not started"


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


@given(
    st.lists(names, max_size=30, unique=True), st.integers(1, 200), st.integers(1, 60),
    st.text(max_size=5), st.booleans(), names,
)  # fmt: skip
def test_a_picture_is_as_large_as_the_screen_whatever_there_is(
    queues: list[str], width: int, height: int, wanted: str, editing: bool, text: str
) -> None:
    model = model_of(*queues)
    for name in queues[:5]:
        model.on_event(name, moved("que", "run"), NOW)
        model.on_event(
            name, {**moved("run", "done", "20270115.0800.00.000.2"), "status": text}, NOW
        )
    view = View(filter=wanted, editing=editing, chosen=queues[-1] if queues else "")
    lines = frame(model, view, width, height, NOW)
    assert len(lines) == height
    for line in lines:
        shown = "".join(piece for piece, _ in line)
        assert "\x1b" not in shown
        if shown.isascii():
            assert len(shown) <= width


def test_the_chosen_queue_is_on_the_screen() -> None:
    queues = [f"q{n:02}" for n in range(50)]
    model = model_of(*queues)
    view = View()
    for chosen in ("q49", "q00", "q25"):
        view.chosen = chosen
        shown = ["".join(piece for piece, _ in line) for line in frame(model, view, 80, 24, NOW)]
        assert any(line.startswith(chosen) for line in shown)


@pytest.mark.parametrize(
    ("text", "keys", "rest"),
    [
        ("q", ["q"], ""),
        ("\x1b[A\x1b[B", ["up", "down"], ""),
        ("\x1bOC", ["right"], ""),
        ("\x1b[5~x", ["page up", "x"], ""),
        ("\x1b", [], "\x1b"),
        ("\x1b[", [], "\x1b["),
        ("a\x1b[1;5Cb", ["a", "b"], ""),
        ("\x1bq", ["escape", "q"], ""),
        ("\r\x7f", ["enter", "backspace"], ""),
        ("ü", ["ü"], ""),
    ],
)
def test_keys(text: str, keys: list[str], rest: str) -> None:
    assert split_keys(text) == (keys, rest)
