"""``rq check`` and ``check_rq``: every exit status, against real systems and real sockets."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_cli.checking import runner, sources, verdict
from rqcore_cli.checking.ranges import (
    METRICS,
    OFF,
    Range,
    contract_thresholds,
    parse_range,
    parse_thresholds,
)

from rqcore.testing import PATIENCE, RunningInstance, free_port

if TYPE_CHECKING:
    from tests.conftest import Rq

ROOT = Path(__file__).parents[3]
SCRIPT = '#!/bin/sh\necho "${RQ_PARAM1:-done} all" >&3\n'
LATER = 4_000_000_000
#: As the guidelines for Nagios plugins have it: 'label'=value[UOM];[warn];[crit];[min];[max]
PERFDATA = re.compile(r"'[^'=]+'=-?[\d.]+s?;[@~:\d.-]*;[@~:\d.-]*;[\d.]*")


@dataclass
class Site:
    """A running instance with its web server, and the old check that asks it."""

    instance: RunningInstance
    port: int

    def check_rq(self, *words: str, status: int, port: int = 0) -> str:
        """`bin/check_rq` of the tree, run by a Python without any package."""
        return check_rq("-p", str(port or self.port), *words, status=status)

    def check(self, *words: str, status: int) -> str:
        """`rq check`; its line, whatever was said beside it."""
        environ = {**self.instance.environ, "RQ_DIR": str(self.instance.directory)}
        done = subprocess.run(
            [sys.executable, "-m", "rqcore_cli", "check", *words], env=environ, text=True,
            capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == status, done
        return done.stdout


def check_rq(*words: str, status: int) -> str:
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(ROOT / "bin" / "check_rq"), *words], text=True,
        capture_output=True, timeout=PATIENCE, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, ""), done
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with RunningInstance(tmp_path_factory.mktemp("check") / "rq") as instance:
        instance.use_plugins("cli", "web")
        port = free_port()
        instance.configure(port=port)
        instance.queue("work", SCRIPT)
        instance.queue("other", SCRIPT)
        instance.start()
        yield Site(instance, port)


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test made is gone for the next one that shares the instance."""
    yield
    if "site" not in request.fixturenames:
        return
    instance: RunningInstance = request.getfixturevalue("site").instance
    for name in ("work", "other"):
        for state in ("que", "done", "err"):
            for item in instance.ask(name, "messages", {"state": state, "limit": 1000}):
                instance.ask(name, "delete_message", {"msg_id": item["msg_id"], "even_down": True})
    instance.disconnect()


def perfdata(line: str) -> dict[str, str]:
    text, bar, numbers = line.partition(" | ")
    assert bar
    assert "|" not in text
    parts = re.findall(r"'[^']+'=\S+", numbers)
    assert " ".join(parts) == numbers.strip()
    assert all(PERFDATA.fullmatch(part) for part in parts), parts
    return {label.strip("'"): value for label, _, value in (part.partition("=") for part in parts)}


# --- against a real system


@pytest.mark.process
def test_all_is_well(site: Site) -> None:
    line = site.check(status=0)
    assert line.startswith("RQ OK - 2 queues, 0 waiting, 0 running | ")
    assert line.count("\n") == 1
    numbers = perfdata(line)
    assert numbers["work_waiting"] == "0;9;19;0"
    assert numbers["work_err"] == "0;;0;0"
    assert numbers["work_done"] == "0;2999;3499;0"
    assert numbers["work_overdue"] == "0s;;;0"
    assert site.check("--no-perfdata", status=0) == "RQ OK - 2 queues, 0 waiting, 0 running\n"
    old = site.check_rq(status=0)
    assert old.startswith("RQ OK - 2 queues, 0 waiting, 0 running | ")
    assert perfdata(old)["other_relayed"] == "0;2999;3499;0"


