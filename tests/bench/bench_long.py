"""Long runs: the whole chain (least squares, market every quarter hour, DSO priority, settlement, recorder) against
what a year of it may take, whether steps get slower, and memory.

CPU time of a process of its own for each feeder, without what opening and preparing takes. Where a row compares with a
target (of this project's own: seconds of CPU for a year of 35,136 steps, milliseconds a step), the ratio tells how many
times as fast as asked; it holds for the machine of the last run only. Counted in loops that do nothing but set the
loads, solve and read the voltages in OpenDSS, a step compares with its target on any machine.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from ratios import Row, alternated, share, times_as_fast
from raw_loop import RawLoop

from cosim.coordination.outcome import StageOutcome
from cosim.coordination.stage import clear_stage
from cosim.io.results import open_results
from cosim.runner import run
from cosim.scenario.load import load_scenario
from cosim.world.calls import Calls

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
STEPS_A_YEAR = 366 * 96
STEPS_OF_GROWTH = 10_000
LOOPS = 500
STEPS_TO_FILL = 28 * 96
"""Until then the days that forecasts, baselines and estimates look back at are still gathered."""
WEEK_STEPS = 7 * 96
MOST_MIB, MOST_GROWTH_MIB = 400.0, 1.0
OPERATORS = ("dso", "tso")


class Case(NamedTuple):
    """A scenario under overrides, others under which no limit binds, and its targets: CPU of a year [s], of an estimate
    and of all clearing [ms], on a machine on which a plain OpenDSS loop takes ``loop_us`` [us]."""

    scenario: str
    overrides: tuple[str, ...]
    unbound: tuple[str, ...]
    year_s: float
    estimate_ms: float
    clearing_ms: float
    loop_us: float


CASES = {
    "mv5": Case("year_mv5.yaml", ("duration=70d",), ("limits.derated=null",), 240.0, 3.0, 1.0, 35.0),
    "ieee123": Case(
        "coordination_ieee123.yaml",
        ("duration=4d", "settlement={}"),
        ("limits.loading_max_pu=1", "limits.vm_min_pu=0.9"),
        480.0,
        8.0,
        3.0,
        282.0,
    ),
}
LARGE = {
    "european_lv": ("market.gate=real_time", "duration=1d"),
    "european_lv, a day ahead": (),
}
"""Overrides of `lfm_european_lv.yaml`, of which the memory is looked at alone."""
UNBOUND = ("duration=2d", "transmission.need.share=0")
"""And nothing is to be balanced."""


class Measured(NamedTuple):
    """One run: CPU milliseconds of each step (that to begin a segment is of its first step) and of a piece of work that
    is always the same, to tell how fast the machine is just then; wall-clock milliseconds of each step, by simulator,
    of all stages cleared, and to begin segments (n_step,); most memory until each step [MiB]."""

    cpu_ms: np.ndarray
    yardstick_ms: np.ndarray
    wall_ms: np.ndarray
    simulator_ms: dict[str, np.ndarray]
    clearing_ms: np.ndarray
    begin_ms: np.ndarray
    peak_mib: np.ndarray


def measured(scenario: str, overrides: Sequence[str]) -> Measured:
    """One run, in the process that calls this."""
    loaded = load_scenario(SCENARIOS / scenario, overrides)
    steps = loaded.scenario.duration // loaded.scenario.step
    cpu_s, yardstick_s, clearing_s, peak_mib = np.full((4, steps + 1), np.nan)  # takes no more memory later
    clearing_s[0], done = 0.0, 0

    def clearing(*given: Any) -> StageOutcome:
        since_s = time.perf_counter()
        outcome = clear_stage(*given)
        clearing_s[done] += time.perf_counter() - since_s
        return outcome

    class Stamping(Calls):
        """Notes CPU time and memory when the runner takes the times, which is at the end of each step."""

        def take(self) -> dict[str, float]:
            nonlocal done
            cpu_s[done] = time.process_time()
            yardstick_s[done] = _yardstick_s()
            peak_mib[done] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            done += 1
            clearing_s[done] = 0.0
            return super().take()

    stamped, timed = patch("cosim.runner.Calls", Stamping), patch("cosim.coordination.party.clear_stage", clearing)
    with TemporaryDirectory() as folder, stamped, timed:
        out = Path(folder, "result.h5")
        run(loaded, out)
        with open_results(out) as results:
            phases = 1e3 * results.phases().fillna(0.0)
    simulators = {str(name): phases[name].to_numpy() for name in phases if "." not in str(name)}
    wall_ms, begin_ms = phases["run.step"].to_numpy(), phases["run.begin"].to_numpy()
    yardstick_ms = 1e3 * yardstick_s[: done - 1]
    cpu_ms = 1e3 * np.diff(cpu_s[:done]) - yardstick_ms
    return Measured(cpu_ms, yardstick_ms, wall_ms, simulators, 1e3 * clearing_s[:done], begin_ms, peak_mib[:done])


def _yardstick_s() -> float:
    since_s = time.process_time()
    sum(k * k for k in range(500))
    return time.process_time() - since_s


def plain_loop_us(feeder: str) -> float:
    """CPU time of setting all loads of a feeder, solving and reading the voltages in OpenDSS alone [us]."""
    raw = RawLoop(feeder)
    p_kw, q_kvar = [10.0] * len(raw.loads), [3.0] * len(raw.loads)

    def work() -> None:
        for _ in range(LOOPS):
            raw.set_loads(p_kw, q_kvar)
            raw.solve()
            raw.voltages()

    work()
    return 1e6 * alternated({"loop": work}, rounds=9)["loop"] / LOOPS


def main() -> list[Row]:
    """All rows."""
    rows: list[Row] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for feeder, case in CASES.items():
            loop_us = pool.submit(plain_loop_us, feeder).result()
            bound = pool.submit(measured, case.scenario, case.overrides).result()
            loop_us = 0.5 * (loop_us + pool.submit(plain_loop_us, feeder).result())
            unbound = pool.submit(measured, case.scenario, (*case.overrides, *UNBOUND, *case.unbound)).result()
            rows += [*_speed(feeder, case, bound, unbound), *_in_loops(feeder, case, bound, unbound, loop_us)]
            rows += _memory(feeder, bound)
            if feeder == "mv5":
                rows.append(_flat(feeder, bound))
        for name, overrides in LARGE.items():
            rows += _memory(name, pool.submit(measured, "lfm_european_lv.yaml", overrides).result())
    return rows


def _speed(feeder: str, case: Case, bound: Measured, unbound: Measured) -> list[Row]:
    step_ms = float(bound.cpu_ms.mean())
    year_s = 1e-3 * step_ms * STEPS_A_YEAR
    mosaik_ms = bound.wall_ms - sum(bound.simulator_ms.values())
    estimate_ms, clearing_ms = _medians_ms(bound, unbound)
    operators_ms = float(np.median(sum(unbound.simulator_ms[name] for name in OPERATORS)))
    begin_ms = bound.begin_ms[bound.begin_ms > 0.0][1:].mean()
    day_ms = float(bound.begin_ms.sum() + bound.wall_ms.sum()) / np.count_nonzero(bound.begin_ms)
    part = "share of a step (wall-clock time)"
    return [
        times_as_fast(f"{feeder}: CPU of a year", year_s, case.year_s, "s", f"target of {case.year_s:g} s over ours"),
        *(
            share(f"{feeder}: {name}", float(ms.mean()), float(bound.wall_ms.mean()), "ms/step", part)
            for name, ms in sorted(bound.simulator_ms.items(), key=lambda entry: -float(entry[1].mean()))
        ),
        share(f"{feeder}: mosaik itself", float(mosaik_ms.mean()), float(bound.wall_ms.mean()), "ms/step", part),
        share(f"{feeder}: to begin a segment", float(begin_ms), day_ms, "ms", "share of a segment of a day"),
        times_as_fast(f"{feeder}: an estimate", estimate_ms, case.estimate_ms, "ms", _target(case.estimate_ms)),
        times_as_fast(
            f"{feeder}: all clearing where nothing binds",
            clearing_ms,
            case.clearing_ms,
            "ms/step",
            _target(case.clearing_ms),
        ),
        share(
            f"{feeder}: clearing, of all that DSO and TSO do there",
            clearing_ms,
            operators_ms,
            "ms/step",
            "share; the rest is forecasts, the look at the limits, and messages",
        ),
    ]


def _medians_ms(bound: Measured, unbound: Measured) -> tuple[float, float]:
    """Of an estimate, and of all clearing in a step where nothing binds."""
    return float(np.median(bound.simulator_ms["estimator"])), float(np.median(unbound.clearing_ms))


def _in_loops(feeder: str, case: Case, bound: Measured, unbound: Measured, loop_us: float) -> list[Row]:
    """The same in plain OpenDSS loops, of which the target's are shorter than those of this machine."""
    estimate_ms, clearing_ms = _medians_ms(bound, unbound)
    step_ms = 1e3 * case.year_s / STEPS_A_YEAR
    parts = (
        ("a step", float(bound.cpu_ms.mean()), step_ms, f"{case.year_s:g} s a year"),
        ("an estimate", estimate_ms, case.estimate_ms, f"{case.estimate_ms:g} ms"),
        ("all clearing where nothing binds", clearing_ms, case.clearing_ms, f"{case.clearing_ms:g} ms"),
    )
    return [
        times_as_fast(
            f"{feeder}: {name} in plain OpenDSS loops of {loop_us:.0f} us",
            1e3 * ours_ms / loop_us,
            1e3 * target_ms / case.loop_us,
            "loops",
            f"target over ours, which is {told} where a loop takes {case.loop_us:g} us",
        )
        for name, ours_ms, target_ms, told in parts
    ]


