"""``rq webhook``: how the endpoints are; trying one, sending again, switching one on and off, secrets.

Made by the group that `rq` hands to plugins, so that it looks and behaves like its own commands.
"""

from __future__ import annotations

import contextlib
import json
import os
import time as clock
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from rqcore import durable, words
from rqcore.errors import NotFoundError, RefusedError, RqError
from rqcore.faces import App
from rqcore_webhook import replay as replaying
from rqcore_webhook.dispatch import QUEUE
from rqcore_webhook.health import Files
from rqcore_webhook.options import Endpoint, Options, read_options, read_secrets, url_problem
from rqcore_webhook.signing import new_secret
from rqcore_webhook.words import not_kept, rows

_FAILED, _USAGE = 1, 2
_SHOWN = 20


def register(cli: Any) -> None:
    """Add ``rq webhook``; ``cli`` is the click group behind ``rq``."""
    rq: click.Group = cli

    @rq.group(
        "webhook",
        short_help="Webhooks: how the endpoints are; try, repeat, enable them.",
        examples="""
rq webhook ls
rq webhook test ops
rq webhook replay --since 1d --endpoint ops --dry-run
rq webhook enable ops
rq webhook secret --new ops
""",
    )
    def webhook() -> None:
        """Tell URLs what happens to messages: the endpoints of the config, and post_run_webhook."""

    _register_looking(webhook)
    _register_replay(webhook)
    _register_switching(webhook)
    _register_secret(webhook)


_json = click.option("--json", "as_json", is_flag=True, help="For programs.")


def _register_looking(group: click.Group) -> None:
    @group.command(
        "ls",
        short_help="List the targets, and how they are.",
        examples="rq webhook ls\nrq webhook ls --json",
    )
    @_json
    @click.pass_obj
    def ls(app: App, *, as_json: bool) -> None:
        """List the endpoints, and the hosts that messages named by themselves, and how they are."""
        found = rows(str(app.instance.directory), _options(app))
        if as_json:
            click.echo(json.dumps(found, indent=2))
        elif found:
            _print(app, found)
        else:
            app.say(
                "No endpoint is configured, and no message has named a URL; see docs/webhook.md"
            )

    @group.command(
        "test",
        short_help="Send a test event now, and show the answer.",
        examples="rq webhook test ops\nrq webhook test https://example.com/hook",
    )
    @click.argument("target", metavar="NAME|URL")
    @_json
    @click.pass_obj
    def test(app: App, target: str, *, as_json: bool) -> None:
        """Send a test event now, and show what comes back.

        Nothing is queued and nothing is counted. Exit status 1 means that it was not taken.
        """
        result = _try(_options(app), target)
        if as_json:
            click.echo(json.dumps(result, indent=2))
        else:
            took = "" if result["ms"] is None else f" in {result['ms']:g} ms"
            click.echo(app.clean(result["error"] or f"answered {result['status']}") + took)
            for line in str(result["excerpt"]).splitlines()[:_SHOWN]:
                click.echo(f"  {app.clean(line)}")
        if result["error"]:
            click.get_current_context().exit(_FAILED)


def _try(options: Options, target: str) -> dict[str, Any]:
    """One attempt, for the command ``test``."""
    from rqcore_webhook import events  # noqa: PLC0415 - only this one sends
    from rqcore_webhook.outbox import new_key, webhook_id  # noqa: PLC0415
    from rqcore_webhook.script import attempt_it, prepare  # noqa: PLC0415

    endpoint: Endpoint | None = None
    if "://" not in target:
        endpoint = _known(options, target)
    elif url_problem(target):
        raise RefusedError(f"{target} {url_problem(target)}; correct it")
    data = {"text": "a test of rqcore: rq webhook test", "state": "done"}
    payload = events.body(endpoint, "webhook.test", clock.time(), data).encode()
    request = prepare(endpoint, target, payload, webhook_id(new_key(), 0), os.environ)
    attempt, reply = attempt_it(request, options, endpoint)
    return {
        "target": target, "url": request.url, "status": attempt.status, "error": attempt.error,
        "ms": reply.ms if reply else None, "address": reply.address if reply else "",
        "excerpt": reply.excerpt if reply else "",
    }  # fmt: skip


