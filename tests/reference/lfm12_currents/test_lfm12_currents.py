"""The network lfm12 reproduces the currents and voltages of the study; see README.md."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.scenario.schema import GridConfig

HERE = Path(__file__).parent
COMPUTED_A, PUBLISHED_A, PRINTED_A = 1e-6, 1e-4, 1e-3
COMPUTED_PU, PUBLISHED_PU = 1e-6, 5.1e-5


def rows_of(name):
    with (HERE / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


PODS, BRANCHES, BUSES = (rows_of(f"{name}.csv") for name in ("input", "expected_currents", "expected_voltages"))


def expected_a(kind):
    return np.array([complex(float(row[f"re_{kind}_a"]), float(row[f"im_{kind}_a"])) for row in BRANCHES])


def require_near(currents_a, kind, tolerance_a):
    expected = expected_a(kind)
    np.testing.assert_allclose(currents_a.real, expected.real, rtol=0, atol=tolerance_a)
    np.testing.assert_allclose(currents_a.imag, expected.imag, rtol=0, atol=tolerance_a)


def full_name(branch):
    return f"{'Transformer' if branch == '2-1' else 'Line'}.{branch}"


@pytest.fixture
def solved(feeders):
    """Solves with the reactive powers of a column of input.csv: layout and state."""
    engine = Engine(load_feeder(feeders / "lfm12"), GridConfig())

    def solve(q_column):
        assert list(engine.pods) == [row["pod"] for row in PODS]
        assert list(engine.pod_buses) == [row["bus"] for row in PODS]
        p_kw, q_kvar = (np.array([float(row[column]) for row in PODS]) for column in ("p_kw", q_column))
        return engine.layout, engine.solve(p_kw, q_kvar)

    yield solve
    engine.close()


def currents_a(layout, state, phase=1):
    """Of all branches, at the bus at which the study counts them, turned back to phase 1."""
    conductors = [layout.conductors.index(f"{full_name(r['branch'])}@{r['bus']}.{phase}") for r in BRANCHES]
    nodes = layout.conductor_node[conductors]
    v_kv = 8.4 / np.sqrt(3.0) * state.vm_pu[nodes] * np.exp(1j * np.radians(state.va_deg[nodes] + 120.0 * (phase - 1)))
    s_kva = state.conductor_p_kw[conductors] + 1j * state.conductor_q_kvar[conductors]
    return (s_kva / v_kv).conj()


@pytest.mark.parametrize("phase", [1, 2, 3])
def test_currents_at_the_refined_powers(solved, phase):
    currents = currents_a(*solved("q_refined_kvar"), phase)
    require_near(currents, "computed", COMPUTED_A)
    require_near(currents, "published", PUBLISHED_A)


def test_currents_at_the_printed_powers(solved):
    require_near(currents_a(*solved("q_printed_kvar")), "published", PRINTED_A)


def test_voltages(solved):
    layout, state = solved("q_refined_kvar")
    for row in BUSES:
        phases = [layout.nodes.index(f"{row['bus']}.{phase}") for phase in (1, 2, 3)]
        np.testing.assert_allclose(state.vm_pu[phases], float(row["computed_pu"]), rtol=0, atol=COMPUTED_PU)
        np.testing.assert_allclose(state.vm_pu[phases], float(row["published_pu"]), rtol=0, atol=PUBLISHED_PU)


def test_half_of_the_shunt_of_branch_2_1_is_at_bus_1(opendss, solved):
    """0.38 - j3.33 mS in all: no current of the study shows the half ahead of the head."""
    _, state = solved("q_refined_kvar")
    source_kw, source_kvar = -np.asarray(opendss("lfm12").ActiveCircuit.TotalPower)
    assert source_kw - state.head_p_kw == pytest.approx(8.4**2 * 0.19, abs=1e-4)
    assert source_kvar - state.head_q_kvar == pytest.approx(8.4**2 * 1.665, abs=1e-4)


def test_the_scripts_alone(opendss):
    dss = opendss("lfm12")
    currents = []
    for row in BRANCHES:
        dss.ActiveCircuit.SetActiveElement(full_name(row["branch"]))
        element = dss.ActiveCircuit.ActiveCktElement
        conductor = list(element.BusNames).index(row["bus"]) * element.NumConductors
        currents.append(np.asarray(element.Currents).view(np.complex128)[conductor])
    require_near(np.array(currents), "computed", COMPUTED_A)
