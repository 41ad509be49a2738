"""Clients that rely on the contract as a whole: the relay, Nagios' check, the Ruby release's own tests.

`RELAY` does what the Ruby release's relay script does, in its order and with its checks, with curl for
Net::HTTP.  What it must notice, it notices by the status and the body alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Web

RELAY = r"""#!/bin/bash
set -u
say() { echo "$*" >&3; exit 0; }
soft_fail() { say "resend $((RQ_COUNT * RQ_COUNT * 10))-$*"; }
post() { curl -sS -w '\n%{http_code}' "$@"; }
if [ -e relay_id ]; then new_id=$(cat relay_id); else
  mesg=$(python3 -c '
import json
old = json.load(open("../msg"))
keys = "dest src count max_count param1 param2 param3 param4 post_run_webhook orig_msg_id".split()
new = {key: old[key] for key in keys if key in old}
print(json.dumps({**new, "count": old.get("count", 0) + 1, "_method": "prep"}))')
  out=$(post --data-urlencode x_format=json --data-urlencode "mesg=$mesg" "${RQ_DEST%/}/new_message") ||
    soft_fail "Could not connect to or parse URL: $RQ_DEST"
  [ "${out##*$'\n'}" = 200 ] || soft_fail "Couldn't queue message: ${out##*$'\n'}"
  [[ "$out" =~ ^\[\"ok\",\"([^\"]*)\"\] ]] || soft_fail "Couldn't queue message: $out"
  new_id=${BASH_REMATCH[1]}
  echo -n "$new_id" > relay_id.tmp && mv relay_id.tmp relay_id
  [ -e "$RQ_PARAM1" ] && rm "$RQ_PARAM1" && curl -sS -d _method=delete "$new_id"
fi
short=${new_id##*/}
for file in ../attach/*; do
  [ -f "$file" ] || continue
  md5=$(md5sum < "$file" | cut -d ' ' -f 1)
  out=$(post -F "filedata=@$file;type=application/octet-stream" -F "pathname=${file##*/}" \
    -F "msg_id=$short" -F x_format=json "$new_id/attach/new") || soft_fail "Could not connect"
  [ "${out##*$'\n'}" = 200 ] || soft_fail "Couldn't attach - error ${out##*$'\n'}"
  case "$out" in
    '["ok","'"$md5"'-Attached successfully"]'*) ;;
    '["fail","cannot find message"]'*)
      rm relay_id; soft_fail "Remote message [$new_id] disappeared. Getting new id." ;;
    *) soft_fail "Couldn't attach to test message properly: $out" ;;
  esac
done
out=$(post -d msg_id="$short" -d _method=commit -d x_format=json "$new_id")
[ "${out##*$'\n'}" = 200 ] || soft_fail "Couldn't commit message: $out"
case "$out" in
  '["ok","msg commited"]'*) rm relay_id; say "relayed $new_id" ;;
  '["fail","cannot find message"]'*)
    rm relay_id; soft_fail "Remote message [$new_id] disappeared. Getting new id." ;;
  *) soft_fail "Couldn't commit message: $out" ;;
esac
"""


@pytest.fixture
def relaying(web: Web) -> Web:
    web.rq.queue("relay", RELAY)
    web.rq.queue("test", web.HELLO)
    web.rq.configure(host="127.0.0.1")
    return web.start()


def relayed(web: Web, tmp_path: Path, **fields: Any) -> str:
    """A message with two attachments, sent into relay; its id there."""
    sent = {"dest": f"{web.url}q/test", "src": "me", "count": 2, **fields}
    full = web.rq.ask("relay", "prep_message", sent)
    for name in ("one.bin", "two words"):
        (tmp_path / name).write_bytes(name.encode() * 50_000)
        args = {"msg_id": full, "pathname": str(tmp_path / name)}
        web.rq.ask("relay", "attach_message", args)
    web.rq.ask("relay", "commit_message", {"msg_id": full})
    return str(full).rpartition("/")[2]


def test_the_relay_carries_a_message_in_two_phases(relaying: Web, tmp_path: Path) -> None:
    msg_id = relayed(relaying, tmp_path, param2="ünï \" ' &=+%", post_run_webhook=["http://a/"])
    there = relaying.rq.until("relay", msg_id)
    new = re.fullmatch(rf"relayed - ({relaying.url}q/test/([\d.]+))", there["status"])
    assert new is not None, there["status"]
    here = relaying.rq.until("test", new[2], "done")
    assert (here["param2"], here["src"], here["count"]) == ("ünï \" ' &=+%", "me", 3)
    assert here["orig_msg_id"] == there["orig_msg_id"]
    assert here["post_run_webhook"] == ["http://a/"]
    for name in ("one.bin", "two words"):
        assert relaying.curl(
            f"{new[1].removeprefix(relaying.url)}/attach/{name.replace(' ', '%20')}"
        ).body == (name.encode() * 50_000)
    assert os.listdir(relaying.rq.directory / "tmp") == []


def test_the_relay_begins_anew_when_its_message_disappeared(relaying: Web, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.touch()
    msg_id = relayed(relaying, tmp_path, param1=str(trap), count=0)
    there = relaying.rq.until("relay", msg_id)
    assert there["state"] == "relayed", there["status"]
    log = (Path(there["path"]) / "job" / "stdio.log").read_text()
    assert "Traceback" not in log
    assert there["count"] == 1


@pytest.mark.parametrize("state", ["down", "gone"])
def test_the_relay_waits_while_the_other_queue_takes_nothing(
    relaying: Web, tmp_path: Path, state: str
) -> None:
    if state == "down":
        relaying.rq.manager.ask("down_queue", "test")
    dest = f"{relaying.url}q/{'test' if state == 'down' else 'none'}"
    msg_id = relayed(relaying, tmp_path, dest=dest)
    waiting = relaying.rq.until("relay", msg_id, "que", matching=lambda m: m["count"] == 3)
    assert "Couldn't queue message" in waiting["status"]
    assert ("503" if state == "down" else "404") in waiting["status"]


# Nagios


def check_rq(web: Web) -> dict[str, dict[str, str]]:
    """What the Ruby release's check_rq reads, by its own way of reading."""
    seen = {}
    for line in web.curl("/q.txt").text.split("\n"):
        found = re.search(r"q/(\S+)\.txt", line)
        if found:
            text = web.curl(f"/{line}").text
            seen[found[1]] = dict(re.findall(r"(.*): (\S+)", text))
    return seen


