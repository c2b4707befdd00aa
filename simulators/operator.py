"""The operator: indicators from the estimated state, and orders to storage by thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cosim.domain.frames import HEAD_SIGN, EventTable, Floats, Signal, frozen
from cosim.flexibility.thresholds import after, decide
from simulators._base import Adapter, Inputs, Output

ORDERS = EventTable(
    "orders",
    "orders given to storage: MTU for which they hold, power, and the head power without orders that led to them",
    {"t_s": "s", "pod": None, "p_kw": "kW", "head_idle_p_kw": "kW"},
)


@dataclass(frozen=True)
class OperatorMemory:
    """``p_kw`` (n_storage,) is ordered for the MTU at whose beginning ``e_kwh`` (n_storage,) is stored."""

    p_kw: Floats
    e_kwh: Floats


class Operator(Adapter):
    """Model ``order``: p_kw (n_storage,) in force from the next step on (action next) or in this one (same);
    ``indicator``: head power and reverse flow as the operator sees them; table of orders."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {"head": ("p_kw", "idle_p_kw")}

    def build(self) -> dict[str, tuple[Output, ...]]:
        case = self.case
        self._thresholds_kw = np.array([self.options["thresholds_kw"].get(unit.pod, -np.inf) for unit in case.storage])
        self.memory = OperatorMemory(frozen(np.zeros(len(case.storage))), case.initial_kwh)
        units, feeder = tuple(unit.pod for unit in case.storage), (case.feeder.name,)
        return {
            "order": (
                Signal("p_kw", "kW", "ordered power", "storage", units, "charging > 0, discharging < 0"),
                Signal("threshold_kw", "kW", "head power below which a unit charges", "storage", units, HEAD_SIGN),
                ORDERS,
            ),
            "indicator": (
                Signal("head_p_kw", "kW", "head power as estimated", "feeder", feeder, HEAD_SIGN),
                Signal("reverse_flow_kw", "kW", "reverse power flow as estimated, 0 if none", "feeder", feeder),
            ),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        head_kw, idle_kw = inputs["head", "p_kw"], inputs["head", "idle_p_kw"]
        rows = self._decide(t_s, idle_kw) if self._gate_opens(t_s) else []
        return {
            ("order", "p_kw"): self.memory.p_kw,
            ("order", "threshold_kw"): frozen(self._thresholds_kw),
            ("order", ORDERS.name): rows,
            ("indicator", "head_p_kw"): head_kw,
            ("indicator", "reverse_flow_kw"): frozen(np.maximum(-head_kw, 0.0)),
        }

    def _gate_opens(self, t_s: int) -> bool:
        """An order for the next MTU is decided in the last step before it, one for the same MTU in its first step."""
        config, clock = self.case.scenario.operator, self.case.clock
        acts_at_s = t_s + clock.step_s if config.action == "next" else t_s
        return config.enabled and bool(self.case.storage) and clock.begins_mtu(acts_at_s)

    def _decide(self, t_s: int, idle_kw: Floats) -> list[dict[str, Any]]:
        case, config, clock = self.case, self.case.scenario.operator, self.case.clock
        acts_at_s = t_s + clock.step_s if config.action == "next" else t_s
        passed_s = clock.mtu_s if acts_at_s > 0 else 0
        e_kwh = after(case.storage, self.memory.p_kw, self.memory.e_kwh, passed_s)
        local = case.scenario.local(clock.instant(acts_at_s)).time()
        p_kw = decide(case.storage, self._thresholds_kw, config.discharge, idle_kw[0], e_kwh, local, clock.mtu_s)
        self.memory = OperatorMemory(frozen(p_kw), frozen(e_kwh))
        return [
            {"t_s": acts_at_s, "pod": unit.pod, "p_kw": float(p), "head_idle_p_kw": float(idle_kw[0])}
            for unit, p in zip(case.storage, p_kw, strict=True)
            if p != 0.0
        ]
