"""mosaik's scheduler with less arithmetic: the same steps with the same inputs.

After each step of any simulator mosaik sets the progress of all of them, though most have not moved, and looks through
whoever waits for them; to wait for k inputs it makes k tasks. With a dozen simulators that is a third of a run's time.
While a world is open, five of its functions are replaced by others that give the same (docs/decisions/0014).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from mosaik import scheduler
from mosaik.tiered_time import TieredDuration, TieredTime

KNOWN = ("3.6.", "3.7.")
"""Versions of mosaik in which the five functions are what they are taken for; others run as they come."""


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


_advance_progress_anyway = scheduler.advance_progress


def _advance_progress(sim: Any, world: Any) -> None:
    """Nothing moves during a step, nor where the time is what it was; the end of the run counts only where nothing
    comes before it. Who is in the middle of a step can still say something at its time, as from mosaik 3.7 on."""
    if world.rt_factor:
        _advance_progress_anyway(sim, world)
        return
    if sim.current_step is not None:
        return
    first = sim.next_steps[0] if sim.next_steps else None
    for by, reach in sim.triggering_ancestors.items():
        if by.current_step or by.next_steps:
            earliest = reach.earliest_sum(by.current_step or by.next_steps[0])
            first = earliest if first is None or earliest.tiers < first.tiers else first
    if first is None or first.tiers[0] >= world.until:
        first = TieredTime(world.until) + sim.from_world_time
    if first.tiers != sim.progress.time.tiers:
        sim.progress.set(first)


def _share_done(sims: Mapping[str, Any], until: int) -> float:
    """[%]"""
    done_s: int = sum([sim.progress.time.tiers[0] for sim in sims.values()])
    return 100.0 * done_s / (len(sims) * until)


def _no_bar(sims: Mapping[str, Any], until: int) -> int:
    """No progress bar is shown."""
    return 0


def _add(self: TieredTime, interval: TieredDuration) -> TieredTime:
    tiers, added, cutoff = self.tiers, interval.tiers, interval.cutoff
    if len(tiers) != interval.pre_length:
        raise AssertionError(f"a time of {len(tiers)} tiers and an interval from {interval.pre_length}")
    if len(tiers) == 1:
        return self if added == (0,) else TieredTime(tiers[0] + added[0], *added[1:])
    return TieredTime(*[time + more for time, more in zip(tiers, added[:cutoff], strict=False)], *added[cutoff:])


_REPLACED: tuple[tuple[Any, str, Any, Any], ...] = (
    (scheduler, "wait_for_dependencies", scheduler.wait_for_dependencies, _wait_for_dependencies),
    (scheduler, "advance_progress", _advance_progress_anyway, _advance_progress),
    (scheduler, "get_progress", scheduler.get_progress, _share_done),
    (scheduler, "get_avg_progress", scheduler.get_avg_progress, _no_bar),
    (TieredTime, "__add__", TieredTime.__add__, _add),
)
