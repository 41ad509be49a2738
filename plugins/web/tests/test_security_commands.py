"""``rq web``: passwords, tokens and the address, at the real command line; and their documentation."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from rqcore_cli.main import make_group
from rqcore_web.security import configfile, passwords
from rqcore_web.security.times import parse_end

from rqcore import durable
from rqcore.errors import RefusedError, RqError
from rqcore.testing import PATIENCE, RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Web

PAGE = Path(__file__).parents[3] / "docs" / "web-security.md"
NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
RQ = [sys.executable, "-m", "rqcore_cli"]


class Rq:
    """Runs ``rq`` on an instance."""

    def __init__(self, rq: RunningInstance) -> None:
        rq.use_plugins("cli", "web")
        self.environ = {**rq.environ, "RQ_DIR": str(rq.directory)}
        self.config = rq.directory / "config" / "config.json"
        self.tokens = rq.directory / "config" / "tokens.json"
        self.err = ""

    def __call__(self, *words: str, stdin: str = "", status: int = 0) -> str:
        done = subprocess.run(
            [*RQ, *words], input=stdin, capture_output=True, text=True, check=False,
            env=self.environ, timeout=PATIENCE,
        )  # fmt: skip
        self.err = done.stderr
        assert done.returncode == status, done.stderr
        return done.stdout

    def users(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.config.read_text())["basic_auth"]["users"]
        return found


@pytest.fixture
def rq(rq_instance: RunningInstance) -> Rq:
    return Rq(rq_instance)


# Passwords


def test_a_password_is_hashed_and_nothing_else_changes(rq: Rq) -> None:
    before = {
        "zeta": {"unknown": [1, None]}, **json.loads(rq.config.read_text()),
        "basic_auth": {"realm": "mq\u00e4", "users": {"old": "clear", "alice": "also clear"}},
    }  # fmt: skip
    rq.config.write_text(json.dumps(before, ensure_ascii=False))
    rq.config.chmod(0o644)
    assert rq("web", "passwd", "alice", "--stdin", stdin="s3cret words\n") == ""
    after = json.loads(rq.config.read_text())
    assert list(after) == list(before)
    stored = after["basic_auth"]["users"].pop("alice")
    assert passwords.is_password("s3cret words", stored)
    del before["basic_auth"]["users"]["alice"]
    assert after == before
    assert stat.S_IMODE(rq.config.stat().st_mode) == 0o600
    assert "alice can log in with the new password" in rq.err
    assert "in clear text" in rq.err
    assert "old" in rq.err
    assert "s3cret" not in rq.err
    assert sorted(os.listdir(rq.config.parent)) == ["config.json"]


def test_the_first_user_closes_the_site_and_that_is_told(rq: Rq) -> None:
    rq("web", "passwd", "alice", "--stdin", stdin="x\n")
    assert "everybody has to log in" in rq.err
    rq("web", "passwd", "bob", "--stdin", stdin="y")
    assert "everybody" not in rq.err
    assert list(rq.users()) == ["alice", "bob"]


def test_a_link_to_the_config_stays_one(rq: Rq, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    rq.config.rename(elsewhere)
    rq.config.symlink_to(elsewhere)
    rq("web", "passwd", "alice", "--stdin", stdin="x\n")
    assert rq.config.is_symlink()
    assert "alice" in elsewhere.read_text()


@pytest.mark.parametrize(
    ("words", "stdin", "status", "reason"),
    [
        (["passwd", "alice"], "", 2, "nobody can be asked here"),
        (["passwd", "alice", "--stdin"], "\n", 2, "1 to 1024 characters"),
        (["passwd", "alice", "--stdin"], "x" * 2000, 2, "1 to 1024 characters"),
        (["passwd", "a:b", "--stdin"], "x\n", 2, "no colon"),
        (["passwd", "", "--stdin"], "x\n", 2, "no colon"),
        (["hash"], "", 2, "nobody can be asked here"),
    ],
)
def test_what_is_no_user_or_password_is_refused_and_nothing_changes(
    rq: Rq, words: list[str], stdin: str, status: int, reason: str
) -> None:
    before = rq.config.read_bytes()
    assert rq("web", *words, stdin=stdin, status=status) == ""
    assert reason in rq.err
    assert rq.config.read_bytes() == before


def test_a_config_that_is_wrong_is_left_alone(rq: Rq) -> None:
    rq.config.write_text('{"host": "localhost", "port": "x"}')
    rq("web", "passwd", "alice", "--stdin", stdin="x\n", status=1)
    assert '"port"' in rq.err
    assert "alice" not in rq.config.read_text()


def test_a_config_that_somebody_else_changes_meanwhile_is_left_to_him(
    rq_instance: RunningInstance,
) -> None:
    file = rq_instance.instance.config_file

    def edit(config: dict[str, Any]) -> None:
        rq_instance.configure(port=3334)
        config["port"] = 3335

    with pytest.raises(RefusedError, match="was changed meanwhile; do it again"):
        configfile.change(file, edit)
    assert json.loads(file.read_text())["port"] == 3334


def test_the_file_of_another_user_is_his_to_change(
    rq_instance: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(RefusedError, match=r"belongs to \w+; do this as"):
        configfile.change(rq_instance.instance.config_file, lambda _: None)


def test_a_place_that_cannot_be_written_is_told(
    rq_instance: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write_file", full)
    with pytest.raises(RqError, match=r"config\.json cannot be written: No space left"):
        configfile.change(rq_instance.instance.config_file, lambda _: None)
    with pytest.raises(RqError, match="cannot be read: No such file"):
        configfile.change(rq_instance.directory / "none", lambda _: None)
    configfile.refuse_foreign(rq_instance.directory / "none")


def test_the_hash_alone_can_be_had(rq: Rq) -> None:
    stored = rq("web", "hash", "--stdin", stdin="pass word\r\n").strip()
    assert passwords.is_password("pass word", stored)
    assert rq("web", "hash", "--stdin", stdin="pass word\n").strip() != stored


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(rq: Rq) -> None:
    ours, theirs = pty.openpty()
    command = [*RQ, "web", "passwd", "alice"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=rq.environ, start_new_session=True
    ) as process:
        os.close(theirs)
        screen = b""
        for prompt in (b"Password: ", b"confirmation: "):
            while not screen.endswith(prompt):
                screen += os.read(ours, 1000)
            os.write(ours, b"s3cret\n")
        while b"log in with this password" not in screen:
            screen += os.read(ours, 1000)
        assert process.wait(PATIENCE) == 0
    os.close(ours)
    assert b"s3cret" not in screen
    assert passwords.is_password("s3cret", rq.users()["alice"])


# Tokens


def test_a_token_is_printed_once_and_stored_as_a_hash(rq: Rq) -> None:
    text = rq("web", "token", "add", "deploy", "--scope", "enqueue", "--queue", "b", "--queue", "a",
              "--expires", "30d").strip()  # fmt: skip
    assert re.fullmatch(r"rqt_[A-Za-z0-9_-]{43}", text)
    assert "not shown again" in rq.err
    assert "there is no queue a yet" in rq.err
    stored = rq.tokens.read_text()
    assert stat.S_IMODE(rq.tokens.stat().st_mode) == 0o600
    assert text not in stored
    (token,) = json.loads(stored)["tokens"]
    assert token["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert token["queues"] == ["a", "b"]
    left = datetime.fromisoformat(token["expires"]) - datetime.now(UTC)
    assert timedelta(days=29) < left < timedelta(days=31)


def test_tokens_are_listed_for_people_and_for_programs_without_their_secret(rq: Rq) -> None:
    assert rq("web", "token", "ls") == ""
    assert "There is no token yet" in rq.err
    assert json.loads(rq("web", "token", "ls", "--json")) == []
    text = rq("web", "token", "add", "monitor").strip()
    rq("web", "token", "add", "ops team", "--scope", "admin", "--expires", "2999-01-01")
    lines = rq("web", "token", "ls").splitlines()
    assert lines[0].split() == ["NAME", "SCOPE", "QUEUES", "CREATED", "EXPIRES", "TOKEN"]
    assert lines[1].split()[:3] == ["monitor", "read", "all"]
    assert lines[1].split()[-2:] == ["never", f"...{text[-4:]}"]
    items = json.loads(rq("web", "token", "ls", "--json"))
    assert [json.loads(line) for line in rq("web", "token", "ls", "--jsonl").splitlines()] == items
    assert [(item["name"], item["scope"], item["queues"]) for item in items] == [
        ("monitor", "read", None), ("ops team", "admin", None),
    ]  # fmt: skip
    assert not {"sha256", "token"} & items[0].keys()


def test_a_token_is_removed_by_its_name(rq: Rq) -> None:
    rq("web", "token", "add", "a")
    rq("web", "token", "add", "b")
    rq("web", "token", "add", "a", status=4)
    assert "there is a token a already" in rq.err
    rq("web", "token", "rm", "a", "c", status=3)
    assert "there is no token c" in rq.err
    rq("web", "token", "rm", "a")
    assert [token["name"] for token in json.loads(rq.tokens.read_text())["tokens"]] == ["b"]


@pytest.mark.parametrize(
    "words",
    [
        ["x", "--scope", "root"],
        ["x", "--expires", "soon"],
        ["x", "--expires", "2020-01-01"],
        ["x", "--queue", "../x"],
        ["x\ny"],
        [" x"],
        ["x" * 100],
    ],
)
def test_what_is_no_token_is_refused(rq: Rq, words: list[str]) -> None:
    assert rq("web", "token", "add", *words, status=2) == ""
    assert not rq.tokens.exists()


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("90m", NOW + timedelta(minutes=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("30d", NOW + timedelta(days=30)),
        ("2w", NOW + timedelta(weeks=2)),
        ("2026-03-02T08:00:00Z", NOW + timedelta(days=1)),
        ("2026-03-02T10:00+02:00", NOW + timedelta(days=1)),
    ],
)
def test_when_a_token_ends_can_be_said_in_several_ways(text: str, end: datetime) -> None:
    assert parse_end(text, NOW) == end


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "1y", "99999w99", "2026-02-01", "2026-03-01T08:00Z"]
)
def test_what_is_no_time_to_come_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no time: write 30d|has passed"):
        parse_end(text, NOW)


# The address


def rq_answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_the_url_is_printed_and_whether_it_answers(web: Web) -> None:
    rq = Rq(web.rq)
    assert rq("web", "url", status=5) == f"http://127.0.0.1:{web.port}/\n"
    assert "RQ does not run in" in rq.err
    web.start()
    assert rq("web", "url") == f"http://127.0.0.1:{web.port}/\n"
    assert rq.err == "It answers\n"
    web.rq.configure(allowed_ips=["10.0.0.0/8"])
    assert rq("web", "url").startswith("http://")
    web.rq.configure(allowed_ips=None)
    web.rq.stop()
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(web.port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        rq.environ["PYTHONUNBUFFERED"] = "1"
        while rq_answers(web.port) is False:
            pass
        rq("web", "url", status=5)
        other.terminate()
    assert "something else answers there (status 404)" in rq.err
    web.rq.configure(addr="0.0.0.0", relative_root="/mq/")
    web.start()
    assert rq("web", "url", status=5) == f"http://localhost:{web.port}/mq/\n"
    assert "nobody would have to log in" in rq.err
    assert '"addr" is 0.0.0.0, which other machines reach' in rq("status")


# The documentation


def walk(command: click.Command, path: str) -> dict[str, click.Command]:
    found = {path: command}
    if isinstance(command, click.Group):
        for name in command.commands:
            found |= walk(command.commands[name], f"{path} {name}")
    return found


def test_the_page_has_every_command_and_option_and_every_command_its_examples() -> None:
    text = PAGE.read_text()
    context = click.Context(make_group(), obj=None)
    web = make_group().get_command(context, "web")
    assert web is not None
    for path, command in walk(web, "rq web").items():
        assert re.search(rf"\b{path}\b", vars(command)["examples"]), path
        if isinstance(command, click.Group):
            continue
        assert f"`{path}" in text, path
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert f"`{option.opts[0]}" in text, f"{path} {option.opts[0]}"
