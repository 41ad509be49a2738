"""Figures, times and texts as people read them; the filters of the templates.

Pure.  Times are unix times in seconds, sizes bytes.  What is shortened has the exact value in its
``title``.  Texts that come from scripts and messages may hold anything: `shown` makes what cannot be
seen visible, so that a control character neither vanishes nor turns the line around.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from time import time
from typing import Any

from markupsafe import Markup, escape

_KILO = 1000
_COMPACT_FROM = 100_000
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_NOW = 1.5
_UNITS = ("kB", "MB", "GB", "TB", "PB")
#: C0 and C1 controls but tab and newline, what turns text around, and halves of surrogate pairs.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_C0_END, _DELETE, _BYTE_LOW, _BYTE_HIGH = 0x20, 0x7F, 0xDC80, 0xDCFF

#: What each state means, for whoever looks at it the first time.
STATES = {
    "prep": "in preparation: takes attachments, waits for its commit",
    "que": "waits for its turn",
    "run": "its script runs",
    "done": "its script succeeded",
    "relayed": "went to another queue or machine",
    "err": "its script failed; look, then retry or delete it",
}


def number(value: float) -> str:
    """``1,234,567``."""
    return f"{value:,}"


def compact(value: int) -> str:
    """A count in at most six characters: ``99,999``, ``123k``, ``1.23M``."""
    if value < _COMPACT_FROM:
        return f"{value:,}"
    for unit in ("k", "M", "G", "T"):
        value_in = value / _KILO ** ("kMGT".index(unit) + 1)
        if value_in < _KILO:
            digits = 0 if value_in >= 100 else 1 if value_in >= 10 else 2  # noqa: PLR2004 - 3 digits
            return f"{value_in:.{digits}f}{unit}"
    return f"{value:.2g}"


def size(value: int) -> str:
    """``812 B``, ``1.2 GB``."""
    if value < _KILO:
        return f"{value} B"
    amount = float(value)
    for unit in _UNITS:
        amount /= _KILO
        if amount < _KILO - 0.05 or unit == _UNITS[-1]:
            break
    return f"{amount:.1f} {unit}"


def duration(seconds: float) -> str:
    """``320 ms``, ``4.2 s``, ``3 min 12 s``, ``2 h 5 min``, ``3 d 4 h``."""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:  # noqa: PLR2004 - what is shown as less than 1000 ms
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:  # noqa: PLR2004 - what is shown with one decimal
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, one, part, one_part in (
        (_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min"), (_MINUTE, "min", 1, "s"),
    ):  # fmt: skip
        if whole >= unit:
            many, rest = divmod(whole, unit)
            few = rest // part
            return f"{many} {one} {few} {one_part}" if few else f"{many} {one}"
    return f"{whole} s"


def _coarse(seconds: float) -> str:
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def relative(when: float, now: float | None = None) -> str:
    """``12 s ago``, ``in 5 min``, ``now``."""
    away = when - (time() if now is None else now)
    if abs(away) < _NOW:
        return "now"
    return f"in {_coarse(away)}" if away > 0 else f"{_coarse(-away)} ago"


def absolute(when: float) -> str:
    """The time in the machine's own zone, to the second; a time out of all calendars as it is."""
    try:
        return datetime.fromtimestamp(when).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except (OverflowError, OSError, ValueError):
        return f"{when:.0f}"


def iso(when: float) -> str:
    """The time for machines."""
    try:
        return datetime.fromtimestamp(when).astimezone().isoformat(timespec="milliseconds")
    except (OverflowError, OSError, ValueError):
        return ""


def when(moment: float | None, style: str = "relative") -> Markup:
    """A time: relative (``style`` "elapsed": a duration that goes on), with the absolute on hover."""
    if moment is None:
        return Markup("")
    text = duration(time() - moment) if style == "elapsed" else relative(moment)
    return Markup('<time datetime="{}" title="{}" data-time="{}">{}</time>').format(
        iso(moment), absolute(moment), style, text
    )


def shown(text: object) -> str:
    """Text with what cannot be seen made visible; bytes that are no text in hexadecimal."""
    return _UNSEEN.sub(lambda found: _visible(ord(found[0])), str(text))


def _visible(code: int) -> str:
    if code < _C0_END:
        return chr(0x2400 + code)
    if code == _DELETE:
        return "\u2421"
    if _BYTE_LOW <= code <= _BYTE_HIGH:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}"


def queue_words(queue: Mapping[str, Any]) -> str:
    """A queue's state, with its reason, in words."""
    status, problem = str(queue["status"]), str(queue.get("problem") or "")
    if not queue["alive"]:
        why = problem or "nobody answers at its socket"
        return f"its process does not run: {why}"
    if status == "DOWN":
        return f"refuses messages and runs nothing: {problem or 'an operator took it down'}"
    if status == "PAUSE":
        return f"takes messages and starts none: {problem or 'an operator paused it'}"
    if status == "SCRIPTERROR":
        return f"its script cannot run: {problem}; it goes on by itself when that is repaired"
    if status != "UP":
        return problem or "it is not able to work"
    return "takes and runs messages"


def exact(text: object) -> Markup:
    """Text for an attribute, from which a script reads it as it is; a browser would drop a CR."""
    return Markup(str(escape(str(text))).replace("\r", "&#13;"))  # noqa: S704 - it is escaped


def plural(count: int, one: str, many: str = "") -> str:
    """``1 message``, ``12 messages``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def bidi(text: object) -> Markup:
    """`shown` text, kept from turning around what stands beside it."""
    return Markup("<bdi>{}</bdi>").format(escape(shown(text)))


def brief(text: object, longest: int) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(shown(str(text)[: 4 * longest]).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "\u2026"
