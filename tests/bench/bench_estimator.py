"""Estimator: the genetic algorithm with batch power flow against pygad's own with one OpenDSS solve per individual."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np
import pygad  # type: ignore[import-untyped]
from instants import SEED, Year
from ratios import Row, times_as_fast
from raw_loop import RawLoop

from cosim.domain.frames import Floats
from cosim.estimation.methods import Estimate, estimate
from cosim.estimation.problem import EstimationProblem, evidence, is_site_power, metered_power, squared_error
from cosim.rng import seed_for
from cosim.scenario.schema import Genetic

METERS = ("HEAD", "SS1", "SS4")
INSTANTS = 15
SAME = Genetic(population=50, generations=60, patience=60)
"""All 60 generations, as the reference does; as configured by default it stops earlier without improvement."""

_silent = logging.getLogger("bench.pygad")
_silent.setLevel(logging.CRITICAL + 1)


class Solution(NamedTuple):
    """Net consumption ``x = [p of all sites, q of all sites]`` (2 n_site,) [kW, kvar] and its objective."""

    x: Floats
    objective: float


class Reference:
    """The plain way: pygad with its default operators, each individual set, solved and read in OpenDSS."""

    def __init__(self, year: Year) -> None:
        self._loop = RawLoop(year.case.feeder.name)
        feeder, nodes = year.case.feeder, self._loop.nodes
        loads = {pod.element.lower(): year.case.pod_sites[k] for k, pod in enumerate(feeder.pods.values())}
        self._sites = [year.case.sites.index(loads[name]) for name in self._loop.loads]
        self._head, self._head_bus = feeder.head.branch, feeder.head.end.upper()
        self._rows = {
            bus: [k for k, node in enumerate(nodes) if node.rpartition(".")[0] == bus] for bus in year.case.layout.buses
        }
        idle = [0.0] * len(self._loop.generators)
        self._loop.set_generators(idle, idle)

    def objective(self, problem: EstimationProblem, x: Floats) -> float:
        """Weighted squared error of ``x`` (2 n_site,), by one solve."""
        p_kw, q_kvar = np.split(x, 2)
        self._loop.set_loads(p_kw[self._sites].tolist(), q_kvar[self._sites].tolist())
        self._loop.solve()
        vm_pu = np.abs(self._loop.voltages()) / self._loop.v_base
        head = self._loop.terminal_kva(self._head)[0]
        total = 0.0
        seen = evidence(problem, but=is_site_power(problem))
        for row, value, sigma in zip(seen.row, seen.value, seen.sigma, strict=True):
            channel = problem.channels[row]
            if channel.quantity == "vm_pu":
                calculated = vm_pu[self._rows[channel.place.bus or self._head_bus]].mean()
            else:
                calculated = {"p_kw": head.real, "q_kvar": head.imag}[channel.quantity]
            total += ((value - calculated) / sigma) ** 2
        return float(total)

    def search(self, problem: EstimationProblem, step: int) -> Solution:
        """The best individual within the history's bounds."""
        x = metered_power(problem).x
        free = np.flatnonzero(np.isnan(x))
        history = problem.history

        def fitness(_: pygad.GA, genes: Floats, __: int) -> float:
            x[free] = genes
            return -self.objective(problem, x)

        optimiser = pygad.GA(
            num_generations=SAME.generations,
            num_parents_mating=SAME.parents,
            sol_per_pop=SAME.population,
            num_genes=free.size,
            gene_space=[{"low": history.lower[k], "high": history.upper[k]} for k in free],
            fitness_func=fitness,
            random_seed=seed_for(SEED, "bench", "pygad", step),
            suppress_warnings=True,
            logger=_silent,
        )
        optimiser.run()
        best = int(np.argmax(optimiser.last_generation_fitness))
        x[free] = optimiser.population[best]
        return Solution(x, -float(optimiser.last_generation_fitness[best]))

    def close(self) -> None:
        self._loop.close()


def check_same(reference: Reference, problem: EstimationProblem, ours: Estimate, theirs: Solution) -> None:
    """Both ways give one objective to one individual. Raises AssertionError."""
    at_ours = reference.objective(problem, np.concatenate([ours.p_kw, ours.q_kvar]))
    np.testing.assert_allclose(ours.objective, at_ours, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(theirs.objective, squared_error(problem, theirs.x), rtol=1e-5, atol=1e-6)


def main() -> list[Row]:
    """Rows in milliseconds an estimate, medians over instants at which all ways take turns."""
    year = Year(METERS)
    reference = Reference(year)
    ms: dict[str, list[float]] = defaultdict(list)
    objective: dict[str, list[float]] = defaultdict(list)
    for step in year.drawn(INSTANTS):
        problem = year.problem(step)
        ways: dict[str, Callable[[], Estimate | Solution]] = {
            "same": partial(estimate, "genetic", problem, SAME, SEED, step),
            "default": partial(estimate, "genetic", problem, Genetic(), SEED, step),
            "wls": partial(estimate, "wls", problem, Genetic(), SEED, step),
            "reference": partial(reference.search, problem, step),
        }
        found = {}
        for name, way in ways.items():
            begin = time.process_time()
            found[name] = way()
            ms[name].append(1e3 * (time.process_time() - begin))
            objective[name].append(found[name].objective)
        ours, theirs = found["same"], found["reference"]
        assert isinstance(ours, Estimate)
        assert isinstance(theirs, Solution)
        check_same(reference, problem, ours, theirs)
    reference.close()
    year.close()
    excess = {n: median(np.subtract(objective[n], objective["reference"]).tolist()) for n in ("same", "default")}
    assert excess["same"] <= 0.0, f"the median objective is higher than pygad's own by {excess['same']}"
    return _rows({n: median(v) for n, v in ms.items()}, {n: median(v) for n, v in objective.items()}, excess)


def _rows(ms: dict[str, float], objective: dict[str, float], excess: dict[str, float]) -> list[Row]:
    solves = f"{SAME.population} x {SAME.generations}"
    fast = f"times as fast as pygad's own operators with one OpenDSS solve per individual, {solves}"
    reached = "reference objective over ours, medians: 1 or more is as good or better; median difference {:+.2g}"
    return [
        times_as_fast(f"genetic algorithm, {solves}", ms["same"], ms["reference"], "ms/estimate", fast),
        times_as_fast(
            "genetic algorithm as configured by default", ms["default"], ms["reference"], "ms/estimate", fast
        ),
        *(
            times_as_fast(name, objective[way], objective["reference"], "1", reached.format(excess[way]))
            for name, way in ((f"objective reached, {solves}", "same"), ("objective reached, default", "default"))
        ),
        times_as_fast(
            "weighted least squares", ms["wls"], ms["default"], "ms/estimate", "times as fast as the genetic algorithm"
        ),
    ]


if __name__ == "__main__":
    for row in main():
        print(row)
