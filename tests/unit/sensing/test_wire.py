import json
import math
from datetime import UTC, datetime

import pytest

from cosim.clock import Clock
from cosim.domain.measurement import Message
from cosim.sensing.wire import END_TOPIC, End, decode, decode_end, encode, encode_end, packets

CLOCK = Clock(datetime(2016, 7, 21, 23, 0, tzinfo=UTC), 900, 96, 900)
MESSAGE = Message("sub/3/p_kw", 4, 3, 3600.25, -12.5, "kW")


def test_payload_is_compact_json_that_other_programs_can_read():
    payload = encode(MESSAGE, CLOCK, "run-1")
    assert b" " not in payload
    assert json.loads(payload) == {
        "t": "2016-07-22T00:00:00.250000+00:00",
        "stamp_s": 3600.25,
        "value": -12.5,
        "unit": "kW",
        "seq": 3,
        "step": 4,
        "run": "run-1",
    }


def test_whole_numbers_come_back_as_floats():
    whole = MESSAGE._replace(value=5, stamp_s=900)
    decoded = decode(whole.topic, encode(whole, CLOCK, "r"), "r")
    assert decoded == whole
    assert isinstance(decoded.value, float)


def test_value_that_is_not_finite_is_not_encoded():
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(MESSAGE._replace(value=math.nan), CLOCK, "r")


def payload_with(**changed: object) -> bytes:
    return json.dumps({**json.loads(encode(MESSAGE, CLOCK, "r")), **changed}).encode()


@pytest.mark.parametrize(
    "payload",
    [
        encode(MESSAGE, CLOCK, "another"),
        payload_with(value="12.5"),
        payload_with(value=None),
        payload_with(value=math.nan),
        payload_with(stamp_s=math.inf),
        payload_with(seq=1.5),
        payload_with(unit=3),
        payload_with(run=None),
        b"17.3",
        b"[1]",
        b"not json",
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
        encode_end(4, [MESSAGE], "r"),
    ],
)
def test_foreign_payload_is_none(payload):
    assert decode(MESSAGE.topic, payload, "r") is None


def test_unchanged_payload_is_not_foreign():
    assert decode(MESSAGE.topic, payload_with(further="field"), "r") == MESSAGE


def test_end_marker_lists_topic_and_sequence():
    others = [MESSAGE, MESSAGE._replace(sequence=4), MESSAGE._replace(topic="sub/1/p_kw")]
    payload = encode_end(4, others, "r")
    assert decode_end(payload, "r") == End(4, frozenset({("sub/3/p_kw", 3), ("sub/3/p_kw", 4), ("sub/1/p_kw", 3)}))
    assert payload == encode_end(4, reversed(others), "r")
    assert decode_end(encode_end(0, [], "r"), "r") == End(0, frozenset())


@pytest.mark.parametrize(
    "payload",
    [
        encode_end(4, [MESSAGE], "another"),
        encode(MESSAGE, CLOCK, "r"),
        b'{"step":4,"run":"r","messages":[["a"]]}',
        b'{"step":4,"run":"r","messages":[[["a"],1]]}',
        b'{"step":"4","run":"r","messages":[]}',
        b"",
    ],
)
def test_foreign_end_marker_is_none(payload):
    assert decode_end(payload, "r") is None


def test_packets_of_a_step_end_with_its_end_marker():
    sent = packets([MESSAGE], 4, CLOCK, "r")
    assert [topic for topic, _ in sent] == [MESSAGE.topic, END_TOPIC]
    assert decode(*sent[0], "r") == MESSAGE
    assert decode_end(sent[1][1], "r") == End(4, frozenset({("sub/3/p_kw", 3)}))
    assert [topic for topic, _ in packets([], 0, CLOCK, "r")] == [END_TOPIC]
