"""The options of this plugin: what the main config has under ``"plugins": {"webhook": {...}}``.

`parse_options` checks them, in every process that loads the plugin, and again at each reload; the
script of the queue webhook, which loads no plugins, reads them with `read_options`.  What is wrong is a
`ConfigError` that names every problem at once; no secret is ever shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit

from rqcore.errors import RefusedError
from rqcore.options import given_options, instance_path, option_names, strict_section
from rqcore.schema import Report, Section, did_you_mean
from rqcore_webhook.networks import MODES, Mode, Network, Networks, parse_network
from rqcore_webhook.signing import key_of

_PLACE = "plugins.webhook"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_RESERVED = {
    "connection", "content-length", "content-type", "host", "transfer-encoding", "expect", "te",
    "trailer", "upgrade", "traceparent", "tracestate", "webhook-id", "webhook-timestamp",
    "webhook-signature",
}  # fmt: skip
_FEW_SECONDS = 0.1
_PORTS = 65536
_YEAR = 366

#: Every event, with what it tells.
EVENTS = {
    "message.queued": "a message waits in que",
    "message.started": "a message's script runs",
    "message.progress": "a script said how far it is",
    "message.done": "a message succeeded",
    "message.err": "a message failed",
    "message.relayed": "a message went elsewhere",
    "message.timeout": "a message failed because it ran longer than its queue's timeout",
    "message.recovered": "a message succeeded after it, or the last one of its queue, had failed",
    "queue.down": "somebody took a queue down",
    "queue.paused": "somebody paused a queue",
    "queue.up": "a queue works again",
    "queue.scripterror": "a queue's script cannot be run",
    "queue.crashed": "a queue's process ended, and is started again",
    "relay.stuck": "messages wait for a machine that relay has not reached for long",
    "endpoint.disabled": "another endpoint was disabled",
}
ENDS = ("message.done", "message.err", "message.relayed")
Format = Literal["form", "standard"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint; times are seconds, paths absolute; see docs/webhook.md for each."""

    url: str
    format: Format = "form"
    events: tuple[str, ...] = ENDS
    queues: tuple[str, ...] = ("*",)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    secret_file: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    timeout: float = 20.0
    concurrency: int = 4
    disable_after: float = 5.0
    progress_every: float = 10.0
    ca: str = ""
    verify: bool = True

    def all_secrets(self) -> tuple[str, ...]:
        """The secrets that sign, those of the file too, the newest first.

        Raises `RefusedError` when the file cannot be read, or holds what is none.
        """
        return (
            (*self.secrets, *read_secrets(self.secret_file)) if self.secret_file else self.secrets
        )


@dataclass(frozen=True, slots=True)
class Options:
    """See docs/webhook.md for each; times are seconds."""

    #: Webhooks at a time, when the queue is made; later its own config says it.
    num_workers: int = 16
    #: How long one attempt may take, for URLs in ``post_run_webhook``.
    timeout: float = 20.0
    #: Webhooks to one such host at a time.
    concurrency: int = 4
    networks: Networks = field(default_factory=Networks)
    #: A machine is told of that was down for so long.
    relay_stuck_after: float = 900.0
    #: By name.
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict, hash=False)


def parse_options(given: Mapping[str, object], file: str) -> Options:
    """The options, every default filled in.  Raises `ConfigError` with all problems.

    ``file`` is the path of the main config; paths in it are relative to the instance's directory.
    """
    report = Report(file)
    section = strict_section(report, given, option_names(Options), _PLACE)
    default = Options()
    options = Options(
        num_workers=section.whole("num_workers", default.num_workers, 1, 128),
        timeout=_patience(section, "timeout", default.timeout),
        concurrency=section.whole("concurrency", default.concurrency, 1, 128),
        networks=_networks(section),
        relay_stuck_after=section.seconds("relay_stuck_after", default.relay_stuck_after),
    )
    directory = os.path.dirname(os.path.dirname(file))
    options = replace(options, endpoints=_endpoints(section, directory, options))
    report.finish()
    return options


def read_options(directory: str) -> Options:
    """The options of the instance in ``directory``, from its main config.  Raises `ConfigError`."""
    return parse_options(*given_options(directory, "webhook"))


def url_problem(url: object) -> str:
    """Why nothing can be posted to this URL; "" when something can."""
    if not isinstance(url, str) or not url:
        return "is no text"
    if not url.isprintable() or " " in url:
        return "holds a space or what cannot be printed"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is no URL ({error})"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if not parts.hostname:
        return "names no host"
    return "" if port is None or 0 < port < _PORTS else "names no port that can be"


def read_secrets(path: str) -> tuple[str, ...]:
    """The secrets in a file, one a line, the newest first.  Raises `RefusedError`."""
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            lines = [line.strip() for line in stream.read(1 << 16).splitlines()]
    except OSError as error:
        raise RefusedError(
            f"the secrets in {path} cannot be read: {error.strerror}; correct secret_file"
        ) from error
    found = tuple(line for line in lines if line and not line.startswith("#"))
    for line in found:
        try:
            key_of(line)
        except ValueError as error:
            raise RefusedError(f"{path} holds what is no secret: {error}") from None
    if not found:
        raise RefusedError(f"{path} holds no secret; make one with: rq webhook secret")
    return found


