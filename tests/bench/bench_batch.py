"""Batch power flow and linear core: against set, solve and read in the engine, and what linear models leave out.

The engine is called as shortly as it can be: raw batch setters, solve, copy of the voltages. Both start flat in every
case; the engine stops at its default tolerance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ratios import Row, alternated, times_as_fast

from cosim.domain.frames import Complexes, Floats
from cosim.domain.measurement import Channel, Place
from cosim.domain.site import site_sums
from cosim.grid.batch import BatchPowerFlow
from cosim.grid.circuit import PowerSetter, Solution, solve_flat
from cosim.grid.engine import Engine
from cosim.grid.fallback import MATRIX_BRANCHES
from cosim.grid.feeder import Feeder, load_feeder
from cosim.grid.limits import Limits
from cosim.grid.linear import LinearNetwork, gap_to_loads
from cosim.grid.site_flow import SiteFlow
from cosim.grid.unloaded import Unloaded
from cosim.rng import rng_for
from cosim.scenario.schema import GridConfig
from cosim.scenario.schema import Limits as LimitsConfig

FEEDERS = Path(__file__).resolve().parents[2] / "dss_models"
NAMES = ("mv5", "ieee123", "european_lv")
CASES = 2000
CASES_READ_WHOLE = 250
ROUNDS = 5
TOLERANCE_PU = 1e-8
TIGHT = GridConfig(tolerance_pu=1e-12, max_iterations=200)


class Opened:
    """A feeder with its controls held where full load leaves them, and random powers (n_case, n_pod) up to that."""

    def __init__(self, feeder: Feeder, cases: int = CASES) -> None:
        self.feeder = feeder
        columns = feeder.profile_columns
        self.p_full, self.q_full = feeder.powers(columns, np.ones(len(columns)))
        factor = rng_for(1, "bench", feeder.name).uniform(0.2, 1.0, (cases, len(self.p_full)))
        self.p_kw, self.q_kvar = factor * self.p_full, factor * self.q_full
        engine = Engine(feeder, GridConfig())
        self.state = engine.solve(self.p_full, self.q_full)
        self.positions, self.pod_sites = engine.controls(), engine.pod_sites
        self.network: Unloaded = engine.unloaded(self.positions)
        engine.close()

    def held_engine(self, config: GridConfig) -> Engine:
        engine = Engine(self.feeder, config)
        engine.restore_controls(self.positions)
        engine._dss.Text.Command = "Set controlmode=off"
        engine.solve(self.p_full, self.q_full)
        return engine


class RawLoop:
    """Set, solve, read, with nothing around it."""

    def __init__(self, engine: Engine) -> None:
        self._dss: Any = engine._dss
        self._setter = PowerSetter(self._dss, engine._elements)
        self._n_node = len(engine.layout.nodes)
        self._solution = Solution(self._dss, self._n_node)

    def voltages(self, p_kw: Floats, q_kvar: Floats) -> Complexes:
        v = np.empty((len(p_kw), 1 + self._n_node), dtype=np.complex128)
        for k, (p, q) in enumerate(zip(p_kw, q_kvar, strict=True)):
            self._setter.set(p, q)
            solve_flat(self._dss)
            v[k] = self._solution.voltages()
        return v

    def everything(self, p_kw: Floats, q_kvar: Floats) -> list[Complexes]:
        read = []
        for p, q in zip(p_kw, q_kvar, strict=True):
            self._setter.set(p, q)
            solve_flat(self._dss)
            read += [self._solution.voltages().copy(), self._solution.currents().copy()]
        return read


def batch_rows(opened: Opened) -> Iterator[Row]:
    """Voltages at the PODs and power at the head; all voltages; all voltages and flows."""
    network, p, q = opened.network, opened.p_kw, opened.q_kvar
    layout = network.layout
    at_pods = sorted({branch.nodes[0] - 1 for branch in network.pod_branches})
    some = BatchPowerFlow(network, [layout.nodes[k] for k in at_pods], [opened.feeder.head_terminal])
    whole = BatchPowerFlow(network, layout.nodes, layout.terminals)
    voltages = BatchPowerFlow(network, layout.nodes, [])
    check_same(opened, whole)
    engine = opened.held_engine(GridConfig())
    raw = RawLoop(engine)
    few = slice(CASES_READ_WHOLE)
    seconds = alternated(
        {
            "some": lambda: _read_all(some, p, q),
            "raw": lambda: raw.voltages(p, q),
            "voltages": lambda: voltages.solve(p[few], q[few]).vm_pu,
            "whole": lambda: _read_all(whole, p[few], q[few]),
            "raw, all": lambda: raw.everything(p[few], q[few]),
        },
        ROUNDS,
    )
    engine.close()
    us = {way: s / (CASES if way in ("some", "raw") else CASES_READ_WHOLE) * 1e6 for way, s in seconds.items()}
    name = opened.feeder.name
    note = "times as fast as set, solve, read in the engine"
    yield times_as_fast(f"{name}: voltages at PODs, head", us["some"], us["raw"], "us a case", note)
    yield times_as_fast(f"{name}: all voltages", us["voltages"], us["raw"], "us a case", note)
    note += ", currents too"
    yield times_as_fast(f"{name}: all voltages and flows", us["whole"], us["raw, all"], "us a case", note)


def _read_all(flow: BatchPowerFlow, p_kw: Floats, q_kvar: Floats) -> None:
    state = flow.solve(p_kw, q_kvar)
    _ = state.vm_pu, state.p_kw, state.q_kvar, state.i_a


def check_same(opened: Opened, flow: BatchPowerFlow) -> None:
    """Batch power flow and engine find the same voltages. Raises AssertionError."""
    engine = opened.held_engine(TIGHT)
    p, q = opened.p_kw[:50], opened.q_kvar[:50]
    expected = [engine.solve(*powers).vm_pu for powers in zip(p, q, strict=True)]
    engine.close()
    np.testing.assert_allclose(flow.solve(p, q).require_converged().vm_pu, expected, rtol=0, atol=TOLERANCE_PU)


def gap_rows(opened: Opened) -> Iterator[Row]:
    """What a model with no-load voltages in the loads' currents gets wrong at full load."""
    model = LinearNetwork(opened.network, opened.feeder.head_terminal)
    gap = gap_to_loads(model, opened.p_full, opened.q_full)
    for what, largest, mean in (
        ("voltage slopes", gap.v_slope_largest, gap.v_slope_mean),
        ("current slopes", gap.i_slope_largest, gap.i_slope_mean),
    ):
        note = "largest gap of fixed no-load voltages to loads as they are, full load (ours: mean)"
        yield Row(f"{opened.feeder.name}: {what}", mean, largest, largest, "1", note)
    note = "gap of predicted voltages (ours: of currents, over the largest)"
    yield Row(f"{opened.feeder.name}: state", gap.i_largest, gap.v_largest, gap.v_largest, "1", note)


