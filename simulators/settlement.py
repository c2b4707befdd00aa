"""The settlement: meters read for each market time unit (MTU), and what was bought paid for as soon as it has ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from cosim.domain.frames import EventTable, Floats, Message, Signal, frozen
from cosim.domain.settlement import Call, SettlementLine, from_json, to_json
from cosim.errors import SimulatorError
from cosim.market.accounts import Accounts, Kept, Settled
from cosim.market.called import Ordered
from cosim.market.delivery import Delivery
from cosim.market.exact import MONEY_EUR
from cosim.market.hybrid import Commitment
from cosim.market.roles import brps_of, parties_of
from cosim.scenario.settlement import SettlementConfig
from simulators._base import Adapter, Inputs, Output
from simulators.wire import decode, encode

_log = logging.getLogger(__name__)

_BUYERS = ("dso", "tso")
"""Operators that may buy in a scheme of coordination."""
_ARRAYS = ("scheduled_kw", "sum_kw", "free_sum_kw", "metered_kw", "offered_kw")
"""Of what is kept: arrays, and arrays by name."""
LINES = EventTable(
    "lines",
    "who owes whom what for an MTU, or for duration_s from t_s on; amount counts whole units of 1e-4 EUR",
    {
        "t_s": "s",
        "duration_s": "s",
        "payer": None,
        "payee": None,
        "kind": None,
        "quantity": "unit",
        "unit": None,
        "price_eur": "EUR/unit",
        "amount": "1e-4 EUR",
        "refs": None,
        "estimated": "1",
    },
)
DELIVERIES = EventTable(
    "deliveries",
    "what was delivered of an award in an MTU, in the direction of its bid: by the meters, and what of it is paid",
    {
        "t_s": "s",
        "bid": None,
        "stage": None,
        "seller": None,
        "buyer": None,
        "awarded_kwh": "kWh",
        "given_kwh": "kWh",
        "delivered_kwh": "kWh",
        "short_kwh": "kWh",
        "estimated": "1",
    },
)
BASELINES = EventTable(
    "baselines",
    "what methods say that a called POD would have drawn, and by how much they miss the simulation without activation",
    {
        "t_s": "s",
        "pod": None,
        "method": None,
        "baseline_kw": "kW",
        "bias_kw": "kW",
        "ordered_kw": "kW",
        "paid": "1",
    },
)
ESTIMATES = EventTable(
    "estimates",
    "what stands in for a value that was not metered or a baseline that was not known",
    {"t_s": "s", "told": None},
)
SUSPENSIONS = EventTable(
    "suspensions",
    "PODs that failed too often in a row in calls up to the MTU from t_s on, of which nothing is offered until until_s",
    {"t_s": "s", "pod": None, "until_s": "s"},
)


class Settlement(Adapter):
    """Models ``party``: what moves between all who pay or are paid; ``interface``: how the energy of an MTU closes;
    ``suspension``: PODs that may not sell, told to the aggregators.
    Values belong to the MTU that ends with a step, and are NaN in all other steps."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {
        "pod": ("p_kw", "free_p_kw", "scheduled_p_kw"),
        "head": ("p_kw",),
        "delivery": ("calls", "readiness"),
    }
    memory: Kept

    def build(self) -> dict[str, tuple[Output, ...]]:
        case = self.case
        config = case.scenario.settlement or SettlementConfig()
        resources = [unit.resource for unit in case.portfolio]
        brps = brps_of(case.pods, resources, config)
        self._parties = parties_of(case.scenario, brps, config, [name for name in _BUYERS if name in case.parties])
        self._buyers = {case.parties[name]: name for name in _BUYERS if name in case.parties}
        offset = case.scenario.start.utcoffset()
        assert offset is not None  # the schema asks for it
        self._accounts = Accounts(
            config,
            case.clock,
            case.scenario.seed,
            round(offset.total_seconds()),
            case.pods,
            brps,
            tuple(dict.fromkeys(each.pod for each in resources)),
            case.contracts,
            lambda mtu: case.pod_forecast.past(mtu)[0],
            case.scenario.dso.forecast.days,
        )
        self.memory = self._accounts.start(case.expected(0, 1, None).p_kw[0])
        feeder = (case.feeder.name,)
        return {
            "party": (
                Signal("cash_eur", "EUR", "received less paid", "party", self._parties),
                Signal(
                    "imbalance_kwh", "kWh", "drew less than scheduled, activations left out", "party", self._parties
                ),
                LINES,
                DELIVERIES,
            ),
            "interface": (
                Signal("closing_kwh", "kWh", "imbalances of all less that of the metered interface", "feeder", feeder),
                Signal("estimated", "1", "values that were not metered", "feeder", feeder),
                BASELINES,
                ESTIMATES,
            ),
            "suspension": (Message("pods", "PODs that may not sell"), SUSPENSIONS),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        accounts, clock = self._accounts, self.case.clock
        calls = [from_json(Call, self._named(call)) for call in inputs["delivery", "calls"]]
        ready = [Commitment(**each) for each in inputs["delivery", "readiness"]]
        kept = accounts.taken(self.memory, t_s, calls, ready)
        head_kw = float(inputs["head", "p_kw"][0])
        self.memory = accounts.metered(kept, inputs["pod", "p_kw"], inputs["pod", "free_p_kw"], head_kw)
        if not clock.begins_mtu(t_s + clock.step_s):
            return self._outputs(None)
        begin_s = t_s + clock.step_s - clock.mtu_s
        before = self.memory.until_s
        self.memory, settled = accounts.settled(self.memory, begin_s, inputs["pod", "scheduled_p_kw"])
        for sentence in settled.told:
            _log.info("%s", sentence)
        suspended = {pod: until_s for pod, until_s in self.memory.until_s.items() if before.get(pod) != until_s}
        rows = [{"t_s": begin_s, "pod": pod, "until_s": until_s} for pod, until_s in suspended.items()]
        return self._outputs(settled) | {("suspension", SUSPENSIONS.name): rows}

    def state(self) -> dict[str, Any]:
        kept = self.memory
        saved: dict[str, Any] = encode({name: getattr(kept, name) for name in _ARRAYS})
        return saved | {
            "head_sum_kw": kept.head_sum_kw,
            "loss_kw": kept.loss_kw,
            "ordered": [[each.order_s, to_json(each.call)] for each in kept.ordered],
            "called": {pod: list(days) for pod, days in kept.called.items()},
            "failed": dict(kept.failed),
            "until_s": dict(kept.until_s),
            "ready_kw": {name: {str(m): kw for m, kw in of_mtu.items()} for name, of_mtu in kept.ready_kw.items()},
        }

    def restore(self, saved: dict[str, Any]) -> None:
        given = decode(saved)
        self.memory = Kept(
            **{name: given[name] for name in _ARRAYS},
            head_sum_kw=given["head_sum_kw"],
            loss_kw=given["loss_kw"],
            ordered=tuple(Ordered(order_s, from_json(Call, call)) for order_s, call in given["ordered"]),
            called={pod: tuple(days) for pod, days in given["called"].items()},
            failed=given["failed"],
            until_s=given["until_s"],
            ready_kw={name: {int(m): kw for m, kw in of_mtu.items()} for name, of_mtu in given["ready_kw"].items()},
        )

    def _named(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Buyers under the names of their simulators: a scheme of coordination calls them otherwise."""
        award = call["award"]
        return {**call, "award": {**award, "buyer": self._buyers.get(award["buyer"], award["buyer"])}}

    def _outputs(self, settled: Settled | None) -> dict[tuple[str, str], Any]:
        """Of an MTU that has ended; None in all other steps."""
        unknown = frozen(np.full(len(self._parties), np.nan))
        nothing = frozen([np.nan])
        found = {
            ("party", "cash_eur"): unknown,
            ("party", "imbalance_kwh"): unknown,
            ("interface", "closing_kwh"): nothing,
            ("interface", "estimated"): nothing,
            ("party", LINES.name): [],
            ("party", DELIVERIES.name): [],
            ("interface", BASELINES.name): [],
            ("interface", ESTIMATES.name): [],
            ("suspension", "pods"): [{"pod": pod, "until_s": until_s} for pod, until_s in self.memory.until_s.items()],
            ("suspension", SUSPENSIONS.name): [],
        }
        if settled is None:
            return found
        paid = [(line.payer, -line.amount_eur) for line in settled.lines]
        received = [(line.payee, line.amount_eur) for line in settled.lines]
        held = [(each.party, each.imbalance) for each in settled.found.positions]
        return found | {
            ("party", "cash_eur"): self._by_party([*paid, *received]),
            ("party", "imbalance_kwh"): self._by_party(held),
            ("interface", "closing_kwh"): frozen([settled.closing_kwh]),
            ("interface", "estimated"): frozen([settled.missing]),
            ("party", LINES.name): [_line_row(line) for line in settled.lines],
            ("party", DELIVERIES.name): [_delivery_row(each) for each in settled.found.deliveries],
            ("interface", BASELINES.name): settled.believed.rows(settled.t_s),
            ("interface", ESTIMATES.name): [{"t_s": settled.t_s, "told": told} for told in settled.told],
        }

    def _by_party(self, values: Iterable[tuple[str, Decimal]] | Iterable[tuple[str, Fraction]]) -> Floats:
        """Exact sums (n_party,); raises SimulatorError for a party that nobody named."""
        total: dict[str, Any] = dict.fromkeys(self._parties, 0)
        for party, value in values:
            if party not in total:
                known = ", ".join(self._parties)
                raise SimulatorError(f"settlement: {party} pays or is paid, but is no party of the scenario: {known}")
            total[party] += value
        return frozen([float(value) for value in total.values()])


def _line_row(line: SettlementLine) -> dict[str, Any]:
    return {
        "t_s": line.t_s,
        "duration_s": line.duration_s,
        "payer": line.payer,
        "payee": line.payee,
        "kind": line.kind,
        "quantity": float(line.quantity),
        "unit": line.unit,
        "price_eur": float(line.price_eur),
        "amount": float(line.amount_eur / MONEY_EUR),
        "refs": " ".join(line.refs),
        "estimated": float(line.estimated),
    }


def _delivery_row(each: Delivery) -> dict[str, Any]:
    award = each.call.award
    return {
        "t_s": each.t_s,
        "bid": award.bid,
        "stage": award.stage,
        "seller": each.call.seller,
        "buyer": award.buyer,
        "awarded_kwh": float(each.awarded),
        "given_kwh": float(each.given),
        "delivered_kwh": float(each.delivered),
        "short_kwh": float(each.short),
        "estimated": float(each.estimated),
    }
