"""The pure rooms of the guard: passwords, tokens, addresses, forged requests, slowing down."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_web.access import Who
from rqcore_web.security import addresses, browsers, passwords, tokens
from rqcore_web.security.answers import DeniedError
from rqcore_web.security.connections import Room
from rqcore_web.security.logins import Logins
from rqcore_web.security.standing import Standing
from rqcore_web.security.throttle import FREE, LONGEST, Throttle

from rqcore.config import ConfigError

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
STORED = passwords.hash_password("s3cret")


# --- passwords


def test_a_hash_is_of_one_password_and_never_the_same_twice() -> None:
    assert passwords.is_hashed(STORED)
    assert passwords.is_password("s3cret", STORED)
    assert not passwords.is_password("s3cret ", STORED)
    assert not passwords.is_password("", STORED)
    assert passwords.hash_password("s3cret") != STORED
    assert passwords.problem(STORED) is None


def test_it_is_the_scrypt_that_everybody_computes() -> None:
    """The vector of RFC 7914."""
    digest = bytes.fromhex(
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
    )
    salt, digest64 = (base64.b64encode(data).decode() for data in (b"SodiumChloride", digest))
    assert passwords.is_password("pleaseletmein", f"scrypt$14$8$1${salt}${digest64}".rstrip("="))


def test_clear_text_is_compared_as_it_is() -> None:
    assert not passwords.is_hashed("s3cret")
    assert passwords.is_password("p\u00e4ss \udcff", "p\u00e4ss \udcff")
    assert not passwords.is_password("s3cret", "S3cret")
    assert passwords.problem("s3cret") is None


@pytest.mark.parametrize(
    "stored",
    [
        "scrypt$",
        "scrypt$14$8$1$c2FsdA",
        STORED.replace("$14$", "$x$"),
        STORED.replace("$14$", "$0$"),
        STORED.replace("$14$", "$-14$"),
        STORED.replace("$14$", "$30$"),
        STORED.replace("$8$1$", "$8$100000$"),
        STORED.replace("$8$", "$0$"),
        STORED[:-20],
        STORED + "!",
        STORED + "$x",
    ],
)
def test_a_damaged_or_monstrous_hash_is_told_and_is_nobodys(stored: str) -> None:
    assert "hash" in str(passwords.problem(stored))
    assert not passwords.is_password("s3cret", stored)


# --- tokens


def test_a_token_survives_the_file_and_its_text_does_not(tmp_path: Path) -> None:
    made, text = tokens.make_token("ci", "enqueue", ["b", "a", "a"], NOW + timedelta(days=1), NOW)
    assert text.startswith("rqt_")
    assert made.sha256 == hashlib.sha256(text.encode()).hexdigest() == tokens.digest(text)
    other, _ = tokens.make_token("all", "admin", [], None, NOW)
    tokens.write_tokens(tmp_path / "tokens.json", [made, other])
    assert tokens.read_tokens(tmp_path / "tokens.json") == [made, other]
    assert (made.queues, other.queues) == (("a", "b"), None)
    assert text not in (tmp_path / "tokens.json").read_text()
    assert not made.expired(NOW)
    assert made.expired(NOW + timedelta(days=1))
    assert not other.expired(NOW + timedelta(days=10_000))


def token(**changes: object) -> dict[str, object]:
    made, _ = tokens.make_token("ci", "read", [], None, NOW)
    return {**made.as_json(), **changes}


@pytest.mark.parametrize(
    ("item", "key"),
    [
        (token(scope="root"), "scope"),
        (token(scope=None), "scope"),
        (token(sha256="short"), "sha256"),
        (token(queues=[]), "queues"),
        (token(queues=["../x"]), "queues"),
        (token(queues="test"), "queues"),
        (token(expires="soon"), "expires"),
        ("text", "tokens[0]"),
    ],
)
def test_a_token_that_is_wrong_is_told_with_its_place(
    tmp_path: Path, item: object, key: str
) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps({"tokens": [item]}))
    with pytest.raises(ConfigError) as caught:
        tokens.read_tokens(tmp_path / "tokens.json")
    assert any(key in problem.key for problem in caught.value.problems)


def test_a_time_without_a_zone_is_utc(tmp_path: Path) -> None:
    item = token(expires="2026-03-02T08:00:00")
    (tmp_path / "tokens.json").write_text(json.dumps({"tokens": [item]}))
    (read,) = tokens.read_tokens(tmp_path / "tokens.json")
    assert read.expires == NOW + timedelta(days=1)


def test_tokens_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").mkdir()
    with pytest.raises(ConfigError, match=r"tokens\.json: cannot be read: "):
        tokens.read_tokens(tmp_path / "tokens.json")


# --- addresses


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("fd00::1", True),
        ("fe80::1%eth0", False),
        ("", False),
        ("name", False),
    ],
)
def test_an_address_is_in_a_network_however_it_came(address: str, inside: bool) -> None:
    assert addresses.is_inside(address, addresses.networks(["10.0.0.0/8", "fd00::/16"])) is inside


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # what the client itself says is not believed
        ("127.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.1", "1.2.3.4"),
        ("127.0.0.1", "10.0.0.2, 10.0.0.1", "10.0.0.2"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
        ("5.5.5.5", "1.2.3.4", "5.5.5.5"),
    ],
)
def test_a_proxy_is_believed_as_far_as_it_is_trusted(peer: str, forwarded: str, found: str) -> None:
    trusted = addresses.networks(["127.0.0.1", "10.0.0.0/8"])
    assert addresses.behind(peer, forwarded, trusted) == found


# --- forged requests

OURS = {("https", "mq.example.com", 443)}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "ANYTHING"])
@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": ""}, False),
        ({"sec-fetch-site": "same-origin", "origin": "http://evil"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://site:3333"}, False),
        ({"origin": "http://site:3333"}, True),
        ({"origin": "http://SITE:3333"}, True),
        ({"origin": "http://site"}, False),
        ({"origin": "http://site:3334"}, False),
        ({"origin": "http://evil"}, False),
        ({"origin": "http://site:3333.evil"}, False),
        ({"origin": "http://evil/site:3333"}, False),
        ({"origin": "http://evil@site:3333"}, True),  # no browser sends this: it is site's
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "file://"}, False),
        ({"origin": "https://mq.example.com"}, True),
        ({"origin": "http://mq.example.com"}, False),
        ({"origin": "http://evil", "referer": "http://site:3333/"}, False),
        ({"referer": "http://site:3333/q/test?x=http://evil"}, True),
        ({"referer": "http://evil/http://site:3333/"}, False),
        ({"referer": "http://site:3333@evil/"}, False),
        ({"referer": ""}, False),
        ({"referer": "about:blank"}, False),
    ],
)
def test_what_changes_something_comes_from_this_site_or_from_no_browser(
    method: str, headers: dict[str, str], fine: bool
) -> None:
    answer = browsers.forged(method, {"host": "site:3333", **headers}, OURS)
    assert (answer is None) is fine


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_what_changes_nothing_may_come_from_anywhere(method: str) -> None:
    assert browsers.forged(method, {"sec-fetch-site": "cross-site", "origin": "x"}, ()) is None


@pytest.mark.parametrize(
    ("host", "origin", "fine"),
    [
        ("site", "http://site", True),
        ("site:80", "http://site", True),
        ("site", "https://site:443", True),
        ("site:443", "http://site", False),
        ("[::1]:3333", "http://[::1]:3333", True),
        ("[::1]", "http://[::2]", False),
        ("bad:port", "http://bad", False),
        ("", "http://site", False),
        ("site/evil", "http://site", True),
    ],
)
def test_ports_that_are_left_out_are_the_usual_ones(host: str, origin: str, fine: bool) -> None:
    assert (browsers.forged("POST", {"host": host, "origin": origin}, ()) is None) is fine


@given(st.text())
def test_any_header_gets_an_answer(text: str) -> None:
    for name in ("sec-fetch-site", "origin", "referer"):
        browsers.forged("POST", {"host": text, name: text}, OURS)
    browsers.strange_host(text, {"mq"})


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        (None, True),
        ("127.0.0.1:3333", True),
        ("10.0.0.7", True),
        ("[::1]:3333", True),
        ("localhost:3333", True),
        ("LOCALHOST", True),
        ("app.localhost", True),
        ("mq.example.com:3333", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("mq.example.com.evil.example", False),
        ("evil.example@127.0.0.1", True),
        ("", False),
        ("[", False),
    ],
)
def test_the_site_is_asked_for_by_its_names(host: str | None, fine: bool) -> None:
    assert (browsers.strange_host(host, {"mq.example.com"}) is None) is fine


# --- slowing down


def test_the_first_failures_are_free_and_then_each_doubles_the_pause() -> None:
    throttle = Throttle()
    waits = []
    now = 1000.0
    for _ in range(FREE + 9):
        assert throttle.wait("a", now) == 0
        throttle.attempt("a", now)
        waits.append(throttle.wait("a", now))
        now += waits[-1]
    assert waits == [0.0] * FREE + [1, 2, 4, 8, 16, 32, LONGEST, LONGEST, LONGEST]
    assert throttle.wait("b", now) == 0


def test_a_success_is_no_failure_but_forgives_none() -> None:
    throttle = Throttle()
    for _ in range(100):
        throttle.attempt("a", 0)
        throttle.succeeded("a")
    assert throttle.wait("a", 0) == 0
    for _ in range(FREE):
        throttle.attempt("a", 0)
    throttle.attempt("a", 0)
    throttle.succeeded("a")
    assert throttle.wait("a", 0) == 0
    throttle.attempt("a", 0)
    assert throttle.wait("a", 0) == 1


def test_failures_are_forgotten_in_time() -> None:
    throttle = Throttle()
    for _ in range(20):
        throttle.attempt("a", 0)
    throttle.attempt("a", 901)
    assert throttle.wait("a", 901) == 0


def test_a_network_of_ipv6_is_one_address_and_the_table_is_bounded() -> None:
    throttle = Throttle(most=50)
    for number in range(FREE + 1):
        throttle.attempt(f"2001:db8::{number:x}", 0)
    assert throttle.wait("2001:db8::ffff", 0) == 1
    assert throttle.wait("2001:db8:0:1::1", 0) == 0
    for number in range(1000):
        throttle.attempt(f"10.0.{number // 256}.{number % 256}", 0)
    assert throttle.wait("2001:db8::ffff", 0) == 0
    assert len(throttle._known) == 50


def test_who_has_no_address_is_slowed_down_too() -> None:
    throttle = Throttle()
    for _ in range(FREE + 1):
        throttle.attempt("", 0)
    assert throttle.wait("", 0) == 1


# --- logging in


def standing(**users: str) -> Standing:
    return Standing(
        users=users, realm="RQ", roles={}, tokens={}, authentication="required", allowed=(),
        proxies=(), hosts=frozenset(), origins=frozenset(),
    )  # fmt: skip


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def all_at_once(
    logins: Logins, users: Standing, attempts: list[tuple[str, str, str]]
) -> list[Any]:
    """The outcome of each attempt: user, password, address."""
    asking = [
        logins.who(users, basic(user, password), address, everybody=False)
        for user, password, address in attempts
    ]
    found = await asyncio.gather(*asking, return_exceptions=True)
    return [one.status if isinstance(one, DeniedError) else one for one in found]


def test_many_who_show_the_same_wait_for_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    real = passwords.is_password

    def noting(password: str, stored: str) -> bool:
        checked.append(password)
        return real(password, stored)

    monkeypatch.setattr(passwords, "is_password", noting)
    attempts = [("alice", "s3cret", "10.0.0.1")] * 100
    found = asyncio.run(all_at_once(Logins(), standing(alice=STORED), attempts))
    assert found == [Who("alice")] * 100
    assert checked == ["s3cret"]


def test_when_too_many_wait_further_ones_come_back_later() -> None:
    attempts = [("alice", str(n), f"10.0.0.{n}") for n in range(80)]
    found = asyncio.run(all_at_once(Logins(), standing(alice=STORED, bob="clear"), attempts))
    assert found == [401] * 64 + [503] * 16


def test_an_unknown_name_and_clear_text_take_as_long_as_a_hash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costly = []
    real = hashlib.scrypt

    def noting(password: bytes, **cost: Any) -> bytes:
        costly.append(1)
        return real(password, **cost)

    monkeypatch.setattr(hashlib, "scrypt", noting)
    users = standing(alice=STORED, bob="clear")
    logins = Logins()
    asyncio.run(all_at_once(logins, users, [("nobody", "x", "a")]))  # the decoy is made
    for user, password in [("nobody", "x"), ("alice", "x"), ("bob", "x"), ("bob", "clear")]:
        costly.clear()
        asyncio.run(all_at_once(logins, users, [(user, password, f"{user}{password}")]))
        assert costly == [1], user


def test_a_success_after_failures_is_no_failure_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logins, users = Logins(), standing(alice="s3cret")
    for n in range(FREE):
        asyncio.run(all_at_once(logins, users, [("alice", str(n), "a")]))
    assert asyncio.run(all_at_once(logins, users, [("alice", "s3cret", "a")])) == [Who("alice")]
    assert "failed" not in caplog.text
    assert asyncio.run(all_at_once(logins, users, [("alice", "x", "a")])) == [401]
    assert "6 attempts to log in failed from a" in caplog.text


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rqcore_web.security.logins._REMEMBERED", 3)
    names = [f"u{n}" for n in range(10)]
    logins = Logins()
    attempts = [(name, "x", name) for name in names]
    asyncio.run(all_at_once(logins, standing(**dict.fromkeys(names, "x")), attempts))
    assert len(logins._right) == 3


# --- room


class Guest:
    def __init__(self) -> None:
        self.gone = False

    def give_way(self) -> None:
        self.gone = True


def test_the_one_that_waits_longest_makes_room() -> None:
    room = Room(3)
    first, second, third, fourth, fifth = guests = [Guest() for _ in range(5)]
    assert all(room.enter(guest) for guest in guests[:3])
    room.works(first)
    assert room.enter(fourth)
    assert second.gone
    room.rests(first)
    assert room.enter(fifth)
    assert third.gone
    assert not first.gone
    room.leave(second)  # told of twice: by the room, and when it is really closed
    assert not fifth.gone


def test_when_all_work_guests_are_turned_away_and_at_last_closed() -> None:
    room = Room(2)
    working = [Guest() for _ in range(2)]
    for guest in working:
        assert room.enter(guest)
        room.works(guest)
    waiting = [Guest() for _ in range(3)]
    assert not any(room.enter(guest) for guest in waiting)
    assert [guest.gone for guest in waiting] == [False, False, True]
    room.rests(waiting[0])
    room.leave(working[0])
    assert room.enter(Guest())
