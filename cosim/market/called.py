"""Calls whose MTUs are not over, and baselines of the PODs called in an MTU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

from cosim.domain.market import Direction
from cosim.domain.settlement import Call, Period

TRUTH = "model"
"""The method that knows what a POD would have drawn without activation."""


@dataclass(frozen=True)
class Ordered:
    """A call, and when it was ordered [s]."""

    order_s: int
    call: Call

    def end_s(self, mtu_s: int) -> int:
        """When the last MTU of its award ends."""
        return self.call.award.t_s + len(self.call.award.quantity_kw) * mtu_s

    def in_mtu(self, t_s: int, mtu_s: int) -> bool:
        """Whether the MTU from ``t_s`` on is one of its award's."""
        return self.call.award.t_s <= t_s < self.end_s(mtu_s)


@dataclass(frozen=True)
class Believed:
    """Baselines of the PODs called in an MTU, in columns (n_called,): by method, NaN where it lacks something, the
    method that each is paid by, and the net rise of its injection that was ordered, all [kW]."""

    pods: tuple[str, ...] = ()
    baseline_kw: Mapping[str, Sequence[float]] = field(default_factory=dict)
    paid: tuple[str, ...] = ()
    ordered_kw: tuple[float, ...] = ()

    def rows(self, t_s: int) -> list[dict[str, Any]]:
        """One for each POD and method that has what it needs. ``bias_kw``: how far the baseline is from what the POD
        would have drawn without activation, NaN where that is not known."""
        return [
            {
                "pod": pod,
                "method": method,
                "baseline_kw": baseline_kw[k],
                "bias_kw": baseline_kw[k] - self.baseline_kw[TRUTH][k],
                "ordered_kw": self.ordered_kw[k],
                "paid": float(method == self.paid[k]),
                "t_s": t_s,
            }
            for k, pod in enumerate(self.pods)
            for method, baseline_kw in self.baseline_kw.items()
            if not isnan(baseline_kw[k])
        ]


def by_pod(calls: Sequence[Ordered], period: Period) -> dict[str, tuple[int, float]]:
    """PODs of which something was ordered: when first [s], and the net rise of injection [kW]."""
    found: dict[str, tuple[int, float]] = {}
    for each in calls:
        t = (period.t_s - each.call.award.t_s) // period.mtu_s
        for pod, kw in each.call.ordered_kw:
            if kw[t] > 0.0:
                order_s, net_kw = found.get(pod, (each.order_s, 0.0))
                rise_kw = kw[t] if each.call.direction is Direction.UP else -kw[t]
                found[pod] = min(order_s, each.order_s), net_kw + rise_kw
    return found
