"""Resources, aggregators, forecast and market in a scenario file: what is read, and how each mistake is answered."""

from __future__ import annotations

import json
from datetime import time
from pathlib import Path

import pytest

from cosim.errors import Fault, ScenarioError
from cosim.scenario.load import load_scenario
from cosim.scenario.market import KINDS, MarketConfig, Outdoor, ResourceConfig
from cosim.scenario.schema import Scenario

BEGIN = "name: small\nstart: 2016-07-22T00:00:00+01:00\nduration: 3d\nfeeder: mv5\n"
ALL_KINDS = """\
resources:
  shed: {pods: all_load, load: {curtailable: 0.3, rebound: [0.5, 0.5]}, delivery: {shortfall: 0.2, outage: 30min}}
  sun: {pods: all_pv, pv: {}, aggregator: producers}
  cells: {pods: [S, T], battery: {rest: 0.5, rest_kw: 20}, up_kw: 5, price_spread: 1}
  cars:
    pods: [A]
    vehicle: {p_max_kw: 11, stays: [{arrive: "17:30", depart: "07:00", need_kwh: 30}], spread: 90min, charging: evenly}
    power_factor: 0.95
  pumps:
    pods: [A]
    heat_pump:
      {p_max_kw: 3, capacity_kwh_per_k: 5, resistance_k_per_kw: 4, outdoor: {file: t.csv, timezone: Europe/Rome}}
  pump: {pods: [B], heat_pump: {p_max_kw: 3, capacity_kwh_per_k: 5, resistance_k_per_kw: 4, outdoor: -7.5}}
aggregators: {producers: {delivery: any_split, min_accept: 0.5}, default: {min_kw: 2, step_kw: 1}}
dso: {forecast: {method: perfect, half_share: 0.1, correlation: 0.5}}
market: {gate: day_ahead, gate_time: "13:30", uncertainty: {set: factors, common: 0.7}, interface: hold}
"""


def load(folder: Path, text: str) -> Scenario:
    path = folder / "s.yaml"
    path.write_text(BEGIN + text, encoding="utf-8")
    return load_scenario(path).scenario


def faults(folder: Path, text: str) -> tuple[Fault, ...]:
    with pytest.raises(ScenarioError) as caught:
        load(folder, text)
    return caught.value.faults


def test_without_a_word_about_it_there_is_no_market(tmp_path: Path) -> None:
    scenario = load(tmp_path, "")
    assert (scenario.market, scenario.resources, scenario.aggregators) == (None, {}, {})
    assert load(tmp_path, "market: {}\n").market == MarketConfig()


def test_every_kind_is_read(tmp_path: Path) -> None:
    scenario = load(tmp_path, ALL_KINDS)
    found = scenario.resources
    assert {config.kind for config in found.values()} == set(KINDS)
    assert found["cars"].vehicle.stays[0].arrive == time(17, 30)  # type: ignore[union-attr]
    assert found["cars"].vehicle.spread == 5400  # type: ignore[union-attr]
    assert (found["sun"].pods, found["cells"].pods) == ("all_pv", ("S", "T"))
    assert isinstance(found["pumps"].heat_pump.outdoor, Outdoor)  # type: ignore[union-attr]
    assert found["pump"].heat_pump.outdoor == -7.5  # type: ignore[union-attr]
    assert scenario.market is not None
    assert scenario.market.gate_time == time(13, 30)
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario


def test_a_dumped_scenario_reads_back(tmp_path: Path) -> None:
    """As it goes to another process."""
    scenario = load(tmp_path, ALL_KINDS)
    assert Scenario.model_validate(json.loads(json.dumps(scenario.model_dump(mode="json")))) == scenario


STAY = "{arrive: '08:00', depart: '09:00', need_kwh: 3}"
LOAD = "load: {curtailable: 0.5}"
OUTDOOR = "heat_pump: {p_max_kw: 3, capacity_kwh_per_k: 5, resistance_k_per_kw: 4, outdoor: "


