"""The same calls for everybody: the command line, the web, scripts and plugins.

`QueueClient` and `ManagerClient` speak to one instance's sockets, keeping one connection open for
many requests.  Blocking, and not for use by several threads at once.

An answer that begins with ``"fail"`` is raised by `ask` as `RefusedError` with the reason; `call`
gives answers as they come.  Nobody there raises `UnreachableError`, which says how to start.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Self

from rqcore import wire
from rqcore.address import reachable
from rqcore.errors import RefusedError, UnreachableError, WireError

#: An answer may wait for the disk and, for a large attachment, for a read of gigabytes.
DEFAULT_TIMEOUT = 600.0


class Client:
    """A connection to a socket of the wire protocol."""

    def __init__(self, path: str, who: str, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        self._path = path
        self._who = who
        self._timeout = timeout
        self._sock: socket.socket | None = None
        self._decoder = wire.Decoder()
        self._payloads: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._decoder = wire.Decoder()
        self._payloads.clear()

    def call(self, command: str, args: Mapping[str, Any] | str | None = None) -> Any:
        """Ask, and return the answer as it came.

        Raises `UnreachableError`, also when the other end goes away before it has answered: then
        nobody knows whether it did what was asked.
        """
        text = args if isinstance(args, str) else "" if args is None else json.dumps(args)
        payload = f"{command} {text}".rstrip(" ") if not text else f"{command} {text}"
        self._send(wire.encode(payload.encode("utf-8", "surrogateescape")))
        return json.loads(self._receive(self._timeout))

    def ask(self, command: str, args: Mapping[str, Any] | str | None = None) -> Any:
        """Ask for a ``["ok", VALUE]``; returns VALUE (None where there is none)."""
        answer = self.call(command, args)
        if isinstance(answer, list) and answer and answer[0] == "fail":
            raise RefusedError(str(answer[1]) if len(answer) > 1 else f"{command} failed")
        if isinstance(answer, list) and answer and answer[0] in ("ok", "success"):
            return answer[1] if len(answer) > 1 else None
        if answer in (["ERROR"], ["error"]):
            raise RefusedError(f"{self._who} does not know the command {command}")
        return answer

    def subscribe(self, args: Mapping[str, Any], timeout: float | None = None) -> Iterator[Any]:
        """Subscribe (`rqcore.followers`); returns an iterator over the events.

        When this returns, no later event is missed.  The iterator ends when the other end goes away,
        and raises `TimeoutError` when no event comes for ``timeout`` seconds.
        """
        self.ask("subscribe", args)
        return self._events(timeout)

    def _events(self, timeout: float | None) -> Iterator[Any]:
        while True:
            try:
                payload = self._receive(timeout)
            except UnreachableError:
                return
            yield json.loads(payload)

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._timeout)
            with reachable(self._path) as short:
                sock.connect(short)
        except PermissionError as error:
            sock.close()
            raise UnreachableError(
                f"no permission to speak to {self._who}: {self._path} belongs to another user; "
                "become that user"
            ) from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            sock.close()
            raise UnreachableError(
                f"{self._who} does not run (nobody answers at {self._path}); start RQ with: rq start"
            ) from error
        except OSError as error:
            sock.close()
            raise UnreachableError(f"{self._who} cannot be reached: {error}") from error
        return sock

    def _send(self, frame: bytes) -> None:
        fresh = self._sock is None
        if self._sock is None:
            self._sock = self._connect()
        try:
            self._sock.sendall(frame)
        except OSError as error:
            self.close()
            if fresh:
                raise UnreachableError(f"{self._who} closed the connection: {error}") from error
            # The other end was restarted since the last call and has not seen this one.
            self._send(frame)

    def _receive(self, timeout: float | None) -> bytes:
        assert self._sock is not None
        self._sock.settimeout(timeout)
        while not self._payloads:
            try:
                data = self._sock.recv(1 << 16)
            except TimeoutError:
                self.close()
                raise
            except OSError as error:
                self.close()
                raise UnreachableError(f"{self._who} closed the connection: {error}") from error
            if not data:
                self.close()
                raise UnreachableError(f"{self._who} went away before it answered")
            try:
                self._payloads = self._decoder.feed(data)
            except WireError as error:
                self.close()
                raise UnreachableError(f"{self._who} speaks another protocol: {error}") from error
        return self._payloads.pop(0)


class QueueClient(Client):
    """One queue of the instance in ``directory``."""

    def __init__(
        self, directory: str | os.PathLike[str], name: str, timeout: float | None = DEFAULT_TIMEOUT
    ) -> None:
        path = f"{os.fspath(directory)}/queue/{name}/queue.sock"
        super().__init__(path, f"queue {name}", timeout)


class ManagerClient(Client):
    """The manager of the instance in ``directory``."""

    def __init__(
        self, directory: str | os.PathLike[str], timeout: float | None = DEFAULT_TIMEOUT
    ) -> None:
        super().__init__(f"{os.fspath(directory)}/config/queuemgr.sock", "the manager", timeout)
