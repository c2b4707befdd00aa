"""Accuracy: every estimation method against the truth on mv5 (CPU time an estimate); writes docs/estimator_accuracy.md."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
from instants import DAYS, HISTORY_ERROR_PERCENT, SEED, Year
from ratios import Row, times_as_fast

from cosim.domain.frames import Floats
from cosim.estimation.methods import estimate
from cosim.estimation.problem import evidence, is_site_power
from cosim.estimation.quality import error_statistics
from cosim.scenario.schema import Genetic, Method

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "estimator_accuracy.md"
INSTANTS = 300
METERS = {2: ("HEAD", "SS1", "SS4"), 3: ("HEAD", "SS1", "SS3", "SS4")}
"""Meters in use, by the number of substations metered besides the head."""
METHODS = get_args(Method)
TITLES: dict[Method, str] = {
    "history": "historical mean",
    "genetic": "genetic algorithm",
    "genetic_prior": "genetic algorithm with prior term",
    "wls": "weighted least squares",
}
BAND_95 = 1.959964


@dataclass(frozen=True)
class Outcome:
    """One method over all instants. ``p_kw``, ``sigma_p_kw``, ``truth_kw``: (n_instant, n_site) of the unmetered
    ``sites``; ``objective`` (n_instant,) [1]; ``ms`` CPU time an estimate, median."""

    sites: tuple[str, ...]
    p_kw: Floats
    sigma_p_kw: Floats
    truth_kw: Floats
    objective: Floats
    ms: float

    @property
    def error_kw(self) -> Floats:
        return self.p_kw - self.truth_kw

    @property
    def mae_kw(self) -> float:
        """Mean absolute error over all unmetered sites."""
        return float(np.abs(self.error_kw).mean())

    @property
    def in_band(self) -> Floats:
        """Whether the truth lies inside the 95 % band, NaN without one; (n_instant, n_site)."""
        inside = np.abs(self.error_kw) <= BAND_95 * self.sigma_p_kw
        return np.where(np.isnan(self.sigma_p_kw), np.nan, inside)


@dataclass(frozen=True)
class Comparison:
    """All methods with one set of meters, at the same instants with the same readings. ``sun`` (n_instant,) tells when
    photovoltaics inject; ``unknowns`` and ``readings`` what a search has to find and to compare with."""

    outcomes: dict[Method, Outcome]
    sun: np.ndarray
    unknowns: int
    readings: int

    @property
    def ranking(self) -> list[Method]:
        return sorted(self.outcomes, key=lambda method: self.outcomes[method].mae_kw)


def compared(meters: tuple[str, ...]) -> Comparison:
    """All methods at the instants drawn; they take turns at each."""
    year = Year(meters)
    steps, free = year.drawn(INSTANTS), year.unmetered
    found, ms = {m: [] for m in METHODS}, {m: [] for m in METHODS}
    for step in steps:
        problem = year.problem(step)
        for method in METHODS:
            begin = time.process_time()
            found[method].append(estimate(method, problem, Genetic(), SEED, step))
            ms[method].append(1e3 * (time.process_time() - begin))
    truth_kw = np.stack([year.truth_kw(step)[free] for step in steps])
    readings = evidence(problem, but=is_site_power(problem)).row.size
    year.close()
    outcomes = {
        method: Outcome(
            tuple(year.case.sites[k] for k in free),
            np.stack([each.p_kw[free] for each in estimates]),
            np.stack([each.sigma_p_kw[free] for each in estimates]),
            truth_kw,
            np.array([each.objective for each in estimates]),
            median(ms[method]),
        )
        for method, estimates in found.items()
    }
    check_metered_sites(year, steps, found)
    return Comparison(outcomes, np.array([year.sun(step) for step in steps]), 2 * len(free), readings)


def main() -> list[Row]:
    """Writes the document; rows in milliseconds an estimate and in kW."""
    assert INSTANTS >= 200, "too few instants for a table that others rely on"
    found = {count: compared(meters) for count, meters in METERS.items()}
    DOCUMENT.write_text("\n".join(document(found)) + "\n", encoding="utf-8")
    rows = []
    for count, comparison in found.items():
        reference = comparison.outcomes["wls"]
        for method in (m for m in METHODS if m != "wls"):
            ours, name = comparison.outcomes[method], f"{TITLES[method]}, {count} substations metered"
            note = "times as {} as weighted least squares"
            rows.append(times_as_fast(name, ours.ms, reference.ms, "ms/estimate", note.format("fast")))
            rows.append(times_as_fast(name, ours.mae_kw, reference.mae_kw, "kW", note.format("accurate")))
    return rows
