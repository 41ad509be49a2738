"""The options of this plugin: what the main config has under ``"plugins": {"metrics": {...}}``.

`parse_options` checks them, in every process that loads the plugin; the service and the commands read
them from the instance's main config with `read_options`.  What is wrong is a `ConfigError` that names
every problem at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rqcore.options import given_options, option_names, strict_section
from rqcore.schema import Report, Section

_PLACE = "plugins.metrics"
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_SHORTEST = 1.0
_GRAPHITE = 2003, 60.0
_STATSD = 8125, 10.0
_TEXTFILE = 60.0


@dataclass(frozen=True, slots=True)
class Graphite:
    """Where lines of Graphite's plaintext protocol are pushed to, by TCP; ``interval`` in seconds."""

    host: str
    port: int = 2003
    interval: float = 60.0
    #: Empty for ``rqcore.{host}``, or ``rqcore`` with tags.
    prefix: str = ""
    #: The tags of Graphite 1.1, ``name;queue=test``, in place of a path that holds the values.
    tags: bool = False


@dataclass(frozen=True, slots=True)
class StatsD:
    """Where datagrams of StatsD are sent to."""

    host: str
    port: int = 8125
    interval: float = 10.0
    prefix: str = ""
    #: The tags of DogStatsD, ``name:1|c|#queue:test``.
    tags: bool = False


@dataclass(frozen=True, slots=True)
class Textfile:
    """The file for node-exporter's textfile collector; an absolute path that ends in ``.prom``."""

    path: str
    interval: float = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """See docs/metrics.md for each."""

    graphite: Graphite | None = None
    statsd: StatsD | None = None
    textfile: Textfile | None = None
    #: Are the calls of each plugin's hooks exported?
    plugin_hooks: bool = True

    @property
    def pushes(self) -> bool:
        """Is there anything for the service to do?"""
        return any((self.graphite, self.statsd, self.textfile))


def parse_options(given: Mapping[str, object], file: str) -> Options:
    """The options, every default filled in.  Raises `ConfigError` with all problems."""
    report = Report(file)
    section = strict_section(report, given, option_names(Options), _PLACE)
    options = Options(
        graphite=_graphite(section),
        statsd=_statsd(section),
        textfile=_textfile(section),
        plugin_hooks=section.flag("plugin_hooks", default=True),
    )
    report.finish()
    return options


def read_options(directory: str) -> Options:
    """The options of the instance in ``directory``, from its main config.  Raises `ConfigError`."""
    return parse_options(*given_options(directory, "metrics"))


def _graphite(section: Section) -> Graphite | None:
    part = _part(section, "graphite", Graphite, "host")
    if part is None:
        return None
    return Graphite(
        host=_host(part), port=part.whole("port", _GRAPHITE[0], 1, 65535),
        interval=_interval(part, _GRAPHITE[1]), prefix=_prefix(part),
        tags=part.flag("tags"),
    )  # fmt: skip


def _statsd(section: Section) -> StatsD | None:
    part = _part(section, "statsd", StatsD, "host")
    if part is None:
        return None
    return StatsD(
        host=_host(part), port=part.whole("port", _STATSD[0], 1, 65535),
        interval=_interval(part, _STATSD[1]), prefix=_prefix(part), tags=part.flag("tags"),
    )  # fmt: skip


def _textfile(section: Section) -> Textfile | None:
    part = _part(section, "textfile", Textfile, "path")
    if part is None:
        return None
    path = part.text("path", "", longest=4096)
    if part.get("path") and not (os.path.isabs(path) and path.endswith(".prom")):
        part.refuse(
            "path", "must be an absolute path that ends in .prom, which node-exporter looks for",
            "such as /var/lib/prometheus/node-exporter/rqcore.prom",
        )  # fmt: skip
    return Textfile(path=path, interval=_interval(part, _TEXTFILE))


def _part(section: Section, key: str, kind: type, needed: str) -> Section | None:
    """One of the pushes; None when it is not wanted."""
    if section.get(key) is None:
        return None
    given = section.mapping(key)
    part = strict_section(section.report, given, option_names(kind), section.at(key))
    if not given.get(needed):
        part.refuse(needed, "is missing", f"say it, or remove {key} to push nothing there")
    return part


def _host(part: Section) -> str:
    host = part.text("host", "")
    if host and not re.fullmatch(r"[A-Za-z0-9._:-]+", host):
        part.refuse("host", "is no host name and no IP address", "such as graphite.example.com")
    return host


def _prefix(part: Section) -> str:
    prefix = part.text("prefix", "")
    if prefix and not _PREFIX.fullmatch(prefix.replace("{host}", "host")):
        part.refuse(
            "prefix", "must be names of letters, digits, - and _ with dots between",
            "such as rqcore, or servers.{host}.rqcore",
        )  # fmt: skip
    return prefix


def _interval(part: Section, default: float) -> float:
    seconds = part.seconds("interval", default)
    if seconds < _SHORTEST:
        part.refuse("interval", "is shorter than a second", f"for instance {default:g}")
        return default
    return seconds
