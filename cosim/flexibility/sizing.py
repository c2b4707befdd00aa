"""Sizing: the thresholds that keep the head within its limit with the least activation, for the run's own rules.

The genetic algorithm searches the thresholds; each candidate is judged by simulating exactly the rule that the operator
will follow (same or next MTU, discharge window, stored energy at the start) over a day of powers and solving the power
flow of all its steps in one batch. The linear programme knows the whole day in advance and is free to order any power,
so it bounds from above what any threshold can reach; without delay and waste the two coincide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import Floats
from cosim.errors import CosimError
from cosim.flexibility.thresholds import after, decide, in_window
from cosim.rng import rng_for
from cosim.scenario.schema import OperatorConfig
from cosim.search import minimise
from cosim.units import energy_kwh

HeadOf = Callable[[Floats], Floats]
"""Head power [kW] (n_case, n_mtu) at storage powers (n_case, n_mtu, n_unit) [kW]."""

ACTIVATION_WEIGHT = 1e-3
"""Violation [kW] that one kWh of activation is worth, when candidates are ranked."""


@dataclass(frozen=True)
class Day:
    """Consecutive MTUs on which thresholds are judged: their beginnings in local time, ``head_idle_kw`` (n_mtu,)
    without any order, and the head's answer to storage powers."""

    begins: tuple[datetime, ...]
    mtu_s: int
    head_idle_kw: Floats
    head_of: HeadOf


@dataclass(frozen=True)
class Course:
    """What the rule does on a day, for each candidate: storage power ``p_kw`` (n_case, n_mtu, n_unit) [kW] and head
    power ``head_kw`` (n_case, n_mtu) [kW]."""

    p_kw: Floats
    head_kw: Floats


@dataclass(frozen=True)
class Sized:
    """Thresholds by POD and what they achieve on the day: deepest head power with (``head_min_kw``) and without orders
    (``head_min_idle_kw``), energy charged; beside it the bound of the linear programme."""

    thresholds_kw: dict[str, float]
    head_min_kw: float
    head_min_idle_kw: float
    activated_kwh: float
    bound_head_min_kw: float
    bound_activated_kwh: float


def simulate(
    day: Day, units: Sequence[StorageUnit], config: OperatorConfig, thresholds_kw: Floats, e_kwh: Floats
) -> Course:
    """The operator's rule over a day for thresholds (n_case, n_unit) [kW], from ``e_kwh`` (n_unit,) [kWh] stored.

    With action ``next`` the order for an MTU is decided on the head power of the MTU before, and nothing is ordered for
    the first one.
    """
    delay = 1 if config.action == "next" else 0
    e_kwh = np.broadcast_to(e_kwh, thresholds_kw.shape)
    p_kw = np.zeros((len(thresholds_kw), len(day.begins), len(units)))
    for m, begin in enumerate(day.begins):
        if m >= delay:
            head = np.broadcast_to(day.head_idle_kw[m - delay], len(thresholds_kw))
            p_kw[:, m] = decide(units, thresholds_kw, config.discharge, head, e_kwh, begin.time(), day.mtu_s)
        e_kwh = after(units, p_kw[:, m], e_kwh, day.mtu_s)
    return Course(p_kw, day.head_of(p_kw))


def size(day: Day, units: Sequence[StorageUnit], config: OperatorConfig, e_kwh: Floats, seed: int) -> Sized:
    """The thresholds for one day: least violation of the limit first, least energy charged second.

    Without a limit in ``config`` the head shall not export, or as little as the storage allows. ``e_kwh`` (n_unit,)
    [kWh] is stored at the beginning; one unit at least. Raises PowerFlowError if the power flow of a candidate has no
    answer.
    """
    limit_kw = config.sizing.limit_kw if config.sizing.limit_kw is not None else 0.0

    def objective(thresholds_kw: Floats) -> Floats:
        course = simulate(day, units, config, thresholds_kw, e_kwh)
        violation_kw = np.maximum(limit_kw - course.head_kw.min(axis=1), 0.0)
        return np.asarray(violation_kw + ACTIVATION_WEIGHT * _charged_kwh(course, day.mtu_s))

    lower, upper = _search_range_kw(day.head_idle_kw, limit_kw)
    found = minimise(
        objective,
        np.full(len(units), lower),
        np.full(len(units), upper),
        config.sizing.genetic,
        rng_for(seed, "sizing"),
        np.full((1, len(units)), lower),
    )
    course = simulate(day, units, config, found.x[None, :], e_kwh)
    bound = bound_by_lp(day, units, config, e_kwh, limit_kw)
    return Sized(
        thresholds_kw={unit.pod: float(found.x[k]) for k, unit in enumerate(units)},
        head_min_kw=float(course.head_kw.min()),
        head_min_idle_kw=float(day.head_idle_kw.min()),
        activated_kwh=float(_charged_kwh(course, day.mtu_s)[0]),
        bound_head_min_kw=bound[0],
        bound_activated_kwh=bound[1],
    )


