"""Looking at messages: one with all it has, lists by state, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rqcore import durable
from rqcore.commands.base import LATER, Commands
from rqcore.durable import Digest
from rqcore.errors import NotFoundError, RefusedError, StoreError
from rqcore.lifecycle import State
from rqcore.server import Request

_STATES = {state.value: state for state in State}
_MAX_LIST = 1000
#: One `list_messages` looks at so many messages at most, found or not.
_MAX_LOOKED_AT = 500


class Looking(Commands):
    """See the head of this module."""

    def do_get_message(self, request: Request) -> Any:
        msg_id, state = self.found(request)
        unread = [a for a in self._store.attached(msg_id, state) if a.digest is None]
        if not unread:
            return ["ok", self._described(msg_id, state)]

        def read() -> list[tuple[str, Digest]]:
            return [(item.name, durable.hash_file(item.path)) for item in unread]

        def done(result: list[tuple[str, Digest]] | Exception) -> None:
            self.answer(request, lambda: self._noted(msg_id, result))

        self._threads.run(read, done)
        return LATER

    def _noted(self, msg_id: str, result: list[tuple[str, Digest]] | Exception) -> Any:
        if isinstance(result, Exception):
            raise result
        state = self._store.find(msg_id)
        if state is None:
            raise NotFoundError("msg not found")
        for name, digest in result:
            self._store.note_digest(msg_id, state, name, digest)
        return ["ok", self._described(msg_id, state)]

    def _described(self, msg_id: str, state: State) -> dict[str, Any]:
        attachments = {
            item.name: {
                "md5": item.digest.md5, "sha256": item.digest.sha256,
                "size": item.digest.size, "path": item.path,
            }
            for item in self._store.attached(msg_id, state)
            if item.digest is not None
        }  # fmt: skip
        return {
            **self._summary(msg_id, state),
            "path": self._store.directory(msg_id, state),
            "_attachments": attachments,
        }

    def _summary(self, msg_id: str, state: State) -> dict[str, Any]:
        message = self._store.load(msg_id, state)
        return {
            **message.to_fields(),
            "full_id": self._queue.full_id(msg_id),
            "state": state,
            "status": self._status(msg_id, state),
        }

    def _status(self, msg_id: str, state: State) -> str:
        main = self._queue.schedule.set_aside_by(msg_id) if state is State.QUE else None
        text = f"set aside as duplicate of {main}" if main else self._store.status(msg_id, state)
        return f"{state} - {text}" if text else str(state)

    def do_get_message_state(self, request: Request) -> Any:
        return ["ok", self.found(request)[1]]

    def do_get_message_status(self, request: Request) -> Any:
        return ["ok", self._status(*self.found(request))]

    def do_messages(self, request: Request) -> Any:
        args = request.fields()
        state = _STATES.get(str(args.get("state")))
        if state is None:
            return ["fail", f"invalid or missing 'state' field ({args.get('state', '')})"]
        ids = self._store.newest(state, _limit(args, _MAX_LIST), str(args.get("before") or ""))
        return list(self._items(state, ids))

    def _items(self, state: State, ids: list[str]) -> Iterator[dict[str, Any]]:
        """The contract's items: what is shown of a message depends on its state."""
        for msg_id in ids:
            item: dict[str, Any] = {"msg_id": msg_id}
            try:
                if state in (State.QUE, State.RUN, State.RELAYED):
                    message = self._store.load(msg_id, state)
                    item["dest"] = message.dest
                    if state is State.QUE:
                        item["due"] = message.due
                    else:
                        item["status"] = self._store.status(msg_id, state)
                if state is State.RELAYED:
                    item["new_msg"] = item["status"].rpartition(" ")[2]
            except (NotFoundError, StoreError):
                continue  # taken away or spoiled by hand since it was listed
            yield item

    def do_list_messages(self, request: Request) -> Any:
        """A page of a state, newest first, of those whose fields hold ``text``, if it is given.

        Answers ``{"items": [...], "next": ID}``; ``next`` is where to go on (``before``), null at the
        end.  A page may be empty and not the last: no request looks at too many messages.
        """
        args = request.fields()
        state = _STATES.get(str(args.get("state")))
        if state is None:
            raise RefusedError(f"invalid or missing 'state' field ({args.get('state', '')})")
        limit, text = _limit(args, _MAX_LIST), str(args.get("text") or "").lower()
        ids = self._store.newest(state, min(_MAX_LOOKED_AT, limit if not text else _MAX_LOOKED_AT),
                                 str(args.get("before") or ""))  # fmt: skip
        items: list[dict[str, Any]] = []
        last = ""
        for msg_id in ids:
            last = msg_id
            try:
                item = self._summary(msg_id, state)
            except (NotFoundError, StoreError) as error:
                item = {"msg_id": msg_id, "state": state, "status": f"unreadable: {error}"}
            if not text or any(text in str(value).lower() for value in item.values()):
                items.append(item)
                if len(items) == limit:
                    break
        return ["ok", {"items": items, "next": last or None}]


def _limit(args: Mapping[str, Any], most: int) -> int:
    try:
        return max(1, min(most, int(args.get("limit") or most)))
    except (TypeError, ValueError):
        raise RefusedError(f"'limit' must be a whole number, not {args['limit']!r}") from None
