"""A battery as a flexible device: the storage model behind set-points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import Floats, frozen
from cosim.domain.market import StorageLimit
from cosim.flexibility.resources import Conditions, Store
from cosim.flexibility.storage import limits_kw, stored_kwh
from cosim.units import energy_kwh, power_kw


@dataclass(frozen=True)
class BatteryState:
    """Energy stored [kWh]."""

    e_kwh: float


@dataclass(frozen=True)
class Battery:
    """A storage unit with ``initial_kwh`` stored at the start of the run.

    Free, it follows its schedule and returns to ``rest_kwh`` at no more than ``rest_kw``; without a ``rest_kwh`` it
    stays at whatever is stored.
    """

    unit: StorageUnit
    initial_kwh: float
    rest_kwh: float | None = None
    rest_kw: float = 0.0
    kvar_per_kw: float = 0.0
    of_profile: bool = False

    def start(self) -> BatteryState:
        return BatteryState(self.initial_kwh)

    def free_kw(self, state: BatteryState, now: Conditions, duration_s: float) -> float:
        wanted_kw: float = now.p_kw + self._to_rest_kw(state.e_kwh, duration_s)
        low_kw, high_kw = self.limits_kw(state, now, duration_s)
        return min(max(wanted_kw, low_kw), high_kw)

    def limits_kw(self, state: BatteryState, now: Conditions, duration_s: float) -> tuple[float, float]:
        """What idling takes meanwhile cannot be discharged, and makes room to charge."""
        unit = self.unit
        e_kwh = state.e_kwh - energy_kwh(unit.idling_kw, duration_s)
        low_kw, high_kw = limits_kw(unit, e_kwh, duration_s)
        return float(low_kw), float(high_kw)

    def after(self, state: BatteryState, p_kw: float, now: Conditions, duration_s: float) -> BatteryState:
        return BatteryState(float(stored_kwh(self.unit, p_kw, state.e_kwh, duration_s)))

    def store(
        self, states: Sequence[BatteryState], forecast: Sequence[Conditions], baseline_kw: Floats, mtu_s: int
    ) -> Store:
        unit, hours = self.unit, energy_kwh(1.0, mtu_s)
        ends_kwh = np.array([state.e_kwh for state in states[1:]])
        rate_down = np.where(baseline_kw < 0.0, hours / unit.discharge_efficiency, hours * unit.charge_efficiency)
        return Store(
            retention=1.0,
            up_max_kw=frozen(np.maximum(baseline_kw + unit.p_max_kw, 0.0)),
            down_max_kw=frozen(np.maximum(unit.p_max_kw - baseline_kw, 0.0)),
            up_kwh_per_kw=frozen(np.full(len(baseline_kw), hours / unit.discharge_efficiency)),
            down_kwh_per_kw=frozen(rate_down),
            up_room_kwh=frozen(np.maximum(ends_kwh - unit.reserve_kwh, 0.0)),
            down_room_kwh=frozen(np.maximum(unit.e_max_kwh - ends_kwh, 0.0)),
        )

    def storage_limit(self, resource: str, state: BatteryState, baseline_kw: Floats, mtu_s: int) -> StorageLimit:
        """The unit as the clearing of the MTUs of ``baseline_kw`` (n_mtu,) sees it.

        It knows no idling: what that takes is kept back from the stored energy. The baseline itself always fits.
        """
        unit, hours = self.unit, energy_kwh(1.0, mtu_s)
        into_store = np.where(
            baseline_kw > 0.0, baseline_kw * unit.charge_efficiency, baseline_kw / unit.discharge_efficiency
        )
        without_idling_kwh = state.e_kwh + hours * np.cumsum(into_store)
        lowest_kwh = unit.reserve_kwh + hours * unit.idling_kw * len(baseline_kw)
        lowest_kwh = min(lowest_kwh, state.e_kwh, float(without_idling_kwh.min()))
        return StorageLimit(
            resource=resource,
            baseline_p_kw=tuple(baseline_kw.tolist()),
            energy_kwh=state.e_kwh,
            energy_min_kwh=lowest_kwh,
            energy_max_kwh=max(unit.e_max_kwh, float(without_idling_kwh.max())),
            end_min_kwh=lowest_kwh,
            charge_efficiency=unit.charge_efficiency,
            discharge_efficiency=unit.discharge_efficiency,
        )

    def _to_rest_kw(self, e_kwh: float, duration_s: float) -> float:
        if self.rest_kwh is None:
            return 0.0
        lacking_kwh, unit = self.rest_kwh - e_kwh, self.unit
        rate = 1.0 / unit.charge_efficiency if lacking_kwh > 0.0 else unit.discharge_efficiency
        return min(max(power_kw(lacking_kwh * rate, duration_s), -self.rest_kw), self.rest_kw)
