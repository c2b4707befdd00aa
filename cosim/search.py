"""Bounded minimisation by the genetic algorithm (the only import of pygad).

pygad runs the generations, keeps the elite and stops; selection, crossover, mutation and the evaluation of a generation
are ours and work on whole arrays, because its own go through individuals and genes in Python (220-320 ms for 60
generations of 50, these about 10 ms without the objective). All randomness comes from the generator given, none from
pygad or global generators.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pygad  # type: ignore[import-untyped]

from cosim.domain.frames import Floats, Ints, frozen
from cosim.scenario.schema import Genetic

Objective = Callable[[Floats], Floats]
"""Values (n_case,) of candidates (n_case, n_gene); infinite for one that cannot be judged, never NaN."""

STRETCH = 0.25
"""How far beyond its parents a child may lie on the line through them [share of their distance]."""
FIRST_MUTATION, LAST_MUTATION = 0.2, 0.001
"""Standard deviation of mutations in the first and last generation [share of the bounds' width]."""
IMPROVEMENT = 1e-3
"""Least fall of the objective that counts as improvement [share of objective + 1]."""

_pygad_log = logging.getLogger(f"{__name__}.pygad")
_pygad_log.setLevel(logging.CRITICAL + 1)  # pygad logs every exception twice before it raises it again


@dataclass(frozen=True)
class Found:
    """The best candidate seen: ``x`` (n_gene,) and its ``objective``. ``converged`` tells that the search stopped for
    want of improvement rather than at the limit of generations."""

    x: Floats
    objective: float
    generations: int
    converged: bool


def minimise(
    objective: Objective,
    lower: Floats,
    upper: Floats,
    options: Genetic,
    rng: np.random.Generator,
    start: Floats | None = None,
) -> Found:
    """The lowest ``objective`` found within ``lower`` and ``upper`` (n_gene,), one gene at least.

    Every generation is evaluated in one call. ``start`` (n_start, n_gene) are the first individuals, cut to the bounds;
    the rest of the first population is drawn uniformly. If no candidate can be judged, the first one stands with an
    infinite objective.
    """
    search = _Search(objective, lower, upper, options, rng)
    optimiser = _Optimiser(
        num_generations=options.generations,
        num_parents_mating=options.parents,
        fitness_func=search.fitness,
        initial_population=search.first_population(start),
        parent_selection_type=search.select,
        crossover_type=search.cross,
        mutation_type=search.mutate,
        mutation_probability=options.mutation_share,
        keep_elitism=options.elite,
        keep_parents=None if options.elite else 0,
        on_generation=search.stop_without_improvement,
        random_seed=0,
        logger=_pygad_log,
    )
    optimiser.run()
    return Found(
        x=frozen(search.best_x),
        objective=search.best_objective,
        generations=int(optimiser.generations_completed),
        converged=search.stale >= options.patience and bool(np.isfinite(search.best_objective)),
    )


class _Optimiser(pygad.GA):  # type: ignore[misc]
    """pygad with whole generations as arrays: it checks fitness values one by one, twice a generation, which costs more
    than a batch power flow of them all."""

    def cal_pop_fitness(self) -> Floats:
        """Fitness (n_individual,); the elite, at the front, is not evaluated again."""
        elite = self.last_generation_elitism_indices
        if elite is None:
            return np.asarray(self.fitness_func(self, self.population, None))
        known = self.previous_generation_fitness[elite]
        return np.concatenate([known, self.fitness_func(self, self.population[len(elite) :], None)])

    def best_solution(self, pop_fitness: Floats | None = None) -> tuple[Floats, float, int]:
        """The best individual, its fitness and its index."""
        fitness = self.last_generation_fitness if pop_fitness is None else pop_fitness
        best = int(np.argmax(fitness))
        return self.population[best].copy(), fitness[best], best

    def steady_state_selection(self, fitness: Floats, num_parents: int) -> tuple[Floats, Ints]:
        """The ``num_parents`` best and their indices; of equal ones the first."""
        order = np.argsort(-fitness, kind="stable")[:num_parents]
        return self.population[order], order


class _Search:
    """The operators that pygad calls, and the best individual seen so far."""

    def __init__(
        self, objective: Objective, lower: Floats, upper: Floats, options: Genetic, rng: np.random.Generator
    ) -> None:
        self.objective, self.lower, self.upper, self.options, self.rng = objective, lower, upper, options, rng
        self.best_x, self.best_objective = lower, np.inf
        self.stale, self.mark = 0, np.inf

    def first_population(self, start: Floats | None) -> Floats:
        population = self.rng.uniform(self.lower, self.upper, (self.options.population, len(self.lower)))
        if start is not None:
            population[: len(start)] = start[: len(population)]
        population = self._within(population)
        self.best_x = population[0]
        return population

    def fitness(self, _: pygad.GA, genes: Floats, __: object) -> Floats:
        if not len(genes):  # all are elite
            return np.zeros(0)
        objective = self.objective(genes)
        best = int(np.argmin(objective))
        if objective[best] < self.best_objective:
            self.best_x, self.best_objective = genes[best].copy(), float(objective[best])
        return -objective

    def select(self, fitness: Floats, count: int, optimiser: Any) -> tuple[Floats, Ints]:
        """The ``count`` best."""
        parents: tuple[Floats, Ints] = optimiser.steady_state_selection(fitness, count)
        return parents

    def cross(self, parents: Floats, size: tuple[int, int], _: pygad.GA) -> Floats:
        """Extended line recombination (Muehlenbein and Schlierkamp-Voosen, Evolutionary Computation 1(1), 1993).

        A child lies on the line through two parents: what both of them meet, as a sum of injections that reproduces the
        head flow, their children meet too. Exchanging genes would destroy it.
        """
        first, second = self.rng.integers(len(parents), size=(2, size[0]))
        along = self.rng.uniform(-STRETCH, 1.0 + STRETCH, (size[0], 1))
        return self._within(parents[first] + along * (parents[second] - parents[first]))

    def mutate(self, children: Floats, optimiser: pygad.GA) -> Floats:
        """Normal steps in a share of the genes, shrinking geometrically with the generations."""
        progress: float = optimiser.generations_completed / self.options.generations
        scale = FIRST_MUTATION * (LAST_MUTATION / FIRST_MUTATION) ** progress * (self.upper - self.lower)
        chosen = self.rng.random(children.shape) < self.options.mutation_share
        steps = scale * self.rng.standard_normal(children.shape)
        return self._within(children + chosen * steps)

    def stop_without_improvement(self, _: pygad.GA) -> str | None:
        if self.mark - self.best_objective > IMPROVEMENT * (1.0 + self.best_objective):
            self.mark, self.stale = self.best_objective, 0
        else:
            self.stale += 1
        return "stop" if self.stale >= self.options.patience else None

    def _within(self, genes: Floats) -> Floats:
        return np.asarray(np.clip(genes, self.lower, self.upper))
