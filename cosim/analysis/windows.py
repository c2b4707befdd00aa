"""Windows of a year: a few days that stand for each part of it, and what sums and peaks of the year they tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cosim.domain.frames import Floats
from cosim.errors import Fault, InputError

SEASONS: Final = ("winter", "spring", "summer", "autumn")
DECEMBER_DAYS: Final = 31
"""The first part of a year begins with the December before: four parts are the seasons of meteorology."""
ADDED_UP: Final = ("_kwh", "_eur", "_h")
HIGHEST: Final = ("_kw", "_percent")


@dataclass(frozen=True)
class Window:
    """``n_days`` from the day ``first_day`` of the year on (0: 1 January) that stand for ``part_days``; ``error`` [1]:
    how far their duration curves are from those of the part, see `representative_windows`."""

    name: str
    first_day: int
    n_days: float
    part_days: int
    error: float

    @property
    def weight(self) -> float:
        """So often the window counts in a sum over the year [1]."""
        return self.part_days / self.n_days


def representative_windows(
    courses: Floats, rows_per_day: int, n_windows: int, n_days: float, begin_row: int = 0
) -> tuple[Window, ...]:
    """Cuts a year, from 1 December on, into parts of equal length (to a day), and finds in each the ``n_days`` in a row
    whose duration curves are closest to those of the whole part.

    ``courses`` (n_row, n_course): powers of whole days, the first of them 1 January. Windows begin ``begin_row`` rows
    after midnight and run over the end neither of their part nor of the year. A part of a day is its first hours.

    The error of a window is the mean distance between the sorted values of window and part (the 1-Wasserstein distance
    of their distributions), divided by the mean absolute deviation of the part from its median, averaged over the
    courses. Duration curves hold highs and lows as well as the mean, and they are what needs of flexibility come from.
    After Poncelet et al., Selecting representative days for capturing the implications of integrating intermittent
    renewables in generation expansion planning problems, IEEE Transactions on Power Systems 32(3), 2017.

    Raises InputError for windows longer than their part, or without a whole number of rows.
    """
    n_year = len(courses) // rows_per_day
    n_row = round(n_days * rows_per_day)
    shortest = n_year // n_windows if n_windows > 0 else 0
    faults = []
    if not 1 <= n_windows <= n_year:
        faults.append(Fault("no such number of windows", value=str(n_windows), allowed=f"1 to {n_year}"))
    elif not 0 < n_days < shortest:
        problem, allowed = "windows must be shorter than their parts [days]", f"below {shortest}"
        faults.append(Fault(problem, value=f"{n_days:g}", allowed=allowed))
    if not math.isclose(n_row, n_days * rows_per_day, abs_tol=1e-6):
        faults.append(Fault(f"not a whole number of {rows_per_day}ths of a day [days]", value=f"{n_days:g}"))
    if faults:
        raise InputError(faults)
    bounds = [round(k * n_year / n_windows) - DECEMBER_DAYS for k in range(n_windows + 1)]
    names = SEASONS if n_windows == len(SEASONS) else tuple(f"part {k + 1}" for k in range(n_windows))
    return tuple(
        _closest(courses, rows_per_day, (first, last), n_row, begin_row, name)
        for first, last, name in zip(bounds[:-1], bounds[1:], names, strict=True)
    )


def _closest(
    courses: Floats, rows_per_day: int, part: tuple[int, int], n_row: int, begin_row: int, name: str
) -> Window:
    """Days of ``part`` below 0 are those at the end of the year."""
    n_year, days = len(courses) // rows_per_day, np.arange(*part)
    rows = (days[:, None] * rows_per_day + np.arange(rows_per_day)).ravel() % len(courses)
    curves = np.sort(courses[rows], axis=0)
    at = (np.arange(n_row) + 0.5) / n_row
    wanted = np.quantile(curves, at, axis=0)
    spread = np.abs(curves - np.median(curves, axis=0)).mean(axis=0)
    scale = np.where(spread > 0.0, spread, 1.0)
    touched = math.ceil((begin_row + n_row) / rows_per_day)
    errors = {}
    for day in (day for day in days if day + touched <= (0 if day < 0 else part[1])):
        first = day % n_year * rows_per_day + begin_row
        own = np.sort(courses[first : first + n_row], axis=0)
        errors[int(day % n_year)] = float((np.abs(own - wanted).mean(axis=0) / scale).mean())
    if not errors:
        problem = f"no window fits into {name} without running over its end or that of the year [days]"
        raise InputError(Fault(problem, value=f"{n_row / rows_per_day:g}"))
    best = min(errors, key=lambda day: errors[day])
    return Window(name, best, n_row / rows_per_day, len(days), errors[best])


def over_year(figures: Sequence[Mapping[str, float]], weights: Sequence[float]) -> dict[str, float]:
    """Figures of a year from those of its windows, one mapping each: energies, money and hours (names that end with
    ``_kwh``, ``_eur``, ``_h``) by weight and added up; powers and percentages (``_kw``, ``_percent``) the highest.

    Raises InputError for a name that ends otherwise.
    """
    names = dict.fromkeys(name for each in figures for name in each)
    found = {}
    for name in names:
        values = [each[name] for each in figures]
        if name.endswith(ADDED_UP):
            found[name] = math.fsum(weight * value for weight, value in zip(weights, values, strict=True))
        elif name.endswith(HIGHEST):
            found[name] = max(values)
        else:
            allowed = ", ".join((*ADDED_UP, *HIGHEST))
            raise InputError(Fault("nothing tells how it adds up over a year", value=name, allowed=f"...{allowed}"))
    return found
