"""An electric vehicle: it comes, needs an amount of energy, and goes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.flexibility.resources import Conditions, Store
from cosim.units import energy_kwh, power_kw


@dataclass(frozen=True)
class Session:
    """A stay at the charger from ``arrive_s`` to ``depart_s`` [s since the start of the run], in which ``need_kwh`` go
    into the battery of the vehicle."""

    arrive_s: int
    depart_s: int
    need_kwh: float


@dataclass(frozen=True)
class VehicleState:
    """``charged_kwh`` [kWh] went into the battery in the session ``session``; -1: none yet."""

    session: int
    charged_kwh: float


@dataclass(frozen=True)
class ElectricVehicle:
    """A charger and the ``sessions`` at it, one after the other.

    Free, it charges at once with all it has, or evenly until departure. Activated, it keeps between the latest course
    that still meets the need by departure and the need itself. A time in which the vehicle comes or goes counts as one
    without it: bring sessions to whole steps by `on_steps`.
    """

    p_max_kw: float
    sessions: tuple[Session, ...]
    efficiency: float = 1.0
    charging: Literal["at_once", "evenly"] = "at_once"
    kvar_per_kw: float = 0.0
    of_profile: bool = False

    def start(self) -> VehicleState:
        return VehicleState(-1, 0.0)

    def free_kw(self, state: VehicleState, now: Conditions, duration_s: float) -> float:
        at = self._session(now.t_s, duration_s)
        if at is None:
            return 0.0
        remaining_kwh = self._remaining_kwh(state, at)
        spread_s = duration_s if self.charging == "at_once" else self.sessions[at].depart_s - now.t_s
        return min(self.p_max_kw, power_kw(remaining_kwh, spread_s) / self.efficiency)

    def limits_kw(self, state: VehicleState, now: Conditions, duration_s: float) -> tuple[float, float] | None:
        at = self._session(now.t_s, duration_s)
        if at is None:
            return None
        remaining_kwh = self._remaining_kwh(state, at)
        later_kwh = self._most_kwh(self.sessions[at].depart_s - now.t_s - duration_s)
        high_kw = min(self.p_max_kw, power_kw(remaining_kwh, duration_s) / self.efficiency)
        due_kw = power_kw(remaining_kwh - later_kwh, duration_s) / self.efficiency
        return min(max(due_kw, 0.0), high_kw), high_kw

    def after(self, state: VehicleState, p_kw: float, now: Conditions, duration_s: float) -> VehicleState:
        at = self._session(now.t_s, duration_s)
        if at is None:
            return state
        charged_kwh = self._charged_kwh(state, at) + self.efficiency * energy_kwh(p_kw, duration_s)
        return VehicleState(at, min(charged_kwh, self.sessions[at].need_kwh))

    def store(
        self, states: Sequence[VehicleState], forecast: Sequence[Conditions], baseline_kw: Floats, mtu_s: int
    ) -> Store:
        """In an MTU without the vehicle there is no room: what was put off must have been made up for by departure."""
        n, hours = len(baseline_kw), energy_kwh(1.0, mtu_s)
        up_room, down_room, present = np.zeros(n), np.zeros(n), np.zeros(n)
        for k, now in enumerate(forecast):
            at = self._session(now.t_s, mtu_s)
            if at is None:
                continue
            remaining_kwh = self._remaining_kwh(states[k + 1], at)
            later_kwh = self._most_kwh(self.sessions[at].depart_s - now.t_s - mtu_s)
            present[k], up_room[k], down_room[k] = 1.0, max(later_kwh - remaining_kwh, 0.0), remaining_kwh
        return Store(
            retention=1.0,
            up_max_kw=frozen(present * baseline_kw),
            down_max_kw=frozen(present * np.maximum(self.p_max_kw - baseline_kw, 0.0)),
            up_kwh_per_kw=frozen(np.full(n, hours * self.efficiency)),
            down_kwh_per_kw=frozen(np.full(n, hours * self.efficiency)),
            up_room_kwh=frozen(up_room),
            down_room_kwh=frozen(down_room),
        )

    def _session(self, t_s: int, duration_s: float) -> int | None:
        """The session in which all of this time lies."""
        at = bisect_right(self.sessions, t_s, key=lambda session: session.arrive_s) - 1
        return at if at >= 0 and t_s + duration_s <= self.sessions[at].depart_s else None

    def _charged_kwh(self, state: VehicleState, at: int) -> float:
        return state.charged_kwh if state.session == at else 0.0

    def _remaining_kwh(self, state: VehicleState, at: int) -> float:
        return self.sessions[at].need_kwh - self._charged_kwh(state, at)

    def _most_kwh(self, duration_s: float) -> float:
        return self.efficiency * energy_kwh(self.p_max_kw, duration_s)


def on_steps(sessions: Sequence[Session], step_s: int) -> tuple[Session, ...]:
    """Sessions that begin and end with a step of ``step_s`` [s]: later arrival, earlier departure, the same need.

    Sessions shorter than a step fall out.
    """
    inside = (
        Session(-(-session.arrive_s // step_s) * step_s, session.depart_s // step_s * step_s, session.need_kwh)
        for session in sessions
    )
    return tuple(session for session in inside if session.depart_s > session.arrive_s)
