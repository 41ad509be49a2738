"""The configuration of an instance and of its queues: what may be set, and what it then means.

Pure: decoded JSON in, frozen objects and warnings out; `instance` reads the files.  The keys are
described for people in docs/configuration.md, and a test holds that page to the lists here.

A wrong value makes a `ConfigError` that names every problem of the file at once.  What can be
lived with is a warning: an unknown key, a schedule entry that is skipped.  So a directory that an
older RQ made is taken as it is.  Keys of plugins stay readable in ``raw``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from rqcore.errors import RefusedError
from rqcore.message import PARAM_NAMES, queue_name_problem, truth
from rqcore.schema import (
    ConfigError,
    Problem,
    Report,
    Section,
    decode_json,
    did_you_mean,
    kind,
    plain,
    text_problem,
    whole_number,
)

__all__ = [
    "CATCHUP",
    "ENVIRONMENTS",
    "INSTANCE_KEYS",
    "LOG_FORMATS",
    "OLD_COALESCE_KEYS",
    "QUEUE_KEYS",
    "SCHEDULE_KEYS",
    "ConfigError",
    "InstanceConfig",
    "Problem",
    "QueueConfig",
    "ScheduleLine",
    "decode_json",
    "is_host_name",
    "parse_instance",
    "parse_queue",
]

ENVIRONMENTS = ("production", "development", "test", "stage")
CATCHUP = ("none", "last", "all")
LOG_FORMATS = ("text", "json")

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?")
_ROOT = re.compile(r"[A-Za-z0-9._~/-]*")
_BASE_URL = re.compile(r"https?://[^\s/?#\x00-\x1f]+(?:/[^\s?#\x00-\x1f]*)?")
#: Linux takes no longer string into a program's environment, NAME= and the final NUL included.
_MAX_ENV = 131_072
#: Seconds: a year.
_LONGEST_RUN = 31_536_000


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """config/config.json, with every default filled in.

    ``raw`` is the object as it was written.  ``tmpdir`` is empty for the instance's own tmp/;
    ``basic_auth`` is empty or ``{"realm": text, "users": {name: password}}``; ``stop_grace`` and
    ``kill_grace`` are seconds.
    """

    host: str
    env: str = "development"
    port: int = 3333
    addr: str = "127.0.0.1"
    tmpdir: str = ""
    allow_new_queue: bool = False
    relative_root: str = "/"
    basic_auth: Mapping[str, object] = field(default_factory=dict, hash=False, repr=False)
    allowed_ips: tuple[str, ...] = ()
    hostnames: tuple[str, ...] = ()
    log_format: str = "text"
    stop_grace: float = 10.0
    kill_grace: float = 5.0
    store: str = "directory"
    plugins: Mapping[str, Mapping[str, object]] = field(
        default_factory=dict, hash=False, repr=False
    )
    plugins_disabled: tuple[str, ...] = ()
    raw: Mapping[str, object] = field(default_factory=dict, hash=False, repr=False)

    @property
    def base_url(self) -> str:
        """What every full message id begins with: ``http://HOST:PORT/`` and the root."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.relative_root}"


@dataclass(frozen=True, slots=True)
class ScheduleLine:
    """A message to be made again and again.

    ``cron`` and ``tz`` are as written, and mean a time; ``tz`` is empty for the machine's own zone.
    """

    cron: str
    param1: str = ""
    param2: str = ""
    param3: str = ""
    param4: str = ""
    tz: str = ""
    catchup: str = "last"


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """queue/NAME/config.json, with every default filled in.

    ``exec_prefix`` has three meanings: None (not set) executes the script directly in the login
    environment, "" executes it directly, any other text is put before the script's path and the
    whole run as a command line.  ``store`` is None for the instance's own.  ``timeout`` is how many
    seconds a run may take, 0 for as long as it likes.
    """

    name: str
    script: str
    num_workers: int = 1
    exec_prefix: str | None = None
    env_vars: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    coalesce_params: tuple[int, ...] = ()
    blocking_params: tuple[int, ...] = ()
    schedule: tuple[ScheduleLine, ...] = ()
    fsync: bool = True
    store: str | None = None
    timeout: float = 0.0
    raw: Mapping[str, object] = field(default_factory=dict, hash=False, repr=False)


