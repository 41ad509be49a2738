"""What ``rq doctor`` and ``rq check`` are told of webhooks.

Looks at files, and touches nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from time import time

from rqcore.errors import RqError
from rqcore.hookspecs import Check
from rqcore.words import span_in_words
from rqcore_webhook.options import Endpoint, Options
from rqcore_webhook.outbox import Outbox
from rqcore_webhook.words import not_kept, rows

#: Seconds after which what lies in the outbox has waited too long.
_LATE = 60.0
_SHAKY = 3


def checks(directory: str, options: Options) -> Iterator[Check]:
    """Each endpoint, each secret, and the outbox."""
    for row in rows(directory, options):
        yield _endpoint(row["target"], row)
    for name, endpoint in options.endpoints.items():
        yield from _secret(name, endpoint)
    yield _outbox(directory)


def _endpoint(name: str, row: dict[str, object]) -> Check:
    what, failures, missed = f"webhook {name}", row["failures"], row["missed"]
    disabled, since = row["disabled"], row["failing_since"]
    if isinstance(disabled, dict):
        lost = f"; {not_kept(int(str(missed)))} for it" if missed else ""
        return Check(
            what, "critical", f"is disabled: {disabled['reason']}{lost}",
            f"when it is well again: rq webhook enable {name}, then rq webhook replay "
            f"--endpoint {name} --since 7d",
        )  # fmt: skip
    if row["status"] == "refused":
        return Check(
            what, "warning", f"gets nothing: {row['last_error']}",
            "correct plugins.webhook in config/config.json, then rq reload",
        )  # fmt: skip
    if isinstance(failures, int) and failures >= _SHAKY and isinstance(since, int | float):
        return Check(
            what, "warning",
            f"fails for {span_in_words(time() - since)}: {row['last_error']}",
            f"try it: rq webhook test {name if '://' not in name else 'URL'}",
        )  # fmt: skip
    return Check(what, "ok", str(row["status"]))


def _secret(name: str, endpoint: Endpoint) -> Iterator[Check]:
    what = f"webhook {name}, secret"
    if endpoint.format == "standard" and not endpoint.secrets and not endpoint.secret_file:
        yield Check(
            what, "warning", "there is none, so nothing is signed",
            'make one with: rq webhook secret; write it under "secret_file"',
        )  # fmt: skip
        return
    if not endpoint.secret_file:
        return
    try:
        endpoint.all_secrets()
        mode = os.stat(endpoint.secret_file).st_mode
    except (RqError, OSError) as error:
        yield Check(what, "critical", str(error), f"correct {endpoint.secret_file}")
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        path = endpoint.secret_file

        def fix() -> str:
            os.chmod(path, 0o600)
            return f"{path} is for its owner alone now"

        yield Check(what, "warning", f"{path} can be read by others", f"chmod 600 {path}", fix)
    else:
        yield Check(what, "ok", "can be read")


def _outbox(directory: str) -> Check:
    outbox = Outbox(directory)
    waiting = outbox.ready()
    late = 0.0
    if waiting:
        stamp = waiting[0].partition(".")[0]
        late = time() - int(stamp) / 1e9 if stamp.isdecimal() else 0.0
    if late > _LATE:
        return Check(
            "webhook outbox", "critical",
            f"{len(waiting)} events wait for {span_in_words(late)} to be queued",
            "see that the service webhook and the queue webhook run: rq status",
        )  # fmt: skip
    return Check("webhook outbox", "ok", f"{len(waiting)} events wait to be queued")
