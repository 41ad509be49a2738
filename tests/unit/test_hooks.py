"""Every method of the façade, how answers combine, and what a failing plugin costs."""

from __future__ import annotations

import inspect
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqcore import hookspecs
from rqcore.hooks import Hooks, PluginFailedError
from rqcore.hookspecs import (
    FAIL_CLOSED,
    HOOKS,
    Attachment,
    Check,
    Delay,
    Hold,
    InstanceInfo,
    QueueInfo,
    Reject,
    Service,
    hook_kind,
    hookimpl,
    hookspec,
)
from rqcore.isolation import QUARANTINE_AFTER, describe
from rqcore.lifecycle import State, Step
from rqcore.message import Message
from rqcore.spool import Spool
from rqcore.store import open_store

MESSAGE = Message(msg_id="20260101.1200.00.000.000001", dest="test", param1="one")
QUEUE = QueueInfo("test", "/spool/queue/test", {"num_workers": 1})
INSTANCE = InstanceInfo("/spool", "http://localhost:3333/", {"env": "test"})
ATTACHMENT = Attachment("a.txt", 3, "0" * 32, "0" * 64, "/spool/tmp/a.txt")
LATER = time.time() + 3600


def plugin(*functions: Callable[..., Any], **named: Callable[..., Any]) -> ModuleType:
    """A module with these hook functions."""
    module = ModuleType("a_plugin")
    for function in functions:
        setattr(module, function.__name__, hookimpl(function))
    for name, function in named.items():
        setattr(module, name, hookimpl(function))
    return module


def hooks_of(**plugins: ModuleType) -> Hooks:
    hooks = Hooks()
    for name, module in plugins.items():
        assert hooks.register(module, name).status == "ok"
    return hooks


def voting(hook: str, *votes: object) -> Hooks:
    """One plugin per vote, named a, b, c …; an exception is raised."""

    def voter(vote: object) -> Callable[[], object]:
        def vote_so() -> object:
            if isinstance(vote, BaseException):
                raise vote
            return vote

        return vote_so

    hooks = Hooks()
    for index, vote in enumerate(votes):
        name = chr(ord("a") + index)
        assert hooks.register(plugin(**{hook: voter(vote)}), name).status == "ok"
    return hooks


@dataclass
class Group:
    """As much of a click group as plugins use."""

    commands: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, command: object) -> None:
        self.commands[name] = command