INSTANCE_KEYS = tuple(f.name for f in fields(InstanceConfig) if f.name != "raw")
SCHEDULE_KEYS = tuple(f.name for f in fields(ScheduleLine))
#: ``ordering`` is accepted and means nothing.
QUEUE_KEYS = (*(f.name for f in fields(QueueConfig) if f.name != "raw"), "ordering")
#: The older spelling of ``coalesce_params``.
OLD_COALESCE_KEYS = ("coalesce", *(f"coalesce_{name}" for name in PARAM_NAMES))


def parse_instance(raw: object, file: str) -> tuple[InstanceConfig, list[Problem]]:
    """The instance that ``raw``, decoded JSON, describes, and warnings.

    Raises `ConfigError` with all problems.
    """
    report = Report(file)
    given = report.whole_object(raw)
    section = Section(report, given, INSTANCE_KEYS)
    env = section.text("env", "development")
    config = InstanceConfig(
        host=_host(section, env),
        env=env,
        port=section.whole("port", 3333, 1, 65535),
        addr=_addr(section),
        tmpdir=section.text("tmpdir", "", empty=True),
        allow_new_queue=section.flag("allow_new_queue"),
        relative_root=_root(section),
        basic_auth=_basic_auth(section),
        allowed_ips=_allowed_ips(section),
        hostnames=_hostnames(section),
        log_format=section.text("log_format", "text"),
        stop_grace=section.seconds("stop_grace", 10),
        kill_grace=section.seconds("kill_grace", 5),
        store=section.text("store", "directory"),
        plugins=_plugins(section),
        plugins_disabled=section.texts("plugins_disabled"),
        raw=dict(given),
    )
    if config.log_format not in LOG_FORMATS:
        section.refuse("log_format", "must be " + " or ".join(LOG_FORMATS), 'for instance "text"')
    if env not in ENVIRONMENTS:
        remedy = did_you_mean(env, ENVIRONMENTS) or "usual are " + ", ".join(ENVIRONMENTS)
        report.warn("env", env, "is not one of the usual environments", remedy)
    return config, report.finish()


def parse_queue(raw: object, file: str, name: str) -> tuple[QueueConfig, list[Problem]]:
    """The queue in the directory ``name`` that ``raw``, decoded JSON, describes, and warnings.

    Raises `ConfigError` with all problems.
    """
    report = Report(file)
    given = report.whole_object(raw)
    section = Section(report, given, (*QUEUE_KEYS, *OLD_COALESCE_KEYS))
    problem = text_problem(name, 128) or queue_name_problem(name)
    if problem is not None:
        report.refuse("name", name, problem, "use letters, digits, - and _")
    elif section.get("name") not in (None, name):
        report.warn(
            "name",
            section.get("name"),
            f'differs from the directory\'s name; the queue is "{name}"',
            "make them the same",
        )
    config = QueueConfig(
        name=name,
        script=_script(section),
        num_workers=section.whole("num_workers", 1, 1, 128),
        exec_prefix=_optional_text(section, "exec_prefix", empty=True),
        env_vars=_env_vars(section),
        coalesce_params=_coalesce_params(section),
        blocking_params=_params(section, "blocking_params"),
        schedule=_schedule(section),
        fsync=_fsync(section),
        store=_optional_text(section, "store"),
        timeout=section.seconds("timeout", 0, most=_LONGEST_RUN),
        raw=dict(given),
    )
    return config, report.finish()


def is_host_name(text: str) -> bool:
    """Whether this can stand for a host in a URL: a name, or an IP address."""
    return _HOST.fullmatch(text) is not None or (_is_network(text) and "/" not in text)


