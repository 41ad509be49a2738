"""The only room that writes in the spool, and what it takes to make a write last.

Two ways of use:

* `write_file` and `make_dir` are durable when they return: for the rare write (a config, a pid).
* `Sync` is group commit: its methods do the work at once, visible to every process, and remember
  what has to reach the disk; `Sync.commit` brings all of it there in one go.  Only after `commit`
  may anyone be told "ok".  If it raises, nothing that was done since the last commit is promised.

A directory entry lasts when its directory is synced, a file's bytes when the file is.  `commit` has
two ways to the same end and takes the one that lately cost less: an ``fsync`` for each thing, or
one ``syncfs`` for the file system.  The latter wins for many messages at once; the former when
a stranger has gigabytes of unwritten data on the same file system, which ``syncfs`` would wait for.

Failures are the operating system's own `OSError`, with the path in it.  A write that fails leaves
no half-written file under a final name: bytes go to a temporary name (a dot, the name, ``.tmp``)
in the same directory, and are renamed.

A script works in the midst of these files and may put anything in their place.  What is no directory
is replaced, a directory is kept under another name (``status.1``), and both stop nobody.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rqcore import unix

_log = logging.getLogger(__name__)
#: Bytes of a file from which on its removal is worth a thread.
_HEAVY = 64 << 20
PathLike = str | os.PathLike[str]
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_CHUNK = 1 << 20
#: A long copy is pushed to the disk every so many bytes, so that no neighbour's commit waits for it.
_FLUSH_EVERY = 32 << 20
_MAX_OPEN = 96
_MAX_SURE = 5000


def write_file(path: PathLike, data: bytes, *, mode: int = 0o644) -> None:
    """Put ``data`` at ``path``, durably, in one step for every reader."""
    fd = _write_temporary(path, data, mode)
    try:
        unix.fsync(fd)
    finally:
        os.close(fd)
    os.rename(_temporary(path), path)
    _fsync_directory(os.path.dirname(path) or ".")


def make_dir(path: PathLike, mode: int = 0o755) -> None:
    """Make a directory, durably."""
    os.mkdir(path, mode)
    _fsync_directory(os.path.dirname(path) or ".")


def remove_file(path: PathLike) -> None:
    """Remove a file, durably; it is no error when there is none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        _fsync_directory(os.path.dirname(path) or ".")


def move_dir(old: PathLike, new: PathLike) -> None:
    """Rename a directory, durably."""
    os.rename(old, new)
    _fsync_directory(os.path.dirname(new))
    _fsync_directory(os.path.dirname(old))


def touch_file(path: PathLike) -> None:
    """Make an empty file, durably, unless there is one."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.close(fd)
    _fsync_directory(os.path.dirname(path) or ".")


def symlink(target: PathLike, path: PathLike) -> None:
    """Make a symbolic link, durably."""
    os.symlink(target, path)
    _fsync_directory(os.path.dirname(path) or ".")


def append_log(path: PathLike, mode: int = 0o644) -> int:
    """An open descriptor that appends to a log, of a script for instance; the caller closes it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(path, flags | os.O_NONBLOCK, mode)  # a pipe in its place keeps nobody waiting
    os.set_blocking(fd, True)
    return fd


def lock_file(path: PathLike, content: bytes) -> int | None:
    """Take the lock that this file stands for and write ``content`` into it.

    Returns the descriptor that holds the lock until it is closed or the process ends, or None when
    another process holds it.  The file stays behind; only the lock counts, never its content.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if not unix.try_lock(fd):
        os.close(fd)
        return None
    # Written over what is there, so that a full disk, which has no new block, stops nobody's start.
    with contextlib.suppress(OSError):
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
    return fd


@contextlib.contextmanager
def alone(path: PathLike) -> Iterator[None]:
    """Wait for the lock that this file stands for, and hold it: for a moment, beside a state file.

    The file is made where it is missing, and stays behind.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        unix.wait_for_lock(fd)
        yield
    finally:
        os.close(fd)


