"""From the resources of a scenario to units: every kind of device, prices, ids, and each fault."""

from datetime import UTC, datetime, timedelta

import pytest

from cosim.clock import Clock
from cosim.domain.flexibility import StorageUnit
from cosim.errors import ScenarioError
from cosim.flexibility.battery import Battery
from cosim.flexibility.heat_pump import HeatPump
from cosim.flexibility.load import Load
from cosim.flexibility.outages import DeliveryRisk
from cosim.flexibility.portfolio import PodData, owned_storage, portfolio
from cosim.flexibility.pv import Pv
from cosim.scenario.market import ResourceConfig
from cosim.units import kvar_per_kw

START = datetime.fromisoformat("2016-07-21T06:00:00+01:00")
STORAGE = StorageUnit("S", 250.0, 500.0, 50.0, 0.9, 0.8, 1.5)
PODS = (
    PodData("A", "load", 900.0, 300.0, 700.0),
    PodData("B", "load", 400.0, 0.0, 300.0),
    PodData("C", "pv", -150.0, 0.0, 95.0),
    PodData("D", "generator", -80.0, -40.0, 80.0),
    PodData("S", "storage", 0.0, 0.0, 0.0, STORAGE),
)
STAY = {"arrive": "17:30", "depart": "07:00", "need_kwh": 30.0}
VEHICLE = {"p_max_kw": 11.0, "stays": [STAY]}
HEAT_PUMP = {"p_max_kw": 4.0, "capacity_kwh_per_k": 8.0, "resistance_k_per_kw": 5.0}
HOUR_S = 3600


def units(seed=1, start=START, days=2, **resources):
    """Units of entries given as a scenario file has them."""
    configs = {name: ResourceConfig.model_validate(given) for name, given in resources.items()}
    clock = Clock(start.astimezone(UTC), 900, days * 96, 900)
    return portfolio(configs, PODS, "feeder", clock, start, seed)


def only(**resources):
    (unit,) = units(**resources)
    return unit


def faults(**resources):
    with pytest.raises(ScenarioError) as caught:
        units(**resources)
    return [(fault.key, fault.problem, fault.value, fault.allowed) for fault in caught.value.faults]


def test_ids_are_the_name_or_with_the_pod_where_there_are_several():
    found = units(
        one={"pods": ["B"], "load": {"curtailable": 0.5}},
        cars={"pods": ["B", "A"], "vehicle": VEHICLE},
        all={"pods": "all_pv", "pv": {}},
    )
    assert [(unit.resource.id, unit.resource.pod, unit.pod) for unit in found] == [
        ("one", "B", 1),
        ("cars:B", "B", 1),
        ("cars:A", "A", 0),
        ("all:C", "C", 2),
    ]


def test_record_has_what_the_entry_says():
    unit = only(
        x={
            "pods": ["A"],
            "load": {"curtailable": 0.25, "rebound": [0.5, 0.3]},
            "aggregator": "agg",
            "up_eur_per_kwh": 0.4,
            "down_eur_per_kwh": 0.3,
            "brp": "brp",
            "perimeter": "north",
            "delivery": {"shortfall": 0.1, "between_outages": "2d", "outage": "30min", "planned": 0.05},
        }
    )
    record = unit.resource
    assert (record.kind, record.aggregator, record.brp, record.perimeter) == ("load", "agg", "brp", "north")
    assert (record.rebound, record.delivery_risk) == ((0.5, 0.3), 0.05)
    assert unit.risk == DeliveryRisk(0.1, 48.0, 0.5)
    assert (unit.up_eur_per_kwh, unit.down_eur_per_kwh) == (0.4, 0.3)
    assert only(x={"pods": ["A"], "load": {"curtailable": 0.25}}).resource.perimeter == "feeder"


def test_load_sheds_its_share_at_the_power_factor_of_the_profile():
    unit = only(x={"pods": ["A"], "load": {"curtailable": 0.25, "rebound": [0.5]}})
    assert unit.device == Load(0.25, 900, (0.5,), pytest.approx(1.0 / 3.0))
    assert (unit.resource.up_kw, unit.resource.down_kw) == (175.0, 175.0)
    assert unit.resource.kvar_per_kw == unit.device.kvar_per_kw


def test_pv_and_generators_give_up_their_share():
    unit = only(x={"pods": ["C"], "pv": {"curtailable": 0.5}})
    assert (unit.device, unit.resource.down_kw) == (Pv(0.5, 0.0), 47.5)
    assert only(x={"pods": ["D"], "pv": {}}).device == Pv(1.0, 0.5)


def test_power_factor_given_goes_before_that_of_the_profile():
    expected = pytest.approx(kvar_per_kw(0.8))
    for pod, device in (("A", {"load": {"curtailable": 0.5}}), ("B", {"vehicle": VEHICLE})):
        unit = only(x={"pods": [pod], "power_factor": 0.8, **device})
        assert (unit.device.kvar_per_kw, unit.resource.kvar_per_kw) == (expected, expected)
    assert only(x={"pods": ["A"], "vehicle": VEHICLE}).device.kvar_per_kw == 0.0, "a charger is not the profile"


