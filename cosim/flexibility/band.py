"""The flexibility band of a device: how far it can go UP and DOWN from its baseline, for one MTU and for several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.domain.market import Direction, EnergyBand
from cosim.flexibility.resources import Conditions, Device, State, Store, free_mtu
from cosim.units import energy_kwh


@dataclass(frozen=True)
class FlexibilityBand:
    """Around ``baseline_kw`` (n_mtu,), the power without activation: ``up_kw``, ``down_kw`` (n_mtu,), the most that
    one of the MTUs can be activated, alone. ``store`` couples MTUs; None if nothing does, as in a single one. All
    powers [kW]."""

    mtu_s: int
    baseline_kw: Floats
    up_kw: Floats
    down_kw: Floats
    store: Store | None

    def alone_kw(self, direction: Direction) -> Floats:
        """The most in each MTU if no other MTU is activated (n_mtu,) [kW]."""
        return self.up_kw if direction is Direction.UP else self.down_kw

    def rated_kw(self, direction: Direction) -> Floats:
        """The most in each MTU by power alone, whatever energy that takes (n_mtu,) [kW]."""
        if self.store is None:
            return self.alone_kw(direction)
        return self.store.up_max_kw if direction is Direction.UP else self.store.down_max_kw

    def sustained_kw(self, direction: Direction) -> Floats:
        """What it holds in all MTUs together (n_mtu,) [kW]: any course up to it can be delivered.

        The same share of the rated power in all MTUs, the largest that its energy allows.
        """
        alone_kw = self.alone_kw(direction)
        if self.store is None:
            return alone_kw
        rated_kw = self.rated_kw(direction)
        used_kwh, room = departure_kwh(self.store, direction, rated_kw), room_kwh(self.store, direction)
        short = used_kwh > room
        share = np.min(room[short] / used_kwh[short], initial=1.0)
        return frozen(share * rated_kw)


@dataclass(frozen=True)
class Bands:
    """Bands of ``n`` devices over the same MTUs, arrays (n_mtu, n) [kW]; ``stores`` by position of the device."""

    mtu_s: int
    baseline_kw: Floats
    up_kw: Floats
    down_kw: Floats
    stores: Mapping[int, Store]

    @property
    def n_mtu(self) -> int:
        return len(self.baseline_kw)

    def of(self, k: int) -> FlexibilityBand:
        """The band of one device."""
        return FlexibilityBand(
            self.mtu_s, self.baseline_kw[:, k], self.up_kw[:, k], self.down_kw[:, k], self.stores.get(k)
        )

    def rated_kw(self, direction: Direction) -> Floats:
        """The most in each MTU by power alone (n_mtu, n) [kW], as `FlexibilityBand.rated_kw`."""
        return self._with_stores(direction, {k: self.of(k).rated_kw(direction) for k in self.stores})

    def sustained_kw(self, direction: Direction) -> Floats:
        """What devices hold in all MTUs together (n_mtu, n) [kW], as `FlexibilityBand.sustained_kw`."""
        return self._with_stores(direction, {k: self.of(k).sustained_kw(direction) for k in self.stores})

    def _with_stores(self, direction: Direction, of_stores: Mapping[int, Floats]) -> Floats:
        alone_kw = self.up_kw if direction is Direction.UP else self.down_kw
        if not of_stores:
            return alone_kw
        found_kw = alone_kw.copy()
        for k, kw in of_stores.items():
            found_kw[:, k] = kw
        return found_kw

    def changed(self, bands: Mapping[int, FlexibilityBand]) -> Bands:
        """With other bands of some devices."""
        if not bands:
            return self
        baseline_kw, up_kw, down_kw, stores = (
            self.baseline_kw,
            self.up_kw.copy(),
            self.down_kw.copy(),
            dict(self.stores),
        )
        for k, band in bands.items():
            up_kw[:, k], down_kw[:, k] = band.up_kw, band.down_kw
            stores.pop(k, None)
            if band.store is not None:
                stores[k] = band.store
        return Bands(self.mtu_s, baseline_kw, up_kw, down_kw, stores)


def flexibility_band(
    device: Device[State], state: State, forecast: Sequence[Conditions], mtu_s: int, step_s: int
) -> FlexibilityBand:
    """The band over the MTUs of ``forecast``, one for each, from ``state`` at the beginning of the first; of ``n``
    devices of a profile at once with arrays (n_mtu, n).

    The baseline is the mean power in an MTU without activation in steps of ``step_s`` [s], as far as it can be held
    constant. Any constant change within the band is delivered for the MTU, whatever the steps, if conditions are as
    forecast.
    """
    states, baseline, up, down = [state], [], [], []
    for now in forecast:
        after_free, free_kw = free_mtu(device, states[-1], now, mtu_s, step_s)
        limits = device.limits_kw(states[-1], now, mtu_s)
        low_kw, high_kw = (free_kw, free_kw) if limits is None else limits
        baseline.append(np.minimum(np.maximum(free_kw, low_kw), high_kw))
        states.append(after_free if limits is None else device.after(states[-1], baseline[-1], now, mtu_s))
        up.append(baseline[-1] - low_kw)
        down.append(high_kw - baseline[-1])
    store = device.store(states, forecast, np.array(baseline), mtu_s) if len(forecast) > 1 else None
    return FlexibilityBand(mtu_s, frozen(baseline), frozen(up), frozen(down), store)


def departure_kwh(store: Store, direction: Direction, change_kw: Floats) -> Floats:
    """By how much the stored energy has departed from its baseline at the end of each MTU (n_mtu,) [kWh], for a
    quantity ``change_kw`` (n_mtu,) [kW] activated in one direction."""
    departed_kwh = rates_kwh(store, direction) * change_kw
    for earlier, later in pairwise(range(len(change_kw))):
        departed_kwh[later] += store.retention * departed_kwh[earlier]
    return departed_kwh


def rates_kwh(store: Store, direction: Direction) -> Floats:
    """Stored energy that a kW moves in each MTU (n_mtu,) [kWh/kW]."""
    return store.up_kwh_per_kw if direction is Direction.UP else store.down_kwh_per_kw


def room_kwh(store: Store, direction: Direction) -> Floats:
    """How far the stored energy may depart at the end of each MTU (n_mtu,) [kWh]."""
    return store.up_room_kwh if direction is Direction.UP else store.down_room_kwh


def energy_band(resource: str, band: FlexibilityBand) -> EnergyBand:
    """What a device that never injects may draw, as the clearing sees it: bounds on the cumulative energy.

    Exact without losses. A store that leaks forgets: energy drawn early counts less than energy drawn late. With bounds
    ``-l`` and ``u`` on the cumulative departure the stored one stays between ``-l - f u`` and ``u + f l``, where ``f``
    is the share forgotten over the horizon, so these bounds are taken in until that is inside the room.

    Raises ValueError for a device without a store.
    """
    store = band.store
    if store is None:
        raise ValueError(f"resource {resource} stores no energy, so that nothing couples its market time units")
    hours = energy_kwh(1.0, band.mtu_s)
    up = store.up_room_kwh / store.up_kwh_per_kw * hours
    down = store.down_room_kwh / store.down_kwh_per_kw * hours
    forgotten = 1.0 - store.retention ** (len(up) - 1)
    if forgotten > 0.0:
        up, down = _taken_in(float(up.min()), float(down.min()), forgotten, len(up))
    drawn = np.cumsum(band.baseline_kw) * hours
    return EnergyBand(
        resource=resource,
        baseline_p_kw=tuple(band.baseline_kw.tolist()),
        low_kwh=tuple(np.maximum(drawn - up, 0.0).tolist()),
        high_kwh=tuple((drawn + down).tolist()),
    )


def _taken_in(up: float, down: float, forgotten: float, n: int) -> tuple[Floats, Floats]:
    """The largest ``l``, ``u`` with ``l + forgotten * u <= up`` and ``u + forgotten * l <= down``."""
    lower = (up - forgotten * down) / (1.0 - forgotten**2)
    upper = (down - forgotten * up) / (1.0 - forgotten**2)
    if lower < 0.0:
        lower, upper = 0.0, min(down, up / forgotten)
    elif upper < 0.0:
        lower, upper = min(up, down / forgotten), 0.0
    return np.full(n, lower), np.full(n, upper)
