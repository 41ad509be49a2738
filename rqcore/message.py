r"""Messages, their ids, and what a valid message is.

Pure: no file, no clock, no process.  The store, the queue process, the client and the plugins all
speak of messages in these terms.

A message is a frozen `Message`; a change makes a new one with `dataclasses.replace`.  What comes
from outside goes through `parse_message`, which refuses with a `RefusedError` that names the field,
the reason and the remedy; what lies in a spool goes through `load_message`, which forgives what an
older release wrote.

Text may hold any byte: bytes that are not UTF-8 travel as lone surrogates (Python's
``surrogateescape``), which JSON writes as ``\udcXX`` and an environment variable gives back as the
byte it was.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from time import gmtime, strftime
from typing import Any

from rqcore.errors import RefusedError
from rqcore.trace import trace_context

DEFAULT_MAX_COUNT = 15
PARAM_NAMES = ("param1", "param2", "param3", "param4")
#: The whole of a message as JSON may be this long; a longer one belongs into an attachment.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024

# N is up to 25 digits: five of the sequence and an inode number of 64 bits.
_ID = re.compile(r"\d{8}\.\d{4}\.\d{2}\.\d{3}(?:\.\d{1,25})?", re.ASCII)
_FULL_ID = re.compile(r"(?P<base>https?://[^/]+(?:/.*?)?/|/)?q/(?P<queue>[^/]+)/(?P<id>[^/]+)")
_DEST = re.compile(r"(?P<base>https?://[^/]+(?:/.*?)?/|/)?q/(?P<queue>[^/]+)/?")
#: Where the year 9999 begins, in milliseconds: an id has no room for a later one.
_LAST_YEAR = 253_370_764_800_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME_FORBIDDEN = "/. ,;:@\"(){}\\+='^`#~?[]%|$&<>"
_ATTACH_FORBIDDEN = "/~?[]%|$&<>"


@dataclass(frozen=True, slots=True)
class Message:
    """What a message carries, in the contract's field names.

    ``due`` is unix time in seconds; ``count`` how often it was relayed or processed;
    ``orig_msg_id`` the full id of the first message of its chain; ``dups`` the full ids of the
    messages that were coalesced into it; ``traceparent`` and ``tracestate`` the trace that it belongs
    to (`rqcore.trace`).
    """

    msg_id: str = ""
    dest: str = ""
    src: str = ""
    param1: str = ""
    param2: str = ""
    param3: str = ""
    param4: str = ""
    due: float = 0
    count: int = 0
    max_count: int = DEFAULT_MAX_COUNT
    orig_msg_id: str = ""
    post_run_webhook: tuple[str, ...] = ()
    force_remote: bool = False
    cloned_from: str = ""
    dups: tuple[str, ...] = ()
    traceparent: str = ""
    tracestate: str = ""

    @property
    def params(self) -> tuple[str, str, str, str]:
        """The four parameters, in order; a missing one is empty."""
        return (self.param1, self.param2, self.param3, self.param4)

    def to_fields(self) -> dict[str, Any]:
        """The fields as JSON knows them; empty optional ones are left out."""
        fields: dict[str, Any] = {
            "msg_id": self.msg_id,
            "dest": self.dest,
            "src": self.src,
            "param1": self.param1,
            "param2": self.param2,
            "param3": self.param3,
            "param4": self.param4,
            "due": self.due,
            "count": self.count,
            "max_count": self.max_count,
            "orig_msg_id": self.orig_msg_id,
        }
        if self.post_run_webhook:
            fields["post_run_webhook"] = list(self.post_run_webhook)
        if self.force_remote:
            fields["force_remote"] = True
        if self.cloned_from:
            fields["cloned_from"] = self.cloned_from
        if self.dups:
            fields["dups"] = list(self.dups)
        if self.traceparent:
            fields["traceparent"] = self.traceparent
        if self.tracestate:
            fields["tracestate"] = self.tracestate
        return fields

    def to_json(self) -> bytes:
        """The content of the message's ``msg`` file."""
        return json.dumps(self.to_fields()).encode("ascii")


def parse_message(fields: Mapping[str, Any], *, now: float) -> Message:
    """A draft (no id yet) from what a client sent; unknown fields are dropped.

    Raises `RefusedError` with the field, the reason and the remedy.
    """
    message = _parse(fields, now)
    size = len(message.to_json())
    if size > MAX_MESSAGE_BYTES:
        raise RefusedError(
            f"message too large: {size} bytes as JSON, at most {MAX_MESSAGE_BYTES}; "
            "put the bulk into an attachment"
        )
    return message


