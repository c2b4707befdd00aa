"""``cosim uftp``: the exchange of a run as UFTP messages, and messages checked."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cosim.errors import BidError, Fault, ResultError

if TYPE_CHECKING:
    from cosim.uftp.run import File


def add_commands(command: Callable[[str, str, object], argparse.ArgumentParser]) -> None:
    """Adds it; ``command(name, what it does, function)`` makes one."""
    uftp = command("uftp", "the market's messages as UFTP (Shapeshifter) XML: export a run, check a folder", _uftp)
    tasks = uftp.add_subparsers(dest="task", required=True, metavar="TASK")
    export = tasks.add_parser("export", help="write the messages of a run into a folder")
    export.add_argument("result", type=Path, metavar="RESULT.h5")
    export.add_argument("folder", type=Path, metavar="DIR", help="made if it is not there")
    export.add_argument(
        "--time-zone", default="Europe/Rome", metavar="ZONE", help="of the days of messages (%(default)s)"
    )
    check = tasks.add_parser("check", help="check all *.xml of a folder, each and against the others")
    check.add_argument("folder", type=Path, metavar="DIR")
    check.add_argument("--schema", type=Path, metavar="DIR", help="your copy of the published schema; needs lxml")


def _uftp(options: argparse.Namespace) -> None:
    (_export if options.task == "export" else _check)(options)


def _export(options: argparse.Namespace) -> None:
    from cosim.io.results import open_results
    from cosim.uftp.run import exchange_of, names_of, rows_of

    with open_results(options.result) as results:
        rows, names = rows_of(results), names_of(results, options.time_zone)
    files = exchange_of(rows, names)
    _write(files, options.folder)
    awarded = float(sum(row["quantity_kw"] for row in rows.awards)) * names.mtu_s / 3600.0
    told = float(sum(file.told_kwh for file in files))
    print(_counted(file.message.name for file in files))
    print(f"awarded {awarded:.6f} kWh, ordered in whole watts {told:.6f} kWh: {told - awarded:+.6f} kWh")


def _write(files: Iterable[File], folder: Path) -> None:
    from cosim.io.disk import reason

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("*.xml")):
            raise BidError(Fault("holds messages already", str(folder), allowed="a folder without *.xml"))
        for file in files:
            (folder / file.name).write_bytes(file.xml)
    except OSError as error:
        raise ResultError(f"{folder}: cannot be written: {reason(error)}") from error


def _check(options: argparse.Namespace) -> None:
    from cosim.uftp.exchange import read_exchange

    found = read_exchange(options.folder, options.schema)
    print(_counted(message.name for message in found.values()))
    print("valid, by the published schema too" if options.schema else "valid")


def _counted(kinds: Iterable[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(kinds).items())) or "no messages"
