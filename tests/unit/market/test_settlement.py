import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest

from cosim.domain.market import Award, Contract, Direction, Window
from cosim.domain.settlement import (
    Call,
    DeliveryTerms,
    Interface,
    Perimeter,
    Period,
    Series,
    SettlementLine,
    from_json,
    to_json,
)
from cosim.errors import BidError, ProfileError
from cosim.market.exact import apportioned, energy, energy_of, exact
from cosim.market.imbalance import closing_gaps, positions
from cosim.market.payments import Payment, Readiness, cash, lines, outlay_eur
from cosim.market.settlement import SettlementCase, SettlementRules, settle

UP, DOWN = Direction.UP, Direction.DOWN
HOUR = 3600
PERIOD = Period(0, HOUR, 1)
TERMS = DeliveryTerms(tolerance=0.0, penalty_factor=2.0, clawback=0.5)


def award(bid, kw, price, asked=None, buyer="DSO"):
    return Award(bid, "local", buyer, 0, (kw,), (price,), (price if asked is None else asked,))


def call(bid, kw, price, meter="M", direction=UP, asked=None, buyer="DSO", seller="A", **more):
    ordered = ((meter, (kw,)),)
    return Call(award(bid, kw, price, asked, buyer), seller, direction, ordered, **({"terms": TERMS} | more))


def power(owner, kw, kind="measurement"):
    return Series(owner, kind, 0, HOUR, (kw,))


def case(calls, measured_kw, baseline_kw, **more):
    measured = {m: power(m, kw) for m, kw in measured_kw.items()}
    return SettlementCase(
        PERIOD, tuple(calls), measured, {m: power(m, kw, "baseline") for m, kw in baseline_kw.items()}, **more
    )


def summary(settled):
    return {(line.kind, line.payer, line.payee): line.amount_eur for line in settled.lines}


def test_delivered_and_missing_by_hand():
    found = settle(case([call("b", 10.0, 0.3)], {"M": 4.0}, {"M": 10.0}))
    assert summary(found) == {
        ("utilisation", "DSO", "A"): Decimal("1.8"),
        ("penalty", "A", "DSO"): Decimal("2.4"),
    }
    (paid,) = (line for line in found.lines if line.kind == "utilisation")
    assert (paid.quantity, paid.unit, paid.price_eur, paid.refs) == (6, "kWh", Decimal("0.3"), ("b", "local"))
    assert cash(found.lines) == {0: {"DSO": Decimal("0.6"), "A": Decimal("-0.6")}}


def test_too_much_is_fined_under_two_sided_terms():
    two_sided = call("b", 10.0, 0.3, terms=replace(TERMS, two_sided=True))
    found = settle(case([two_sided], {"M": -2.0}, {"M": 10.0}))
    assert summary(found) == {
        ("utilisation", "DSO", "A"): Decimal(3),
        ("penalty", "A", "DSO"): Decimal("1.2"),
    }


def test_a_negative_price_is_paid_by_the_seller():
    found = settle(case([call("b", 10.0, -0.3, direction=DOWN)], {"M": 20.0}, {"M": 10.0}))
    assert summary(found) == {("utilisation", "DSO", "A"): Decimal("-3.0")}


def test_pay_as_clear_pays_the_price_and_uplift_what_it_lacks():
    two = [call("b", 10.0, 0.2, asked=0.3), call("c", 10.0, 0.2, meter="N", asked=0.1)]
    found = settle(case(two, {"M": 0.0, "N": 0.0}, {"M": 10.0, "N": 10.0}))
    assert outlay_eur(found.lines) == Decimal(4)
    (uplift,) = (line for line in found.lines if line.kind == "uplift")
    assert (uplift.payer, uplift.payee, uplift.amount_eur, uplift.refs) == ("DSO", "A", 1, ("b", "local"))


def test_buyers_of_a_bid_share_its_uplift():
    two = [call("b", 6.0, 0.2, asked=0.3), call("b", 2.0, 0.2, asked=0.3, buyer="TSO")]
    assert summary(settle(case(two, {"M": 0.0}, {"M": 8.0}))) == {
        ("utilisation", "DSO", "A"): Decimal("1.2"),
        ("utilisation", "TSO", "A"): Decimal("0.4"),
        ("uplift", "DSO", "A"): Decimal("0.6"),
        ("uplift", "TSO", "A"): Decimal("0.2"),
    }


