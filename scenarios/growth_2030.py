"""Photovoltaics and vehicles on mv5 grow from 2021 to 2030: how much flexibility does each priority scheme buy a year?

    python scenarios/growth_2030.py [--stages N] [--weeks N] [--days D] [--schemes a,b] [--workers N] [--out DIR]

Each stage is a few windows of D days (default: a week in each season) that stand for the whole year. All runs of a
window share its seed, so that differences between stages and schemes are theirs alone. Written to DIR: study.yaml, a
result file for each run and their index (as `cosim sweep` does; what is there is not run again), growth_2030.html and
.md, CSV files, and images/ as SVG and PNG. A year of which a run failed is a row that says why. docs/growth_2030.md
tells what came of it.
"""

import cosim  # noqa: F401 (before NumPy, whose linear algebra is to use one thread)

# isort: split
import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cosim.analysis.windows import Window, over_year, representative_windows
from cosim.case import Case, open_case
from cosim.clock import format_duration
from cosim.coordination.catalogue import load_scheme, shipped
from cosim.domain.frames import Floats
from cosim.domain.site import site_sums
from cosim.errors import CosimError, Fault, InputError, ResultError
from cosim.io.disk import reason
from cosim.io.study import Study, open_study
from cosim.report.growth import Growth, Stage, Year, run_figures
from cosim.report.growth_pages import summary, write_report
from cosim.scenario.load import load_scenario
from cosim.scenario.study import load_study
from cosim.sweep.sweep import sweep
from cosim.sweep.work import Job, Outcome
from cosim.units import SECONDS_PER_DAY

SCENARIO = Path(__file__).parent / "growth_mv5.yaml"
SCHEMES = "it_dso_priority,it_tso_priority,it_coopt"

# What grows. These are assumptions to be edited, not a forecast: a feeder that follows national targets of Germany.
YEARS = tuple(range(2021, 2031))
PV_GW = {2021: 60, 2024: 88, 2026: 128, 2028: 172, 2030: 215}
"""Photovoltaics of the country: of 2021 rounded, then the path of EEG 2023, section 4; between them a straight line.
Roofs grow in proportion to it, the plant at substation 4 stays as it is."""
ELECTRIC_SHARE = {2021: 0.013, 2030: 0.31}
"""Share of cars that are electric: 0.6 and 15 of 48 million, what there was and the government's aim; between them it
grows by the same factor each year."""
ROOFS = {"SS1": (150, "PV4"), "SS2": (250, "PV5"), "SS3": (350, "PV1"), "SS5": (200, "PV8")}
"""Roofs of 2021 by substation [kWp], and the profile that they and all that are added follow: those of the feeder."""
CARS = {"SS1": 320, "SS2": 250, "SS5": 140}
"""Cars by substation: one for each 3.5 MWh of yearly consumption there; none at substation 3, a business."""
KWH_A_DAY, CHARGER_KW = 7.0, 7.4
"""What a car needs on each day, 2600 kWh a year, and what its charger can."""
ARRIVE = ("16:15", "17:15", "18:00", "19:00", "20:30")
"""A fifth of the cars each, within `AROUND` around it. A fifth is one resource, so that seldom more than two fifths of
all chargers work at once."""
DEPART, AROUND = "07:00", "45min"
NEED_KW, UNIT_KW = 100.0, 33.0
"""Standard deviation of what the system needs, and size of each unit at transmission: the same in all stages."""
INTERFACE_EUR_PER_KWH = 0.1
"""Price of the interface for schemes that need one."""
FIRST_SEED = 4
"""Of the first window, the next has the next: needs drawn from these are about as often too much as too little."""
STEPS_A_DAY = 96
BEGIN_H = 8
"""Windows begin at this hour: no vehicle is charging then, and photovoltaics have hardly begun."""

ASSUMPTIONS = (
    "None of this is a forecast; it stands at the top of scenarios/growth_2030.py, to be changed.",
    f"Roofs at substations 1, 2, 3 and 5, {sum(kw for kw, _ in ROOFS.values())} kWp in 2021, grow as photovoltaics of "
    f"Germany on the path of EEG 2023, section 4: {', '.join(f'{gw} GW in {year}' for year, gw in PV_GW.items())} (the "
    "first rounded), on a straight line between. The plant at substation 4 stays as it is, and so do loads.",
    f"{sum(CARS.values())} cars at substations 1, 2 and 5, one for each 3.5 MWh of load a year. Electric are "
    f"{' and '.join(f'{100 * share:.1f} % in {year}' for year, share in ELECTRIC_SHARE.items())} (0.6 and 15 of the 48 "
    f"million of Germany), by the same factor more each year. Each needs {KWH_A_DAY:g} kWh a day, from a charger of "
    f"{CHARGER_KW:g} kW, at once unless it is paid to wait; a fifth each comes within {AROUND} around "
    f"{', '.join(ARRIVE)} and leaves around {DEPART}.",
    "Flexible are all photovoltaics, all cars, the battery, and 35 % of each load; prices stay as they are.",
    "Ratings are those of the feeder; the DSO keeps currents below 80 % of them, the rest is for switching.",
    f"What the system needs is drawn with a standard deviation of {NEED_KW:g} kW, and eight units of {UNIT_KW:g} kW "
    "offer at transmission, in all stages the same.",
    f"Windows begin at {BEGIN_H:02d}:00, when no car charges: a car that is there when a run begins has yet to charge "
    "all that it needs. In the first quarter hour of a window nothing has been bought yet.",
)


