"""Stored energy of a battery: what power is possible, and what energy follows.

Constant efficiencies, charging and discharging separately; idling loss drains the store. The Storage element of OpenDSS
is not used for this: it runs at full power through a whole step even with room for a part of it.
"""

from __future__ import annotations

import numpy as np

from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import Floats
from cosim.units import energy_kwh, power_kw


def feasible_kw(unit: StorageUnit, p_kw: Floats, e_kwh: Floats, duration_s: float) -> Floats:
    """``p_kw`` [kW] (charging positive) cut to what rating, capacity and reserve allow for ``duration_s`` [s].

    ``e_kwh`` [kWh] is the energy stored at the beginning; arrays of one shape.
    """
    low_kw, high_kw = limits_kw(unit, e_kwh, duration_s)
    return np.clip(p_kw, low_kw, high_kw)


def limits_kw(unit: StorageUnit, e_kwh: Floats | float, duration_s: float) -> tuple[Floats, Floats]:
    """Least and most power [kW] possible for ``duration_s`` [s] from ``e_kwh`` [kWh] stored."""
    room_kw = power_kw(1.0, duration_s) * np.maximum(unit.e_max_kwh - e_kwh, 0.0) / unit.charge_efficiency
    stock_kw = power_kw(1.0, duration_s) * np.maximum(e_kwh - unit.reserve_kwh, 0.0) * unit.discharge_efficiency
    return -np.minimum(unit.p_max_kw, stock_kw), np.minimum(unit.p_max_kw, room_kw)


def stored_kwh(unit: StorageUnit, p_kw: Floats | float, e_kwh: Floats | float, duration_s: float) -> Floats:
    """Energy stored [kWh] after ``duration_s`` [s] at terminal power ``p_kw`` [kW] that is feasible."""
    into_store = np.where(p_kw > 0.0, p_kw * unit.charge_efficiency, p_kw / unit.discharge_efficiency)
    after = e_kwh + energy_kwh(1.0, duration_s) * (into_store - unit.idling_kw)
    return np.minimum(np.maximum(after, 0.0), unit.e_max_kwh)
