"""Keeps a journal: every fact as a line of JSON in ``log/journal.jsonl`` of the instance.

Each line has the time, the process, the hook and what it was told, for instance::

    {"at": 1766500000.1, "pid": 812, "hook": "rq_message_done", "queue": "test", "msg_id": "…", …}

Copy it into the instance's ``plugins`` directory.  Another file, relative to the instance, is named
in the main config: ``"plugins": {"journal": {"file": "log/facts"}}``.

A line is written by one ``write`` to a file that is open for append, so that the lines of several
processes do not mix.  It is not brought to the disk: a journal is for people, not for recovery.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from rqcore.hookspecs import Attachment, InstanceInfo, Outcome, QueueInfo, hookimpl
from rqcore.lifecycle import State, Step
from rqcore.message import Message

_file = "log/journal.jsonl"


@hookimpl
def rq_configure(options: Mapping[str, Any], instance: InstanceInfo) -> None:
    """Find the journal's file; raising here would switch the plugin off, with the reason."""
    global _file  # noqa: PLW0603 - a module is one plugin, configured once per process
    unknown = set(options) - {"file"}
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known is: file")
    _file = os.path.join(instance.directory, str(options.get("file", "log/journal.jsonl")))


def _note(hook: str, message: Message | None = None, **facts: object) -> None:
    line: dict[str, object] = {"at": time.time(), "pid": os.getpid(), "hook": hook}
    if message is not None:
        line |= {"msg_id": message.msg_id, "dest": message.dest}
    text = json.dumps(line | facts, default=str) + "\n"
    fd = os.open(_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


@hookimpl
def rq_plugin_quarantined(plugin_name: str, hook_name: str, error: str) -> None:
    _note("rq_plugin_quarantined", plugin_name=plugin_name, hook_name=hook_name, error=error)


@hookimpl
def rq_daemon_started(instance: InstanceInfo) -> None:
    _note("rq_daemon_started", directory=instance.directory)


@hookimpl
def rq_daemon_stopping(instance: InstanceInfo, reason: str) -> None:
    _note("rq_daemon_stopping", directory=instance.directory, reason=reason)


@hookimpl
def rq_queue_created(queue: QueueInfo) -> None:
    _note("rq_queue_created", queue=queue.name)


@hookimpl
def rq_spool_ready(queue: QueueInfo) -> None:
    _note("rq_spool_ready", queue=queue.name)


@hookimpl
def rq_queue_config_reloaded(queue: QueueInfo, old: Mapping[str, Any]) -> None:
    _note("rq_queue_config_reloaded", queue=queue.name, old=dict(old), new=dict(queue.config))


@hookimpl
def rq_queue_process_exited(name: str, status: int, restarts: int) -> None:
    _note("rq_queue_process_exited", name=name, status=status, restarts=restarts)


@hookimpl
def rq_queue_deleted(name: str, path: str) -> None:
    _note("rq_queue_deleted", name=name, path=path)


@hookimpl
def rq_admin_state_changed(queue: QueueInfo, old: str, new: str) -> None:
    _note("rq_admin_state_changed", queue=queue.name, old=old, new=new)


@hookimpl
def rq_oper_state_changed(queue: QueueInfo, old: str, new: str, cause: str) -> None:
    _note("rq_oper_state_changed", queue=queue.name, old=old, new=new, cause=cause)


@hookimpl
def rq_message_prepared(message: Message, queue: QueueInfo) -> None:
    _note("rq_message_prepared", message, queue=queue.name)


@hookimpl
def rq_message_attached(message: Message, attachment: Attachment, queue: QueueInfo) -> None:
    _note("rq_message_attached", message, attachment=attachment.name, queue=queue.name)


@hookimpl
def rq_message_committed(message: Message, queue: QueueInfo) -> None:
    _note("rq_message_committed", message, queue=queue.name)


@hookimpl
def rq_message_queued(message: Message, queue: QueueInfo, cause: Step) -> None:
    _note("rq_message_queued", message, queue=queue.name, cause=cause)


@hookimpl
def rq_message_recovered(message: Message, queue: QueueInfo, began: float) -> None:
    _note("rq_message_recovered", message, queue=queue.name, began=began)


@hookimpl
def rq_message_starting(message: Message, queue: QueueInfo) -> None:
    _note("rq_message_starting", message, queue=queue.name)


@hookimpl
def rq_message_started(message: Message, queue: QueueInfo, pid: int) -> None:
    _note("rq_message_started", message, queue=queue.name, pid=pid)


@hookimpl
def rq_message_status(message: Message, queue: QueueInfo, text: str) -> None:
    _note("rq_message_status", message, queue=queue.name, text=text)


@hookimpl
def rq_message_dup(message: Message, queue: QueueInfo, new_msg_id: str, dest: str) -> None:
    _note("rq_message_dup", message, queue=queue.name, new_msg_id=new_msg_id, dest=dest)


@hookimpl
def rq_message_finishing(message: Message, queue: QueueInfo, outcome: Outcome) -> None:
    _note(
        "rq_message_finishing",
        message,
        queue=queue.name,
        state=outcome.state,
        status=outcome.status,
        timed_out=outcome.timed_out,
    )


@hookimpl
def rq_message_done(message: Message, queue: QueueInfo, status: str) -> None:
    _note("rq_message_done", message, queue=queue.name, status=status)


@hookimpl
def rq_message_err(message: Message, queue: QueueInfo, status: str) -> None:
    _note("rq_message_err", message, queue=queue.name, status=status)


@hookimpl
def rq_message_resend(message: Message, queue: QueueInfo, delay: float, reason: str) -> None:
    _note("rq_message_resend", message, queue=queue.name, delay=delay, reason=reason)


@hookimpl
def rq_message_relayed(message: Message, queue: QueueInfo, new_msg_id: str) -> None:
    _note("rq_message_relayed", message, queue=queue.name, new_msg_id=new_msg_id)


@hookimpl
def rq_spool_synced(queue: QueueInfo, seconds: float) -> None:
    _note("rq_spool_synced", queue=queue.name, seconds=seconds)


@hookimpl
def rq_spool_settled(queue: QueueInfo) -> None:
    _note("rq_spool_settled", queue=queue.name)


@hookimpl
def rq_message_moved(
    message: Message, queue: QueueInfo, old: State | None, new: State | None, step: Step
) -> None:
    _note("rq_message_moved", message, queue=queue.name, old=old, new=new, step=step)


@hookimpl
def rq_message_removed(msg_id: str, queue: QueueInfo, state: State) -> None:
    _note("rq_message_removed", msg_id=msg_id, queue=queue.name, state=state)
