"""A rules file that is bad: the last good one stays in force, or the queue is DOWN; nothing is lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rqcore_router import plugin
from rqcore_router.files import Reader
from rqcore_router.keeper import MARK, settle
from rqcore_router.panel import panels

from rqcore.errors import RefusedError
from rqcore.hookspecs import Delay, QueueInfo
from rqcore.message import Message
from rqcore.testing import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Router

    from rqcore.hooks import Hooks

GOOD = 'rule "{name}"\ndest /./\naction :done\n'
BAD = 'rule "x"\nsrc /(/\naction :shoot\n'


def config(directory: Path) -> Path:
    folder = directory / "config"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- how the rules stand


def test_no_file_no_routing(tmp_path: Path) -> None:
    config(tmp_path)
    standing = settle(tmp_path)
    assert (standing.file, standing.problems, standing.rules) == ("", (), None)
    assert not panels(standing)


def test_a_good_file_is_kept_for_the_time_when_it_is_bad(tmp_path: Path) -> None:
    file = config(tmp_path) / "rq_router_rules.rb"
    file.write_text(GOOD.format(name="one"))
    assert not settle(tmp_path).problems
    kept = tmp_path / "var" / "router" / "rq_router_rules.rb"
    assert kept.read_text() == file.read_text()
    file.write_text(BAD)
    standing = settle(tmp_path)
    assert standing.rules is not None
    assert [rule.name for rule in standing.rules.rules] == ["one"]
    assert standing.stand_in == "var/router/rq_router_rules.rb"
    assert len(standing.problems) == 2
    assert standing.reason == (
        "bad rules in config/rq_router_rules.rb: line 2: /(/: is no regular expression: "
        "missing ), unterminated subpattern at position 0 (and 1 more)"
    )
    (panel,) = panels(standing)
    assert "line 3: 'shoot' is no action" in panel.content
    assert "stay in force" in panel.content
    # Nobody changes the good one by hand for the worse.
    kept.write_text("nonsense")
    assert settle(tmp_path).rules is None


def test_the_last_good_one_may_have_been_of_the_other_format(tmp_path: Path) -> None:
    folder = config(tmp_path)
    (folder / "rq_router_rules.rb").write_text(GOOD.format(name="ruby"))
    settle(tmp_path)
    (folder / "rq_router_rules.rb").unlink()
    toml = folder / "rq_router_rules.toml"
    toml.write_text("not toml")
    standing = settle(tmp_path)
    assert standing.rules is not None
    assert standing.rules.rules[0].name == "ruby"
    toml.write_text("[[rule]]\nname = 'toml'\ndest = '.'\naction = 'done'")
    settle(tmp_path)
    toml.write_text("not toml")
    standing = settle(tmp_path)
    assert standing.rules is not None
    assert standing.rules.rules[0].name == "toml"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["rq_router_rules.rb", "rq_router_rules.toml"], "config/rq_router_rules.toml too; remove one"),
        (["rq_router_rules.json"], "nobody reads such a file; name it rq_router_rules.toml or"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_meant(tmp_path: Path, names: list[str], words: str) -> None:
    for name in names:
        (config(tmp_path) / name).write_text(GOOD.format(name="x"))
    standing = settle(tmp_path)
    assert standing.rules is None
    assert words in standing.reason


def test_a_file_beside_the_rules_harms_nothing(tmp_path: Path) -> None:
    for name in ("rq_router_rules.rb", "rq_router_rules.rb~", "rq_router_rules.rb.bak"):
        (config(tmp_path) / name).write_text(GOOD.format(name="x"))
    assert not settle(tmp_path).problems


def test_what_cannot_be_read_is_bad(tmp_path: Path) -> None:
    file = config(tmp_path) / "rq_router_rules.toml"
    file.mkdir()
    assert "cannot be read: " in settle(tmp_path).reason
    file.rmdir()
    file.write_bytes(b"# fine\n\xff\n")
    assert "line 2: is not UTF-8" in settle(tmp_path).reason


def test_files_are_read_again_only_when_they_changed(tmp_path: Path) -> None:
    file = config(tmp_path) / "rq_router_rules.rb"
    file.write_text(GOOD.format(name="one"))
    reader = Reader(tmp_path)
    first = reader.look()
    assert reader.look() is first
    assert reader.changed() is None
    file.write_text(GOOD.format(name="two"))
    assert reader.look().rules != first.rules


def test_rules_that_cannot_be_kept_are_in_force_all_the_same(
    tmp_path: Path, rq_hooks: Callable[..., Hooks], caplog: pytest.LogCaptureFixture
) -> None:
    (config(tmp_path) / "rq_router_rules.rb").write_text(GOOD.format(name="x") + "delay 7")
    (tmp_path / "var").touch()  # where a directory should be
    queue = QueueInfo("rq_router", str(tmp_path / "queue" / "rq_router"), {})
    hooks = rq_hooks(router=plugin)
    for _ in range(7):
        vote = hooks.check_start(Message(msg_id="20260101.0000.00.000.1", dest="x", due=4e9), queue)
        assert isinstance(vote, Delay)
        assert vote.until == 4e9 + 7
    assert "cannot be kept for a time when they are bad" in caplog.text
    assert hooks.plugins()[0].status == "ok"


def test_down_is_ours_or_the_operators(tmp_path: Path) -> None:
    file = config(tmp_path) / "rq_router_rules.rb"
    down = file.with_name("rq_router.down")
    file.write_text(BAD)
    settle(tmp_path)
    assert down.read_text().startswith(f"{MARK}bad rules in config/rq_router_rules.rb: line 2: ")
    file.write_text('rule "x"\n')
    settle(tmp_path)
    assert "line 1: " in down.read_text()
    file.write_text(GOOD.format(name="x"))
    settle(tmp_path)
    assert not down.exists()
    down.write_text("")
    for text in (BAD, GOOD.format(name="x")):
        file.write_text(text)
        settle(tmp_path)
        assert down.read_text() == ""


# --- in a running instance


@pytest.mark.process
def test_bad_from_the_start_and_put_right_while_it_runs(own: Router) -> None:
    own.rules(BAD, "rq_router_rules.rb")
    own.rq.start()
    assert own.rq.ask("rq_router", "describe")["status"] == "DOWN"
    with pytest.raises(RefusedError, match="status: DOWN"):
        own.send()
    assert own.rq.manager.ask("resolve_destination", {"dest": "test"}) == "rq_router"
    told = own("status")
    assert "bad rules in config/rq_router_rules.rb: line 2: " in told.out
    assert "is taken DOWN, it refuses messages: bad rules in config" in own.rq.log_text()
    own.rules(GOOD.format(name="x"), "rq_router_rules.rb")
    own.until("config", lambda: not own.down.exists())
    msg_id, _ = own.send()
    assert own.ended(msg_id)["status"] == "done - rule 'x' (line 1)"


@pytest.mark.process
def test_bad_while_it_runs_the_last_good_ones_stay_in_force(router: Router) -> None:
    router.rule("done")
    msg_id, _ = router.send()
    router.ended(msg_id)
    router.rules("[[rule]]\nname = ")
    msg_id, _ = router.send()
    ended = router.ended(msg_id)
    assert ended["status"] == "done - rule 'it' (line 1)"
    log = router.log(msg_id)
    assert "bad rules in config/rq_router_rules.toml: line 2: is not TOML" in log
    assert "the last good rules are used: var/router/rq_router_rules.toml" in log
    told = router("route")
    assert "line 1  it  done  dest /./" in told.out
    assert "config/rq_router_rules.toml: line 2: is not TOML" in told.err
    assert "the last good rules, var/router/rq_router_rules.toml, are in force" in told.err
    router.rule("err")
    msg_id, _ = router.send()
    assert router.ended(msg_id)["state"] == "err"


@pytest.mark.process
def test_without_rules_a_message_waits(router: Router) -> None:
    router.toml.unlink()
    msg_id, _ = router.send()
    assert router.rq.message("rq_router", msg_id)["state"] == "que"
    router.rule("done")
    assert router.ended(msg_id)["state"] == "done"


@pytest.mark.process
def test_an_operator_who_brings_it_up_is_told_again(own: Router) -> None:
    own.rules(BAD, "rq_router_rules.rb")
    own.rq.start()
    reason = "bad rules in config/rq_router_rules.rb: line 2: "
    for _ in range(5):  # the service may be faster than the queue, or not
        told = own("queue", "up", "rq_router")
        assert (told.status, told.out) == (4, "")
        words = "queue rq_router is DOWN still, it was taken down again at once: rqcore-router: "
        assert f"rq: {words}{reason}" in told.err
    assert own.down.exists()
    told = own("send", "rq_router")
    assert f"DOWN and refuses messages: rqcore-router: {reason}" in told.err
    assert "put that right, then: rq queue up rq_router" in told.err
    own.rules(GOOD.format(name="x"), "rq_router_rules.rb")
    own.until("config", lambda: not own.down.exists())


@pytest.mark.process
def test_a_rules_file_that_is_a_link(own: Router, tmp_path: Path) -> None:
    elsewhere = tmp_path / "managed" / "rules"
    elsewhere.parent.mkdir()
    elsewhere.write_text(BAD)
    (own.rq.directory / "config" / "rq_router_rules.rb").symlink_to(elsewhere)
    own.rq.start()
    assert own.down.exists()
    elsewhere.write_text(GOOD.format(name="x"))
    own.until("config", lambda: not own.down.exists())
    file = GOOD.format(name="a file in the link's place")
    own.rules(file, "rq_router_rules.rb")
    kept = own.rq.directory / "var" / "router" / "rq_router_rules.rb"
    own.until("var/router", lambda: kept.read_text() == file)


@pytest.mark.process
def test_the_first_page_says_it(own: Router) -> None:
    import urllib.request

    own.rq.use_plugins("cli", "router", "web")
    port = free_port()
    own.rq.configure(port=port)
    own.rules('rule "x"\nsrc /a/\naction :relay\nroute "<b>"\n', "rq_router_rules.rb")
    own.rq.start()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        page = answer.read().decode()
    assert "Bad router rules" in page
    assert re.search(r"<li>line 4: .{,5}&lt;b&gt;.{,5} is no host", page), page
