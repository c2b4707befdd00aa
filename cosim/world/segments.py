"""A run as a chain of segments, each in a world of its own, with a checkpoint between two.

Every run, interrupted or not, begins a segment the same way: new simulators take over what the checkpoint holds, read
back from its text. So a run that goes on from a checkpoint computes what the whole one would have computed.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosim.case import Case
from cosim.errors import ResumeError, SimulatorError
from cosim.io.checkpoint import Checkpoint
from cosim.io.store import ResultWriter
from cosim.wiring import links_of
from cosim.world.calls import Calls
from cosim.world.compose import Composer, Connections, Span, open_world
from cosim.world.watch import watched


@dataclass(frozen=True)
class Run:
    """What all segments of a run have in common."""

    case: Case
    connections: Connections
    thresholds_kw: dict[str, float]
    writer: ResultWriter
    on_step: Callable[[int], None]
    """Called with the step's index when all of it has been given to ``writer``."""
    calls: Calls


def run_segments(run: Run, since: Checkpoint | None) -> None:
    """Runs a case from a checkpoint, or from its first step, to its last.

    Raises the error of the simulator that failed, SimulatorError naming it if the error was not one of ours or mosaik
    stopped early; ResumeError if simulators cannot take over what the checkpoint holds.
    """
    case, steps = run.case, run.case.clock.steps
    saved = None if since is None else json.loads(since.text)
    first = 0 if since is None else since.step
    declares, began = True, (first * case.clock.step_s, time.monotonic())
    run.calls.begin()
    stall_s = case.scenario.stall_s + case.scenario.longest_wait_s
    with watched(run.calls, links_of(case.scenario, case.scheme), stall_s), _little_garbage():
        while first < steps:
            last = min(first + case.scenario.segment_steps, steps)
            text = _run_segment(run, Span(first, last, began), saved, declares)
            if text is not None:
                run.writer.checkpoint(text)
                saved = json.loads(text)
            first, declares = last, False
            gc.collect()


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Leaves what there is out of garbage collection while it lasts. A world that has ended is garbage in cycles: left
    to Python it would pile up, and to look through all else for it would take longer than to begin a segment."""
    ours = gc.get_freeze_count() == 0
    if ours:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()


def _run_segment(run: Run, span: Span, saved: Any, declares: bool) -> str | None:
    """The steps of a segment; gives all that lasts until the next as text, None if there is none."""
    ended = span.first - 1

    def count(step: int) -> None:
        nonlocal ended
        ended = step
        run.on_step(step)
        if step == span.last - 1:
            run.calls.begin()

    case = run.case
    with open_world(case) as world:
        composer = Composer(world, case, run.connections, run.thresholds_kw, run.calls, span)
        composer.start_all()
        with _from_file(run.writer.path) if declares and saved is not None else nullcontext():
            composer.connect_all(None if saved is None else saved["links"])
            if saved is not None:
                composer.restore(saved["states"])
        composer.record(run.writer, count, declares)
        run.writer.start()
        run.calls.begun()
        composer.run()
        if ended != span.last - 1:
            raise SimulatorError(f"the run ended after step {ended} of {case.clock.steps - 1} without an error")
        composer.ended()
        if span.last == case.clock.steps:
            return None
        return json.dumps({"states": composer.states(), "links": composer.values_for_next()})


@contextmanager
def _from_file(path: Path) -> Iterator[None]:
    """Turns the error of a simulator that cannot take over its memory from a file, or of one or a link for which there
    is none, into a ResumeError."""
    try:
        yield
    except (KeyError, SimulatorError) as error:
        what = f"nothing is kept for {error}" if isinstance(error, KeyError) else str(error)
        raise ResumeError(
            f"{path}: cannot go on from its checkpoint, which another version of cosim may have written (see its "
            f"attributes versions and git_commit): {what}"
        ) from error