def _register_replay(group: click.Group) -> None:
    @group.command(
        "replay",
        short_help="Send again what was not delivered.",
        examples="rq webhook replay --since 1d --dry-run\nrq webhook replay --since 7d --endpoint ops",
    )
    @click.option("--since", required=True, metavar="SPAN", help="How far back: 6h, 2d; or a time.")
    @click.option("--endpoint", default="", metavar="NAME", help="Only for this one.")
    @click.option("--delivered", is_flag=True, help="Send those that were taken, too.")
    @click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @_json
    @click.pass_obj
    def replay(
        app: App,
        since: str,
        endpoint: str,
        *,
        delivered: bool,
        dry_run: bool,
        yes: bool,
        as_json: bool,
    ) -> None:
        """Send again what was not delivered, and what an endpoint was not told of while disabled.

        What was made since then counts. A webhook that is sent again keeps its id, so that a receiver
        that remembers ids takes it once.
        """
        options, start = _options(app), _since(since)
        if endpoint:
            _known(options, endpoint)

        def look() -> list[replaying.Found]:
            return list(_replayable(app, options, start, endpoint, delivered=delivered))

        found = look() if dry_run or not (yes or as_json) else []
        if not dry_run:
            if found:
                click.confirm(f"Send {len(found)} webhooks?", abort=True, err=True)
            with replaying.alone(str(app.instance.directory)):
                found = look()  # another may have sent some meanwhile
                for one in found:
                    one.again()
        _report(app, found, dry_run=dry_run, as_json=as_json)


def _replayable(
    app: App, options: Options, since: float, endpoint: str, *, delivered: bool
) -> Iterable[replaying.Found]:
    directory = app.instance.directory
    yield from replaying.again(app.ask, options, since, endpoint, delivered=delivered)
    config, _ = app.instance.load_config()
    queues = app.instance.queue_names()
    yield from replaying.missed(
        app.ask, str(directory), config.base_url, options, queues, since, endpoint
    )


def _report(app: App, found: Sequence[replaying.Found], *, dry_run: bool, as_json: bool) -> None:
    listed = [
        {"target": one.target, "event": one.event, "about": one.about, "why": one.why}
        for one in found
    ]
    if as_json:
        click.echo(json.dumps({"sent": not dry_run, "webhooks": listed}, indent=2))
        return
    if dry_run and found:
        app.table(
            ("TARGET", "EVENT", "WHY", "ABOUT"),
            [(one.target, one.event, one.why, one.about) for one in found],
        )
    count = "1 webhook" if len(found) == 1 else f"{len(found)} webhooks"
    app.say(f"{count} {'would be sent' if dry_run else 'will be sent'}")


def _since(text: str) -> float:
    try:
        return clock.time() - words.parse_span(text)
    except ValueError:
        pass
    try:
        return words.parse_due(text, clock.time())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None


def _register_switching(group: click.Group) -> None:
    @group.command(
        "enable", short_help="Send to an endpoint again.", examples="rq webhook enable ops"
    )
    @click.argument("name")
    @click.pass_obj
    def enable(app: App, name: str) -> None:
        """Send to an endpoint again; what waits for it is sent at once."""
        _known(_options(app), name)
        files = Files(str(app.instance.directory))
        gone, missed = files.disabled(name), files.missed(name)
        with _writing():
            files.enable(name)
        if gone is None:
            app.say(f"{name} was not disabled")
            return
        app.say(f"{name} is enabled")
        if missed:
            app.warn(
                f"{not_kept(missed)} meanwhile; "
                f"to send them: rq webhook replay --endpoint {name} --since "
                f"{max(1, int((clock.time() - (gone['at'] or clock.time())) // 3600) + 1)}h"
            )
        try:
            _wake(app, name)
        except RqError as error:
            app.warn(f"what waits for it is sent within the hour: {error}")

    @group.command(
        "disable",
        short_help="Send nothing to an endpoint.",
        examples="rq webhook disable ops --reason 'moving house'",
    )
    @click.argument("name")
    @click.option("--reason", default="by an operator", help="For those who wonder why.")
    @click.pass_obj
    def disable(app: App, name: str, reason: str) -> None:
        """Send nothing to an endpoint; what is queued for it waits, new events are only counted."""
        _known(_options(app), name)
        with _writing():
            Files(str(app.instance.directory)).disable(name, reason, "rq webhook disable")
        app.say(f"{name} is disabled; to send to it again: rq webhook enable {name}")


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """What the system refuses, in words."""
    try:
        yield
    except OSError as error:
        raise RefusedError(
            f"{error.filename} cannot be changed: {error.strerror}; become the user of RQ"
        ) from error


