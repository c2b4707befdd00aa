"""A party of a coordination scheme as part of a simulator: messages in, messages out, and what is recorded of both.

Within a step parties answer each other until all stages are cleared. What a party says goes out once, by an attribute
of its own for each simulator that hears it; awards hold on until the next step, in which sellers take them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cosim.case import Case
from cosim.coordination.case import place_of
from cosim.coordination.flows import check_declared
from cosim.coordination.in_run import LOOP, SELLERS, awards_of, binding, hearers, transfers
from cosim.coordination.messages import Message as Told
from cosim.coordination.outcome import StageOutcome
from cosim.coordination.party import Party, at_the_gate, check_cleared, party, step
from cosim.coordination.telling import Own
from cosim.domain.frames import EventTable, Message
from cosim.domain.market import Award, Bid, to_json
from cosim.errors import BidError, MarketError
from cosim.market.highs import Highs
from cosim.units import SECONDS_PER_HOUR
from simulators._base import Inputs, Output

MESSAGES = EventTable(
    "messages",
    "what parties told each other of an MTU: the outcome of a stage, or what they say when the gate closes",
    {
        "t_s": "s",
        "sender": None,
        "receiver": None,
        "type": None,
        "stage": None,
        "round": "1",
        "size_bytes": "bytes",
        "digest": None,
        "gate_s": "s",
    },
)
AWARDS = EventTable(
    "awards",
    "flexibility bought for an MTU, by stage; below zero: given back. The area is where it is, empty at transmission",
    {
        "t_s": "s",
        "stage": None,
        "bid": None,
        "seller": None,
        "area": None,
        "buyer": None,
        "direction": None,
        "quantity_kw": "kW",
        "price_eur_per_kwh": "EUR/kWh",
        "bid_price_eur_per_kwh": "EUR/kWh",
        "gate_s": "s",
    },
)
STAGES = EventTable(
    "stages",
    "what stages came to: change of the feeder's export, what the balance still lacks, what 1 kWh of export is worth, "
    "how often it was cleared, and whether it fell back to another balance",
    {
        "t_s": "s",
        "stage": None,
        "export_kw": "kW",
        "shortage_kw": "kW",
        "interface_eur_per_kwh": "EUR/kWh",
        "rounds": "1",
        "fell_back": "1",
        "gate_s": "s",
    },
)
TRANSFERS = EventTable(
    "transfers",
    "what a stage pays other than for bids: for curves and interfaces of areas, and for demand",
    {"t_s": "s", "stage": None, "payer": None, "payee": None, "amount_eur": "EUR", "gate_s": "s"},
)
UNMET = EventTable(
    "unmet",
    "limits that a stage could not meet, forecast errors included: by so much",
    {"t_s": "s", "stage": None, "kind": None, "element": None, "excess": "pu, A or kW", "limit": None, "gate_s": "s"},
)
EXCLUDED = EventTable(
    "excluded", "bids that a stage took less of than there was, how much they offer, and why",
    {"t_s": "s", "stage": None, "bid": None, "offered_kw": "kW", "reason": None, "gate_s": "s"},
)  # fmt: skip
LIGHTS = EventTable(
    "lights",
    "the traffic light of each perimeter and direction",
    {
        "t_s": "s",
        "perimeter": None,
        "direction": None,
        "colour": None,
        "cap_kw": "kW",
        "registered_kw": "kW",
        "limit": None,
        "gate_s": "s",
    },
)
INBOX = tuple(f"from_{name}" for name in LOOP)
GATE = tuple(f"from_{name}" for name in (*SELLERS, "brp"))
BUYERS = tuple(f"from_{name}" for name in (*LOOP, "market"))


class Voice:
    """The party that a simulator of the ``case`` stands for: it knows what it is told, and what of it."""

    def __init__(self, case: Case, simulator: str) -> None:
        assert case.scheme is not None  # such simulators run with a scheme only
        self._scheme, self._id, self._simulator = case.scheme, case.parties[simulator], simulator
        self._parties = case.parties
        self._clears = simulator in LOOP
        self._sellers = [name for name in SELLERS if name in case.parties]
        self._hearers = hearers(self._scheme, simulator, case.parties)
        self._step_s, self._mtu_h = case.clock.step_s, case.clock.mtu_s / SECONDS_PER_HOUR
        agreed_eur_per_kwh = (
            case.scenario.coordination.interface.price_eur_per_kwh if case.scenario.coordination else None
        )
        self._price_eur_per_kwh = {case.area: agreed_eur_per_kwh or 0.0}
        self._solver = Highs()
        self._now_s: int | None = None
        self._party: Party | None = None
        self._said: tuple[Told, ...] = ()
        self._log: list[dict[str, Any]] = []
        self._of_stages: dict[tuple[str, str], Any] | None = None

    def outputs(self) -> dict[str, tuple[Output, ...]]:
        """By model: ``mail``, ``log``, and of who clears ``award`` and ``stage``."""
        mail: tuple[Output, ...] = tuple(
            Message(f"to_{name}", f"messages to {name}", once=self._clears) for name in self._hearers
        )
        spoken = {**({"mail": mail} if mail else {}), "log": (MESSAGES,)}
        if not self._clears:
            return spoken
        awards: tuple[Output, ...] = tuple(Message(f"to_{name}", f"awards to {name}") for name in self._sellers)
        return {**spoken, "award": (*awards, AWARDS), "stage": _STAGE_TABLES}

    def begins(self, t_s: int) -> bool:
        """Whether a new step begins, or an answer has come within the present one."""
        before, self._now_s = self._now_s, t_s
        return t_s != before

    def open(self, own: Own | None) -> None:
        """A gate closes, with what the party knows of its own; none does in this step if that is None.

        Raises MarketError as `ended`.
        """
        self.ended()
        self._party, self._said, self._log, self._of_stages = None, (), [], None
        if own is not None:
            self._party = party(self._id, tuple(self._parties.values()), self._scheme, own)
            with self._named(own.t_s):
                self._say(at_the_gate(self._party))

    def ended(self) -> None:
        """The step in which a gate closed is over. Raises MarketError, as `hear`, if a stage was never cleared."""
        if self._party is not None:
            with self._named(self._party.knows.own.t_s):
                check_cleared([self._party])

    def hear(self, inputs: Inputs) -> None:
        """Takes in what came, and clears what can be cleared.

        Raises MarketError, which names simulator and time, if a stage cannot be cleared, or the party says what the
        scheme does not declare.
        """
        if self._party is None:
            return
        t_s, before = self._party.knows.own.t_s, self._party.rounds
        came: list[Told] = [told for (entity, _), mail in inputs.items() if entity in _BOXES for told in mail]
        with self._named(t_s):
            self._party, said = step(self._party, [message for message in came if message.t_s == t_s], self._solver)
            self._say(said)
        if self._party.rounds != before:
            self._of_stages = None

    def given(self) -> dict[tuple[str, str], Any]:
        """The outputs: what has just been said, once, and all the rest of this step."""
        said, self._said = self._said, ()
        mail = {
            ("mail", f"to_{name}"): [message for message in said if message.receiver == self._parties[name]]
            for name in self._hearers
        }
        if self._of_stages is None:  # the same until another one is cleared
            self._of_stages = self._stage_outputs()
        return {**mail, ("log", MESSAGES.name): list(self._log), **self._of_stages}

    def _stage_outputs(self) -> dict[tuple[str, str], Any]:
        """What its stages have come to by now."""
        if not self._clears:
            return {}
        awards = self._awards()
        sold = {
            seller: [to_json(award) for award, _, area in awards if seller == ("aggregator" if area else "generators")]
            for seller in self._sellers
        }
        return {
            **{("award", f"to_{seller}"): own for seller, own in sold.items()},
            ("award", AWARDS.name): [self._award_row(*award) for award in awards],
            **{("stage", table): rows for table, rows in self._stage_rows().items()},
        }

    def _awards(self) -> list[tuple[Award, Bid, str]]:
        """All that its stages award for good, each with its bid and the area where that is."""
        if self._party is None or not self._party.rounds:
            return []
        t_s = self._party.knows.own.t_s
        awards = [award for outcome in binding(self._party) for award in awards_of(t_s, outcome)]
        if not awards:
            return []
        bids, resources = self._party.knows.offers
        sold = {award.bid for award in awards}
        offered = {bid.id: (bid, place_of(bid, resources)) for bid in bids if bid.id in sold}
        return [(award, *offered[award.bid]) for award in awards]

    @contextmanager
    def _named(self, mtu_s: int) -> Iterator[None]:
        """Errors of the market tell whose they are, and when."""
        try:
            yield
        except (BidError, MarketError) as error:
            when = f"simulated time {mtu_s - self._step_s} s, for the MTU at {mtu_s} s"
            raise MarketError(f"simulator {self._simulator} failed at {when}: {error}") from error

    def _say(self, messages: Sequence[Told]) -> None:
        check_declared(self._scheme, messages)
        self._said += tuple(messages)
        self._log += [
            {
                "t_s": message.t_s,
                "sender": message.sender,
                "receiver": message.receiver,
                "type": message.type,
                "stage": message.stage,
                "round": message.round,
                "size_bytes": message.size,
                "digest": message.digest,
                "gate_s": message.t_s - self._step_s,
            }
            for message in messages
        ]

    def _award_row(self, award: Award, bid: Bid, area: str) -> dict[str, Any]:
        return {
            "t_s": award.t_s,
            "stage": award.stage,
            "bid": award.bid,
            "seller": bid.seller,
            "area": area,
            "buyer": award.buyer,
            "direction": bid.direction.value,
            "quantity_kw": award.quantity_kw[0],
            "price_eur_per_kwh": award.price_eur_per_kwh[0],
            "bid_price_eur_per_kwh": award.bid_price_eur_per_kwh[0],
            "gate_s": award.t_s - self._step_s,
        }

    def _stage_rows(self) -> dict[str, list[dict[str, Any]]]:
        if self._party is None or not self._party.rounds:
            return {table.name: [] for table in _STAGE_TABLES}
        t_s = self._party.knows.own.t_s
        cleared = [(self._party.knows.outcomes[name], n) for name, n in self._party.rounds.items()]
        stamp = {"t_s": t_s, "gate_s": t_s - self._step_s}
        less = any(outcome.excluded for outcome, _ in cleared)
        offered_kw = {bid.id: bid.quantity_kw[0] for bid in self._party.knows.offers[0]} if less else {}
        return {
            STAGES.name: [stamp | _stage_row(outcome, rounds) for outcome, rounds in cleared],
            TRANSFERS.name: [stamp | row for row in self._transfer_rows(self._party)],
            UNMET.name: [stamp | row for outcome, _ in cleared for row in _unmet_rows(outcome)],
            EXCLUDED.name: [stamp | row for outcome, _ in cleared for row in _excluded_rows(outcome, offered_kw)],
            LIGHTS.name: [stamp | row for outcome, _ in cleared for row in _light_rows(outcome)],
        }

    def _transfer_rows(self, party: Party) -> Iterator[dict[str, Any]]:
        prices = self._price_eur_per_kwh
        for outcome in binding(party):
            for payer, payee, eur in transfers(party.scheme.stages[outcome.stage], outcome, prices, self._mtu_h):
                yield {"stage": outcome.stage, "payer": payer, "payee": payee, "amount_eur": eur}


_STAGE_TABLES: tuple[EventTable, ...] = (STAGES, TRANSFERS, UNMET, EXCLUDED, LIGHTS)
_BOXES = ("gate", "inbox")


def _stage_row(outcome: StageOutcome, rounds: int) -> dict[str, Any]:
    prices = list(outcome.interface_eur_per_kwh.values())
    return {
        "stage": outcome.stage,
        "export_kw": sum(outcome.export_kw.values()),
        "shortage_kw": outcome.shortage_kw,
        "interface_eur_per_kwh": prices[0] if prices else float("nan"),
        "rounds": float(rounds),
        "fell_back": float(outcome.fell_back),
    }


def _unmet_rows(outcome: StageOutcome) -> Iterable[dict[str, Any]]:
    return (
        {"stage": outcome.stage, "kind": u.kind, "element": u.element, "excess": u.excess, "limit": f"{u.limit:g}"}
        for u in outcome.unmet
    )


def _excluded_rows(outcome: StageOutcome, offered_kw: Mapping[str, float]) -> Iterable[dict[str, Any]]:
    return (
        {"stage": outcome.stage, "bid": bid, "offered_kw": offered_kw[bid], "reason": reason}
        for bid, reason in outcome.excluded.items()
    )


def _light_rows(outcome: StageOutcome) -> Iterable[dict[str, Any]]:
    return (
        {
            "perimeter": light.perimeter,
            "direction": light.direction.value,
            "colour": light.colour.value,
            "cap_kw": light.cap_kw,
            "registered_kw": light.registered_kw,
            "limit": light.limit,
        }
        for light in outcome.lights
    )