def _target(ms: float) -> str:
    return f"target of {ms:g} ms over ours (median)"


def _flat(feeder: str, bound: Measured) -> Row:
    """Medians of the same hours of the day, in yardsticks: whole weeks, the last against the first."""
    weeks = slice(None, WEEK_STEPS), slice(-WEEK_STEPS, None)
    first, last = (float(np.median(bound.cpu_ms[week]) / np.median(bound.yardstick_ms[week])) for week in weeks)
    note = f"median step of the last of {round(len(bound.cpu_ms) / WEEK_STEPS)} weeks over that of the first"
    return Row(f"{feeder}: time of a step", last, first, last / first, "yardsticks", note)


def _memory(feeder: str, bound: Measured) -> list[Row]:
    """The peak, and in a run that is long enough its growth once nothing more is gathered."""
    peak_mib, gathered = bound.peak_mib, STEPS_TO_FILL
    rows = [share(f"{feeder}: peak memory", float(peak_mib[-1]), MOST_MIB, "MiB", f"share of {MOST_MIB:g} MiB")]
    if len(peak_mib) > gathered:
        growth_mib = float(peak_mib[-1] - peak_mib[gathered]) / (len(peak_mib) - gathered) * STEPS_OF_GROWTH
        note = f"share of {MOST_GROWTH_MIB:g} MiB in {STEPS_OF_GROWTH} steps, after 28 days"
        rows.append(share(f"{feeder}: growth of memory", growth_mib, MOST_GROWTH_MIB, "MiB", note))
    return rows


if __name__ == "__main__":
    for row in main():
        print(row)
