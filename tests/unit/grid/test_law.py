"""Load laws against OpenDSS itself, one element at a time on a source whose voltage is moved."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from cosim.grid.circuit import compile_circuit, give_back, node_voltages, solve_flat
from cosim.grid.law import CONSTANT_POWER, LoadLaw, VoltageLaw, load_law
from cosim.grid.unloaded import has_known_law, pod_branches

KV = 4.16
PU = np.linspace(0.4, 1.3, 37)
S_VA = 1000.0 * (300.0 + 120.0j)
CONNECTIONS = {
    "wye 1": f"bus1=SRC.2 phases=1 kV={KV / math.sqrt(3.0)!r} conn=wye",
    "wye 2": f"bus1=SRC.1.3 phases=2 kV={KV} conn=wye",
    "wye 3": f"bus1=SRC phases=3 kV={KV} conn=wye",
    "delta 1": f"bus1=SRC.3.1 phases=1 kV={KV} conn=delta",
    "delta 3": f"bus1=SRC phases=3 kV={KV} conn=delta",
}
LIMITS = "Vminpu=0.9 Vmaxpu=1.12"


def circuit_with(folder, element):
    """A stiff unbalanced source with one element on it."""
    script = f"""\
Clear
New Circuit.law bus1=SRC basekV={KV} pu=1.0 phases=3 R1=1e-4 X1=1e-4 R0=1e-4 X0=1e-4
{element}
Set VoltageBases=[{KV}]
CalcVoltageBases
Set tolerance=1e-12
"""
    (folder / "Master.dss").write_text(script)
    dss, _ = compile_circuit(folder / "Master.dss")
    return dss


def drawn_by_engine(dss, name):
    """Its power [VA] summed over its conductors, injections turned to consumption by OpenDSS itself."""
    dss.ActiveCircuit.SetActiveElement(name)
    element = dss.ActiveCircuit.ActiveCktElement
    return 1000.0 * np.asarray(element.Powers).view(np.complex128).sum()


def moved_over_all_voltages(dss, name):
    """For each voltage of the source the drawn power and the node voltages (with ground)."""
    for pu in PU:
        assert dss.ActiveCircuit.Vsources.First == 1
        dss.ActiveCircuit.Vsources.pu = pu
        solve_flat(dss)
        assert dss.ActiveCircuit.Solution.Converged
        yield drawn_by_engine(dss, name), node_voltages(dss, 3)


def assert_same_law(dss, name, s_va):
    branches = pod_branches(dss, [name])
    law = LoadLaw(branches)
    a, b = (np.array([branch.nodes[k] for branch in branches]) for k in (0, 1))
    shares = np.array([[branch.share] for branch in branches])
    for expected, v in moved_over_all_voltages(dss, name):
        u = (v[a] - v[b])[:, None]
        s = s_va * shares
        assert law.drawn(s, u).sum() == pytest.approx(expected, rel=1e-9)
        np.testing.assert_allclose(u * law.current(s, u).conj(), law.drawn(s, u), rtol=1e-12)


@pytest.mark.parametrize("model", [1, 2, 5])
@pytest.mark.parametrize("connection", [*CONNECTIONS, "delta 2"])
def test_a_load_draws_what_it_draws_in_the_engine(tmp_path, connection, model):
    place = CONNECTIONS.get(connection, f"bus1=SRC.1.2.3 phases=2 kV={KV} conn=delta")
    dss = circuit_with(tmp_path, f"New Load.A {place} kW=300 kvar=120 model={model} {LIMITS} Vlowpu=0.6")
    assert_same_law(dss, "load.a", S_VA)
    give_back(dss)


@pytest.mark.parametrize("model", [1, 2])
@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_generator_injects_what_it_injects_in_the_engine(tmp_path, connection, model):
    place = CONNECTIONS[connection]
    dss = circuit_with(tmp_path, f"New Generator.A {place} kW=300 kvar=120 model={model} {LIMITS}")
    assert_same_law(dss, "generator.a", -S_VA)
    give_back(dss)


@pytest.mark.parametrize("limits", ["Vminpu=0.3 Vlowpu=0.5", "Vminpu=0.95 Vlowpu=0", "Vmaxpu=0", "Vminpu=0 Vlowpu=0"])
@pytest.mark.parametrize("model", [1, 5])
def test_limits_at_the_edge_of_what_they_can_be(tmp_path, model, limits):
    dss = circuit_with(tmp_path, f"New Load.A {CONNECTIONS['wye 3']} kW=300 kvar=120 model={model} {limits}")
    assert_same_law(dss, "load.a", S_VA)
    give_back(dss)


def test_models_known(tmp_path):
    dss = circuit_with(tmp_path, "\n".join(f"New Load.M{k} bus1=SRC kV={KV} model={k}" for k in (1, 2, 3, 4, 5)))
    assert [has_known_law(dss, f"load.m{k}") for k in (1, 2, 3, 4, 5)] == [True, True, False, False, True]
    give_back(dss)


@pytest.mark.parametrize("law", [load_law(1, 0.9, 1.1, 0.5), load_law(2, 0.9, 1.1, 0.5), load_law(5, 0.9, 1.1, 0.5)])
def test_slope_is_the_derivative(law):
    rule, step = LoadLaw([SimpleNamespace(law=law, v_rated=1.0)]), 1e-6
    u = np.array([[0.3, 0.6, 0.85, 0.95, 1.0, 1.2]])
    differences = (rule.factor((u + step) ** 2) - rule.factor((u - step) ** 2)) / (2.0 * step)
    g, slope = rule.factor_and_slope(u**2)
    np.testing.assert_allclose(slope, u * differences, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(g, rule.factor(u**2))


def test_constant_power_at_any_voltage():
    rule = LoadLaw([SimpleNamespace(law=CONSTANT_POWER, v_rated=230.0)])
    np.testing.assert_allclose(
        rule.drawn(np.array([[5.0 + 1.0j]]), np.array([[10.0, 1000.0j]])), 5.0 + 1.0j, rtol=1e-12
    )
    assert VoltageLaw(2) == CONSTANT_POWER
