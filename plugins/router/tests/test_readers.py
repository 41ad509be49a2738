"""The two readers: what they accept, what they refuse and where, and that both mean the same."""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rqcore_router.hosts import destination
from rqcore_router.problems import RulesError
from rqcore_router.rubyfile import read_ruby
from rqcore_router.rules import Host, Rules
from rqcore_router.tomlfile import read_toml

EXAMPLES = Path(__file__).parents[3] / "examples" / "router"
Read = Callable[[str], Rules]


def problems(read: Read, text: str) -> list[tuple[int, str]]:
    """What is wrong with this text: lines and words."""
    with pytest.raises(RulesError) as caught:
        read(text)
    return [(problem.line, problem.text) for problem in caught.value.problems]


# --- what they accept

RUBY = """\
# comment before everything

rule "first"   # opened
  src   /cam(era)?/i
  # a comment does not close a rule
  dest  /images$/
  action :relay
  route "a", ["b", "c:4444"], '/q/local'
  delay 10
  log true

rule 'default'
action :err
"""

TOML = """\
[[rule]]
name = "first"
src = '(?i)cam(era)?'
dest = 'images$'
action = "relay"
route = ["a", ["b", { host = "c:4444" }], "/q/local"]
delay = 10
log = true
[[rule]]
name = "default"
action = "err"
"""


@pytest.mark.parametrize(("read", "text"), [(read_ruby, RUBY), (read_toml, TOML)])
def test_everything_that_a_rule_can_say(read: Read, text: str) -> None:
    rules = read(text)
    (first,) = rules.rules
    assert (first.name, first.action, first.delay, first.log) == ("first", "relay", 10, True)
    assert first.route == ((Host("a"),), (Host("b"), Host("c:4444")), (Host("/q/local"),))
    assert rules.match("CAMERA", "images") is first
    assert rules.match("CAMERA", "imagesx") is rules.default
    assert rules.match("x", "images") is rules.default
    assert (rules.default.action, rules.default.line > 0) == ("err", True)


def test_weights_are_for_toml_alone() -> None:
    route = '[{ host = "a", weight = 3 }, { host = "b", weight = 0.5 }]'
    rules = read_toml(f"[[rule]]\nname='w'\nsrc='.'\naction='balance'\nroute = {route}")
    assert rules.rules[0].route == ((Host("a", 3), Host("b", 0.5)),)


def test_without_a_default_rule_what_is_left_is_an_error() -> None:
    rules = read_ruby('rule "x"\nsrc /a/\naction :done')
    assert (rules.match("a", "").action, rules.match("b", "").action) == ("done", "err")
    assert rules.default.line == 0


def test_the_first_rule_that_matches_wins() -> None:
    text = 'rule "one"\nsrc /a/\naction :done\n\nrule "two"\nsrc /ab/\naction :err\n'
    assert read_ruby(text).match("ab", "x").name == "one"


def test_a_statement_goes_on_after_a_comma_and_in_brackets() -> None:
    text = 'rule "x"\r\nsrc /a/\r\naction :relay\r\nroute "a", # one\r\n [\r\n"b",\r\n"c"\r\n]\r\n'
    assert read_ruby(text).rules[0].route == ((Host("a"),), (Host("b"), Host("c")))


def test_the_examples_are_good_and_mean_the_same() -> None:
    toml = read_toml((EXAMPLES / "rq_router_rules.toml").read_text())
    ruby = read_ruby((EXAMPLES / "rq_router_rules.rb").read_text())
    assert [rule.name for rule in toml.rules] == [rule.name for rule in ruby.rules]
    for src, dest in [("camera1", "report"), ("camera1x", "report"), ("", "/q/images"),
                      ("legacy1", "x"), ("", "thumbnails"), ("", "")]:  # fmt: skip
        assert toml.match(src, dest).name == ruby.match(src, dest).name


