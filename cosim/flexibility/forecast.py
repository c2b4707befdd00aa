"""Forecasts of PODs' power with half-bands: what the DSO needs before it states needs, an aggregator before it offers.

A half-band is a bound on the error: ``|truth - p_kw| <= half_band_kw`` with the coverage asked for. From ``n`` past
errors it is the ``ceil((n + 1) coverage)``-th smallest: for exchangeable errors that covers the next one with at least
this probability, whatever their distribution (split conformal prediction; J. Lei et al., "Distribution-free predictive
inference for regression", Journal of the American Statistical Association 113, 2018). With fewer errors than that takes
it is the largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.errors import Fault, ProfileError


@dataclass(frozen=True)
class Forecast:
    """``p_kw`` and ``half_band_kw`` (n_mtu, ..., n_pod) [kW] for consecutive MTUs."""

    p_kw: Floats
    half_band_kw: Floats


def persistence(past_kw: Floats, n_mtu: int, coverage: float) -> Forecast:
    """The last value holds on. ``past_kw`` (n_past, n_pod) [kW]: consecutive MTUs, the newest last.

    The half-band of the ``k``-th MTU ahead is of changes over ``k`` MTUs. Raises ProfileError unless the past is longer
    than the time ahead.
    """
    if len(past_kw) <= n_mtu:
        problem = f"persistence over {n_mtu} market time units needs a past of {n_mtu + 1}"
        raise ProfileError(Fault(problem, value=f"{len(past_kw)} market time units"))
    bands = [half_band_kw(past_kw[ahead:] - past_kw[:-ahead], coverage) for ahead in range(1, n_mtu + 1)]
    return Forecast(frozen(np.tile(past_kw[-1], (n_mtu, 1))), frozen(np.stack(bands)))


def profile(days_kw: Floats, coverage: float) -> Forecast:
    """The mean of similar days. ``days_kw`` (n_day, n_mtu, ..., n_pod) [kW]: the same MTUs of the days looked back.

    The half-band is of each day's departure from the mean of the others. Raises ProfileError for fewer than two days.
    """
    n_day, expected_kw = len(days_kw), mean_kw(days_kw)
    others_kw = (days_kw - expected_kw) * (n_day / (n_day - 1))
    return Forecast(frozen(expected_kw), frozen(half_band_kw(others_kw, coverage)))


def mean_kw(days_kw: Floats) -> Floats:
    """The mean of similar days (n_mtu, ..., n_pod) [kW] from ``days_kw`` (n_day, n_mtu, ..., n_pod). Raises
    ProfileError for fewer than two."""
    if len(days_kw) < 2:
        raise ProfileError(Fault("a profile forecast needs two days or more", value=f"{len(days_kw)} days"))
    return np.asarray(days_kw.mean(axis=0))


@dataclass(frozen=True)
class Move:
    """How an MTU follows from the one before it: with that at ``from_kw`` (..., n_pod) [kW], it is at ``to_kw``, within
    ``half_band_kw``, both (1, ..., n_pod) [kW]."""

    from_kw: Floats
    to_kw: Floats
    half_band_kw: Floats

    def of(self, now_kw: Floats) -> Forecast:
        """The forecast of the MTU, from the present ``now_kw`` (..., n_pod) [kW]."""
        return Forecast(frozen(self.to_kw + (now_kw - self.from_kw)), self.half_band_kw)


def corrected(days_kw: Floats, days_now_kw: Floats, coverage: float) -> Move:
    """To the mean of similar days, moved by as much as the present is off theirs.

    ``days_kw``, ``days_now_kw`` (n_day, ..., n_pod) [kW]: the MTU ahead and the present one on the days looked back.
    The half-band is of what that would have missed on those days. Raises ProfileError for fewer than two days.
    """
    moved_kw = days_kw - days_now_kw
    others_kw = (moved_kw - moved_kw.mean(axis=0)) * (len(days_kw) / (len(days_kw) - 1))
    half_kw = frozen(half_band_kw(others_kw, coverage)[None])
    return Move(days_now_kw.mean(axis=0), mean_kw(days_kw[:, None]), half_kw)


def held(days_kw: Floats, days_now_kw: Floats, coverage: float) -> Move:
    """The present holds on for one MTU; the half-band is of the changes on the days looked back, (n_day, ..., n_pod)
    [kW] both."""
    still_kw = np.zeros(days_kw.shape[1:])
    return Move(still_kw, still_kw[None], frozen(half_band_kw(days_kw - days_now_kw, coverage)[None]))


def schedule(declared_kw: Floats, past_error_kw: Floats, coverage: float) -> Forecast:
    """What was declared, (n_mtu, n_pod) [kW], with the half-band of past errors (n_sample, n_pod) [kW]."""
    band_kw = half_band_kw(past_error_kw, coverage)
    return Forecast(frozen(declared_kw), frozen(np.broadcast_to(band_kw, declared_kw.shape)))


def perfect(truth_kw: Floats) -> Forecast:
    """The truth (n_mtu, n_pod) [kW], without a band."""
    return Forecast(frozen(truth_kw), frozen(np.zeros_like(truth_kw)))


def disturbed(truth_kw: Floats, half_share: float, xi: Floats) -> Forecast:
    """A forecast whose error is known: ``truth = p + xi * half_share * |p|``.

    ``truth_kw`` and ``xi`` (n_mtu, n_pod), ``xi`` in [-1, 1], above zero where the truth consumes more than forecast;
    ``half_share`` in [0, 1) is the half-band as a share of the forecast.
    """
    p_kw = truth_kw / (1.0 + half_share * xi * np.sign(truth_kw))
    return Forecast(frozen(p_kw), frozen(half_share * np.abs(p_kw)))


def half_band_kw(error_kw: Floats, coverage: float) -> Floats:
    """Half-bands (...) [kW] from past errors (n_sample, ...) [kW] of any sign, ``coverage`` in (0, 1)."""
    n = len(error_kw)
    rank = min(math.ceil((n + 1) * coverage), n)
    return np.asarray(np.sort(np.abs(error_kw), axis=0)[rank - 1])