def _endpoints(section: Section, directory: str, default: Options) -> Mapping[str, Endpoint]:
    found: dict[str, Endpoint] = {}
    report = section.report
    for name, given in section.mapping("endpoints").items():
        place = section.at(f"endpoints.{name}")
        if not _NAME.fullmatch(name):
            report.refuse(
                place, None, "is no name of an endpoint", "use letters, digits, - and _, 64 at most"
            )
        elif not isinstance(given, Mapping):
            report.refuse(
                place, None, "must be an object", 'such as {"url": "https://example.com/hook"}'
            )
        else:
            found[name] = _endpoint(report, given, place, directory, default)
    return found


def _endpoint(
    report: Report, given: Mapping[str, object], place: str, directory: str, default: Options
) -> Endpoint:
    section = strict_section(report, given, option_names(Endpoint), place)
    usual = Endpoint("")
    problem = url_problem(given.get("url"))
    if problem:
        # It may hold a password.
        section.refuse("url", problem, "give one such as https://example.com/hook", show=False)
    form = section.text("format", usual.format)
    if form not in ("form", "standard"):
        section.refuse("format", 'must be "form" or "standard"', "choose one of them")
    secret_file = section.text("secret_file", "")
    secrets = _secrets(section)
    if (secrets or secret_file) and form == "form":
        section.refuse(
            "format", "signs nothing, and there is a secret", 'write "format": "standard"'
        )
    return Endpoint(
        url=str(given.get("url")),
        format="standard" if form == "standard" else "form",
        events=_events(section),
        queues=section.texts("queues") or usual.queues,
        secrets=secrets,
        secret_file=os.path.join(directory, secret_file) if secret_file else "",
        headers=_headers(section),
        timeout=_patience(section, "timeout", default.timeout),
        concurrency=section.whole("concurrency", default.concurrency, 1, 128),
        disable_after=_days(section, "disable_after", usual.disable_after),
        progress_every=_patience(section, "progress_every", usual.progress_every),
        ca=instance_path(section, "ca", directory),
        verify=section.flag("verify", default=True),
    )


def _events(section: Section) -> tuple[str, ...]:
    if section.get("events") is None:
        return ENDS
    found = section.texts("events")
    for event in found:
        if event not in EVENTS:
            remedy = did_you_mean(event, list(EVENTS)) or f"known are {', '.join(EVENTS)}"
            section.report.refuse(section.at("events"), event, "is no event", remedy)
    return found


def _secrets(section: Section) -> tuple[str, ...]:
    found = []
    for number, secret in enumerate(section.items("secrets")):
        place = section.at(f"secrets[{number}]")
        try:
            if not isinstance(secret, str):
                raise TypeError("is no text; make one with: rq webhook secret")
            key_of(secret)
            found.append(secret)
        except (TypeError, ValueError) as error:
            reason, _, remedy = str(error).partition("; ")
            section.report.refuse(place, None, f"cannot be used: {reason}", remedy)
    return tuple(found)


def _headers(section: Section) -> Mapping[str, str]:
    found = {}
    for name, value in section.mapping("headers").items():
        place = section.at(f"headers.{name}")
        if not _TOKEN.fullmatch(name):
            section.report.refuse(place, None, "is no name of a header", "correct it")
        elif name.lower() in _RESERVED:
            section.report.refuse(place, None, "is a header that rqcore gives itself", "remove it")
        elif not isinstance(value, str) or not value.isascii() or not value.isprintable():
            section.report.refuse(place, None, "must be printable ASCII text", "correct it")
        else:
            found[name] = value
    return found


def _networks(section: Section) -> Networks:
    given = section.get("networks")
    if given is None:
        return Networks()
    if isinstance(given, str):
        given = {"mode": given}
    if not isinstance(given, Mapping):
        section.refuse("networks", "must be text or an object", 'such as "public"', show=False)
        return Networks()
    place = section.at("networks")
    own = strict_section(section.report, given, option_names(Networks), place)
    mode = own.text("mode", "internal")
    if mode not in MODES:
        section.report.refuse(place, mode, "is none of its modes", f"use {', '.join(MODES)}")
    known: Mode = next((known for known in MODES if known == mode), "internal")
    return Networks(known, _network_list(own, "allow"), _network_list(own, "deny"))


def _network_list(section: Section, key: str) -> tuple[Network, ...]:
    found = []
    for number, text in enumerate(section.items(key)):
        network = parse_network(text)
        if network is None:
            section.report.refuse(
                section.at(f"{key}[{number}]"), text, "is no network", "such as 10.0.0.0/8"
            )
        else:
            found.append(network)
    return tuple(found)


def _patience(section: Section, key: str, default: float) -> float:
    seconds = section.seconds(key, default)
    if seconds < _FEW_SECONDS:
        section.refuse(key, "leaves nobody any time", "give a tenth of a second or more")
        return default
    return seconds


def _days(section: Section, key: str, default: float) -> float:
    value = section.get(key)
    if value is None:
        return default
    a_number = isinstance(value, int | float) and not isinstance(value, bool)
    days = float(str(value)) if a_number else -1.0
    if not 0 <= days <= _YEAR:
        section.refuse(key, "must be 0 (never) to 366 days", f"for instance {default:g}")
        return default
    return days
