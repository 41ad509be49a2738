"""Which URL is answered where."""

from __future__ import annotations

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from rqcore_web.contract import acting, creating, lists, looking, operating
from rqcore_web.contract.answers import Endpoint, endpoint
from rqcore_web.site import Site


class _ForPrograms(Route):
    """A URL under which a program finds JSON, and a browser the page of another room."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Leave browsers to whoever comes next."""
        if b"text/html" in dict(scope.get("headers", [])).get(b"accept", b""):
            return Match.NONE, {}
        return super().matches(scope)


def routes(site: Site) -> list[BaseRoute]:  # noqa: ARG001 - what every room is given
    """The routes, relative to the site's root."""
    queue, message = "/q/{name}", "/q/{name}/{msg_id:message}"
    return [
        _get("/q.txt", lists.names),
        _get("/q.json", lists.queues),
        _get(f"{queue}.txt", lists.text),
        _get(f"{queue}.json", lists.state),
        _get(f"{queue}/config.json", lists.raw_config),
        _ForPrograms(f"{queue}/config", endpoint(lists.config)),
        _get(f"{queue}/{{state:state}}.json", lists.ids),
        _ForPrograms("/search", endpoint(looking.search)),
        _post("/new_queue", operating.new_queue),
        _post("/new_queue_link", operating.new_queue_link),
        _post("/delete_queue", operating.delete_queue),
        _post(f"{queue}/new_message", creating.new_message),
        _post(f"{queue}/adminoper", operating.adminoper),
        _post(f"{queue}/restart", operating.restart),
        _get(f"{message}/state.json", looking.state),
        _get(f"{message}/attach/{{file}}", looking.attachment),
        _get(f"{message}/log/{{file}}", looking.log),
        _get(f"{message}.json", looking.message),
        _post(f"{message}/attach/new", acting.attach),
        _post(f"{message}/attach/{{file}}", acting.detach),
        _post(f"{message}/clone", acting.doing("clone")),
        _post(f"{message}/run_now", acting.doing("run_now")),
        _post(message, acting.act),
    ]


def _get(path: str, act: Endpoint) -> Route:
    return Route(path, endpoint(act))


def _post(path: str, act: Endpoint) -> Route:
    return Route(path, endpoint(act), methods=["POST"])