def read_file(path: PathLike, most: int) -> bytes:
    """The bytes of a file, ``most`` at most: a pipe or a huge file in its place does no harm."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not unix.is_regular(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        if info.st_size > most:
            raise OSError(errno.EFBIG, f"longer than {most} bytes", os.fspath(path))
        data = os.read(fd, info.st_size + 1)
        # Until its end, for a read may give less than was asked for, and the file may have grown.
        while len(data) <= most and (more := os.read(fd, _CHUNK)):
            data += more
        return data
    finally:
        os.close(fd)


def read_object(path: PathLike, most: int) -> dict[str, Any]:
    """The JSON object that a file holds, of ``most`` bytes at most.

    Raises `OSError` when it cannot be read, `ValueError` when it holds anything else.
    """
    try:
        found = json.loads(read_file(path, most))
    except RecursionError as error:
        raise ValueError(f"{os.fspath(path)} nests too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"{os.fspath(path)} holds no object")  # noqa: TRY004 - bad content
    return found


def remove_tree(path: PathLike) -> None:
    """Remove a file or a directory with all that is in it; it is no error when there is none."""
    try:
        os.rmdir(path)  # an empty one, also when there is no descriptor left to look into it
    except OSError:
        pass
    else:
        return
    try:
        shutil.rmtree(path)
    except NotADirectoryError:
        os.unlink(path)
    except FileNotFoundError:
        pass


def clear_away(path: PathLike) -> None:
    """Like `remove_tree`, for what concerns nobody any more: what cannot be removed is logged.

    It may be called in a thread.

    A script, or the container that it ran, may leave files of another user in its directory.
    """
    try:
        remove_tree(path)
    except OSError as error:
        _log.warning("%s stays behind, remove it by hand: %s", path, error)


def is_heavy(folder: PathLike) -> bool:
    """Does a file in this directory take long to be removed?  Some disks need a second for a few GB.

    One that has another name elsewhere does not: its bytes stay.  False where there is no directory.
    """
    try:
        with os.scandir(folder) as entries:
            return any(_is_heavy(entry) for entry in entries)
    except OSError:
        return False


def _is_heavy(entry: os.DirEntry[str]) -> bool:
    found = entry.stat(follow_symlinks=False)
    return found.st_nlink == 1 and found.st_size >= _HEAVY


def replace_unsynced(path: PathLike, data: bytes) -> None:
    """Put a file in the place of another, in one step for every reader; need not last."""
    os.close(_write_temporary(path, data, 0o644))
    _rename_over(_temporary(path), path)


def rename_unsynced(old: PathLike, new: PathLike) -> None:
    """Rename; need not last."""
    os.rename(old, new)


def make_private_dir(path: PathLike) -> None:
    """Make a directory that need not last, such as a script's working directory."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)


def set_mode_unsynced(path: str, mode: int) -> None:
    """Who may do what with it, from now on; after the end of the machine perhaps not."""
    os.chmod(path, mode)


def remove_quietly(path: PathLike) -> None:
    """Remove a file that need not be gone after a crash; it is no error when there is none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        if not os.path.isdir(path) or os.path.islink(path):
            raise
        _put_aside(path)


@dataclass(frozen=True, slots=True)
class Digest:
    """What an attachment holds: its size in bytes and its digests in hex."""

    size: int
    md5: str
    sha256: str


class ChangedError(OSError):
    """The file was written to while it was read."""


class Incoming:
    """A file that comes in pieces, such as an upload: written and hashed at once, block by block.

    ``path`` must be a new name.  `finish` makes it durable and gives its digest; without it, or
    after an error, `discard` leaves nothing.  May be called from a thread, one call at a time.
    Raises `OSError`.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = path
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._pending = 0
        self._fd = os.open(path, _NEW, 0o600)

    def write(self, block: bytes | memoryview) -> None:
        """The next piece."""
        _write_all(self._fd, block)
        self._md5.update(block)
        self._sha256.update(block)
        self.size += len(block)
        self._pending += len(block)
        if self._pending >= _FLUSH_EVERY:
            unix.fsync(self._fd)
            self._pending = 0

    def finish(self) -> Digest:
        """That was all: make it durable."""
        unix.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        _fsync_directory(os.path.dirname(self.path) or ".")
        return Digest(self.size, self._md5.hexdigest(), self._sha256.hexdigest())

    def discard(self) -> None:
        """Remove what has come, finished or not; it is no error when somebody has taken it away."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        remove_quietly(self.path)


def take_file(source: PathLike, target: PathLike, known: Digest | None = None) -> Digest:
    """Bring ``source`` to ``target``: a hard link where possible, else a copy; hashed in one read.

    A file whose digest is ``known``, because who wrote it hashed it on the way and made it durable,
    is linked without being read.  Durable when it returns.  May take long: it is safe to call from a
    thread, touches nothing but ``target``, and leaves nothing there when it fails.  Raises `OSError`;
    `ChangedError` when the source changed meanwhile, or has another size than is ``known``.
    """
    fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before = os.fstat(fd)
        if not unix.is_regular(before.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(source))
        try:
            linked = _try_link(os.path.realpath(source), target, before)
            if linked and known is not None:
                digest = known
                _fsync_directory(os.path.dirname(target))
            else:
                digest = _hash_linked(fd, target) if linked else _copy(fd, target)
            after = os.fstat(fd)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or (
                digest.size != before.st_size
            ):
                raise ChangedError(errno.EBUSY, "changed while it was read", os.fspath(source))
        except BaseException:
            remove_quietly(target)
            raise
        return digest
    finally:
        os.close(fd)


def hash_file(path: PathLike) -> Digest:
    """Read a file once for its digests."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _digest(fd, lambda _: None)
    finally:
        os.close(fd)


