"""The aggregators: flexible resources that draw power at the PODs, and what is declared, offered and sold of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from cosim.coordination.in_run import in_area
from cosim.coordination.telling import Own
from cosim.domain.frames import PASSIVE_SIGN, EventTable, Floats, Message, Signal, frozen
from cosim.domain.market import Award, Bid, from_json
from cosim.domain.settlement import to_json
from cosim.flexibility.fleet import Fleet, Reserved
from cosim.flexibility.fleet_memory import FleetMemory, memory_from_json, memory_to_json
from cosim.flexibility.pod_forecast import PowerForecast
from cosim.flexibility.resources import Conditions
from cosim.flexibility.session import Session
from cosim.flexibility.session_json import session_from_json, session_to_json
from cosim.flexibility.splits import Split, call_of, splits
from cosim.market.hybrid import Called, Commitment, HybridBook, merged
from simulators._base import Adapter, Inputs, Output
from simulators._book import book_message
from simulators._party import BUYERS, Voice
from simulators._system import next_mtu, rules

ORDERS = EventTable(
    "activations",
    "what resources were to deliver in an MTU (consumption > 0), and whether they could be reached",
    {"t_s": "s", "resource": None, "pod": None, "change_kw": "kW", "baseline_kw": "kW", "reached": "1"},
)
SPLITS = EventTable(
    "splits",
    "what a resource was to deliver of an award in an MTU, in the direction of its bid",
    {
        "t_s": "s",
        "bid": None,
        "stage": None,
        "buyer": None,
        "direction": None,
        "resource": None,
        "pod": None,
        "quantity_kw": "kW",
        "gate_s": "s",
    },
)
BIDS = EventTable(
    "bids",
    "what was offered for an MTU, a row for each step of the price; resource is empty where several may deliver",
    {
        "t_s": "s",
        "bid": None,
        "seller": None,
        "resource": None,
        "direction": None,
        "quantity_kw": "kW",
        "price_eur_per_kwh": "EUR/kWh",
        "min_accept": "1",
        "gate_s": "s",
    },
)


@dataclass(frozen=True)
class AggregatorMemory:
    """What lasts of all units, the sessions whose awards may still come with what contracts mean for them, and what
    was called of contracts."""

    units: FleetMemory
    sessions: tuple[Session, ...]
    commitments: tuple[Commitment, ...] = ()
    called: Called = field(default_factory=dict)


class Aggregator(Adapter):
    """Models ``pod``: what resources add to the profiles of PODs, what they would add without activation, and what is
    planned; ``resource``; ``declaration`` to the DSO and ``book`` to the market: sessions for which a gate closes with
    this step; ``delivery`` to the settlement: awards of the step before as calls from meters, and what contracts had
    on offer at the gates of this step."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {
        "profile": ("p_kw", "q_kvar"),
        "award": BUYERS,
        "suspension": ("pods",),
    }

    def build(self) -> dict[str, tuple[Output, ...]]:
        case = self.case
        self._fleet = Fleet(
            case.portfolio,
            case.scenario.aggregators,
            case.scenario.seed,
            case.clock.mtu_s,
            case.clock.step_s,
            case.outdoor_c,
        )
        self._books = HybridBook(case.contracts, case.clock, case.market_config.spot)
        self.memory = AggregatorMemory(self._fleet.start(), ())
        self._voice = Voice(case, "aggregator") if "aggregator" in case.parties else None
        self._pod_of = {unit.resource.id: unit.resource.pod for unit in case.portfolio}
        self._placed = in_area(case.area, {unit.resource.id: unit.resource for unit in case.portfolio})
        self._rules = rules(case)
        pods, names = case.pods, tuple(unit.resource.id for unit in case.portfolio)
        settled = case.scenario.settlement is not None
        scheduled = Signal("scheduled_p_kw", "kW", "schedule of the next MTU without awards", "pod", pods, PASSIVE_SIGN)
        return {
            "pod": (
                Signal("p_kw", "kW", "what resources add to the profile", "pod", pods, "consumption > 0"),
                Signal("q_kvar", "kvar", "what resources add to the profile", "pod", pods, "consumption > 0"),
                Signal("free_p_kw", "kW", "the same if nothing were ever activated", "pod", pods, "consumption > 0"),
                Signal("free_q_kvar", "kvar", "the same if nothing were ever activated", "pod", pods),
                Signal("planned_p_kw", "kW", "the same as declared and sold", "pod", pods, "consumption > 0"),
                Signal("planned_q_kvar", "kvar", "the same as declared and sold", "pod", pods, "consumption > 0"),
                *((scheduled,) if settled else ()),
            ),
            "resource": (
                Signal("p_kw", "kW", "power of the resource", "resource", names, "consumption > 0"),
                Signal("free_p_kw", "kW", "the same if it were never activated", "resource", names),
                Signal("ordered_kw", "kW", "change ordered for the MTU", "resource", names, "consumption > 0"),
                ORDERS,
                SPLITS,
                *((BIDS,) if case.scenario.recorder.bids else ()),
            ),
            "declaration": (Message("sessions", "what is drawn over the profiles, as declared and sold"),),
            **({"book": (Message("sessions", "offers"),)} if self._voice is None else self._voice.outputs()),
            **({"delivery": (Message("calls", "awards"), Message("readiness", "of contracts"))} if settled else {}),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        p_kw, q_kvar = inputs["profile", "p_kw"], inputs["profile", "q_kvar"]
        found = self._take([award for (entity, _), mail in inputs.items() if entity == "award" for award in mail])
        fleet, n_pod = self._fleet, len(p_kw)
        now = fleet.conditions(t_s, p_kw)
        rows = self._begin(t_s, now) if self.case.clock.begins_mtu(t_s) else []
        planned = fleet.planned(self.memory.units, t_s, n_pod)
        ordered_kw = self.memory.units.planned_kw(t_s // self.case.clock.mtu_s)
        units, drawn_kw, free_kw = fleet.stepped(self.memory.units, now)
        self.memory = replace(self.memory, units=units)
        suspended = inputs.get(("suspension", "pods"), ())
        withheld = [each["pod"] for each in suspended if each["until_s"] > t_s]
        forecast = self._of_next(t_s, (p_kw, q_kvar))
        sessions = self._offer(t_s, forecast, withheld)
        added, free = (fleet.added(kw, p_kw) for kw in (drawn_kw, free_kw))
        return {
            ("pod", "p_kw"): frozen(added[0]),
            ("pod", "q_kvar"): frozen(added[1]),
            ("pod", "free_p_kw"): frozen(free[0]),
            ("pod", "free_q_kvar"): frozen(free[1]),
            ("pod", "planned_p_kw"): frozen(planned[0]),
            ("pod", "planned_q_kvar"): frozen(planned[1]),
            ("resource", "p_kw"): frozen(drawn_kw),
            ("resource", "free_p_kw"): frozen(free_kw),
            ("resource", "ordered_kw"): frozen(ordered_kw),
            ("resource", ORDERS.name): rows,
            ("resource", SPLITS.name): [row for split in found for row in self._split_rows(split)],
            ("resource", BIDS.name): _bid_rows(sessions) if self.case.scenario.recorder.bids else [],
            ("pod", "scheduled_p_kw"): self._scheduled_kw(forecast),
            ("delivery", "calls"): [to_json(call_of(split, self._pod_of)) for split in found],
            ("delivery", "readiness"): [asdict(each) for each in self.memory.commitments],
            ("declaration", "sessions"): fleet.declared(self.memory.units, sessions, n_pod),
            **self._told(t_s, sessions),
        }

    def state(self) -> dict[str, Any]:
        return {
            "units": memory_to_json(self._fleet.groups, self.memory.units),
            "sessions": [session_to_json(session) for session in self.memory.sessions],
            "commitments": [asdict(each) for each in self.memory.commitments],
            "called": {name: {str(m): kw for m, kw in of_mtu.items()} for name, of_mtu in self.memory.called.items()},
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self.memory = AggregatorMemory(
            memory_from_json(self._fleet.groups, saved["units"]),
            tuple(session_from_json(self.case.portfolio, session) for session in saved["sessions"]),
            tuple(Commitment(**each) for each in saved["commitments"]),
            {name: {int(m): kw for m, kw in of_mtu.items()} for name, of_mtu in saved["called"].items()},
        )

    def _take(self, awards: list[dict[str, Any]]) -> tuple[Split, ...]:
        """Awards of the step before. A session whose gate closed in that step has nothing more to come."""
        held, won = self.memory, [from_json(Award, award) for award in awards]
        units, called = self._fleet.ordered(held.units, held.sessions, won), held.called
        for session in held.sessions:
            own = [each for each in held.commitments if each.t_s == session.t_s]
            called = merged(called, self._books.called(session, own, won))
        self.memory = AggregatorMemory(units, (), (), called)
        return splits(held.sessions, won)

    def _told(self, t_s: int, sessions: Sequence[Session]) -> dict[tuple[str, str], Any]:
        """Offers as the market gets them, or as the seller in a scheme tells them."""
        if self._voice is None:
            return {("book", "sessions"): [book_message(session, self.memory.commitments) for session in sessions]}
        case, mtu_s = self.case, next_mtu(self.case, t_s)
        bids = tuple(bid for session in sessions if session.t_s == mtu_s for bid in session.bids)
        self._voice.open(
            None if mtu_s is None else Own(mtu_s, case.clock.mtu_s, self._rules, bids=bids, resources=self._placed)
        )
        return self._voice.given()

    def _split_rows(self, split: Split) -> list[dict[str, Any]]:
        return [
            {
                "t_s": t_s,
                "bid": split.award.bid,
                "stage": split.award.stage,
                "buyer": split.award.buyer,
                "direction": split.direction.value,
                "resource": resource,
                "pod": self._pod_of[resource],
                "quantity_kw": kw,
                "gate_s": split.gate_s,
            }
            for t_s, resource, kw in split.rows()
        ]

    def _scheduled_kw(self, forecast: PowerForecast | None) -> Floats:
        """What PODs draw in the next MTU (n_pod,) without what is sold, as forecast and declared at its gate."""
        n_pod = len(self.case.pods)
        if self.case.scenario.settlement is None or forecast is None:
            return frozen(np.full(n_pod, np.nan))
        return frozen(forecast.p_kw[0] + self._fleet.over_profile_kw(self.memory.units, n_pod))

    def _of_next(self, t_s: int, now: tuple[Floats, Floats]) -> PowerForecast | None:
        """What is expected of the MTU that begins after the step; None if none does."""
        clock = self.case.clock
        next_s = t_s + clock.step_s
        if not clock.begins_mtu(next_s) or next_s >= clock.until_s:
            return None
        return self.case.expected(next_s, 1, now)

    def _begin(self, t_s: int, now: Sequence[Conditions]) -> list[dict[str, Any]]:
        units = self._fleet.begun(self.memory.units, now)
        self.memory = replace(self.memory, units=units)
        mtu, portfolio = t_s // self.case.clock.mtu_s, self.case.portfolio
        change_kw, baseline_kw = units.planned_kw(mtu), units.baseline_kw(mtu, units.declared_kw)
        unreached = units.out_of_reach
        return [
            {
                "t_s": t_s,
                "resource": portfolio[k].resource.id,
                "pod": portfolio[k].resource.pod,
                "change_kw": float(change_kw[k]),
                "baseline_kw": float(baseline_kw[k]),
                "reached": float(not unreached[k]),
            }
            for k in np.flatnonzero(change_kw).tolist()
        ]

    def _offer(self, t_s: int, of_next: PowerForecast | None, withheld: Sequence[str]) -> tuple[Session, ...]:
        """Sessions whose gate closes with this step, with nothing of PODs ``withheld``. The baselines of the next MTU
        are declared, sold or not, by what is expected ``of_next``."""
        case, units = self.case, self.memory.units
        sessions: list[Session] = []
        commitments: tuple[Commitment, ...] = ()
        next_s = t_s + case.clock.step_s
        for begin_s, n_mtu in case.gates(t_s):
            known = of_next if (begin_s, n_mtu) == (next_s, 1) else None
            forecast = case.expected(begin_s, n_mtu, None) if known is None else known
            session, own = self._book(t_s, begin_s, forecast, tuple(sessions), withheld)
            sessions.append(session)
            commitments += own
        if of_next is not None:
            begins = [session for session in sessions if session.t_s == next_s]
            free = begins[-1] if begins else self._fleet.offered(units, next_s, of_next, t_s)
            units = self._fleet.declaring(units, free)
        self.memory = AggregatorMemory(units, tuple(sessions), commitments, self.memory.called)
        return tuple(sessions)

    def _book(
        self,
        t_s: int,
        begin_s: int,
        forecast: PowerForecast,
        beside: Sequence[Session],
        withheld: Sequence[str],
    ) -> tuple[Session, tuple[Commitment, ...]]:
        """What is offered in a session of the MTUs of ``forecast`` from ``begin_s`` on, freely and by contract."""
        units = self.memory.units

        def offered(reserved: Reserved) -> Session:
            return self._fleet.offered(units, begin_s, forecast, t_s, beside, reserved, withheld)

        return self._books.session(offered, self.memory.called)


def _bid_rows(sessions: Sequence[Session]) -> list[dict[str, Any]]:
    return [
        {
            "t_s": bid.t_s + t * session.mtu_s,
            "bid": bid.id,
            "seller": bid.seller,
            "resource": bid.resource or "",
            "direction": bid.direction.value,
            "quantity_kw": kw,
            "price_eur_per_kwh": price,
            "min_accept": bid.min_accept,
            "gate_s": session.gate_s,
        }
        for session in sessions
        for bid in session.bids
        for t, offered_kw in enumerate(bid.quantity_kw)
        for kw, price in _steps_within(bid, offered_kw)
    ]


def _steps_within(bid: Bid, offered_kw: float) -> Iterator[tuple[float, float]]:
    """Quantity [kW] and price of each step of a bid that is reached by what it offers in an MTU."""
    for step in bid.steps:
        kw = min(step.quantity_kw, offered_kw)
        offered_kw -= kw
        if kw > 0.0:
            yield kw, step.price_eur_per_kwh
