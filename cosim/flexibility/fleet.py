"""An aggregator's resources from one market time unit (MTU) to the next: orders, steps, declarations and offers.

What is known of units is in arrays (n_unit,), in the order of the portfolio; `cosim.flexibility.columns` steps them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cosim.domain.frames import Floats, Ints, frozen
from cosim.domain.market import Award, Coupling, Direction
from cosim.flexibility.band import Bands, FlexibilityBand, departure_kwh
from cosim.flexibility.columns import Bools, Each, Group, Held, groups_of
from cosim.flexibility.disaggregation import divide_awards
from cosim.flexibility.fleet_memory import FleetMemory
from cosim.flexibility.offers import coupling
from cosim.flexibility.outages import Stream, delivered_share, out_of_reach
from cosim.flexibility.pod_forecast import PowerForecast
from cosim.flexibility.portfolio import Unit
from cosim.flexibility.resources import Conditions, Store
from cosim.flexibility.selling import Seller, sellers_of
from cosim.flexibility.session import Members, Session
from cosim.scenario.market import AggregatorConfig

Reserved = Mapping[tuple[str, Direction], Floats]
"""What is kept for contracts of a resource (n_mtu,) [kW]."""
_NOTHING: Reserved = {}


@dataclass(frozen=True)
class Fleet:
    """All units of a scenario. ``outdoor(unit, t_s)``: outdoor temperature [degree C]. What acts on the groups of units
    now, ``now`` (n_group,), is what `conditions` gives."""

    units: tuple[Unit, ...]
    sellers: Mapping[str, AggregatorConfig]
    seed: int
    mtu_s: int
    step_s: int
    outdoor: Callable[[Unit, int], float]

    def start(self) -> FleetMemory:
        states = tuple(group.start() for group in self.groups)
        return FleetMemory(states, states, {}, {}, frozen(np.zeros(len(self.units))))

    def conditions(self, t_s: int, p_kw: Floats) -> tuple[Conditions, ...]:
        """What acts on each group of units from ``t_s`` on, at the PODs' profiles ``p_kw`` (n_pod,) [kW]."""
        own_kw = np.where(self._of_profile, p_kw[self._pods], 0.0)
        return tuple(Conditions(t_s, own_kw[group.at], self._outdoor_c(group, t_s)) for group in self.groups)

    def begun(self, memory: FleetMemory, now: Sequence[Conditions]) -> FleetMemory:
        """An MTU begins now: who is out of reach, and what each unit is held to."""
        mtu = now[0].t_s // self.mtu_s if now else 0
        unreached = self._unreached(memory.unreached, mtu)
        return replace(
            memory,
            plan_kw={m: kw for m, kw in memory.plan_kw.items() if m >= mtu},
            fixed_kw={m: kw for m, kw in memory.fixed_kw.items() if m >= mtu},
            held=self._held(memory, mtu, memory.states, now, unreached),
            unreached=unreached,
        )

    def _unreached(self, before: Bools | None, mtu: int) -> Bools:
        found = np.zeros(len(self.units), dtype=bool)
        for k in self._failing:
            unit, out = self.units[k], None if before is None else bool(before[k])
            found[k] = out_of_reach(unit.risk, self._stream(unit), mtu, self.mtu_s, out)
        return found

    def _stream(self, unit: Unit) -> Stream:
        return Stream(self.seed, unit.resource.aggregator, unit.resource.id)

    def _held(
        self,
        memory: FleetMemory,
        mtu: int,
        states: Sequence[Any],
        now: Sequence[Conditions],
        unreached: Bools | None = None,
    ) -> Held | None:
        """What units in ``states`` are held to in the MTU that begins now: None for a unit that takes no set-point for
        all of it and runs free. With ``unreached`` (n_unit,) they deliver what they can of their changes, else all."""
        change_kw, fixed_kw = memory.planned_kw(mtu), memory.fixed_kw.get(mtu)
        ordered = change_kw != 0.0 if fixed_kw is None else (change_kw != 0.0) | ~np.isnan(fixed_kw)
        if not ordered.any():
            return None
        able = np.empty(len(self.units), dtype=bool)
        for group, state, at in zip(self.groups, states, now, strict=True):
            able[group.at] = group.able(state, at, self.mtu_s)
        held_kw = np.where(ordered & able, change_kw, np.nan)
        if unreached is not None:
            held_kw[unreached] = np.nan
            for k in np.flatnonzero(self._short & ~np.isnan(held_kw)).tolist():
                held_kw[k] *= delivered_share(self.units[k].risk, self._stream(self.units[k]), mtu)
        return Held(memory.baseline_kw(mtu, memory.declared_kw), held_kw)

    def stepped(self, memory: FleetMemory, now: Sequence[Conditions]) -> tuple[FleetMemory, Floats, Floats]:
        """One step from now on. Returns what each unit draws, and would draw without activation (n_unit,) [kW]."""
        states, drawn_kw = self._step(memory.states, memory.held, now)
        free, free_kw = self._step(memory.free, None, now)
        return replace(memory, states=states, free=free), drawn_kw, free_kw

    def _step(
        self, states: Sequence[Any], held: Held | None, now: Sequence[Conditions]
    ) -> tuple[tuple[Any, ...], Floats]:
        after, drawn_kw = [], np.empty(len(self.units))
        for group, state, at in zip(self.groups, states, now, strict=True):
            own = None if held is None else held.of(group.at)
            then, drawn_kw[group.at] = group.step(state, own, at, self.step_s)
            after.append(then)
        return tuple(after), drawn_kw

    def added(self, drawn_kw: Floats, p_kw: Floats) -> tuple[Floats, Floats]:
        """What units that draw ``drawn_kw`` (n_unit,) add to the profiles ``p_kw`` of all PODs (n_pod,) [kW, kvar], at
        their registered power factors."""
        change_kw = np.where(self._of_profile, drawn_kw - p_kw[self._pods], drawn_kw)
        return self._at_pods(change_kw, len(p_kw))

    def planned(self, memory: FleetMemory, t_s: int, n_pod: int) -> tuple[Floats, Floats]:
        """What has been declared and ordered for the MTU of ``t_s``, over the profiles of all PODs (n_pod,)."""
        return self._at_pods(memory.declared_kw + memory.planned_kw(t_s // self.mtu_s), n_pod)

    def over_profile_kw(self, memory: FleetMemory, n_pod: int) -> Floats:
        """What is declared for the MTU that begins next over the profiles of all PODs (n_pod,) [kW]."""
        return self._at_pods(memory.declared_kw, n_pod)[0]

    def declared(self, memory: FleetMemory, sessions: Sequence[Session], n_pod: int) -> list[dict[str, Any]]:
        """For each session: what the units draw over the profiles of all PODs as declared and as bought before
        (n_mtu, n_pod) [kW, kvar]."""
        declared = []
        for session in sessions:
            p_kw, q_kvar = np.empty((session.n_mtu, n_pod)), np.empty((session.n_mtu, n_pod))
            for t, over_kw in enumerate(session.over_profile_kw):
                mtu = session.t_s // self.mtu_s + t
                p_kw[t], q_kvar[t] = self._at_pods(memory.baseline_kw(mtu, over_kw) + memory.planned_kw(mtu), n_pod)
            declared.append({"t_s": session.t_s, "p_kw": p_kw, "q_kvar": q_kvar})
        return declared

    def _at_pods(self, kw: Floats, n_pod: int) -> tuple[Floats, Floats]:
        """Sums by POD (n_pod,) of units' powers (n_unit,) [kW], and of the reactive power that comes with them."""
        p_kw, q_kvar = np.bincount(self._pods, kw, n_pod), np.bincount(self._pods, self._kvar_per_kw * kw, n_pod)
        return p_kw.astype(np.float64, copy=False), q_kvar.astype(np.float64, copy=False)

    def offered(
        self,
        memory: FleetMemory,
        t_s: int,
        forecast: PowerForecast,
        submitted_s: int,
        beside: Sequence[Session] = (),
        reserved: Reserved = _NOTHING,
        withheld: Collection[str] = (),
    ) -> Session:
        """Offers for the MTUs of ``forecast`` from ``t_s`` on, made at the end of the step at ``submitted_s``.

        Of a profile only what is there at the lower edge of its band is offered. What was bought before is not offered
        again, nor the energy of a unit that has sold a course of it, or offers one in a session ``beside`` this one,
        nor what is ``reserved``, nor anything of resources at the PODs ``withheld``. Raises BidError with every fault
        found of resources that cannot bid.
        """
        states = self._states_at(memory, submitted_s + self.step_s, t_s)
        bands, over_kw = self._bands(states, t_s, forecast)
        bands = self._unsold(bands, memory, t_s // self.mtu_s, self._taken(memory, t_s, beside, withheld))
        couplings = tuple(self._couplings(bands, states)) if bands.stores else ()
        bands = self._unreserved(bands, reserved)
        bids = tuple(bid for seller in self._sellers for bid in seller.bids(bands, t_s, submitted_s))
        members = Members(self.units, bands)
        return Session(t_s, submitted_s, self.mtu_s, bands.n_mtu, bids, couplings, members, over_kw)

    def _bands(self, states: Sequence[Any], t_s: int, forecast: PowerForecast) -> tuple[Bands, Floats]:
        """The bands of all units from ``t_s`` on, and what they draw over the profiles of their PODs (n_mtu, n_unit)
        [kW]."""
        sure_kw = np.sign(forecast.p_kw) * np.maximum(np.abs(forecast.p_kw) - forecast.half_p_kw, 0.0)
        ahead = [self.conditions(t_s + t * self.mtu_s, p_kw) for t, p_kw in enumerate(sure_kw)]
        shape = (len(sure_kw), len(self.units))
        baseline_kw, up_kw, down_kw = np.empty(shape), np.empty(shape), np.empty(shape)
        stores: dict[int, Store] = {}
        for g, (group, state) in enumerate(zip(self.groups, states, strict=True)):
            found = group.bands(state, [now[g] for now in ahead], self.mtu_s, self.step_s)
            baseline_kw[:, group.at], up_kw[:, group.at], down_kw[:, group.at] = (
                found.baseline_kw,
                found.up_kw,
                found.down_kw,
            )
            stores |= {int(group.at[k]): store for k, store in found.stores.items()}
        over_kw = np.where(self._of_profile, baseline_kw - sure_kw[:, self._pods], baseline_kw)
        return Bands(self.mtu_s, frozen(baseline_kw), frozen(up_kw), frozen(down_kw), stores), frozen(over_kw)

    def _taken(self, memory: FleetMemory, t_s: int, beside: Sequence[Session], withheld: Collection[str]) -> Bools:
        """Units (n_unit,) of which nothing is offered from ``t_s`` on."""
        found = memory.out_of_reach.copy()
        for mtu, fixed_kw in memory.fixed_kw.items():
            if mtu >= t_s // self.mtu_s:
                found |= ~np.isnan(fixed_kw)
        for name in (name for session in beside for name in session.courses):
            found[self._position[name]] = True
        if withheld:
            found |= np.array([unit.resource.pod in withheld for unit in self.units])
        return found

    def _unsold(self, bands: Bands, memory: FleetMemory, first: int, taken: Bools) -> Bands:
        """Bands less what is to be delivered already; nothing of units that are ``taken`` (n_unit,)."""
        sold_kw = np.array([memory.planned_kw(first + t) for t in range(bands.n_mtu)])
        if not (taken.any() or sold_kw.any()):
            return bands
        up_kw = np.where(sold_kw > 0.0, 0.0, np.maximum(bands.up_kw + np.minimum(sold_kw, 0.0), 0.0))
        down_kw = np.where(sold_kw < 0.0, 0.0, np.maximum(bands.down_kw - np.maximum(sold_kw, 0.0), 0.0))
        up_kw[:, taken] = down_kw[:, taken] = 0.0
        stores = {k: store for k, store in bands.stores.items() if not taken[k]}
        return replace(bands, up_kw=up_kw, down_kw=down_kw, stores=stores)

    def _couplings(self, bands: Bands, states: Sequence[Any]) -> Iterator[Coupling]:
        for group, state in zip(self.groups, states, strict=True):
            if isinstance(group, Each):
                for k, device, each in zip(group.at.tolist(), group.devices, state, strict=True):
                    limit = coupling(self.units[k].resource.id, device, each, bands.of(k))
                    if limit is not None:
                        yield limit

    def _unreserved(self, bands: Bands, reserved: Reserved) -> Bands:
        """Bands less what is kept for contracts, of which no more is there than registered."""
        changed: dict[int, FlexibilityBand] = {}
        for (name, direction), kept_kw in reserved.items():
            k = self._position[name]
            resource = self.units[k].resource
            registered_kw = resource.up_kw if direction is Direction.UP else resource.down_kw
            changed[k] = _less(changed.get(k, bands.of(k)), direction, kept_kw, registered_kw)
        return bands.changed(changed)

    def ordered(self, memory: FleetMemory, sessions: Sequence[Session], awards: Sequence[Award]) -> FleetMemory:
        """Awards of the sessions divided among the units and added to what they are to deliver."""
        for session in sessions:
            own = {bid.id for bid in session.bids}
            won = [award for award in awards if award.bid in own]
            if won:
                memory = self._ordered(memory, session, won)
        return memory

    def _ordered(self, memory: FleetMemory, session: Session, awards: Sequence[Award]) -> FleetMemory:
        changes, _ = divide_awards(session.bids, awards, session.members)
        change_kw = np.zeros((session.n_mtu, len(self.units)))
        for name, kw in changes.items():
            change_kw[:, self._position[name]] = kw
        first, plan = session.t_s // self.mtu_s, dict(memory.plan_kw)
        for t in np.flatnonzero(change_kw.any(axis=1)).tolist():
            plan[first + t] = memory.planned_kw(first + t) + change_kw[t]
        sold = [k for k in session.members.bands.stores if change_kw[:, k].any()]
        fixed = self._fixed(memory, session, sold) if sold else memory.fixed_kw
        return replace(memory, plan_kw=plan, fixed_kw=fixed)

    def _fixed(self, memory: FleetMemory, session: Session, sold: Sequence[int]) -> dict[int, Floats]:
        """Baselines that are fixed, with those of units that have ``sold`` a course in a session."""
        found, first = dict(memory.fixed_kw), session.t_s // self.mtu_s
        nothing_kw = np.full(len(self.units), np.nan)
        for t, baseline_kw in enumerate(session.members.bands.baseline_kw):
            fixed_kw = found.get(first + t, nothing_kw).copy()
            fixed_kw[sold] = baseline_kw[sold]
            found[first + t] = fixed_kw
        return found

    def declaring(self, memory: FleetMemory, session: Session) -> FleetMemory:
        """The baselines of the session's first MTU, the next one, are those declared for it."""
        declared_kw = memory.baseline_kw(session.t_s // self.mtu_s, session.over_profile_kw[0])
        return replace(memory, declared_kw=declared_kw)

    def _states_at(self, memory: FleetMemory, from_s: int, t_s: int) -> tuple[Any, ...]:
        """The states at ``t_s`` of units that do from ``from_s`` on what they have sold, and else run free; those of a
        profile, which is not known yet, stay as they are."""
        states, held, unknown_kw = memory.states, None, np.zeros(int(self._pods.max(initial=-1)) + 1)
        for begin_s in range(from_s, t_s, self.step_s):
            now = self.conditions(begin_s, unknown_kw)
            if begin_s % self.mtu_s == 0:
                held = self._held(memory, begin_s // self.mtu_s, states, now)
            states, _ = self._step(states, held, now)
        pairs = zip(self.groups, states, memory.states, strict=True)
        return tuple(after if isinstance(group, Each) else present for group, after, present in pairs)

    def _outdoor_c(self, group: Group, t_s: int) -> Floats | float:
        """Outdoor temperature of a group's units (n,) [degree C]; of no interest to those of a profile."""
        if not isinstance(group, Each):
            return 0.0
        return np.array([self.outdoor(self.units[k], t_s) for k in group.at.tolist()])

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        return groups_of([unit.device for unit in self.units])

    @cached_property
    def _position(self) -> dict[str, int]:
        return {unit.resource.id: k for k, unit in enumerate(self.units)}

    @cached_property
    def _pods(self) -> Ints:
        return frozen([unit.pod for unit in self.units], np.int64)

    @cached_property
    def _of_profile(self) -> Bools:
        return frozen([unit.device.of_profile for unit in self.units], bool)

    @cached_property
    def _kvar_per_kw(self) -> Floats:
        return frozen([unit.device.kvar_per_kw for unit in self.units])

    @cached_property
    def _short(self) -> Bools:
        """Units that deliver a part of what is ordered."""
        return frozen([unit.risk.shortfall > 0.0 for unit in self.units], bool)

    @cached_property
    def _failing(self) -> tuple[int, ...]:
        """Units that can get out of reach."""
        return tuple(k for k, unit in enumerate(self.units) if unit.risk.between_outages_h is not None)

    @cached_property
    def _sellers(self) -> tuple[Seller, ...]:
        return sellers_of(self.units, self.sellers)


def _less(band: FlexibilityBand, direction: Direction, kept_kw: Floats, registered_kw: float) -> FlexibilityBand:
    """A band less what is kept of it, of which no more is there than registered."""

    def left(kw: Floats) -> Floats:
        return frozen(np.maximum(np.minimum(kw, registered_kw) - kept_kw, 0.0))

    name, store = direction.value, band.store
    if store is not None:
        room_kwh = getattr(store, f"{name}_room_kwh") - departure_kwh(store, direction, kept_kw)
        more: dict[str, Any] = {
            f"{name}_max_kw": left(getattr(store, f"{name}_max_kw")),
            f"{name}_room_kwh": frozen(np.maximum(room_kwh, 0.0)),
        }
        store = replace(store, **more)
    changed: dict[str, Any] = {f"{name}_kw": left(band.alone_kw(direction)), "store": store}
    return replace(band, **changed)
