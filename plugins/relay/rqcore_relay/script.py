"""``rq-relay``: the script of the queue relay, one process for each message that it carries.

It learns of the message as every queue script does, carries it, and tells what came of it on
descriptor 3: ``relayed FULL_ID``, ``resend DUE-REASON`` or ``fail REASON``.  It may be killed at any
instruction, and goes on from its notes (`rqcore_relay.job`) when it is run again.

What is no trouble of a transfer, a defect, leaves its traceback in the log and the message in err.
"""

from __future__ import annotations

import contextlib
import os
import sys
from time import monotonic, time

from rqcore.errors import RqError
from rqcore_relay import local
from rqcore_relay.job import Attachment, Job
from rqcore_relay.options import Options, read_options
from rqcore_relay.peers import peer_of
from rqcore_relay.progress import Progress
from rqcore_relay.verdict import (
    CutError,
    ForgottenError,
    GivenUpError,
    Patience,
    TroubleError,
    one_line,
    verdict,
)

_PIPE = 3
#: The queue that carries messages, here and on every other machine.
_QUEUE = "relay"


def main() -> int:
    """Carry the message of this environment."""
    if "RQ_MSG_DIR" not in os.environ:
        sys.stderr.write("rq-relay is the script of the queue relay: RQ runs it for each message\n")
        return 2
    Script(Job(os.environ)).run()
    return 0


class Script:
    """One run."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.peer = peer_of(job.url) or ""
        self.kind = ""
        #: None while nothing was heard of the peer, good or bad.
        self.reached: bool | None = None
        self.progress = Progress(0, self._show, monotonic)
        self.began = monotonic()

    def run(self) -> None:
        """Carry it, and tell what came of it."""
        job = self.job
        trouble: TroubleError | None = None
        try:
            options = read_options(job.directory)
        except RqError as error:
            options, trouble = Options(), TroubleError(str(error))
        try:
            if trouble is not None:
                raise trouble
            full_id = job.notes.committed or self._carry(options)
            job.arrived(full_id)
            self._end(f"relayed {full_id}", None)
        except GivenUpError as error:
            self._end(f"fail {one_line(error)}", TroubleError(str(error)))
        except (TroubleError, RqError, OSError) as error:
            self._fail(options, _as_trouble(error))

    def _carry(self, options: Options) -> str:
        job = self.job
        if job.force_remote:
            log("FORCE REMOTE")
        if job.url and f"{job.orig_msg_id}".startswith(f"{job.url}/"):
            raise GivenUpError("Relay loop detected: RQ_DEST queue same as RQ_ORIG_MSG_ID")
        _refuse_circles(job)
        attachments = job.attachments()
        queue = local.here(job)
        if queue is not None:
            self.kind = "local"
            log(f"handing over to queue {queue} of this instance")
            return local.hand_over(job, queue, attachments)
        if not self.peer:
            raise GivenUpError(
                f"{job.dest} is no queue and no URL of one; correct dest, send it again"
            )
        log(f"attempting remote {job.url}")
        self._show(f"connecting to {self.peer}")
        return self._send(options, attachments)

    def _send(self, options: Options, attachments: list[Attachment]) -> str:
        from rqcore_relay.far import FarEnd  # noqa: PLC0415 - what stays here needs no HTTP

        self.progress = Progress(sum(item.size for item in attachments), self._show, monotonic)
        with FarEnd(self.job, self.peer, options) as end:
            try:
                return end.carry(attachments, self.progress)
            finally:
                self.kind, self.reached = end.kind, end.answered or None

    def _fail(self, options: Options, trouble: TroubleError) -> None:
        job = self.job
        if isinstance(trouble, CutError):
            self.reached = False
        if isinstance(trouble, ForgottenError):
            job.forget()
        patience = Patience(
            job.count, options.max_tries, job.max_count,
            time() - job.notes.first, options.give_up_after,
        )  # fmt: skip
        with contextlib.suppress(OSError):  # then the former notes count
            job.note()
        name = f"{job.queue}/{job.msg_id}"
        self._end(verdict(trouble, patience, name, job.relay_id, _random), trouble)

    def _end(self, line: str, trouble: TroubleError | None) -> None:
        log(line)
        progress = self.progress
        with contextlib.suppress(OSError):  # it helps the plugin, and the message does not need it
            self.job.end({
                "peer": self.peer, "kind": self.kind, "reached": self.reached,
                "sent": progress.sent, "resent": progress.resent,
                "seconds": round(monotonic() - self.began, 6),
                "error": None if trouble is None else one_line(trouble),
                "retry_after": None if trouble is None else trouble.retry_after,
            })  # fmt: skip
        say(line)

    def _show(self, words: str) -> None:
        say(f"run {words}")


def _refuse_circles(job: Job) -> None:
    """A message that goes through relay again and again would be a new one each time, without end.

    Raises `GivenUpError`.
    """
    queue = job.dest.rstrip("/").rpartition("/")[2]
    if queue == _QUEUE or ("://" not in job.dest and queue == job.queue):
        raise GivenUpError(
            f"{queue} cannot be a destination; name the queue that is to run the message"
        )
    if job.count > job.max_count:
        raise GivenUpError(
            f"the message goes in a circle: it was passed on {job.count} times, its max_count is "
            f"{job.max_count}"
        )


def say(line: str) -> None:
    """Tell RQ; where nobody listens any more, this process ends, for it is about to be ended anyway."""
    try:
        os.write(_PIPE, f"{line}\n".encode("utf-8", "surrogateescape"))
    except BrokenPipeError:
        os._exit(1)


def log(line: str) -> None:
    """Write into the message's log; a disk that is full has no room for it, and stops nothing."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode("utf-8", "replace"))


def _random() -> float:
    """From 0 to 1; the library's takes longer to load than a small message takes to be carried."""
    return int.from_bytes(os.urandom(4), "big") / (1 << 32)


def _as_trouble(error: Exception) -> TroubleError:
    if isinstance(error, TroubleError):
        return error
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return TroubleError(f"cannot be done here: {error.strerror or error}{where}")
    return TroubleError(str(error))