def _host(section: Section, env: str) -> str:
    host = section.text("host", "")
    if section.get("host") is None:
        section.refuse("host", "is missing", "set it to the machine's full, unique name")
    elif host and not is_host_name(host):
        section.refuse(
            "host", "is no host name", "give the bare name, such as mq1.example.com, without port"
        )
    elif host.partition(".")[0] == "localhost" and env == "production":
        section.report.warn(
            "host", host, "makes message ids that mean nothing elsewhere", "set the full host name"
        )
    return host


def _addr(section: Section) -> str:
    addr = section.text("addr", "127.0.0.1")
    if not is_host_name(addr):
        section.refuse("addr", "is no address", "give an IP address; 0.0.0.0 stands for all")
    return addr


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _root(section: Section) -> str:
    root = section.text("relative_root", "/", empty=True)
    parts = [part for part in root.split("/") if part]
    if _ROOT.fullmatch(root) is None or any(part in (".", "..") for part in parts):
        section.refuse(
            "relative_root", "must be the path part of a URL", "for instance /rq/, or / for none"
        )
        return "/"
    return "/".join(["", *parts, ""]) if parts else "/"


def _basic_auth(section: Section) -> Mapping[str, object]:
    """What would leave the door open by mistake is refused; no password is ever shown."""
    if section.get("basic_auth") is None:
        return {}
    told = len(section.report.problems)
    inner = section.section("basic_auth", ("realm", "users"))
    realm = inner.text("realm", "RQ")
    if not realm.isprintable() or '"' in realm:
        inner.refuse("realm", "cannot be sent to a browser", "use letters, digits and spaces")
    users = inner.mapping("users")
    for name, password in users.items():
        problem = text_problem(password, 1024) or text_problem(name, 255)
        if problem is None and (not name or ":" in name):
            problem = "is no user name: it is empty or holds a colon"
        if problem is not None:
            key = inner.at(f"users.{name}")
            section.report.refuse(key, None, problem, 'write "NAME": "PASSWORD"')
    if not users and told == len(section.report.problems):
        section.refuse("basic_auth", "names no user", "add users, or remove basic_auth", show=False)
    return {"realm": realm, "users": dict(users)}


def _allowed_ips(section: Section) -> tuple[str, ...]:
    addresses = section.texts("allowed_ips")
    for address in addresses:
        if not _is_network(address):
            section.report.refuse(
                "allowed_ips", address, "must be IP addresses or networks", "such as 10.0.0.0/8"
            )
    if section.get("allowed_ips") in ([], (), ""):
        section.refuse(
            "allowed_ips", "names no address", "list some, or remove the key", show=False
        )
    return addresses


def _hostnames(section: Section) -> tuple[str, ...]:
    urls = section.texts("hostnames")
    for url in urls:
        if _BASE_URL.fullmatch(url) is None:
            section.report.refuse(
                "hostnames", url, "must be base URLs", "such as http://alias.example.com:3333/"
            )
    return tuple(url if url.endswith("/") else url + "/" for url in urls)


def _plugins(section: Section) -> Mapping[str, Mapping[str, object]]:
    plugins: dict[str, Mapping[str, object]] = {}
    for name, options in section.mapping("plugins").items():
        if not isinstance(options, Mapping | None):
            section.report.refuse(
                f"plugins.{name}", None, f"must be an object, not {kind(options)}", "write { }"
            )
            continue
        plugins[name] = options or {}
    return plugins


def _script(section: Section) -> str:
    if section.get("script") is None:
        section.refuse("script", "is missing", "set it to the path of the program to run")
    return section.text("script", "")


def _optional_text(section: Section, key: str, *, empty: bool = False) -> str | None:
    return None if section.get(key) is None else section.text(key, "", empty=empty, longest=65536)


