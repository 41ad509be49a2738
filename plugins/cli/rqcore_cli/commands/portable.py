"""``rq export import``: messages as files, to keep them or to take them elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, BinaryIO

import click

from rqcore import words
from rqcore.errors import RefusedError, RqError
from rqcore_cli.app import App
from rqcore_cli.exits import CallError, Exit, exit_status
from rqcore_cli.group import command
from rqcore_cli.names import MESSAGE, QUEUE
from rqcore_cli.output import clean, echo, echo_json
from rqcore_cli.portable.exporting import Export, Exported, locate, sizes
from rqcore_cli.portable.importing import Import, Imported, Wishes
from rqcore_cli.portable.layout import ATTACH, SUFFIX, ArchiveError
from rqcore_cli.portable.pace import Pace
from rqcore_cli.refs import Ref, find_ref, split_ref
from rqcore_cli.selection import filter_options, messages, read_filter, read_states

_STATES = ("prep", "que", "done", "relayed", "err")
_STREAM = "-"


@command(
    "export",
    short_help="Write messages, with all they have, into one file.",
    examples="""
rq export hello/20260301.0800.00.000.1                   into hello-20260301.0800.00.000.1.rqmsg
rq export hello --state err -o failed.rqmsg
rq export hello --all -o - | zstd > hello.rqmsg.zst
tar tvf failed.rqmsg                                     it is a plain tar
""",
)
@click.argument("targets", type=MESSAGE, nargs=-1, required=True, metavar="MSG... | QUEUE...")
@click.option("-o", "--output", metavar="FILE", help="The file to write; - is standard output.")
@click.option("--all", "everything", is_flag=True,
              help="All messages of the QUEUE that do not run.")  # fmt: skip
@click.option("--state", "states", multiple=True, metavar="STATE",
              help="Those of the QUEUE in these states.")  # fmt: skip
@filter_options
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def export(ctx: click.Context, /, targets: tuple[str, ...], **given: Any) -> None:
    """Write messages into one file: fields, status, attachments, log, and what else they left.

    The messages stay where they are. `rq import` takes them in again, here or elsewhere.
    """
    app = ctx.ensure_object(App)
    refs = _chosen(app, targets, given)
    if not refs:
        app.say("no message to export")
        return
    output = _output(refs, given["output"], force=given["force"])
    total = sum(sizes(app.instance, ref) for ref in refs) if sys.stderr.isatty() else 0
    pace = Pace(app, f"{_many(len(refs))}:", total)
    try:
        with _written(output) as file:
            tar = Export(file, app.instance, len(refs), pace.passed)
            done = [tar.add(ref) for ref in refs]
            tar.close()
    finally:
        pace.clear()
    _tell_exported(app, done, output, as_json=given["as_json"])
    for one in done:
        for problem in one.problems:
            app.warn(f"{one.queue}/{one.msg_id}: {clean(problem)}")
    if any(problem.startswith(ATTACH) for one in done for problem in one.problems):
        ctx.exit(Exit.FAILED)


def _chosen(app: App, targets: tuple[str, ...], given: dict[str, Any]) -> list[Ref]:
    states = read_states(given["states"])
    if "run" in states:
        raise CallError(f"a running message is not exported; there are: {', '.join(_STATES)}")
    filters = (given["everything"], states, given["text"], given["older"], given["newer"])
    if any(filters):
        wanted = read_filter(states or _STATES, given["text"], given["older"], given["newer"])
        for target in targets:
            if split_ref(target) is not None:
                raise CallError(f"{target} is one message; filters choose among those of a queue")
        queues = [app.known(target.removeprefix("/q/")) for target in targets]
        return [Ref(item["queue"], item["msg_id"]) for item in messages(app, queues, wanted)][::-1]
    for target in targets:
        if split_ref(target) is None and target in app.instance.queue_names():
            raise CallError(
                f"{target} is a queue; say which of its messages to export: "
                "--all, --state, --text, --older-than, --newer-than"
            )
    refs = list(dict.fromkeys(find_ref(app, target) for target in targets))
    for ref in refs:
        locate(app.instance, ref)
    return refs


def _output(refs: list[Ref], output: str | None, *, force: bool) -> str:
    if output is None and len(refs) > 1:
        raise CallError(f"{_many(len(refs))}: name the file to write with -o")
    output = output or f"{refs[0].queue}-{refs[0].msg_id}{SUFFIX}"
    if output == _STREAM:
        if sys.stdout.isatty():
            raise CallError("a tar is not for a terminal; name a file with -o, or pipe it on")
    elif os.path.lexists(output) and not force:
        raise RefusedError(f"{output} is there already; name another with -o, or say --force")
    return output


@contextlib.contextmanager
def _written(output: str) -> Iterator[BinaryIO]:
    """The file, which appears under its name when it is whole, and durable."""
    if output == _STREAM:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    temporary = f"{output}.part.{os.getpid()}"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, output)
    except OSError as error:
        raise RqError(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _tell_exported(app: App, done: list[Exported], output: str, *, as_json: bool) -> None:
    if as_json and output != _STREAM:
        echo_json({"file": os.path.abspath(output), "messages": [asdict(one) for one in done]})
    elif output != _STREAM:
        echo(output)
    attachments = sum(one.attachments for one in done)
    app.say(
        f"{_many(len(done))}, {attachments} attachment{'s'[: attachments != 1]}, "
        f"{words.size(sum(one.bytes for one in done))}"
    )


@command(
    "import",
    short_help="Take in messages that rq export has written.",
    examples="""
