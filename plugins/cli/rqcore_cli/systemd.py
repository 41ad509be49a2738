"""The unit file by which systemd runs an instance, and the file by which logrotate rotates its logs.

Pure but for `verified`, which asks ``systemd-analyze`` where there is one.  What the unit says stands
in docs/service.md, with the reasons.  A unit of ours names the instance in a comment of its first
line (`owner_of`), so that nobody's unit is overwritten or removed by mistake.

Scripts run inside the unit, and may need whatever the machine has: sudo, mounts, another directory.
So the unit hardens by default only what no script can notice; `Plan.strict` goes further.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rqcore.config import InstanceConfig
from rqcore.errors import RefusedError

SYSTEM_DIR = "/etc/systemd/system"
_MARK = "# RQ instance: "
#: What systemd takes for a unit's name; no template, and no path.
_NAME = re.compile(r"[A-Za-z0-9:_.-]{1,200}")
#: Seconds that the manager needs beyond what it grants its children; see rqcore/manager.py.
_STOP_MARGIN = 25
_VERIFY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be installed; ``user`` is whose processes they are, "" for a user's own unit."""

    name: str
    directory: str
    command: tuple[str, ...]
    user: str
    stop_seconds: int
    strict: bool

    @property
    def is_system(self) -> bool:
        """Is it one of the machine's units, and not of a user's own?"""
        return bool(self.user)

    @property
    def target(self) -> str:
        """What pulls it in at the start of the machine, or of the user's session."""
        return "multi-user.target" if self.is_system else "default.target"


def checked_name(name: str) -> str:
    """The unit's name without ``.service``.  Raises `RefusedError`."""
    bare = name.removesuffix(".service")
    if _NAME.fullmatch(bare) is None or bare.startswith((".", "-")):
        raise RefusedError(
            f"{name!r} cannot be a unit's name; use letters, digits, '-', '_' and '.', such as rq-mail"
        )
    return bare


def stop_seconds(config: InstanceConfig) -> int:
    """How long a stop may take, all graces used."""
    return math.ceil(config.stop_grace + config.kill_grace) + _STOP_MARGIN


def unit_dir(*, is_system: bool) -> Path:
    """Where units of this kind are put."""
    if is_system:
        return Path(SYSTEM_DIR)
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "systemd" / "user"


def owner_of(text: str) -> str | None:
    """The instance that a unit's text is for; None when it is none of ours."""
    first = text.partition("\n")[0]
    return first.removeprefix(_MARK) if first.startswith(_MARK) else None


def unit_text(plan: Plan) -> str:
    """The unit file."""
    for path in (plan.directory, *plan.command):
        if not path.isprintable():
            raise RefusedError(
                f"{path!r} cannot stand in a unit file; give the directory another name"
            )
    directory = plan.directory.replace("%", "%%")
    lines = [
        f"{_MARK}{plan.directory}",
        "# Made by: rq install-service. Change it by: systemctl edit, which survives a new version.",
        "[Unit]",
        f"Description=RQ in {directory}",
        "Documentation=man:systemd.service(5)",
        *(
            ["After=local-fs.target network.target nss-user-lookup.target"]
            if plan.is_system
            else []
        ),
        f"RequiresMountsFor={_quoted(plan.directory)}",
        "",
        "[Service]",
        "# READY=1 comes when all queues take messages; recovering a large spool may take minutes.",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(_quoted(word, argument=True) for word in plan.command)}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        f"WorkingDirectory={directory}",
        *([f"User={plan.user}"] if plan.is_system else []),
        f"SyslogIdentifier={plan.name.replace('%', '%%')}",
        "TimeoutStartSec=15min",
        "# The manager is told to stop, lets the scripts finish (stop_grace, kill_grace), and only",
        "# what is left after that is killed.",
        "KillMode=mixed",
        f"TimeoutStopSec={plan.stop_seconds}",
        "# Fed by the manager's own loop; it looks after the queues' processes itself.",
        "WatchdogSec=60",
        "Restart=on-failure",
        "RestartSec=2",
        "# 3: it cannot start, a configuration is wrong. The journal says why.",
        "RestartPreventExitStatus=2 3",
        "LimitNOFILE=65536",
        "# A script is a process too, and one that takes too much memory is only that one's trouble.",
        "TasksMax=infinity",
        "OOMPolicy=continue",
        "KeyringMode=private",
        *(_strict(plan) if plan.strict else ()),
        "",
        "[Install]",
        f"WantedBy={plan.target}",
    ]
    return "\n".join(lines) + "\n"


