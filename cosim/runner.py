"""Runs a scenario into a result file, or goes on with one: transport, progress, interruption, and a status that tells
the truth."""

from __future__ import annotations

import json
import logging
import platform
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tqdm

from cosim.case import Case, open_case
from cosim.case_files import input_digests
from cosim.errors import CosimError, Interrupted
from cosim.io.store import ResultWriter
from cosim.io.takeover import Earlier
from cosim.prepare import Prepared, prepare, prepared_as_plain
from cosim.resuming import Unfinished, source_of, unfinished
from cosim.scenario.load import LoadedScenario
from cosim.threads import one_thread
from cosim.world.calls import Calls
from cosim.world.compose import Connections
from cosim.world.segments import Run, run_segments

_log = logging.getLogger(__name__)

PACKAGES = ("mosaik", "opendssdirect.py", "dss_python", "numpy", "scipy", "pandas", "pygad", "h5py", "simbench")


@dataclass(frozen=True)
class Finished:
    """A run that reached its end: its result file, and what was prepared for it."""

    path: Path
    prepared: Prepared


@one_thread()
def run(loaded: LoadedScenario, out: Path | None = None, *, progress: bool = False) -> Finished:
    """Runs a scenario and writes its result file (``out``, else as the scenario says, else ``results/<name>.h5``).

    Raises InputError for faults in the input before anything is written; any other CosimError after the result file
    has been marked ``failed`` (``interrupted`` after Ctrl-C or SIGTERM) and closed, complete to the last whole step.
    """
    case = open_case(loaded)
    prepared = prepare(case)
    path = out or _result_path(loaded)
    return _run(case, prepared, path, _attributes(case, prepared), None, progress)


@one_thread()
def resume(path: Path, scenario: Path | None = None, *, progress: bool = False) -> Finished:
    """Goes on with the run that left an unfinished result file, from its last checkpoint; anew if there is none yet.

    The scenario is read again from where it was (``scenario``: the file, if it has moved), with the same overrides. The
    file finished is, in all that counts for its `result_hash`, that of a run without interruption.

    Raises ResultError if the file is complete, is being written or is not one of this version; ScenarioError, with key,
    then and now, if the scenario or an input file is not what it was; and all that `run` raises.
    """
    left = unfinished(path)
    case = open_case(left.load(scenario))
    left.require_unchanged(case)
    if left.earlier is None:
        _log.warning("%s: has no checkpoint yet, so its run begins anew", path)
    if changed := changed_software(left):
        _log.warning("%s: other software than when its run began (%s): numbers may differ", path, ", ".join(changed))
    return go_on(case, left, progress=progress)


def go_on(case: Case, left: Unfinished, *, progress: bool = False) -> Finished:
    """Goes on with the unfinished run of a case. Raises as `run`, and ResumeError before anything is written if its
    file turns out to be broken."""
    own = ("status", "error", "steps_recorded", "format", "format_version", "Conventions", "created_by")
    attributes = {name: value for name, value in left.attributes.items() if name not in own}
    attributes["history"] = json.dumps([*json.loads(attributes["history"]), _resumption(left)])
    return _run(case, left.prepared, left.path, attributes, left.earlier, progress)


def _run(
    case: Case,
    prepared: Prepared,
    path: Path,
    attributes: Mapping[str, str | int | float],
    earlier: Earlier | None,
    progress: bool,
) -> Finished:
    scenario, clock, since = case.scenario, case.clock, None if earlier is None else earlier.checkpoint
    with ExitStack() as stack:
        connections = _connections(case, stack)
        stack.callback(case.engines.close)
        recorder, segment_steps = scenario.recorder, scenario.segment_steps
        writer = ResultWriter(
            path, clock, recorder.flush_steps, recorder.compression, attributes, segment_steps, earlier
        )
        stack.enter_context(writer)
        interrupted = stack.enter_context(_interruption())
        bar = stack.enter_context(_progress_bar(case, 0 if since is None else since.step, progress))
        calls = Calls()

        def on_step(step: int) -> None:
            writer.timing(step, calls.take())
            writer.end_step(step)
            bar(step)
            if interrupted():
                raise Interrupted(f"interrupted after step {step} ({clock.instant((step + 1) * clock.step_s)})")

        try:
            run_segments(Run(case, connections, prepared.thresholds_kw, writer, on_step, calls), since)
            writer.finish("complete")
        except Interrupted as error:
            writer.finish("interrupted", str(error))
            raise
        except CosimError as error:
            writer.finish("failed", str(error))
            raise
    return Finished(path, prepared)


