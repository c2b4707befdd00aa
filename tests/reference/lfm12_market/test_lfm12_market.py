"""The clearing reproduces the 12-bus market study; see README.md."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from lfm12_network import (
    BUS,
    FIRST,
    FLEXIBLE,
    LIMIT_A,
    P_KW,
    PODS,
    Q_KVAR,
    RESOURCES,
    V_SLACK,
    Y,
    bid,
    currents,
    half_bands,
    network,
    rows_of,
    study,
    uncertainty,
    voltages,
)

from cosim.domain.market import Direction, Resource
from cosim.errors import MarketError
from cosim.market.case import HOLD
from cosim.market.clearing import clear, worst_corners
from cosim.market.highs import Highs
from cosim.market.planes import LimitSettings, plane_families
from cosim.market.reference import Reference
from cosim.market.uncertainty import Protection, Uncertainty, budget

EXPECTED = {row["figure"]: (float(row["value"]), float(row["tolerance"])) for row in rows_of("expected.csv")}


def check(figure, found):
    value, tolerance = EXPECTED[figure]
    assert float(found) == pytest.approx(value, abs=tolerance, rel=0.0), figure


def of(clearing):
    """Awarded kW by POD."""
    return {bid.resource: float(clearing.of(bid.id)[0]) for bid in clearing.bids}


def upstream():
    """What the printed slip does to each POD's uncertain current: it takes the voltage of the bus before."""
    v = voltages(P_KW, Q_KVAR)
    return np.conj(v[BUS - 1] / v[BUS - 2])


def ac_at_worst_corner(clearing, case):
    """Current of branch 2-3 with the awards and all loads up, which is the worst corner here."""
    kw = np.array([of(clearing).get(pod, 0.0) for pod in PODS])
    half_p, half_q = half_bands(case)
    return abs(currents(voltages(P_KW - kw + half_p, Q_KVAR * (1.0 - kw / P_KW) + half_q))[1])


def test_base_current():
    i0 = currents(voltages(P_KW, Q_KVAR))[1]
    check("i0_re_a", i0.real)
    check("i0_im_a", i0.imag)
    assert network().i_a[0] == pytest.approx(i0, abs=1e-9)


@pytest.mark.parametrize("case", [1, 2])
@pytest.mark.parametrize("slip", [False, True])
def test_delta_of_the_current(case, slip):
    uncertain = uncertainty(case, effect_factor=upstream() if slip else None)
    delta = Protection(network(), uncertain).effect()[0].sum()
    end = "_slip_a" if slip else "_a"
    check(f"case{case}_delta_re{end}", delta.real)
    check(f"case{case}_delta_im{end}", delta.imag)


@pytest.mark.parametrize("case", [1, 2])
def test_activation_and_current_after_it(case):
    cleared = clear(study(case)).require_solved()
    assert set(of(cleared)) == set(FLEXIBLE)
    check(f"case{case}_pod4_kw", of(cleared)["POD4"])
    assert of(cleared)["POD2"] == of(cleared)["POD7"] == 0.0
    state = cleared.networks[0].state(cleared.solution.x)
    check(f"case{case}_linear_a", abs(state.z[0] + cleared.networks[0].protection.effect()[0].sum()))
    check(f"case{case}_ac_a", ac_at_worst_corner(cleared, case))


def test_printed_slip_as_a_documented_compatibility_case():
    check("case2_pod4_slip_kw", of(clear(study(2, uncertain=uncertainty(2, effect_factor=upstream()))))["POD4"])


def test_case_3_by_the_same_code():
    cleared = clear(study(3)).require_solved()
    z = cleared.networks[0].state(cleared.solution.x).z[0]
    effect = cleared.networks[0].protection.effect()[0]
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=len(PODS))))
    largest = np.abs(z + corners @ effect).max()
    assert LIMIT_A * np.cos(np.pi / 32) - 1e-6 <= largest <= LIMIT_A + 1e-6
    assert of(cleared)["POD4"] == pytest.approx(150.0)
    assert of(cleared)["POD2"] > 0.0
    assert ac_at_worst_corner(cleared, 3) == pytest.approx(largest, rel=5e-4)


