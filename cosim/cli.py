"""``cosim``: run, resume, check, graph, thresholds, feeder, import, ratings, show, report, record, list, clear,
schemes, uftp, export, sweep.

Exit codes: 0 done; 1 the run or an outside service failed; 2 wrong input; 130 interrupted. A user's mistake gives one
clear message on stderr, never a traceback. Rooms are imported by the command that needs them, so that all start fast.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cosim.analysis_cli import add_commands as add_analysis
from cosim.coordination_cli import add_commands as add_coordination
from cosim.errors import CosimError, Fault, InputError, ScenarioError
from cosim.sweep_cli import add_commands as add_sweep
from cosim.uftp_cli import add_commands as add_uftp

if TYPE_CHECKING:
    from cosim.runner import Finished
    from cosim.scenario.load import LoadedScenario


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except InputError as error:
        count = f"{len(error.faults)} faults" if len(error.faults) > 1 else "1 fault"
        print(f"cosim: {count} in the input\n{error}", file=sys.stderr)
        return error.exit_code
    except CosimError as error:
        print(f"cosim: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("cosim: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _run(options: argparse.Namespace) -> None:
    from cosim.runner import run

    _tell(run(_load(options), options.out, progress=True), options)


def _resume(options: argparse.Namespace) -> None:
    from cosim.runner import resume

    _tell(resume(options.result, options.scenario, progress=True), options)


def _tell(finished: Finished, options: argparse.Namespace) -> None:
    """Prints the indicators of a run, and writes its report."""
    from cosim.io.results import open_results
    from cosim.report.indicators import as_text

    with open_results(finished.path) as results:
        print(as_text(results))
    print(f"\nresult  {finished.path}")
    if options.report:
        from cosim.report.html import write_report

        page = finished.path.with_suffix(".html")
        write_report([finished.path], page)
        print(f"report  {page}")


def _check(options: argparse.Namespace) -> None:
    from cosim.case import open_case
    from cosim.clock import format_duration

    case = open_case(_load(options))
    scenario = case.scenario
    print(
        f"{options.scenario}: all right\n"
        f"  {format_duration(scenario.duration)} from {scenario.start.isoformat()} in steps of "
        f"{format_duration(scenario.step)}: {case.clock.steps} steps\n"
        f"  feeder {case.feeder.name}: {len(case.layout.buses)} buses, {len(case.layout.branches)} branches, "
        f"{len(case.pods)} PODs at {len(case.sites)} sites, {len(case.storage)} storage units\n"
        f"  {len(case.meters)} meters with {len(case.sensor_model.channels)} channels"
    )


def _graph(options: argparse.Namespace) -> None:
    from cosim.case_coordination import scheme_of
    from cosim.coordination.flow_chart import flows_as_mermaid, flows_as_text
    from cosim.wiring import as_mermaid, as_text, links_of

    loaded = _load(options)
    scheme = scheme_of(loaded)
    links = links_of(loaded.scenario, scheme)
    print(as_mermaid(links) if options.mermaid else as_text(links))
    if scheme is not None:
        print("\n" + (flows_as_mermaid(scheme) if options.mermaid else flows_as_text(scheme)))


def _thresholds(options: argparse.Namespace) -> None:
    from cosim.case import open_case
    from cosim.prepare import as_text, prepare

    loaded = _load(options, "operator.thresholds_kw=auto")
    case = open_case(loaded)
    if not case.storage:
        raise ScenarioError(
            loaded.fault("feeder", "the feeder has no storage to size thresholds for", case.feeder.name)
        )
    print(as_text(prepare(case), case.scenario.operator))


def _feeder(options: argparse.Namespace) -> None:
    from cosim.case_files import FEEDERS
    from cosim.grid.feeder import find_feeder, load_feeder
    from cosim.grid.inventory import take_stock
    from cosim.grid.inventory_text import as_text
    from cosim.scenario.schema import GridConfig

    stock = take_stock(load_feeder(find_feeder(options.feeder, Path(), FEEDERS)), GridConfig())
    print(as_text(stock))
    if options.plot:
        from cosim.report.feeder_map import draw

        draw(stock, options.plot)
        print(f"picture {options.plot}")


def _import(options: argparse.Namespace) -> None:
    from cosim.importers import import_feeder

    own_folder = Path(options.source).parent  # of an OpenDSS script, which stays where it is
    if options.out is None and not options.source.endswith(".dss"):
        raise InputError(Fault("a folder to write is needed", key="--out"))
    imported = import_feeder(
        options.source,
        options.out or own_folder,
        profiles=options.profiles,
        seed=options.seed,
        force=options.force,
        allow_losses=options.allow_losses,
    )
    print(imported.as_text())


def _ratings(options: argparse.Namespace) -> None:
    from cosim.io.results import open_results
    from cosim.report.ratings import ratings_text

    if not 0.0 < options.factor < math.inf:
        raise InputError(Fault("must be above 0 and finite", key="--factor", value=str(options.factor)))
    with open_results(options.result) as results:
        print(ratings_text(results, options.factor))


def _show(options: argparse.Namespace) -> None:
    from cosim.io.results import open_results, result_hash
    from cosim.report.indicators import as_text
    from cosim.report.timing import timing_text

    for path in options.results:
        with open_results(path) as results:
            print(timing_text(results) if options.timing else as_text(results))
        if options.hash:
            print(f"hash  {result_hash(path)}")


def _report(options: argparse.Namespace) -> None:
    from cosim.report.html import write_report

    out = options.out or options.results[0].with_suffix(".html")
    write_report(options.results, out)
    print(f"report  {out}")


def _record(options: argparse.Namespace) -> None:
    from pydantic import ValidationError

    from cosim.clock import parse_duration_s
    from cosim.io.capture import record
    from cosim.io.mqtt import connect_mqtt, endpoint_from
    from cosim.scenario.schema import MqttBroker

    given = {name: value for name in MqttBroker.model_fields if (value := getattr(options, name, None)) is not None}
    try:
        broker = MqttBroker(**given)
        duration_s = parse_duration_s(options.duration) if options.duration else None
    except ValidationError as error:
        raise InputError(
            [Fault(e["msg"], key=f"--{e['loc'][0]}", value=str(e["input"])) for e in error.errors()]
        ) from None
    except ValueError as error:
        raise InputError(Fault(str(error), key="--duration")) from None
    with connect_mqtt(endpoint_from(broker, os.environ), "cosim-record") as transport:
        captured = record(transport, options.out, duration_s=duration_s, max_messages=options.max_messages)
    print(f"{captured.written} messages recorded in {options.out}")
    if captured.rejected:
        print(f"{captured.rejected} were not numbers; the first: {captured.first_rejected}")


def _list(options: argparse.Namespace) -> None:
    from typing import get_args

    from cosim.case_files import FEEDERS
    from cosim.scenario.load import is_scenario
    from cosim.scenario.schema import Method
    from cosim.wiring import CLASSES

    names = {
        "feeders": sorted(path.parent.name for path in FEEDERS.glob("*/feeder.yaml")),
        "scenarios": [str(path) for path in sorted(Path("scenarios").rglob("*.yaml")) if is_scenario(path)],
        "results": sorted(str(path) for path in Path("results").glob("*.h5")),
        "methods": list(get_args(Method)),
        "simulators": list(CLASSES),
    }
    for kind in [options.kind] if options.kind else names:
        print(f"{kind}\n" + "\n".join(f"  {name}" for name in names[kind] or ["(none here)"]))


def _load(options: argparse.Namespace, *more: str) -> LoadedScenario:
    from cosim.scenario.load import load_scenario

    until = [f"duration={options.until}"] if getattr(options, "until", None) else []
    return load_scenario(options.scenario, [*options.set, *until, *more])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cosim", description="Co-simulation of distribution-grid flexibility")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, does: str, function: object) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=does, description=does)
        added.set_defaults(command=function)
        return added

    def scenario_command(name: str, does: str, function: object) -> argparse.ArgumentParser:
        added = command(name, does, function)
        added.add_argument("scenario", type=Path, metavar="SCENARIO", help="scenario file (YAML)")
        added.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. seed=2")
        return added

    run = scenario_command("run", "run a scenario; print its indicators; write result file and report", _run)
    run.add_argument("--out", type=Path, metavar="FILE.h5", help="result file; default results/<name>.h5")
    run.add_argument("--until", metavar="DURATION", help="simulated time to run, e.g. 2d")
    run.add_argument("--no-report", dest="report", action="store_false", help="leave the HTML report out")
    resumed = command("resume", "go on with an unfinished run from its last checkpoint", _resume)
    resumed.add_argument("result", type=Path, metavar="RESULT.h5", help="result file that the run left")
    resumed.add_argument("--scenario", type=Path, metavar="FILE", help="scenario file, if it has moved")
    resumed.add_argument("--no-report", dest="report", action="store_false", help="leave the HTML report out")
    scenario_command("check", "validate a scenario and all that it names, without running it", _check)
    graph = scenario_command("graph", "show which simulator feeds which", _graph)
    graph.add_argument("--mermaid", action="store_true", help="as a Mermaid flow chart")
    scenario_command("thresholds", "compute the operator's thresholds and what they achieve", _thresholds)
    feeder = command("feeder", "show what a feeder holds, and draw it", _feeder)
    feeder.add_argument("feeder", metavar="FEEDER", help="name in dss_models/, or a feeder's folder")
    feeder.add_argument("--plot", type=Path, metavar="FILE.svg|FILE.png", help="draw it, voltages as colours")
    imported = command("import", "make a feeder of a network in another form, and check it by solving both", _import)
    imported.add_argument(
        "source",
        metavar="SOURCE",
        help="OpenDSS script (.dss), pandapower file (.json, .xlsx), MATPOWER case (.m, .mat), "
        "pandapower:FUNCTION, or simbench:CODE",
    )
    imported.add_argument("--out", type=Path, metavar="FOLDER", help="feeder folder to write")
    imported.add_argument("--profiles", choices=["constant", "simbench"], default="constant", help="for loads without")
    imported.add_argument("--seed", type=int, default=1, help="of the draw of SimBench profiles")
    imported.add_argument("--force", action="store_true", help="replace the folder if it exists")
    imported.add_argument("--allow-losses", action="store_true", help="import although elements cannot be carried over")
    ratings = command(
        "ratings", "print ratings for a feeder without any: a factor times the currents of a run", _ratings
    )
    ratings.add_argument("result", type=Path, metavar="RESULT.h5")
    ratings.add_argument("--factor", type=float, default=1.25, help="times the highest current; default 1.25")
    show = command("show", "print the indicators of result files", _show)
    show.add_argument("results", type=Path, nargs="+", metavar="RESULT.h5")
    show.add_argument("--timing", action="store_true", help="where the wall-clock time went")
    show.add_argument("--hash", action="store_true", help="also the hash of the data sets")
    report = command("report", "write one self-contained HTML file about one or more results", _report)
    report.add_argument("results", type=Path, nargs="+", metavar="RESULT.h5")
    report.add_argument("--out", type=Path, metavar="FILE.html", help="default: beside the first result")
    record = command("record", "capture a live MQTT broker into a data set that can be replayed", _record)
    record.add_argument("out", type=Path, metavar="FILE.csv|FILE.parquet")
    record.add_argument("--host", help="default 127.0.0.1")
    record.add_argument("--port", type=int, help="default 1883")
    record.add_argument("--tls", action="store_true", default=None, help="encrypt and verify the certificate")
    record.add_argument("--ca-file", type=Path, help="certificate authority (PEM)")
    record.add_argument("--username-env", metavar="VARIABLE", help="environment variable with the user name")
    record.add_argument("--password-env", metavar="VARIABLE", help="environment variable with the password")
    record.add_argument("--topic-prefix", help="only topics below it, ends in /")
    record.add_argument("--duration", metavar="DURATION", help="how long, e.g. 10min; default: until Ctrl-C")
    record.add_argument("--max-messages", type=int, metavar="N", help="stop after so many messages")
    listing = command("list", "list feeders, scenarios, results, estimation methods, simulators", _list)
    listing.add_argument("kind", nargs="?", choices=["feeders", "scenarios", "results", "methods", "simulators"])
    add_coordination(command)
    add_sweep(command)
    add_uftp(command)
    add_analysis(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
