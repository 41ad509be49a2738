"""What rq doctor is told of the peers."""

from __future__ import annotations

import json
from pathlib import Path
from time import time
from typing import Any

from rqcore_relay import state
from rqcore_relay.checks import checks
from rqcore_relay.options import Options, parse_options

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
    (check,) = checks(str(tmp_path), Options())
    assert (check.level, check.text) == ("ok", "nothing was relayed yet")
    (check,) = checks(write(tmp_path, good=UP), Options())
    assert (check.level, check.text) == ("ok", "nothing waits for a machine that is down")


def test_a_machine_that_is_down_is_told_when_something_waits_for_it(tmp_path: Path) -> None:
    now = time()
    peers = {"lately": down(now - 130, 1), "long": down(now - 7300, 3), "idle": down(0, 0)}
    found = {check.name: check for check in checks(write(tmp_path, good=UP, **peers), Options())}
    assert sorted(found) == ["peer http://lately:3333/", "peer http://long:3333/"]
    lately, long = found["peer http://lately:3333/"], found["peer http://long:3333/"]
    assert (lately.level, long.level) == ("warning", "critical")
    assert lately.text == (
        "1 message waits for http://lately:3333/, the oldest for 2 min: connection refused"
    )
    assert long.text.startswith("3 messages wait for http://long:3333/, the oldest for 2 h")
    assert "rq relay" in long.remedy


def test_what_others_can_read_is_told_once_and_hidden(tmp_path: Path) -> None:
    config, token = tmp_path / "config" / "config.json", tmp_path / "config" / "b.token"
    tmp_path.chmod(0o755)
    config.parent.mkdir()
    for file in (config, token):
        file.write_text("xyzzy")
        file.chmod(0o644)
    peers = {
        "http://a:3333/": {"token": "xyzzy"}, "http://b:3333/": {"token_file": "config/b.token"},
        "http://c:3333/": {"token_file": str(token)}, "http://d:3333/": {"token_file": "none"},
        "http://e:3333/": {"user": "e", "password": "xyzzy"},
    }  # fmt: skip
    options = parse_options({"peers": peers}, str(config))
    found = {check.name: check for check in checks(str(tmp_path), options)[1:]}
    assert sorted(found) == ["secret config/b.token", "secret config/config.json", "secret none"]
    assert len(checks(str(tmp_path), options)) == 1 + len(found)
    assert "cannot be read: No such file" in found["secret none"].text
    assert found["secret none"].remedy == "correct token_file"
    for name, file in (("secret config/config.json", config), ("secret config/b.token", token)):
        check = found[name]
        assert check.text.startswith(f"everybody can read {file}, which holds ")
        assert check.fix is not None
        assert check.fix() == f"{file} is 600 now"
    assert "xyzzy" not in str(found)
    assert [check.level for check in checks(str(tmp_path), options)[1:]] == [
        "ok", "critical", "ok",
    ]  # fmt: skip
    token.write_text("")
    assert "holds no token" in checks(str(tmp_path), options)[1].text
