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

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
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
    """``x`` (2 n_site,) [kW, kvar] without orders, and ``root`` (2 n_site, 2 n_site), whose square ``root root^T`` is
    its covariance.

    ``chi_square`` [1] is the minimum of ``sum of weighted squared residuals + prior term``. If errors are as stated, it
    has a chi-square distribution with as many degrees of freedom as there are measurements: the 2 n_site
    pseudo-measurements of the history take part, and 2 n_site unknowns take as many away.

    ``row`` (n_row,) are the channels that took part, ``residual`` (n_row,) [1] what they read less what they should,
    over their standard deviation, and ``omega`` (n_row, n_row) [1] its covariance if errors are as stated,
    ``I - J (I + J^T J)^-1 J^T = M^-1``. ``slope`` (n_row, 2 n_site) [1 per kW, kvar] is the derivative by x of what
    they should read, over the same. Without convergence these three come from the linear model at the last point.
    """

    x: Floats
    root: Floats
    chi_square: float
    row: Ints
    residual: Floats
    omega: Floats
    slope: Floats
    iterations: int
    converged: bool

    @cached_property
    def covariance(self) -> Floats:
        """(2 n_site, 2 n_site) [kW, kvar]^2."""
        return frozen(self.root @ self.root.T)


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
    if not seen.row.size:
        return _untouched(problem, seen, converged=True)
    point = _point(problem, seen, np.zeros(len(problem.history.mean)))
    if not np.isfinite(point.cost):
        return _untouched(problem, seen, converged=False)
    iteration = 0
    while True:
        iteration += 1
        factor, residual = _adjusted(point)
        step = residual @ point.slope - point.y
        along = point.slope @ step
        converged = math.sqrt(step @ step + along @ along) < TOLERANCE
        following = None if converged or iteration == MAX_ITERATIONS else _lower(problem, seen, point, step)
        if following is None:
            break
        point = following
    y = point.y + step if converged else point.y
    return WlsSolution(
        x=frozen(problem.history.mean + problem.history.root @ y),
        root=frozen(_root(problem.history.root, point.slope, factor)),
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
        root=history.root,
        chi_square=0.0 if converged else np.nan,
        row=frozen(seen.row, dtype=np.int64),
        residual=frozen(np.full(n_row, np.nan)),
        omega=frozen(np.full((n_row, n_row), np.nan)),
        slope=frozen(np.full((n_row, len(history.mean)), np.nan)),
        iterations=0,
        converged=converged,
    )


def _point(problem: EstimationProblem, seen: Evidence, y: Floats) -> _Point:
    root = problem.history.root
    reading, slope = problem.flow.linearised(*total(problem, problem.history.mean + root @ y))
    slope_x = slope[seen.row] / seen.sigma[:, np.newaxis]
    return _Point(y, (seen.value - reading[seen.row]) / seen.sigma, slope_x @ root, slope_x)


def _adjusted(point: _Point) -> tuple[Floats, Floats]:
    """The lower Cholesky factor of M, and the residuals (n_row,) after the full step in the linear model."""
    m = point.slope @ point.slope.T
    np.einsum("kk->k", m)[...] += 1.0
    factor, _ = dpotrf(m.T, lower=1, overwrite_a=1)
    residual, _ = dpotrs(factor, point.error + point.slope @ point.y, lower=1)
    return factor, np.asarray(residual)


def _lower(problem: EstimationProblem, seen: Evidence, point: _Point, step: Floats) -> _Point | None:
    """The point after the full step, or after the best of shorter ones if it leads upwards; None if all do."""
    full = _point(problem, seen, point.y + step)
    if full.cost < point.cost:
        return full
    candidates = point.y + SHORTER[:, np.newaxis] * step
    errors = residuals(problem, seen, problem.history.mean + candidates @ problem.history.root.T)
    cost = np.sum(errors**2, axis=1) + np.sum(candidates**2, axis=1)
    best = int(np.argmin(np.where(np.isfinite(cost), cost, np.inf)))
    return _point(problem, seen, candidates[best]) if cost[best] < point.cost else None


def _root(root: Floats, slope: Floats, factor: Floats) -> Floats:
    """``root (I - J^T L^-T (L + I)^-1 J)``, whose square is ``root (I + J^T J)^-1 root^T``, with ``M = L L^T``: never
    indefinite, and without the inverse of anything ill-conditioned (A. Andrews, A square root formulation of the Kalman
    covariance equations, AIAA Journal 6(6), 1968)."""
    inner, _ = dtrtrs(factor + np.eye(len(factor)), slope, lower=1)
    inner, _ = dtrtrs(factor, inner, lower=1, trans=1, overwrite_b=1)
    return np.asarray(root - (root @ slope.T) @ inner)
