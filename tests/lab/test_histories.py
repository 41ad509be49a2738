"""The histories, as many as every run of the suite has time for: every phase of a transfer once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.needs import needs_root
from tests.lab.plans import ACCIDENTS, PHASES, accidents, plan

ROOT = Path(__file__).resolve().parents[2]
#: Each run of the suite plays others; a failure names the seed.
SEED = time.time_ns() % (1 << 30)


def histories(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.lab.histories", *options],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@needs_root
@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_message_arrives_whatever_happens_at_every_phase(tmp_path: Path) -> None:
    command = histories(
        "--seed", str(SEED), "--count", str(len(PHASES)), "--lanes", "4", "--every-phase",
        "--dir", str(tmp_path),
    )  # fmt: skip
    said, _ = command.communicate()
    assert command.returncode == 0, said
    assert f"{len(PHASES)} histories, 0 failed" in said


@needs_root
@pytest.mark.crash
def test_nothing_is_left_of_it_when_it_is_killed(tmp_path: Path) -> None:
    command = histories("--seed", "1", "--count", "1000", "--lanes", "1", "--dir", str(tmp_path))
    assert command.stdout is not None
    with command:
        assert command.stdout.readline() == "seed 1\n"
        assert command.stdout.readline() == "lab0 is up\n"
        command.kill()
        command.stdout.read()  # until nobody is left who could write to it


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    assert plan(1, 700) == plan(1, 700)
    assert plan(1, 700) != plan(2, 700)


def test_the_first_plans_come_by_every_phase_and_a_thousand_by_every_accident_at_each() -> None:
    first = [plan(5, number) for number in range(len(PHASES))]
    assert {(made.far, made.kind, made.point) for made in first} == set(PHASES)
    pairs = {(far, kind, point, a) for far, kind, point in PHASES for a in accidents(far)}
    made = [plan(5, number) for number in range(1000)]
    assert {(m.far, m.kind, m.point, m.accident) for m in made} == pairs
    assert {m.accident for m in made} == set(ACCIDENTS)
