from dataclasses import replace
from fractions import Fraction

import pytest

from cosim.domain.market import Award, Direction
from cosim.domain.settlement import Call, DeliveryTerms, Period, Series
from cosim.errors import BidError, ProfileError
from cosim.market.delivery import deliveries, reliability, suspensions
from cosim.market.metering import completed

UP, DOWN = Direction.UP, Direction.DOWN
QUARTER = 900
STRICT = DeliveryTerms(tolerance=0.0, penalty_adder_eur_per_kwh=0.2)


def call(name, kw, direction=UP, terms=STRICT, split=None, price=0.1, t_s=0, **more):
    """An award to be delivered by meter ``M``, or by ``split``: kW by meter, one MTU."""
    quantity = tuple(kw) if isinstance(kw, (list, tuple)) else (float(kw),)
    prices = (price,) * len(quantity)
    award = Award(name, "local", "DSO", t_s, quantity, prices, prices)
    ordered = tuple((m, (float(each),)) for m, each in split.items()) if split else (("M", quantity),)
    return Call(award, "A", direction, ordered, terms, **more)


def series(*p_kw, owner="M", kind="measurement", t_s=0):
    return Series(owner, kind, t_s, QUARTER, p_kw)


def delivered(calls, measured_kw, baseline_kw):
    """Of the MTUs that are measured: kW of meter ``M``, or by meter."""
    if not isinstance(measured_kw, dict):
        measured_kw, baseline_kw = {"M": measured_kw}, {"M": baseline_kw}
    n_mtu = len(next(iter(measured_kw.values())))
    return deliveries(
        Period(0, QUARTER, n_mtu),
        calls,
        {m: series(*kw, owner=m) for m, kw in measured_kw.items()},
        {m: series(*kw, owner=m, kind="baseline") for m, kw in baseline_kw.items()},
    )


def one(direction, measured_kw, terms=STRICT):
    """Of 8 kW awarded for a quarter of an hour, against 10 kW: given, delivered, short, over [kWh]."""
    (found,) = delivered([call("b", 8.0, direction, terms)], [measured_kw], [10.0])
    return tuple(float(kwh) for kwh in (found.given, found.delivered, found.short, found.over))


def test_one_award_by_hand():
    assert one(UP, 2.0) == (2.0, 2.0, 0.0, 0.0)
    assert one(UP, 4.0) == (1.5, 1.5, 0.5, 0.0)
    assert one(UP, -2.0) == (3.0, 2.0, 0.0, 0.0)  # too much is not paid
    assert one(UP, 12.0) == (-0.5, 0.0, 2.0, 0.0)
    assert one(DOWN, 18.0) == (2.0, 2.0, 0.0, 0.0)
    assert one(DOWN, 14.0) == (1.0, 1.0, 1.0, 0.0)
    assert one(DOWN, 9.0) == (-0.25, 0.0, 2.0, 0.0)


def test_tolerance_basis_and_sides():
    tolerant = replace(STRICT, tolerance=0.25)
    assert one(UP, 4.0, tolerant)[2] == 0.0
    assert one(UP, 6.0, tolerant)[2] == 0.5
    assert one(UP, 12.0, replace(STRICT, basis="raw"))[2] == 2.5
    assert one(UP, -2.0, replace(STRICT, two_sided=True))[3] == 1.0
    assert one(UP, -2.0, replace(tolerant, two_sided=True))[3] == 0.5


def test_penalty_price_never_rewards():
    terms = DeliveryTerms(penalty_factor=1.5, penalty_adder_eur_per_kwh=0.01)
    for price, fined in ((0.1, Fraction("0.16")), (-0.1, Fraction("0.16")), (0.0, Fraction("0.01"))):
        (found,) = delivered([call("b", 8.0, DOWN, terms, price=price)], [10.0], [10.0])
        assert found.penalty_price == fined


def test_a_portfolio_is_counted_together():
    (found,) = delivered([call("b", 8.0, split={"M": 4, "N": 4})], {"M": [4.0], "N": [8.0]}, {"M": [10.0], "N": [10.0]})
    assert {share.meter: float(share.given) for share in found.shares} == {"M": 1.5, "N": 0.5}
    assert found.delivered == found.awarded == 2


def test_awards_on_one_meter_share_its_deviation():
    two = [call("b", 6.0), call("c", 2.0, price=0.2)]
    found = delivered(two, [6.0], [10.0])
    assert {each.call.award.bid: float(each.given) for each in found} == {"b": 0.75, "c": 0.25}
    against = [call("b", 6.0), call("c", 2.0, DOWN)]  # 4 kW up together
    exactly = delivered(against, [6.0], [10.0])
    assert {each.call.award.bid: float(each.given) for each in exactly} == {"b": 1.5, "c": 0.5}
    short = delivered(against, [8.0], [10.0])  # half a kWh missing: up gives less, down more
    assert {each.call.award.bid: float(each.given) for each in short} == {"b": 1.125, "c": 0.625}


def test_only_mtus_of_the_period_with_an_award():
    found = delivered([call("b", (8.0, 8.0, 0.0, 8.0), t_s=-QUARTER)], [2.0] * 4, [10.0] * 4)
    assert [each.t_s for each in found] == [0, 2 * QUARTER]