@pytest.mark.parametrize(
    "page", ["docs/router.md", "plugins/router/README.md", "examples/router/rq_router_rules.toml",
             "examples/router/rq_router_rules.rb"],
)  # fmt: skip
def test_the_rule_for_images_takes_them_however_the_sender_wrote_it(page: str) -> None:
    text = (EXAMPLES.parents[1] / page).read_text()
    whole = [] if page.endswith(".md") else [text]
    toml = re.findall(r"```toml\n(.*?)```|<<'END'\n(.*?)END\n", text, re.DOTALL)
    ruby = re.findall(r"```ruby\n(.*?)```", text, re.DOTALL)
    found = [read_toml(one or other) for one, other in toml] + [read_ruby(block) for block in ruby]
    found += [read_ruby(t) if page.endswith(".rb") else read_toml(t) for t in whole]
    assert found
    for rules in found:
        for dest in ("images", "/q/images", "http://mq1:3333/q/images"):
            assert rules.match("", dest).name == "images"
        assert rules.match("", "oldimages").name != "images"


@pytest.mark.parametrize("page", ["docs/router.md", "plugins/router/README.md"])
def test_the_pages_show_rules_that_are_good(page: str) -> None:
    text = (EXAMPLES.parents[1] / page).read_text()
    toml = re.findall(r"```toml\n(.*?)```", text, re.DOTALL) + re.findall(
        r"<<'END'\n(.*?)END\n", text, re.DOTALL
    )
    assert toml
    for block in toml:
        assert read_toml(block).rules
    for block in re.findall(r"```ruby\n(.*?)```", text, re.DOTALL):
        assert read_ruby(block).rules


