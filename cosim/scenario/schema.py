"""The scenario schema: one frozen model per part, unknown keys forbidden, every field with its unit.

Durations are texts such as ``15min`` and become whole seconds. A resolved scenario dumped by
``model_dump(mode="json")`` reads back as the same scenario.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from cosim.clock import Clock, format_duration
from cosim.scenario.coordination import CoordinationConfig
from cosim.scenario.market import AggregatorConfig, DsoConfig, MarketConfig, ResourceConfig
from cosim.scenario.settlement import SettlementConfig
from cosim.scenario.transmission import TransmissionConfig
from cosim.scenario.values import (
    Day,
    Duration,
    DurationOrNone,
    Instant,
    NonNegative,
    Number,
    Part,
    Positive,
    Seed,
    Share,
    Switch,
    TimeOfDay,
    TimeSeriesFile,
    Whole,
    form,
)


def _profile_form(value: object) -> str:
    if not isinstance(value, dict):
        return "file" if isinstance(value, FileProfiles) else "simbench"
    of_file = tuple(FileProfiles.model_fields)
    return "file" if any(get_close_matches(str(key), of_file) for key in value) else "simbench"


class SimbenchProfiles(Part):
    """Profiles read from the files of the installed ``simbench`` package."""

    simbench: str = Field("1-complete_data-mixed-all-1-sw", description="SimBench data set holding the profiles")


class FileProfiles(TimeSeriesFile):
    """Profiles read from a CSV or Parquet file of the user: a time column and one column per profile."""

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "simbench" not in value:
            return value
        if value["simbench"] is not None:
            raise ValueError(
                "profiles come from `simbench` or from `file`, not both; `simbench: null` takes an inherited one out"
            )
        return {key: given for key, given in value.items() if key != "simbench"}  # nothing was inherited


Profiles = Annotated[
    Annotated[SimbenchProfiles, Tag("simbench")] | Annotated[FileProfiles, Tag("file")], Discriminator(_profile_form)
]


class GridConfig(Part):
    """How the grid is solved."""

    on_divergence: Literal["stop", "record"] = Field(
        "stop", description="a step that does not converge stops the run, or is recorded as NaN and not converged"
    )
    tolerance_pu: Positive = Field(1e-8, description="convergence tolerance of the power flow [pu]")
    max_iterations: Whole = Field(100, ge=2, description="iterations allowed in one power flow")
    max_control_iterations: Whole = Field(20, ge=1, description="control iterations allowed in one step")


class Limits(Part):
    """What counts as a violation, recorded with element, phase, value and limit."""

    vm_min_pu: Positive = Field(0.9, description="lowest voltage [pu]")
    vm_max_pu: Positive = Field(1.1, description="highest voltage [pu]")
    branches: Annotated[
        Annotated[tuple[str, ...], Tag("structure")] | Annotated[Literal["rated"], Tag("word")], Discriminator(form)
    ] = Field("rated", description="branches held to their ratings: all that have one, or those named here")
    loading_max_pu: Positive = Field(1.0, description="highest current [of the rated current]")
    derated: dict[str, Positive] = Field({}, description="branches with another highest current [of the rated current]")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.vm_min_pu < self.vm_max_pu:
            raise ValueError(f"vm_min_pu {self.vm_min_pu} must be below vm_max_pu {self.vm_max_pu}")
        return self


class SensorFaults(Part):
    """Errors and faults of one meter, applied to each of its quantities from a random stream of its own."""

    bias_percent: Number = Field(0.0, description="constant error [% of full scale]")
    noise: Switch = Field(True, description="random error within the accuracy class (3 sigma = class)")
    quantum: NonNegative = Field(0.0, description="resolution [% of full scale]; 0 = not quantised")
    delay_s: NonNegative = Field(0.0, description="mean delay from measurement to arrival [s]")
    delay_jitter_s: NonNegative = Field(0.0, description="standard deviation of the delay [s]")
    dropout: Share = Field(0.0, description="probability that a message is lost")
    stuck: Share = Field(0.0, description="probability that a value freezes at a step")
    stuck_steps: Whole = Field(4, ge=1, description="steps for which a frozen value lasts")
    clock_skew_s: Number = Field(0.0, description="error of the sensor's clock [s]")


class Meter(Part):
    """A meter: its number and type give the topic ``<type>/<number>/<quantity>``; it sits at a bus, in a branch
    at one end, or at a storage unit."""

    type: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="type of sensor, e.g. sub, pri, bat")
    number: Whole = Field(ge=0, description="number among the sensors of its type")
    bus: str | None = Field(None, description="bus: net consumption of all PODs there and mean phase voltage")
    branch: str | None = Field(None, description="branch whose flow is measured")
    end: str | None = Field(None, description="bus at whose end of the branch it is measured")
    storage: str | None = Field(None, description="POD of a storage unit")
    quantities: tuple[Literal["p_kw", "q_kvar", "vm_pu", "i_a", "e_kwh"], ...] = Field(
        min_length=1, description="what is measured"
    )
    phases: tuple[Literal[1, 2, 3], ...] = Field(
        (), description="phases measured each on its own, as `<topic>/<phase>`; default: their sum, and mean voltage"
    )
    class_percent: NonNegative = Field(0.5, description="accuracy class [% of full scale]")
    full_scale: dict[str, Positive] = Field(
        description="full scale of each quantity, in its unit, e.g. {p_kw: 630, q_kvar: 630, vm_pu: 1}"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        places = [name for name in ("bus", "branch", "storage") if getattr(self, name) is not None]
        if len(places) != 1:
            raise ValueError(f"a meter sits at exactly one of bus, branch, storage; here: {places or 'none'}")
        if (self.branch is None) != (self.end is None):
            raise ValueError("branch and end go together")
        missing = [q for q in self.quantities if q not in self.full_scale]
        if missing:
            raise ValueError(f"full_scale lacks {', '.join(missing)}")
        known = {
            "bus": {"p_kw", "q_kvar", "vm_pu"},
            "branch": {"p_kw", "q_kvar", "i_a", "vm_pu"},
            "storage": {"p_kw", "e_kwh"},
        }[places[0]]
        wrong = [q for q in self.quantities if q not in known]
        if wrong:
            raise ValueError(f"a {places[0]} meter measures {sorted(known)}, not {', '.join(wrong)}")
        if self.phases and self.storage is not None:
            raise ValueError("a storage meter measures all phases together, it takes no phases")
        return self

    @property
    def topic(self) -> str:
        return f"{self.type}/{self.number}"


class Replay(Part):
    """A recorded data set published in place of the simulated measurements."""

    file: Path = Field(description="CSV or Parquet file with columns time, topic, value, unit")
    real_time_factor: NonNegative = Field(
        0.0, description="simulated seconds per second of wall-clock time; 0 = lock-step, as fast as possible"
    )


class Sensors(Part):
    """Which meters exist, what goes wrong with them, and what counts as simultaneous."""

    meters: Annotated[
        Annotated[tuple[str, ...], Tag("structure")] | Annotated[Literal["all"], Tag("word")], Discriminator(form)
    ] = Field("all", description="names of meters of the feeder to use")
    extra: dict[str, Meter] = Field({}, description="further meters, by name")
    faults: dict[str, SensorFaults] = Field(
        {}, description="faults by meter name; the entry `default` holds for meters not named"
    )
    tolerance_s: NonNegative = Field(5.0, description="values this far apart [s] count as simultaneous")
    replay: Replay | None = Field(None, description="recorded data published in place of the measurements")


class MqttBroker(Part):
    """A real MQTT broker. User name and password come from the environment variables named here."""

    host: str = Field("127.0.0.1", description="host name or address")
    port: Whole = Field(1883, ge=1, le=65535, description="TCP port")
    tls: Switch = Field(False, description="encrypt by TLS and verify the broker's certificate")
    ca_file: Path | None = Field(None, description="certificate authority (PEM); default: the system's")
    username_env: str | None = Field(None, description="environment variable holding the user name")
    password_env: str | None = Field(None, description="environment variable holding the password")
    topic_prefix: str = Field("", pattern=r"^([^#+/]+/)*$", description="put before every topic, ends in /")
    qos: Literal[0, 1] = Field(1, description="MQTT quality of service")
    reconnect_s: NonNegative = Field(10.0, description="time to get a lost broker back before the run fails [s]")


class MqttTransport(Part):
    """Messages go through a real broker."""

    mqtt: MqttBroker = Field(description="the broker")


Transport = Annotated[
    Annotated[MqttTransport, Tag("structure")] | Annotated[Literal["embedded", "memory"], Tag("word")],
    Discriminator(form),
]


class History(Part):
    """The history that bounds the unmetered injections: same quarter hour +- window over the preceding days."""

    data: FileProfiles | None = Field(
        None,
        description="file with columns p_kw/<bus> and q_kvar/<bus> [kW, kvar] for every bus with PODs, known orders "
        "taken out; default: the profiles themselves with the error below",
    )
    days: Whole = Field(28, ge=2, le=180, description="days looked back [d]")
    window: Whole = Field(2, ge=0, le=8, description="quarter hours taken on either side")
    error_percent: NonNegative = Field(
        5.0,
        description="standard deviation of the error put on the profiles to make a history of them [% of each value]",
    )


class Genetic(Part):
    """The genetic algorithm (pygad)."""

    population: Whole = Field(50, ge=8, description="individuals")
    generations: Whole = Field(60, ge=1, description="generations at most")
    patience: Whole = Field(15, ge=1, description="generations without improvement after which it stops")
    parents: Whole = Field(20, ge=2, description="individuals that mate")
    elite: Whole = Field(2, ge=0, description="best individuals kept unchanged")
    mutation_share: Share = Field(0.25, description="share of genes that mutate")

    @model_validator(mode="after")
    def _fits_population(self) -> Self:
        large = [
            f"{name} {getattr(self, name)}" for name in ("parents", "elite") if getattr(self, name) > self.population
        ]
        if large:
            raise ValueError(f"{' and '.join(large)} exceed population {self.population}")
        return self


Method = Literal["genetic", "genetic_prior", "wls", "history"]


class BadData(Part):
    """When a reading is rejected because it contradicts the others and the history."""

    threshold: Positive = Field(4.0, description="largest normalised residual of a reading that is kept [1]")
    confidence: Share = Field(0.99, description="probability that sound readings pass the chi-square test [1]")
    at_most: Whole = Field(5, ge=0, description="readings rejected in one step; 0 = none ever")


class EstimatorConfig(Part):
    """How the injections that nobody meters are found."""

    method: Method = Field("genetic", description="method whose estimate the operator uses")
    compare: tuple[Method, ...] = Field((), description="further methods recorded beside it")
    history: History = Field(History(), description="what bounds them")
    bad_data: BadData = Field(BadData(), description="when a reading is rejected")
    genetic: Genetic = Field(Genetic(), description="the genetic algorithm of the estimate")


class Discharge(Part):
    """When and how fast storage empties again, down to its reserve."""

    start: TimeOfDay = Field(time(18, 0), description="local time at which discharging may begin")
    end: TimeOfDay = Field(time(6, 0), description="local time at which it ends")
    power_kw: NonNegative = Field(100.0, description="power of each unit [kW]")
    keep_import_kw: Number = Field(0.0, description="head import below which it does not discharge [kW]")


class Sizing(Part):
    """How thresholds are computed on a representative day."""

    day: Day | None = Field(None, description="local day; default: the day of the run with the deepest reverse flow")
    limit_kw: Number | None = Field(
        None, description="head power not to be undercut [kW]; default: the best that the storage can hold"
    )
    genetic: Genetic = Field(
        Genetic(population=40, generations=80), description="the genetic algorithm of the sizing step"
    )


class AddedPods(Part):
    """PODs that the feeder does not have: one beside each of those named, connected as it is."""

    beside: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1), Tag("structure")]
        | Annotated[Literal["all_load", "all_pv"], Tag("word")],
        Discriminator(form),
    ] = Field(description="PODs of the feeder, or all of one kind")
    kind: Literal["load", "pv"] = Field(description="load consumes, pv injects")
    share: Share = Field(1.0, description="share of them that gets one, drawn [1]")
    kw: Positive = Field(description="factor of the profile [kW]")
    spread: Share = Field(0.0, lt=1.0, description="that factor is drawn within this share around the one given [1]")
    profiles: tuple[str, ...] = Field(min_length=1, description="profile columns, one drawn for each")
    power_factor: Number = Field(1.0, gt=0.0, le=1.0, description="reactive power follows active power, by this")


class OperatorConfig(Part):
    """The operator's rule: storage charges by as much as the head falls below its threshold."""

    enabled: Switch = Field(True, description="whether orders are given at all")
    thresholds_kw: Annotated[
        Annotated[dict[str, Number], Tag("structure")] | Annotated[Literal["auto"], Tag("word")], Discriminator(form)
    ] = Field("auto", description="head power [kW] below which each storage POD charges, or auto: from the sizing step")
    action: Literal["next", "same"] = Field("next", description="MTU in which an order acts")
    initial_energy_kwh: Annotated[
        Annotated[dict[str, NonNegative], Tag("structure")] | Annotated[Literal["reserve"], Tag("word")],
        Discriminator(form),
    ] = Field("reserve", description="stored energy at the start by storage POD [kWh], or reserve")
    discharge: Discharge = Field(Discharge(), description="how storage empties again")
    sizing: Sizing = Field(Sizing(), description="how thresholds are computed")