def changed_software(left: Unfinished) -> list[str]:
    """Which of ``versions`` and ``git_commit`` are not those with which a run began."""
    return [name for name, value in _software().items() if value != left.attributes[name]]


def _resumption(left: Unfinished) -> dict[str, str | int]:
    """What is noted of going on: by which software, from which step."""
    step = 0 if left.earlier is None else left.earlier.checkpoint.step
    return {"resumed_from_step": step, "status": str(left.attributes["status"]), **_software()}


@cache
def _software() -> Mapping[str, str]:
    """Of the code as it is when it is first asked for: that of this process stays the same."""
    return {"versions": _versions_text(), "git_commit": _git_commit()}


def _result_path(loaded: LoadedScenario) -> Path:
    return loaded.scenario.recorder.file or Path("results") / f"{loaded.scenario.name}.h5"


def _connections(case: Case, stack: ExitStack) -> Connections:
    run_id = secrets.token_hex(4)  # marks messages on a shared broker; no result depends on it
    if case.scenario.transport == "memory":
        return Connections(run_id, memory=True)
    if case.scenario.transport == "embedded":
        from cosim.io.broker import EmbeddedBroker  # brings amqtt, which no other transport needs

        return Connections(run_id, port=stack.enter_context(EmbeddedBroker()).port)
    return Connections(run_id)


def _attributes(case: Case, prepared: Prepared) -> dict[str, str | int | float]:
    return {
        "name": case.scenario.name,
        "scenario": json.dumps(case.scenario.model_dump(mode="json")),
        "prepared": json.dumps(prepared_as_plain(prepared), allow_nan=False),
        "seed": case.scenario.seed,
        **_software(),
        "source": json.dumps(source_of(case.loaded)),
        "inputs": json.dumps(input_digests(case.loaded)),
        "history": "[]",
        "feeder": case.feeder.name,
        "storage": json.dumps([asdict(unit) for unit in case.storage]),
        "buses_above": json.dumps(case.layout.above(case.feeder.head_terminal)),
        "pod_sites": json.dumps(dict(zip(case.pods, case.pod_sites, strict=True))),
        "channels": json.dumps([asdict(channel) for channel in case.sensor_model.channels]),
        **({} if case.scheme is None else {"scheme": json.dumps(case.scheme.model_dump(mode="json"))}),
    }


def _versions_text() -> str:
    own = {"python": platform.python_version(), "cosim": version("cosim")}
    return json.dumps(own | {name: version(name) for name in PACKAGES})


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
def _progress_bar(case: Case, first: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Called with each finished step from ``first`` on: simulated time, rate and remaining time, on a terminal only."""
    clock = case.clock
    form = "{desc} |{bar}| {percentage:3.0f}% {rate_fmt} left {remaining}"
    with tqdm.tqdm(
        total=clock.steps,
        initial=first,
        unit="step",
        bar_format=form,
        disable=None if wanted else True,
        dynamic_ncols=True,
    ) as bar:

        def advance(step: int) -> None:
            if not bar.disable:
                local = case.scenario.local(clock.instant((step + 1) * clock.step_s))
                bar.set_description_str(f"{case.scenario.name} {local:%Y-%m-%d %H:%M}", refresh=False)
            bar.update(1)

        yield advance