def single_rows(opened: Opened) -> Iterator[Row]:
    """What the estimator and the recorder call at every step, in steps of a bare solve."""
    network, sums = opened.network, site_sums(opened.pod_sites)
    flow = SiteFlow(network, opened.feeder, opened.pod_sites, realistic_channels(opened))
    p, q = opened.state.pod_p_kw @ sums, opened.state.pod_q_kvar @ sums
    limits = Limits(
        network.layout, LimitsConfig(vm_min_pu=0.5, vm_max_pu=1.5, loading_max_pu=9.0), opened.feeder.head_terminal
    )
    held, unloading = opened.held_engine(GridConfig()), Engine(opened.feeder, GridConfig())
    unloading.unloaded(opened.positions)
    raw, one = RawLoop(held), (opened.p_kw[:1], opened.q_kvar[:1])
    solve_us = _each_us(lambda: raw.voltages(*one))
    name = opened.feeder.name
    for what, work in (
        ("readings and slopes", lambda: flow.linearised(p, q)),
        ("voltage slopes", lambda: flow.voltage_slope(p, q)),
        ("network at other taps", lambda: unloading.unloaded(opened.positions)),
        ("limits", lambda: limits.violations(opened.state)),
    ):
        us = _each_us(work)
        yield Row(f"{name}: {what}", us, solve_us, us / solve_us, "us", "times a solve of the engine")
    held.close()
    unloading.close()


