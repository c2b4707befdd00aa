"""Which sites the meters alone determine, without history, and which only together with others.

Source: A. Monticelli, F. F. Wu, Network observability: theory, IEEE Trans. PAS-104(5), 1985 (null space of the
measurement slope, observable islands). There the question is whether a flow is determined at all; here almost any
combination of sites has some weak effect on some voltage, so the question is whether it is determined well enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np
import scipy.sparse.csgraph

from cosim.domain.frames import Floats, Ints
from cosim.estimation.problem import EstimationProblem, evidence, total

SHARE_LEFT_OPEN = 0.05
"""Share of a site's P or Q [of its variance] in undetermined combinations up to which the site counts as observable."""
COUPLED = 0.1
"""Least cosine between what the meters say about two sites for them to be in one island."""

UNSEEN = 1e-8
"""Share of a site's P or Q in determined combinations below which it is nothing but rounding error."""
LEAST_TOLD = 0.5
"""An island of which less is determined than so many combinations is none: no meter sees its sites."""


@dataclass(frozen=True)
class Observability:
    """``observable`` sites are those whose P and Q the meters determine one by one. Of each of the ``islands``, sets of
    sites, they determine some combinations at most, such as the sum; an island of one site is one that no meter sees.
    """

    observable: tuple[str, ...]
    islands: tuple[tuple[str, ...], ...]

    @property
    def unobservable(self) -> int:
        """Number of sites in islands."""
        return sum(map(len, self.islands))


def observe(problem: EstimationProblem) -> Observability:
    """Observability by the channels that arrived, at the history's mean; at a solution: ``observability`` of its slope,
    which hardly differs."""
    _, slope = problem.flow.linearised(*total(problem, problem.history.mean))
    seen = evidence(problem)
    spread = np.sqrt(np.diagonal(problem.history.covariance))
    return observability(problem.flow.sites, slope[seen.row] / seen.sigma[:, np.newaxis], spread)


def observability(sites: tuple[str, ...], slope: Floats, spread: Floats) -> Observability:
    """Observability by readings whose ``slope`` (n_row, 2 n_site) [1 per kW, kvar] is over their standard deviation, as
    in `wls.WlsSolution`.

    A combination of sites is *determined* if the meters tell it more exactly than ``spread`` (2 n_site,) [kW, kvar],
    the standard deviation of what each site does, or the median of all, if that is larger: a coarse meter at an idle
    site still determines it.
    """
    basis = _determined(slope, spread)
    told, known = np.sum(basis**2, axis=1), basis @ basis.T
    dark = _dark(told)
    _, label = scipy.sparse.csgraph.connected_components(_coupled(known)[np.ix_(dark, dark)], directed=False)
    islands: list[tuple[str, ...]] = []
    for island in range(label.max(initial=-1) + 1):
        members = dark[label == island]
        names = [sites[k] for k in members]
        islands += [tuple(names)] if told.reshape(2, -1)[:, members].sum() > LEAST_TOLD else [(name,) for name in names]
    return Observability(tuple(np.delete(sites, dark).tolist()), tuple(islands))


def unobservable(slope: Floats, spread: Floats) -> int:
    """`Observability.unobservable` alone, which needs no islands; arguments as in `observability`."""
    basis = _determined(slope, spread)
    return len(_dark(np.sum(basis**2, axis=1)))


def _dark(told: Floats) -> Ints:
    """Sites in islands, by the shares (2 n_site,) of each P and Q that are determined."""
    return np.flatnonzero(told.reshape(2, -1).min(axis=0) < 1.0 - SHARE_LEFT_OPEN)


def _determined(slope: Floats, spread: Floats) -> Floats:
    """Orthonormal basis (2 n_site, n_told) of the combinations that are determined, in units of the spread."""
    slope = slope * np.maximum(spread, median(spread.tolist()))
    information, direction = np.linalg.eigh(slope @ slope.T)
    told = information > 1.0
    return np.asarray(slope.T @ direction[:, told] / np.sqrt(information[told]))


def _coupled(known: Floats) -> Floats:
    """(n_site, n_site) 1 where what the meters say about two sites, P or Q, has a cosine of `COUPLED` or more;
    ``known`` (2 n_site, 2 n_site) is the projection onto what is determined."""
    length = np.sqrt(np.maximum(np.diagonal(known), UNSEEN))
    cosine = np.abs(known) / np.outer(length, length)
    n_site = len(known) // 2
    blocks: Floats = cosine.reshape(2, n_site, 2, n_site).max(axis=(0, 2))
    return np.where(blocks >= COUPLED, 1.0, 0.0)