def check_fact(hook: str, **told: object) -> None:
    """Every argument of a fact arrives; a plugin that fails harms neither caller nor neighbour."""
    heard: list[dict[str, object]] = []
    names = list(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert sorted(names) == sorted(told)
    listener = eval(  # a function with the hook's own arguments
        f"lambda {', '.join(names)}: heard.append(dict({', '.join(f'{n}={n}' for n in names)}))",
        {"heard": heard},
    )

    def fail() -> None:
        raise RuntimeError("broken")

    hooks = hooks_of(
        first=plugin(**{hook: listener}), broken=plugin(**{hook: fail}), last=plugin(**{hook: fail})
    )
    assert getattr(hooks, hook.removeprefix("rq_"))(**told) is None
    assert heard == [told]
    assert [(s.plugin, s.calls, s.errors) for s in hooks.stats()] == [
        ("first", 1, 0),
        ("broken", 1, 1),
        ("last", 1, 1),
    ]
    assert getattr(Hooks(), hook.removeprefix("rq_"))(**told) is None


# --- facts ----------------------------------------------------------------------------------------


def test_hook_daemon_started() -> None:
    check_fact("rq_daemon_started", instance=INSTANCE)


def test_hook_daemon_stopping() -> None:
    check_fact("rq_daemon_stopping", instance=INSTANCE, reason="SIGTERM")


def test_hook_queue_created() -> None:
    check_fact("rq_queue_created", queue=QUEUE)


def test_hook_spool_ready() -> None:
    check_fact("rq_spool_ready", queue=QUEUE)


def test_hook_queue_config_reloaded() -> None:
    check_fact("rq_queue_config_reloaded", queue=QUEUE, old={"num_workers": 2})


def test_hook_queue_process_exited() -> None:
    check_fact("rq_queue_process_exited", name="test", status=-9, restarts=2)


def test_hook_queue_deleted() -> None:
    check_fact("rq_queue_deleted", name="test", path="/spool/queue/test.deleted.7")


def test_hook_admin_state_changed() -> None:
    check_fact("rq_admin_state_changed", queue=QUEUE, old="UP", new="PAUSE")


def test_hook_oper_state_changed() -> None:
    check_fact("rq_oper_state_changed", queue=QUEUE, old="UP", new="SCRIPTERROR", cause="gone")


def test_hook_message_prepared() -> None:
    check_fact("rq_message_prepared", message=MESSAGE, queue=QUEUE)


def test_hook_message_attached() -> None:
    check_fact("rq_message_attached", message=MESSAGE, attachment=ATTACHMENT, queue=QUEUE)


def test_hook_message_committed() -> None:
    check_fact("rq_message_committed", message=MESSAGE, queue=QUEUE)


def test_hook_message_queued() -> None:
    check_fact("rq_message_queued", message=MESSAGE, queue=QUEUE, cause=Step.COMMIT)


def test_hook_message_recovered() -> None:
    check_fact("rq_message_recovered", message=MESSAGE, queue=QUEUE, began=1.5)


def test_hook_message_starting() -> None:
    check_fact("rq_message_starting", message=MESSAGE, queue=QUEUE)


def test_hook_message_started() -> None:
    check_fact("rq_message_started", message=MESSAGE, queue=QUEUE, pid=4711)


def test_hook_message_status() -> None:
    check_fact("rq_message_status", message=MESSAGE, queue=QUEUE, text="half")


def test_hook_message_dup() -> None:
    check_fact("rq_message_dup", message=MESSAGE, queue=QUEUE, new_msg_id="/q/b/1", dest="b")


def test_hook_message_finishing() -> None:
    outcome = SimpleNamespace(state=State.DONE, status="all good")
    check_fact("rq_message_finishing", message=MESSAGE, queue=QUEUE, outcome=outcome)


def test_hook_message_done() -> None:
    check_fact("rq_message_done", message=MESSAGE, queue=QUEUE, status="all good")


def test_hook_message_err() -> None:
    check_fact("rq_message_err", message=MESSAGE, queue=QUEUE, status="no")


def test_hook_message_resend() -> None:
    check_fact("rq_message_resend", message=MESSAGE, queue=QUEUE, delay=300, reason="busy")


def test_hook_message_relayed() -> None:
    check_fact("rq_message_relayed", message=MESSAGE, queue=QUEUE, new_msg_id="http://b/q/x/1")


def test_hook_spool_synced() -> None:
    check_fact("rq_spool_synced", queue=QUEUE, seconds=0.004)


def test_hook_spool_settled() -> None:
    check_fact("rq_spool_settled", queue=QUEUE)


def test_a_turn_is_settled_once_all_its_facts_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    hooks = hooks_of(
        a=plugin(
            rq_message_moved=lambda message: told.append(message.param1),
            rq_spool_settled=lambda queue: told.append(f"settled {queue.name}"),
        )
    )
    store = open_store("directory", str(tmp_path), fsync=False)
    spool = Spool(store, hooks, QUEUE)
    for number in range(2):
        spool.add(replace(MESSAGE, msg_id=store.new_id(), param1=str(number)), State.QUE)
    spool.settle()
    spool.settle()
    store.close()
    assert told == ["0", "1", "settled test"]


def test_hook_message_moved() -> None:
    check_fact(
        "rq_message_moved",
        message=MESSAGE, queue=QUEUE, old=State.RUN, new=State.DONE, step=Step.FINISH,
    )  # fmt: skip


def test_hook_message_removed() -> None:
    check_fact("rq_message_removed", msg_id=MESSAGE.msg_id, queue=QUEUE, state=State.DONE)


# --- checks ---------------------------------------------------------------------------------------


def check_guard(hook: str, **asked: object) -> None:
    """Any Reject wins, all reasons are told in one order, and what fails refuses."""

    def ask(*votes: object) -> Reject | None:
        vote: Reject | None = getattr(voting(hook, *votes), hook.removeprefix("rq_"))(**asked)
        return vote

    assert ask() is None
    assert ask(None, None) is None
    assert ask(None, Reject("not you"), None) == Reject("not you (plugin b)")
    assert ask(Reject("x"), Reject("y")) == Reject("x (plugin a); y (plugin b)")
    for failing in (ValueError("oh"), SystemExit(3), "no", False, Hold("later")):
        refused = ask(None, failing)
        assert refused is not None
        assert refused.reason.startswith(f"plugin b failed in {hook}: ")
        assert refused.reason.endswith("disable it with RQ_PLUGINS_DISABLED=b")
    assert hook in FAIL_CLOSED


def test_hook_check_message() -> None:
    check_guard("rq_check_message", message=MESSAGE, queue=QUEUE)


def test_hook_check_attachment() -> None:
    check_guard("rq_check_attachment", message=MESSAGE, attachment=ATTACHMENT, queue=QUEUE)


def test_hook_check_commit() -> None:
    check_guard("rq_check_commit", message=MESSAGE, queue=QUEUE)


def test_hook_check_removal() -> None:
    check_guard("rq_check_removal", message=MESSAGE, queue=QUEUE)


@pytest.mark.parametrize(
    ("votes", "together"),
    [
        ([], None),
        ([None], None),
        ([Hold("h")], Hold("h (plugin a)", 5.0)),
        ([Delay(LATER)], Delay(LATER, "(plugin a)")),
        ([Delay(LATER, "d"), None, Hold("h", 2)], Hold("h (plugin c)", 2)),
        ([Hold("h", 2), Hold("i", 3)], Hold("h (plugin a); i (plugin b)", 3)),
        ([Delay(LATER, "d"), Delay(LATER + 1, "e")], Delay(LATER + 1, "e (plugin b)")),
        ([Delay(1, "long ago")], None),
        ([ValueError("abstains"), Hold("h")], Hold("h (plugin b)")),
        ([ValueError("abstains")], None),
        ([Reject("no such vote here")], None),
    ],
)
def test_hook_check_start(votes: list[object], together: Hold | Delay | None) -> None:
    assert voting("rq_check_start", *votes).check_start(MESSAGE, QUEUE) == together


VOTES = st.one_of(
    st.none(),
    st.builds(Hold, st.sampled_from("xyz"), st.floats(1, 10)),
    st.builds(Delay, st.floats(LATER, LATER + 10), st.sampled_from("xyz")),
)


@given(
    st.lists(VOTES, min_size=1, max_size=4).flatmap(
        lambda v: st.tuples(st.just(v), st.permutations(v))
    )
)
def test_votes_combine_without_regard_to_order(both: tuple[list[object], list[object]]) -> None:
    def result(votes: list[object]) -> tuple[object, ...]:
        vote = voting("rq_check_start", *votes).check_start(MESSAGE, QUEUE)
        return (type(vote), getattr(vote, "seconds", None), getattr(vote, "until", None))

    assert result(both[0]) == result(both[1])


def test_hook_check_queue_config(caplog: pytest.LogCaptureFixture) -> None:
    def lazily(name: str, config: dict[str, Any]) -> Iterator[str]:
        yield f"{name}: webhook {config['webhook']!r} is no URL"

    hooks = voting("rq_check_queue_config", [], None, ValueError("oh"), "a sentence", [7])
    hooks.register(plugin(rq_check_queue_config=lazily), "z")
    assert hooks.check_queue_config("test", {"webhook": 7}) == [
        "test: webhook 7 is no URL (plugin z)"
    ]
    failed = [record.getMessage() for record in caplog.records]
    assert any("plugin c (given) failed in rq_check_queue_config" in text for text in failed)
    assert any("returned 'a sentence'; return a list" in text for text in failed)
    assert any("returned 7; return a list of sentences" in text for text in failed)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_hold_lasts_a_finite_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be a number above 0"):
        Hold("why", seconds)


@pytest.mark.parametrize("until", [float("nan"), float("inf")])
def test_a_delay_ends(until: float) -> None:
    with pytest.raises(ValueError, match="until must be unix time"):
        Delay(until)


@pytest.mark.parametrize("result", [Reject, Hold])
def test_a_refusal_has_a_reason(result: Callable[[Any], object]) -> None:
    for nothing in ("", " ", None):
        with pytest.raises(ValueError, match="reason must be text that says why"):
            result(nothing)


# --- what is asked each time ----------------------------------------------------------------------


def test_hook_resolve_destination() -> None:
    resolve = "rq_resolve_destination"

    def answer(*votes: object) -> str | None:
        return voting(resolve, *votes).resolve_destination("http://b/q/x", MESSAGE, "submit")

    assert answer() is None
    assert answer(None, "relay", None) == "relay"
    assert answer("first", "later plugins are asked first") == "first"  # the last is no name
    assert answer("first", "second") == "second"
    assert answer("relay", ValueError("skipped")) == "relay"
    assert answer("relay", "") == "relay"
    hooks = hooks_of(
        remote=plugin(
            rq_resolve_destination=lambda dest, origin: "relay" if "//" in dest + origin else None
        )
    )
    assert hooks.resolve_destination("http://b/q/x", MESSAGE, "dup") == "relay"
    assert hooks.resolve_destination("x", MESSAGE, "dup") is None


def test_hook_collect_environment() -> None:
    def collect(*votes: object) -> dict[str, str]:
        return voting("rq_collect_environment", *votes).collect_environment(MESSAGE, QUEUE)

    assert collect() == {}
    assert collect({"A": "1"}, None, {"B": "2", "A": "1"}) == {"A": "1", "B": "2"}
    with pytest.raises(PluginFailedError, match=r"plugins a and b give different values to .* A"):
        collect({"A": "1"}, {"A": "2"})


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (ValueError("oh"), "oh"),
        ({"RQ_HOST": "x"}, "RQ_HOST: names that begin with RQ_"),
        ({"A": 1}, "'A'=1 must be text"),
        ({"A=B": "x"}, "cannot be set"),
        ({"A": "x\0"}, "cannot be set"),
        ({"": "x"}, "cannot be set"),
        (["A"], r"returned \['A'\]; return a mapping"),
    ],
)
def test_an_environment_that_cannot_be_is_not_started_with(answer: object, why: str) -> None:
    hooks = voting("rq_collect_environment", {"FINE": "1"}, answer)
    with pytest.raises(PluginFailedError, match=f"plugin b failed in rq_collect_.*{why}"):
        hooks.collect_environment(MESSAGE, QUEUE)


