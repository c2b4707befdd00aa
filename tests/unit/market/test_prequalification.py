from dataclasses import replace

import numpy as np
import pytest
from small_market import DOWN, UP, case, network, resources

from cosim.domain.market import Product, Resource
from cosim.errors import BidError
from cosim.market.planes import LimitSettings
from cosim.market.prequalification import check_products, grid_capabilities, prequalified, qualification_faults
from cosim.market.uncertainty import Uncertainty, box


def capabilities(networks, own=None, **more):
    """(alone, together) [kW] by resource and direction."""
    found = grid_capabilities(case([], networks, own, **more))
    return {(each.resource, each.direction): (each.alone_kw, each.together_kw) for each in found}


def units(*kw, **more):
    return {f"P{k}": Resource(f"P{k}", f"P{k}", "load", "A", up, down, **more) for k, (up, down) in enumerate(kw)}


LOADS = network([30.0, 20.0], effect=[1.0, 0.5], i_max_a=50.0)  # 40 A
OWN = units((30.0, 40.0), (20.0, 10.0))


def test_room_is_for_one_alone_or_shared_by_what_is_registered():
    """10 A are left: 10 kW of P0 or 20 of P1, or all of 40 + 0.5 * 10 in proportion."""
    found = capabilities(LOADS, OWN, settings={"limits": LimitSettings(planes=4096)})
    assert found["P0", UP] == (30.0, 30.0)
    assert found["P0", DOWN] == pytest.approx((10.0, 40.0 * 10.0 / 45.0), rel=1e-5)
    assert found["P1", DOWN] == pytest.approx((10.0, 10.0 * 10.0 / 45.0), rel=1e-5)


def test_the_other_direction_is_limited_where_power_turns():
    """80 kW UP of 30 turn the current: -50 A at most."""
    found = capabilities(replace(LOADS, upper=np.array([45.0])), units((120.0, 0.0), (0.0, 0.0)))
    assert found["P0", UP][0] == pytest.approx(40.0 + 45.0, rel=2e-3)
    assert found["P0", DOWN] == (0.0, 0.0)
    assert found["P1", UP] == (0.0, 0.0)


def test_nothing_that_makes_a_violated_limit_worse():
    found = capabilities(replace(LOADS, upper=np.array([39.0])), OWN)
    assert found["P0", DOWN] == found["P1", DOWN] == (0.0, 0.0)
    assert found["P0", UP] == (30.0, 30.0)


def test_who_has_no_effect_on_a_limit_is_not_limited_by_it():
    net = network([30.0, 20.0], effect=[1.0, 0.0], i_max_a=30.0)
    assert capabilities(net, OWN)["P1", DOWN] == (10.0, 10.0)
    assert capabilities(net, OWN)["P0", DOWN][0] < 0.1


def test_the_worst_of_several_snapshots_and_its_limit():
    noon = network([-60.0, 0.0], i_max_a=1000.0, v_drop_pu=[1e-3, 1e-3])  # 1.06 pu
    night = network([10.0, 0.0], i_max_a=15.0)
    found = {(each.resource, each.direction): each for each in grid_capabilities(case([], [noon, night], OWN))}
    up, down = found["P0", UP], found["P0", DOWN]
    most_pu = 1.1 * np.cos(np.pi / 180.0)
    assert up.alone_kw == pytest.approx(min(25.0 - 0.02, (most_pu - 1.06) / 1e-3), rel=2e-3)
    assert up.alone_limit.startswith("i_max of L@A.1 in MTU 1, plane ")
    assert down.alone_kw == pytest.approx(5.0, rel=5e-3)
    assert down.alone_limit.startswith("i_max of L@A.1 in MTU 1, plane ")
    assert up.together_kw == pytest.approx(30.0 * (25.0 / 50.0), rel=5e-3)
    assert down.registered_kw == 40.0
    alone = found["P1", UP]
    assert (alone.alone_kw, alone.alone_limit) == (20.0, "")
    assert alone.together_limit.startswith("i_max of L@A.1 in MTU 1")


