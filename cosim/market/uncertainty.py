"""Forecast errors that a plan must survive: sets of them, and how much of a limit each takes.

Every POD's consumption is its schedule plus ``xi`` times its half-band, with one xi for its active and reactive power,
or one for each. With ``xi = G eta`` and eta in a box, in a box of which only so many at once deviate fully (budget), or
in a ball, the largest effect on a linear row with effects u of the xi is the dual norm of ``G' u``: sum of moduli, sum
of the largest, or euclidean length. Sources: D. Bertsimas, M. Sim, "The price of robustness", Operations Research
52(1), 2004; A. Ben-Tal, A. Nemirovski, "Robust solutions of uncertain linear programs", Operations Research Letters
25(1), 1999.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cosim.domain.frames import Complexes, Floats, Ints, frozen
from cosim.errors import BidError, Fault
from cosim.market.network import NetworkRows


@dataclass(frozen=True)
class UncertaintySet:
    """``xi = loadings @ eta`` (n_xi, n_factor; None: xi = eta), eta in [-1, 1] each; with the norm ``budget`` the sum
    of their moduli is at most ``size``, with ``ball`` their euclidean length (then without the box)."""

    norm: Literal["box", "budget", "ball"] = "box"
    size: float = math.inf
    loadings: Floats | None = None

    def __post_init__(self) -> None:
        if self.norm != "box" and not 0.0 <= self.size < math.inf:
            raise BidError(Fault(f"a {self.norm} needs a size of 0 or more", key="uncertainty", value=str(self.size)))

    def factors(self, effect: Complexes) -> Complexes:
        """Effects of eta (..., n_factor) from those of xi (..., n_xi)."""
        return effect if self.loadings is None else np.asarray(effect @ self.loadings)

    def largest(self, effect: Floats) -> Floats:
        """Largest sum of ``effect * eta`` over the set (...,), from effects of eta (..., n_factor)."""
        size = np.abs(effect)
        if self.norm == "ball":
            return np.asarray(self.size * np.sqrt((size**2).sum(axis=-1)))
        if self.norm == "box":
            return np.asarray(size.sum(axis=-1))
        return np.asarray(np.sort(size, axis=-1)[..., ::-1] @ self._budget(size.shape[-1]))

    def worst(self, effect: Floats) -> Floats:
        """The xi (n_xi,) at which effects of eta (n_factor,) add up to `largest`."""
        if self.norm == "ball":
            length = float(np.sqrt((effect**2).sum()))
            eta = self.size * effect / length if length > 0.0 else np.zeros_like(effect)
        else:
            eta = np.sign(effect)
            if self.norm == "budget":
                share = np.empty_like(effect)
                share[np.argsort(-np.abs(effect), kind="stable")] = self._budget(len(effect))
                eta = eta * share
        return eta if self.loadings is None else np.asarray(self.loadings @ eta)

    def _budget(self, n: int) -> Floats:
        """1 for as many as deviate fully, the fraction for the next, then 0 (n,)."""
        return np.clip(self.size - np.arange(n), 0.0, 1.0)


def box() -> UncertaintySet:
    """All xi at their bounds at once."""
    return UncertaintySet()


def budget(gamma: float) -> UncertaintySet:
    """At most ``gamma`` deviations' worth at once; 0 is deterministic, the number of xi the box."""
    return UncertaintySet("budget", gamma)


def ellipsoid(correlation: Floats, omega: float) -> UncertaintySet:
    """``xi = L eta``, ``L L' = correlation`` (n_xi, n_xi; may be singular), eta within ``omega`` of the origin.

    For a chance constraint on one row with Gaussian errors omega is the quantile times sigma over the half-band.
    """
    values, vectors = np.linalg.eigh(correlation)
    if values[0] < -1e-9 * max(1.0, values[-1]):
        raise BidError(
            Fault("a correlation matrix has no negative eigenvalues", key="correlation", value=f"{values[0]:g}")
        )
    return UncertaintySet("ball", omega, vectors * np.sqrt(np.maximum(values, 0.0)))


