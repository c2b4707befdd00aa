"""Measures of the grid's operator, contracts and needs in a scenario: what is read, how each mistake is answered."""

from __future__ import annotations

from datetime import date, time
from pathlib import Path

import numpy as np
import pytest

from cosim.case import Case, case_from_payload, open_case
from cosim.domain.market import Direction
from cosim.errors import Fault, FeederError, ScenarioError
from cosim.grid.measures import CapacitorMeasure, SwitchMeasure, TapMeasure
from cosim.scenario.load import load_scenario
from cosim.scenario.procurement import ContractConfig, NeedConfig

BEGIN = """\
name: small
start: 2016-07-21T00:00:00+02:00
duration: 2d
feeder: mv5
transport: memory
resources:
  roofs: {pods: all_pv, pv: {}, brp: sunny}
  battery: {pods: [SS3.battery], battery: {}, aggregator: storage}
market: {}
"""
TAP = "{tap: {element: Transformer.T4, low: -2, high: 2, step_pu: 0.025}, eur_per_move: 3, moves_per_day: 4}"
EVENING = "{begin: '18:00', end: '20:00'}"
CONTRACT = f"{{resource: battery, direction: up, committed_kw: 100, strike_eur_per_kwh: 0.1, window: {EVENING}}}"


def opened(folder: Path, *overrides: str, text: str = BEGIN) -> Case:
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return open_case(load_scenario(path, overrides))


def faults(folder: Path, *overrides: str, text: str = BEGIN) -> tuple[Fault, ...]:
    with pytest.raises(ScenarioError) as caught:
        opened(folder, *overrides, text=text)
    return caught.value.faults


def test_every_kind_of_measure_is_read(tmp_path: Path) -> None:
    (tmp_path / "ring").mkdir()
    (tmp_path / "ring" / "Master.dss").write_text(RING)
    (tmp_path / "ring" / "feeder.yaml").write_text(RING_YAML)
    case = opened(
        tmp_path,
        "dso.measures.tap={tap: {element: Transformer.T, low: -2, high: 2, step_pu: 0.0125, winding: 2}}",
        "dso.measures.bank={capacitor: {element: Capacitor.C, high: 2}, eur_per_move: 0.5, moves_per_day: 4}",
        "dso.measures.tie={switch: {element: Line.L2, may_loop: true}}",
        text=RING_SCENARIO,
    )
    assert case.measures == (
        TapMeasure(name="tap", element="Transformer.T", low=-2, high=2, step_pu=0.0125, winding=2),
        CapacitorMeasure(name="bank", element="Capacitor.C", high=2, eur_per_move=0.5, moves_per_day=4),
        SwitchMeasure(name="tie", element="Line.L2", may_loop=True),
    )
    assert case.measures_start == {"tap": 0, "bank": 2, "tie": 1}
    assert case.positions(np.array([1.0, 0.0, 1.0])) == {"tap": 1, "bank": 0, "tie": 1}
    engine = case.engine()
    assert engine.control_names == ("tap", "bank", "tie")
    moved = engine.controls_at(np.array([2.0, 1.0, 1.0]))
    engine.restore_controls(moved)
    assert engine.controls() == moved
    assert engine.control_values(engine.controls()).tolist() == [2.0, 1.0, 1.0]
    engine.close()


def test_without_measures_controls_are_as_they_were(tmp_path: Path) -> None:
    case = opened(tmp_path)
    engine = case.engine()
    assert (case.measures, case.measures_start, case.contracts, case.needs(0, 900, 1)) == ((), {}, (), ())
    assert engine.controls() == {"taps": {}, "capacitors": {}}
    assert engine.control_names == ()
    engine.close()


