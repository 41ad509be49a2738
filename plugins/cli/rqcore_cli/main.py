"""The way into ``rq``: which parser takes the arguments, and what becomes of an error.

RQ's old verbs go straight to their own parser, without click.  Errors that are expected
(`RqError`) are one line on stderr and an exit status (`rqcore_cli.exits`); anything else is a
defect and keeps its traceback.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from rqcore.errors import RqError
from rqcore_cli.app import App
from rqcore_cli.exits import Exit, exit_status
from rqcore_cli.oldverbs import is_old, run_verb

if TYPE_CHECKING:
    from rqcore_cli.group import Main

#: The environment variable by which a shell asks for completions.
COMPLETE = "_RQ_COMPLETE"


def main(argv: list[str] | None = None) -> int:
    """Run ``rq`` with these arguments, or the process's own; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    _prepare_streams()
    app = App()
    try:
        status = _run(app, arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough.  Say nothing more, not even at the exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        app.warn("interrupted")
        return Exit.INTERRUPTED
    except RqError as error:
        app.warn(str(error))
        return exit_status(error)
    finally:
        app.close()
    return status


def _run(app: App, arguments: list[str]) -> int:
    if is_old(arguments):
        return run_verb(app, arguments[0], arguments[1:])
    return _run_click(app, arguments)


def _run_click(app: App, arguments: list[str]) -> int:
    import click  # noqa: PLC0415 - the old verbs do without

    logging.basicConfig(format="rq: %(message)s", level=logging.WARNING)
    group = make_group()
    instruction = os.environ.get(COMPLETE)
    if instruction:
        from click.shell_completion import shell_complete  # noqa: PLC0415

        return shell_complete(group, {"obj": app}, "rq", COMPLETE, instruction)
    try:
        # Not `group.main`: it would take a broken pipe for a failure.
        with group.make_context("rq", list(arguments), obj=app) as context:
            group.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.UsageError as error:
        app.warn(error.format_message())
        if error.ctx is not None:
            app.say(f"usage: {' '.join(error.ctx.command.get_usage(error.ctx).split()[1:])}")
        return Exit.USAGE
    except click.Abort:
        app.warn("not done")
        return Exit.FAILED
    except click.ClickException as error:
        app.warn(error.format_message())
        return Exit.FAILED
    return Exit.OK


def make_group() -> Main:
    """``rq`` as a click command, for `_run_click`, the documentation and tests."""
    import click  # noqa: PLC0415

    from rqcore_cli import __version__  # noqa: PLC0415
    from rqcore_cli.group import Main  # noqa: PLC0415

    @click.command(
        "rq",
        cls=Main,
        help="RQ runs messages: one program per message, queue by queue, and loses none.\n\n"
        "A message is named QUEUE/ID, as `rq ls` shows it, or by its URL. "
        "More about a command: rq COMMAND --help",
    )
    @click.version_option(__version__, message="%(prog)s %(version)s")
    def rq() -> None:
        pass

    return rq


def _prepare_streams() -> None:
    """Text that no encoding can hold must not end a command half-way through its output."""
    codecs.register_error("rq", _as_bytes_or_escaped)
    for stream in (sys.stdout, sys.stderr):
        # None where the descriptor is closed; a test's own stream cannot be set.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="rq")


def _as_bytes_or_escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)
