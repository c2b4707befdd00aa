"""From a case to a mosaik world: starts the simulators, connects them by the wiring, and everything to the recorder."""

from __future__ import annotations

import asyncio
import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mosaik
import numpy as np
import tqdm
from loguru import logger
from mosaik.exceptions import SimulationError
from mosaik.starters import PythonStarter, Starter

from cosim.case import Case
from cosim.domain.frames import RECORDED, EventTable, Message, Signal
from cosim.errors import CosimError, SimulatorError
from cosim.io.store import ResultWriter
from cosim.io.transport import MemoryBus
from cosim.scenario.schema import ForeignSimulator
from cosim.wiring import CLASSES, LOOP, Link, Port, answering, links_of, simulators_of
from cosim.world.calls import Calls
from cosim.world.foreign import foreign_starter, names_checked
from cosim.world.guard import GuardedStarter
from cosim.world.process import ProcessStarter
from cosim.world.scheduling import lean_scheduling
from simulators.wire import decode, encode

OWN_TIMEOUT_S = 600.0
_ANSWERS = 100
_NEVER_S = 1e9  # guards have time limits of their own; mosaik's would end the whole process


@dataclass(frozen=True)
class Connections:
    """How sensors and gateway reach each other: in ``memory``, or by the port of the embedded broker, or neither when
    the scenario names a broker. ``run`` marks the messages of this run."""

    run: str
    memory: bool = False
    port: int | None = None

    def options(self) -> dict[str, Any]:
        """What sensors and gateway of a segment are given; in memory, a bus of their own."""
        given = {"run": self.run, "bus": MemoryBus() if self.memory else None, "port": self.port}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Span:
    """Steps ``first`` to, exclusive, ``last`` of a run. ``began``: the simulated time [s] at which it began or went on,
    and when that was [s, of `time.monotonic`, the same in all processes]."""

    first: int
    last: int
    began: tuple[int, float]


@contextmanager
def _own_error(begin_s: int) -> Iterator[None]:
    """mosaik's own error, such as of simulators that answer each other for ever, as ours."""
    try:
        yield
    except SimulationError as error:
        since = f" (times since {begin_s} s)" if begin_s else ""
        raise SimulatorError(f"{error}{since}") from error


@contextmanager
def open_world(case: Case) -> Iterator[mosaik.World]:
    """A world for the simulators of a case, in which they may answer each other so often as its scheme needs."""
    answers = max(_ANSWERS, 0 if case.scheme is None else 1 + case.scheme.most_clearings)
    logger.disable("mosaik")
    tqdm.tqdm.monitor_interval = 0  # mosaik's hidden progress bars would keep a thread
    try:
        with (
            lean_scheduling(),
            mosaik.World(
                {},
                mosaik_config={"start_timeout": _NEVER_S},
                cache=False,
                skip_greetings=True,
                configure_logging=False,
                max_loop_iterations=answers,
            ) as world,
        ):
            yield world
    finally:
        asyncio.set_event_loop(None)