# --- what plugins bring ---------------------------------------------------------------------------


def brought(hooks: Hooks) -> dict[str, str]:
    return {info.name: info.error for info in hooks.plugins()}


def test_hook_register_queues() -> None:
    def lazily(instance: InstanceInfo) -> Iterator[dict[str, str]]:
        yield {"name": "relay", "script": f"{instance.directory}/relay"}
        yield {"name": "other", "script": "x"}

    hooks = hooks_of(a=plugin(rq_register_queues=lazily))
    assert [queue["name"] for queue in hooks.register_queues(INSTANCE)] == ["relay", "other"]
    hooks.register(plugin(rq_register_queues=lambda: [{"name": "relay"}]), "b", version="2.0")
    assert [queue["name"] for queue in hooks.register_queues(INSTANCE)] == ["other"]
    why = "queue 'relay' is brought by plugin a (given) and plugin b 2.0 (given); none is used"
    assert all(error.startswith(why) for error in brought(hooks).values())
    assert [info.status for info in hooks.plugins()] == ["ok", "ok"]


@pytest.mark.parametrize("answer", [{"name": "x"}, [7], [{}], [{"name": "a/b"}], 7])
def test_queues_that_cannot_be_are_not_brought(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = voting("rq_register_queues", [{"name": "fine"}], answer)
    assert hooks.register_queues(INSTANCE) == [{"name": "fine"}]
    assert "plugin b (given) failed in rq_register_queues: " in caplog.text


def test_hook_register_services() -> None:
    web, other = Service("web", lambda context: None), Service("web", lambda context: 0)
    lone = Service("lone", lambda context: context.stop_fd)
    assert voting("rq_register_services", [web], None).register_services(INSTANCE) == [web]
    hooks = voting("rq_register_services", [web, lone], [other], ["no service"])
    assert hooks.register_services(INSTANCE) == [lone]
    for name in ("a", "b"):
        assert "service 'web' is brought by plugin a" in brought(hooks)[name]
    assert brought(hooks)["c"] == ""


def test_hook_collect_checks() -> None:
    good, bad = Check("disk", "ok", "half full"), Check("disk", "critical", "full", "empty it")
    hooks = voting("rq_collect_checks", [good], None, [bad], ["full"])
    found = dict(hooks.collect_checks(INSTANCE))
    failed = found.pop("d")
    assert found == {"a": good, "c": bad}
    assert (failed.level, failed.name) == ("critical", "plugin d")
    assert "return a list of Check" in failed.text


def test_a_check_that_is_not_ok_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="say in remedy what to do"):
        Check("disk", "warning", "nearly full")
    with pytest.raises(ValueError, match="ok, warning or critical"):
        Check("disk", "bad", "nearly full", "empty it")  # type: ignore[arg-type]


