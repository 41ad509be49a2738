"""The queue relay and the destinations that lead to it, in an instance."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable

from rqcore_relay import plugin

from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo
from rqcore.message import Message
from rqcore.testing import RunningInstance


def test_where_messages_go(rq_hooks: Callable[..., Hooks]) -> None:
    hooks = rq_hooks(relay=plugin)

    def queue(dest: str, *, force_remote: bool = False) -> str | None:
        message = Message(dest=dest, force_remote=force_remote)
        return hooks.resolve_destination(dest, message, "submit")

    assert queue("http://mq2:3333/q/test") == "relay"
    assert queue("https://mq2/rq/q/test") == "relay"
    assert queue("test") is None
    assert queue("/q/test") is None
    assert queue("/q/test", force_remote=True) == "relay"
    assert queue("relay", force_remote=True) is None
    assert queue("not a queue", force_remote=True) is None


def test_wrong_options_are_a_reason_that_is_shown(rq_hooks: Callable[..., Hooks]) -> None:
    hooks = rq_hooks(relay=plugin)
    hooks.configure(InstanceInfo("/rq", "http://a:1/", {}), {"relay": {"per_peer": 0}})
    (info,) = hooks.plugins()
    assert info.status == "failed"
    assert '"plugins.relay.per_peer" must be a whole number from 1 to 128, found 0' in info.error


def test_an_instance_has_the_queue(rq_instance: RunningInstance) -> None:
    rq_instance.use_plugins("cli", "relay")
    rq_instance.configure(plugins={"relay": {"num_workers": 7}})
    rq_instance.start()
    found = json.loads((rq_instance.directory / "queue/relay/config.json").read_text())
    script = f"{sysconfig.get_path('scripts')}/rq-relay"
    assert found == {"name": "relay", "script": script, "num_workers": 7}
    assert rq_instance.ask("relay", "status") is not None
    named = rq_instance.manager.ask("resolve_destination", {"dest": "http://mq2:3333/q/test"})
    assert named == "relay"
