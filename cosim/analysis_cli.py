"""``cosim export``: signals or key figures of a result or a study as CSV or Parquet."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cosim.errors import Fault, InputError

if TYPE_CHECKING:
    import pandas as pd

    from cosim.io.results import Results
    from cosim.io.study import Study

_PARTS = ("element", "start", "stop", "every")


def add_commands(command: Callable[[str, str, object], argparse.ArgumentParser]) -> None:
    """Adds it; ``command(name, what it does, function)`` makes one."""
    export = command("export", "write signals or key figures of a result or a study as CSV or Parquet", _export)
    export.add_argument("result", type=Path, metavar="RESULT.h5|STUDY", help="a result, a folder or an index of many")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="X.csv or X.parquet")
    what = export.add_mutually_exclusive_group(required=True)
    paths = "simulator/model/attribute, all of the same steps"
    what.add_argument("--signal", nargs="+", action="extend", metavar="PATH", help=paths)
    what.add_argument("--kpis", action="store_true", help="key figures, a row for each run")
    export.add_argument("--element", action="append", metavar="ID", help="these elements only")
    export.add_argument("--start", metavar="TIME", help="UTC unless it says otherwise, e.g. 2016-07-23T12:00+01:00")
    export.add_argument("--stop", metavar="TIME", help="exclusive")
    export.add_argument("--every", metavar="PERIOD", help="resample to 1h, 1d, month, ...; gaps stay empty")


def _export(options: argparse.Namespace) -> None:
    from cosim.io.export import export, wide
    from cosim.io.study import open_results

    _check(options)
    with open_results(options.result) as opened:
        table = _figures(opened) if options.kpis else wide(_signals(opened, options))
    export(table, options.out)
    print(f"{options.out}: {len(table)} rows, {table.shape[1]} columns")


def _check(options: argparse.Namespace) -> None:
    given = [name for name in _PARTS if getattr(options, name) is not None] if options.kpis else []
    if given:
        problem = "is for signals; key figures are of whole runs"
        raise InputError([Fault(problem, key=f"--{name}") for name in given])


def _figures(opened: Results | Study) -> pd.DataFrame:
    from cosim.io.study import Study
    from cosim.report.kpis import kpis

    return kpis(opened) if isinstance(opened, Study) else kpis(opened).to_frame().T.rename_axis("run")


def _signals(opened: Results | Study, options: argparse.Namespace) -> list[pd.DataFrame]:
    from cosim.analysis.resample import resample

    elements = None if options.element is None else list(dict.fromkeys(options.element))
    part = (options.start, options.stop, elements)
    frames = [opened.frame(path, *part) for path in dict.fromkeys(options.signal)]
    return [resample(each, options.every) for each in frames] if options.every else frames
