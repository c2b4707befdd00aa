"""Rules of single stages on a small system: balances, exclusion, reversal, steps, fallback."""

from dataclasses import replace

import pytest
from small_system import AREA_LINES, BIDS, DOWN, GLOBAL, LOCAL, UP, area, bid, limited, scheme, system

from cosim.coordination.coordinate import coordinate
from cosim.coordination.grid import dc_grid
from cosim.domain.market import Need, PriceStep
from cosim.errors import BidError

MSL_MSD = {"MSL": LOCAL, "MSD": {**GLOBAL, "uses": ["MSL"]}}


def dispatch(found):
    return {key: round(kw, 6) for key, kw in found.dispatch_kw.items()}


def test_a_local_market_meets_its_limit_and_leaves_the_balance():
    found = coordinate(system(), scheme({"MSL": LOCAL}))
    assert dispatch(found) == {"F1 up": 5.0}
    assert found.cost_eur == pytest.approx(1.0)
    assert found.balance.missing_kw == pytest.approx(-5.0)
    assert found.of("MSL").export_kw == pytest.approx({"area": 5.0})
    (cured,) = found.overloads
    assert (cured.element, cured.excess, cured.before) == ("area/first", 0.0, 20.0)


def test_hold_needs_a_counter_resource():
    """Above the only line of the area there is none."""
    found = coordinate(system(), scheme({"MSL": {**LOCAL, "balance": "hold"}}))
    assert dispatch(found) == {}
    assert [what for *_, what in found.unsolved] == ["i_max of area/first: 5 kW beyond 15"]
    assert "A counter-resource on another feeder or at the busbar is needed" in found.of("MSL").reason


def test_a_fallback_gives_the_balance_up():
    found = coordinate(system(), scheme({"MSL": {**LOCAL, "balance": "hold", "fallback": "none"}}))
    assert dispatch(found) == {"F1 up": 5.0}
    assert found.of("MSL").fell_back
    assert found.solved


def test_an_agreed_interface_that_cannot_be_kept_is_short():
    """Within its tolerance it is; what it misses the agreed export by is reported as too much."""
    stages = {"local": {**LOCAL, "balance": "band"}, "AS": {**GLOBAL, "resources": "T"}}
    agreed = scheme(stages)
    found = coordinate(system(tolerance_kw=5.0), agreed)
    assert found.solved
    assert dispatch(found) == {"F1 up": 5.0}
    found = coordinate(system(tolerance_kw=3.0), agreed)
    assert found.of("local").shortage_kw == pytest.approx(-2.0)
    assert found.balance.missing_kw == pytest.approx(-5.0)
    found = coordinate(system(schedule_kw=5.0), agreed)
    assert found.solved
    assert found.balance.missing_kw == pytest.approx(0.0)
    assert dispatch(found) == {"F1 up": 5.0, "G down": 5.0}


def test_at_a_price_an_area_trades_until_its_own_bids_cost_as_much():
    stages = {"local": {**LOCAL, "balance": "priced"}, "AS": {**GLOBAL, "resources": "T", "uses": ["local"]}}
    at = scheme(stages)
    assert dispatch(coordinate(system(price_eur_per_kwh=0.1), at)) == {"F1 up": 5.0, "G down": 5.0}
    found = coordinate(system(price_eur_per_kwh=0.25), at)
    assert dispatch(found) == {"F1 up": 10.0, "G down": 10.0}
    assert found.of("local").export_kw["area"] == pytest.approx(10.0)
    assert found.paid_eur["DSO:area"] == pytest.approx(2.0 - 2.5)
    found = coordinate(system(price_eur_per_kwh=0.35, loads=(5.0, 5.0)), at)
    assert dispatch(found) == {"F1 up": 10.0, "F2 up": 10.0, "G down": 20.0}


@pytest.mark.parametrize(
    ("exclude", "awards"),
    [
        ("resource", {"F1 up": 5.0, "F2 down": 5.0}),
        ("direction", {"F1 up": 5.0, "F2 down": 5.0}),
        ("capacity", {"F1 up": 5.0, "F2 down": 5.0}),
    ],
)
def test_what_the_local_market_awarded_is_balanced(exclude, awards):
    stages = {**MSL_MSD, "MSD": {**MSL_MSD["MSD"], "exclude": exclude}}
    assert dispatch(coordinate(system(), scheme(stages))) == awards


