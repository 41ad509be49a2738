"""A queue with a million messages that are done: what its pages and lists take on the server.

The messages are written into ``done/`` before the start, as an operator could move them there: the spool
is plain directories.  Most lie in a few minutes' directories, as after a busy hour, the rest in one of
their own for each of many minutes; both ways have their price.  Their files are links to a few, for it
is the directories that count here.

Each request is made on an open connection, one after another, after one that is not counted; the goal is
below 100 ms.  Beside it stand the answers of the same site about a queue with a hundred messages.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import time
from pathlib import Path

from benchmarks.harness import SH_SCRIPT, Bench, Figure
from benchmarks.sites import site
from rqcore.testing import RunningInstance

_GOAL = 100.0
_FEW = 100
#: So many messages share a file: fewer than any file system lets a file have links.
_LINKS = 30_000
#: What part of all lies in busy minutes, and how many in each.
_DENSE, _DENSE_MINUTE = 0.8, 20_000
_REQUESTS = 15


def measure(bench: Bench) -> list[Figure]:
    """Fill a queue, start, and ask."""
    count = bench.done or bench.pick(1_000_000, 20_000)
    with bench.instance("million") as instance:
        port = site(instance)
        for name in ("few", "many"):
            instance.queue(name, SH_SCRIPT)
        fill(instance.directory / "queue/few", _FEW)
        began = time.perf_counter()
        fill(instance.directory / "queue/many", count)
        filled = time.perf_counter() - began
        os.sync()  # the fill itself is no part of what is measured
        began = time.perf_counter()
        instance.start()
        instance.serving("many")
        started = time.perf_counter() - began
        return [
            Figure(f"filling a queue with {count:,} done messages", filled, "s"),
            Figure("start of the instance with it", started, "s"),
            *_asked(instance, port, bench.pick(_REQUESTS, 5)),
        ]


def fill(queue: Path, count: int) -> None:
    """Write so many done messages, the newest an hour old."""
    end = int(time.time()) - 3600
    dense = int(count * _DENSE)
    made = 0
    minute = end // 60
    while made < count:
        many = min(_DENSE_MINUTE, dense - made) if made < dense else 1
        _fill_minute(queue, minute, many, made)
        made += many
        minute -= 1


def _fill_minute(queue: Path, minute: int, count: int, made: int) -> None:
    stamp = time.strftime("%Y%m%d.%H%M", time.gmtime(minute * 60))
    folder = f"{queue}/done/{stamp[:8]}/{stamp[9:11]}/{stamp[11:13]}"
    os.makedirs(folder)
    for number in range(count):
        if (made + number) % _LINKS == 0 or made + number == 0:
            _write_files(queue)
        second, milli = divmod(number * 60_000 // count, 1000)
        path = f"{folder}/{stamp}.{second:02}.{milli:03}.{number:05}17"
        os.mkdir(path)
        os.link(f"{queue}/msg.bench", f"{path}/msg")
        os.link(f"{queue}/status.bench", f"{path}/status")


def _write_files(queue: Path) -> None:
    fields = {
        "dest": "bench", "src": "bench", "param1": "one", "param2": "two", "param3": "", "param4": "",
        "due": 1, "count": 0, "max_count": 15, "orig_msg_id": "http://localhost:3333/q/bench/0",
    }  # fmt: skip
    for name, value in (("msg", fields), ("status", {"job_status": "fine"})):
        path = queue / f"{name}.bench"
        path.unlink(missing_ok=True)
        path.write_text(json.dumps(value))


def _asked(instance: RunningInstance, port: int, times: int) -> list[Figure]:
    newest = instance.ask("many", "list_messages", {"state": "done", "limit": 50})["items"]
    middle = newest[-1]["msg_id"]
    asked = {
        "overview page": "",
        "queue page": "q/{}",
        "queue page, tab done": "q/{}?state=done",
        "queue page, further back": f"q/{{}}?state=done&before={middle}",
        "/q/NAME.json": "q/{}.json",
        "/q/NAME/done.json?limit=1000": "q/{}/done.json?limit=1000",
        "/q.json": "q.json",
        "/api/v1 list of 50": "api/v1/queues/{}/messages?state=done&limit=50",
        "/api/v1 list of 1000": "api/v1/queues/{}/messages?state=done&limit=1000",
        "/api/v1 filter that finds nothing": "api/v1/queues/{}/messages?state=done&filter=nosuchword",
        "search over all queues": "-/search?q=nosuchword",
        "errors page": "errors",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    figures = []
    for what, path in asked.items():
        many = _ask(connection, path.format("many"), times)
        few = _ask(connection, path.format("few"), times)
        note = f"slowest {max(many) * 1e3:.0f} ms; the goal is {_GOAL:.0f} ms"
        value, limit = statistics.median(many) * 1e3, statistics.median(few) * 1e3
        figures.append(
            Figure(what, value, "ms", f"with {_FEW} messages", limit, value / limit, note)
        )
    connection.close()
    return figures


def _ask(connection: http.client.HTTPConnection, path: str, times: int) -> list[float]:
    taken = []
    for _ in range(times + 1):
        began = time.perf_counter()
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        answer.read()
        taken.append(time.perf_counter() - began)
        if answer.status != 200:
            raise RuntimeError(f"/{path} is answered by {answer.status}")
    return taken[1:]
