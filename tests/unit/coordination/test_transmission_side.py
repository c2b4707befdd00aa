"""The side of the transmission operator: copper plate, case and network, MTU by MTU."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cosim.clock import Clock
from cosim.coordination.case import Area, CoordinationCase
from cosim.coordination.catalogue import load_scheme
from cosim.coordination.coordinate import coordinate
from cosim.coordination.grid import Line, dc_grid
from cosim.coordination.read_case import read_case
from cosim.coordination.topology import NO_MATRIX
from cosim.coordination.transmission import rules_of, transmission_side
from cosim.coordination.transmission_need import NeedRows
from cosim.coordination.transmission_network import (
    Generator,
    TransmissionNetwork,
    flexible_offers,
    least_cost,
    read_case_network,
)
from cosim.domain.market import Direction
from cosim.errors import BidError, ScenarioError
from cosim.scenario.transmission import FileNeed, MeritOrder, RandomNeed, TransmissionConfig

CLOCK = Clock(datetime(2020, 1, 1, tzinfo=UTC), 900, 96, 900)
T1 = Path(__file__).parents[3] / "scenarios" / "cases" / "t1_ring.yaml"
IMPORT_KW = 1000.0
CASE = TransmissionConfig(case=T1)


def copper(**config):
    return transmission_side(TransmissionConfig(**config), None, CLOCK, 1, IMPORT_KW)


def t1(mean_import_kw=10_000.0, overrides=(), **config):
    return transmission_side(CASE.model_copy(update=config), read_case_network(T1, overrides), CLOCK, 1, mean_import_kw)


def system(state, need_kw, area=None):
    """A case of this MTU with one area below the bus, nothing offered in it."""
    grid = dc_grid("D/", [Line("L", ("head", "B"), 0.1, 2000.0)], "head", {"B": IMPORT_KW})
    areas = {"D": area or Area("D", "system", grid, NO_MATRIX)}
    return CoordinationCase(
        "test", state.t_s, 900, state.grid, need_kw, areas, state.resources, state.bids, rules=rules_of(CASE)
    )


def bought(found):
    return {bid: round(kw, 6) for bid, kw in found.dispatch_kw.items() if kw > 1e-6}


def test_a_copper_plate_meets_its_need_at_the_prices_of_the_merit_order():
    state = copper().at(1800, IMPORT_KW)
    found = coordinate(system(state, 250.0), load_scheme("dso_then_t_only"))
    assert bought(found) == {"system 1 up": 100.0, "system 2 up": 100.0, "system 3 up": 50.0}
    prices = np.linspace(60.0, 400.0, 8)
    assert found.cost_eur == pytest.approx((prices[:2].sum() * 0.1 + prices[2] * 0.05) * 0.25)
    assert found.balance.missing_kw == pytest.approx(0.0, abs=1e-6)


def test_a_copper_plate_that_is_long_is_paid_for_the_fuel_it_saves():
    found = coordinate(system(copper().at(0, IMPORT_KW), -150.0), load_scheme("dso_then_t_only"))
    assert bought(found) == {"system 8 down": 100.0, "system 7 down": 50.0}
    prices = np.linspace(-60.0, -10.0, 8)
    assert found.cost_eur == pytest.approx((prices[0] * 0.1 + prices[1] * 0.05) * 0.25)


def test_nothing_is_bought_where_nothing_is_needed():
    found = coordinate(system(copper().at(0, IMPORT_KW), 0.0), load_scheme("dso_then_t_only"))
    assert bought(found) == {}


def test_what_the_merit_order_does_not_cover_is_short():
    found = coordinate(system(copper().at(0, IMPORT_KW), 900.0), load_scheme("dso_then_t_only"))
    assert sum(bought(found).values()) == pytest.approx(800.0)
    assert [what for _, _, what in found.unsolved] == ["balance short of 100 kW"]


def test_the_merit_order_is_as_configured():
    order = MeritOrder(steps=2, step_share=0.2, up_eur_per_mwh=(10.0, 20.0), down_eur_per_mwh=(1.0, 2.0))
    state = copper(merit_order=order).at(900, 0.0)
    offers = {bid.id: [(step.quantity_kw, step.price_eur_per_kwh) for step in bid.steps] for bid in state.bids}
    assert offers == {
        "system 1 up": [(200.0, 0.01)],
        "system 1 down": [(200.0, 0.002)],
        "system 2 up": [(200.0, 0.02)],
        "system 2 down": [(200.0, 0.001)],
    }
    assert {bid.t_s for bid in state.bids} == {900}
    assert all(len(bid.quantity_kw) == 1 for bid in state.bids)


def test_a_state_is_the_same_whenever_it_is_asked_for():
    side = copper()
    first, other = side.at(900, 500.0), side.at(1800, 500.0)
    again = copper().at(900, 500.0)
    assert (again.need_kw, again.bids, again.resources) == (first.need_kw, first.bids, first.resources)
    assert other.need_kw != first.need_kw
    assert [bid.id for bid in other.bids] == [bid.id for bid in first.bids]


def test_t1_has_the_flows_of_its_case_file():
    case, side = read_case(T1), t1()
    state = side.at(0, 10_000.0)
    assert side.interfaces("D", "E") == {"D": "S1", "E": "S1"}
    assert state.grid.rows.pods == case.transmission.rows.pods
    assert state.grid.rows.i_a == pytest.approx(case.transmission.rows.i_a)
    assert state.grid.rows.i_max_a == pytest.approx(case.transmission.rows.i_max_a)
    assert state.grid.import_kw == pytest.approx(case.transmission.import_kw, abs=1e-6)
    own = {name: unit for name, unit in case.resources.items() if "/" not in unit.pod}
    assert state.resources == own
    assert state.bids == tuple(bid for bid in case.bids if bid.members[0] in own)


def test_t1_clears_as_its_case_file_does():
    case, state = read_case(T1), t1().at(0, 10_000.0)
    local = tuple(bid for bid in case.bids if bid.members[0][0] == "F")
    assembled = replace(
        case,
        transmission=state.grid,
        bids=state.bids + local,
        resources={**state.resources, **{bid.members[0]: case.resources[bid.members[0]] for bid in local}},
    )
    assert coordinate(assembled, load_scheme("it_coopt")).cost_eur == pytest.approx(15108.45, abs=0.01)


def test_the_feeder_is_the_load_of_its_bus_or_comes_on_top():
    replaced, added = t1(bus="T4"), t1(bus="T4", load="added")
    at_t4 = [side.at(0, 50_000.0).grid.rows.p_kw[replaced.network.buses.index("T4")] for side in (replaced, added)]
    assert at_t4 == [pytest.approx(50_000.0), pytest.approx(650_000.0)]


def test_reactive_offers_and_voltages_of_a_case_come_along():
    voltage = "transmission.voltage={base_mva: 100, vm_pu: {S1: 1.04}}"
    side = t1(overrides=(voltage, "resources.G3.q_up=[{mw: 10, eur_per_mwh: 1}]"), feeders=10)
    state = side.at(0, 1000.0)
    assert "T3:q" in state.grid.rows.pods
    assert {bid.id for bid in state.bids if bid.product == "reactive"} == {"G3 q up"}
    whole = read_case(T1, (voltage,)).transmission.rows
    at = whole.pods.index("S1")
    n = len(whole.conductors)
    assert state.grid.rows.by_q[n:, at] == pytest.approx(10.0 * whole.by_q[n:, at])
    assert state.grid.rows.base[n:] == pytest.approx(whole.base[n:])


def test_a_case_that_is_a_copper_plate_needs_no_bus(tmp_path):
    path = tmp_path / "plate.yaml"
    path.write_text("name: plate\ntransmission: {load_mw: {a: 3}}\nresources: {G: {up: [{mw: 1, eur_per_mwh: 5}]}}\n")
    side = transmission_side(TransmissionConfig(case=path), read_case_network(path), CLOCK, 1, IMPORT_KW)
    assert side.bus == "system"
    assert side.at(0, 500.0).grid.rows.p_kw == pytest.approx([3500.0])


def test_faults_of_a_case_file_have_their_lines(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(T1.read_text().replace("bus: T3", "bus: X").replace("x_pu: 0.0064", "x_pu: 0"))
    with pytest.raises(BidError, match=r"wrong\.yaml:\d+: transmission\.lines\.2\.x_pu"):
        read_case_network(path)
    path.write_text(T1.read_text().replace("bus: T3", "bus: X"))
    with pytest.raises(BidError, match=r"wrong\.yaml:\d+: resources\.G3\.bus: no such place; got X"):
        read_case_network(path)


def network(*generators):
    lines = [Line("A-B", ("A", "B"), 0.1, 50_000.0)]
    grid = dc_grid("", lines, "A", {"B": 60_000.0})
    return TransmissionNetwork("two", grid, "A", {"B": 60_000.0}, "B", generators)


CHEAP = Generator("cheap", "A", 10_000.0, 5_000.0, 40_000.0, 0.02)
STEEP = Generator("steep", "B", 20_000.0, 0.0, 80_000.0, 0.01, 1e-6)


def of_network(**config):
    made = network(CHEAP, STEEP)
    return transmission_side(TransmissionConfig(network="two", **config), made, CLOCK, 1, IMPORT_KW)


def test_the_given_schedule_is_balanced_at_the_slack_bus():
    state = of_network(dispatch="given").at(0, 30_000.0)
    assert state.grid.rows.p_kw == pytest.approx([-10_000.0, 10_000.0])
    assert state.grid.import_kw == pytest.approx(0.0)
    assert state.grid.rows.i_a.real == pytest.approx([10_000.0])


def test_the_schedule_of_least_cost_follows_the_load():
    state = of_network().at(0, 30_000.0)
    assert state.grid.rows.p_kw == pytest.approx([-20_000.0, 20_000.0])  # both at 20 EUR/MWh
    assert state.grid.import_kw == pytest.approx(0.0, abs=1e-6)
    assert of_network().at(0, 60_000.0).grid.rows.p_kw == pytest.approx([-40_000.0, 40_000.0])


def test_generators_offer_what_their_schedule_leaves_them():
    offers = {bid.id: bid for _, bid in flexible_offers(CHEAP, 15_000.0, 0.05)}
    assert offers["cheap up"].quantity_kw == (25_000.0,)
    assert [step.price_eur_per_kwh for step in offers["cheap up"].steps] == [pytest.approx(0.021)]
    assert offers["cheap down"].quantity_kw == (10_000.0,)
    assert [step.price_eur_per_kwh for step in offers["cheap down"].steps] == [pytest.approx(-0.019)]
    (up,) = [bid for _, bid in flexible_offers(STEEP, 0.0, 0.0)]
    assert up.direction is Direction.UP
    assert [step.price_eur_per_kwh for step in up.steps] == pytest.approx([0.02, 0.04, 0.06, 0.08])


def test_a_load_beyond_all_bounds_leaves_generators_at_their_bounds():
    assert least_cost([CHEAP, STEEP], 1e6) == pytest.approx({"cheap": 40_000.0, "steep": 80_000.0})
    assert least_cost([CHEAP, STEEP], -1e6) == pytest.approx({"cheap": 5_000.0, "steep": 0.0})
    assert least_cost([], 5.0) == {}


def test_units_of_the_same_cost_are_taken_in_order():
    twins = [replace(CHEAP, id=name) for name in ("first", "second")]
    assert least_cost(twins, 50_000.0) == pytest.approx({"first": 40_000.0, "second": 10_000.0})


def test_all_faults_at_once():
    short = NeedRows(datetime(2020, 1, 1, 6, tzinfo=UTC), 3600, np.ones(4))
    config = TransmissionConfig(bus="X", need=FileNeed(file=Path("need.csv"), timezone="UTC"))
    with pytest.raises(ScenarioError) as refused:
        transmission_side(config, None, CLOCK, 1, 0.0, short)
    assert {fault.key: (fault.value, fault.allowed) for fault in refused.value.faults} == {
        "transmission.bus": ("X", "system"),
        "transmission.merit_order": ("0 kW", ""),
        "transmission.need.file": ("2020-01-01T06:00Z to 2020-01-01T10:00Z", ""),
    }


def test_a_case_that_does_not_say_where_the_feeder_hangs():
    areas = "areas.E={bus: T2, lines: [{buses: [T2, E1], x_pu: 0.1}]}"
    with pytest.raises(ScenarioError, match=r"transmission\.bus: the case does not say where .*allowed: T1, T2"):
        t1(overrides=(areas,))
    assert t1(overrides=(areas,), bus="T2").bus == "T2"


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        ({"feeders": 0}, "feeders", "greater than or equal to 1"),
        ({"case": "a.yaml", "network": "case9"}, "", "not of both"),
        ({"merit_order": {"up_eur_per_mwh": [60, 50]}}, "merit_order", "must increase"),
        ({"merit_order": {"down_eur_per_mwh": [-10, -60]}}, "merit_order", "must increase"),
        ({"need": {"persistence": 1.0}}, "need", "less than 1"),
        ({"need": {"file": "need.csv", "share": 0.1}}, "need", "Extra inputs"),
        ({"need": {"file": "need.csv", "timezone": "Rom"}}, "need", "no time zone"),
    ],
)
def test_what_a_scenario_may_not_say(given, key, words):
    with pytest.raises(ValidationError) as refused:
        TransmissionConfig.model_validate(given)
    found = refused.value.errors()
    assert any(".".join(map(str, each["loc"])).startswith(key) and words in each["msg"] for each in found)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"case": "cases/t1_ring.yaml", "bus": "S1", "need": {"file": "need.csv", "timezone": "UTC"}},
        {"network": "case9", "feeders": 40, "need": {"share": 0.1}, "dispatch": "given", "load": "added"},
    ],
)
def test_a_resolved_scenario_reads_back_as_the_same(given):
    config = TransmissionConfig.model_validate(given)
    assert TransmissionConfig.model_validate(config.model_dump(mode="json")) == config


def test_what_the_system_is():
    tiers = [TransmissionConfig(**given).tier for given in ({}, {"case": "a.yaml"}, {"network": "case9"})]
    assert tiers == ["copper_plate", "case", "network"]
    assert TransmissionConfig(network="case9").network_file is None
    assert TransmissionConfig(network="nets/own.json").network_file == Path("nets/own.json")
    assert isinstance(TransmissionConfig().need, RandomNeed)


def test_rules_are_in_kilowatt_hours():
    rules = rules_of(TransmissionConfig())
    assert (rules.shortage_eur_per_kwh, rules.violation_eur_per_kwh) == (3.0, 10.0)
