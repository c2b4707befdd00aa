"""A case: a scenario together with everything it names, opened and checked once, before anything runs.

Every fault found on the way is reported at once. Adapters in this process share one case; one in another process
opens it again from `Case.payload`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from cosim.case_coordination import (
    area_name,
    faults_of_coordination,
    faults_of_sellers,
    scheme_of,
    transmission_of,
)
from cosim.case_faults import faults_of_names, faults_of_phases, faults_of_places
from cosim.case_files import feeder_folder, folders_of
from cosim.case_flexibility import (
    contracts_of,
    faults_of_market,
    faults_of_procurement,
    measures_of,
    needs_of,
    outdoor_temperatures,
    placed_measure_faults,
    pod_data,
    portfolio_of,
)
from cosim.clock import Clock
from cosim.coordination.in_run import parties_in_run
from cosim.coordination.scheme import Scheme
from cosim.coordination.transmission import TransmissionSide, TransmissionState
from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import Floats, frozen
from cosim.domain.grid import GridLayout
from cosim.domain.market import Contract, Need
from cosim.domain.site import bus_of_site, site_sums, sites_of
from cosim.errors import Fault, FeederError, InputError, ProfileError, ScenarioError
from cosim.estimation.history import noisy_history
from cosim.flexibility.pod_forecast import PodForecast, PowerForecast, Powers
from cosim.flexibility.portfolio import Unit, owned_storage
from cosim.grid.added import added_pods
from cosim.grid.engine import Engine
from cosim.grid.engines import Engines
from cosim.grid.feeder import Feeder, canonical_branch, load_feeder
from cosim.grid.limits import Limits
from cosim.grid.measures import Measure, Positions
from cosim.io.profiles import Profiles, covering, history, read_file, read_simbench, sample
from cosim.market.roles import faults_of_settlement
from cosim.rng import rng_for
from cosim.scenario.load import LoadedScenario
from cosim.scenario.market import MarketConfig
from cosim.scenario.schema import Meter, Scenario, SimbenchProfiles
from cosim.sensing.channels import channels_of, meters_used
from cosim.sensing.measure import SensorModel, sensor_model
from cosim.sensing.replay import read_recording
from cosim.units import SECONDS_PER_DAY

Opened = TypeVar("Opened")
_MTUS_KEPT = 4
_HISTORY_ROWS = 4096  # made at once
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Case:
    """An opened scenario. ``pod_sites`` (n_pod,) are the sites of the feeder's PODs, ``meters`` those in use;
    ``storage`` the units that the operator orders, ``portfolio`` the resources of aggregators, ``outdoor`` the profiles
    of outdoor temperatures by entry of the scenario's resources, ``measures_start`` where the script has the operator's
    measures; ``scheme`` and ``transmission``: how the feeder is coordinated with the system above, None if it is
    not."""

    loaded: LoadedScenario
    feeder: Feeder
    layout: GridLayout
    storage: tuple[StorageUnit, ...]
    pod_sites: tuple[str, ...]
    meters: dict[str, Meter]
    profiles: Profiles
    portfolio: tuple[Unit, ...]
    outdoor: Mapping[str, Profiles]
    measures_start: Positions
    scheme: Scheme | None
    transmission: TransmissionSide | None

    @property
    def scenario(self) -> Scenario:
        return self.loaded.scenario

    @cached_property
    def clock(self) -> Clock:
        return self.scenario.clock

    @cached_property
    def pods(self) -> tuple[str, ...]:
        return tuple(self.feeder.pods)

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Buses that hold PODs, by phases where they do not connect to all (`cosim.domain.site`)."""
        return sites_of(self.pod_sites)

    @cached_property
    def powers(self) -> tuple[Floats, Floats]:
        """Net consumption ``p_kw``, ``q_kvar`` (n_step, n_pod) of all PODs by their profiles; storage is 0."""
        p_kw, q_kvar = self.feeder.powers(self.profiles.names, sample(self.profiles, self.clock))
        return frozen(p_kw), frozen(q_kvar)

    @cached_property
    def pod_buses(self) -> frozenset[str]:
        return frozenset(bus_of_site(site) for site in self.pod_sites)

    @cached_property
    def pod_kinds(self) -> tuple[str, ...]:
        return tuple(pod.kind for pod in self.feeder.pods.values())

    @cached_property
    def market_config(self) -> MarketConfig:
        """The rules of the market; the default ones where the scenario has none."""
        return self.scenario.market or MarketConfig()

    @cached_property
    def area(self) -> str:
        """The feeder as an area of distribution."""
        return area_name(self.feeder.name)

    @cached_property
    def parties(self) -> Mapping[str, str]:
        """Parties of the scheme by the simulator that each of them is."""
        return parties_in_run(self.scheme, self.area) if self.scheme is not None else {}

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """What the operator may move in its grid."""
        return measures_of(self.scenario)

    def engine(self) -> Engine:
        """A new engine of the feeder with the operator's measures."""
        return Engine(self.feeder, self.scenario.grid, self.measures)

    @cached_property
    def engines(self) -> Engines:
        """The engines that simulators in this process use in turn."""
        return Engines(partial(Engine, self.feeder, self.scenario.grid, self.measures))

    def kept(self, name: str, make: Callable[[], Kept]) -> Kept:
        """What ``make`` gave when it was asked for by this name at first: for what lasts over the segments of a run,
        which must depend on the case alone, such as caches of pure functions."""
        if name not in self._kept:
            self._kept[name] = make()
        return cast(Kept, self._kept[name])

    @cached_property
    def _kept(self) -> dict[str, Any]:
        return {}

    def positions(self, values: Floats) -> dict[str, int]:
        """Positions of measures by name, from numbers (n_measure,)."""
        return {measure.name: round(float(value)) for measure, value in zip(self.measures, values, strict=True)}

    @cached_property
    def contracts(self) -> tuple[Contract, ...]:
        """Flexibility bought forward."""
        return contracts_of(self.scenario, self.portfolio)

    def needs(self, gate_s: int, t_s: int, n_mtu: int) -> tuple[Need, ...]:
        """What others than the operator of the grid ask for at the gate that closes with the step at ``gate_s``, in any
        of ``n_mtu`` MTUs from ``t_s`` on; nothing that they could ask for a day ahead."""
        real_time = n_mtu == 1 and t_s == gate_s + self.clock.step_s
        if real_time and self.market_config.gate == "day_ahead" and self._had_gate(t_s):
            return ()
        return needs_of(self.scenario, t_s, n_mtu)

    def _had_gate(self, t_s: int) -> bool:
        """Whether a gate of the run closed a day ahead of the MTU at ``t_s``."""
        day = self.scenario.local(self.clock.instant(t_s)) - timedelta(days=1)
        at = self.market_config.gate_time
        gate = day.replace(hour=at.hour, minute=at.minute, second=0)
        return (gate - self.scenario.local(self.clock.start)).total_seconds() > -self.clock.mtu_s

    def gates(self, t_s: int) -> list[tuple[int, int]]:
        """Sessions whose gate closes with the step at ``t_s``: beginning [s] and number of MTUs of each, the day ahead
        first. None for MTUs beyond the end of the run."""
        clock, config = self.clock, self.market_config
        next_s = t_s + clock.step_s
        if not clock.begins_mtu(next_s) or next_s >= clock.until_s:
            return []
        found = []
        if config.gate == "day_ahead":
            local = self.scenario.local(clock.instant(t_s))
            gate = local.replace(hour=config.gate_time.hour, minute=config.gate_time.minute, second=0)
            if gate <= local < gate + timedelta(seconds=clock.mtu_s):
                midnight = local.replace(hour=0, minute=0, second=0) + timedelta(days=1)
                begin_s = round((midnight - self.scenario.local(clock.start)).total_seconds())
                n_mtu = (min(clock.until_s, begin_s + SECONDS_PER_DAY) - begin_s) // clock.mtu_s
                found += [(begin_s, n_mtu)] if n_mtu > 0 else []
        if (config.gate == "real_time" or config.correct) and next_s not in dict(found):
            found.append((next_s, 1))
        return found

    def expected(self, begin_s: int, n_mtu: int, now: Powers | None) -> PowerForecast:
        """What is expected of the profiles in ``n_mtu`` MTUs from ``begin_s`` on; ``now``: powers of all PODs (n_pod,)
        in the MTU before, if that is the present one."""
        mtu = begin_s // self.clock.mtu_s
        if n_mtu == 1 and now is not None:
            return self.pod_forecast.next(mtu, now)
        return self._ahead(mtu, n_mtu)

    @cached_property
    def _ahead(self) -> Callable[[int, int], PowerForecast]:
        """Forecasts from long before, by first MTU and number of MTUs."""
        return lru_cache(self.pod_forecast.ahead)

    @cached_property
    def system_at(self) -> Callable[[int], TransmissionState]:
        """The side of the transmission operator in the MTU that begins at a time [s]; of a case with a scheme."""
        return lru_cache(_MTUS_KEPT)(self._system_at)

    def _system_at(self, t_s: int) -> TransmissionState:
        assert self.transmission is not None  # as with every scheme
        return self.transmission.at(t_s, self.pod_forecast.total_kw(t_s // self.clock.mtu_s))

    @cached_property
    def pod_forecast(self) -> PodForecast:
        """Forecasts by the scenario's method; the days looked back are those of the profiles."""
        config = self.scenario.dso.forecast
        return PodForecast(config, self.scenario.seed, lru_cache(self._past), self._truth)

    def _past(self, mtu: int) -> Powers:
        """Powers (n_day, n_pod) in an MTU on the days before it."""
        days = self.scenario.dso.forecast.days
        clock, step_s = self.clock, min(self.profiles.step_s, self.clock.mtu_s)
        instants = [clock.instant(mtu * clock.mtu_s + s) for s in range(0, clock.mtu_s, step_s)]
        rows = np.mean([history(self.profiles, instant, days, 0) for instant in instants], axis=0)
        return self.feeder.powers(self.profiles.names, rows)

    def _truth(self, mtu: int) -> Powers:
        """Mean powers (n_pod,) in an MTU of the run."""
        steps = slice(mtu * self.clock.steps_per_mtu, (mtu + 1) * self.clock.steps_per_mtu)
        p_kw, q_kvar = self.powers
        return p_kw[steps].mean(axis=0), q_kvar[steps].mean(axis=0)

    def outdoor_c(self, unit: Unit, t_s: int) -> float:
        """Outdoor temperature of a resource [degree C]."""
        if not isinstance(unit.outdoor, str):
            return float(unit.outdoor)
        return float(self.outdoor[unit.outdoor].rows(self.clock.instant(t_s))[0])

    @cached_property
    def history(self) -> Profiles:
        """History of all sites, columns p of all sites, then q of all sites [kW, kvar]: the scenario's data set, or
        the profiles with the stated error."""
        names = tuple(f"{quantity}/{site}" for quantity in ("p_kw", "q_kvar") for site in self.sites)
        data = self.scenario.estimator.history.data
        if data is not None:
            path = self.loaded.resolve("estimator.history.data.file", data.file)
            return read_file(path, data.timezone, data.time_column, names)
        error_percent, rng = self.scenario.estimator.history.error_percent, rng_for(self.scenario.seed, "history")
        sums, values = site_sums(self.pod_sites), np.empty((len(self.profiles.values), len(names)))
        for first in range(0, len(values), _HISTORY_ROWS):  # of large feeders a year is the largest array of a run
            rows = slice(first, first + _HISTORY_ROWS)
            true = np.hstack(
                [pods @ sums for pods in self.feeder.powers(self.profiles.names, self.profiles.values[rows])]
            )
            values[rows] = noisy_history(true, error_percent, rng)
        values.flags.writeable = False
        return self.profiles.with_columns(names, values)

    @property
    def design_powers(self) -> tuple[Powers, ...]:
        """Powers of all PODs (n_pod,) in the situations that prequalification looks at. Raises ProfileError if profiles
        do not have them."""
        config = self.scenario.coordination
        instants = () if config is None else config.snapshots
        return tuple(self.feeder.powers(self.profiles.names, self.profiles.rows(at)) for at in instants)

    @cached_property
    def sensor_model(self) -> SensorModel:
        return sensor_model(self.meters, self.scenario.sensors, self.scenario.seed)

    @cached_property
    def initial_kwh(self) -> Floats:
        """Stored energy at the start (n_storage,) [kWh]."""
        given = self.scenario.operator.initial_energy_kwh
        return frozen([u.reserve_kwh if given == "reserve" else given.get(u.pod, u.reserve_kwh) for u in self.storage])

    def payload(self) -> dict[str, Any]:
        """What another process needs to open the same case, as plain JSON."""
        return {
            "scenario": self.scenario.model_dump(mode="json"),
            "directory": str(self.loaded.directory),
            "folders": folders_of(self.loaded),
        }


def case_from_payload(payload: dict[str, Any]) -> Case:
    """The case that gave this payload."""
    scenario = Scenario.model_validate(payload["scenario"])
    return open_case(LoadedScenario.of(scenario, Path(payload["directory"]), payload["folders"]))


def open_case(loaded: LoadedScenario) -> Case:
    """Opens feeder, profiles and meters of a scenario.

    Raises InputError (its ScenarioError, FeederError, ProfileError) with every fault found: the feeder is unknown or
    does not compile, profiles lack a column or do not cover the horizon, a sensor's bus or branch does not exist, a
    name in the scenario is not one of the feeder's.
    """
    scenario = loaded.scenario
    faults: list[Fault] = []
    feeder = load_feeder(feeder_folder(loaded))
    added = _collect(faults, lambda: added_pods(scenario, feeder))
    if added is None:
        raise ScenarioError([loaded.fault(f.key, f.problem, f.value, f.allowed) for f in faults])
    feeder = feeder.with_pods(added)
    engine = _engine(loaded, feeder)
    layout, units, pod_sites = engine.layout, engine.storage, engine.pod_sites
    measures_start = dict(engine.measure_positions())
    _collect(faults, lambda: _require_network(engine, scenario))
    engine.close()
    profiles = _collect(faults, lambda: _profiles(loaded, feeder))
    pods = pod_data(feeder, units, profiles)
    sold = owned_storage(scenario.resources, pods)
    storage = tuple(unit for unit in units if unit.pod not in sold)
    resources = _collect(faults, lambda: _placed(loaded, lambda: portfolio_of(scenario, pods, feeder.name))) or ()
    outdoor = _collect(faults, lambda: outdoor_temperatures(loaded)) or {}
    meters = _collect(faults, lambda: _meters(loaded, feeder, layout)) or {}
    _collect(faults, lambda: _placed(loaded, lambda: channels_of(meters, scenario.sensors)))
    _collect(faults, lambda: _placed(loaded, lambda: Limits(layout, scenario.limits, feeder.head_terminal)))
    faults += faults_of_places(loaded, feeder, meters, layout, storage)
    faults += faults_of_phases(loaded, feeder, meters, layout, pod_sites)
    scheme = _collect(faults, lambda: scheme_of(loaded))
    faults += faults_of_names(loaded, feeder, storage, scheme)
    faults += faults_of_market(loaded)
    faults += faults_of_procurement(loaded, resources)
    faults += faults_of_settlement(loaded, [unit.resource for unit in resources])
    faults += faults_of_coordination(loaded, scheme, resources)
    mean_kw = _mean_import_kw(feeder, profiles)
    transmission = _collect(faults, lambda: transmission_of(loaded, mean_kw))
    faults += faults_of_sellers(loaded, transmission, resources)
    if faults or profiles is None:
        raise ScenarioError(faults)
    case = Case(
        loaded,
        feeder,
        layout,
        storage,
        pod_sites,
        meters,
        profiles,
        resources,
        outdoor,
        measures_start,
        scheme,
        transmission,
    )
    if scenario.sensors.replay is not None:  # finds a recording that does not fit
        recording = loaded.resolve("sensors.replay.file", scenario.sensors.replay.file)
        read_recording(recording, case.sensor_model.channels, case.clock)
    _look_at_snapshots(case)
    look = scenario.estimator.history
    for instant in (case.clock.start, case.clock.instant(case.clock.until_s - case.clock.step_s)):
        history(case.history, instant, look.days, look.window)  # finds a history that is too short
        if scenario.market is not None and scenario.dso.forecast.method != "perfect":
            history(case.profiles, instant, scenario.dso.forecast.days, 0)
    return case


def _look_at_snapshots(case: Case) -> None:
    """Raises ScenarioError for instants that the profiles do not have."""
    try:
        _ = case.design_powers
    except ProfileError as error:
        key = "coordination.snapshots"
        raise ScenarioError([case.loaded.fault(key, f.problem, f.value, f.allowed) for f in error.faults]) from None


def _mean_import_kw(feeder: Feeder, profiles: Profiles | None) -> float:
    """Mean absolute net consumption of all PODs together, over all that the profiles hold."""
    if profiles is None:
        return 0.0
    p_kw, _ = feeder.powers(profiles.names, profiles.values)
    return float(np.abs(p_kw.sum(axis=-1)).mean())


def _engine(loaded: LoadedScenario, feeder: Feeder) -> Engine:
    try:
        return Engine(feeder, loaded.scenario.grid, measures_of(loaded.scenario))
    except FeederError as error:
        raise placed_measure_faults(loaded, error) from None


def _require_network(engine: Engine, scenario: Scenario) -> None:
    """Raises FeederError with what keeps the estimator, or a market with the loads' laws, from a network of its own."""
    network = engine.unloaded()
    if scenario.market is not None:
        network.require_laws()


def _collect(faults: list[Fault], attempt: Any) -> Any:
    try:
        return attempt()
    except InputError as error:
        faults.extend(error.faults)
        return None


def _profiles(loaded: LoadedScenario, feeder: Feeder) -> Profiles:
    source, columns = loaded.scenario.profiles, feeder.profile_columns
    if isinstance(source, SimbenchProfiles):
        profiles = read_simbench(source.simbench, columns)
    else:
        path = loaded.resolve("profiles.file", source.file)
        profiles = read_file(path, source.timezone, source.time_column, columns)
    covering(profiles, loaded.scenario.clock)
    return profiles


def _meters(loaded: LoadedScenario, feeder: Feeder, layout: GridLayout) -> dict[str, Meter]:
    used = _placed(loaded, lambda: meters_used(feeder.meters, loaded.scenario.sensors))
    buses = set(layout.buses)
    return {
        name: meter.model_copy(
            update={
                "bus": meter.bus and _known(meter.bus.upper(), buses, meter.bus),
                "end": meter.end and meter.end.upper(),
                "branch": meter.branch and canonical_branch(meter.branch),
            }
        )
        for name, meter in used.items()
    }


def _placed(loaded: LoadedScenario, attempt: Callable[[], Opened]) -> Opened:
    """What ``attempt`` gives; its faults at keys of the scenario get file and line."""
    try:
        return attempt()
    except InputError as error:
        raise ScenarioError([loaded.fault(f.key, f.problem, f.value, f.allowed) for f in error.faults]) from None


def _known(candidate: str, known: set[str], written: str) -> str:
    return candidate if candidate in known else written
