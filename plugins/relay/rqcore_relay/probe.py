"""The service ``relay``: it notices when a peer that was down is back.

It sleeps until ``peers.json`` (`rqcore_relay.state`) says that a peer was not reached.  Such a peer is
asked for its ``q.txt`` after 1, 2, 4, … 30 seconds; any answer of HTTP but a 5xx counts.  Then it says
so in ``probes.json``, notes in ``peers.json`` that nobody knows any more whether the peer is reachable,
and has the message run whose turn it is: when that gets through, the queue's process lets the others
follow.

The probes of several peers run side by side, in threads.
"""

from __future__ import annotations

import json
import logging
import random
from time import monotonic, time

from rqcore import durable
from rqcore.client import QueueClient
from rqcore.errors import RqError
from rqcore.hookspecs import ServiceContext
from rqcore.loop import Loop, Timer
from rqcore.threads import Threads
from rqcore.watch import watcher
from rqcore_relay import state
from rqcore_relay.options import Options, PeerOptions, read_options

_log = logging.getLogger(__name__)
_FIRST, _MOST = 1.0, 30.0
#: Each transfer changes the file; it is read so often at most.
_LOOK_EVERY = 0.25
_SERVER_ERROR = 500


class Probe:
    """One peer that is down: how it is asked."""

    def __init__(self) -> None:
        self.pause = _FIRST
        self.timer: Timer | None = None
        #: What ``probes.json`` says of it: ``tried``, ``answered``, ``error``, ``next``.
        self.told: dict[str, object] = {"tried": None, "answered": None, "error": None}
        self._vain = 0
        self._not_before = 0.0

    def heard(self, problem: str, now: float, at: float) -> bool:
        """It was asked: may a message try now?  ``now`` is monotonic, ``at`` unix time.

        Where it answers all the time, and yet no message gets through, messages try no oftener than
        they would without it: after 10, 40, 90 … seconds.
        """
        self.told["error"] = problem or None
        if problem:
            self._vain, self._not_before = 0, 0.0
            return False
        if now < self._not_before:
            return False
        self._vain += 1
        self._not_before = now + 10.0 * self._vain**2
        self.told["answered"] = at
        return True


class Probes:
    """See the head of this module."""

    def __init__(self, loop: Loop, directory: str) -> None:
        self._loop = loop
        self._directory = directory
        self._files = state.Files(directory)
        self._threads = Threads(loop)
        self._probes: dict[str, Probe] = {}
        self._looks = False

    def look_soon(self) -> None:
        """The file has changed."""
        if not self._looks:
            self._looks = True
            self._loop.after(_LOOK_EVERY, self.look)

    def look(self) -> None:
        """See who is down now."""
        self._looks = False
        known = state.read(self._files.peers)
        down = {name for name, entry in known.items() if entry.get("failures")}
        changed = False
        for name in self._probes.keys() - down:
            timer = self._probes.pop(name).timer
            if timer is not None:
                timer.cancel()
            changed = True
        for name in down - self._probes.keys():
            self._probes[name] = Probe()
            self._later(name)
            changed = True
        if changed:
            self._tell()

    def _later(self, name: str) -> None:
        probe = self._probes[name]
        # Not all that went down together are asked together.
        pause = probe.pause * random.uniform(0.8, 1.0)  # noqa: S311 - no secret
        probe.pause = min(_MOST, probe.pause * 2)
        probe.told["next"] = time() + pause
        probe.timer = self._loop.after(pause, lambda: self._ask(name))

    def _ask(self, name: str) -> None:
        probe = self._probes[name]
        probe.timer = None
        probe.told["tried"] = time()

        def asked(result: str | Exception) -> None:
            if self._probes.get(name) is probe:
                self._asked(name, probe, str(result))

        self._threads.run(lambda: self._problem(name), asked)

    def _problem(self, name: str) -> str:
        """Why the peer does not answer, "" when it does.  In a thread."""
        try:
            options = read_options(self._directory)
            return ask(name, options, options.peer(name))
        except RqError as error:
            return str(error)

    def _asked(self, name: str, probe: Probe, problem: str) -> None:
        may_try = probe.heard(problem, monotonic(), time())
        self._later(name)
        self._tell()
        if may_try:
            _log.info("%s answers", name)
            self._run_next(name)

    def _run_next(self, name: str) -> None:
        """Let the message try whose turn it is, if there is one."""
        try:
            turn = self._note_answer(name)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._files.peers, error)
            return
        if not turn:
            return
        try:
            with QueueClient(self._directory, "relay", timeout=_MOST) as client:
                client.call("run_message", {"msg_id": turn})
        except (RqError, TimeoutError) as error:
            _log.warning("%s: the next message cannot be run: %s", name, error)

    def _note_answer(self, name: str) -> str:
        """Whether it is reachable, nobody knows any more; returns the message whose turn it is."""
        with self._files.locked():
            known = state.read(self._files.peers)
            entry = known.get(name) or {}
            if entry.get("reachable") is False:
                entry.update(reachable=None, since=time())
                data = json.dumps({"peers": known, "at": time()}).encode("ascii")
                durable.replace_unsynced(self._files.peers, data)
        return str(entry.get("turn") or "") if entry.get("failures") else ""

    def _tell(self) -> None:
        told = {name: probe.told for name, probe in sorted(self._probes.items())}
        data = json.dumps({"peers": told, "at": time()}, indent=1).encode("ascii") + b"\n"
        try:
            durable.replace_unsynced(self._files.probes, data)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._files.probes, error)


def watch(context: ServiceContext) -> int:
    """Run the service until it is to end."""
    loop = Loop()
    probes = Probes(loop, context.instance.directory)
    files = state.Files(context.instance.directory)
    files.make()
    watching = watcher(loop, probes.look)
    watching.members(
        files.folder, lambda change: probes.look_soon() if change.name == "peers.json" else None
    )
    loop.reader(context.stop_fd, loop.stop)
    probes.look()
    context.ready()
    loop.run()
    return 0


def ask(name: str, options: Options, peer: PeerOptions) -> str:
    """Ask a peer for its ``q.txt``: "" when it answers, else why that is no answer.

    Raises `RefusedError` when the token for it cannot be read.
    """
    # They are needed only now: most of the time nobody is down.
    import http.client  # noqa: PLC0415
    import ssl  # noqa: PLC0415
    from urllib.parse import urlsplit  # noqa: PLC0415

    parts = urlsplit(name)
    host, wait = parts.hostname or "", options.connect_timeout
    headers = {"User-Agent": "rqcore-relay", "Connection": "close"}
    authorization = peer.authorization()
    if authorization:
        headers["Authorization"] = authorization
    try:
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=peer.ca or None)
            if not peer.verify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection(
                host, parts.port, timeout=wait, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=wait)
        try:
            connection.request("GET", f"{parts.path}q.txt", headers=headers)
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return str(error) or type(error).__name__
    return f"it answers {status}" if status >= _SERVER_ERROR else ""