def realistic_channels(opened: Opened) -> list[Channel]:
    """Head, three more places in branches, a fifth of the loads."""
    branch, _, end = opened.feeder.head_terminal.partition("@")
    places = [(Place(branch=branch, end=end, phase=k), q) for k in (1, 2, 3) for q in ("p_kw", "q_kvar", "vm_pu")]
    terminals = opened.network.layout.terminals
    for terminal in terminals[3 :: len(terminals) // 3]:
        branch, _, end = terminal.partition("@")
        places += [(Place(branch=branch, end=end), q) for q in ("p_kw", "q_kvar")]
    for site in opened.pod_sites[::5]:
        places += [(Place(bus=site.partition(".")[0]), q) for q in ("p_kw", "q_kvar")]
    return [Channel("m", f"m/{k}", quantity, place, 1.0) for k, (place, quantity) in enumerate(places)]


def _each_us(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(60):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return median(seconds) * 1e6


def crossing_row(n_load: int) -> Row:
    """A feeder of single-phase loads on one side of where the choice between the ways changes."""
    with TemporaryDirectory() as folder:
        _write_tree(Path(folder), n_load)
        opened = Opened(load_feeder(Path(folder)), cases=64)
        p, q = opened.p_kw, opened.q_kvar
        flow = BatchPowerFlow(opened.network, opened.network.layout.nodes, [opened.feeder.head_terminal])
        engine = opened.held_engine(GridConfig())
        raw = RawLoop(engine)
        seconds = alternated({"ours": lambda: flow.solve(p, q), "raw": lambda: raw.voltages(p, q)}, 3)
        engine.close()
    us = {name: value / len(p) * 1e6 for name, value in seconds.items()}
    note = f"times as fast as the engine; chosen up to {MATRIX_BRANCHES} branches"
    return times_as_fast(f"matrix, {n_load} branches", us["ours"], us["raw"], "us a case", note)


def _write_tree(folder: Path, n_load: int) -> None:
    """Each bus feeds two more and three loads."""
    script = ["Clear", "New Circuit.tree bus1=B0 basekV=20 pu=1.0 phases=3 MVAsc3=500 MVAsc1=500"]
    yaml = ["name: tree", "head: {branch: Line.L1, end: B0}", "pods:"]
    for k in range(1, n_load // 3 + 1):
        script.append(
            f"New Line.L{k} bus1=B{k // 2} bus2=B{k} phases=3 R1=0.3 X1=0.3 R0=0.9 X0=0.9 Length=0.2 Units=km"
        )
        for phase in (1, 2, 3):
            name = f"C{k}_{phase}"
            script.append(f"New Load.{name} bus1=B{k}.{phase} phases=1 kV=11.547 kW=5 kvar=1 Vminpu=0.5 Vmaxpu=1.5")
            yaml.append(f"  {name}: {{element: Load.{name}, kind: load, kw: 5, profile: constant}}")
    script += ["Set VoltageBases=[20]", "CalcVoltageBases"]
    (folder / "Master.dss").write_text("\n".join(script) + "\n")
    (folder / "feeder.yaml").write_text("\n".join(yaml) + "\n")


def main() -> list[Row]:
    """Rows of all feeders."""
    opened = [Opened(load_feeder(FEEDERS / name)) for name in NAMES]
    rows = [row for each in opened for row in batch_rows(each)]
    rows += [crossing_row(n_load) for n_load in (MATRIX_BRANCHES // 2, 2 * MATRIX_BRANCHES)]
    rows += [row for each in opened for row in single_rows(each)]
    return [*rows, *(row for each in [*opened, Opened(load_feeder(FEEDERS / "lfm12"))] for row in gap_rows(each))]
