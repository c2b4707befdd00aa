"""The only place for conversions between units."""

from __future__ import annotations

import math

SECONDS_PER_HOUR = 3600.0
SECONDS_PER_DAY = 86_400
KW_PER_MW = 1000.0


def energy_kwh(p_kw: float, duration_s: float) -> float:
    """Energy [kWh] of a constant power [kW] over a duration [s]."""
    return p_kw * duration_s / SECONDS_PER_HOUR


def power_kw(e_kwh: float, duration_s: float) -> float:
    """Constant power [kW] that moves an energy [kWh] in a duration [s]."""
    return e_kwh * SECONDS_PER_HOUR / duration_s


def kvar_per_kw(power_factor: float) -> float:
    """Reactive power [kvar] of a lagging load per kW of active power; ``tan(acos(pf))``.

    Raises ValueError unless ``0 < power_factor <= 1``.
    """
    if not 0.0 < power_factor <= 1.0:
        raise ValueError(f"power factor must be in (0, 1], got {power_factor}")
    return math.tan(math.acos(power_factor))


def rated_current_a(s_kva: float, v_kv: float) -> float:
    """Rated line current [A] of a three-phase element of rating [kVA] at line voltage [kV]."""
    return s_kva / (math.sqrt(3.0) * v_kv)
