"""Estimates against the truth on every feeder, by meters and faults of sensors (writes
docs/estimator_accuracy_feeders.md)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ratios import Row, times_as_fast

from cosim import load_scenario, open_results, run
from cosim.grid.feeder import load_feeder
from cosim.report.accuracy import ALL_SITES, EstimateError, site_errors
from cosim.report.reading import Reading

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "estimator_accuracy_feeders.md"
DAYS = {
    "mv5": "2016-07-23",
    "lfm12": "2016-01-20",
    "ieee123": "2016-01-20",
    "european_lv": "2016-01-20",
    "lv_rural1": "2016-07-23",
}
"""Feeder and day of the SimBench year."""
FAULTS = {
    "none": "{}",
    "dropout 10 %": "{dropout: 0.1}",
    "stuck 1 %, for 8 steps": "{stuck: 0.01, stuck_steps: 8}",
    "bias 1 % of full scale": "{bias_percent: 1.0}",
}
"""What happens to every meter, beside the noise of its class."""

INTRODUCTION = """\
# How accurate the estimate is on every feeder

Written by `make bench`, not by hand (`python tests/bench/run.py feeders`). One day by quarter hours through the whole
chain, truth from OpenDSS with its load laws and regulators; weighted least squares against the history alone (profiles
with an error of 5 %). The fault happens to every meter, beside the noise of its class; readings rejected as bad are
counted. Errors are of active power at sites without a meter of their own [kW]; *in band* is the share of true powers
within 1.96 stated standard deviations; *voltage* the largest error at any node [pu].

On `lfm12` all loads follow one profile, and on `european_lv` a few: one meter then tells much about all others, which
flatters the estimate. A bias on every meter at once is mostly rejected where voltages show it, three or more standard
deviations in each; a bias of powers stays, and the stated band, which knows of none, is then too narrow."""


class Outcome(NamedTuple):
    """One day: errors of least squares and of history alone at the same sites, the share of true powers within the
    stated 95 % band, the largest error of a voltage [pu], and the readings rejected."""

    feeder: str
    meters: str
    channels: int
    fault: str
    wls: EstimateError
    history: EstimateError
    in_band: float
    voltage_pu: float
    rejected: int


def meter_sets(feeder: str) -> dict[str, tuple[str, ...]]:
    """The head alone, the head with half of the other meters (every second one), and all that the feeder has."""
    names = tuple(load_feeder(ROOT / "dss_models" / feeder).meters)
    others = names[1:]
    sets = {"head": names[:1]}
    if len(others) > 1:
        sets[f"head and {len(others[::2])}"] = names[:1] + others[::2]
    return sets | ({f"head and {len(others)}": names} if others else {})


def outcome(feeder: str, title: str, meters: tuple[str, ...], fault: str, folder: Path) -> Outcome | None:
    """A day by quarter hours through the whole chain; None where every site has a meter of its own."""
    scenario = folder / f"{feeder}.yaml"
    scenario.write_text(
        f"name: accuracy\nstart: {DAYS[feeder]}T00:00:00+01:00\nduration: 1d\nfeeder: {ROOT / 'dss_models' / feeder}\n"
        f"transport: memory\nsensors:\n  meters: [{', '.join(meters)}]\n  faults: {{default: {FAULTS[fault]}}}\n"
        "estimator: {method: wls, compare: [history]}\noperator: {enabled: false}\n"
    )
    path = run(load_scenario(scenario, []), folder / "run.h5").path
    with open_results(path) as results:
        reading = Reading(results)
        overall = {error.method: error for error in site_errors(reading) if error.site == ALL_SITES}
        sites = list(reading.unmetered_sites)
        truth = reading.true_site_kw
        if truth is None or not sites:
            return None
        error_kw = (reading.estimated_site_kw("wls") - truth).abs()
        band_kw = 1.96 * results.frame("estimator/wls/sigma_p_kw")[sites]
        volts = results.frame("estimator/bus/vm_pu") - results.frame("grid/bus/vm_pu")
        return Outcome(
            feeder,
            title,
            len(reading.json("channels")),
            fault,
            overall["wls"],
            overall["history"],
            float((error_kw <= band_kw).to_numpy().mean()),
            float(np.abs(volts.to_numpy()).max()),
            len(results.table("estimator/rejected")),
        )


def document(found: list[Outcome]) -> Iterator[str]:
    """Lines of Markdown."""
    yield INTRODUCTION
    for feeder in DAYS:
        yield ""
        yield f"## {feeder}, {DAYS[feeder]}"
        yield ""
        yield "| meters | channels | fault | mean error | history | largest | in band | voltage | rejected |"
        yield "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
        for o in (o for o in found if o.feeder == feeder):
            yield (
                f"| {o.meters} | {o.channels} | {o.fault} | {o.wls.mean_absolute_kw:.3g} | "
                f"{o.history.mean_absolute_kw:.3g} | {o.wls.maximum_kw:.3g} | {100.0 * o.in_band:.0f} % | "
                f"{o.voltage_pu:.1e} | {o.rejected} |"
            )


def main() -> list[Row]:
    """Writes the document; rows in kW, without faults."""
    with tempfile.TemporaryDirectory() as folder:
        tried = [
            outcome(feeder, title, meters, fault, Path(folder))
            for feeder in DAYS
            for title, meters in meter_sets(feeder).items()
            for fault in FAULTS
        ]
    found = [each for each in tried if each is not None]
    DOCUMENT.write_text("\n".join(document(found)) + "\n", encoding="utf-8")
    note = "times as accurate as history"
    return [
        times_as_fast(f"{o.feeder}, {o.meters}", o.wls.mean_absolute_kw, o.history.mean_absolute_kw, "kW", note)
        for o in found
        if o.fault == "none"
    ]


if __name__ == "__main__":
    for row in main():
        print(row)
