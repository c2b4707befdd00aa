"""The distribution system operator: what it expects of the next market time units, and which limits that breaks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from cosim.coordination.case import Area
from cosim.coordination.in_run import in_area, matrix_of
from cosim.coordination.telling import Own
from cosim.domain.frames import PASSIVE_SIGN, EventTable, Floats, Message, Signal, frozen
from cosim.domain.site import site_sums
from cosim.flexibility.pod_forecast import FROM_PRESENT, PowerForecast, pods_of_sites, widened
from cosim.market.grid_side import MeasureChoice
from cosim.market.session import Book, Situation
from simulators._base import Adapter, Inputs, Output
from simulators._book import book_of
from simulators._network import network_of
from simulators._party import GATE, INBOX, Voice
from simulators._system import agreed, interfaces, rules

_log = logging.getLogger(__name__)

NEEDS = EventTable(
    "needs",
    "limits that the schedule for an MTU does not keep with all forecast errors",
    {
        "t_s": "s",
        "kind": None,
        "element": None,
        "expected": "pu or A",
        "worst": "pu or A",
        "limit": "pu or A",
        "gate_s": "s",
    },
)
MEASURES = EventTable(
    "measures",
    "moves of the operator's own taps, capacitors and switches, from an MTU on; excess: that all limits keep there "
    "without flexibility and with all forecast errors",
    {
        "t_s": "s",
        "measure": None,
        "element": None,
        "position": "1",
        "moves": "1",
        "cost_eur": "EUR",
        "excess": "pu",
        "gate_s": "s",
    },
)


@dataclass(frozen=True)
class DsoMemory:
    """Moves made on the local day ``day``, by measure."""

    day: str = ""
    moved: Mapping[str, int] = field(default_factory=dict)


class Dso(Adapter):
    """Models ``forecast``: what PODs draw in the next MTU without what is still to be bought, with half-bands;
    ``need``; ``measure``: where its own taps, capacitors and switches are to be in the next MTU; ``request`` to the
    market: the situations for which it is to buy flexibility.

    Measures are chosen at real-time gates, and stay where they are in between."""

    memory: DsoMemory = DsoMemory()

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {
        "estimate": ("p_kw", "q_kvar", "sigma_p_kw"),
        "plan": ("p_kw", "q_kvar"),
        "control": ("position",),
        "declaration": ("sessions",),
        "book": ("sessions",),
        "gate": GATE,
        "inbox": INBOX,
    }

    def build(self) -> dict[str, tuple[Output, ...]]:
        case = self.case
        self._network = network_of(case)
        self._voice = Voice(case, "dso") if "dso" in case.parties else None
        self.answers = () if self._voice is None else ("inbox",)
        self._snapshots = tuple(self._network.snapshot(case.area, *powers) for powers in case.design_powers)
        self._sums = site_sums(case.pod_sites)
        self._resources = {unit.resource.id: unit.resource for unit in case.portfolio}
        self._placed, self._rules, config = in_area(case.area, self._resources), rules(case), case.scenario.coordination
        self._matrix = matrix_of(case.area, self._placed, "" if config is None else config.tso_perimeter)
        pods, sign = case.pods, PASSIVE_SIGN
        names = tuple(measure.name for measure in case.measures)
        alone = case.scheme is None
        ordered = Signal("position", "1", "position of a measure ordered for the next step", "measure", names)
        return {
            "forecast": (
                Signal("p_kw", "kW", "expected for the next MTU, with what is declared and sold", "pod", pods, sign),
                Signal("q_kvar", "kvar", "the same of reactive power", "pod", pods, sign),
                Signal("half_p_kw", "kW", "half-band of its error", "pod", pods),
                Signal("half_q_kvar", "kvar", "half-band of its error", "pod", pods),
            ),
            "need": (NEEDS,),
            **({"request": (Message("situations", "schedules for which flexibility is wanted"),)} if alone else {}),
            **(self._voice.outputs() if self._voice is not None else {}),
            **({"measure": (ordered, MEASURES)} if case.measures else {}),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        if self._voice is None:
            return self._expect(t_s, inputs)[0]
        if self._voice.begins(t_s):
            self._outlook, situation = self._expect(t_s, inputs)
            self._voice.open(None if situation is None else self._own(situation))
        self._voice.hear(inputs)
        return self._outlook | self._voice.given()

    def ended(self) -> None:
        if self._voice is not None:
            self._voice.ended()

    def _expect(self, t_s: int, inputs: Inputs) -> tuple[dict[tuple[str, str], Any], Situation | None]:
        """What it expects and asks for, and the situation in the next MTU, if a gate closes."""
        next_s = t_s + self.case.clock.step_s
        situations = [self._situation(each, next_s, inputs) for each in inputs["declaration", "sessions"]]
        rows: list[dict[str, Any]] = []
        moves: list[dict[str, Any]] = []
        wanted = []
        position, of_next = inputs["control", "position"], None
        expected = (frozen(np.full(len(self.case.pods), np.nan)),) * 4
        for situation in situations:
            found = self._needs(t_s, situation)
            rows += found
            if found and self.case.measures and situation.t_s == next_s:
                choice, situation = self._chosen(t_s, situation, inputs)
                moves = self._moves(t_s, next_s, choice)
                position, found = frozen(situation.position), self._needs(t_s, situation)
            if found or self.case.needs(t_s, situation.t_s, len(situation.p_kw)):
                wanted.append(_as_request(situation))
            if situation.t_s == next_s:
                of_next = situation
                expected = (situation.p_kw[0], situation.q_kvar[0], situation.half_p_kw[0], situation.half_q_kvar[0])
        names = ("p_kw", "q_kvar", "half_p_kw", "half_q_kvar")
        of_measures = position[len(position) - len(self.case.measures) :]
        outputs = {("forecast", name): value for name, value in zip(names, expected, strict=True)} | {
            ("need", NEEDS.name): rows,
            ("request", "situations"): wanted,
            ("measure", "position"): of_measures,
            ("measure", MEASURES.name): moves,
        }
        return outputs, of_next

    def _own(self, situation: Situation) -> Own:
        """What it knows at the gate: its network in the situation, and the resources in it."""
        case, terms = self.case, agreed(self.case)
        area = Area(
            case.area,
            interfaces(case)[case.area],
            self._network.area(case.area, situation),
            self._matrix,
            terms.change_kw,
            terms.tolerance_kw,
            terms.price_eur_per_kwh,
            self._snapshots,
        )
        return Own(
            situation.t_s,
            case.clock.mtu_s,
            self._rules,
            areas={case.area: area},
            resources=self._placed,
            schedule_kw={case.area: terms.change_kw},
        )

    def _situation(self, declared: dict[str, Any], next_s: int, inputs: Inputs) -> Situation:
        """The schedule of a session: profiles as expected, and what is declared and sold already."""
        begin_s, more_p, more_q = int(declared["t_s"]), np.asarray(declared["p_kw"]), np.asarray(declared["q_kvar"])
        forecast = self._expected(begin_s, len(more_p), begin_s == next_s, inputs)
        return Situation(
            t_s=begin_s,
            p_kw=frozen(forecast.p_kw + more_p),
            q_kvar=frozen(forecast.q_kvar + more_q),
            half_p_kw=forecast.half_p_kw,
            half_q_kvar=forecast.half_q_kvar,
            position=tuple(inputs["control", "position"].tolist()),
        )

    def _expected(self, begin_s: int, n_mtu: int, follows: bool, inputs: Inputs) -> PowerForecast:
        """The profiles in the MTUs from ``begin_s`` on; if they follow the present, by the estimate of it."""
        config = self.case.scenario.dso.forecast
        if not follows or config.method not in FROM_PRESENT:
            return self.case.expected(begin_s, n_mtu, None)
        forecast = self.case.expected(begin_s, n_mtu, self._now(begin_s, inputs))
        return widened(forecast, inputs["estimate", "sigma_p_kw"], self._sums, config.coverage)

    def _now(self, begin_s: int, inputs: Inputs) -> tuple[Floats, Floats]:
        """What the profiles of PODs draw by the estimate, without what was declared and sold: on a state that already
        holds its awards the market would undo them."""
        mtu = begin_s // self.case.clock.mtu_s - 1
        usual = self.case.expected(mtu * self.case.clock.mtu_s, 1, None)
        p_kw = inputs["estimate", "p_kw"] - inputs["plan", "p_kw"] @ self._sums
        q_kvar = inputs["estimate", "q_kvar"] - inputs["plan", "q_kvar"] @ self._sums
        return pods_of_sites(
            (p_kw, q_kvar),
            (usual.p_kw[0], usual.q_kvar[0]),
            (usual.half_p_kw[0], usual.half_q_kvar[0]),
            self._sums,
        )

    def _chosen(self, t_s: int, situation: Situation, inputs: Inputs) -> tuple[MeasureChoice, Situation]:
        """Where the measures go for the next MTU, and the situation then."""
        case, mode = self.case, self.case.scenario.dso.measures_mode
        day = case.scenario.local(case.clock.instant(situation.t_s)).date().isoformat()
        moved = dict(self.memory.moved) if self.memory.day == day else {}
        book = Book()
        if mode == "with":
            offered = {session["t_s"]: session for session in inputs["book", "sessions"]}
            book = book_of(offered[situation.t_s], case.needs(t_s, situation.t_s, len(situation.p_kw)))
        choice, after = self._network.market.choose(
            situation, case.measures, mode, self._network.allows, moved, book, self._resources
        )
        if choice.unseen_from_eur is not None:
            _log.warning("measures for the MTU at %d s: not all combinations looked at", situation.t_s)
        for name, n in choice.moves.items():
            moved[name] = moved.get(name, 0) + n
        self.memory = DsoMemory(day, moved)
        return choice, after

    def _moves(self, t_s: int, next_s: int, choice: MeasureChoice) -> list[dict[str, Any]]:
        return [
            {
                "t_s": next_s,
                "measure": measure.name,
                "element": measure.element,
                "position": float(choice.positions[measure.name]),
                "moves": float(choice.moves[measure.name]),
                "cost_eur": measure.eur_per_move * choice.moves[measure.name],
                "excess": choice.excess_pu,
                "gate_s": t_s,
            }
            for measure in self.case.measures
            if measure.name in choice.moves
        ]

    def _needs(self, t_s: int, situation: Situation) -> list[dict[str, Any]]:
        mtu_s = self.case.clock.mtu_s
        return [
            {
                "t_s": situation.t_s + found.mtu * mtu_s,
                "kind": found.kind,
                "element": found.element,
                "expected": found.expected,
                "worst": found.worst,
                "limit": found.limit,
                "gate_s": t_s,
            }
            for found in self._network.market.foreseen(situation)
        ]


def _as_request(situation: Situation) -> dict[str, Any]:
    return {
        "t_s": situation.t_s,
        "p_kw": situation.p_kw,
        "q_kvar": situation.q_kvar,
        "half_p_kw": situation.half_p_kw,
        "half_q_kvar": situation.half_q_kvar,
        "position": list(situation.position),
    }
