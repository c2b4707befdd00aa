"""Laws of the sensing room: nothing depends on the order of arrival, and nothing is lost on the wire."""

import json
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.clock import Clock
from cosim.domain.measurement import UNITS, Channel, Message, Place, Quality
from cosim.scenario.schema import Meter, SensorFaults, Sensors
from cosim.sensing.gateway import Barrier, collect, snapshot
from cosim.sensing.measure import SensorMemory, fresh_memory, measure, sensor_model
from cosim.sensing.wire import decode, encode, packets

CLOCK = Clock(datetime(2016, 7, 22, tzinfo=UTC), 900, 960, 900)
TOPICS = tuple(f"sub/{number}/p_kw" for number in range(4))
CHANNELS = tuple(Channel(topic, topic, "p_kw", Place(bus=topic), 1.0) for topic in TOPICS)
METERS = {
    f"m{number}": Meter(
        type="sub", number=number, bus=f"b{number}", quantities=("p_kw", "vm_pu"), full_scale={"p_kw": 600, "vm_pu": 1}
    )
    for number in range(3)
}
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def steps_of_messages(draw: st.DrawFn) -> list[list[Message]]:
    """Three steps; in each, every topic is silent or publishes up to two messages, some of them with an old stamp."""
    sequence = dict.fromkeys(TOPICS, 0)
    steps = []
    for step in range(3):
        published = []
        for topic in TOPICS:
            for offset_s in draw(st.lists(st.sampled_from([-900.0, -5.5, -5.0, 0.0, 2.0, 5.0, 7.0]), max_size=2)):
                published.append(
                    Message(topic, step, sequence[topic], step * 900.0 + offset_s, draw(finite), UNITS["p_kw"])
                )
                sequence[topic] += 1
        steps.append(published)
    return steps


def snapshots(batches: list[list[tuple[str, bytes]]], first: int) -> list[tuple[bytes, bytes]]:
    """The bytes of the snapshots of steps 1 and 2 when ``batches`` arrive, a batch a call."""
    barrier = Barrier("r", CLOCK, step=first)
    left = list(batches)
    taken = []
    for step in (1, 2):
        barrier, messages = collect(lambda _: left.pop(0), barrier, step, 1.0, lambda: 0.0)
        seen = snapshot(CHANNELS, messages, step * 900.0, 5.0)
        taken.append((seen.value.tobytes(), seen.quality.tobytes()))
    return taken


@given(steps=steps_of_messages(), data=st.data())
def test_order_of_arrival_duplicates_and_stale_messages_change_no_snapshot(steps, data):
    sent = [list(packets(messages, step, CLOCK, "r")) for step, messages in enumerate(steps)]
    in_order = snapshots([sent[1], sent[2]], first=1)
    everything = [packet for step in sent for packet in step]
    duplicates = data.draw(st.lists(st.sampled_from(everything), max_size=8))
    shuffled = data.draw(st.permutations(everything + duplicates))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=5)))
    edges = [0, *cuts, len(shuffled)]
    batches = [shuffled[low:high] for low, high in pairwise(edges)]
    assert snapshots(batches, first=1) == in_order
    assert snapshots(batches, first=0) == in_order


@given(steps=steps_of_messages(), tolerance_s=st.sampled_from([0.0, 5.0, 1000.0]))
def test_snapshot_invents_nothing(steps, tolerance_s):
    for step, messages in enumerate(steps):
        seen = snapshot(CHANNELS, messages, step * 900.0, tolerance_s)
        for topic, value, quality in zip(TOPICS, seen.value.tolist(), seen.quality.tolist(), strict=True):
            own = [message for message in messages if message.topic == topic]
            near = [message.value for message in own if abs(message.stamp_s - step * 900.0) <= tolerance_s]
            assert (quality == Quality.GOOD) == bool(near)
            assert (quality == Quality.MISSING) == (not own)
            assert value in near if near else np.isnan(value)


@given(
    st.builds(
        Message,
        topic=st.sampled_from(TOPICS),
        step=st.integers(0, 10**9),
        sequence=st.integers(0, 10**9),
        stamp_s=st.floats(-1e9, 1e9),
        value=finite,
        unit=st.text(max_size=5),
    ),
    st.text(max_size=20),
)
def test_wire_keeps_every_bit(message, run):
    decoded = decode(message.topic, encode(message, CLOCK, run), run)
    assert decoded == message
    assert repr(decoded) == repr(message)  # tells 0.0 from -0.0
    assert decode(message.topic, encode(message, CLOCK, run), run + "x") is None


faults = st.builds(
    SensorFaults,
    bias_percent=st.floats(-5, 5),
    noise=st.booleans(),
    quantum=st.sampled_from([0.0, 0.1, 1.0]),
    delay_s=st.sampled_from([0.0, 4.0, 30.0, 2000.0]),
    delay_jitter_s=st.sampled_from([0.0, 10.0, 1000.0]),
    dropout=st.sampled_from([0.0, 0.2, 1.0]),
    stuck=st.sampled_from([0.0, 0.1, 1.0]),
    stuck_steps=st.integers(1, 5),
    clock_skew_s=st.floats(-10, 10),
)


@settings(max_examples=40)
@given(default=faults, own=faults, seed=st.integers(0, 2**40), cut=st.integers(0, 30), first=st.integers(0, 100))
def test_every_reading_is_published_once_lost_or_on_its_way_and_a_cut_changes_nothing(default, own, seed, cut, first):
    model = sensor_model(METERS, Sensors(faults={"default": default, "m1": own}), seed)
    truth = np.random.Generator(np.random.Philox(seed)).uniform(-600, 600, (30, len(model.sensors)))
    memory, resumed = fresh_memory(model), fresh_memory(model)
    published, lost = [], 0
    for step, row in enumerate(truth, start=first):
        if step == first + cut:
            resumed = SensorMemory.from_json(json.loads(json.dumps(resumed.to_json(), allow_nan=False)))
        memory, messages, events = measure(model, memory, step, step * 900, row)
        resumed, again, events_again = measure(model, resumed, step, step * 900, row)
        assert (memory, messages, events) == (resumed, again, events_again)
        assert all(message.step == step for message in messages)
        published += messages
        lost += sum(event.fault == "dropout" for event in events)
    assert len(published) + lost + len(memory.pending) == truth.size
    keys = [(message.topic, message.sequence) for message in published]
    keys += [(delayed.message.topic, delayed.message.sequence) for delayed in memory.pending]
    counted = [
        (topic, number)
        for topic, channel in zip(model.topics, memory.channels, strict=True)
        for number in range(channel.sequence)
    ]
    assert sorted(keys) == sorted(counted)