@pytest.mark.process
def test_reaching_the_contract_s_numbers_warns_and_is_critical(site: Site) -> None:
    def send(count: int) -> None:
        for _ in range(count):
            site.instance.send("work", due=LATER)

    send(9)
    assert site.check_rq(status=0)
    send(1)
    assert "queue work: 10 waiting (prep 0, que 10, run 0)" in site.check_rq(status=1)
    assert site.check(status=1).startswith("RQ WARNING - queue work: 10 waiting")
    send(10)
    assert site.check_rq(status=2).startswith("RQ CRITICAL - queue work: 20 waiting")
    assert site.check(status=2).startswith("RQ CRITICAL - queue work: 20 waiting")
    # Others are what the caller says.
    assert site.check_rq("-t", "21:22:3000:3500:3000:3500", status=0)
    assert site.check_rq("-t", "20:21", status=1)
    assert site.check_rq("-t", "::::1:2", "-w", "waiting=off", "-c", "waiting=off", status=0)
    assert site.check("-w", "waiting=20", "-c", "waiting=50", status=0)
    assert site.check("-w", "work/waiting=20", "-c", "work/waiting=50", status=0)
    assert site.check("--exclude", "work", status=0)
    assert site.check("--queue", "other", status=0)
    assert "there is no queue nosuch" in site.check("--queue", "nosuch", status=2)


@pytest.mark.process
def test_done_and_relayed_are_counted_too(site: Site) -> None:
    for _ in range(2):
        site.instance.until("work", site.instance.send("work"))
    assert site.check_rq("-t", "10:20:3000:3500:3:4", status=0)
    assert "queue work: 2 in done" in site.check_rq("-t", "10:20:3000:3500:2:3", status=1)
    assert "queue work: 2 in done" in site.check_rq("-t", "10:20:3000:3500:1:2", status=2)


@pytest.mark.process
def test_a_failed_message_is_critical(site: Site) -> None:
    site.instance.until("work", site.instance.send("work", param1="err"))
    for line in (site.check(status=2), site.check_rq(status=2)):
        assert line.startswith("RQ CRITICAL - queue work: 1 in err | ")
        assert perfdata(line)["work_err"] == "1;;0;0"
    assert site.check("-c", "err=5", status=0)


@pytest.mark.process
@pytest.mark.parametrize("state", ["down", "pause"])
def test_a_queue_that_is_not_up_is_critical(state: str, site: Site) -> None:
    file = site.instance.directory / "config" / f"work.{state}"
    file.write_text("the disk | is being replaced\n")
    told = (
        "queue work is DOWN: the disk / is being replaced"
        if state == "down"
        else "queue work is paused"
    )
    assert f"RQ CRITICAL - {told}" in site.check(status=2)
    assert f"RQ CRITICAL - {told.partition(':')[0]}" in site.check_rq(status=2)
    file.unlink()
    assert site.check(status=0)


@pytest.mark.process
def test_a_missing_script_is_critical_with_its_reason(site: Site) -> None:
    script = site.instance.directory / "code" / "work.script"
    away = script.rename(script.with_suffix(".away"))
    assert "queue work is SCRIPTERROR: script" in site.check(status=2)
    assert "queue work is SCRIPTERROR" in site.check_rq(status=2)
    away.rename(script)


@pytest.mark.process
def test_a_queue_that_hangs_keeps_nothing_from_being_told(site: Site) -> None:
    pid = site.instance.ask("work", "describe")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        line = site.check("--timeout", "5s", status=2)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "queue work is hanging: it does not answer within" in line
    assert "other_waiting" in line


@pytest.mark.process
def test_how_old_what_waits_is(site: Site) -> None:
    site.instance.manager.ask("pause_queue", "work")
    site.instance.send("work", due=int(time.time()) - 7200)
    try:
        line = site.check("-w", "overdue=30m", "-c", "overdue=1d", status=2)
        assert "the next message has been due for 2 h" in line.replace("120 min", "2 h")
        value = perfdata(line)["work_overdue"]
        assert 7199 < float(value.partition("s")[0]) < 7400
        assert value.endswith("s;1800;86400;0")
        there = site.check("-p", str(site.port), "-w", "overdue=30m", "--json", status=2)
        assert any("has been due" in f["text"] and f["level"] == "warning"
                   for f in json.loads(there)["findings"])  # fmt: skip
    finally:
        site.instance.manager.ask("resume_queue", "work")
    site.instance.until("work", site.instance.send("work"))


@pytest.mark.process
def test_a_metric_that_nobody_tells_is_unknown_only_to_who_asks_for_it(site: Site) -> None:
    words = ("-p", str(site.port), "-w", "cron_age=1h", "--no-perfdata")
    assert "queue work: nobody tells its cron_age here" in site.check(*words, status=2)
    assert site.check(*words, "--strict", status=3).startswith("RQ UNKNOWN - ")


