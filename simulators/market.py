"""The operator of the local flexibility market: clears what the DSO asks for against what aggregators offer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from cosim.domain.frames import EventTable, Message, Signal, frozen
from cosim.domain.market import Award, Bid, to_json
from cosim.market.session import NOTHING_BOUGHT, SessionResult, Situation
from simulators._base import Adapter, Inputs, Output
from simulators._book import book_of
from simulators._network import network_of

AWARDS = EventTable(
    "awards",
    "flexibility bought for an MTU",
    {
        "t_s": "s",
        "bid": None,
        "seller": None,
        "buyer": None,
        "direction": None,
        "quantity_kw": "kW",
        "price_eur_per_kwh": "EUR/kWh",
        "bid_price_eur_per_kwh": "EUR/kWh",
        "gate_s": "s",
    },
)
AVAILABILITY = EventTable(
    "availability",
    "what counts as offered of a contract in an MTU of its window; of several gates for an MTU the largest counts",
    {"t_s": "s", "contract": None, "seller": None, "committed_kw": "kW", "offered_kw": "kW", "gate_s": "s"},
)
UNSOLVED = EventTable(
    "unsolved",
    "limits that a plan does not keep in an MTU, forecast errors included, or that the power flow finds exceeded",
    {"t_s": "s", "kind": None, "element": None, "excess": "pu, A or kW", "limit": "pu, A or kW", "gate_s": "s"},
)


class Market(Adapter):
    """Models ``award`` to the aggregators; ``session``: what the gates that closed with this step came to."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {"request": ("situations",), "book": ("sessions",)}

    def build(self) -> dict[str, tuple[Output, ...]]:
        case = self.case
        self._network = network_of(case)
        self._resources = {unit.resource.id: unit.resource for unit in case.portfolio}
        feeder = (case.feeder.name,)
        return {
            "award": (Message("awards", "flexibility bought"),),
            "session": (
                AWARDS,
                UNSOLVED,
                *((AVAILABILITY,) if case.contracts else ()),
                Signal("cost_eur", "EUR", "asked for what was bought", "feeder", feeder),
                Signal("bought_kw", "kW", "quantity bought for the next MTU, up and down", "feeder", feeder),
                Signal("unsolved_kw", "kW", "missing to keep all limits, by what would do most", "feeder", feeder),
                Signal("rounds", "1", "clearings until the power flow agreed", "feeder", feeder),
            ),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        books = {session["t_s"]: session for session in inputs["book", "sessions"]}
        results = []
        for request in inputs["request", "situations"]:
            situation = _situation(request)
            results.append((situation, self._cleared(t_s, situation, books[situation.t_s])))
        next_s = t_s + self.case.clock.step_s
        of_next = next((result for situation, result in results if situation.t_s == next_s), NOTHING_BOUGHT)
        figures = {
            "cost_eur": sum(result.cost_eur for _, result in results),
            "bought_kw": sum(award.quantity_kw[0] for award in of_next.awards),
            "unsolved_kw": sum(each.missing_kw for _, result in results for each in result.unsolved),
            "rounds": float(sum(result.rounds for _, result in results)),
        }
        return {("session", name): frozen([value]) for name, value in figures.items()} | {
            ("award", "awards"): [to_json(award) for _, result in results for award in result.awards],
            ("session", AWARDS.name): [row for _, result in results for row in self._award_rows(t_s, result)],
            ("session", UNSOLVED.name): [row for each in results for row in self._unsolved_rows(t_s, *each)],
            ("session", AVAILABILITY.name): self._availability_rows(t_s, inputs["book", "sessions"]),
        }

    def _cleared(self, t_s: int, situation: Situation, offered: dict[str, Any]) -> SessionResult:
        book, clear = (
            book_of(offered, self.case.needs(t_s, situation.t_s, len(situation.p_kw))),
            self._network.market.clear,
        )
        return clear(situation, book.bids, self._resources, book.couplings, gate_s=t_s, needs=book.needs)

    def _award_rows(self, t_s: int, result: SessionResult) -> list[dict[str, Any]]:
        if result.clearing is None:
            return []
        bids = {bid.id: bid for bid in result.clearing.bids}
        return [row for award in result.awards for row in self._rows_of(t_s, award, bids[award.bid])]

    def _rows_of(self, t_s: int, award: Award, bid: Bid) -> list[dict[str, Any]]:
        mtu_s = self.case.clock.mtu_s
        figures = zip(award.quantity_kw, award.price_eur_per_kwh, award.bid_price_eur_per_kwh, strict=True)
        return [
            {
                "t_s": award.t_s + k * mtu_s,
                "bid": award.bid,
                "seller": bid.seller,
                "buyer": award.buyer,
                "direction": bid.direction.value,
                "quantity_kw": kw,
                "price_eur_per_kwh": price,
                "bid_price_eur_per_kwh": asked,
                "gate_s": t_s,
            }
            for k, (kw, price, asked) in enumerate(figures)
            if kw > 0.0
        ]

    def _unsolved_rows(self, t_s: int, situation: Situation, result: SessionResult) -> list[dict[str, Any]]:
        mtu_s = self.case.clock.mtu_s
        missing = [(each.mtu, each.kind, each.element, each.excess, each.limit) for each in result.unsolved]
        missing += [(each.mtu, "power_flow", each.element, each.excess_pu, 1.0) for each in result.excess]
        return [
            {
                "t_s": situation.t_s + mtu * mtu_s,
                "kind": kind,
                "element": element,
                "excess": excess,
                "limit": limit,
                "gate_s": t_s,
            }
            for mtu, kind, element, excess, limit in missing
        ]

    def _availability_rows(self, t_s: int, sessions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        mtu_s, contracts = self.case.clock.mtu_s, {contract.id: contract for contract in self.case.contracts}
        return [
            {
                "t_s": each["t_s"] + k * mtu_s,
                "contract": each["contract"],
                "seller": contracts[each["contract"]].seller,
                "committed_kw": contracts[each["contract"]].committed_kw,
                "offered_kw": kw,
                "gate_s": t_s,
            }
            for session in sessions
            for each in session["commitments"]
            for k, (owed, kw) in enumerate(zip(each["window"], each["offered_kw"], strict=True))
            if owed
        ]


def _situation(request: dict[str, Any]) -> Situation:
    p_kw, q_kvar, half_p_kw, half_q_kvar = (
        np.asarray(request[name]) for name in ("p_kw", "q_kvar", "half_p_kw", "half_q_kvar")
    )
    return Situation(int(request["t_s"]), p_kw, q_kvar, half_p_kw, half_q_kvar, tuple(request["position"]))
