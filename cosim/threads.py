"""Linear algebra in one thread: several add sums up in an order that depends on their number, so that results would
depend on the machine and its settings; and matrices of a few hundred rows are slower with more than one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import scipy.linalg  # noqa: F401  (brings a library besides NumPy's: only those that are there can be limited)
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra in one thread while it lasts, whatever the environment and earlier imports made of it."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
