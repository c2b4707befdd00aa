"""How good estimates and measurements are: errors against the truth, shares of values that did not arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cosim.domain.frames import Floats
from cosim.domain.measurement import UNITS, Quality
from cosim.estimation.quality import error_statistics
from cosim.report.reading import Reading

ALL_SITES = "all unmetered"


@dataclass(frozen=True)
class EstimateError:
    """Errors ``estimate - truth`` of active power [kW] of a method at a site (or ``ALL_SITES``, or the head)."""

    method: str
    site: str
    mean_absolute_kw: float
    root_mean_square_kw: float
    bias_kw: float
    maximum_kw: float
    count: int


@dataclass(frozen=True)
class MeterQuality:
    """Values of a meter: how many were expected, and the shares [1] that were good, missing and late."""

    meter: str
    values: int
    good: float
    missing: float
    late: float


@dataclass(frozen=True)
class ChannelError:
    """Errors ``measured - true`` of a channel in its unit, over the values that arrived."""

    topic: str
    unit: str
    mean_absolute: float
    bias: float
    maximum: float
    count: int


def site_errors(reading: Reading) -> tuple[EstimateError, ...]:
    """Errors at unmetered sites: for each method over all sites, then at each site. Empty without truth or sites."""
    truth = reading.true_site_kw
    if truth is None or truth.empty:
        return ()
    errors: list[EstimateError] = []
    for method in reading.methods:
        estimate = reading.estimated_site_kw(method).to_numpy()
        errors += _errors(method, [ALL_SITES], estimate.reshape(-1, 1), truth.to_numpy().reshape(-1, 1))
        errors += _errors(method, list(truth.columns), estimate, truth.to_numpy())
    return tuple(errors)


def head_error(reading: Reading) -> EstimateError | None:
    """Error of the estimated head power, None where it was not estimated."""
    estimate, truth = reading.frame("estimator/head/p_kw"), reading.as_measured("head/p_kw")
    if estimate is None or truth is None:
        return None
    method = reading.methods[0] if reading.methods else ""
    return _errors(method, ["head"], estimate.to_numpy(), truth.to_numpy())[0]


def _errors(method: str, sites: list[str], estimate: Floats, truth: Floats) -> list[EstimateError]:
    found = error_statistics(estimate, truth)
    return [
        EstimateError(
            method,
            site,
            float(found.mean_absolute[k]),
            float(found.root_mean_square[k]),
            float(found.bias[k]),
            float(found.maximum[k]),
            int(found.count[k]),
        )
        for k, site in enumerate(sites)
    ]


def largest_error_kw(errors: Sequence[EstimateError]) -> float:
    """The largest error of all [kW]; 0 without any."""
    return max((error.maximum_kw for error in errors if error.maximum_kw > 0.0), default=0.0)


def meter_quality(reading: Reading) -> tuple[MeterQuality, ...]:
    """Quality of each meter's values at the gateway, in the order of the channels. Steps never written do not count."""
    codes = reading.frame("gateway/snapshot/quality")
    if codes is None:
        return ()
    meters = {channel["topic"]: channel["meter"] for channel in reading.json("channels") or ()}
    of_meter: dict[str, list[str]] = {}
    for topic in codes.columns:
        of_meter.setdefault(meters.get(topic, topic.rpartition("/")[0]), []).append(topic)
    found = []
    for meter, topics in of_meter.items():
        values = codes[topics].to_numpy()
        expected = int((values >= 0).sum())
        shares = [float((values == code).sum()) / expected if expected else float("nan") for code in Quality]
        found.append(MeterQuality(meter, expected, *shares))
    return tuple(found)


def channel_errors(reading: Reading) -> tuple[ChannelError, ...]:
    """Error of each channel's values that arrived against what a perfect meter would have read."""
    measured, true = reading.frame("gateway/snapshot/value"), reading.frame("sensors/reading/value")
    if measured is None or true is None or list(measured.columns) != list(true.columns):
        return ()
    found = error_statistics(measured.to_numpy(), true.to_numpy())
    units = {c["topic"]: UNITS[c["quantity"]] for c in reading.json("channels") or ()}
    return tuple(
        ChannelError(
            str(topic),
            units.get(str(topic), ""),
            float(found.mean_absolute[k]),
            float(found.bias[k]),
            float(found.maximum[k]),
            int(found.count[k]),
        )
        for k, topic in enumerate(measured.columns)
    )


def fault_counts(reading: Reading) -> dict[str, int]:
    """Sensor faults that truly happened, by kind."""
    if "sensors/faults" not in reading.results.events():
        return {}
    return dict(sorted(Counter(reading.results.table("sensors/faults")["fault"]).items()))


def share_not_good(reading: Reading) -> float:
    """Share [1] of all expected values that were missing or late; NaN without any."""
    meters = [meter for meter in meter_quality(reading) if meter.values]
    values = sum(meter.values for meter in meters)
    return sum(meter.values * (1.0 - meter.good) for meter in meters) / values if values else float("nan")
