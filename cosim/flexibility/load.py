"""A load of which a share can be shed, and which may catch up later on what it was denied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats
from cosim.flexibility.resources import Conditions, Number, Store
from cosim.units import energy_kwh, power_kw


@dataclass(frozen=True)
class LoadState:
    """Energy shed [kWh] in the MTU ``mtu`` (counted from the start of the run), the one before it, and so on."""

    mtu: int
    shed_kwh: tuple[Number, ...]


@dataclass(frozen=True)
class Load:
    """A load that follows its profile; ``curtailable`` is the share of it that can be shed.

    ``rebound``: shares of the energy shed that it draws in addition 1, 2, ... MTUs later, evenly over the MTU. Where
    these are arrays (n,), it stands for as many loads.
    """

    curtailable: Number
    mtu_s: int
    rebound: tuple[Number, ...] = ()
    kvar_per_kw: float = 0.0
    of_profile: bool = True

    def start(self) -> LoadState:
        return LoadState(0, (0.0,) * (len(self.rebound) + 1))

    def free_kw(self, state: LoadState, now: Conditions, duration_s: float) -> Number:
        earlier_kwh = self._at(state, now.t_s).shed_kwh[1:]
        owed_kwh = sum(share * shed for share, shed in zip(self.rebound, earlier_kwh, strict=True))
        return now.p_kw + power_kw(owed_kwh, self.mtu_s)

    def limits_kw(self, state: LoadState, now: Conditions, duration_s: float) -> tuple[Number, Number]:
        free_kw = self.free_kw(state, now, duration_s)
        return free_kw - self.curtailable * np.maximum(now.p_kw, 0.0), free_kw

    def after(self, state: LoadState, p_kw: Number, now: Conditions, duration_s: float) -> LoadState:
        if not self.rebound:
            return state
        held = self._at(state, now.t_s)
        shed_kwh = energy_kwh(self.free_kw(held, now, duration_s) - p_kw, duration_s)
        return LoadState(held.mtu, (held.shed_kwh[0] + shed_kwh, *held.shed_kwh[1:]))

    def store(
        self, states: Sequence[LoadState], forecast: Sequence[Conditions], baseline_kw: Floats, mtu_s: int
    ) -> Store | None:
        return None

    def _at(self, state: LoadState, t_s: int) -> LoadState:
        """The memory as it is in the MTU of ``t_s``: what was shed in the MTUs before moves back."""
        mtu = t_s // self.mtu_s
        passed = min(mtu - state.mtu, len(state.shed_kwh))
        return LoadState(mtu, ((0.0,) * passed + state.shed_kwh)[: len(state.shed_kwh)])
