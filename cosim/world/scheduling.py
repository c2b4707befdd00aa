"""mosaik's loop of a simulator with less arithmetic: the same steps with the same inputs.

After each step of any simulator mosaik sets the progress of all of them, though most cannot have moved, and looks
through whoever waits for them; to wait for k inputs it makes k tasks; and it merges the inputs that last with
themselves. With a dozen simulators that is a third of a run's time. While a world is open, three of its functions are
replaced by others that give the same (docs/decisions/0014).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heappop
from importlib.metadata import version
from typing import Any

from mosaik import scheduler
from mosaik.exceptions import SimulationError
from mosaik.progress import Progress
from mosaik.tiered_time import TieredDuration, TieredTime

KNOWN = ("3.6.", "3.7.")
"""Versions of mosaik in which the three functions are what they are taken for; others run as they come."""


@contextmanager
def lean_scheduling() -> Iterator[None]:
    """Lets worlds run with less arithmetic while it lasts."""
    if not version("mosaik").startswith(KNOWN):
        yield
        return
    try:
        for place, name, _, ours in _REPLACED:
            setattr(place, name, ours)
        yield
    finally:
        for place, name, theirs, _ in _REPLACED:
            setattr(place, name, theirs)


async def _run(
    world: Any, sim: Any, until: int, rt_factor: None, rt_strict: bool, lazy_stepping: bool, start_barrier: Any
) -> None:
    """All steps of a simulator. Who ends one can move only itself and whom it triggers, directly or not."""
    sim.started = True
    await start_barrier.wait()
    sims = world._get_sim_runners()
    moved = [other for other in sims.values() if other is sim or sim in other.triggering_ancestors]
    try:
        _advance(sim, until)
        while await scheduler.next_step_settled(sim, world):
            await _wait_for_dependencies(sim, lazy_stepping)
            sim.current_step = heappop(sim.next_steps)
            _check_step(sim, world.max_loop_iterations)
            max_advance = scheduler.get_max_advance(world, sim, until)
            await scheduler.step(world, sim, _inputs(sim), max_advance)
            await scheduler.get_outputs(world, sim)
            sim.current_step = None
            scheduler.trigger_successors(sim)
            for other in moved:
                _advance(other, until)
            world.sim_progress = sum([each.progress.time.tiers[0] for each in sims.values()]) * 100 / len(sims) / until
    except ConnectionError as error:
        raise SimulationError(f'Simulator "{sim.sid}" closed its connection.', error) from error


def _check_step(sim: Any, most_answers: int) -> None:
    step = sim.current_step.tiers
    if step != sim.progress.time.tiers:
        raise SimulationError(f"Simulator {sim.sid} is to make its step at {step}, but is at {sim.progress.time}.")
    if max(step[1:], default=0) >= most_answers:
        raise SimulationError(
            f"Simulator {sim.sid} has performed a sub-step more than {most_answers} times. (The complete now is "
            f"{sim.current_step}.) This might indicate that you have run into an infinite loop."
        )


async def _wait_for_dependencies(sim: Any, lazy_stepping: bool) -> None:
    """One after the other, without a task for each, as mosaik does from 3.7 on: it is the last that counts. For what is
    there already nothing is awaited."""
    step = sim.next_steps[0]
    for source, delays in sim.input_delays.items():
        for delay in delays.durations:
            if (source.progress.time + delay).tiers <= step.tiers:
                await source.progress.has_passed(step, shift=delay)
    waits_for = [*sim.successors_to_wait_for.items(), *(sim.successors.items() if lazy_stepping else ())]
    for target, delay in waits_for:
        until = step + delay
        if target.progress.time.tiers < until.tiers:
            await target.progress.has_reached(until)


def _inputs(sim: Any) -> dict[str, Any]:
    """What came, on top of what lasts. The dictionaries of what lasts are handed on themselves, so that what comes for
    them stays in them."""
    lasting: dict[str, Any] = dict(sim.persistent_inputs)
    return sim.timed_input_buffer.get_input(lasting, sim.current_step.time)  # type: ignore[no-any-return]


def _advance(sim: Any, until: int) -> None:
    """Sets the progress to the earliest time at which a simulator can make a step. Nothing moves during a step; who is
    in the middle of one can still say something at its time, as from mosaik 3.7 on."""
    if sim.current_step is not None:
        return
    possible = [sim.next_steps[0].tiers] if sim.next_steps else []
    for by, delays in sim.triggering_ancestors.items():
        at = by.next_steps[0] if by.current_step is None and by.next_steps else by.current_step
        if at is not None:
            possible += [(at + delay).tiers for delay in delays.durations]
    first = min(possible, default=(until,))
    now = sim.progress.time
    if first[0] >= until:
        first = (until, *[0] * (len(now.tiers) - 1))
    if first != now.tiers:
        sim.progress.set(TieredTime(*first))


def _triggered_time(self: Progress, waiting: tuple[TieredTime, TieredDuration, bool]) -> TieredTime | None:
    """The time at whoever waits, if that has been reached, or passed where it has to."""
    target, shift, has_to_pass = waiting
    there = self.time + shift
    reached = there.tiers > target.tiers if has_to_pass else there.tiers >= target.tiers
    return there if reached else None


def _add(self: TieredTime, interval: TieredDuration) -> TieredTime:
    tiers, added, cutoff = self.tiers, interval.tiers, interval.cutoff
    if len(tiers) != interval.pre_length:
        raise AssertionError(f"a time of {len(tiers)} tiers and an interval from {interval.pre_length}")
    if len(tiers) == 1:
        return self if added == (0,) else TieredTime(tiers[0] + added[0], *added[1:])
    return TieredTime(*[time + more for time, more in zip(tiers, added[:cutoff], strict=False)], *added[cutoff:])


_REPLACED: tuple[tuple[Any, str, Any, Any], ...] = (
    (scheduler, "sim_process", scheduler.sim_process, _run),
    (Progress, "_triggered_time", Progress._triggered_time, _triggered_time),
    (TieredTime, "__add__", TieredTime.__add__, _add),
)
