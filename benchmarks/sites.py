"""The web service in an instance that is measured."""

from __future__ import annotations

from rqcore.testing import RunningInstance, free_port


def site(instance: RunningInstance) -> int:
    """Have the instance run with the web service; returns its port on the loopback address."""
    instance.use_plugins("cli", "web")
    port = free_port()
    instance.configure(port=port, plugins={"web": {"access_log": False}})
    return port


def service_pid(instance: RunningInstance) -> int:
    """The process of the web service."""
    for child in instance.manager.ask("describe")["children"]:
        if (child["kind"], child["name"], child["state"]) == ("service", "web", "running"):
            return int(child["pid"])
    raise RuntimeError(f"the web service does not run:\n{instance.log_text()}")