@pytest.mark.process
def test_schedules_that_are_late_or_ran_long_ago(rq: Rq, rq_instance: RunningInstance) -> None:
    lines = [{"cron": "0 0 1 1 *", "param1": str(n)} for n in (1, 2)]
    rq_instance.queue("nightly", SCRIPT, schedule=[*lines, lines[0], {"cron": "never"}])
    rq_instance.start()
    assert perfdata(rq("check").out)["nightly_cron1_late"] == "0s;300;3600;0"
    numbers = perfdata(rq("check", "-c", "cron_age=25h").out)
    assert numbers["nightly_cron3_age"].endswith("s;;90000;0")
    # As if the process had hung for years: the memory of the runs says when the last one was.
    memory = rq_instance.directory / "queue" / "nightly" / "cron.json"
    kept = memory.read_text()
    old = json.loads(kept)
    old["last"] = dict.fromkeys(old["last"], time.time() - 2 * 366 * 86400)
    memory.write_text(json.dumps(old))
    line = rq("check", "-c", "cron_age=25h", status=2).out
    assert 'queue nightly: its schedule "0 0 1 1 *" is ' in line
    assert " d late" in line
    assert "ran 732 d ago last" in line
    memory.write_text("spoiled")
    assert rq("check").out.startswith("RQ OK")
    memory.write_text(kept)


@pytest.mark.process
def test_what_plugins_find_is_told_and_so_is_a_plugin_that_fails(
    rq: Rq, rq_instance: RunningInstance
) -> None:
    rq_instance.plugin(
        "lamp",
        "from rqcore.hookspecs import Check, hookimpl\n"
        "@hookimpl\ndef rq_configure(options):\n    global OPTIONS\n    OPTIONS = options\n"
        "@hookimpl\ndef rq_collect_checks():\n"
        "    lamp = Check('lamp', OPTIONS['level'], 'the lamp|is odd', 'change it')\n"
        "    return [lamp, Check('b', 'ok', '')]\n",
    )
    rq_instance.configure(plugins={"lamp": {"level": "warning"}})
    rq_instance.queue("work", SCRIPT)
    rq_instance.start()
    assert rq("check", status=1).out.startswith("RQ WARNING - lamp: the lamp/is odd | ")
    rq_instance.configure(plugins={"lamp": {"level": "critical"}})
    found = rq("check", "--json", status=2).json()
    assert (found["status"], found["level"]) == (2, "critical")
    assert found["findings"] == [
        {
            "level": "critical",
            "about": "lamp: lamp",
            "text": "lamp: the lamp|is odd",
            "remedy": "change it",
        }
    ]
    assert {metric["label"] for metric in found["metrics"]} >= {"work_err", "work_overdue"}
    assert [queue["name"] for queue in found["queues"]] == ["work"]
    assert rq("--no-plugins", "check").out.startswith("RQ OK")
    rq_instance.plugin("odd", "nothing = 1\n")
    rq_instance.configure(plugins={"lamp": {"level": "ok"}})
    assert "RQ WARNING - plugin odd is failed" in rq("check", status=1).out


@pytest.mark.process
def test_plugins_that_take_for_ever_are_not_waited_for(
    rq: Rq, rq_instance: RunningInstance
) -> None:
    for name in ("slow", "slower"):
        rq_instance.plugin(
            name,
            "import signal\nfrom rqcore.hookspecs import hookimpl\n"
            "@hookimpl\ndef rq_collect_checks():\n    while True:\n        signal.pause()\n",
        )
    rq_instance.queue("work", SCRIPT)
    rq_instance.start()
    process = rq.begin("check", "--timeout", "1")
    line = process.communicate()[0].decode()
    assert process.returncode == 2
    assert "plugin slow: its checks failed: TimeoutError" in line
    assert "plugin slower: its checks failed: TimeoutError" in line
    assert "work_waiting" in line, "what is known is told"


@pytest.mark.process
def test_a_service_that_is_down_is_critical(rq: Rq, rq_instance: RunningInstance) -> None:
    rq_instance.plugin(
        "radio",
        "from rqcore.errors import RqError\nfrom rqcore.hookspecs import Service, hookimpl\n"
        "def run(context):\n    raise RqError('no aerial')\n"
        "@hookimpl\ndef rq_register_services():\n    return [Service('radio', run)]\n",
    )
    rq_instance.start()
    assert "RQ CRITICAL - service radio is failed: no aerial" in rq("check", status=2).out


