"""What a case holds of flexibility: data of PODs, resources, outdoor temperatures; and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cosim.domain.flexibility import StorageUnit
from cosim.errors import Fault
from cosim.flexibility.portfolio import PodData, Unit, portfolio
from cosim.grid.feeder import Feeder
from cosim.io.profiles import Profiles, covering, read_file
from cosim.scenario.load import LoadedScenario
from cosim.scenario.market import Outdoor
from cosim.scenario.schema import Scenario


def pod_data(feeder: Feeder, units: tuple[StorageUnit, ...], profiles: Profiles | None) -> tuple[PodData, ...]:
    """What portfolios need to know of the PODs; ``profiles`` are None if they could not be read."""
    storage = {unit.pod: unit for unit in units}
    largest_kw = np.zeros(len(feeder.pods))
    if profiles is not None:
        largest_kw = np.abs(feeder.powers(profiles.names, profiles.values)[0]).max(axis=0, initial=0.0)
    return tuple(
        PodData(name, pod.kind, pod.p_per_profile_kw, pod.q_per_profile_kvar, float(most), storage.get(name))
        for (name, pod), most in zip(feeder.pods.items(), largest_kw, strict=True)
    )


def portfolio_of(scenario: Scenario, pods: tuple[PodData, ...], feeder: str) -> tuple[Unit, ...]:
    """All resources. Raises ScenarioError."""
    return portfolio(scenario.resources, pods, feeder, scenario.clock, scenario.start, scenario.seed)


def outdoor_files(loaded: LoadedScenario) -> dict[str, Path]:
    """Files of outdoor temperatures, by entry of the resources."""
    found = {}
    for name, resource in loaded.scenario.resources.items():
        pump = resource.heat_pump
        if pump is not None and isinstance(pump.outdoor, Outdoor):
            found[name] = loaded.resolve(f"resources.{name}.heat_pump.outdoor.file", pump.outdoor.file)
    return found


def outdoor_temperatures(loaded: LoadedScenario) -> dict[str, Profiles]:
    """Outdoor temperatures [degree C], by entry of the resources. Raises ProfileError."""
    found = {}
    for name, path in outdoor_files(loaded).items():
        pump = loaded.scenario.resources[name].heat_pump
        assert pump is not None
        assert isinstance(pump.outdoor, Outdoor)
        found[name] = read_file(path, pump.outdoor.timezone, pump.outdoor.time_column, ("temperature_c",))
        covering(found[name], loaded.scenario.clock)
    return found


def faults_of_market(loaded: LoadedScenario) -> Iterator[Fault]:
    """A market without resources, aggregators that sell nothing, forecast errors that no forecast has."""
    scenario = loaded.scenario
    sellers = {resource.aggregator for resource in scenario.resources.values()}
    if scenario.market is not None and not scenario.resources:
        yield loaded.fault("market", "a market needs resources; the scenario has none")
    if scenario.resources and scenario.market is None:
        yield loaded.fault("resources", "resources need a market; the scenario has none", ", ".join(scenario.resources))
    for name in scenario.aggregators:
        if name not in (*sellers, "default"):
            yield loaded.fault(
                f"aggregators.{name}", "no resource has this aggregator", name, ", ".join(("default", *sorted(sellers)))
            )
    forecast = scenario.dso.forecast
    if forecast.method != "perfect" and forecast.model_fields_set & {"half_share", "correlation", "beyond"}:
        yield loaded.fault(
            "dso.forecast.method", "half_share, correlation and beyond are for method perfect", forecast.method
        )
    if forecast.half_share * forecast.beyond >= 1.0:
        yield loaded.fault(
            "dso.forecast.beyond",
            "errors would reach the whole forecast [half-bands]",
            str(forecast.beyond),
            f"below {1.0 / forecast.half_share:g}",
        )
