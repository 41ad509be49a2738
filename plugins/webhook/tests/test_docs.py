"""docs/webhook.md says what the plugin is: each option with its default, each event, metric and file."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from time import time

from rqcore_webhook import metrics, verdict
from rqcore_webhook.health import RESULTS, Files, Health
from rqcore_webhook.options import ENDS, EVENTS, Endpoint, Options, parse_options

PAGE = (Path(__file__).parents[3] / "docs" / "webhook.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_option_has_its_row_and_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\|", section("Options"), re.MULTILINE)
    special = {
        "networks": '`"internal"`', "endpoints": "`{}`", "url": "", "format": "`form`",
        "events": "the three ends", "queues": '`["*"]`', "secrets": "`[]`", "secret_file": "",
        "headers": "`{}`", "ca": "", "verify": "`true`",
    }  # fmt: skip

    def shown(kind: type[Options | Endpoint], *inherited: str) -> list[tuple[str, str]]:
        found = []
        for option in fields(kind):
            default = special.get(option.name)
            if option.name in inherited:
                default = "that of all"
            elif default is None:
                assert option.default is not MISSING
                default = f"{option.default:g}"
            found.append((option.name, default))
        return found

    assert rows == [*shown(Options), *shown(Endpoint, "timeout", "concurrency")]
    assert ENDS == ("message.done", "message.err", "message.relayed")


def test_the_examples_are_taken() -> None:
    examples = [
        json.loads(text)
        for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
        if '"plugins"' in text
    ]
    assert len(examples) == 3
    for example in examples:
        parse_options(example["plugins"]["webhook"], "/rq/config/config.json")
    options = parse_options(examples[0]["plugins"]["webhook"], "/rq/config/config.json")
    assert options.endpoints["ops"].secret_file == "/rq/config/ops.secret"


def test_every_event_has_its_row() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", section("Events"), re.MULTILINE)
    assert dict(rows) == EVENTS


def test_every_metric_has_its_row(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(rqcore_\w+)` \|", section("Looking"), re.MULTILINE)
    assert rows == [family.name for family in metrics.families(str(tmp_path), Options())]
    for result in RESULTS:
        assert f"`{result}`" in section("Looking")


def test_the_file_is_described_as_it_is(tmp_path: Path) -> None:
    shown = re.search(r"```json\n(.*?)```", section("Files"), re.DOTALL)
    assert shown is not None
    files = Files(str(tmp_path))
    files.write({"ops": Health(last_success=time())})
    written = json.loads(Path(files.health).read_text())
    assert json.loads(shown[1])["targets"]["ops"].keys() == written["targets"]["ops"].keys()
    for name in (verdict.ATTEMPTS_FILE, "sent.jsonl"):
        assert name in section("Files")


def test_the_contents_lead_to_every_section() -> None:
    heads = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    links = re.findall(r"\[([^\]]+)\]\(#([\w-]+)\)", PAGE.partition("\n## ")[0])
    assert [text for text, _ in links] == heads
    assert [at for _, at in links] == [head.lower().replace(" ", "-") for head in heads]
