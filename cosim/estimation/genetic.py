"""The genetic algorithm: finds the unmetered injections within the bounds that the history gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats, Ints, frozen
from cosim.estimation.problem import (
    EstimationProblem,
    evidence,
    is_site_power,
    metered_power,
    residuals,
)
from cosim.rng import rng_for
from cosim.scenario.schema import Genetic
from cosim.search import minimise


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
    cost = _Cost(problem, with_prior)
    if not cost.genes.size or not (with_prior or cost.seen.row.size):
        return GeneticSolution(frozen(cost.start), float(cost.of(cost.start[np.newaxis])[0]), 0, True)
    rng = rng_for(seed, "estimator", "genetic", step)
    found = minimise(
        lambda genes: cost.of(cost.with_genes(genes)),
        problem.history.lower[cost.genes],
        problem.history.upper[cost.genes],
        options,
        rng,
        _likely(problem, cost.genes, options.population // 2, rng),
    )
    x = cost.with_genes(found.x[np.newaxis])[0]
    return GeneticSolution(frozen(x), found.objective, found.generations, found.converged)


class _Cost:
    """What is minimised. ``genes`` are the indices of x that are searched, ``start`` (2 n_site,) holds the others."""

    def __init__(self, problem: EstimationProblem, with_prior: bool) -> None:
        self.problem, self.with_prior = problem, with_prior
        self.seen = evidence(problem, but=is_site_power(problem))
        metered = metered_power(problem)
        fixed = metered.x
        self.genes: Ints = np.flatnonzero(np.isnan(fixed))
        self.start = np.where(np.isnan(fixed), problem.history.mean, fixed)
        # A metered injection is fixed at a reading: it departs from the history by the reading's error too.
        spread = problem.history.covariance + np.diag(np.nan_to_num(metered.sigma) ** 2)
        self.whitening: Floats = np.linalg.inv(np.linalg.cholesky(spread)).T

    def with_genes(self, genes: Floats) -> Floats:
        """x (n_case, 2 n_site) of ``genes`` (n_case, n_gene)."""
        x = np.tile(self.start, (len(genes), 1))
        x[:, self.genes] = genes
        return x

    def of(self, x: Floats) -> Floats:
        """Objective (n_case,) of ``x`` (n_case, 2 n_site); infinite where the load flow does not converge."""
        value = np.sum(residuals(self.problem, self.seen, x) ** 2, axis=1)
        if self.with_prior:
            value = value + np.sum(((x - self.problem.history.mean) @ self.whitening) ** 2, axis=1)
        return np.where(np.isfinite(value), value, np.inf)


def _likely(problem: EstimationProblem, genes: Ints, count: int, rng: np.random.Generator) -> Floats:
    """The historical mean, then individuals drawn from the history's covariance, (count, n_gene)."""
    history = problem.history
    root = np.linalg.cholesky(history.covariance[np.ix_(genes, genes)])
    drawn = rng.standard_normal((count, genes.size)) @ root.T
    drawn[0] = 0.0
    return np.asarray(history.mean[genes] + drawn)