# --- when nobody answers, or the question is wrong


def test_nobody_answers(rq: Rq, rq_instance: RunningInstance) -> None:
    line = rq("check", status=2).out
    assert line.startswith("RQ CRITICAL - the manager does not run")
    assert rq("check", "--strict", status=3).out.startswith("RQ UNKNOWN - ")
    port = str(free_port())
    refused = check_rq("-p", port, status=2)
    assert (
        refused == f"RQ CRITICAL - http://localhost:{port}/ cannot be reached: Connection refused\n"
    )
    assert check_rq("-p", port, "--strict", status=3).startswith("RQ UNKNOWN - ")
    assert check_rq("-s", "no-such-host.invalid", status=2)
    assert "refused" in rq("check", "-s", "127.0.0.1", "-p", port, "--strict", status=3).out
    rq.environ["RQ_DIR"] = str(rq.cwd)
    assert rq("check", status=2).out.startswith("RQ CRITICAL - RQ_DIR names")


def test_a_server_that_never_answers_is_not_waited_for(rq: Rq) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        began = time.monotonic()
        assert "does not answer in time" in check_rq("-p", port, "--timeout", "0.3", status=2)
        words = ("check", "-p", port, "--timeout", "1", "--strict")
        assert "does not answer in time" in rq(*words, status=3).out
        assert time.monotonic() - began < PATIENCE / 2


def test_something_else_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for body in (
            b"HTTP/1.0 200 OK\r\n\r\n[]",
            b"HTTP/1.0 404 No\r\n\r\n{}",
            b"HTTP/1.0 200 OK\r\n\r\nhello",
            b"SSH-2.0-x\r\n",
        ):
            process = subprocess.Popen(
                [sys.executable, "-S", str(ROOT / "bin" / "check_rq"), "-p", port],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(body)
            out, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 2
            assert out.startswith(f"RQ CRITICAL - http://localhost:{port}/")


EVIL = """{"queues": [{"name": "q\\u001b]0;x\\u0007\\ud800|\\n'=9",
 "status": "%s", "counts": {"que": %s}}]}"""


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (EVIL % ("DOWN\\u001b[2J|", 0), r"queue q\x1b]0;x\x07\ud800/\n'=9 is DOWN\x1b[2J/ | 'q"),
        (EVIL % ("UP", "Infinity"), "does not answer as RQ does"),
        (EVIL % ("UP", "1e99"), "does not answer as RQ does"),
        ("[" * 100_000, "does not answer as RQ does"),
    ],
)
def test_what_a_site_tells_does_nothing_to_a_terminal_or_to_perfdata(page: str, told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        site = sources.Site(f"http://127.0.0.1:{other.getsockname()[1]}/")

        def answer() -> None:
            for head in ("200 OK", "404 No"):
                try:
                    connection, _ = other.accept()
                except OSError:  # nobody asks any more
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(f"HTTP/1.0 {head}\r\n\r\n{page}".encode())

        server = threading.Thread(target=answer)
        server.start()
        try:
            found, _ = runner.check(
                runner.Question(), lambda patience: sources.look_over_http(site, patience)
            )
        finally:
            other.shutdown(socket.SHUT_RDWR)
            server.join()
    line = found.line(perfdata=True, strict=False)
    assert told in line
    assert line.isprintable()
    assert all(
        PERFDATA.fullmatch(one) for one in re.findall(r"'.*?'=\S+", line.partition(" | ")[2])
    )


def test_a_time_that_no_clock_has_is_no_warning() -> None:
    entry = {"name": "q", "status": "UP", "counts": {"que": 1}}
    for due in (float("inf"), float("-inf"), float("nan")):
        more = {"earliest_due": due, "problem": "", "alive": True}
        with pytest.raises(ValueError, match=str(due)):
            sources._queue_there(entry, more)


def test_a_certificate_that_is_not_trusted_is_said_to_be_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        site = sources.Site(f"https://127.0.0.1:{other.getsockname()[1]}/")

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 400 No\r\n\r\n")

        server = threading.Thread(target=answer, daemon=True)
        server.start()
        found, _ = runner.check(
            runner.Question(), lambda patience: sources.look_over_http(site, patience)
        )
        server.join(PATIENCE)
    assert "cannot be reached: [SSL" in found.line(perfdata=True, strict=True)


@pytest.mark.process
def test_a_site_with_a_login_and_a_root_of_its_own(
    tmp_path: Path, rq: Rq, rq_instance: RunningInstance
) -> None:
    port = free_port()
    rq_instance.use_plugins("cli", "web")
    auth = {"realm": "rq", "users": {"nagios": "secret"}}
    rq_instance.configure(port=port, relative_root="/rq/", basic_auth=auth)
    rq_instance.start()
    url = f"http://127.0.0.1:{port}/rq"
    assert "is answered with 401; name a file with a token" in check_rq("--url", url, status=2)
    secret = tmp_path / "secret"
    secret.write_text("nagios:secret\n")
    assert check_rq("--url", url, "--auth-file", str(secret), status=0).startswith(
        "RQ OK - 0 queues"
    )
    assert rq("check", "--url", url, "--auth-file", str(secret)).out.startswith("RQ OK")
    secret.write_text("\n")
    assert "is empty" in check_rq("--url", url, "--auth-file", str(secret), status=2)
    assert "cannot be read" in check_rq("--url", url, "--auth-file", "/nowhere", status=2)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["-t", "1:x"], "-t 1:x is not W:C:WMAX:CMAX:RW:RC"),
        (["-t", "1:2:3:4:5:6:7"], "six whole numbers"),
        (["-p", "99999"], "is no port"),
        (["-p", "x"], "is no port"),
        (["--url", "host"], "is no URL"),
        (["--url", "http://[::1/"], "is no URL"),
        (["--url", "http://h:99999/"], "is no URL"),
        (["--url", "http://user:word@h/"], "into a file for --auth-file"),
        (["--timeout", "nan"], "is no number of seconds"),
        (["--timeout", "0"], "is no number of seconds"),
        (["-s", "a..b"], "cannot be reached"),
        (["-w", "x"], "is no threshold"),
        (["-w", "speed=3"], "there is no metric 'speed'; there are: waiting"),
        (["-c", "err=5:1"], "begins after its end"),
        (["-c", "err=x"], "is no range"),
        (["--foo"], "unrecognized arguments: --foo"),
        (["--timeout", "x"], "timeout"),
    ],
)
def test_a_wrong_call_of_check_rq(words: list[str], hint: str) -> None:
    assert hint in check_rq(*words, status=2)
    assert check_rq(*words, "--strict", status=3).startswith("RQ UNKNOWN - ")


