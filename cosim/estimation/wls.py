"""Weighted least squares with the history as correlated pseudo-measurements.

Sources: F. C. Schweppe, J. Wildes, Power System Static-State Estimation, Part I, IEEE Trans. PAS-89, 1970; A. Abur,
A. Gomez Exposito, Power System State Estimation: Theory and Implementation, Marcel Dekker, 2004, ch. 2 (Gauss-Newton,
chi-square), ch. 5 (residual covariance).

Works on ``y`` with ``x = mean + root y``, ``C = root root^T``, in which the prior term is ``y^T y``, and on residuals
``e`` over their standard deviations. ``J`` (n_row, 2 n_site) is the derivative of the calculated values by y. A
Gauss-Newton step then goes to ``y = J^T M^-1 (e + J y)``, where ``M = I + J J^T`` (n_row, n_row) is the covariance of
``e + J y`` over all that the history deems possible. M is as small as there are measurements, however many sites there
are. Its smallest eigenvalue is at least 1; its largest is the squared ratio of what the history leaves open to what a
meter leaves open, 1e3 to 1e7 for real meters. The rounding error of y, about ``eps * largest eigenvalue * |residual|``,
then stays below 1e-8 [standard deviations of the history].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dpotrf, dpotrs, dtrtrs

from cosim.domain.frames import Floats, Ints, frozen
from cosim.estimation.problem import EstimationProblem, Evidence, evidence, residuals, total

MAX_ITERATIONS = 20
TOLERANCE = 1e-5
"""The step at which iteration ends [standard deviations of the estimate itself]. That step is still taken: what is left
is smaller than it by the ratio of one step to the one before, 1e-2 to 1e-4."""
SHORTER = 0.5 ** np.arange(1.0, 7.0)
"""Shares of the full step that are tried, all in one load-flow call, when the full step leads upwards."""


@dataclass(frozen=True)
class WlsSolution:
    """``x`` (2 n_site,) [kW, kvar] without orders and its ``covariance`` (2 n_site, 2 n_site).

    ``chi_square`` [1] is the minimum of ``sum of weighted squared residuals + prior term``. If errors are as stated, it
    has a chi-square distribution with as many degrees of freedom as there are measurements: the 2 n_site
    pseudo-measurements of the history take part, and 2 n_site unknowns take as many away.

    ``row`` (n_row,) are the channels that took part, ``residual`` (n_row,) [1] what they read less what they should,
    over their standard deviation, and ``omega`` (n_row, n_row) [1] its covariance if errors are as stated,
    ``I - J (I + J^T J)^-1 J^T = M^-1``. ``slope`` (n_row, 2 n_site) [1 per kW, kvar] is the derivative by x of what
    they should read, over the same. Without convergence these three come from the linear model at the last point.
    """

    x: Floats
    covariance: Floats
    chi_square: float
    row: Ints
    residual: Floats
    omega: Floats
    slope: Floats
    iterations: int
    converged: bool


@dataclass(frozen=True)
class _Point:
    """Residuals ``error`` (n_row,) at ``y`` (2 n_site,), and the derivatives (n_row, 2 n_site) of calculated values:
    ``slope`` by y and ``slope_x`` by x."""

    y: Floats
    error: Floats
    slope: Floats
    slope_x: Floats

    @cached_property
    def cost(self) -> float:
        value = float(self.error @ self.error + self.y @ self.y)
        return value if np.isfinite(value) and np.isfinite(self.slope).all() else np.inf


def solve(problem: EstimationProblem) -> WlsSolution:
    """Minimises ``sum(((z - h(x)) / sigma)^2) + (x - mean)^T C^-1 (x - mean)`` by Gauss-Newton.

    Starts at the history's mean, never at an earlier estimate. Without any measurement the result is the history
    itself; so it is, unconverged, where the load flow has no answer at the history's mean.
    """
    seen = evidence(problem)
    root = problem.history.root
    if not seen.row.size:
        return _untouched(problem, seen, converged=True)
    point = _point(problem, seen, root, np.zeros(len(root)))
    if not np.isfinite(point.cost):
        return _untouched(problem, seen, converged=False)
    iteration = 0
    while True:
        iteration += 1
        factor, residual = _adjusted(point)
        step = point.slope.T @ residual - point.y
        converged = bool(np.hypot(np.linalg.norm(step), np.linalg.norm(point.slope @ step)) < TOLERANCE)
        following = None if converged or iteration == MAX_ITERATIONS else _lower(problem, seen, root, point, step)
        if following is None:
            break
        point = following
    y = point.y + step if converged else point.y
    return WlsSolution(
        x=frozen(problem.history.mean + root @ y),
        covariance=frozen(_covariance(root, point.slope, factor)),
        chi_square=float(residual @ residual + y @ y) if converged else point.cost,
        row=frozen(seen.row, dtype=np.int64),
        residual=frozen(residual),
        omega=frozen(dpotrs(factor, np.eye(len(factor)), lower=1)[0]),
        slope=frozen(point.slope_x),
        iterations=iteration,
        converged=converged,
    )


def _untouched(problem: EstimationProblem, seen: Evidence, *, converged: bool) -> WlsSolution:
    """The history as solution: there is no measurement, or none that can be compared with."""
    n_row, history = len(seen.row), problem.history
    return WlsSolution(
        x=history.mean,
        covariance=history.covariance,
        chi_square=0.0 if converged else np.nan,
        row=frozen(seen.row, dtype=np.int64),
        residual=frozen(np.full(n_row, np.nan)),
        omega=frozen(np.full((n_row, n_row), np.nan)),
        slope=frozen(np.full((n_row, len(history.mean)), np.nan)),
        iterations=0,
        converged=converged,
    )


def _point(problem: EstimationProblem, seen: Evidence, root: Floats, y: Floats) -> _Point:
    reading, slope = problem.flow.linearised(*total(problem, problem.history.mean + root @ y))
    error = (seen.value - reading[seen.row]) / seen.sigma
    slope_x = slope[seen.row] / seen.sigma[:, np.newaxis]
    # In columns of LAPACK, J^T = root^T (slope by x)^T.
    by_y = dtrmm(1.0, root, slope_x.T, lower=1, trans_a=1).T
    return _Point(y, error, by_y, slope_x)


def _adjusted(point: _Point) -> tuple[Floats, Floats]:
    """The lower Cholesky factor of M, and the residuals (n_row,) after the full step in the linear model."""
    slope = point.slope
    factor, _ = dpotrf(np.eye(len(slope)) + slope @ slope.T, lower=1)
    residual, _ = dpotrs(factor, point.error + slope @ point.y, lower=1)
    return factor, np.asarray(residual)


def _lower(problem: EstimationProblem, seen: Evidence, root: Floats, point: _Point, step: Floats) -> _Point | None:
    """The point after the full step, or after the best of shorter ones if it leads upwards; None if all do."""
    full = _point(problem, seen, root, point.y + step)
    if full.cost < point.cost:
        return full
    candidates = point.y + SHORTER[:, np.newaxis] * step
    errors = residuals(problem, seen, problem.history.mean + candidates @ root.T)
    cost = np.sum(errors**2, axis=1) + np.sum(candidates**2, axis=1)
    best = int(np.argmin(np.where(np.isfinite(cost), cost, np.inf)))
    return _point(problem, seen, root, candidates[best]) if cost[best] < point.cost else None


def _covariance(root: Floats, slope: Floats, factor: Floats) -> Floats:
    """``root (I + J^T J)^-1 root^T`` as the square of ``root (I - J^T L^-T (L + I)^-1 J)``, ``M = L L^T``: never
    indefinite, and without the inverse of anything ill-conditioned (A. Andrews, A square root formulation of the Kalman
    covariance equations, AIAA Journal 6(6), 1968)."""
    inner, _ = dtrtrs(factor + np.eye(len(factor)), slope, lower=1)
    inner, _ = dtrtrs(factor, inner, lower=1, trans=1)
    spread = root - dtrmm(1.0, root, slope.T, lower=1) @ inner
    return np.asarray(spread @ spread.T)