def _wake(app: App, name: str) -> None:
    """Have what waits for an endpoint looked at now."""
    before = ""
    while True:
        args = {"state": "que", "limit": 500, "before": before}
        page = app.ask(QUEUE, "list_messages", args)
        for item in page["items"]:
            if item.get("param3") == name:
                app.ask(QUEUE, "run_message", {"msg_id": item["msg_id"]})
        before = page["next"]
        if not before:
            return


def _register_secret(group: click.Group) -> None:
    @group.command(
        "secret",
        short_help="Make a secret, or change one.",
        examples="rq webhook secret\nrq webhook secret --new ops",
    )
    @click.argument("name", required=False)
    @click.option("--new", "add", is_flag=True, help="Put a new one first into the secret_file.")
    @click.option("--drop-old", is_flag=True, help="Leave only the newest in the secret_file.")
    @click.pass_obj
    def secret(app: App, name: str | None, *, add: bool, drop_old: bool) -> None:
        """Make a secret; or change an endpoint's for another.

        Without NAME a fresh secret is printed. With --new it is put before those in the endpoint's
        secret_file, all of which sign from then on; when the receiver knows the new one, --drop-old
        removes the others. Nothing needs to be reloaded.
        """
        if name is None:
            if add or drop_old:
                raise click.UsageError("name the endpoint whose secret is meant")
            click.echo(new_secret())
            return
        endpoint = _known(_options(app), name)
        if not endpoint.secret_file:
            raise RefusedError(f'{name} has no secret_file; give it one, "config/{name}.secret"')
        if not add and not drop_old:
            raise click.UsageError("say --new or --drop-old")
        _rotate(app, endpoint.secret_file, add=add)


def _rotate(app: App, path: str, *, add: bool) -> None:
    known = read_secrets(path) if os.path.exists(path) else ()
    kept = (new_secret(), *known) if add else known[:1]
    if not kept:
        raise RefusedError(f"{path} holds no secret; make one with --new")
    with _writing():
        durable.write_file(path, "".join(f"{one}\n" for one in kept).encode("ascii"), mode=0o600)
    if add:
        click.echo(kept[0])
    app.say("1 secret signs" if len(kept) == 1 else f"{len(kept)} secrets sign")


def _options(app: App) -> Options:
    return read_options(str(app.instance.directory))


def _known(options: Options, name: str) -> Endpoint:
    endpoint = options.endpoints.get(name)
    if endpoint is None:
        known = ", ".join(options.endpoints) or "none"
        raise NotFoundError(f"there is no endpoint {name}; there are: {known}")
    return endpoint


def _print(app: App, found: Sequence[Mapping[str, Any]]) -> None:
    now = clock.time()
    app.table(
        ("TARGET", "STATUS", "FOR", "LAST OK", "TAKEN", "FAILED", "URL"),
        [
            (
                row["target"], row["status"],
                _age(row["disabled"]["at"] if row["disabled"] else row["failing_since"], now),
                _age(row["last_success"], now), row["attempts"].get("success", 0),
                sum(row["attempts"].values()) - row["attempts"].get("success", 0), row["url"] or "-",
            )
            for row in found
        ],
        right={"FOR", "LAST OK", "TAKEN", "FAILED"},
    )  # fmt: skip
    for row in found:
        if row["disabled"]:
            missed = f"; {not_kept(row['missed'])}" if row["missed"] else ""
            text = f"{row['target']} is disabled: {row['disabled']['reason']}{missed}"
            click.echo(f"\n{app.clean(text)}\n  rq webhook enable {row['target']}")
        elif row["failures"] or row["status"] == "refused":
            click.echo(f"\n{app.clean(row['target'])}: {app.clean(row['last_error'])}")


def _age(moment: float | None, now: float) -> str:
    return "-" if moment is None else words.span(now - moment)
