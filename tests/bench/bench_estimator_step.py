"""Estimator: a step of the simulator (least squares, bad data, state of the whole grid) against a solve of the engine
(CPU time)."""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ratios import Row, share

from cosim import load_scenario
from cosim.case import Case, open_case
from cosim.grid.engine import Engine
from cosim.rng import rng_for
from cosim.sensing.gateway import snapshot
from cosim.sensing.measure import fresh_memory, measure
from cosim.sensing.truth import TruthReader, metered_conductors
from simulators.estimator import Estimator

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
FEEDERS = {"mv5": "lfm_mv5.yaml", "ieee123": "lfm_ieee123.yaml"}
INSTANTS = 100


class Grid:
    """The true grid of a case without orders, and what its meters say."""

    def __init__(self, case: Case) -> None:
        self._case, self._engine = case, Engine(case.feeder, case.scenario.grid)
        storage = [unit.pod for unit in case.storage]
        self._reader = TruthReader(case.sensor_model.channels, case.layout, case.pod_sites, storage)
        self._conductors = [
            case.layout.conductors.index(name) for name in metered_conductors(case.sensor_model.channels)
        ]
        self._idle_kw = np.zeros(len(storage))

    def solve(self, step: int) -> Any:
        return self._engine.solve(*(powers[step] for powers in self._case.powers))

    def inputs(self, step: int) -> dict[tuple[str, str], Any]:
        """What the estimator is given at ``step``."""
        state, model, t_s = self.solve(step), self._case.sensor_model, step * self._case.clock.step_s
        truth = {
            ("bus", "vm_pu"): state.vm_pu,
            ("terminal", "p_kw"): state.terminal_p_kw,
            ("terminal", "q_kvar"): state.terminal_q_kvar,
            ("terminal", "i_a"): state.terminal_i_a,
            ("conductor", "p_kw"): state.conductor_p_kw[self._conductors],
            ("conductor", "q_kvar"): state.conductor_q_kvar[self._conductors],
            ("conductor", "i_a"): state.conductor_i_a[self._conductors],
            ("pod", "p_kw"): state.pod_p_kw,
            ("pod", "q_kvar"): state.pod_q_kvar,
        }
        read = measure(model, fresh_memory(model), step, t_s, self._reader.read(truth))
        arrived = snapshot(model.channels, read.messages, t_s, self._case.scenario.sensors.tolerance_s)
        return {
            ("snapshot", "value"): arrived.value,
            ("snapshot", "quality"): arrived.quality,
            ("control", "position"): self._engine.control_values(self._engine.controls()),
            ("order", "p_kw"): self._idle_kw,
        }

    def close(self) -> None:
        self._engine.close()


def seconds(feeder: str, scenario: str) -> dict[str, float]:
    """Median CPU seconds of a step and of a solve, in turn, over instants with different histories."""
    case = open_case(load_scenario(SCENARIOS / scenario, []))
    grid, estimator = Grid(case), Estimator()
    estimator.init("estimator", case=case, wire=False)
    apart = max(1, 900 // case.clock.step_s)
    drawn = rng_for(1, "bench", "estimator_step", feeder).choice(case.clock.steps // apart, INSTANTS, replace=True)
    taken: dict[str, list[float]] = defaultdict(list)
    for step in (apart * drawn).tolist():
        given, t_s = grid.inputs(step), step * case.clock.step_s
        ways: dict[str, Callable[[], object]] = {
            "solve": partial(grid.solve, step),
            "step": partial(estimator.advance, t_s, given),
        }
        for name, work in ways.items():
            gc.collect()
            begin = time.process_time()
            work()
            taken[name].append(time.process_time() - begin)
    grid.close()
    estimator.finalize()
    return {name: median(values) for name, values in taken.items()}


def main() -> list[Row]:
    """Rows in milliseconds."""
    rows = []
    for feeder, scenario in FEEDERS.items():
        ms = {name: 1e3 * value for name, value in seconds(feeder, scenario).items()}
        rows.append(share(f"{feeder}: a step", ms["step"], ms["solve"], "ms", "times a solve of the engine"))
    return rows


if __name__ == "__main__":
    for row in main():
        print(row)
