"""``rq-cleaner``."""

from __future__ import annotations


def main() -> int:
    """Not written yet."""
    raise NotImplementedError
