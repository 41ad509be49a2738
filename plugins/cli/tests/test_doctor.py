"""``rq doctor``: what it finds in an instance that was spoiled in every way, and what it puts right."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_cli.app import App
from rqcore_cli.commands import doctor
from rqcore_cli.doctor import examine, machine, places, work
from rqcore_cli.doctor.patient import Patient

from rqcore.hookspecs import Check
from rqcore.testing import RunningInstance
from rqcore.unix import Inotify

if TYPE_CHECKING:
    from tests.conftest import Rq, Terminal

SCRIPT = "#!/bin/sh\necho done >&3\n"
#: How the machine is that the tests run on is not their subject.
MACHINE = {"disk", "disk inodes", "file system", "login environment", "limits", "inotify"}


def wrong(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["level"] != "ok" and row["name"] not in MACHINE]


def look(rq: Rq, *words: str) -> list[dict[str, Any]]:
    """All that is not well, of ``rq doctor --json``."""
    return wrong(rows_of(rq, *words))


def rows_of(rq: Rq, *words: str) -> list[dict[str, Any]]:
    process = rq.begin("doctor", "--json", *words)
    out, err = process.communicate()
    assert process.returncode in (0, 1), err
    rows: list[dict[str, Any]] = json.loads(out)
    left = any(row["level"] != "ok" and not row["fixed"] for row in rows)
    assert process.returncode == left, "the exit status says whether something is left"
    return rows


def only(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found = [row for row in rows if row["name"] == name]
    assert len(found) == 1, rows
    return found[0]


@pytest.mark.process
def test_a_healthy_system_is_well(rq: Rq, running: RunningInstance) -> None:
    rows = rows_of(rq)
    assert wrong(rows) == []
    assert {row["name"] for row in rows} >= {
        "rq", "config", "queue work", "plugins", "owner", "modes", "directories", "sockets",
        "stale files", "clock", "logs", *MACHINE,
    }  # fmt: skip
    shown = rq.begin("doctor", "--all").communicate()[0].decode()
    assert "UP" in shown
    assert "LEVEL" in shown
    status, seen = rq.on_terminal("doctor", "--all")
    assert status in (0, 1)
    assert "queue work" in seen


@pytest.mark.process
def test_everything_that_is_wrong_with_what_runs(rq: Rq, running: RunningInstance) -> None:
    folder = running.directory
    running.queue("odd", SCRIPT)
    running.queue("broken", SCRIPT)
    running.queue("asleep", SCRIPT)
    running.queue("byhand", SCRIPT)
    (folder / "queue" / "byhand").rename(folder / "byhand")
    running.plugin("bad", "nothing = 1\n")
    running.plugin(
        "radio",
        "from rqcore.errors import RqError\nfrom rqcore.hookspecs import Check, Service, hookimpl\n"
        "def run(context):\n    raise RqError('no aerial')\n"
        "@hookimpl\ndef rq_register_services():\n    return [Service('radio', run)]\n"
        "@hookimpl\ndef rq_collect_checks():\n    raise RqError('no meter')\n",
    )
    running.stop()
    running.start()
    (folder / "config" / "work.down").write_text("the disk is full\n")
    (folder / "config" / "asleep.pause").touch()
    (folder / "code" / "odd.script").unlink()
    (folder / "queue" / "broken" / "config.json").write_text(
        '{"script": "x", "num_workers": "many"}'
    )
    (folder / "byhand").rename(folder / "queue" / "byhand")
    spoiled = folder / "queue" / "work" / "spoiled"
    spoiled.mkdir()
    (spoiled / "msg").write_text("spoiled")
    events = running.client("work").subscribe({}, timeout=30)
    spoiled.rename(spoiled.with_name("que") / "20260101.0000.00.000.1")
    while not running.ask("work", "describe")["corrupt"]:
        next(events)
    rows = look(rq)
    assert {row["name"] for row in rows if row["level"] == "critical"} == {
        "config", "queue odd", "plugin bad", "service radio", "plugin radio",
    }  # fmt: skip
    assert "num_workers" in only(rows, "config")["text"]
    assert only(rows, "service radio")["text"] == "is failed: no aerial"
    assert "no meter" in only(rows, "plugin radio")["text"]
    down, corrupt = (row for row in rows if row["name"] == "queue work")
    assert "the disk is full" in down["text"]
    assert down["remedy"] == "rq queue up work"
    assert "1 unreadable" in corrupt["text"]
    assert only(rows, "queue asleep")["remedy"] == "rq queue resume asleep"
    assert "missing" in only(rows, "queue odd")["text"]
    assert all(row["remedy"] for row in rows)
    byhand = only(rows, "queue byhand")
    assert byhand["fixable"]
    # The plugin's failure is told with its traceback, on stderr.
    text = rq.begin("doctor").communicate()[0].decode()
    assert text.index("critical") < text.index("warning")
    assert "-> rq queue up work" in text
    assert "can be put right by: rq doctor --fix" in text
    fixed = rows_of(rq, "--fix", "--yes")
    assert only(fixed, "queue byhand")["fixed"] == "RQ has read its configuration anew"
    assert "byhand" not in {row["name"].removeprefix("queue ") for row in look(rq)}
    assert running.ask("byhand", "ping") == ["pong"]


@pytest.mark.process
def test_a_process_that_hangs_and_one_that_lost_its_socket(
    rq: Rq, running: RunningInstance
) -> None:
    pid = running.ask("work", "describe")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "hangs" in only(look(rq), "queue work")["text"]
    finally:
        os.kill(pid, signal.SIGCONT)
    running.disconnect()
    sock = running.directory / "config" / "queuemgr.sock"
    pid_file = sock.with_suffix(".pid")
    sock.rename(sock.with_suffix(".away"))
    assert not [row for row in look(rq) if row["name"] == "stale files"], "it may be starting"
    os.utime(pid_file, (0, time.time() - 60))
    found = only(look(rq), "stale files")
    assert found["level"] == "critical"
    assert "the manager runs" in found["text"]
    sock.with_suffix(".away").rename(sock)
    assert look(rq) == []


@pytest.mark.process
def test_what_a_killed_system_leaves_is_cleared_away(rq: Rq, running: RunningInstance) -> None:
    assert running.process is not None
    queue = running.ask("work", "describe")["pid"]
    running.disconnect()
    os.kill(queue, signal.SIGSTOP)  # it cannot tidy up either
    running.process.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    running.kill(queue)
    stale = [row for row in look(rq) if row["name"] == "stale files"]
    assert any("queuemgr.sock is left" in row["text"] for row in stale)
    assert rq("doctor", "--fix", status=2).err.count("--yes") == 1, "nobody can be asked here"
    left = [row for row in look(rq, "--fix", "--yes") if not row["fixed"]]
    assert [row["text"] for row in left] == ["RQ does not run"]
    assert not (running.directory / "config" / "queuemgr.sock").exists()
    # A pid file that names a stranger by now.
    (running.directory / "config" / "queuemgr.pid").write_text(f"{os.getpid()}\n")
    assert "somebody else's by now" in only(look(rq), "stale files")["text"]
    rq("doctor", "--fix", "--yes", status=1)
    assert (running.directory / "config" / "queuemgr.pid").read_text() == ""
    running.start()
    assert look(rq) == []


def test_what_lies_there_when_nothing_runs(rq: Rq, rq_instance: RunningInstance) -> None:
    folder = rq_instance.directory
    rq_instance.queue("work", "nowhere.sh")
    rq_instance.queue("down", SCRIPT)
    (folder / "config" / "down.down").touch()
    (folder / "queue" / "down" / "corrupt" / "20260101.0000.00.000.1").mkdir(parents=True)
    (folder / "queue" / "down" / "corrupt" / "20260101.0000.00.000.1.reason").touch()
    rows = look(rq)
    assert only(rows, "rq")["text"] == "RQ does not run"
    assert "nowhere.sh is missing" in only(rows, "queue work")["text"]
    assert [row["level"] for row in rows if row["name"] == "queue down"] == ["warning", "warning"]
    rq.environ["RQ_DIR"] = str(rq.cwd)
    assert "RQ_DIR names" in rq("doctor", status=3).err


def test_the_directory_s_modes_and_missing_parts_are_put_right(
    rq: Rq, rq_instance: RunningInstance
) -> None:
    folder = rq_instance.directory
    rq_instance.configure(basic_auth={"realm": "r", "users": {"u": "p"}})
    for name in ("config.json", "mq2.token"):
        (folder / "config" / name).touch()
        (folder / "config" / name).chmod(0o644)
    (folder / "queue" / "plain").mkdir()
    (folder / "queue" / "plain" / "config.json").write_text(
        '{"name": "plain", "script": "/bin/true"}'
    )
    (folder / "plugins" / "mine.py").write_text("")
    (folder / "plugins").chmod(0o777)
    (folder / "log").rmdir()
    rows = [row for row in look(rq) if row["fixable"]]
    assert sorted(row["name"] for row in rows) == [
        "directories", "modes", "secret config/config.json", "secret config/mq2.token",
    ]  # fmt: skip
    done = [row for row in look(rq, "--fix", "--yes") if row["fixed"]]
    assert len(done) == 4
    assert stat.S_IMODE((folder / "plugins").stat().st_mode) == 0o775
    for name in ("config.json", "mq2.token"):
        assert stat.S_IMODE((folder / "config" / name).stat().st_mode) == 0o600
    assert (folder / "log").is_dir()
    assert not [row for row in look(rq) if row["fixable"]]


def test_directories_of_messages_that_rq_could_not_work_in(
    rq: Rq, rq_instance: RunningInstance
) -> None:
    rq_instance.queue("work", SCRIPT)
    err = rq_instance.directory / "queue" / "work" / "err"
    err.mkdir(mode=0o500)
    found = only(look(rq), "modes")
    assert (found["level"], found["fixable"]) == ("critical", True)
    assert found["remedy"] == f"chmod u+rwx {err}"
    rq("doctor", "--fix", "--yes", status=1)
    assert stat.S_IMODE(err.stat().st_mode) == 0o700
    if os.geteuid() == 0:
        os.chown(err, 65534, 65534)
        assert f"{err} belongs to " in only(look(rq), "owner")["text"]


def test_a_user_is_asked_before_each(
    rq: Rq, rq_instance: RunningInstance, terminal: Callable[..., Terminal]
) -> None:
    plugins = rq_instance.directory / "plugins"
    plugins.chmod(0o777)
    for answer, mode in (("n", 0o777), ("y", 0o775)):
        person = terminal(sys.executable, "-m", "rqcore_cli", "doctor", "--fix")
        person.until(lambda t: "do it? [y/N]" in t.usual)
        person.type(f"{answer}\r")
        assert person.wait() == 1, "RQ does not run, whatever is answered"
        assert stat.S_IMODE(plugins.stat().st_mode) == mode


def test_checks_of_plugins_are_shown_fixed_and_take_the_place_of_ours(
    rq: Rq, rq_instance: RunningInstance
) -> None:
    rq_instance.plugin(
        "keeper",
        "import os\nfrom rqcore.errors import RqError\nfrom rqcore.hookspecs import Check, hookimpl\n"
        "def fix():\n    os.unlink('../rq/litter')\n    return 'swept'\n"
        "def fail():\n    raise RqError('no broom')\n"
        "@hookimpl\ndef rq_collect_checks(instance):\n"
        "    found = [Check('disk', 'ok', 'I know better')]\n"
        "    if os.path.exists(instance.directory + '/litter'):\n"
        "        found.append(Check('litter', 'warning', 'there is litter', 'sweep', fix))\n"
        "    return found + [Check('dust', 'warning', 'there is dust', 'wipe', fail)]\n",
    )
    (rq_instance.directory / "litter").touch()
    rows = rows_of(rq)
    assert only(rows, "disk") == {
        "source": "keeper", "name": "disk", "level": "ok", "text": "I know better", "remedy": "",
        "fixable": False, "fixed": "",
    }  # fmt: skip
    assert only(rows, "litter")["fixable"]
    result = rq("doctor", "--fix", "--yes", status=1)
    assert "litter: swept" in result.err
    assert "dust could not be put right: no broom" in result.err
    assert "there is litter" not in result.out
    assert "there is dust" in result.out
    assert "litter" not in {row["name"] for row in rows_of(rq)}


def test_the_same_fault_is_told_once(rq: Rq, rq_instance: RunningInstance) -> None:
    """Whoever comes upon it: two plugins and our own look at names, or the main config's own check."""
    folder = rq_instance.directory
    (folder / "config" / "x.token").touch()
    (folder / "config" / "x.token").chmod(0o644)
    for name, holds in (("one", "a token"), ("two", "what two shows")):
        rq_instance.plugin(
            name,
            "from rqcore.hookspecs import hookimpl\nfrom rqcore.secrecy import secret_check\n"
            "@hookimpl\ndef rq_collect_checks(instance):\n    where = instance.directory\n"
            f"    return [secret_check(where, where + '/config/x.token', {holds!r})]\n",
        )
    found = only(rows_of(rq), "secret config/x.token")
    assert found["source"] in ("one", "two")
    rq_instance.plugin(
        "picky",
        "from rqcore.hookspecs import hookimpl\nfrom rqcore.schema import Report\n"
        "@hookimpl\ndef rq_configure(options, instance):\n    report = Report('config.json')\n"
        "    for key in options:\n"
        "        report.refuse(key, options[key], 'is no option', 'remove it')\n"
        "    report.finish()\n",
    )
    rq_instance.configure(plugins={"picky": {"a": 1, "b": 2}, "nobody": {}})
    result = rq("doctor", status=1)
    assert result.out.count("plugin picky") == 1
    assert "its options are wrong, so it is not used" in result.out
    assert '"a" is no option, found 1' in result.out
    assert "ConfigError" not in result.out
    assert "there is no plugin nobody" in result.out
    assert "picky" not in result.err
    assert "nobody" not in result.err


