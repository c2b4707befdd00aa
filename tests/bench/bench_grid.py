"""Grid: what the adapter and the engine cost over a plain OpenDSS loop (mv5, CPU time a step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ratios import Row, alternated, times_as_fast
from ratios import share as share_of
from raw_loop import FEEDERS, RawBatchLoop, RawLoop

from cosim.case import Case, open_case
from cosim.domain.frames import Floats, frozen
from cosim.domain.grid import GridState
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.rng import rng_for
from cosim.scenario.load import load_scenario
from cosim.scenario.schema import GridConfig
from simulators.grid import Grid

SCENARIO = Path(__file__).resolve().parents[2] / "scenarios" / "mv5_threshold.yaml"
OVERRIDES = ("start=2016-07-01T00:00:00+01:00", "duration=31d", "transport=memory")
ROUNDS = 5
BATCH_LOOPS = {"mv5": 3000, "ieee123": 400, "european_lv": 60}
"""Steps timed against the raw batch loop, by feeder."""

TOLERANCE_PU = 1e-7
"""Both paths stop at 1e-8 pu, from the same start."""
TOLERANCE_KW = 1e-3
"""That voltage tolerance times the admittance of the shortest branch."""


class Adapter:
    """The grid adapter driven as mosaik drives it: create, then step and get_data of everything, storage idle."""

    def __init__(self, case: Case) -> None:
        self._clock = case.clock
        self._grid = Grid()
        meta = self._grid.init("grid", 1.0, case=case, wire=False)
        models = [model for model in meta["models"] if model != "foreign_pod"]
        for model in models:
            self._grid.create(1, model)
        self._wanted = {
            model: [a for a in meta["models"][model]["attrs"] if a not in Grid.inputs.get(model, ())]
            for model in models
            if model != "order"
        }
        self._idle = frozen(np.zeros(len(case.storage)))

    def run(self, steps: list[tuple[Floats, Floats]]) -> Iterator[Any]:
        """Everything that the grid gives, at each step."""
        for k, (p_kw, q_kvar) in enumerate(steps):
            inputs = {
                "pod": {"profile_p_kw": {"profiles.pod": p_kw}, "profile_q_kvar": {"profiles.pod": q_kvar}},
                "order": {"p_kw": {"operator.order": self._idle}},
            }
            self._grid.step(k * self._clock.step_s, inputs, self._clock.until_s)
            yield self._grid.get_data(self._wanted)

    def close(self) -> None:
        self._grid.finalize()


class Raw:
    """The raw loop, told the same powers."""

    def __init__(self, case: Case) -> None:
        self.loop = RawLoop(case.feeder.name)
        elements = [pod.element.lower() for pod in case.feeder.pods.values()]
        self._loads = [elements.index(name) for name in self.loop.loads]
        self._generators = [elements.index(name) for name in self.loop.generators]
        self._branches = case.layout.branches

    def set(self, p_kw: Floats, q_kvar: Floats) -> None:
        self.loop.set_loads(p_kw[self._loads].tolist(), q_kvar[self._loads].tolist())
        self.loop.set_generators((-p_kw[self._generators]).tolist(), (-q_kvar[self._generators]).tolist())

    def voltages(self, steps: list[tuple[Floats, Floats]]) -> Iterator[Any]:
        """Node voltages [V] of each step."""
        for p_kw, q_kvar in steps:
            self.set(p_kw, q_kvar)
            self.loop.solve()
            yield self.loop.voltages()

    def everything(self, steps: list[tuple[Floats, Floats]]) -> Iterator[Any]:
        """What the engine reads, element by element: voltages, powers and currents of all branches, losses."""
        for voltages in self.voltages(steps):
            powers = [self.loop.terminal_kva(branch) for branch in self._branches]
            currents = [self.loop.currents(branch) for branch in self._branches]
            yield np.abs(voltages), np.angle(voltages), powers, currents, self.loop.dss.Circuit.Losses()

    def solves(self, count: int) -> None:
        """``count`` solves alone."""
        for _ in range(count):
            self.loop.solve()


def check_same(adapter: Adapter, engine: Engine, raw: Raw, steps: list[tuple[Floats, Floats]]) -> None:
    """All paths find the same state at every step. Raises AssertionError."""
    order = [raw.loop.nodes.index(node) for node in engine.layout.nodes]
    paths = zip(adapter.run(steps), states(engine, steps), raw.everything(steps), strict=True)
    for given, state, (magnitude, _, powers, _, _) in paths:
        np.testing.assert_array_equal(given["bus"]["vm_pu"], state.vm_pu)
        np.testing.assert_array_equal(given["terminal"]["p_kw"], state.terminal_p_kw)
        np.testing.assert_allclose(state.vm_pu, (magnitude / raw.loop.v_base)[order], rtol=0, atol=TOLERANCE_PU)
        raw_kva = np.array(powers).ravel()
        np.testing.assert_allclose(state.terminal_p_kw, raw_kva.real, rtol=0, atol=TOLERANCE_KW)
        np.testing.assert_allclose(state.terminal_q_kvar, raw_kva.imag, rtol=0, atol=TOLERANCE_KW)


def states(engine: Engine, steps: list[tuple[Floats, Floats]]) -> Iterator[GridState]:
    for p_kw, q_kvar in steps:
        yield engine.solve(p_kw, q_kvar)


def _through(path: Callable[[list[tuple[Floats, Floats]]], Iterator[Any]], steps: Any) -> Callable[[], None]:
    def work() -> None:
        for _ in path(steps):
            pass

    return work


def main() -> list[Row]:
    """Rows in microseconds a step."""
    case = open_case(load_scenario(SCENARIO, OVERRIDES))
    steps = list(zip(*case.powers, strict=True))
    adapter, engine, raw = Adapter(case), Engine(case.feeder, case.scenario.grid), Raw(case)
    check_same(adapter, engine, raw, steps)
    controls = range(len(steps))
    seconds = alternated(
        {
            "adapter": _through(adapter.run, steps),
            "engine": _through(lambda all_steps: states(engine, all_steps), steps),
            "raw": _through(raw.voltages, steps),
            "raw, all": _through(raw.everything, steps),
            "solve": lambda: raw.solves(len(steps)),
            "controls": lambda: [engine.controls() for _ in controls],
        },
        ROUNDS,
    )
    for each in (adapter, engine, raw.loop):
        each.close()
    rows = _rows({name: s / len(steps) * 1e6 for name, s in seconds.items()})
    return [*rows, *(_over_batch_loop(feeder, count) for feeder, count in BATCH_LOOPS.items())]


def _over_batch_loop(name: str, count: int) -> Row:
    """The engine over the fastest raw loop, ``count`` steps of a day that swells and ebbs, 5 % apart by POD."""
    feeder = load_feeder(FEEDERS / name)
    engine = Engine(feeder, GridConfig())
    raw = RawBatchLoop(name, [pod.element.lower() for pod in feeder.pods.values()])
    share = 0.6 + 0.3 * np.sin(np.linspace(0.0, 2.0 * np.pi, count))[:, None]
    share = share * rng_for(1, "bench").uniform(0.95, 1.05, (count, len(engine.pods)))
    p_kw = share * [pod.p_per_profile_kw for pod in feeder.pods.values()]
    q_kvar = share * [pod.q_per_profile_kvar for pod in feeder.pods.values()]
    steps = list(zip(map(frozen, p_kw), map(frozen, q_kvar), strict=True))
    seconds = alternated(
        {
            "engine": lambda: [engine.solve(*step).converged for step in steps],
            "raw": lambda: [len(raw.step(*step)) for step in steps],
        },
        ROUNDS,
    )
    engine.close()
    engine_us, raw_us = (seconds[way] / count * 1e6 for way in ("engine", "raw"))
    note = "share of the raw batch loop's time: batch setters, solve, copies of voltages and currents"
    return share_of(f"Engine.solve, whole state, {name}", engine_us, raw_us, "us/step", note)


def _rows(us: dict[str, float]) -> list[Row]:
    adapter, engine = us["adapter"], us["engine"]
    fast = "times as fast as opendssdirect's Idx loop that reads"
    part = "share of the adapter's step"
    rest = adapter - engine - us["controls"]
    return [
        times_as_fast("grid adapter, whole state", adapter, us["raw"], "us/step", f"{fast} voltages only"),
        times_as_fast("Engine.solve, whole state", engine, us["raw"], "us/step", f"{fast} voltages only"),
        times_as_fast("grid adapter, whole state", adapter, us["raw, all"], "us/step", f"{fast} the same state"),
        times_as_fast("Engine.solve, whole state", engine, us["raw, all"], "us/step", f"{fast} the same state"),
        share_of("OpenDSS's solve itself", us["solve"], adapter, "us/step", part),
        share_of("setting powers, reading the state", engine - us["solve"], adapter, "us/step", part),
        share_of("reading taps and capacitors", us["controls"], adapter, "us/step", part),
        share_of("adapter: stored energy, mosaik's dictionaries", rest, adapter, "us/step", part),
    ]


if __name__ == "__main__":
    for row in main():
        print(row)
