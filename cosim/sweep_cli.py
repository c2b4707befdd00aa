"""``cosim sweep``: many runs of one scenario, on this machine or on a Dask scheduler."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosim.errors import Fault, InputError, SweepError

if TYPE_CHECKING:
    from cosim.scenario.study import LoadedStudy
    from cosim.sweep.sweep import Swept

_SHOWN = 20


def add_commands(command: Callable[[str, str, object], argparse.ArgumentParser]) -> None:
    """Adds it; ``command(name, what it does, function)`` makes one."""
    sweep = command("sweep", "do the runs of a study that are missing; write a result file each, and an index", _sweep)
    sweep.add_argument("study", type=Path, metavar="STUDY.yaml", help="study, e.g. scenarios/monte_carlo.yaml")
    sweep.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. seeds=2")
    sweep.add_argument("--until", metavar="DURATION", help="simulated time of each run, e.g. 2d")
    sweep.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="Dask scheduler to use; default: this machine")
    sweep.add_argument("--workers", type=int, metavar="N", help="processes on this machine; default: one a core")
    sweep.add_argument("--memory", metavar="SIZE", help="memory of each, e.g. 2GiB; default: an equal share of all")
    sweep.add_argument("--dry-run", action="store_true", help="show the runs, do none")


def _sweep(options: argparse.Namespace) -> None:
    from cosim.scenario.study import load_study

    _check(options)
    study = load_study(options.study, tuple(options.set))
    if options.dry_run:
        _show(study, options.until)
        return
    swept = _with_progress(study, options)
    failed = sum(outcome.status == "failed" for outcome in swept.outcomes)
    there = len(swept.outcomes) - swept.done - failed
    print(f"{len(swept.outcomes)} runs: {there} there before, {swept.done} done now, {failed} failed")
    print(f"index  {_short(swept.index)}")
    if failed:
        raise SweepError(_failures(swept, failed))


def _check(options: argparse.Namespace) -> None:
    faults = []
    if options.workers is not None and options.workers < 1:
        faults.append(Fault("at least 1", key="--workers", value=str(options.workers)))
    if options.scheduler is not None:
        given = [name for name in ("workers", "memory") if getattr(options, name) is not None]
        problem = "is for workers on this machine; those of a scheduler have their own"
        faults += [Fault(problem, key=f"--{name}") for name in given]
    if options.memory is not None:
        from cosim.sweep.cluster import fault_of_memory

        fault = fault_of_memory(options.memory)
        faults += [] if fault is None else [fault]
    if faults:
        raise InputError(faults)


def _with_progress(study: LoadedStudy, options: argparse.Namespace) -> Swept:
    import tqdm

    from cosim.sweep.sweep import sweep

    form = "{desc} |{bar}| {n_fmt}/{total_fmt} runs, left {remaining}{postfix}"
    failed = 0
    with tqdm.tqdm(desc=study.name, bar_format=form, disable=None, dynamic_ncols=True) as bar:

        def on_outcome(left: int, job: Any, outcome: Any) -> None:
            nonlocal failed
            failed += outcome.status == "failed"
            bar.total = bar.n + 1 + left
            if failed:
                bar.set_postfix_str(f"{failed} failed", refresh=False)
            bar.update(1)

        return sweep(
            study,
            until=options.until,
            scheduler=options.scheduler,
            workers=options.workers,
            memory=options.memory,
            on_outcome=on_outcome,
        )


def _show(study: LoadedStudy, until: str | None) -> None:
    from cosim.sweep.sweep import check, survey

    surveyed = survey(study, until)
    check(surveyed.missing)
    missing = {job.path for job in surveyed.missing}
    for run, path in zip(surveyed.plan.runs, surveyed.paths, strict=True):
        values = "  ".join(f"{key}={value}" for key, value in run.varied.items())
        print(f"{run.number:>6}  {'to do' if path in missing else 'there'}  {path.name}  {values}")
    print(f"{len(surveyed.plan.runs)} runs: {len(missing)} to do; results in {_short(study.folder)}")


def _failures(swept: Swept, failed: int) -> str:
    told = [(number, outcome) for number, outcome in enumerate(swept.outcomes) if outcome.status == "failed"]
    lines = [f"  {number:>6}  {_first_line(outcome.error)}" for number, outcome in told[:_SHOWN]]
    if failed > _SHOWN:
        lines.append(f"  and {failed - _SHOWN} more: column error of {_short(swept.index)}")
    return "\n".join([f"{failed} of {len(swept.outcomes)} runs failed", *lines])


def _first_line(text: str) -> str:
    first, *more = text.splitlines() or [""]
    return f"{first} (and {len(more)} more)" if more else first


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