def test_storage_of_the_feeder_is_as_the_feeder_says():
    unit = only(x={"pods": ["S"], "battery": {"rest": 0.2, "rest_kw": 40}})
    assert unit.device == Battery(STORAGE, 250.0, 100.0, 40.0, 0.0)
    assert unit.resource.up_kw == 500.0, "from full charging to full discharging"
    own = {"p_max_kw": 100, "e_max_kwh": 200, "reserve_kwh": 0, "efficiency": 0.7, "initial": 0.25}
    changed = only(x={"pods": ["S"], "battery": own}).device
    assert changed == Battery(StorageUnit("S", 100.0, 200.0, 0.0, 0.7, 0.7, 1.5), 50.0, None, 0.0, 0.0)


def test_battery_beside_a_load_has_data_of_its_own():
    device = only(x={"pods": ["B"], "battery": {"p_max_kw": 10, "e_max_kwh": 20, "reserve_kwh": 4}}).device
    assert device == Battery(StorageUnit("B", 10.0, 20.0, 4.0, 0.95, 0.95), 10.0, None, 0.0, 0.0)


def test_heat_pump_and_where_its_outdoor_temperature_comes_from():
    unit = only(x={"pods": ["A"], "heat_pump": HEAT_PUMP | {"outdoor": -3, "set_c": 21, "comfort_k": 1.5, "cop": 2.5}})
    assert unit.device == HeatPump(4.0, 2.5, 8.0, 5.0, 21.0, 1.5)
    assert (unit.outdoor, unit.resource.up_kw) == (-3.0, 4.0)
    file = {"file": "outdoor.csv", "timezone": "UTC"}
    assert only(x={"pods": ["A"], "heat_pump": HEAT_PUMP | {"outdoor": file}}).outdoor == "x"


def test_vehicle_stays_are_those_of_local_time_on_whole_mtus():
    """The run starts at 06:00: the vehicle that came the day before is there until 07:00."""
    device = only(x={"pods": ["A"], "vehicle": VEHICLE | {"spread": "1s"}}).device
    hours = [(session.arrive_s / HOUR_S, session.depart_s / HOUR_S) for session in device.sessions[:3]]
    begins, ends = zip(*hours, strict=True)
    assert begins == pytest.approx((-12.5, 11.5, 35.5), abs=0.25)
    assert ends == pytest.approx((1.0, 25.0, 49.0), abs=0.25)
    assert {session.need_kwh for session in device.sessions} == {30.0}
    assert all(s.arrive_s % 900 == 0 and s.depart_s % 900 == 0 for s in device.sessions)
    assert device.sessions[-1].arrive_s > 2 * 24 * HOUR_S - 13 * HOUR_S, "there are stays to the end of the run"


def test_vehicles_draw_their_times_each_for_itself_within_the_spread():
    cars = {"pods": ["A", "B"], "vehicle": VEHICLE | {"spread": "2h"}}
    sessions = {unit.resource.id: unit.device.sessions for unit in units(days=60, cars=cars)}
    arrivals = {
        name: [(s.arrive_s - 11.5 * HOUR_S + 12 * HOUR_S) % (24 * HOUR_S) - 12 * HOUR_S for s in own]
        for name, own in sessions.items()
    }
    for late_s in arrivals.values():
        assert -HOUR_S <= min(late_s) < -0.6 * HOUR_S
        assert 0.6 * HOUR_S < max(late_s) <= HOUR_S + 900
    assert arrivals["cars:A"] != arrivals["cars:B"]
    alone = only(days=60, **{"cars:A": {"pods": ["A"], "vehicle": VEHICLE | {"spread": "2h"}}})
    assert alone.device.sessions == sessions["cars:A"], "no other resource changes the draws"


def test_stays_that_overlap_end_when_the_next_begins():
    stays = [
        {"arrive": "08:00", "depart": "12:00", "need_kwh": 5},
        {"arrive": "11:00", "depart": "16:00", "need_kwh": 7},
    ]
    device = only(x={"pods": ["A"], "vehicle": {"p_max_kw": 11, "stays": stays, "spread": "1s"}}).device
    day = [s for s in device.sessions if 0 <= s.arrive_s < 86_400]
    assert [s.need_kwh for s in day] == [5.0, 7.0]
    assert day[0].depart_s == pytest.approx(day[1].arrive_s, abs=900)
    assert day[0].depart_s <= day[1].arrive_s


