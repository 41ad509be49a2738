"""What rq doctor is told of the site: a real one, a real certificate."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

import pytest
from rqcore_web import checks as module
from rqcore_web.checks import checks
from rqcore_web.security import passwords

if TYPE_CHECKING:
    from tests.conftest import Web

    from rqcore.hookspecs import Check


def told(web: Web) -> dict[str, Check]:
    return {check.name: check for check in checks(str(web.rq.directory))}


def test_does_it_answer(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(web) == {}  # RQ does not run: nobody expects it
    web.start()
    assert (told(web)["web"].level, told(web)["web"].text) == ("ok", f"{web.url} answers")
    os.kill(web.pid(), signal.SIGSTOP)
    monkeypatch.setattr("rqcore_web.whereabouts._PATIENCE", 0.2)
    try:
        found = told(web)["web"]
    finally:
        os.kill(web.pid(), signal.SIGCONT)
    assert found.level == "critical"
    assert "does not answer" in found.text
    assert "rq status" in found.remedy


def test_what_others_can_read_is_told(web: Web) -> None:
    folder = web.rq.directory
    folder.chmod(0o755)
    names = ("config/tokens.json", "var/web/secret", "config/key.pem")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        (folder / name).chmod(0o640)
    web.rq.configure(plugins={"web": {"certificate": "c.pem", "key": "config/key.pem"}})
    found = told(web)
    for name in names:
        check = found[f"secret {name}"]
        assert (check.level, check.remedy) == ("warning", f"chmod 600 {folder / name}")
        assert check.fix is not None
        check.fix()
        assert told(web)[check.name].level == "ok"


def test_a_main_config_that_is_wrong_is_told_elsewhere(web: Web) -> None:
    (web.rq.directory / "config" / "config.json").write_text("{,")
    assert told(web) == {}


def test_passwords_in_clear_text(web: Web) -> None:
    users = {"ann": "secret", "bob": passwords.hash_password("other")}
    web.rq.configure(basic_auth={"realm": "x", "users": users})
    check = told(web)["web passwords"]
    assert check.level == "warning"
    assert check.text.startswith("the password of ann in clear text in ")
    assert check.remedy == "hash it: rq web passwd ann"
    assert "secret" not in f"{check.text}{check.remedy}"


def test_how_long_the_certificate_is_good(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", "key.pem", "-out", "c.pem", "-days", "30", "-subj", "/CN=x"],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    pem = str(tmp_path / "c.pem")
    web.rq.configure(plugins={"web": {"certificate": pem, "key": str(tmp_path / "key.pem")}})
    now = time()
    for days, level, words in (
        (0, "ok", f"{pem} is good for 29 d more"),
        (20, "warning", f"{pem} is good for 9 d more"),
        (40, "critical", f"{pem} is out of date since 10 d"),
    ):
        monkeypatch.setattr(module, "time", lambda days=days: now + days * 86400)
        check = told(web)["web certificate"]
        assert (check.level, check.text) == (level, words)
    (tmp_path / "c.pem").write_text("hello")
    assert told(web)["web certificate"].level == "critical"
    assert "cannot be read" in told(web)["web certificate"].text
