"""Laws of the power flow, for random radial feeders with unbalanced single-phase, wye and delta loads."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.grid.batch import BatchPowerFlow
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
BAND = "model=1 Vminpu=0.5 Vmaxpu=1.5"


def load_script(name, bus, kind, kv):
    """A load of one of the ways to connect it; ``kv`` is the line voltage of its bus."""
    phases, _, connection = kind.partition(" ")
    return {
        "three wye": f"New Load.{name} bus1={bus} phases=3 kV={kv} conn=wye kW=10 {BAND}",
        "three delta": f"New Load.{name} bus1={bus} phases=3 kV={kv} conn=delta kW=10 {BAND}",
        "one wye": f"New Load.{name} bus1={bus}.2 phases=1 kV={kv / math.sqrt(3.0)!r} conn=wye kW=10 {BAND}",
        "one delta": f"New Load.{name} bus1={bus}.3.1 phases=1 kV={kv} conn=delta kW=10 {BAND}",
        "one generator": f"New Generator.{name} bus1={bus}.1 phases=1 kV={kv / math.sqrt(3.0)!r} kW=10 {BAND}",
        "three generator": f"New Generator.{name} bus1={bus} phases=3 kV={kv} kW=10 {BAND}",
    }[f"{phases} {connection}"]


KINDS = ("three wye", "three delta", "one wye", "one delta", "one generator", "three generator")


@st.composite
def feeders(draw):
    """Script, feeder.yaml and the POD powers (n_case, n_pod) of a radial feeder; each bus hangs on an earlier one."""
    n_bus = draw(st.integers(1, 5))
    script, pods = [HEAD], []
    for k in range(1, n_bus + 1):
        parent, length = draw(st.integers(0, k - 1)), draw(st.floats(0.1, 4.0))
        script.append(f"New Line.L{k} bus1=B{parent} bus2=B{k} R1=0.3 X1=0.3 R0=0.9 X0=1.1 C1=200 C0=150")
        script.append(f"~ Length={length!r} Units=km")
        bus, kv = f"B{k}", 20.0
        if draw(st.booleans()):
            script.append(f"New Transformer.T{k} buses=[B{k} V{k}] conns=[delta wye] kVs=[20 0.4] kVAs=[400 400] XHL=4")
            bus, kv = f"V{k}", 0.4
        kind = draw(st.sampled_from(KINDS))
        element = "Generator" if "generator" in kind else "Load"
        script.append(load_script(f"P{k}", bus, kind, kv))
        pods.append(f"  P{k}: {{element: {element}.P{k}, kind: load, kw: 1, profile: constant}}")
    scale_kw = np.array([60.0 if "one" in line else 150.0 for line in pods])
    powers = rng_for(draw(st.integers(0, 2**31)), "powers").uniform(-1.0, 1.0, (2, 4, n_bus)) * scale_kw
    yaml = "name: random\nhead: {branch: Line.HEAD, end: SRC}\npods:\n" + "\n".join(pods) + "\n"
    return "\n".join([*script, TAIL]), yaml, powers


def engine_of(script, yaml):
    with TemporaryDirectory() as folder:
        (Path(folder) / "Master.dss").write_text(script)
        (Path(folder) / "feeder.yaml").write_text(yaml)
        return Engine(load_feeder(Path(folder)), CONFIG)


@settings(max_examples=40, deadline=None)
@given(feeders())
def test_batch_flow_equals_the_engine(feeder):
    script, yaml, (p_kw, q_kvar) = feeder
    engine = engine_of(script, yaml)
    states = [engine.solve(p, q) for p, q in zip(p_kw, q_kvar, strict=True)]
    network = engine.unloaded()
    engine.close()
    flow = BatchPowerFlow(network, network.layout.nodes, network.layout.terminals)
    batch = flow.solve(p_kw, q_kvar).require_converged()
    np.testing.assert_allclose(batch.vm_pu, [state.vm_pu for state in states], rtol=0, atol=1e-8)
    np.testing.assert_allclose(batch.p_kw, [state.terminal_p_kw for state in states], rtol=0, atol=1e-3)
    np.testing.assert_allclose(batch.q_kvar, [state.terminal_q_kvar for state in states], rtol=0, atol=1e-3)
    np.testing.assert_allclose(batch.i_a, [state.terminal_i_a for state in states], rtol=1e-5, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(feeders())
def test_energy_is_conserved(feeder):
    """What enters at the head and at generators is what leaves at loads and as losses."""
    script, yaml, (p_kw, q_kvar) = feeder
    engine = engine_of(script, yaml)
    for p, q in zip(p_kw, q_kvar, strict=True):
        state = engine.solve(p, q)
        injected_kw, consumed_kw = -p[p < 0.0].sum(), p[p > 0.0].sum()
        assert state.head_p_kw + injected_kw == pytest.approx(state.loss_kw + consumed_kw, abs=1e-4)
        assert state.loss_kw > 0.0
        lost_kw = state.terminal_p_kw.reshape(-1, 2).sum(axis=1)
        assert lost_kw.sum() == pytest.approx(state.loss_kw, abs=1e-4)
        assert (lost_kw > -1e-6).all()
    engine.close()


@settings(max_examples=20, deadline=None)
@given(feeders(), st.permutations(range(4)))
def test_a_state_does_not_depend_on_those_before(feeder, order):
    script, yaml, (p_kw, q_kvar) = feeder
    engine, other = engine_of(script, yaml), engine_of(script, yaml)
    expected = {k: engine.solve(p_kw[k], q_kvar[k]) for k in range(4)}
    for k in order:
        state = other.solve(p_kw[k], q_kvar[k])
        assert state.vm_pu.tobytes() == expected[k].vm_pu.tobytes()
        assert state.terminal_i_a.tobytes() == expected[k].terminal_i_a.tobytes()
    engine.close()
    other.close()