def test_reliability():
    found = delivered([call("b", (8.0, 8.0))], [2.0, 8.0], [10.0, 10.0])
    assert reliability(found) == {"A": Fraction(10, 16)}


def test_suspension_after_failures_in_a_row():
    day_s = 86_400
    found = delivered([call("b", (8.0,) * 4)], [2.0, 9.0, 9.0, 2.0], [10.0] * 4)
    assert suspensions(found, QUARTER, 2, 3) == {"M": 3 * QUARTER + 3 * day_s}
    assert suspensions(found, QUARTER, 3, 3) == {}
    interrupted = delivered([call("b", (8.0,) * 3)], [9.0, 2.0, 9.0], [10.0] * 3)
    assert suspensions(interrupted, QUARTER, 2, 3) == {}


def test_wrong_calls_are_told_all_at_once():
    wrong = replace(call("b", 8.0), ordered_kw=(("M", (3.0,)), ("M", (4.0,))))
    reward = call("c", 8.0, terms=DeliveryTerms(tolerance=1.5, penalty_factor=-1.0, clawback=2.0))
    with pytest.raises(BidError) as caught:
        delivered([wrong, reward], [2.0], [10.0])
    text = str(caught.value)
    assert len(caught.value.faults) == 5
    assert "call of b: orders do not add up to the award in MTU 0; got 7 kW; allowed: 8 kW awarded" in text
    for part in ("a meter is ordered twice", "a tolerance is a share", "a clawback is", "must not be a reward"):
        assert part in text
    uneven = replace(call("b", 8.0), ordered_kw=(("M", (8.0, 8.0)), ("N", (-1.0,))))
    with pytest.raises(BidError, match="other MTUs") as caught:
        delivered([uneven], [2.0], [10.0])
    assert "must be numbers, 0 kW or more" in str(caught.value)


def test_meters_without_series_are_named():
    with pytest.raises(BidError) as caught:
        deliveries(Period(0, QUARTER, 1), [call("b", 8.0)], {}, {})
    assert [fault.problem for fault in caught.value.faults] == [
        "no measurement of a meter that was called",
        "no baseline of a meter that was called",
    ]
    with pytest.raises(BidError, match="call of b: its MTUs are not those settled"):
        delivered([call("b", 8.0, t_s=60)], [2.0], [10.0])
    with pytest.raises(ProfileError, match="measurement of M: no value; got MTU from 0 s"):
        delivered([call("b", 8.0)], [None], [10.0])


def test_short_gaps_are_interpolated_long_ones_taken_from_the_stand_in():
    measured = series(1.0, None, 3.0, None, None, None, 7.0, float("nan"))
    stand_in = series(*range(10, 18), kind="baseline")
    full, told = completed(measured, [stand_in], Period(0, QUARTER, 8), gap_max_mtu=2)
    assert full.p_kw == (1.0, 2.0, 3.0, 13.0, 14.0, 15.0, 7.0, 17.0)
    assert full.estimated == (False, True, False, True, True, True, False, True)
    assert told == (
        "measurement of M missing from 900 to 1800 s: estimated, interpolated",
        "measurement of M missing from 2700 to 5400 s: estimated, taken from the baseline of M",
        "measurement of M missing from 6300 to 7200 s: estimated, taken from the baseline of M",
    )


def test_a_gap_is_as_long_as_it_is_outside_of_the_period_too():
    measured = series(1.0, None, None, None, 5.0, None)
    stand_in = series(*[9.0] * 8, kind="baseline")
    inside = Period(2 * QUARTER, QUARTER, 3)
    assert completed(measured, [stand_in], inside, gap_max_mtu=2)[0].p_kw == (9.0, 9.0, 5.0)
    assert completed(measured, [stand_in], inside, gap_max_mtu=3)[0].p_kw == (3.0, 4.0, 5.0)
    beyond = Period(4 * QUARTER, QUARTER, 4)
    full, told = completed(measured, [stand_in], beyond)
    assert full.p_kw == (5.0, 9.0, 9.0, 9.0)
    assert told == ("measurement of M missing from 4500 to 7200 s: estimated, taken from the baseline of M",)


def test_nothing_to_estimate_from():
    with pytest.raises(ProfileError) as caught:
        completed(series(None, None), [series(1.0, kind="baseline")], Period(0, QUARTER, 2), gap_max_mtu=2)
    assert [fault.key for fault in caught.value.faults] == ["measurement of M"]
    with pytest.raises(ProfileError, match="its MTUs are not those settled"):
        completed(series(1.0), [series(1.0)], Period(0, 3600, 1))
    with pytest.raises(ProfileError, match="each value is estimated or not; got 1 flags of 2 values"):
        completed(replace(series(1.0, 2.0), estimated=(True,)), [series(1.0)], Period(0, QUARTER, 1))


def test_complete_measurements_stay_as_they_are():
    measured = replace(series(1.0, 2.0, 3.0), estimated=(False, True, False))
    full, told = completed(measured, [series(kind="baseline")], Period(QUARTER, QUARTER, 2))
    assert (full.t_s, full.p_kw, full.estimated, told) == (QUARTER, (2.0, 3.0), (True, False), ())
