"""An aggregator's resources from one market time unit (MTU) to the next: orders, steps, declarations and offers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.domain.market import Award, Bid, Coupling, Direction, Product, Resource
from cosim.flexibility.band import FlexibilityBand, departure_kwh, flexibility_band
from cosim.flexibility.disaggregation import divide_awards
from cosim.flexibility.offers import Member, Terms, coupling, offers
from cosim.flexibility.outages import Stream, delivered_share, out_of_reach
from cosim.flexibility.pod_forecast import PowerForecast
from cosim.flexibility.portfolio import Unit
from cosim.flexibility.resources import (
    Conditions,
    Dispatch,
    dispatch,
    memory_from_json,
    memory_to_json,
    pod_change,
    set_point_kw,
    step,
)
from cosim.scenario.market import AggregatorConfig

PRODUCTS = {direction: Product(direction.value, "congestion", direction) for direction in Direction}
"""What is traded in the local market: net injection raised or lowered for an MTU."""

Reserved = Mapping[tuple[str, Direction], Floats]
"""What is kept for contracts of a resource (n_mtu,) [kW]."""
_NOTHING: Reserved = {}


@dataclass(frozen=True)
class UnitMemory:
    """What lasts of a unit between steps.

    ``state`` of its device and ``free`` that of the same device never activated; ``plan_kw``: changes it is to deliver
    by MTU (consumption positive), ``fixed_kw``: baselines they were bought around a day ahead; ``declared_kw``: what it
    draws over the profile of its POD in the MTU that begins next, without them; ``held`` in the present one;
    ``unreached``: out of reach in it, None before the first.
    """

    state: Any
    free: Any
    plan_kw: Mapping[int, float]
    fixed_kw: Mapping[int, float]
    declared_kw: float = 0.0
    held: Dispatch | None = None
    unreached: bool | None = None


@dataclass(frozen=True)
class Session:
    """Offers for the MTUs from ``t_s`` on: bids, what couples the MTUs of resources, and the bands behind them.

    ``gate_s``: the step with which its gate closes. ``over_profile_kw`` (n_mtu,) by resource: what it draws without
    activation over the profile of its POD.
    """

    t_s: int
    gate_s: int
    mtu_s: int
    n_mtu: int
    bids: tuple[Bid, ...]
    couplings: tuple[Coupling, ...]
    members: Mapping[str, Member]
    over_profile_kw: Mapping[str, Floats]

    def able_kw(self, resource: str, direction: Direction) -> Floats:
        """What a resource can be held to in each MTU (n_mtu,) [kW]; where the clearing knows its energy, by power."""
        member = self.members[resource]
        if any(coupling.resource == resource for coupling in self.couplings):
            return member.rated_kw(direction)
        return member.sustained_kw(direction)

    @property
    def courses(self) -> frozenset[str]:
        """Resources that offer their energy over several MTUs."""
        offering = {name for bid in self.bids for name in bid.members} if self.n_mtu > 1 else set()
        return frozenset(name for name in offering if self.members[name].band.store is not None)


@dataclass(frozen=True)
class _Seller:
    """An aggregator: its terms, its resources, and what it offers of them."""

    name: str
    config: AggregatorConfig
    resources: tuple[str, ...]
    products: tuple[Product, ...]


@dataclass(frozen=True)
class Fleet:
    """All units of a scenario. ``outdoor(unit, t_s)``: outdoor temperature [degree C]. What acts on the units now,
    ``now`` (n_unit,), is what `conditions` gives."""

    units: tuple[Unit, ...]
    sellers: Mapping[str, AggregatorConfig]
    seed: int
    mtu_s: int
    step_s: int
    outdoor: Callable[[Unit, int], float]

    def start(self) -> tuple[UnitMemory, ...]:
        return tuple(UnitMemory(u.device.start(), u.device.start(), {}, {}) for u in self.units)

    def conditions(self, t_s: int, p_kw: Floats, q_kvar: Floats) -> list[Conditions]:
        """What acts on each unit from ``t_s`` on, at the PODs' profiles (n_pod,) [kW, kvar]."""
        of_pods = list(zip(p_kw.tolist(), q_kvar.tolist(), strict=True))
        found = []
        for unit in self.units:
            kw, kvar = of_pods[unit.pod] if unit.device.of_profile else (0.0, 0.0)
            found.append(Conditions(t_s, kw, kvar, self.outdoor(unit, t_s)))
        return found

    def begun(self, memory: Sequence[UnitMemory], now: Sequence[Conditions]) -> tuple[UnitMemory, ...]:
        """An MTU begins now: who is out of reach, and what each unit is held to."""
        return tuple(self._begun(*each) for each in zip(self.units, memory, now, strict=True))

    def _begun(self, unit: Unit, memory: UnitMemory, now: Conditions) -> UnitMemory:
        mtu = now.t_s // self.mtu_s
        stream = Stream(self.seed, unit.resource.aggregator, unit.resource.id)
        unreached = out_of_reach(unit.risk, stream, mtu, self.mtu_s, memory.unreached)
        share = 0.0 if unreached else delivered_share(unit.risk, stream, mtu)
        held = None if unreached else self._held(unit, memory, memory.state, now, share)
        ahead = {m: kw for m, kw in memory.plan_kw.items() if m >= mtu}
        fixed = {m: kw for m, kw in memory.fixed_kw.items() if m >= mtu}
        if (ahead, fixed, held, unreached) == (memory.plan_kw, memory.fixed_kw, memory.held, memory.unreached):
            return memory
        return replace(memory, plan_kw=ahead, fixed_kw=fixed, held=held, unreached=unreached)

    def _held(self, unit: Unit, memory: UnitMemory, state: Any, now: Conditions, share: float = 1.0) -> Dispatch | None:
        """What a unit in ``state`` is held to in the MTU that begins now, if it delivers a ``share`` of its change."""
        mtu = now.t_s // self.mtu_s
        change_kw = memory.plan_kw.get(mtu, 0.0)
        if change_kw == 0.0 and mtu not in memory.fixed_kw:
            return None
        baseline_kw = memory.fixed_kw.get(mtu, memory.declared_kw)
        return dispatch(unit.device, state, baseline_kw, share * change_kw, now, self.mtu_s)

    def stepped(
        self, memory: Sequence[UnitMemory], now: Sequence[Conditions]
    ) -> tuple[tuple[UnitMemory, ...], Floats, Floats]:
        """One step from now on. Returns what each unit draws, and would draw without activation (n_unit,) [kW]."""
        after, drawn_kw, free_kw = [], [], []
        for unit, each, at in zip(self.units, memory, now, strict=True):
            wanted_kw = set_point_kw(unit.device, each.state, each.held, at, self.step_s)
            state, drawn = step(unit.device, each.state, wanted_kw, at, self.step_s)
            free, without = step(unit.device, each.free, None, at, self.step_s)
            after.append(replace(each, state=state, free=free))
            drawn_kw.append(drawn)
            free_kw.append(without)
        return tuple(after), np.array(drawn_kw), np.array(free_kw)

    def added(self, drawn_kw: Floats, now: Sequence[Conditions], n_pod: int) -> tuple[Floats, Floats]:
        """What units that draw ``drawn_kw`` (n_unit,) add to the profiles of all PODs (n_pod,) [kW, kvar]."""
        more_p, more_q = np.zeros(n_pod), np.zeros(n_pod)
        for unit, kw, at in zip(self.units, drawn_kw.tolist(), now, strict=True):
            change_kw, change_kvar = pod_change(unit.device, kw, at)
            more_p[unit.pod] += change_kw
            more_q[unit.pod] += change_kvar
        return more_p, more_q

    def planned(self, memory: Sequence[UnitMemory], t_s: int, n_pod: int) -> tuple[Floats, Floats]:
        """What has been declared and ordered for the MTU of ``t_s``, over the profiles of all PODs (n_pod,)."""
        mtu = t_s // self.mtu_s
        p_kw, q_kvar = np.zeros(n_pod), np.zeros(n_pod)
        for unit, each in zip(self.units, memory, strict=True):
            self._add(p_kw, q_kvar, unit, each.declared_kw, each.plan_kw.get(mtu, 0.0))
        return p_kw, q_kvar

    def declared(self, memory: Sequence[UnitMemory], sessions: Sequence[Session], n_pod: int) -> list[dict[str, Any]]:
        """For each session: what the units draw over the profiles of all PODs as declared and as bought before
        (n_mtu, n_pod) [kW, kvar]."""
        declared = []
        for session in sessions:
            p_kw, q_kvar = np.zeros((session.n_mtu, n_pod)), np.zeros((session.n_mtu, n_pod))
            for unit, each in zip(self.units, memory, strict=True):
                over_kw = session.over_profile_kw[unit.resource.id]
                for t in range(session.n_mtu):
                    mtu = session.t_s // self.mtu_s + t
                    baseline_kw = each.fixed_kw.get(mtu, float(over_kw[t]))
                    self._add(p_kw[t], q_kvar[t], unit, baseline_kw, each.plan_kw.get(mtu, 0.0))
            declared.append({"t_s": session.t_s, "p_kw": p_kw, "q_kvar": q_kvar})
        return declared

    @staticmethod
    def _add(p_kw: Floats, q_kvar: Floats, unit: Unit, baseline_kw: float, change_kw: float) -> None:
        kw = baseline_kw + change_kw
        p_kw[unit.pod] += kw
        q_kvar[unit.pod] += unit.device.kvar_per_kw * kw

    def offered(
        self,
        memory: Sequence[UnitMemory],
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
        nor what is ``reserved``, nor anything of resources at the PODs ``withheld``.
        """
        courses = {name for session in beside for name in session.courses}
        n_mtu, first_s = len(forecast.p_kw), submitted_s + self.step_s
        sure_kw = np.sign(forecast.p_kw) * np.maximum(np.abs(forecast.p_kw) - forecast.half_p_kw, 0.0)
        members: dict[str, Member] = {}
        over_kw: dict[str, Floats] = {}
        couplings: list[Coupling] = []
        for unit, each in zip(self.units, memory, strict=True):
            state, ahead = self._state_at(unit, each, first_s, t_s), self._ahead(unit, t_s, sure_kw, forecast.q_kvar)
            band = flexibility_band(unit.device, state, ahead, self.mtu_s, self.step_s)
            over_kw[unit.resource.id] = band.baseline_kw - [now.p_kw for now in ahead]
            taken = unit.resource.id in courses or bool(each.unreached) or unit.resource.pod in withheld
            band = _without_sold(band, each, t_s // self.mtu_s, taken=taken)
            limit = coupling(unit.resource.id, unit.device, state, band) if n_mtu > 1 else None
            band = _without_reserved(band, unit.resource, reserved)
            members[unit.resource.id] = Member(unit.resource, band, unit.up_eur_per_kwh, unit.down_eur_per_kwh)
            couplings += [limit] if limit is not None else []
        bids = [bid for seller in self._sellers for bid in _bids(seller, members, t_s, n_mtu, submitted_s)]
        return Session(t_s, submitted_s, self.mtu_s, n_mtu, tuple(bids), tuple(couplings), members, over_kw)

    @cached_property
    def _sellers(self) -> tuple[_Seller, ...]:
        own: dict[str, list[str]] = {}
        for unit in self.units:
            own.setdefault(unit.resource.aggregator, []).append(unit.resource.id)
        configs = {name: self.sellers.get(name, self.sellers.get("default", AggregatorConfig())) for name in own}
        return tuple(
            _Seller(name, config, tuple(own[name]), tuple(_sized(each, config) for each in PRODUCTS.values()))
            for name, config in configs.items()
        )

    def ordered(
        self, memory: Sequence[UnitMemory], sessions: Sequence[Session], awards: Sequence[Award]
    ) -> tuple[UnitMemory, ...]:
        """Awards of the sessions divided among the units and added to what they are to deliver."""
        for session in sessions:
            own = {bid.id for bid in session.bids}
            won = [award for award in awards if award.bid in own]
            if won:
                memory = self._ordered(memory, session, won)
        return tuple(memory)

    def _ordered(
        self, memory: Sequence[UnitMemory], session: Session, awards: Sequence[Award]
    ) -> tuple[UnitMemory, ...]:
        changes, _ = divide_awards(session.bids, awards, session.members)
        first, after = session.t_s // self.mtu_s, []
        for unit, each in zip(self.units, memory, strict=True):
            change_kw = changes.get(unit.resource.id)
            if change_kw is not None and change_kw.any():
                band = session.members[unit.resource.id].band
                plan, fixed = dict(each.plan_kw), dict(each.fixed_kw)
                for t, kw in enumerate(change_kw.tolist()):
                    plan[first + t] = plan.get(first + t, 0.0) + kw
                    if session.n_mtu > 1 and band.store is not None:
                        fixed[first + t] = float(band.baseline_kw[t])
                each = replace(each, plan_kw=plan, fixed_kw=fixed)
            after.append(each)
        return tuple(after)

    def declaring(self, memory: Sequence[UnitMemory], session: Session) -> tuple[UnitMemory, ...]:
        """The baselines of the session's first MTU, the next one, are those declared for it."""
        first = session.t_s // self.mtu_s
        return tuple(
            replace(each, declared_kw=each.fixed_kw.get(first, float(session.over_profile_kw[unit.resource.id][0])))
            for unit, each in zip(self.units, memory, strict=True)
        )

    def _ahead(self, unit: Unit, t_s: int, p_kw: Floats, q_kvar: Floats) -> list[Conditions]:
        """Conditions in MTUs, with the PODs' profiles (n_mtu, n_pod)."""
        begins_s = [t_s + k * self.mtu_s for k in range(len(p_kw))]
        if not unit.device.of_profile:
            return [Conditions(s, temperature_c=self.outdoor(unit, s)) for s in begins_s]
        return [
            Conditions(s, kw, kvar, self.outdoor(unit, s))
            for s, kw, kvar in zip(begins_s, p_kw[:, unit.pod].tolist(), q_kvar[:, unit.pod].tolist(), strict=True)
        ]

    def _state_at(self, unit: Unit, memory: UnitMemory, from_s: int, t_s: int) -> Any:
        """The state at ``t_s`` of a unit that does from ``from_s`` on what it has sold, and else runs free."""
        state, held = memory.state, None
        if unit.device.of_profile:
            return state
        for begin_s in range(from_s, t_s, self.step_s):
            now = Conditions(begin_s, temperature_c=self.outdoor(unit, begin_s))
            if begin_s % self.mtu_s == 0:
                held = self._held(unit, memory, state, now)
            wanted_kw = set_point_kw(unit.device, state, held, now, self.step_s)
            state, _ = step(unit.device, state, wanted_kw, now, self.step_s)
        return state


def _sized(product: Product, config: AggregatorConfig) -> Product:
    return replace(product, min_kw=config.min_kw, step_kw=config.step_kw)


def _bids(seller: _Seller, members: Mapping[str, Member], t_s: int, n_mtu: int, submitted_s: int) -> list[Bid]:
    config = seller.config
    coupled = n_mtu > 1 and config.delivery == "single"
    terms = Terms(seller.name, t_s, config.delivery, coupled=coupled, submitted_s=submitted_s)
    own = [members[name] for name in seller.resources]
    found = [bid for product in seller.products for bid in offers(own, product, terms)]
    return [replace(bid, min_accept=config.min_accept) for bid in found] if config.min_accept else found


def _without_sold(band: FlexibilityBand, memory: UnitMemory, first: int, *, taken: bool) -> FlexibilityBand:
    """A band less what is to be delivered already; nothing of a unit whose energy is ``taken`` or sold for later."""
    sold = [memory.plan_kw.get(first + t, 0.0) for t in range(len(band.baseline_kw))]
    if taken or any(mtu >= first for mtu in memory.fixed_kw):
        nothing = np.zeros(len(sold))
        return replace(band, up_kw=nothing, down_kw=nothing, store=None)
    if not any(sold):
        return band
    sold_kw = np.array(sold)
    up_kw = np.where(sold_kw > 0.0, 0.0, np.maximum(band.up_kw + np.minimum(sold_kw, 0.0), 0.0))
    down_kw = np.where(sold_kw < 0.0, 0.0, np.maximum(band.down_kw - np.maximum(sold_kw, 0.0), 0.0))
    return replace(band, up_kw=up_kw, down_kw=down_kw)


def _without_reserved(band: FlexibilityBand, resource: Resource, reserved: Reserved) -> FlexibilityBand:
    """A band less what is kept for contracts, of which no more is there than registered."""
    for direction, registered_kw in ((Direction.UP, resource.up_kw), (Direction.DOWN, resource.down_kw)):
        kept_kw = reserved.get((resource.id, direction))
        if kept_kw is not None:
            band = _less(band, direction, kept_kw, registered_kw)
    return band


def _less(band: FlexibilityBand, direction: Direction, kept_kw: Floats, registered_kw: float) -> FlexibilityBand:
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


def fleet_to_json(memory: Sequence[UnitMemory]) -> list[dict[str, Any]]:
    """Memories as what ``json`` can write, exactly."""
    return [
        {
            "state": memory_to_json(each.state),
            "free": memory_to_json(each.free),
            "plan_kw": {str(mtu): kw for mtu, kw in each.plan_kw.items()},
            "fixed_kw": {str(mtu): kw for mtu, kw in each.fixed_kw.items()},
            "declared_kw": each.declared_kw,
            "held": None if each.held is None else [each.held.baseline_kw, each.held.change_kw],
            "unreached": each.unreached,
        }
        for each in memory
    ]


def fleet_from_json(units: Sequence[Unit], document: Sequence[Mapping[str, Any]]) -> tuple[UnitMemory, ...]:
    """The memories that `fleet_to_json` made."""
    return tuple(
        UnitMemory(
            state=memory_from_json(unit.device, each["state"]),
            free=memory_from_json(unit.device, each["free"]),
            plan_kw={int(mtu): kw for mtu, kw in each["plan_kw"].items()},
            fixed_kw={int(mtu): kw for mtu, kw in each["fixed_kw"].items()},
            declared_kw=each["declared_kw"],
            held=None if each["held"] is None else Dispatch(*each["held"]),
            unreached=each["unreached"],
        )
        for unit, each in zip(units, document, strict=True)
    )
