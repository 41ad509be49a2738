"""rqcore.run: how much of a queue's loop one run may take.

All else about runs is seen from outside, by tests/acceptance.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: In a process of its own: a queue's process keeps descriptors 3 and 4 for its scripts.
LOOP = """
import sys
from rqcore.loop import Loop
from rqcore.message import Message
from rqcore.run import Run
from rqcore.script import reserve_descriptors, start_script

reserve_descriptors()
loop, turns = Loop(), []

class Refusing:
    # As a queue that is asked for copies to one that is not there.
    def on_status(self, run, text): pass
    def on_dup(self, run, dup):
        turns[-1] += 1
        run.answer(b"fail there is no queue none\\n")
    def on_ended(self, run):
        print(run.conclusion.verdict.kind, sum(turns), max(turns))
        loop.stop()

loop.on_turn_end = lambda: turns.append(0)
turns.append(0)
message = Message("20260101.0000.00.000.1", "http://x/q/y/20260101.0000.00.000.1", "y")
Run(loop, Refusing(), message, start_script([sys.argv[1]], {"PATH": sys.argv[2]}, sys.argv[3]))
loop.run()
loop.close()
"""


@pytest.mark.process
def test_copies_that_are_refused_at_once_let_others_have_their_turn(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        "#!/bin/bash\nfor i in {1..1500}; do echo 'dup 0-X-none'; done >&3\necho done >&3\n"
    )
    script.chmod(0o755)
    command = [sys.executable, "-c", LOOP, str(script), os.environ["PATH"], str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    kind, made, most = done.stdout.split()
    assert (kind, made) == ("done", "1500")
    assert int(most) <= 100