rq import hello-20260301.0800.00.000.1.rqmsg
rq import failed.rqmsg --run                             and have them run
rq import failed.rqmsg --dry-run                         only verify, and list
zstd -dc hello.rqmsg.zst | rq import - --queue attic
""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...",
                type=click.Path(allow_dash=True))  # fmt: skip
@click.option("--queue", type=QUEUE, metavar="QUEUE",
              help="Into this queue, not the one each came from.")  # fmt: skip
@click.option("--run", is_flag=True, help="Have them run; else only those that waited in que do.")
@click.option("--again", is_flag=True,
              help="As new messages, also where they are there already.")  # fmt: skip
@click.option("--damaged", is_flag=True,
              help="Also with attachments that had changed before the export.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only verify the file, and say what would come in.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def import_(ctx: click.Context, /, files: tuple[str, ...], *, as_json: bool, **given: Any) -> None:
    """Take in messages that `rq export` has written. Each is verified, then put in whole.

    Those that waited in que wait there again; all others wait in prep until they are committed. A
    message that is there already, by its id, is left as it is.
    """
    app = ctx.ensure_object(App)
    if given["queue"] is not None:
        app.known(given["queue"])
    wishes = Wishes(**given)
    done: list[Imported] = []
    worst = Exit.OK
    for file in files:
        try:
            for imported in _read(app, file, wishes):
                done.append(imported)
                if not as_json:
                    _tell_imported(app, imported)
        except (RqError, OSError) as error:
            name = "standard input" if file == _STREAM else file
            app.warn(f"{clean(name)}: {clean(error)}")
            worst = worst or (exit_status(error) if isinstance(error, RqError) else Exit.FAILED)
    if as_json:
        echo_json([_described(one) for one in done])
    ctx.exit(worst)


def _read(app: App, file: str, wishes: Wishes) -> Iterator[Imported]:
    with _opened(file) as stream:
        pace = Pace(app, "read", 0 if file == _STREAM else os.fstat(stream.fileno()).st_size)
        try:
            for imported in Import(app.instance, wishes, pace.passed).run(stream):
                pace.clear()
                yield imported
        finally:
            pace.clear()


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == _STREAM:
        yield sys.stdin.buffer
        return
    try:
        stream = open(file, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ArchiveError(f"cannot be read: {error.strerror}") from None
    with stream:
        yield stream


def _tell_imported(app: App, one: Imported) -> None:
    name = f"{one.queue}/{one.msg_id}"
    echo(name)
    for problem in one.problems:
        app.warn(f"{name}: {clean(problem)}")
    was = f"it was {one.was.queue}/{one.was.msg_id}, {one.was.state}"
    if one.action == "there":
        app.say(f"{name} is there already, in {one.state}; --again takes it in as a new message")
    elif one.action == "imported" and one.state == "prep":
        app.say(f"{name} waits in prep ({was}); then: rq commitmesg --msg_id /q/{name}")
    else:
        app.say(f"{name} {one.action}, in {one.state} ({was})")


def _described(one: Imported) -> dict[str, Any]:
    return {
        "queue": one.queue, "msg_id": one.msg_id, "state": one.state, "action": one.action,
        "problems": list(one.problems),
        "was": {"queue": one.was.queue, "msg_id": one.was.msg_id, "state": one.was.state,
                "full_id": one.was.full_id},
    }  # fmt: skip


def _many(count: int) -> str:
    return f"{count} message{'s'[: count != 1]}"