def test_a_voltage_limit():
    noon = network([-60.0, 0.0], i_max_a=1000.0, v_drop_pu=[1e-3, 1e-3])
    found = {
        (each.resource, each.direction): each
        for each in grid_capabilities(case([], noon, units((90.0, 0.0), (0.0, 0.0))))
    }
    assert found["P0", UP].alone_kw == pytest.approx((1.1 * np.cos(np.pi / 180.0) - 1.06) / 1e-3)
    assert found["P0", UP].alone_limit == "v_max of B.1 in MTU 0"


def test_forecast_errors_take_room():
    errors = Uncertainty(np.array([3.0, 2.0]), np.zeros(2), box())
    certain, uncertain = (capabilities(LOADS, OWN, **more) for more in ({}, {"uncertainty": (errors,)}))
    assert certain["P0", DOWN][0] - uncertain["P0", DOWN][0] == pytest.approx(4.0, rel=1e-3)


def test_what_is_not_delivered_or_paid_back_later_does_not_count():
    day = [LOADS, LOADS]
    risky = {name: replace(unit, delivery_risk=0.5, rebound=(0.5,)) for name, unit in OWN.items()}
    assert capabilities(day, risky) == capabilities(LOADS, OWN)


def test_resources_are_registered_with_what_the_grid_allows():
    found = grid_capabilities(case([], LOADS, OWN))
    alone, together = prequalified(OWN, found, together=False), prequalified(OWN, found)
    kw = {(each.resource, each.direction): each for each in found}
    assert (alone["P0"].up_kw, alone["P0"].down_kw) == (30.0, kw["P0", DOWN].alone_kw)
    assert (together["P1"].up_kw, together["P1"].down_kw) == (20.0, kw["P1", DOWN].together_kw)
    assert together["P0"].pod == "P0"


@pytest.mark.parametrize(("product", "words"), [
    (Product("p", UP, min_kw=31.0), "too little up for product p; got 30 kW; allowed: at least 31 kW"),
    (Product("p", DOWN, step_kw=50.0), "too little down for product p; got 40 kW; allowed: at least 50"),
])  # fmt: skip
def test_a_resource_that_cannot_sell_a_product_alone(product, words):
    (found,) = qualification_faults(OWN["P0"], product)
    assert words in str(found)
    assert list(qualification_faults(OWN["P0"], Product("p", UP, min_kw=30.0))) == []
    (none,) = qualification_faults(replace(OWN["P0"], up_kw=0.0), Product("p", UP))
    assert "got 0 kW; allowed: above 0 kW" in str(none)


@pytest.mark.parametrize(("wrong", "words"), [
    ({"min_kw": -1.0}, "min_kw must be a number of 0 or more; got -1.0"),
    ({"step_kw": float("nan")}, "step_kw must be a number of 0 or more; got nan"),
    ({"min_kw": 5.0, "max_kw": 4.0}, "nothing can be offered: max_kw is below min_kw or step_kw; got 4.0 kW"),
    ({"step_kw": 5.0, "max_kw": 4.0}, "nothing can be offered"),
    ({"duration_min_mtu": 3, "duration_max_mtu": 2}, "a duration must be 1 MTU or more, the least first; got 3..2"),
    ({"duration_min_mtu": 0}, "got 0..1"),
    ({"tolerance": 1.5}, "tolerance must be in [0, 1]; got 1.5"),
    ({"full_activation_s": -60}, "full_activation_s must be a number of 0 or more; got -60"),
])  # fmt: skip
def test_wrong_products(wrong, words):
    with pytest.raises(BidError) as error:
        check_products([replace(Product("p", UP), **wrong)])
    assert [words in str(fault) for fault in error.value.faults] == [True]


def test_all_faults_of_a_catalogue():
    with pytest.raises(BidError) as error:
        check_products([Product("p", UP, min_kw=-1.0), Product("p", UP, tolerance=-1.0)])
    assert len(error.value.faults) == 3
    check_products([Product("p", UP), Product("q", DOWN, min_kw=1.0, max_kw=1.0)])


def test_every_resource_and_direction_has_an_entry():
    found = grid_capabilities(case([], LOADS, resources(2)))
    assert [(each.resource, each.direction) for each in found] == [
        ("P0", UP), ("P0", DOWN), ("P1", UP), ("P1", DOWN)
    ]  # fmt: skip
