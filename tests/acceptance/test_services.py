"""Services, which plugins bring: what they are given, and what becomes of them when they fail."""

from __future__ import annotations

from typing import Any

import pytest

from rqcore.testing import RunningInstance
from tests.acceptance.helpers import DONE

pytestmark = pytest.mark.process

HEAD = """
import os
from pathlib import Path
from rqcore.errors import RqError, StartError
from rqcore.hookspecs import Service, hookimpl, hookspec

@hookimpl
def rq_register_services(instance):
    return [Service("helper", run)]

def wait(context):
    context.ready()
    while os.read(context.stop_fd, 4096):
        pass
"""
#: Asks hooks that the plugin itself has brought.
ASKS = (
    HEAD
    + """
class Specs:
    @hookspec
    def rq_greeting(self, name):
        pass

@hookimpl
def rq_add_hookspecs(pluginmanager):
    pluginmanager.add_hookspecs(Specs)

def run(context):
    answers = context.hooks.call("rq_greeting", name="world")
    words = [f"{a.plugin}: {a.value or a.error}" for a in answers]
    (Path(context.instance.directory) / "answers").write_text("\\n".join(sorted(words)))
    wait(context)
"""
)
GREETS = """
from rqcore.hookspecs import hookimpl

@hookimpl(optionalhook=True)
def rq_greeting(name):
    return "hello " + name
"""
FAILS = GREETS.replace('"hello " + name', "1 / 0")
#: Cannot go on while there is a file ``wrong``, or while somebody listens where it wants to.
MAY_FAIL = (
    HEAD
    + """
def run(context):
    here = Path(context.instance.directory)
    if (here / "wrong").exists():
        raise StartError((here / "wrong").read_text())
    if (here / "taken").exists():
        raise OSError(98, "port 1 is taken; stop what listens there")
    wait(context)
"""
)


def service(rq: RunningInstance) -> dict[str, Any]:
    (found,) = [c for c in rq.manager.ask("describe")["children"] if c["kind"] == "service"]
    return dict(found)


def plugin_statuses(rq: RunningInstance) -> dict[str, str]:
    return {plugin["name"]: plugin["status"] for plugin in rq.manager.ask("plugins")["plugins"]}


def test_a_service_can_ask_hooks_of_its_own(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    rq.plugin("asks", ASKS)
    rq.plugin("greets", GREETS)
    rq.plugin("fails", FAILS)
    rq.start()
    assert service(rq)["state"] == "running"
    answers = (rq.directory / "answers").read_text().splitlines()
    assert answers == [
        "fails: ZeroDivisionError: division by zero (fails.py:6)", "greets: hello world"
    ]  # fmt: skip


def test_a_service_that_is_wrong_stays_down_until_the_next_reload(
    rq_instance: RunningInstance,
) -> None:
    rq = rq_instance
    rq.plugin("helper", MAY_FAIL)
    (rq.directory / "wrong").write_text("it is wrong; write something else")
    rq.queue("test", DONE)
    rq.start()
    found = service(rq)
    assert (found["state"], found["pid"]) == ("failed", 0)
    assert found["problem"] == "it is wrong; write something else"
    rq.until("test", rq.send("test"), "done")
    (rq.directory / "wrong").unlink()
    manager = rq.manager
    events = manager.subscribe({}, timeout=30)
    rq.manager.ask("reload")
    assert (event := next(events))["state"] == "running"
    assert (event["kind"], event["name"], event["problem"]) == ("service", "helper", "")


def test_what_the_system_refuses_to_a_service_is_asked_for_again(
    rq_instance: RunningInstance,
) -> None:
    rq = rq_instance
    rq.plugin("helper", MAY_FAIL)
    (rq.directory / "taken").touch()
    rq.start()
    found = service(rq)
    assert found["state"] == "waiting"
    assert "port 1 is taken; stop what listens there" in found["problem"]
    manager = rq.manager
    events = manager.subscribe({}, timeout=30)
    (rq.directory / "taken").unlink()
    states = []
    while "running" not in states:
        states.append(next(events)["state"])
    assert service(rq)["restarts"] >= 1
    assert "Traceback" not in rq.log_text()


def test_an_instance_runs_with_the_plugins_that_its_test_names(
    rq_instance: RunningInstance,
) -> None:
    rq = rq_instance
    rq.plugin("greets", GREETS.replace("rq_greeting(name)", "rq_message_done()"))
    rq.use_plugins()
    rq.start()
    statuses = plugin_statuses(rq)
    assert statuses.pop("greets") == "ok"
    assert statuses["cli"] == "disabled"
    assert set(statuses.values()) == {"disabled"}
    rq.stop()
    rq.use_plugins("cli")
    rq.start()
    statuses = plugin_statuses(rq)
    assert [name for name, status in statuses.items() if status == "ok"] == ["cli", "greets"]
