from datetime import UTC, datetime

import numpy as np
import pytest

from cosim.clock import Clock
from cosim.domain.measurement import Channel, Message, Place, Quality
from cosim.errors import SilentSensorError, TransportError
from cosim.sensing.gateway import Barrier, advance, collect, feed, snapshot
from cosim.sensing.wire import END_TOPIC, encode, encode_end, packets

CLOCK = Clock(datetime(2016, 7, 22, tzinfo=UTC), 900, 96, 900)
TOPICS = ("sub/1/p_kw", "sub/2/p_kw", "sub/3/p_kw")
CHANNELS = tuple(Channel(f"m{topic[4]}", topic, "p_kw", Place(bus="b"), 1.0) for topic in TOPICS)


def message(place: int, step: int, sequence: int | None = None, value: float = 1.0, stamp_s: float | None = None):
    stamp_s = step * 900.0 if stamp_s is None else stamp_s
    return Message(TOPICS[place], step, step if sequence is None else sequence, stamp_s, value, "kW")


def step_packets(step: int, value: float = 1.0):
    return list(packets([message(place, step, value=value) for place in range(3)], step, CLOCK, "r"))


def one_by_one(arrivals):
    """A ``receive`` that gives one batch at a call, then nothing."""
    left = list(arrivals)
    return lambda _timeout_s: left.pop(0) if left else []