CONTRACT = Contract("k", "A", "DSO", "P", UP, 10.0, 2.4, 0.3, Window(date(2026, 1, 5), date(2026, 1, 5)), (("M", 1.0),))


def test_availability_and_clawback():
    """24 hours at 10 kW for 2.4 EUR/kW: 1 EUR each; half of the call missing and a clawback of one half: 0.25 EUR."""
    own = call("b", 10.0, 0.3, contract="k", terms=replace(TERMS, penalty_factor=0.0))
    found = settle(case([own], {"M": 5.0}, {"M": 10.0}, readiness=(Readiness(CONTRACT, (10.0,)),)))
    assert summary(found) == {
        ("utilisation", "DSO", "A"): Decimal("1.5"),
        ("availability", "DSO", "A"): Decimal(1),
        ("clawback", "A", "DSO"): Decimal("0.25"),
    }
    wrong_way = settle(
        case(
            [replace(own, terms=replace(own.terms, basis="raw"))],
            {"M": 25.0},
            {"M": 10.0},
            readiness=(Readiness(CONTRACT, (10.0,)),),
        )
    )
    assert summary(wrong_way)["clawback", "A", "DSO"] == Decimal("0.5")  # no more than the clawback of all
    idle = settle(case([], {}, {}, readiness=(Readiness(CONTRACT, (4.0,)),)))
    assert idle.lines == ()  # below the least availability


def test_supplier_compensation():
    suppliers = {"suppliers": {"M": "S", "N": "A"}, "reference_price": (0.05,)}
    up = settle(case([call("b", 10.0, 0.3)], {"M": 4.0}, {"M": 10.0}, **suppliers))
    assert summary(up)["supplier_compensation", "A", "S"] == Decimal("0.3")
    down = settle(case([call("b", 10.0, 0.3, direction=DOWN)], {"M": 18.0}, {"M": 10.0}, **suppliers))
    assert summary(down)["supplier_compensation", "S", "A"] == Decimal("0.4")
    own = settle(case([call("b", 10.0, 0.3, meter="N")], {"N": 4.0}, {"N": 10.0}, **suppliers))
    assert {line.kind for line in own.lines} == {"utilisation", "penalty"}


def test_compensation_follows_what_each_meter_gave():
    both = replace(call("b", 10.0, 0.3), ordered_kw=(("M", (5.0,)), ("N", (5.0,))))
    more = {"suppliers": {"M": "S", "N": "T"}, "reference_price": (0.1,)}
    found = settle(case([both], {"M": 2.0, "N": 11.0}, {"M": 10.0, "N": 10.0}, **more))
    paid = {key: eur for key, eur in summary(found).items() if key[0] == "supplier_compensation"}
    assert paid == {("supplier_compensation", "A", "S"): Decimal("0.7")}  # 8 less 1 kWh, all of it from M


def area(interface_kw, scheduled_in_kw=21.0, schedules=(12.0, 8.0)):
    """BRPs X of meter M and Y of meter N; 1 kW of losses scheduled, which the DSO answers for."""
    x, y = (power(name, kw, "schedule") for name, kw in zip("XY", schedules, strict=True))
    return {
        "perimeters": (Perimeter("X", ("M",), x), Perimeter("Y", ("N",), y)),
        "interface": Interface(
            power("head", scheduled_in_kw, "schedule"), Series("head", "measurement", 0, HOUR, (interface_kw,)), "DSO"
        ),
        "imbalance_price": (0.5,),
    }


def imbalance_of(found):
    return {each.party: float(each.imbalance) for each in found.positions}


CALLED = (call("b", 6.0, 0.3, buyer="TSO"),)
METERED, FREE = {"M": 9.0, "N": 7.0}, {"M": 13.0, "N": 8.0}


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        ("none", {"X": 3.0, "Y": 1.0, "DSO": -1.0}),
        ("ordered", {"X": -3.0, "Y": 1.0, "DSO": -1.0, "TSO": 6.0}),
        ("delivered", {"X": -1.0, "Y": 1.0, "DSO": -1.0, "TSO": 4.0}),
    ],
)
def test_perimeter_correction_by_hand(correction, expected):
    """X was to draw 12, would have drawn 13, drew 9; the interface imports 18 of which 16 reach the meters."""
    found = settle(case(CALLED, METERED, FREE, rules=SettlementRules(correction=correction), **area(18.0)))
    assert imbalance_of(found) == expected
    assert sum(expected.values()) == 3.0  # 21 scheduled, 18 metered
    paid = {key[1:]: eur for key, eur in summary(found).items() if key[0] == "imbalance"}
    signs = {p: (("TSO", p) if kwh > 0 else (p, "TSO"), Decimal(str(abs(kwh) / 2))) for p, kwh in expected.items()}
    assert paid == {key: eur for party, (key, eur) in signs.items() if party != "TSO"}


