"""Room on the disk for a file that a library writes, and what to do when there is none."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def require_space(folder: Path, count: int) -> None:
    """Raise OSError (no space left) unless the file system of ``folder`` has ``count`` bytes free."""
    if shutil.disk_usage(folder).free < count:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def reserve(descriptor: int, offset: int, count: int, folder: Path) -> None:
    """Make the file system set ``count`` bytes aside from ``offset`` on for an open file in ``folder``.

    Raises OSError when it cannot: disk full, quota, file size limit. Where the file system has no such call,
    the free space is looked at instead.
    """
    try:
        os.posix_fallocate(descriptor, offset, count)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        require_space(folder, count)


@contextmanager
def as_a_whole(path: Path) -> Iterator[Path]:
    """Gives a name beside ``path`` to write to. What is there in the end takes the place of ``path``; if something goes
    wrong it is removed, and what was at ``path`` stays."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def detach(descriptor: int, size: int) -> None:
    """Let all further writes to ``descriptor`` go nowhere; the file itself stays, at least ``size`` bytes long."""
    with suppress(OSError):
        os.ftruncate(descriptor, max(os.fstat(descriptor).st_size, size))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def reason(error: Exception) -> str:
    """The cause in one line, without what a library wrapped around it."""
    if not isinstance(error, OSError) or not error.errno:
        return str(error).splitlines()[0]
    return os.strerror(error.errno) + (f": {error.filename}" if error.filename else "")
