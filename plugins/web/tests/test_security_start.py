"""What the site does not start with, and TLS: real certificates, real curl."""

from __future__ import annotations

import resource
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_web.security import listening, tokens
from rqcore_web.security.tls import Tls

from rqcore.errors import StartError
from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from tests.conftest import Web


def service(web: Web) -> dict[str, Any]:
    children = web.rq.manager.ask("describe")["children"]
    found: dict[str, Any] = next(c for c in children if c["kind"] == "service")
    return found


def rq(web: Web, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rqcore_cli", "--dir", str(web.rq.directory), *words],
        env=web.rq.environ, capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.stdout


# --- the open door


@pytest.mark.parametrize("addr", ["0.0.0.0", "::", "192.0.2.1"])
def test_no_other_machine_is_let_in_by_mistake(web: Web, addr: str) -> None:
    web.rq.queue("test", web.HELLO)
    web.rq.configure(addr=addr)
    web.start()
    assert service(web)["state"] == "failed"
    problem = service(web)["problem"]
    assert str(web.rq.instance.config_file) in problem
    assert f'"addr" is {addr}, which other machines reach' in problem
    for remedy in ("rq web passwd NAME", "rq web token add NAME", '"authentication": "none"'):
        assert remedy in problem
    assert problem in rq(web, "status").replace("\n", " ")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", web.port))
    web.rq.until("test", web.rq.send("test"), "done")  # RQ itself works


def test_with_a_user_or_a_token_it_may_start_and_asks_for_it_everywhere(web: Web) -> None:
    web.rq.configure(addr="0.0.0.0")
    made, text = tokens.make_token("t", "read", (), None, datetime.now(UTC))
    tokens.write_tokens(web.rq.directory / "config" / "tokens.json", [made])
    web.start()
    assert service(web)["state"] == "running"
    assert web.curl("q.json").status == 401  # from this machine too: it listens for others
    assert web.curl("q.json", "-H", "Host: any.name").status == 401
    assert web.curl("q.json", "-H", f"Authorization: Bearer {text}").status == 200
    tokens.write_tokens(web.rq.directory / "config" / "tokens.json", [])
    assert web.curl("q.json").status == 401


def test_the_word_that_there_is_none_opens_it(web: Web) -> None:
    web.rq.configure(addr="0.0.0.0", plugins={"web": {"authentication": "none"}})
    web.start()
    for options in ((), ("-H", "Host: any.name"), ("-H", "X-Forwarded-For: 1.2.3.4")):
        assert web.curl("q.json", *options).status == 200
    assert web.curl("restart", "-X", "POST", "-H", "Origin: http://evil").status == 403


def test_users_count_whatever_else_is_said(web: Web) -> None:
    web.rq.configure(
        addr="0.0.0.0", basic_auth={"users": {"alice": "x"}},
        plugins={"web": {"authentication": "none", "roles": {"bob": "read"}}},
    )  # fmt: skip
    web.rq.instance.config_file.chmod(0o644)
    web.start()
    assert web.curl("q.json").status == 401
    log = web.rq.log_text()
    assert "everybody has to log in; remove one of the two" in log
    assert '"plugins.web.roles" names bob, who is no user' in log
    assert "can be read by others; run: chmod 600" in log


def test_damaged_tokens_are_told_at_the_start(web: Web) -> None:
    (web.rq.directory / "config" / "tokens.json").write_text("{")
    web.start()
    assert "tokens.json: is not JSON" in service(web)["problem"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"authentication": "maybe"}, 'must be "required" or "none"'),
        ({"roles": {"alice": "king"}}, "is no role"),
        ({"trusted_proxies": ["x"]}, "must be IP addresses or networks"),
        ({"client_timeout": 0}, "leaves no client any time"),
        ({"certificate": "x.pem"}, "TLS needs both certificate and key"),
    ],
)
def test_options_that_are_wrong_are_told_in_words(
    web: Web, options: dict[str, Any], problem: str
) -> None:
    web.rq.configure(plugins={"web": options})
    web.start()
    assert problem in web.rq.log_text()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", web.port))


@pytest.mark.parametrize(
    ("addr", "local"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True),
        ("localhost", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False),
        ("no.such.host.invalid", False),
    ],
)  # fmt: skip
def test_only_the_loopback_is_local(addr: str, local: bool) -> None:
    assert listening.is_local(addr) is local


