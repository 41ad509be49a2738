"""The options: their defaults, what is refused and in which words, and who a peer is told we are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_relay.options import Options, PeerOptions, parse_options, read_options
from rqcore_relay.peers import peer_name, peer_of

from rqcore.errors import RefusedError
from rqcore.schema import ConfigError

FILE = "/rq/config/config.json"
PEER = "http://mq2:3333/"


def refused(given: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as error:
        parse_options(given, FILE)
    return str(error.value)


def test_nothing_given_means_the_defaults() -> None:
    assert parse_options({}, FILE) == Options()
    assert Options().peer(PEER) == PeerOptions()


def test_a_peer_is_found_however_it_is_spelled() -> None:
    options = parse_options({"per_peer": 2, "peers": {"HTTPS://Mq2.Example.com": {}}}, FILE)
    assert options.peer("https://mq2.example.com:443/") == PeerOptions(per_peer=2)
    assert options.peer("https://other:443/").per_peer == 2


def test_paths_are_relative_to_the_instance() -> None:
    peer = {"token_file": "config/token", "ca": "/etc/ca.pem", "verify": False, "per_peer": 9}
    options = parse_options({"peers": {PEER: peer}}, FILE)
    assert options.peer(PEER) == PeerOptions(
        token_file="/rq/config/token", ca="/etc/ca.pem", verify=False, per_peer=9
    )


def test_all_mistakes_are_told_at_once() -> None:
    text = refused(
        {
            "nun_workers": 3,
            "timeout": 0,
            "peers": {
                "mq2": {},
                "http://a/": 3,
                "http://b/": {"token": "secret-1", "user": "x", "password": "secret-2"},
                "http://c/": {"user": "a:b"},
                "http://d/": {"token": "secret\n3"},
                "http://e:80/": {},
                "http://E/": {"tokens": "secret-4"},
            },
        }
    )
    for line in (
        f'{FILE}: "plugins.relay.nun_workers" is no option of the relay plugin; ',
        'did you mean "num_workers"?',
        '"plugins.relay.timeout" leaves no peer any time, found 0; give a tenth of a second',
        '"plugins.relay.peers.mq2" is no base URL of an instance; such as http://mq2.example',
        '"plugins.relay.peers.http://a/" must be an object',
        '"plugins.relay.peers.http://b/" says who we are in more than one way; keep one of them',
        '"plugins.relay.peers.http://c/.user" holds a colon',
        '"plugins.relay.peers.http://c/.password" is missing; give both user and password',
        '"plugins.relay.peers.http://d/.token" must be printable text; give it in quotes',
        '"plugins.relay.peers.http://E/" names http://e:80/, which stands there already',
    ):
        assert line in text
    assert "secret" not in text


def test_who_we_are(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("rqt_abc\n")
    assert PeerOptions().authorization() == ""
    assert PeerOptions(token="t").authorization() == "Bearer t"
    assert PeerOptions(token_file=str(file)).authorization() == "Bearer rqt_abc"
    assert PeerOptions(user="a", password="b").authorization() == "Basic YTpi"
    assert "secret" not in repr(PeerOptions(token="secret", password="secret"))


def test_a_token_that_cannot_be_had_is_explained(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(RefusedError, match=r"empty holds no token; write it there, as one line"):
        PeerOptions(token_file=str(empty)).authorization()
    with pytest.raises(RefusedError, match=r"No such file or directory; correct token_file"):
        PeerOptions(token_file=str(tmp_path / "none")).authorization()


def test_the_script_reads_them_from_the_main_config(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "config.json"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_options(str(tmp_path))
    file.write_text(json.dumps({"host": "x"}))
    assert read_options(str(tmp_path)) == Options()
    peers = {PEER: {"token_file": "t"}}
    file.write_text(json.dumps({"plugins": {"relay": {"max_tries": 3, "peers": peers}}}))
    options = read_options(str(tmp_path))
    assert (options.max_tries, options.peer(PEER).token_file) == (3, f"{tmp_path}/t")
    file.write_text(json.dumps({"plugins": {"relay": [1]}}))
    with pytest.raises(ConfigError, match=r'"plugins.relay" must be an object; write { }'):
        read_options(str(tmp_path))


@pytest.mark.parametrize(
    ("dest", "peer"),
    [
        ("http://MQ2:3333/q/test", "http://mq2:3333/"),
        ("https://u:secret@mq2/rq//two/q/test", "https://mq2:443/rq/two/"),
        ("http://[::1]:3333/q/test", "http://[::1]:3333/"),
        ("http://mq2:99999/q/test", None),
        ("http://[::1/q/test", None),
        ("test", None),
        ("/q/test", None),
        ("http://mq2:3333/elsewhere", None),
    ],
)
def test_the_peer_of_a_destination(dest: str, peer: str | None) -> None:
    assert peer_of(dest) == peer


@given(
    st.text(max_size=60) | st.from_regex(r"https?://[^/]{0,20}(/[^/]{0,5}){0,3}", fullmatch=True)
)
def test_a_name_is_its_own_name(text: str) -> None:
    name = peer_name(text)
    assert name is None or (peer_name(name) == name and name.isprintable() and name[-1] == "/")
