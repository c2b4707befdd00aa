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

    ``p_kw``, ``q_kvar``: (n_site,). ``root`` (2 n_site, 2 n_site) [kW, kvar] is one of the covariance of the errors of
    ``[p_kw, q_kvar]``, which is ``root root^T``, None where the method gives none. ``objective`` [1] is the weighted
    squared error over all measurements of the problem, without prior term: the same measure for every method.
    """

    method: Method
    p_kw: Floats
    q_kvar: Floats
    objective: float
    root: Floats | None
    iterations: int
    converged: bool

    @property
    def sigma_p_kw(self) -> Floats:
        """Standard deviation of ``p_kw`` (n_site,) [kW], NaN where the method gives none."""
        n_site = len(self.p_kw)
        return frozen(np.full(n_site, np.nan) if self.root is None else _lengths(self.root[:n_site]))


def estimate(
    method: Method,
    problem: EstimationProblem,
    config: Genetic,
    seed: int,
    step: int,
    fit: wls.WlsSolution | None = None,
) -> Estimate:
    """The injections of all sites at one instant.

    ``genetic``, ``genetic_prior``: bounded search, see ``genetic.solve``. ``wls``: see ``wls.solve``. ``history``: the
    measured value where there is a meter, the historical mean elsewhere. ``seed`` and the step index ``step`` name the
    random stream of the genetic methods; the others use no randomness. ``fit`` is the least-squares solution of this
    problem, if it is known already (from ``baddata.screen``); no other method looks at it.
    """
    root: Floats | None = None
    iterations, converged = 0, True
    if method == "wls":
        fit = fit or wls.solve(problem)
        x, root, iterations, converged = fit.x, fit.root, fit.iterations, fit.converged
    elif method == "history":
        x, root = _history(problem)
    else:
        found = genetic.solve(problem, config, with_prior=method == "genetic_prior", seed=seed, step=step)
        x, iterations, converged = found.x, found.generations, found.converged
    p_kw, q_kvar = total(problem, x)
    return Estimate(
        method=method,
        p_kw=frozen(p_kw),
        q_kvar=frozen(q_kvar),
        objective=squared_error(problem, x),
        root=root,
        iterations=iterations,
        converged=converged,
    )


def voltage_band(slope: Floats, root: Floats) -> Floats:
    """Standard deviations of the voltages (n_node,) [pu] of an estimate whose covariance has this ``root``, to first
    order; ``slope`` (n_node, 2 n_site) [pu per kW, kvar] as `FlowModel.voltage_slope` gives it there."""
    return frozen(_lengths(slope @ root))


def _lengths(rows: Floats) -> Floats:
    return np.asarray(np.sqrt(np.einsum("kj,kj->k", rows, rows)))


def _history(problem: EstimationProblem) -> tuple[Floats, Floats]:
    metered = metered_power(problem)
    unmetered = np.isnan(metered.x)
    covariance = problem.history.covariance * np.outer(unmetered, unmetered)
    covariance += np.diag(np.nan_to_num(metered.sigma) ** 2)
    return np.where(unmetered, problem.history.mean, metered.x), frozen(np.linalg.cholesky(covariance))
