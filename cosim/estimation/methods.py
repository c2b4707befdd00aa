"""One door to all estimation methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.estimation import genetic, wls
from cosim.estimation.problem import EstimationProblem, metered_power, squared_error, total
from cosim.scenario.schema import Genetic, Method


@dataclass(frozen=True)
class Estimate:
    """Estimated net consumption of all sites, orders included, passive sign.

    ``p_kw``, ``q_kvar``: (n_site,). ``sigma_p_kw`` (n_site,) is the standard deviation of ``p_kw``, NaN where the
    method gives none. ``objective`` [1] is the weighted squared error over all measurements that arrived, without prior
    term: the same measure for every method.
    """

    method: Method
    p_kw: Floats
    q_kvar: Floats
    objective: float
    sigma_p_kw: Floats
    iterations: int
    converged: bool


def estimate(method: Method, problem: EstimationProblem, config: Genetic, seed: int, step: int) -> Estimate:
    """The injections of all sites at one instant.

    ``genetic``, ``genetic_prior``: bounded search, see ``genetic.solve``. ``wls``: see ``wls.solve``. ``history``: the
    measured value where there is a meter, the historical mean elsewhere. ``seed`` and the step index ``step`` name the
    random stream of the genetic methods; the others use no randomness.
    """
    n_site = len(problem.flow.sites)
    sigma = np.full(2 * n_site, np.nan)
    iterations, converged = 0, True
    if method == "wls":
        fit = wls.solve(problem)
        x, sigma = fit.x, np.sqrt(np.diagonal(fit.covariance))
        iterations, converged = fit.iterations, fit.converged
    elif method == "history":
        x, sigma = _history(problem)
    else:
        found = genetic.solve(problem, config, with_prior=method == "genetic_prior", seed=seed, step=step)
        x, iterations, converged = found.x, found.generations, found.converged
    p_kw, q_kvar = total(problem, x)
    return Estimate(
        method=method,
        p_kw=frozen(p_kw),
        q_kvar=frozen(q_kvar),
        objective=squared_error(problem, x),
        sigma_p_kw=frozen(sigma[:n_site]),
        iterations=iterations,
        converged=converged,
    )


def _history(problem: EstimationProblem) -> tuple[Floats, Floats]:
    metered = metered_power(problem)
    unmetered = np.isnan(metered.x)
    spread = np.sqrt(np.diagonal(problem.history.covariance))
    return np.where(unmetered, problem.history.mean, metered.x), np.where(unmetered, spread, metered.sigma)
