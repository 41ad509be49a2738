"""What a script finds in its environment.

From the outside in: the login environment (or RQ's own, for a queue with an ``exec_prefix``), the
queue's ``env_vars``, the contract's ``RQ_*``, and what plugins add.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from rqcore import __version__, durable
from rqcore.config import InstanceConfig, QueueConfig
from rqcore.message import PARAM_NAMES, Message, full_id, parse_dest

#: Linux refuses a single environment string longer than this (MAX_ARG_STRLEN), NAME= and NUL included.
MAX_ENVIRONMENT_STRING = 131_072
_SNAPSHOT_SECONDS = 20
_MARK = b"\0rqcore login environment\0"
#: The trace in which somebody started RQ is no message's.
_NOT_INHERITED = (
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "RQ_DIR", "RQ_PORTABLE",
    "TRACEPARENT", "TRACESTATE",
)  # fmt: skip
_SHELL_ONLY = ("_", "SHLVL", "PWD", "OLDPWD")


def inherited_environment() -> dict[str, str]:
    """This process's environment, without what was meant for RQ alone."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}


def login_environment() -> tuple[dict[str, str], str]:
    """What ``bash -lc`` gives a script for an environment, and a problem in words ("" for none).

    It is taken once per (re)load of the configuration, so that no message pays for a login shell.
    Without bash, or when the profile fails or hangs, this process's own environment stands in.
    """
    own = inherited_environment()
    bash = shutil.which("bash")
    if bash is None:
        return own, "there is no bash: scripts get the environment that RQ was started with"
    show = "printf '\\0rqcore login environment\\0'; exec env -0"
    try:
        found = subprocess.run(
            [bash, "-lc", show], stdin=subprocess.DEVNULL, capture_output=True,
            env=own, check=False, timeout=_SNAPSHOT_SECONDS, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return own, f"the login profile did not end within {_SNAPSHOT_SECONDS} s; see ~/.profile"
    _, mark, listing = found.stdout.partition(_MARK)
    if not mark:
        said = found.stderr.decode("utf-8", "replace").strip()[-200:]
        return own, f"the login profile failed (exit status {found.returncode}): {said}"
    pairs = (item.partition(b"=") for item in listing.split(b"\0") if item)
    snapshot = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    for name in _SHELL_ONLY:
        snapshot.pop(name, None)
    return snapshot, ""


def script_environment(
    message: Message, folder: str, script: str,
    settings: InstanceConfig, config: QueueConfig, login: Mapping[str, str],
) -> dict[str, str]:  # fmt: skip
    """The whole environment for the script that runs the message in ``folder`` (absolute)."""
    url = f"{settings.base_url}q/{config.name}"
    own_id = full_id(settings.base_url, config.name, message.msg_id)
    address = parse_dest(message.dest)
    environment = {
        **(login if config.exec_prefix is None else inherited_environment()),
        **config.env_vars,
        "RQ_VER": __version__,
        "RQ_ENV": settings.env,
        "RQ_SCRIPT": config.script,
        "RQ_REALSCRIPT": script,
        "RQ_HOST": settings.base_url,
        "RQ_HOSTNAMES": " ".join((settings.base_url, *settings.hostnames)),
        "RQ_PORT": str(settings.port),
        "RQ_DEST": message.dest if "://" in message.dest else url,
        "RQ_DEST_QUEUE": address.queue if address is not None else config.name,
        "RQ_MSG_ID": message.msg_id,
        "RQ_FULL_MSG_ID": own_id,
        "RQ_MSG_DIR": f"{folder}/job",
        "RQ_PIPE": "3",
        "RQ_WRITE": "3",
        "RQ_READ": "4",
        "RQ_COUNT": str(message.count),
        # A message that was made by hand may lack it: it is the first of its chain.
        "RQ_ORIG_MSG_ID": message.orig_msg_id or own_id,
        **params_environment(message, folder),
    }
    if message.force_remote:
        environment["RQ_FORCE_REMOTE"] = "1"
    if message.traceparent:
        # Together or not at all: one of another trace beside it would be wrong.
        environment["TRACEPARENT"] = message.traceparent
        environment.pop("TRACESTATE", None)
    if message.tracestate:
        environment["TRACESTATE"] = message.tracestate
    return environment


def params_environment(message: Message, folder: str) -> dict[str, str]:
    """``RQ_PARAM1`` to ``RQ_PARAM4``.

    What an environment variable cannot carry (a NUL, more than about 128 KB) is written to
    ``params/paramN`` in the message's directory; ``RQ_PARAMn`` is then empty and ``RQ_PARAMn_FILE``
    names that file.
    """
    environment: dict[str, str] = {}
    for name, value in zip(PARAM_NAMES, message.params, strict=True):
        variable = f"RQ_{name.upper()}"
        data = as_bytes(value)
        if b"\0" not in data and len(variable) + len(data) + 2 <= MAX_ENVIRONMENT_STRING:
            environment[variable] = os.fsdecode(data)
            continue
        durable.make_private_dir(f"{folder}/params")
        durable.replace_unsynced(f"{folder}/params/{name}", data)
        environment[variable] = ""
        environment[f"{variable}_FILE"] = f"{folder}/params/{name}"
    return environment


def as_bytes(text: str) -> bytes:
    """The bytes that a text stands for: those that were no UTF-8 come back as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte, from somebody's JSON
        return text.encode("utf-8", "surrogatepass")
