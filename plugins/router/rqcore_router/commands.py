"""``rq route`` and ``rq verify_rules``: what the rules do with a message, and whether they are good.

They read the instance's files, so RQ need not run, but for a message that is named by its id.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from rqcore.errors import NotFoundError, RefusedError
from rqcore.faces import App
from rqcore.message import parse_dest, parse_full_id
from rqcore_router.choice import Candidate, candidates
from rqcore_router.files import Reader, Standing, read_rules
from rqcore_router.problems import RulesError
from rqcore_router.reach import unreachable
from rqcore_router.rules import Rule, Rules

#: The contract's words.
_BAD = "fail bad router rules file"


def register(cli: Any) -> None:
    """Add both; ``cli`` is the click group behind ``rq``."""
    verify = cli.command("verify_rules", short_help="Say whether a rules file is good.", examples="""
rq verify_rules --path config/rq_router_rules.toml
rq verify_rules --path new_rules.rb --verbose       every problem, by its line
""")(verify_rules)  # fmt: skip
    # An option of every command, which the help of most does not list; here it means more.
    for option in verify.params:
        if "--verbose" in option.opts:
            option.hidden, option.help = False, "Tell every problem, by its line."
    cli.command("route", short_help="Show where the rules send a message.", examples="""
rq route                                       the rules in force
rq route http://mq1:3333/q/images              which rule takes such a message, and where to
rq route images --src camera7 --json
rq route --msg_id rq_router/20260301.0800.00.000.1
rq route images --path new_rules.toml          by rules that are not in force
""")(route)  # fmt: skip


@click.option("--path", "path", required=True, metavar="FILE", help="The rules file.")
@click.pass_context
def verify_rules(ctx: click.Context, path: str) -> None:
    """Print ok, or fail: are these rules that rq_router can go by?  With --verbose, why not."""
    app: App = ctx.obj
    try:
        rules, _ = read_rules(path)
    except RulesError as error:
        problems = [str(problem) for problem in error.problems]
    except OSError as error:
        problems = [f"cannot be read: {error.strerror}"]
    else:
        if app.verbosity > 0:
            app.say(f"{path}: {_counted(rules)}")
        _echo("ok")
        return
    if app.verbosity > 0:
        for problem in problems:
            app.warn(f"{path}: {problem}")
    _echo(_BAD)
    ctx.exit(1)


@click.argument("dest", required=False)
@click.option("--dest", "dest_option", metavar="DEST", help="The message's destination.")
@click.option("--src", default="", metavar="TEXT", help="The message's src.")
@click.option("--msg_id", "--msg-id", "msg_id", metavar="MESSAGE", help="A message that is there.")
@click.option("--path", "path", metavar="FILE", help="Rules that are not in force.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def route(
    app: App, *, dest: str | None, dest_option: str | None, src: str, msg_id: str | None,
    path: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show which rule takes a message and where it goes; without a message, the rules.

    Nothing is sent.  Of a group of hosts, one gets the copy; those that are unreachable get none
    while another one is not.
    """
    dest = dest or dest_option
    if msg_id is not None:
        if dest or src:
            raise click.UsageError("--msg_id names the message; leave out DEST and --src")
        src, dest = _of_message(app, msg_id)
    standing = _standing(app, path)
    rules = standing.rules
    if dest is None:
        found = {"rules": [_shown(rule) for rule in _all(rules)]} if rules is not None else {}
        text = [_line(rule) for rule in _all(rules)] if rules is not None else []
    elif rules is None:
        found, text = {}, []
    else:
        found, text = _routed(app, rules, src, dest)
    if as_json:
        _echo(json.dumps({**_about(standing), **found}, indent=2))
    for line in () if as_json else text:
        _echo(app.clean(line))
    if rules is None:
        raise RefusedError("no message is routed: the rules are bad, and there are no earlier ones")


