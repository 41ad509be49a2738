"""The site's secret: it lasts, nobody else may read it, and a key for one purpose is not another's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from rqcore_web.security.keys import key

from rqcore.errors import StartError


def test_it_is_made_once_and_kept_for_the_owner_alone(tmp_path: Path) -> None:
    first = key(tmp_path, "flash")
    assert len(first) == 32
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert key(tmp_path, "flash") == first
    assert key(tmp_path, "cursors") != first
    assert first not in (tmp_path / "secret").read_bytes()


def test_one_that_others_could_read_is_closed(tmp_path: Path) -> None:
    first = key(tmp_path, "flash")
    (tmp_path / "secret").chmod(0o644)
    assert key(tmp_path, "flash") == first
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_one_that_is_damaged_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    made = key(tmp_path, "flash")
    assert key(tmp_path, "flash") == made
    assert (tmp_path / "secret").stat().st_size == 32


def test_a_place_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(StartError, match=r"secret cannot be read: .*; correct the owner"):
        key(tmp_path, "flash")
    os.rmdir(tmp_path / "secret")
    with pytest.raises(StartError, match="cannot be written: No such file or directory"):
        key(tmp_path / "missing", "flash")
