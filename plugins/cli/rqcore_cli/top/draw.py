"""The picture of ``rq top``: lines of styled pieces, for any width and height.

Pure.  What does not fit is left out, the least needed columns first; nothing is wrapped.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rqcore.words import id_time, span
from rqcore_cli.output import clean
from rqcore_cli.top.model import Ended, Model, Queue, Running

#: A piece of a line: its text and the name of its style.
Piece = tuple[str, str]
Line = list[Piece]

SORTS = ("name", "que", "run", "err", "rate")
_BARS = " ▁▂▃▄▅▆▇█"
_HELP = "q quit  p pause  / filter  up/down choose  left/right sort"
_SHORT_HELP = "q quit p pause / filter"
_GAP = 2
_NAME = 24
_SPARK = 30
_WIDE, _ROOMY = 60, 100
_HEAD, _FOOT = 3, 1
_STATUS_STYLES = {
    "UP": "good", "PAUSE": "warn", "DOWN": "bad", "SCRIPTERROR": "bad", "failed": "bad", "?": "bad",
}  # fmt: skip


@dataclass(slots=True)
class View:
    """How the user wants to see it."""

    paused: bool = False
    sort: str = "name"
    filter: str = ""
    editing: bool = False
    #: The chosen queue's name, and the first one that is shown.
    chosen: str = ""
    top: int = 0


def chosen_queues(model: Model, view: View, now: float) -> list[Queue]:
    """The queues that are shown, in order."""
    wanted = view.filter.lower()
    found = [queue for name, queue in model.queues.items() if wanted in name.lower()]
    keys: dict[str, Callable[[Queue], float]] = {
        "que": lambda queue: -queue.count("que"),
        "run": lambda queue: -queue.count("run"),
        "err": lambda queue: -queue.count("err"),
        "rate": lambda queue: -sum(queue.per_minute(now)),
    }
    found.sort(key=lambda queue: queue.name)
    if view.sort in keys:
        found.sort(key=keys[view.sort])
    return found


def frame(model: Model, view: View, width: int, height: int, now: float) -> list[Line]:
    """Exactly ``height`` lines, none wider than ``width``."""
    queues = chosen_queues(model, view, now)
    names = {queue.name for queue in queues}
    running = [(queue.name, one) for queue in queues for one in queue.running.values()]
    running.sort(key=lambda pair: pair[1].since)
    ended = [end for end in reversed(model.ended) if end.queue in names]
    room = max(0, height - _HEAD - _FOOT - 1)
    places = _places(room, len(queues), len(running), len(ended))
    lines = [*_head(model, queues, width, now), _third_line(model, view)]
    lines += _queue_lines(queues, view, width, places[0], now)
    lines += _section("RUNNING", [_running_line(*one, width, now) for one in running], places[1])
    lines += _section("ENDED", [_ended_line(end, width) for end in ended], places[2])
    lines = lines[: height - _FOOT]
    lines += [[] for _ in range(height - _FOOT - len(lines))]
    lines.append(_foot(view, width))
    return [crop(line, width) for line in lines[:height]]


def _places(room: int, queues: int, running: int, ended: int) -> tuple[int, int, int]:
    """So many rows for the queues, for what runs and for what ended, with the heads of the latter."""
    # At least half of the screen is for the queues, if they need it.
    wanted = [queues, running + 1 if running else 0, ended + 1 if ended else 0]
    for_queues = min(wanted[0], max(room // 2, room - wanted[1] - wanted[2]))
    rest = room - for_queues
    for_running = min(wanted[1], max(rest // 2, rest - wanted[2]))
    return for_queues, for_running, min(wanted[2], rest - for_running)


def _head(model: Model, queues: Sequence[Queue], width: int, now: float) -> list[Line]:
    about = model.about
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    if not model.alive:
        first: Line = [("RQ does not run", "bad"), ("; waiting for it: rq start", "")]
    else:
        first = [(f"RQ {about['version']}", "bold"), (f"  {clean(about['directory'])}", "")]
        if width >= _WIDE:
            first.append((f"  {about['env']}", "dim"))
    ends = [queue.per_minute(now) for queue in queues]
    good, bad = sum(good for good, _ in ends), sum(bad for _, bad in ends)
    second: Line = [
        (f"{len(queues)} queues  ", ""),
        (f"{sum(queue.count('que') for queue in queues)} waiting  ", ""),
        (f"{sum(len(queue.running) for queue in queues)} running  ", ""),
        (f"{good} done/min", "good" if good else ""),
        (f"  {bad} failed/min" if bad else "", "bad"),
    ]
    second += [
        (f"  service {child['name']} is {child['state']}", "bad")
        for child in model.services
        if child["state"] != "running"
    ]
    return [_with_right(first, clock, width), second]


def _with_right(line: Line, right: str, width: int) -> Line:
    room = width - len(right) - 1
    cropped = crop(line, room)
    used = sum(_width(text) for text, _ in cropped)
    return [*cropped, (" " * (room - used + 1), ""), (right, "dim")]


def _third_line(model: Model, view: View) -> Line:
    """The filter, while there is one; else what is wrong with the queue that is chosen."""
    if view.editing:
        return [("filter: ", "bold"), (clean(view.filter), ""), (" ", "cursor")]
    chosen = model.queues.get(view.chosen)
    line: Line = [(f"filter: {clean(view.filter)}  ", "warn")] if view.filter else []
    if chosen is not None and chosen.problem:
        line.append((f"{clean(chosen.name)}: {clean(chosen.problem)}", "warn"))
    return line


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    width: int
    cell: Callable[[Queue, float], str]
    right: bool = True


def _counted(state: str) -> Callable[[Queue, float], str]:
    return lambda queue, _: _number(queue.counts[state]) if state in queue.counts else "-"


def _busy(queue: Queue, now: float) -> str:
    del now
    return f"{len(queue.running)}/{queue.workers}" if queue.counts else "-"


#: In the order in which they are shown, with the order in which they are left out, the last ones first.
_COLUMNS = (
    (0, _Column("QUE", 6, _counted("que"))),
    (1, _Column("RUN", 6, _busy)),
    (2, _Column("ERR", 6, _counted("err"))),
    (3, _Column("DONE", 6, _counted("done"))),
    (5, _Column("RELAYED", 7, _counted("relayed"))),
    (6, _Column("PREP", 6, _counted("prep"))),
    (4, _Column("/MIN", 5, lambda queue, now: _number(sum(queue.per_minute(now))))),
)


def _queue_lines(
    queues: Sequence[Queue], view: View, width: int, rows: int, now: float
) -> list[Line]:
    longest = max((_width(queue.name) for queue in queues), default=5)
    # A third of a narrow screen is enough for names: their ends are cut.
    name_width = max(5, min(_NAME, longest, max(10, width // 3)))
    status_width = 11 if width >= _WIDE else 5
    left = width - name_width - _GAP - status_width
    columns = []
    for _, column in sorted(_COLUMNS, key=lambda pair: pair[0]):
        if left - _GAP - column.width >= 0:
            left -= _GAP + column.width
            columns.append(column)
    columns = [column for _, column in _COLUMNS if column in columns]
    titles = [
        ("QUEUE".ljust(name_width), "head"),
        ("  ", "head"),
        ("STATUS".ljust(status_width)[:status_width], "head"),
    ]
    titles += [("  " + column.title.rjust(column.width), "head") for column in columns]
    titles.append((" " * left, "head"))
    rows_shown = _window(queues, view, rows)
    return [titles] + [
        _queue_line(queue, view, columns, (name_width, status_width, left), now)
        for queue in rows_shown
    ]


def _window(queues: Sequence[Queue], view: View, rows: int) -> Sequence[Queue]:
    """The rows that fit, moved so that the chosen one is among them."""
    place = next((n for n, queue in enumerate(queues) if queue.name == view.chosen), 0)
    view.top = max(0, min(view.top, place, len(queues) - rows))
    if rows and place >= view.top + rows:
        view.top = place - rows + 1
    return queues[view.top : view.top + rows]


def _queue_line(
    queue: Queue, view: View, columns: Sequence[_Column], widths: tuple[int, int, int], now: float
) -> Line:
    name_width, status_width, left = widths
    style = "chosen" if queue.name == view.chosen else ""
    line: Line = [
        (_padded(clean(queue.name), name_width), style or "bold"),
        ("  ", style),
        (
            _padded(clean(queue.status), status_width),
            style or _STATUS_STYLES.get(queue.status, "warn"),
        ),
    ]
    for column in columns:
        text = column.cell(queue, now)
        bad = column.title == "ERR" and queue.count("err")
        line.append(("  " + text.rjust(column.width), style or ("bad" if bad else "")))
    if queue.problem and left > _GAP:
        line.append((_padded(f"  {clean(queue.problem)}", left), style or "warn"))
    elif left > _GAP:
        bars = min(_SPARK, left - _GAP)
        line.append((_padded("  " + _spark(queue.recent(now, bars)), left), style or "good"))
    return line


def _spark(values: Sequence[int]) -> str:
    most = max(values, default=0)
    if not most:
        return ""
    return "".join(_BARS[-(-value * (len(_BARS) - 1) // most)] for value in values)


def _section(title: str, lines: list[Line], rows: int) -> list[Line]:
    if rows < 2:  # noqa: PLR2004 - a title alone says nothing
        return []
    more = len(lines) - (rows - 1)
    head = f"{title}  ({more} more)" if more > 0 else title
    return [[(head, "bold")], *lines[: rows - 1]]


def _running_line(queue: str, one: Running, width: int, now: float) -> Line:
    name = f"{queue}/{one.msg_id}" if width >= _WIDE else queue
    return [
        (f"{span(now - one.since):>4}  ", "good"), (f"{clean(name)}  ", ""), (clean(one.status), "dim"),
    ]  # fmt: skip


def _ended_line(end: Ended, width: int) -> Line:
    clock = time.strftime("%H:%M:%S", time.localtime(end.at))
    name = f"{end.queue}/{end.msg_id}" if width >= _WIDE else end.queue
    took = f" {span(end.at - id_time(end.msg_id)):>4}" if width >= _ROOMY else ""
    return [
        (f"{clock}{took}  ", "dim"), (f"{end.state:<7} ", "bad" if end.state == "err" else "good"),
        (f"{clean(name)}  ", ""), (clean(end.status), "dim"),
    ]  # fmt: skip


def _foot(view: View, width: int) -> Line:
    if view.editing:
        return [("Enter keep  Esc clear", "dim")]
    text = _HELP if width >= len(_HELP) + 18 else _SHORT_HELP
    state: Line = [("PAUSED  ", "bad")] if view.paused else []
    return [*state, (text, "dim"), (f"  by {view.sort}", "dim")]


def _number(value: int) -> str:
    """A count in at most six places."""
    if value < 100_000:  # noqa: PLR2004
        return str(value)
    return f"{value // 1000}k" if value < 10_000_000 else f"{value // 1_000_000}M"  # noqa: PLR2004


def _padded(text: str, width: int) -> str:
    return _cut(text, width) + " " * max(0, width - _width(text))


def crop(line: Line, width: int) -> Line:
    """The line as far as it fits."""
    found: Line = []
    for text, style in line:
        shown = _cut(text, width)
        if shown:
            found.append((shown, style))
        width -= _width(shown)
        if shown != text:
            break
    return found


def _cut(text: str, width: int) -> str:
    if text.isascii():
        return text[: max(0, width)]
    used = 0
    for place, char in enumerate(text):
        used += _width(char)
        if used > width:
            return text[:place]
    return text


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
