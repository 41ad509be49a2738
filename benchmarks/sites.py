"""The web service in an instance that is measured."""

from __future__ import annotations

import socket

from rqcore.testing import RunningInstance


def site(instance: RunningInstance) -> int:
    """Have the instance run with the web service; returns its port on the loopback address."""
    instance.use_plugins("cli", "web")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    instance.configure(port=port, plugins={"web": {"access_log": False}})
    return port


def service_pid(instance: RunningInstance) -> int:
    """The process of the web service."""
    for child in instance.manager.ask("describe")["children"]:
        if (child["kind"], child["name"], child["state"]) == ("service", "web", "running"):
            return int(child["pid"])
    raise RuntimeError(f"the web service does not run:\n{instance.log_text()}")
