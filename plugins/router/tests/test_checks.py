"""What rq doctor is told of the rules."""

from __future__ import annotations

from pathlib import Path

from rqcore_router.checks import checks
from rqcore_router.keeper import settle

GOOD = '[[rule]]\nname = "default"\naction = "done"\n'


def write(tmp_path: Path, text: str) -> str:
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config" / "rq_router_rules.toml").write_text(text)
    return str(tmp_path)


def test_where_nothing_is_routed_there_is_nothing_to_tell(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    assert checks(str(tmp_path)) == []


def test_how_the_rules_are(tmp_path: Path) -> None:
    (bad,) = checks(write(tmp_path, "rule = 5"))
    assert bad.level == "critical"
    assert "queue rq_router is DOWN" in bad.text
    assert "rq verify_rules --path" in bad.remedy
    (good,) = checks(write(tmp_path, GOOD))
    assert good.level == "ok", good
    settle(str(tmp_path))
    (kept,) = checks(write(tmp_path, "rule = 6"))
    assert kept.level == "warning"
    assert kept.text.endswith("; the last good ones stay in force")
