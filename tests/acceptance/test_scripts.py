"""What a queue script finds when it starts: environment, descriptors, directory, log, and who it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rqcore import __version__
from rqcore.testing import RunningInstance
from tests.acceptance.helpers import BASE, DONE, full, script_log

pytestmark = pytest.mark.process

#: Leaves its environment, NUL-separated as it came, and what else is to be seen.
LOOK = r"""#!/usr/bin/env python3
import os, sys, json
def fd(n):
    try:
        return os.readlink(f"/proc/self/fd/{n}")
    except OSError:
        return None
fds = {int(n): fd(n) for n in os.listdir("/proc/self/fd")}
# The niceness is set from outside, as soon as the script has begun, and nothing tells when.
while os.nice(0) != 19:
    os.sched_yield()
seen = {
    "env": {k.decode("latin-1"): v.decode("latin-1") for k, v in os.environb.items()},
    "fds": {n: to for n, to in fds.items() if to is not None},
    "blocking": [os.get_blocking(3), os.get_blocking(4)],
    "cwd": os.getcwd(), "nice": os.nice(0), "pid": os.getpid(), "group": os.getpgrp(),
    "session": os.getsid(0), "argv": sys.argv, "umask": os.umask(0),
}
with open("seen.json", "w") as file:
    json.dump(seen, file)
