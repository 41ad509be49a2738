"""What ``rq doctor`` and ``rq check`` show of the metrics: do the pushes get through?"""

from __future__ import annotations

from time import time

from rqcore.errors import RqError
from rqcore.hookspecs import Check
from rqcore.words import span_in_words
from rqcore_metrics import asking, pushes
from rqcore_metrics.options import read_options

_PATIENCE = 2.0
#: So many intervals without a sign, and one minute more, say that nobody pushes.
_SILENT = 3
_MINUTE = 60
_REMEDY = {
    "graphite": "see that its line receiver listens there, or correct plugins.metrics.graphite",
    "statsd": "see that it listens there, or correct plugins.metrics.statsd",
    "textfile": "let the user of RQ write there, or correct plugins.metrics.textfile",
}


def checks(directory: str) -> list[Check]:
    """How each push goes that the options ask for, as long as RQ runs."""
    try:
        options = read_options(directory)
    except RqError:
        return []  # whose business it is says so: the config has a check of its own
    wanted = [name for name in _REMEDY if getattr(options, name) is not None]
    socket = f"{directory}/config/queuemgr.sock"
    if not wanted or not asking.ask_all({"manager": socket}, ["ping"], _PATIENCE):
        return []
    known = pushes.read(directory)
    return [_check(name, known.get(name), time()) for name in wanted]


def _check(name: str, told: dict[str, object] | None, now: float) -> Check:
    if told is None:
        return Check(
            f"metrics {name}", "warning", f"the metrics are not pushed to {name} yet",
            "let the service metrics begin: rq restart; rq status says whether it runs",
        )  # fmt: skip
    at, every, ok = told["at"], told["every"], told["ok"]
    assert isinstance(at, int | float)
    assert isinstance(every, int | float)
    if told["error"]:
        span = f" for {span_in_words(now - ok)}" if isinstance(ok, int | float) else ""
        return Check(
            f"metrics {name}", "warning",
            f"{name} at {told['to']} has got nothing{span}: {told['error']}",
            _REMEDY[name],
        )  # fmt: skip
    if now - at > _SILENT * every + _MINUTE:
        return Check(
            f"metrics {name}", "warning", f"no metrics were pushed for {span_in_words(now - at)}",
            "see in rq status how the service metrics is",
        )  # fmt: skip
    return Check(f"metrics {name}", "ok", f"{name} at {told['to']} gets them")