def factor_set(common: Floats, own: Floats, gamma: float | None = None) -> UncertaintySet:
    """``xi = common @ zeta + own * eps``: factors (n_xi, n_class) such as the weather, and what is each xi's own
    (n_xi,), all in [-1, 1], within a budget ``gamma`` if given."""
    loadings = np.hstack([common, np.diag(own)])
    return UncertaintySet("box", loadings=loadings) if gamma is None else UncertaintySet("budget", gamma, loadings)


@dataclass(frozen=True)
class Uncertainty:
    """Forecast errors of one MTU.

    ``half_p_kw``, ``half_q_kvar`` (n_pod,): half-bands; xi = 1 is a consumption higher by that much. ``reactive``:
    ``with_active`` moves both by one xi (n_xi = n_pod), so that a POD keeps its power factor; ``independent`` has an xi
    for P of every POD, then one for Q of every POD (n_xi = 2 n_pod), so that a box covers all (P, Q) within both bands.
    ``base``: ``baseline`` keeps the band as it is when a POD is activated, ``residual`` scales both with the POD's
    active consumption.
    ``worst_case``: ``exact``, or ``reim`` of the study (sums of the moduli of real and of imaginary parts, with the
    signs of the current at the schedule), which is for comparison only: unsafe when activation turns the current.
    ``delivery_budget``: how many resources may fail to deliver (`Resource.delivery_risk`) at once, None for all.
    ``effect_factor`` (n_pod,): multiplies the PODs' complex effects, to repeat tables computed with other voltages.
    """

    half_p_kw: Floats
    half_q_kvar: Floats
    set: UncertaintySet
    base: Literal["baseline", "residual"] = "baseline"
    worst_case: Literal["exact", "reim"] = "exact"
    delivery_budget: float | None = None
    effect_factor: Complexes | None = None
    reactive: Literal["with_active", "independent"] = "with_active"

    def __post_init__(self) -> None:
        faults = list(self._shape_faults())
        if self.base == "residual" and self.set.norm == "ball":
            problem = "a band on the residual with a ball makes cones, which linear solvers cannot solve"
            faults.append(Fault(problem, key="base", allowed="a box, a budget or a factor set"))
        if self.worst_case == "reim" and (
            self.set.norm != "box" or self.set.loadings is not None or self.base != "baseline" or self.n_xi > self.n_pod
        ):
            problem = "reim is defined for a box on the baseline with P and Q together only"
            faults.append(Fault(problem, key="worst_case"))
        if faults:
            raise BidError(faults)

    def _shape_faults(self) -> Iterator[Fault]:
        if self.half_q_kvar.shape != self.half_p_kw.shape:
            value = f"{len(self.half_p_kw)} and {len(self.half_q_kvar)}"
            yield Fault("half-bands of P and of Q must be of the same PODs", key="half_q_kvar", value=value)
        loadings = self.set.loadings
        if loadings is not None and len(loadings) != self.n_xi:
            problem = f"the set must have an xi for each POD's {'P and Q' if self.n_xi > self.n_pod else 'power'}"
            yield Fault(problem, key="set", value=str(len(loadings)), allowed=str(self.n_xi))

    @property
    def n_pod(self) -> int:
        return len(self.half_p_kw)

    @property
    def n_xi(self) -> int:
        return self.n_pod if self.reactive == "with_active" else 2 * self.n_pod

    def errors(self, xi: Floats) -> tuple[Floats, Floats]:
        """By how much consumption is higher than scheduled (..., n_pod) [kW, kvar] at ``xi`` (..., n_xi), on the
        baseline."""
        return xi[..., : self.n_pod] * self.half_p_kw, xi[..., -self.n_pod :] * self.half_q_kvar

    def of_xi(self, of_pod: Floats) -> Floats:
        """What belongs to PODs (n_pod,) for each xi (n_xi,)."""
        return np.tile(of_pod, self.n_xi // self.n_pod)

    def of_pod(self, of_xi: Floats) -> Floats:
        """Sums over the xi (..., n_xi) of each POD (..., n_pod)."""
        return np.asarray(of_xi.reshape(*of_xi.shape[:-1], -1, self.n_pod).sum(axis=-2))


def certain(n_pod: int) -> Uncertainty:
    """No forecast error at all."""
    return Uncertainty(np.zeros(n_pod), np.zeros(n_pod), box())


class Protection:
    """What forecast errors can do to the quantities of one network."""

    def __init__(self, network: NetworkRows, uncertainty: Uncertainty) -> None:
        self.uncertainty, self._set = uncertainty, uncertainty.set
        self._unscaled_reach: dict[str, Floats] = {}  # by norm
        self._reim = uncertainty.worst_case == "reim"
        self._ceiling = UncertaintySet("box", loadings=self._set.loadings)
        self._network, self._n_conductor = network, len(network.conductors)

    def effect(self, at: Ints | slice = slice(None)) -> Complexes:
        """Complex change of the quantities ``at`` (n,), by default of all, by xi = 1 (n, n_xi). Not kept: over a day
        ahead that would be large."""
        given = self.uncertainty
        by_p, by_q = self._network.by_p[at] * given.half_p_kw, self._network.by_q[at] * given.half_q_kvar
        if given.effect_factor is not None:
            by_p, by_q = by_p * given.effect_factor, by_q * given.effect_factor
        return by_p + by_q if given.reactive == "with_active" else np.hstack([by_p, by_q])

    def reach(self, ceiling: bool, scale: Floats | None = None) -> Floats:
        """No plane's protection is more than this (n_quantity,). ``scale`` (n_pod,) is that of the bands."""
        if scale is not None:
            return self._reach(self._of(ceiling), scale)
        of = self._of(ceiling)
        if of.norm not in self._unscaled_reach:
            self._unscaled_reach[of.norm] = frozen(self._reach(of, None))
        return self._unscaled_reach[of.norm]

    def _reach(self, of: UncertaintySet, scale: Floats | None) -> Floats:
        factors = self._set.factors(self._scaled(self.effect(), scale))
        reach = of.largest(np.abs(factors))
        if self._reim:
            reach[: self._n_conductor] = np.abs(self._reim_sum(np.arange(self._n_conductor)))
        return reach

    def on(self, at: Ints, weight: Complexes, ceiling: bool, scale: Floats | None = None) -> Floats:
        """Protection (n, n_plane) of the rows ``Re(weight z)``; quantities ``at`` (n,), weights (n, n_plane)."""
        if self._reim:
            shift = np.where(at < self._n_conductor, self._reim_sum(at), 0.0)
            exact = self._set.largest(self._rows(at, weight, scale))
            return np.where((at < self._n_conductor)[:, None], (weight * shift[:, None]).real, exact)
        return self._of(ceiling).largest(self._rows(at, weight, scale))

    def terms(self, quantity: int, weight: complex, scale: Floats | None = None) -> Floats:
        """Effects of the eta on one row (n_factor,)."""
        return np.asarray(self._rows(np.array([quantity]), np.array([[weight]]), scale)[0, 0])

    def worst(self, quantity: int, weight: complex, ceiling: bool, scale: Floats | None = None) -> Floats:
        """The xi (n_xi,) that is worst for one row."""
        return self._of(ceiling).worst(self.terms(quantity, weight, scale))

    def _of(self, ceiling: bool) -> UncertaintySet:
        return self._ceiling if ceiling else self._set

    def _rows(self, at: Ints, weight: Complexes, scale: Floats | None) -> Floats:
        factors = self._set.factors(self._scaled(self.effect(at), scale))
        found = weight.real[:, :, None] * factors.real[:, None, :]
        found -= weight.imag[:, :, None] * factors.imag[:, None, :]
        return np.asarray(found)

    def _scaled(self, effect: Complexes, scale: Floats | None) -> Complexes:
        return effect if scale is None else effect * self.uncertainty.of_xi(scale)

    def _reim_sum(self, at: Ints) -> Complexes:
        """Sum of all moduli with the signs of the current at the schedule (n,)."""
        base, effect = self._network.base[at], self.effect(at)
        return np.asarray(
            np.sign(base.real) * np.abs(effect.real).sum(axis=1)
            + 1j * np.sign(base.imag) * np.abs(effect.imag).sum(axis=1)
        )
