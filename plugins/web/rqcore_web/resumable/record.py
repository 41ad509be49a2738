"""What is known of an upload beside its bytes, on disk, so that a restart of the service forgets none.

In the site's ``tmp``, for the upload ``UID`` of an instance that is known there as ``HASH``:

    rq-partial-HASH-UID         the bytes that have come (`rqcore_web.resumable.partfile`)
    rq-partial-HASH-UID.json    the `Record`

The record is written durably when the upload is made, while it grows (``synced``), and when it is
complete: then the bytes are the message's, and the record stays to say so to whoever did not hear it.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from time import time
from typing import TYPE_CHECKING, Any

from rqcore import durable
from rqcore_web.uploads import prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rqcore_web.site import Site

_log = logging.getLogger(__name__)
_SUFFIX = ".json"
_MOST = 1 << 20


@dataclass(slots=True)
class Record:
    """See the head of this module; sizes are bytes, times unix seconds.

    ``length`` is what there will be, None while nobody said; ``sha256`` what it has to have, in hex, or
    "".  ``synced`` bytes are on the disk, as of the boot ``boot`` of the machine.  ``digest`` is None
    until it is attached, then ``{"size", "md5", "sha256"}``.
    """

    uid: str
    queue: str
    msg_id: str
    name: str
    length: int | None
    sha256: str
    who: str
    created: float
    boot: str
    synced: int = 0
    digest: dict[str, Any] | None = None


class Records:
    """The uploads' files of one instance."""

    def __init__(self, site: Site) -> None:
        self._prefix = os.path.join(os.path.abspath(site.tmp), prefix(site, "partial"))

    def path(self, uid: str) -> str:
        """Where the bytes of an upload are."""
        return self._prefix + uid

    def write(self, record: Record) -> None:
        """Write it, durably.  Raises `OSError`."""
        data = json.dumps(asdict(record)).encode("ascii")
        durable.write_file(self.path(record.uid) + _SUFFIX, data, mode=0o600)

    def remove(self, uid: str) -> None:
        """There is no such upload any more; its bytes go by themselves."""
        durable.clear_away(self.path(uid) + _SUFFIX)

    def load(self) -> Iterator[tuple[Record, int, float]]:
        """Every upload: its record, how many of its bytes are sure, and when it was last written to.

        What a crash left that is no upload is removed.
        """
        folder, start = os.path.split(self._prefix)
        boot = boot_id()
        names = set(durable.children(folder))
        for name in names:
            path = os.path.join(folder, name)
            if name.startswith(f".{start}"):  # half a record: it is not told of yet
                durable.clear_away(path)
            elif name.startswith(start) and name.endswith(_SUFFIX):
                found = self._read(path)
                if found is None:
                    durable.clear_away(path)
                    durable.clear_away(path.removesuffix(_SUFFIX))
                else:
                    touched = _touched(path)
                    yield found, self._sure(found, boot), touched
            elif name.startswith(start) and f"{name}{_SUFFIX}" not in names:
                durable.clear_away(path)

    def _read(self, path: str) -> Record | None:
        try:
            record = Record(**json.loads(durable.read_file(path, _MOST)))
            whole = self.path(record.uid) + _SUFFIX == path
            if whole and (record.digest or os.path.exists(self.path(record.uid))):
                return record
            _log.warning("%s: an upload that has lost its bytes is forgotten", path)
        except (OSError, ValueError, TypeError) as error:
            _log.warning("%s: an upload is forgotten: %s", path, error)
        return None

    def _sure(self, record: Record, boot: str) -> int:
        """How many bytes are there for sure.  Of what the machine's end may have spoilt none is kept."""
        if record.digest is not None:
            return int(record.digest["size"])
        path = self.path(record.uid)
        size = os.stat(path).st_size
        if boot and boot == record.boot:
            return size
        size = min(size, record.synced)
        fd = durable.append_log(path, 0o600)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)
        record.boot, record.synced = boot, size
        self.write(record)
        return size


def boot_id() -> str:
    """This run of the machine; "" where the system does not say."""
    try:
        return durable.read_file("/proc/sys/kernel/random/boot_id", 100).decode("ascii").strip()
    except OSError:
        return ""


def _touched(path: str) -> float:
    latest = 0.0
    for one in (path, path.removesuffix(_SUFFIX)):
        try:
            latest = max(latest, os.stat(one).st_mtime)
        except OSError:
            continue
    return latest or time()
