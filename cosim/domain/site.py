"""Sites: where a state estimator looks for power. A site is a bus and the phases between which PODs connect there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosim.domain.frames import Floats

_ALL_PHASES = 3


def site_name(bus: str, phases: Sequence[int]) -> str:
    """``LV1`` for PODs of three phases, else with the phase, ``65.1``, or the two between which they connect,
    ``65.1.2``."""
    return bus if len(phases) >= _ALL_PHASES else ".".join((bus, *(str(phase) for phase in sorted(phases))))


def bus_of_site(site: str) -> str:
    """The bus of a site."""
    return site.partition(".")[0]


def sites_of(pod_sites: Sequence[str]) -> tuple[str, ...]:
    """Sites that hold PODs, each once, in the order of the PODs."""
    return tuple(dict.fromkeys(pod_sites))


def site_sums(pod_sites: Sequence[str]) -> Floats:
    """(n_pod, n_site) matrix that adds up the PODs of each site."""
    sites = sites_of(pod_sites)
    return np.array([[float(site == own) for site in sites] for own in pod_sites])
