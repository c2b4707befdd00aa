"""A result file of two local days with four steps of six hours each, small enough to work out by hand.

Head with orders -100 0 50 100 | -300 -40 nan 20 kW, without -100 0 50 100 | -500 -40 nan 60 kW. One battery charges
200 kW in step 4 and gives 40 kW in step 7. Site B is unmetered; its truth is load + battery.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cosim.clock import Clock
from cosim.domain.frames import EventTable, Signal
from cosim.io.store import ResultWriter, Status

CLOCK = Clock(datetime(2016, 7, 21, 23, tzinfo=UTC), step_s=21600, steps=8, mtu_s=21600)
HEAD_KW = (-100.0, 0.0, 50.0, 100.0, -300.0, -40.0, np.nan, 20.0)
IDLE_KW = (-100.0, 0.0, 50.0, 100.0, -500.0, -40.0, np.nan, 60.0)
BATTERY_KW = (0.0, 0.0, 0.0, 0.0, 200.0, 0.0, 0.0, -40.0)
STORED_KWH = (50.0, 50.0, 50.0, 50.0, 50.0, 1130.0, 1130.0, 1130.0)
B_KW = (10.0, 10.0, 10.0, 10.0, 210.0, 10.0, 10.0, -30.0)
WLS_KW = (12.0, 10.0, 10.0, 6.0, 210.0, 10.0, np.nan, -30.0)
NASTY = "<b>&\"'$x_1$\N{CJK UNIFIED IDEOGRAPH-7535}"
"""A name that is markup to HTML, mathematics to matplotlib, and not in its fonts."""

SCENARIO: dict[str, Any] = {
    "name": "demo",
    "description": "two days <i>in</i> July",
    "start": "2016-07-22T00:00:00+01:00",
    "duration": "2d",
    "step": "6h",
    "estimator": {"method": "wls", "compare": ["history"]},
}
STORAGE = {
    "pod": "B.battery",
    "p_max_kw": 200.0,
    "e_max_kwh": 2000.0,
    "reserve_kwh": 50.0,
    "charge_efficiency": 0.9,
    "discharge_efficiency": 0.8,
    "idling_kw": 0.0,
}
PREPARED = {
    "thresholds_kw": {"B.battery": -290.0, "B.idle": None},
    "sized": {"head_min_kw": -295.0, "head_min_idle_kw": -500.0, "bound_head_min_kw": -280.0},
    "day": "2016-07-23",
    "head_min_kw": -298.0,
    "head_min_idle_kw": -500.0,
}
PLACE = {"bus": None, "branch": None, "end": None, "storage": None, "phase": None}
CHANNELS = [
    {"meter": "MA", "topic": "sub/1/p_kw", "quantity": "p_kw", "place": PLACE | {"bus": "A"}, "sigma": 1.0},
    {"meter": "MA", "topic": "sub/1/vm_pu", "quantity": "vm_pu", "place": PLACE | {"bus": "A"}, "sigma": 0.1},
    {"meter": "HEAD", "topic": "pri/0/p_kw", "quantity": "p_kw", "place": PLACE | {"branch": "L"}, "sigma": 1.0},
]
TOPICS = tuple(str(channel["topic"]) for channel in CHANNELS)
MISSING_AT, LATE_AT = 2, 3
"""Steps at which sub/1/p_kw is missing and pri/0/p_kw late."""


def result_file(path: Path, status: Status = "complete", error: str = "", name: str = "demo") -> Path:
    """The whole result."""
    with _writer(path, name) as writer:
        _declare(writer)
        for step in range(CLOCK.steps):
            _write(writer, step)
        writer.finish(status, error)
    return path


def killed_file(path: Path, steps: int = 5) -> Path:
    """What is left of a run that was killed after ``steps`` steps."""
    with _writer(path.with_name(f"whole_{path.name}"), "demo") as writer:
        _declare(writer)
        writer.start()
        for step in range(steps):
            _write(writer, step)
        shutil.copy(writer.path, path)
        writer.finish("complete")
    return path


def bare_file(path: Path, steps: int = 3) -> Path:
    """A failed run of a feeder without storage, of which nothing but the head, the voltages and no attributes are
    there; ``steps`` may be 0."""
    with ResultWriter(path, CLOCK, 1, "none", {}) as writer:
        writer.declare("grid", "head", [Signal("p_kw", "kW", "head", "feeder", (NASTY,))])
        writer.declare("grid", "bus", [Signal("vm_pu", "pu", "voltage", "node", (f"{NASTY}.1", "_n.2"))])
        writer.declare("grid", "storage", [Signal("p_kw", "kW", "power", "storage", ())])
        writer.start()
        for step in range(steps):
            writer.write(step, "grid", "head", "p_kw", [np.nan])
            writer.write(step, "grid", "bus", "vm_pu", [np.nan, np.nan])
            writer.end_step(step)
        writer.finish("failed", f"power flow: {NASTY}")
    return path


def _writer(path: Path, name: str) -> ResultWriter:
    attributes = {
        "name": name,
        "scenario": json.dumps(SCENARIO | {"name": name}),
        "prepared": json.dumps(PREPARED),
        "storage": json.dumps([STORAGE]),
        "pod_sites": json.dumps({"A.load": "A", "B.load": "B", "B.battery": "B"}),
        "channels": json.dumps(CHANNELS),
        "versions": json.dumps({"cosim": "0.1.0"}),
        "feeder": NASTY,
        "seed": 7,
    }
    return ResultWriter(path, CLOCK, 1, "none", attributes)


def _declare(writer: ResultWriter) -> None:
    for simulator in ("grid", "counterfactual"):
        nodes, branches = ("A.1", f"{NASTY}.1"), ("Line.L", NASTY, "Line.unrated")
        head = [Signal(a, "kW", a, "feeder", ("demo",)) for a in ("p_kw", "loss_kw")]
        writer.declare(simulator, "head", head)
        writer.declare(simulator, "bus", [Signal("vm_pu", "pu", "voltage", "node", nodes)])
        writer.declare(simulator, "branch", [Signal("loading_pu", "pu", "loading", "branch", branches)])
        writer.declare(simulator, "pod", [Signal("p_kw", "kW", "power", "pod", ("A.load", "B.load", "B.battery"))])
        storage = [Signal("p_kw", "kW", "power", "storage", ("B.battery",))]
        writer.declare(simulator, "storage", [*storage, Signal("e_kwh", "kWh", "energy", "storage", ("B.battery",))])
        converged = Signal("converged", "1", "converged", "feeder", ("demo",), codes=("diverged", "converged"))
        writer.declare(simulator, "solution", [converged])
    for method in ("wls", "history"):
        writer.declare("estimator", method, [Signal("p_kw", "kW", "power", "site", ("A", "B"))])
    writer.declare("estimator", "head", [Signal("p_kw", "kW", "head", "feeder", ("demo",))])
    quality = Signal("quality", "1", "quality", "channel", TOPICS, codes=("good", "missing", "late"))
    value = Signal("value", "of the channel", "value", "channel", TOPICS)
    writer.declare("gateway", "snapshot", [value, quality])
    writer.declare("sensors", "reading", [value])
    writer.declare("operator", "order", [Signal("threshold_kw", "kW", "threshold", "storage", ("B.battery",))])
    columns = {"t_s": "s", "pod": None, "p_kw": "kW", "head_idle_p_kw": "kW"}
    writer.declare_events("operator", EventTable("orders", "orders", columns))
    writer.declare_events("sensors", EventTable("faults", "faults", {"t_s": "s", "topic": None, "fault": None}))


def _write(writer: ResultWriter, step: int) -> None:
    for simulator, head, battery in (("grid", HEAD_KW, BATTERY_KW), ("counterfactual", IDLE_KW, (0.0,) * 8)):
        solved = not np.isnan(head[step])
        writer.write(step, simulator, "head", "p_kw", [head[step]])
        writer.write(step, simulator, "head", "loss_kw", [2.0 if solved else np.nan])
        writer.write(step, simulator, "bus", "vm_pu", [1.01, 0.98 + 0.01 * step] if solved else [np.nan] * 2)
        writer.write(step, simulator, "branch", "loading_pu", [0.1, abs(head[step]) / 400.0, np.nan])
        writer.write(step, simulator, "pod", "p_kw", [5.0, 10.0, battery[step]])
        writer.write(step, simulator, "storage", "p_kw", [battery[step]])
        writer.write(step, simulator, "storage", "e_kwh", [STORED_KWH[step] if simulator == "grid" else 50.0])
        writer.write(step, simulator, "solution", "converged", [int(solved)])
    writer.write(step, "estimator", "wls", "p_kw", [5.0, WLS_KW[step]])
    writer.write(step, "estimator", "history", "p_kw", [5.0, B_KW[step] + 5.0])
    writer.write(step, "estimator", "head", "p_kw", [HEAD_KW[step] + 3.0])
    true = np.array([5.0, 1.0, 0.0])
    codes = [int(step == MISSING_AT), 0, 2 * int(step == LATE_AT)]
    writer.write(step, "sensors", "reading", "value", true)
    writer.write(step, "gateway", "snapshot", "quality", codes)
    writer.write(step, "gateway", "snapshot", "value", np.where(codes, np.nan, true + 0.5))
    writer.write(step, "operator", "order", "threshold_kw", [-290.0])
    if BATTERY_KW[step]:
        row = {"t_s": step * 21600.0, "pod": "B.battery", "p_kw": BATTERY_KW[step], "head_idle_p_kw": IDLE_KW[step]}
        writer.append_event("operator", "orders", row)
    if step in (MISSING_AT, LATE_AT):
        fault = "dropout" if step == MISSING_AT else "late"
        writer.append_event("sensors", "faults", {"t_s": step * 21600.0, "topic": "sub/1/p_kw", "fault": fault})
    writer.timing(step, {"grid": 0.25, "estimator": 0.75})
    writer.end_step(step)


def large_file(path: Path, steps: int = 1700, nodes: int = 620, many: int = 8) -> Path:
    """More steps, nodes, storage units, branches and sites than a figure shows one by one, all courses alike."""
    clock = Clock(datetime(2016, 1, 1, tzinfo=UTC), step_s=900, steps=steps, mtu_s=900)
    units, sites = tuple(f"unit{k}" for k in range(many)), tuple(f"site{k}" for k in range(many))
    scenario = SCENARIO | {"start": "2016-01-01T00:00:00Z", "step": "15min", "duration": f"{15 * steps}min"}
    attributes = {
        "scenario": json.dumps(scenario),
        "channels": json.dumps(CHANNELS),
        "pod_sites": json.dumps({f"pod{k}": site for k, site in enumerate(sites)}),
    }
    signals = {
        "grid/head": Signal("p_kw", "kW", "head", "feeder", ("demo",)),
        "counterfactual/head": Signal("p_kw", "kW", "head", "feeder", ("demo",)),
        "grid/bus": Signal("vm_pu", "pu", "voltage", "node", tuple(f"n{k}.1" for k in range(nodes))),
        "grid/branch": Signal("loading_pu", "pu", "loading", "branch", tuple(f"Line.{k}" for k in range(50))),
        "grid/pod": Signal("p_kw", "kW", "power", "pod", tuple(f"pod{k}" for k in range(many))),
        "estimator/wls": Signal("p_kw", "kW", "power", "site", sites),
        "gateway/snapshot": Signal("quality", "1", "quality", "channel", TOPICS, codes=("good", "missing", "late")),
    }
    with ResultWriter(path, clock, 500, "none", attributes) as writer:
        for place, signal in signals.items():
            writer.declare(*place.split("/"), [signal])
        storage = [Signal("p_kw", "kW", "power", "storage", units), Signal("e_kwh", "kWh", "energy", "storage", units)]
        writer.declare("grid", "storage", storage)
        for step in range(steps):
            wave = np.sin(step / 96.0 * 2.0 * np.pi)
            for place, signal in signals.items():
                size = np.arange(len(signal.elements)) / len(signal.elements)
                values = (np.arange(3) == step % 3) * 1 if signal.codes else 1.0 + 0.1 * wave * size
                writer.write(step, *place.split("/"), signal.attribute, values)
            writer.write(step, "grid", "storage", "p_kw", np.full(many, wave))
            writer.write(step, "grid", "storage", "e_kwh", np.full(many, 5.0 + wave))
            writer.end_step(step)
        writer.finish("complete")
    return path
