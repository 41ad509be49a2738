"""``rq install-service``: an instance as a unit of systemd, and how its logs are rotated."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from pathlib import Path

import click

from rqcore import durable
from rqcore.errors import RefusedError, UnreachableError
from rqcore_cli import daemon, systemd
from rqcore_cli.app import App
from rqcore_cli.group import command
from rqcore_cli.output import echo, echo_json


@command(
    "install-service",
    short_help="Have systemd run this instance.",
    examples="""
sudo rq install-service --dir /var/spool/rq          a unit of the machine, as the directory's owner
rq install-service --user --name rq-mail             a unit of your own
rq install-service --dry-run                         only print it
rq install-service --logrotate > rq.logrotate        a file for /etc/logrotate.d
sudo rq install-service --remove
""",
)
@click.option("--user", "own", is_flag=True,
              help="A unit of your own, not of the machine; it needs no root.")  # fmt: skip
@click.option("--name", default="rq", show_default=True, metavar="NAME", help="The unit's name.")
@click.option("--strict", is_flag=True,
              help="Harden it more: for scripts that use no sudo and write only into the instance, "
                   "/tmp and home directories.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--remove", is_flag=True, help="Remove the unit again.")
@click.option("--logrotate", is_flag=True, help="Print a file for logrotate instead.")
@click.option("--json", "as_json", is_flag=True, help="For programs: the path, what to run next.")
@click.pass_obj
def install_service(
    app: App, *, own: bool, name: str, strict: bool, dry_run: bool, remove: bool,
    logrotate: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write the unit file by which systemd runs this instance, and say what to run next.

    Nothing is started or stopped. A unit of that name that is for another instance, or that somebody
    else has made, is left alone. Once more, after an update or a change of stop_grace, it is written
    anew.
    """
    name = systemd.checked_name(name)
    if logrotate:
        user, group = _owner(app)
        echo(systemd.logrotate_text(str(app.instance.directory), user, group).rstrip())
        return
    file = systemd.unit_dir(is_system=not own) / f"{name}.service"
    _check_ours(app, file, name)
    control = "systemctl --user" if own else "systemctl"
    if remove:
        _remove(app, file, control, dry_run=dry_run, as_json=as_json)
        return
    plan = _plan(app, name, own=own, strict=strict)
    text = systemd.unit_text(plan)
    for line in systemd.verified(plan, text):
        app.warn(f"systemd-analyze says: {line}")
    then = _next_steps(app, plan, control)
    if dry_run:
        app.say(f"would be written to {file}:")
    else:
        _write(file, text)
    if as_json:
        echo_json({"path": str(file), "written": not dry_run, "unit": text, "next": then})
    elif dry_run:
        echo(text.rstrip())
    else:
        app.say(f"wrote {file}; now run:")
        for step in then:
            echo(f"  {step}")


def _plan(app: App, name: str, *, own: bool, strict: bool) -> systemd.Plan:
    config, warnings = app.instance.load_config()
    for warning in warnings:
        app.warn(str(warning))
    user = "" if own else _owner(app)[0]
    if user == "root":
        app.warn(
            f"{app.instance.directory} belongs to root, so all scripts would run as root; "
            "better give it to a user of its own: chown -R USER"
        )
    owner = app.instance.directory.stat().st_uid
    if own and owner != os.getuid():
        raise RefusedError(
            f"{app.instance.directory} belongs to {_user_name(owner)}, and a unit of your own runs as "
            "you; become that user, or leave out --user"
        )
    words = daemon.command(app.instance, plugins=app.external_plugins)
    seconds = systemd.stop_seconds(config)
    return systemd.Plan(name, str(app.instance.directory), tuple(words), user, seconds, strict)


def _owner(app: App) -> tuple[str, str]:
    """Whose the instance is: user and group."""
    info = app.instance.directory.stat()
    try:
        group = grp.getgrgid(info.st_gid).gr_name
    except KeyError:
        group = str(info.st_gid)
    return _user_name(info.st_uid), group


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _check_ours(app: App, file: Path, name: str) -> None:
    """Raises `RefusedError` when there is a unit that is not this instance's."""
    try:
        owner = systemd.owner_of(file.read_text(errors="surrogateescape"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise RefusedError(f"{file} cannot be read: {error.strerror}") from error
    if owner is None:
        raise RefusedError(
            f"{file} was not made by rq; choose another name by --name, or remove it"
        )
    if owner != str(app.instance.directory):
        raise RefusedError(f"{name} is the instance in {owner}; choose another name by --name")


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        durable.write_file(file, text.encode())
    except OSError as error:
        raise RefusedError(
            f"{file} cannot be written: {error.strerror}; become root (sudo), or make it a unit of "
            "your own: --user"
        ) from error


def _next_steps(app: App, plan: systemd.Plan, control: str) -> list[str]:
    steps = [f"{control} daemon-reload"]
    if _runs(app):
        steps.append(f"rq stop --dir {app.instance.directory}")
    steps.append(f"{control} enable --now {plan.name}")
    if not plan.is_system:
        steps.append("loginctl enable-linger       # or it ends when you log out")
    steps.append(f"{control} status {plan.name}")
    return steps


def _runs(app: App) -> bool:
    try:
        app.ask_manager("ping")
    except UnreachableError:
        return False
    except RefusedError:  # "pong" is no "ok"; it answers
        return True
    return True


def _remove(app: App, file: Path, control: str, *, dry_run: bool, as_json: bool) -> None:
    found = file.exists()
    target = "multi-user.target" if control == "systemctl" else "default.target"
    link = file.parent / f"{target}.wants" / file.name
    if found and not dry_run:
        try:
            with contextlib.suppress(FileNotFoundError):
                link.unlink()
            durable.remove_file(file)
        except OSError as error:
            raise RefusedError(
                f"{file} cannot be removed: {error.strerror}; become root (sudo)"
            ) from error
    then = [f"{control} stop {file.stem}", f"{control} daemon-reload"] if found else []
    if as_json:
        echo_json({"path": str(file), "removed": found and not dry_run, "next": then})
        return
    if not found:
        app.say(f"there is no {file}")
        return
    app.say(f"{'would remove' if dry_run else 'removed'} {file}; now run:")
    for step in then:
        echo(f"  {step}")
