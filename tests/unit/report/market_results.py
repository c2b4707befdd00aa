"""A result of a market over two local days, eight market time units (MTUs) of two steps of three hours each, small
enough to work out by hand.

Head at S; Line.L1 from S to A, Line.L2 from A to B, Line.L3 from A to C. Resources: shed (A.load, 0.5 kvar/kW), sun
(B.pv), store (C.battery, 0.2 kvar/kW). Profiles: A.load 100 kW and 50 kvar, B.pv -200 kW, C.battery 0; forecasts are
right and half-bands 10 kW, 5 kvar, 20 kW but where an MTU says otherwise:

0  violation of Line.L2@A, which no session looked at
1  B.pv injects 30 kW more than expected: violation of Line.L2@A in the second step
2  sun is to give up 40 kW and cannot be reached: violation of Line.L2@A
3  sun is to give up 60 kW, which the plan knows not to be enough: violation of Line.L2@A
4  a tap moves in the second step: voltage of B.1 below its limit
5  nothing, and yet a violation of Line.L2@A
6  shed 20 kW, of which 1 kW is missing in the second step; store discharges 50 kW around a declared 10 kW
7  nothing
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cosim.clock import Clock
from cosim.domain.frames import EventTable, Signal
from cosim.io.store import ResultWriter
from simulators.aggregator import ORDERS
from simulators.dso import NEEDS
from simulators.market import AWARDS, UNSOLVED

STEP_S, MTU_S, STEPS = 10800, 21600, 16
CLOCK = Clock(datetime(2016, 7, 21, 23, tzinfo=UTC), step_s=STEP_S, steps=STEPS, mtu_s=MTU_S)
PODS, RESOURCES = ("A.load", "B.pv", "C.battery"), ("shed", "sun", "store")
KVAR_PER_KW = np.array([0.5, 0.0, 0.2])
P_KW, Q_KVAR = np.array([100.0, -200.0, 0.0]), np.array([50.0, 0.0, 0.0])
HALF_KW, HALF_KVAR = np.array([10.0, 20.0, 0.0]), np.array([5.0, 0.0, 0.0])
TERMINALS = ("Line.L1@S", "Line.L1@A", "Line.L2@A", "Line.L2@B", "Line.L3@A", "Line.L3@C")
VIOLATIONS = {"t_s": "s", "element": None, "phase": "1", "quantity": None, "value": "1", "limit": "1", "excess": "1"}
LIMIT_A = 100.0

SCENARIO: dict[str, Any] = {
    "name": "market",
    "start": "2016-07-22T00:00:00+01:00",
    "duration": "2d",
    "step": "3h",
    "mtu": "6h",
    "operator": {"enabled": False},
    "resources": {
        "shed": {"load": {"curtailable": 0.5}, "delivery": {"planned": 0.0}},
        "sun": {"pv": {"curtailable": 1.0}},
        "store": {"battery": {"p_max_kw": 100.0}},
    },
    "dso": {"forecast": {"method": "corrected", "coverage": 0.9}},
    "market": {"uncertainty": {"set": "box", "reactive": "independent"}, "pricing": "pay_as_clear"},
}


@dataclass
class Step:
    """What is recorded of a step but what follows from it."""

    extra_kw: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(3))
    declared_kw: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(3))
    ordered_kw: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(3))
    short_kw: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(3))
    current_a: float = 80.0
    idle_a: float = 80.0
    vm_pu: float = 1.0
    tap: float = 1.0


def steps() -> list[Step]:
    """All steps, as told above."""
    course = [Step() for _ in range(STEPS)]
    for step in (0, 1):
        course[step].current_a = course[step].idle_a = 103.0
    course[3].extra_kw[1] = -30.0
    course[3].current_a = course[3].idle_a = 110.0
    for step in (4, 5, 6, 7):
        course[step].ordered_kw[1] = 40.0 if step < 6 else 60.0
        course[step].current_a, course[step].idle_a = 120.0, (120.0 if step < 6 else 150.0)
        course[step].short_kw[1] = 40.0 if step < 6 else 0.0
    course[9].vm_pu = 0.945
    for step in range(9, STEPS):
        course[step].tap = 0.975
    course[10].current_a = course[10].idle_a = 100.5
    for step in (12, 13):
        course[step].declared_kw[2] = 10.0
        course[step].ordered_kw[:] = -20.0, 0.0, -50.0
    course[13].short_kw[0] = -1.0
    course[13].extra_kw[:] = 2.0, 0.0, 0.0
    return course


def market_file(
    path: Path,
    scenario: dict[str, Any] | None = None,
    without: bool = True,
    recorded: int = STEPS,
    ordered: bool = False,
) -> Path:
    """The result, with a counterfactual or not, of a run that was interrupted after so many steps; the tap moves by
    itself, or because the operator ``ordered`` it two steps before."""
    attributes = {
        "scenario": json.dumps(SCENARIO | (scenario or {})),
        "pod_sites": json.dumps({"A.load": "A", "B.pv": "B", "C.battery": "C"}),
        "storage": "[]",
        "buses_above": "[]",
    }
    with ResultWriter(path, CLOCK, STEPS, "none", attributes) as writer:
        _declare(writer, without)
        if ordered:
            measure = Signal("position", "1", "ordered position", "measure", ("Transformer.T",))
            writer.declare("dso", "measure", [measure])
        writer.start()
        for number, step in enumerate(steps()[:recorded]):
            _write(writer, number, step, without)
            if ordered:
                writer.write(number, "dso", "measure", "position", [steps()[min(number + 2, STEPS - 1)].tap])
            writer.end_step(number)
        writer.finish("complete" if recorded == STEPS else "interrupted")
    return path


def _declare(writer: ResultWriter, without: bool) -> None:
    powers = (("p_kw", "kW"), ("q_kvar", "kvar"))

    def pods(prefix: str = "") -> list[Signal]:
        return [Signal(prefix + name, unit, "power", "pod", PODS) for name, unit in powers]

    for simulator in ("grid", "counterfactual") if without else ("grid",):
        writer.declare(simulator, "pod", pods())
        terminals = [
            Signal(name, unit, "of a branch", "terminal", TERMINALS) for name, unit in (("p_kw", "kW"), ("i_a", "A"))
        ]
        writer.declare(simulator, "terminal", terminals)
        writer.declare(simulator, "bus", [Signal("vm_pu", "pu", "voltage", "node", ("A.1", "B.1"))])
        writer.declare(simulator, "head", [Signal("p_kw", "kW", "head", "feeder", ("demo",))])
        writer.declare_events(simulator, EventTable("violations", "violations", VIOLATIONS))
    writer.declare("grid", "control", [Signal("position", "1", "tap", "control", ("Transformer.T", "Capacitor.C"))])
    writer.declare("aggregator", "pod", [*pods(), *pods("free_"), *pods("planned_")])
    of_resource = [Signal(name, "kW", name, "resource", RESOURCES) for name in ("p_kw", "free_p_kw", "ordered_kw")]
    writer.declare("aggregator", "resource", of_resource)
    writer.declare_events("aggregator", ORDERS)
    writer.declare("dso", "forecast", [*pods(), *pods("half_")])
    writer.declare_events("dso", NEEDS)
    names = (("cost_eur", "EUR"), ("bought_kw", "kW"), ("unsolved_kw", "kW"), ("rounds", "1"))
    writer.declare("market", "session", [Signal(name, unit, name, "feeder", ("demo",)) for name, unit in names])
    writer.declare_events("market", AWARDS)
    writer.declare_events("market", UNSOLVED)


def _write(writer: ResultWriter, number: int, step: Step, without: bool) -> None:
    planned_kw = step.declared_kw + step.ordered_kw
    added_kw = planned_kw - step.short_kw
    drawn_kw, drawn_kvar = P_KW + step.extra_kw, Q_KVAR.copy()
    _pods(writer, number, "grid", "", drawn_kw + added_kw, drawn_kvar + KVAR_PER_KW * added_kw)
    _pods(writer, number, "aggregator", "", added_kw, KVAR_PER_KW * added_kw)
    _pods(writer, number, "aggregator", "planned_", planned_kw, KVAR_PER_KW * planned_kw)
    _pods(writer, number, "aggregator", "free_", step.declared_kw, KVAR_PER_KW * step.declared_kw)
    own_kw = np.array([*drawn_kw[:2], 0.0])
    writer.write(number, "aggregator", "resource", "p_kw", own_kw + added_kw)
    writer.write(number, "aggregator", "resource", "free_p_kw", own_kw + step.declared_kw)
    writer.write(number, "aggregator", "resource", "ordered_kw", step.ordered_kw)
    _grid(writer, number, "grid", drawn_kw + added_kw, step.current_a, step.vm_pu)
    if without:
        _pods(writer, number, "counterfactual", "", drawn_kw + step.declared_kw, drawn_kvar)
        _grid(writer, number, "counterfactual", drawn_kw + step.declared_kw, step.idle_a, 1.0)
    writer.write(number, "grid", "control", "position", [step.tap, 0.0])
    _forecast(writer, number)
    _events(writer, number, step)


def _pods(writer: ResultWriter, number: int, simulator: str, prefix: str, p_kw: Any, q_kvar: Any) -> None:
    writer.write(number, simulator, "pod", f"{prefix}p_kw", p_kw)
    writer.write(number, simulator, "pod", f"{prefix}q_kvar", q_kvar)


def _grid(writer: ResultWriter, number: int, simulator: str, pod_kw: Any, current_a: float, vm_pu: float) -> None:
    head, (_, b, c) = float(pod_kw.sum()), pod_kw
    writer.write(number, simulator, "head", "p_kw", [head])
    writer.write(number, simulator, "terminal", "p_kw", [head, -head, b, -b, c, -c])
    writer.write(number, simulator, "terminal", "i_a", [50.0, 50.0, current_a, current_a, 1.0, 1.0])
    writer.write(number, simulator, "bus", "vm_pu", [1.0, vm_pu])
    t_s = float(number * STEP_S)
    if current_a > LIMIT_A:
        excess = current_a - LIMIT_A
        row = {
            "t_s": t_s,
            "element": "Line.L2@A",
            "phase": 1.0,
            "quantity": "i_a",
            "value": current_a,
            "limit": LIMIT_A,
        }
        writer.append_event(simulator, "violations", row | {"excess": excess})
    if vm_pu < 0.95:
        row = {"t_s": t_s, "element": "B", "phase": 1.0, "quantity": "vm_pu", "value": vm_pu, "limit": 0.95}
        writer.append_event(simulator, "violations", row | {"excess": 0.95 - vm_pu})
    near = {"t_s": t_s, "element": "Line.L3@A", "phase": 1.0, "quantity": "i_a", "value": 10.0005, "limit": 10.0}
    writer.append_event(simulator, "violations", near | {"excess": 0.0005})  # too little to count


def _forecast(writer: ResultWriter, number: int) -> None:
    """In the last step of an MTU, for the next one: the profiles and what is declared, but not what is bought then."""
    closes = number % 2 == 1 and number < STEPS - 1
    ahead = steps()[number + 1] if closes else Step()
    added_kw = ahead.declared_kw
    missing = 0.0 if closes else np.nan
    _forecasts = {"p_kw": P_KW + added_kw, "q_kvar": Q_KVAR + KVAR_PER_KW * added_kw}
    _forecasts |= {"half_p_kw": HALF_KW, "half_q_kvar": HALF_KVAR}
    for name, values in _forecasts.items():
        writer.write(number, "dso", "forecast", name, values + missing)


def _events(writer: ResultWriter, number: int, step: Step) -> None:
    t_s, begins = float(number * STEP_S), number % 2 == 0
    for k, name in enumerate(RESOURCES):
        if begins and step.ordered_kw[k]:
            row = {
                "resource": name,
                "pod": PODS[k],
                "change_kw": step.ordered_kw[k],
                "baseline_kw": step.declared_kw[k],
            }
            writer.append_event("aggregator", ORDERS.name, {"t_s": t_s, **row, "reached": float(number != 4)})
    cleared = not begins and number < STEPS - 1 and bool(steps()[number + 1].ordered_kw.any())
    for name in ("cost_eur", "bought_kw", "unsolved_kw"):
        writer.write(number, "market", "session", name, [0.0])
    writer.write(number, "market", "session", "rounds", [2.0 * cleared])
    if cleared:
        _session(writer, t_s, steps()[number + 1].ordered_kw)


def _session(writer: ResultWriter, gate_s: float, ordered_kw: Any) -> None:
    t_s = gate_s + STEP_S
    for worst_a, end in ((130.0, "A"), (125.0, "B")):
        row = {"kind": "i_max", "element": f"Line.L2@{end}.1", "expected": 95.0, "worst": worst_a, "limit": LIMIT_A}
        writer.append_event("dso", NEEDS.name, {"t_s": t_s, **row, "gate_s": gate_s})
    for name, kw in zip(RESOURCES, ordered_kw, strict=True):
        if kw:
            direction = "down" if kw > 0.0 else "up"
            row = {"bid": f"agg/{direction}/{name}/{t_s:.0f}", "seller": "agg", "buyer": "dso", "direction": direction}
            prices = {"price_eur_per_kwh": 0.3, "bid_price_eur_per_kwh": 0.2 if name == "shed" else 0.1}
            writer.append_event(
                "market", AWARDS.name, {"t_s": t_s, **row, "quantity_kw": abs(kw), **prices, "gate_s": gate_s}
            )
    if t_s == 3 * MTU_S:
        row = {"kind": "i_max", "element": "Line.L2@B.1", "excess": 25.0, "limit": LIMIT_A}
        writer.append_event("market", UNSOLVED.name, {"t_s": t_s, **row, "gate_s": gate_s})
        writer.append_event("market", UNSOLVED.name, {"t_s": MTU_S * 5.0, **row, "gate_s": 0.0})  # by an earlier plan
