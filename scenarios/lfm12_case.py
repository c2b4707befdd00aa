"""The market of the 12-bus study on the feeder lfm12: its network as a clearing sees it, bids and forecast errors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cosim.domain.frames import Complexes, Floats
from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.grid.batch import BatchPowerFlow
from cosim.grid.engine import Engine
from cosim.grid.feeder import Feeder
from cosim.grid.linear import Linearisation, LinearNetwork, operating_point
from cosim.grid.unloaded import Unloaded
from cosim.market.case import ClearingCase, ClearingSettings
from cosim.market.feeder_model import FeederModel
from cosim.market.network import NetworkRows, network_rows
from cosim.market.outcome import Clearing
from cosim.market.planes import LimitSettings
from cosim.market.uncertainty import Uncertainty, UncertaintySet, box
from cosim.scenario.schema import GridConfig

LIMIT_A = 117.0
LIMITED = "Line.2-3@2.1"
"""One phase of the end at bus 2: the study has one phase and limits one end. 32 planes are no multiple of three, so the
polygons of the other phases, whose currents are equal in truth, are turned by a third of a sector."""
FLEXIBLE = ("POD2", "POD4", "POD7")
HALF_BANDS = {1: 0.025, 2: 0.05, 3: 0.10}
"""Of each case: half-band of the flexible loads over their power; three times that for the others."""
STUDY = LimitSettings(planes=32)
POD8_KW = 300.0


@dataclass(frozen=True)
class Market:
    """The network with PODs at powers (n_pod,), as a clearing sees it; ``limited`` conductors may carry 117 A."""

    network: Unloaded
    head: str
    p_kw: Floats
    q_kvar: Floats
    limited: tuple[str, ...] = (LIMITED,)

    @cached_property
    def flow(self) -> FeederModel:
        """Its power flow."""
        layout = self.network.layout
        i_max_a = np.where(np.isin(layout.conductors, self.limited), LIMIT_A, np.nan)
        no_limit = np.full(len(layout.nodes), np.nan)
        return FeederModel(self.network, self.head, i_max_a, no_limit, no_limit)

    @cached_property
    def v(self) -> Complexes:
        """Voltages of all nodes by power flow [V]."""
        return operating_point(self.network, self.p_kw, self.q_kvar)

    def linear(self, conductors: Sequence[str], nodes: Sequence[str] = ()) -> Linearisation:
        """The study's linear model: loads draw constant currents, those at the voltages of the power flow."""
        seen = LinearNetwork(self.network, self.head, nodes, conductors)
        return seen.fixed_voltages(self.p_kw, self.q_kvar, self.v)

    @cached_property
    def rows(self) -> NetworkRows:
        """The same as a clearing takes it."""
        none, limits = np.zeros(0), np.full(len(self.limited), LIMIT_A)
        return network_rows(self.linear(self.limited), self.network.pods, none, limits, none, none)

    def linearise(self, _: int, p_kw: Floats, q_kvar: Floats) -> NetworkRows:
        """Rows at other powers."""
        return replace(self, p_kw=p_kw, q_kvar=q_kvar).rows

    def errors(self, flexible: float, kind: UncertaintySet | None = None) -> Uncertainty:
        """Forecast errors with a half-band that is this share of the flexible loads' power."""
        share = np.where(np.isin(self.network.pods, FLEXIBLE), flexible, 3.0 * flexible)
        return Uncertainty(share * self.p_kw, share * self.q_kvar, kind or box())

    @cached_property
    def upstream(self) -> Complexes:
        """What the index slip of the study's printed deltas does to each POD's uncertain current (n_pod,): it has the
        voltage of the bus upstream."""
        own = np.array([branch.nodes[0] - 1 for branch in self.network.pod_branches[::3]])
        return np.asarray(np.conj(self.v[own] / self.v[own - 3]))

    def raised(self, errors: Uncertainty) -> "Market":
        """With all loads at the upper end of their bands."""
        return replace(self, p_kw=self.p_kw + errors.half_p_kw, q_kvar=self.q_kvar + errors.half_q_kvar)

    def case(self, errors: Uncertainty, limits: LimitSettings = STUDY, **settings: Any) -> ClearingCase:
        """One hour at 1 EUR/kWh; reactive power follows active power."""
        resources = {
            pod: Resource(pod, pod, "load", "AGG", p, 0.0 if p else POD8_KW, q / p if p else 0.0)
            for pod, p, q in zip(self.network.pods, self.p_kw.tolist(), self.q_kvar.tolist(), strict=True)
        }
        offered = [(pod, Direction.UP, resources[pod].up_kw) for pod in FLEXIBLE]
        offered += [("POD8", Direction.DOWN, POD8_KW)] if "POD8" in resources else []
        bids = tuple(
            Bid(pod, "AGG", "P", direction, 0, (kw,), (PriceStep(kw, 1.0),), resource=pod)
            for pod, direction, kw in offered
        )
        how = ClearingSettings(limits=limits, **settings)
        return ClearingCase(bids, resources, (self.rows,), 0, 3600, uncertainty=(errors,), settings=how)

    def with_pod8(self) -> "Market":
        """With a resource at bus 2, ahead of the limited section, that draws nothing yet; as the network's matrix is
        without PODs, one more is an entry in their list."""
        network, nodes = self.network, self.network.layout.nodes
        new = [
            replace(branch, pod=len(self.p_kw), nodes=(nodes.index(f"2.{phase}") + 1, 0))
            for phase, branch in enumerate(network.pod_branches[:3], start=1)
        ]
        pods, branches = (*network.pods, "POD8"), (*network.pod_branches, *new)
        network = replace(network, pods=pods, pod_branches=branches)
        return replace(self, network=network, p_kw=np.append(self.p_kw, 0.0), q_kvar=np.append(self.q_kvar, 0.0))

    @property
    def counter_resource(self) -> str:
        return "POD8" if "POD8" in self.network.pods else ""

    def base_v(self, nodes: Sequence[str]) -> Floats:
        """Base voltages [V]."""
        return self.network.v_base[[self.network.layout.nodes.index(node) for node in nodes]]

    def import_kw(self, p_kw: Floats, q_kvar: Floats) -> float:
        """At the head, by power flow."""
        state = BatchPowerFlow(self.network, [], [self.head]).solve(p_kw[None], q_kvar[None]).require_converged()
        return float(state.p_kw[0, 0])


def planned(plan: Clearing) -> tuple[Floats, Floats]:
    """Consumption with the awards (n_pod,) [kW, kvar]."""
    return plan.networks[0].powers(plan.networks[0].state(plan.solution.x))


def awarded_kw(plan: Clearing, pod: str) -> float:
    return float(plan.of(pod)[0]) if any(bid.id == pod for bid in plan.bids) else 0.0


def bought_kw(plan: Clearing) -> float:
    return sum(awarded_kw(plan, pod) for pod in FLEXIBLE)


def unsolved_a(plan: Clearing) -> float:
    return sum(each.excess for each in plan.unsolved)


def open_market(feeder: Feeder) -> Market:
    """The network at the study's powers."""
    engine = Engine(feeder, GridConfig())
    network = engine.unloaded()
    engine.close()
    pods = feeder.pods.values()
    p_kw, q_kvar = np.array([pod.kw for pod in pods]), np.array([pod.kvar for pod in pods])
    return Market(network, feeder.head_terminal, p_kw, q_kvar)
