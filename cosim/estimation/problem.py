"""What an estimator is given, and the questions that every method asks of it.

The unknown vector of all methods is ``x = [p_kw of all sites, q_kvar of all sites]`` (2 n_site,): the net consumption
without known orders. ``total`` adds the orders for the load flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cosim.domain.frames import Floats, Ints, frozen
from cosim.domain.measurement import Channel, Quality, Snapshot
from cosim.domain.site import bus_of_site
from cosim.errors import Fault, InputError
from cosim.estimation.history import HistoryWindow

PREDICTED = ("p_kw", "q_kvar", "vm_pu", "i_a")
"""Quantities that a load flow predicts."""
_OF_HISTORY = ("mean", "lower", "upper", "covariance")
_ARRAYS = ("snapshot.value", "snapshot.quality", "ordered", *(f"history.{name}" for name in _OF_HISTORY))


class FlowModel(Protocol):
    """The load flow, as an estimator sees it."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Where loads, generation or storage connect (`cosim.domain.site`)."""

    def predict(self, p_kw: Floats, q_kvar: Floats) -> Floats:
        """What every channel of the problem would read, (n_case, n_channel), in their order and units.

        ``p_kw``, ``q_kvar``: net consumption of the sites with orders, (n_case, n_site). A case whose load flow does
        not converge is a row of NaN, so that one hopeless candidate does not end a search. Columns of channels at
        storage units are not looked at.
        """

    def linearised(self, p_kw: Floats, q_kvar: Floats) -> tuple[Floats, Floats]:
        """The readings (n_channel,) at one point (n_site,) and their exact derivatives (n_channel, 2 n_site) by
        ``[p_kw of all sites, q_kvar of all sites]``; NaN where the load flow does not converge."""

    def voltage_slope(self, p_kw: Floats, q_kvar: Floats) -> Floats:
        """Derivatives of the voltage magnitudes of all nodes at one point (n_site,), (n_node, 2 n_site) [pu per kW and
        kvar]."""


@dataclass(frozen=True)
class EstimationProblem:
    """One instant to be estimated.

    ``snapshot`` holds one value per channel. ``ordered`` (2 n_site,) [kW, kvar] is power known from orders, which the
    history does not contain, as in x; charging positive.

    Raises InputError, with every fault, when sizes do not fit, a standard deviation is not positive (it would weigh
    infinitely) or a value called good is not finite.
    """

    flow: FlowModel
    channels: tuple[Channel, ...]
    snapshot: Snapshot
    history: HistoryWindow
    ordered: Floats

    def __post_init__(self) -> None:
        if faults := self._ill_shaped() or self._ill_valued():
            raise InputError(faults)

    def _ill_shaped(self) -> list[Fault]:
        n_channel, n_x = len(self.channels), 2 * len(self.flow.sites)
        arrays: list[npt.NDArray[Any]] = [self.snapshot.value, self.snapshot.quality, self.ordered]
        arrays += [getattr(self.history, name) for name in _OF_HISTORY]
        shapes = (n_channel,), (n_channel,), (n_x,), (n_x,), (n_x,), (n_x,), (n_x, n_x)
        return [
            Fault("wrong shape", key=name, value=str(array.shape), allowed=str(shape))
            for name, array, shape in zip(_ARRAYS, arrays, shapes, strict=True)
            if array.shape != shape
        ]

    def _ill_valued(self) -> list[Fault]:
        wrong = ~(self.sigma > 0.0)
        faults = [
            Fault("sigma must be positive", key=self.channels[k].topic, value=str(self.channels[k].sigma))
            for k in wrong.nonzero()[0]
        ]
        untold = (self.snapshot.quality == Quality.GOOD) & ~np.isfinite(self.snapshot.value)
        return faults + [
            Fault("a good value must be finite", key=self.channels[row].topic, value=str(self.snapshot.value[row]))
            for row in untold.nonzero()[0]
        ]

    @cached_property
    def sigma(self) -> Floats:
        """Standard deviations of the channels (n_channel,)."""
        return frozen([channel.sigma for channel in self.channels])

    @cached_property
    def good(self) -> npt.NDArray[np.bool_]:
        """Channels that arrived and that a load flow predicts (not those at storage units), (n_channel,)."""
        predicted = [c.place.storage is None and c.quantity in PREDICTED for c in self.channels]
        return frozen((self.snapshot.quality == Quality.GOOD) & np.array(predicted, dtype=bool), np.bool_)