@pytest.mark.parametrize("addr", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_told(web: Web, addr: str) -> None:
    web.rq.configure(addr=addr, basic_auth={"users": {"alice": "x"}})
    web.start()
    assert f"{addr}" in service(web)["problem"]
    assert "config.json" in service(web)["problem"]


def test_the_loopback_of_ipv6_is_served(web: Web) -> None:
    web.rq.configure(addr="::1")
    web.start()
    url = f"http://[::1]:{web.port}/q.txt"
    assert subprocess.run(["curl", "-sSf", url], check=True, capture_output=True).stdout == b""


def test_the_connections_get_their_descriptors(web: Web) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        web.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{web.pid()}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert int(line.split()[3]) == 3500
    idle = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(600)]
    assert web.curl("q.json").status == 200
    for sock in idle:
        sock.close()


def test_more_connections_than_the_system_allows_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 4000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: wanted.append(limits))
    listening.allow_descriptors(1000)
    listening.allow_descriptors(5000)
    assert wanted == [(3500, 4000), (4000, 4000)]
    assert "5000 connections may need 15500 descriptors, but the system allows 4000" in caplog.text


# --- TLS


def certificate(folder: Path, name: str, *, passphrase: str = "") -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    protection = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         *protection, "-keyout", str(key), "-out", str(pem), "-days", "2", "-subj", f"/CN={name}",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return pem, key


def curl(web: Web, pem: Path, *options: str, status: int = 0) -> str:
    done = subprocess.run(
        ["curl", "-sS", "-i", "--cacert", str(pem), *options, f"https://localhost:{web.port}/q.json"],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stdout


def subject(web: Web) -> bytes:
    """Who the server says that it is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = ("127.0.0.1", web.port)
    with (
        socket.create_connection(address, PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        shown = sock.getpeercert(binary_form=True)
    assert shown is not None
    return subprocess.run(
        ["openssl", "x509", "-inform", "der", "-noout", "-subject"],
        input=shown, check=True, capture_output=True,
    ).stdout.strip()  # fmt: skip


def test_it_is_served_by_tls_and_a_renewed_certificate_is_taken(web: Web, tmp_path: Path) -> None:
    pem, key = certificate(tmp_path, "first")
    web.rq.configure(plugins={"web": {"certificate": str(pem), "key": str(key)}})
    web.start()
    answer = curl(web, pem)
    assert answer.startswith("HTTP/1.1 200")
    assert "strict-transport-security: max-age=31536000\n" in answer.replace("\r", "")
    curl(web, pem, "--tlsv1.2", "--tls-max", "1.2")
    curl(web, pem, "--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0", status=35)
    assert rq(web, "web", "url") == f"https://127.0.0.1:{web.port}/\n"
    with socket.create_connection(("127.0.0.1", web.port), PATIENCE) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert not sock.recv(100).startswith(b"HTTP")
    assert subject(web) == b"subject=CN = first"
    new_pem, new_key = certificate(tmp_path, "second")
    new_pem.rename(pem)
    assert subject(web) == b"subject=CN = first"  # half of the pair: not yet
    assert "is not the key of" in web.rq.log_text()
    new_key.rename(key)
    assert subject(web) == b"subject=CN = second"
    curl(web, pem)


def test_mistakes_with_the_files_are_told_in_words(web: Web, tmp_path: Path) -> None:
    web.rq.configure(plugins={"web": {"certificate": "tls/missing.pem", "key": "tls/missing.key"}})
    web.start()
    assert service(web)["state"] == "failed"
    assert f"{web.rq.directory}/tls/missing.pem, which cannot be read" in service(web)["problem"]
    assert "missing.pem" in rq(web, "status")


def test_each_mistake_has_its_words(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path, "good")
    _, other = certificate(tmp_path, "other")
    _, locked = certificate(tmp_path, "locked", passphrase="s3cret")
    text = tmp_path / "text"
    text.write_text("hello")
    cut = tmp_path / "cut"
    cut.write_text(pem.read_text()[:200])
    Tls(tmp_path, "good.pem", "good.key")
    for given, words in [
        ((pem, other), f"{other} is not the key of {pem}"),
        ((pem, locked), f"{locked} is protected by a passphrase"),
        ((text, key), f'"plugins.web.certificate" is {text}, which is no certificate in PEM'),
        ((key, key), "which is no certificate in PEM"),
        ((pem, pem), "which is no key in PEM"),
        ((tmp_path, key), "cannot be read: Is a directory"),
        ((pem, tmp_path / "none"), "cannot be read: No such file or directory"),
        ((cut, key), "cannot be used"),
    ]:
        with pytest.raises(StartError) as caught:
            Tls(tmp_path, *map(str, given))
        assert words in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_a_client_that_greets_and_says_no_more_keeps_nobody_out(web: Web, tmp_path: Path) -> None:
    pem, key = certificate(tmp_path, "site")
    web.rq.configure(plugins={"web": {"certificate": str(pem), "key": str(key)}})
    web.start()
    silent = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(50)]
    assert curl(web, pem).startswith("HTTP/1.1 200")
    for sock in silent:
        sock.close()
