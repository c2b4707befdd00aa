"""Days, identities, domains, watts and prices."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest

from cosim.errors import BidError
from cosim.uftp.day import Isps, isps_at
from cosim.uftp.names import Names, amount, domain_of, kw, party_of, unit_price, watts

START = datetime(2024, 3, 30, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("day", "count", "begin"),
    [
        (date(2024, 3, 30), 96, datetime(2024, 3, 29, 23, tzinfo=UTC)),
        (date(2024, 3, 31), 92, datetime(2024, 3, 30, 23, tzinfo=UTC)),
        (date(2024, 10, 27), 100, datetime(2024, 10, 26, 22, tzinfo=UTC)),
    ],
)
def test_isps_of_days_on_which_clocks_change(day, count, begin):
    isps = Isps(day, "Europe/Rome", 15)
    assert (isps.count, isps.begin) == (count, begin)
    assert [isps.number(isps.instant(n)) for n in range(1, count + 1)] == list(range(1, count + 1))
    assert isps_at(isps.instant(count), "Europe/Rome", 15) == isps
    assert isps_at(isps.instant(count + 1), "Europe/Rome", 15).day > day


def test_isps_after_the_clocks_went_forward():
    isps = Isps(date(2024, 3, 31), "Europe/Rome", 15)
    assert isps.instant(9) == datetime(2024, 3, 31, 1, tzinfo=UTC)  # 03:00 of the clocks, which is 2 h into the day


def test_instants_that_begin_no_isp():
    isps = Isps(date(2024, 3, 31), "Europe/Rome", 15)
    for instant in (START.replace(minute=1), START.replace(hour=22), isps.instant(93)):
        with pytest.raises(ValueError, match="no ISP of 2024-03-31"):
            isps.number(instant)
    with pytest.raises(ValueError, match="no whole number of ISPs of 7 minutes"):
        Isps(date(2024, 3, 31), "Europe/Rome", 7)


@pytest.mark.parametrize(
    ("party", "domain"),
    [("agg1", "agg1.example"), ("agg-1", "agg-1.example"), ("AGG_1", "x41xx47xx47xx5fx1.example"), ("", "xx.example")],
)
def test_domains_of_parties(party, domain):
    assert domain_of(party) == domain
    assert party_of(domain) == party


def test_a_domain_of_others_is_the_party_itself():
    for domain in ("dso.nl", "x110000x.example", "a.b.example"):
        assert party_of(domain) == domain


@pytest.mark.parametrize(
    ("p_kw", "power_w"),
    [(1.0, 1000), (0.0005, 0), (0.0015, 2), (-0.0015, -2), (114.501608, 114502), (0.1, 100), (1e-9, 0)],
)
def test_watts_are_the_nearest_and_of_two_the_even(p_kw, power_w):
    assert watts(p_kw) == power_w
    assert watts(kw(power_w)) == power_w


def test_prices_of_energies():
    assert amount(Fraction("0.12") * Fraction("3.125")) == Decimal("0.3750")
    assert amount(Fraction(1, 20_000)) == Decimal("0.0000")
    assert unit_price(Decimal("0.3750"), Fraction("3.125")) == 0.12
    assert unit_price(Decimal("-0.0375"), Fraction("0.75")) == -0.05
    assert unit_price(Decimal("0.0001"), Fraction(1, 1_000_000)) == 100.0


def test_identities_are_of_the_run_and_what_a_message_is():
    one, again, other = Names("a", START, 900), Names("a", START, 900), Names("b", START, 900)
    assert one.identity("FlexOffer", 1) == again.identity("FlexOffer", 1)
    assert len({one.identity("FlexOffer", 1), one.identity("FlexOffer", 2), other.identity("FlexOffer", 1)}) == 3
    assert UUID(one.identity("FlexOffer", 1)).version == 5


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"time_zone": "UTC"}, "time_zone: cannot be said in a message; got UTC"),
        ({"time_zone": "Europe/Roma"}, "time_zone: no time zone 'Europe/Roma'"),
        ({"area": "line:3"}, "area: cannot be said in a message"),
        ({"currency": "euro"}, "currency: cannot be said in a message"),
        ({"mtu_s": 90}, "mtu: cannot be said in a message; got 90 s"),
        ({"mtu_s": 420}, "are no whole number of ISPs of 7 minutes"),
        ({"start": START.replace(minute=5)}, "start: is not where an ISP begins"),
    ],
)
def test_names_that_no_message_can_say(changed, problem):
    with pytest.raises(BidError, match=problem):
        Names(**{"run": "a", "start": START, "mtu_s": 900, **changed})
