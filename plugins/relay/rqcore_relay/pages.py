"""What relay adds to the site: the page ``-/relay/``, its metrics, a panel while somebody is down.

Called by the hooks of rqcore-web, in its process, which brings starlette and markupsafe; nothing of
rqcore-web itself is imported.  The handlers are plain functions: they read files and ask a socket, so
the site calls them in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import time
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rqcore import words as human
from rqcore.faces import Item, Panel, Site
from rqcore.words import size, span_in_words
from rqcore_relay import metrics, words
from rqcore_relay.peers import peer_of
from rqcore_relay.survey import picture, survey

_PAGE = "-/relay/"
_MOST = 20
_KINDS = {"rqcore": "rqcore", "plain": "RQ, by its plain protocol", "local": "this machine"}


def menu() -> list[Item]:
    """The item that leads to the page."""
    return [Item("Relay", _PAGE)]


def panels(site: Site) -> list[Panel]:
    """What the first page must say: which machines cannot be reached that something waits for."""
    rows = survey(str(site.instance.directory))
    down = [row for row in rows if row["reachable"] is False and row["waiting"]]
    if not down:
        return []
    return [Panel("Machines that cannot be reached", _some(site, down, _brief))]


def queue_panels(site: Site, queue: Mapping[str, Any]) -> list[Panel]:
    """On the page of the queue relay: for whom its messages wait."""
    rows = survey(str(site.instance.directory)) if queue["name"] == "relay" else []
    waiting = [row for row in rows if row["waiting"] or row["failures"]]
    return [Panel("Where they go", _some(site, waiting, _brief))] if waiting else []


def message_panels(site: Site, message: Mapping[str, Any]) -> list[Panel]:
    """On the page of a message that waits in relay: how its machine is."""
    if message["queue"] != "relay" or message["state"] != "que":
        return []
    name = peer_of(str(message["dest"])) or peer_of(str(message["full_id"]).rpartition("/")[0])
    rows = [row for row in survey(str(site.instance.directory)) if row["peer"] == name]
    return [Panel("Where it goes", _some(site, rows, _peer))] if rows else []


def _some(
    site: Site, rows: list[dict[str, Any]], shown: Callable[[dict[str, Any]], Markup]
) -> Markup:
    more = f"and {len(rows) - _MOST} more: " if len(rows) > _MOST else ""
    return Markup("<ul class='files'>{}</ul><p>{}<a href='{}'>All about relay</a></p>").format(
        Markup("").join(map(shown, rows[:_MOST])), more, site.url(_PAGE)
    )


def _brief(row: dict[str, Any]) -> Markup:
    return Markup("<li><div class='line'>{}{}</div>{}</li>").format(
        _name(row), _waiting(row), _error(row)
    )


def routes(site: Site) -> list[Route]:
    """The page and the metrics."""
    directory = str(site.instance.directory)

    def page(request: Request) -> Response:
        content = _page(site, *picture(directory))
        answer: Response = site.page(request, "Relay", content)
        return answer

    def prometheus(_: Request) -> Response:
        text = metrics.exposition(survey(directory))
        return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    return [Route("/", page), Route("/metrics", prometheus)]


def _page(site: Site, rows: list[dict[str, Any]], running: list[dict[str, Any]] | None) -> Markup:
    if not rows:
        return Markup(
            "<p>No message has gone to another machine yet. One whose destination is a URL does:</p>"
            "<pre class='command'>rq send http://HOST:3333/q/NAME</pre>"
        )
    parts = []
    if running is None:
        parts.append(
            Markup("<p class='warning'>The queue relay does not answer: this may be old.</p>")
        )
    parts.append(Markup("<ul class='files'>{}</ul>").format(Markup("").join(map(_peer, rows))))
    if running:
        moving = [_transfer(site, one) for one in running]
        parts.append(
            Markup("<h2>On their way</h2><ul class='files'>{}</ul>").format(Markup("").join(moving))
        )
    return Markup("").join(parts)


def _peer(row: dict[str, Any]) -> Markup:
    facts: list[tuple[str, Markup | str]] = []
    coming = words.coming(row, time())
    if coming:
        facts.append(("Next", coming))
    facts += [
        ("Waiting", Markup("{} <span class='muted'>for {}, oldest {}</span>").format(
            _messages(line["messages"]), line["dest"], _time(line["oldest"])
        ))
        for line in row["destinations"][:_MOST]
    ]  # fmt: skip
    if len(row["destinations"]) > _MOST:
        facts.append(("", f"and {len(row['destinations']) - _MOST} more destinations"))
    if row["messages"]:
        rate = f", at {words.rate(row['rate'])} lately" if row["rate"] else ""
        taken = f"{_messages(row['messages'])}, {size(row['bytes'])} of attachments{rate}"
        facts.append(("Taken", Markup("{}, last {}").format(taken, _time(row["last_success"]))))
    # Whatever is not rqcore counts as plain; that it is RQ shows when it takes a message.
    if row["kind"] and (row["kind"] != "plain" or row["last_success"]):
        facts.append(("It is", _KINDS.get(row["kind"], row["kind"])))
    listed = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(*fact) for fact in facts)
    return Markup(
        "<li><div class='line'>{}{}</div>{}<dl class='facts'>{}</dl></li>"
    ).format(_name(row), _waiting(row), _error(row), listed)  # fmt: skip


def _name(row: dict[str, Any]) -> Markup:
    badge = {True: "UP", False: "DOWN", None: "PAUSE"}[row["reachable"]]
    since = Markup(" <span class='muted small'>for {}</span>").format(
        _time(row["since"], "elapsed")
    )
    return Markup("<div><strong>{}</strong> <span class='badge {}'>{}</span>{}</div>").format(
        row["peer"], badge, words.status(row), since if row["since"] else ""
    )


def _waiting(row: dict[str, Any]) -> Markup:
    running = f", {row['running']} on the way" if row["running"] else ""
    if not row["waiting"]:
        return Markup("<span class='muted small'>nothing waits{}</span>").format(running)
    return Markup("<span class='small'>{} waiting, oldest {}{}</span>").format(
        _messages(row["waiting"]), _time(row["oldest"]), running
    )


def _error(row: dict[str, Any]) -> Markup:
    error = row["last_error"]
    if error is None:
        return Markup("")
    if words.is_over(row):
        return Markup("<p class='muted small'>Last error: {}, {}</p>").format(
            error["text"], _time(error["at"])
        )
    return Markup(
        "<p class='problem'><span>{} <span class='muted'>{}</span></span></p>"
    ).format(error["text"], _time(error["at"]))  # fmt: skip


def _transfer(site: Site, one: dict[str, Any]) -> Markup:
    return Markup(
        "<li><div class='line'><a href='{}'><span class='msg-id'>{}</span></a>"
        "<span class='small'>for {}</span></div><div>to {}</div><div class='muted'>{}</div></li>"
    ).format(
        site.url(f"q/relay/{one['msg_id']}"), one["msg_id"], _time(one["started_at"], "elapsed"),
        one["dest"], one["status"],
    )  # fmt: skip


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def _time(moment: float | None, style: str = "relative") -> Markup:
    """A time as the site shows times: its script keeps them going."""
    if moment is None:
        return Markup("")
    past = span_in_words(time() - moment)
    return Markup("<time datetime='{}' title='{}' data-time='{}'>{}</time>").format(
        datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds"), human.moment(moment), style,
        past if style == "elapsed" else f"{past} ago",
    )  # fmt: skip
