"""What the past says about the injections at one instant: bounds, mean and joint covariance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cosim.domain.frames import Floats, Ints, frozen
from cosim.errors import Fault, ProfileError

WIDENING = 0.05
"""Share of the range by which each bound is moved outwards. The largest of n independent uniform draws lies on average
range / (n - 1) inside the end of the distribution; the samples of one day are nearly the same draw, so n is the 28 days
looked back and range / 27 = 3.7 %, rounded up."""

LOADING = 0.01
"""Standard deviation added independently to every injection [share of its own standard deviation]."""

LOADING_FLOOR = 0.05
"""Least standard deviation added to every injection [kW, kvar]: a site that never consumed may still begin to."""

TOGETHER = 0.9
"""Least correlation of injections that form a group."""
BEYOND_CHANCE = 4.0
"""With few days a group needs more than that: a correlation so many standard deviations above 0 (R. A. Fisher's z)."""


@dataclass(frozen=True)
class HistoryWindow:
    """Statistics of the net injections ``[p_kw of all sites, q_kvar of all sites]`` at one time of day.

    ``lower``, ``upper``, ``mean``: (2 n_site,) [kW, kvar]; ``covariance``: (2 n_site, 2 n_site), symmetric and positive
    definite. Known orders are not part of it.
    """

    lower: Floats
    upper: Floats
    mean: Floats
    covariance: Floats

    @cached_property
    def root(self) -> Floats:
        """Lower triangle (2 n_site, 2 n_site) whose square ``root root^T`` is the covariance."""
        return frozen(np.linalg.cholesky(self.covariance))


def history_window(samples: Floats, per_day: int = 1) -> HistoryWindow:
    """Statistics of ``samples`` (n_sample, 2 n_site) [kW, kvar], columns ``[p of all sites, q of all sites]``.

    The caller takes the samples from the profiles (same quarter hour +- window over the preceding days) without known
    orders, ``per_day`` consecutive rows from each day. These are nearly one draw, so that what counts is the number of
    days. It is usually smaller than that of injections, and then the sample covariance believes in sums and differences
    that never vary, only because they did not in those few days. On 90 sites with profiles of their own it puts 80 % of
    truths into its 95 % bands. Therefore:

    - Correlations are shrunk towards 0 by the share that minimises the expected squared error (O. Ledoit, M. Wolf,
      Journal of Multivariate Analysis 88, 2004), but for those within groups of injections that moved together: P and
      Q of one site, and what is correlated by `TOGETHER` and more. Shrinking these as well (to the diagonal) gives up
      constant power factors and sites of one kind: 1.2 to 2.2 times the error where sites share profiles.
    - It is the covariance of a further day around the mean of ``n`` days: the unbiased one times ``1 + 1 / n``.
    - A diagonal loading makes it positive definite. Estimates are the same with 0.1 to 3 %.

    Raises ProfileError for fewer than two days, days that are not complete, or values that are not finite.
    """
    _check(samples, per_day)
    low, high, mean = samples.min(axis=0), samples.max(axis=0), samples.mean(axis=0)
    margin = WIDENING * (high - low)
    covariance = _covariance(samples - mean, per_day)
    variance = np.einsum("ii->i", covariance)
    variance += np.maximum(LOADING * np.sqrt(variance), LOADING_FLOOR) ** 2
    return HistoryWindow(
        lower=frozen(low - margin),
        upper=frozen(high + margin),
        mean=frozen(mean),
        covariance=frozen(covariance),
    )


def _covariance(deviation: Floats, per_day: int) -> Floats:
    """Covariance (2 n_site, 2 n_site) of a further day from ``deviation`` (n_sample, 2 n_site), semidefinite."""
    days = len(deviation) // per_day
    scale = np.sqrt(np.mean(deviation**2, axis=0))
    standard = np.asarray(deviation / np.where(scale > 0.0, scale, 1.0))
    correlation = np.asarray(standard.T @ standard / len(standard))
    group = _groups(correlation, days)
    between = correlation * (group[:, np.newaxis] != group)
    between *= _noise_between(standard.reshape(days, per_day, -1), group, float(np.vdot(between, between)))
    scale *= np.sqrt((days + 1) / (days - 1))
    correlation -= between
    correlation *= scale
    correlation *= scale[:, np.newaxis]
    return correlation


def _groups(correlation: Floats, days: int) -> Ints:
    """The first member of the group of each injection (2 n_site,), by single linkage."""
    n_site = len(correlation) // 2
    linked = np.abs(correlation) >= max(TOGETHER, np.tanh(BEYOND_CHANCE / np.sqrt(max(days - 3, 1))))
    for one, other in ((0, 0), (n_site, n_site), (0, n_site), (n_site, 0)):
        np.fill_diagonal(linked[one:, other:], True)
    first = np.argmax(linked, axis=1)  # of each group in the end, the first of its members
    while np.any((further := np.where(linked, first, len(linked)).min(axis=1)) != first):
        first = further[further]
    return np.asarray(first, dtype=np.int64)


def _noise_between(standard: Floats, group: Ints, square: float) -> float:
    """Share of the sum of squared correlations between groups, ``square``, that is chance.

    A day's products of two injections, averaged over its rows, are one draw of their correlation; their variance over
    the days gives that of the mean. ``standard`` is (n_day, per_day, 2 n_site). The sum over all pairs comes from the
    products of rows instead: ``sum_ij (sum_k z_ki z_kj)^2 = sum_kl (sum_i z_ki z_li)^2``. ``group`` names each by its
    first member.
    """
    if not square > 0.0:
        return 0.0
    days, per_day, _ = standard.shape
    order = np.argsort(group, kind="stable")
    z = np.ascontiguousarray(standard.transpose(2, 1, 0))[order]
    of_group = np.add.reduceat(z[:, :, np.newaxis] * z[:, np.newaxis], np.flatnonzero(group[order] == order), axis=0)
    of_all = of_group.sum(axis=0)
    of_days = float(np.vdot(of_all, of_all) - np.vdot(of_group, of_group)) / (per_day**2 * days)
    return float(np.clip((of_days - square) / ((days - 1) * square), 0.0, 1.0))


def noisy_history(values: Floats, error_percent: float, rng: np.random.Generator) -> Floats:
    """A history as a data set of stated quality would give it: every value times ``1 + N(0, error_percent / 100)``.

    ``values`` of any shape [kW, kvar]. Applied once to the whole data set, so that every window sees the same history.
    """
    noisy = rng.standard_normal(values.shape)
    noisy *= error_percent / 100.0  # in place: of large feeders a year is the largest array of a run
    noisy += 1.0
    noisy *= values
    noisy.flags.writeable = False
    return noisy


def _check(samples: Floats, per_day: int) -> None:
    faults = []
    if samples.ndim != 2 or samples.shape[1] % 2:
        faults.append(Fault("history samples must have shape (n_sample, 2 n_site)", value=str(samples.shape)))
    elif samples.shape[0] < 2 * per_day or samples.shape[0] % per_day:
        needed = f"{per_day} a day, of 2 days at least"
        faults.append(Fault("history needs samples of whole days", value=f"{samples.shape[0]} samples", allowed=needed))
    if not np.isfinite(samples).all():
        rows = np.flatnonzero(~np.isfinite(samples.reshape(len(samples), -1)).all(axis=1))
        faults.append(Fault(f"history samples are not finite in {len(rows)} rows, first row {int(rows[0])}"))
    if faults:
        raise ProfileError(faults)
