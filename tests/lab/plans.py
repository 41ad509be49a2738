"""What may go wrong in a history, drawn by chance that a seed decides.

A `Plan` says where the message goes, what it carries, and at which phase of the transfer which accident
happens.  A phase is a kind of request and a point of its exchange (`tests.lab.proxy`).  The first plans
of a seed come by every phase once, those after them by every pair of phase and accident, and then it is
chance alone; plan N of a seed is always the same.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field

from tests.lab.proxy import POINTS

#: Kinds of requests of the relay, and those of them that have no body.
KINDS = {
    "rqcore": ("discover", "prepare", "upload", "patch", "commit", "look", "offset"),
    "plain": ("discover", "plain prepare", "plain attach", "plain commit", "plain look"),
}
_NO_BODY = ("discover", "look", "offset", "commit", "plain look")
#: What comes only after something went wrong: this (kind, point) is reset first.
_AFTER = {
    "look": ("upload", "arriving"), "offset": ("patch", "midway"),
    "plain look": ("plain attach", "midway"),
}  # fmt: skip
PHASES = [
    (far, kind, point)
    for far, kinds in KINDS.items()
    for kind in kinds
    for point in POINTS
    if point != "midway" or kind not in _NO_BODY
]
#: What can happen; see `tests.lab.histories`.
ACCIDENTS = (
    "reset", "silence", "cut", "cut there", "cut back", "kill service", "kill receiver", "kill sink",
    "kill script", "kill relay", "kill sender", "disk full",
)  # fmt: skip
#: Sizes of attachments in bytes: none, a few, one block, more than what is sent at once, several blocks.
SIZES = (0, 5, 4_096, 100_000, 300_000, 700_000, 1_500_000)


def accidents(far: str) -> list[str]:
    """Those that make sense with this kind of far end: a plain one is a single process."""
    left_out = ("kill sink", "kill receiver") if far == "plain" else ()
    return [accident for accident in ACCIDENTS if accident not in left_out]


@dataclass
class Plan:
    """One history."""

    number: int
    far: str
    kind: str
    point: str
    accident: str
    sender: str
    receiver: str
    #: Sizes of the attachments.
    files: list[int]
    #: What the link between the two does all the time.
    wire: dict[str, float] = field(default_factory=dict)
    #: So long the accident lasts, seconds, where it does not end by itself.
    lasts: float = 0.0
    #: So many bytes are left on the disk.
    left: int = 0
    #: (kind, point) whose connection is reset before.
    before: tuple[str, str] | None = None
    #: Does another message go to the third machine meanwhile?
    bystander: bool = False
    #: So many more messages go to the same receiver, without attachments.
    more: int = 0

    def __str__(self) -> str:
        return f"history {self.number}: " + ", ".join(
            f"{key} {value}" for key, value in asdict(self).items() if key != "number" and value
        )


def plan(seed: int, number: int) -> Plan:
    """Plan ``number`` (from 0) of this seed."""
    chance = random.Random(f"{seed}/{number}")
    far, kind, point, accident = _subject(seed, number, chance)
    sender = chance.choice("ab")
    receiver = "c" if far == "plain" else "ba"["ab".index(sender)]
    files = [chance.choice(SIZES) for _ in range(chance.choice((1, 1, 2, 3)))]
    if kind in ("patch", "offset"):
        files[0] = chance.choice(SIZES[4:])
    elif kind == "upload" and point == "midway":
        files[0] = 100_000
    elif "look" in kind or "attach" in kind:
        files[0] = chance.choice(SIZES[1:])
    wire: dict[str, float] = {}
    if chance.random() < 0.4:
        wire = chance.choice([{"delay": 0.01}, {"loss": 0.02}, {"rate": 4_000_000}])
    return Plan(
        number, far, kind, point, accident, sender, receiver, files, wire,
        lasts=chance.choice((0.0, 0.3, 1.5)), left=chance.choice((0, 20_000, 200_000)),
        before=_AFTER.get(kind), bystander=chance.random() < 0.3,
        more=chance.choice((0, 0, 0, 4)),
    )  # fmt: skip


def _subject(seed: int, number: int, chance: random.Random) -> tuple[str, str, str, str]:
    order = random.Random(seed)
    phases = order.sample(PHASES, len(PHASES))
    if number < len(phases):
        return *phases[number], chance.choice(accidents(phases[number][0]))
    pairs = [(*phase, accident) for phase in PHASES for accident in accidents(phase[0])]
    order.shuffle(pairs)
    number -= len(phases)
    return pairs[number] if number < len(pairs) else chance.choice(pairs)
