import json
from itertools import pairwise

import numpy as np
import pytest

from cosim.domain.measurement import Message
from cosim.scenario.schema import Meter, SensorFaults, Sensors
from cosim.sensing.channels import channels_of
from cosim.sensing.measure import (
    DROPOUT,
    LATE,
    STUCK,
    ChannelMemory,
    SensorMemory,
    SensorModel,
    fresh_memory,
    measure,
    sensor_model,
)

STEP_S = 900
QUIET = {"noise": False}


def meters(count: int = 1) -> dict[str, Meter]:
    return {
        f"m{number}": Meter(
            type="sub", number=number, bus=f"b{number}", quantities=("p_kw",), full_scale={"p_kw": 600.0}
        )
        for number in range(count)
    }


def model_of(faults: dict, count: int = 1, seed: int = 1, tolerance_s: float = 5.0) -> SensorModel:
    sensors = Sensors(faults={"default": SensorFaults(**faults)}, tolerance_s=tolerance_s)
    return sensor_model(meters(count), sensors, seed)


def run(model: SensorModel, truth: np.ndarray, first: int = 0, memory: SensorMemory | None = None):
    """All steps of ``truth`` (n_step, n_channel): the last memory, the messages of each step, all events."""
    memory = memory or fresh_memory(model)
    messages, events = [], []
    for step, row in enumerate(truth, start=first):
        memory, now, happened = measure(model, memory, step, step * STEP_S, row)
        messages.append(now)
        events.extend(happened)
    return memory, messages, events


def ramp(steps: int, count: int = 1) -> np.ndarray:
    return np.arange(1.0, steps + 1.0)[:, None] + 1000.0 * np.arange(count)


def test_perfect_sensor_publishes_the_truth_with_its_stamp_and_sequence():
    memory, messages, events = run(model_of(QUIET), ramp(3))
    assert [message for (message,) in messages] == [
        Message("sub/0/p_kw", step, step, step * 900.0, step + 1.0, "kW") for step in range(3)
    ]
    assert events == []
    assert memory == SensorMemory((ChannelMemory(3, 3.0, 0),))


def test_model_keeps_the_channels_in_order():
    sensors = Sensors()
    assert sensor_model(meters(3), sensors, 1).channels == channels_of(meters(3), sensors)


def test_noise_has_a_third_of_the_class_as_its_deviation_and_the_bias_as_its_mean():
    model = model_of({"bias_percent": 2.0}, count=2)
    _, messages, _ = run(model, np.full((3000, 2), 100.0))
    error = np.array([[message.value - 100.0 for message in step] for step in messages])
    sigma = 0.005 * 600.0 / 3.0
    assert error.mean(axis=0) == pytest.approx([12.0, 12.0], abs=5 * sigma / np.sqrt(3000))
    assert error.std(axis=0) == pytest.approx([sigma, sigma], rel=5 / np.sqrt(2 * 3000))
    assert abs(np.corrcoef(error.T)[0, 1]) < 5 / np.sqrt(3000)


def test_values_are_whole_multiples_of_the_quantum_nearest_to_the_reading():
    _, messages, _ = run(model_of({"noise": False, "quantum": 0.5}), np.array([[1.4], [1.6], [-4.6], [0.0]]))
    assert [message.value for (message,) in messages] == [0.0, 3.0, -6.0, 0.0]


