"""The design of mv5_twin as a pandapower network: figures typed from the design, not read from the OpenDSS scripts.

No-load losses and magnetising currents are shunts at the secondary side, where OpenDSS has them; pandapower alone would
put them in the middle of the transformer.
"""

from __future__ import annotations

import math
from typing import Any

import pandapower as pp

from cosim.importers.tables import quiet_pandapower

CABLES = {185: (0.161, 0.117, 273.0), 120: (0.253, 0.119, 230.0), 70: (0.443, 0.132, 190.0)}
"""Resistance and reactance [ohm/km], capacitance [nF/km] by cross-section [mm2]."""

LINES = {
    "AL01": ("MV0", "AMV1", 185, 2.8),
    "AL12": ("AMV1", "AMV2", 185, 1.2),
    "AL23": ("AMV2", "AMV3", 185, 1.6),
    "AL34": ("AMV3", "AMV4", 120, 2.4),
    "AL25": ("AMV2", "AMV5", 70, 3.1),
    "BL01": ("MV0", "BMV1", 120, 4.6),
    "BL12": ("BMV1", "BMV2", 120, 2.1),
    "BL23": ("BMV2", "BMV3", 120, 1.3),
    "BL34": ("BMV3", "BMV4", 70, 2.7),
    "BL15": ("BMV1", "BMV5", 70, 1.9),
}
"""Ends, cross-section, length [km]."""

TRANSFORMERS = {250: (4.0, 1.3, 0.65), 400: (4.0, 1.15, 0.93), 630: (4.0, 1.03, 1.3), 1250: (6.0, 0.95, 1.9)}
"""Short-circuit voltage and loss [%], no-load loss [kW] by rating [kVA]; magnetising current 0.5 %."""

RATINGS_KVA = {"A": (630, 400, 630, 1250, 250), "B": (400, 1250, 1250, 250, 630)}
LOADS_KW = {"A": (900, 550, 320, 8, 400), "B": (300, 700, 180, 240, 620)}
POWER_FACTORS = {"A": (0.95, 0.95, 0.93, 0.95, 0.95), "B": (0.95, 0.92, 0.95, 0.96, 0.94)}
PV_KWP = {"A": (150, 250, 350, 1200, 200), "B": (120, 400, 1500, 220, 450)}
BATTERIES = {"A": 3, "B": 2}
"""Substation of each feeder's battery."""

BUSES = ("HV0", "MV0", *(f"{f}{v}{k}" for f in "AB" for v in ("MV", "LV") for k in range(1, 6)))


def solve(case: dict[str, float]) -> dict[str, float]:
    """Powers [kW, kvar] and voltages [pu] at ``load`` and ``pv`` times the design's powers, and the batteries'
    consumption ``battery_a_kw``, ``battery_b_kw``, by the columns of expected.csv."""
    with quiet_pandapower():
        net = _network(case)
        pp.runpp(net, algorithm="nr", tolerance_mva=1e-10, numba=False, init="flat", max_iteration=50)
    found = {}
    for name, table, row, end in (
        ("interface", net.res_trafo, 0, "hv"),
        ("busbar", net.res_trafo, 0, "lv"),
        ("head_a", net.res_line, list(LINES).index("AL01") + 1, "from"),
        ("head_b", net.res_line, list(LINES).index("BL01") + 1, "from"),
    ):
        sign = -1.0 if name == "busbar" else 1.0
        found[f"{name}_p_kw"] = sign * 1000.0 * float(table.loc[row, f"p_{end}_mw"])
        found[f"{name}_q_kvar"] = sign * 1000.0 * float(table.loc[row, f"q_{end}_mvar"])
    # what the transformer's shunt takes at MV0 belongs to the transformer
    shunt = net.res_shunt.loc[0]
    found["busbar_p_kw"] -= 1000.0 * float(shunt.p_mw)
    found["busbar_q_kvar"] -= 1000.0 * float(shunt.q_mvar)
    for bus in BUSES:
        found[f"{bus.lower()}_pu"] = float(net.res_bus.vm_pu[net.bus.index[net.bus.name == bus][0]])
    return found


def _network(case: dict[str, float]) -> Any:
    net = pp.create_empty_network(f_hz=50.0)
    bus = {name: pp.create_bus(net, _kv(name), name=name) for name in ("GRID", *BUSES)}
    pp.create_ext_grid(net, bus["GRID"], vm_pu=1.0)
    z_ohm = 132.0**2 / 2000.0
    r_ohm = z_ohm / math.hypot(1.0, 10.0)
    _line(net, bus["GRID"], bus["HV0"], 1.0, r_ohm, 10.0 * r_ohm, 0.0)
    _transformer(net, bus["HV0"], bus["MV0"], 25000, math.hypot(13.0, 0.4), 0.4, 20.0, magnetising=0.0, tap=1.02)
    for start, end, section, length_km in LINES.values():
        _line(net, bus[start], bus[end], length_km, *CABLES[section])
    for feeder, ratings in RATINGS_KVA.items():
        for k, s_kva in enumerate(ratings):
            low = bus[f"{feeder}LV{k + 1}"]
            _transformer(net, bus[f"{feeder}MV{k + 1}"], low, s_kva, *TRANSFORMERS[s_kva], magnetising=0.5)
            p_kw = case["load"] * LOADS_KW[feeder][k]
            q_kvar = p_kw * math.tan(math.acos(POWER_FACTORS[feeder][k]))
            pp.create_load(net, low, p_mw=p_kw / 1000.0, q_mvar=q_kvar / 1000.0)
            pp.create_sgen(net, low, p_mw=case["pv"] * PV_KWP[feeder][k] / 1000.0)
        battery = bus[f"{feeder}LV{BATTERIES[feeder]}"]
        pp.create_load(net, battery, p_mw=case[f"battery_{feeder.lower()}_kw"] / 1000.0)
    return net


def _kv(bus: str) -> float:
    return 132.0 if bus in ("GRID", "HV0") else 20.0 if "MV" in bus else 0.4


def _line(net: Any, start: int, end: int, length_km: float, r: float, x: float, c_nf: float) -> None:
    pp.create_line_from_parameters(net, start, end, length_km, r, x, c_nf, max_i_ka=1.0)


def _transformer(
    net: Any,
    high: int,
    low: int,
    s_kva: float,
    uk_percent: float,
    loss_percent: float,
    no_load_kw: float,
    *,
    magnetising: float,
    tap: float = 1.0,
) -> None:
    """``magnetising`` current in percent; ``tap`` raises the secondary voltage."""
    low_kv = _kv(net.bus.name[low])
    pp.create_transformer_from_parameters(
        net, high, low, s_kva / 1000.0, _kv(net.bus.name[high]), low_kv * tap,
        vkr_percent=loss_percent, vk_percent=uk_percent, pfe_kw=0.0, i0_percent=0.0,
    )  # fmt: skip
    q_kvar = magnetising / 100.0 * s_kva
    pp.create_shunt(net, low, q_mvar=q_kvar / 1000.0, p_mw=no_load_kw / 1000.0, vn_kv=low_kv * tap)
