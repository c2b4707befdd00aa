"""Storage units."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StorageUnit:
    """A battery at a POD. Powers at the terminals, charging positive (passive sign).

    ``reserve_kwh`` is the stored energy below which it does not discharge.
    """

    pod: str
    p_max_kw: float
    e_max_kwh: float
    reserve_kwh: float
    charge_efficiency: float
    discharge_efficiency: float
    idling_kw: float = 0.0
