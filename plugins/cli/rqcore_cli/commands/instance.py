"""``rq init up start stop restart reload``: an instance's directory and its processes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial

import click

from rqcore.config import Problem
from rqcore.errors import RqError, UnreachableError
from rqcore.instance import init_instance
from rqcore_cli import daemon
from rqcore_cli.app import App
from rqcore_cli.exits import Exit
from rqcore_cli.group import command

_PATIENCE = 60
_plugins_help = "Run the bare kernel, without any plugin."


@command(
    "init",
    short_help="Make an instance directory.",
    examples="""
rq init ~/rq
rq init /var/spool/rq --host mq1.example.com --env production
""",
)
@click.argument("directory", type=click.Path(file_okay=False))
@click.option(
    "--host", metavar="NAME", help="The machine's full name, part of every message's URL."
)
@click.option("--port", type=click.IntRange(1, 65535), default=3333, show_default=True,
              metavar="N",
              help="The web port, part of every message's URL.")  # fmt: skip
@click.option("--env", default="development", show_default=True, metavar="NAME",
              help="RQ_ENV of scripts: production, development, test or stage.")  # fmt: skip
@click.pass_obj
def init(app: App, directory: str, host: str | None, port: int, env: str) -> None:
    """Make an instance directory: one place for queues, messages, configuration and logs."""
    instance, warnings = init_instance(directory, host=host, port=port, env=env)
    for warning in warnings:
        app.warn(str(warning))
    app.say(f"made {instance.directory}; start it with: rq start --dir {directory}")


@command(
    "up",
    short_help="Run RQ here, in the foreground.",
    examples="""
rq up
rq up --dir ~/rq
""",
)
@click.option("--no-plugins", is_flag=True, help=_plugins_help)
@click.pass_obj
def up(app: App, *, no_plugins: bool) -> None:
    """Run RQ here, in the foreground, until Ctrl-C or SIGTERM.

    What a service manager should run: it tells systemd when it is ready. Ends with 0 when it was
    stopped, 3 when it could not start.
    """
    words = daemon.command(app.instance, plugins=app.external_plugins and not no_plugins)
    sys.stdout.flush()
    os.execv(words[0], words)  # noqa: S606 - without a shell, as it should be


@command(
    "start",
    short_help="Start RQ in the background.",
    examples="""
rq start
rq start --dir ~/rq --no-plugins
""",
)
@click.option("--no-plugins", is_flag=True, help=_plugins_help)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=_PATIENCE,
              show_default=True, metavar="SECONDS",
              help="How long to wait until all queues are ready.")  # fmt: skip
@click.pass_obj
def start(app: App, *, no_plugins: bool, timeout: float) -> None:
    """Start RQ in the background, and return when its queues are ready.

    It writes what it does to log/rqcore.log in the instance.
    """
    start_instance(app, plugins=app.external_plugins and not no_plugins, patience=timeout)


def start_instance(app: App, *, plugins: bool = True, patience: float = _PATIENCE) -> None:
    """Start the manager unless it runs."""
    try:
        pid = app.manager.ask("describe")["pid"]
    except UnreachableError:
        pid = daemon.start(app.instance, plugins=plugins, patience=patience)
        app.say(f"RQ runs in {app.instance.directory} (pid {pid})")
    else:
        app.say(f"RQ runs already in {app.instance.directory} (pid {pid})")
    for child in app.ask_manager("describe")["children"]:
        if child["problem"]:
            app.warn(f"{child['kind']} {child['name']} is {child['state']}: {child['problem']}")
    for plugin in app.ask_manager("plugins")["plugins"]:
        if plugin["status"] == "failed":
            app.warn(f"plugin {plugin['name']} is not loaded: {plugin['error']}")


@command(
    "stop",
    short_help="Stop RQ; running messages get time to finish.",
    examples="""
rq stop
rq stop --now
""",
)
@click.option("--now", is_flag=True, help="End running scripts at once; they run again later.")
@click.pass_obj
def stop(app: App, *, now: bool) -> None:
    """Stop RQ, and return when no process of it is left.

    Running messages get the time that "stop_grace" in the main config gives them; the scripts of
    those that take longer are ended, and run again after the next start.
    """
    stop_instance(app, now=now)


def stop_instance(app: App, *, now: bool) -> None:
    """Stop the manager if it runs."""
    try:
        about = app.manager.ask("describe")
    except UnreachableError as error:
        if "no permission" in str(error):
            raise
        app.say(f"RQ does not run in {app.instance.directory}")
        return
    with daemon.watched(about["pid"]) as pidfd:
        if not now:
            _tell_what_it_waits_for(app, about)
        # Asked again, it does not wait; it may also be gone already.
        with contextlib.suppress(UnreachableError):
            for _ in range(2 if now else 1):
                app.ask_manager("shutdown")
        app.manager.close()
        daemon.wait_gone(app.instance, pidfd)
    app.say("RQ is stopped")


def _tell_what_it_waits_for(app: App, about: dict[str, object]) -> None:
    running = []
    children = about["children"]
    assert isinstance(children, list)
    for child in children:
        if child["kind"] == "queue" and child["state"] == "running":
            try:
                found = app.ask(child["name"], "describe")["running"]
            except UnreachableError:
                continue  # about to be restarted; nothing runs in it
            running += [f"{child['name']}/{message['msg_id']}" for message in found]
    if running:
        config, _ = app.instance.load_config()
        more = f" and {len(running) - 3} more" if len(running) > 3 else ""  # noqa: PLR2004
        app.say(
            f"waiting {config.stop_grace:g} s at most for {', '.join(running[:3])}{more}; "
            "end at once with: rq stop --now"
        )


@command(
    "restart",
    short_help="Stop RQ and start it again.",
    examples="""
rq restart
""",
)
@click.option("--now", is_flag=True, help="End running scripts at once; they run again.")
@click.pass_obj
def restart(app: App, *, now: bool) -> None:
    """Stop RQ and start it again: for a new version, or new plugins.

    A changed configuration needs only: rq reload
    """
    app.instance.load_config()  # one that is wrong is told of before anything is stopped
    stop_instance(app, now=now)
    start_instance(app, plugins=app.external_plugins)


@command(
    "reload",
    short_help="Read all configuration anew.",
    examples="""
rq reload
""",
)
@click.pass_context
def reload(ctx: click.Context) -> None:
    """Read all configuration anew, without disturbing what runs.

    New queue directories start, and are waited for; removed ones stop. What is wrong is told; a
    configuration that is wrong leaves the old one in force, and the exit status is 1.
    """
    app = ctx.ensure_object(App)
    told: list[str] = app.ask_manager("reload")
    errors, warnings = check_configs(app)
    # What the manager adds to what we found ourselves: plugins that object to their options.
    objections = [
        problem for problem in told if not any(known in problem for known in (*errors, *warnings))
    ]
    for problem in (*objections, *errors, *warnings):
        app.warn(problem)
    if objections and not errors:
        app.say("all the rest of the configuration is loaded")
    if objections or errors:
        ctx.exit(Exit.FAILED)
    app.say("the configuration is loaded")


def check_configs(app: App) -> tuple[list[str], list[str]]:
    """What is wrong with the main config and the queues' configs: errors, and warnings."""
    errors: list[str] = []
    warnings: list[str] = []
    instance = app.instance
    loads: list[Callable[[], tuple[object, list[Problem]]]] = [instance.load_config]
    loads += [partial(instance.load_queue, name) for name in instance.queue_names()]
    for load in loads:
        try:
            _, found = load()
            warnings += map(str, found)
        except RqError as error:
            errors.append(str(error))
    return errors, warnings
