"""Coordination that cannot be: one clear message for what a user may get wrong, and runs that stop where a party fails,
says what the scheme does not declare, or waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from coordination_runs import WEEK, coordinated, tables
from short_runs import REPOSITORY

from cosim import open_results
from cosim.cli import main
from cosim.coordination import party as parties
from cosim.coordination.catalogue import SCHEMES, shipped
from cosim.coordination.messages import Needed
from cosim.coordination.scheme import Scheme
from cosim.errors import CosimError, MarketError, SimulatorError
from simulators import _party

PRIORITY, HYBRID = "it_dso_priority", "givisiez_hybrid"
SCHEME = "coordination.scheme={}".format
Faults = Callable[..., list[str]]


@pytest.fixture
def faults(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Faults:
    """All faults of a run of the congested week on the command line, which must be nothing else and end with code 2."""

    def run(*overrides: str, scenario: Path = WEEK) -> list[str]:
        out = tmp_path / "run.h5"
        given = [part for override in overrides for part in ("--set", override)]
        assert main(["run", str(scenario), "--out", str(out), *given]) == 2
        printed, message = capfd.readouterr()
        assert printed == ""
        assert "Traceback" not in message
        assert not out.exists()
        headline, *lines = message.splitlines()
        count = f"{len(lines)} faults" if len(lines) > 1 else "1 fault"
        assert headline == f"cosim: {count} in the input"
        return lines

    return run


# --- wrong input ----------------------------------------------------------------------------------------------------


def test_unknown_scheme(faults: Faults) -> None:
    (fault,) = faults(SCHEME("dso_first"))
    assert fault.startswith(
        f"--set {SCHEME('dso_first')}: coordination.scheme: no scheme of that name; got dso_first; "
    )
    assert all(name in fault for name in shipped())


def test_scheme_file_that_is_not_there(faults: Faults) -> None:
    (fault,) = faults(SCHEME("no/such.yaml"))
    assert "no/such.yaml" in fault


def test_broken_scheme_file(faults: Faults, tmp_path: Path) -> None:
    """At the line of its own file, all faults at once."""
    file = tmp_path / "mine.yaml"
    text = (SCHEMES / f"{PRIORITY}.yaml").read_text()
    file.write_text(text.replace("uses: [MSL]", "uses: [MLS]").replace("  DSO to TSO: [RESULT]\n", ""))
    first, *others = faults(SCHEME(file))
    assert first.startswith(
        f"{file}:6: stages.MSD.uses.0: unknown stage; did you mean MSL?; got MLS; allowed: MSL, MSD"
    )
    assert others == []
    file.write_text(text.replace("  DSO to TSO: [RESULT]\n", ""))
    (fault,) = faults(SCHEME(file))
    assert fault.startswith(f"{file}:")
    assert "messages.DSO to TSO: stage MSD needs RESULT to cross, which is not declared" in fault


def test_scheme_file_at_a_line_of_the_scenario(faults: Faults, tmp_path: Path) -> None:
    file = tmp_path / "week.yaml"
    file.write_text(f"extends: {WEEK}\ncoordination:\n  scheme: dso_first\n")
    (fault,) = faults(scenario=file)
    assert fault.startswith(f"{file}:3: coordination.scheme: no scheme of that name")


def test_coordination_without_market(faults: Faults) -> None:
    (fault,) = faults(SCHEME(PRIORITY), scenario=REPOSITORY / "scenarios" / "mv5_threshold.yaml")
    assert "coordination: there is nothing to coordinate without `market` and `resources`" in fault


@pytest.mark.parametrize(
    ("override", "key", "problem"),
    [
        ("market.gate=day_ahead", "market.gate", "in real time; got day_ahead; allowed: real_time"),
        ("market.interface=hold", "market.interface", "stages of the scheme say so; got hold; allowed: free"),
        ("market.pricing=pay_as_clear", "market.pricing", "say so; got pay_as_clear; allowed: pay_as_bid"),
        ("transmission.bus=nowhere", "transmission.bus", "no such bus of transmission; got nowhere; allowed: system"),
        (
            "market.needs.balance={buyer: brp, direction: up, need_kw: 9, max_price_eur_per_kwh: 1, window: {}}",
            "market.needs.balance",
            "nobody buys for it under scheme it_dso_priority; got balance; allowed: no needs, or a scheme that serves",
        ),
        (
            "coordination.same_aggregator=true",
            "resources",
            "POD SS5.load has resources of more than one aggregator",
        ),
    ],
    ids=lambda value: str(value).partition("=")[0],
)
def test_what_does_not_go_with_a_scheme(faults: Faults, override: str, key: str, problem: str) -> None:
    more = ["resources.chargers.aggregator=fleet"] if key == "resources" else []
    (fault,) = faults(SCHEME(PRIORITY), override, *more)
    assert f": {key}: " in fault
    assert problem in fault


def test_price_that_a_scheme_needs(faults: Faults) -> None:
    (fault,) = faults(SCHEME("smartnet_shared_priced"))
    key = "coordination.interface.price_eur_per_kwh"
    assert f": {key}: stage local of scheme smartnet_shared_priced needs it; got none; allowed: a price" in fault


@pytest.mark.parametrize("errors", ["{set: ellipsoid}", "{set: factors}", "{base: residual}"])
def test_errors_that_a_common_market_cannot_deal_with(faults: Faults, errors: str) -> None:
    (fault,) = faults(SCHEME("it_coopt"), f"market.uncertainty={errors}")
    assert ": market.uncertainty: stage market of scheme it_coopt takes forecast errors of each POD by itself" in fault


def test_transmission_without_coordination(faults: Faults) -> None:
    (fault,) = faults("transmission.need.share=0.2")
    assert fault.endswith(": transmission: nobody looks at it without `coordination`")


def test_need_of_a_price_where_brps_buy(faults: Faults) -> None:
    need = "market.needs.balance={buyer: brp, direction: up, need_kw: 9, window: {}}"
    (fault,) = faults(SCHEME("smartnet_integrated"), need)
    assert ": market.needs.balance: " in fault


def test_two_resources_of_one_name(faults: Faults, tmp_path: Path) -> None:
    """One of the feeder, and one at transmission."""
    case = tmp_path / "ring.yaml"
    ring = REPOSITORY / "scenarios" / "cases" / "t1_ring.yaml"
    case.write_text(ring.read_text().replace("  G3: {bus: T3", "  battery: {bus: T3"))
    (fault,) = faults(SCHEME(PRIORITY), f"transmission.case={case}")
    assert ": resources.battery: a resource at transmission has this name; got battery; allowed: any but " in fault
    assert "G4" in fault


def test_all_faults_at_once(faults: Faults) -> None:
    found = faults(
        SCHEME("it_coopt"), "market.uncertainty.set=ellipsoid", "market.interface=hold", "transmission.bus=x"
    )
    assert len(found) == 3


# --- parties that fail in the middle of a step ----------------------------------------------------------------------


def stopped(tmp_path: Path, error: type[CosimError], *overrides: str) -> str:
    """The message with which a run stops, which its file holds as well."""
    out = tmp_path / "run.h5"
    with pytest.raises(error) as raised:
        coordinated(out, *overrides)
    with open_results(out) as results:
        assert results.status == "failed"
    return str(raised.value)


def test_what_is_not_declared_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = parties.step

    def step(party, inbox, solver=None):
        party, said = original(party, inbox, solver)
        return party, tuple(replace(m, type="NEED", body=Needed({})) if m.receiver == "TSO" else m for m in said)

    monkeypatch.setattr(_party, "step", step)
    assert stopped(tmp_path, MarketError, PRIORITY) == (
        "simulator dso failed at simulated time 0 s, for the MTU at 900 s: "
        "scheme it_dso_priority does not declare NEED from DSO:mv5 to TSO"
    )


@pytest.mark.parametrize(
    "override",
    ["recorder.checkpoint=1h", "recorder.checkpoint=30min", "duration=30min"],
    ids=["found at the next gate", "at the end of a segment", "at the end of the run"],
)
def test_a_stage_that_waits_for_ever_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    """A message of one gate gets lost."""
    original = parties.step

    def step(party, inbox, solver=None):
        lost = [m for m in inbox if (m.t_s, m.type, m.receiver) == (lost_s, "RESULT", "TSO")]
        return original(party, [m for m in inbox if m not in lost], solver)

    monkeypatch.setattr(_party, "step", step)
    lost_s = 900 if override.startswith("duration") else 1800
    assert stopped(tmp_path, MarketError, PRIORITY, override) == (
        f"simulator tso failed at simulated time {lost_s - 900} s, for the MTU at {lost_s} s: "
        "scheme it_dso_priority: stages that wait for ever: TSO: MSD"
    )


@pytest.mark.parametrize(
    ("raised", "error", "told"),
    [
        (
            RuntimeError("burst"),
            SimulatorError,
            "simulator dso failed in step() at simulated time 900 s: RuntimeError: burst",
        ),
        (
            MarketError("no plan"),
            MarketError,
            "simulator dso failed at simulated time 900 s, for the MTU at 1800 s: no plan",
        ),
    ],
    ids=["unexpected", "of the market"],
)
def test_a_party_that_fails_in_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, error: type[CosimError], told: str
) -> None:
    original = parties.clear_stage

    def clear_stage(name, stage, now, solver=None):
        if (name, now.t_s) == ("validate", 1800):
            raise raised
        return original(name, stage, now, solver)

    monkeypatch.setattr(parties, "clear_stage", clear_stage)
    assert stopped(tmp_path, error, HYBRID) == told


# --- cycles that are long -------------------------------------------------------------------------------------------


@pytest.fixture
def never_satisfied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DSO that always finds something new to cut."""
    original = parties.clear_stage

    def clear_stage(name, stage, now, solver=None):
        outcome = original(name, stage, now, solver)
        return replace(outcome, again=True) if stage.objective == "validate" else outcome

    monkeypatch.setattr(parties, "clear_stage", clear_stage)


@pytest.mark.parametrize("at_most", [20, 130])
@pytest.mark.usefixtures("never_satisfied")
def test_a_cycle_ends_after_its_last_round(tmp_path: Path, at_most: int) -> None:
    """Also where simulators answer each other more often than mosaik allows by default."""
    file = tmp_path / "mine.yaml"
    file.write_text((SCHEMES / f"{HYBRID}.yaml").read_text().replace("at_most: 20", f"at_most: {at_most}"))
    path = coordinated(tmp_path / "run.h5", file, "duration=30min")
    rounds = tables(path, "stages").set_index("stage")["rounds"]
    assert rounds.to_dict() == {"pick": at_most, "validate": at_most, "AS": 1.0}


@pytest.mark.usefixtures("never_satisfied")
def test_mosaik_that_gives_up_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosim.world.compose._ANSWERS", 5)
    monkeypatch.setattr(Scheme, "most_clearings", 4)
    message = stopped(tmp_path, SimulatorError, HYBRID)
    assert "has performed a sub-step more than 5 times" in message
