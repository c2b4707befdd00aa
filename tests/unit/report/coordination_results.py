"""A result under DSO priority over one hour of four market time units (MTUs) of one step each, small enough to work out
by hand. The first gate is for the second MTU. Prices in EUR/kWh.

MTU  need [kW]  the DSO buys (MSL)             the TSO buys (MSD)                        short  limits unmet
1    10         sun down 4 at 0.2              unit 1 up 10 at 0.1, store up 4 at 0.3     0      -
2    -8         -                              unit 1 down 8 at -0.05                     0      -
3    20         sun down 8 at 0.2, fell back   unit 1 up 12 at 0.1 (asks 0.08)            8      L1 by 5 and 10 of 100 A
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cosim.clock import Clock
from cosim.coordination.catalogue import load_scheme
from cosim.domain.frames import EventTable, Signal
from cosim.io.store import ResultWriter, Status
from simulators._party import AWARDS, EXCLUDED, LIGHTS, MESSAGES, STAGES, TRANSFERS, UNMET
from simulators.aggregator import ORDERS, SPLITS
from simulators.dso import NEEDS

MTU_S, MTUS = 900.0, 4
CLOCK = Clock(datetime(2016, 7, 22, tzinfo=UTC), step_s=900, steps=MTUS, mtu_s=900)
TABLES = (MESSAGES, AWARDS, STAGES, TRANSFERS, UNMET, EXCLUDED, LIGHTS)
SCENARIO: dict[str, Any] = {
    "name": "priority",
    "start": "2016-07-22T00:00:00+00:00",
    "duration": "1h",
    "step": "15min",
    "mtu": "15min",
    "operator": {"enabled": False},
    "resources": {},
    "market": {},
    "coordination": {"scheme": "it_dso_priority"},
}
Row = dict[str, Any]


def award(stage: str, what: str, direction: str, kw: float, paid: float, asked: float | None = None) -> Row:
    """What a stage buys of ``SELLER/AREA``; no area at transmission."""
    seller, _, area = what.partition("/")
    return {
        "stage": stage,
        "bid": f"{seller} {direction}",
        "seller": seller,
        "area": area,
        "buyer": "DSO:demo" if stage == "MSL" else "TSO",
        "direction": direction,
        "quantity_kw": kw,
        "price_eur_per_kwh": paid,
        "bid_price_eur_per_kwh": paid if asked is None else asked,
    }


def stage_row(stage: str, short_kw: float = 0.0, fell_back: float = 0.0) -> Row:
    figures = {"export_kw": 0.0, "interface_eur_per_kwh": 0.1, "rounds": 1.0}
    return {"stage": stage, "shortage_kw": short_kw, "fell_back": fell_back, **figures}


def said(sender: str, receiver: str, kind: str, size: float) -> Row:
    return {
        "sender": sender, "receiver": receiver, "type": kind, "stage": "", "round": 1.0, "size_bytes": size,
        "digest": "",
    }  # fmt: skip


def unmet(end: str, excess: float) -> Row:
    return {"stage": "MSL", "kind": "i_max", "element": f"demo/Line.L1@{end}.1", "excess": excess, "limit": "100"}


def light(direction: str, colour: str, cap_kw: float) -> Row:
    return {
        "perimeter": "north", "direction": direction, "colour": colour, "cap_kw": cap_kw, "registered_kw": 10.0,
        "limit": "",
    }  # fmt: skip


NEED_KW = (10.0, -8.0, 20.0)
"""Told at the gates of MTUs 1 to 3."""
_OUT = "resource activated in MSL"
RECORDED: dict[str, dict[str, list[list[Row]]]] = {
    "dso": {
        "awards": [[award("MSL", "sun/demo", "down", 4.0, 0.2)], [], [award("MSL", "sun/demo", "down", 8.0, 0.2)]],
        "stages": [[stage_row("MSL")], [stage_row("MSL")], [stage_row("MSL", fell_back=1.0)]],
        "unmet": [[], [], [unmet("A", 5.0), unmet("B", 10.0)]],
        "messages": [[said("DSO:demo", "TSO", "RESULT", 50.0)]] * 3,
        "lights": [
            [light("up", "green", 10.0)], [light("up", "yellow", 4.0)], [light("up", "red", 0.0)]
        ],
    },
    "tso": {
        "awards": [
            [award("MSD", "unit 1", "up", 10.0, 0.1), award("MSD", "store/demo", "up", 4.0, 0.3)],
            [award("MSD", "unit 1", "down", 8.0, -0.05)],
            [award("MSD", "unit 1", "up", 12.0, 0.1, 0.08)],
        ],
        "stages": [[stage_row("MSD")], [stage_row("MSD")], [stage_row("MSD", 8.0)]],
        "excluded": [
            [{"stage": "MSD", "bid": "sun down", "offered_kw": 40.0, "reason": _OUT}],
            [{"stage": "MSD", "bid": "store up", "offered_kw": 6.0, "reason": "capped to 2.5 kW"}],
            [
                {"stage": "MSD", "bid": "sun down", "offered_kw": 60.0, "reason": _OUT},
                {"stage": "MSD", "bid": "store up", "offered_kw": 6.0, "reason": "capped to 3e-05 kW"},
            ],
        ],
        "transfers": [[{"stage": "MSD", "payer": "TSO", "payee": "DSO:demo", "amount_eur": 2.0}], [], []],
        "messages": [[said("TSO", "DSO:demo", "RESULT", 60.0), said("TSO", "AGG:demo", "AWARD", 20.0)]] * 3,
    },
    "aggregator": {"messages": [[said("AGG:demo", "TSO", "BID", 100.0)]] * 3},
}  # fmt: skip


def coordination_file(
    path: Path,
    scheme: str = "it_dso_priority",
    status: Status = "complete",
    need_kw: tuple[float, ...] = NEED_KW,
    recorded: Mapping[str, Mapping[str, list[list[Row]]]] = RECORDED,
) -> Path:
    """The result, as that of another scheme if wanted."""
    attributes = {
        "scenario": json.dumps(SCENARIO),
        "scheme": json.dumps(load_scheme(scheme).model_dump(mode="json")),
        "storage": "[]",
    }
    with ResultWriter(path, CLOCK, MTUS, "none", attributes) as writer:
        writer.declare("tso", "system", [Signal("need_kw", "kW", "need", "feeder", ("demo",))])
        writer.declare("grid", "head", [Signal("p_kw", "kW", "head", "feeder", ("demo",))])
        violations = {"t_s": "s", "element": None, "phase": "1", "quantity": None, "limit": "1", "excess": "1"}
        writer.declare_events("grid", EventTable("violations", "violations", violations))
        for table in (ORDERS, SPLITS):
            writer.declare_events("aggregator", table)
        writer.declare_events("dso", NEEDS)
        for name, tables in recorded.items():
            for table in TABLES if name != "aggregator" else (MESSAGES,):
                writer.declare_events(name, table)
                assert table.name in tables or name != "aggregator"
        writer.start()
        for step in range(MTUS):
            writer.write(step, "tso", "system", "need_kw", [need_kw[step] if step < MTUS - 1 else np.nan])
            writer.write(step, "grid", "head", "p_kw", [100.0])
            _events(writer, step, recorded)
            writer.end_step(step)
        writer.finish(status, "" if status == "complete" else "the power went out\nat noon")
    return path


def _events(writer: ResultWriter, step: int, recorded: Mapping[str, Mapping[str, list[list[Row]]]]) -> None:
    """What the gate in a step brings for the next MTU."""
    stamp = {"t_s": (step + 1) * MTU_S, "gate_s": step * MTU_S}
    for name, tables in recorded.items():
        for table, rows in tables.items():
            for row in rows[step] if step < len(rows) else []:
                writer.append_event(name, table, stamp | row)
