"""Doing one thing to many messages: what it would be about, a confirmation, and the job as it goes on.

The first POST changes nothing: it answers with a page that names the number and asks.  Its form posts
the same again with ``confirm``; the job (`rqcore_web.bulk`) begins, and its own page tells how far it
is.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rqcore.errors import RefusedError
from rqcore_web import bulk, flash, forms
from rqcore_web.access import need
from rqcore_web.bulk import ACTIONS, Targets
from rqcore_web.filters import Filter, parse
from rqcore_web.render import page
from rqcore_web.site import Site
from rqcore_web.spool import STATES

#: What each action does, in words: with one message, and what is to be known before.
WORDS = {
    "run": ("Run now", "They go to the front and start as soon as workers are free."),
    "clone": (
        "Clone",
        "Each is sent again as a new message, with its attachments; the old ones stay.",
    ),
    "retry": (
        "Retry",
        "They run again, with all they left in their directories; their count begins anew.",
    ),
    "delete": ("Delete", "They go with their logs and attachments, for good."),
    "kill": (
        "Kill",
        "Their processes are sent SIGTERM and, if they stay, SIGKILL; they then lie in err.",
    ),
}
_SHOWN_OUTCOMES = 200


async def bulk_action(request: Request) -> Response:
    """``POST /-/q/NAME/bulk``: asks first, begins with ``confirm``."""
    site: Site = request.app.state.site
    name = request.path_params["name"]
    form = await forms.read(request, site.options.max_body)
    action = form.text("action")
    if action not in ACTIONS:
        raise RefusedError(f"{action!r} cannot be done; what can: {', '.join(ACTIONS)}")
    need(request, ACTIONS[action].scope, name)
    back = flash.local_path(form.fields.get("back"), site.url(f"q/{name}"))
    ids = form.fields.get("id")
    named = tuple(str(one) for one in ids) if isinstance(ids, list) else ()
    everything = form.text("all") == "yes"
    if not named and not everything:
        every = '"all that match"' if form.text("filter").strip() else '"all in this list"'
        return flash.redirect(
            request, back, f"no message is selected: tick some, or {every}", ok=False
        )
    wanted = _filter(form.text("filter"), form.text("state")) if everything else None
    targets = Targets(name, () if everything else named, wanted)
    if form.text("confirm"):
        return begin(request, action, targets)
    return await ask(
        request, action, targets, back,
        f"-/q/{name}/bulk",
        {"state": form.text("state"), "filter": form.text("filter"), "all": "yes" if everything else ""},
    )  # fmt: skip


def _filter(text: str, state: str) -> Filter:
    wanted = parse(text)
    if state not in STATES:
        return wanted
    if wanted.states is not None and state not in wanted.states:
        raise RefusedError(f"the filter means none in {state}")
    return Filter((state,), wanted.terms)


def begin(request: Request, action: str, targets: Targets) -> Response:
    """The job begins; the answer leads to its page."""
    site: Site = request.app.state.site
    job = bulk.start(site, request, action, targets)
    # That page says by itself how far the job is: a message that it has begun would soon be out of date.
    return RedirectResponse(site.url(f"-/jobs/{job.id}"), 303)


async def ask(
    request: Request, action: str, targets: Targets, back: str, to: str, fields: dict[str, str]
) -> Response:
    """The page that asks whether it is to be done; its form posts ``fields`` to the path ``to``."""
    site: Site = request.app.state.site
    preview = await bulk.preview(site, action, targets)
    return page(
        request, "confirm.html",
        action=action, words=WORDS[action], targets=targets, preview=preview, back=back, to=to,
        fields={name: value for name, value in fields.items() if value},
    )  # fmt: skip


async def job(request: Request) -> Response:
    """``GET /-/jobs/ID``."""
    site: Site = request.app.state.site
    found = site.jobs.get(request.path_params["job"])
    need(request, "read", found.targets.queue)
    outcomes: list[dict[str, Any]] = list(found.outcomes)
    return page(
        request, "job.html",
        job=found, words=WORDS[found.action],
        refused=[one for one in outcomes if not one["ok"]][-_SHOWN_OUTCOMES:],
        back=site.url(f"q/{found.targets.queue}"),
    )  # fmt: skip


async def cancel(request: Request) -> Response:
    """``POST /-/jobs/ID/cancel``: it does no more than what it has asked for."""
    site: Site = request.app.state.site
    found = site.jobs.get(request.path_params["job"])
    need(request, ACTIONS[found.action].scope, found.targets.queue)
    site.jobs.cancel(found.id)
    site.audit.note(request, f"cancel {found.action}", found.targets.queue, found.id)
    return flash.redirect(
        request, site.url(f"-/jobs/{found.id}"), "it stops; what is done stays done"
    )
