"""Runs a scenario into a result file: transport, progress, interruption, and a status that tells the truth."""

from __future__ import annotations

import json
import platform
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tqdm

from cosim.case import Case, open_case
from cosim.errors import CosimError, Interrupted
from cosim.io.broker import EmbeddedBroker
from cosim.io.store import ResultWriter
from cosim.io.transport import MemoryBus
from cosim.prepare import Prepared, prepare
from cosim.scenario.load import LoadedScenario
from cosim.world.compose import Connections, run_world
from cosim.world.guard import Stopwatch

PACKAGES = ("mosaik", "opendssdirect.py", "dss_python", "numpy", "scipy", "pandas", "pygad", "h5py", "simbench")


@dataclass(frozen=True)
class Finished:
    """A run that reached its end: its result file, and what was prepared for it."""

    path: Path
    prepared: Prepared


def run(loaded: LoadedScenario, out: Path | None = None, *, progress: bool = False) -> Finished:
    """Runs a scenario and writes its result file (``out``, else as the scenario says, else ``results/<name>.h5``).

    Raises InputError for faults in the input before anything is written; any other CosimError after the result file
    has been marked ``failed`` (``interrupted`` after Ctrl-C or SIGTERM) and closed, complete to the last whole step.
    """
    case = open_case(loaded)
    prepared = prepare(case)
    path = out or _result_path(loaded)
    with ExitStack() as stack:
        connections = _connections(case, stack)
        recorder = case.scenario.recorder
        attributes = _attributes(case, prepared)
        writer = ResultWriter(path, case.clock, recorder.flush_steps, recorder.compression, attributes)
        stack.enter_context(writer)
        interrupted = stack.enter_context(_interruption())
        bar = stack.enter_context(_progress_bar(case, progress))
        stopwatch = Stopwatch()

        def on_step(step: int) -> None:
            writer.timing(step, stopwatch.take())
            writer.end_step(step)
            bar(step)
            if interrupted():
                raise Interrupted(
                    f"interrupted after step {step} ({case.clock.instant((step + 1) * case.clock.step_s)})"
                )

        try:
            run_world(case, connections, prepared.thresholds_kw, writer, on_step, stopwatch)
            writer.finish("complete")
        except Interrupted as error:
            writer.finish("interrupted", str(error))
            raise
        except CosimError as error:
            writer.finish("failed", str(error))
            raise
    return Finished(path, prepared)


def _result_path(loaded: LoadedScenario) -> Path:
    return loaded.scenario.recorder.file or Path("results") / f"{loaded.scenario.name}.h5"


def _connections(case: Case, stack: ExitStack) -> Connections:
    run_id = secrets.token_hex(4)  # marks messages on a shared broker; no result depends on it
    if case.scenario.transport == "memory":
        return Connections(run_id, bus=MemoryBus())
    if case.scenario.transport == "embedded":
        return Connections(run_id, port=stack.enter_context(EmbeddedBroker()).port)
    return Connections(run_id)


def _attributes(case: Case, prepared: Prepared) -> dict[str, str | int | float]:
    return {
        "name": case.scenario.name,
        "scenario": json.dumps(case.scenario.model_dump(mode="json")),
        "prepared": json.dumps(asdict(prepared), default=str),
        "seed": case.scenario.seed,
        "versions": json.dumps({"python": platform.python_version(), "cosim": version("cosim")} | _versions()),
        "git_commit": _git_commit(),
        "feeder": case.feeder.name,
        "storage": json.dumps([asdict(unit) for unit in case.storage]),
        "buses_above": json.dumps(case.layout.above(case.feeder.head_terminal)),
        "pod_sites": json.dumps(dict(zip(case.pods, case.pod_sites, strict=True))),
        "channels": json.dumps([asdict(channel) for channel in case.sensor_model.channels]),
        **({} if case.scheme is None else {"scheme": json.dumps(case.scheme.model_dump(mode="json"))}),
    }


def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def _git_commit() -> str:
    """The commit of the checkout that this code runs from, with a + if it has changes; empty outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    try:
        said = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip()


@contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """While it lasts, the first Ctrl-C or SIGTERM asks the run to end after its step; a second Ctrl-C is immediate."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs us there handles signals
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress_bar(case: Case, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Called with each finished step: simulated time, rate and remaining time, on a terminal only."""
    clock = case.clock
    form = "{desc} |{bar}| {percentage:3.0f}% {rate_fmt} left {remaining}"
    with tqdm.tqdm(
        total=clock.steps, unit="step", bar_format=form, disable=None if wanted else True, dynamic_ncols=True
    ) as bar:

        def advance(step: int) -> None:
            if not bar.disable:
                local = case.scenario.local(clock.instant((step + 1) * clock.step_s))
                bar.set_description_str(f"{case.scenario.name} {local:%Y-%m-%d %H:%M}", refresh=False)
            bar.update(1)

        yield advance
