"""What a run's results hold of its local market, put together by market time unit (MTU).

Plans are told apart from what happened by POD: what a POD draws is its profile and what its resources add. At a gate
the network operator expects the profile, resources declare what they add, and what is bought comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cosim.clock import parse_duration_s
from cosim.domain.frames import Floats, Ints
from cosim.report.causes import LEAST_EXCESS, PodErrors
from cosim.report.reading import WITH, WITHOUT, Reading
from cosim.units import SECONDS_PER_HOUR

_SAME_KW = 1e-9
_FORECAST = ("p_kw", "q_kvar", "half_p_kw", "half_q_kvar")


@dataclass(frozen=True)
class ForecastErrors:
    """Power drawn without activation less what was expected of it at the gate, and its half-bands, all (n_step, n_pod)
    [kW, kvar]; NaN where no session in real time looked at the step's MTU."""

    pods: tuple[str, ...]
    p_kw: Floats
    q_kvar: Floats
    half_p_kw: Floats
    half_q_kvar: Floats

    def at(self, step: int) -> PodErrors | None:
        """Errors in a step; None where nothing was expected."""
        if np.isnan(self.p_kw[step]).all():
            return None
        return PodErrors(
            self.pods, self.p_kw[step], self.q_kvar[step], self.half_p_kw[step], self.half_q_kvar[step]
        )  # fmt: skip


