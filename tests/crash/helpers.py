"""What the crash tests share."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from rqcore.testing import PATIENCE


def until(wanted: Callable[[], Any], why: Callable[[], object]) -> Any:
    """Look until it is so, and return what was found; fails with what ``why`` tells.

    For what nobody is told of, such as that a killed process is there again.
    """
    for _ in range(int(PATIENCE / 0.02)):
        found = wanted()
        if found:
            return found
        select.select([], [], [], 0.02)
    raise AssertionError(why())
