"""Where the site of an instance is, and whether it answers: for ``rq web url``."""

from __future__ import annotations

import http.client
import ssl

from rqcore.client import ManagerClient
from rqcore.config import InstanceConfig
from rqcore.errors import UnreachableError
from rqcore.instance import Instance
from rqcore_web.options import Options, parse_options
from rqcore_web.security.listening import is_local

_PATIENCE = 10.0
#: What ``livez`` says to whom it knows, and to whom ``allowed_ips`` leaves out.
_KNOWN = (200, 403)
_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened on: asked for


def site_url(instance: Instance) -> str:
    """The URL under which the site is found from where it can be reached.  Raises `ConfigError`."""
    settings, options = settings_of(instance)
    host = settings.addr if is_local(settings.addr) else settings.host
    scheme = "https" if options.certificate else "http"
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{settings.port}{settings.relative_root}"


def ask(instance: Instance) -> str:
    """That the site answers, in words.  Raises `UnreachableError` with the reason when it does not."""
    settings, options = settings_of(instance)
    host = _ALL.get(settings.addr, settings.addr)
    connection: http.client.HTTPConnection
    if options.certificate:
        # It is asked whether it answers, on this machine; nothing is told to it.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 - as above
        connection = http.client.HTTPSConnection(
            host, settings.port, timeout=_PATIENCE, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, settings.port, timeout=_PATIENCE)
    try:
        connection.request("GET", f"{settings.relative_root}livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"the site does not answer: {_why(instance, error)}") from error
    finally:
        connection.close()
    if status not in _KNOWN:
        raise UnreachableError(f"something else answers there (status {status})")
    return "It answers"


def settings_of(instance: Instance) -> tuple[InstanceConfig, Options]:
    """The main config, and this plugin's options.  Raises `ConfigError`."""
    settings, _ = instance.load_config()
    file = str(instance.config_file)
    return settings, parse_options(settings.plugins.get("web", {}), file)


def _why(instance: Instance, error: Exception) -> str:
    """What the manager knows of it, else what the system says."""
    try:
        with ManagerClient(instance.directory) as manager:
            children = manager.ask("describe")["children"]
    except UnreachableError:
        return f"RQ does not run in {instance.directory}; start it with: rq start"
    for child in children:
        if (child["kind"], child["name"]) == ("service", "web") and child["problem"]:
            return str(child["problem"])
    return str(error)