@pytest.mark.parametrize(
    ("exclude", "awards"),
    [
        ("resource", {"F1 up": 5.0, "G up": 10.0, "F2 up": 5.0}),
        ("direction", {"F1 up": 10.0, "G up": 10.0}),
        ("capacity", {"F1 up": 10.0, "G up": 10.0}),
    ],
)
def test_the_rest_of_an_awarded_bid(exclude, awards):
    """Only the kW awarded are gone, or all of the resource; G alone is not enough for the rest."""
    bids = [bid("G", UP, 10.0, 0.10), *(b for b in BIDS if b.direction is UP and b.resource != "G")]
    stages = {**MSL_MSD, "MSD": {**MSL_MSD["MSD"], "exclude": exclude}}
    found = coordinate(system(need_kw=20.0, bids=bids), scheme(stages))
    assert dispatch(found) == awards
    if exclude == "resource":
        assert found.of("MSD").excluded == {"F1 up": "resource activated in MSL"}
        assert found.of("MSD").shortage_kw == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("reversal", "awards"), [("forbid", {"F1 up": 5.0, "F2 down": 5.0}), ("pay_both", {"F1 up": 5.0, "F1 down": 5.0})]
)
def test_going_back_on_an_award(reversal, awards):
    """Who was paid to go up is the cheapest to go down again."""
    bids = [replace(b, steps=(PriceStep(10.0, 0.01),)) if b.id == "F1 down" else b for b in BIDS]
    stages = {"MSL": LOCAL, "MSD": {**GLOBAL, "reversal": reversal, "uses": ["MSL"]}}
    found = coordinate(system(bids=bids), scheme(stages))
    assert dispatch(found) == awards
    if reversal == "forbid":
        assert found.of("MSD").excluded == {"F1 down": "activated up in MSL"}


def test_buying_back_costs_what_the_award_did():
    """The TSO buys on a need that a later stage of its own no longer has to serve: the DSO's market serves it."""
    stages = {
        "MSD": {**GLOBAL, "resources": "T"},
        "MSL": {**LOCAL, "uses": ["MSD"]},
        "again": {**GLOBAL, "resources": "T", "reversal": "buy_back", "uses": ["MSL"]},
    }
    found = coordinate(system(need_kw=8.0), scheme(stages))
    assert found.of("MSD").bought["G up"].kw == pytest.approx(8.0)
    assert found.of("again").bought["G up"].kw == pytest.approx(-5.0)
    assert dispatch(found) == {"G up": 3.0, "F1 up": 5.0}
    assert found.cost_eur == pytest.approx(3.0 * 0.10 + 5.0 * 0.20)
    assert found.paid_eur == pytest.approx({"TSO": 0.3, "DSO:area": 1.0})


def test_a_stage_that_bought_nothing_may_be_gone_against():
    found = coordinate(system(need_kw=-4.0, loads=(5.0, 5.0)), scheme(MSL_MSD))
    assert dispatch(found) == {"F2 down": 4.0}


def test_steps_used_elsewhere_are_gone():
    """The local market takes the cheap part of F1, the TSO goes on from there."""
    two_steps = bid("F1", UP, 10.0, (PriceStep(5.0, 0.01), PriceStep(5.0, 0.09)))
    bids = [two_steps, bid("G", UP, 100.0, 0.10)]
    found = coordinate(system(need_kw=12.0, bids=bids), scheme(MSL_MSD))
    local, later = found.of("MSL").bought["F1 up"], found.of("MSD").bought["F1 up"]
    assert (local.kw, local.price_eur_per_kwh) == pytest.approx((5.0, 0.01))
    assert (later.kw, later.price_eur_per_kwh) == pytest.approx((5.0, 0.09))
    assert dispatch(found) == {"F1 up": 10.0, "G up": 2.0}


def test_a_bid_that_is_capped_below_its_least_is_left_out():
    """The first line has 5 kW left, less than F2 would be there for."""
    stages = {
        "caps": {"solver": "DSO", "resources": "D", "network": "D", "objective": "caps", "lock": False},
        "MSD": {**GLOBAL, "admit": "caps", "uses": ["caps"]},
    }
    bids = [bid("G", DOWN, 100.0, 0.05), bid("F2", DOWN, 10.0, 0.01, min_accept=0.8)]
    capped = scheme(stages)
    found = coordinate(system(need_kw=-9.0, bids=bids, loads=(5.0, 5.0)), capped)
    assert found.of("caps").caps == pytest.approx({"F2 down": 5.0})
    assert dispatch(found) == {"G down": 9.0}
    assert found.of("MSD").excluded == {"F2 down": "capped to 5 kW, less than the least it accepts"}
    bids[1] = replace(bids[1], min_accept=0.5)
    assert dispatch(coordinate(system(need_kw=-9.0, bids=bids, loads=(5.0, 5.0)), capped)) == {
        "F2 down": 5.0,
        "G down": 4.0,
    }


def test_only_prequalified_resources_up_to_what_is_safe():
    stages = {"AS": {**GLOBAL, "prequalified": True}}
    listed = scheme(stages)
    snapshot = dc_grid("area/", AREA_LINES, "head", {"B1": 6.0, "B2": 6.0})
    found = coordinate(system(need_kw=-15.0, snapshots=(snapshot,), loads=(5.0, 5.0)), listed)
    assert found.of("AS").excluded == {"F1 down": "capped to 1.5 kW", "F2 down": "capped to 1.5 kW"}
    assert dispatch(found) == {"F1 down": 1.5, "F2 down": 1.5, "G down": 12.0}


