"""What ``rq doctor`` and ``rq check`` are told of the site.

Does it answer, how long is its certificate good, are there passwords in clear text, can others read
what they should not?
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from time import time

from rqcore.client import ManagerClient
from rqcore.errors import UnreachableError
from rqcore.hookspecs import Check
from rqcore.instance import Instance
from rqcore.schema import ConfigError
from rqcore.secrecy import secret_check
from rqcore.words import span_in_words
from rqcore_web.security import passwords
from rqcore_web.security.tokens import TOKENS_FILE
from rqcore_web.whereabouts import ask, settings_of, site_url

_SOON = 14 * 86400


def checks(directory: str) -> list[Check]:
    """All of them; none where the main config is wrong, which is told by a check of its own."""
    instance = Instance(Path(directory))
    try:
        settings, options = settings_of(instance)
    except ConfigError:
        return []
    found = _answers(instance)
    if options.certificate:
        found.append(_certificate(str(instance.directory / options.certificate)))
        key = str(instance.directory / options.key)
        found.append(secret_check(directory, key, "the certificate's key"))
    secrets = {
        instance.config_dir / TOKENS_FILE: "tokens",
        instance.directory / "var" / "web" / "secret": "what the site signs with",
    }
    found += [
        secret_check(directory, str(path), holds)
        for path, holds in secrets.items()
        if path.exists()
    ]
    users = settings.basic_auth.get("users")
    clear = [
        name
        for name, stored in (users.items() if isinstance(users, Mapping) else ())
        if not passwords.is_hashed(str(stored))
    ]
    if clear:
        text = f"{'the passwords' if len(clear) > 1 else 'the password'} of {', '.join(clear)} "
        found.append(
            Check("web passwords", "warning", f"{text}in clear text in {instance.config_file}",
                  f"hash it: rq web passwd {clear[0]}")
        )  # fmt: skip
    return found


def _answers(instance: Instance) -> list[Check]:
    """Does the site answer?  While RQ does not run nobody expects that."""
    try:
        with ManagerClient(instance.directory) as manager:
            manager.call("ping")
    except UnreachableError:
        return []
    url = site_url(instance)
    try:
        ask(instance)
    except UnreachableError as error:
        remedy = "rq status and the log say why; rq restart, if it is only stuck"
        return [Check("web", "critical", f"{url}: {error}", remedy)]
    return [Check("web", "ok", f"{url} answers")]


def _certificate(path: str) -> Check:
    name, remedy = "web certificate", "renew it; a new file counts at once, without a restart"
    try:
        # The standard library reads a certificate's dates only here.
        end = ssl.cert_time_to_seconds(ssl._ssl._test_decode_cert(path)["notAfter"])  # type: ignore[attr-defined] # noqa: SLF001
    except (OSError, ssl.SSLError, ValueError) as error:
        return Check(name, "critical", f"{path} cannot be read: {error}", remedy)
    left = end - time()
    if left <= 0:
        return Check(
            name, "critical", f"{path} is out of date since {span_in_words(-left)}", remedy
        )
    text = f"{path} is good for {span_in_words(left)} more"
    return Check(name, "warning" if left < _SOON else "ok", text, remedy)
