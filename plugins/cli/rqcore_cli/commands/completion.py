"""``rq completion``: the script that lets a shell complete commands, queues and messages."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from rqcore_cli.group import command
from rqcore_cli.main import COMPLETE
from rqcore_cli.output import echo


@command(
    "completion",
    short_help="Print the completion script for a shell.",
    examples="""
eval "$(rq completion bash)"                                   in ~/.bashrc
rq completion fish > ~/.config/fish/completions/rq.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    It completes commands and options, and the queues and messages that there are at that moment.
    """
    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root()
    echo(found(root.command, {}, "rq", COMPLETE).source())
