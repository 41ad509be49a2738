"""What the first page of rqcore-web says when the rules are bad."""

from __future__ import annotations

from dataclasses import dataclass

from rqcore_router.files import Standing


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of a page, as rqcore-web takes it: a heading, and text that is escaped there."""

    title: str
    content: str


def panels(standing: Standing) -> list[Panel]:
    """One panel with everything that is wrong; none when nothing is."""
    if not standing.problems:
        return []
    instead = (
        f"The last good rules, {standing.stand_in}, stay in force."
        if standing.rules is not None
        else "Queue rq_router is DOWN and refuses messages until the file is corrected."
    )
    problems = "; ".join(standing.problems)
    return [Panel("Bad router rules", f"{standing.file}: {problems}. {instead}")]
