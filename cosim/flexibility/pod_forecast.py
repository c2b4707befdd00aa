"""What is expected of the profiles of all PODs: active and reactive power with half-bands, by the scenario's method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.flexibility.forecast import Forecast, Move, corrected, held, mean_kw, profile
from cosim.rng import rng_for
from cosim.scenario.market import ForecastConfig

FROM_PRESENT = ("corrected", "persistence")
"""Methods that start from what is known of the present."""
_LEAST_KW = 1e-6
_MTUS_KEPT = 4
Powers = tuple[Floats, Floats]
"""Net consumption of all PODs (..., n_pod) [kW, kvar]."""


@dataclass(frozen=True)
class PowerForecast:
    """Expected net consumption and bounds on its error, all (n_mtu, n_pod) [kW, kvar]."""

    p_kw: Floats
    q_kvar: Floats
    half_p_kw: Floats
    half_q_kvar: Floats


@dataclass(frozen=True)
class PodForecast:
    """Forecasts of a run. ``past(mtu)``: powers (n_day, n_pod) in that MTU on the days looked back; ``truth(mtu)``:
    those that will be (n_pod,)."""

    config: ForecastConfig
    seed: int
    past: Callable[[int], Powers]
    truth: Callable[[int], Powers]

    def next(self, mtu: int, now: Powers) -> PowerForecast:
        """The MTU ``mtu`` (n_mtu = 1), in the one before of which the powers ``now`` (n_pod,) are known."""
        if self.config.method == "perfect":
            return self._known([mtu])
        if self.config.method == "profile":
            return self._similar([mtu])
        return _of_both(self._moves(mtu).of(np.stack(now)))

    @cached_property
    def _moves(self) -> Callable[[int], Move]:
        """How active and reactive power (2, n_pod) move into an MTU: the same for all who ask, whatever they know of
        the present."""
        return lru_cache(_MTUS_KEPT)(self._moves_into)

    def _moves_into(self, mtu: int) -> Move:
        method = corrected if self.config.method == "corrected" else held
        days, days_now = (np.stack(self.past(at), axis=1) for at in (mtu, mtu - 1))
        return method(days, days_now, self.config.coverage)

    def ahead(self, first: int, n_mtu: int) -> PowerForecast:
        """``n_mtu`` MTUs from ``first`` on, long before: from similar days alone, unless they are known."""
        mtus = range(first, first + n_mtu)
        return self._known(mtus) if self.config.method == "perfect" else self._similar(mtus)

    def total_kw(self, mtu: int) -> float:
        """What all PODs together are expected to draw in an MTU, long before [kW]."""
        if self.config.method == "perfect":
            return float(self._known([mtu]).p_kw.sum())
        return float(mean_kw(self.past(mtu)[0][:, None]).sum())

    def _similar(self, mtus: list[int] | range) -> PowerForecast:
        days = np.stack([np.stack(self.past(mtu), axis=1) for mtu in mtus], axis=1)
        return _of_both(profile(days, self.config.coverage))

    def _known(self, mtus: list[int] | range) -> PowerForecast:
        """The truth, moved so that it is ``xi`` half-bands off. An error of P comes with that of Q."""
        p_kw, q_kvar = (np.stack(q) for q in zip(*(self.truth(mtu) for mtu in mtus), strict=True))
        half = self.config.half_share
        if half > 0.0:
            xi = np.stack([self._error(mtu, p_kw.shape[1]) for mtu in mtus])
            factor = 1.0 / (1.0 + half * xi * np.sign(p_kw))
            p_kw, q_kvar = p_kw * factor, q_kvar * factor
        return PowerForecast(frozen(p_kw), frozen(q_kvar), frozen(half * np.abs(p_kw)), frozen(half * np.abs(q_kvar)))

    def _error(self, mtu: int, n_pod: int) -> Floats:
        """Errors (n_pod,) [half-bands]: the share ``correlation`` is one draw for all, the rest each POD's own."""
        draws = rng_for(self.seed, "forecast", mtu).uniform(-1.0, 1.0, n_pod + 1)
        share = self.config.correlation
        return np.asarray(self.config.beyond * (share * draws[0] + (1.0 - share) * draws[1:]))


def _of_both(found: Forecast) -> PowerForecast:
    """From one of active and reactive power (n_mtu, 2, n_pod)."""
    return PowerForecast(found.p_kw[:, 0], found.p_kw[:, 1], found.half_band_kw[:, 0], found.half_band_kw[:, 1])


def pods_of_sites(sites: Powers, expected: Powers, half: Powers, sums: Floats) -> Powers:
    """Powers of PODs (n_pod,) that add up to those of their sites (n_site,): as ``expected`` (n_pod,), and what is
    missing in the shares of their half-bands ``half`` (n_pod,). ``sums`` (n_pod, n_site) adds up the PODs of sites."""
    p, q = (_spread(*each, sums) for each in zip(sites, expected, half, strict=True))
    return p, q


def _spread(site: Floats, expected: Floats, half: Floats, sums: Floats) -> Floats:
    weight = np.maximum(half, _LEAST_KW)
    missing = site - expected @ sums
    return np.asarray(expected + weight * (sums @ (missing / (weight @ sums))))


def widened(forecast: PowerForecast, sigma_kw: Floats, sums: Floats, coverage: float) -> PowerForecast:
    """A forecast of one MTU that starts from an estimate with standard deviations ``sigma_kw`` of its sites (n_site,)
    [kW], NaN where not known: half-bands are wider by what a normal error stays below with probability ``coverage``.

    PODs have their shares of it by their half-bands, reactive power in proportion to active power.
    """
    more_kw = NormalDist().inv_cdf(0.5 * (1.0 + coverage)) * np.nan_to_num(sigma_kw)
    weight = np.maximum(forecast.half_p_kw[0], _LEAST_KW)
    by_pod_kw = weight * (sums @ (more_kw / (weight @ sums)))
    by_pod_kvar = by_pod_kw * forecast.half_q_kvar[0] / weight
    return replace(
        forecast,
        half_p_kw=frozen(forecast.half_p_kw + by_pod_kw),
        half_q_kvar=frozen(forecast.half_q_kvar + by_pod_kvar),
    )
