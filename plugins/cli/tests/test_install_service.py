"""``rq install-service``: the unit as systemd itself reads it, whose it is, and what is left alone."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rqcore_cli import systemd

from rqcore.config import InstanceConfig
from rqcore.errors import RefusedError

if TYPE_CHECKING:
    from tests.conftest import Rq

    from rqcore.testing import RunningInstance

COMMAND = ("/opt/rq/bin/python3", "-P", "-m", "rqcore", "/var/spool/rq")


def plan(**changed: object) -> systemd.Plan:
    given: dict[str, object] = {
        "name": "rq", "directory": "/var/spool/rq", "command": COMMAND, "user": "rq",
        "stop_seconds": 40, "strict": False, **changed,
    }  # fmt: skip
    return systemd.Plan(**given)  # type: ignore[arg-type]


def keys(text: str) -> dict[str, str]:
    """The settings of a unit; none stands twice."""
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    found = dict(line.split("=", 1) for line in lines)
    assert len(found) == len(lines)
    return found


def test_the_unit_says_what_rq_needs() -> None:
    unit = keys(systemd.unit_text(plan()))
    wanted = {
        "Type": "notify", "NotifyAccess": "main", "ExecStart": " ".join(COMMAND),
        "ExecReload": "/bin/kill -HUP $MAINPID", "KillMode": "mixed", "TimeoutStopSec": "40",
        "Restart": "on-failure", "User": "rq", "WorkingDirectory": "/var/spool/rq",
        "WantedBy": "multi-user.target", "OOMPolicy": "continue", "TasksMax": "infinity",
    }  # fmt: skip
    assert {key: unit.get(key) for key in wanted} == wanted
    assert int(unit["WatchdogSec"]) >= 10


def test_a_script_notices_nothing_of_it_unless_it_is_strict() -> None:
    """Each of these would take sudo, mounts or places to write to away from scripts."""
    felt = {
        "NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices",
        "RestrictSUIDSGID", "ProtectControlGroups", "ProtectKernelTunables", "SystemCallFilter",
        "RestrictNamespaces", "LockPersonality", "RestrictRealtime", "CapabilityBoundingSet",
        "MemoryDenyWriteExecute", "RestrictAddressFamilies", "ReadWritePaths",
    }  # fmt: skip
    assert not felt & set(keys(systemd.unit_text(plan())))
    strict = keys(systemd.unit_text(plan(strict=True)))
    assert strict["NoNewPrivileges"] == "yes"
    assert "/var/spool/rq" in strict["ReadWritePaths"]
    own = keys(systemd.unit_text(plan(strict=True, user="")))
    assert "NoNewPrivileges" in own
    assert not {"ProtectSystem", "User", "CapabilityBoundingSet"} & set(own)
    assert own["WantedBy"] == "default.target"


def test_paths_are_taken_to_the_letter() -> None:
    odd = '/srv/my rq/100%h $HOME "x" \\t'
    unit = keys(systemd.unit_text(plan(directory=odd, command=(*COMMAND[:-1], odd))))
    quoted = '"/srv/my rq/100%%h $$HOME \\"x\\" \\\\t"'
    assert unit["ExecStart"] == f"{' '.join(COMMAND[:-1])} {quoted}"
    assert unit["WorkingDirectory"] == odd.replace("%", "%%")
    for name in ("a\nb", "a\x07"):
        with pytest.raises(RefusedError, match="cannot stand in a unit file"):
            systemd.unit_text(plan(directory=f"/srv/{name}"))


@pytest.mark.parametrize("name", ["", "-x", ".x", "a/b", "../x", "a b", "x@", "ü", "x\n"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(RefusedError, match="cannot be a unit's name"):
        systemd.checked_name(name)


def test_the_time_to_stop_is_all_graces_together() -> None:
    config = InstanceConfig(host="h", stop_grace=60.5, kill_grace=5)
    assert systemd.stop_seconds(config) > 60.5 + 5 + 10


# As systemd reads it


def has_systemd() -> bool:
    return shutil.which("systemd-analyze") is not None


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("user", ["root", ""])
@pytest.mark.parametrize("folder", ["plain", 'my rq %h $HOME "x"'])
def test_systemd_takes_it(tmp_path: Path, user: str, strict: bool, folder: str) -> None:
    """Where there is no systemd there is nobody to ask, and nothing is said."""
    place = tmp_path / folder
    place.mkdir()
    made = plan(
        directory=str(place), command=("/bin/sh", "-c", str(place)), user=user, strict=strict
    )
    assert systemd.verified(made, systemd.unit_text(made)) == []


def test_what_systemd_does_not_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(command=("/no/such/program",), user="")
    if has_systemd():
        with pytest.raises(RefusedError, match="/no/such/program is not executable"):
            systemd.verified(made, systemd.unit_text(made))
        made = plan(command=("/bin/true",), user="")
        text = systemd.unit_text(made).replace("KillMode", "KilMode")
        assert "KilMode" in " ".join(systemd.verified(made, text))
    # An older one, which knows no such option; one that cannot run at all; none.
    fake = tmp_path / "systemd-analyze"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *recursive*) echo "unrecognized option \'--rec\'" >&2; exit 1;;\n'
        '*) for x; do :; done; echo "$x: it is wrong" >&2; exit 1;; esac\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(RefusedError, match=r"says: rq\.service: it is wrong"):
        systemd.verified(made, "")
    fake.write_text("#!/no/such/interpreter\n")
    (said,) = systemd.verified(made, "")
    assert said.startswith("the unit was not verified: ")
    monkeypatch.setenv("PATH", "/nowhere")
    assert systemd.verified(made, "") == []


# The command


@pytest.fixture
def home(rq: Rq, tmp_path: Path) -> Path:
    """Where a user's own units lie; the command finds an instance."""
    rq("init", str(tmp_path / "rq"))
    rq.environ["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    return tmp_path / "xdg/systemd/user"


def test_a_unit_of_ones_own(rq: Rq, home: Path, tmp_path: Path) -> None:
    done = rq("install-service", "--user")
    file = home / "rq.service"
    assert f"wrote {file}; now run:" in done.err
    assert [line.strip() for line in done.out.splitlines()][:2] == [
        "systemctl --user daemon-reload", "systemctl --user enable --now rq",
    ]  # fmt: skip
    unit = keys(file.read_text())
    assert unit["ExecStart"].endswith(f" -P -m rqcore {tmp_path / 'rq'}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    # Again, with another grace: it is written anew.
    before = int(unit["TimeoutStopSec"])
    config = tmp_path / "rq/config/config.json"
    config.write_text(config.read_text().replace("{", '{"stop_grace": 100,', 1))
    rq("install-service", "--user")
    assert int(keys(file.read_text())["TimeoutStopSec"]) == before + 90
    # And removed, with what systemctl enable has made.
    wants = home / "default.target.wants"
    wants.mkdir()
    (wants / "rq.service").symlink_to(file)
    assert "would remove" in rq("install-service", "--user", "--remove", "--dry-run").err
    assert file.exists()
    gone = rq("install-service", "--user", "--remove")
    assert f"removed {file}; now run:" in gone.err
    assert "systemctl --user stop rq" in gone.out
    assert list(home.iterdir()) == [wants]
    assert list(wants.iterdir()) == []
    assert "there is no" in rq("install-service", "--user", "--remove").err


def test_nothing_is_written_when_only_asked(rq: Rq, home: Path) -> None:
    done = rq("install-service", "--user", "--dry-run", "--name", "rq-mail")
    assert done.out.startswith("# RQ instance: ")
    assert "SyslogIdentifier=rq-mail\n" in done.out
    assert str(home / "rq-mail.service") in done.err
    found = rq("install-service", "--user", "--dry-run", "--json").json()
    assert (found["path"], found["written"]) == (str(home / "rq.service"), False)
    assert "systemctl --user enable --now rq" in found["next"]
    assert not home.exists()
    removed = rq("install-service", "--user", "--remove", "--json").json()
    assert removed["removed"] is False


def test_units_of_others_are_left_alone(rq: Rq, home: Path, tmp_path: Path) -> None:
    home.mkdir(parents=True)
    theirs = home / "rq.service"
    theirs.write_text("[Unit]\n")
    for words in ((), ("--remove",)):
        said = rq("install-service", "--user", *words, status=4).err
        assert f"{theirs} was not made by rq; choose another name by --name" in said
    theirs.unlink()
    rq("install-service", "--user")
    rq("init", str(tmp_path / "other"))
    said = rq("install-service", "--user", "--dir", str(tmp_path / "other"), status=4).err
    assert f"rq is the instance in {tmp_path / 'rq'}; choose another name" in said
    theirs.unlink()
    theirs.mkdir()
    assert "cannot be read" in rq("install-service", "--user", status=4).err


def test_what_cannot_be_written_says_how_it_could(rq: Rq, home: Path) -> None:
    home.parent.parent.mkdir()
    home.parent.write_text("in the way")
    said = rq("install-service", "--user", status=4).err
    assert "cannot be " in said
    assert "Not a directory" in said
    assert "cannot be a unit's name" in rq("install-service", "--name", "a/b", status=4).err


def test_a_running_instance_is_to_be_stopped_first(
    rq: Rq, running: RunningInstance, tmp_path: Path
) -> None:
    rq.environ["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    steps = rq("install-service", "--user", "--dry-run", "--json").json()["next"]
    assert steps[1] == f"rq stop --dir {running.directory}"


def test_a_unit_of_the_machine_runs_as_the_owner(rq: Rq, home: Path, tmp_path: Path) -> None:
    done = rq("install-service", "--dry-run")
    assert "/etc/systemd/system/rq.service" in done.err
    if os.getuid() != 0:
        return
    assert "belongs to root" in done.err
    os.chown(tmp_path / "rq", 12345, 12345)
    unit = keys(rq("install-service", "--dry-run").out)
    assert unit["User"] == "12345"
    said = rq("install-service", "--user", "--dry-run", status=4).err
    assert "belongs to 12345, and a unit of your own runs as you" in said


# Logs


def test_a_file_for_logrotate(rq: Rq, home: Path, tmp_path: Path) -> None:
    text = rq("install-service", "--logrotate").out
    log = tmp_path / "rq/log/rqcore.log"
    assert f'"{log}"' in text
    for word in ("delaycompress", "missingok", "nocreate", "kill -USR1"):
        assert word in text
    for name in ('/a"b', "/a\nb"):
        with pytest.raises(RefusedError, match="cannot stand in a file of logrotate"):
            systemd.logrotate_text(name, "rq", "rq")


def test_its_script_signals_only_who_runs(rq: Rq, running: RunningInstance) -> None:
    """The pid file stays behind; its lock does not."""
    text = rq("install-service", "--logrotate").out
    script = text.partition("postrotate\n")[2].partition("endscript")[0]
    log = running.log
    log.rename(log.with_suffix(".1"))
    subprocess.run(["sh", "-ec", script], check=True)
    running.manager.ask("describe")
    assert log.exists()
    running.stop()
    pid_file = running.directory / "config/queuemgr.pid"
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        pid_file.write_text(f"{stranger.pid}\n")
        subprocess.run(["sh", "-ec", script], check=True)
        assert stranger.poll() is None
        stranger.kill()