print("out"); print("err", file=sys.stderr)
os.write(3, b"done seen\n")
"""
COMPILED = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    char answer[4096];
    ssize_t count;
    dprintf(atoi(getenv("RQ_WRITE")), "run compiled %s\n", getenv("RQ_PARAM1"));
    dprintf(3, "dup 0-X-other\n");
    count = read(atoi(getenv("RQ_READ")), answer, sizeof answer);
    if (count < 0) { perror("read"); return 1; }
    printf("answer: %.*s", (int)count, answer);
    dprintf(3, "done compiled\n");
    return 0;
}
"""
BASH = r"""#!/bin/bash
echo "run in bash" >&3
echo "dup 0-X-other" >&3
read -r -u 4 word id
echo "answer: $word $id"
echo "done in bash" >&$RQ_WRITE
"""
PYTHON = r"""#!/usr/bin/env python3
import os
with os.fdopen(3, "w", buffering=1) as rq, os.fdopen(4) as answers:
    print("run in Python", file=rq)
    print("dup 0-X-/q/other", file=rq)
    print("answer:", answers.readline(), end="", flush=True)
    print("done in Python", file=rq)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    folder = tmp_path_factory.mktemp("scripts")
    home = folder / "home"
    home.mkdir()
    (home / ".bash_profile").write_text(
        "export FROM_PROFILE='of the login shell'\nexport PATH=$PATH:/from/profile\n"
        "echo noise; echo noise >&2\n"
    )
    with RunningInstance(folder / "rq") as instance:
        instance.environ |= {"HOME": str(home), "OF_RQ": "yes"}
        instance.configure(hostnames=["http://alias.example.com:3333/"])
        look = instance.script("look", LOOK)
        instance.queue("look", "code/look", env_vars={"MINE": "a b", "RQ_HOST": "no", "NUM": 5})
        instance.queue("bare", look, exec_prefix="")
        instance.queue("prefix", look, exec_prefix="env -u OF_RQ PREFIXED='a b' ")
        instance.queue("shell", look, exec_prefix="cd .. && umask 027 && exec ")
        instance.queue("login", look, exec_prefix="bash -lc ")
        instance.queue("bash", BASH)
        instance.queue("python", PYTHON)
        instance.queue("plain", instance.script("plain", "echo 'done no first line' >&3\n"))
        instance.queue("other", DONE)
        yield instance.start()


@pytest.fixture
def rq(shared: RunningInstance) -> Iterator[RunningInstance]:
    yield shared
    shared.disconnect()


def seen(message: dict[str, Any]) -> dict[str, Any]:
    """What the script `LOOK` saw."""
    assert message["state"] == "done", message
    found: dict[str, Any] = json.loads((Path(message["path"]) / "job/seen.json").read_text())
    return found


def test_the_environment_to_the_letter(rq: RunningInstance) -> None:
    msg_id = rq.send("look", param1="one", param2="", param4="vier ü", force_remote=True, count=3)
    saw = seen(rq.until("look", msg_id))
    queue = rq.directory / "queue/look"
    contract = {name: value for name, value in saw["env"].items() if name.startswith("RQ_")}
    contract["RQ_PARAM4"] = contract["RQ_PARAM4"].encode("latin-1").decode()
    assert contract.pop("RQ_MSG_DIR") == f"{queue}/run/{msg_id}/job"
    # Switches for RQ's own processes count for all they start.
    contract.pop("RQ_PLUGINS_DISABLED", None)
    assert contract == {
        "RQ_VER": __version__,
        "RQ_ENV": "test",
        "RQ_SCRIPT": "code/look",
        "RQ_REALSCRIPT": str(rq.directory / "code/look"),
        "RQ_HOST": BASE,
        "RQ_HOSTNAMES": f"{BASE} http://alias.example.com:3333/",
        "RQ_PORT": "3333",
        "RQ_DEST": f"{BASE}q/look",
        "RQ_DEST_QUEUE": "look",
        "RQ_MSG_ID": msg_id,
        "RQ_FULL_MSG_ID": full("look", msg_id),
        "RQ_PIPE": "3",
        "RQ_WRITE": "3",
        "RQ_READ": "4",
        "RQ_COUNT": "3",
        "RQ_PARAM1": "one",
        "RQ_PARAM2": "",
        "RQ_PARAM3": "",
        "RQ_PARAM4": "vier ü",
        "RQ_ORIG_MSG_ID": full("look", msg_id),
        "RQ_FORCE_REMOTE": "1",
    }
    assert saw["env"]["MINE"] == "a b"
    assert saw["env"]["NUM"] == "5"
    assert "NOTIFY_SOCKET" not in saw["env"]


def test_what_depends_on_the_message(rq: RunningInstance) -> None:
    dest, orig = "http://elsewhere:3333/q/far", "http://elsewhere:3333/q/first/1"
    msg_id = rq.send("look", dest=dest, orig_msg_id=orig)
    env = seen(rq.until("look", msg_id))["env"]
    assert (env["RQ_DEST"], env["RQ_DEST_QUEUE"]) == (dest, "far")
    assert env["RQ_ORIG_MSG_ID"] == orig
    assert "RQ_FORCE_REMOTE" not in env
    assert env["RQ_COUNT"] == "0"


def test_who_and_where_a_script_is(rq: RunningInstance) -> None:
    msg_id = rq.send("look")
    message = rq.until("look", msg_id)
    saw = seen(message)
    run = f"{rq.directory}/queue/look/run/{msg_id}/job"
    fds = {int(number): to for number, to in saw["fds"].items()}
    assert sorted(fds) == [1, 2, 3, 4], "stdin is closed, and nothing else is open"
    assert fds[1] == fds[2] == f"{run}/stdio.log"
    assert fds[3].startswith("pipe:")
    assert fds[4].startswith("pipe:")
    assert fds[3] != fds[4]
    assert saw["blocking"] == [True, True]
    assert saw["cwd"] == run
    assert saw["nice"] == 19
    assert saw["group"] == saw["pid"], "a process group of its own"
    assert saw["argv"] == [str(rq.directory / "code/look")]
    assert script_log(message) == "out\nerr\n"
    assert not (Path(message["path"]) / "pid").exists(), "the pid is there while in run only"


def test_the_login_environment(rq: RunningInstance) -> None:
    env = seen(rq.until("look", rq.send("look")))["env"]
    assert env["FROM_PROFILE"] == "of the login shell"
    assert env["PATH"].endswith(":/from/profile")
    assert env["OF_RQ"] == "yes"
    env = seen(rq.until("bare", rq.send("bare")))["env"]
    assert "FROM_PROFILE" not in env
    assert env["OF_RQ"] == "yes"


def test_an_exec_prefix_is_honoured_to_the_letter(rq: RunningInstance) -> None:
    env = seen(rq.until("prefix", rq.send("prefix")))["env"]
    assert "OF_RQ" not in env
    assert "FROM_PROFILE" not in env
    assert env["PREFIXED"] == "a b"
    assert env["RQ_PARAM1"] == ""
    message = rq.until("login", rq.send("login"))
    assert seen(message)["env"]["FROM_PROFILE"] == "of the login shell"
    assert seen(message)["nice"] == 19
    assert script_log(message) == "noise\nnoise\nout\nerr\n"


def test_an_exec_prefix_is_a_command_line(rq: RunningInstance) -> None:
    message = rq.until("shell", rq.send("shell"))
    assert message["state"] == "done", message
    saw = json.loads((Path(message["path"]) / "seen.json").read_text())
    assert saw["cwd"] == str(rq.directory / "queue/shell/run" / message["msg_id"])
    assert saw["umask"] == 0o27


def test_a_second_runs_output_follows_the_first(rq_instance: RunningInstance) -> None:
    rq_instance.queue("twice", (
        "#!/bin/sh\necho \"run $RQ_COUNT\"; echo 'kept' >> notes\n"
        'if [ "$RQ_COUNT" = 0 ]; then echo "resend 0-again" >&3; else echo done >&3; fi\n'
    ))  # fmt: skip
    rq_instance.start()
    message = rq_instance.until("twice", rq_instance.send("twice"))
    assert script_log(message) == "run 0\nrun 1\n"
    assert (Path(message["path"]) / "job/notes").read_text() == "kept\nkept\n"
    assert message["count"] == 1


def test_a_deployed_script_is_used_from_the_next_run_on(rq_instance: RunningInstance) -> None:
    code = rq_instance.directory / "code"
    for release in ("1", "2"):
        path = rq_instance.script(f"release-{release}", (
            f"#!/bin/sh\necho \"$RQ_SCRIPT $RQ_REALSCRIPT\"; echo 'done release {release}' >&3\n"
        ))  # fmt: skip
        (code / release).mkdir()
        path.rename(code / release / "run")
    (code / "current").symlink_to("1")
    rq_instance.queue("deploy", "code/current/run")
    rq_instance.start()
    for release in ("1", "2", "1"):
        (code / "new").symlink_to(release)
        (code / "new").rename(code / "current")
        message = rq_instance.until("deploy", rq_instance.send("deploy"))
        assert message["status"] == f"done - release {release}"
        assert script_log(message) == f"code/current/run {code}/{release}/run\n"


@pytest.mark.parametrize(("queue", "status"), [
    ("bash", "in bash"), ("python", "in Python"), ("plain", "no first line")
])  # fmt: skip
def test_any_language(rq: RunningInstance, queue: str, status: str) -> None:
    message = rq.until(queue, rq.send(queue, param1="x"))
    assert message["status"] == f"done - {status}"
    if queue != "plain":
        word, ok, copy = script_log(message).split()
        assert (word, ok) == ("answer:", "ok")
        rq.until("other", copy.rpartition("/")[2])


def test_a_compiled_program(rq_instance: RunningInstance, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "script.c").write_text(COMPILED)
    program = tmp_path / "a program"
    subprocess.run([compiler, "-o", program, tmp_path / "script.c"], check=True)
    rq_instance.queue("compiled", program)
    rq_instance.queue("other", DONE)
    rq_instance.start()
    message = rq_instance.until("compiled", rq_instance.send("compiled", param1="yes"))
    assert message["status"] == "done - compiled"
    copy = script_log(message).removeprefix("answer: ok ").strip()
    assert copy.startswith(f"{BASE}q/other/")
    assert rq_instance.until("other", copy.rpartition("/")[2])["param1"] == "yes"


def test_scripts_die_of_a_broken_pipe_as_elsewhere(rq_instance: RunningInstance) -> None:
    """Python ignores SIGPIPE, and nohup, a shell's & and others ignore or block more for us."""
    rq_instance.queue("signals", (
        "#!/bin/sh\ngrep -E '^Sig(Ign|Blk)' /proc/self/status\necho done >&3\n"
    ))  # fmt: skip
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})
    try:
        rq_instance.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in before.items():
            signal.signal(number, handler)
    message = rq_instance.until("signals", rq_instance.send("signals"))
    # 32 and 33 are the C library's own; who started the tests may ignore them.
    masks = [int(line.split()[1], 16) for line in script_log(message).splitlines()]
    assert [mask & 0x7FFFFFFF for mask in masks] == [0, 0]
    rq_instance.manager.ask("restart_queue", "signals")
    rq_instance.until("signals", rq_instance.send("signals"), "done")


def test_a_script_without_a_home_or_bash(rq_instance: RunningInstance, tmp_path: Path) -> None:
    """Without bash there is no login environment; scripts get the one that RQ was started with."""
    (tmp_path / "bin").mkdir()
    for name in ("sh", "env"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / "bin" / name).symlink_to(os.path.realpath(found))
    rq_instance.environ["PATH"] = str(tmp_path / "bin")
    rq_instance.queue("poor", '#!/bin/sh\necho "done $PATH" >&3\n')
    rq_instance.start()
    message = rq_instance.until("poor", rq_instance.send("poor"))
    assert message["status"] == f"done - {tmp_path}/bin"
    assert "there is no bash" in rq_instance.log_text()