class RecorderConfig(Part):
    """The result file."""

    file: Path | None = Field(
        None, description="HDF5 file, relative to the working directory; default: results/<name>.h5"
    )
    flush_steps: Whole = Field(96, ge=1, description="steps buffered between two flushes (rows of a chunk)")
    compression: Literal["gzip", "none"] = Field("gzip", description="compression of the data sets")
    checkpoint: DurationOrNone = Field(
        86_400,
        description="simulated time after which all that lasts is saved, for `cosim resume` to go on from: a whole "
        "number of MTUs; false: never",
    )
    bids: Switch = Field(False, description="whether all that aggregators offer is recorded")


class ForeignLink(Part):
    """An output of a foreign simulator that replaces the profile of a POD."""

    entity: Whole = Field(0, ge=0, description="index of the entity created")
    attribute: str = Field(description="output attribute of the entity")
    pod: str = Field(description="POD whose injection it sets")
    quantity: Literal["p_kw", "q_kvar"] = Field("p_kw", description="what it sets")
    scale: Number = Field(1.0, description="factor to kW or kvar, consumption positive (e.g. -0.001 for PV in W)")


class ForeignSimulator(Part):
    """Any mosaik simulator, started as mosaik starts it."""

    start: dict[Literal["python", "cmd", "connect", "cwd"], str] = Field(
        description="mosaik start entry: {python: 'module:Class'}, {cmd: '%(python)s file.py %(addr)s'} "
        "or {connect: 'host:port'}"
    )
    params: dict[str, Any] = Field({}, description="parameters of the simulator's init")
    model: str = Field(description="model to create")
    count: Whole = Field(1, ge=1, description="number of entities")
    model_params: dict[str, Any] = Field({}, description="parameters of create")
    links: tuple[ForeignLink, ...] = Field(min_length=1, description="what it feeds")
    timeout_s: Positive = Field(30.0, description="time for one answer before it counts as hung [s]")

    @model_validator(mode="after")
    def _one_way_to_start(self) -> Self:
        ways = sorted(set(self.start) - {"cwd"})
        if len(ways) != 1:
            raise ValueError(f"start takes exactly one of python, cmd, connect; here: {', '.join(ways) or 'none'}")
        return self


