"""The running service held to its own document by schemathesis: every operation, bounded, repeatable.

Nothing that is sent may end in a failure of the service, in an answer that the document does not know,
or in one that is not as it says; and nothing that the document forbids may be taken.  Statuses that are
true answers of a server (503 while a queue is DOWN, 507) are allowed where they are documented.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from rqcore_web.api.document import document
from rqcore_web.api.table import OPERATIONS
from rqcore_web.security import tokens
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation

if TYPE_CHECKING:
    from tests.conftest import Web

pytestmark = pytest.mark.slow

schemathesis.serializer.alias("application/partial-upload", "application/octet-stream")

#: They answer without end.
ENDLESS = ["followEvents", "followLog", "followAttachment"]
#: What a schema cannot say (that a filter is one, that a name is short in UTF-8 too) ends in 422, and a
#: change of a config that does not say of which in 428.
CONFIG = SchemathesisConfig.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {
                "expected-statuses": ["2xx", "3xx", 401, 403, 404, 409, 412, 416, 422, 503, 507]
            },
            "missing_required_header": {"expected-statuses": [400, 401, 404, 406, 422, 428]},
        }
    }
)
SCHEMA = schemathesis.openapi.from_dict(document(OPERATIONS, ""), config=CONFIG).exclude(
    operation_id=ENDLESS
)
#: Some 5xx are true answers, and are looked at here; who guesses credentials is answered ever more
#: slowly, and then 429 (`test_security_guard`).
LEFT_OUT = {"not_a_server_error", "ignored_auth"}
#: What is there, by the name of the parameter.
THERE = {"queue": "test", "file": "stdio.log", "name": "file.bin"}


@pytest.fixture(scope="module")
def site(shared: Web) -> tuple[Web, str]:
    """A site, and a token that may do everything."""
    made, token = tokens.make_token("fuzz", "admin", (), None, datetime.now(UTC))
    tokens.write_tokens(shared.rq.directory / "config/tokens.json", [made])
    shared.rq.configure(basic_auth={"users": {"nobody": "else"}})
    shared.rq.queue("test", shared.FAILS, num_workers=2)
    # Its queue is restarted in between: no new process of it is a leftover of a test.
    shared.rq.environ.pop("RQCORE_TEST_SESSION")
    shared.start()
    message = shared.rq.until("test", shared.rq.send("test"), "err")
    THERE["msg_id"] = message["msg_id"]
    prepared = shared.rq.ask("test", "prep_message", {"dest": "test"}).rpartition("/")[2]
    begun = shared.curl(
        f"api/v1/queues/test/messages/{prepared}/attachments/file.bin", "-X", "POST",
        "-H", f"Authorization: Bearer {token}", "-H", "Upload-Complete: ?0",
    )  # fmt: skip
    THERE["upload"] = begun.json()["id"]
    return shared, token


def name_what_is_there(case: Any) -> None:
    """Paths that are as they should be name what is there; else all would end in a 404."""
    path = case.meta.components.get(ParameterLocation.PATH)
    if path is None or path.mode.is_negative or crc32(repr(case.path_parameters).encode()) % 4 == 0:
        return
    for name in case.path_parameters:
        case.path_parameters[name] = THERE.get(name, case.path_parameters[name])


def let_lengths_agree(case: Any) -> None:
    """A length that is told is that of what comes, or what was told before: no schema can say that."""
    told = case.meta.components.get(ParameterLocation.HEADER)
    if told is None or told.mode.is_negative or not case.headers:
        return
    if "Upload-Length" in case.headers:
        del case.headers["Upload-Length"]
        if case.method == "POST" and case.headers.get("Upload-Complete") == "?0":
            case.headers["Upload-Length"] = "1000000"  # more than comes


@SCHEMA.parametrize()
@settings(max_examples=10, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_it_does_what_its_document_says(case: Any, site: tuple[Web, str]) -> None:
    web, token = site
    name_what_is_there(case)
    let_lengths_agree(case)
    checks = [check for check in CHECKS.get_all() if check.__name__ not in LEFT_OUT]
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        response = case.call_and_validate(
            base_url=web.url.rstrip("/"), session=session, checks=checks, timeout=30
        )
    if response.status_code >= 500:
        assert response.status_code in (503, 507), response.text
        assert str(response.status_code) in case.operation.definition.raw["responses"]
