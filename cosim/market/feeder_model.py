"""A feeder as a clearing needs it: linearised at any powers, and by its power flow."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from cosim.domain.frames import Floats, Ints
from cosim.grid.batch import BatchPowerFlow
from cosim.grid.linear import Linearisation, LinearNetwork
from cosim.grid.unloaded import Unloaded
from cosim.market.network import NetworkRows, network_rows


class FeederModel:
    """The limited quantities of one feeder at one position of its controls, for `clear_with_ac`.

    ``i_max_a`` (n_conductor,), ``v_min_pu``, ``v_max_pu`` (n_node,) in the order of the network's layout, NaN for none;
    for one end of a branch only, NaN for the conductors of the other.
    """

    def __init__(self, network: Unloaded, head: str, i_max_a: Floats, v_min_pu: Floats, v_max_pu: Floats) -> None:
        layout = network.layout
        self._limited_i = np.flatnonzero(~np.isnan(i_max_a))
        limited_v = np.flatnonzero(~(np.isnan(v_min_pu) & np.isnan(v_max_pu)))
        nodes = [layout.nodes[k] for k in limited_v]
        self._linear = LinearNetwork(network, head, nodes, [layout.conductors[k] for k in self._limited_i])
        self._network, self._nodes = network, nodes
        self._v_base = network.v_base[limited_v]
        self._limits = i_max_a[self._limited_i], v_min_pu[limited_v], v_max_pu[limited_v]

    def linearise(self, mtu: int, p_kw: Floats, q_kvar: Floats) -> NetworkRows:
        """At net consumption ``p_kw``, ``q_kvar`` (n_pod,), with the loads' own response to the voltage; the same in
        every MTU. Raises PowerFlowError if the power flow does not converge."""
        return self.around(p_kw, q_kvar)[1]

    def around(self, p_kw: Floats, q_kvar: Floats) -> tuple[Linearisation, NetworkRows]:
        """All derivatives at net consumption ``p_kw``, ``q_kvar`` (n_pod,), and what they say of the limited
        quantities. Raises PowerFlowError as above."""
        model = self._linear.exact(p_kw, q_kvar)
        return model, network_rows(model, self._network.pods, self._v_base, *self._limits)

    def magnitudes(self, mtu: int, p_kw: Floats, q_kvar: Floats) -> Floats:
        """(n_case, n_quantity) [A, pu] at net consumption (n_case, n_pod). Raises PowerFlowError if a case does not
        converge."""
        flow, columns = self._flow
        state = flow.solve(p_kw, q_kvar).require_converged()
        return np.hstack([state.conductor_i_a[:, columns], state.vm_pu])

    @cached_property
    def _flow(self) -> tuple[BatchPowerFlow, Ints]:
        """The power flow, and which of the conductors that it sees are limited (n_conductor,); made when asked for."""
        layout = self._network.layout
        terminals = np.unique(layout.conductor_terminal[self._limited_i])
        seen = np.flatnonzero(np.isin(layout.conductor_terminal, terminals))
        flow = BatchPowerFlow(self._network, self._nodes, [layout.terminals[k] for k in terminals])
        return flow, np.searchsorted(seen, self._limited_i)