def test_hook_register_commands(caplog: pytest.LogCaptureFixture) -> None:
    core, mine, fine = object(), object(), object()

    def half(cli: Group) -> None:
        cli.add("half", mine)
        raise ValueError("no more")

    def replace(cli: Group) -> None:
        cli.add("send", mine)
        cli.add("status", mine)
        cli.add("top", fine)

    cli = Group({"send": core})
    hooks = hooks_of(
        a=plugin(rq_register_commands=lambda cli: cli.add("same", mine)),
        b=plugin(rq_register_commands=lambda cli: cli.add("same", mine)),
        half=plugin(rq_register_commands=half),
        replace=plugin(rq_register_commands=replace),
    )
    hooks.register_commands(cli, reserved=["status"])
    assert cli.commands == {"send": core, "top": fine}
    assert "command 'same' is brought by plugin a (given) and plugin b (given)" in caplog.text
    assert "'send' is one of rqcore's own" in brought(hooks)["replace"]
    assert "'status' is one of rqcore's own" in brought(hooks)["replace"]
    # A command line is for people: a line, no traceback.
    assert [r.exc_info for r in caplog.records if "no more" in r.getMessage()] == [None]


def test_hook_configure(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[object] = []

    def configure(options: dict[str, object], instance: InstanceInfo) -> None:
        seen.append((options, instance))

    def refuse(options: dict[str, object]) -> None:
        raise ValueError(f"{options} has no url")

    hooks = Hooks({"webhook": {"timeout": 3}, "webhok": {}, "silent": {"a": 1}})
    hooks.register(plugin(rq_configure=configure), "webhook")
    hooks.register(plugin(rq_configure=configure), "without")
    hooks.register(plugin(rq_configure=refuse, rq_check_message=lambda: None), "picky")
    hooks.register(plugin(rq_message_done=lambda: None), "silent")
    hooks.configure(INSTANCE)
    assert sorted(map(str, seen)) == sorted(map(str, [({"timeout": 3}, INSTANCE), ({}, INSTANCE)]))
    picky = {info.name: info for info in hooks.plugins()}["picky"]
    assert picky.status == "failed"
    assert picky.error.startswith("its options: ValueError: {} has no url (test_hooks.py:")
    assert not hooks.has("rq_check_message")
    assert "options for plugin 'webhok', which is not there: did you mean webhook?" in caplog.text
    assert "options for plugin silent (given), which takes none" in caplog.text
    seen.clear()
    (left_out,) = hooks.configure(INSTANCE, {"webhook": {"timeout": 4}})
    assert left_out.startswith(
        "plugin picky was left out when this process started, for its options"
    )
    assert ({"timeout": 4}, INSTANCE) in seen


def test_options_that_a_plugin_objects_to_later_are_told_and_leave_it_at_work() -> None:
    taken: list[object] = []

    def configure(options: dict[str, object]) -> None:
        if options.get("timeout") == "long":
            raise ValueError("timeout must be a number")
        taken.append(options)

    hooks = Hooks({"webhook": {"timeout": 3}})
    hooks.register(plugin(rq_configure=configure, rq_check_message=lambda: None), "webhook")
    assert hooks.configure(INSTANCE) == []
    (problem,) = hooks.configure(INSTANCE, {"webhook": {"timeout": "long"}})
    assert problem.startswith(
        "plugin webhook goes on with the options it has: ValueError: timeout must be a number"
    )
    assert hooks.has("rq_check_message")
    assert hooks.configure(INSTANCE, {"webhook": {"timeout": 4}}) == []
    assert taken == [{"timeout": 3}, {"timeout": 4}]


def test_hook_add_hookspecs() -> None:
    """The order in which the bringer and the user of a hook are registered does not matter."""

    class Specs:
        @hookspec
        def rq_fake_panels(self, message: Message) -> str | None: ...

    def bring(pluginmanager: Any) -> None:
        pluginmanager.add_hookspecs(Specs)

    from rqcore.registration import Candidate

    user = plugin(rq_fake_panels=lambda message: f"about {message.param1}")
    silent = plugin(rq_fake_panels=lambda message: None)
    bringer = plugin(rq_add_hookspecs=bring, rq_fake_panels=lambda: 1 / 0)
    hooks = Hooks()
    hooks.register_all(
        Candidate(name, "", "given", lambda module=module: module)  # type: ignore[misc]
        for name, module in (("a", user), ("b", bringer), ("c", silent))
    )
    assert [(info.name, info.status) for info in hooks.plugins()] == [
        ("a", "ok"), ("b", "ok"), ("c", "ok"),
    ]  # fmt: skip
    assert hooks.has("rq_fake_panels")
    answers = hooks.call("rq_fake_panels", message=MESSAGE)
    assert {(a.plugin, a.value, a.error.partition(" (")[0]) for a in answers} == {
        ("a", "about one", ""),
        ("b", None, "ZeroDivisionError: division by zero"),
    }
    with pytest.raises(LookupError, match="no such hook: rq_fake_pannels"):
        hooks.call("rq_fake_pannels")


# --- isolation ------------------------------------------------------------------------------------


def test_hook_plugin_quarantined(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, ...]] = []
    done: list[str] = []

    def fail(status: str) -> None:
        raise RuntimeError(f"broken {status}")

    def note(status: str) -> None:
        done.append(status)

    def listen(plugin_name: str, hook_name: str, error: str) -> None:
        told.append((plugin_name, hook_name, error.partition(" (")[0]))

    hooks = hooks_of(
        healthy=plugin(rq_message_done=note),
        broken=plugin(rq_message_done=fail, rq_message_err=fail),
        listener=plugin(rq_plugin_quarantined=listen),
    )
    for count in range(QUARANTINE_AFTER + 2):
        hooks.message_done(MESSAGE, QUEUE, str(count))
    hooks.message_err(MESSAGE, QUEUE, "not told any more")
    assert told == [("broken", "rq_message_done", "RuntimeError: broken 4")]
    assert done == [str(count) for count in range(QUARANTINE_AFTER + 2)]
    broken = {info.name: info for info in hooks.plugins()}["broken"]
    assert broken.status == "quarantined"
    assert broken.error.startswith("failed 5 times running in rq_message_done: RuntimeError")
    calls = {(stat.plugin, stat.hook): (stat.calls, stat.errors) for stat in hooks.stats()}
    assert calls["broken", "rq_message_done"] == (QUARANTINE_AFTER, QUARANTINE_AFTER)
    assert calls["broken", "rq_message_err"] == (0, 0)
    assert "plugin broken (given) is quarantined" in caplog.text
    hooks.plugin_quarantined("other", "rq_message_err", "oh (x)")
    assert told[-1] == ("other", "rq_message_err", "oh")


