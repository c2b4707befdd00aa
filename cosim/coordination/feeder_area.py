"""A feeder as an area of distribution: its limits and sensitivities around given powers of its PODs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from cosim.coordination.grid import Grid
from cosim.domain.frames import Floats
from cosim.grid.engine import Engine
from cosim.grid.feeder import find_feeder, load_feeder
from cosim.grid.limits import Limits
from cosim.grid.linear import Linearisation, LinearNetwork
from cosim.market.network import NetworkRows, network_rows
from cosim.market.uncertainty import Uncertainty
from cosim.scenario import schema

_NAMES_KEPT = 16


class FeederArea:
    """A feeder by name in ``library``, or in a folder relative to ``beside``, held to ``limits``.

    Raises FeederError or ScenarioError if it cannot be used, or has no rating that is asked for.
    """

    def __init__(self, feeder: str, beside: Path, library: Path, limits: schema.Limits) -> None:
        self._feeder = load_feeder(find_feeder(feeder, beside, library))
        engine = Engine(self._feeder, schema.GridConfig())
        try:
            network = engine.unloaded()
        finally:
            engine.close()
        head, layout = self._feeder.head_terminal, network.layout
        held = Limits(layout, limits, head)
        low, high = held.vm_band_pu
        i = np.flatnonzero(np.isfinite(held.i_max_a))
        v = np.flatnonzero(np.isfinite(low) | np.isfinite(high))
        nodes = [layout.nodes[k] for k in v]
        self._linear = LinearNetwork(network, head, nodes, [layout.conductors[k] for k in i])
        self._v_base = network.v_base[v]
        self._limits = held.i_max_a[i], _or_none(low[v]), _or_none(high[v])

    @property
    def pods(self) -> tuple[str, ...]:
        return tuple(self._feeder.pods)

    def grid(self, area: str, level: Mapping[str, float], net_kw: Mapping[str, float], times: float) -> Grid:
        """With PODs at ``level`` of their factor by kind, or at ``net_kw``; loads ``times`` as large. Reactive power
        keeps its ratio. Raises PowerFlowError if the power flow does not converge."""
        p_kw, q_kvar = np.zeros(len(self.pods)), np.zeros(len(self.pods))
        for k, (name, pod) in enumerate(self._feeder.pods.items()):
            base_p, base_q = (0.0, 0.0) if pod.kind == "storage" else (pod.p_per_profile_kw, pod.q_per_profile_kvar)
            share = level.get(pod.kind, 1.0)
            p_kw[k], q_kvar[k] = share * base_p, share * base_q
            if name in net_kw:
                p_kw[k], q_kvar[k] = net_kw[name], net_kw[name] * base_q / base_p if base_p else 0.0
            if p_kw[k] > 0.0:
                p_kw[k], q_kvar[k] = times * p_kw[k], times * q_kvar[k]
        model = self._linear.exact(p_kw, q_kvar)
        return area_grid(area, model, network_rows(model, self.pods, self._v_base, *self._limits))


def area_grid(area: str, model: Linearisation, rows: NetworkRows, uncertainty: Uncertainty | None = None) -> Grid:
    """A linearised feeder as the network of an area: all of it under the area's name; ``rows``: what ``model`` says of
    limited quantities, or some of them."""
    pods, conductors, nodes = (_within(area, names) for names in (rows.pods, rows.conductors, rows.nodes))
    named = replace(rows, pods=pods, conductors=conductors, nodes=nodes)
    import_kw = float(model.state.head_kva.sum().real)
    return Grid(named, model.head_by_p.imag, model.head_by_q.imag, uncertainty, import_kw=import_kw)


@lru_cache(_NAMES_KEPT)
def _within(area: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{area}/{name}" for name in names)


def _or_none(limit: Floats) -> Floats:
    return np.where(np.isfinite(limit), limit, np.nan)
