"""Schemes on the T1 ring; see README.md."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from cosim.coordination.catalogue import load_scheme
from cosim.coordination.coordinate import coordinate
from cosim.coordination.read_case import read_case
from cosim.errors import BidError

HERE = Path(__file__).parent
CASE = Path(__file__).parents[3] / "scenarios" / "cases" / "t1_ring.yaml"
MW = 1000.0


def rows():
    with (HERE / "expected.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def run(scheme, *overrides, case=CASE):
    return coordinate(read_case(case, overrides), load_scheme(scheme))


def mw(found):
    return {bid: round(kw / MW, 3) for bid, kw in found.dispatch_kw.items()}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["scheme"])
def test_cost_and_overloads(row):
    found = run(row["scheme"], f"need_mw={row['need_mw']}")
    assert found.solved == (row["solved"] == "yes")
    if found.solved:
        assert found.cost_eur == pytest.approx(float(row["cost_eur"]), abs=0.01)
        assert found.balance.missing_kw == pytest.approx(0.0, abs=1e-6)
        over = dict(each.split() for each in row["overloads"].split(";") if each)
        left = {each.element: each.excess / MW for each in found.overloads if each.excess > 0.0}
        assert left == pytest.approx({element: float(excess) for element, excess in over.items()}, abs=1e-6)


def test_base_flows():
    case = read_case(CASE)
    flow = dict(zip(case.transmission.rows.conductors, case.transmission.rows.i_a.real / MW, strict=True))
    assert flow["T3-T4"] == pytest.approx(593.30, abs=0.005)
    assert flow["T2-S1"] == pytest.approx(10.0)
    area = case.areas["D"].grid.rows
    assert dict(zip(area.conductors, area.i_a.real / MW, strict=True)) == pytest.approx(
        {"D/S1-D2": 10.0, "D/D2-D3": 10.0}
    )


def test_the_common_market_uses_one_resource_up_and_one_down():
    assert mw(run("it_coopt")) == {"F3 up": 4.0, "F1 down": 2.0, "G3 down": 212.692, "G4 up": 210.692}


def test_mode_1_buys_a_counter_resource_for_every_megawatt():
    found = run("it_dso_priority_mode1")
    assert found.paid_eur["DSO:D"] == pytest.approx(320.0, abs=0.01)
    assert {bid: kw for bid, kw in mw(found).items() if bid[0] == "F"} == {"F3 up": 4.0, "F1 down": 2.0, "F2 down": 2.0}


def test_paying_both_directions_pays_g4_twice():
    bought = mw(run("it_tso_priority_rebalance"))
    assert bought["G4 up"] > 0.0
    assert bought["G4 down"] > 0.0


def test_the_infeasible_one_says_why():
    found = run("it_tso_priority_raw")
    assert {(stage, who) for stage, who, _ in found.unsolved} == {("MSL", "DSO:D")}
    assert found.of("MSD").bought["F1 down"].kw == pytest.approx(2.0 * MW)
    assert found.of("MSL").excluded == {"F1 down": "resource activated in MSD"}
    assert "hold infeasible" in found.of("MSL").reason
    assert "downstream of the violated row D/S1-D2" in found.of("MSL").reason


def test_the_fallback_of_tso_priority_gives_the_interface_up_and_balances_again():
    """With bids as they are the held local market is infeasible: it falls back, and the TSO undoes what is too much."""
    scheme = load_scheme("it_tso_priority", ("stages.MSD.admit=raw",))
    found = coordinate(read_case(CASE), scheme)
    assert found.of("MSL").fell_back
    assert found.solved
    assert found.balance.missing_kw == pytest.approx(0.0, abs=1e-6)
    assert found.of("rebalance").bought["G4 up"].kw < 0.0
    assert "G4 down" not in found.dispatch_kw
    assert found.cost_eur < run("it_tso_priority_rebalance").cost_eur


@pytest.mark.parametrize("scheme", ["smartnet_common_decentral", "smartnet_local"])
def test_slopes_of_the_residual_curve(scheme):
    found = run(scheme)
    (pieces,) = (pieces for _, outcome in found.outcomes for pieces in outcome.slopes.values())
    expected = [(0.0, 2.0, -30.0), (2.0, 4.0, -10.0), (4.0, 5.0, 60.0)]
    for (a, b, price), (low, high, slope) in zip(pieces, expected, strict=True):
        assert (a / MW, b / MW, price * MW) == pytest.approx((low, high, slope), abs=1e-6)
    stage = "common" if scheme == "smartnet_common_decentral" else "AS"
    change, paid = found.of(stage).on_curve["D"]
    assert change == pytest.approx(-2.0 * MW)
    assert paid == pytest.approx(20.0)
    (curve,) = (curve for _, outcome in found.outcomes for curve in outcome.curves)
    assert curve.base_kw == pytest.approx(4.0 * MW)


def test_what_the_interface_is_worth():
    worth = run("it_coopt").of("market").interface_eur_per_kwh["D"] * MW
    assert worth == pytest.approx(-18.539, abs=5e-4)
    found = run("smartnet_shared_priced", f"areas.D.interface_price_eur_per_mwh={worth}")
    assert found.of("local").export_kw["D"] == pytest.approx(2.0 * MW)
    assert found.cost_eur == pytest.approx(15108.45, abs=0.01)


@pytest.mark.parametrize("need_mw", [-40.0, 3.0, 25.0])
def test_other_needs_by_the_same_file(need_mw):
    common = run("it_coopt", f"need_mw={need_mw}")
    assert common.solved
    assert common.cost_eur == pytest.approx(run("smartnet_common_decentral", f"need_mw={need_mw}").cost_eur, abs=0.01)
    up = {True: 1.0, False: -1.0}
    assert sum(up[bid.endswith("up")] * kw for bid, kw in common.dispatch_kw.items()) == pytest.approx(need_mw * MW)
    assert run("smartnet_centralised", f"need_mw={need_mw}").cost_eur <= common.cost_eur
    assert common.cost_eur <= run("smartnet_shared", f"need_mw={need_mw}").cost_eur


def test_a_need_that_nobody_can_serve_is_reported():
    found = run("it_coopt", "need_mw=2000")
    assert not found.solved
    short = found.of("market").shortage_kw
    assert short > 1000.0 * MW
    assert found.balance.missing_kw == pytest.approx(short)


def test_variants_by_the_same_file():
    """With room in its line the area needs nothing, and all schemes that balance cost what transmission needs."""
    wide = [
        "areas.D.lines=[{buses: [S1, D2], x_pu: 0.006, limit_mw: 20}, {buses: [D2, D3], x_pu: 0.006, limit_mw: 20}]"
    ]
    costs = {name: run(name, *wide).cost_eur for name in ("it_coopt", "it_dso_priority", "smartnet_centralised")}
    assert costs == pytest.approx(dict.fromkeys(costs, 14794.30), abs=0.01)
    assert run("smartnet_shared", *wide).cost_eur == pytest.approx(14811.37, abs=0.01)
    assert run("local_only", *wide).dispatch_kw == {}


def test_dso_priority_knows_nothing_of_transmission():
    """The local market is the same whatever the system needs; the TSO pays for the balance it leaves."""
    one, other = (run("it_dso_priority", f"need_mw={need}") for need in (0, 40))
    assert one.of("MSL").bought == other.of("MSL").bought
    assert not set(one.of("MSL").bought) & set(one.of("MSD").bought)


def test_tso_priority_serves_the_tso_cheaper():
    first, second = run("it_tso_priority_raw"), run("it_dso_priority")
    assert first.paid_eur["TSO"] <= second.paid_eur["TSO"] + 0.01


def test_validating_picks_buys_more_than_capping_all():
    """D2-D3 has room for one of two resources; only one is worth its price to the TSO."""
    case = HERE / "hybrid.yaml"
    hybrid, capped, safe = (run(name, case=case) for name in ("givisiez_hybrid", "givisiez_dso", "givisiez_tso"))
    bought = [sum(kw for bid, kw in found.dispatch_kw.items() if bid[0] == "F") for found in (hybrid, capped)]
    assert bought[0] > bought[1] + 1.0 * MW
    assert hybrid.cost_eur < capped.cost_eur - 1.0
    assert safe.cost_eur <= hybrid.cost_eur + 0.01
    for found in (hybrid, capped):
        assert not any(each.worse for each in found.overloads)
    assert any(each.worse for each in run("central_only", case=case).overloads)
    rounds = [message.round for message in hybrid.messages if message.type == "VALIDATION"]
    assert rounds == list(range(1, len(rounds) + 1))
    assert len(rounds) > 1


def test_without_the_matrix_of_the_same_version_the_light_is_refused():
    case = read_case(CASE)
    area = case.areas["D"]
    newer = replace(area, matrix=replace(area.matrix, version=2))
    with pytest.raises(BidError, match=r"area D are of another version.*got 2; allowed: 1"):
        coordinate(replace(case, areas={"D": newer}), load_scheme("traffic_light"))
