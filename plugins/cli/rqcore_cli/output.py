r"""What ``rq`` prints: tables for people, JSON for programs.  Data goes to stdout, talk to stderr.

A table is drawn with rich where stdout is a terminal, else as aligned text without colours, so that
`cut` and `awk` find their way.  What comes from messages may hold anything: in what is for people,
control characters and bytes that are not UTF-8 are shown as ``\xNN``, because a message must not
tell a terminal what to do.  JSON carries them unharmed.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Rich's names for the colours of states, of messages and of queues.
_STYLES = {
    "prep": "cyan", "que": "cyan", "run": "bold yellow", "done": "green", "relayed": "green",
    "err": "bold red", "UP": "green", "PAUSE": "yellow", "DOWN": "bold red",
    "SCRIPTERROR": "bold red", "failed": "bold red", "running": "green", "ok": "green",
    "quarantined": "bold red", "waiting": "yellow", "starting": "yellow",
}  # fmt: skip
_STYLED = ("STATE", "STATUS")


def echo(text: str = "") -> None:
    """A line of data."""
    sys.stdout.write(f"{text}\n")


def echo_json(value: Any) -> None:
    """One JSON value, to be read by people too."""
    echo(json.dumps(value, indent=2))


def echo_json_line(value: Any) -> None:
    """One JSON value in one line, at once."""
    echo(json.dumps(value))
    sys.stdout.flush()


def echo_all(items: Iterable[Mapping[str, Any]], *, lines: bool) -> None:
    """A listing for programs: one array, or one object per line as they come."""
    if lines:
        for item in items:
            echo_json_line(item)
    else:
        echo_json(list(items))


def clean(value: object) -> str:
    """Text in one line that does nothing to a terminal."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8, as Python carries it in text
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Iterable[str] = (),
    title: str = "",
) -> None:
    """Print a table.  ``right`` names the columns of numbers; a last column may be long."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if title:
        echo(title)
    if sys.stdout.isatty():
        _rich_table(columns, cells, set(right))
    else:
        _plain_table(columns, cells, set(right))


def _plain_table(columns: Sequence[str], rows: list[list[str]], right: set[str]) -> None:
    widths = [max(map(_width, column)) for column in zip(columns, *rows, strict=True)]
    for row in [list(columns), *rows]:
        cells = [
            _padded(cell, width, right=name in right)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ]
        echo("  ".join(cells).rstrip())


def _padded(cell: str, width: int, *, right: bool) -> str:
    blank = " " * (width - _width(cell))
    return blank + cell if right else cell + blank


def _width(text: str) -> int:
    """How many places a terminal gives to this text."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _rich_table(columns: Sequence[str], rows: list[list[str]], right: set[str]) -> None:
    # Rich costs as much as everything else together; only a terminal needs it.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(columns):
        last = number == len(columns) - 1
        drawn.add_column(
            name, justify="right" if name in right else "left",
            no_wrap=not last, overflow="fold" if last else "ellipsis",
        )  # fmt: skip
    for row in rows:
        drawn.add_row(*(
            Text(cell, style=_STYLES.get(cell, "") if name in _STYLED else "")
            for name, cell in zip(columns, row, strict=True)
        ))  # fmt: skip
    Console(file=sys.stdout, highlight=False).print(drawn)


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values below each other, those without a value left out."""
    shown = [(name, clean(value)) for name, value in pairs if value not in ("", None)]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        echo(f"{name:<{width}}  {value}")