def test_the_page_tells_what_hosts_mean() -> None:
    text = (EXAMPLES.parents[1] / "docs" / "router.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| `(http\S+)` \| (?:`(\S+)`|the same) \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for host, bare, url in rows:
        assert destination(host, "test") == bare
        assert destination(host, "http://mq1:4444/rq/q/test") == (url or bare)


# --- what they refuse, and where


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "there is no rule"),
        ("# nothing\n", 1, "there is no rule"),
        ('puts "x"', 1, "puts is not known; a line begins with one of rule, src"),
        ('rule "x" do\n', 1, "opened by its name alone"),
        ("rule x\n", 1, "opened by its name alone"),
        ('src /a/\n\nrule "x"', 1, 'src belongs to no rule; write a line rule "NAME"'),
        ('rule "x"\nsrc /a/\n\naction :err\n', 4, "action belongs to no rule"),
        ('rule "x"\nsrc /a/\naction :err\nrule "y"\n', 4, "an empty line must stand before"),
        ('rule "x"\nsrc /a/\nsrc /b/\naction :err', 3, "src is said twice"),
        ('rule "x"\nsrc "a"\naction :err', 2, "src must be followed by a regular expression"),
        ('rule "x"\nsrc /a/ || /b/\naction :err', 2, "'|| /b/' is not understood"),
        ('rule "x"\nsrc /a\naction :err', 2, "'/a' is not understood"),
        ('rule "x"\nsrc %r{a}\naction :err', 2, "is not understood"),
        ('rule "x"\nsrc /#{`id`}/\naction :err', 2, "#{ would be executed"),
        ('rule "x"\nsrc /[#{1}]/\naction :err', 2, "#{ would be executed"),
        ('rule "x"\nsrc /(/\naction :err', 2, "is no regular expression"),
        ('rule "x"\nsrc /a/u\naction :err', 2, "the flag 'u' is not known"),
        ('rule "x"\nsrc /é/i\naction :err', 2, "only ASCII letters"),
        ('rule "x"\nsrc /[[:upper:]]/i\naction :err', 2, "upper and lower are the same"),
        ('rule "x"\nsrc /\\p{L}/\naction :err', 2, "\\p is not known here"),
        ('rule "x"\nsrc /[a[b]]/\naction :err', 2, "brackets within brackets"),
        ('rule "x"\nsrc /[a&&b]/\naction :err', 2, "&& within brackets"),
        ('rule "x"\nsrc /a{2}+/\naction :err', 2, "use (?>"),
        ('rule "x"\nsrc /(?~a)/\naction :err', 2, "(?~ is not known here"),
        ('rule "x"\nsrc /[]/\naction :err', 2, "the brackets [] are empty"),
        ('rule "x"\nsrc /a/\naction :shoot', 3, "'shoot' is no action; there are relay, balance"),
        ('rule "x"\nsrc /a/\naction "err"', 3, "action must be followed by :relay"),
        ('rule "x"\nsrc /a/', 1, "the rule 'x' has no action"),
        ('rule "x"\naction :err', 1, "has neither src nor dest"),
        ('rule "x"\nsrc /a/\naction :relay', 1, "relay needs a route"),
        ('rule "x"\nsrc /a/\naction :relay\nroute', 4, "route must be followed by hosts"),
        ('rule "x"\nsrc /a/\naction :relay\nroute []', 4, "a list of the route is empty"),
        ('rule "x"\nsrc /a/\naction :relay\nroute "a" "b"', 4, "route must be followed by hosts"),
        ('rule "x"\nsrc /a/\naction :relay\nroute ["a" "b"]', 4, "route must be followed"),
        ('rule "x"\nsrc /a/\naction :relay\nroute "a",\n\n', 4, "an empty line closes a rule"),
        ('rule "x"\nsrc /a/\naction :relay\nroute "a",', 4, "the file ends too early"),
        ('rule "x"\nsrc /a/\naction :relay\nroute "a b"', 4, "'a b' is no host"),
        ('rule "x"\nsrc /a/\naction :relay\nroute "#{x}"', 4, "#{} would be executed"),
        ('rule "x"\nsrc /a/\naction :relay\nroute "\\u0041"', 4, "\\u is not known here"),
        ('rule "x"\nsrc /a/\naction :relay\nroute "/q/rq_router"', 4, "where the message comes"),
        ('rule "x"\nsrc /a/\naction :balance\nroute ["a"], "b"', 4, "balance takes one host"),
        ('rule "x"\nsrc /a/\naction :err\ndelay -1', 4, "delay must be seconds"),
        ('rule "x"\nsrc /a/\naction :err\ndelay "1"', 4, "delay must be followed by a number"),
        ('rule "x"\nsrc /a/\naction :err\ndelay 111111111111111111111', 4, "is no number"),
        ('rule "x"\nsrc /a/\naction :err\nlog nil', 4, "log must be followed by true or false"),
        ('rule "default"\naction :err\n\nrule "x"\nsrc /a/\naction :err', 1, "must be the last"),
        ('rule "default"\nsrc /a/\naction :err', 2, "takes all that is left; remove its src"),
        ('rule "x"\nsrc /a/\naction :err\n__END__', 4, "__END__ is not known"),
        ('rule "x"; action :err', 1, "'; action :err' is not understood"),
    ],
)  # fmt: skip
def test_ruby_refuses_by_line(text: str, line: int, words: str) -> None:
    assert [words in text for at, text in problems(read_ruby, text) if at == line].count(True) == 1


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "there is no rule"),
        ("[[rule]]\nname = ", 2, "is not TOML: Invalid value"),
        ("x = 1\n", 1, "'x' is not known; rules are tables [[rule]]"),
        ("a = 1\n[b]\nrule = 2\n", 2, "'b' is not known"),
        ("rule = 3", 1, "rule must be tables"),
        ("\n[rule]\nname = 'x'", 2, "rule must be tables"),
        ("[[rule]]\nsrc = 'a'\naction = 'err'", 1, "a rule needs a name"),
        ("[[rule]]\nname = 7\nsrc = 'a'\naction = 'err'", 2, "a rule needs a name"),
        ("[[rule]]\nname = 'x'\nsrc = '('\naction = 'err'", 3, "src is no regular expression"),
        ("[[rule]]\nname = 'x'\nsrc = '[[a]]'\naction = 'err'", 3, "src is no regular expression"),
        ("[[rule]]\nname = 'x'\nsrc = 1\naction = 'err'", 3, "src must be text: a regular"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'x'", 4, "'x' is no action"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 1", 4, "action must be text"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'err'\nhost = 'a'", 5, "'host' is nothing that"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'relay'\nroute = 'a'", 5, "must be a list of hosts"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'relay'\nroute = [[1]]", 5, "route must list hosts"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'relay'\nroute = [{host=1}]", 5, "must list hosts"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'relay'\nroute = [{host='a', wieght=2}]", 5,
         "'wieght' is nothing that a host of the route says; there are host, weight"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'relay'\nroute = [['b', {name='a'}]]", 5,
         "'name' is nothing that a host"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'relay'\nroute = [{host='a', weight=0}]", 5,
         "the weight of 'a' must be above 0"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'relay'\nroute = [{host='a', weight=nan}]", 5,
         "the weight of 'a' must be above 0"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'err'\ndelay = nan", 5, "delay must be seconds"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'err'\ndelay = true", 5, "delay must be a number"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'err'\nlog = 1", 5, "log must be true or false"),
        ("[[rule]]\nname = 'x'\nsrc = '''\n[[rule]]\n(\n'''\naction = 'err'", 3, "no regular"),
        ("[[rule]]\nname = 'x'\nsrc = 'a'\naction = 'relay'\nroute = [\n# [\n'a',\n]\ndelay = -1", 9,
         "delay must be seconds"),
        ('rule = [{name="x", src="(", action="err"}]', 1, "src is no regular expression"),
        ("rule = " + "[" * 5000, 1, "is not TOML: nested too deeply"),
    ],
)  # fmt: skip
def test_toml_refuses_by_line(text: str, line: int, words: str) -> None:
    assert [words in text for at, text in problems(read_toml, text) if at == line].count(True) == 1


