"""The estimator: snapshot and history in, injections of all sites and the grid's estimated state out."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from cosim.domain.frames import HEAD_SIGN, PASSIVE_SIGN, Floats, Signal, frozen
from cosim.domain.measurement import Snapshot
from cosim.domain.site import site_sums
from cosim.estimation.history import history_window
from cosim.estimation.methods import Estimate, estimate
from cosim.estimation.problem import EstimationProblem
from cosim.grid.engine import Engine
from cosim.grid.site_flow import SiteFlow
from cosim.io.profiles import history
from simulators._base import Adapter, Inputs, Output


class Estimator(Adapter):
    """Models ``site`` and one for each further method: p_kw, q_kvar (n_site,); ``bus``, ``branch``, ``head``: the state
    that follows, the head also without the orders in force; ``quality``. Where orders act in
    the same MTU, that is the state in which they are decided. Remembers nothing: random streams are named by step."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {"snapshot": ("value", "quality"), "order": ("p_kw",)}

    def build(self) -> dict[str, tuple[Output, ...]]:
        case, config = self.case, self.case.scenario.estimator
        engine = Engine(case.feeder, case.scenario.grid)
        self._flow = SiteFlow(engine.unloaded(), case.feeder, case.pod_sites, case.sensor_model.channels)
        engine.close()
        storage_rows = [case.pods.index(unit.pod) for unit in case.storage]
        self._site_of_storage = site_sums(case.pod_sites)[storage_rows]
        self._methods = (config.method, *(m for m in config.compare if m != config.method))
        sites, feeder = case.sites, (case.feeder.name,)
        power = (
            Signal("p_kw", "kW", "estimated active power, orders included", "site", sites, PASSIVE_SIGN),
            Signal("q_kvar", "kvar", "estimated reactive power", "site", sites, PASSIVE_SIGN),
            Signal("sigma_p_kw", "kW", "standard deviation of the estimate, NaN if not known", "site", sites),
        )
        fit = (
            Signal("objective", "1", "weighted squared error of the measurements", "feeder", feeder),
            Signal("iterations", "1", "iterations or generations", "feeder", feeder),
        )
        return {
            **dict.fromkeys(self._methods, power + fit),
            "bus": (Signal("vm_pu", "pu", "estimated voltage magnitude", "node", case.layout.nodes),),
            "branch": (Signal("loading_pu", "pu", "estimated current over rating", "branch", case.layout.branches),),
            "head": (
                Signal("p_kw", "kW", "estimated active power at the head", "feeder", feeder, HEAD_SIGN),
                Signal("q_kvar", "kvar", "estimated reactive power at the head", "feeder", feeder, HEAD_SIGN),
                Signal("idle_p_kw", "kW", "the same without the orders in force", "feeder", feeder, HEAD_SIGN),
            ),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        case, config = self.case, self.case.scenario.estimator
        ordered_kw = self._in_force_kw(t_s, inputs["order", "p_kw"]) @ self._site_of_storage
        window = history(case.history, case.clock.instant(t_s), config.history.days, config.history.window)
        snapshot = Snapshot(inputs["snapshot", "value"], inputs["snapshot", "quality"])
        problem = EstimationProblem(
            self._flow, case.sensor_model.channels, snapshot, history_window(window), frozen(ordered_kw)
        )
        step = case.clock.step_index(t_s)
        found = [estimate(m, problem, config.genetic, case.scenario.seed, step) for m in self._methods]
        outputs = self._state(found[0], ordered_kw)
        for each in found:
            outputs |= {
                (each.method, "p_kw"): each.p_kw,
                (each.method, "q_kvar"): each.q_kvar,
                (each.method, "sigma_p_kw"): each.sigma_p_kw,
                (each.method, "objective"): frozen([each.objective]),
                (each.method, "iterations"): frozen([each.iterations]),
            }
        return outputs

    def _in_force_kw(self, t_s: int, latest_kw: Floats) -> Floats:
        """The orders in what was measured at ``t_s``: the latest, unless their MTU has ended and those that act in this
        one are still to come."""
        config, clock = self.case.scenario.operator, self.case.clock
        return np.zeros_like(latest_kw) if config.action == "same" and clock.begins_mtu(t_s) else latest_kw

    def _state(self, chosen: Estimate, ordered_kw: Floats) -> dict[tuple[str, str], Any]:
        """The load flow with the estimated values, with and without the orders in force."""
        p_kw = np.stack([chosen.p_kw, chosen.p_kw - ordered_kw])
        states = self._flow.states(p_kw, np.stack([chosen.q_kvar, chosen.q_kvar]))
        return {
            ("bus", "vm_pu"): frozen(states.vm_pu[0]),
            ("branch", "loading_pu"): frozen(states.loading_pu[0]),
            ("head", "p_kw"): frozen(states.head_p_kw[:1]),
            ("head", "q_kvar"): frozen(states.head_q_kvar[:1]),
            ("head", "idle_p_kw"): frozen(states.head_p_kw[1:]),
        }
