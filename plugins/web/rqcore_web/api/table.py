"""All operations of the API, in the order in which the document shows them."""

from __future__ import annotations

from rqcore_web.api import (
    about,
    attachments,
    documented,
    figures,
    health,
    jobs,
    messages,
    plans,
    published,
    queueconfig,
    queues,
    resumable,
    sending,
    stream,
)
from rqcore_web.api.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    *about.OPERATIONS,
    *queues.OPERATIONS,
    *queueconfig.OPERATIONS,
    *plans.OPERATIONS,
    *figures.OPERATIONS,
    *sending.OPERATIONS,
    *messages.OPERATIONS,
    *attachments.OPERATIONS,
    *resumable.OPERATIONS,
    *documented.OPERATIONS,
    *jobs.OPERATIONS,
    *stream.OPERATIONS,
    *health.OPERATIONS,
    *published.OPERATIONS,
)
