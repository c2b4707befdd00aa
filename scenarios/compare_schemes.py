"""One scenario under every scheme of coordination, and one report that compares them.

    python scenarios/compare_schemes.py [--scenario FILE.yaml] [--schemes a,b] [--until 7d] [--processes N] [--out DIR]

All runs share the seed: the need of the system, the profiles and the random errors are drawn alike, so that differences
are the schemes' alone. Written to DIR: a result file for each scheme, compare_schemes.html, .md with its figure, and
.json (all figures), and a CSV file for each table. A scheme whose run fails is a row that says why. With --from-results
the report is made anew of result files that are there. docs/compare_schemes.md is this page for the shipped scenario.

Purchases without the network break limits of the feeder where they are near the resources that the TSO needs, e.g. with

    --set "limits={derated: {Transformer.T3: 0.22}}" --set transmission.need.share=1
"""

import cosim  # noqa: F401 (before NumPy, whose linear algebra is to use one thread)

# isort: split
import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cosim.clock import format_duration
from cosim.coordination.catalogue import load_scheme, shipped
from cosim.coordination.plain import from_plain, to_plain
from cosim.errors import CosimError, Fault, InputError, ResultError
from cosim.io.disk import reason
from cosim.io.results import open_results
from cosim.io.tables import write_csv
from cosim.report.canvas import style
from cosim.report.compare_schemes import SchemeRun, differing, scheme_run, tables, without_flows
from cosim.report.figures_schemes import cost_drawing, write_svg
from cosim.report.scheme_pages import blocks, markdown, page
from cosim.runner import run
from cosim.scenario.load import LoadedScenario, load_scenario

SCENARIO = Path(__file__).parent / "dso_priority.yaml"
TITLE = "Schemes of coordination compared"
INTERFACE_EUR_PER_KWH = 0.1
"""Price of the interface for schemes that need one, where the scenario gives none."""
_WRITTEN = (
    "Written by `python scenarios/compare_schemes.py`; do not edit. [coordination.md](coordination.md) tells what "
    "schemes do."
)


def loaded_for(scenario: Path, scheme: str, settings: Sequence[str]) -> LoadedScenario:
    """The scenario under a scheme."""
    under = [*settings, f"coordination.scheme={scheme}"]
    loaded = load_scenario(scenario, under)
    config = loaded.scenario.coordination
    priced = any(stage.balance == "priced" for stage in load_scheme(scheme).stages.values())
    if priced and config is not None and config.interface.price_eur_per_kwh is None:
        under.append(f"coordination.interface.price_eur_per_kwh={INTERFACE_EUR_PER_KWH}")
        return load_scenario(scenario, under)
    return loaded


@dataclass(frozen=True)
class Task:
    """A scenario with overrides under a scheme, and where its result goes."""

    scenario: Path
    settings: tuple[str, ...]
    scheme: str
    path: Path


def ran(task: Task) -> SchemeRun:
    """Runs one scheme in a process of its own; what it came to, or why it failed."""
    try:
        run(loaded_for(task.scenario, task.scheme, task.settings), task.path)
    except CosimError as error:
        return SchemeRun(task.scheme, str(error))
    return read(task.scheme, task.path)


def read(scheme: str, path: Path) -> SchemeRun:
    """What a result came to, or why it cannot be told."""
    try:
        with open_results(path) as results:
            return without_flows(scheme_run(results))
    except CosimError as error:
        return SchemeRun(scheme, str(error))


def _again(task: Task) -> SchemeRun:
    return read(task.scheme, task.path)


def all_of(tasks: Sequence[Task], processes: int) -> Iterator[SchemeRun]:
    """The runs in the order of ``tasks``, in so many processes."""
    with ProcessPoolExecutor(processes, get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [(task.scheme, pool.submit(ran, task)) for task in tasks]
        for scheme, future in futures:
            try:
                yield future.result()
            except Exception as error:  # a process that died must not stop the others
                yield SchemeRun(scheme, f"{type(error).__name__}: {error}")


def lead_of(loaded: LoadedScenario) -> tuple[str, ...]:
    """What was compared."""
    scenario = loaded.scenario
    span = f"{format_duration(scenario.duration)} from {scenario.start.isoformat()}"
    return (
        f"Feeder {scenario.feeder}, {span}, seed {scenario.seed}: the scenario {scenario.name} under every scheme of "
        "coordination.",
    )


def report(runs: Sequence[SchemeRun], lead: Sequence[str], out: Path) -> None:
    """Writes all files. Raises ResultError if one cannot be written."""
    found = blocks(runs)
    write_csv(out, tables(runs))
    write_svg(runs, out / "images" / "compare_schemes.svg")
    with style():
        html = page(TITLE, lead, found, [cost_drawing(runs)])
    texts = {
        "compare_schemes.html": html,
        "compare_schemes.md": as_document(lead, found),
        "compare_schemes.json": json.dumps({"lead": list(lead), "runs": to_plain(list(runs))}, indent=1) + "\n",
    }
    for name, text in texts.items():
        try:
            (out / name).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise ResultError(f"{out / name}: cannot be written: {reason(error)}") from error


def as_document(lead: Sequence[str], found: Sequence[Any]) -> str:
    """The Markdown page, with its figure."""
    picture = "![What each scheme costs by party, and violations left by cause](images/compare_schemes.svg)"
    return markdown(TITLE, [*lead, _WRITTEN, picture], found)


def document_of(figures: str) -> str:
    """The Markdown page of stored figures (compare_schemes.json)."""
    stored = json.loads(figures)
    return as_document(stored["lead"], blocks([from_plain(SchemeRun, each) for each in stored["runs"]]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all schemes and writes the comparison; returns the exit code: 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", type=Path, default=SCENARIO)
    parser.add_argument("--schemes", default="all", help="names, comma-separated; default: all that are shipped")
    parser.add_argument("--until", help="simulated time to run, e.g. 2d; default: as the scenario says")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. seed=2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results") / "compare_schemes")
    parser.add_argument("--from-results", action="store_true", help="only make the report of results in DIR anew")
    options = parser.parse_args(arguments)
    if options.processes < 1:
        parser.error("--processes must be 1 or more")
    try:
        schemes = named(options.schemes)
        settings = (*options.set, *([f"duration={options.until}"] if options.until else []))
        lead = lead_of(loaded_for(options.scenario, schemes[0], settings))
        tasks = [Task(options.scenario, settings, scheme, options.out / f"{scheme}.h5") for scheme in schemes]
        runs = []
        for found in all_of(tasks, options.processes) if not options.from_results else map(_again, tasks):
            runs.append(found)
            print(f"{found.scheme}: {found.error.splitlines()[0] if found.error else 'done'}", flush=True)
        report(runs, lead, options.out)
    except CosimError as error:
        print(f"compare_schemes: {error}", file=sys.stderr)
        return error.exit_code
    for name in differing(runs):
        print(f"NOT THE SAME in all runs: {name}", file=sys.stderr)
    print(f"{len(runs)} schemes compared: {options.out / 'compare_schemes.html'}")
    return 1 if any(each.error for each in runs) or differing(runs) else 0


def named(text: str) -> tuple[str, ...]:
    """Schemes by name. Raises InputError for one that is not shipped."""
    wanted = shipped() if text == "all" else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in wanted if name not in shipped()]
    if unknown:
        raise InputError(
            Fault("no scheme of that name", key="--schemes", value=unknown[0], allowed=", ".join(shipped()))
        )
    return wanted


if __name__ == "__main__":
    sys.exit(main())
