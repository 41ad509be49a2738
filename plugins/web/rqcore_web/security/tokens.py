"""Tokens: what programs show in place of a password (``Authorization: Bearer rqt_...``).

They stand in ``config/tokens.json`` (0600) as ``{"tokens": [...]}``; each has a name, what it may do
(``scope``), the only queues that it may touch (``queues``, null for all), when it was made and when it
expires (null for never), and the SHA-256 of its text: the text itself is shown once, when it is made,
and is written nowhere.  256 random bits need no salt and no slow hash.  ``tail`` is its last four
characters, by which people tell which of theirs it is.

Used by the site, which reads the file anew when it has changed, and by ``rq web token``.  A file that
is wrong raises `ConfigError` with every problem of it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rqcore import durable
from rqcore.message import queue_name_problem
from rqcore.schema import MAX_BYTES, ConfigError, Problem, Report, Section, decode_json
from rqcore_web.options import SCOPES

#: In the instance's ``config`` directory.
TOKENS_FILE = "tokens.json"
PREFIX = "rqt_"
_BYTES = 32
_TAIL = 4
_LONGEST_NAME = 64
_HEX_LENGTH = 64
_KEYS = ("name", "scope", "queues", "created", "expires", "sha256", "tail")


@dataclass(frozen=True, slots=True)
class Token:
    """One token, as the file has it; times are aware, in UTC."""

    name: str
    scope: str
    queues: tuple[str, ...] | None
    created: datetime
    expires: datetime | None
    sha256: str
    tail: str

    def expired(self, now: datetime) -> bool:
        """Is its time over?"""
        return self.expires is not None and self.expires <= now

    def as_json(self) -> dict[str, object]:
        """As it stands in the file."""
        return {
            "name": self.name, "scope": self.scope,
            "queues": None if self.queues is None else list(self.queues),
            "created": _written(self.created),
            "expires": None if self.expires is None else _written(self.expires),
            "sha256": self.sha256, "tail": self.tail,
        }  # fmt: skip


def make_token(
    name: str, scope: str, queues: Iterable[str], expires: datetime | None, now: datetime
) -> tuple[Token, str]:
    """A new token, and its text; no ``queues`` means all of them."""
    text = PREFIX + secrets.token_urlsafe(_BYTES)
    only = tuple(sorted(set(queues))) or None
    return Token(name, scope, only, now, expires, digest(text), text[-_TAIL:]), text


def digest(text: str) -> str:
    """What a token's text is known by."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def name_problem(name: str) -> str | None:
    """Why a token cannot be called so, or None."""
    if not name or not name.isprintable() or len(name) > _LONGEST_NAME or name != name.strip():
        return f"a token's name is 1 to {_LONGEST_NAME} printable characters"
    return None


def read_tokens(file: Path) -> list[Token]:
    """The tokens in the file, none where there is no file.  Raises `ConfigError`."""
    try:
        data = durable.read_file(file, MAX_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        remedy = "correct its owner and mode"
        raise ConfigError([Problem(str(file), "", None, reason, remedy)]) from error
    return parse_tokens(data, file)


def parse_tokens(data: bytes, file: Path) -> list[Token]:
    """The tokens that the file's bytes hold.  Raises `ConfigError`."""
    raw, _ = decode_json(data, str(file))
    report = Report(str(file))
    section = Section(report, report.whole_object(raw), ("tokens",))
    tokens = []
    for i, item in enumerate(section.items("tokens")):
        if isinstance(item, Mapping):
            tokens.append(_token(Section(report, item, _KEYS, f"tokens[{i}]")))
        else:
            report.refuse(f"tokens[{i}]", None, "is no token", "remove it")
    report.finish()
    return tokens


def write_tokens(file: Path, tokens: Iterable[Token]) -> None:
    """Put these tokens in place of all that were there, durably.  Raises `OSError`."""
    content = {"tokens": [token.as_json() for token in tokens]}
    durable.write_file(file, json.dumps(content, indent=2).encode("ascii") + b"\n", mode=0o600)


def _token(section: Section) -> Token:
    name, scope = section.text("name", ""), section.text("scope", "")
    if scope not in SCOPES:
        section.refuse("scope", "is no scope", f"one of {', '.join(SCOPES)}")
    sha256 = section.text("sha256", "")
    if len(sha256) != _HEX_LENGTH:
        section.refuse("sha256", "is no SHA-256", "make the token anew", show=False)
    created, expires = _time(section, "created"), _time(section, "expires")
    queues = None if section.get("queues") is None else section.texts("queues")
    if queues == () or any(queue_name_problem(queue) for queue in queues or ()):
        section.refuse("queues", "must be names of queues", "or null for all of them", show=False)
    return Token(
        name, scope, queues, created or datetime.fromtimestamp(0, UTC), expires, sha256,
        section.text("tail", ""),
    )  # fmt: skip


def _time(section: Section, key: str) -> datetime | None:
    text = section.text(key, "")
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        section.refuse(key, "is no time", "such as 2026-03-01T08:00:00Z")
        return datetime.fromtimestamp(0, UTC)  # over: a token whose end is not known is no token
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _written(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
