"""Readings that do not fit what the others and the history say: detected, identified, taken out.

Sources: E. Handschin, F. C. Schweppe, J. Kohlas, A. Fiechter, Bad data analysis for power system state estimation, IEEE
Trans. PAS-94(2), 1975 (chi-square and largest normalised residual); A. Abur, A. Gomez Exposito, Power System State
Estimation: Theory and Implementation, Marcel Dekker, 2004, ch. 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.special

from cosim.domain.frames import EventTable, Floats
from cosim.estimation import wls
from cosim.estimation.problem import EstimationProblem, without
from cosim.estimation.wls import WlsSolution

CRITICAL = 0.01
"""A reading whose ``omega_ii`` is less has hardly anything to be compared with but the history of what it reads: it
would have to be off by more than 10 * threshold of its standard deviations to be seen."""
DECISIVE = 9.0
"""By how much more the error of a reading must explain [chi-square] than an error of any other reading, or unusual
consumption at one site, does: by a likelihood 90 times as large. Rejecting the wrong one of two readings that
contradict each other would put all trust in the bad one, and people do unusual things more often than meters fail."""
MARGIN = 3.0
"""No unusual consumption is farther off the estimate than all sites consume together: the sum of their means' sizes and
of so many standard deviations."""
NEGLIGIBLE = 1e-6
"""Variance of what is tested [share of what it was at first] below which nothing is left to be tested."""

REJECTED = EventTable(
    "rejected",
    "readings not used because they contradict the others and the history; expected: without the reading itself",
    {"t_s": "s", "topic": None, "unit": None, "value": "as in unit", "expected": "as in unit", "normalised": "1"},
)


@dataclass(frozen=True)
class BadDataRules:
    """How suspicious to be.

    ``threshold`` [1]: size of a normalised residual above which a reading is rejected. Of a sound reading with normal
    errors it is exceeded with probability 6.3e-5 at 4 (2.7e-3 at 3): among 60 channels in one instant of 260 (of 7),
    which then loses one of its 60 readings. ``confidence`` [1]: probability that the chi-square of sound readings
    stays below its limit. ``at_most``: readings rejected in one instant.
    """

    threshold: float = 4.0
    confidence: float = 0.99
    at_most: int = 5


@dataclass(frozen=True)
class Rejection:
    """A rejected reading: index and topic of its channel, the ``value`` read and the one ``expected`` from everything
    but this reading [unit of the channel], and its normalised residual [1] when it was the largest."""

    channel: int
    topic: str
    unit: str
    value: float
    expected: float
    normalised: float


@dataclass(frozen=True)
class Screening:
    """``fit`` is the solution of ``problem``, from which the ``rejected`` readings are taken out as if they had not
    arrived, so that every method can be given it.

    ``chi_square`` [1] is the minimised objective of all readings that arrived, before any was rejected, and ``limit``
    what it stays below with the probability stated, if errors are as stated; 0 and 0 without readings. What remains
    afterwards is ``fit.chi_square``. All other readings stand, also those of

    - ``undecided`` topics: one of these is bad at least, but which one cannot be told;
    - ``unusual`` sites: their consumption contradicts their history, or one of the readings that say so is bad;
    - ``critical`` topics: nothing else confirms or denies them.
    """

    problem: EstimationProblem
    fit: WlsSolution
    chi_square: float
    limit: float
    rejected: tuple[Rejection, ...]
    undecided: tuple[str, ...]
    unusual: tuple[str, ...]
    critical: tuple[str, ...]

    @property
    def suspicious(self) -> bool:
        """Whether the readings as they arrived contradict each other or the history more than errors as stated do."""
        return self.chi_square > self.limit


def screen(problem: EstimationProblem, rules: BadDataRules = BadDataRules()) -> Screening:
    """Least squares, and again without the readings that it finds bad, until none is left or ``at_most`` are out.

    The largest normalised residual above the threshold is identified as bad, if no other cause explains (nearly) as
    much, taken out, and so on, in the linear model around the solution; only then the load flow is fitted again. The
    chi-square test does not decide: with 60 readings a single one must be off by 5 standard deviations to fail it at
    99 % in half of the cases.
    """
    fit = wls.solve(problem)
    chi_square, limit = fit.chi_square, chi_square_limit(len(fit.row), rules.confidence)
    rejected: tuple[Rejection, ...] = ()
    while (found := _judged(problem, fit, rules.threshold, rules.at_most - len(rejected))).rejected:
        rejected += found.rejected
        problem = without(problem, [each.channel for each in found.rejected])
        fit = wls.solve(problem)
    critical = tuple(problem.channels[fit.row[k]].topic for k in np.flatnonzero(np.diagonal(fit.omega) < CRITICAL))
    return Screening(problem, fit, chi_square, limit, rejected, found.undecided, found.unusual, critical)


def chi_square_limit(degrees: int, confidence: float) -> float:
    """The value that a chi-square variable of so many ``degrees`` of freedom stays below with that probability."""
    return float(scipy.special.chdtri(degrees, 1.0 - confidence)) if degrees else 0.0


@dataclass(frozen=True)
class _Judgement:
    """What the residuals of one fit tell; see `Screening`."""

    rejected: tuple[Rejection, ...]
    undecided: tuple[str, ...]
    unusual: tuple[str, ...]


def _judged(problem: EstimationProblem, fit: WlsSolution, threshold: float, at_most: int) -> _Judgement:
    """The causes of large residuals, largest first, each with all those before it allowed for."""
    if not fit.chi_square > threshold**2:
        return _Judgement((), (), ())
    n_row, n_site = len(fit.row), len(problem.flow.sites)
    causes = _Causes(problem, fit)
    rejected: list[Rejection] = []
    undecided: list[int] = []
    unusual: list[int] = []
    for _ in range(n_row):
        explained = causes.explained()
        best = int(np.argmax(explained))
        rivals = np.flatnonzero(explained > explained[best] - DECISIVE)
        if not explained[best] > threshold**2:
            break
        if rivals[-1] >= n_row:
            best = n_row + int(np.argmax(explained[n_row:]))
            unusual += [(best - n_row) % n_site] if explained[best] > threshold**2 else []
        elif len(rivals) > 1:
            undecided += rivals.tolist()
        elif len(rejected) < at_most:
            rejected.append(_rejection(problem, int(fit.row[best]), *causes.error(best)))
        else:
            break
        causes.allow_for(best)
    return _Judgement(
        tuple(rejected),
        tuple(problem.channels[fit.row[k]].topic for k in sorted(set(undecided))),
        tuple(problem.flow.sites[k] for k in sorted(set(unusual))),
    )


class _Causes:
    """What may make residuals large: an error of each reading, then unusual P, then Q at each site.

    A cause adds a multiple of its pattern ``s`` (n_row,) to the readings, a unit vector or a column of the slope. Its
    test value ``s^T r / sqrt(s^T omega s)``, for a reading the normalised residual, is normal with standard deviation 1
    if the cause is not there, and allowing for it lowers chi-square by its square (W. Baarda, A testing procedure for
    use in geodetic networks, 1968). Then the residuals are ``r - omega s (s^T r) / (s^T omega s)`` and so on: those
    without that reading, or without what the history says of that site.
    """

    def __init__(self, problem: EstimationProblem, fit: WlsSolution) -> None:
        n_row, n_site = len(fit.row), len(problem.flow.sites)
        size = np.abs(problem.history.mean) + MARGIN * np.sqrt(np.diagonal(problem.history.covariance))
        self._most = np.concatenate([np.full(n_row, np.inf), np.repeat(size.reshape(2, n_site).sum(axis=1), n_site)])
        self._slope, self._residual, self._omega = fit.slope, fit.residual, fit.omega
        self._variance = self._expected()
        self._least = NEGLIGIBLE * self._variance

    def _expected(self) -> Floats:
        """``s^T omega s`` of all causes (n_row + 2 n_site,)."""
        unusual = np.einsum("kj,kj->j", self._slope, self._omega @ self._slope)
        return np.concatenate([np.diagonal(self._omega), unusual])

    def explained(self) -> Floats:
        """What each cause explains [chi-square], (n_row + 2 n_site,); 0 where it cannot be tested or be so large."""
        variance = self._variance
        testable = variance > self._least
        along = np.concatenate([self._residual, self._residual @ self._slope])
        size = np.where(testable, along / np.where(testable, variance, 1.0), 0.0)
        return np.where(np.abs(size) <= self._most, size**2 * variance, 0.0)

    def error(self, reading: int) -> tuple[float, float]:
        """A reading less what all others expect [its standard deviations], and its normalised residual."""
        residual, variance = float(self._residual[reading]), float(self._omega[reading, reading])
        return residual / variance, residual / math.sqrt(variance)

    def allow_for(self, cause: int) -> None:
        n_row = len(self._residual)
        pattern = np.eye(n_row)[cause] if cause < n_row else self._slope[:, cause - n_row]
        spread = self._omega @ pattern
        variance = float(pattern @ spread)
        self._residual = self._residual - spread * (pattern @ self._residual) / variance
        self._omega = self._omega - np.outer(spread, spread) / variance
        self._variance = self._expected()


def _rejection(problem: EstimationProblem, k: int, error: float, normalised: float) -> Rejection:
    """``error``: see `_Causes.error`."""
    channel, value = problem.channels[k], float(problem.snapshot.value[k])
    return Rejection(k, channel.topic, channel.unit, value, value - error * channel.sigma, normalised)
