"""The states of a message and every way from one to another, as data.

ARCHITECTURE.md shows the same table to people, and a test compares the two.  The store performs a
step (`SpoolStore`), the queue process decides on it; nobody moves a message by any other way.

Each step is made true by one system call.  A crash before it leaves the old state, a crash after it
the new one; there is no third.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a message can be; the value is the name of its directory."""

    PREP = "prep"
    QUE = "que"
    RUN = "run"
    DONE = "done"
    RELAYED = "relayed"
    ERR = "err"


#: States in which a message rests for good, until it is deleted.
FINAL = frozenset({State.DONE, State.RELAYED, State.ERR})


class Step(StrEnum):
    """Why a message changes state."""

    PREPARE = "prepare"
    CREATE = "create"
    COMMIT = "commit"
    ADOPT = "adopt"
    START = "start"
    UNSTART = "unstart"
    FINISH = "finish"
    RESEND = "resend"
    RECOVER = "recover"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    DELETE = "delete"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the table: ``old`` is None where the message begins, ``new`` where it is gone."""

    step: Step
    old: State | None
    new: State | None
    made_true_by: str
    durable: bool
    after_crash: str


_P, _Q, _R = State.PREP, State.QUE, State.RUN
_TO_QUE = "rename(run/ID, que/ID)"
_AGAIN = "still in run: goes back to que at the next start and runs again"

TRANSITIONS: tuple[Transition, ...] = (
    Transition(Step.PREPARE, None, _P, "rename(tmp/ID, prep/ID)", True,
               "tmp is emptied at the next start; the sender was not told ok"),
    Transition(Step.CREATE, None, _Q, "rename(tmp/ID, que/ID)", True,
               "tmp is emptied at the next start; the sender was not told ok"),
    Transition(Step.COMMIT, _P, _Q, "rename(prep/ID, que/ID)", True,
               "still in prep; the sender commits again"),
    Transition(Step.ADOPT, None, _P, "rename by the operator", False,
               "found at the next start"),
    Transition(Step.ADOPT, None, _Q, "rename by the operator", False,
               "found at the next start"),
    Transition(Step.START, _Q, _R, "rename(que/ID, run/ID)", False,
               "still in que: starts at the next start"),
    Transition(Step.UNSTART, _R, _Q, _TO_QUE, False, _AGAIN),
    Transition(Step.FINISH, _R, State.DONE, "rename(run/ID, done/DAY/HH/MM/ID)", True, _AGAIN),
    Transition(Step.FINISH, _R, State.RELAYED, "rename(run/ID, relayed/DAY/HH/MM/ID)", True, _AGAIN),
    Transition(Step.FINISH, _R, State.ERR, "rename(run/ID, err/ID)", True, _AGAIN),
    Transition(Step.RESEND, _R, _Q, _TO_QUE, True, _AGAIN),
    Transition(Step.RECOVER, _R, _Q, _TO_QUE, True, _AGAIN),
    Transition(Step.DUPLICATE, _Q, State.DONE, "rename(que/ID, done/DAY/HH/MM/ID)", True,
               "still in que: runs as a message of its own"),
    Transition(Step.DUPLICATE, _Q, State.RELAYED, "rename(que/ID, relayed/DAY/HH/MM/ID)", True,
               "still in que: runs as a message of its own"),
    Transition(Step.RETRY, State.ERR, _Q, "rename(err/ID, que/ID)", True,
               "still in err; the asker was not told ok"),
    *(
        Transition(Step.DELETE, state, None, f"rename({place}/ID, tmp/ID)", True,
                   "still there, or in tmp, which is emptied at the next start")
        for state, place in (
            (_P, "prep"), (_Q, "que"), (State.DONE, "done/DAY/HH/MM"),
            (State.RELAYED, "relayed/DAY/HH/MM"), (State.ERR, "err"),
        )
    ),
    *(
        Transition(Step.QUARANTINE, state, None, f"rename({state}/ID, corrupt/ID)", True,
                   "found again, and set aside again, at the next start")
        for state in (_P, _Q, _R)
    ),
)  # fmt: skip

_ALLOWED = {(t.step, t.old, t.new): t for t in TRANSITIONS}


def transition(step: Step, old: State | None, new: State | None) -> Transition:
    """The row for this change.  Raises `LookupError` for one that the table does not know."""
    try:
        return _ALLOWED[step, old, new]
    except KeyError:
        raise LookupError(f"no such transition: {step} from {old} to {new}") from None
