"""The estimator: snapshot and history in, injections of all sites and the grid's estimated state out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from math import gcd
from typing import Any, ClassVar

import numpy as np

from cosim.case import Case
from cosim.domain.frames import HEAD_SIGN, PASSIVE_SIGN, Floats, Signal, frozen
from cosim.domain.measurement import Snapshot
from cosim.domain.site import site_sums
from cosim.estimation.baddata import REJECTED, BadDataRules, Screening, screen
from cosim.estimation.history import HistoryWindow, history_window
from cosim.estimation.methods import Estimate, estimate, voltage_band
from cosim.estimation.observability import unobservable
from cosim.estimation.problem import EstimationProblem
from cosim.grid.site_flow import SiteFlow
from cosim.io.profiles import history
from simulators._base import Adapter, Inputs, Output

_QUARTER_HOUR_S = 900  # the history's windows are counted in these
_FLOWS_KEPT = 16  # load flows kept, one for each combination of taps and capacitors


class Estimator(Adapter):
    """One model for each method: p_kw, q_kvar (n_site,); ``bus``, ``branch``, ``head``: the state that follows, the
    head also without the orders in force; ``screening``: what the readings say of each other. Where orders act in the
    same MTU, that is the state in which they are decided. Taps, capacitors and switches are known from telemetry.
    Remembers nothing: random streams are named by step."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {
        "snapshot": ("value", "quality"),
        "control": ("position",),
        "order": ("p_kw",),
        "plan": ("p_kw", "q_kvar"),
    }

    def build(self) -> dict[str, tuple[Output, ...]]:
        case, config = self.case, self.case.scenario.estimator
        self._flow_at = case.kept("site flows", lambda: lru_cache(_FLOWS_KEPT)(_flows_of(case)))
        self._past_at = lru_cache(1)(self._new_past)
        storage_rows = [case.pods.index(unit.pod) for unit in case.storage]
        self._site_of_pod = site_sums(case.pod_sites)
        self._site_of_storage = self._site_of_pod[storage_rows]
        self._methods = (config.method, *(m for m in config.compare if m != config.method))
        self._rules = BadDataRules(**config.bad_data.model_dump())
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
            "bus": (
                Signal("vm_pu", "pu", "estimated voltage magnitude", "node", case.layout.nodes),
                Signal("sigma_vm_pu", "pu", "its standard deviation, NaN if not known", "node", case.layout.nodes),
            ),
            "branch": (Signal("loading_pu", "pu", "estimated current over rating", "branch", case.layout.branches),),
            "head": (
                Signal("p_kw", "kW", "estimated active power at the head", "feeder", feeder, HEAD_SIGN),
                Signal("q_kvar", "kvar", "estimated reactive power at the head", "feeder", feeder, HEAD_SIGN),
                Signal("idle_p_kw", "kW", "the same without the orders in force", "feeder", feeder, HEAD_SIGN),
            ),
            "screening": (
                REJECTED,
                Signal("chi_square", "1", "misfit of readings and history to least squares", "feeder", feeder),
                Signal("chi_square_limit", "1", "what sound readings stay below", "feeder", feeder),
                Signal("undecided", "1", "suspicious readings that nothing decides upon", "feeder", feeder),
                Signal("unobservable_sites", "1", "sites that the readings alone do not determine", "feeder", feeder),
            ),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        case, config = self.case, self.case.scenario.estimator
        flow = self._flow_at(tuple(inputs["control", "position"].tolist()))
        ordered = self._ordered(t_s, inputs)
        snapshot = Snapshot(inputs["snapshot", "value"], inputs["snapshot", "quality"])
        screened = screen(
            EstimationProblem(flow, case.sensor_model.channels, snapshot, self._past(t_s), ordered), self._rules
        )
        step = case.clock.step_index(t_s)
        found = [
            estimate(m, screened.problem, config.genetic, case.scenario.seed, step, screened.fit) for m in self._methods
        ]
        outputs = self._state(flow, found[0], ordered) | self._screening(t_s, screened)
        for each in found:
            outputs |= {
                (each.method, "p_kw"): each.p_kw,
                (each.method, "q_kvar"): each.q_kvar,
                (each.method, "sigma_p_kw"): each.sigma_p_kw,
                (each.method, "objective"): frozen([each.objective]),
                (each.method, "iterations"): frozen([each.iterations]),
            }
        return outputs

    def _past(self, t_s: int) -> HistoryWindow:
        """What the history says of ``t_s``: the same until another of its rows begins."""
        known, unchanged = self.case.history, timedelta(seconds=gcd(self.case.history.step_s, _QUARTER_HOUR_S))
        since_start = self.case.clock.instant(t_s) - known.start
        return self._past_at(known.start + since_start // unchanged * unchanged)

    def _new_past(self, instant: datetime) -> HistoryWindow:
        look = self.case.scenario.estimator.history
        return history_window(history(self.case.history, instant, look.days, look.window), 2 * look.window + 1)

    def _ordered(self, t_s: int, inputs: Inputs) -> Floats:
        """Power of the sites known from orders to storage and from what aggregators declared and sold (2 n_site,)."""
        p_kw = self._in_force_kw(t_s, inputs["order", "p_kw"]) @ self._site_of_storage
        q_kvar = np.zeros_like(p_kw)
        if ("plan", "p_kw") in inputs:
            p_kw = p_kw + inputs["plan", "p_kw"] @ self._site_of_pod
            q_kvar = inputs["plan", "q_kvar"] @ self._site_of_pod
        return frozen(np.concatenate([p_kw, q_kvar]))

    def _in_force_kw(self, t_s: int, latest_kw: Floats) -> Floats:
        """The orders in what was measured at ``t_s``: the latest, unless their MTU has ended and those that act in this
        one are still to come."""
        config, clock = self.case.scenario.operator, self.case.clock
        return np.zeros_like(latest_kw) if config.action == "same" and clock.begins_mtu(t_s) else latest_kw

    def _state(self, flow: SiteFlow, chosen: Estimate, ordered: Floats) -> dict[tuple[str, str], Any]:
        """The load flow with the estimated values, with and without the orders in force."""
        n_site = len(chosen.p_kw)
        p_kw = np.stack([chosen.p_kw, chosen.p_kw - ordered[:n_site]])
        states = flow.states(p_kw, np.stack([chosen.q_kvar, chosen.q_kvar - ordered[n_site:]]))
        sigma = np.full(len(self.case.layout.nodes), np.nan)
        if chosen.root is not None:
            sigma = voltage_band(flow.voltage_slope(chosen.p_kw, chosen.q_kvar), chosen.root)
        return {
            ("bus", "vm_pu"): frozen(states.vm_pu[0]),
            ("bus", "sigma_vm_pu"): frozen(sigma),
            ("branch", "loading_pu"): frozen(states.loading_pu[0]),
            ("head", "p_kw"): frozen(states.head_p_kw[:1]),
            ("head", "q_kvar"): frozen(states.head_q_kvar[:1]),
            ("head", "idle_p_kw"): frozen(states.head_p_kw[1:]),
        }

    def _screening(self, t_s: int, screened: Screening) -> dict[tuple[str, str], Any]:
        fit, problem = screened.fit, screened.problem
        in_islands = len(self.case.sites)
        if fit.converged and fit.row.size:
            spread = np.sqrt(np.diagonal(problem.history.covariance))
            in_islands = unobservable(fit.slope, spread)
        figures = {
            "chi_square": screened.chi_square,
            "chi_square_limit": screened.limit,
            "undecided": float(len(screened.undecided)),
            "unobservable_sites": float(in_islands),
        }
        rows = [
            {
                "t_s": t_s,
                "topic": r.topic,
                "unit": r.unit,
                "value": r.value,
                "expected": r.expected,
                "normalised": r.normalised,
            }
            for r in screened.rejected
        ]
        return {("screening", name): frozen([value]) for name, value in figures.items()} | {
            ("screening", REJECTED.name): rows
        }


def _flows_of(case: Case) -> Callable[[tuple[float, ...]], SiteFlow]:
    """The load flow with taps, capacitors and switches at a position (n_control,)."""
    first = SiteFlow(case.engines.network(), case.feeder, case.pod_sites, case.sensor_model.channels)
    return lambda position: first.at(case.engines.network(position))
