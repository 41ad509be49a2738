"""What the first page of rqcore-web says when the rules are bad."""

from __future__ import annotations

from html import escape

from rqcore.faces import Panel
from rqcore_router.files import Standing


class Html(str):
    """What a template takes as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def panels(standing: Standing) -> list[Panel]:
    """One panel with everything that is wrong; none when nothing is."""
    if not standing.problems:
        return []
    instead = (
        f"The last good rules, {standing.stand_in}, stay in force."
        if standing.rules is not None
        else "Queue rq_router is DOWN and refuses messages until the file is corrected."
    )
    items = "".join(f"<li>{_escaped(problem)}</li>" for problem in standing.problems)
    text = f"<p>{_escaped(standing.file)}:</p><ul>{items}</ul><p>{_escaped(instead)}</p>"
    return [Panel("Bad router rules", Html(text))]


def _escaped(text: str) -> str:
    return escape(text, quote=False)
