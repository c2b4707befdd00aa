"""What is computed before a run: the thresholds (if asked for) and what they are predicted to achieve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from cosim.case import Case
from cosim.clock import Clock
from cosim.domain.frames import Floats
from cosim.errors import ProfileError, ScenarioError
from cosim.flexibility.sizing import Day, Sized, simulate, size
from cosim.grid.fallback import batch_flow
from cosim.io.profiles import covering, sample
from cosim.rng import seed_for
from cosim.scenario.schema import OperatorConfig
from cosim.units import SECONDS_PER_DAY


@dataclass(frozen=True)
class Prepared:
    """``thresholds_kw`` by storage POD, -inf for one that never charges; ``sized`` where they were computed, with the
    local ``day`` they were computed on; the deepest head power of the whole run as predicted with (``head_min_kw``) and
    without orders (``head_min_idle_kw``)."""

    thresholds_kw: dict[str, float]
    sized: Sized | None
    day: date | None
    head_min_kw: float
    head_min_idle_kw: float


def prepared_as_plain(prepared: Prepared) -> dict[str, Any]:
    """As what JSON can write: the day as text, None for a threshold that is not finite."""
    thresholds_kw = {pod: kw if math.isfinite(kw) else None for pod, kw in prepared.thresholds_kw.items()}
    day = None if prepared.day is None else prepared.day.isoformat()
    return asdict(prepared) | {"thresholds_kw": thresholds_kw, "day": day}


def prepared_from_plain(plain: Mapping[str, Any]) -> Prepared:
    """What `prepared_as_plain` made plain."""
    sized, day = plain["sized"], plain["day"]
    return Prepared(
        {pod: -math.inf if kw is None else kw for pod, kw in plain["thresholds_kw"].items()},
        None if sized is None else Sized(**sized),
        None if day is None else date.fromisoformat(day),
        plain["head_min_kw"],
        plain["head_min_idle_kw"],
    )


def prepare(case: Case) -> Prepared:
    """Thresholds and prediction of a case. Without storage, or with orders switched off, there are no thresholds.

    Raises ScenarioError if the profiles do not cover the day of the sizing.
    """
    operator, units = case.scenario.operator, case.storage
    head = _HeadModel(case)
    run = head.day(case.clock)
    if not operator.enabled or not units:
        lowest = float(run.head_idle_kw.min())
        return Prepared({}, None, None, lowest, lowest)
    sized, day = None, None
    if operator.thresholds_kw == "auto":
        day = operator.sizing.day or _deepest_day(run)
        sized = size(
            head.day(_clock_of(case, day)), units, operator, case.initial_kwh, seed_for(case.scenario.seed, "sizing")
        )
        thresholds_kw = sized.thresholds_kw
    else:
        thresholds_kw = {u.pod: operator.thresholds_kw.get(u.pod, -np.inf) for u in units}
    row = np.array([[thresholds_kw[unit.pod] for unit in units]])
    course = simulate(run, units, operator, row, case.initial_kwh)
    return Prepared(thresholds_kw, sized, day, float(course.head_kw.min()), float(run.head_idle_kw.min()))


def as_text(prepared: Prepared, operator: OperatorConfig) -> str:
    """The thresholds and what they achieve, as a table."""
    lines = [f"threshold of {pod:<16} {kw:10.1f} kW" for pod, kw in prepared.thresholds_kw.items()]
    if prepared.sized is not None:
        sized = prepared.sized
        lines += [
            f"\non {prepared.day}, orders acting in the {operator.action} MTU",
            f"  deepest head power without orders {sized.head_min_idle_kw:10.1f} kW",
            f"  with these thresholds             {sized.head_min_kw:10.1f} kW, {sized.activated_kwh:.1f} kWh charged",
            f"  at best, the day known in advance {sized.bound_head_min_kw:10.1f} kW, "
            f"{sized.bound_activated_kwh:.1f} kWh charged",
        ]
    lines += [
        "\nover the whole run",
        f"  deepest head power without orders {prepared.head_min_idle_kw:10.1f} kW",
        f"  with these thresholds             {prepared.head_min_kw:10.1f} kW",
    ]
    return "\n".join(lines)


def _deepest_day(run: Day) -> date:
    return run.begins[int(np.argmin(run.head_idle_kw))].date()


def _clock_of(case: Case, day: date) -> Clock:
    """The MTUs of a local day."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=case.scenario.start.tzinfo).astimezone(UTC)
    return Clock(midnight, case.clock.mtu_s, SECONDS_PER_DAY // case.clock.mtu_s, case.clock.mtu_s)


class _HeadModel:
    """Head power of the feeder for any hours of the profiles and any storage powers."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._flow = batch_flow(case.engine(), [], [case.feeder.head_terminal])
        self._storage_at = [case.pods.index(unit.pod) for unit in case.storage]

    def day(self, clock: Clock) -> Day:
        """The MTUs of ``clock``."""
        case = self._case
        clock = replace(clock, step_s=clock.mtu_s, steps=clock.until_s // clock.mtu_s)
        try:
            covering(case.profiles, clock)
        except ProfileError as error:
            raise ScenarioError([case.loaded.fault("operator.sizing.day", f.problem) for f in error.faults]) from None
        p_kw, q_kvar = case.feeder.powers(case.profiles.names, sample(case.profiles, clock))
        begins = tuple(
            case.scenario.local(clock.start + timedelta(seconds=k * clock.step_s)) for k in range(clock.steps)
        )

        def head_of(storage_kw: Floats) -> Floats:
            n_case, n_mtu, _ = storage_kw.shape
            p = np.broadcast_to(p_kw, (n_case, *p_kw.shape)).copy()
            p[:, :, self._storage_at] = storage_kw
            q = np.broadcast_to(q_kvar, p.shape)
            flat = (n_case * n_mtu, p.shape[2])
            state = self._flow.solve(p.reshape(flat), q.reshape(flat)).require_converged()
            return state.p_kw[:, 0].reshape(n_case, n_mtu)

        idle = head_of(np.zeros((1, clock.steps, len(self._storage_at))))[0]
        return Day(begins, clock.mtu_s, idle, head_of)
