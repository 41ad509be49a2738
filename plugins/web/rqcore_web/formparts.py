"""Forms in parts (``multipart/form-data``): fields in memory, one file streaming past to a `Sink`.

What is not the file must fit into ``most`` bytes, heads and what lies between parts included, so that a
body of any size is read with bounded memory.  However the body is cut into pieces on its way, the same
fields and the same bytes come out.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from rqcore_web.formnames import MAX_FIELDS, BodyError

_MAX_NAME = 1024
#: RFC 2046 says 70.
_MAX_BOUNDARY = 200
#: The head of a part: its lines together.
_MAX_HEAD = 8 * 1024
_AS_IT_IS = ("", "7bit", "8bit", "binary")

# It warns of every body that is not well-formed; who sent it is told, and nobody else needs to know.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file in a form: the name of its field, its own name as the client gave it, its type."""

    field: str
    filename: str
    content_type: str


class Sink(Protocol):
    """Where the bytes of a file go."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes; may wait, so that no more come than can be kept."""


def too_large(most: int) -> BodyError:
    """The body is longer than is taken."""
    return BodyError(f"the body is too large: at most {most} bytes are taken here (max_body)", 413)


class Parts:
    """The fields of a form in parts, and its file on its way to the sink."""

    def __init__(self, most: int, boundary: bytes, sink: Sink | None) -> None:
        self.fields: list[tuple[str, str]] = []
        self.file: FilePart | None = None
        self._most = most
        self._sink = sink
        self._ended = False
        #: Bytes of the file that were seen, and those that the sink has still to be given.
        self._file_size = 0
        self._for_sink: list[bytes] = []
        self._parts = 0
        self._line = [bytearray(), bytearray()]
        self._head: dict[bytes, str] = {}
        self._head_size = 0
        self._name = ""
        self._filename = ""
        self._value: bytearray | None = None
        if not 0 < len(boundary) <= _MAX_BOUNDARY:
            what = "a boundary that is too long" if boundary else "no boundary"
            raise BodyError(f"the form's Content-Type has {what}")
        self._parser = MultipartParser(boundary, {
            "on_part_begin": self._on_begin, "on_header_field": self._on_header_name,
            "on_header_value": self._on_header_value, "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_head, "on_part_data": self._on_data,
            "on_part_end": self._on_end, "on_end": self._on_last,
        })  # fmt: skip

    async def read(self, stream: AsyncIterator[bytes]) -> None:
        """Take the whole body."""
        received = 0
        async for chunk in stream:
            received += len(chunk)
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise BodyError(f"the form cannot be read: {error}") from None
            if received - self._file_size > self._most:
                raise too_large(self._most)
            for block in self._for_sink:
                assert self._sink is not None
                await self._sink.write(block)
            self._for_sink.clear()
        if not self._ended:
            raise BodyError("the form ends before its last boundary: not all of it has come")

    def _on_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_FIELDS:
            raise BodyError(f"too many fields: at most {MAX_FIELDS} are taken", 413)
        self._head.clear()
        self._head_size = 0

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._on_header(0, data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._on_header(1, data[start:end])

    def _on_header(self, which: int, data: bytes) -> None:
        self._head_size += len(data)
        if self._head_size > _MAX_HEAD:
            raise BodyError(f"a part's head is longer than {_MAX_HEAD} bytes", 413)
        self._line[which] += data

    def _on_header_end(self) -> None:
        name, value = self._line
        self._head[bytes(name).lower()] = value.decode("latin-1")
        name.clear()
        value.clear()

    def _on_head(self) -> None:
        _, options = parse_options_header(self._head.get(b"content-disposition", ""))
        encoding = self._head.get(b"content-transfer-encoding", "").strip().lower()
        if encoding not in _AS_IT_IS:
            raise BodyError(f"a part in {encoding} is not understood; send its bytes as they are")
        if b"name" not in options:
            raise BodyError("a part of the form has no name")
        self._name = _text(options[b"name"])
        if len(self._name) > _MAX_NAME:
            raise BodyError(f"field {self._name[:80]!r}... has a name that is too long", 413)
        if b"filename" in options:
            self._value = None
            self._on_file(_text(options[b"filename"]))
        else:
            self._value = bytearray()

    def _on_file(self, filename: str) -> None:
        self._filename = filename
        if not filename:
            return  # what a browser sends for a field that no file was chosen for
        if self._sink is None:
            raise BodyError(f"no file is taken here: {self._name}")
        self._note_file()

    def _note_file(self) -> None:
        if self.file is not None:
            raise BodyError("one file at a time: the form has a second one")
        kind = self._head.get(b"content-type", "application/octet-stream")
        self.file = FilePart(self._name, self._filename, kind)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._value is not None:
            self._value += data[start:end]
        elif self._filename:
            self._file_size += end - start
            self._for_sink.append(data[start:end])
        elif self.file is None or self.file.filename:
            self._note_file()  # bytes, but no name: whoever wants a file will say so

    def _on_end(self) -> None:
        if self._value is not None:
            self.fields.append((self._name, self._value.decode("utf-8", "surrogateescape")))

    def _on_last(self) -> None:
        self._ended = True


def _text(value: bytes) -> str:
    """A name as clients write it between quotes: these three are written as in a URL, and no others."""
    text = value.decode("utf-8", "surrogateescape")
    for written, meant in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
        text = text.replace(written, meant)
    return text
