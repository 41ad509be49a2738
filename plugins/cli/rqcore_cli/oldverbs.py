"""RQ's old verbs, to the letter: ``rq sendmesg --dest test --param1 x`` prints ``ok FULL_ID``.

Scripts and cron jobs of many years call these.  They have a parser of their own: ``--key value``,
``--key=value``, or a bare ``--key`` for true; ``-`` and ``_`` in a key are the same.  The answer is
one line on stdout that begins with ``ok`` or ``fail``, the exit status 0 or 1.

A key that a verb does not know was always ignored, and still is; a line on stderr says so.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rqcore.errors import RefusedError, RqError
from rqcore.message import full_id, parse_full_id, truth
from rqcore.trace import carried
from rqcore_cli.app import App
from rqcore_cli.output import clean, echo
from rqcore_cli.refs import Ref
from rqcore_cli.submit import is_url, target_queue

_FIELDS = (
    "dest", "src", "count", "max_count", "param1", "param2", "param3", "param4", "due",
    "force_remote",
)  # fmt: skip


def parse_old(arguments: Sequence[str]) -> dict[str, str]:
    """The keys and values of an old verb's arguments; the last of equal keys counts.

    Raises `RefusedError` for a word that belongs to no key.
    """
    found: dict[str, str] = {}
    waiting = list(reversed(arguments))
    while waiting:
        word = waiting.pop()
        if not word.startswith("--") or word == "--":
            raise RefusedError(f"{clean(word)} belongs to no key; write --key value or --key=value")
        key, equals, value = word[2:].partition("=")
        if not equals:
            follows = waiting and not waiting[-1].startswith("--")
            value = waiting.pop() if follows else "true"
        found[key.replace("-", "_")] = value
    return found


def is_old(words: Sequence[str]) -> bool:
    """Do these words, after ``rq``, begin with an old verb?

    ``clone`` is a name of both kinds: only the old one is told its message by ``--msg_id``.
    """
    if not words or words[0] not in VERBS:
        return False
    return words[0] != "clone" or any(w.startswith(("--msg_id", "--msg-id")) for w in words)


def run_verb(app: App, name: str, arguments: Sequence[str]) -> int:
    """Run an old verb; returns 0 or 1."""
    verb = VERBS[name]
    try:
        given = parse_old(arguments)
        if "help" in given:
            echo(f"usage: rq {name} {' '.join(f'[--{key} VALUE]' for key in verb.keys)}")
            return 0
        app.directory = given.pop("dir", None) or app.directory
        _warn_unknown(app, name, given)
        lines = verb.run(app, given)
    except RqError as error:
        echo(f"fail {'; '.join(str(error).splitlines())}")
        return 1
    for line in lines:
        echo(line)
    return 0


def _warn_unknown(app: App, name: str, given: Mapping[str, str]) -> None:
    known = VERBS[name].keys
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean --{near[0]}?" if near else f"it knows --{' --'.join(known)}"
            app.warn(f"{name} ignores --{clean(key)}; {hint}")


def _ref(given: Mapping[str, str]) -> Ref:
    text = given.get("msg_id")
    if text is None:
        raise RefusedError("lacking 'msg_id' field")
    address = parse_full_id(text)
    if address is None:
        raise RefusedError(f"{clean(text)} is no message id; give its URL, or /q/NAME/ID")
    return Ref(address.queue, address.msg_id)


def _ask(app: App, given: Mapping[str, str], command: str, **more: str) -> Any:
    ref = _ref(given)
    return app.ask(ref.queue, command, {"msg_id": ref.msg_id, **more})


def _submit(command: str) -> Callable[[App, Mapping[str, str]], list[str]]:
    def verb(app: App, given: Mapping[str, str]) -> list[str]:
        fields: dict[str, Any] = {key: given[key] for key in _FIELDS if key in given}
        if not fields.get("dest"):
            raise RefusedError('input missing required "dest" parameter')
        if is_url(fields["dest"]) and not truth(given.get("relay_ok")):
            raise RefusedError(
                f"{clean(fields['dest'])} is on another host; give --relay-ok to have it relayed"
            )
        fields |= carried(os.environ, environment=True)
        return [f"ok {app.ask(target_queue(app, fields), command, fields)}"]

    return verb


def _attach(app: App, given: Mapping[str, str]) -> list[str]:
    ref = _ref(given)
    if not given.get("pathname"):
        raise RefusedError("lacking 'pathname' field: the file to attach")
    # The queue's process has another current directory.
    more = {"pathname": os.path.abspath(given["pathname"])}
    if "name" in given:
        more["name"] = given["name"]
    answer = _ask(app, given, "attach_message", **more)
    config, _ = app.instance.load_config()
    whole = full_id(config.base_url, ref.queue, ref.msg_id)
    return [f"ok {answer} for Message: {whole} attachment"]


def _simple(command: str) -> Callable[[App, Mapping[str, str]], list[str]]:
    def verb(app: App, given: Mapping[str, str]) -> list[str]:
        return [f"ok {_ask(app, given, command)}"]

    return verb


def _count(app: App, given: Mapping[str, str]) -> list[str]:
    return [f"ok {_ask(app, given, 'get_message')['count']}"]


def _attachments(app: App, given: Mapping[str, str]) -> list[str]:
    found = _ask(app, given, "get_message")["_attachments"]
    rows = [f"{name} {a['md5']} {a['size']} {a['path']}" for name, a in found.items()]
    return [f"ok {len(rows)}", *rows]


@dataclass(frozen=True, slots=True)
class _Verb:
    """A verb: the keys that it knows, and what it does."""

    keys: tuple[str, ...]
    run: Callable[[App, Mapping[str, str]], list[str]]


VERBS: dict[str, _Verb] = {
    "sendmesg": _Verb((*_FIELDS, "relay_ok"), _submit("create_message")),
    "prepmesg": _Verb((*_FIELDS, "relay_ok"), _submit("prep_message")),
    "single_que": _Verb((*_FIELDS, "relay_ok"), _submit("single_que")),
    "attachmesg": _Verb(("msg_id", "pathname", "name"), _attach),
    "commitmesg": _Verb(("msg_id",), _simple("commit_message")),
    "statusmesg": _Verb(("msg_id",), _simple("get_message_status")),
    "state": _Verb(("msg_id",), _simple("get_message_state")),
    "statuscountmesg": _Verb(("msg_id",), _count),
    "attachstatusmesg": _Verb(("msg_id",), _attachments),
    "clone": _Verb(("msg_id",), _simple("clone_message")),
}
