"""What rq doctor is told of the peers."""

from __future__ import annotations

import json
from pathlib import Path
from time import time
from typing import Any

from rqcore_relay import state
from rqcore_relay.checks import checks

UP = {"reachable": True, "since": 1, "messages": 4, "last_success": 5}


def write(directory: Path, **peers: dict[str, Any]) -> str:
    files = state.Files(str(directory))
    files.make()
    named = {f"http://{name}:3333/": entry for name, entry in peers.items()}
    Path(files.peers).write_text(json.dumps({"peers": named}))
    return str(directory)


def down(oldest: float, waiting: int) -> dict[str, Any]:
    return {
        "reachable": False, "since": 1.0, "failures": 2, "waiting": waiting, "oldest": oldest,
        "last_error": {"text": "connection refused", "at": 7},
    }  # fmt: skip


def test_all_is_well(tmp_path: Path) -> None:
    (check,) = checks(str(tmp_path))
    assert (check.level, check.text) == ("ok", "nothing was relayed yet")
    (check,) = checks(write(tmp_path, good=UP))
    assert (check.level, check.text) == ("ok", "nothing waits for a machine that is down")


def test_a_machine_that_is_down_is_told_when_something_waits_for_it(tmp_path: Path) -> None:
    now = time()
    peers = {"lately": down(now - 130, 1), "long": down(now - 7300, 3), "idle": down(0, 0)}
    found = {check.name: check for check in checks(write(tmp_path, good=UP, **peers))}
    assert sorted(found) == ["peer http://lately:3333/", "peer http://long:3333/"]
    lately, long = found["peer http://lately:3333/"], found["peer http://long:3333/"]
    assert (lately.level, long.level) == ("warning", "critical")
    assert lately.text == (
        "1 message waits for http://lately:3333/, the oldest for 2 min: connection refused"
    )
    assert long.text.startswith("3 messages wait for http://long:3333/, the oldest for 2 h")
    assert "rq relay" in long.remedy