def test_all_problems_are_told_at_once() -> None:
    text = 'rule "x"\nsrc /(/\naction :shoot\ndelay -3\nroute "a b", "ok", "c d"\n'
    assert [line for line, _ in problems(read_ruby, text)] == [2, 3, 4, 5, 5]


# --- any text at all


def outcome(read: Read, text: str) -> Rules | RulesError:
    try:
        return read(text)
    except RulesError as error:
        return error


PIECES = [
    "rule", ' "x"', " 'x'", "\n", "\n\n", " ", "src", "dest", " /a/", " /[/", "/i", "action",
    " :relay", " :err", "route", ' "h"', ",", "[", "]", "delay", " 10", "log", " true", "#", "\\",
    "/", "#{", "default", '"default"', "[[rule]]", "name", " = ", "{", "}", "'''", '"""', "host",
    "weight", "=", "1e400", "inf", "\r", "(?", "é", "\0",
]  # fmt: skip
anything = st.text() | st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@pytest.mark.parametrize("read", [read_ruby, read_toml], ids=["ruby", "toml"])
@settings(max_examples=300)
@given(text=anything)
@example(text="[[rule]]\nx." + "1" * 5000 + "=" + "1" * 5000)
@example(text='rule "x"\nsrc /' + "(" * 3000 + "/\n")
@example(text='rule "x"\nsrc /a{99999999999999999999}/\n')
def test_any_text_gives_rules_or_problems_with_lines(read: Read, text: str) -> None:
    found = outcome(read, text)
    if isinstance(found, Rules):
        assert found.match("any", "message") in (*found.rules, found.default)
        return
    last = text.count("\n") + 1
    assert found.problems
    for problem in found.problems:
        assert 1 <= problem.line <= last
        assert problem.text
        assert "\n" not in str(problem)


# --- both forms of the same rules

ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "cam",
        ".",
        "[a-c]",
        "[^b]",
        r"\d",
        r"\w",
        r"\.",
        "(a|b)",
        "(?:cam)?",
        "x*",
        "a{1,2}",
        "/",
    ]
)
NAMES = st.text(string.ascii_letters + string.digits + "-_ '\"\\#", min_size=1, max_size=8)
HOSTS = st.sampled_from(
    ["a", "b:44", "c.example.com", "http://u:1/q/z", "https://v/", "/q/t", "[::1]:5"]
)
GROUPS = st.lists(HOSTS, min_size=1, max_size=3)


@dataclass(frozen=True)
class Made:
    """A rule as a generator makes it."""

    name: str
    src: str | None
    dest: str | None
    action: str
    route: list[str | list[str]]
    delay: int | None
    log: bool | None