def test_pay_as_clear_pays_what_a_bid_is_worth_where_it_is():
    """Behind a congested line at transmission UP is worth more than before it."""
    stages = {"AS": {**GLOBAL, "solver": "TSO", "network": "T", "pricing": "pay_as_clear"}}
    case = limited(system(need_kw=12.0, loads=(5.0, 5.0)), "A-C", 4.0)
    found = coordinate(case, scheme(stages))
    prices = {key: each.price_eur_per_kwh for key, each in found.of("AS").bought.items()}
    asked = {key: each.asked_eur_per_kwh for key, each in found.of("AS").bought.items()}
    assert all(prices[key] >= asked[key] - 1e-9 for key in prices)
    assert found.of("AS").interface_eur_per_kwh["area"] >= prices["G up"] - 1e-9


def test_several_buyers_each_pay_what_it_is_worth_to_them():
    common = {"solver": "IMO", "buyers": ["DSO", "TSO"], "resources": "DT", "network": "TD", "balance": "system"}
    found = coordinate(system(), scheme({"market": common}))
    assert dispatch(found) == {"F1 up": 5.0, "G down": 5.0}
    assert found.of("market").bought["F1 up"].shares == pytest.approx({"DSO:area": 1.0})
    assert found.of("market").bought["G down"].shares == {"TSO": 1.0}
    needs = [message.body for message in found.messages if message.type == "NEED"]
    assert [dict(need.quantity) for need in needs] == [{"area/first": pytest.approx(5.0)}, {"system": 0.0}]


def test_a_brp_buys_while_it_is_worth_more_than_it_costs():
    market = {"solver": "IMO", "buyers": ["TSO", "BRP"], "resources": "T", "network": "T", "balance": "system",
              "objective": "welfare"}  # fmt: skip
    made = scheme({"market": market})

    def with_demand(kw, price):
        return coordinate(
            replace(system(need_kw=10.0), demands=(Need("B", "B", 0, (kw,), max_price_eur_per_kwh=price),)), made
        )

    bought = with_demand(20.0, 0.15)
    assert bought.of("market").demands["B"] == pytest.approx((20.0, 2.0))
    assert dispatch(bought) == {"G up": 30.0}
    assert bought.paid_eur == pytest.approx({"TSO": 1.0, "BRP": 2.0})
    assert with_demand(20.0, 0.05).of("market").demands["B"][0] == pytest.approx(0.0)
    lower = with_demand(-20.0, 0.15)
    assert lower.of("market").demands["B"][0] == pytest.approx(-20.0)
    assert dispatch(lower) == {"G down": 10.0}


def test_bids_that_make_no_sense_are_refused_together():
    bad = [
        bid("G", UP, 200.0, 0.10),
        bid("F1", UP, 5.0, float("nan")),
        replace(bid("F2", UP, 5.0, 0.1), resource=None, shares=(("F2", 0.5), ("G", 0.5))),
        replace(bid("F2", DOWN, 5.0, 0.1), resource=None, any_of=("F1", "F2")),
        replace(bid("F1", DOWN, 5.0, 0.1), resource="F9"),
    ]
    with pytest.raises(BidError) as error:
        coordinate(system(bids=bad), scheme({"MSL": LOCAL}))
    said = "\n".join(map(str, error.value.faults))
    for expected in (
        "resource G: bids G up offer more up than is registered",
        "bid F1 up: a price must be a number; got nan",
        "bid F2 up: no resource of that name; got G; allowed: F1, F2",
        "bid F2 down: a bid of any split has no certain effect on the interface: give shares",
        "bid F1 down: no resource of that name; got F9",
    ):
        assert expected in said


def test_a_bid_that_several_deliver_in_shares():
    """An aggregator of both: half of what it sells comes from behind the second line."""
    both = replace(bid("F1", UP, 10.0, 0.1), id="both", resource=None, shares=(("F1", 0.5), ("F2", 0.5)))
    found = coordinate(system(bids=[both, bid("G", DOWN, 50.0, 0.05)]), scheme(MSL_MSD))
    assert dispatch(found) == {"both": 5.0, "G down": 5.0}
    assert found.solved
    (cured,) = found.overloads
    assert cured.excess == pytest.approx(0.0)


def test_areas_are_cleared_each_by_itself():
    north = area("area")
    units = system().resources
    case = system()
    twin = {
        name + "'": replace(unit, id=name + "'", pod=unit.pod.replace("area", "south"))
        for name, unit in units.items()
        if name != "G"
    }
    bids = (*case.bids, *(replace(b, id=b.id + "'", resource=b.resource + "'") for b in case.bids if b.resource != "G"))
    south = area("south", load_kw=(10.0, 12.0))
    both = replace(case, areas={"area": north, "south": south}, resources={**units, **twin}, bids=bids)
    found = coordinate(both, scheme(MSL_MSD))
    assert dispatch(found) == {"F1 up": 5.0, "F1 up'": 7.0, "F2 down": 10.0, "F2 down'": 2.0}
    assert found.paid_eur["DSO:south"] == pytest.approx(1.4)
    assert [who for who, outcome in found.outcomes if outcome.stage == "MSL"] == ["DSO:area", "DSO:south"]