# --- one by one


@pytest.fixture
def patient(rq_instance: RunningInstance) -> Patient:
    app = App()
    app.directory = str(rq_instance.directory)
    return Patient(app)


def levels(checks: list[Check]) -> list[str]:
    return [check.level for check in checks]


@pytest.mark.parametrize("state", ["que", "done"])
def test_messages_from_the_future_tell_of_a_clock_that_was_set(
    state: str, patient: Patient, rq_instance: RunningInstance
) -> None:
    rq_instance.queue("work", SCRIPT)
    folder = rq_instance.directory / "queue" / "work" / state
    for ahead, level in ((30, "ok"), (7200, "critical")):
        moment = time.gmtime(time.time() + ahead)
        place = folder if state == "que" else folder / time.strftime("%Y%m%d/%H/%M", moment)
        (place / time.strftime("%Y%m%d.%H%M.%S.000.1", moment)).mkdir(parents=True)
        assert levels(list(machine.clock(patient))) == [level]


def test_paths_that_are_too_long_for_a_socket(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 80)
    with RunningInstance(long / "rq") as instance:
        instance.queue("work", SCRIPT)
        app = App()
        app.directory = str(instance.directory)
        found = list(places.sockets(Patient(app)))
    assert levels(found) == ["warning"]
    assert "a socket's address holds 103" in found[0].text


