"""Laws of judging plans by sampled errors, on random small networks, the linear model being its own power flow."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_market import random_case

from cosim.market.clearing import clear
from cosim.market.highs import Highs
from cosim.market.planes import LimitSettings
from cosim.market.robustness import forecast_errors, violation_rate, worst_corner
from cosim.market.uncertainty import Uncertainty, box

SOLVER = Highs()
PLANES = 48
seeds = st.integers(0, 10_000)
few = settings(max_examples=30)


def itself(case):
    """The linear model of the case as its power flow."""
    net = case.networks[0]

    def magnitudes(_, p_kw, q_kvar):
        return np.abs(net.base + (p_kw - net.p_kw) @ net.by_p.T + (q_kvar - net.q_kvar) @ net.by_q.T)

    return magnitudes


@few
@given(seed=seeds, loop=st.booleans(), half=st.floats(0.02, 0.2), errors=st.sampled_from(["uniform", "corners"]))
def test_no_sampled_error_inside_the_band_violates_a_robust_plan(seed, loop, half, errors):
    case = random_case(seed, 0.9, half, loop, drop_pu=0.06, limits=LimitSettings(planes=PLANES))
    plan = clear(case, SOLVER)
    n = len(case.networks[0].pods)
    rate = violation_rate(plan, case.uncertainty[0], forecast_errors(seed, 300, n, errors), itself(case))
    assert rate.linear == rate.ac
    assert rate.linear_highest_pu == rate.ac_highest_pu
    assert rate.linear == 0.0 or plan.unsolved


@few
@given(
    seed=seeds, loop=st.booleans(), half=st.floats(0.02, 0.2), reactive=st.sampled_from(["with_active", "independent"])
)
def test_no_sampled_error_is_further_beyond_than_the_worst_corner(seed, loop, half, reactive):
    """Up to the error of the polygon, whose planes choose the corner."""
    case = random_case(seed, 0.9, half, loop, limits=LimitSettings(planes=PLANES))
    band = case.uncertainty[0]
    truth = Uncertainty(band.half_p_kw, np.abs(band.half_q_kvar), box(), reactive=reactive)
    plan = clear(case, SOLVER)
    at = worst_corner(plan, truth, itself(case))
    rate = violation_rate(plan, truth, forecast_errors(seed, 500, truth.n_xi, "corners"), itself(case))
    assert np.abs(at.xi).max() <= 1.0
    assert at.ac / at.limit >= (1.0 + rate.ac_highest_pu) * np.cos(np.pi / PLANES) - 1e-9


@few
@given(seed=seeds, wide=st.floats(1.0, 2.0))
def test_wider_true_bands_never_make_it_safer(seed, wide):
    case = random_case(seed, 0.9, 0.1, limits=LimitSettings(planes=PLANES))
    band = case.uncertainty[0]
    plan = clear(case, SOLVER)
    wider = Uncertainty(wide * band.half_p_kw, wide * band.half_q_kvar, box())
    narrow, broad = (worst_corner(plan, truth, itself(case)) for truth in (band, wider))
    assert broad.ac / broad.limit >= narrow.ac / narrow.limit * np.cos(np.pi / PLANES) - 1e-9