def load_message(data: bytes, msg_id: str) -> Message:
    """The message in a ``msg`` file.  Raises `ValueError` with the reason when it is none.

    Its size is not limited: what was accepted may have grown by a count or a full id since.
    """
    try:
        fields = json.loads(data.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("not JSON: nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError(f"not a JSON object but {_kind(fields)}")  # noqa: TRY004 - bad content
    try:
        return replace(
            _parse(fields, now=0),
            msg_id=msg_id,
            cloned_from=_text(fields, "cloned_from"),
            dups=tuple(_strings(fields.get("dups"))),
        )
    except RefusedError as error:
        raise ValueError(str(error)) from error


def _parse(fields: Mapping[str, Any], now: float) -> Message:
    dest = fields.get("dest")
    if dest is None or dest == "":
        raise RefusedError('input missing required "dest" parameter')
    if not isinstance(dest, str):
        raise RefusedError(f'field "dest" must be text naming a queue, not {_kind(dest)}')
    for name in ("dest", "orig_msg_id"):  # they become environment variables as they are
        if _CONTROL.search(_text(fields, name)):
            raise RefusedError(f'field "{name}" must not hold control characters')
    traceparent, tracestate = trace_context(fields.get("traceparent"), fields.get("tracestate"))
    return Message(
        dest=dest,
        src=_text(fields, "src"),
        param1=_text(fields, "param1"),
        param2=_text(fields, "param2"),
        param3=_text(fields, "param3"),
        param4=_text(fields, "param4"),
        due=_due(fields.get("due"), now),
        count=_count(fields, "count", 0),
        max_count=_count(fields, "max_count", DEFAULT_MAX_COUNT),
        orig_msg_id=_text(fields, "orig_msg_id"),
        post_run_webhook=_urls(fields.get("post_run_webhook")),
        force_remote=truth(fields.get("force_remote")),
        traceparent=traceparent,
        tracestate=tracestate,
    )


def truth(value: object) -> bool:
    """The contract's spelling of true: ``true``, ``"true"``, ``"yes"``, ``"1"`` or ``1``."""
    return value is True or value == 1 or value in ("true", "yes", "1")


def queue_name_problem(name: object) -> str | None:
    """Why this cannot be a queue's name, or None when it can."""
    if not isinstance(name, str) or not name:
        return "queue name must be 1 to 128 characters of text"
    if any(c in _NAME_FORBIDDEN or not c.isprintable() for c in name):
        return "queue name has invalid characters"
    if len(name) > 128 or len(name.encode()) > 240:  # noqa: PLR2004 - the contract, a file's name
        return "queue name is longer than 128 characters"
    return None


def attachment_name_problem(name: object) -> str | None:
    """Why this cannot be an attachment's name, or None when it can (the contract's words)."""
    if not isinstance(name, str) or not name:
        return "Attachment name missing: give it as 'name', or a 'pathname' that ends in one"
    if name.startswith("."):
        return f"Attachment name as a dot-file not allowed: {name}"
    if any(c in _ATTACH_FORBIDDEN or ord(c) < 32 or ord(c) == 127 for c in name):  # noqa: PLR2004
        shown = name if name.isprintable() else repr(name)
        return f"Attachment name has invalid character. not allowed: {shown}"
    try:
        size = len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # half of a surrogate pair, from JSON: no file can be named so
        return f"Attachment name has invalid character. not allowed: {name!r}"
    if size > 255:  # noqa: PLR2004 - NAME_MAX
        return f"Attachment name is longer than 255 bytes: {name[:40]}..."
    return None


def is_msg_id(text: str) -> bool:
    """Is this a short message id: ``YYYYMMDD.HHMM.SS.mmm.N`` (N may miss in old spools)?"""
    return _ID.fullmatch(text) is not None


def full_id(base_url: str, queue: str, msg_id: str) -> str:
    """The message's URL; ``base_url`` ends with the instance's root and a slash."""
    return f"{base_url}q/{queue}/{msg_id}"


@dataclass(frozen=True, slots=True)
class Address:
    """A message's or a queue's place: ``base`` is "" for this instance, else its base URL."""

    base: str
    queue: str
    msg_id: str = ""


def parse_full_id(text: str) -> Address | None:
    """The place of a message given as its URL or as ``/q/NAME/ID``; None when it is neither."""
    found = _FULL_ID.fullmatch(text)
    if found is None or not is_msg_id(found["id"]) or queue_name_problem(found["queue"]):
        return None
    return Address(_base(found["base"]), found["queue"], found["id"])


def parse_dest(text: str) -> Address | None:
    """The queue that a ``dest`` names: ``test``, ``/q/test`` or ``http://host:3333/q/test``."""
    found = _DEST.fullmatch(text)
    if found is not None:
        if queue_name_problem(found["queue"]) is not None:
            return None
        return Address(_base(found["base"]), found["queue"])
    if queue_name_problem(text) is None:
        return Address("", text)
    return None


def _base(text: str | None) -> str:
    return "" if text in (None, "/") else str(text)


class IdClock:
    """Makes message ids that never repeat and always grow, also when the wall clock steps back.

    An id is ``YYYYMMDD.HHMM.SS.mmm.N``, UTC.  N is a five-digit sequence within the millisecond
    followed by ``unique``, a number that no other queue of the machine has (the inode of the queue's
    directory), so that ids are unique on the machine and, within a queue, sort as they were made.
    While the wall clock stands behind the newest id, that id's millisecond goes on being used.
    """

    _SEQUENCE_END = 100_000

    def __init__(self, unique: int, wall: Callable[[], float]) -> None:
        self._suffix = str(unique)
        self._wall = wall
        self._ms = 0
        self._sequence = -1
        self._lock = threading.Lock()

    def saw(self, msg_id: str) -> None:
        """Never make an id that sorts before this one, which lies in the spool."""
        day, minute, second, ms, *number = msg_id.split(".")
        try:
            seen = _utc_seconds(f"{day}{minute}{second}") * 1000 + int(ms)
        except ValueError:  # no such date: it is not comparable to any that is made
            return
        if seen >= _LAST_YEAR:  # what followed it would be no id
            return
        own = number[0][5:] == self._suffix if number else False
        # One that was made elsewhere may sort anywhere in its millisecond: leave that alone.
        sequence = int(number[0][:5]) if own else self._SEQUENCE_END - 1
        self._ms, self._sequence = max((self._ms, self._sequence), (seen, sequence))

    def new(self) -> str:
        """The next id."""
        with self._lock:
            now = math.floor(self._wall() * 1000)
            if now > self._ms:
                self._ms, self._sequence = now, 0
            else:
                self._sequence += 1
                if self._sequence == self._SEQUENCE_END:
                    self._ms, self._sequence = self._ms + 1, 0
            seconds, ms = divmod(self._ms, 1000)
            return (
                f"{strftime('%Y%m%d.%H%M.%S', gmtime(seconds))}.{ms:03d}"
                f".{self._sequence:05d}{self._suffix}"
            )


def _utc_seconds(stamp: str) -> int:
    import calendar  # noqa: PLC0415 - only the start of a queue needs it
    from time import strptime  # noqa: PLC0415

    return calendar.timegm(strptime(stamp, "%Y%m%d%H%M%S"))


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "a truth value", type(None): "null"}
    names |= {int: "a number", float: "a number", str: "text"}
    return names.get(type(value), type(value).__name__)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise RefusedError(
        f'field "{name}" must be text, not {_kind(value)}; send structured data as JSON text'
    )


def _count(fields: Mapping[str, Any], name: str, default: int) -> int:
    value = fields.get(name)
    if value is None or value == "":
        return default
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    fraction = isinstance(value, float) and value != number
    if isinstance(value, bool) or fraction or not 0 <= number < 1 << 31:
        raise RefusedError(f'field "{name}" must be a whole number from 0 up, not {value!r}')
    return number


def _due(value: object, now: float) -> float:
    if value is None or value == "":
        return math.floor(now)
    try:
        number = float(value)  # type: ignore[arg-type]  # anything else raises, which is the point
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number < 1e11:  # noqa: PLR2004 - the year 5138
        raise RefusedError(f'field "due" must be unix time in seconds, not {value!r}')
    return int(number) if number.is_integer() else number


def _strings(value: object) -> Iterable[str]:
    return (item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _urls(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise RefusedError(
        f'field "post_run_webhook" must be a list of URLs or text, not {_kind(value)}'
    )
