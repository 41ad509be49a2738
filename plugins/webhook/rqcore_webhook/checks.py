"""What ``rq doctor`` and ``rq check`` are told of webhooks.

Looks at files, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import time
from urllib.parse import urlsplit

from rqcore.hookspecs import Check
from rqcore.secrecy import secret_check
from rqcore.words import span_in_words
from rqcore_webhook.options import Endpoint, Options
from rqcore_webhook.outbox import Outbox
from rqcore_webhook.words import not_kept, rows

#: Seconds after which what lies in the outbox has waited too long.
_LATE = 60.0
_SHAKY = 3
#: A header whose name has such a part holds what others should not know.
_SECRET = ("auth", "cookie", "key", "secret", "token")


def checks(directory: str, options: Options) -> Iterator[Check]:
    """Each endpoint, each secret, and the outbox."""
    for row in rows(directory, options):
        yield _endpoint(row["target"], row)
    yield from _secrets(directory, options)
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
            "messages ask for it: correct what they give as webhook, or the option networks"
            if "://" in name else "correct plugins.webhook in config/config.json, then rq reload",
        )  # fmt: skip
    if isinstance(failures, int) and failures >= _SHAKY and isinstance(since, int | float):
        return Check(
            what, "warning",
            f"fails for {span_in_words(time() - since)}: {row['last_error']}",
            f"try it: rq webhook test {name if '://' not in name else 'URL'}",
        )  # fmt: skip
    return Check(what, "ok", str(row["status"]))


def _secrets(directory: str, options: Options) -> Iterator[Check]:
    """What signs: whether it is there, can be used, and is hidden from others; each file once."""
    files = {}
    for name, endpoint in options.endpoints.items():
        if endpoint.secret_file:
            files[endpoint.secret_file] = endpoint
        elif endpoint.format == "standard" and not endpoint.secrets:
            yield Check(
                f"webhook {name}, secret", "warning", "there is none, so nothing is signed",
                'make one with: rq webhook secret; write it under "secret_file"',
            )  # fmt: skip
    for path, endpoint in files.items():
        yield secret_check(directory, path, "a webhook's secret", endpoint.all_secrets)
    if any(map(_tells_secrets, options.endpoints.values())):
        yield secret_check(directory, f"{directory}/config/config.json", "secrets of webhooks")


def _tells_secrets(endpoint: Endpoint) -> bool:
    """Is there one in the config itself?"""
    named = any(part in name.lower() for name in endpoint.headers for part in _SECRET)
    return bool(endpoint.secrets) or named or "@" in urlsplit(endpoint.url).netloc


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
