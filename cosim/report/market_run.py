"""What a run's results hold of its local market, put together by market time unit (MTU).

Plans are told apart from what happened by POD: what a POD draws is its profile and what its resources add. At a gate
the network operator expects the profile, resources declare what they add, and what is bought comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cosim.clock import parse_duration_s
from cosim.coordination.catalogue import scheme_of
from cosim.coordination.in_run import LOOP
from cosim.coordination.scheme import Scheme, Stage
from cosim.domain.frames import Floats, Ints
from cosim.domain.site import site_sums
from cosim.report.causes import LEAST_EXCESS, PodErrors
from cosim.report.reading import WITH, WITHOUT, Reading
from cosim.units import SECONDS_PER_HOUR

_SAME_KW = 1e-9
_NEEDED = (f"{WITH}/pod/", "aggregator/pod/", "aggregator/pod/planned_", "dso/forecast/", "dso/forecast/half_")
_POWERS = ("p_kw", "q_kvar")


@dataclass(frozen=True)
class ForecastErrors:
    """Power drawn without activation less what was expected of it at the gate, and its half-bands, all (n_step, n_pod)
    [kW, kvar]; NaN where no session in real time looked at the step's MTU.

    PODs at one site count together, under the name of the first: the network feels their sum alone, and an estimate
    does not tell them apart.
    """

    pods: tuple[str, ...]
    p_kw: Floats
    q_kvar: Floats
    half_p_kw: Floats
    half_q_kvar: Floats

    def at(self, step: int) -> PodErrors | None:
        """Errors in a step; None where nothing was expected."""
        if not self.looked_at[step]:
            return None
        half = self.half_p_kw[step], self.half_q_kvar[step]
        return PodErrors(self.pods, self.p_kw[step], self.q_kvar[step], *half)

    @property
    def looked_at(self) -> npt.NDArray[np.bool_]:
        """Whether a session in real time looked at the MTU of each step (n_step,)."""
        return np.asarray(np.isfinite(self.half_p_kw).all(axis=1))


class MarketRun:
    """The market of a run that has one, see `market_run`."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.config: dict[str, Any] = reading.scenario.get("market") or {}
        self.uncertainty: dict[str, Any] = self.config.get("uncertainty") or {}
        self.mtu_s = float(parse_duration_s(reading.scenario["mtu"])) if "mtu" in reading.scenario else reading.step_s
        self.steps_per_mtu = max(1, round(self.mtu_s / reading.step_s)) if reading.step_s > 0.0 else 1
        self.n_mtu = -(-reading.steps // self.steps_per_mtu)
        self.needs, self.activations = self.table("dso/needs"), self.table("aggregator/activations")

    @cached_property
    def scheme(self) -> Scheme | None:
        """The scheme of coordination, None for a local market alone."""
        tree = self.reading.json("scheme")
        return None if tree is None else scheme_of(tree)

    @cached_property
    def all_awards(self) -> pd.DataFrame:
        """Awards of the market, or of all parties of a scheme: with ``seller``, ``buyer``, ``direction``,
        ``quantity_kw`` (below zero: given back) and prices; of a scheme also ``stage`` and ``area``."""
        return self.table("market/awards") if self.scheme is None else self.of_parties("awards")

    @cached_property
    def awards(self) -> pd.DataFrame:
        """Those of resources at the feeder."""
        found = self.all_awards
        return found[found["area"] != ""] if "area" in found else found

    @cached_property
    def unsolved(self) -> pd.DataFrame:
        """Limits of the feeder that plans do not keep: with ``kind``, ``element``, ``excess``, ``limit``. Of a scheme
        what the last stage leaves that is to meet them."""
        if self.scheme is None:
            return self.table("market/unsolved")
        found = self.of_parties("unmet")
        last = _last_to_meet(self.scheme)
        if found.empty or last is None:
            return found.iloc[:0]
        area, _, element = (found["element"].str.partition("/")[k] for k in range(3))
        own = found.assign(element=element, limit=found["limit"].astype(np.float64))
        return own[(area != "") & (element != "") & (found["stage"] == last)]

    def of_parties(self, name: str) -> pd.DataFrame:
        """A table of all parties that clear stages, with the index ``mtu``, and ``party``: the simulator."""
        tables = [self.table(f"{party}/{name}").assign(party=party) for party in LOOP]
        there = [table for table in tables if len(table)]
        return pd.concat(there, ignore_index=True) if there else tables[0]

    def table(self, path: str) -> pd.DataFrame:
        """A table of events with the index ``mtu`` of each row's MTU, of those of which a step was recorded."""
        found = self.reading.table(path)
        table = pd.DataFrame({"t_s": np.empty(0)}) if found is None else found
        table = table.assign(mtu=(table["t_s"] // self.mtu_s).astype(np.int64))
        return table[table["mtu"] < self.n_mtu]

    def frame(self, path: str) -> pd.DataFrame:
        """A signal; without columns where there is none."""
        frame = self.reading.frame(path)
        return pd.DataFrame(index=self.reading.time) if frame is None else frame

    def values(self, path: str) -> Floats:
        """A signal (n_step, n_element)."""
        return self.frame(path).to_numpy(dtype=np.float64)

    @property
    def mtu_h(self) -> float:
        return self.mtu_s / SECONDS_PER_HOUR

    @property
    def pods(self) -> tuple[str, ...]:
        return tuple(self.reading.elements(f"{WITH}/pod/p_kw"))

    @cached_property
    def step_mtu(self) -> Ints:
        """Index of the MTU of each step (n_step,)."""
        return np.asarray(np.arange(self.reading.steps) // self.steps_per_mtu)

    def gate_step(self, mtu: int) -> int:
        """The step with which the gate in real time of an MTU closes; -1 for the first MTU."""
        return mtu * self.steps_per_mtu - 1

    def eur(self, price: str) -> float:
        """What is due for all awards [EUR] at the prices in a column of their table."""
        return float((self.awards["quantity_kw"] * self.awards[price]).sum()) * self.mtu_h if len(self.awards) else 0.0

    @cached_property
    def left(self) -> pd.DataFrame:
        """Violations that count with activation, with ``mtu`` and ``excess_percent``."""
        return self._violations(WITH)

    @cached_property
    def without(self) -> pd.DataFrame | None:
        """The same without any activation; None where that was not solved."""
        return self._violations(WITHOUT) if self.reading.compared else None

    def _violations(self, simulator: str) -> pd.DataFrame:
        table = self.table(f"{simulator}/violations")
        if table.empty:
            return table.assign(excess_percent=np.empty(0))
        share = table["excess"] / table["limit"].where(table["quantity"] == "i_a", 1.0)
        table = table.assign(excess_percent=100.0 * table["excess"] / table["limit"])
        return table[share > table["quantity"].map(LEAST_EXCESS)]

    @cached_property
    def unseen(self) -> pd.DataFrame:
        """What resources of the feeder were to deliver of awards of stages that do not know its network: ``mtu``,
        ``pod`` and ``change_kw`` (consumption > 0)."""
        stages = [] if self.scheme is None else [n for n, stage in self.scheme.stages.items() if buys_unseen(stage)]
        parts = self.table("aggregator/splits") if stages else pd.DataFrame()
        if parts.empty:
            return pd.DataFrame({"mtu": np.empty(0, np.int64), "pod": np.empty(0, object), "change_kw": np.empty(0)})
        found = parts[parts["stage"].isin(stages)]
        return found.assign(change_kw=found["quantity_kw"].where(found["direction"] == "down", -found["quantity_kw"]))

    @cached_property
    def left_by_plan(self) -> pd.DataFrame:
        """Limits that the plans in force do not keep: of the last gate, where a session looked at the MTU then."""
        table, errors = self.unsolved, self.errors
        if errors is None:
            return table
        unseen = np.flatnonzero(~errors.looked_at[:: self.steps_per_mtu])
        return table.loc[self.from_last_gate(table) | np.isin(table["mtu"], unseen)]

    @cached_property
    def pod_of(self) -> dict[str, str]:
        """The POD of each resource that was activated, in the order of the results."""
        table = self.activations
        pods = {} if table.empty else dict(zip(table["resource"], table["pod"], strict=True))
        return {name: pods[name] for name in self.reading.elements("aggregator/resource/p_kw") if name in pods}

    def _by_unit(self, column: str) -> Floats:
        """A column of the activations as (n_mtu, n_unit), 0 where there is none; units are those of ``pod_of``."""
        values = np.zeros((self.n_mtu, len(self.pod_of)))
        if self.pod_of:
            index = {name: k for k, name in enumerate(self.pod_of)}
            values[self.activations["mtu"], self.activations["resource"].map(index)] = self.activations[column]
        return values

    @cached_property
    def ordered_kw(self) -> Floats:
        """Changes of consumption ordered, (n_mtu, n_unit) [kW]."""
        return self._by_unit("change_kw")

    @cached_property
    def missing_kw(self) -> Floats:
        """What each unit is short of its order in each step, (n_step, n_unit) [kW]; below 0 for too much, NaN without
        an order."""
        change_kw = self.ordered_kw[self.step_mtu]
        wanted_kw = self._by_unit("baseline_kw")[self.step_mtu] + change_kw
        names = list(self.pod_of)
        of_profile = np.array([self._of_profile(name) for name in names], dtype=np.float64)
        drawn_kw = self.frame("aggregator/resource/p_kw")[names] - self._free_kw()[names] * of_profile
        return np.where(change_kw == 0.0, np.nan, np.sign(change_kw) * (wanted_kw - drawn_kw.to_numpy()))

    def _free_kw(self) -> pd.DataFrame:
        return self.frame("aggregator/resource/free_p_kw")

    def entry(self, resource: str) -> dict[str, Any]:
        """The scenario's entry that a resource comes from."""
        entries = self.reading.scenario.get("resources") or {}
        return entries.get(resource.partition(":")[0]) or {}

    def _of_profile(self, resource: str) -> bool:
        """Whether the profile of its POD is the resource itself."""
        return any(self.entry(resource).get(kind) is not None for kind in ("load", "pv"))

    @cached_property
    def errors(self) -> ForecastErrors | None:
        """Forecast errors of all PODs; None where forecasts were not recorded."""
        if not all(self.reading.has(path + q) for q in _POWERS for path in _NEEDED):
            return None
        bought_kw, bought_kvar = (bought[self.step_mtu] for bought in self._bought)
        half_p_kw, half_q_kvar = (self._at_gate(f"dso/forecast/half_{q}") for q in _POWERS)
        if self.uncertainty.get("base") == "residual":
            expected_kw = self._at_gate("dso/forecast/p_kw")
            share = np.divide(bought_kw, expected_kw, out=np.zeros_like(bought_kw), where=expected_kw != 0.0)
            half_p_kw, half_q_kvar = (half * np.abs(1.0 + share) for half in (half_p_kw, half_q_kvar))
        p_kw, q_kvar = self._error("p_kw", bought_kw), self._error("q_kvar", bought_kvar)
        pods, sums = self._sites
        return ForecastErrors(pods, *(each @ sums for each in (p_kw, q_kvar, half_p_kw, half_q_kvar)))

    @property
    def _sites(self) -> tuple[tuple[str, ...], Floats]:
        """The first POD of each site, and what adds up the PODs of each (n_pod, n_site)."""
        site_of = self.reading.json("pod_sites") or {}
        sites = [str(site_of.get(pod, pod)) for pod in self.pods]
        first = dict(zip(reversed(sites), reversed(self.pods), strict=True))
        known = list(dict.fromkeys(sites))
        return tuple(first[site] for site in known), site_sums(sites)

    def _error(self, quantity: str, bought: Floats) -> Floats:
        """What profiles drew less what was expected of them at the gate, before ``bought`` was (n_step, n_pod)."""
        profile = self.values(f"{WITH}/pod/{quantity}") - self.values(f"aggregator/pod/{quantity}")
        before = self.values(f"aggregator/pod/planned_{quantity}") - bought
        return profile - (self._at_gate(f"dso/forecast/{quantity}") - before)

    def _at_gate(self, path: str) -> Floats:
        """A signal in the last step before each step's MTU (n_step, n_element); NaN in the first MTU."""
        gate = self.step_mtu * self.steps_per_mtu - 1
        return np.where(gate[:, None] >= 0, self.values(path)[gate], np.nan)

    @cached_property
    def _bought(self) -> tuple[Floats, Floats]:
        """Of the changes ordered for each MTU, those bought at the last gate before it (n_mtu, n_pod) [kW, kvar]."""
        index = {pod: k for k, pod in enumerate(self.pods)}
        p_kw, q_kvar = np.zeros((self.n_mtu, len(index))), np.zeros((self.n_mtu, len(index)))
        bought_kw, kvar_per_kw = self._bought_of_units(), self._kvar_per_kw()
        for k, pod in enumerate(self.pod_of.values()):
            p_kw[:, index[pod]] += bought_kw[:, k]
            q_kvar[:, index[pod]] += kvar_per_kw[k] * bought_kw[:, k]
        return p_kw, q_kvar

    def _bought_of_units(self) -> Floats:
        """The same of units (n_mtu, n_unit) [kW]. Where a gate before has sold for the same MTU, awards to several
        resources together count in proportion to their orders."""
        awards, now = self.awards, self.from_last_gate(self.awards)
        bought_kw = self.ordered_kw.copy()
        bought_kw[~np.isin(np.arange(self.n_mtu), awards["mtu"][now])] = 0.0
        for mtu in set(awards["mtu"][~now]) & set(awards["mtu"][now]):
            rows = awards[now & (awards["mtu"] == mtu)]
            signed_kw = rows["quantity_kw"].where(rows["direction"] == "down", -rows["quantity_kw"])
            of_name = signed_kw.groupby([_resource_of(bid) for bid in rows["bid"]]).sum().to_dict()
            bought_kw[mtu] = [of_name.pop(name, 0.0) for name in self.pod_of]
            weight = np.abs(self.ordered_kw[mtu])
            bought_kw[mtu] += sum(of_name.values()) * weight / max(float(weight.sum()), _SAME_KW)
        return bought_kw

    def from_last_gate(self, table: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Which rows come from the gate just before their MTU."""
        if "gate_s" not in table:
            return np.zeros(len(table), dtype=np.bool_)
        return np.asarray(table["gate_s"] + self.reading.step_s >= table["t_s"] - _SAME_KW)

    def _kvar_per_kw(self) -> Floats:
        """How reactive power comes with the power of each unit (n_unit,), from what it did and what it was to do."""
        found, wanted_kw = np.zeros(len(self.pod_of)), self._by_unit("baseline_kw") + self.ordered_kw
        first = np.arange(self.n_mtu) * self.steps_per_mtu
        plan, plan_kvar = (self.frame(f"aggregator/pod/planned_{q}").iloc[first] for q in _POWERS)
        moved_kvar = self.frame("aggregator/pod/q_kvar") - self.frame("aggregator/pod/free_q_kvar")
        names = np.array(list(self.pod_of), dtype=object)
        moved_kw = (self.frame("aggregator/resource/p_kw") - self._free_kw())[names].to_numpy()
        for pod in dict.fromkeys(self.pod_of.values()):
            own = [k for k, at in enumerate(self.pod_of.values()) if at == pod]
            whole = np.isclose(wanted_kw[:, own].sum(axis=1), plan[pod], rtol=_SAME_KW, atol=_SAME_KW)
            powers = np.concatenate([moved_kw[:, own], wanted_kw[whole][:, own]])
            reactive = np.concatenate([moved_kvar[pod], plan_kvar[pod][whole]])
            there = np.abs(powers).max(axis=1) > _SAME_KW
            found[own] = np.linalg.lstsq(powers[there], reactive[there], rcond=1e-9)[0]
        return found


def worst_percent(violations: pd.DataFrame) -> float:
    """The largest excess over a limit [% of it]; 0 without any."""
    return float(violations["excess_percent"].max()) if len(violations) else 0.0


def market_run(reading: Reading) -> MarketRun | None:
    """The market of a run; None for a run without one, or without a step."""
    there = reading.steps > 0 and (reading.has("market/session/cost_eur") or reading.json("scheme") is not None)
    return reading.once(MarketRun) if there else None


def sees_feeder(stage: Stage) -> bool:
    """Whether a stage that buys knows the network of the feeder."""
    return stage.awards and "D" in stage.network


def buys_unseen(stage: Stage) -> bool:
    """Whether a stage buys resources of the feeder as they are without its network."""
    return stage.awards and stage.lock and "D" in stage.resources and "D" not in stage.network and stage.admit == "raw"


def _last_to_meet(scheme: Scheme) -> str | None:
    """The last stage that is to keep the limits of the feeder, not only to leave them no worse."""
    stages = [name for name, stage in scheme.stages.items() if sees_feeder(stage) and stage.limits == "meet"]
    return stages[-1] if stages else None


def keeps_limits(scheme: Scheme | None) -> bool:
    """Whether anybody buys to keep the limits of the feeder."""
    return scheme is None or _last_to_meet(scheme) is not None


def _resource_of(bid: str) -> str:
    """The resource that a bid of a single one names: ``seller/product/resource/t_s@gate_s``."""
    return "/".join(bid.split("/")[2:-1])
