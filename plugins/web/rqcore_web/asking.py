"""Speaking to the sockets of an instance from asyncio: a few open connections for each, reused.

The blocking twin is `rqcore.client`.  `Peer.call` gives an answer as it came; `Peer.ask` unpacks
``["ok", VALUE]`` and raises what was refused: `NotFoundError`, `DownError`, else `RefusedError`.
Whoever does not answer is an `UnreachableError`; then nobody knows whether it did what was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from rqcore import wire
from rqcore.address import reachable
from rqcore.errors import NotFoundError, RefusedError, RqError, UnreachableError, WireError

#: An answer may wait for the disk and, for a large attachment, for a read of gigabytes.
_TIMEOUT = 600.0
_CONNECT_TIMEOUT = 10.0
_MOST = 32
_RECEIVE = 1 << 16
_NOT_FOUND = ("msg not found", "cannot find message")
_STOPPING = "the queue is stopping"


class DownError(RefusedError):
    """The queue is DOWN: it refuses messages until its operator takes it up.

    `rqcore_web.spool` says which ``queue`` that is, and ``why``, if its operator has said so.
    """

    queue = ""
    why = ""


class _Connection:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = wire.Decoder()
        self._payloads: list[bytes] = []

    @property
    def usable(self) -> bool:
        """Is the other end still there, as far as is known?"""
        return not (self._reader.at_eof() or self._writer.is_closing() or self._payloads)

    def close(self) -> None:
        self._writer.close()

    async def send(self, payload: bytes) -> None:
        self._writer.write(wire.encode(payload))
        await self._writer.drain()

    async def receive(self) -> bytes:
        """The next payload.  Raises `EOFError`, `OSError`, `WireError`."""
        while not self._payloads:
            data = await self._reader.read(_RECEIVE)
            if not data:
                raise EOFError
            self._payloads = self._decoder.feed(data)
        return self._payloads.pop(0)


class Peer:
    """One socket of the instance: a queue, or the manager; ``who`` names it in errors."""

    def __init__(self, path: str, who: str) -> None:
        self._path = path
        self._who = who
        self._idle: list[_Connection] = []
        self._closed = False
        self._places = asyncio.Semaphore(_MOST)

    def close(self) -> None:
        """Close the connections that nobody uses, and the others when they are used no more."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    async def call(self, command: str, args: Mapping[str, Any] | str | None = None) -> Any:
        """Ask, and return the answer as it came.  Raises `UnreachableError`."""
        payload = _payload(command, args)
        async with self._places:
            connection = await self._take()
            try:
                async with asyncio.timeout(_TIMEOUT):
                    await connection.send(payload)
                    answer = json.loads(await connection.receive())
            except (EOFError, OSError, WireError, TimeoutError) as error:
                connection.close()
                raise UnreachableError(f"{self._who} went away before it answered") from error
            except BaseException:  # cancelled: its answer may still come, for nobody
                connection.close()
                raise
            if self._closed:
                connection.close()
            else:
                self._idle.append(connection)
            return answer

    async def ask(self, command: str, args: Mapping[str, Any] | str | None = None) -> Any:
        """Ask for a ``["ok", VALUE]``; returns VALUE."""
        return self.unpack(command, await self.call(command, args))

    def unpack(self, command: str, answer: Any) -> Any:
        """The VALUE of an answer; raises what was refused."""
        if answer in (["ERROR"], ["error"]):
            raise RefusedError(f"{self._who} does not know the command {command}")
        if not isinstance(answer, list) or not answer:
            return answer
        if answer[0] == "fail":
            raise refusal(str(answer[1]) if len(answer) > 1 else f"{command} failed")
        if answer[0] in ("ok", "success"):
            return answer[1] if len(answer) > 1 else None
        return answer

    @contextlib.asynccontextmanager
    async def subscribe(self, args: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[Any]]:
        """Events (`rqcore.followers`) from now on, until the other end goes away.

        Raises `UnreachableError` when it does not even begin.
        """
        connection = await self._connect()
        try:
            try:
                await connection.send(_payload("subscribe", args))
                self.unpack("subscribe", json.loads(await connection.receive()))
            except (EOFError, OSError, WireError) as error:
                raise UnreachableError(f"{self._who} went away before it answered") from error
            yield _events(connection)
        finally:
            connection.close()

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return await self._connect()

    async def _connect(self) -> _Connection:
        try:
            with reachable(self._path) as short:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    reader, writer = await asyncio.open_unix_connection(short)
        except (OSError, TimeoutError) as error:
            raise UnreachableError(f"{self._who} does not run") from error
        return _Connection(reader, writer)


def refusal(reason: str) -> RqError:
    """The error that a reason stands for."""
    if reason in _NOT_FOUND or reason.startswith("no such queue"):
        return NotFoundError(reason)
    if reason == "status: DOWN":
        return DownError(reason)
    if reason.startswith(_STOPPING):
        return UnreachableError(reason)
    return RefusedError(reason)


def _payload(command: str, args: Mapping[str, Any] | str | None) -> bytes:
    text = args if isinstance(args, str) else "" if args is None else json.dumps(args)
    return f"{command} {text}".rstrip(" ").encode("utf-8", "surrogateescape")


async def _events(connection: _Connection) -> AsyncIterator[Any]:
    while True:
        try:
            payload = await connection.receive()
        except (EOFError, OSError, WireError):
            return
        yield json.loads(payload)
