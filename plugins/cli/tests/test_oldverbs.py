"""RQ's old verbs: their arguments, and what they print on a real instance."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_cli.oldverbs import VERBS, is_old, parse_old

from rqcore.errors import RefusedError
from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Rq

KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
PAIRS = st.dictionaries(KEYS, st.text(), max_size=6)
URL = r"http://localhost:3333/q/work/\d{8}\.\d{4}\.\d\d\.\d{3}\.\d+"


@given(PAIRS)
def test_keys_with_equals_take_any_value(pairs: dict[str, str]) -> None:
    assert parse_old([f"--{key}={value}" for key, value in pairs.items()]) == pairs


@given(PAIRS)
def test_keys_take_the_next_word(pairs: dict[str, str]) -> None:
    pairs = {key: value for key, value in pairs.items() if not value.startswith("--")}
    words = [word for key, value in pairs.items() for word in (f"--{key}", value)]
    assert parse_old(words) == pairs


@given(st.lists(KEYS, unique=True))
def test_bare_keys_are_true(keys: list[str]) -> None:
    assert parse_old([f"--{key}" for key in keys]) == dict.fromkeys(keys, "true")


def test_dashes_in_keys_are_underscores() -> None:
    assert parse_old(["--relay-ok", "--max-count", "-1"]) == {"relay_ok": "true", "max_count": "-1"}


@pytest.mark.parametrize("words", [["test"], ["--a", "b", "c"], ["--", "x"], ["-a", "b"]])
def test_a_word_without_a_key_is_refused(words: list[str]) -> None:
    with pytest.raises(RefusedError, match="belongs to no key; write --key value"):
        parse_old(words)


def test_clone_is_an_old_verb_only_with_its_key() -> None:
    assert is_old(["clone", "--msg_id", "x"])
    assert is_old(["clone", "--msg-id=x"])
    assert not is_old(["clone", "work/1"])
    assert is_old(["state"])
    assert not is_old([])


def ok(rq: Rq, *words: str) -> str:
    """Run an old verb that must succeed; returns what follows ``ok``."""
    out = rq(*words).out
    assert out.startswith("ok ")
    return out.removeprefix("ok ").removesuffix("\n")


def fail(rq: Rq, *words: str) -> str:
    """Run an old verb that must fail; returns what follows ``fail``."""
    out = rq(*words, status=1).out
    assert re.fullmatch(r"fail .+\n", out)
    return out.removeprefix("fail ").removesuffix("\n")


@pytest.mark.process
def test_a_message_from_prep_to_done(rq: Rq, running: RunningInstance, tmp_path: Path) -> None:
    file = tmp_path / "here" / "some file"
    file.write_text("12345")
    full = ok(rq, "prepmesg", "--dest", "work", "--src=me", "--param1", "done", "--param2", "x y")
    assert re.fullmatch(URL, full)
    assert ok(rq, "state", "--msg_id", full) == "prep"
    md5 = "827ccb0eea8a706c4c34a16891f84e7b"
    attached = f"{md5}-Attached successfully for Message: {full} attachment"
    # The file is named relative to where the user is, not to where the queue's process is.
    assert ok(rq, "attachmesg", "--msg_id", full, "--pathname", "some file") == attached
    assert ok(rq, "attachmesg", f"--msg_id={full}", f"--pathname={file}", "--name=b") == attached
    head, *lines = ok(rq, "attachstatusmesg", "--msg_id", full).splitlines()
    assert head == "2"
    folder = running.message("work", full.rpartition("/")[2])["path"] + "/attach"
    assert lines == [f"b {md5} 5 {folder}/b", f"some file {md5} 5 {folder}/some file"]
    assert ok(rq, "commitmesg", "--msg_id", full) == "msg commited"
    running.until("work", full.rpartition("/")[2])
    short = "/q/work/" + full.rpartition("/")[2]
    assert ok(rq, "statusmesg", "--msg_id", short) == "done - said x y"
    assert ok(rq, "state", "--msg_id", short) == "done"
    assert ok(rq, "statuscountmesg", "--msg_id", short) == "0"
    copy = ok(rq, "clone", "--msg_id", short)
    assert re.fullmatch(URL, copy)
    assert copy != full
    message = running.until("work", copy.rpartition("/")[2])
    assert message["cloned_from"] == full.rpartition("/")[2]
    assert message["src"] == "me"


@pytest.mark.process
def test_fields_of_sendmesg(rq: Rq, running: RunningInstance) -> None:
    full = ok(
        rq, "sendmesg", "--dest", "/q/work", "--count", "3", "--max_count", "7", "--due=4000000000",
        "--force_remote", "--param4=--x", "--src", "me",
    )  # fmt: skip
    message = running.message("work", full.rpartition("/")[2])
    wanted = {"dest": "/q/work", "count": 3, "max_count": 7, "due": 4000000000, "src": "me",
              "force_remote": True, "param4": "--x", "state": "que"}  # fmt: skip
    assert {key: message[key] for key in wanted} == wanted
    assert ok(rq, "statuscountmesg", "--msg_id", full) == "3"
    # One waits, so nothing is made.
    assert ok(rq, "single_que", "--dest", "work") == full


@pytest.mark.process
def test_bytes_that_are_no_text_arrive(rq: Rq, running: RunningInstance) -> None:
    odd = b"a\xffb\nc".decode("utf-8", "surrogateescape")
    full = ok(rq, "sendmesg", "--dest", "work", "--param1", "done", "--param2", odd)
    message = running.until("work", full.rpartition("/")[2])
    assert message["param2"] == odd


@pytest.mark.process
def test_a_queue_elsewhere_needs_the_word_and_the_relay(rq: Rq, running: RunningInstance) -> None:
    url = "http://other.example.com:3333/q/work"
    assert "give --relay-ok" in fail(rq, "sendmesg", "--dest", url)
    assert "rqcore-relay" in fail(rq, "sendmesg", "--dest", url, "--relay-ok")
    running.queue("relay", "#!/bin/sh\necho done >&3\n")
    rq("reload")
    full = ok(rq, "sendmesg", "--relay-ok", "--dest", url)
    assert "/q/relay/" in full
    assert running.message("relay", full.rpartition("/")[2])["dest"] == url


@pytest.mark.process
def test_what_goes_wrong_is_told_on_stdout(rq: Rq, running: RunningInstance) -> None:
    nobody = "/q/work/20200101.0000.00.000.1"
    assert fail(rq, "sendmesg") == 'input missing required "dest" parameter'
    assert "there is no queue wrk; did you mean work?" in fail(rq, "sendmesg", "--dest", "wrk")
    assert "is no destination" in fail(rq, "sendmesg", "--dest", "/x/y")
    assert "belongs to no key" in fail(rq, "sendmesg", "work")
    assert fail(rq, "state") == "lacking 'msg_id' field"
    assert "is no message id" in fail(rq, "state", "--msg_id", "5")
    assert fail(rq, "state", "--msg_id", nobody) == "msg not found"
    assert fail(rq, "commitmesg", "--msg_id", nobody) == "cannot find message"
    assert "lacking 'pathname'" in fail(rq, "attachmesg", "--msg_id", nobody)
    full = ok(rq, "prepmesg", "--dest", "work")
    gone = str(rq.cwd / "gone")
    message = fail(rq, "attachmesg", "--msg_id", full, "--pathname", "gone")
    assert message == f"No such file {gone} to attach to message"
    assert fail(rq, "clone", "--msg_id", full) == "cannot clone message in prep state"
    rq("queue", "down", "work")
    assert fail(rq, "sendmesg", "--dest", "work") == "status: DOWN"
    running.stop()
    assert "RQ does not run" in fail(rq, "sendmesg", "--dest", "work")


@pytest.mark.process
def test_an_unknown_key_is_ignored_and_told_of(rq: Rq, running: RunningInstance) -> None:
    done = rq("sendmesg", "--dest", "work", "--parm1", "x")
    assert done.out.startswith("ok ")
    assert done.err == "rq: sendmesg ignores --parm1; did you mean --param1?\n"


@pytest.mark.process
def test_old_verbs_after_an_option_of_rq(rq: Rq, running: RunningInstance) -> None:
    del rq.environ["RQ_DIR"]
    assert "no instance" in fail(rq, "sendmesg", "--dest", "work")
    assert ok(rq, "sendmesg", "--dest", "work", "--dir", str(running.directory))
    full = ok(rq, "--dir", str(running.directory), "sendmesg", "--dest", "work", "--param1", "done")
    running.until("work", full.rpartition("/")[2])
    assert ok(rq, "--dir", str(running.directory), "clone", "--msg_id", full)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "clone"])
def test_each_verb_says_what_it_knows(verb: str, rq: Rq) -> None:
    usage = rq(verb, "--help").out
    assert usage.startswith(f"usage: rq {verb} ")
    for key in VERBS[verb].keys:
        assert f"--{key} " in usage
