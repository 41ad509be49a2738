"""The schemas of what is sent and answered, as the OpenAPI document publishes them.

JSON Schema 2020-12, within the keywords of `rqcore_web.api.checking`.  What is sent is closed: a field
that is not known is refused, for it is mostly a misspelt one.  What is answered is open: there may be
more in it tomorrow.
"""

from __future__ import annotations

from typing import Any

from rqcore_web.filters import FIELDS
from rqcore_web.spool import STATES

Schema = dict[str, Any]
#: What a message's id within its queue looks like.
ID_PATTERN = r"^[0-9]{8}\.[0-9]{4}\.[0-9]{2}\.[0-9]{3}(\.[0-9]{1,25})?$"


def ref(name: str) -> Schema:
    """A schema of `SCHEMAS` by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(description: str = "", **more: Any) -> Schema:
    """Text."""
    return _made("string", description, more)


def whole(description: str = "", least: int = 0, **more: Any) -> Schema:
    """A whole number, of at least 0 unless told."""
    return _made("integer", description, {"minimum": least, **more})


def number(description: str = "", **more: Any) -> Schema:
    """Any number."""
    return _made("number", description, more)


def flag(description: str = "", **more: Any) -> Schema:
    """True or false."""
    return _made("boolean", description, more)


def one_of(words: tuple[str, ...], description: str = "", **more: Any) -> Schema:
    """One of these words."""
    return _made("string", description, {"enum": list(words), **more})


def items(of: Schema, description: str = "", **more: Any) -> Schema:
    """A list."""
    return _made("array", description, {"items": of, **more})


def sent(properties: dict[str, Schema], *required: str, description: str = "") -> Schema:
    """An object that is sent: nothing else may be in it."""
    return _made("object", description, {
        "properties": properties, "required": list(required), "additionalProperties": False,
    })  # fmt: skip


def told(properties: dict[str, Schema], description: str = "", *, optional: str = "") -> Schema:
    """An object that is answered: all of it is there but what is ``optional`` (names, by spaces)."""
    required = [name for name in properties if name not in optional.split()]
    return _made("object", description, {"properties": properties, "required": required})


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def _made(kind: str, description: str, more: dict[str, Any]) -> Schema:
    described = {"description": description} if description else {}
    return {"type": kind, **described, **more}


_TIME = "unix time in seconds"
_FILTER = (
    'which messages: `state:err param1:foo* age:>1h -src:cron "some words"`. All terms have to fit; '
    "`-` turns one round; fields are " + ", ".join(f"`{name}`" for name in FIELDS) + "."
)  # fmt: skip
_MESSAGE_FIELDS: dict[str, Schema] = {
    "dest": text("where it is to run", minLength=1, examples=["test"]),
    "src": text("who sends it, free text"),
    **{f"param{n}": text(f"what the script gets as RQ_PARAM{n}") for n in (1, 2, 3, 4)},
    "due": number(
        f"not to run before, {_TIME}; now unless told", minimum=0, maximum=99_999_999_999
    ),
    "count": whole("how often it was relayed or processed already", maximum=2**31 - 1),
    "max_count": whole("it fails when count gets there", maximum=2**31 - 1),
    "orig_msg_id": text("full id of the first message of its chain"),
    "post_run_webhook": items(text(), "URLs that are told of its end"),
    "force_remote": flag("relay it even if its destination is this host"),
    "traceparent": text(
        "the trace that it belongs to (W3C Trace Context); the request's header of that name unless "
        "given, and dropped if it has not the right form"
    ),
    "tracestate": text("what belongs to traceparent"),
}
_MODE = one_of(
    ("commit", "prep", "single_que"),
    "`commit`: it waits for its run at once. `prep`: it can take attachments until it is committed. "
    "`single_que`: only if no message waits in the queue; else the one that waits is answered.",
    default="commit",
)
_IDENTITY: dict[str, Schema] = {
    "queue": text(),
    "msg_id": text("the message's id within its queue", examples=["20260301.0800.00.000.00000123"]),
    "full_id": text("its URL, which is its name on other machines too"),
}
_COUNTS = told({state: whole() for state in STATES}, "how many messages lie in which state")
_OPEN: Schema = {"type": "object"}
_SPREAD = told({
    "count": whole(), "mean": number("seconds"), "median": number("seconds, about"),
    "p95": number("seconds, about"), "longest": number("seconds"),
})  # fmt: skip

SCHEMAS: dict[str, Schema] = {
    "Problem": told(
        {
            "type": text("`urn:rqcore:problem:NAME`, or `about:blank` where the status says it all"),
            "title": text(), "status": whole(), "detail": text("for people: thing, reason, remedy"),
            "instance": text("the path that was asked"),
            "errors": items(told({"field": text("where: `schedule[2].cron`; empty for the whole"),
                                  "message": text()})),
            "queue": text("`queue-down`: which queue that is"),
            "reason": text("`queue-down`: why, where its operator has said so"),
            "request_id": text("what the logs call this request; also in X-Request-Id"),
        },
        "RFC 9457", optional="errors queue reason request_id",
    ),
    "NewMessage": sent({
        "mode": _MODE,
        "routed": flag("on a router its rules take it, as they take what comes in by RQ's own URLs",
                       default=False),
        **_MESSAGE_FIELDS,
    }),
    "SentMessage": sent({"mode": _MODE, **_MESSAGE_FIELDS}, "dest"),
    "BatchMessage": sent(
        {"queue": text("the queue that takes it; `dest` decides unless told", minLength=1),
         "mode": one_of(("commit", "prep"), default="commit"), **_MESSAGE_FIELDS},
    ),
    "Batch": sent(
        {"messages": items(_OPEN, "1 to 1000 objects, each checked by itself as `BatchMessage`: a wrong "
                           "one is told in its result and keeps no other back",
                           minItems=1, maxItems=1000)},
        "messages",
    ),
    "Created": told({**_IDENTITY, "state": one_of(STATES), "url": text("its path below this host")}),
    "BatchResult": told(
        {"index": whole("its place in what was sent"), "status": whole("as if sent alone"),
         **_IDENTITY, "state": one_of(STATES), "url": text(), "problem": ref("Problem")},
        "a created message, or a problem", optional="queue msg_id full_id state url problem",
    ),
    "BatchAnswer": told({"created": whole(), "failed": whole(), "results": items(ref("BatchResult"))}),
    "MessageItem": told(
        {**_IDENTITY, "state": one_of(STATES),
         "status": text("`STATE - TEXT`: the last status that the script gave"),
         "url": text(), "dest": text(), "src": text(), **{f"param{n}": text() for n in (1, 2, 3, 4)},
         "due": number(), "count": whole(), "max_count": whole(), "orig_msg_id": text()},
        "more fields where a message has them; one that cannot be read has little but its id",
        optional="full_id dest src param1 param2 param3 param4 due count max_count orig_msg_id",
    ),
    "MessageList": told({"items": items(ref("MessageItem")),
                         "next": or_null(text("the cursor of the next page; null at the end"))}),
    "Attachment": told({"name": text(), "size": whole("bytes"), "md5": text(), "sha256": text(),
                        "url": text()}),
    "Upload": told(
        {"id": text(), "url": text(), "queue": text(), "msg_id": text(),
         "name": text("what the attachment is called"),
         "offset": whole("bytes that have come"), "length": or_null(whole("bytes that there will be")),
         "complete": flag("is it attached?"), "active": flag("is somebody sending it right now?"),
         "who": text("who began it"), "created_at": number(_TIME),
         "touched_at": number(_TIME)},
    ),
    "UploadList": told({"items": items(ref("Upload"), "oldest first")}),
    "Run": told({"began": number(_TIME), "ended": number(_TIME), "state": text(), "status": text(),
                 "count": whole()}),
    "Message": told(
        {**_IDENTITY, "state": one_of(STATES), "status": text(), "url": text(),
         "created_at": or_null(number(_TIME)), "dest": text(), "src": text(),
         **{f"param{n}": text() for n in (1, 2, 3, 4)},
         "due": number(), "count": whole(), "max_count": whole(), "orig_msg_id": text(),
         "post_run_webhook": items(text()), "force_remote": flag(), "cloned_from": text(),
         "traceparent": text(), "tracestate": text(),
         "dups": items(text(), "full ids of the messages that were coalesced into it"),
         "attachments": items(ref("Attachment")),
         "runs": items(ref("Run"), "runs that ended, oldest first")},
        optional="post_run_webhook force_remote cloned_from dups traceparent tracestate",
    ),
    "Acted": told({"queue": text(), "msg_id": text(), "detail": text("what the queue said")}),
    "Running": told({"msg_id": text(), "pid": whole(), "status": text(), "dest": text(),
                     "started_at": number(_TIME)}),
    "Queue": told(
        {"name": text(), "url": text(), "alive": flag("does its process answer?"),
         "status": text("UP, DOWN, PAUSE, SCRIPTERROR or ERROR"),
         "admin": text("what its operator wants"),
         "oper": text("whether it can"), "problem": text("why not, in words"), "pid": whole(),
         "uptime": whole("seconds"), "counts": _COUNTS, "workers": whole(), "script": text(),
         "running": items(ref("Running")), "earliest_due": or_null(number(_TIME)),
         "next_wake": or_null(number(_TIME))},
    ),
    "QueueList": told({"items": items(ref("Queue"), "custom queues first, then RQ's own")}),
    "AdminState": told({"name": text(), "admin": one_of(("UP", "DOWN", "PAUSE"))}),
    "QueueConfig": {
        **_made("object", "a queue's config.json; plugins may know more keys", {}),
        "properties": {
            "name": text("letters, digits, `-` and `_`", minLength=1, maxLength=128),
            "script": text("path of the program, from the instance's directory", minLength=1,
                           maxLength=1024),
            "num_workers": {"type": ["integer", "string"], "description": "1 to 128",
                            "minimum": 1, "maximum": 128},
        },
        "required": ["name", "script"],
        "examples": [{"name": "test", "script": "code/test.sh", "num_workers": 2}],
    },
    "ConfigChange": _made("object", "RFC 7396: keys to set; null removes one", {}),
    "Config": _made("object", "the config as it is written", {}),
    "Configured": told({"queue": text(), "warnings": items(
        told({"field": text(), "message": text()}), "what was noticed, and forbids nothing")}),
    "BulkRequest": sent(
        {"action": one_of(("run", "clone", "retry", "delete", "kill")),
         "filter": text(_FILTER + " The empty filter means all that the action is for."),
         "ids": items(text(minLength=1), "messages by id, instead of a filter", minItems=1,
                      maxItems=10_000),
         "dry_run": flag("only say what it would be about", default=False)},
        "action",
    ),
    "BulkPreview": told({"action": text(), "queue": text(), "total": whole(),
                         "exact": flag("false: there are more than were counted"),
                         "first": items(text(), "the first ids")}),
    "Job": told(
        {"id": text(), "url": text(), "action": text(), "queue": text(), "filter": or_null(text()),
         "who": text(), "state": one_of(("waiting", "running", "done", "cancelled", "failed")),
         "total": or_null(whole("null while nobody knows")), "done": whole(), "failed": whole(),
         "unknown": whole("the queue went away before it answered"), "problem": text(),
         "created_at": number(_TIME), "started_at": or_null(number(_TIME)),
         "ended_at": or_null(number(_TIME)),
         "outcomes": items(told({"msg_id": text(), "ok": flag(), "detail": text()}),
                           "the latest thousand, oldest first")},
        optional="outcomes",
    ),
    "JobList": told({"items": items(ref("Job"))}),
    "LogList": told({"items": items(told({
        "name": text(), "size": whole("bytes"), "modified": number(_TIME), "url": text(),
        "page": text("the page that shows it live"),
    }))}),
    "Found": told({
        "matches": items(told({"offset": whole("byte"), "line_offset": whole("where its line begins")})),
        "next": or_null(whole("the `from` to go on with; null at the end")), "size": whole("bytes now"),
    }),
    "ScheduleEntry": told(
        {"queue": text(), "cron": text(), "words": text("in plain language"),
         "tz": text("as written; empty for the machine's own"), "zone": text("whose time it is"),
         "next_runs": items(number(_TIME), "soonest first"), "catchup": text(),
         "missed": text("what happens to missed runs"),
         **{f"param{n}": text() for n in (1, 2, 3, 4)}},
    ),
    "ScheduleList": told({"items": items(ref("ScheduleEntry")),
                          "problems": items(text(), "what is wrong with entries that are skipped")}),
    "HistoryPoint": told({
        "start": number(_TIME), "seconds": whole("how long it is"),
        "covered": number("how much of it was watched, 0 to 1"),
        **{name: or_null(whole())
           for name in ("created", "started", "done", "err", "relayed", "resent")},
        "wait": or_null(_SPREAD), "run": or_null(_SPREAD),
    }, "null where nobody knows; `wait` and `run` also where nothing began or ended"),
    "History": told({"seconds": whole("how long a point is"), "points": items(ref("HistoryPoint"))}),
    "Plugins": told({
        "manager": _OPEN, "web": _OPEN,
        "queues": _made("object", "by queue; a queue that does not answer is missing", {}),
    }),
    "Check": told({"ok": flag(), "detail": text()}),
    "Health": told({"ready": flag(), "checks": _made("object", "by name, each a `Check`", {})}),
    "Instance": told({
        "version": text(), "env": text(), "base_url": text("what full ids begin with"),
        "uptime": whole("seconds"), "time": number(_TIME), "who": text("who you are"),
        "scope": text("what you may do: read, enqueue, operate or admin"),
        "processes": items(told({"name": text(), "kind": text(), "pid": whole(), "state": text(),
                                 "problem": text(), "restarts": whole()})),
    }),
}  # fmt: skip
