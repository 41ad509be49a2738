"""docs/cleaner.md says what the plugin is: every option, every rule that it shows, every metric."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

from rqcore_cleaner import health, totals
from rqcore_cleaner.options import DiskOptions, LogOptions, Options, parse_options
from rqcore_cleaner.rules import Rule, rule_for

from rqcore.instance import Instance
from rqcore.lifecycle import State

FOLDER = Path(__file__).parents[3]
PAGE = (FOLDER / "docs" / "cleaner.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_option_has_its_row() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|", section("Every option"), re.MULTILINE)
    own = [option.name for option in fields(Options) if option.name not in ("logs", "disk")]
    inner = [f"logs.{option.name}" for option in fields(LogOptions)]
    assert rows == [*own, *inner, *(f"disk.{option.name}" for option in fields(DiskOptions))]
    assert f'`"{Options().schedule}"`' in section("Every option")


def test_the_examples_are_taken() -> None:
    readme = (FOLDER / "plugins" / "cleaner" / "README.md").read_text()
    for text in (section("Rules"), readme):
        example = re.search(r"```json\n(.*?)```", text, re.DOTALL)
        assert example is not None
        rules = parse_options(json.loads(example[1])["plugins"]["cleaner"], "/rq/c").retention
        assert rule_for(rules, "images", State.DONE).size == 200_000_000_000
        assert rule_for(rules, "other", State.DONE) == Rule(age=2 * 86400)


def test_every_metric_is_named(tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    totals.add(str(tmp_path), {"test": (1, 1)})
    families = health.metrics(Instance(tmp_path), Options())
    named = re.findall(r"`(rqcore_\w+)", section("Files"))
    assert sorted(named) == sorted(family.name for family in families)


def test_every_contents_line_leads_to_its_section() -> None:
    listed = re.findall(r"^- \[(.*?)\]\(#(.*?)\)$", PAGE, re.MULTILINE)
    assert [title for title, _ in listed] == re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    for title, anchor in listed:
        assert anchor == re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
