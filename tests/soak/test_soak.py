"""The soak, short enough for every run of the suite; ``make soak`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import soak


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_when_anything_is_killed(tmp_path: Path) -> None:
    tally = soak(tmp_path, kills=40, seed=20, say=False)
    assert sum(tally.killed.values()) >= 30
    assert len(tally.acknowledged) > 30
