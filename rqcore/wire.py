"""The wire protocol of ``queuemgr.sock`` and ``queue.sock``: bytes in, payloads out.

Pure: no socket.  Both ends of a connection, the server's and the client's, frame and unframe here.

A frame is ``rq1 ``, the length of the payload as eight decimal digits, a space, the payload.  A
request's payload is ``command SPACE json-or-text``; an answer's is JSON.  Several frames may follow
each other on one connection.

`Decoder` takes the bytes in whatever pieces they arrive and gives the payloads that are complete.
It promises:

- the same payloads and the same error however the bytes were cut into pieces;
- a `WireError` at the first byte that cannot belong to a frame, long before a peer has sent as much
  as it announced; whole frames that came before that byte are still handed over;
- time and memory in proportion to what was received: nothing is copied again for each piece, and
  nothing is reserved because of a length that was only announced;
- once in error, always in error: there is no way to find the next frame.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from rqcore.errors import RefusedError, WireError

#: The longest payload that is accepted, unless told otherwise.
MAX_FRAME = 16 * 1024 * 1024

_MAGIC = b"rq1 "
_DIGITS = 8
_HEADER = len(_MAGIC) + _DIGITS + 1
#: What eight digits can say.
_MAX_LENGTH = 10**_DIGITS - 1


def encode(payload: bytes) -> bytes:
    """The frame that carries this payload.  Raises `WireError` beyond 99 999 999 bytes."""
    if len(payload) > _MAX_LENGTH:
        raise WireError(
            f"payload of {len(payload)} bytes does not fit into a frame, which holds "
            f"{_MAX_LENGTH}; ask for less at a time"
        )
    return b"%b%08d %b" % (_MAGIC, len(payload), payload)


class Decoder:
    """Unframes one direction of one connection; a payload may be ``max_frame`` bytes long."""

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._header = bytearray()
        self._body = bytearray()
        #: Length of the payload being received; None while the header is incomplete.
        self._length: int | None = None
        self._fault: WireError | None = None

    @property
    def fault(self) -> WireError | None:
        """Why nothing more will come, or None while all is well.

        `feed` hands over the frames before a bad byte instead of raising; whoever does not want to
        wait for the peer's next byte asks here.
        """
        return self._fault

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that these bytes complete, in order.

        Raises `WireError` when the bytes cannot be a frame.  If they completed a payload first,
        that is returned, and the error is raised by the next `feed` or `close`.
        """
        if self._fault is not None:
            raise self._fault
        payloads: list[bytes] = []
        try:
            self._take(data, payloads)
        except WireError as error:
            self._fault = error
            self._header.clear()
            self._body.clear()
            if not payloads:
                raise
        return payloads

    def close(self) -> None:
        """The peer sends no more.  Raises `WireError` if that was in the middle of a frame."""
        if self._fault is not None:
            raise self._fault
        if self._length is not None:
            self._fault = WireError(
                f"connection ended after {len(self._body)} of the {self._length} bytes of a payload"
            )
        elif self._header:
            self._fault = WireError(
                f"connection ended after {len(self._header)} of the {_HEADER} bytes of a header"
            )
        if self._fault is not None:
            raise self._fault

    def _take(self, data: bytes, payloads: list[bytes]) -> None:
        view = memoryview(data)
        at = 0
        while at < len(view):
            if self._length is None:
                more = view[at : at + _HEADER - len(self._header)]
                at += len(more)
                self._header += more
                self._length = self._parse_header()
                if self._length is None:
                    return
            body = view[at : at + self._length - len(self._body)]
            at += len(body)
            if len(body) == self._length:
                payloads.append(bytes(body))
            else:
                self._body += body
                if len(self._body) < self._length:
                    return
                payloads.append(bytes(self._body))
            self._header.clear()
            self._body = bytearray()
            self._length = None

    def _parse_header(self) -> int | None:
        """The length, or None while bytes are missing; `WireError` at the first wrong byte."""
        header = bytes(self._header)
        magic, digits, space = header[:4], header[4 : 4 + _DIGITS], header[4 + _DIGITS :]
        if not _MAGIC.startswith(magic):
            wrong = next(i for i, byte in enumerate(magic) if byte != _MAGIC[i])
            raise WireError(
                f"not the rq1 protocol: a frame begins with {_text(_MAGIC)}, "
                f"this one with {_text(magic[: wrong + 1])}"
            )
        if digits and not digits.isdigit():
            wrong = len(digits) - len(digits.lstrip(b"0123456789"))
            raise WireError(
                f"length of a frame is {_text(digits[: wrong + 1])}; "
                f"it must be {_DIGITS} decimal digits"
            )
        if len(digits) == _DIGITS and int(digits) > self._max_frame:
            raise WireError(
                f"frame of {int(digits)} bytes refused: the limit is {self._max_frame} bytes"
            )
        if not space:
            return None
        if space != b" ":
            raise WireError(
                f"length of a frame is followed by {_text(space)}; it must be followed by a space"
            )
        return int(digits)


def split_request(payload: bytes) -> tuple[str, str]:
    """A request's command and what follows the space after it ("" when nothing does).

    Bytes that are not UTF-8 become lone surrogates (``surrogateescape``).
    """
    command, _, rest = payload.decode("utf-8", "surrogateescape").partition(" ")
    return command, rest


def parse_args(rest: str) -> Any:
    """The JSON value where ``rest`` begins like an object, a list or a string; else the bare text.

    Raises `RefusedError` when it begins so and is not JSON.
    """
    if not rest.lstrip(" \t\r\n").startswith(("{", "[", '"')):
        return rest
    try:
        return json.loads(rest, parse_constant=_no_constant)
    except RecursionError:
        raise RefusedError("arguments are not usable JSON: nested too deeply") from None
    except ValueError as error:  # bad syntax, and also a number with thousands of digits
        raise RefusedError(f"arguments are not usable JSON: {error}") from None


def _no_constant(name: str) -> NoReturn:
    # Python's reader takes these, JSON has none of them, and no field has a use for one.
    raise ValueError(f"{name} is not a JSON number")


def _text(data: bytes) -> str:
    """Some bytes, quoted, for an error."""
    return repr(data.decode("latin-1"))
