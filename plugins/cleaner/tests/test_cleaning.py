"""The queue cleaner at work: the contract's forms, the rules, and what is never removed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_cleaner import leftovers, removal, totals
from rqcore_cleaner.choosing import Candidate
from rqcore_cleaner.engine import Cleaning
from rqcore_cleaner.options import DiskOptions
from rqcore_cleaner.removal import Remover, Tally
from rqcore_cleaner.rules import Rule
from rqcore_cleaner.script import main

from rqcore.instance import Instance, init_instance
from rqcore.lifecycle import State

if TYPE_CHECKING:
    from tests.conftest import Cleaned

pytestmark = pytest.mark.process
Lay = Callable[..., str]
Present = Callable[..., list[str]]
STATES = ("prep", "que", "run", "done", "relayed", "err")
ASKED: dict[str, tuple[list[str], dict[str, int]]] = {
    "hours": (["--hours", "36"], {"done": 2, "err": 2}),
    "percent": (["--percent", "50"], {"done": 2, "err": 2}),
    "keep": (["--keep", "0", "--state", "err"], {"done": 4}),
    "bytes": (["--bytes", "500kB", "--state", "done,err"], {"done": 2, "err": 2}),
    "both": (["--keep", "3", "--hours", "27", "--state", "done"], {"done": 1, "err": 2}),
}


def plain(queue: Path, lay: Lay) -> Any:
    rest = ("done", "relayed", "prep", "err")
    old = {state: lay(queue, state, 3, size=5000) for state in rest}
    new = {state: lay(queue, state, 1) for state in rest}
    pause(queue)
    return old, new, lay(queue, "done", 9, rested=1), lay(queue, "que", 9)


def pause(queue: Path, how: str = "pause") -> None:
    (queue.parents[1] / "config" / f"{queue.name}.{how}").touch()


def rich(queue: Path, lay: Lay) -> Any:
    ids = [lay(queue, "done", days) for days in (5, 4, 3, 2, 1)]
    return ids, lay(queue, "err", 2), lay(queue, "relayed", 99)


def again(queue: Path, lay: Lay) -> Any:
    pause(queue)
    return lay(queue, "prep", 1), lay(queue, "err", 5)


def shut(queue: Path, lay: Lay) -> Any:
    pause(queue, "down")
    return lay(queue, "done", 1.9)


def many(queue: Path, lay: Lay) -> Any:
    ids = [lay(queue, "done", 1.9 - number / 1000) for number in range(150)]
    fifo = queue / f"wait-{ids[40]}"
    os.mkfifo(fifo)
    return fifo


def shown(queue: Path, lay: Lay) -> Any:
    lay(queue, "relayed", 1.2)
    return [lay(queue, "done", days, size=200_000) for days in (1.4, 1.3, 1.2, 0.1)]


def asked(queue: Path, lay: Lay) -> None:
    for days, rested in ((30, 1.9), (20, 1.6), (9, 1.2), (1, 0.5)):
        lay(queue, "done", days, rested=rested, size=200_000)
    for days in (30, 1):
        lay(queue, "err", days)


def done(queue: Path, lay: Lay, days: Iterable[float] = (1.9,)) -> list[str]:
    return [lay(queue, "done", age) for age in days]


@pytest.fixture(scope="module")
def queues(lay: Lay) -> dict[str, Callable[[Path], Any]]:
    """What lies in the queues of this module, by the test that is about it.

    Only what is meant to go when all queues are cleaned has rested for more than two days.
    """
    made: dict[str, Callable[..., Any]] = {
        "plain": plain, "one": partial(done, days=(1.9, 1.5, 0.5)), "other": done, "rich": rich,
        "held": partial(done, days=(1.9, 1.8, 1.7)), "again": again, "shut": shut,
        "alive": done, "tty": done, "many": many, "shown": shown,
        "taken": lambda queue, lay: lay(queue, "err", 5),
        "careful": partial(done, days=(1.9, 1.8)), **dict.fromkeys(ASKED, asked),
    }  # fmt: skip
    return {name: partial(fill, lay=lay) for name, fill in made.items()}


def counts(cleaned: Cleaned, name: str) -> dict[str, int]:
    """What the queue itself counts, as far as it is not nothing."""
    found: dict[str, int] = cleaned.rq.ask(name, "num_messages")
    return {state: count for state, count in found.items() if count}


def test_old_ones_go_by_themselves_and_work_and_failures_stay(
    cleaned: Cleaned, present: Present
) -> None:
    queue = cleaned.queue("plain")
    old, new, slow, waiting = cleaned.laid["plain"]
    message = cleaned.clean("ALLQUEUES")
    assert message["state"] == "done", cleaned.log(message)
    assert message["status"].startswith("done - removed 6 messages, ")
    assert "rich: removed 3 messages" in cleaned.log(message)
    left = {state: present(queue, state) for state in STATES}
    assert left == {
        "prep": [new["prep"]], "que": [waiting], "run": [], "relayed": [new["relayed"]],
        "done": sorted([new["done"], slow]), "err": sorted([old["err"], new["err"]]),
    }  # fmt: skip
    assert counts(cleaned, "plain") == {"prep": 1, "que": 1, "done": 2, "relayed": 1, "err": 2}
    assert not (queue / "done" / old["done"][:8]).exists()
    assert not os.listdir(queue / "tmp")
    assert "plain: removed 3 messages" in cleaned.log(message)
    assert totals.read(str(cleaned.rq.directory))["removed"]["plain"]["messages"] == 3


def test_a_queue_and_days_may_be_named(cleaned: Cleaned, present: Present) -> None:
    one, other, ids = cleaned.queue("one"), cleaned.queue("other"), cleaned.laid["one"]
    assert cleaned.clean("one", "1")["status"].startswith("done - removed 2 messages")
    assert present(one, "done") == ids[2:]
    assert len(present(other, "done")) == 1
    assert cleaned.clean("one", "0")["status"].startswith("done - removed 1 message,")
    assert counts(cleaned, "one") == {}
    assert cleaned.clean("one")["status"] == "done - removed 0 messages, 0 B"


def test_rules_of_the_options_count(cleaned: Cleaned, present: Present) -> None:
    queue = cleaned.queue("rich")
    done, _, relayed = cleaned.laid["rich"]
    assert cleaned.clean("ALLQUEUES", "2")["state"] == "done"
    assert present(queue, "done") == done[2:]
    assert (present(queue, "err"), present(queue, "relayed")) == ([], [relayed])


@pytest.mark.parametrize(
    ("param1", "param2", "reason"),
    [
        ("", "", "param1 is empty; name a queue, or ALLQUEUES"),
        ("nowhere", "", "there is no queue nowhere; there are: again, "),
        ("cleaner", "soon", "param2 must be a number of days, not 'soon'"),
        ("cleaner", "-1", "param2 must be a number of days, not '-1'"),
        ("cleaner", "nan", "param2 must be a number of days, not 'nan'"),
    ],
)
def test_a_message_that_cannot_be_meant_fails(
    cleaned: Cleaned, param1: str, param2: str, reason: str
) -> None:
    message = cleaned.clean(param1, param2)
    assert message["state"] == "err"
    assert message["status"].startswith(f"err - {reason}")


def test_what_a_plugin_keeps_and_what_somebody_reads_stays(
    cleaned: Cleaned, present: Present
) -> None:
    queue = cleaned.queue("held")
    kept, read, gone = cleaned.laid["held"]
    (queue / f"keep-{kept}").touch()
    [file] = queue.glob(f"done/*/*/*/{read}/msg")
    with file.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        status = cleaned.clean("held", "1")["status"]
    assert present(queue, "done") == sorted([kept, read])
    assert gone not in present(queue, "done")
    assert status.startswith("done - removed 1 message, ")
    assert status.endswith(
        "; 1 left that somebody reads; 1 kept: still needed (plugin keeps)"
    )  # fmt: skip
    (queue / f"keep-{kept}").unlink()
    assert cleaned.clean("held", "1")["status"].startswith("done - removed 2 messages")
    assert counts(cleaned, "held") == {}


def test_a_message_that_became_work_again_is_not_removed(cleaned: Cleaned) -> None:
    queue = cleaned.queue("again")
    prepared, failed = cleaned.laid["again"]
    paths = {msg_id: f"{queue}/{state}/{msg_id}" for msg_id, state in
             ((prepared, "prep"), (failed, "err"))}  # fmt: skip
    cleaned.rq.ask("again", "commit_message", {"msg_id": prepared})
    cleaned.rq.ask("again", "retry_message", {"msg_id": failed})
    seen: list[Tally] = []
    with Remover(str(cleaned.rq.directory), "again", seen.append) as remover:
        for msg_id, state in ((prepared, State.PREP), (failed, State.ERR)):
            remover.state = state
            remover.remove([Candidate(msg_id, paths[msg_id])])
    assert seen[-1].removed == 0
    assert sorted(seen[-1].kept) == [
        "message is in que, no longer in err", "message is in que, no longer in prep",
    ]  # fmt: skip
    assert counts(cleaned, "again") == {"que": 2}


def test_one_that_is_gone_already_is_no_trouble(cleaned: Cleaned) -> None:
    queue, msg_id = cleaned.queue("taken"), cleaned.laid["taken"]
    item = Candidate(msg_id, f"{queue}/err/{msg_id}")
    with Remover(str(cleaned.rq.directory), "taken", lambda _: None) as remover:
        remover.state = State.ERR
        remover.remove([item])
        remover.remove([item, Candidate("20200101.0000.00.000.1", f"{queue}/err/x")])
    assert (remover.tally.removed, remover.tally.left) == (1, 0)


def test_whoever_is_hurried_makes_short_pauses(
    cleaned: Cleaned, lay: Lay, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(removal, "sleep", pauses.append)
    monkeypatch.setattr(removal, "busy_machine", lambda: True)
    queue = cleaned.queue("taken")
    longest = []
    for hurried in (False, True):
        items = [
            Candidate(i, f"{queue}/err/{i}") for i in (lay(queue, "err", 5) for _ in range(20))
        ]
        place = str(cleaned.rq.directory), "taken", lambda _: None
        with Remover(*place, lambda hurried=hurried: hurried) as remover:  # type: ignore[misc]
            remover.state = State.ERR
            remover.remove(items)
        assert remover.tally.removed == 20
        longest.append(sum(pauses))
        pauses.clear()
    assert longest[0] > longest[1]


def test_a_queue_that_is_down_is_cleaned_too(cleaned: Cleaned) -> None:
    assert cleaned.clean("shut", "1")["status"].startswith("done - removed 1 message,")


@pytest.mark.crash
def test_whoever_is_killed_goes_on_the_next_time(cleaned: Cleaned, present: Present) -> None:
    queue, fifo = cleaned.queue("many"), cleaned.laid["many"]
    msg_id = cleaned.rq.send("cleaner", param1="many", param2="1")
    with fifo.open("w"):  # the queue is asked whether that one may go, and waits for us
        pid = cleaned.queue("cleaner") / "run" / msg_id / "pid"
        fifo.unlink()
        cleaned.rq.kill(int(pid.read_text().split()[0]), signal.SIGKILL)
    assert cleaned.rq.until("cleaner", msg_id)["state"] == "err"
    left = len(present(queue, "done"))
    assert 0 < left < 150
    assert counts(cleaned, "many") == {"done": left}
    message = cleaned.clean("many", "1")
    assert message["status"].startswith(f"done - removed {left} messages")
    assert counts(cleaned, "many") == {}
    assert not os.listdir(queue / "tmp")
    cleaned.rq.ask("cleaner", "delete_message", {"msg_id": msg_id})


def test_what_deleted_queues_left_is_told_and_goes_when_the_options_say_so(
    cleaned: Cleaned, tmp_path: Path
) -> None:
    deleted = cleaned.queue("gone.deleted.123")
    (deleted / "done").mkdir(parents=True)
    (deleted / "big").write_bytes(b"x" * 100_000)
    cleaned.queue("link.deleted.7").symlink_to(tmp_path)
    message = cleaned.clean("ALLQUEUES")
    assert message["status"].endswith("; 1 deleted queue still on the disk")
    assert deleted.exists()
    instance = Instance(cleaned.rq.directory)
    [item] = leftovers.leftovers(instance)
    assert item.queue == "gone"
    assert leftovers.remove_old(instance, 10.0, item.since + 9) == (0, 0, [])
    count, taken, troubles = leftovers.remove_old(instance, 10.0, item.since + 10)
    assert (count, troubles) == (1, [])
    assert taken >= 100_000
    assert not deleted.exists()
    assert tmp_path.exists()
    cleaned.queue("link.deleted.7").unlink()


def test_the_script_says_what_it_is_where_rq_did_not_start_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RQ_MSG_DIR", raising=False)
    assert main() == 2
    assert "clean by hand: rq clean" in capsys.readouterr().err


# --- rq clean


def test_what_would_go_is_shown_and_nothing_goes(cleaned: Cleaned, present: Present) -> None:
    queue, ids = cleaned.queue("shown"), cleaned.laid["shown"]
    [file] = queue.glob(f"done/*/*/*/{ids[0]}/msg")
    with file.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        result = cleaned("clean", "--queue", "shown", "--hours", "27", "--dry-run")
    assert result.status == 0, result
    head, first, relayed, total = result.out.splitlines()
    assert head.split()[-5:] == ["OLDEST", "NEWEST", "KEEPS", "BEING", "READ"]
    assert first.split()[:4] == ["shown", "done", "2", "4"]
    assert first.split()[-5:] == ["31h", "28h", "27", "h", "1"]
    assert relayed.split()[:4] == ["shown", "relayed", "1", "1"]
    assert total.startswith("3 messages, ")
    assert len(present(queue, "done")) == 4
    result = cleaned("clean", "--queue", "shown", "--keep", "1", "--dry-run", "--json")
    [row] = result.json()
    assert (row["messages"], row["of"], row["keep"]) == (3, 4, "at most 1")
    assert (row["oldest"], row["newest"], row["being_read"]) == (ids[0], ids[2], 0)
    assert 600_000 <= row["bytes"] <= 700_000


@pytest.mark.parametrize("name", ASKED)
def test_messages_go_by_what_is_asked(cleaned: Cleaned, name: str) -> None:
    words, kept = ASKED[name]
    result = cleaned("clean", "--queue", name, *words, "--yes")
    assert result.status == 0, result
    assert result.err.startswith("removed ")
    assert counts(cleaned, name) == kept


def test_it_asks_and_says_in_json_what_it_did(cleaned: Cleaned) -> None:
    queue, ids = cleaned.queue("careful"), cleaned.laid["careful"]
    (queue / f"keep-{ids[0]}").touch()
    result = cleaned("clean", "--hours", "24", "--queue", "careful")
    assert result.status == 2
    assert "Remove 2 messages, " in result.err
    assert "say it with --yes" in result.err
    assert counts(cleaned, "careful") == {"done": 2}
    result = cleaned("clean", "--hours", "24", "--queue", "careful", "--yes", "--json")
    found: dict[str, Any] = result.json()
    assert (found["removed"], found["kept"]) == (1, {"still needed (plugin keeps)": 1})
    assert found["queues"]["careful"]["messages"] == 1
    (queue / f"keep-{ids[0]}").unlink()
    assert cleaned("clean", "--hours", "24", "--queue", "careful", "--yes").status == 0
    result = cleaned("clean", "--hours", "24", "--queue", "careful", "--yes", "--json")
    assert (result.err, result.json()["removed"]) == ("nothing to remove\n", 0)


@pytest.mark.parametrize(("said", "status"), [("n", 1), ("y", 0)])
def test_on_a_terminal_it_can_be_answered(cleaned: Cleaned, said: str, status: int) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "rqcore_cli", "clean", "--queue", "tty", "--hours", "24"]
    environ = {**cleaned.rq.environ, "RQ_DIR": str(cleaned.rq.directory), "NO_COLOR": "1"}
    with subprocess.Popen(
        command, stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL, env=environ
    ) as process:
        os.close(theirs)
        shown = ""
        while "[y/N]" not in shown:
            shown += os.read(ours, 4096).decode()
        assert "\rlooking at tty/done" in shown
        assert "Remove 1 message, " in shown
        os.write(ours, f"{said}\n".encode())
        # The terminal of a process that has ended gives an error.
        with suppress(OSError):
            while data := os.read(ours, 4096):
                shown += data.decode()
    os.close(ours)
    assert process.returncode == status, shown
    assert ("removed 1 message" in shown) is (said == "y")
    assert counts(cleaned, "tty") == ({} if said == "y" else {"done": 1})


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--queue", "nowhere"], 3, "there is no queue nowhere"),
        (["--state", "que"], 2, "messages in que cannot be cleaned"),
        (["--bytes", "much"], 2, "'much' is no size"),
        (["--percent", "101"], 2, "101"),
        (["--keep", "-1"], 2, "-1"),
    ],
)
def test_mistakes_are_explained(cleaned: Cleaned, words: list[str], status: int, text: str) -> None:
    result = cleaned("clean", *words)
    assert (result.status, text in result.err) == (status, True), result


def test_a_queue_that_does_not_answer_costs_only_itself(
    cleaned: Cleaned, lay: Lay, present: Present
) -> None:
    """The last test of this file: it cleans all there is."""
    silent, odd = cleaned.queue("zsilent"), cleaned.queue("odd")
    lay(silent, "done", 5)
    if cleaned.laid["many"].exists():  # the test that waits there was left out (it kills)
        cleaned.laid["many"].unlink()
    cleaned.rq.queue("zsilent", "/bin/true")  # nobody tells the manager
    cleaned.rq.queue("odd", "/bin/true", store="memory")
    message = cleaned.clean("ALLQUEUES", "0", "que", matching=lambda m: m["count"] == 1)
    assert not present(cleaned.queue("alive"), "done")
    assert len(present(silent, "done")) == 1
    assert "removed " in message["status"]
    assert "; not cleaned: odd, zsilent (zsilent: queue zsilent does not run" in message["status"]
    assert "odd is not cleaned: its messages are in the store 'memory'" in cleaned.log(message)
    assert "nobody answers" in cleaned.log(message)
    for queue in (silent, odd):
        (queue / "config.json").unlink()
    cleaned.rq.ask("cleaner", "run_message", {"msg_id": message["msg_id"]})
    assert cleaned.rq.until("cleaner", message["msg_id"])["state"] == "done"


def test_a_directory_that_cannot_be_read_costs_only_its_queue(
    tmp_path: Path, lay: Lay, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, _ = init_instance(tmp_path / "rq", host="localhost")
    for name in ("bad", "good"):
        lay(instance.queue_dir(name), "done", 5)
        config = {"name": name, "script": "/bin/true"}
        instance.queue_config_file(name).write_text(json.dumps(config))
    real = os.listdir

    def listdir(path: str) -> list[str]:
        if str(path).endswith("bad/done"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    cleaning = Cleaning(instance, lambda *_: Rule(age=1), lambda _: None, DiskOptions())
    cuts = list(cleaning.plans(["bad", "good"], [State.DONE]))
    assert [(cut.queue, cut.most) for cut in cuts] == [("good", 1)]
    reason = f"{instance.queue_dir('bad')}/done cannot be read: Permission denied"
    assert cleaning.report.unfit == {"bad": f"{reason}; clean as the instance's owner"}