class Watch:
    """A clock that moves on by one second at each look."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def test_step_is_complete_when_the_end_marker_and_all_it_lists_have_arrived():
    *values, end = step_packets(0)
    barrier = Barrier("r", CLOCK)
    assert barrier.missing() == (END_TOPIC,)
    assert feed(barrier, values).missing() == (END_TOPIC,)
    assert feed(barrier, [end]).missing() == TOPICS
    assert feed(barrier, [end, values[1]]).missing() == (TOPICS[0], TOPICS[2])
    complete = feed(feed(barrier, [end, values[2]]), [values[1], values[0]])
    assert complete.missing() == ()
    assert complete.collected() == tuple(message(place, 0) for place in range(3))
    assert barrier == Barrier("r", CLOCK)


def test_empty_step_is_complete_with_its_end_marker():
    barrier = feed(Barrier("r", CLOCK), packets([], 0, CLOCK, "r"))
    assert (barrier.missing(), barrier.collected()) == ((), ())


def test_exact_duplicate_is_dropped():
    barrier = feed(Barrier("r", CLOCK), step_packets(0) * 3)
    assert len(barrier.collected()) == 3


def test_duplicate_with_another_payload_is_an_error():
    barrier = feed(Barrier("r", CLOCK), step_packets(0))
    with pytest.raises(TransportError, match=r"message 0 of topic sub/2/p_kw arrived twice.*1\.0 kW.*2\.0 kW"):
        feed(barrier, [(TOPICS[1], encode(message(1, 0, value=2.0), CLOCK, "r"))])


def test_same_sequence_in_two_steps_is_an_error():
    barrier = feed(Barrier("r", CLOCK), step_packets(0))
    with pytest.raises(TransportError, match="arrived twice"):
        feed(barrier, [(TOPICS[1], encode(message(1, 1, sequence=0), CLOCK, "r"))])


def test_two_different_end_markers_are_an_error():
    barrier = feed(Barrier("r", CLOCK), step_packets(0))
    with pytest.raises(TransportError, match="step 0: two different end markers"):
        feed(barrier, [(END_TOPIC, encode_end(0, [], "r"))])


def test_leftovers_of_earlier_steps_are_dropped_even_with_another_payload():
    barrier = advance(feed(Barrier("r", CLOCK), step_packets(0)), 1)
    assert barrier == Barrier("r", CLOCK, step=1)
    assert feed(barrier, step_packets(0, value=9.0)) == barrier


def test_messages_of_later_steps_are_kept_for_them():
    barrier = feed(Barrier("r", CLOCK), step_packets(1) + step_packets(0))
    assert {entry.step for entry in barrier.collected()} == {0}
    assert advance(barrier, 1).collected() == tuple(message(place, 1) for place in range(3))


def test_foreign_and_unlisted_messages_are_not_collected():
    unlisted = (TOPICS[0], encode(message(0, 0, sequence=7), CLOCK, "r"))
    other_run = (TOPICS[0], encode(message(0, 0, value=5.0), CLOCK, "other"))
    other_end = (END_TOPIC, encode_end(0, [], "other"))
    foreign = ("sub/1/p_kw", b"17.3")
    barrier = feed(Barrier("r", CLOCK), [unlisted, other_run, other_end, foreign, *step_packets(0)])
    assert barrier.collected() == tuple(message(place, 0) for place in range(3))


def test_collect_receives_until_the_step_is_complete():
    values = step_packets(0)
    barrier, messages = collect(one_by_one([values[:1], [], values[1:]]), Barrier("r", CLOCK), 0, 10.0, Watch())
    assert messages == tuple(message(place, 0) for place in range(3))
    with pytest.raises(SilentSensorError):
        collect(one_by_one([]), barrier, 1, 3.0, Watch())


def test_collect_needs_nothing_more_for_a_step_that_came_early():
    barrier, _ = collect(one_by_one([step_packets(1) + step_packets(0)]), Barrier("r", CLOCK), 0, 10.0, Watch())

    def receive(_timeout_s: float):
        raise AssertionError("nothing to wait for")

    assert len(collect(receive, barrier, 1, 10.0, Watch())[1]) == 3


def test_silent_sensors_are_named_with_the_simulated_time_and_the_timeout():
    arrivals = step_packets(2)
    del arrivals[1:3]
    with pytest.raises(SilentSensorError) as caught:
        collect(one_by_one([arrivals]), Barrier("r", CLOCK), 2, 5.0, Watch())
    assert str(caught.value) == (
        "step 2 (2016-07-22T00:30:00+00:00, 1800 s after start): no announced message of sub/2/p_kw, sub/3/p_kw "
        "within 5 s; 1 messages of this step arrived"
    )


def test_silence_without_an_end_marker_says_so():
    with pytest.raises(SilentSensorError, match=r"no end marker within 2\.5 s; 3 messages of this step arrived"):
        collect(one_by_one([step_packets(0)[:-1]]), Barrier("r", CLOCK), 0, 2.5, Watch())


def test_collect_waits_no_longer_than_the_time_left():
    waits = []

    def receive(timeout_s: float):
        waits.append(timeout_s)
        return []

    with pytest.raises(SilentSensorError):
        collect(receive, Barrier("r", CLOCK), 0, 3.0, Watch())
    assert waits == [2.0, 1.0]


def test_snapshot_takes_what_is_stamped_within_the_tolerance():
    arrived = [message(0, 1, value=10.0, stamp_s=905.0), message(1, 1, value=20.0, stamp_s=894.9)]
    taken = snapshot(CHANNELS, arrived, 900.0, 5.0)
    assert taken.value.tolist()[0] == 10.0
    assert np.isnan(taken.value[1:]).all()
    assert taken.quality.tolist() == [Quality.GOOD, Quality.LATE, Quality.MISSING]
    assert (taken.value.flags.writeable, taken.quality.flags.writeable) == (False, False)


def test_message_stamped_too_far_ahead_is_not_used_either():
    assert snapshot(CHANNELS, [message(0, 1, stamp_s=906.0)], 900.0, 5.0).quality[0] == Quality.LATE


def test_late_message_does_not_replace_the_one_in_time():
    late, good = message(0, 1, sequence=0, value=1.0, stamp_s=0.0), message(0, 1, sequence=1, value=2.0)
    for arrived in ([late, good], [good, late]):
        assert snapshot(CHANNELS, arrived, 900.0, 5.0).value[0] == 2.0


def test_nearest_in_time_counts_then_the_highest_sequence():
    near = message(0, 1, sequence=1, value=1.0, stamp_s=901.0)
    as_near = message(0, 1, sequence=2, value=2.0, stamp_s=899.0)
    far = message(0, 1, sequence=3, value=3.0, stamp_s=902.0)
    for arrived in ([near, as_near, far], [far, as_near, near]):
        assert snapshot(CHANNELS, arrived, 900.0, 5.0).value[0] == 2.0


def test_stamp_exactly_at_the_tolerance_counts_in_spite_of_rounding():
    assert 900.1 - 900.0 > 0.1
    assert snapshot(CHANNELS, [message(0, 1, stamp_s=900.1)], 900.0, 0.1).quality[0] == Quality.GOOD


def test_message_of_an_unknown_topic_changes_nothing():
    arrived = [message(0, 1)._replace(topic="x/1/p_kw")]
    assert snapshot(CHANNELS, arrived, 900.0, 5.0).quality.tolist() == [Quality.MISSING] * 3
