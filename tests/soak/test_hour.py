"""The hour of work, short enough for every run of the suite; ``make hour`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.hour import hour


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_message_is_accounted_for(tmp_path: Path) -> None:
    account = hour(tmp_path, messages=50, kills=0, seed=3, kept=5, say=False)
    assert account.removed > 10
    assert account.refused


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_webhook_is_lost_when_anything_is_killed(tmp_path: Path) -> None:
    # No moods: who fails for a second time waits for a minute.
    account = hour(tmp_path, messages=40, kills=10, seed=4, kept=5, moody=False, say=False)
    assert sum(account.killed.values()) > 5
    assert len(account.accepted) > 20
