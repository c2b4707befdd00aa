"""Accuracy: every estimation method against the truth on mv5 (writes docs/estimator_accuracy.md; CPU time)."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
from accuracy_document import TITLES, Comparison, Outcome, document
from instants import SEED, Year
from ratios import Row, times_as_fast

from cosim.estimation.methods import Estimate, estimate
from cosim.estimation.problem import evidence, is_site_power
from cosim.scenario.schema import Genetic, Method

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "estimator_accuracy.md"
INSTANTS = 300
METERS = (("HEAD", "SS1", "SS4"), ("HEAD", "SS1", "SS3", "SS4"))
"""Two and three substations metered besides the head."""
METHODS = get_args(Method)


def compared(meters: tuple[str, ...]) -> Comparison:
    """All methods at the instants drawn; they take turns at each."""
    year = Year(meters)
    steps, free = year.drawn(INSTANTS), year.unmetered
    found: dict[Method, list[Estimate]] = {method: [] for method in METHODS}
    ms: dict[Method, list[float]] = {method: [] for method in METHODS}
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
    check_metered_sites(found, [k for k in range(len(year.case.sites)) if k not in free])
    sun = np.array([year.sun(step) for step in steps])
    return Comparison(meters, outcomes, sun, 2 * len(free), readings)


def check_metered_sites(found: dict[Method, list[Estimate]], metered: list[int]) -> None:
    """All searches take the same reading where there is a meter, so they were told the same. Raises AssertionError."""
    for method in ("genetic", "genetic_prior"):
        for ours, plain in zip(found[method], found["history"], strict=True):
            np.testing.assert_array_equal(ours.p_kw[metered], plain.p_kw[metered])


def main() -> list[Row]:
    """Writes the document; rows in milliseconds an estimate and in kW."""
    assert INSTANTS >= 200, "too few instants for a table that others rely on"
    found = [compared(meters) for meters in METERS]
    DOCUMENT.write_text("\n".join(document(found)) + "\n", encoding="utf-8")
    rows = []
    for comparison in found:
        reference = comparison.outcomes["wls"]
        for method in (m for m in METHODS if m != "wls"):
            ours, name = comparison.outcomes[method], f"{TITLES[method]}, {comparison.substations} substations metered"
            note = "times as {} as weighted least squares"
            rows.append(times_as_fast(name, ours.ms, reference.ms, "ms/estimate", note.format("fast")))
            rows.append(times_as_fast(name, ours.mae_kw, reference.mae_kw, "kW", note.format("accurate")))
    return rows


if __name__ == "__main__":
    for row in main():
        print(row)