def test_quarantine_does_not_recurse() -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    both = {"rq_message_done": fail, "rq_plugin_quarantined": fail}
    hooks = hooks_of(**{name: plugin(**both) for name in "abcdefg"})
    for _ in range(QUARANTINE_AFTER):
        hooks.message_done(MESSAGE, QUEUE, "")
    assert {info.status for info in hooks.plugins()} == {"quarantined"}
    assert not hooks.has("rq_plugin_quarantined")


def test_failures_that_are_not_running_do_not_quarantine() -> None:
    outcomes = iter([1, 1, 1, 1, 0] * 3)

    def sometimes() -> None:
        if next(outcomes):
            raise RuntimeError("now and then")

    hooks = hooks_of(a=plugin(rq_message_done=sometimes))
    for _ in range(15):
        hooks.message_done(MESSAGE, QUEUE, "")
    assert [info.status for info in hooks.plugins()] == ["ok"]
    assert hooks.stats()[0].errors == 12


@pytest.mark.parametrize("failing", ["rq_check_message", "rq_message_done"])
def test_a_quarantined_guard_goes_on_guarding(failing: str) -> None:
    broken = True

    def guard(message: Message) -> Reject | None:
        if broken and failing == "rq_check_message":
            raise RuntimeError("cannot tell")
        return Reject("closed")

    def fail() -> None:
        raise RuntimeError("broken")

    hooks = hooks_of(guard=plugin(rq_check_message=guard, rq_message_done=fail))
    for _ in range(QUARANTINE_AFTER + 1):
        assert hooks.check_message(MESSAGE, QUEUE) is not None
        hooks.message_done(MESSAGE, QUEUE, "")
    assert [info.status for info in hooks.plugins()] == ["quarantined"]
    broken = False
    assert hooks.check_message(MESSAGE, QUEUE) == Reject("closed (plugin guard)")
    assert hooks.has("rq_check_message")
    assert not hooks.has("rq_message_done")