@pytest.mark.parametrize(
    ("entry", "key", "problem", "allowed"),
    [
        ("{pods: [A]}", "", "a resource is exactly one of load, pv, battery, vehicle, heat_pump; here: none", ""),
        (f"{{pods: [A], {LOAD}, pv: {{}}}}", "", "a resource is exactly one of", ""),
        (f"{{pods: [], {LOAD}}}", ".pods", "too few entries", "list of text, with at least 1 or all_load"),
        (f"{{pods: all, {LOAD}}}", ".pods", "not one of the choices", "or all_load or all_pv"),
        (f"{{{LOAD}}}", ".pods", "required key is missing", "all_load"),
        ("{pods: [A], load: {}}", ".load.curtailable", "required key is missing", "number, at least 0, at most 1"),
        ("{pods: [A], load: {curtailable: 1.5}}", ".load.curtailable", "out of range", "at most 1"),
        (
            "{pods: [A], load: {curtailable: 0.5, rebound: [0.75, 0.5]}}",
            ".load.rebound",
            "shares of the rebound add up to 1.25, which is above 1",
            "",
        ),
        ("{pods: [A], battery: {p_max_kw: 0}}", ".battery.p_max_kw", "out of range", "above 0"),
        ("{pods: [A], battery: {efficiency: 0}}", ".battery.efficiency", "out of range", "above 0"),
        ("{pods: [A], vehicle: {p_max_kw: 3, stays: []}}", ".vehicle.stays", "too few entries", "at least 1"),
        (
            f"{{pods: [A], vehicle: {{p_max_kw: 3, stays: [{STAY}, {{arrive: 17, depart: '07:00', need_kwh: 3}}]}}}}",
            ".vehicle.stays.1.arrive",
            "expected the form 18:00",
            "",
        ),
        (f"{{pods: [A], {OUTDOOR}warm}}}}", ".heat_pump.outdoor", "a number is expected", ""),
        (
            f"{{pods: [A], {OUTDOOR}{{file: t.csv}}}}}}",
            ".heat_pump.outdoor.timezone",
            "required key is missing",
            "zone",
        ),
        (
            f"{{pods: [A], {OUTDOOR}{{file: t.csv, timezone: Europe/Roma}}}}}}",
            ".heat_pump.outdoor.timezone",
            "no time zone 'Europe/Roma'; did you mean Europe/Rome",
            "",
        ),
        (f"{{pods: [A], {LOAD}, up_eur_per_kwh: .nan}}", ".up_eur_per_kwh", "a finite number is expected", "EUR/kWh"),
        (f"{{pods: [A], {LOAD}, up_kw: -1}}", ".up_kw", "out of range", "at least 0"),
        (f"{{pods: [A], {LOAD}, power_factor: 0}}", ".power_factor", "out of range", "above 0"),
        (f"{{pods: [A], {LOAD}, aggregator: a/b}}", ".aggregator", "", "\\w"),
        (f"{{pods: [A], {LOAD}, delivery: {{outage: 3}}}}", ".delivery.outage", "not a duration", ""),
        (f"{{pods: [A], {LOAD}, delivery: {{planned: 2}}}}", ".delivery.planned", "out of range", "at most 1"),
        (f"{{pods: [A], {LOAD}, price: 3}}", ".price", "unknown key", "up_eur_per_kwh"),
    ],
)
def test_faults_of_a_resource(tmp_path: Path, entry: str, key: str, problem: str, allowed: str) -> None:
    (fault,) = faults(tmp_path, f"resources:\n  x: {entry}\n")
    assert (fault.file, fault.line) == (str(tmp_path / "s.yaml"), 6)
    assert fault.key == f"resources.x{key}"
    assert problem in fault.problem
    assert allowed in fault.allowed


@pytest.mark.parametrize(
    ("text", "key", "problem", "allowed"),
    [
        ("market: {gate: noon}", "market.gate", "not one of the choices", "real_time or day_ahead"),
        ("market: {gate_time: 12}", "market.gate_time", "expected the form 18:00", ""),
        ('market: {gate_time: "12:00:30"}', "market.gate_time", "a whole minute, without seconds", ""),
        ("market: {planes: 2}", "market.planes", "out of range", "at least 3"),
        ("market: {slack_eur_per_kwh: 0}", "market.slack_eur_per_kwh", "out of range", "above 0"),
        ("market: {solver: glpk}", "market.solver", "not one of the choices", "highs or cbc"),
        ("market: true", "market", "a mapping is expected", "mapping with gate"),
        ("market: {uncertainty: box}", "market.uncertainty", "a mapping is expected", "mapping with set"),
        (
            "market: {uncertainty: {set: ellipsoid, base: residual}}",
            "market.uncertainty",
            "an ellipsoid goes with a band on the baseline only",
            "",
        ),
        ("aggregators: {a: {delivery: each}}", "aggregators.a.delivery", "not one of the choices", "any_split"),
        ("aggregators: {a: {min_accept: 2}}", "aggregators.a.min_accept", "out of range", "at most 1"),
        ("dso: {forecast: {coverage: 1}}", "dso.forecast.coverage", "out of range", "below 1"),
        ("dso: {forecast: {days: 1}}", "dso.forecast.days", "out of range", "at least 2"),
        ("dso: {forecast: {half_share: 1}}", "dso.forecast.half_share", "out of range", "below 1"),
    ],
)
def test_faults_of_market_and_forecast(tmp_path: Path, text: str, key: str, problem: str, allowed: str) -> None:
    (fault,) = faults(tmp_path, text + "\n")
    assert (fault.file, fault.line, fault.key) == (str(tmp_path / "s.yaml"), 5, key)
    assert problem in fault.problem
    assert allowed in fault.allowed


def test_all_faults_at_once(tmp_path: Path) -> None:
    text = "resources:\n  x: {pods: [A], load: {curtailable: 2}}\n  y:\n    pods: [B]\nmarket:\n  planes: x\n"
    assert [(fault.line, fault.key) for fault in faults(tmp_path, text)] == [
        (6, "resources.x.load.curtailable"),
        (7, "resources.y"),
        (10, "market.planes"),
    ]


def test_every_field_says_its_unit() -> None:
    """Numbers of the market have a unit in their name or in their description."""
    schema = ResourceConfig.model_json_schema()
    parts = [schema, *schema["$defs"].values(), MarketConfig.model_json_schema()]
    fields = {name: field for part in parts for name, field in part["properties"].items()}
    numbers = {name: field["description"] for name, field in fields.items() if field.get("type") == "number"}
    assert len(numbers) > 15
    assert [name for name, said in numbers.items() if "[" not in said] == []
