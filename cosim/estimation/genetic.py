"""The genetic algorithm (pygad): finds the unmetered injections within the bounds that the history gives.

pygad 3.9 runs the generations, keeps the elite and stops; selection, crossover and mutation are ours, because its own
loop over individuals and genes in Python (220-320 ms at 50 x 60, these 30-45 ms). All randomness comes from the named
stream of the step, none from pygad or global generators.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pygad  # type: ignore[import-untyped]

from cosim.domain.frames import Floats, Ints, frozen
from cosim.estimation.problem import (
    EstimationProblem,
    evidence,
    is_site_power,
    metered_power,
    residuals,
)
from cosim.rng import rng_for, seed_for
from cosim.scenario.schema import Genetic

STRETCH = 0.25
"""How far beyond its parents a child may lie on the line through them [share of their distance]."""
FIRST_MUTATION, LAST_MUTATION = 0.2, 0.001
"""Standard deviation of mutations in the first and last generation [share of the bounds' width]."""
IMPROVEMENT = 1e-3
"""Least fall of the objective that counts as improvement [share of objective + 1]."""

_pygad_log = logging.getLogger(f"{__name__}.pygad")
_pygad_log.setLevel(logging.CRITICAL + 1)  # pygad logs every exception twice before it raises it again


@dataclass(frozen=True)
class GeneticSolution:
    """``x`` (2 n_site,) [kW, kvar] without orders; ``objective`` [1] as minimised. ``converged`` tells that it stopped
    for want of improvement rather than at the limit of generations."""

    x: Floats
    objective: float
    generations: int
    converged: bool


def solve(problem: EstimationProblem, options: Genetic, *, with_prior: bool, seed: int, step: int) -> GeneticSolution:
    """Minimises ``J = sum(((z - h(x)) / sigma)^2)``, with ``with_prior`` plus ``(x - mean)^T C^-1 (x - mean)``.

    Metered injections are fixed at their measured values; the others are genes within the history's bounds. J runs over
    the channels that are not such inputs. The whole population is evaluated in one load-flow call. With nothing to
    search for or nothing to compare with, the historical mean stands.
    """
    search = _Search(problem, options, with_prior, seed, step)
    if not search.genes.size or not (with_prior or search.seen.row.size):
        return GeneticSolution(frozen(search.start), float(search.objective(search.start[np.newaxis])[0]), 0, True)
    optimiser = pygad.GA(
        num_generations=options.generations,
        num_parents_mating=options.parents,
        fitness_func=search.fitness,
        fitness_batch_size=options.population,
        initial_population=search.first_population(),
        parent_selection_type=search.select,
        crossover_type=search.cross,
        mutation_type=search.mutate,
        mutation_probability=options.mutation_share,
        keep_elitism=options.elite,
        keep_parents=None if options.elite else 0,
        on_generation=search.stop_without_improvement,
        random_seed=seed_for(seed, "estimator", "genetic", step),
        logger=_pygad_log,
    )
    optimiser.run()
    return GeneticSolution(
        x=frozen(search.best_x),
        objective=search.best_objective,
        generations=optimiser.generations_completed,
        converged=search.stale >= options.patience and bool(np.isfinite(search.best_objective)),
    )


class _Search:
    """One search: the operators that pygad calls, and the best individual seen so far."""

    def __init__(self, problem: EstimationProblem, options: Genetic, with_prior: bool, seed: int, step: int) -> None:
        self.problem, self.options, self.with_prior = problem, options, with_prior
        self.rng = rng_for(seed, "estimator", "genetic", step)
        self.seen = evidence(problem, but=is_site_power(problem))
        fixed = metered_power(problem).x
        self.genes: Ints = np.flatnonzero(np.isnan(fixed))
        self.start = np.where(np.isnan(fixed), problem.history.mean, fixed)
        self.lower, self.upper = problem.history.lower[self.genes], problem.history.upper[self.genes]
        self.whitening: Floats = np.linalg.inv(np.linalg.cholesky(problem.history.covariance)).T
        self.best_x, self.best_objective = self.start, np.inf
        self.stale, self.mark = 0, np.inf

    def with_genes(self, genes: Floats) -> Floats:
        """x (n_case, 2 n_site) of ``genes`` (n_case, n_gene)."""
        x = np.tile(self.start, (len(genes), 1))
        x[:, self.genes] = genes
        return x

    def objective(self, x: Floats) -> Floats:
        """Objective (n_case,) of ``x`` (n_case, 2 n_site); infinite where the load flow does not converge."""
        value = np.sum(residuals(self.problem, self.seen, x) ** 2, axis=1)
        if self.with_prior:
            value = value + np.sum(((x - self.problem.history.mean) @ self.whitening) ** 2, axis=1)
        return np.where(np.isfinite(value), value, np.inf)

    def first_population(self) -> Floats:
        """The historical mean, then individuals drawn in turn from the history's covariance and uniformly."""
        size = (self.options.population, self.genes.size)
        history = self.problem.history
        root = np.linalg.cholesky(history.covariance[np.ix_(self.genes, self.genes)])
        likely = history.mean[self.genes] + self.rng.standard_normal(size) @ root.T
        anywhere = self.rng.uniform(self.lower, self.upper, size)
        population = np.where((np.arange(size[0]) % 2 == 0)[:, np.newaxis], likely, anywhere)
        population[0] = history.mean[self.genes]
        return self._within(population)

    def fitness(self, _: pygad.GA, genes: Floats, __: object) -> Floats:
        x = self.with_genes(genes)
        objective = self.objective(x)
        best = int(np.argmin(objective))
        if objective[best] < self.best_objective:
            self.best_x, self.best_objective = x[best], float(objective[best])
        return -objective

    def select(self, fitness: Floats, count: int, optimiser: pygad.GA) -> tuple[Floats, Ints]:
        """The ``count`` best."""
        order = np.argsort(-fitness, kind="stable")[:count]
        return np.asarray(optimiser.population[order]), order

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