@contextmanager
def _no_task_left(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Ends the tasks begun meanwhile: when one simulator fails, mosaik leaves those of the others waiting."""
    before = asyncio.all_tasks(loop)
    try:
        yield
    finally:
        left = asyncio.all_tasks(loop) - before
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


class Composer:
    """Builds the world of the steps of a ``span``, and runs it."""

    def __init__(
        self,
        world: mosaik.World,
        case: Case,
        connections: Connections,
        thresholds_kw: dict[str, float],
        calls: Calls,
        span: Span,
    ) -> None:
        self._world, self._case, self._calls, self._span = world, case, calls, span
        self._begin_s = span.first * case.clock.step_s
        self._links = links_of(case.scenario, case.scheme)
        ways = connections.options()
        self._options: dict[str, dict[str, Any]] = {
            "sensors": ways | {"began": span.began},
            "gateway": ways,
            "operator": {"thresholds_kw": thresholds_kw},
        }
        self._own: dict[str, Any] = {}
        self._entities: dict[tuple[str, str], Any] = {}
        self._outputs: list[tuple[Port, Signal | EventTable]] = []

    def start_all(self) -> None:
        case = self._case
        groups = [LOOP if case.scenario.operator.action == "same" else (), answering(case.scheme)]
        for name in simulators_of(case.scenario, case.scheme):
            if not any(name in group for group in groups):
                self._start(name)
        for group in groups:
            with self._world.group():
                for name in group:
                    self._start(name)

    def _start(self, name: str) -> None:
        foreign = self._case.scenario.simulators.get(name)
        if foreign is not None:
            self._start_foreign(name, foreign)
            return
        remote = name in self._case.scenario.remote
        timeout_s = OWN_TIMEOUT_S + (self._case.scenario.longest_wait_s if name == "sensors" else 0.0)
        factory = self._world.start(
            self._guard(name, _own_starter(name, remote), timeout_s),
            sim_id=name,
            case=self._case.payload() if remote else self._case,
            begin_s=self._begin_s,
            wire=remote or any(link.target.simulator in self._case.scenario.remote for link in self._from(name)),
            **self._options.get(name, {}),
        )
        self._own[name] = factory
        linked = {link.target.entity for link in self._links if link.target.simulator == name}
        models: dict[str, Any] = factory.models  # type: ignore[assignment]
        for model in models:
            if model == "foreign_pod":
                for entity in sorted(e for e in linked if e.startswith("foreign_pod:")):
                    self._entities[name, entity] = factory.foreign_pod(pod=entity.partition(":")[2])
                continue
            entity = getattr(factory, model)()
            self._entities[name, model] = entity
            recorded = (_output(described) for described in entity.extra_info if described["kind"] != Message.__name__)
            self._outputs += [(Port(name, model, _name(output)), output) for output in recorded]

    def _start_foreign(self, name: str, foreign: ForeignSimulator) -> None:
        starter = foreign_starter(self._case.loaded, name)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Simulator .* is using an outdated API version")
                factory = self._world.start(
                    self._guard(name, starter, foreign.timeout_s, foreign=True), sim_id=name, **foreign.params
                )
            meta: Any = factory.meta
            names_checked(self._case.loaded, name, meta)
            entities: list[Any] = getattr(factory, foreign.model).create(foreign.count, **foreign.model_params)
        except CosimError:
            raise
        except Exception as error:  # mosaik has no type of its own for a wrong description of models or entities
            raise SimulatorError(f"simulator {name} could not be started: {type(error).__name__}: {error}") from None
        if factory.type == "event-based":
            self._world.set_initial_event(name)
        for k, entity in enumerate(entities):
            self._entities[name, str(k)] = entity

    def _guard(self, name: str, inner: Starter, timeout_s: float, foreign: bool = False) -> GuardedStarter:
        return GuardedStarter(name, inner, timeout_s, self._calls, self._begin_s, foreign)

    def _from(self, name: str) -> list[Link]:
        return [link for link in self._links if link.source.simulator == name]

    def connect_all(self, values: Mapping[str, Any] | None) -> None:
        """Connects simulators; ``values`` of the step before, as `values_for_next` gave them, by source."""
        first: dict[str, Any] = {
            "operator": np.zeros(len(self._case.storage)),
            "dso": np.array(list(self._case.measures_start.values()), dtype=float),
        }
        for link in self._links:
            source = self._entities[link.source.simulator, link.source.entity]
            target = self._entities[link.target.simulator, link.target.entity]
            how: dict[str, Any] = {}
            if link.when == "next":
                if values is not None:
                    before = self._wired(link, decode(values[str(link.source)]))
                else:
                    before = [] if link.message else self._wired(link, first[link.source.simulator])
                how = {"time_shifted": True, "initial_data": {link.source.attribute: before}}
            elif link.when == "back":
                how = {"weak": True}
            if link.source.simulator in self._case.scenario.simulators:
                how["transform"] = _times(link.scale)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".* is not recommended")  # the grid holds values of events itself
                self._world.connect(source, target, (link.source.attribute, link.target.attribute), **how)

    def _wired(self, link: Link, values: np.ndarray[Any, Any]) -> Any:
        """Initial data in the form that the target can receive."""
        return encode(values) if link.target.simulator in self._case.scenario.remote else values

    def restore(self, states: Mapping[str, Any]) -> None:
        """Gives simulators what `states` gave."""
        for name, factory in self._own.items():
            factory.restore(states[name])

    def ended(self) -> None:
        """Has the simulators that answer each other look whether all of the last step came to an end. Raises CosimError
        if not."""
        for name in answering(self._case.scheme):
            self._own[name].ended()

    def states(self) -> dict[str, Any]:
        """All that lasts of simulators of ours, but the recorder, by name, as plain JSON."""
        return {name: factory.state() for name, factory in self._own.items()}

    def values_for_next(self) -> dict[str, Any]:
        """The latest values that reach their targets in the step after, by source, as plain JSON."""
        found = {}
        for source in dict.fromkeys(link.source for link in self._links if link.when == "next"):
            entity = self._entities[source.simulator, source.entity]
            found[str(source)] = encode(self._world.get_data([entity], source.attribute)[entity][source.attribute])
        return found

    def run(self) -> None:
        """Runs the span."""
        steps = self._span.last - self._span.first
        with _no_task_left(self._world.loop), _own_error(self._begin_s):
            self._world.run(until=steps * self._case.clock.step_s, print_progress=False)

    def _declare(self, writer: ResultWriter) -> None:
        by_model: dict[tuple[str, str], list[Signal]] = {}
        for port, output in self._outputs:
            if isinstance(output, Signal):
                by_model.setdefault((port.simulator, port.entity), []).append(output)
            else:
                writer.declare_events(port.simulator, output)
        for (simulator, model), signals in by_model.items():
            writer.declare(simulator, model, signals)

    def record(self, writer: ResultWriter, on_step: Callable[[int], None], declares: bool) -> None:
        """Connects all outputs to a recorder, after they have been declared to the writer if it ``declares`` them."""
        if declares:
            self._declare(writer)
        factory = self._world.start(
            self._guard("recorder", _own_starter("recorder", False), OWN_TIMEOUT_S),
            sim_id="recorder",
            case=self._case,
            begin_s=self._begin_s,
            wire=False,
            writer=writer,
            tables=frozenset(_path(port) for port, output in self._outputs if isinstance(output, EventTable)),
            on_step=on_step,
        )
        inbox = factory.inbox()
        for simulator, entity in dict.fromkeys((port.simulator, port.entity) for port, _ in self._outputs):
            self._world.connect(self._entities[simulator, entity], inbox, (RECORDED, f"{simulator}/{entity}"))


def _own_starter(name: str, remote: bool) -> Starter:
    if remote:
        return ProcessStarter(["%(python)s", "-m", "simulators", name, "%(addr)s"])
    module, _, class_name = CLASSES[name].partition(":")
    return PythonStarter(getattr(importlib.import_module(module), class_name))


def _times(scale: float) -> Callable[[Any], float]:
    return lambda value: float(value) * scale


def _output(described: dict[str, Any]) -> Signal | EventTable:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in described.items() if k != "kind"}
    return Signal(**fields) if described["kind"] == "Signal" else EventTable(**fields)


def _name(output: Signal | EventTable) -> str:
    return output.attribute if isinstance(output, Signal) else output.name


def _path(port: Port) -> str:
    return f"{port.simulator}/{port.entity}/{port.attribute}"
