"""Which quantities are measured, where, and how well: from the meters of a feeder and a scenario to channels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from cosim.domain.measurement import QUANTITIES, Channel, Place
from cosim.errors import Fault, ScenarioError
from cosim.scenario.schema import Meter, SensorFaults, Sensors

DEFAULT_FAULTS = "default"

# The weight of a measurement in least squares is 1/sigma^2: an error of 0 would make it infinite. A hundredth of a
# percent lies below the 0.1/3 % of the best class on the market (0.1 S), so no real meter is made worse.
SIGMA_FLOOR_PERCENT = 0.01


def faults_for(sensors: Sensors, meter: str) -> SensorFaults:
    """Errors and faults of a meter: its own entry, else the entry ``default``, else noise within its class only."""
    return sensors.faults.get(meter) or sensors.faults.get(DEFAULT_FAULTS) or SensorFaults()


def meters_used(feeder_meters: Mapping[str, Meter], sensors: Sensors) -> dict[str, Meter]:
    """The meters of a run by name: those chosen among the feeder's, and the scenario's extra ones.

    Raises ScenarioError for a chosen meter or an entry of ``faults`` that names no meter, and for an extra meter that
    bears the name of one of the feeder's.
    """
    chosen = tuple(feeder_meters) if sensors.meters == "all" else sensors.meters
    known = {*feeder_meters, *sensors.extra}
    problems = [
        Fault(f"no meter {name!r} in the feeder", key="sensors.meters", value=name, allowed=_listed(feeder_meters))
        for name in chosen
        if name not in feeder_meters
    ]
    problems += [
        Fault("the feeder has a meter of this name", key=f"sensors.extra.{name}", value=name)
        for name in sensors.extra
        if name in feeder_meters
    ]
    problems += [
        Fault(
            "no meter of this name", key=f"sensors.faults.{name}", value=name, allowed=_listed({*known, DEFAULT_FAULTS})
        )
        for name in sensors.faults
        if name not in known and name != DEFAULT_FAULTS
    ]
    if problems:
        raise ScenarioError(problems)
    return {name: feeder_meters[name] for name in chosen} | sensors.extra


def channels_of(meters: Mapping[str, Meter], sensors: Sensors) -> tuple[Channel, ...]:
    """One channel a measured quantity and phase, ordered by the name of the meter, then as in ``QUANTITIES``.

    The standard deviation is what the data sheet tells: accuracy class and resolution, in quadrature,
    ``sigma^2 = (class/100 * full_scale / 3)^2 + quantum^2 / 12`` (class = 3 sigma; a value rounded to a quantum is
    uniform within it, JCGM 100:2008, F.2.2.1), at least 0.01 % of full scale. Bias, skew and other faults are what
    nobody knows about: they are not in it.

    Raises ScenarioError naming the meters that share a topic.
    """
    channels = tuple(
        _channel(name, meter, quantity, phase, faults_for(sensors, name))
        for name, meter in sorted(meters.items())
        for quantity in sorted(meter.quantities, key=QUANTITIES.index)
        for phase in meter.phases or (None,)
    )
    owners: dict[str, list[str]] = {}
    for channel in channels:
        owners.setdefault(channel.topic, []).append(channel.meter)
    problems = [
        Fault(f"topic {topic} is used more than once, by meters {' and '.join(names)}", key="sensors", value=topic)
        for topic, names in owners.items()
        if len(names) > 1
    ]
    if problems:
        raise ScenarioError(problems)
    return channels


def _channel(name: str, meter: Meter, quantity: str, phase: int | None, faults: SensorFaults) -> Channel:
    percent = max(
        math.hypot(meter.class_percent / 3.0, faults.quantum / math.sqrt(12.0)),
        SIGMA_FLOOR_PERCENT,
    )
    return Channel(
        meter=name,
        topic=f"{meter.topic}/{quantity}" + ("" if phase is None else f"/{phase}"),
        quantity=quantity,
        place=Place(meter.bus, meter.branch, meter.end, meter.storage, phase),
        sigma=percent / 100.0 * meter.full_scale[quantity],
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
