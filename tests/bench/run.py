"""All benches: ``python tests/bench/run.py [NAME ...]``, names as in ``bench_NAME.py``.

Every ratio is measured within one run, ours and the reference in turn, medians. Prints one table and writes the ratios
to docs/performance.md, where what other benches have written stays. Nothing here can fail for being slow, but a bench
fails if the two ways that it compares do not give the same numbers.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ratios import Row

BENCHES = Path(__file__).resolve().parent
DOCUMENT = BENCHES.parents[1] / "docs" / "performance.md"
_TITLE = "## "


class Bench(NamedTuple):
    """A bench that has run: the first sentence of its module, and its rows."""

    title: str
    rows: list[Row]


def run(name: str) -> Bench:
    """Runs ``bench_<name>.py``."""
    module = importlib.import_module(f"bench_{name}")
    return Bench(" ".join(str(module.__doc__).split("\n\n")[0].split()).rstrip("."), module.main())


def run_all(names: Sequence[str]) -> Iterator[tuple[str, Bench]]:
    """One bench after the other, each in a fresh process in which linear algebra has one thread: on small matrices more
    of them only wait for each other."""
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for name in names:
            began = time.monotonic()
            yield name, pool.submit(run, name).result()
            print(f"bench_{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def table(benches: Mapping[str, Bench]) -> Iterator[str]:
    """Lines for a terminal."""
    width = max(len(row.name) for bench in benches.values() for row in bench.rows)
    for bench in benches.values():
        yield ""
        yield bench.title
        yield f"  {'':{width}} {'ours':>10} {'reference':>10} {'ratio':>7}"
        for row in bench.rows:
            figures = f"{_figure(row.ours):>10} {_figure(row.reference):>10} {_figure(row.ratio):>7}"
            yield f"  {row.name:{width}} {figures} {row.unit:11} {row.note}"


def document(sections: Mapping[str, str]) -> Iterator[str]:
    """Lines of Markdown; ``sections`` by title."""
    yield "# Performance"
    yield ""
    yield "Written by `make bench` (`tests/bench/run.py`), not by hand. Ratios only: each is measured within one run,"
    yield "ours and the reference in turn, medians. They hold roughly on other machines too; the last digits do not."
    yield "Each section is of its own bench's last run."
    yield ""
    yield f"Last run on {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}."
    for title, section in sections.items():
        yield ""
        yield f"{_TITLE}{title}"
        yield ""
        yield section


def section(bench: Bench) -> str:
    """A table in Markdown: ratios alone, since times hold for one machine only."""
    rows = [f"| {row.name} | {_figure(row.ratio)} | {row.note} |" for row in bench.rows]
    return "\n".join(["| what | ratio | the ratio is |", "| --- | ---: | --- |", *rows])


def written_before() -> dict[str, str]:
    """Sections of the document, by title."""
    parts = DOCUMENT.read_text(encoding="utf-8").split(f"\n{_TITLE}")[1:] if DOCUMENT.exists() else []
    return {title: text.strip() for title, _, text in (part.partition("\n") for part in parts)}


def _figure(value: float) -> str:
    """Three digits, also of large numbers."""
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def main(names: Sequence[str]) -> int:
    known = sorted(path.stem.removeprefix("bench_") for path in BENCHES.glob("bench_*.py"))
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no bench named {', '.join(unknown)}; there is: {', '.join(known)}", file=sys.stderr)
        return 2
    found = dict(run_all(names or known))
    print("\n".join(table(found)))
    sections = written_before() | {bench.title: section(bench) for bench in found.values()}
    DOCUMENT.write_text("\n".join(document(sections)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
