"""A far end that speaks the contract's plain protocol and nothing else, as a Ruby RQ does.

    python tests/lab/plain_peer.py DIR ADDRESS PORT

Messages are prepared, get attachments and are committed by the contract's own requests; there are no
keys, no offsets, no SHA-256, and each answer closes the connection.  Who sends twice gets two messages.
Each message is a directory, ``DIR/q/QUEUE/{prep,done}/ID`` with ``msg`` and ``attach/``, and what was
answered ``ok`` is there also when this process is killed.  A queue exists when ``DIR/q/QUEUE`` does; it
is DOWN while ``DIR/QUEUE.down`` exists.  It says ``ready`` on stdout when it listens, and logs one line
for each request on stderr.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

_QUEUE = r"/q/(?P<queue>[\w-]+)"
_MESSAGE = _QUEUE + r"/(?P<msg_id>\d{8}\.\d{4}\.\d\d\.\d{3}\.\d+)"
_FIELDS = (
    "dest", "src", "count", "max_count", "param1", "param2", "param3", "param4", "post_run_webhook",
    "orig_msg_id", "due", "force_remote",
)  # fmt: skip
_STATES = ("prep", "done")


class Spool:
    """The messages."""

    def __init__(self, folder: Path, base: str) -> None:
        self.folder, self.base = folder, base
        self._lock = threading.Lock()
        self._number = time.time_ns() % 1_000_000 * 1000

    def has(self, queue: str) -> bool:
        """Is there such a queue?"""
        return (self.folder / "q" / queue).is_dir()

    def is_down(self, queue: str) -> bool:
        """Does it refuse messages?"""
        return (self.folder / f"{queue}.down").exists()

    def prepare(self, queue: str, fields: dict[str, Any]) -> str:
        """A new message in ``prep``; returns its full id."""
        with self._lock:
            self._number += 1
        now = time.time()
        stamp = time.strftime("%Y%m%d.%H%M.%S", time.gmtime(now))
        msg_id = f"{stamp}.{int(now * 1000) % 1000:03}.{self._number}"
        full_id = f"{self.base}q/{queue}/{msg_id}"
        made = self.folder / f"{msg_id}.new"
        (made / "attach").mkdir(parents=True)
        known = {key: fields[key] for key in _FIELDS if key in fields}
        known.setdefault("orig_msg_id", full_id)
        (made / "msg").write_text(json.dumps({"msg_id": msg_id, **known}))
        (self.folder / "q" / queue / "prep").mkdir(exist_ok=True)
        made.rename(self.folder / "q" / queue / "prep" / msg_id)
        return full_id

    def find(self, queue: str, msg_id: str) -> tuple[str, Path] | None:
        """The state and the directory of a message."""
        for state in _STATES:
            place = self.folder / "q" / queue / state / msg_id
            if place.is_dir():
                return state, place
        return None

    def attach(self, place: Path, name: str, data: bytes) -> str:
        """Attach it, in place of what had the name; returns its MD5."""
        temporary = place / f"{name}.{threading.get_ident()}"
        temporary.write_bytes(data)
        temporary.rename(place / "attach" / name)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def commit(self, queue: str, place: Path) -> None:
        """It runs, and has done so at once."""
        (self.folder / "q" / queue / "done").mkdir(exist_ok=True)
        place.rename(self.folder / "q" / queue / "done" / place.name)

    def describe(self, state: str, place: Path) -> dict[str, Any]:
        """The message as it is shown."""
        attachments = {
            file.name: {
                "md5": hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest(),
                "size": file.stat().st_size, "path": str(file),
            }
            for file in (place / "attach").iterdir()
        }  # fmt: skip
        message = json.loads((place / "msg").read_text())
        return {**message, "state": state, "status": state, "_attachments": attachments}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    @property
    def spool(self) -> Spool:
        """The server's."""
        assert isinstance(self.server, PlainPeer)
        return self.server.spool

    def do_GET(self) -> None:
        """A message, its state, an attachment."""
        spool = self.spool
        if match := re.fullmatch(
            _MESSAGE + r"(?P<what>\.json|/state\.json|/attach/.+)", self._path()
        ):
            found = spool.find(match["queue"], match["msg_id"])
            if found is None:
                self._answer(404, ["fail", "msg not found"])
            elif match["what"] == ".json":
                self._answer(200, spool.describe(*found))
            elif match["what"] == "/state.json":
                self._answer(200, [found[0]])
            else:
                self._file(found[1] / match["what"][1:])
        else:
            self._answer(404, ["fail", f"no such page: {self.path}"])

    def do_POST(self) -> None:
        """A new message, an attachment, a commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, kind = self._path(), self.headers.get("Content-Type", "")
        if match := re.fullmatch(_QUEUE + "/new_message", path):
            self._new_message(match["queue"], _fields(kind, body))
        elif match := re.fullmatch(_MESSAGE + "(?P<attach>/attach/new)?", path):
            found = self.spool.find(match["queue"], match["msg_id"])
            if found is None or found[0] != "prep":
                self._answer(200, ["fail", "cannot find message"])
            elif match["attach"]:
                self._attach(found[1], kind, body)
            else:
                self._act(match["queue"], found[1], _fields(kind, body))
        else:
            self._answer(404, ["fail", f"no such page: {self.path}"])

    def do_OPTIONS(self) -> None:
        """What no Ruby RQ has heard of."""
        self._answer(404, ["fail", "not found"])

    do_HEAD = do_PATCH = do_PUT = do_DELETE = do_OPTIONS  # noqa: N815 - the library's names

    def _new_message(self, queue: str, given: dict[str, str]) -> None:
        spool = self.spool
        if not spool.has(queue):
            self._answer(404, ["fail", f"no such queue: {queue}"])
            return
        if spool.is_down(queue):
            self._answer(503, ["fail", "status: DOWN"])
            return
        fields = json.loads(given.get("mesg", "{}"))
        if not fields.get("dest"):
            self._answer(400, ["fail", 'input missing required "dest" parameter'])
            return
        full_id = spool.prepare(queue, fields)
        if fields.get("_method", "commit") == "commit":
            found = spool.find(queue, full_id.rpartition("/")[2])
            assert found is not None
            spool.commit(queue, found[1])
        self._answer(200, ["ok", full_id])

    def _attach(self, place: Path, kind: str, body: bytes) -> None:
        part = _file_part(kind, body)
        if part is None:
            self._answer(404, ["fail", "no filedata"])
            return
        md5 = self.spool.attach(place, *part)
        self._answer(200, ["ok", f"{md5}-Attached successfully"])

    def _act(self, queue: str, place: Path, given: dict[str, str]) -> None:
        if given.get("_method") == "commit":
            self.spool.commit(queue, place)
            self._answer(200, ["ok", "msg commited"])
        else:
            self._answer(400, ["fail", f"unknown method {given.get('_method')}"])

    def _path(self) -> str:
        return re.sub("/+", "/", unquote(self.path.partition("?")[0]))

    def _file(self, file: Path) -> None:
        if file.is_file():
            self._send(200, "application/octet-stream", file.read_bytes())
        else:
            self._answer(404, ["fail", "no such file"])

    def _answer(self, status: int, what: Any) -> None:
        self._send(status, "application/json", json.dumps(what).encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


class PlainPeer(ThreadingHTTPServer):
    """The server."""

    daemon_threads = True

    def __init__(self, folder: Path, address: str, port: int, base: str) -> None:
        self.spool = Spool(folder, base)
        super().__init__((address, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is no news."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _fields(kind: str, body: bytes) -> dict[str, str]:
    """The fields of a form; of a JSON body, which is the message itself, as ``mesg``."""
    if kind.startswith("application/json"):
        return {"mesg": body.decode(), **{k: str(v) for k, v in json.loads(body).items()}}
    return {
        name: values[-1] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()
    }


def _file_part(kind: str, body: bytes) -> tuple[str, bytes] | None:
    """Name and content of the part ``filedata`` of a form in parts; None when it is missing."""
    boundary = re.search(r'boundary="?([^";]+)"?', kind)
    if boundary is None:
        return None
    mark = b"--" + boundary[1].encode()
    for part in (b"\r\n" + body).split(b"\r\n" + mark):
        head, _, data = part.partition(b"\r\n\r\n")
        if b'name="filedata"' in head:
            name = re.search(rb'filename="((?:[^"\\]|\\.)*)"', head)
            if name is not None:
                plain = re.sub(rb"\\(.)", rb"\1", name[1])
                return os.fsdecode(plain.rpartition(b"/")[2]), data
    return None


def main() -> int:
    """The command; it runs until it is killed."""
    folder, address, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    base = sys.argv[4] if len(sys.argv) > 4 else f"http://{address}:{port}/"
    with PlainPeer(folder, address, port, base) as server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
