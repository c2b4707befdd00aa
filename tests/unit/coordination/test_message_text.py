"""The text of messages: what is written directly is what the general writer gives, byte for byte."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from cosim.coordination.messages import Message, Offered
from cosim.coordination.plain import from_plain, json_of, to_plain
from cosim.domain.market import Bid, Direction, PriceStep, Resource

NUMBERS = st.floats() | st.integers(-9, 9)
NAMES = st.text(max_size=5)
SHARES = st.lists(st.tuples(NAMES, NUMBERS), max_size=2).map(tuple)
NUMBER_ROWS = st.lists(NUMBERS, max_size=2).map(tuple)
NAME_ROWS = st.lists(NAMES, max_size=2).map(tuple)
BIDS = st.builds(
    Bid,
    id=NAMES,
    seller=NAMES,
    product=NAMES,
    direction=st.sampled_from(Direction),
    t_s=st.integers(),
    quantity_kw=NUMBER_ROWS,
    steps=st.lists(st.builds(PriceStep, NUMBERS, NUMBERS), max_size=3).map(tuple),
    resource=st.none() | NAMES,
    shares=SHARES,
    any_of=NAME_ROWS,
    availability_eur_per_kw=st.none() | NUMBERS,
    min_accept=NUMBERS,
    block=st.booleans(),
    exclusive_group=st.none() | NAMES,
    parent=st.none() | NAMES,
    markets=NAME_ROWS,
    submitted_s=st.integers(),
)


@given(st.lists(BIDS, max_size=3).map(tuple))
def test_bids_are_written_as_all_that_is_told(bids: tuple[Bid, ...]) -> None:
    written = ", ".join(json_of(bid) for bid in bids)
    assert Offered(bids, ()).json.decode() == f'{{"bids": [{written}], "resources": []}}'


def test_size_and_digest_are_of_bids_and_resources() -> None:
    bid = Bid("b", "s", "p", Direction.UP, 900, (2.5,), (PriceStep(2.5, math.inf),), resource="r")
    unit = Resource("r", "N1", "load", "s", 2.5, 0.0, rebound=(0.5,))
    message = Message(900, "AGG:north", "TSO", "BID", "", Offered((bid,), (unit,)))
    text = message.body.json.decode()
    assert text == f'{{"bids": [{json_of(bid)}], "resources": [{json_of(unit)}]}}'
    assert message.size == len(text)
    assert from_plain(Offered, json.loads(text)) == message.body == from_plain(Offered, to_plain(message.body))