def test_another_may_bear_what_the_buyer_activated():
    rules = SettlementRules(bearers={"TSO": "Z"})
    found = settle(case(CALLED, METERED, FREE, rules=rules, **area(18.0)))
    assert imbalance_of(found) == {"X": -1.0, "Y": 1.0, "DSO": -1.0, "Z": 4.0}


def test_missing_measurements_are_estimated_flagged_and_told():
    own = case(CALLED, {"M": None, "N": 7.0}, FREE, **area(None))
    found = settle(own)
    assert found.told == (
        "measurement of M missing from 0 to 3600 s: estimated, taken from the baseline of M",
        "measurement of head missing from 0 to 3600 s: estimated, taken from the forecast of head "
        "(meters and scheduled losses)",
    )
    assert all(each.estimated for each in found.deliveries)
    flags = {line.payer: line.estimated for line in found.lines if line.kind == "imbalance"}
    assert flags == {"X": True, "TSO": False}  # N was measured; losses are as scheduled
    assert outlay_eur(found.lines) == 0
    assert outlay_eur(found.lines, ("penalty",)) == Decimal("3.6")
    assert imbalance_of(found)["DSO"] == 0.0


def test_a_meter_without_baseline_is_estimated_from_its_mean():
    measured = {"M": power("M", 9.0), "N": Series("N", "measurement", -2 * HOUR, HOUR, (6.0, 8.0, None))}
    found = settle(replace(case(CALLED, METERED, {"M": 13.0}, **area(18.0)), measured=measured))
    assert found.told == (
        "measurement of N missing from 0 to 3600 s: estimated, taken from the forecast of N "
        "(mean of what was measured)",
    )
    assert imbalance_of(found)["Y"] == 1.0
    measured["N"] = power("N", None)
    with pytest.raises(ProfileError, match="measurement of N: no value; got MTU from 0 s"):
        settle(replace(case(CALLED, METERED, {"M": 13.0}, **area(18.0)), measured=measured))


def test_perimeters_are_checked():
    wrong = area(18.0)
    x, y = wrong["perimeters"]
    wrong["perimeters"] = (x, replace(y, meters=("M", "Q")), replace(x, party="DSO", meters=()))
    with pytest.raises(BidError) as caught:
        settle(case(CALLED, METERED, FREE, **wrong))
    text = str(caught.value)
    assert "meter M: in more than one perimeter; got X, Y; allowed: one" in text
    assert "meter Q: no measurement; got in the perimeter of Y" in text
    assert "meter N: in no perimeter: nobody answers for its balance; allowed: X, Y, DSO" in text
    assert "perimeter of DSO: answers for losses and for meters" in text
    assert len(caught.value.faults) == 4
    twice = (x, replace(y, party="X"))
    with pytest.raises(BidError, match="perimeter of X: more than one perimeter of that party"):
        settle(case(CALLED, METERED, FREE, **(area(18.0) | {"perimeters": twice})))


def test_a_called_meter_is_in_a_perimeter():
    found = settle(case(CALLED, METERED, FREE)).deliveries
    own = area(18.0)
    with pytest.raises(BidError, match="meter M: called, but in no perimeter"):
        positions(PERIOD, own["perimeters"][1:], {"N": power("N", 7.0)}, own["interface"], found)


def test_a_baseline_is_needed_where_something_was_ordered_only():
    """In the other hours the mean stands in for what was not measured."""
    period = Period(0, HOUR, 3)
    measured = {"M": Series("M", "measurement", 0, HOUR, (6.0, None, None))}
    baseline = {"M": Series("M", "baseline", HOUR, HOUR, (10.0,))}
    own = Award("b", "local", "DSO", HOUR, (4.0,), (0.3,), (0.3,))
    found = settle(SettlementCase(period, (Call(own, "A", UP, (("M", (4.0,)),)),), measured, baseline))
    assert found.told == (
        "measurement of M missing from 3600 to 7200 s: estimated, taken from the baseline of M",
        "measurement of M missing from 7200 to 10800 s: estimated, taken from the forecast of M "
        "(mean of what was measured)",
    )
    assert [(each.t_s, each.given, each.estimated) for each in found.deliveries] == [(HOUR, 0, True)]
    with pytest.raises(ProfileError, match="baseline of M: no value; got MTU from 3600 s"):
        settle(
            SettlementCase(
                period, (Call(own, "A", UP, (("M", (4.0,)),)),), measured, {"M": power("M", 10.0, "baseline")}
            )
        )