@pytest.mark.parametrize(
    ("measure", "key", "problem"),
    [
        ("{eur_per_move: 1}", "", "exactly one of tap, capacitor, switch; here: none"),
        (
            "{switch: {element: Line.L12}, capacitor: {element: C, high: 1}}",
            "",
            "exactly one of tap, capacitor, switch; here: capacitor, switch",
        ),
        ("{switch: {element: Line.L12}}", ".switch.element", "would cut off buses"),
        ("{tap: {element: Transformer.X, low: 0, high: 1, step_pu: 0.01}}", ".tap.element", "no such element"),
        (
            "{tap: {element: Transformer.T4, low: 0, high: 90, step_pu: 0.01}}",
            ".tap.high",
            "out of the winding's range",
        ),
        (
            "{tap: {element: Transformer.T4, low: 1, high: 2, step_pu: 0.01}}",
            ".tap.element",
            "to none of the positions",
        ),
        ("{tap: {element: Transformer.T4, low: 0, high: 1, step_pu: 0}}", ".tap.step_pu", "out of range"),
        ("{tap: {element: Line.L12, low: 0, high: 1, step_pu: 0.01}}", ".tap.element", "not an element for"),
        ("{switch: {element: Line.L12}, eur_per_move: -1}", ".eur_per_move", "out of range"),
        ("{switch: {element: Line.L12}, moves_per_day: -1}", ".moves_per_day", "out of range"),
    ],
)
def test_faults_of_measures_have_file_line_and_key(tmp_path: Path, measure: str, key: str, problem: str) -> None:
    text = BEGIN + f"dso:\n  measures:\n    own: {measure}\n"
    found = faults(tmp_path, text=text)
    assert len(found) == 1
    assert found[0].key == f"dso.measures.own{key}"
    assert (found[0].file, found[0].line) == (str(tmp_path / "s.yaml"), 12)
    assert problem in found[0].problem


def test_all_faults_of_measures_at_once(tmp_path: Path) -> None:
    again = TAP.replace("eur_per_move: 3", "eur_per_move: 4")
    unknown = "{switch: {element: Line.NO}}"
    found = faults(tmp_path, f"dso.measures.a={TAP}", f"dso.measures.b={again}", f"dso.measures.c={unknown}")
    assert [fault.key for fault in found] == ["dso.measures.b.tap.element", "dso.measures.c.switch.element"]
    assert "already belongs to measure a" in found[0].problem
    assert "Line.l12" in found[1].allowed


def test_a_measure_under_automatic_control_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ring").mkdir()
    control = "New RegControl.R transformer=T winding=2 vreg=120 band=2 ptratio=96.225\n"
    (tmp_path / "ring" / "Master.dss").write_text(RING.replace("Set Volt", control + "Set Volt"))
    (tmp_path / "ring" / "feeder.yaml").write_text(RING_YAML)
    tap = "{tap: {element: Transformer.T, low: -2, high: 2, step_pu: 0.0125, winding: 2}}"
    found = faults(tmp_path, text=RING_SCENARIO + f"dso: {{measures: {{tap: {tap}}}}}\n")
    assert [fault.key for fault in found] == ["dso.measures.tap.tap.element"]
    assert "under automatic control by RegControl.r" in found[0].problem
    assert found[0].file == str(tmp_path / "s.yaml")


def test_a_fault_of_the_feeder_itself_stays_one(tmp_path: Path) -> None:
    (tmp_path / "ring").mkdir()
    (tmp_path / "ring" / "Master.dss").write_text(RING)
    (tmp_path / "ring" / "feeder.yaml").write_text(RING_YAML.replace("Load.A", "Load.NONE"))
    with pytest.raises(FeederError, match=r"Load\.NONE"):
        opened(tmp_path, text=RING_SCENARIO)


def test_measures_need_a_market(tmp_path: Path) -> None:
    found = faults(tmp_path, "market=null", "resources=null", f"dso.measures.tap={TAP}")
    assert [fault.key for fault in found] == ["dso.measures"]
    assert "gates of a market" in found[0].problem


# --- contracts ----------------------------------------------------------------------------------------------------


def test_a_contract_becomes_a_record(tmp_path: Path) -> None:
    case = opened(
        tmp_path,
        f"market.contracts.evening={CONTRACT}",
        "market.contracts.evening.window.weekdays=[thu, sat]",
        "market.contracts.evening.window.last_day=2016-07-31",
        "market.contracts.sun={resource: 'roofs:SS4.pv', direction: down, committed_kw: 50, strike_eur_per_kwh: -0.1, "
        "availability_eur_per_kw: 2, max_activations: 3, window: {}}",
    )
    evening, sun = case.contracts
    assert (evening.id, evening.seller, evening.buyer, evening.product) == ("evening", "storage", "dso", "up")
    assert (evening.direction, evening.committed_kw, evening.shares) == (Direction.UP, 100.0, (("battery", 1.0),))
    window = evening.window
    assert (window.first_day, window.last_day) == (date(2016, 7, 21), date(2016, 7, 31))
    assert (window.begin, window.end, window.weekdays) == (time(18), time(20), (3, 5))
    assert window.utc_offset_s == 7200
    assert (sun.seller, sun.direction, sun.strike_eur_per_kwh) == ("aggregator", Direction.DOWN, -0.1)
    assert (sun.max_activations, sun.availability_eur_per_kw, sun.window.last_day) == (3, 2.0, date(2016, 7, 22))
    again = case_from_payload(case.payload())
    assert (again.contracts, again.measures_start) == (case.contracts, case.measures_start)