@dataclass(frozen=True)
class Evidence:
    """Measurements that are compared with the load flow: ``row`` are indices of channels, ``value`` and ``sigma`` their
    readings and weights; all (n_row,)."""

    row: Ints
    value: Floats
    sigma: Floats


def evidence(problem: EstimationProblem, but: npt.NDArray[np.bool_] | None = None) -> Evidence:
    """The good channels, without those marked in ``but`` (n_channel,)."""
    row = np.flatnonzero(problem.good if but is None else problem.good & ~but)
    return Evidence(row, problem.snapshot.value[row], problem.sigma[row])


def without(problem: EstimationProblem, rejected: Sequence[int]) -> EstimationProblem:
    """The problem as if the channels with the indices ``rejected`` had not arrived."""
    value, quality = problem.snapshot.value.copy(), problem.snapshot.quality.copy()
    value[list(rejected)], quality[list(rejected)] = np.nan, Quality.MISSING
    return replace(problem, snapshot=Snapshot(frozen(value), frozen(quality, np.int8)))


@lru_cache(maxsize=8192)
def sites_read(channel: Channel, sites: tuple[str, ...]) -> tuple[int, ...]:
    """Indices of the sites whose consumption a channel of power at a bus adds up; none for other channels.

    Of a single phase it is the site between that phase and ground.
    """
    place = channel.place
    if place.bus is None or channel.quantity not in ("p_kw", "q_kvar"):
        return ()
    if place.phase is not None:
        return tuple(k for k, site in enumerate(sites) if site == f"{place.bus}.{place.phase}")
    return tuple(k for k, site in enumerate(sites) if bus_of_site(site) == place.bus)


def is_site_power(problem: EstimationProblem) -> npt.NDArray[np.bool_]:
    """Channels that read the P or Q of one site alone, (n_channel,): inputs of the load flow rather than results."""
    return np.array([len(sites_read(c, problem.flow.sites)) == 1 for c in problem.channels], dtype=bool)


@dataclass(frozen=True)
class MeteredPower:
    """What the meters at the sites say about x: ``x`` and ``sigma`` (2 n_site,), NaN where no good meter is.

    Several meters of one quantity are averaged with weights 1 / sigma^2.
    """

    x: Floats
    sigma: Floats


def metered_power(problem: EstimationProblem) -> MeteredPower:
    """Directly measured injections, without orders. A meter missing in this snapshot leaves its site unmetered."""
    sites = problem.flow.sites
    seen = evidence(problem, but=~is_site_power(problem))
    weight, weighted = np.zeros(2 * len(sites)), np.zeros(2 * len(sites))
    for row, value, sigma in zip(seen.row, seen.value, seen.sigma, strict=True):
        channel = problem.channels[row]
        k = sites_read(channel, sites)[0] + (len(sites) if channel.quantity == "q_kvar" else 0)
        weight[k] += sigma**-2
        weighted[k] += value * sigma**-2
    weight[weight == 0.0] = np.nan
    return MeteredPower(x=weighted / weight - problem.ordered, sigma=1.0 / np.sqrt(weight))


def total(problem: EstimationProblem, x: Floats) -> tuple[Floats, Floats]:
    """``p_kw`` and ``q_kvar`` of the sites with orders, each (..., n_site), of ``x`` (..., 2 n_site)."""
    n_site, whole = len(problem.flow.sites), x + problem.ordered
    return whole[..., :n_site], whole[..., n_site:]


def residuals(problem: EstimationProblem, seen: Evidence, x: Floats) -> Floats:
    """Weighted residuals ``(measured - calculated) / sigma`` [1], (n_case, n_row), of ``x`` (n_case, 2 n_site)."""
    if not seen.row.size:
        return np.zeros((len(x), 0))
    calculated = problem.flow.predict(*total(problem, x))[:, seen.row]
    return np.asarray((seen.value - calculated) / seen.sigma)


def squared_error(problem: EstimationProblem, x: Floats) -> float:
    """Weighted squared error J [1] of ``x`` (2 n_site,) over all good channels; the same measure for every method."""
    return float(np.sum(residuals(problem, evidence(problem), x[np.newaxis]) ** 2))
