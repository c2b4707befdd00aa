"""The feeder mv5 reproduces the figures of its design; see README.md."""

import csv
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from cosim.grid.batch import BatchPowerFlow
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.io.profiles import read_simbench
from cosim.scenario.schema import GridConfig

HERE = Path(__file__).parent
FEEDER = load_feeder(HERE.parents[2] / "dss_models" / "mv5")
CET = timezone(timedelta(hours=1))
TOLERANCE_KW, TOLERANCE_PU = 0.01, 1e-5


def rows_of(name):
    with (HERE / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def profiles():
    return read_simbench("1-complete_data-mixed-all-1-sw", FEEDER.profile_columns)


@pytest.fixture(scope="module")
def year(profiles):
    """Net consumption of all PODs (35136, n_pod)."""
    return FEEDER.powers(profiles.names, profiles.values)


@pytest.fixture(scope="module")
def year_head_kw(year):
    engine = Engine(FEEDER, GridConfig())
    flow = BatchPowerFlow(engine.unloaded(), [], [FEEDER.head_terminal])
    engine.close()
    return flow.solve(*year).require_converged().p_kw[:, 0]


@pytest.mark.parametrize(
    ("instant", "expected"),
    list(zip(rows_of("input.csv"), rows_of("expected.csv"), strict=True)),
    ids=lambda row: row["time"],
)
def test_check_point(instant, expected, profiles, year):
    assert instant["time"] == expected["time"]
    begin = datetime.fromisoformat(instant["time"]).replace(tzinfo=CET)
    row = int((begin - profiles.start).total_seconds()) // profiles.step_s
    engine = Engine(FEEDER, GridConfig())
    state = engine.solve(year[0][row], year[1][row])
    engine.close()
    assert state.head_p_kw == pytest.approx(float(expected["head_p_kw"]), abs=TOLERANCE_KW)
    assert state.head_q_kvar == pytest.approx(float(expected["head_q_kvar"]), abs=TOLERANCE_KW)
    for bus in ("MV0", "LV1", "LV2", "LV3", "LV4", "LV5"):
        phases = [engine.layout.nodes.index(f"{bus}.{phase}") for phase in (1, 2, 3)]
        np.testing.assert_allclose(state.vm_pu[phases], float(expected[f"{bus.lower()}_pu"]), atol=TOLERANCE_PU, rtol=0)


def test_figures_of_the_year(year_head_kw, profiles):
    hours = profiles.step_s / 3600.0
    begins = [profiles.start.astimezone(CET) + timedelta(seconds=profiles.step_s * k) for k in range(len(year_head_kw))]
    reverse_days = {begin.date() for begin, p_kw in zip(begins, year_head_kw, strict=True) if p_kw < 0.0}
    figures = {
        "import_mwh": np.maximum(year_head_kw, 0.0).sum() * hours / 1000.0,
        "export_mwh": np.maximum(-year_head_kw, 0.0).sum() * hours / 1000.0,
        "maximum_kw": year_head_kw.max(),
        "minimum_kw": year_head_kw.min(),
        "reverse_h": (year_head_kw < 0.0).sum() * hours,
        "reverse_days_april_to_september": sum(4 <= day.month <= 9 for day in reverse_days),
        "reverse_days_november_to_february": sum(day.month in (11, 12, 1, 2) for day in reverse_days),
    }
    expected = rows_of("expected_year.csv")
    assert [row["figure"] for row in expected] == list(figures)
    for row in expected:
        assert figures[row["figure"]] == pytest.approx(float(row["value"]), abs=float(row["tolerance"])), row["figure"]
    assert begins[int(year_head_kw.argmax())] == datetime(2016, 1, 22, 8, 0, tzinfo=CET)
    assert begins[int(year_head_kw.argmin())] == datetime(2016, 7, 23, 11, 45, tzinfo=CET).astimezone(UTC)


def test_the_head_is_not_the_high_voltage_side(year, profiles, year_head_kw):
    """The 110 kV side differs by the losses of the primary transformer, a little over 20 kW."""
    row = int(year_head_kw.argmin())
    engine = Engine(FEEDER, GridConfig())
    state = engine.solve(year[0][row], year[1][row])
    engine.close()
    high_voltage_kw = state.terminal_p_kw[engine.layout.terminals.index("Transformer.TR0@HV0")]
    assert 20.0 < high_voltage_kw - state.head_p_kw < 21.0


def test_ratings_are_those_of_the_opendss_scripts():
    """feeder.yaml repeats what LineCodes and transformers say: they must not drift apart."""
    engine = Engine(FEEDER, GridConfig())
    circuit = engine._dss.ActiveCircuit
    assert set(FEEDER.file.ratings) == set(engine.layout.branches)
    for line in circuit.Lines:
        assert FEEDER.rating(f"Line.{line.Name}").i_a == line.NormAmps
    for transformer in circuit.Transformers:
        assert FEEDER.rating(f"Transformer.{transformer.Name}").s_kva == transformer.kVA
    assert circuit.Lines.Count + circuit.Transformers.Count == len(FEEDER.file.ratings)
    engine.close()