@pytest.mark.parametrize(
    ("change", "key", "problem"),
    [
        ({"window": None}, ".window", "required key is missing"),
        ({"committed_kw": "-100"}, ".committed_kw", "out of range"),
        ({"committed_kw": ".nan"}, ".committed_kw", "finite"),
        ({"strike_eur_per_kwh": None}, ".strike_eur_per_kwh", "required key is missing"),
        ({"resource": "batery"}, ".resource", "no such resource"),
        ({"committed_kw": "900"}, "", "more up of battery than is registered"),
        ({"window": "{begin: '18:05'}"}, "", "lies within an MTU"),
        ({"window": "{first_day: 2016-08-01}"}, "", "ends before it begins"),
        ({"window": "{weekdays: [mon]}"}, "", "has no day"),
        ({"window": "{weekdays: [mon, monday]}"}, ".window.weekdays.1", "not one of the choices"),
        ({"max_activations": "0"}, ".max_activations", "out of range"),
        ({"availability_zero": "0.95"}, "", "must not be above availability_full"),
    ],
)
def test_faults_of_contracts(tmp_path: Path, change: dict[str, str | None], key: str, problem: str) -> None:
    given = {
        "resource": "battery",
        "direction": "up",
        "committed_kw": "100",
        "strike_eur_per_kwh": "0.1",
        "window": EVENING,
        **change,
    }
    written = ", ".join(f"{name}: {value}" for name, value in given.items() if value is not None)
    text = BEGIN.replace("market: {}", f"market:\n  contracts:\n    own: {{{written}}}")
    found = faults(tmp_path, text=text)
    assert [fault.key for fault in found] == [f"market.contracts.own{key}"]
    assert problem in found[0].problem
    assert (found[0].file, found[0].line) == (str(tmp_path / "s.yaml"), 11)


def test_contracts_together_commit_no_more_than_is_registered(tmp_path: Path) -> None:
    """The battery of 250 kW can change its power by 500 kW."""
    more = CONTRACT.replace("100", "450")
    found = faults(tmp_path, f"market.contracts.a={CONTRACT}", f"market.contracts.b={more}")
    assert [(fault.key, fault.value, fault.allowed) for fault in found] == [("market.contracts.b", "550 kW", "500 kW")]
    later = more.replace("18:00", "20:00").replace("end: '20:00'", "end: '22:00'")
    assert len(opened(tmp_path, f"market.contracts.a={CONTRACT}", f"market.contracts.b={later}").contracts) == 2
    other = more.replace("direction: up", "direction: down")
    assert len(opened(tmp_path, f"market.contracts.a={CONTRACT}", f"market.contracts.b={other}").contracts) == 2


def test_nothing_to_buy_is_refused(tmp_path: Path) -> None:
    assert [fault.key for fault in faults(tmp_path, "market.spot=false")] == ["market.spot"]
    assert opened(tmp_path, "market.spot=false", f"market.contracts.a={CONTRACT}").market_config.spot is False


# --- needs --------------------------------------------------------------------------------------------------------


