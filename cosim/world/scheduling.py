"""mosaik's scheduler with less arithmetic: the same steps with the same inputs.

After each step of any simulator mosaik sets the progress of all of them, though most have not moved, and looks through
whoever waits for them; to wait for k inputs it makes k tasks. With a dozen simulators that is a third of a run's time.
While a world is open, four of its functions are replaced by others that give the same (docs/decisions/0014).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from mosaik import scheduler
from mosaik.progress import Progress
from mosaik.tiered_time import TieredDuration, TieredTime

KNOWN = ("3.6.", "3.7.")
"""Versions of mosaik in which the four functions are what they are taken for; others run as they come."""


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


async def _wait_for_dependencies(sim: Any, lazy_stepping: bool) -> None:
    """One after the other, without a task for each, as mosaik does from 3.7 on: it is the last that counts."""
    step = sim.next_steps[0]
    for source, delays in sim.input_delays.items():
        for delay in delays.durations:
            await source.progress.has_passed(step, shift=delay)
    waits_for = [*sim.successors_to_wait_for.items(), *(sim.successors.items() if lazy_stepping else ())]
    for target, delay in waits_for:
        await target.progress.has_reached(step + delay)


_set_anyway, _advance_progress_anyway = Progress.set, scheduler.advance_progress


def _set(self: Progress, time: TieredTime) -> None:
    """Who waits was looked through when it began to wait, and need not be again before the time moves."""
    if time.tiers != self.time.tiers:
        _set_anyway(self, time)


def _advance_progress(sim: Any, world: Any) -> None:
    """The end of the run counts only where nothing comes before it; no progress is shown."""
    if world.rt_factor:
        _advance_progress_anyway(sim, world)
        return
    times = [reach.earliest_sum(by.next_steps[0]) for by, reach in sim.triggering_ancestors.items() if by.next_steps]
    times += sim.next_steps[:1]
    if sim.current_step:
        times.append(sim.current_step)
    first = min(times, default=None)
    if first is None or first.tiers[0] >= world.until:
        first = TieredTime(world.until) + sim.from_world_time
    sim.progress.set(first)


def _add(self: TieredTime, interval: TieredDuration) -> TieredTime:
    tiers, added, cutoff = self.tiers, interval.tiers, interval.cutoff
    if len(tiers) != interval.pre_length:
        raise AssertionError(f"a time of {len(tiers)} tiers and an interval from {interval.pre_length}")
    if len(tiers) == 1:
        return TieredTime(tiers[0] + added[0], *added[1:])
    return TieredTime(*[time + more for time, more in zip(tiers, added[:cutoff], strict=False)], *added[cutoff:])


_REPLACED: tuple[tuple[Any, str, Any, Any], ...] = (
    (scheduler, "wait_for_dependencies", scheduler.wait_for_dependencies, _wait_for_dependencies),
    (scheduler, "advance_progress", _advance_progress_anyway, _advance_progress),
    (Progress, "set", _set_anyway, _set),
    (TieredTime, "__add__", TieredTime.__add__, _add),
)
