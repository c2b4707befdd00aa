"""Weighted least squares with the history as correlated pseudo-measurements.

Sources: F. C. Schweppe, J. Wildes, Power System Static-State Estimation, Part I, IEEE Trans. PAS-89, 1970; A. Abur,
A. Gomez Exposito, Power System State Estimation: Theory and Implementation, Marcel Dekker, 2004, ch. 2 (Gauss-Newton,
chi-square), ch. 3 (orthogonal factorisation instead of the normal equations).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.estimation.problem import EstimationProblem, Evidence, evidence, residuals

MAX_ITERATIONS = 20
TOLERANCE = 1e-4
"""The step at which iteration ends [standard deviations of the estimate itself]."""
DIFFERENCE = 0.05
"""Step of the central differences [standard deviations of the history]."""
STEP_LENGTHS = 0.5 ** np.arange(6.0)
"""Shares of the full step that are tried, all in one load-flow call."""


@dataclass(frozen=True)
class WlsSolution:
    """``x`` (2 n_site,) [kW, kvar] without orders and its ``covariance`` (2 n_site, 2 n_site).

    ``chi_square`` [1] is the minimum of ``sum of weighted squared residuals + prior term``. If errors are as stated, it
    has a chi-square distribution with as many degrees of freedom as there are measurements.
    """

    x: Floats
    covariance: Floats
    chi_square: float
    iterations: int
    converged: bool


def solve(problem: EstimationProblem) -> WlsSolution:
    """Minimises ``sum(((z - h(x)) / sigma)^2) + (x - mean)^T C^-1 (x - mean)`` by Gauss-Newton.

    Works on ``y`` with ``x = mean + root y`` and ``C = root root^T``, in which the prior term is ``y^T y``. Without any
    measurement the result is the history itself.
    """
    seen = evidence(problem)
    root = np.asarray(np.linalg.cholesky(problem.history.covariance), dtype=np.float64)
    y = np.zeros(len(root))
    error = residuals(problem, seen, _x(problem, root, y[np.newaxis]))[0]
    triangle = np.eye(len(root))
    converged = False
    iteration = 0
    while not converged and iteration < MAX_ITERATIONS and np.isfinite(error).all():
        iteration += 1
        slope = _jacobian(problem, seen, _x(problem, root, y)) @ root
        if not np.isfinite(slope).all():
            break
        orthogonal, triangle = np.linalg.qr(np.vstack([slope, np.eye(len(root))]))
        step = np.linalg.solve(triangle, orthogonal.T @ np.concatenate([error, -y]))
        converged = bool(np.linalg.norm(triangle @ step) < TOLERANCE)
        previous = y
        y, error = _best_step(problem, seen, root, y, error, step)
        if y is previous:
            break
    spread = np.linalg.solve(triangle.T, root.T)
    return WlsSolution(
        x=frozen(_x(problem, root, y)),
        covariance=frozen(spread.T @ spread),
        chi_square=float(error @ error + y @ y),
        iterations=iteration,
        converged=converged,
    )


def _x(problem: EstimationProblem, root: Floats, y: Floats) -> Floats:
    return np.asarray(problem.history.mean + y @ root.T)


def _jacobian(problem: EstimationProblem, seen: Evidence, x: Floats) -> Floats:
    """Derivative of the weighted calculated values, (n_row, 2 n_site), by central differences in one load-flow call."""
    width = DIFFERENCE * np.sqrt(np.diagonal(problem.history.covariance))
    cases = np.concatenate([x + np.diag(width), x - np.diag(width)])
    above, below = np.split(residuals(problem, seen, cases), 2)
    return np.asarray(((below - above) / (2.0 * width[:, np.newaxis])).T)


def _best_step(
    problem: EstimationProblem, seen: Evidence, root: Floats, y: Floats, error: Floats, step: Floats
) -> tuple[Floats, Floats]:
    """``y`` after the best of several step lengths and its residuals; the given ``y`` itself if none is better."""
    candidates = y + STEP_LENGTHS[:, np.newaxis] * step
    errors = residuals(problem, seen, _x(problem, root, candidates))
    cost = np.sum(errors**2, axis=1) + np.sum(candidates**2, axis=1)
    best = int(np.argmin(np.where(np.isfinite(cost), cost, np.inf)))
    if not cost[best] < error @ error + y @ y:
        return y, error
    return candidates[best], errors[best]