def test_needs_are_those_of_their_window(tmp_path: Path) -> None:
    case = opened(
        tmp_path,
        "market.needs.short={buyer: retailer, direction: up, need_kw: 40, max_price_eur_per_kwh: 0.3, "
        "window: {begin: '18:00', end: '18:30'}}",
        "market.needs.long={buyer: trader, direction: down, need_kw: 7, where: [sunny], "
        "window: {begin: '18:15', last_day: 2016-07-21}}",
    )
    six = 18 * 3600
    assert case.needs(0, six - 1800, 2) == ()
    short, long = case.needs(0, six - 900, 4)
    assert (short.id, short.buyer, short.t_s) == ("short", "retailer", six - 900)
    assert (short.need_kw, short.max_price_eur_per_kwh) == ((0.0, 40.0, 40.0, 0.0), 0.3)
    assert (long.need_kw, long.max_price_eur_per_kwh) == ((0.0, 0.0, -7.0, -7.0), None)
    assert (long.where, long.buyer) == (("sunny",), "trader")
    assert [need.id for need in case.needs(0, six + 86_400, 1)] == ["short"]


def test_what_could_be_asked_for_a_day_ahead_is_not_asked_again(tmp_path: Path) -> None:
    case = opened(
        tmp_path,
        "market.gate=day_ahead",
        "market.needs.short={buyer: retailer, direction: up, need_kw: 40, window: {}}",
    )
    noon, day = 12 * 3600, 86_400
    assert len(case.needs(noon, day, 96)) == 1
    assert len(case.needs(noon, noon + 900, 1)) == 1, "no gate of the run closed the day before"
    assert case.needs(day, day + 900, 1) == ()


@pytest.mark.parametrize(
    ("need", "key", "problem"),
    [
        ("{buyer: b, direction: up, need_kw: 1}", ".window", "required key is missing"),
        ("{buyer: b, direction: up, need_kw: 0, window: {}}", ".need_kw", "out of range"),
        ("{buyer: b, direction: both, need_kw: 1, window: {}}", ".direction", "not one of the choices"),
        ("{buyer: b, direction: up, need_kw: 1, window: {}, where: [moon]}", ".where.0", "no perimeter or BRP"),
        ("{buyer: b, direction: up, need_kw: 1, window: {weekdays: [mon]}}", ".window", "has no day"),
        (
            "{buyer: b, direction: up, need_kw: 1, max_price_eur_per_kwh: .inf, window: {}}",
            ".max_price_eur_per_kwh",
            "",
        ),
    ],
)
def test_faults_of_needs(tmp_path: Path, need: str, key: str, problem: str) -> None:
    found = faults(tmp_path, text=BEGIN.replace("market: {}", f"market:\n  needs:\n    own: {need}"))
    assert [fault.key for fault in found] == [f"market.needs.own{key}"]
    assert problem in found[0].problem
    assert found[0].line == 11


def test_defaults() -> None:
    contract = ContractConfig.model_validate(
        {"resource": "r", "direction": "up", "committed_kw": 1, "strike_eur_per_kwh": 0, "window": {}}
    )
    assert (contract.availability_full, contract.availability_zero, contract.max_activations) == (0.9, 0.5, None)
    assert contract.window.weekdays == ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    need = NeedConfig.model_validate({"buyer": "b", "direction": "up", "need_kw": 1, "window": {}})
    assert (need.where, need.max_price_eur_per_kwh) == (("system",), None)


RING = """\
Clear
New Circuit.ring bus1=SRC basekV=20 pu=1.0 phases=3 MVAsc3=200 MVAsc1=200
New Transformer.T phases=3 windings=2 XHL=4 wdg=1 bus=SRC kV=20 kVA=4000 wdg=2 bus=A kV=20 kVA=4000
New Line.L1 bus1=A bus2=B phases=3 R1=0.3 X1=0.3 R0=0.9 X0=0.9 C1=0 C0=0 Length=5 Units=km
New Line.L2 bus1=A bus2=B phases=3 R1=0.3 X1=0.3 R0=0.9 X0=0.9 C1=0 C0=0 Length=5 Units=km
New Capacitor.C bus1=B kV=20 kvar=600 numsteps=2
New Load.A bus1=B phases=3 kV=20 kW=1000 PF=0.9 model=1 Vminpu=0.5 Vmaxpu=1.5
Set VoltageBases=[20]
CalcVoltageBases
"""
RING_YAML = """\
name: ring
head: {branch: Transformer.T, end: SRC}
pods:
  A: {element: Load.A, kind: load, kw: 1000, profile: constant}
"""
RING_SCENARIO = """\
name: ring
start: 2016-07-21T00:00:00+00:00
duration: 2h
feeder: ring
transport: memory
resources: {load: {pods: [A], load: {curtailable: 0.5}}}
market: {}
"""
