"""Room on the disk for uploads: how much one may take, and what others have been promised already.

Each upload has a `Space`.  `Space.promise` is asked with its length before the first byte, if that is
known, and `Space.check` before each block, for others write to the disk too.  Refused with a
`BodyError`: 413 above ``max_upload``; 507 when the upload, and those that are under way beside it, would
not leave ``keep_free`` bytes of the file system.

What was promised and has not come yet is counted for all uploads together (`Space.promised`): of two
that do not both fit, the second is refused at once, not in the middle.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from rqcore_web.formnames import BodyError

if TYPE_CHECKING:
    from rqcore_web.site import Site

_Value = TypeVar("_Value")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Space:
    """See the head of this module."""

    #: What has been promised to all uploads, and has not come yet: bytes.
    promised = 0

    def __init__(self, site: Site) -> None:
        self.folder = os.path.abspath(site.tmp)
        self._most = site.options.max_upload
        self._keep_free = site.options.keep_free
        self._awaited = 0
        #: Its length was never said, so nothing could be promised.
        self._unknown = True

    def promise(self, size: int, already: int = 0) -> None:
        """Promise room for so many bytes, instead of what was promised before.  Raises `BodyError`.

        ``already`` is how many have come before: they count for the largest upload, and no more.
        """
        self.refuse_too_much(already + size)
        self.release()
        self.explaining(self._refuse_unfit, size + Space.promised)
        self._unknown = False
        self._awaited = size
        Space.promised += size

    def came(self, size: int) -> None:
        """So many bytes of it are here."""
        came = min(self._awaited, size)
        self._awaited -= came
        Space.promised -= came

    def release(self) -> None:
        """No more is to come, or nobody waits for it."""
        self.came(self._awaited)

    def check(self, size: int) -> None:
        """Does the disk still have room for a block of this size?  From any thread."""
        # One whose length nobody knew must leave alone what others were promised.
        self.explaining(self._refuse_unfit, size + (Space.promised if self._unknown else 0))

    def missing(self, size: int) -> int:
        """How many bytes too few are free for one more of this size; 0 or less when it fits."""
        try:
            return self._missing(size + Space.promised)
        except OSError:  # it is told to who takes the room
            return 0

    def refuse_too_much(self, size: int) -> None:
        """Raise a `BodyError` when an upload of this size is larger than any may be."""
        if size > self._most:
            raise BodyError(
                f"the upload is too large: at most {self._most} bytes are taken (max_upload)", 413
            )

    def explaining(self, act: Callable[..., _Value], *args: Any) -> _Value:
        """Do it; what the disk says against it is told as a `BodyError`."""
        try:
            return act(*args)
        except OSError as error:
            status = 507 if error.errno in _FULL else 503
            raise BodyError(f"{self.folder} takes no more: {error.strerror}", status) from error

    def _refuse_unfit(self, size: int) -> None:
        missing = self._missing(size)
        if missing > 0:
            room = size + self._keep_free - missing
            raise BodyError(
                f"no room for the upload: {self.folder} has {room} bytes free, of which "
                f"{self._keep_free} are kept (keep_free), and {size} are needed", 507,
            )  # fmt: skip

    def _missing(self, size: int) -> int:
        found = os.statvfs(self.folder)
        return size + self._keep_free - found.f_bavail * found.f_frsize
