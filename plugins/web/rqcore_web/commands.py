"""``rq web``: what operators do for the site at the command line.

The commands are made by the group that `rq` hands to plugins, so that they look and behave like its own:
examples in ``--help``, ``--dir`` and ``-q`` everywhere, errors as one line and an exit status.  They
change files of the instance; the site reads those anew with the next request, so nothing has to be
reloaded, and RQ need not run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import click

from rqcore.errors import NotFoundError, RefusedError, RqError
from rqcore.instance import Instance
from rqcore.message import queue_name_problem
from rqcore_web.options import SCOPES
from rqcore_web.security import configfile, passwords, tokens
from rqcore_web.security.times import parse_end

_LONGEST_USER = 255
_LONGEST_PASSWORD = 1024


class App(Protocol):
    """What ``rq`` gives its commands, as far as these use it."""

    @property
    def instance(self) -> Instance:
        """The instance that is meant."""

    def say(self, text: str) -> None:
        """Tell what happened, on stderr."""

    def warn(self, text: str) -> None:
        """Tell what must be known, on stderr."""


def register(cli: Any) -> None:
    """Add ``rq web`` and all below it; ``cli`` is the click group behind ``rq``."""
    group = cli.group(
        "web",
        short_help="Users, tokens and the address of the web interface.",
        help="Users, tokens and the address of the web interface.\n\n"
        "What is changed counts from the next request on; nothing has to be reloaded.",
        examples="""
rq web passwd alice                              let a user log in, or change the password
rq web token add deploy --scope enqueue          let a program send messages
rq web url                                       where the site is, and whether it answers
""",
    )(_nothing)
    group.command("passwd", short_help="Set a user's password.", examples="""
rq web passwd alice
pwgen 20 1 | tee pw | rq web passwd alice --stdin
""")(passwd)  # fmt: skip
    group.command("hash", short_help="Print what stands for a password in the config.", examples="""
rq web hash
rq web hash --stdin < pw
""")(hash_)  # fmt: skip
    group.command("url", short_help="Print where the site is.", examples="""
rq web url
xdg-open "$(rq web url)"
""")(url)  # fmt: skip
    token = group.group(
        "token", short_help="Make, list and remove tokens.",
        help="Make, list and remove tokens: what programs show in place of a password.",
        examples="""
rq web token add backup --queue backup --expires 30d
rq web token ls
rq web token rm backup
""",
    )(_nothing)  # fmt: skip
    token.command("add", short_help="Make a token and print it.", examples="""
rq web token add monitor
rq web token add deploy --scope enqueue --queue build --queue test --expires 30d
curl -H "Authorization: Bearer $(rq web token add me --scope operate)" http://localhost:3333/api/v1/queues
""")(token_add)  # fmt: skip
    token.command("ls", short_help="List the tokens.", examples="""
rq web token ls
rq web token ls --json
""")(token_ls)  # fmt: skip
    token.command("rm", short_help="Remove tokens; they count for nothing at once.", examples="""
