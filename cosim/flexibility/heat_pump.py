"""A heat pump and the building it warms, as one thermal mass.

``C dT/dt = (T_out - T) / R + COP p``: the first-order model of thermostatically controlled loads that makes a fleet of
them a leaky battery (H. Hao, B. M. Sanandaji, K. Poolla, T. L. Vincent, "Aggregate flexibility of thermostatically
controlled loads", IEEE Transactions on Power Systems 30(1), 2015). It is linear and solved exactly over a step. A
heat pump modulates, so that power is continuous; its coefficient of performance is constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.flexibility.resources import Conditions, Store
from cosim.units import SECONDS_PER_HOUR

_AT_THE_EDGE_K = 1e-9


@dataclass(frozen=True)
class HeatPumpState:
    """Indoor temperature [degree Celsius]."""

    temperature_c: float


@dataclass(frozen=True)
class HeatPump:
    """``capacity_kwh_per_k`` [kWh/K] and ``resistance_k_per_kw`` [K/kW] of the building, ``p_max_kw`` electrical.

    Free, it brings the temperature back to ``set_c`` with the time constant ``recovery_s`` [s]. Activated, it stays
    within ``comfort_k`` [K] of it; outside, by cold or heat beyond its power, it takes no set-points.
    """

    p_max_kw: float
    cop: float
    capacity_kwh_per_k: float
    resistance_k_per_kw: float
    set_c: float = 20.0
    comfort_k: float = 1.0
    recovery_s: float = 3600.0
    initial_c: float | None = None
    kvar_per_kw: float = 0.0
    of_profile: bool = False

    def start(self) -> HeatPumpState:
        return HeatPumpState(self.set_c if self.initial_c is None else self.initial_c)

    def free_kw(self, state: HeatPumpState, now: Conditions, duration_s: float) -> float:
        off_k = state.temperature_c - self.set_c
        end_c = self.set_c + off_k * math.exp(-duration_s / self.recovery_s)
        return self._possible_kw(self._power_to_kw(end_c, state, now, duration_s))

    def limits_kw(self, state: HeatPumpState, now: Conditions, duration_s: float) -> tuple[float, float] | None:
        if not self._comfortable(state):
            return None
        coldest = self._power_to_kw(self.set_c - self.comfort_k, state, now, duration_s)
        warmest = self._power_to_kw(self.set_c + self.comfort_k, state, now, duration_s)
        return self._possible_kw(coldest), self._possible_kw(warmest)

    def after(self, state: HeatPumpState, p_kw: float, now: Conditions, duration_s: float) -> HeatPumpState:
        final_c = now.temperature_c + self.resistance_k_per_kw * self.cop * p_kw
        return HeatPumpState(final_c + (state.temperature_c - final_c) * self._retention(duration_s))

    def store(
        self, states: Sequence[HeatPumpState], forecast: Sequence[Conditions], baseline_kw: Floats, mtu_s: int
    ) -> Store:
        """Heat in the building, between the edges of comfort."""
        retention = self._retention(mtu_s)
        able = np.array([self._comfortable(state) for state in states[:-1]], dtype=float)
        off_k = np.array([state.temperature_c - self.set_c for state in states[1:]])
        rate = np.full(len(able), self.resistance_k_per_kw * self.capacity_kwh_per_k * self.cop * (1.0 - retention))
        return Store(
            retention=retention,
            up_max_kw=frozen(able * baseline_kw),
            down_max_kw=frozen(able * (self.p_max_kw - baseline_kw)),
            up_kwh_per_kw=frozen(rate),
            down_kwh_per_kw=frozen(rate),
            up_room_kwh=frozen(self.capacity_kwh_per_k * np.maximum(self.comfort_k + off_k, 0.0)),
            down_room_kwh=frozen(self.capacity_kwh_per_k * np.maximum(self.comfort_k - off_k, 0.0)),
        )

    def _comfortable(self, state: HeatPumpState) -> bool:
        return abs(state.temperature_c - self.set_c) <= self.comfort_k + _AT_THE_EDGE_K

    def _retention(self, duration_s: float) -> float:
        """Share of a difference of temperature that is left after ``duration_s`` [s]."""
        constant_h = self.resistance_k_per_kw * self.capacity_kwh_per_k
        return math.exp(-duration_s / SECONDS_PER_HOUR / constant_h)

    def _power_to_kw(self, end_c: float, state: HeatPumpState, now: Conditions, duration_s: float) -> float:
        """Constant power [kW], possible or not, that leads to ``end_c``."""
        retention = self._retention(duration_s)
        final_c = (end_c - state.temperature_c * retention) / (1.0 - retention)
        outdoors_c: float = now.temperature_c
        return (final_c - outdoors_c) / (self.resistance_k_per_kw * self.cop)

    def _possible_kw(self, p_kw: float) -> float:
        return min(max(p_kw, 0.0), self.p_max_kw)
