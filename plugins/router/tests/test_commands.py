"""``rq verify_rules`` and ``rq route``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Router

RULES = """\
rule "images"
  dest /images$/
  action :balance
  route "mq1", "mq2:4444"
  delay 5

rule "both"
  src /^cam/
  action :relay
  route ["mq1", "mq3"], "/q/local"
"""
EXAMPLES = Path(__file__).parents[3] / "examples" / "router"


@pytest.fixture
def here(own: Router) -> Router:
    """An instance that does not run, with rules and a host that is down."""
    own.rules(RULES, "rq_router_rules.rb")
    peers = own.rq.directory / "var" / "relay" / "peers.json"
    peers.parent.mkdir(parents=True)
    peers.write_text(json.dumps({"peers": {"http://mq1:3333/": {"reachable": False}}}))
    return own


def test_verify_rules_answers_in_the_words_of_old(own: Router, tmp_path: Path) -> None:
    for name in ("rq_router_rules.toml", "rq_router_rules.rb"):
        found = own("verify_rules", "--path", str(EXAMPLES / name))
        assert (found.status, found.out, found.err) == (0, "ok\n", "")
    told = own("verify_rules", f"--path={EXAMPLES / 'rq_router_rules.rb'}", "--verbose")
    assert (told.out, told.err.split(": ", 1)[1]) == ("ok\n", "4 rules and a default: err\n")
    one = tmp_path / "one.rb"
    one.write_text('rule "x"\nsrc /a/\naction :done\n')
    told = own("verify_rules", "--path", str(one), "-v")
    assert "1 rule and no default: what none of them takes ends in err\n" in told.err
    assert "-v, --verbose" in own("verify_rules", "--help").out
    bad = tmp_path / "bad.rb"
    bad.write_text('rule "x"\nsrc /(/\naction :shoot\n')
    found = own("verify_rules", "--path", str(bad))
    assert (found.status, found.out, found.err) == (1, "fail bad router rules file\n", "")
    told = own("verify_rules", "--path", str(bad), "--verbose")
    assert (told.status, told.out) == (1, "fail bad router rules file\n")
    assert f"rq: {bad}: line 2: " in told.err
    assert f"rq: {bad}: line 3: 'shoot' is no action" in told.err
    for path in (tmp_path / "nothing.rb", tmp_path, tmp_path / "x.json"):
        assert own("verify_rules", "--path", str(path)).out == "fail bad router rules file\n"
    assert own("verify_rules").status == 2


def test_route_shows_the_rule_and_where_it_goes(here: Router) -> None:
    found = here("route", "http://old:1/q/images")
    assert found.out.splitlines() == [
        "rule images (line 1): balance after 5 s",
        "  to one of http://mq1:3333/q/images (unreachable), http://mq2:4444/q/images",
    ]
    found = here("route", "--dest", "test", "--src", "camera")
    assert found.out.splitlines() == [
        "rule both (line 7): relay",
        "  to one of http://mq1:3333/q/test (unreachable), http://mq3:3333/q/test",
        "  to /q/local",
    ]
    assert here("route", "test").out == "no rule matches: err\n"
    assert here("route", "/q/relay").out == "messages for relay pass the rules by\n"
    assert here("route").out.splitlines() == [
        "line 1  images  balance  mq1 | mq2:4444  dest /images$/  after 5 s",
        "line 7  both  relay  mq1 | mq3, /q/local  src /^cam/",
        "no rule  default  err",
    ]


def test_route_for_programs(here: Router) -> None:
    found = json.loads(here("route", "images", "--json").out)
    assert (found["file"], found["good"]) == ("config/rq_router_rules.rb", True)
    assert found["rule"] == {
        "name": "images", "line": 1, "action": "balance", "src": None, "dest": "images$",
        "delay": 5.0, "log": False,
        "route": [[{"host": "mq1", "weight": 1.0}, {"host": "mq2:4444", "weight": 1.0}]],
    }  # fmt: skip
    assert found["copies"][0][0] == {
        "dest": "http://mq1:3333/q/images", "weight": 1.0, "local": False, "reachable": False,
    }  # fmt: skip
    rules = json.loads(here("route", "--json").out)["rules"]
    assert [rule["name"] for rule in rules] == ["images", "both", "default"]


def test_route_by_other_rules(here: Router, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    weights = '[{ host = "a", weight = 3 }, "/q/b"]'
    other.write_text(f"[[rule]]\nname='o'\ndest='.'\naction='balance'\nroute = {weights}")
    found = here("route", "x", "--path", str(other))
    assert found.out.splitlines()[1] == "  to one of http://a:3333/q/x (weight 3), /q/b"
    other.write_text("[[rule]]\nname='o'\n")
    found = here("route", "x", "--path", str(other))
    assert found.status == 4
    assert f"{other}: line 1: the rule 'o' has no action" in found.err
    assert here("route", "x", "--path", str(tmp_path / "none.rb")).status == 3


def test_route_where_there_is_nothing_to_go_by(here: Router) -> None:
    here.rules("nonsense", "rq_router_rules.rb")
    found = here("route", "x", "--json")
    assert found.status == 4
    assert "line 1: nonsense is not known" in found.err
    assert json.loads(found.out)["good"] is False
    (here.rq.directory / "config" / "rq_router_rules.rb").unlink()
    found = here("route", "x")
    assert found.status == 3
    assert "messages are not routed here" in found.err


@pytest.mark.process
def test_route_of_a_message_that_is_there(router: Router) -> None:
    router.rule("relay", "/q/local", delay=3600)
    msg_id, _ = router.send("images", src="me")
    for name in (f"rq_router/{msg_id}", f"http://localhost:3333/q/rq_router/{msg_id}"):
        found = router("route", "--msg_id", name)
        assert found.out == "rule it (line 1): relay after 3600 s\n  to /q/local\n"
    assert router("route", "--msg_id", "nonsense").status == 3
    assert router("route", "x", "--msg_id", f"rq_router/{msg_id}").status == 2
    router.rq.ask("rq_router", "delete_message", {"msg_id": msg_id})
