"""Key figures of a run as functions of its courses and tables; units are in names and docstrings.

A course is a power [kW] (n_time,), an array or a series of `Results.series`; steps that are missing count as none.
``step_s`` is the length of a step [s], unless the series tells. InputError is raised where nothing tells it, and for a
series of another unit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cosim.domain.frames import Floats
from cosim.errors import Fault, InputError
from cosim.estimation.quality import error_statistics
from cosim.units import SECONDS_PER_HOUR, energy_kwh

Course = Floats | pd.Series


class Peak(NamedTuple):
    """A highest power [kW] and the begin of its step; NaN and NaT without any."""

    value_kw: float
    at: pd.Timestamp


def total_kwh(p_kw: Course, step_s: float | None = None) -> float:
    """Energy of a course of powers [kWh]; NaN where all steps are missing."""
    values = _powers_kw(p_kw)
    return float("nan") if np.isnan(values).all() else energy_kwh(float(np.nansum(values)), _step_s(p_kw, step_s))


def imported_kwh(p_kw: Course, step_s: float | None = None) -> float:
    """Energy drawn at the head (import > 0) [kWh]: what is imported in some steps is not set off against others."""
    return total_kwh(np.maximum(_powers_kw(p_kw), 0.0), _step_s(p_kw, step_s))


def exported_kwh(p_kw: Course, step_s: float | None = None) -> float:
    """Energy fed back at the head (import > 0) [kWh], as a positive number."""
    return total_kwh(np.maximum(-_powers_kw(p_kw), 0.0), _step_s(p_kw, step_s))


def reverse_flow_h(p_kw: Course, step_s: float | None = None) -> float:
    """Time with power fed back at the head (import > 0) [h]."""
    return float((_powers_kw(p_kw) < 0.0).sum()) * _step_s(p_kw, step_s) / SECONDS_PER_HOUR


def peak_import(p_kw: pd.Series[Any]) -> Peak:
    """The highest power drawn at the head (import > 0) [kW], and when; below 0 where it always feeds back."""
    values = _powers_kw(p_kw)
    if np.isnan(values).all():
        return Peak(float("nan"), pd.NaT)  # type: ignore[arg-type]
    row = int(np.nanargmax(values))
    return Peak(float(values[row]), pd.DatetimeIndex(p_kw.index)[row])


def peak_export(p_kw: pd.Series[Any]) -> Peak:
    """The highest power fed back at the head (import > 0) [kW] as a positive number, and when; below 0 where it always
    draws."""
    return peak_import(-p_kw)


def violation_h(violations: pd.DataFrame, step_s: float) -> float:
    """Time with a violation of any limit [h], from a table of violations."""
    return float(violations["t_s"].nunique()) * step_s / SECONDS_PER_HOUR


def violation_h_by(violations: pd.DataFrame, step_s: float, by: str | list[str]) -> pd.Series[Any]:
    """Time with a violation [h] for each kind (``by="quantity"``), ``"element"``, or both, the longest first.

    Raises InputError when there is no such column.
    """
    _require(violations, "by", *([by] if isinstance(by, str) else by))
    steps = violations.groupby(by)["t_s"].nunique()
    found = (steps * step_s / SECONDS_PER_HOUR).rename("violation_h").sort_values(ascending=False, kind="stable")
    found.attrs["units"] = "h"
    return found


def cost_eur(awards: pd.DataFrame, mtu_s: float, price: str = "price_eur_per_kwh") -> float:
    """What is due for awards [EUR] at the prices in a column of their table; given back counts below zero.

    Raises InputError when there is no such column.
    """
    return float(_due_eur(awards, mtu_s, price).sum())


def cost_eur_by(
    awards: pd.DataFrame, mtu_s: float, by: str = "buyer", price: str = "price_eur_per_kwh"
) -> pd.Series[Any]:
    """What is due for awards [EUR] for each ``buyer`` or ``seller``, or each value of another column.

    Raises InputError when there is no such column.
    """
    _require(awards, "by", by)
    found = _due_eur(awards, mtu_s, price).groupby(awards[by]).sum().rename("cost_eur")
    found.attrs["units"] = "EUR"
    return found


def _due_eur(awards: pd.DataFrame, mtu_s: float, price: str) -> pd.Series[Any]:
    _require(awards, "price", price)
    energy = awards["quantity_kw"].astype(np.float64) * energy_kwh(1.0, mtu_s)
    due: pd.Series[Any] = energy * awards[price].astype(np.float64)
    return due


def _require(table: pd.DataFrame, key: str, *columns: str) -> None:
    unknown = [name for name in columns if name not in table]
    if unknown:
        allowed = ", ".join(map(str, table))
        raise InputError([Fault("no such column", key=key, value=repr(name), allowed=allowed) for name in unknown])


def activated_kwh(activations: pd.DataFrame, mtu_s: float, direction: str) -> float:
    """Energy that resources were to deliver [kWh], from the aggregator's table of activations: ``up`` (less load, more
    generation) or ``down``."""
    sign = {"up": -1.0, "down": 1.0}.get(direction)
    if sign is None:
        raise InputError(Fault("no such direction", key="direction", value=repr(direction), allowed="up, down"))
    change_kw = activations["change_kw"].to_numpy(dtype=np.float64)
    return energy_kwh(float(np.maximum(sign * change_kw, 0.0).sum()), mtu_s)


def delivered_share(missing_kw: Floats, ordered_kw: Floats) -> float:
    """Share [1] of what was ordered that was delivered: ``missing_kw`` (n_step, n_unit) is what each unit is short of
    its order, below 0 for too much, NaN without an order; ``ordered_kw`` the orders. NaN without any."""
    ordered = float(np.abs(ordered_kw).sum())
    return 1.0 - float(np.nansum(missing_kw)) / ordered if ordered > 0.0 else float("nan")


def estimate_errors(estimate_kw: pd.DataFrame, truth_kw: pd.DataFrame) -> pd.DataFrame:
    """Errors ``estimate - truth`` of each column they share: ``mae_kw``, ``rmse_kw``, ``bias_kw``, ``max_kw``.

    Raises InputError when they share no column or have other steps.
    """
    shared = [name for name in truth_kw.columns if name in estimate_kw.columns]
    if not shared or not estimate_kw.index.equals(truth_kw.index):
        problem = "estimate and truth have other steps" if shared else "estimate and truth share no column"
        raise InputError(Fault(problem, value=", ".join(map(str, estimate_kw.columns[:5]))))
    found = error_statistics(*(each[shared].to_numpy(dtype=np.float64) for each in (estimate_kw, truth_kw)))
    columns = {
        "mae_kw": found.mean_absolute,
        "rmse_kw": found.root_mean_square,
        "bias_kw": found.bias,
        "max_kw": found.maximum,
    }
    table = pd.DataFrame(columns, index=pd.Index(shared, name=truth_kw.columns.name))
    table.attrs["units"] = "kW"
    return table


def _powers_kw(p_kw: Course) -> Floats:
    unit = p_kw.attrs.get("units", "kW") if isinstance(p_kw, pd.Series) else "kW"
    if unit != "kW":
        raise InputError(Fault("not a course of powers", key="units", value=str(unit), allowed="kW"))
    return np.asarray(p_kw, dtype=np.float64)


def _step_s(p_kw: Course, given: float | None) -> float:
    if given is None and isinstance(p_kw, pd.Series):
        given = p_kw.attrs.get("step_s", _distance_s(p_kw))
    if given is None:
        raise InputError(Fault("nothing tells the length of a step", key="step_s", allowed="seconds"))
    return given


def _distance_s(p_kw: pd.Series[Any]) -> float | None:
    """The least distance of rows [s], of which all others must be multiples: rows may be missing. None for months and
    years, which are not all as long."""
    if not isinstance(p_kw.index, pd.DatetimeIndex) or len(p_kw) < 2 or "resampled" in p_kw.attrs:
        return None
    apart_s = np.diff(p_kw.index) / np.timedelta64(1, "s")
    least_s = float(apart_s.min())
    return least_s if least_s > 0.0 and not (apart_s % least_s).any() else None
