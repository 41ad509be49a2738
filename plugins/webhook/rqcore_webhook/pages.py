"""What webhook adds to the site: the page ``-/webhook/``, and panels on the pages of messages.

Called by the hooks of rqcore-web, in its process, which brings starlette and markupsafe; nothing of
rqcore-web itself is imported.  The handlers are plain functions: they read files, so the site calls
them in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from time import time
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rqcore.errors import RqError
from rqcore.faces import Item, Panel, Site
from rqcore.message import parse_full_id
from rqcore.stores.ids import hashed_path
from rqcore.words import moment as moment_in_words
from rqcore.words import span_in_words
from rqcore_webhook.dispatch import QUEUE, SENT_FILE
from rqcore_webhook.options import Options, read_options
from rqcore_webhook.outbox import Outbox
from rqcore_webhook.words import BADGES, attempts, json_lines, not_kept, rows, without_secrets

_PAGE = "-/webhook/"
_MOST = 50
_FEW = 10
#: Results of attempts as one says that there were so many.
_RESULTS = {"success": "succeeded", "failure": "failed"}


def menu() -> list[Item]:
    """The item that leads to the page."""
    return [Item("Webhooks", _PAGE)]


def routes(site: Site) -> list[Route]:
    """The page."""

    def page(request: Request) -> Response:
        made: Response = site.page(request, "Webhooks", _page(site))
        return made

    return [Route("/", page)]


def panels(site: Site) -> list[Panel]:
    """What the first page must say: which endpoints get nothing."""
    directory = str(site.instance.directory)
    bad = [
        row
        for row in rows(directory, _options(directory))
        if row["status"] in ("disabled", "refused")
        or (row["status"] == "failing" and row["failures"] >= _FEW)
    ]
    if not bad:
        return []
    listed = Markup("").join(
        Markup("<li><div class='line'>{}</div>{}</li>").format(_name(row), _error(row))
        for row in bad[:_FEW]
    )
    return [Panel("Webhooks that do not get through", Markup(
        "<ul class='files'>{}</ul><p><a href='{}'>All webhooks</a></p>"
    ).format(listed, site.url(_PAGE)))]  # fmt: skip


def message_panels(site: Site, message: Mapping[str, Any]) -> list[Panel]:
    """On a webhook's page its attempts; on any other message's its webhooks."""
    if message["queue"] == QUEUE:
        return _attempts_panel(site, message)
    sent = json_lines(f"{message['path']}/{SENT_FILE}")
    if not sent:
        return []
    listed = Markup("").join(_webhook(site, one) for one in sent[-_MOST:])
    return [Panel("Webhooks", Markup("<ul class='files'>{}</ul>").format(listed))]


def _options(directory: str) -> Options:
    try:
        return read_options(directory)
    except RqError:
        return Options()


def _page(site: Site) -> Markup:
    directory = str(site.instance.directory)
    parts = []
    try:
        options = read_options(directory)
    except RqError as error:
        options = Options()
        parts.append(Markup("<p class='problem'>{}</p>").format(str(error)))
    found = rows(directory, options)
    pending = Outbox(directory).pending()
    if pending:
        parts.append(Markup("<p class='warning'>{} to be queued.</p>").format(
            "1 event waits" if pending == 1 else f"{pending:,} events wait"
        ))  # fmt: skip
    if found:
        listed = Markup("").join(_target(row) for row in found[:_MOST])
        parts.append(Markup("<ul class='files'>{}</ul>").format(listed))
        if len(found) > _MOST:
            parts.append(Markup("<p>and {} more: rq webhook ls</p>").format(len(found) - _MOST))
        parts.append(
            Markup("<p><a href='{}'>The queue webhook</a></p>").format(site.url(f"q/{QUEUE}"))
        )
    else:
        parts.append(
            Markup(
                "<p>No webhook was sent yet, and no endpoint is configured. A message tells a URL of "
                "its end:</p><pre class='command'>rq send NAME --webhook URL</pre>"
            )
        )
    return Markup("").join(parts)


def _target(row: Mapping[str, Any]) -> Markup:
    facts: list[tuple[str, Markup | str]] = []
    if row["url"]:
        facts.append(("URL", row["url"]))
        facts.append(("Told of", ", ".join(row["events"]) or "what messages themselves ask for"))
        if row["queues"] != ["*"]:
            facts.append(("Queues", ", ".join(row["queues"])))
        facts.append(("Form", "Standard Webhooks" if row["format"] == "standard" else "RQ's"))
    if row["last_success"] is not None:
        took = f", in {row['last_ms']:g} ms" if row["last_ms"] is not None else ""
        facts.append(("Last taken", Markup("{}{}").format(_time(row["last_success"]), took)))
    counted = row["attempts"]
    facts.append(
        (
            "Attempts",
            ", ".join(f"{n:,} {_RESULTS.get(k, k)}" for k, n in counted.items() if n) or "none",
        )
    )
    if row["missed"]:
        facts.append(("Meanwhile", not_kept(row["missed"])))
    listed = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(*fact) for fact in facts)
    return Markup(
        "<li><div class='line'>{}</div>{}<dl class='facts'>{}</dl></li>"
    ).format(_name(row), _error(row), listed)  # fmt: skip


def _name(row: Mapping[str, Any]) -> Markup:
    since = row["disabled"]["at"] if row["disabled"] else row["failing_since"]
    shown = Markup(" <span class='muted small'>for {}</span>").format(_time(since, "elapsed"))
    return Markup("<div><strong>{}</strong> <span class='badge {}'>{}</span>{}</div>").format(
        row["target"], BADGES[row["status"]], row["status"], shown if since else ""
    )


def _error(row: Mapping[str, Any]) -> Markup:
    if row["disabled"]:
        return Markup(
            "<p class='problem'><span>{} To send again: rq webhook enable {}</span></p>"
        ).format(f"{row['disabled']['reason']}.", row["target"])
    if not row["last_error"]:
        return Markup("")
    if not row["failures"] and row["status"] != "refused":
        return Markup("<p class='muted small'>Last error: {}, {}</p>").format(
            row["last_error"], _time(row["last_failure"])
        )
    return Markup("<p class='problem'><span>{} <span class='muted'>{}</span></span></p>").format(
        row["last_error"], _time(row["last_failure"])
    )


def _webhook(site: Site, one: Mapping[str, Any]) -> Markup:
    """A webhook of a message: to whom, and how it is."""
    full_id = str(one.get("full_id"))
    address = parse_full_id(full_id)
    msg_id = "" if address is None else address.msg_id
    state, folder = _find(str(site.instance.directory), msg_id)
    tries = attempts(folder) if folder else []
    last = _attempt(tries[-1]) if tries else Markup("<span class='muted'>not tried yet</span>")
    if not folder:
        last = Markup("<span class='muted'>it was removed since</span>")
    badge = Markup("<span class='badge {}'>{}</span>").format(state, state) if state else Markup("")
    return Markup(
        "<li><div class='line'><div><strong>{}</strong> {} {}</div>"
        "<a href='{}'><span class='msg-id'>{}</span></a></div>"
        "<div class='muted small'>{}</div><div>{}</div></li>"
    ).format(
        one.get("endpoint") or "", one.get("event"), badge, site.url(f"q/{QUEUE}/{msg_id}"), msg_id,
        without_secrets(str(one.get("url"))), last,
    )  # fmt: skip


def _find(directory: str, msg_id: str) -> tuple[str, str]:
    """The state and the directory of a webhook message; empty when there is none."""
    root = f"{directory}/queue/{QUEUE}"
    for state, path in (
        ("done", hashed_path(f"{root}/done", msg_id)), ("que", f"{root}/que/{msg_id}"),
        ("run", f"{root}/run/{msg_id}"), ("err", f"{root}/err/{msg_id}"),
    ):  # fmt: skip
        if msg_id and os.path.isdir(path):
            return state, path
    return "", ""


def _attempts_panel(site: Site, message: Mapping[str, Any]) -> list[Panel]:
    tries = attempts(str(message["path"]))
    parts = []
    about = parse_full_id(str(message.get("src") or ""))
    if about is not None:
        parts.append(Markup("<p>About <a href='{}'>{}/{}</a></p>").format(
            site.url(f"q/{about.queue}/{about.msg_id}"), about.queue, about.msg_id
        ))  # fmt: skip
    listed = Markup("").join(
        Markup("<li><div>{}</div>{}</li>").format(
            _attempt(one),
            Markup("<pre class='log'>{}</pre>").format(one["excerpt"])
            if one.get("excerpt") else "",
        )
        for one in tries[-_MOST:][::-1]
    )  # fmt: skip
    if tries:
        parts.append(Markup("<ul class='files'>{}</ul>").format(listed))
    return [Panel("Attempts", Markup("").join(parts))] if parts else []


def _attempt(one: Mapping[str, Any]) -> Markup:
    at, ms = one.get("at"), one.get("ms")
    when = _time(at) if isinstance(at, int | float) and 0 <= at < 1e11 else Markup("")  # noqa: PLR2004
    took = f" in {ms:g} ms" if isinstance(ms, int | float) else ""
    where = f", {one['address']}" if one.get("address") else ""
    said = one.get("error") or f"answered {one.get('status')}"
    return Markup("{} <span class='muted'>{}{}{}</span>").format(said, when, took, where)


def _time(moment: float | None, style: str = "relative") -> Markup:
    """A time as the site shows times: its script keeps them going."""
    if moment is None:
        return Markup("")
    past = span_in_words(time() - moment)
    return Markup("<time datetime='{}' title='{}' data-time='{}'>{}</time>").format(
        datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds"),
        moment_in_words(moment), style, past if style == "elapsed" else f"{past} ago",
    )  # fmt: skip