def test_order_of_activation_by_relief_along_the_active_plane():
    net = network()
    weight = np.exp(1j * np.radians(28.125))
    for pod in FLEXIBLE:
        k = PODS.index(pod)
        relief = (weight * (net.by_p[0, k] + net.by_q[0, k] * Q_KVAR[k] / P_KW[k])).real
        check(f"{pod.lower()}_a_per_kw", relief)


@pytest.mark.parametrize("planes", [8, 16, 32, 64, 128, 4096])
def test_polygon_inscribed(planes):
    cleared = clear(study(2, planes=planes))
    check(f"planes{planes}_kw", cleared.awarded_kw.sum())
    if planes == 64:
        check("planes64_ac_a", ac_at_worst_corner(cleared, 2))


@pytest.mark.parametrize("planes", [32, 64, 128])
def test_polygon_circumscribed(planes):
    cleared = clear(study(2, limits=LimitSettings(planes=planes, polygon="circumscribed")))
    check(f"planes{planes}_tangent_kw", cleared.awarded_kw.sum())
    if planes == 32:
        check("planes32_tangent_ac_a", ac_at_worst_corner(cleared, 2))


@pytest.mark.parametrize("gamma", np.arange(0.0, 7.5, 0.5))
def test_budget_of_uncertainty(gamma):
    check(f"gamma{gamma:g}_kw", clear(study(2, uncertain=uncertainty(2, budget(gamma)))).awarded_kw.sum())


def test_slight_overload_tolerated():
    check("overload2_kw", clear(study(2, limits=LimitSettings(planes=32, overload=0.02))).awarded_kw.sum())


def with_pod8():
    """A resource at bus 2, upstream of the branch, that can consume 300 kW more at unity power factor."""
    pods, bus = (*PODS, "POD8"), np.append(BUS, 2)
    p_kw, q_kvar = np.append(P_KW, 0.0), np.append(Q_KVAR, 0.0)
    half_p, half_q = half_bands(2)
    bids = (*(bid(pod, float(P_KW[PODS.index(pod)])) for pod in FLEXIBLE), bid("POD8", 300.0, direction=Direction.DOWN))
    return study(
        2,
        net=network(pods=pods, bus=bus, p_kw=p_kw, q_kvar=q_kvar),
        bids=bids,
        resources=RESOURCES | {"POD8": Resource("POD8", "POD8", "load", "AGG", 0.0, 300.0)},
        uncertain=Uncertainty(np.append(half_p, 0.0), np.append(half_q, 0.0), uncertainty(2).set),
        interface_kw=HOLD,
    )


def test_mode_1_with_a_counter_resource():
    cleared = clear(with_pod8()).require_solved()
    check("mode1_pod4_kw", of(cleared)["POD4"])
    check("mode1_pod8_kw", of(cleared)["POD8"])
    state = cleared.networks[0].state(cleared.solution.x)
    assert cleared.networks[0].head_by_delta @ state.delta_kw == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("case", [2, 3])
def test_mode_1_without_it_is_infeasible_and_says_why(case):
    with pytest.raises(
        MarketError, match=r"hold infeasible.*All resources are downstream of the violated row 2-3@first"
    ):
        clear(study(case, interface_kw=HOLD, slack_eur_per_kwh=None))


def test_mode_1_without_it_reports_what_is_unsolved():
    cleared = clear(study(2, interface_kw=HOLD))
    assert [(each.kind, each.element, each.mtu) for each in cleared.unsolved] == [("i_max", "2-3@first", 0)]
    assert cleared.awarded_kw.sum() == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(MarketError, match="i_max of 2-3@first in MTU 0"):
        cleared.require_solved()


def test_worst_corner_is_all_loads_up():
    (corner,) = worst_corners(clear(study(2)))
    np.testing.assert_array_equal(corner.xi, np.ones(len(PODS)))
    assert corner.limit == LIMIT_A


