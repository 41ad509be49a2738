"""``rq web``: what operators do for the site at the command line."""

from __future__ import annotations

import click


@click.group("web", short_help="Passwords and tokens of the web interface.")
def web() -> None:
    """Passwords and tokens of the web interface."""
