import dataclasses

import numpy as np
import pytest
from small_feeder import HEAD, MEAN, METER_A, METER_C, TRUTH, SmallFeeder, channel, problem

from cosim.domain.frames import frozen
from cosim.domain.measurement import Channel, Place, Snapshot
from cosim.errors import InputError
from cosim.estimation.history import HistoryWindow
from cosim.estimation.problem import (
    evidence,
    is_site_power,
    metered_power,
    residuals,
    sites_read,
    squared_error,
    total,
    without,
)


def test_all_wrong_shapes_are_named_at_once():
    sound = problem(HEAD)
    with pytest.raises(InputError) as caught:
        dataclasses.replace(sound, ordered=np.zeros(2), snapshot=Snapshot(np.zeros(3), np.zeros(2, dtype=np.int8)))
    assert [fault.key for fault in caught.value.faults] == ["snapshot.value", "ordered"]
    assert "got (2,); allowed: (6,)" in str(caught.value)


def test_a_good_value_that_is_nan_is_refused_by_topic():
    sound = problem(HEAD)
    with pytest.raises(InputError, match=r"m/head/q_kvar: a good value must be finite; got nan"):
        dataclasses.replace(sound, snapshot=Snapshot(np.array([1.0, np.nan]), sound.snapshot.quality))


def test_missing_channels_and_those_at_storage_units_are_no_evidence():
    case = problem((*HEAD, channel("battery", "p_kw", 1.0), *METER_A), missing={"m/head/q_kvar"})
    assert [case.channels[row].topic for row in evidence(case).row] == [
        "m/head/p_kw",
        "m/A/p_kw",
        "m/A/q_kvar",
        "m/A/vm_pu",
    ]
    arrived = dataclasses.replace(case, snapshot=Snapshot(frozen(np.ones(6)), frozen(np.zeros(6), np.int8)))
    assert 2 not in evidence(arrived).row
    assert np.isfinite(residuals(arrived, evidence(arrived), MEAN[np.newaxis])).all()


def test_a_meter_called_perfect_is_refused():
    with pytest.raises(InputError, match=r"m/A/p_kw: sigma must be positive; got 0.0\nm/A/vm_pu: .*got nan"):
        problem((channel("A", "p_kw", 0.0), channel("A", "vm_pu", np.nan)))


def test_site_powers_are_told_from_results_of_the_load_flow():
    assert is_site_power(problem((*HEAD, *METER_A))).tolist() == [False, False, True, True, False]


SITES = ("65.1", "65.2", "65.1.2", "66", "665.1")


def at(bus, quantity="p_kw", phase=None):
    return Channel("m", f"m/{bus}/{quantity}", quantity, Place(bus=bus, phase=phase), 1.0)


def test_a_bus_meter_reads_all_sites_there_and_one_of_a_phase_that_phase_to_ground():
    assert sites_read(at("65"), SITES) == (0, 1, 2)
    assert sites_read(at("65", "q_kvar", phase=2), SITES) == (1,)
    assert sites_read(at("66"), SITES) == (3,)
    assert sites_read(at("64"), SITES) == ()
    assert sites_read(at("65", "vm_pu", phase=1), SITES) == ()
    assert sites_read(Channel("m", "t", "p_kw", Place(branch="L", end="65"), 1.0), SITES) == ()


def test_a_meter_of_several_sites_fixes_none_of_them():
    channels = (at("65"), at("65", phase=1), at("66"))
    sound = problem(HEAD)
    flow = SmallFeeder(channels, sites=SITES)
    ten = np.zeros(10)
    window = HistoryWindow(ten, ten, ten, np.eye(10))
    snapshot = Snapshot(np.array([30.0, 10.0, 5.0]), np.zeros(3, dtype=np.int8))
    case = dataclasses.replace(
        sound, flow=flow, channels=channels, snapshot=snapshot, history=window, ordered=np.zeros(10)
    )
    assert is_site_power(case).tolist() == [False, True, True]
    np.testing.assert_array_equal(metered_power(case).x[:5], [10.0, np.nan, np.nan, 5.0, np.nan])


def test_rejected_channels_are_as_if_they_had_not_arrived():
    case = without(problem((*HEAD, *METER_A)), [0, 3])
    assert evidence(case).row.tolist() == [1, 2, 4]
    assert np.isnan(case.snapshot.value[[0, 3]]).all()
    assert not case.snapshot.value.flags.writeable


def test_metered_power_is_the_reading_without_the_order():
    metered = metered_power(problem((*HEAD, *METER_C), ordered=(0.0, 0.0, -40.0)))
    np.testing.assert_allclose(metered.x, [np.nan, np.nan, TRUTH[2], np.nan, np.nan, TRUTH[5]])
    np.testing.assert_allclose(metered.sigma, [np.nan, np.nan, 1.0, np.nan, np.nan, 1.0])


def test_a_meter_that_is_missing_leaves_its_site_unmetered():
    metered = metered_power(problem((*METER_A, *METER_C), missing={"m/C/p_kw"}))
    assert np.isnan(metered.x).tolist() == [False, True, True, False, True, False]


def test_two_meters_of_one_quantity_are_weighted_by_their_accuracy():
    case = problem((channel("A", "p_kw", 1.0), channel("A", "p_kw", 2.0)))
    case = dataclasses.replace(case, snapshot=Snapshot(np.array([100.0, 110.0]), case.snapshot.quality))
    metered = metered_power(case)
    assert metered.x[0] == pytest.approx(102.0)
    assert metered.sigma[0] == pytest.approx(np.sqrt(0.8))


def test_orders_are_added_to_p_for_the_load_flow():
    p_kw, q_kvar = total(problem(HEAD, ordered=(0.0, 0.0, -40.0)), TRUTH)
    np.testing.assert_array_equal(p_kw, TRUTH[:3] + np.array([0.0, 0.0, -40.0]))
    np.testing.assert_array_equal(q_kvar, TRUTH[3:])


def test_squared_error_is_zero_at_the_truth_and_counts_standard_deviations():
    case = problem((*HEAD, *METER_A), ordered=(5.0, 0.0, -40.0))
    assert squared_error(case, TRUTH) == pytest.approx(0.0, abs=1e-20)
    value = case.snapshot.value + np.array([3.0, 0.0, -2.0, 0.0, 0.0])
    shifted = dataclasses.replace(case, snapshot=Snapshot(value, case.snapshot.quality))
    assert squared_error(shifted, TRUTH) == pytest.approx(1.0 + 4.0)


def test_squared_error_without_measurements_is_zero_and_needs_no_load_flow():
    case = problem(())
    assert squared_error(case, MEAN) == 0.0
    assert case.flow.cases == []
