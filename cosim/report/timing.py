"""Where the wall-clock time of a run went: by simulator and phase, and whether steps got slower."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cosim.domain.frames import Floats
from cosim.io.results import Results
from cosim.report.layout import aligned
from cosim.report.reading import Reading

_WIDTH = 100
_REST = "mosaik, waiting"


def timing_text(results: Results) -> str:
    """A row for each simulator [ms a step], dearest first: its steps and what it took to get its outputs, then what is
    left of a step; below that the whole run, and its last tenth of steps against its first."""
    reading, phases = Reading(results), results.phases().fillna(0.0)
    title = f"{reading.name}: wall-clock time of {reading.steps} steps"
    simulators = [str(name) for name in phases if "." not in str(name)]
    if not simulators or phases.empty:
        return f"{title}\nno times recorded"
    whole = _column(phases, "run.step", phases[simulators].sum(axis=1).to_numpy())
    rest = np.maximum(whole - phases[simulators].sum(axis=1).to_numpy(), 0.0)
    shares = {name: (_column(phases, name), _column(phases, f"{name}.data")) for name in simulators}
    dearest_first = sorted(simulators, key=lambda name: -shares[name][0].sum())
    rows = [["[ms a step]", "step: mean", "median", "95 %", "data: mean", "share [%]"]]
    rows += [_row(name, shares[name][0] - shares[name][1], shares[name][1], whole) for name in dearest_first]
    rows += [_row(_REST, rest, None, whole), _row("all of it", whole, None, whole)]
    return "\n".join([title, *aligned(rows, width=_WIDTH), *_run_lines(phases, whole)])


def _row(name: str, step_s: Floats, data_s: Floats | None, whole_s: Floats) -> list[str]:
    figures = (step_s.mean(), np.median(step_s), np.quantile(step_s, 0.95))
    both_s = step_s.sum() + (0.0 if data_s is None else data_s.sum())
    data = "" if data_s is None else f"{1e3 * data_s.mean():.3f}"
    return [name, *(f"{1e3 * s:.3f}" for s in figures), data, f"{100.0 * both_s / max(whole_s.sum(), 1e-12):.1f}"]


def _run_lines(phases: pd.DataFrame, whole_s: Floats) -> list[str]:
    begin_s = _column(phases, "run.begin")
    segments, tenth = np.count_nonzero(begin_s), max(len(whole_s) // 10, 1)
    lines = [f"steps {whole_s.sum():.2f} s in all"]
    if segments:
        lines[0] += f"; {begin_s.sum():.2f} s to begin {segments} segments"
    if segments > 1:
        later_ms = 1e3 * np.median(begin_s[begin_s > 0.0][1:])
        lines[0] += f", {later_ms:.1f} ms each after the first (median)"
    if len(whole_s) >= 20:
        first_ms, last_ms = (1e3 * part.mean() for part in (whole_s[:tenth], whole_s[-tenth:]))
        times = f"{last_ms / first_ms:.2f} times" if first_ms > 0.0 else "-"
        lines.append(f"first tenth of steps {first_ms:.3f} ms, last tenth {last_ms:.3f} ms a step: {times}")
    return lines


def _column(phases: pd.DataFrame, name: str, otherwise: Floats | None = None) -> Floats:
    if name in phases:
        return np.asarray(phases[name].to_numpy())
    return np.zeros(len(phases)) if otherwise is None else otherwise