@pytest.mark.parametrize("case", [1, 2, 3])
@pytest.mark.parametrize("lazy", [False, True])
def test_all_solvers_agree(case, lazy):
    ours = clear(study(case, lazy=True), Highs())
    for solver in (Highs(), Reference("cbc"), Reference("highs")):
        other = clear(study(case, lazy=lazy), solver)
        assert other.objective_eur == pytest.approx(ours.objective_eur, abs=1e-6, rel=1e-6)
        np.testing.assert_allclose(other.awarded_kw, ours.awarded_kw, atol=1e-5)


class TestTraps:
    def test_reactive_power_left_behind(self):
        alone = {name: Resource(name, name, "load", "AGG", r.up_kw, 0.0) for name, r in RESOURCES.items()}
        awarded = of(clear(study(2, resources=alone)))
        check("trap_no_q_pod7_kw", awarded["POD7"])
        assert awarded["POD4"] == 0.0

    def test_both_ends_limited(self):
        both = clear(study(2, net=network(last_ends=("2-3",)))).awarded_kw.sum()
        check("trap_both_ends_more_kw", both - EXPECTED["case2_pod4_kw"][0])

    def test_band_on_the_reduced_load(self):
        check("trap_residual_kw", of(clear(study(2, uncertain=uncertainty(2, base="residual"))))["POD4"])

    def test_rated_voltages(self):
        """1 pu in the loads' currents: the base current and the effects are those of a slack voltage everywhere."""
        v = voltages(P_KW, Q_KVAR)
        net = network()
        own = np.conj(v[BUS - 1] / V_SLACK)
        empty = replace(net, base=net.at(-P_KW, -Q_KVAR), by_p=net.by_p * own, by_q=net.by_q * own)
        flat = replace(empty, base=empty.at(P_KW, Q_KVAR))
        check("trap_rated_voltage_kw", of(clear(study(2, net=flat)))["POD4"])

    @pytest.mark.parametrize("turn", [0.0, np.pi])
    def test_delta_without_the_signs_of_the_current(self, turn):
        """The study's sums of real and of imaginary parts have the signs of the current, whichever way it is counted;
        without them they would point into another quadrant, and nothing would be bought."""
        net = rotated(network(), turn)
        found = clear(study(2, net=net, uncertain=uncertainty(2, worst_case="reim")))
        check("case2_pod4_kw", of(found)["POD4"])
        effect = Protection(net, uncertainty(2)).effect()[0]
        unsigned = np.abs(effect.real).sum() + 1j * np.abs(effect.imag).sum()
        rows = plane_families(net, LimitSettings(planes=32))[0]
        assert (rows.weight[0] * (net.i_a[0] + unsigned)).real.max() < rows.bound[0, 0]
        assert (rows.weight[0] * (net.i_a[0] + effect.sum())).real.max() > rows.bound[0, 0]

    def test_slack_left_in_the_matrix(self):
        """The whole nodal matrix is regular, because of the shunts, and gives other numbers without a word."""
        whole = np.linalg.inv(Y)[1:, 1:]
        assert np.linalg.cond(Y) < 1e9
        own = -1000.0 / 3.0 / voltages(P_KW, Q_KVAR)[BUS - 1].conj()
        by_p_v = np.vstack([np.zeros(len(PODS)), whole[:, BUS - 2] * own])
        wrong = (FIRST[1] @ by_p_v) / network().by_p[0]
        assert np.abs(wrong - 1.0).min() > 0.01

    def test_polygon_turned_by_half_a_sector(self):
        turned = clear(study(2, net=rotated(network(), np.pi / 32)))
        check("trap_flat_first_kw", turned.awarded_kw.sum())


def rotated(net, angle):
    """The same network with its current's angles turned: as if the polygon were turned the other way."""
    turn = np.exp(1j * angle)
    return replace(net, base=net.base * turn, by_p=net.by_p * turn, by_q=net.by_q * turn)