def test_prices_are_drawn_within_the_spread_each_for_itself():
    entry = {"pods": ["A", "B"], "load": {"curtailable": 0.5}, "up_eur_per_kwh": 0.2, "down_eur_per_kwh": 0.4}
    drawn = [units(seed, x=entry | {"price_spread": 0.25}) for seed in range(200)]
    factors = [unit.up_eur_per_kwh / 0.2 for pair in drawn for unit in pair]
    assert (min(factors), max(factors)) == pytest.approx((0.75, 1.25), abs=0.01)
    first, second = drawn[0]
    assert first.up_eur_per_kwh != second.up_eur_per_kwh
    assert first.down_eur_per_kwh == pytest.approx(2.0 * first.up_eur_per_kwh)
    with_another = units(0, y={"pods": ["C"], "pv": {}, "price_spread": 0.5}, x=entry | {"price_spread": 0.25})
    assert with_another[1:] == drawn[0], "no other resource changes the draws"


def test_registered_capability_is_what_is_given():
    unit = only(x={"pods": ["A"], "load": {"curtailable": 0.5}, "up_kw": 20, "down_kw": 0})
    assert (unit.resource.up_kw, unit.resource.down_kw) == (20.0, 0.0)


def test_storage_that_an_aggregator_runs():
    configs = {
        "x": ResourceConfig.model_validate({"pods": ["S", "B"], "battery": {"p_max_kw": 1, "e_max_kwh": 1}}),
        "y": ResourceConfig.model_validate({"pods": ["S"], "vehicle": VEHICLE}),
    }
    assert owned_storage(configs, PODS) == {"S"}
    assert owned_storage({"y": configs["y"]}, PODS) == frozenset()


def test_all_faults_at_once_with_key_value_and_what_fits():
    assert faults(
        loads={"pods": ["A", "E", "C"], "load": {"curtailable": 0.5}},
        sun={"pods": ["B", "D"], "pv": {}},
        cells={"pods": ["B", "S"], "battery": {"p_max_kw": 3}},
    ) == [
        ("resources.loads.pods.1", "no such POD", "E", "A, B"),
        (
            "resources.loads.pods.2",
            "a load is the profile of a POD of kind load, this one is of kind pv",
            "C",
            "A, B",
        ),
        (
            "resources.sun.pods.0",
            "a pv is the profile of a POD of kind pv or generator, this one is of kind load",
            "B",
            "C, D",
        ),
        (
            "resources.cells.pods.0",
            "a battery at a POD without storage of its own needs p_max_kw and e_max_kwh",
            "B",
            "S",
        ),
    ]


def test_kind_of_pod_that_the_feeder_does_not_have():
    configs = {"x": ResourceConfig.model_validate({"pods": "all_generator", "pv": {}})}
    clock = Clock(START.astimezone(UTC), 900, 96, 900)
    with pytest.raises(ScenarioError, match="no POD of kind generator; got all_generator; allowed: load, pv, storage"):
        portfolio(configs, [pod for pod in PODS if pod.kind != "generator"], "feeder", clock, START, 1)


def test_profile_or_storage_unit_twice():
    half = {"load": {"curtailable": 0.5}}
    assert faults(a={"pods": ["A", "B"], **half}, b={"pods": "all_load", **half}) == [
        ("resources.b.pods", "this device is in a already", "A", ""),
        ("resources.b.pods", "this device is in a already", "B", ""),
    ]
    assert faults(a={"pods": ["B", "B"], **half}) == [("resources.a.pods.1", "this device is in a already", "B", "")]
    assert faults(a={"pods": ["S"], "battery": {}}, b={"pods": ["S"], "battery": {}}) == [
        ("resources.b.pods.0", "this device is in a already", "S", "")
    ]


def test_devices_beside_the_profile_may_share_a_pod_but_not_a_name():
    found = units(
        ab={"pods": ["A", "B"], "vehicle": VEHICLE},
        more={"pods": ["A"], "vehicle": VEHICLE},
        a={"pods": ["A"], "load": {"curtailable": 0.5}},
        s={"pods": ["S"], "vehicle": VEHICLE},
        t={"pods": ["S"], "vehicle": VEHICLE},
    )
    assert [unit.resource.id for unit in found] == ["ab:A", "ab:B", "more", "a", "s", "t"]
    assert faults(cars={"pods": ["A", "A"], "vehicle": VEHICLE}) == [
        ("resources.cars.pods.1", "there is a resource of this name already", "cars:A", "")
    ]
    later = {"pods": ["B"], "vehicle": VEHICLE}
    assert faults(**{"cars": {"pods": ["A", "B"], "vehicle": VEHICLE}, "cars:B": later}) == [
        ("resources.cars:B.pods.0", "there is a resource of this name already", "cars:B", "")
    ]


def test_start_in_the_middle_of_a_day_moves_the_stays_with_it():
    later = START + timedelta(hours=5)
    one, other = (
        units(start=start, x={"pods": ["A"], "vehicle": VEHICLE | {"spread": "1s"}})[0].device.sessions[1]
        for start in (START, later)
    )
    assert one.arrive_s - other.arrive_s == 5 * HOUR_S