def test_limits_are_held_against_what_the_queues_may_need(
    patient: Patient, rq_instance: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    rq_instance.queue("work", SCRIPT, num_workers=100)
    known = {"Max open files": 256, "Max processes": 100}
    monkeypatch.setattr(machine, "_limits_of", lambda _: known)
    found = list(machine.limits(patient))
    assert levels(found) == ["warning", "warning"]
    assert "LimitNOFILE=864" in found[0].remedy
    known.update({"Max open files": 4096, "Max processes": 4096})
    assert levels(list(machine.limits(patient))) == ["ok"]


def test_the_system_s_own_limits_are_read() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert machine._limits_of(os.getpid())["Max open files"] == soft
    assert machine._kind_of("/proc") == "proc"
    before = machine._inotify_used(os.getuid())
    watch = Inotify()
    assert machine._inotify_used(os.getuid()) > before - 50, "others come and go"
    watch.close()


def test_who_may_not_ask_is_told_to_become_who_may(patient: Patient) -> None:
    vars(patient).update(manager=None, silence="no permission to speak to it; become that user")
    (found,) = work.manager(patient)
    assert (found.level, found.remedy) == ("critical", "become that user")


def test_a_disk_that_is_nearly_full(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def statvfs(free: int, inodes: int) -> os.statvfs_result:
        return os.statvfs_result(
            (4096, 4096, 10_000_000, free, free, 1_000_000, inodes, inodes, 0, 255)
        )

    for free, inodes, expected in (
        (5_000_000, 900_000, ["ok", "ok"]),
        (100_000, 10_000, ["warning", "warning"]),
        (1_000, 10, ["critical", "critical"]),
    ):
        monkeypatch.setattr(os, "statvfs", lambda _, f=free, i=inodes: statvfs(f, i))
        assert levels(list(machine.disk(patient))) == expected


def test_an_examination_that_cannot_be_made_keeps_none_from_the_rest(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(_: Patient) -> Any:
        yield Check("odd", "ok", "so far")
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr(examine, "_EXAMINATIONS", (odd, machine.disk))
    patient.app.external_plugins = False
    found = [item.check for item in examine.examine(patient.app)]
    assert [check.name for check in found][:3] == ["odd", "odd", "disk"]
    assert "/secret" in found[1].text


def test_a_plugin_that_hangs_is_told_and_the_others_are_asked(
    rq_instance: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    rq_instance.use_plugins("cli")
    monkeypatch.setenv("RQ_PLUGINS_DISABLED", rq_instance.environ["RQ_PLUGINS_DISABLED"])
    hook = "from rqcore.hookspecs import Check, hookimpl\n@hookimpl\ndef rq_collect_checks(instance):\n"
    rq_instance.plugin("hangs", f"import time\n{hook}    time.sleep(1000)\n")
    rq_instance.plugin(
        "well", f"{hook}    return [Check('gauge', 'warning', 'is low', 'refill')]\n"
    )
    app = App()
    app.directory = str(rq_instance.directory)
    monkeypatch.setattr(examine, "_PATIENCE", 0.3)
    found = {item.source: item.check for item in examine._of_plugins(app)}
    assert (found["hangs"].level, found["well"].text) == ("critical", "is low")
    assert "it took too long" in found["hangs"].text


def test_what_a_plugin_cannot_put_right_keeps_nobody_from_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken() -> str:
        raise ZeroDivisionError

    check = Check("odd\x1b]0;x\x07", "warning", "is odd", "even it", broken)
    assert doctor._fix(App(), examine.Found("mine", check), yes=True) == ""
    assert capsys.readouterr().err == (
        "rq: odd\\x1b]0;x\\x07 could not be put right: ZeroDivisionError\n"
    )
