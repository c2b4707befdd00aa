import math

import pytest

from cosim.domain.measurement import Place
from cosim.errors import ScenarioError
from cosim.scenario.schema import Meter, SensorFaults, Sensors
from cosim.sensing.channels import channels_of, faults_for, meters_used


def bus_meter(number: int = 1, bus: str = "b1", quantities: tuple[str, ...] = ("p_kw",), class_percent: float = 0.5):
    return Meter(
        type="sub",
        number=number,
        bus=bus,
        quantities=quantities,
        class_percent=class_percent,
        full_scale=dict.fromkeys(quantities, 600.0),
    )


def test_one_channel_a_quantity_ordered_by_meter_then_quantity_whatever_the_order_written():
    meters = {
        "south": bus_meter(2, "b2", ("vm_pu", "p_kw")),
        "north": Meter(type="bat", number=7, storage="pod3", quantities=("e_kwh",), full_scale={"e_kwh": 100.0}),
        "head": Meter(type="pri", number=0, branch="line1", end="b0", quantities=("i_a",), full_scale={"i_a": 400.0}),
    }
    channels = channels_of(meters, Sensors())
    assert [channel.topic for channel in channels] == ["pri/0/i_a", "bat/7/e_kwh", "sub/2/p_kw", "sub/2/vm_pu"]
    assert [channel.unit for channel in channels] == ["A", "kWh", "kW", "pu"]
    assert channels == channels_of(dict(reversed(meters.items())), Sensors())
    assert channels[0].place == Place(branch="line1", end="b0")
    assert channels[1].place == Place(storage="pod3")
    assert (channels[2].place, channels[2].meter) == (Place(bus="b2"), "south")


def test_phases_measured_each_on_its_own_are_channels_of_their_own():
    meter = bus_meter(3, "b3", ("vm_pu", "p_kw")).model_copy(update={"phases": (1, 3)})
    channels = channels_of({"m": meter}, Sensors())
    assert [c.topic for c in channels] == ["sub/3/p_kw/1", "sub/3/p_kw/3", "sub/3/vm_pu/1", "sub/3/vm_pu/3"]
    assert [c.place for c in channels] == [Place(bus="b3", phase=phase) for phase in (1, 3, 1, 3)]


def test_sigma_is_class_and_resolution_in_quadrature():
    sensors = Sensors(faults={"a": SensorFaults(quantum=1.0, bias_percent=50.0)})
    plain, coarse = channels_of({"b": bus_meter(1), "a": bus_meter(2)}, sensors)[::-1]
    assert plain.sigma == pytest.approx(0.005 * 600.0 / 3.0)
    assert coarse.sigma == pytest.approx(math.sqrt(1.0**2 + 6.0**2 / 12.0))


def test_sigma_of_a_perfect_meter_is_not_zero():
    (channel,) = channels_of({"a": bus_meter(class_percent=0.0)}, Sensors())
    assert channel.sigma == pytest.approx(0.06)


def test_shared_topics_are_all_reported_with_both_meters():
    meters = {
        "east": bus_meter(1, quantities=("p_kw", "q_kvar")),
        "west": bus_meter(1, "b2", quantities=("q_kvar", "p_kw")),
        "other": bus_meter(1, quantities=("vm_pu",)),
    }
    with pytest.raises(ScenarioError) as caught:
        channels_of(meters, Sensors())
    assert len(caught.value.faults) == 2
    assert "topic sub/1/p_kw is used more than once, by meters east and west" in str(caught.value)
    assert "sub/1/q_kvar" in str(caught.value)
    assert "vm_pu" not in str(caught.value)


def test_faults_of_a_meter_are_its_own_then_the_default_then_only_noise():
    own, default = SensorFaults(dropout=0.5), SensorFaults(stuck=0.1)
    assert faults_for(Sensors(faults={"a": own, "default": default}), "a") == own
    assert faults_for(Sensors(faults={"a": own, "default": default}), "b") == default
    assert faults_for(Sensors(faults={"a": own}), "b") == SensorFaults()
    assert faults_for(Sensors(), "b").noise


def test_meters_used_are_the_chosen_and_the_extra_ones():
    feeder = {"a": bus_meter(1), "b": bus_meter(2)}
    extra = bus_meter(3)
    assert meters_used(feeder, Sensors()) == feeder
    assert meters_used(feeder, Sensors(meters=("b",), extra={"c": extra})) == {"b": feeder["b"], "c": extra}
    unused_faults = Sensors(meters=("b",), faults={"a": SensorFaults(stuck=0.5), "default": SensorFaults()})
    assert meters_used(feeder, unused_faults) == {"b": feeder["b"]}


def test_meters_that_do_not_exist_or_clash_are_all_reported():
    feeder = {"a": bus_meter(1), "b": bus_meter(2)}
    sensors = Sensors(meters=("a", "z"), extra={"b": bus_meter(3)}, faults={"y": SensorFaults()})
    with pytest.raises(ScenarioError) as caught:
        meters_used(feeder, sensors)
    assert [fault.key for fault in caught.value.faults] == ["sensors.meters", "sensors.extra.b", "sensors.faults.y"]
    assert "no meter 'z' in the feeder; got z; allowed: a, b" in str(caught.value)
    assert "allowed: a, b, default" in str(caught.value)