def _strict(plan: Plan) -> Sequence[str]:
    """For scripts that become nobody else and write nowhere else."""
    lines = [
        "# --strict: no sudo, no setuid programs.",
        "NoNewPrivileges=yes", "RestrictSUIDSGID=yes", "LockPersonality=yes", "RestrictRealtime=yes",
        "SystemCallArchitectures=native",
    ]  # fmt: skip
    if plan.is_system:
        lines += [
            "# No writing but into the instance, /tmp, /var/tmp and home directories; no mounts.",
            "ProtectSystem=strict",
            f"ReadWritePaths={_quoted(plan.directory)} /tmp /var/tmp -/home -/root -/run/lock",
            "ProtectKernelTunables=yes", "ProtectKernelModules=yes", "ProtectKernelLogs=yes",
            "ProtectControlGroups=yes", "ProtectClock=yes", "ProtectHostname=yes",
            "CapabilityBoundingSet=",
        ]  # fmt: skip
    return lines


def _quoted(text: str, *, argument: bool = False) -> str:
    """A word of a unit file: specifiers and, in a command line, variables are made literal."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if argument:
        text = text.replace("$", "$$")
    plain = re.fullmatch(r"[A-Za-z0-9_./:@%+=,$-]+", text) is not None
    return text if plain else f'"{text}"'


def verified(plan: Plan, text: str) -> list[str]:
    """What ``systemd-analyze verify`` has to say about the unit; [] also where there is none.

    Raises `RefusedError` when it would not load.
    """
    program = shutil.which("systemd-analyze")
    if program is None:
        return []
    with tempfile.TemporaryDirectory(prefix="rq-unit-") as folder:
        file = Path(folder) / f"{plan.name}.service"
        file.write_text(text)
        verify = [program, *([] if plan.is_system else ["--user"]), "--man=no"]
        try:
            # Only this unit; an older systemd has no such option, and looks at others too.
            failed, said = _run([*verify, "--recursive-errors=no", "verify", str(file)], folder)
            if "unrecognized option" in said:
                failed, said = _run([*verify, "verify", str(file)], folder)
        except (OSError, subprocess.TimeoutExpired) as error:
            return [f"the unit was not verified: {error}"]
        ours = [line.replace(f"{folder}/", "") for line in said.splitlines() if file.name in line]
        # An older systemd does not know all settings, and goes on without them.
        if failed and any(not line.rstrip(" .").endswith("ignoring") for line in ours):
            raise RefusedError(
                "systemd would not take the unit, which is a defect of rq; it says: "
                + "; ".join(ours)
            )
        if failed and not ours:
            return [f"the unit was not verified: {said.strip() or 'without a reason'}"]
        return ours


def _run(command: Sequence[str], runtime_dir: str) -> tuple[bool, str]:
    """Did it fail, and what did it say?  A user's own units are read only where there is a session."""
    environ = {"XDG_RUNTIME_DIR": runtime_dir, **os.environ, "SYSTEMD_LOG_COLOR": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_VERIFY_SECONDS,
        stdin=subprocess.DEVNULL, env=environ,
    )  # fmt: skip
    return done.returncode != 0, done.stderr


def logrotate_text(directory: str, user: str, group: str) -> str:
    """The file for /etc/logrotate.d."""
    for path in (directory, user, group):
        if not path.isprintable() or '"' in path:
            raise RefusedError(f"{path!r} cannot stand in a file of logrotate")
    pid_file = _shell_quoted(f"{directory}/config/queuemgr.pid")
    return f"""\
# Rotates the logs of RQ in {directory}. Put it into /etc/logrotate.d/
# Not beside rqcore-cleaner, which rotates them as well. Under systemd the manager's own log is in
# the journal, and what is left here are the logs of the web interface.
"{directory}/log/rqcore.log" "{directory}/log/*.jsonl" {{
    weekly
    rotate 8
    compress
    delaycompress
    missingok
    notifempty
    nocreate
    su {user} {group}
    sharedscripts
    postrotate
        # Only while it runs: it holds a lock on its pid file.
        flock -n {pid_file} true || kill -USR1 "$(cat {pid_file})"
    endscript
}}
"""


def _shell_quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"
