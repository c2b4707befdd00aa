"""What the past says about the injections at one instant: bounds, mean and joint covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.errors import Fault, ProfileError

WIDENING = 0.05
"""Share of the range by which each bound is moved outwards. The largest of n independent uniform draws lies on average
range / (n - 1) inside the end of the distribution; the samples of one day are nearly the same draw, so n is the 28 days
looked back and range / 27 = 3.7 %, rounded up."""

LOADING = 0.01
"""Standard deviation added independently to every injection [share of its own standard deviation]."""

LOADING_FLOOR = 0.05
"""Least standard deviation added to every injection [kW, kvar]: a site that never consumed may still begin to."""


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


def history_window(samples: Floats) -> HistoryWindow:
    """Statistics of ``samples`` (n_sample, 2 n_site) [kW, kvar], columns ``[p of all sites, q of all sites]``.

    The caller takes the samples from the profiles (same quarter hour +- window over the preceding days) without known
    orders. The covariance is the sample covariance plus diagonal loading: P and Q of a load with constant power factor
    are fully correlated, and with few days the sample covariance alone is singular. Shrinkage towards the diagonal (as
    O. Ledoit and M. Wolf, Journal of Multivariate Analysis 88, 2004) weakens exactly those correlations: on mv5 it
    makes the estimates worse and their bands too wide, while loadings from 0.1 to 3 % give the same estimates.

    Raises ProfileError for fewer than two samples or values that are not finite.
    """
    _check(samples)
    low, high = samples.min(axis=0), samples.max(axis=0)
    margin = WIDENING * (high - low)
    covariance = np.cov(samples, rowvar=False).reshape(samples.shape[1], samples.shape[1])
    loading = np.maximum(LOADING * np.sqrt(np.diagonal(covariance)), LOADING_FLOOR)
    return HistoryWindow(
        lower=frozen(low - margin),
        upper=frozen(high + margin),
        mean=frozen(samples.mean(axis=0)),
        covariance=frozen(covariance + np.diag(loading**2)),
    )


def noisy_history(values: Floats, error_percent: float, rng: np.random.Generator) -> Floats:
    """A history as a data set of stated quality would give it: every value times ``1 + N(0, error_percent / 100)``.

    ``values`` of any shape [kW, kvar]. Applied once to the whole data set, so that every window sees the same history.
    """
    return frozen(values * (1.0 + error_percent / 100.0 * rng.standard_normal(values.shape)))


def _check(samples: Floats) -> None:
    faults = []
    if samples.ndim != 2 or samples.shape[1] % 2:
        faults.append(Fault("history samples must have shape (n_sample, 2 n_site)", value=str(samples.shape)))
    elif samples.shape[0] < 2:
        faults.append(Fault("history needs at least 2 samples", value=str(samples.shape[0])))
    if not np.isfinite(samples).all():
        rows = np.flatnonzero(~np.isfinite(samples.reshape(len(samples), -1)).all(axis=1))
        faults.append(Fault(f"history samples are not finite in {len(rows)} rows, first row {int(rows[0])}"))
    if faults:
        raise ProfileError(faults)