def test_the_users_interrupt_passes() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    hooks = hooks_of(a=plugin(rq_message_done=interrupt))
    with pytest.raises(KeyboardInterrupt):
        hooks.message_done(MESSAGE, QUEUE, "")


def test_a_failure_is_logged_with_plugin_version_hook_and_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    import json

    hooks = Hooks()
    hooks.register(plugin(rq_message_done=lambda: json.loads("{")), "a", version="1.2", source="d")
    hooks.message_done(MESSAGE, QUEUE, "")
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("plugin a 1.2 (d) failed in rq_message_done: JSONDecodeError: ")
    assert "(test_hooks.py:" in text  # in the plugin's own file, not in the json module
    assert record.exc_info


def test_a_slow_call_is_logged_at_powers_of_two(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(n * 0.06 for n in range(100))
    monkeypatch.setattr("rqcore.isolation.perf_counter", lambda: next(clock))
    hooks = hooks_of(a=plugin(rq_message_done=lambda: None, rq_collect_checks=lambda: None))
    for _ in range(5):
        hooks.message_done(MESSAGE, QUEUE, "")
    hooks.collect_checks(INSTANCE)  # nobody waits for it but who asked
    slow = [record.getMessage() for record in caplog.records]
    assert [text.partition("(slow ")[2].partition(" ")[0] for text in slow] == ["1", "2", "4"]
    assert slow[0].startswith("plugin a (given) took 60 ms in rq_message_done")
    stats = {stat.hook: stat for stat in hooks.stats()}["rq_message_done"]
    assert stats.seconds == pytest.approx(0.3)
    assert stats.max_seconds == pytest.approx(0.06)


def test_tracing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQ_TRACE_HOOKS", "1")

    class Rude:
        def __repr__(self) -> str:
            raise ValueError("no")

    def answer() -> Rude:
        return Rude()

    hooks = voting("rq_check_message", Reject("why"))
    hooks.register(plugin(rq_message_done=answer), "rude")
    hooks.check_message(MESSAGE, QUEUE)
    hooks.message_done(MESSAGE, QUEUE, "")
    first, second = capsys.readouterr().err.splitlines()
    assert " rq_check_message a 0." in first
    assert first.endswith("ms Reject(reason='why')")
    assert second.endswith("ms <Rude>")


def test_tracing_survives_whoever_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setenv("RQ_TRACE_HOOKS", "1")
    hooks = voting("rq_check_message", Reject("why"))
    monkeypatch.setattr(sys, "stderr", Gone())
    assert hooks.check_message(MESSAGE, QUEUE) == Reject("why (plugin a)")


def test_a_coroutine_is_a_failure_not_a_success() -> None:
    async def later() -> None: ...

    def answer() -> object:
        return later()

    hooks = hooks_of(a=plugin(rq_message_done=answer))
    hooks.message_done(MESSAGE, QUEUE, "")
    assert hooks.stats()[0].errors == 1


def test_an_error_is_described_whatever_it_is() -> None:
    class Rude(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise ValueError("no")

    assert describe(Rude()) == "Rude: (its text cannot be made)"
    assert describe(SystemExit()) == "SystemExit"
    assert describe(ValueError("a\nb")) == "ValueError: a b"
    assert len(describe(ValueError("x" * 10_000))) < 600


def test_arguments_may_be_left_out_or_have_defaults() -> None:
    seen = []

    def with_defaults(message: Message, status: str = "mine", other: str = "kept") -> None:
        seen.append((message, status, other))

    hooks = hooks_of(a=plugin(rq_message_done=with_defaults))
    hooks.message_done(MESSAGE, QUEUE, "given")
    assert seen == [(MESSAGE, "given", "kept")]


def test_arguments_may_stand_in_any_order() -> None:
    seen: list[object] = []
    hooks = hooks_of(
        a=plugin(rq_message_moved=lambda step, message: seen.append((step, message))),
        b=plugin(rq_message_moved=lambda new: seen.append(new)),  # noqa: PLW0108 - it has one argument
        c=plugin(rq_message_moved=lambda mine=1, new=None: seen.append((mine, new))),
    )
    hooks.message_moved(MESSAGE, QUEUE, State.QUE, State.RUN, Step.START)
    assert seen == [(1, State.RUN), State.RUN, (Step.START, MESSAGE)]


def test_the_time_of_a_failures_log_is_no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("rqcore.isolation.perf_counter", lambda: next(clock) / 1000)

    def fail() -> None:
        raise RuntimeError("broken")

    hooks = hooks_of(last=plugin(rq_message_done=lambda: None), first=plugin(rq_message_done=fail))
    hooks.message_done(MESSAGE, QUEUE, "")
    assert [round(stat.seconds, 6) for stat in hooks.stats()] == [0.001, 0.001]
    assert next(clock) == 4  # read before the first, after it, after its failure, after the last


def test_two_plugins_may_share_a_function() -> None:
    count: list[int] = []

    def shared() -> None:
        count.append(1)

    hooks = hooks_of(a=plugin(rq_message_done=shared), b=plugin(rq_message_done=shared))
    hooks.message_done(MESSAGE, QUEUE, "")
    assert [(s.plugin, s.calls) for s in hooks.stats()] == [("a", 1), ("b", 1)]
    assert len(count) == 2


# --- the whole ------------------------------------------------------------------------------------


def test_has_knows_every_hook_and_no_other() -> None:
    hooks = voting("rq_check_start", None)
    assert [name for name in HOOKS if hooks.has(name)] == ["rq_check_start"]
    with pytest.raises(LookupError, match="no such hook: check_start"):
        hooks.has("check_start")


def test_every_hook_has_a_typed_method_with_its_arguments() -> None:
    for name in HOOKS:
        if name == "rq_add_hookspecs":  # called by the registry, once per plugin
            continue
        spec = inspect.signature(getattr(hookspecs, name))
        method = inspect.signature(getattr(Hooks, name.removeprefix("rq_")))
        wanted = [(p.name, p.annotation) for p in spec.parameters.values()]
        given_ = [(p.name, p.annotation) for p in method.parameters.values()][1:]
        if hook_kind(name) in ("prepare", "register"):  # these have more to say to their caller
            assert {arg for arg, _ in given_} >= {arg for arg, _ in wanted if arg != "options"}
        else:
            assert given_ == wanted, name
            if hook_kind(name) != "collect":
                assert method.return_annotation == spec.return_annotation, name


def test_a_hook_that_nobody_implements_costs_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is looked up and left: nobody is asked, and no answer is put together."""
    hooks = Hooks()

    def fail(*_: object) -> None:
        raise AssertionError("somebody was asked")

    for name in ("_ask", "_attempt"):
        monkeypatch.setattr(hooks, name, fail)
    hooks.message_done(MESSAGE, QUEUE, "")
    hooks.message_moved(MESSAGE, QUEUE, State.QUE, State.RUN, Step.START)
    assert hooks.check_message(MESSAGE, QUEUE) is None
    assert hooks.check_start(MESSAGE, QUEUE) is None
    assert not hooks.collect_environment(MESSAGE, QUEUE)


def test_nothing_is_logged_when_nothing_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        voting("rq_check_message", None, Reject("x")).check_message(MESSAGE, QUEUE)
    assert caplog.records == []
