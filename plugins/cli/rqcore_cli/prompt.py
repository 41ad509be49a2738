"""Asking before something is done that cannot be undone."""

from __future__ import annotations

import sys

import click

from rqcore_cli.exits import CallError


def confirm(question: str) -> None:
    """Go on only if the user says yes.

    Raises `click.Abort` when the answer is no, `CallError` where nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise CallError(f"{question} Nobody can be asked here; say it with --yes")
    click.confirm(question, abort=True, err=True)
