"""The options of this plugin: what the main config has under ``"plugins": {"relay": {...}}``.

`parse_options` checks them, in every process that loads the plugin; the script of the queue relay,
which loads no plugins, reads them from the instance's main config with `read_options`.  What is
wrong is a `ConfigError` that names every problem at once.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from rqcore.errors import RefusedError
from rqcore.options import given_options, instance_path, option_names, strict_section
from rqcore.schema import Report, Section
from rqcore_relay.peers import peer_name

_YEARS = 10 * 366 * 86_400
_PLACE = "plugins.relay"


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How one peer is spoken to; paths are absolute."""

    token: str = field(default="", repr=False)
    token_file: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    #: A PEM file with the certificates to believe in place of the system's.
    ca: str = ""
    verify: bool = True
    per_peer: int = 4

    def authorization(self) -> str:
        """The value of the header Authorization, empty for none.

        Raises `RefusedError` when the file with the token cannot be read.
        """
        token = _token(self.token_file) if self.token_file else self.token
        if token:
            return f"Bearer {token}"
        if self.user:
            pair = f"{self.user}:{self.password}".encode("utf-8", "surrogateescape")
            return f"Basic {base64.b64encode(pair).decode('ascii')}"
        return ""


@dataclass(frozen=True, slots=True)
class Options:
    """See docs/relay.md for each; times are seconds."""

    #: Transfers at a time, when the queue is made; later its own config says it.
    num_workers: int = 16
    #: Transfers to one peer at a time.
    per_peer: int = 4
    #: Tries that may fail; when one more does, the message is given up.
    max_tries: int = 15
    #: A message that is older is given up at its next failure; 0 for never.
    give_up_after: int = 0
    connect_timeout: float = 10.0
    #: So long a peer may be silent.
    timeout: float = 60.0
    #: Attachments of one message that are sent at a time.
    parallel: int = 4
    #: By peer (`rqcore_relay.peers.peer_name`).
    peers: Mapping[str, PeerOptions] = field(default_factory=dict, hash=False)

    def peer(self, name: str) -> PeerOptions:
        """What is said about this peer, else what counts for all."""
        return self.peers.get(name) or PeerOptions(per_peer=self.per_peer)


def parse_options(given: Mapping[str, object], file: str) -> Options:
    """The options, every default filled in.  Raises `ConfigError` with all problems.

    ``file`` is the path of the main config; paths in it are relative to the instance's directory.
    """
    report = Report(file)
    section = strict_section(report, given, option_names(Options), _PLACE)
    default = Options()
    per_peer = section.whole("per_peer", default.per_peer, 1, 128)
    options = Options(
        num_workers=section.whole("num_workers", default.num_workers, 1, 128),
        per_peer=per_peer,
        max_tries=section.whole("max_tries", default.max_tries, 1, 1_000_000),
        give_up_after=section.whole("give_up_after", default.give_up_after, 0, _YEARS),
        connect_timeout=_patience(section, "connect_timeout", default.connect_timeout),
        timeout=_patience(section, "timeout", default.timeout),
        parallel=section.whole("parallel", default.parallel, 1, 64),
        peers=_peers(section, os.path.dirname(os.path.dirname(file)), per_peer),
    )
    report.finish()
    return options


def read_options(directory: str) -> Options:
    """The options of the instance in ``directory``, from its main config.  Raises `ConfigError`."""
    return parse_options(*given_options(directory, "relay"))


def _peers(section: Section, directory: str, per_peer: int) -> Mapping[str, PeerOptions]:
    found: dict[str, PeerOptions] = {}
    report = section.report
    for url, given in section.mapping("peers").items():
        place = section.at(f"peers.{url}")
        name = peer_name(url)
        if name is None:
            report.refuse(
                place, None, "is no base URL of an instance", "such as http://mq2.example.com:3333/"
            )
        elif name in found:
            report.refuse(place, None, f"names {name}, which stands there already", "remove one")
        elif not isinstance(given, Mapping):
            report.refuse(
                place, None, "must be an object", 'such as {"token_file": "config/token"}'
            )
        else:
            found[name] = _peer(report, given, place, directory, per_peer)
    return found


def _peer(
    report: Report, given: Mapping[str, object], place: str, directory: str, per_peer: int
) -> PeerOptions:
    section = strict_section(report, given, option_names(PeerOptions), place)
    token, user = _secret(section, "token"), section.text("user", "")
    password = _secret(section, "password")
    token_file = instance_path(section, "token_file", directory)
    if sum(map(bool, (token, token_file, user))) > 1:
        report.refuse(place, None, "says who we are in more than one way", "keep one of them")
    if ":" in user:
        section.refuse("user", "holds a colon, which no server could tell from", "correct it")
    if bool(user) != bool(password):
        missing = "password" if user else "user"
        section.refuse(missing, "is missing", "give both user and password", show=False)
    return PeerOptions(
        token=token,
        token_file=token_file,
        user=user,
        password=password,
        ca=instance_path(section, "ca", directory),
        verify=section.flag("verify", default=True),
        per_peer=section.whole("per_peer", per_peer, 1, 128),
    )


def _patience(section: Section, key: str, default: float) -> float:
    seconds = section.seconds(key, default)
    if seconds < 0.1:  # noqa: PLR2004 - less is no time for anybody
        section.refuse(key, "leaves no peer any time", "give a tenth of a second or more")
        return default
    return seconds


def _secret(section: Section, key: str) -> str:
    """Text that may stand in a header; what is wrong with it is told without showing it."""
    value = section.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or not value or not value.isprintable():
        section.refuse(key, "must be printable text", "give it in quotes", show=False)
        return ""
    return value


def _token(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            token = stream.read(4096).strip()
    except OSError as error:
        raise RefusedError(
            f"the token in {file} cannot be read: {error.strerror}; correct token_file"
        ) from error
    if not token or not token.isprintable():
        raise RefusedError(f"{file} holds no token; write it there, as one line")
    return token