class MarketRun:
    """The market of a run that has one, see `market_run`."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        scenario = reading.scenario
        self.config: dict[str, Any] = scenario.get("market") or {}
        self._resources: dict[str, Any] = scenario.get("resources") or {}
        self.mtu_s = float(parse_duration_s(scenario["mtu"])) if "mtu" in scenario else reading.step_s
        self.steps_per_mtu = max(1, round(self.mtu_s / reading.step_s)) if reading.step_s > 0.0 else 1
        self.n_mtu = -(-reading.steps // self.steps_per_mtu)
        self.needs, self.awards = self._table("dso/needs"), self._table("market/awards")
        self.unsolved, self.activations = self._table("market/unsolved"), self._table("aggregator/activations")

    def _table(self, path: str) -> pd.DataFrame:
        """A table of events with the index ``mtu`` of each row's MTU, of those that are recorded to an end."""
        found = self.reading.table(path)
        table = pd.DataFrame({"t_s": np.empty(0)}) if found is None else found
        table = table.assign(mtu=(table["t_s"] // self.mtu_s).astype(np.int64))
        return table[table["mtu"] < self.n_mtu]

    def _values(self, path: str) -> Floats | None:
        frame = self.reading.frame(path)
        return None if frame is None else frame.to_numpy(dtype=np.float64)

    @property
    def mtu_h(self) -> float:
        return self.mtu_s / SECONDS_PER_HOUR

    @cached_property
    def step_mtu(self) -> Ints:
        """Index of the MTU of each step (n_step,)."""
        return np.asarray(np.arange(self.reading.steps) // self.steps_per_mtu)

    def violations(self, simulator: str) -> pd.DataFrame:
        """Violations that count, with ``mtu`` and ``excess_percent``; without any if there is no such table."""
        table = self._table(f"{simulator}/violations")
        if table.empty:
            return table.assign(excess_percent=np.empty(0))
        share = table["excess"] / table["limit"].where(table["quantity"] == "i_a", 1.0)
        table = table.assign(excess_percent=100.0 * table["excess"] / table["limit"])
        return table[share > table["quantity"].map(LEAST_EXCESS)]

    @cached_property
    def left(self) -> pd.DataFrame:
        """Violations with activation."""
        return self.violations(WITH)

    @cached_property
    def without(self) -> pd.DataFrame | None:
        """Violations without any activation; None where that was not solved."""
        return self.violations(WITHOUT) if self.reading.compared else None

    @cached_property
    def units(self) -> pd.DataFrame:
        """Resources that were activated, ``resource`` and ``pod``, in the order of the results."""
        order = self.reading.elements("aggregator/resource/p_kw")
        pods = {} if self.activations.empty else dict(
            zip(self.activations["resource"], self.activations["pod"], strict=True)
        )  # fmt: skip
        known = [name for name in order if name in pods]
        return pd.DataFrame({"resource": known, "pod": [pods[name] for name in known]}, dtype=object)

    def _by_unit(self, column: str) -> Floats:
        """A column of the activations as (n_mtu, n_unit), 0 where there is none."""
        values = np.zeros((self.n_mtu, len(self.units)))
        if len(self.units):
            index = {name: k for k, name in enumerate(self.units["resource"])}
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
        short_kw = np.sign(change_kw) * (wanted_kw - self._drawn_kw())
        return np.where(change_kw == 0.0, np.nan, short_kw)

    def _drawn_kw(self) -> Floats:
        """What units add to the profiles of their PODs (n_step, n_unit) [kW]."""
        names = list(self.units["resource"])
        drawn = self.reading.frame("aggregator/resource/p_kw")
        free = self.reading.frame("aggregator/resource/free_p_kw")
        if drawn is None or free is None or not names:
            return np.zeros((self.reading.steps, len(names)))
        of_profile = np.array([self._of_profile(name) for name in names])
        return np.asarray(drawn[names].to_numpy() - free[names].to_numpy() * of_profile)

    def _entry(self, resource: str) -> dict[str, Any]:
        """The scenario's entry that a resource comes from."""
        return self._resources.get(resource.partition(":")[0]) or {}

    def _of_profile(self, resource: str) -> bool:
        """Whether the profile of its POD is the resource itself."""
        return any(self._entry(resource).get(kind) is not None for kind in ("load", "pv"))

    @cached_property
    def errors(self) -> ForecastErrors | None:
        """Forecast errors of all PODs; None where forecasts were not recorded."""
        expected = [self._at_gate(f"dso/forecast/{name}") for name in _FORECAST]
        true = [self._values(f"{WITH}/pod/{q}") for q in _FORECAST[:2]]
        added = [self._values(f"aggregator/pod/{q}") for q in _FORECAST[:2]]
        planned = [self._values(f"aggregator/pod/planned_{q}") for q in _FORECAST[:2]]
        if any(each is None for each in (*expected, *true, *added, *planned)):
            return None
        bought = [of_mtu[self.step_mtu] for of_mtu in self._bought]
        errors = [
            (is_true - is_added) - (is_expected - (was_planned - was_bought))
            for is_true, is_added, is_expected, was_planned, was_bought in zip(
                true, added, expected[:2], planned, bought, strict=True
            )
        ]
        half = expected[2:]
        if self._uncertainty.get("base") == "residual":
            left = np.abs(
                1.0 + np.divide(bought[0], expected[0], out=np.zeros_like(bought[0]), where=expected[0] != 0.0)
            )
            half = [each * left for each in half]
        return ForecastErrors(self._pods, errors[0], errors[1], half[0], half[1])

    @property
    def _pods(self) -> tuple[str, ...]:
        return tuple(self.reading.elements(f"{WITH}/pod/p_kw"))

    @property
    def _uncertainty(self) -> dict[str, Any]:
        return self.config.get("uncertainty") or {}

    def _at_gate(self, path: str) -> Floats | None:
        """A signal of the last step before each step's MTU (n_step, ...); NaN in the first MTU."""
        values = self._values(path)
        if values is None:
            return None
        gate = self.step_mtu * self.steps_per_mtu - 1
        return np.where(gate[:, None] >= 0, values[gate], np.nan)

    @cached_property
    def _bought(self) -> tuple[Floats, Floats]:
        """Changes by what was bought at the last gate before each MTU, of what is ordered for it (n_mtu, n_pod) [kW,
        kvar]."""
        pods = {pod: k for k, pod in enumerate(self._pods)}
        at = [pods[pod] for pod in self.units["pod"]]
        p_kw, q_kvar = np.zeros((self.n_mtu, len(pods))), np.zeros((self.n_mtu, len(pods)))
        bought_kw = self._bought_of_units()
        for k, (pod, kvar) in enumerate(zip(at, self._kvar_per_kw(), strict=True)):
            p_kw[:, pod] += bought_kw[:, k]
            q_kvar[:, pod] += kvar * bought_kw[:, k]
        return p_kw, q_kvar

    def _bought_of_units(self) -> Floats:
        """The part of orders (n_mtu, n_unit) [kW] that was bought at the last gate. Where a gate before has sold for
        the same MTU too, awards to several resources together count in proportion to their orders."""
        now = self._late(self.awards)
        bought_kw = self.ordered_kw.copy()
        bought_kw[~np.isin(np.arange(self.n_mtu), self.awards["mtu"][now])] = 0.0
        for mtu in set(self.awards["mtu"][~now]) & set(self.awards["mtu"][now]):
            rows = self.awards[now & (self.awards["mtu"] == mtu)]
            signed_kw = rows["quantity_kw"].where(rows["direction"] == "down", -rows["quantity_kw"])
            of_name = signed_kw.groupby([_resource_of(bid) for bid in rows["bid"]]).sum()
            bought_kw[mtu] = [of_name.pop(name) if name in of_name else 0.0 for name in self.units["resource"]]
            weight = np.abs(self.ordered_kw[mtu])
            bought_kw[mtu] += of_name.sum() * weight / max(weight.sum(), _SAME_KW)
        return bought_kw

    def _late(self, table: pd.DataFrame) -> pd.Series[Any]:
        """Which rows come from the gate just before their MTU."""
        if "gate_s" not in table:
            return pd.Series(np.zeros(len(table), dtype=bool))
        return table["gate_s"] + self.reading.step_s >= table["t_s"] - _SAME_KW

    def _kvar_per_kw(self) -> Floats:
        """How reactive power comes with the power of each unit (n_unit,): from what it did and was to do; 0 where it
        neither moved nor was alone at its POD."""
        names = list(self.units["resource"])
        found = np.zeros(len(names))
        frames = [self.reading.frame(f"aggregator/resource/{n}") for n in ("p_kw", "free_p_kw")]
        pods = [self.reading.frame(f"aggregator/pod/{n}") for n in ("q_kvar", "free_q_kvar")]
        planned = [self.reading.frame(f"aggregator/pod/planned_{n}") for n in ("p_kw", "q_kvar")]
        if any(frame is None for frame in (*frames, *pods, *planned)):
            return found
        first = np.arange(self.n_mtu) * self.steps_per_mtu
        wanted_kw = self._by_unit("baseline_kw") + self.ordered_kw
        for pod in dict.fromkeys(self.units["pod"]):
            own = np.flatnonzero(self.units["pod"] == pod)
            moved = frames[0][np.array(names)[own]].to_numpy() - frames[1][np.array(names)[own]].to_numpy()
            plan_kw = planned[0][pod].to_numpy()[first]
            whole = np.abs(wanted_kw[:, own].sum(axis=1) - plan_kw) <= _SAME_KW * (1.0 + np.abs(plan_kw))
            powers = np.concatenate([moved, wanted_kw[whole][:, own]])
            reactive = np.concatenate(
                [(pods[0][pod] - pods[1][pod]).to_numpy(), planned[1][pod].to_numpy()[first][whole]]
            )
            there = np.isfinite(powers).all(axis=1) & np.isfinite(reactive) & (np.abs(powers).max(axis=1) > _SAME_KW)
            found[own] = np.linalg.lstsq(powers[there], reactive[there], rcond=1e-9)[0]
        return found


def market_run(reading: Reading) -> MarketRun | None:
    """The market of a run; None for a run without one, or without a step."""
    there = reading.steps > 0 and reading.has("market/session/cost_eur")
    return reading.once(MarketRun) if there else None


def _resource_of(bid: str) -> str:
    """The resource that a bid of a single one names: ``seller/product/resource/t_s``."""
    return "/".join(bid.split("/")[2:-1])
