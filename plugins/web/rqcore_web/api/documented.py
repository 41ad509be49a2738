"""What other rooms answer below ``/api/v1``, for the document: the logs (`rqcore_web.logs`)."""

from __future__ import annotations

from rqcore_web.api import operations, schemas
from rqcore_web.api.operations import EVENTS, JSON, Answer, Operation, header, one, query

_LOGS = f"{operations.MESSAGE}/logs"
_FILE = f"{_LOGS}/{{file}}"
_ATTACHED = f"{operations.MESSAGE}/attachments/{{file}}"
_TEXT = "text/plain"


def _of_a_file(name: str, path: str, what: str) -> tuple[Operation, ...]:
    return (
        Operation(
            f"follow{name}",
            "GET",
            f"{path}/events",
            "logs",
            f"Follow {what} as it grows",
            "read",
            {
                200: Answer(
                    "server-sent events: `log` with `state`, `size` (null where there is no file) and "
                    "`file`; `text` with `offset` and `text`; `end` as the last",
                    {EVENTS: None},
                )
            },
            description="With `from` what is written from there on comes too; the ids of `text` say "
            "where to go on, and `Last-Event-ID` is heeded.",
            parameters=(query("from", schemas.whole("byte")), header("Last-Event-ID", "as `from`")),
        ),
        Operation(
            f"search{name}",
            "GET",
            f"{path}/search",
            "logs",
            f"Search in {what}",
            "read",
            {200: Answer("what was found, and where to go on", {JSON: schemas.ref("Found")})},
            parameters=(
                query("q", schemas.text("what to look for", minLength=1)),
                query("from", schemas.whole("byte to begin at")),
                query("direction", schemas.one_of(("forward", "backward"), default="forward")),
                query(
                    "case",
                    schemas.one_of(("0", "1"), "1: upper and lower case differ", default="0"),
                ),
                query("limit", schemas.whole("at most so many matches", least=1, default=1)),
            ),
        ),
    )


OPERATIONS = (
    Operation(
        "listLogs", "GET", _LOGS, "logs", "List what a message's script left", "read",
        {200: one("LogList", "the files of its directory `job`")},
    ),
    Operation(
        "getLog", "GET", _FILE, "logs", "Fetch a log, or a range of it", "read",
        {200: Answer("the file", {_TEXT: None}),
         206: Answer("a range of it", {_TEXT: None}, {"Content-Range": "which"}),
         304: Answer("it is as you know it")},
        description="`stdio.log` is what the script printed. It can be fetched while it grows.",
        parameters=(
            query("download", schemas.one_of(("0", "1"), "1: a browser is to save it")),
            header("Range", "one range of bytes: `bytes=0-99`, `bytes=-65536`"),
            operations.IF_NONE_MATCH,
        ),
        problems=(416,),
    ),
    *_of_a_file("Log", _FILE, "a log"),
    *_of_a_file("Attachment", _ATTACHED, "an attachment"),
)  # fmt: skip