rq web token rm deploy
""")(token_rm)  # fmt: skip


def _nothing() -> None:
    """For a group, which does nothing by itself."""


# Passwords


def _stdin_option(function: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--stdin", "from_stdin", is_flag=True, help="Read the password from stdin; one line."
    )(function)


@click.argument("user", metavar="USER")
@_stdin_option
@click.pass_obj
def passwd(app: App, *, user: str, from_stdin: bool) -> None:
    """Set a user's password, hashed, in config/config.json; a new user is added.

    The first user closes the site: from then on everybody has to log in. What a user may do stands
    under "plugins.web.roles"; everything, where nothing is said.
    """
    if not user or ":" in user or not user.isprintable() or len(user) > _LONGEST_USER:
        raise click.BadParameter(
            f"a user's name has 1 to {_LONGEST_USER} printable characters, and no colon"
        )
    file = app.instance.config_file
    app.instance.load_config()  # what is wrong with it is told before anything is typed
    stored = passwords.hash_password(_ask(from_stdin=from_stdin))
    before: dict[str, Any] = {}

    def edit(config: dict[str, Any]) -> None:
        auth = config.get("basic_auth") or {}
        before.update(auth.get("users") or {})
        config["basic_auth"] = {**auth, "users": {**before, user: stored}}

    configfile.change(file, edit)
    app.say(f"{user} can log in with {'the new' if user in before else 'this'} password")
    if not before:
        app.say("From now on everybody has to log in to the site")
    clear = [
        name for name, kept in before.items() if name != user and not passwords.is_hashed(kept)
    ]
    if clear:
        app.warn(f"still in clear text in {file}: {', '.join(clear)}; set them anew in this way")


@_stdin_option
def hash_(*, from_stdin: bool) -> None:
    """Print the hash of a password, to be put under basic_auth.users by whoever writes the config."""
    click.echo(passwords.hash_password(_ask(from_stdin=from_stdin)))


def _ask(*, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise click.UsageError("nobody can be asked here; give the password with --stdin")
    if not password or len(password) > _LONGEST_PASSWORD or "\0" in password:
        raise click.UsageError(f"a password has 1 to {_LONGEST_PASSWORD} characters, and no NUL")
    return password


# Tokens


def _end(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else parse_end(value, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.argument("name", metavar="NAME")
@click.option(
    "--scope", metavar="SCOPE", type=click.Choice(SCOPES), default="read", show_default=True,
    help="What it may do: read, enqueue, operate or admin; each includes those before it.",
)  # fmt: skip
@click.option(
    "--queue", "queues", metavar="QUEUE", multiple=True,
    help="The only queue that it may touch; may be repeated.",
)  # fmt: skip
@click.option(
    "--expires", metavar="TIME", callback=_end,
    help="When it ends: 12h, 30d, 2w, or 2026-03-01; never, where nothing is said.",
)  # fmt: skip
@click.pass_obj
def token_add(
    app: App, *, name: str, scope: str, queues: tuple[str, ...], expires: datetime | None
) -> None:
    """Make a token and print it; it is shown this once, and stored only as a hash.

    Programs send it as "Authorization: Bearer TOKEN", or as the password of any user.
    """
    problem = tokens.name_problem(name) or next(filter(None, map(queue_name_problem, queues)), None)
    if problem:
        raise click.BadParameter(problem)
    file, known = _tokens(app)
    if any(token.name == name for token in known):
        raise RefusedError(
            f"there is a token {name} already; remove it with: rq web token rm {name}"
        )
    made, text = tokens.make_token(name, scope, queues, expires, datetime.now(UTC))
    _write(file, [*known, made])
    for queue in sorted({*queues} - {*app.instance.queue_names()}):
        app.warn(f"there is no queue {queue} yet")
    app.say("This token is not shown again:")
    click.echo(text)


@click.option("--json", "as_json", is_flag=True, help="For programs: one array.")
@click.option("--jsonl", "as_lines", is_flag=True, help="For programs: one token per line.")
@click.pass_obj
def token_ls(app: App, *, as_json: bool, as_lines: bool) -> None:
    """List the tokens: what each may do, on which queues, until when, and how it ends."""
    now = datetime.now(UTC)
    _, known = _tokens(app)
    items = []
    for token in known:
        item = {**token.as_json(), "expired": token.expired(now)}
        del item["sha256"]
        items.append(item)
    if as_lines:
        for item in items:
            click.echo(json.dumps(item))
    elif as_json:
        click.echo(json.dumps(items, indent=2))
    elif items:
        _table(["NAME", "SCOPE", "QUEUES", "CREATED", "EXPIRES", "TOKEN"], [_row(i) for i in items])
    else:
        app.say("There is no token yet. Make one: rq web token add NAME")


@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def token_rm(app: App, *, names: tuple[str, ...]) -> None:
    """Remove tokens: the next request that shows one is refused."""
    file, known = _tokens(app)
    missing = sorted({*names} - {token.name for token in known})
    if missing:
        raise NotFoundError(f"there is no token {', '.join(missing)}; see: rq web token ls")
    _write(file, [token for token in known if token.name not in names])
    app.say(f"removed: {', '.join(names)}")


def _tokens(app: App) -> tuple[Path, list[tokens.Token]]:
    file = app.instance.config_dir / tokens.TOKENS_FILE
    configfile.refuse_foreign(app.instance.config_file)
    return file, tokens.read_tokens(file)


def _write(file: Path, kept: list[tokens.Token]) -> None:
    try:
        tokens.write_tokens(file, kept)
    except OSError as error:
        raise RqError(f"{file} cannot be written: {error.strerror}") from error


def _row(item: dict[str, Any]) -> list[str]:
    expires = (item["expires"] or "never") + (" (expired)" if item["expired"] else "")
    queues = ",".join(item["queues"] or ["all"])
    return [item["name"], item["scope"], queues, item["created"], expires, f"...{item['tail']}"]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


# The address


@click.pass_obj
def url(app: App) -> None:
    """Print the site's URL, and say on stderr whether it answers.

    Exit status 5 means that it does not; why, as far as RQ knows, is told.
    """
    from rqcore_web.whereabouts import ask, site_url  # noqa: PLC0415 - needs http and ssl

    found = site_url(app.instance)
    click.echo(found)
    app.say(ask(app.instance))
