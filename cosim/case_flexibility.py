"""What a case holds of flexibility: data of PODs, resources, outdoor temperatures, measures of the grid's operator,
contracts and needs; and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from cosim.clock import format_duration
from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import Floats
from cosim.domain.market import Contract, Direction, Need, Resource, Window
from cosim.errors import Fault, FeederError, InputError, ScenarioError
from cosim.flexibility.portfolio import PodData, Unit, portfolio, shown
from cosim.grid.feeder import Feeder
from cosim.grid.measures import CapacitorMeasure, Measure, SwitchMeasure, TapMeasure
from cosim.io.profiles import Profiles, covering, read_file
from cosim.market.contracts import contract_faults, in_window, window_faults
from cosim.scenario.load import LoadedScenario
from cosim.scenario.market import AggregatorConfig, ForecastConfig, Outdoor
from cosim.scenario.measures import MeasureConfig
from cosim.scenario.procurement import WEEK, ContractConfig, WindowConfig
from cosim.scenario.schema import Scenario
from cosim.units import SECONDS_PER_DAY

_SHARE = 1e-9


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


def outdoor_temperatures(loaded: LoadedScenario) -> dict[str, Profiles]:
    """Outdoor temperatures [degree C], by entry of the resources. Raises ProfileError."""
    found = {}
    for name, resource in loaded.scenario.resources.items():
        outdoor = None if resource.heat_pump is None else resource.heat_pump.outdoor
        if isinstance(outdoor, Outdoor):
            path = loaded.resolve(f"resources.{name}.heat_pump.outdoor.file", outdoor.file)
            found[name] = read_file(path, outdoor.timezone, outdoor.time_column, ("temperature_c",))
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
    yield from _faults_of_sale(loaded)
    yield from _faults_of_gate(loaded)
    forecast = scenario.dso.forecast
    plain = ForecastConfig()
    known = [key for key in ("half_share", "correlation", "beyond") if getattr(forecast, key) != getattr(plain, key)]
    if forecast.method != "perfect" and known:
        yield loaded.fault(
            "dso.forecast.method", f"{', '.join(known)}: errors are known of method perfect only", forecast.method
        )
    if forecast.half_share * forecast.beyond >= 1.0:
        yield loaded.fault(
            "dso.forecast.beyond",
            "errors would reach the whole forecast [half-bands]",
            str(forecast.beyond),
            f"below {1.0 / forecast.half_share:g}",
        )


def _faults_of_sale(loaded: LoadedScenario) -> Iterator[Fault]:
    """Resources that their aggregator cannot offer in its way."""
    scenario = loaded.scenario
    standard = scenario.aggregators.get("default", AggregatorConfig())
    for name, resource in scenario.resources.items():
        seller = scenario.aggregators.get(resource.aggregator, standard)
        if resource.load is not None and any(resource.load.rebound) and seller.delivery == "any_split":
            problem = "a load that pays back cannot be in a bid of any split"
            yield loaded.fault(f"resources.{name}.load.rebound", problem, allowed="delivery single or fixed_shares")


def _faults_of_gate(loaded: LoadedScenario) -> Iterator[Fault]:
    """A day ahead that does not begin with an MTU, or whose gate closes after the last step before it."""
    scenario, config = loaded.scenario, loaded.scenario.market
    if config is None or config.gate != "day_ahead":
        return
    midnight, gate = scenario.start.replace(hour=0, minute=0, second=0, microsecond=0), config.gate_time
    if (scenario.start - midnight).total_seconds() % scenario.mtu or SECONDS_PER_DAY % scenario.mtu:
        problem = "a day ahead begins at midnight, which must be the beginning of an MTU"
        given = f"start {scenario.start.isoformat()}, mtu {format_duration(scenario.mtu)}"
        yield loaded.fault("market.gate", problem, given)
    latest = (midnight + timedelta(seconds=SECONDS_PER_DAY - scenario.step)).time()
    if gate > latest:
        problem = "closes after the last step of the day"
        yield loaded.fault("market.gate_time", problem, f"{gate:%H:%M}", f"up to {latest:%H:%M}")


def measures_of(scenario: Scenario) -> tuple[Measure, ...]:
    """What the operator may move in its grid."""
    return tuple(_measure(name, config) for name, config in scenario.dso.measures.items())


def _measure(name: str, config: MeasureConfig) -> Measure:
    cost: dict[str, Any] = {"eur_per_move": config.eur_per_move, "moves_per_day": config.moves_per_day}
    if config.tap is not None:
        return TapMeasure(name=name, **config.tap.model_dump(), **cost)
    if config.capacitor is not None:
        return CapacitorMeasure(name=name, **config.capacitor.model_dump(), **cost)
    assert config.switch is not None  # the schema admits exactly one kind
    return SwitchMeasure(name=name, **config.switch.model_dump(), **cost)


def placed_measure_faults(loaded: LoadedScenario, error: FeederError) -> InputError:
    """An error of measures at the keys of the scenario; any other as it is."""
    if not all(fault.key.partition(".")[0] == "measures" for fault in error.faults):
        return error
    keys = [(f, _key_of_measure(loaded.scenario, f.key)) for f in error.faults]
    return ScenarioError([loaded.fault(key, f.problem, f.value, f.allowed) for f, key in keys])


def _key_of_measure(scenario: Scenario, key: str) -> str:
    """The key in the scenario of one that begins with ``measures``."""
    for name, config in scenario.dso.measures.items():
        field = key.removeprefix(f"measures.{name}.")
        if field != key and field in type(getattr(config, config.kind)).model_fields:
            return f"dso.measures.{name}.{config.kind}.{field}"
    return f"dso.{key}"


def contracts_of(scenario: Scenario, units: Sequence[Unit]) -> tuple[Contract, ...]:
    """Flexibility bought forward from ``units``, which have the resource of each contract."""
    resources = {unit.resource.id: unit.resource for unit in units}
    configs = scenario.market.contracts if scenario.market is not None else {}
    return tuple(_contract(scenario, name, config, resources[config.resource]) for name, config in configs.items())


def _contract(scenario: Scenario, name: str, config: ContractConfig, resource: Resource) -> Contract:
    return Contract(
        id=name,
        seller=resource.aggregator,
        buyer="dso",
        product=config.direction,
        direction=Direction(config.direction),
        committed_kw=config.committed_kw,
        availability_eur_per_kw=config.availability_eur_per_kw,
        strike_eur_per_kwh=config.strike_eur_per_kwh,
        window=_window(scenario, config.window),
        shares=((resource.id, 1.0),),
        max_activations=config.max_activations,
        availability_full=config.availability_full,
        availability_zero=config.availability_zero,
    )


def _window(scenario: Scenario, config: WindowConfig) -> Window:
    """In the scenario's local time; the days not given are those of the run."""
    clock = scenario.clock
    offset = scenario.start.utcoffset()
    assert offset is not None  # the schema asks for it
    return Window(
        first_day=config.first_day or scenario.start.date(),
        last_day=config.last_day or scenario.local(clock.instant(clock.until_s - clock.step_s)).date(),
        begin=config.begin,
        end=config.end,
        weekdays=tuple(WEEK.index(day) for day in config.weekdays),
        utc_offset_s=round(offset.total_seconds()),
    )


