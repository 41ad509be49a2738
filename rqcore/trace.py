"""Trace context: the two values by which tracing systems follow one piece of work through many programs.

Pure.  W3C's Trace Context: ``traceparent`` names a trace and a step in it, ``tracestate`` is what
vendors add.  They come as HTTP headers or as environment variables of these names (`carried`), stay
with a message and its copies, and reach its script as ``TRACEPARENT`` and ``TRACESTATE``.

They are a help for whoever looks, never a reason to refuse a message: what has not the right form is
dropped, as the standard says, and ``tracestate`` counts for nothing without its ``traceparent``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

TRACE_NAMES = ("traceparent", "tracestate")
_MAX_MEMBERS = 32
_MAX_STATE = 4096

# version "-" trace "-" step "-" flags; a later version may say more after that, version 00 may not.
_PARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(?P<more>-[!-~]{0,200})?"
)
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
)


def trace_context(traceparent: object, tracestate: object = "") -> tuple[str, str]:
    """Both as they may be passed on; "" for what is missing or has not the right form."""
    found = _PARENT.fullmatch(traceparent.strip()) if isinstance(traceparent, str) else None
    if found is None or (found["version"] == "00" and found["more"] is not None):
        return "", ""
    return found[0], _state(tracestate) if isinstance(tracestate, str) else ""


def carried(carrier: Mapping[str, str], *, environment: bool = False) -> dict[str, str]:
    """What HTTP headers, or an environment, carry of it, as fields of a message; {} for nothing."""
    names = [name.upper() if environment else name for name in TRACE_NAMES]
    values = trace_context(*(carrier.get(name, "") for name in names))
    return {name: value for name, value in zip(TRACE_NAMES, values, strict=True) if value}


def _state(text: str) -> str:
    members = [member.strip() for member in text.split(",")]
    members = [member for member in members if member]
    sound = len(members) <= _MAX_MEMBERS and len(text) <= _MAX_STATE
    return ",".join(members) if sound and all(map(_MEMBER.fullmatch, members)) else ""
