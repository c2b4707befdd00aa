"""Laws of the transmission side: what one of many feeders sees, and what a schedule of least cost is."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.clock import Clock
from cosim.coordination.transmission import transmission_side
from cosim.coordination.transmission_need import DrawnNeed
from cosim.coordination.transmission_network import Generator, flexible_offers, least_cost, read_case_network
from cosim.scenario.transmission import TransmissionConfig

CLOCK = Clock(datetime(2020, 1, 1, tzinfo=UTC), 900, 96, 900)
T1 = Path(__file__).parents[2] / "scenarios" / "cases" / "t1_ring.yaml"
RING = read_case_network(T1, ("transmission.voltage={base_mva: 100}", "resources.G4.q_up=[{mw: 9, eur_per_mwh: 1}]"))
STEEP = Generator("g", "T5", 30_000.0, 0.0, 90_000.0, 0.02, 1e-6)


def kilowatts(low, high):
    return st.floats(low, high).map(lambda x: round(x, 3))


@st.composite
def generators(draw):
    bounds = sorted(draw(st.tuples(kilowatts(0.0, 500.0), kilowatts(0.0, 500.0))))
    slope = draw(st.sampled_from([0.0, 0.0, 1e-4, 1e-3]))
    return Generator("", "A", 0.0, *bounds, draw(st.floats(0.01, 0.2).map(lambda x: round(x, 2))), slope)


def book(draw):
    return [replace(unit, id=f"g{k}") for k, unit in enumerate(draw)]


@settings(max_examples=40)
@given(
    feeders=st.integers(1, 500),
    import_kw=kilowatts(-5e4, 5e4),
    mean_kw=kilowatts(1.0, 5e4),
    mtu=st.integers(0, 95),
    dispatch=st.sampled_from(["given", "least_cost"]),
)
def test_one_of_many_feeders_sees_its_part_of_everything(feeders, import_kw, mean_kw, mtu, dispatch):
    def state(feeders):
        config = TransmissionConfig(case=T1, feeders=feeders, bus="T4", dispatch=dispatch)
        network = replace(RING, generators=(STEEP,))
        side = transmission_side(config, network, CLOCK, 3, mean_kw / feeders)
        return side.at(900 * mtu, import_kw / feeders)

    whole, part = state(1), state(feeders)
    n = len(whole.grid.rows.conductors)
    for name in ("p_kw", "q_kvar", "i_a", "i_max_a"):
        found, expected = getattr(part.grid.rows, name) * feeders, getattr(whole.grid.rows, name)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-2)
    assert part.grid.rows.by_q[n:] == pytest.approx(whole.grid.rows.by_q[n:] * feeders, rel=1e-12)
    assert np.array_equal(part.grid.rows.by_p[:n], whole.grid.rows.by_p[:n])
    for name in ("base", "lower", "upper"):
        assert np.array_equal(getattr(part.grid.rows, name)[n:], getattr(whole.grid.rows, name)[n:])
    for name in ("head_by_p", "pods", "conductors", "nodes"):
        assert np.array_equal(getattr(part.grid.rows, name), getattr(whole.grid.rows, name))
    assert part.need_kw * feeders == pytest.approx(whole.need_kw, rel=1e-9)
    assert [bid.id for bid in part.bids] == [bid.id for bid in whole.bids]
    for small, large in zip(part.bids, whole.bids, strict=True):
        assert small.quantity_kw[0] * feeders == pytest.approx(large.quantity_kw[0], rel=1e-9, abs=1e-2)
        prices = [[step.price_eur_per_kwh for step in bid.steps] for bid in (small, large)]
        assert prices[0] == pytest.approx(prices[1], rel=1e-6)


@settings(max_examples=60)
@given(st.lists(generators(), min_size=1, max_size=6).map(book), st.floats(0.0, 1.0))
def test_a_schedule_of_least_cost_meets_the_load_and_leaves_nothing_to_gain(units, where):
    low, high = sum(unit.p_min_kw for unit in units), sum(unit.p_max_kw for unit in units)
    found = least_cost(units, low + where * (high - low))
    assert sum(found.values()) == pytest.approx(low + where * (high - low), abs=1e-6)
    assert all(unit.p_min_kw - 1e-9 <= found[unit.id] <= unit.p_max_kw + 1e-9 for unit in units)
    steps = {
        direction: [
            step.price_eur_per_kwh
            for unit in units
            for _, bid in flexible_offers(unit, found[unit.id], 0.05)
            if bid.direction.value == direction
            for step in bid.steps
        ]
        for direction in ("up", "down")
    }
    assert all(up + down > 0.0 for up in steps["up"] for down in steps["down"])


@settings(max_examples=40)
@given(st.lists(generators(), min_size=1, max_size=4).map(book), st.floats(0.0, 1.0))
def test_prices_of_the_steps_of_a_generator_increase(units, where):
    for unit in units:
        at_kw = unit.p_min_kw + where * (unit.p_max_kw - unit.p_min_kw)
        for _, bid in flexible_offers(unit, at_kw, 0.05):
            prices = [step.price_eur_per_kwh for step in bid.steps]
            assert prices == sorted(prices)
            assert sum(step.quantity_kw for step in bid.steps) == pytest.approx(bid.quantity_kw[0])


@given(st.integers(0, 2**31), st.integers(0, 3000), st.integers(0, 40_000))
@settings(max_examples=30)
def test_a_drawn_need_does_not_depend_on_how_far_ahead_was_asked(seed, mtu, ahead):
    alone = DrawnNeed(seed, 1.0, 0.8).need_kw(mtu)
    DrawnNeed(seed, 1.0, 0.8).need_kw(mtu + ahead)
    assert DrawnNeed(seed, 1.0, 0.8).need_kw(mtu) == alone
