"""What counts at this moment of who may connect: read anew whenever the files have changed.

The main config and ``config/tokens.json`` are looked at (one ``stat`` each) for every request, so that
a token that was removed, or a password that was changed, counts from the next request on, without a
reload.  The address and the port are those that the site was started with.

At the start a file that is wrong is a `ConfigError`.  Later, the former state stays in force until it
is right again, and the log says so once: somebody may just be editing it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import time_ns

from rqcore import durable
from rqcore.config import InstanceConfig, parse_instance
from rqcore.errors import RqError
from rqcore.schema import MAX_BYTES, ConfigError, Problem, decode_json
from rqcore_web.options import Options, parse_options
from rqcore_web.security import passwords
from rqcore_web.security.addresses import Network, networks
from rqcore_web.security.browsers import Origin, host_of, origin
from rqcore_web.security.tokens import Token, parse_tokens

_log = logging.getLogger(__name__)
#: A file that was written so shortly before it was read may be written once more in the same tick.
_RACY = 1_000_000_000
_FOR_OTHERS = 0o044


@dataclass(frozen=True, slots=True)
class Standing:
    """See the head of this module.  ``users`` are names and passwords, ``tokens`` by their digest."""

    users: Mapping[str, str] = field(repr=False)
    realm: str
    roles: Mapping[str, str]
    tokens: Mapping[str, Token] = field(repr=False)
    authentication: str
    allowed: tuple[Network, ...]
    proxies: tuple[Network, ...]
    hosts: frozenset[str]
    origins: frozenset[Origin]


class Watch:
    """The standing of an instance; `now` is what counts at this moment."""

    def __init__(self, config_file: Path, tokens_file: Path) -> None:
        self._config = _File(config_file)
        self._tokens = _File(tokens_file)
        self._seen = (self._config.read(), self._tokens.read())
        self._told = ""
        self._now = self._load()

    def now(self) -> Standing:
        """What counts.  Costs two ``stat`` when nothing has changed."""
        try:
            seen = (self._config.read(), self._tokens.read())
            if seen == self._seen:
                return self._now
            self._seen = seen
            self._now = self._load()
        except (RqError, OSError) as error:
            if str(error) != self._told:
                _log.error("the former users and tokens stay in force: %s", error)
            self._told = str(error)
        else:
            self._told = ""
            _log.info("users and tokens were read anew")
        return self._now

    def _load(self) -> Standing:
        file = str(self._config.path)
        data, tokens_data = self._seen
        if data is None:
            raise ConfigError([Problem(file, "", None, "does not exist", "restore it")])
        raw, _ = decode_json(data, file)
        settings, _ = parse_instance(raw, file)
        options = parse_options(settings.plugins.get("web", {}), file)
        tokens = [] if tokens_data is None else parse_tokens(tokens_data, self._tokens.path)
        standing = _standing(settings, options, {token.sha256: token for token in tokens})
        for warning in warnings(standing, self._config.path):
            _log.warning("%s", warning)
        return standing


def warnings(standing: Standing, file: Path) -> list[str]:
    """What somebody should do something about, in words."""
    users = standing.users
    clear = [name for name, stored in users.items() if not passwords.is_hashed(stored)]
    found = []
    if clear:
        found.append(
            f"{file}: basic_auth has {_passwords(clear)} in clear text; "
            f"hash it with: rq web passwd {clear[0]}"
        )
    for name, stored in users.items():
        if problem := passwords.problem(stored):
            found.append(
                f"{file}: the password of {name} {problem}, and {name} cannot log in; "
                f"set it anew with: rq web passwd {name}"
            )
    if users and os.stat(file).st_mode & _FOR_OTHERS:
        found.append(f"{file} holds passwords and can be read by others; run: chmod 600 {file}")
    if users and standing.authentication == "none":
        found.append(
            f'{file}: "plugins.web.authentication" is "none", but basic_auth names users, so '
            "everybody has to log in; remove one of the two"
        )
    found += [
        f'{file}: "plugins.web.roles" names {name}, who is no user of basic_auth; remove it'
        for name in standing.roles
        if name not in users
    ]
    return found


def _passwords(names: list[str]) -> str:
    if len(names) == 1:
        return f"the password of {names[0]}"
    return f"the passwords of {', '.join(names[:-1])} and {names[-1]}"


def _standing(settings: InstanceConfig, options: Options, tokens: Mapping[str, Token]) -> Standing:
    auth = settings.basic_auth
    users = auth.get("users")
    origins = {origin(url) for url in settings.hostnames}
    names = {settings.host, settings.addr, *(found[1] for found in origins if found)}
    return Standing(
        users={str(k): str(v) for k, v in users.items()} if isinstance(users, Mapping) else {},
        realm=str(auth.get("realm", "RQ")),
        roles=options.roles,
        tokens=tokens,
        authentication=options.authentication,
        allowed=networks(settings.allowed_ips),
        proxies=networks(options.trusted_proxies),
        hosts=frozenset(map(host_of, names)) - {""},
        origins=frozenset(found for found in origins if found),
    )


class _File:
    """The bytes of a file, read again only when it is another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark: tuple[int, ...] | None = None
        self._data: bytes | None = None

    def read(self) -> bytes | None:
        """Its content, None when there is no such file.  Raises `OSError`."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            self._mark = self._data = None
            return None
        mark = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)
        if mark != self._mark:
            data = durable.read_file(self.path, MAX_BYTES)
            # The same object for the same bytes, so that comparing costs nothing.
            self._data = self._data if data == self._data else data
            self._mark = mark if time_ns() - found.st_mtime_ns > _RACY else None
        return self._data