def _standing(app: App, path: str | None) -> Standing:
    """The rules to go by; what is wrong with them is told on stderr."""
    if path is not None:
        try:
            rules, _ = read_rules(path)
        except RulesError as error:
            raise RefusedError(
                "\n".join(f"{path}: {problem}" for problem in error.problems)
            ) from None
        except OSError as error:
            raise NotFoundError(f"{path} cannot be read: {error.strerror}") from None
        return Standing(path, rules=rules)
    standing = Reader(app.instance.directory).look()
    if not standing.file:
        raise NotFoundError(
            "messages are not routed here; write rules into config/rq_router_rules.toml"
        )
    for problem in standing.problems:
        app.warn(app.clean(f"{standing.file}: {problem}"))
    if standing.stand_in:
        app.warn(f"the last good rules, {standing.stand_in}, are in force")
    return standing


def _of_message(app: App, text: str) -> tuple[str, str]:
    address = parse_full_id(text) or parse_full_id(f"/q/{text}")
    if address is None:
        raise NotFoundError(f"{app.clean(text)} is no message; give QUEUE/ID, or its URL")
    args = {"msg_id": address.msg_id, "even_down": True}
    message: Mapping[str, Any] = app.ask(address.queue, "get_message", args)
    return str(message.get("src", "")), str(message["dest"])


def _counted(rules: Rules) -> str:
    """How many there are, in words."""
    count = len(rules.rules)
    counted = f"{count} rule{'' if count == 1 else 's'}"
    if rules.default.line:
        return f"{counted} and a default: {rules.default.action}"
    return f"{counted} and no default: what none of them takes ends in err"


def _all(rules: Rules) -> list[Rule]:
    return [*rules.rules, rules.default]


def _about(standing: Standing) -> dict[str, Any]:
    return {
        "file": standing.file, "good": not standing.problems, "problems": list(standing.problems),
        "in_force": standing.stand_in or (standing.file if standing.rules is not None else None),
    }  # fmt: skip


def _shown(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name, "line": rule.line or None, "action": rule.action,
        "src": rule.src.text if rule.src is not None else None,
        "dest": rule.dest.text if rule.dest is not None else None,
        "delay": rule.delay, "log": rule.log,
        "route": [[{"host": h.text, "weight": h.weight} for h in group] for group in rule.route],
    }  # fmt: skip


def _line(rule: Rule) -> str:
    parts = [f"line {rule.line}" if rule.line else "no rule", rule.name, rule.action]
    hosts = ", ".join(
        " | ".join(host.text for host in group)
        for group in rule.route
        if rule.action not in ("done", "err")
    )
    patterns = [
        f"{key} {pattern}"
        for key, pattern in (("src", rule.src), ("dest", rule.dest))
        if pattern is not None
    ]
    delay = [f"after {rule.delay:g} s"] if rule.delay else []
    return "  ".join(filter(None, (*parts, hosts, *patterns, *delay)))


def _routed(app: App, rules: Rules, src: str, dest: str) -> tuple[dict[str, Any], list[str]]:
    rule = rules.match(src, dest)
    address = parse_dest(dest)
    past = address is not None and not address.base and address.queue in ("relay", "cleaner")
    if past:
        assert address is not None
        text = [f"messages for {address.queue} pass the rules by"]
        return {"message": {"src": src, "dest": dest}, "routed": False}, text
    groups: list[list[Candidate]] = []
    if rule.action in ("relay", "balance"):
        groups = candidates(rule, dest, unreachable(app.instance.directory))
    named = f"rule {rule.name} (line {rule.line})" if rule.line else "no rule matches"
    delay = f" after {rule.delay:g} s" if rule.delay else ""
    text = [f"{named}: {rule.action}{delay}"]
    for group in groups:
        one_of = "one of " if len(group) > 1 else ""
        text.append(f"  to {one_of}{', '.join(map(_candidate, group))}")
    found = {
        "message": {"src": src, "dest": dest}, "routed": True,
        "rule": _shown(rule),
        "copies": [
            [
                {"dest": c.dest, "weight": c.weight, "local": c.local, "reachable": c.reachable}
                for c in group
            ]
            for group in groups
        ],
    }  # fmt: skip
    return found, text


def _candidate(candidate: Candidate) -> str:
    weight = f" (weight {candidate.weight:g})" if candidate.weight != 1 else ""
    down = " (unreachable)" if not candidate.reachable else ""
    return f"{candidate.dest}{weight}{down}"


def _echo(text: str) -> None:
    sys.stdout.write(f"{text}\n")
