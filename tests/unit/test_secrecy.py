"""rqcore.secrecy: who can read a secret, by the file, its owner, and the directories on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rqcore.errors import RefusedError
from rqcore.secrecy import secret_check

NOBODY = 65534
AS_NOBODY = """
import os, sys
from rqcore.secrecy import secret_check
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
def read():
    raise SystemExit("it was read")
check = secret_check(sys.argv[1], sys.argv[2], "a token", read)
print(check.level, check.text, sep=": ")
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """In an instance that everybody may look into."""
    tmp_path.chmod(0o755)
    (tmp_path / "config").mkdir(0o755)
    file = tmp_path / "config" / "x.token"
    file.write_text("xyzzy\n")
    return file


@pytest.mark.parametrize(("file", "folder", "top", "who"), [
    (0o644, 0o755, 0o755, "everybody"), (0o602, 0o755, 0o755, "everybody"),
    (0o640, 0o755, 0o755, "group "), (0o644, 0o750, 0o755, "group "), (0o644, 0o755, 0o700, ""),
    (0o640, 0o750, 0o750, "group "), (0o600, 0o755, 0o755, ""), (0o644, 0o700, 0o755, ""),
    (0o711, 0o755, 0o755, ""), (0o400, 0o755, 0o755, ""), (0o440, 0o755, 0o755, "group "),
])  # fmt: skip
def test_who_can_read_it(secret: Path, file: int, folder: int, top: int, who: str) -> None:
    secret.chmod(file)
    secret.parent.chmod(folder)
    secret.parent.parent.chmod(top)
    check = secret_check(str(secret.parent.parent), str(secret), "a token")
    assert check.name == "secret config/x.token"
    assert check.level == ("warning" if who else "ok")
    if who:
        left = file & 0o700
        assert check.text.startswith(who)
        assert check.text.endswith(f" can read {secret}, which holds a token")
        assert check.remedy == f"chmod {left:o} {secret}"
        assert check.fix is not None
        assert check.fix() == f"{secret} is {left:o} now"
        assert secret.stat().st_mode & 0o777 == left
        assert secret_check(str(secret.parent.parent), str(secret), "a token").level == "ok"


def test_a_file_elsewhere_is_named_whole_and_judged_by_its_own_directory(
    secret: Path, tmp_path: Path
) -> None:
    instance = tmp_path / "rq"
    instance.mkdir(0o700)
    secret.chmod(0o644)
    assert secret_check(str(instance), str(secret), "a token").name == f"secret {secret}"
    (instance / "link").symlink_to(secret)
    check = secret_check(str(instance), f"{instance}/link", "a token")
    assert (check.name, check.level) == ("secret link", "warning")


def test_what_cannot_be_used_is_told(secret: Path, tmp_path: Path) -> None:
    def refuse() -> None:
        raise RefusedError("it holds no token; write it there")

    check = secret_check(str(tmp_path), str(secret), "a token", refuse)
    assert (check.level, check.text, check.remedy) == (
        "critical", "it holds no token", "write it there",
    )  # fmt: skip
    check = secret_check(str(tmp_path), f"{secret}.gone", "a token")
    assert check.level == "critical"
    assert check.text == f"{secret}.gone cannot be read: No such file or directory"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_stranger_s_file_may_be_read_by_a_group_and_is_not_changed(
    secret: Path, tmp_path: Path
) -> None:
    os.chown(secret, NOBODY, NOBODY)
    secret.chmod(0o640)
    assert secret_check(str(tmp_path), str(secret), "a key").level == "ok"
    secret.chmod(0o664)
    check = secret_check(str(tmp_path), str(secret), "a key")
    assert check.level == "warning"
    assert check.remedy.endswith(f": chmod 640 {secret}")
    assert check.fix is None
    os.chown(secret, 4242, 4242)
    assert secret_check(str(tmp_path), str(secret), "a key").remedy.startswith("as user 4242: ")


@pytest.mark.process
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_look_does_not_call_it_broken(secret: Path, tmp_path: Path) -> None:
    way = [tmp_path, *tmp_path.parents]
    before = {path: path.stat().st_mode for path in way}
    for path in way[:-1]:
        path.chmod(before[path] | 0o011)
    secret.parent.chmod(0o700)

    def told() -> str:
        command = [sys.executable, "-c", AS_NOBODY, str(tmp_path), str(secret)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        assert told() == "ok: you cannot look at it, as it should be"
        secret.parent.chmod(0o755)
        secret.chmod(0o600)
        assert told() == "ok: nobody else can read it"
    finally:
        for path in way[:-1]:
            path.chmod(before[path])