class Scenario(Part):
    """One co-simulation."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name, used for the result file")
    description: str = Field("", description="what this scenario shows")
    start: Instant = Field(description="first instant, with its offset, e.g. 2016-07-22T00:00:00+01:00")
    duration: Duration = Field(description="simulated time, e.g. 3d")
    step: Duration = Field(900, description="time between two solves of the grid, e.g. 15min")
    mtu: Duration = Field(900, description="market time unit: interval for which an order holds, e.g. 15min")
    seed: Seed = Field(1, description="seed of all random streams")
    feeder: str = Field(description="folder in dss_models/, or a path to a feeder folder")
    added: dict[str, AddedPods] = Field({}, description="PODs beside those of the feeder, by name")
    profiles: Profiles = Field(SimbenchProfiles(), description="time series of loads and generation")
    grid: GridConfig = Field(GridConfig(), description="how the grid is solved")
    limits: Limits = Field(Limits(), description="voltage band and ratings to be kept")
    sensors: Sensors = Field(Sensors(), description="meters and their errors")
    transport: Transport = Field("embedded", description="embedded, memory, or {mqtt: {...}}")
    message_timeout_s: Positive = Field(10.0, description="time to wait for an announced message [s]")
    stall_s: Positive = Field(60.0, description="wall-clock time without progress after which a warning tells why [s]")
    estimator: EstimatorConfig = Field(EstimatorConfig(), description="how unmetered injections are found")
    operator: OperatorConfig = Field(OperatorConfig(), description="the operator's rule")
    resources: dict[str, ResourceConfig] = Field({}, description="flexible resources, by name")
    aggregators: dict[str, AggregatorConfig] = Field(
        {}, description="how aggregators offer, by name; those not named offer as the entry `default` says"
    )
    dso: DsoConfig = Field(DsoConfig(), description="the buyer of local flexibility")
    market: MarketConfig | None = Field(None, description="the local flexibility market; none without it")
    settlement: SettlementConfig | None = Field(
        None, description="measurement and settlement of what the market bought; none without it"
    )
    coordination: CoordinationConfig | None = Field(
        None, description="how DSO and TSO share flexibility; without it the local market is by itself"
    )
    transmission: TransmissionConfig = Field(TransmissionConfig(), description="the system above the feeder")
    recorder: RecorderConfig = Field(RecorderConfig(), description="the result file")
    remote: tuple[str, ...] = Field((), description="own simulators to run as separate processes, e.g. [estimator]")
    simulators: dict[str, ForeignSimulator] = Field({}, description="foreign mosaik simulators, by name")

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        problems: dict[str, str] = {}
        for long, short in (("mtu", "step"), ("duration", "mtu")):
            long_s, short_s = getattr(self, long), getattr(self, short)
            if long_s % short_s:
                key = long if long in self.model_fields_set else short
                long_text, short_text = format_duration(long_s), format_duration(short_s)
                problems[key] = f"{long} ({long_text}) must be a whole number of {short}s ({short_text})"
        checkpoint_s = self.recorder.checkpoint
        if checkpoint_s < self.duration and checkpoint_s % self.mtu:
            checkpoint_text, mtu_text = format_duration(checkpoint_s), format_duration(self.mtu)
            problems["recorder.checkpoint"] = (
                f"recorder.checkpoint ({checkpoint_text}) must be a whole number of mtus ({mtu_text})"
            )
        if problems:
            context = {"problem": "; ".join(problems.values()), "key": next(iter(problems))}
            raise PydanticCustomError("times", "{problem}", context)
        return self

    @property
    def clock(self) -> Clock:
        return Clock(self.start.astimezone(UTC), self.step, self.duration // self.step, self.mtu)

    @property
    def segment_steps(self) -> int:
        """Steps from one checkpoint to the next; those of the whole run if there are none between."""
        steps = self.duration // self.step
        return min(self.recorder.checkpoint // self.step, steps) or steps

    @property
    def longest_wait_s(self) -> float:
        """Wall-clock time that a step waits at most until it is due in a replay in real time [s]."""
        replay = self.sensors.replay
        return self.step / replay.real_time_factor if replay is not None and replay.real_time_factor else 0.0

    def local(self, instant: datetime) -> datetime:
        """``instant`` in the offset that the scenario's start is written in."""
        return instant.astimezone(self.start.tzinfo)