def _fsync(section: Section) -> bool:
    value = section.get("fsync")
    if value is None or value == "fsync" or truth(value):
        return True
    if value is False or value in ("no-fsync", "false", "no", "0", 0):
        return False
    section.refuse(
        "fsync", 'must be "fsync" or "no-fsync"', "with no-fsync, messages may be lost in a crash"
    )
    return True


def _params(section: Section, key: str) -> tuple[int, ...]:
    numbers = [whole_number(item) for item in section.items(key)]
    valid = {number for number in numbers if number in range(1, len(PARAM_NAMES) + 1)}
    if not valid.issuperset(numbers):
        section.refuse(
            key, "must list parameters by number, 1 to 4", "for instance [1, 3]", show=False
        )
    return tuple(sorted(number for number in valid if number is not None))


def _coalesce_params(section: Section) -> tuple[int, ...]:
    """The list, and, where there is none, what the older keys say."""
    flags = [section.flag(key) for key in OLD_COALESCE_KEYS]
    if section.get("coalesce_params") is not None:
        return _params(section, "coalesce_params")
    if flags[0] and not any(flags[1:]):
        section.report.warn(
            "coalesce", section.get("coalesce"), "names no parameter", "set coalesce_params"
        )
    return tuple(i for i, flag in enumerate(flags) if i and flag and flags[0])


def _env_vars(section: Section) -> Mapping[str, str]:
    variables = {}
    for name, value in section.mapping("env_vars").items():
        text = plain(value)
        problem = text_problem(text, _MAX_ENV)
        if not name or "=" in name or text_problem(name, _MAX_ENV):
            problem = "is no name for a variable"
        elif problem is None and len(f"{name}={text}".encode(errors="surrogateescape")) >= _MAX_ENV:
            problem = f"is longer than the {_MAX_ENV} bytes that a program can be given"
        elif isinstance(value, bool):
            problem = "must be text or a number, not true or false"
        key = section.at(f"env_vars.{name}")
        if name.startswith("RQ_"):
            section.report.warn(
                key, None, "is left out: RQ_ belongs to RQ itself", "choose another name"
            )
        elif problem is not None:
            section.report.refuse(key, None, problem, 'write it as "NAME": "value"')
        else:
            variables[name] = str(text)
    return variables


def _schedule(section: Section) -> tuple[ScheduleLine, ...]:
    """The entries that could be one; the others are warned of, and the rest of the queue works."""
    lines = []
    for i, entry in enumerate(section.items("schedule")):
        report = Report(section.report.file)
        place = f"schedule[{i}]"
        if isinstance(entry, Mapping):
            line = _schedule_line(Section(report, entry, SCHEDULE_KEYS, place))
            if not report.problems:
                lines.append(line)
        else:
            report.refuse(place, entry, "must be an object", 'write {"cron": "0 * * * *"}')
        section.report.warnings += report.warnings
        section.report.warnings += [
            replace(problem, remedy=f"{problem.remedy}; until then the entry is skipped")
            for problem in report.problems
        ]
    return tuple(lines)


def _schedule_line(section: Section) -> ScheduleLine:
    if section.get("cron") is None:
        section.refuse("cron", "is missing", 'for instance "0 * * * *"')
    params = {}
    for name in PARAM_NAMES:
        text = plain(section.get(name))
        problem = None if text is None else text_problem(text, _MAX_ENV - 16)
        if problem is not None:
            section.refuse(name, problem, "give it as text")
        params[name] = "" if text is None else str(text)
    catchup = section.text("catchup", "last")
    if catchup not in CATCHUP:
        section.refuse("catchup", "must be " + " or ".join(CATCHUP), 'for instance "last"')
    cron, tz = section.text("cron", ""), section.text("tz", "", empty=True)
    if cron:
        from rqcore.cron import CronLine  # noqa: PLC0415 - few queues have a schedule

        try:
            CronLine(cron, tz)
        except RefusedError as error:
            section.refuse("cron", str(error), "correct it", show=False)
    return ScheduleLine(
        cron=cron,
        tz=tz,
        catchup=catchup,
        **params,
    )
