"""The options of this plugin: what the main config has under ``"plugins": {"web": {...}}``.

What the contract knows (``addr``, ``port``, ``relative_root``, ``basic_auth``, ``allowed_ips``,
``allow_new_queue``, ``tmpdir``) stands in the main config itself and is read by the kernel.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from rqcore.options import option_names, strict_section
from rqcore.schema import Report, Section

#: What a user or a token may do; each includes those before it.
SCOPES = ("read", "enqueue", "operate", "admin")
_GIGA = 1 << 30


@dataclass(frozen=True, slots=True)
class Options:
    """See docs/web.md for each; sizes are bytes, times seconds."""

    title: str = ""
    #: ``required``, or ``none``: the explicit word that anybody who reaches the port may do anything.
    authentication: str = "required"
    certificate: str = ""
    key: str = ""
    #: Addresses and networks of proxies whose ``X-Forwarded-For`` and ``-Proto`` are believed.
    trusted_proxies: tuple[str, ...] = ()
    #: What each user of ``basic_auth`` may do; ``admin`` where nothing is said.
    roles: Mapping[str, str] = field(default_factory=dict, hash=False)
    max_upload: int = 1 << 50
    keep_free: int = 64 << 20
    max_body: int = 10 << 20
    max_connections: int = 1000
    client_timeout: float = 60.0
    history_days: int = 28
    access_log: bool = True


def parse_options(given: Mapping[str, object], file: str) -> Options:
    """The options, every default filled in.  Raises `ConfigError` with all problems."""
    report = Report(file)
    section = strict_section(report, given, option_names(Options), "plugins.web")
    default = Options()
    authentication = section.text("authentication", default.authentication)
    if authentication not in ("required", "none"):
        section.refuse(
            "authentication", 'must be "required" or "none"',
            "with none, anybody who reaches the port may do anything",
        )  # fmt: skip
    certificate, key = section.text("certificate", ""), section.text("key", "")
    if bool(certificate) != bool(key):
        section.refuse(
            "key" if certificate else "certificate",
            "is missing: TLS needs both certificate and key",
            "give the paths of both PEM files, or neither",
        )
    options = Options(
        title=section.text("title", "", empty=True),
        authentication=authentication,
        certificate=certificate,
        key=key,
        trusted_proxies=_networks(section, "trusted_proxies"),
        roles=_roles(section),
        max_upload=section.whole("max_upload", default.max_upload, 1, 1 << 50),
        keep_free=section.whole("keep_free", default.keep_free, 0, 1 << 50),
        max_body=section.whole("max_body", default.max_body, 1024, _GIGA),
        max_connections=section.whole("max_connections", default.max_connections, 1, 100_000),
        client_timeout=_patience(section, default.client_timeout),
        history_days=section.whole("history_days", default.history_days, 1, 400),
        access_log=section.flag("access_log", default=True),
    )
    report.finish()
    return options


def _patience(section: Section, default: float) -> float:
    seconds = section.seconds("client_timeout", default)
    if seconds < 1:
        section.refuse("client_timeout", "leaves no client any time", "give a second or more")
    return seconds


def _networks(section: Section, key: str) -> tuple[str, ...]:
    texts = section.texts(key)
    for text in texts:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            section.refuse(key, "must be IP addresses or networks", 'such as ["127.0.0.1"]')
    return texts


def _roles(section: Section) -> Mapping[str, str]:
    roles = {}
    for user, role in section.mapping("roles").items():
        if role in SCOPES:
            roles[user] = str(role)
        else:
            section.report.refuse(
                section.at(f"roles.{user}"), role, "is no role", f"one of {', '.join(SCOPES)}"
            )
    return roles
