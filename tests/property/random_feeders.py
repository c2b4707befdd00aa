"""Random radial feeders: laterals of one, two and three phases, transformers, loads of all connections and laws.

All are grounded: where nothing holds the neutral point, rounding alone keeps OpenDSS from a tight tolerance.
"""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import strategies as st

from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.rng import rng_for
from cosim.scenario.schema import GridConfig

CONFIG = GridConfig(tolerance_pu=1e-12)
HEAD = """\
Clear
New Circuit.random bus1=SRC basekV=20 pu=1.02 phases=3 MVAsc3=500 MVAsc1=400
New Line.HEAD bus1=SRC bus2=B0 R1=0.2 X1=0.25 R0=0.6 X0=0.8 C1=250 C0=200 Length=3 Units=km
"""
TAIL = "Set VoltageBases=[20, 0.4]\nCalcVoltageBases\n"
MV_KV, LV_KV = 20.0, 0.4
WIDE = "Vminpu=0.5 Vmaxpu=1.5"
NARROW = "Vminpu=0.99 Vmaxpu=1.01"


def line_script(name, parent, bus, phases, length_km):
    at = "".join(f".{phase}" for phase in phases)
    if len(phases) == 3:
        impedance = "R1=0.3 X1=0.3 R0=0.9 X0=1.1 C1=200 C0=150"
    else:
        own = {1: "Rmatrix=[0.5] Xmatrix=[0.6] Cmatrix=[180]"}
        pair = "Rmatrix=[0.5 | 0.1 0.5] Xmatrix=[0.6 | 0.2 0.6] Cmatrix=[180 | -20 180]"
        impedance = own.get(len(phases), pair)
    return (
        f"New Line.{name} phases={len(phases)} bus1={parent}{at} bus2={bus}{at} {impedance} "
        f"Length={length_km!r} Units=km"
    )


def pod_script(name, bus, kind, phases, kv, limits):
    """A POD of one of the ways to connect it at ``phases`` of its bus, whose line voltage is ``kv``."""
    element, count, connection, model = kind
    at = "".join(f".{phase}" for phase in phases[:count] if count < 3)
    volts = kv / math.sqrt(3.0) if (count, connection) == (1, "wye") else kv
    if (count, connection) == (1, "delta"):
        at = "".join(f".{phase}" for phase in phases[:2])
    return (
        f"New {element}.{name} bus1={bus}{at} phases={count} kV={volts!r} conn={connection} kW=10 model={model} "
        f"{limits}"
    )


def kinds_at(phases):
    """Element, number of phases, connection and model of the PODs that fit a bus with ``phases``."""
    for connection, needed, count in (("wye", 1, 1), ("delta", 2, 1), ("wye", 2, 2), ("wye", 3, 3), ("delta", 3, 3)):
        if needed <= len(phases):
            yield from (("Load", count, connection, model) for model in (1, 2, 5))
            if (connection, count) != ("wye", 2):
                yield ("Generator", count, connection, 1)


@st.composite
def feeders(draw, limits=(WIDE,)):
    """Script, feeder.yaml and the POD powers (2, n_case, n_pod) of a feeder; each bus hangs on an earlier one."""
    n_bus = draw(st.integers(1, 5))
    script, pods, of_bus = [HEAD], [], {0: (1, 2, 3)}
    for k in range(1, n_bus + 1):
        parent = draw(st.integers(0, k - 1))
        carried = draw(st.lists(st.sampled_from(of_bus[parent]), min_size=1, unique=True))
        of_bus[k] = of_bus[parent] if draw(st.booleans()) else tuple(carried)
        script.append(line_script(f"L{k}", f"B{parent}", f"B{k}", of_bus[k], draw(st.floats(0.1, 4.0))))
        bus, kv, phases = f"B{k}", MV_KV, of_bus[k]
        if len(phases) == 3 and draw(st.booleans()):
            connections = draw(st.sampled_from(("delta wye", "wye wye")))
            script.append(
                f"New Transformer.T{k} buses=[B{k} V{k}] conns=[{connections}] kVs=[20 0.4] kVAs=[400 400] XHL=4"
            )
            bus, kv = f"V{k}", LV_KV
        kind = draw(st.sampled_from(list(kinds_at(phases))))
        script.append(pod_script(f"P{k}", bus, kind, phases, kv, draw(st.sampled_from(limits))))
        role = "load" if kind[0] == "Load" else "generator"
        pods.append(f"  P{k}: {{element: {kind[0]}.P{k}, kind: {role}, kw: 1, profile: constant}}")
    scale_kw = np.array([60.0 if "phases=1" in line else 150.0 for line in script if " kW=10 " in line])
    powers = rng_for(draw(st.integers(0, 2**31)), "powers").uniform(-1.0, 1.0, (2, 4, n_bus)) * scale_kw
    yaml = "name: random\nhead: {branch: Line.HEAD, end: SRC}\npods:\n" + "\n".join(pods) + "\n"
    return "\n".join([*script, TAIL]), yaml, powers


def engine_of(script, yaml):
    with TemporaryDirectory() as folder:
        (Path(folder) / "Master.dss").write_text(script)
        (Path(folder) / "feeder.yaml").write_text(yaml)
        return Engine(load_feeder(Path(folder)), CONFIG)
