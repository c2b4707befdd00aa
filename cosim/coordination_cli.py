"""``cosim clear`` and ``cosim schemes``: coordination schemes on a case file, without a run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path


def add_commands(command: Callable[[str, str, object], argparse.ArgumentParser]) -> None:
    """Adds both; ``command(name, what it does, function)`` makes one."""
    clear = command(
        "clear", "clear a case under a coordination scheme; print awards, cost, overloads, messages", _clear
    )
    clear.add_argument("case", type=Path, metavar="CASE.yaml", help="case file, e.g. scenarios/cases/t1_ring.yaml")
    clear.add_argument("--scheme", required=True, metavar="NAME|FILE.yaml", help="see `cosim schemes`")
    clear.add_argument("--need-mw", type=float, metavar="X", help="need of the system in place of the file's [MW]")
    clear.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. mtu=15min")
    clear.add_argument("--json", action="store_true", help="all of it as JSON, in kW and EUR/kWh")
    schemes = command("schemes", "list coordination schemes: what kind they are, their stages, what crosses", _schemes)
    schemes.add_argument("names", nargs="*", metavar="NAME|FILE.yaml", help="these only")
    schemes.add_argument("--json", action="store_true", help="as JSON")


def _clear(options: argparse.Namespace) -> None:
    from cosim.case_files import FEEDERS
    from cosim.coordination.catalogue import load_scheme
    from cosim.coordination.coordinate import coordinate
    from cosim.coordination.printed import as_plain, as_text
    from cosim.coordination.read_case import read_case

    need = [] if options.need_mw is None else [f"need_mw={options.need_mw!r}"]
    scheme = load_scheme(options.scheme)
    found = coordinate(read_case(options.case, (*options.set, *need), FEEDERS), scheme)
    print(json.dumps(as_plain(found), indent=1) if options.json else as_text(found))


def _schemes(options: argparse.Namespace) -> None:
    from cosim.coordination.catalogue import load_scheme, shipped
    from cosim.coordination.printed import scheme_plain, schemes_text

    schemes = [load_scheme(name) for name in options.names or shipped()]
    print(json.dumps([scheme_plain(s) for s in schemes], indent=1) if options.json else schemes_text(schemes))