def test_lost_message_consumes_no_sequence_number():
    _, messages, events = run(model_of({**QUIET, "dropout": 0.3}), ramp(400))
    arrived = [message for step in messages for message in step]
    assert [message.sequence for message in arrived] == list(range(len(arrived)))
    assert [message.value for message in arrived] == [message.step + 1.0 for message in arrived]
    lost = {int(event.t_s) // STEP_S for event in events if event.fault == DROPOUT}
    assert lost == set(range(400)) - {message.step for message in arrived}
    assert len(lost) == pytest.approx(120, abs=5 * np.sqrt(400 * 0.3 * 0.7))


def test_dropout_of_one_loses_everything_and_of_zero_nothing():
    assert run(model_of({"dropout": 1.0}), ramp(50))[1] == [()] * 50
    assert all(len(step) == 1 for step in run(model_of({"dropout": 0.0}), ramp(50))[1])


def test_stuck_value_is_the_one_last_read_for_the_stated_steps():
    _, messages, events = run(model_of({**QUIET, "stuck": 0.05, "stuck_steps": 3}), ramp(400))
    expected = np.arange(1.0, 401.0)
    begins = [int(event.t_s) // STEP_S for event in events if event.fault == STUCK]
    assert len(begins) > 5
    for step in begins:
        expected[step : step + 3] = expected[max(step - 1, 0)]
    assert [message.value for (message,) in messages] == expected.tolist()
    assert all(later - earlier >= 3 for earlier, later in pairwise(begins))


def test_stuck_at_the_first_step_holds_the_first_value():
    _, messages, events = run(model_of({**QUIET, "stuck": 1.0, "stuck_steps": 4}), ramp(5))
    assert [message.value for (message,) in messages] == [1.0] * 5
    assert [event.t_s for event in events] == [0, 4 * STEP_S]


def test_clock_skew_shifts_the_stamp_only():
    _, messages, _ = run(model_of({**QUIET, "clock_skew_s": -2.5}), ramp(2))
    assert [(message.stamp_s, message.step, message.value) for (message,) in messages] == [
        (-2.5, 0, 1.0),
        (897.5, 1, 2.0),
    ]


def test_delay_within_the_tolerance_changes_nothing():
    delayed, plain = run(model_of({**QUIET, "delay_s": 5.0}), ramp(3)), run(model_of(QUIET), ramp(3))
    assert delayed[1:] == plain[1:]


@pytest.mark.parametrize(("delay_s", "later"), [(6.0, 1), (900.0, 1), (901.0, 2)])
def test_longer_delay_publishes_in_the_first_step_at_or_after_arrival_with_the_old_stamp(delay_s, later):
    memory, messages, events = run(model_of({**QUIET, "delay_s": delay_s}), ramp(5))
    assert messages[:later] == [()] * later
    assert [message for step in messages for message in step] == [
        Message("sub/0/p_kw", step + later, step, step * 900.0, step + 1.0, "kW") for step in range(5 - later)
    ]
    assert [event.fault for event in events] == [LATE] * 5
    assert len(memory.pending) == later


def test_jitter_never_makes_a_message_arrive_before_it_was_sent():
    _, messages, events = run(model_of({**QUIET, "delay_jitter_s": 10.0}), ramp(200))
    late = [event.t_s for event in events]
    assert 0.2 < len(late) / 200 < 0.42  # P(N(0, 10) > 5) = 0.31
    assert all(message.stamp_s <= message.step * STEP_S for step in messages for message in step)


def test_late_and_fresh_messages_of_a_step_are_ordered_by_channel_then_sequence():
    sensors = Sensors(
        faults={"m0": SensorFaults(noise=False), "m1": SensorFaults(noise=False, delay_s=30.0, delay_jitter_s=25.0)}
    )
    _, messages, _ = run(sensor_model(meters(2), sensors, 3), ramp(60, 2))
    orders = [[(message.topic, message.sequence) for message in step] for step in messages]
    assert max(len(order) for order in orders) == 3
    assert all(order == sorted(order) for order in orders)


def test_truth_that_is_not_a_number_gives_no_message_and_no_event():
    truth = np.array([[np.nan, 1.0], [2.0, np.inf]])
    _, messages, events = run(model_of({**QUIET, "stuck": 1.0, "dropout": 0.0}, count=2), truth)
    assert [[message.topic for message in step] for step in messages] == [["sub/1/p_kw"], ["sub/0/p_kw"]]
    assert [(event.t_s, event.topic) for event in events] == [(0, "sub/1/p_kw"), (900, "sub/0/p_kw")]


def test_truth_of_the_wrong_length_is_refused():
    model = model_of(QUIET, count=2)
    with pytest.raises(ValueError, match="shorter"):
        measure(model, fresh_memory(model), 0, 0, np.zeros(1))


ALL_FAULTS = {
    "bias_percent": 1.0,
    "quantum": 0.01,
    "dropout": 0.1,
    "stuck": 0.05,
    "delay_s": 3.0,
    "delay_jitter_s": 300.0,
    "clock_skew_s": 1.5,
}


def test_run_cut_in_two_through_json_equals_the_whole_run():
    model = model_of(ALL_FAULTS, count=3)
    truth = ramp(150, 3)
    whole_memory, whole, whole_events = run(model, truth)
    memory, first, first_events = run(model, truth[:77])
    assert memory.pending
    memory = SensorMemory.from_json(json.loads(json.dumps(memory.to_json(), allow_nan=False)))
    memory, second, second_events = run(model, truth[77:], 77, memory)
    assert (memory, first + second, first_events + second_events) == (whole_memory, whole, whole_events)


def test_another_sensor_moves_no_draw_of_the_others():
    alone, together = run(model_of(ALL_FAULTS, 2), ramp(100, 2)), run(model_of(ALL_FAULTS, 3), ramp(100, 3))
    kept = [tuple(message for message in step if message.topic != "sub/2/p_kw") for step in together[1]]
    assert kept == alone[1]


def test_faults_of_one_kind_move_no_draw_of_another():
    noisy = run(model_of({}), ramp(100))[1]
    dropping = run(model_of({"dropout": 0.3, "delay_jitter_s": 1.0}), ramp(100))[1]
    values = {message.step: message.value for (message,) in noisy}
    assert all(values[message.step] == message.value for step in dropping for message in step)


def test_seed_changes_the_noise():
    first, second = run(model_of({}, seed=1), ramp(2))[1], run(model_of({}, seed=2), ramp(2))[1]
    assert first[0][0].value != second[0][0].value
