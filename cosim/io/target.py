"""Where a result file may be written, and who may: one run at a time."""

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import h5py

from cosim.errors import ResultError
from cosim.io.disk import reason
from cosim.io.layout import FORMAT


def refuse_target(path: Path) -> None:
    """Raise ResultError unless nothing is at ``path``, or an earlier result that nobody is writing."""
    try:
        if not path.exists():
            return
        if not path.is_file():
            raise ResultError(f"{path}: not a file; give the name of a result file, for example {path / 'result.h5'}")
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # HDF5 holds this lock exclusively while it writes
    except BlockingIOError as error:
        raise ResultError(f"{path}: another run is writing this result file") from error
    except OSError as error:
        raise ResultError(f"{path}: cannot be replaced: {reason(error)}") from error
    try:
        with h5py.File(path, "r", locking=False) as file:
            ours = file.attrs.get("format") == FORMAT
    except (OSError, RuntimeError):
        ours = False
    if not ours:
        raise ResultError(f"{path}: exists and is not a result file of cosim; it is left as it is, give another name")


def remove_left_over(path: Path) -> None:
    """Removes what runs that were killed before they began left beside ``path``."""
    for part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        with suppress(OSError), part.open("r+b") as file:  # NFS locks exclusively what is open for writing only
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While it lasts, no other run takes its place in a folder: of two that found the name of their file free one would
    lose its results. File systems that cannot lock folders (NFS) leave that to chance."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


@contextmanager
def held(path: Path) -> Iterator[None]:
    """While it lasts, no other process writes the file at ``path``. Raises ResultError if one does, or if it
    cannot be locked."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("r+b"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResultError(f"{path}: another run is writing this result file") from error
        except OSError as error:
            raise ResultError(f"{path}: cannot be locked: {reason(error)}") from error
        if not is_at(file.fileno(), path):
            raise ResultError(f"{path}: another run has just replaced this result file")
        yield
