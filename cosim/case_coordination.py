"""What a case holds of coordination: the scheme, the side of the transmission operator, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cosim.coordination.catalogue import load_scheme
from cosim.coordination.scheme import Scheme
from cosim.coordination.transmission import TransmissionSide, transmission_side
from cosim.coordination.transmission_need import NeedRows
from cosim.coordination.transmission_network import TransmissionNetwork, read_case_network
from cosim.errors import Fault, InputError, ScenarioError
from cosim.flexibility.portfolio import Unit
from cosim.io.profiles import read_file
from cosim.scenario.load import LoadedScenario
from cosim.scenario.schema import Scenario
from cosim.scenario.transmission import FileNeed, TransmissionConfig

_SCHEME_FILES = (".yaml", ".yml")


def area_name(feeder: str) -> str:
    """The name of a feeder as that of an area of distribution."""
    return re.sub(r"\W", "_", feeder)


def scheme_file(scenario: Scenario) -> Path | None:
    """The file of the scheme, as written; None if it has none or is a shipped one."""
    config = scenario.coordination
    return None if config is None or Path(config.scheme).suffix not in _SCHEME_FILES else Path(config.scheme)


def scheme_of(loaded: LoadedScenario) -> Scheme | None:
    """The scheme of a scenario, if any. Raises ScenarioError at its key, or SchemeError at those of its own file."""
    config, file, key = loaded.scenario.coordination, scheme_file(loaded.scenario), "coordination.scheme"
    if config is None:
        return None
    if file is not None:
        return load_scheme(loaded.resolve(key, file))
    try:
        return load_scheme(config.scheme)
    except InputError as error:
        raise ScenarioError([loaded.fault(key, f.problem, f.value, f.allowed) for f in error.faults]) from None


def transmission_of(loaded: LoadedScenario, mean_import_kw: float) -> TransmissionSide | None:
    """The system above the feeder where there is a scheme. Raises ScenarioError at its keys, or errors of the files
    that it names."""
    if loaded.scenario.coordination is None:
        return None
    config, clock = loaded.scenario.transmission, loaded.scenario.clock
    try:
        side = transmission_side(
            config, _network(loaded), clock, loaded.scenario.seed, mean_import_kw, _need_rows(loaded)
        )
    except ScenarioError as error:
        placed = (loaded.fault(f.key, f.problem, f.value, f.allowed) if not f.file else f for f in error.faults)
        raise ScenarioError(list(placed)) from None
    return side


def _network(loaded: LoadedScenario) -> TransmissionNetwork | None:
    config = loaded.scenario.transmission
    if config.case is not None:
        return read_case_network(loaded.resolve("transmission.case", config.case))
    if config.network is None:
        return None
    from cosim.importers.transmission import read_transmission  # pandapower takes two seconds to import

    file = config.network_file
    return read_transmission(config.network if file is None else str(loaded.resolve("transmission.network", file)))


def _need_rows(loaded: LoadedScenario) -> NeedRows | None:
    need = loaded.scenario.transmission.need
    if not isinstance(need, FileNeed):
        return None
    path = loaded.resolve("transmission.need.file", need.file)
    rows = read_file(path, need.timezone, need.time_column, ("need_kw",))
    return NeedRows(rows.start, rows.step_s, rows.values[:, 0])


def faults_of_coordination(loaded: LoadedScenario, scheme: Scheme | None, units: Sequence[Unit]) -> Iterator[Fault]:
    """What does not go together with a scheme."""
    scenario = loaded.scenario
    if scenario.coordination is None:
        if scenario.transmission != TransmissionConfig():
            yield loaded.fault("transmission", "nobody looks at it without `coordination`")
        return
    market = scenario.market
    if market is None:
        yield loaded.fault("coordination", "there is nothing to coordinate without `market` and `resources`")
        return
    if market.gate != "real_time":
        problem = "schemes of coordination clear every MTU in real time"
        yield loaded.fault("market.gate", problem, market.gate, "real_time")
    for key, allowed in (("interface", "free"), ("pricing", "pay_as_bid")):
        if getattr(market, key) != allowed:
            problem = "with coordination the stages of the scheme say so"
            yield loaded.fault(f"market.{key}", problem, str(getattr(market, key)), allowed)
    if scenario.dso.measures and scenario.dso.measures_mode == "with":
        problem = "with coordination measures come before flexibility"
        yield loaded.fault("dso.measures_mode", problem, "with", "before")
    if scenario.coordination.same_aggregator:
        yield from _faults_of_aggregators(loaded, units)
    if scheme is not None:
        yield from _faults_of_scheme(loaded, scheme, units)


def faults_of_sellers(
    loaded: LoadedScenario, transmission: TransmissionSide | None, units: Sequence[Unit]
) -> Iterator[Fault]:
    """Resources of the feeder that are called as one at transmission, so that nobody could tell whose an award is."""
    above = transmission.sellers if transmission is not None else ()
    for unit in units:
        if unit.resource.id in above:
            problem = "a resource at transmission has this name"
            allowed = f"any but {', '.join(above)}"
            yield loaded.fault(f"resources.{unit.resource.id.partition(':')[0]}", problem, unit.resource.id, allowed)


def _faults_of_scheme(loaded: LoadedScenario, scheme: Scheme, units: Sequence[Unit]) -> Iterator[Fault]:
    scenario = loaded.scenario
    assert scenario.coordination is not None  # as the caller has found
    assert scenario.market is not None
    priced = [name for name, stage in scheme.stages.items() if stage.balance == "priced"]
    if priced and scenario.coordination.interface.price_eur_per_kwh is None:
        problem = f"stage {priced[0]} of scheme {scheme.name} needs it"
        yield loaded.fault("coordination.interface.price_eur_per_kwh", problem, "none", "a price")
    errors = scenario.market.uncertainty
    joint = [n for n, s in scheme.stages.items() if s.commodity == "Q" or ("D" in s.network and s.joint)]
    if joint and (errors.set in ("ellipsoid", "factors") or errors.base == "residual"):
        problem = f"stage {joint[0]} of scheme {scheme.name} takes forecast errors of each POD by itself"
        yield loaded.fault("market.uncertainty", problem, f"{errors.set} on the {errors.base}", "none, box or budget")
    buyers = {buyer for stage in scheme.stages.values() for buyer in stage.buyers}
    for name, need in scenario.market.needs.items():
        if "BRP" not in buyers or need.max_price_eur_per_kwh is None:
            problem = f"nobody buys for it under scheme {scheme.name}"
            allowed = "no needs, or a scheme that serves BRPs (smartnet_integrated) and a price of the need"
            yield loaded.fault(f"market.needs.{name}", problem, name, allowed)


def _faults_of_aggregators(loaded: LoadedScenario, units: Sequence[Unit]) -> Iterator[Fault]:
    sellers: dict[str, dict[str, None]] = {}
    for unit in units:
        sellers.setdefault(unit.resource.pod, {})[unit.resource.aggregator] = None
    for pod, names in sellers.items():
        if len(names) > 1:
            problem = f"POD {pod} has resources of more than one aggregator (see coordination.same_aggregator)"
            yield loaded.fault("resources", problem, ", ".join(names), "one")