def test_nagios_reads_every_queue(web: Web) -> None:
    web.rq.queue("fails", web.FAILS)
    web.rq.queue("down", web.HELLO)
    (web.rq.directory / "config" / "down.down").touch()
    web.start()
    web.rq.until("fails", web.rq.send("fails"), "err")
    seen = check_rq(web)
    assert seen["down"] == {"status": "DOWN"}
    assert {**seen["fails"], "uptime": "0"} == {
        "status": "UP", "uptime": "0", "prep": "0", "que": "0", "run": "0", "done": "0",
        "relayed": "0", "err": "1",
    }  # fmt: skip


# Router mode


@pytest.fixture
def routing(web: Web) -> Web:
    for name in ("rq_router", "relay", "cleaner", "test", "webhook"):
        web.rq.queue(name, web.HELLO)
    web.start()
    web.old = web.rq.send("webhook")  # type: ignore[attr-defined]
    (web.rq.directory / "config" / "rq_router_rules.rb").touch()
    return web


@pytest.mark.parametrize("name", ["test", "anything", "webhook", "rq_router"])
def test_every_name_stands_for_the_router(routing: Web, name: str) -> None:
    body = json.dumps({"dest": f"http://elsewhere:3333/q/{name}", "_method": "prep"})
    ok, full = routing.curl(f"q/{name}/new_message", "--data-urlencode", f"mesg={body}").json()
    assert ok == "ok"
    found = re.fullmatch(r"http://.*/q/rq_router/([\d.]+)", full)
    assert found is not None
    path = f"q/{name}/{found[1]}"
    options = ("-F", "filedata=@-;filename=x", "-F", "x_format=json")
    assert routing.curl(f"{path}/attach/new", *options, stdin=b"x").json()[0] == "ok"
    assert routing.curl(f"{path}/attach/x").body == b"x"
    assert routing.curl(f"{path}/state.json").json() == ["prep"]
    committed = routing.curl(path, "-d", "_method=commit", "-d", "x_format=json")
    assert committed.text == '["ok","msg commited"]'
    routing.rq.until("rq_router", found[1], "done")
    assert routing.curl(f"{path}.json").json()["dest"] == f"http://elsewhere:3333/q/{name}"


@pytest.mark.parametrize("name", ["relay", "cleaner"])
def test_but_these_stand_for_themselves(routing: Web, name: str) -> None:
    answer = routing.curl(f"q/{name}/new_message", "-d", f'mesg={{"dest": "{name}"}}')
    assert f"/q/{name}/" in answer.json()[1]


def test_a_queue_that_is_there_can_be_looked_at(routing: Web) -> None:
    old = routing.old  # type: ignore[attr-defined]
    routing.rq.until("webhook", old, "done")
    assert routing.curl("q/webhook.json").json()["done_size"] == 1
    assert routing.curl("q/anything.json").json()["done_size"] == 0
    assert routing.curl("q/webhook/done.json").json() == [old]
    assert routing.curl(f"q/webhook/{old}.json").json()["state"] == "done"
    assert routing.curl(f"q/anything/{old}.json").status == 404
    assert routing.curl(f"q/webhook/{old}/clone", "-d", "x_format=json").json()[0] == "ok"
    assert len(routing.curl("search?name=webhook").json()) == 2
    assert routing.curl("q/anything/config.json").json()["name"] == "rq_router"


def test_a_router_without_its_queue_says_so(web: Web) -> None:
    (web.rq.directory / "config" / "rq_router_rules.json").touch()
    web.rq.queue("test", web.HELLO)
    web.start()
    answer = web.curl("q/test/new_message", "-d", 'mesg={"dest": "test"}')
    assert (answer.status, answer.json()) == (404, ["fail", "no such queue: rq_router"])


# A part of a body that comes in any pieces


def test_a_form_whose_boundary_comes_in_pieces(web: Web) -> None:
    """The Ruby release once lost bytes when a boundary came in two reads."""
    web.rq.queue("test", web.HELLO)
    web.start()
    full = web.rq.ask("test", "prep_message", {"dest": "test"})
    data = b"\r\n--------------------------\r\n" * 3000
    command = [
        "curl",
        "-sS",
        "--limit-rate",
        "400k",
        "-F",
        "filedata=@-;filename=x",
        "-F",
        "x_format=json",
    ]
    path = f"{web.url}q/test/{full.rpartition('/')[2]}/attach/new"
    done = subprocess.run([*command, path], input=data, capture_output=True, check=True, timeout=50)
    assert done.stdout.startswith(b'["ok","')
    assert web.curl(f"q/test/{full.rpartition('/')[2]}/attach/x").body == data