def pv_factor(year: int) -> float:
    """Photovoltaics [of those of 2021]."""
    return float(np.interp(year, list(PV_GW), list(PV_GW.values()))) / PV_GW[2021]


def electric_share(year: int) -> float:
    """Electric cars [of all]."""
    logs = np.log(list(ELECTRIC_SHARE.values()))
    return float(np.exp(np.interp(year, list(ELECTRIC_SHARE), logs)))


def stage_of(year: int) -> Stage:
    """What has been added by a year."""
    share = electric_share(year)
    pv_kw = (pv_factor(year) - 1.0) * sum(kw for kw, _ in ROOFS.values())
    cars = share * sum(CARS.values())
    return Stage(str(year), pv_kw, cars, cars * KWH_A_DAY)


def fields_of(year: int) -> dict[str, Any]:
    """The same as fields of the scenario."""
    more, share = pv_factor(year) - 1.0, electric_share(year)
    added = {
        f"roofs_{place}": {"beside": [f"{place}.load"], "kind": "pv", "kw": round(kw * more, 3), "profiles": [column]}
        for place, (kw, column) in ROOFS.items()
        if more > 0.0
    }
    vehicles = {
        f"cars_{place}_{k}": _vehicles(place, share * cars / len(ARRIVE), at)
        for place, cars in CARS.items()
        for k, at in enumerate(ARRIVE, 1)
    }
    return {"added": added, "resources": vehicles}


def _vehicles(place: str, cars: float, at: str) -> dict[str, Any]:
    need = {"arrive": at, "depart": DEPART, "need_kwh": round(cars * KWH_A_DAY, 3)}
    vehicle = {"p_max_kw": round(cars * CHARGER_KW, 3), "stays": [need], "spread": AROUND}
    prices = {"up_eur_per_kwh": 0.18, "down_eur_per_kwh": 0.18}
    return {"pods": [f"{place}.load"], "vehicle": vehicle, "aggregator": "consumers", **prices}


# --- the runs ---------------------------------------------------------------------------------------------------------


def grown(year: int) -> Case:
    """The feeder as it is in a year."""
    return open_case(load_scenario(SCENARIO, [f"{key}={json.dumps(value)}" for key, value in fields_of(year).items()]))


def net_kw(case: Case) -> Floats:
    """Net consumption of each substation over the year of the profiles (n_row, n_site) [kW], without vehicles."""
    p_kw, _ = case.feeder.powers(case.profiles.names, case.profiles.values)
    return np.asarray(p_kw @ site_sums(case.pod_sites))


@dataclass(frozen=True)
class Task:
    """A run: its stage, window and scheme, and the fields of the scenario that differ."""

    year: int
    window: int
    scheme: str
    fields: Mapping[str, Any]


def tasks_of(years: Sequence[int], windows: Sequence[Window], schemes: Sequence[str]) -> Iterator[Task]:
    """All runs. Need and units of the system are given in kW by their shares of the stage's mean import."""
    start = load_scenario(SCENARIO).scenario.start
    midnight = start.replace(month=1, day=1, hour=0, minute=0)
    for year in years:
        mean_kw = float(np.abs(net_kw(grown(year)).sum(axis=1)).mean())
        grows = fields_of(year) | {
            "transmission.need.share": NEED_KW / mean_kw,
            "transmission.merit_order.step_share": UNIT_KW / mean_kw,
        }
        for (k, window), scheme in product(enumerate(windows), schemes):
            begin = midnight + timedelta(days=window.first_day, hours=BEGIN_H)
            fields = grows | {"coordination.scheme": scheme, "start": begin.isoformat(), "seed": FIRST_SEED + k}
            if any(stage.balance == "priced" for stage in load_scheme(scheme).stages.values()):
                fields["coordination.interface.price_eur_per_kwh"] = INTERFACE_EUR_PER_KWH
            yield Task(year, k, scheme, fields)


