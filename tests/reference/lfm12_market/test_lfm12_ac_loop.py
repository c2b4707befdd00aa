"""The outer loop with the AC power flow on the 12-bus study."""

import numpy as np
import pytest
from lfm12_network import LIMIT_A, P_KW, PODS, Q_KVAR, V_SLACK, currents, network, rows_of, study, uncertainty, voltages

from cosim.market.ac_loop import EXCESS_PU, clear_with_ac, rebased
from cosim.market.case import HOLD
from cosim.market.clearing import clear, worst_corners
from cosim.market.planes import LimitSettings

EXPECTED = {row["figure"]: (float(row["value"]), float(row["tolerance"])) for row in rows_of("expected.csv")}


def linearise(_, p_kw, q_kvar):
    return network(p_kw=p_kw, q_kvar=q_kvar)


def magnitudes(_, p_kw, q_kvar):
    states = [voltages(p, q) for p, q in zip(p_kw, q_kvar, strict=True)]
    return np.array([np.abs([currents(v)[1], *(v / V_SLACK)]) for v in states])


def solved(case, **more):
    return clear_with_ac(study(case, **more), linearise, magnitudes)


def test_linear_model_at_the_schedule_is_the_power_flow_there():
    np.testing.assert_allclose(np.abs(network().base), magnitudes(0, P_KW[None], Q_KVAR[None])[0], rtol=1e-9)


def test_a_model_linearised_elsewhere_is_seen_from_the_schedule():
    moved = network(p_kw=0.8 * P_KW, q_kvar=0.8 * Q_KVAR)
    back = rebased(moved, P_KW, Q_KVAR)
    np.testing.assert_allclose(back.at(-0.2 * P_KW, -0.2 * Q_KVAR), moved.base, rtol=1e-12)
    assert abs(back.base[0] - network().base[0]) > 0.0


def test_a_safe_polygon_needs_no_second_round():
    found = solved(2)
    assert found.rounds == 1
    assert found.excess == ()
    assert found.clearing.awarded_kw.sum() == pytest.approx(EXPECTED["case2_pod4_kw"][0], abs=1e-3)


def test_the_loop_finds_what_the_power_flow_itself_needs():
    """A circle of planes leaves the linear model 0.02 A above the limit at its corner; the loop ends at the exact
    least activation."""
    exact, tolerance = EXPECTED["ac_exact_kw"]
    limits = LimitSettings(planes=4096, polygon="circumscribed")
    assert clear(study(2, limits=limits)).awarded_kw.sum() < exact - 0.2
    found = solved(2, limits=limits)
    assert found.clearing.awarded_kw.sum() == pytest.approx(exact, abs=tolerance)
    assert found.largest_pu[0] > EXCESS_PU >= found.largest_pu[-1]
    assert found.rounds == len(found.largest_pu) <= 3


@pytest.mark.parametrize("case", [1, 2, 3])
@pytest.mark.parametrize("polygon", ["inscribed", "circumscribed"])
def test_no_corner_is_above_the_limit_afterwards(case, polygon):
    found = solved(case, limits=LimitSettings(planes=32, polygon=polygon))
    assert found.excess == ()
    kw = {bid.resource: found.clearing.of(bid.id)[0] for bid in found.clearing.bids}
    down = np.array([kw.get(pod, 0.0) for pod in PODS])
    half_p, half_q = uncertainty(case).half_p_kw, uncertainty(case).half_q_kvar
    corner = abs(currents(voltages(P_KW - down + half_p, Q_KVAR * (1.0 - down / P_KW) + half_q))[1])
    assert corner <= LIMIT_A * (1.0 + EXCESS_PU)


def test_what_is_unsolved_is_no_excess():
    found = solved(2, interface_kw=HOLD)
    assert found.rounds == 1
    assert found.excess == ()
    assert len(found.clearing.unsolved) == 1


@pytest.mark.parametrize("case", [2, 3])
def test_no_corner_of_the_rectangles_of_p_and_q_is_above_the_limit(case):
    """Errors of P and of Q apart: one POD's reactive power may be high while its active power is low."""
    uncertain = uncertainty(case, reactive="independent")
    found = solved(case, limits=LimitSettings(planes=256, polygon="circumscribed"), uncertain=uncertain)
    assert found.excess == ()
    network_, x = found.clearing.networks[0], found.clearing.solution.x
    p_kw, q_kvar = network_.powers(network_.state(x))
    (corner,) = {tuple(c.xi.tolist()) for c in worst_corners(found.clearing)}
    xi = np.sign(np.random.default_rng(0).uniform(-1.0, 1.0, (300, 14)))
    xi[0] = corner
    more_kw, more_kvar = uncertain.errors(xi)
    i_a = magnitudes(0, p_kw + more_kw, q_kvar + more_kvar)[:, 0]
    assert i_a.argmax() == 0
    assert LIMIT_A * (1.0 - 1e-3) <= i_a[0] <= LIMIT_A * (1.0 + EXCESS_PU)