def test_a_wrong_call_of_rq_check(rq: Rq) -> None:
    assert rq("check", "--foo", status=2).out.startswith("RQ CRITICAL - No such option")
    assert rq("check", "--foo", "--strict", status=3).out.startswith("RQ UNKNOWN - ")
    assert "there is no metric 'x'" in rq("check", "--strict", "-w", "x=1", status=3).out


def test_the_old_options_are_understood(site: Site) -> None:
    help_text = check_rq("--help", status=0)
    for option in ("-s", "--server", "-p", "--port", "-t", "--thresh", "-d", "--dump"):
        assert option in help_text
    assert site.check_rq("--server", "127.0.0.1", "--thresh", "10:20:3000:3500:3000:3500", status=0)
    dumped = site.check_rq("-d", status=0).splitlines()
    assert dumped[:3] == ["other", "\tstatus -> UP", "\tprep -> 0"]
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "bin" / "check_rq")], text=True, capture_output=True,
        env={"PATH": os.environ["PATH"], "RQ_PORT": str(site.port)}, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done


def test_it_is_installed_as_a_command() -> None:
    installed = shutil.which("check_rq", path=str(Path(sys.executable).parent))
    assert installed is not None
    done = subprocess.run([installed, "--help"], capture_output=True, text=True, check=True)
    assert "check_rq" in done.stdout


def test_a_defect_of_the_check_is_no_warning(capfd: pytest.CaptureFixture[str]) -> None:
    def look(_: float) -> sources.Facts:
        raise LookupError("lost")

    found, facts = runner.check(runner.Question(), look)
    assert facts is None
    assert found.line(perfdata=True, strict=False) == (
        "RQ CRITICAL - the check itself failed: LookupError: lost"
    )
    assert found.status(strict=True) == 3
    assert "Traceback" in capfd.readouterr().err
    odd = sources.Queue("q", "UP", "", {"que": 0}, overdue=float("inf"))
    found, facts = runner.check(runner.Question(), lambda _: sources.Facts("here", (odd,)))
    assert found.status(strict=False) == 2, "what cannot be judged is none either"


