"""Signals over longer intervals: what is done depends on what a signal is, and a gap never goes unseen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd

from cosim.analysis.intervals import Intervals, intervals
from cosim.domain.frames import Floats, Ints
from cosim.errors import Fault, InputError
from cosim.units import energy_kwh

Signal = TypeVar("Signal", pd.DataFrame, "pd.Series[Any]")
Step = Callable[[pd.DataFrame], pd.DataFrame]
Incomplete = Literal["nan", "keep"]

BY_NAME = {
    "e_kwh": "first",  # stored at the beginning of a step
    "position": "last",
    "loading_pu": "max",
    "i_a": "max",
    "vm_pu": "mean",
    "sigma_vm_pu": "mean",
    "rounds": "sum",
    "estimated": "sum",
}
"""What is done with an attribute, whatever its unit."""
BY_UNIT = {"kW": "mean", "kvar": "mean", "kVA": "mean", "degree": "mean", "A": "max", "kWh": "sum", "EUR": "sum"}
"""What is done with all others of a unit."""
AMOUNTS = ("kWh", "EUR")
"""Of an amount that is recorded when it arises, a value that is missing is none; everywhere else it is a gap."""
_ENERGY = {"kW": "kWh", "kvar": "kvarh", "kVA": "kVAh"}
_AGAIN = {"energy": "sum", "share": "mean"}

WAYS: dict[str, Callable[[Floats, Ints], Floats]] = {
    "mean": lambda values, first: _sum(values, first) / _count(values, first),
    "sum": lambda values, first: _sum(values, first),
    "max": lambda values, first: np.fmax.reduceat(values, first, axis=0),
    "min": lambda values, first: np.fmin.reduceat(values, first, axis=0),
    "first": lambda values, first: values[first],
    "last": lambda values, first: values[_behind(values, first) - 1],
}
"""What can be done with the rows from each ``first`` to the next, (n_row, n_column) -> (n_interval, n_column)."""
ALLOWED = (*WAYS, "energy", "share")


def resample(
    table: Signal,
    period: str,
    how: str | None = None,
    *,
    incomplete: Incomplete = "nan",
    step_s: float | None = None,
    utc_offset_s: float | None = None,
) -> Signal:
    """A signal as `Results.frame`, ``.series`` or those of a study give it, over intervals of ``period``: ``1h``,
    ``1d``, ``7d``, ``month``, ``year``; days and months are those of local time, and so is the time of the result.

    ``how``: ``mean``, ``sum``, ``max``, ``min``, ``first``, ``last``, ``energy`` (power [kW] times hours: [kWh]),
    ``share`` (of time in each state, [1]). Unless given, powers are averaged, energies and money added up, loadings and
    currents taken at their highest, stored energy at the beginning, positions at the end, and states as shares of time.

    An interval in which a step or a value is missing is NaN, or with ``incomplete="keep"`` what the values that are
    there give: see `coverage`. ``step_s`` and ``utc_offset_s`` [s] are those recorded with the signal.

    Raises InputError when the period is not a whole number of steps, or nothing tells how.
    """
    if incomplete not in ("nan", "keep"):
        raise InputError(Fault("no such way", key="incomplete", value=repr(incomplete), allowed="nan, keep"))

    def made(one: pd.DataFrame) -> pd.DataFrame:
        return _resampled(one, intervals(one, period, step_s, utc_offset_s), how, incomplete == "keep")

    return _of_each_run(table, made)


def coverage(table: Signal, period: str, *, step_s: float | None = None, utc_offset_s: float | None = None) -> Signal:
    """Share [1] of the steps of each interval that hold a value; see `resample`."""

    def made(one: pd.DataFrame) -> pd.DataFrame:
        within = intervals(one, period, step_s, utc_offset_s)
        there = one.notna() & (one >= 0) if "flag_values" in one.attrs else one.notna()
        count = np.zeros((len(within.begins), one.shape[1]))
        np.add.at(count, within.of_row, there.to_numpy(dtype=np.float64))
        share = pd.DataFrame(count / within.expected[:, np.newaxis], within.begins, one.columns)
        share.attrs.update({"units": "1", "long_name": "share of steps that hold a value"})
        return share

    return _of_each_run(table, made)


def how_of(attributes: dict[Any, Any]) -> str:
    """What `resample` does with a signal of these attributes. Raises InputError when they do not tell."""
    if "resampled" in attributes:
        return str(attributes["resampled"])
    if "flag_values" in attributes:
        return "share"
    unit = attributes.get("units")
    found = BY_NAME.get(str(attributes.get("signal", "")).rpartition("/")[2]) or BY_UNIT.get(str(unit))
    if found is None:
        name = attributes.get("signal", "this table")
        told = f"{name} has unit {unit}" if unit else f"no unit is recorded with {name}"
        raise InputError(Fault("nothing tells how to resample", key="how", value=told, allowed=", ".join(ALLOWED)))
    return found


def _of_each_run(table: Signal, made: Step) -> Signal:
    if isinstance(table, pd.DataFrame):
        return _of_frame(table, made)
    if "flag_values" in table.attrs:
        raise InputError(Fault("states become several columns", value="a series", allowed="a frame"))
    frame = table.to_frame()
    frame.attrs.update(table.attrs)
    found = _of_frame(frame, made)
    series = found.iloc[:, 0]
    series.attrs.update(found.attrs)
    return series


def _of_frame(frame: pd.DataFrame, made: Step) -> pd.DataFrame:
    if list(frame.index.names) != ["run", "time"]:
        return made(frame)
    parts = {}
    for run, own in frame.groupby(level="run", sort=False):
        one = own.droplevel("run")
        one.attrs.update(frame.attrs)
        parts[run] = made(one)
    found = pd.concat(list(parts.values()), keys=list(parts), names=["run", "time"])
    found.attrs.update(next(iter(parts.values())).attrs)
    return found


def _resampled(table: pd.DataFrame, within: Intervals, how: str | None, keep: bool) -> pd.DataFrame:
    how = how or how_of(table.attrs)
    if how not in ALLOWED:
        raise InputError(Fault("no such way", key="how", value=repr(how), allowed=", ".join(ALLOWED)))
    unit = table.attrs.get("units")
    attributes = dict(table.attrs)
    amount = how == "sum" and unit in AMOUNTS and "resampled" not in table.attrs
    if how == "share":
        table, unit = _states(table), "1"
    values = table.to_numpy(dtype=np.float64)
    if how == "energy":
        values, unit = values * energy_kwh(1.0, within.step_s), _energy_unit(unit)
    rows = np.flatnonzero(np.diff(within.of_row, prepend=-1))
    found = np.full((len(within.begins), values.shape[1]), np.nan)
    if rows.size:
        there = within.of_row[rows]
        found[there] = WAYS[_AGAIN.get(how, how)](values, rows)
        count = (_behind(values, rows) - rows)[:, np.newaxis] if amount else _count(values, rows)
        gaps = np.isnan(count) | (count < within.expected[there][:, np.newaxis])
        gone = np.isnan(count) if keep else gaps
        found[there] = np.where(gone, np.nan, found[there])
    result = pd.DataFrame(found, within.begins, table.columns)
    result.attrs.update(attributes | {"units": unit, "resampled": _AGAIN.get(how, how)})
    for name in ("flag_values", "flag_meanings"):
        result.attrs.pop(name, None)
    result.attrs.pop("step_s", None)
    if within.length_s is not None:
        result.attrs["step_s"] = float(within.length_s)
    return result


def _sum(values: Floats, first: Ints) -> Floats:
    return np.asarray(np.add.reduceat(np.where(np.isnan(values), 0.0, values), first, axis=0))


def _count(values: Floats, first: Ints) -> Floats:
    """Values that are there from each ``first`` row on; NaN for none."""
    count = np.add.reduceat((~np.isnan(values)).astype(np.float64), first, axis=0)
    return np.where(count > 0.0, count, np.nan)


def _behind(values: Floats, first: Ints) -> Ints:
    """The row behind the last one of each interval."""
    return np.append(first[1:], len(values))


def _energy_unit(unit: object) -> str:
    if unit not in _ENERGY:
        raise InputError(Fault("energy is of a power", key="how", value=f"unit {unit}", allowed=", ".join(_ENERGY)))
    return _ENERGY[str(unit)]


def _states(table: pd.DataFrame) -> pd.DataFrame:
    """A column of 0 and 1 for each element and state (NaN where no state is known)."""
    if "flag_values" not in table.attrs:
        raise InputError(Fault("shares are of states", key="how", value="a signal without flag_meanings"))
    flags = dict(zip(table.attrs["flag_values"], table.attrs["flag_meanings"], strict=True))
    codes = table.to_numpy(dtype=np.float64)
    known = np.isin(codes, list(flags))
    columns = {
        (element, meaning): np.where(known[:, k], codes[:, k] == value, np.nan)
        for k, element in enumerate(table.columns)
        for value, meaning in flags.items()
    }
    names = [table.columns.name, "state"]
    return pd.DataFrame(
        np.column_stack(list(columns.values())) if columns else np.empty((len(table), 0)),
        table.index,
        pd.MultiIndex.from_tuples(list(columns), names=names),
    )
