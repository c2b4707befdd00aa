"""The distribution system operator: what it expects of the next market time units, and which limits that breaks."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from cosim.domain.frames import PASSIVE_SIGN, EventTable, Floats, Message, Signal, frozen
from cosim.domain.site import site_sums
from cosim.flexibility.pod_forecast import pods_of_sites
from cosim.market.session import LocalMarket, Situation
from simulators._base import Adapter, Inputs, Output
from simulators._network import NETWORKS_KEPT, FeederModels

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


class Dso(Adapter):
    """Models ``forecast``: what PODs draw in the next MTU without what is still to be bought, with half-bands;
    ``need``; ``request`` to the market: the situations for which it is to buy flexibility."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {
        "estimate": ("p_kw", "q_kvar"),
        "plan": ("p_kw", "q_kvar"),
        "control": ("position",),
        "declaration": ("sessions",),
    }

    def build(self) -> dict[str, tuple[Output, ...]]:
        case = self.case
        self._models = FeederModels(case)
        self._market = LocalMarket(
            case.market_config, lru_cache(NETWORKS_KEPT)(self._models.at), case.pod_kinds, case.clock.mtu_s
        )
        self._sums = site_sums(case.pod_sites)
        pods, sign = case.pods, PASSIVE_SIGN
        return {
            "forecast": (
                Signal("p_kw", "kW", "expected for the next MTU, with what is declared and sold", "pod", pods, sign),
                Signal("q_kvar", "kvar", "the same of reactive power", "pod", pods, sign),
                Signal("half_p_kw", "kW", "half-band of its error", "pod", pods),
                Signal("half_q_kvar", "kvar", "half-band of its error", "pod", pods),
            ),
            "need": (NEEDS,),
            "request": (Message("situations", "schedules for which flexibility is wanted"),),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        next_s = t_s + self.case.clock.step_s
        situations = [self._situation(each, next_s, inputs) for each in inputs["declaration", "sessions"]]
        rows: list[dict[str, Any]] = []
        wanted = []
        expected = (frozen(np.full(len(self.case.pods), np.nan)),) * 4
        for situation in situations:
            found = self._needs(t_s, situation)
            rows += found
            if found:
                wanted.append(_as_request(situation))
            if situation.t_s == next_s:
                expected = (situation.p_kw[0], situation.q_kvar[0], situation.half_p_kw[0], situation.half_q_kvar[0])
        names = ("p_kw", "q_kvar", "half_p_kw", "half_q_kvar")
        return {("forecast", name): value for name, value in zip(names, expected, strict=True)} | {
            ("need", NEEDS.name): rows,
            ("request", "situations"): wanted,
        }

    def close(self) -> None:
        self._models.close()

    def _situation(self, declared: dict[str, Any], next_s: int, inputs: Inputs) -> Situation:
        """The schedule of a session: profiles as expected, and what is declared and sold already."""
        begin_s, more_p, more_q = int(declared["t_s"]), np.asarray(declared["p_kw"]), np.asarray(declared["q_kvar"])
        forecast = self.case.expected(begin_s, len(more_p), self._now(begin_s, inputs) if begin_s == next_s else None)
        return Situation(
            t_s=begin_s,
            p_kw=frozen(forecast.p_kw + more_p),
            q_kvar=frozen(forecast.q_kvar + more_q),
            half_p_kw=forecast.half_p_kw,
            half_q_kvar=forecast.half_q_kvar,
            position=tuple(inputs["control", "position"].tolist()),
        )

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
            for found in self._market.foreseen(situation)
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