# --- pure


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("10", [0, 10], [-1, 10.5, 11]),
        ("10:", [10, 1e9], [9, -1]),
        ("~:10", [-1e9, 10], [11]),
        ("10:20", [10, 20], [9, 21]),
        ("@10:20", [9, 21], [10, 15, 20]),
        ("@5", [6, -1], [0, 5]),
        ("10m", [600], [601]),
        ("1h30m:2h", [5400, 7200], [5399, 7201]),
        ("-5:5", [-5, 5], [-6, 6]),
        ("~:", [-1e9, 1e9], []),
        ("off", [-1e9, 1e9], []),
        ("0", [0], [1, -1]),
    ],
)
def test_ranges(text: str, inside: list[float], outside: list[float]) -> None:
    found = parse_range(text)
    assert not any(found.alerts(value) for value in inside)
    assert all(found.alerts(value) for value in outside)
    assert parse_range(str(found)) == found


@pytest.mark.parametrize("text", ["", "@", ":", "x", "10:5", "1:2:3", "10 ", "~", "5x", "--5"])
def test_what_is_no_range(text: str) -> None:
    if text == ":":  # Nagios has it for "from 0 on"
        assert parse_range(text) == Range(0)
        return
    with pytest.raises(ValueError, match="is no range"):
        parse_range(text)


@given(st.integers(-1000, 1000), st.integers(0, 1000), st.booleans(), st.integers(-3000, 3000))
def test_a_range_means_what_it_is_written_as(start: int, more: int, at: bool, value: int) -> None:
    found = parse_range(f"{'@' if at else ''}{start}:{start + more}")
    assert found.alerts(value) == ((start <= value <= start + more) == at)
    assert parse_range(str(found)) == found


def test_thresholds_of_a_queue_go_before_those_of_all() -> None:
    found = parse_thresholds(["err=5", "a/err=7"], ["a/err=9"])
    assert found.of("a", "err") == (Range(0, 7), Range(0, 9))
    assert found.of("b", "err") == (Range(0, 5), Range(0, 0))
    assert found.of("b", "run") == (OFF, OFF)
    assert contract_thresholds("").of("a", "waiting") == (Range(0, 9), Range(0, 19))
    assert contract_thresholds("0:0").of("a", "waiting")[1].alerts(0)


def test_who_has_bounds_of_its_own_has_to_be_there() -> None:
    def told(*crit: str, queues: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
        found = verdict.judge(facts, parse_thresholds([], crit), queues, exclude)
        assert all(finding.level is verdict.Level.CRITICAL for finding in found.findings)
        return [finding.text for finding in found.findings]

    facts = sources.Facts("/rq", (sources.Queue("nightly", "UP", "", {"err": 0}, crons=()),))
    assert told("backup/cron_age=25h") == ["there is no queue backup"]
    assert told("backup/cron_age=off") == []
    assert (
        told("backup/err=1", queues=("nightly",)) == told("backup/err=1", exclude=("backup",)) == []
    )
    assert told("nightly/cron_age=25h") == ["queue nightly has no schedule"]
    assert told("cron_age=25h") == told("nightly/err=1") == []


def test_many_findings_fit_a_pager() -> None:
    queues = tuple(sources.Queue(f"q{n}", "DOWN", "x" * 500, {"err": n}) for n in range(50))
    found = verdict.judge(sources.Facts("/rq", queues), parse_thresholds([], []), (), ())
    line = found.line(perfdata=False, strict=False)
    assert len(line) < 2000
    assert line.endswith("; and 93 more")


def test_the_worst_level_wins() -> None:
    def level(*levels: verdict.Level) -> Any:
        return verdict.Verdict(tuple(verdict.Finding(level, "", "x") for level in levels)).level

    ok, warning, critical, unknown = verdict.Level
    assert level() is ok
    assert level(warning, unknown) is unknown
    assert level(warning, critical, unknown) is critical


def test_the_page_has_every_metric() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    for name, metric in METRICS.items():
        assert f"| `{name}` | {metric.meaning} |" in page