def needs_of(scenario: Scenario, t_s: int, n_mtu: int) -> tuple[Need, ...]:
    """What others than the operator of the grid need in any of ``n_mtu`` MTUs from ``t_s`` on."""
    configs = scenario.market.needs if scenario.market is not None else {}
    found = []
    for name, config in configs.items():
        now = in_window(_window(scenario, config.window), scenario.clock, t_s, n_mtu)
        if now.any():
            signed_kw = config.need_kw if config.direction == Direction.UP.value else -config.need_kw
            quantity_kw = tuple(np.where(now, signed_kw, 0.0).tolist())
            found.append(Need(name, config.buyer, t_s, quantity_kw, config.where, config.max_price_eur_per_kwh))
    return tuple(found)


def faults_of_procurement(loaded: LoadedScenario, units: Sequence[Unit]) -> Iterator[Fault]:
    """Measures that nobody decides upon, contracts and needs that nothing can fulfil; ``units`` are none if they could
    not be read."""
    scenario, market = loaded.scenario, loaded.scenario.market
    if market is None:
        if scenario.dso.measures:
            yield loaded.fault("dso.measures", "measures are chosen at the gates of a market; the scenario has none")
        return
    if not (market.spot or market.contracts):
        yield loaded.fault("market.spot", "nothing can be bought without free offers and contracts", "false")
    for name, need in market.needs.items():
        yield from _faults_of_window(loaded, f"market.needs.{name}.window", need.window)
    if units:
        yield from _faults_of_contracts(loaded, units)
        places = ["system", *dict.fromkeys(p for u in units for p in (u.resource.perimeter, u.resource.brp) if p)]
        for name, need in market.needs.items():
            for k, where in enumerate(need.where):
                if where not in places:
                    key = f"market.needs.{name}.where.{k}"
                    yield loaded.fault(key, "no perimeter or BRP of that name", where, ", ".join(places))


def _faults_of_contracts(loaded: LoadedScenario, units: Sequence[Unit]) -> Iterator[Fault]:
    scenario, resources = loaded.scenario, {unit.resource.id: unit.resource for unit in units}
    assert scenario.market is not None
    owed: dict[tuple[str, Direction], Floats] = {}
    for name, config in scenario.market.contracts.items():
        key, resource = f"market.contracts.{name}", resources.get(config.resource)
        if resource is None:
            allowed = shown(config.resource, list(resources))
            yield loaded.fault(f"{key}.resource", "no such resource", config.resource, allowed)
            continue
        contract = _contract(scenario, name, config, resource)
        found = list(contract_faults(contract, resources, scenario.clock))
        yield from (loaded.fault(key, fault.problem, fault.value, fault.allowed) for fault in found)
        if not found:
            clock, registered = scenario.clock, (resource.id, contract.direction)
            now = in_window(contract.window, clock, 0, clock.until_s // clock.mtu_s)
            owed[registered] = owed.get(registered, 0.0) + np.where(now, contract.committed_kw, 0.0)
            limit_kw = resource.up_kw if contract.direction is Direction.UP else resource.down_kw
            if owed[registered].max() > limit_kw * (1.0 + _SHARE):
                problem = f"with contracts before it commits more {config.direction} of {resource.id} than it has"
                yield loaded.fault(key, problem, f"{owed[registered].max():g} kW", f"{limit_kw:g} kW")


def _faults_of_window(loaded: LoadedScenario, key: str, config: WindowConfig) -> Iterator[Fault]:
    for fault in window_faults(_window(loaded.scenario, config), key):
        yield loaded.fault(key, fault.problem, fault.value, fault.allowed)
