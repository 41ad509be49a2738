"""Names that the shell can complete: queues and messages of the instance.

Completion never fails and says nothing: what cannot be found out is not offered.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from rqcore.errors import RqError
from rqcore_cli.app import App

#: So many of the newest messages of each state are offered.
_OFFERED = 20
_STATES = ("run", "que", "prep", "err", "done", "relayed")


class _Queue(click.ParamType[str]):
    name = "queue"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        del param, ctx
        return "QUEUE"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The queues, by their directories: RQ need not run."""
        del param
        return [CompletionItem(name) for name in _queues(ctx) if name.startswith(incomplete)]


class _Message(click.ParamType[str]):
    name = "message"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        del param, ctx
        return "MSG"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The newest messages of a queue, once it is clear which one."""
        del param
        queues = [name for name in _queues(ctx) if f"{name}/".startswith(incomplete)]
        if "/" in incomplete:
            queues = [incomplete.partition("/")[0]]
        if len(queues) != 1:
            return [CompletionItem(f"{name}/") for name in queues]
        names = (f"{queues[0]}/{msg_id}" for msg_id in _newest(ctx, queues[0]))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _app(ctx: click.Context) -> App:
    app = ctx.find_object(App)
    if app is None:
        app = ctx.obj = App()
    return app


def _queues(ctx: click.Context) -> list[str]:
    try:
        return _app(ctx).instance.queue_names()
    except RqError:
        return []


def _newest(ctx: click.Context, queue: str) -> list[str]:
    found = []
    try:
        for state in _STATES:
            args = {"state": state, "limit": _OFFERED}
            found += [item["msg_id"] for item in _app(ctx).queue(queue).call("messages", args)]
    except RqError:
        return found
    return found


QUEUE = _Queue()
MESSAGE = _Message()