@st.composite
def made_rules(draw: st.DrawFn) -> list[Made]:
    found = []
    patterns = st.lists(ATOMS, min_size=1, max_size=4).map("".join)
    for _ in range(draw(st.integers(1, 4))):
        src, dest = draw(st.none() | patterns), draw(st.none() | patterns)
        action = draw(st.sampled_from(["relay", "balance", "done", "err"]))
        balance = action == "balance"
        route: list[str | list[str]] = draw(
            GROUPS if balance else st.lists(HOSTS | GROUPS, min_size=1, max_size=3)  # type: ignore[arg-type]
        )
        if src is None and dest is None:
            dest = "."
        name = draw(NAMES.filter(lambda name: name != "default"))
        delay, log = draw(st.none() | st.integers(0, 999)), draw(st.none() | st.booleans())
        found.append(Made(name, src, dest, action, route, delay, log))
    if draw(st.booleans()):
        found.append(Made("default", None, None, "done", [], None, None))
    return found


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def ruby_quoted(text: str) -> str:
    return quoted(text).replace("#", "\\#")


def as_ruby(rules: list[Made]) -> str:
    blocks = []
    for rule in rules:
        lines = [f"rule {ruby_quoted(rule.name)}"]
        for key, pattern in (("src", rule.src), ("dest", rule.dest)):
            if pattern is not None:
                lines.append(f"  {key} /{pattern.replace('/', chr(92) + '/')}/ # {key}")
        lines.append(f"  action :{rule.action}")
        if rule.route:
            items = [
                quoted(item) if isinstance(item, str) else f"[{', '.join(map(quoted, item))}]"
                for item in rule.route
            ]
            lines.append(f"  route {', '.join(items)}")
        if rule.delay is not None:
            lines.append(f"  delay {rule.delay}")
        if rule.log is not None:
            lines.append(f"  log {str(rule.log).lower()}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def as_toml(rules: list[Made]) -> str:
    lines = []
    for rule in rules:
        lines += ["[[rule]]", f"name = {quoted(rule.name)}"]
        for key, pattern in (("src", rule.src), ("dest", rule.dest)):
            if pattern is not None:
                lines.append(f"{key} = {quoted(pattern)}")
        lines.append(f"action = {quoted(rule.action)}")
        if rule.route:
            items = [
                quoted(item) if isinstance(item, str) else f"[{', '.join(map(quoted, item))}]"
                for item in rule.route
            ]
            lines.append(f"route = [{', '.join(items)}]")
        if rule.delay is not None:
            lines.append(f"delay = {rule.delay}")
        if rule.log is not None:
            lines.append(f"log = {str(rule.log).lower()}")
    return "\n".join(lines)


@given(rules=made_rules(), texts=st.lists(st.text("abcmx1./-", max_size=8), min_size=2, max_size=8))
def test_toml_and_ruby_mean_the_same(rules: list[Made], texts: list[str]) -> None:
    toml, ruby = read_toml(as_toml(rules)), read_ruby(as_ruby(rules))
    assert len(tomllib.loads(as_toml(rules))["rule"]) == len(rules)
    for one, other in zip((*toml.rules, toml.default), (*ruby.rules, ruby.default), strict=True):
        assert (one.name, one.action, one.route, one.delay, one.log) == (
            other.name, other.action, other.route, other.delay, other.log,
        )  # fmt: skip
    for src, dest in zip(texts, reversed(texts), strict=True):
        places = [*toml.rules, toml.default].index(toml.match(src, dest))
        assert [*ruby.rules, ruby.default].index(ruby.match(src, dest)) == places


@given(rules=made_rules())
def test_a_rule_knows_its_line(rules: list[Made]) -> None:
    ruby = as_ruby(rules).split("\n")
    toml = as_toml(rules).split("\n")
    for read, lines, mark in ((read_ruby, ruby, "rule "), (read_toml, toml, "[[rule]]")):
        for rule in read("\n".join(lines)).rules:
            assert lines[rule.line - 1].startswith(mark)
