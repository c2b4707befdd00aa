"""One figure of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Indicator:
    """One figure of a run: ``value`` in ``unit``, and the same ``without_orders`` (and without activation of resources)
    where that can differ.

    NaN is a value that could not be found. ``group`` is the heading it stands under; ``note`` tells when, where or of
    what.
    """

    group: str
    name: str
    value: float
    unit: str
    without_orders: float | None = None
    note: str = ""