def test_prices_are_needed_for_each_mtu():
    with pytest.raises(BidError) as caught:
        settle(case(CALLED, METERED, FREE, suppliers={"M": "S"}, **(area(18.0) | {"imbalance_price": ()})))
    assert [fault.key for fault in caught.value.faults] == ["imbalance_price", "reference_price"]


def test_closing_gap_shows_a_lost_position():
    own = area(18.0)
    measured = {m: power(m, kw) for m, kw in METERED.items()}
    held = positions(PERIOD, own["perimeters"], measured, own["interface"])
    assert closing_gaps(PERIOD, held, own["interface"]) == (0,)
    assert closing_gaps(PERIOD, held[1:], own["interface"]) == (-3,)


def test_energies_together_are_exact():
    """No digit of the smallest is lost beside the largest, and what is taken away leaves nothing."""
    powers_kw = (1e300, 0.1, -7.3e-300, 0.2)
    assert energy_of(powers_kw, 900) == sum(map(exact, powers_kw)) / 4
    assert energy_of((0.1, 0.2, -0.3), 900) == 0
    assert energy_of((), 900) == 0
    assert energy(120.0, 7) == Fraction(840, 3600)
    with pytest.raises(ValueError, match="nan is not finite"):
        energy_of((1.0, float("nan")), 900)


def test_a_part_of_a_series_keeps_values_and_flags():
    whole = Series("M", "measurement", 0, 900, (1.0, None, 3.0), (False, False, True))
    assert whole.over(Period(900, 900, 2)) == Series("M", "measurement", 900, 900, (None, 3.0), (False, True))
    assert whole.over(Period(1800, 900, 2)) == Series("M", "measurement", 1800, 900, (3.0, None), (True, False))
    assert whole.over(Period(-900, 900, 2)) == Series("M", "measurement", -900, 900, (None, 1.0), (False, False))
    plain = Series("M", "measurement", 0, 900, (1.0, 2.0))
    assert plain.over(Period(0, 900, 2)) == Series("M", "measurement", 0, 900, (1.0, 2.0), (False, False))
    assert plain.over(Period(900, 900, 0)).p_kw == ()


def test_largest_remainder():
    assert apportioned([Fraction(1, 3)] * 3, Decimal(1)) == (1, 0, 0)
    assert apportioned([Fraction("1.2"), Fraction("1.3"), Fraction("-0.5")], Decimal(1)) == (1, 1, 0)
    assert apportioned([Fraction("0.5")], Decimal(1)) == (0,)  # half to even
    assert apportioned([]) == ()
    assert apportioned([exact(0.1)] * 10) == (Decimal("0.1"),) * 10


def payment(eur, payer="D", payee="A", kind="utilisation"):
    return Payment(0, HOUR, payer, payee, kind, exact(eur), "EUR", Fraction(1))


def test_lines_are_rounded_together_by_kind():
    found = lines([payment(0.00004, payee="B"), payment(0.00004), *[payment(0.00012, kind="uplift")] * 2])
    assert [(line.id, line.kind, line.payee, line.amount_eur) for line in found] == [
        ("0-0", "uplift", "A", Decimal("0.0001")),
        ("0-1", "uplift", "A", Decimal("0.0001")),
        ("0-2", "utilisation", "A", Decimal("0.0001")),
    ]


def test_nobody_pays_himself():
    assert lines([payment(1.0, payee="D"), payment(0.0)]) == ()


def test_records_are_json():
    found = settle(case(CALLED, METERED, FREE, **area(18.0)))
    for line in found.lines:
        assert from_json(SettlementLine, json.loads(json.dumps(to_json(line)))) == line
    for record in (CALLED[0], area(18.0)["interface"], area(18.0)["perimeters"][0], PERIOD):
        assert from_json(type(record), json.loads(json.dumps(to_json(record)))) == record
    with pytest.raises(ValueError, match="mtu_h"):
        from_json(Period, {"t_s": 0, "mtu_s": 900, "n_mtu": 1, "mtu_h": 1})
