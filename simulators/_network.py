"""The network as DSO and market see it: a model of the feeder for each position of what moves in it, and the rules of
the market on it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cosim.case import Case
from cosim.coordination.feeder_area import area_grid
from cosim.coordination.grid import Grid
from cosim.domain.frames import Floats
from cosim.grid.limits import Limits, decisive_nodes
from cosim.grid.measures import Positions
from cosim.market.feeder_model import FeederModel
from cosim.market.session import LocalMarket, Situation, registered_kw

_MODELS_KEPT = 8  # one for each combination of positions: megabytes each, and most are left for good


class Network:
    """A case's feeder with the scenario's limits, and the ``market`` on it."""

    def __init__(self, case: Case) -> None:
        self._case = case
        limits = Limits(case.layout, case.scenario.limits, case.feeder.head_terminal)
        self._i_max_a = _finite(limits.i_max_a)
        decisive = decisive_nodes(case.layout, case.pod_buses)
        self._v_min_pu, self._v_max_pu = (np.where(decisive, _finite(band), np.nan) for band in limits.vm_band_pu)
        if case.market_config.ends == "first":
            layout = case.layout
            first = np.isin(layout.conductor_terminal, layout.branch_start)
            self._i_max_a = np.where(first, self._i_max_a, np.nan)
        self._registered_kw = registered_kw({unit.resource.id: unit.resource for unit in case.portfolio}, case.pods)
        at = lru_cache(_MODELS_KEPT)(self.at)
        self.market = LocalMarket(case.market_config, at, case.pod_kinds, case.clock.mtu_s)

    def at(self, position: tuple[float, ...] | None = None) -> FeederModel:
        """The model with taps, capacitors and switches at ``position`` (n_control,), or where the scripts have them."""
        network = self._case.engines.network(position)
        return FeederModel(network, self._case.feeder.head_terminal, self._i_max_a, self._v_min_pu, self._v_max_pu)

    def area(self, name: str, situation: Situation) -> Grid:
        """The feeder in the one MTU of a situation as an area of that name, with the limits that its resources could
        matter for."""
        linear = self.market.known(situation, 0).linear
        return area_grid(name, linear, *self.market.in_question(situation, self._registered_kw))

    def snapshot(self, name: str, p_kw: Floats, q_kvar: Floats) -> Grid:
        """The feeder at powers of PODs (n_pod,) as an area of that name, with all limits and its controls where the
        script has them."""
        return area_grid(name, *self.at().around(p_kw, q_kvar))

    def allows(self, measures: Positions) -> bool:
        """Whether measures may be at these positions together."""
        return self._case.engines.allows(measures)


def network_of(case: Case) -> Network:
    """The one of a case for all simulators of this process, in all segments of a run."""
    return case.kept("network", lambda: Network(case))


def _finite(limits: Floats) -> Floats:
    return np.where(np.isfinite(limits), limits, np.nan)