def _try_link(source: str, target: PathLike, expected: os.stat_result) -> bool:
    try:
        os.link(source, target)
    except OSError as error:
        # Another file system, a file of somebody else (protected_hardlinks), a file system without
        # links, or a file with too many of them: all of these can still be copied.
        if error.errno in {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP}:
            return False
        raise
    made = os.stat(target, follow_symlinks=False)
    if (made.st_dev, made.st_ino) == (expected.st_dev, expected.st_ino):
        return True
    os.unlink(target)  # the name was given to another file since it was opened: read that one not
    return False


def _hash_linked(fd: int, target: PathLike) -> Digest:
    digest = _digest(fd, lambda _: None)
    unix.fsync(fd)
    _fsync_directory(os.path.dirname(target))
    return digest


def _copy(fd: int, target: PathLike) -> Digest:
    out = os.open(target, _NEW, 0o644)
    try:
        pending = 0

        def write(block: memoryview) -> None:
            nonlocal pending
            _write_all(out, block)
            pending += len(block)
            if pending >= _FLUSH_EVERY:
                unix.fsync(out)
                pending = 0

        digest = _digest(fd, write)
        unix.fsync(out)
    finally:
        os.close(out)
    _fsync_directory(os.path.dirname(target))
    return digest


def _digest(fd: int, each: Callable[[memoryview], None]) -> Digest:
    md5 = hashlib.md5(usedforsecurity=False)
    sha256 = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    size = 0
    while count := os.readv(fd, [buffer]):
        block = view[:count]
        md5.update(block)
        sha256.update(block)
        each(block)
        size += count
    return Digest(size, md5.hexdigest(), sha256.hexdigest())


