"""What scripts say on descriptor 3, and what becomes of their messages; odd scripts above all."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest

from rqcore.testing import RunningInstance
from tests.acceptance.helpers import BASE, DONE, Gate, Journal, full, running, script_log

pytestmark = pytest.mark.process

SAY = '#!/bin/bash\neval "$RQ_PARAM1"\n'
IMPROPER = "err - PROCESS EXITED IMPROPERLY - MOVING TO ERR - Completion was "
#: Only the first message of a chain asks for copies, not its copies.
FIRST = '[ "$RQ_ORIG_MSG_ID" = "$RQ_FULL_MSG_ID" ]'


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    with RunningInstance(tmp_path_factory.mktemp("pipe") / "rq") as instance:
        instance.configure(kill_grace=600)
        for name in ("say", "left", "right"):
            instance.queue(name, SAY)
        for name in ("later", "last"):
            instance.queue(name, DONE)
        instance.queue("sink", DONE, fsync="no-fsync")
        instance.queue("wide", SAY, num_workers=20)
        instance.queue("other", DONE)
        for name in ("rest", "closed"):
            instance.queue(name, DONE)
        (instance.directory / "config/rest.pause").touch()
        (instance.directory / "config/closed.down").touch()
        yield instance.start()


@pytest.fixture
def rq(shared: RunningInstance) -> Iterator[RunningInstance]:
    yield shared
    shared.disconnect()


@pytest.fixture(scope="module")
def _shared_hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    with RunningInstance(tmp_path_factory.mktemp("hasty") / "rq") as instance:
        instance.configure(kill_grace=0.1)
        instance.queue("say", SAY)
        yield instance.start()


@pytest.fixture
def hasty(_shared_hasty: RunningInstance) -> Iterator[RunningInstance]:
    """For scripts that have to be killed: elsewhere they have all the time they need to end."""
    yield _shared_hasty
    _shared_hasty.disconnect()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


# Verdicts


@pytest.mark.parametrize(("script", "status"), [
    ("echo 'done all of it' >&3", "done - all of it"),
    ("echo done >&3", "done"),
    ("echo 'done ' >&3", "done"),
    ("echo 'err no disk' >&3", "err - no disk"),
    ("echo 'err no disk' >&3; exit 7", "err - no disk"),
    ("echo 'fail no disk' >&3", "err - no disk"),
    ("echo 'fails no disk' >&3; exit 1", "err - no disk"),
    ("echo 'err' >&3; kill -9 $$", "err"),
    (f"echo 'relayed {BASE}q/x/1' >&3", f"relayed - {BASE}q/x/1"),
    # the exit status counts
    ("echo 'done ok' >&3; exit 1", IMPROPER + "done but exit status was 1"),
    ("echo 'relayed there' >&3; exit 2", IMPROPER + "relayed but exit status was 2"),
    ("echo 'resend 0-x' >&3; exit 255", IMPROPER + "resend but exit status was 255"),
    ("true", IMPROPER + "none but exit status was 0"),
    ("exit 3", IMPROPER + "none but exit status was 3"),
    ("echo 'run half way' >&3", IMPROPER + "none but exit status was 0"),
    ("kill -9 $$", IMPROPER + "none but exit status was signal 9 (SIGKILL)"),
    ("echo 'done' >&3; kill -SEGV $$", IMPROPER + "done but exit status was signal 11 (SIGSEGV)"),
    ("exec /no/such/program", IMPROPER + "none but exit status was 127"),
    # the first verdict wins, the last text is the status
    ("echo 'done one' >&3; echo 'err two' >&3", "done - two"),
    ("echo 'err one' >&3; echo 'done two' >&3", "err - two"),
    ("echo 'done one' >&3; echo 'run two' >&3", "done - two"),
    ("echo 'run one' >&3; echo 'run two' >&3; echo 'done' >&3", "done"),
    # in pieces, several at once, long
    ("for c in d o n e ' ' o k; do printf %s \"$c\" >&3; done; echo >&3", "done - ok"),
    ("printf 'run a\\nrun b\\ndone c\\n' >&3", "done - c"),
    ("printf 'done spaces  kept \\r\\n' >&3", "done - spaces  kept "),
    # garbage counts for nothing
    ("printf '\\nfoo\\n\\n done\\nDONE\\ndone\\tx\\n\\0\\n' >&3", IMPROPER + "none but exit status was 0"),  # noqa: E501
    ("head -c 300000 /dev/zero >&3; echo >&3; echo 'done ok' >&3", "done - ok"),
    ("printf '\\xff\\xfe\\n' >&3; printf 'done caf\\xe9\\n' >&3", "done - caf\udce9"),
    ("printf 'done no newline' >&3", IMPROPER + "none but exit status was 0"),
    ("echo 'run fine' >&3; printf 'err half' >&3; exit 0", IMPROPER + "none but exit status was 0"),
    ("echo 'done ok' >&3; printf 'err half' >&3", "done - ok"),
    # closing
    ("echo 'done ok' >&3; exec 3>&- 4<&-", "done - ok"),
    ("exec 3>&-", IMPROPER + "none but exit status was 0"),
    ("exec 4<&-; echo 'done deaf' >&3", "done - deaf"),
    ("exec 1>&- 2>&-; echo 'done silent' >&3", "done - silent"),
    # what is no resend is an error, not a loop
    ("echo 'resend soon' >&3", ("err - resend lacks its delay: 'soon'; write resend SECONDS-REASON, "
     "for instance: resend 300-no answer")),
])  # fmt: skip
def test_verdicts(rq: RunningInstance, script: str, status: str) -> None:
    message = rq.until("say", rq.send("say", param1=script))
    assert message["status"] == status
    assert message["status"].startswith(message["state"])


def test_a_megabyte_line_costs_nothing_but_its_end(rq: RunningInstance) -> None:
    script = "head -c 1000000 /dev/zero | tr '\\0' x | sed 's/^/run /' >&3; echo >&3; echo done >&3"
    assert rq.until("say", rq.send("say", param1=script))["status"] == "done"
    script = "{ printf 'done '; head -c 1000000 /dev/zero | tr '\\0' x; echo; } >&3"
    message = rq.until("say", rq.send("say", param1=script))
    assert message["state"] == "done"
    assert message["status"].startswith("done - xxx")
    assert message["status"].endswith("x…")
    assert len(message["status"]) < 66_000


def test_a_flood_on_both_descriptors(rq: RunningInstance) -> None:
    script = "head -c 5000000 /dev/urandom | tee /dev/stderr | base64 | sed 's/^/run /' >&3; echo done >&3"  # noqa: E501
    message = rq.until("say", rq.send("say", param1=script))
    assert message["status"] == "done"
    assert (Path(message["path"]) / "job/stdio.log").stat().st_size == 5_000_000


# Resend


def test_resend_waits_as_long_as_it_says(rq: RunningInstance) -> None:
    before = time()
    msg_id = rq.send("say", param1="echo 'resend 300-Memcached not responding.' >&3")
    message = rq.until("say", msg_id, "que", matching=lambda m: m["count"] == 1)
    assert message["status"] == "que - 300-Memcached not responding."
    assert before + 300 <= message["due"] <= time() + 301
    assert rq.ask("say", "get_message_status", {"msg_id": msg_id}) == message["status"]
    rq.ask("say", "delete_message", {"msg_id": msg_id})


def test_resend_ends_when_its_count_is_reached(rq: RunningInstance) -> None:
    script = 'echo "$RQ_COUNT"; echo "resend 0-again" >&3'
    message = rq.until("say", rq.send("say", param1=script, max_count=3))
    assert message["status"] == "err - HIT MAX RESEND COUNT - MOVING TO ERR"
    assert script_log(message) == "0\n1\n2\n"
    assert message["count"] == 3


def test_resend_by_default_ends_after_fifteen_runs(rq: RunningInstance) -> None:
    script = 'echo "$RQ_COUNT"; echo "resend 0-again" >&3'
    message = rq.until("say", rq.send("say", param1=script))
    assert message["state"] == "err"
    assert script_log(message).split() == [str(number) for number in range(15)]


# The state changes when the process exits, then and only then


def test_after_its_verdict_a_script_may_take_its_time(rq: RunningInstance, gate: Gate) -> None:
    script = f'echo "done ready" >&3; read x < "{gate.path}"; exit 0'
    msg_id = rq.send("say", param1=script)
    message = rq.until("say", msg_id, "run", matching=running)
    assert message["status"] == "run - ready"
    assert rq.ask("say", "get_message_state", {"msg_id": msg_id}) == "run"
    gate.open()
    assert rq.until("say", msg_id)["status"] == "done - ready"


def test_closing_descriptor_3_does_not_end_a_run(rq: RunningInstance, gate: Gate) -> None:
    script = f'echo "done ready" >&3; exec 3>&- 4<&-; read x < "{gate.path}"; exit 0'
    msg_id = rq.send("say", param1=script)
    rq.until("say", msg_id, "run", matching=running)
    # The queue has dealt with the closed pipe when it has answered something that came later.
    gate.open()
    assert rq.until("say", msg_id)["status"] == "done - ready"


def test_a_background_child_holds_up_nobody(rq: RunningInstance, gate: Gate) -> None:
    """The message is done, and the next one too, while the child still holds descriptor 3."""
    child = f'read x < "{gate.path}"; echo "err too late" >&3'
    script = f"( trap '' PIPE; {child} ) & echo \"done $!\" >&3"
    message = rq.until("say", rq.send("say", param1=script))
    assert message["state"] == "done"
    pid = int(message["status"].split()[-1])
    assert Path(f"/proc/{pid}").exists()
    assert os.readlink(f"/proc/{pid}/fd/3").startswith("pipe:")
    rq.until("say", rq.send("say", param1="echo done >&3"))
    ended = os.pidfd_open(pid)
    try:
        gate.open()
        assert select.select([ended], [], [], 30)[0]
    finally:
        os.close(ended)
    assert rq.message("say", message["msg_id"])["status"] == message["status"]


def test_what_a_background_child_says_later_is_no_verdict(rq: RunningInstance, gate: Gate) -> None:
    script = f"( trap '' PIPE; read x < '{gate.path}'; echo 'done at last' >&3 ) & echo $!"
    message = rq.until("say", rq.send("say", param1=script))
    gate.open()
    assert message["status"] == IMPROPER + "none but exit status was 0"


def test_what_ignores_sigterm_is_killed(hasty: RunningInstance, gate: Gate) -> None:
    script = f'trap "" TERM; echo "run ready" >&3; cat "{gate.path}"; echo done >&3'
    msg_id = hasty.send("say", param1=script)
    hasty.until("say", msg_id, "run", matching=running)
    assert hasty.ask("say", "destroy_message", {"msg_id": msg_id}) == "msg destroyed"
    message = hasty.until("say", msg_id)
    assert message["state"] == "err"
    assert "signal 9 (SIGKILL)" in message["status"]
    assert "destroyed" in message["status"]


def test_destroy_ends_the_whole_group(hasty: RunningInstance, gate: Gate) -> None:
    script = f'( trap "" TERM; read x < "{gate.path}" ) & echo "run ready $!" >&3; wait'
    msg_id = hasty.send("say", param1=script)
    pid = int(hasty.until("say", msg_id, "run", matching=running)["status"].split()[-1])
    ended = os.pidfd_open(pid)
    try:
        hasty.ask("say", "destroy_message", {"msg_id": msg_id})
        message = hasty.until("say", msg_id)
        assert select.select([ended], [], [], 30)[0]
    finally:
        os.close(ended)
    assert message["state"] == "err"
    assert "signal 15 (SIGTERM)" in message["status"]


@pytest.mark.parametrize(("trap", "state"), [
    ("echo 'done after all' >&3; exit 0", "done"),
    ("echo 'err given up' >&3; exit 0", "err"),
    ("echo 'done after all' >&3; exit 1", "err"),
    ("echo 'resend 0-later' >&3; exit 0", "err"),
    ("exit 0", "err"),
])  # fmt: skip
def test_a_script_may_clean_up_when_it_is_destroyed(
    rq: RunningInstance, gate: Gate, trap: str, state: str
) -> None:
    script = f"trap \"{trap}\" TERM; echo 'run ready' >&3; while :; do read x < '{gate.path}'; done"
    msg_id = rq.send("say", param1=script)
    rq.until("say", msg_id, "run", matching=running)
    rq.ask("say", "destroy_message", {"msg_id": msg_id})
    message = rq.until("say", msg_id)
    assert message["state"] == state
    if "given up" in trap:
        assert message["status"].startswith("err - given up")


def test_a_stopped_script_can_be_destroyed(hasty: RunningInstance) -> None:
    msg_id = hasty.send("say", param1="echo 'run ready' >&3; kill -STOP $$; echo done >&3")
    hasty.until("say", msg_id, "run", matching=running)
    hasty.ask("say", "destroy_message", {"msg_id": msg_id})
    assert hasty.until("say", msg_id)["state"] == "err"


# Copies


def copies(rq: RunningInstance, queue: str, script: str, **fields: object) -> list[str]:
    """Run a script that asks for copies and prints the answers; returns them."""
    message = rq.until(queue, rq.send(queue, param1=script, **fields))
    assert message["state"] == "done", message
    return script_log(message).splitlines()


DUP = 'echo "dup %s" >&3; read -r -u 4 line; echo "$line"; echo "done" >&3'


def test_a_copy_with_attachments(rq: RunningInstance, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("content")
    prep = {"dest": "say", "param1": DUP % "0-X-other", "param2": "zwei", "src": "me", "count": 5}
    msg_id = rq.ask("say", "prep_message", prep).rpartition("/")[2]
    for name in ("one", "and two"):
        args = {"msg_id": msg_id, "pathname": str(tmp_path / "a file"), "name": name}
        rq.ask("say", "attach_message", args)
    rq.ask("say", "commit_message", {"msg_id": msg_id})
    message = rq.until("say", msg_id)
    word, copy_id = script_log(message).split()
    assert word == "ok"
    assert copy_id.startswith(f"{BASE}q/other/")
    copy = rq.until("other", copy_id.rpartition("/")[2])
    assert (copy["count"], copy["param2"], copy["src"]) == (0, "zwei", "me")
    assert copy["dest"] == "other"
    assert copy["orig_msg_id"] == full("say", msg_id)
    assert sorted(copy["_attachments"]) == ["and two", "one"]
    for name, attachment in copy["_attachments"].items():
        original = message["_attachments"][name]
        assert os.path.samefile(attachment["path"], original["path"])
        assert attachment["md5"] == original["md5"]


@pytest.mark.parametrize("dest", ["other", "/q/other", "/q/other/"])
def test_destinations_of_this_instance(rq: RunningInstance, dest: str) -> None:
    (answer,) = copies(rq, "say", DUP % f"0-X-{dest}")
    assert answer.startswith(f"ok {BASE}q/other/")


def test_a_copy_may_be_due_later(rq: RunningInstance) -> None:
    before = time()
    (answer,) = copies(rq, "say", DUP % "1000-X-other")
    copy = rq.message("other", answer.rpartition("/")[2])
    assert copy["state"] == "que"
    assert before + 1000 <= copy["due"] <= time() + 1001


@pytest.mark.parametrize(("dest", "reason"), [
    ("0-X-nosuch", "fail there is no queue nosuch"),
    ("0-X-rest", "fail queue rest is PAUSE"),
    ("0-X-closed", "fail status: DOWN"),
    ("0-X-http://other.example.com:3333/q/barrier",
     "fail no plugin carries messages to http://other.example.com:3333/ (rqcore-relay would)"),
    (f"0-X-{BASE}q/other",
     f"fail no plugin carries messages to {BASE} (rqcore-relay would)"),
    ("0-X-", "fail dup names no usable destination: '0-X-'; write dup SECONDS-X-DEST"),
    ("nonsense", "fail malformed dup 'nonsense'; write dup SECONDS-X-DEST"),
    ("0-X-../../etc", "fail ../../etc is no queue and no URL of one"),
    ("0-X-/q/../../etc", "fail /q/../../etc is no queue and no URL of one"),
    ("0-X-/q/a b", "fail /q/a b is no queue and no URL of one"),
])  # fmt: skip
def test_copies_that_fail(rq: RunningInstance, dest: str, reason: str) -> None:
    assert copies(rq, "say", DUP % dest) == [reason]


def test_a_copy_to_the_own_queue(rq: RunningInstance) -> None:
    script = f"if {FIRST}; then {DUP % '0-X-say'}; else echo 'done the copy' >&3; fi"
    (answer,) = copies(rq, "say", script)
    assert answer.startswith(f"ok {BASE}q/say/")
    copy = rq.until("say", answer.rpartition("/")[2])
    assert copy["status"] == "done - the copy"


def test_two_queues_that_wait_for_each_other(rq: RunningInstance) -> None:
    """Each of the two has one worker, which waits for an answer from the other."""
    sent = {}
    for queue, other in (("left", "right"), ("right", "left")):
        dup = "; ".join([f"echo 'dup 0-X-{other}' >&3; read -r -u 4 line; echo \"$line\""] * 20)
        script = f"if {FIRST}; then {dup}; fi; echo 'done' >&3"
        sent[queue] = rq.send(queue, param1=script)
    for queue, msg_id in sent.items():
        answers = script_log(rq.until(queue, msg_id)).splitlines()
        other = "right" if queue == "left" else "left"
        assert len(answers) == 20
        for answer in answers:
            assert answer.startswith(f"ok {BASE}q/{other}/")
            rq.until(other, answer.rpartition("/")[2])


def test_answers_come_in_the_order_of_the_questions(rq: RunningInstance) -> None:
    """Whichever queues they are for, and whether they succeed or fail."""
    dests = ["0-X-other", "nonsense", "0-X-nosuch", "0-X-later", "0-X-closed", "0-X-rest"] * 30
    ask = "; ".join(f"echo 'dup {dest}'" for dest in dests)
    script = f'{{ {ask}; }} >&3; for i in {{1..180}}; do read -r -u 4 line; echo "$line"; done'
    answers = copies(rq, "say", script + "; echo done >&3")
    begins = [f"ok {BASE}q/other/", "fail malformed", "fail there is no", f"ok {BASE}q/later/",
              "fail status: DOWN", "fail queue rest is PAUSE"] * 30  # fmt: skip
    for answer, begin in zip(answers, begins, strict=True):
        assert answer.startswith(begin)


def test_many_at_once_ask_for_copies(rq: RunningInstance) -> None:
    """More than a socket lets wait for being accepted."""
    script = f"if {FIRST}; then {'; '.join([DUP % '0-X-other'] * 10)}; fi"
    sent = [rq.send("wide", param1=script) for _ in range(20)]
    for msg_id in sent:
        answers = script_log(rq.until("wide", msg_id)).splitlines()
        assert [answer.split()[0] for answer in answers] == ["ok"] * 10


def test_a_script_need_not_read_its_answers(rq: RunningInstance) -> None:
    """Not even a thousand of them, which no pipe holds, and not with descriptor 4 closed."""
    for number, close in enumerate(("", "exec 4<&-; "), 1):
        ask = "for i in {1..1000}; do echo 'dup 50000-X-sink'; done >&3"
        message = rq.until("say", rq.send("say", param1=f"{close}{ask}; echo done >&3"))
        assert message["state"] == "done"
        assert rq.ask("sink", "num_messages")["que"] == number * 1000


def test_a_copy_that_is_asked_for_last_is_still_made(rq: RunningInstance) -> None:
    before = rq.ask("rest", "num_messages")["que"]
    message = rq.until(
        "say", rq.send("say", param1="echo done >&3; echo 'dup 0-X-rest' >&3; exit 1")
    )
    assert message["state"] == "err"
    assert rq.ask("rest", "num_messages")["que"] == before
    copy = "echo 'done' >&3; echo 'dup 50000-X-last' >&3"
    assert rq.until("say", rq.send("say", param1=copy))["state"] == "done"
    assert rq.ask("last", "num_messages")["que"] == 1


def test_facts_in_their_order(rq_instance: RunningInstance) -> None:
    """What the hooks are told of one message's life, and in which order."""
    rq_instance.queue("life", (
        "#!/bin/sh\n"
        'if [ $RQ_COUNT = 0 ]; then echo "resend 0-again" >&3; exit; fi\n'
        'echo "run working" >&3; echo "done good" >&3\n'
    ))  # fmt: skip
    journal = Journal(rq_instance)
    rq_instance.start()
    prep = rq_instance.ask("life", "prep_message", {"dest": "life"})
    msg_id = prep.rpartition("/")[2]
    rq_instance.ask("life", "commit_message", {"msg_id": msg_id})
    journal.until("message_done", msg_id=msg_id)
    told = [fact["hook"].removeprefix("rq_message_") for fact in journal.facts(msg_id=msg_id)]
    without = [hook for hook in told if hook not in ("moved", "status")]
    assert without == [
        "prepared", "committed", "queued", "starting", "started", "finishing", "resend", "queued",
        "starting", "started", "finishing", "done",
    ]  # fmt: skip
    steps = [fact["step"] for fact in journal.facts("message_moved", msg_id=msg_id)]
    assert steps == ["prepare", "commit", "start", "resend", "start", "finish"]