def _search_range_kw(head_idle_kw: Floats, limit_kw: float) -> tuple[float, float]:
    """From a threshold that never acts to one so far above the limit that even an order decided one MTU earlier meets
    it."""
    lowest = float(head_idle_kw.min())
    steepest_fall = float(np.max(head_idle_kw[:-1] - head_idle_kw[1:], initial=0.0))
    return lowest, max(lowest, limit_kw) + steepest_fall


def _charged_kwh(course: Course, mtu_s: int) -> Floats:
    return np.asarray(energy_kwh(1.0, mtu_s) * np.maximum(course.p_kw, 0.0).sum(axis=(1, 2)))


def bound_by_lp(
    day: Day, units: Sequence[StorageUnit], config: OperatorConfig, e_kwh: Floats, limit_kw: float
) -> tuple[float, float]:
    """Best deepest head power [kW] (not above ``limit_kw``) and the least charged energy [kWh] that reaches it, with
    the whole day known in advance.

    The head answers linearly, by its secant to full charging of each unit; idling losses are left out. Columns:
    charging c and discharging d of each unit and MTU, then the deepest head z. Raises CosimError if it has no solution.
    """
    n, n_unit = len(day.begins), len(units)
    hours = energy_kwh(1.0, day.mtu_s)
    slope = _slopes(day, units)
    open_mtu = np.array([in_window(begin.time(), config.discharge) for begin in day.begins])
    head_rows = np.hstack([-slope, slope, np.ones((n, 1))])  # z - slope (c - d) <= head_idle
    level = np.tril(np.ones((n, n))) * hours
    rows, sides = [head_rows], [day.head_idle_kw]
    for k, unit in enumerate(units):
        block = np.zeros((n, 2 * n * n_unit + 1))
        block[:, k * n : (k + 1) * n] = level * unit.charge_efficiency
        block[:, (n_unit + k) * n : (n_unit + k + 1) * n] = -level / unit.discharge_efficiency
        rows += [block, -block]
        sides += [np.full(n, unit.e_max_kwh - e_kwh[k]), np.full(n, max(e_kwh[k] - unit.reserve_kwh, 0.0))]
    bounds = [(0.0, unit.p_max_kw) for unit in units for _ in range(n)]
    bounds += [(0.0, min(unit.p_max_kw, config.discharge.power_kw) * o) for unit in units for o in open_mtu]
    a, b = np.vstack(rows), np.concatenate(sides)
    deepest = np.zeros(a.shape[1])
    deepest[-1] = -1.0
    z = _linprog(deepest, a, b, [*bounds, (None, limit_kw)])[-1]
    charged = np.concatenate([np.full(n * n_unit, hours), np.zeros(n * n_unit + 1)])
    x = _linprog(charged, a, b, [*bounds, (z - 1e-6, None)])
    return float(z), float(charged @ x)


def _slopes(day: Day, units: Sequence[StorageUnit]) -> Floats:
    """(n_mtu, n_mtu * n_unit): head power gained per kW charged, block diagonal."""
    full = np.zeros((len(units), len(day.begins), len(units)))
    for k, unit in enumerate(units):
        full[k, :, k] = unit.p_max_kw
    gain = day.head_of(full) - day.head_idle_kw
    return np.hstack([np.diag(gain[k] / unit.p_max_kw) for k, unit in enumerate(units)])


def _linprog(cost: Floats, a: Floats, b: Floats, bounds: list[tuple[float | None, float | None]]) -> Floats:
    from scipy.optimize import linprog  # a quarter of a second, which runs with given thresholds save

    solution = linprog(cost, A_ub=a, b_ub=b, bounds=bounds, method="highs")
    if not solution.success:
        raise CosimError(f"exact sizing: the linear programme has no solution ({solution.message})")
    return np.asarray(solution.x)
