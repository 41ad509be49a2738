"""Commands as ``rq`` has them: help that begins with examples, loaded when they are needed.

The core's commands are named in `CORE`, each with the module that is imported when it is called, so
that one command does not pay for the others.  Plugins are loaded only for a name that is not the
core's, for the list of all commands, and for a suggestion after a mistake.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

import click

from rqcore import words
from rqcore_cli.app import App
from rqcore_cli.oldverbs import VERBS, is_old, run_verb


def core_command(path: str) -> click.Command:
    """The command that ``module:name`` stands for."""
    module, _, name = path.partition(":")
    found: click.Command = getattr(import_module(f"rqcore_cli.commands.{module}"), name)
    return found


def _set_directory(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(App).directory = value


def _set_verbosity(step: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def note(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
        if value:
            ctx.ensure_object(App).verbosity = step

    return note


def global_options(*, hidden: bool) -> list[click.Parameter]:
    """Options of ``rq`` itself, understood after the command too, but not shown again there."""
    return [
        click.Option(
            ["--dir"], metavar="DIR", callback=_set_directory, expose_value=False, hidden=hidden,
            help="The instance's directory; else RQ_DIR, else the nearest directory above.",
            type=click.Path(file_okay=False),
        ),
        click.Option(
            ["-q", "--quiet"], is_flag=True, callback=_set_verbosity(-1), expose_value=False,
            hidden=hidden, help="Say nothing but errors and what was asked for.",
        ),
        click.Option(
            ["-v", "--verbose"], is_flag=True, callback=_set_verbosity(1), expose_value=False,
            hidden=hidden, help="Say more.",
        ),
    ]  # fmt: skip


def _set_no_plugins(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value:
        ctx.ensure_object(App).external_plugins = False


class Command(click.Command):
    """A command whose help shows examples, one per line, before its options."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {}).setdefault("help_option_names", ["-h", "--help"])
        super().__init__(*args, **kwargs)
        self.examples = examples
        if not isinstance(self, click.Group):
            self.params += global_options(hidden=True)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What the command does, then the examples."""
        super().format_help_text(ctx, formatter)
        write_examples(formatter, self.examples)


def write_examples(formatter: click.HelpFormatter, examples: str) -> None:
    """A section of examples, as they are written."""
    if examples:
        with formatter.section("Examples"):
            for line in examples.strip().splitlines():
                formatter.write(f"  {line}\n")


def command(*args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], Command]:
    """``@command("name", examples=...)``: as ``@click.command``, made a `Command`."""
    return click.command(*args, cls=Command, **kwargs)


def read_span(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A span of time as an option's value, in seconds; a bare number is seconds, too."""
    try:
        if value is None:
            return None
        return float(value) if value.isdecimal() else words.parse_span(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class Group(Command, click.Group):
    """A group of commands that suggests the right name for a wrong one.

    What is made with its ``command`` and ``group`` is of this kind too: so plugins, which import
    nothing from here, have examples and the global options in their commands.
    """

    command_class: type[click.Command] | None = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names."""
        name = args[0]
        found = self.get_command(ctx, name)
        if found is None:
            self._unknown(ctx, name)
        return name, found, args[1:]

    def _unknown(self, ctx: click.Context, name: str) -> NoReturn:
        if name.startswith("-"):
            raise click.NoSuchOption(name, ctx=ctx)
        near = difflib.get_close_matches(name, self.all_names(ctx), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"see: {ctx.command_path} --help"
        raise click.UsageError(f"no such command: {name}; {hint}", ctx)

    def all_names(self, ctx: click.Context) -> list[str]:
        """The names that a mistaken one is compared with."""
        return self.list_commands(ctx)


Group.group_class = Group


#: The core's commands by section: name, ``module:attribute``, one line of help.
CORE: dict[str, dict[str, tuple[str, str]]] = {
    "The instance": {
        "init": ("instance:init", "Make an instance directory."),
        "up": ("instance:up", "Run RQ here, in the foreground."),
        "start": ("instance:start", "Start RQ in the background."),
        "stop": ("instance:stop", "Stop RQ; running messages get time to finish."),
        "restart": ("instance:restart", "Stop RQ and start it again."),
        "reload": ("instance:reload", "Read all configuration anew."),
        "install-service": ("service:install_service", "Have systemd run this instance."),
        "status": ("status:status", "Show the queues and how they are."),
        "queue": ("queue:queue", "Make, list, stop and change queues."),
        "fsck": ("fsck:fsck", "Check what lies in the spool, and move aside what is wrong."),
    },
    "Messages": {
        "send": ("send:send", "Send a message to a queue."),
        "ls": ("listing:ls", "List messages."),
        "show": ("look:show", "Show a message."),
        "log": ("look:log", "Print a message's log, or follow it."),
        "wait": ("look:wait", "Wait until messages have ended."),
        "run": ("change:run", "Send queued messages to the front of their queue."),
        "clone": ("change:clone", "Send finished messages again, as new ones."),
        "retry": ("change:retry", "Send failed messages back to their queue."),
        "kill": ("change:kill", "End the scripts of running messages."),
        "rm": ("change:rm", "Delete messages that do not run."),
        "attach": ("attach:attach", "Attach files to a prepared message."),
        "export": ("portable:export", "Write messages, with all they have, into one file."),
        "import": ("portable:import_", "Take in messages that rq export has written."),
    },
    "Watching": {
        "top": ("top:top", "Watch the queues live, over the whole screen."),
        "shape": ("shape:shape", "Show what waits, by age and by queue or destination."),
        "check": ("check:check_command", "Tell in one line how RQ is, as Nagios wants it."),
        "doctor": ("doctor:doctor", "Look at everything, and say what to do about it."),
    },
    "This command": {
        "completion": ("completion:completion", "Print the completion script for a shell."),
    },
}
_PATHS = {name: path for section in CORE.values() for name, (path, _) in section.items()}

_EXAMPLES = """
rq init ~/rq && cd ~/rq                      make an instance, work in it
rq start                                     run it in the background
rq queue create hello --script ./hello.sh    a queue, and the program it runs
rq send hello --param1 world --follow        send a message, watch its log
rq send hello --attach big.iso --wait        with a file; the exit status tells how it ended
rq status                                    all queues at a glance
rq ls hello --state err                      what failed
rq log -f hello/20260301.0800.00.000.1       what a message is printing
rq retry hello --all-err                     everything that failed, once more
"""


class Main(Group):
    """``rq`` itself: the core's commands, those of plugins, and RQ's old verbs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        no_plugins = click.Option(
            ["--no-plugins"], is_flag=True, callback=_set_no_plugins, expose_value=False,
            help="Use no plugin, here and in what is started.",
        )  # fmt: skip
        self.params += [no_plugins, *global_options(hidden=False)]
        self._plugins_asked = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, the core's first."""
        self._ask_plugins(ctx)
        return [*_PATHS, *sorted(self.commands)]

    def all_names(self, ctx: click.Context) -> list[str]:
        """The old verbs too."""
        return [*self.list_commands(ctx), *VERBS]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """An old verb is known by its arguments, too."""
        if is_old(args):
            return args[0], _old_verb(args[0]), args[1:]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name in _PATHS:
            return core_command(_PATHS[cmd_name])
        self._ask_plugins(ctx)
        return self.commands.get(cmd_name)

    def _ask_plugins(self, ctx: click.Context) -> None:
        if not self._plugins_asked:
            self._plugins_asked = True
            hooks = ctx.ensure_object(App).hooks
            hooks.register_commands(self, reserved={*_PATHS, *VERBS})

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples first: who asks for help wants to get something done."""
        write_examples(formatter, _EXAMPLES)
        click.Command.format_help_text(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section."""
        for title, section in CORE.items():
            rows = [(name, help_line) for name, (_, help_line) in section.items()]
            if title == "This command":
                rows += self._plugin_rows(ctx)
            with formatter.section(title):
                formatter.write_dl(rows)
        with formatter.section("RQ's old verbs, as they always were"):
            formatter.write_text(" ".join(VERBS))

    def _plugin_rows(self, ctx: click.Context) -> list[tuple[str, str]]:
        self._ask_plugins(ctx)
        return [
            (name, found.get_short_help_str(60)) for name, found in sorted(self.commands.items())
        ]


def _old_verb(name: str) -> click.Command:
    """An old verb that comes after an option of ``rq``; its own arguments are left to it."""

    @click.command(name, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def verb(ctx: click.Context, arguments: tuple[str, ...]) -> None:
        ctx.exit(run_verb(ctx.ensure_object(App), name, list(arguments)))

    return verb
