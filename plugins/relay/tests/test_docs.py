"""docs/relay.md says what the plugin is: every option with its default, every metric, every fact."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path

from rqcore_relay.book import Peer
from rqcore_relay.metrics import exposition
from rqcore_relay.options import Options, PeerOptions, parse_options
from rqcore_relay.state import described

PAGE = (Path(__file__).parents[3] / "docs" / "relay.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_option_has_its_row_and_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section("Options"), re.MULTILINE)
    own = fields(Options)
    expected = [
        (option.name, "`{}`" if option.default is MISSING else f"{option.default:g}")
        for option in own
    ]
    assert rows[: len(own)] == expected
    shown = {"": "", True: "`true`", 4: "that of all"}
    assert rows[len(own) :] == [
        (option.name, shown[option.default]) for option in fields(PeerOptions)
    ]


def test_the_example_is_taken() -> None:
    example = re.search(r"```json\n(.*?)```", section("Options"), re.DOTALL)
    assert example is not None
    options = parse_options(json.loads(example[1])["plugins"]["relay"], "/rq/config/config.json")
    assert options.peer("https://mq2.example.com:3333/").ca == "/rq/config/mq2.pem"
    assert options.peer("http://10.0.0.7:3333/").per_peer == 8
    assert options.peer("http://other:1/").per_peer == 2


def test_every_metric_has_a_row() -> None:
    rows = re.findall(r"^\| `(rqcore_\w+)` \|", section("Looking"), re.MULTILINE)
    assert rows == re.findall(r"^# TYPE (\w+)", exposition([]), re.MULTILINE)


def test_every_fact_of_the_file_is_described() -> None:
    for key in described(Peer("http://a:1/")):
        assert f'"{key}": ' in section("Files")


def test_the_contents_lead_to_every_section() -> None:
    heads = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    links = re.findall(r"\[([^\]]+)\]\(#([\w-]+)\)", PAGE.partition("\n## ")[0])
    assert [text for text, _ in links] == heads
    assert [at for _, at in links] == [head.lower().replace(" ", "-") for head in heads]