class Sync:
    """Group commit for one file system; see the head of this module.

    ``enabled`` False (a queue with ``no-fsync``) does the same work and syncs nothing.
    """

    def __init__(self, root: PathLike, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._files: list[int] = []
        self._dirs: dict[str, None] = {}
        self._whole = False
        #: Directories that are known to last, and so do those above them.
        self._sure: set[str] = set()
        # What one fsync and one syncfs lately cost, in seconds: a first guess, then an average.
        self._fsync_cost = 0.0003
        self._syncfs_cost = 0.0005

    def close(self) -> None:
        """Let go of all descriptors, without a commit."""
        self._forget()
        os.close(self._root)

    @property
    def pending(self) -> bool:
        """Is there anything that `commit` would bring to the disk?"""
        return bool(self._whole or self._files or self._dirs)

    def new_dir(self, path: str) -> None:
        """Make a directory that others may not look into yet."""
        os.mkdir(path)
        self._entry(path)

    def ensure_dir(self, path: str, root: str) -> None:
        """Make a directory below ``root``, and those in between, as far as they are missing.

        ``root`` itself is never made: without it, this raises `FileNotFoundError`.
        One that is there may have been made by a process that was killed before it could sync, so
        it is synced once by this one.
        """
        try:
            os.mkdir(path)
            self._sure.discard(path)
        except FileExistsError:
            if path in self._sure:
                return
        except FileNotFoundError:
            if os.path.dirname(path) == root:
                raise
            self.ensure_dir(os.path.dirname(path), root)
            os.mkdir(path)
            self._sure.discard(path)
        if len(self._sure) > _MAX_SURE:
            self._sure.clear()
        while path != root and path not in self._sure:
            self._entry(path)
            self._sure.add(path)
            path = os.path.dirname(path)

    def new_file(self, path: str, data: bytes) -> None:
        """Write a file into a directory that others do not look into yet."""
        fd = os.open(path, _NEW, 0o644)
        try:
            _write_all(fd, data)
        except BaseException:
            os.close(fd)
            raise
        self._entry(path)
        self._file(fd)

    def replace(self, path: str, data: bytes, *, promised: bool = False) -> None:
        """Put a file in the place of another, in one step for every reader.

        ``promised``: what it replaces must not be lost.  Some file systems bring the new name to
        the disk before the bytes, and a power cut in between would leave an empty file, so the bytes
        are synced at once.
        """
        fd = _write_temporary(path, data, 0o644)
        try:
            if promised and self.enabled:
                unix.fsync(fd)
            _rename_over(_temporary(path), path)
        except BaseException:
            os.close(fd)
            remove_quietly(_temporary(path))
            raise
        self._entry(path)
        if promised:
            os.close(fd)
        else:
            self._file(fd)

    def rename(self, old: str, new: str, *, old_matters: bool = True) -> None:
        """Rename a file or directory; the target must not be there, or be an empty directory.

        ``old_matters`` False: nobody minds if a crash brings the old name back.
        """
        os.rename(old, new)
        inside = [path for path in self._dirs if path == old or path.startswith(f"{old}/")]
        for path in inside:
            del self._dirs[path]
            self._dirs[new + path[len(old) :]] = None
        self._entry(new)
        if old_matters:
            self._entry(old)

    def link(self, source: str, target: str) -> None:
        """A second name for a file whose bytes are durable already."""
        os.link(source, target)
        self._entry(target)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)
        self._entry(path)

    def commit(self) -> bool:
        """Bring everything done since the last commit to the disk.  Raises `OSError`.

        False when there was nothing to bring.
        """
        failed, needed = True, self.enabled and self.pending
        try:
            if needed:
                self._bring_to_disk()
            failed = False
        finally:
            self._forget()
            if failed:
                # What others build upon must not be missing later: the next time, everything.
                self._sure.clear()
                self._whole = unix.HAVE_SYNCFS
        return needed

    def _bring_to_disk(self) -> None:
        if self._whole or self._syncfs_is_cheaper():
            self._syncfs()
            return
        try:
            self._fsync_each()
        except OSError as error:
            # No descriptor left to open a directory with: syncfs needs none.
            if not unix.HAVE_SYNCFS or error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            self._syncfs()

    def _syncfs_is_cheaper(self) -> bool:
        if not unix.HAVE_SYNCFS:
            return False
        count = len(self._files) + len(self._dirs)
        if count * self._fsync_cost >= self._syncfs_cost:
            return True
        # Forget a bad time slowly, so that the faster way gets another chance.
        self._syncfs_cost *= 0.99
        return False

    def _syncfs(self) -> None:
        began = perf_counter()
        unix.syncfs(self._root)
        self._syncfs_cost += 0.25 * (perf_counter() - began - self._syncfs_cost)

    def _fsync_each(self) -> None:
        began = perf_counter()
        count = len(self._files) + len(self._dirs)
        for fd in self._files:
            unix.fsync(fd)
        # Closed first: there may be no descriptor left for the directories.
        self._close_files()
        for path in self._dirs:
            # A directory that is gone again has no entry to lose.
            with contextlib.suppress(FileNotFoundError):
                _fsync_directory(path)
        self._fsync_cost += 0.25 * ((perf_counter() - began) / count - self._fsync_cost)

    def _file(self, fd: int) -> None:
        if not self.enabled or self._whole:
            os.close(fd)
        elif len(self._files) < _MAX_OPEN:
            self._files.append(fd)
        elif unix.HAVE_SYNCFS:
            os.close(fd)
            self._whole = True
        else:
            unix.fsync(fd)
            os.close(fd)

    def _entry(self, path: str) -> None:
        if not self.enabled or self._whole:
            return
        self._dirs[os.path.dirname(path)] = None
        if len(self._dirs) > _MAX_OPEN:
            if unix.HAVE_SYNCFS:
                self._whole = True
                self._dirs.clear()
            else:
                self._fsync_each()
                self._forget()

    def _close_files(self) -> None:
        for fd in self._files:
            os.close(fd)
        self._files.clear()

    def _forget(self) -> None:
        self._close_files()
        self._dirs.clear()
        self._whole = False


def _temporary(path: PathLike) -> str:
    head, tail = os.path.split(path)
    return os.path.join(head, f".{tail}.tmp")


def _write_temporary(path: PathLike, data: bytes, mode: int) -> int:
    """The temporary file's open descriptor; nothing is left behind on failure."""
    temporary = _temporary(path)
    try:
        fd = os.open(temporary, _NEW, mode)
    except FileExistsError:  # a crash left it there, or a script put it there
        remove_quietly(temporary)
        fd = os.open(temporary, _NEW, mode)
    try:
        _write_all(fd, data)
    except BaseException:
        os.close(fd)
        remove_quietly(temporary)
        raise
    return fd


def _rename_over(temporary: str, path: PathLike) -> None:
    try:
        os.rename(temporary, path)
    except IsADirectoryError:
        _put_aside(path)
        os.rename(temporary, path)


def _put_aside(path: PathLike) -> None:
    number = 1
    while exists(f"{os.fspath(path)}.{number}"):
        number += 1
    _log.warning("%s is a directory, where a file should be; it is kept as .%d", path, number)
    os.rename(path, f"{os.fspath(path)}.{number}")


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _fsync_directory(path: PathLike) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        unix.fsync(fd)
    finally:
        os.close(fd)


def children(path: PathLike) -> Iterator[str]:
    """The names in a directory; empty when there is no such directory."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from os.listdir(path)


def exists(path: PathLike) -> bool:
    """Is there anything at this path?"""
    return os.path.lexists(path)


def absolute(path: PathLike) -> str:
    """The path from the root, links not resolved."""
    return str(Path(path).absolute())