def study_file(tasks: Sequence[Task], days: float, out: Path) -> Path:
    """Writes study.yaml, which `cosim sweep` understands as well. Raises ResultError if it cannot be written."""
    content = {
        "description": "Growth of photovoltaics and vehicles; written by scenarios/growth_2030.py",
        "scenario": os.path.relpath(SCENARIO, out),
        "out": str(out),
        "overrides": {"duration": format_duration(round(days * SECONDS_PER_DAY))},
        "vary": {"list": [dict(task.fields) for task in tasks]},
    }
    path = out / "study.yaml"
    try:
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120), encoding="utf-8")
    except OSError as error:
        raise ResultError(f"{path}: cannot be written: {reason(error)}") from error
    return path


def years_of(tasks: Sequence[Task], windows: Sequence[Window], runs: Study) -> Iterator[Year]:
    """What each stage came to under each scheme, from the results of the tasks in their order."""
    table = runs.runs
    for year, scheme in dict.fromkeys((task.year, task.scheme) for task in tasks):
        own = [(k, windows[task.window]) for k, task in enumerate(tasks) if (task.year, task.scheme) == (year, scheme)]
        errors = [str(table.loc[k, "error"] or table.loc[k, "status"]) for k, _ in own if not table.loc[k, "path"]]
        if errors:
            yield Year(str(year), scheme, errors[0].splitlines()[0])
            continue
        figures = []
        for k, _ in own:
            with runs.open(k) as results:
                figures.append(run_figures(results))
        yield Year(str(year), scheme, "", over_year(figures, [window.weight for _, window in own]))


def study(options: argparse.Namespace) -> Growth:
    """Does all runs that are missing and puts years together. Raises CosimError."""
    schemes, years = named(options.schemes), chosen(options.stages)
    last = net_kw(grown(YEARS[-1]))
    windows = representative_windows(last, STEPS_A_DAY, options.weeks, options.days, BEGIN_H * STEPS_A_DAY // 24)
    tasks = list(tasks_of(years, windows, schemes))
    swept = sweep(
        load_study(study_file(tasks, options.days, options.out.resolve())), workers=options.workers, on_outcome=_tell
    )
    runs = open_study(swept.index)
    found = tuple(years_of(tasks, windows, runs))
    return Growth(
        tuple(stage_of(year) for year in years), windows, found, date(load_scenario(SCENARIO).scenario.start.year, 1, 1)
    )


def lead_of(options: argparse.Namespace) -> tuple[str, ...]:
    """What was run."""
    windows = (
        f"{options.weeks} window{'s'[: options.weeks - 1]} of {options.days:g} day{'s' if options.days != 1 else ''}"
    )
    return (
        f"Feeder mv5 in {options.stages} stages up to {YEARS[-1]} under {options.schemes.replace(',', ', ')}: how much "
        f"flexibility is bought in a year, and what is left. Each year is {windows} at 15 minutes.",
    )


def _tell(left: int, job: Job, outcome: Outcome) -> None:
    print(
        f"{left} runs left, {job.path.name}: {outcome.error.splitlines()[0] if outcome.error else 'done'}", flush=True
    )


def chosen(stages: int) -> list[int]:
    """So many years, evenly spread, with the last and, if there are two or more, the first."""
    if not 1 <= stages <= len(YEARS):
        raise InputError(Fault("no such number", key="--stages", value=str(stages), allowed=f"1 to {len(YEARS)}"))
    return [YEARS[-1 - round(k * (len(YEARS) - 1) / max(stages - 1, 1))] for k in reversed(range(stages))]


def named(text: str) -> tuple[str, ...]:
    """Schemes by name. Raises InputError for one that is not shipped."""
    wanted = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in wanted if name not in shipped()]
    if unknown:
        raise InputError(
            Fault("no scheme of that name", key="--schemes", value=unknown[0], allowed=", ".join(shipped()))
        )
    return wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the study; returns the exit code: 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=len(YEARS), help="years, evenly spread (10)")
    parser.add_argument("--weeks", type=int, default=4, help="windows that stand for a year (4: one a season)")
    parser.add_argument("--days", type=float, default=7.0, help="days of each (7); 0.5 is half a day")
    parser.add_argument("--schemes", default=SCHEMES, help=f"names, comma-separated ({SCHEMES})")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    parser.add_argument("--out", type=Path, default=Path("results/growth_2030"), help="folder to write to")
    options = parser.parse_args(arguments)
    if options.workers is not None and options.workers < 1:
        parser.error("--workers must be 1 or more")
    try:
        found = study(options)
        write_report(found, lead_of(options), ASSUMPTIONS, options.out, "growth_2030")
    except CosimError as error:
        print(f"growth_2030: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("growth_2030: interrupted; what has been run stays, and the same command does the rest", file=sys.stderr)
        return 130
    print("\n".join(summary(found)))
    print(f"\n{len(found.years)} years: {options.out / 'growth_2030.html'}")
    return 1 if any(year.error for year in found.years) else 0


if __name__ == "__main__":
    sys.exit(main())
