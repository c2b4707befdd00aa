"""The feeder european_lv reproduces three minutes of the published day; see README.md."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.scenario.schema import GridConfig
from cosim.units import kvar_per_kw

HERE = Path(__file__).parent
HALF_A_WATT_KW, HALF_A_TENTH_W, TOLERANCE_PU = 0.00051, 0.051, 1e-5


def rows_of(name):
    with (HERE / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


EXPECTED, INPUT = ({row["minute"]: row for row in rows_of(f"{name}.csv")} for name in ("expected", "input_minutes"))


def consumption_kw(minute, customers):
    assert {"minute", *customers} == set(INPUT[minute])
    return np.array([float(INPUT[minute][customer]) for customer in customers])


def require_expected(minute, source_kw, loss_kw, lv_pu):
    expected = EXPECTED[minute]
    assert source_kw == pytest.approx(float(expected["source_kw"]), abs=HALF_A_WATT_KW, rel=0)
    if expected["loss_w"]:
        assert 1000.0 * loss_kw == pytest.approx(float(expected["loss_w"]), abs=HALF_A_TENTH_W, rel=0)
    assert len(lv_pu) == 3 * 906
    assert min(lv_pu) == pytest.approx(float(expected["lowest_pu"]), abs=TOLERANCE_PU, rel=0)
    assert max(lv_pu) == pytest.approx(float(expected["highest_pu"]), abs=TOLERANCE_PU, rel=0)


def is_lv(node):
    return not node.lower().startswith("source.")


@pytest.fixture(scope="module")
def engine(feeders):
    engine = Engine(load_feeder(feeders / "european_lv"), GridConfig())
    yield engine
    engine.close()


@pytest.mark.parametrize("minute", EXPECTED)
def test_minute(minute, engine):
    p_kw = consumption_kw(minute, engine.pods)
    state = engine.solve(p_kw, p_kw * kvar_per_kw(0.95))
    source_kw = state.terminal_p_kw[engine.layout.terminals.index("Transformer.TX@SOURCE")]
    lv_pu = [v for node, v in zip(engine.layout.nodes, state.vm_pu, strict=True) if is_lv(node)]
    require_expected(minute, source_kw, state.loss_kw, lv_pu)
    assert 0.0 < source_kw - state.head_p_kw < 0.005 * source_kw, "the head is behind the transformer"


def test_customers_are_where_the_source_has_them(engine):
    sites = {
        row["customer"]: f"{row['node']}.{'ABC'.index(row['phase']) + 1}" for row in rows_of("input_customers.csv")
    }
    assert dict(zip(engine.pods, engine.pod_sites, strict=True)) == sites


@pytest.mark.parametrize("minute", EXPECTED)
def test_minute_in_the_scripts_alone(minute, opendss):
    commands = (f"Redirect {file}.dss" for file in ("Master", f"Minute{minute}"))
    require_solved(minute, opendss("european_lv", *commands, "Set mode=snapshot tolerance=1e-6", "Solve"))


def test_the_run_script(opendss):
    require_solved("566", opendss("european_lv"))


def require_solved(minute, dss):
    circuit = dss.ActiveCircuit
    assert circuit.Solution.Converged
    loads = {load.Name.upper(): load.kW for load in circuit.Loads}
    np.testing.assert_array_equal(list(loads.values()), consumption_kw(minute, loads))
    lv_pu = [v for node, v in zip(circuit.AllNodeNames, circuit.AllBusVmagPu, strict=True) if is_lv(node)]
    require_expected(minute, -circuit.TotalPower[0], circuit.Losses[0] / 1000.0, lv_pu)
