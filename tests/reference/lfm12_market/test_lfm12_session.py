"""The study by the way of runs: a scenario on `dss_models/lfm12`, exact derivatives, AC loop; see README.md."""

import numpy as np
import pytest
from lfm12_network import FLEXIBLE, LIMIT_A, P_KW, PODS, Q_KVAR, RESOURCES, bid, half_bands, rows_of

from cosim import load_scenario
from cosim.case import open_case
from cosim.market.ac_loop import EXCESS_PU
from cosim.market.session import Situation
from simulators._network import Network

EXPECTED = {row["figure"]: (float(row["value"]), float(row["tolerance"])) for row in rows_of("expected.csv")}
SCENARIO = """\
name: lfm12
start: 2016-01-20T00:00:00+01:00
duration: 1h
step: 1h
mtu: 1h
feeder: lfm12
transport: memory
sensors: {faults: {default: {noise: false}}}
estimator: {method: wls}
operator: {enabled: false}
limits: {branches: [Line.2-3], vm_min_pu: 0.5, vm_max_pu: 1.5}
resources: {loads: {pods: [POD2, POD4, POD7], load: {curtailable: 1.0}}}
market: {ends: first, uncertainty: {reactive: with_active}}
"""


@pytest.fixture
def session(tmp_path):
    """Needs and result of a session for a case of the study, by awarded kW of each POD."""

    def clear(case, *overrides, resources=RESOURCES):
        file = tmp_path / "lfm12.yaml"
        file.write_text(SCENARIO)
        opened = open_case(load_scenario(file, overrides))
        assert opened.pods == PODS
        market = Network(opened).market
        assert market.model_at(()) is market.model_at(())
        situation = Situation(0, P_KW[None], Q_KVAR[None], *(half[None] for half in half_bands(case)), ())
        bids = [bid(pod, float(P_KW[PODS.index(pod)])) for pod in FLEXIBLE]
        result = market.clear(situation, bids, resources)
        assert result.unsolved == ()
        assert result.excess == ()
        bought = {award.bid.removesuffix(" up"): award.quantity_kw[0] for award in result.awards}
        found = market.foreseen(situation)
        opened.engines.close()
        return bought, found, result

    return clear


def check(figure, found):
    value, tolerance = EXPECTED[figure]
    assert found == pytest.approx(value, abs=tolerance, rel=0.0), figure


def test_case_1_needs_nothing(session):
    bought, needs, result = session(1)
    assert bought == {}
    assert needs == ()
    assert result.cost_eur == 0.0


def test_what_the_power_flow_itself_needs(session):
    """A circle of planes outside; the loop finds the least activation of the network, as close as it looks."""
    bought, needs, result = session(2, "market.planes=4096", "market.polygon=circumscribed")
    assert set(bought) == {"POD4"}
    close_kw = EXCESS_PU * LIMIT_A / EXPECTED["pod4_a_per_kw"][0]
    assert bought["POD4"] == pytest.approx(EXPECTED["ac_exact_kw"][0], abs=close_kw)
    assert {each.element for each in needs} == {f"Line.2-3@2.{phase}" for phase in (1, 2, 3)}
    assert all(each.limit == LIMIT_A < each.worst for each in needs)
    assert result.rounds <= 3


def test_polygon_of_the_study_is_inside_the_limit(session):
    """Exact derivatives see the 0.02 A at the corner that the study's linear model leaves to the power flow."""
    bought, _, result = session(2, "market.planes=32")
    assert result.rounds == 1
    ac_a, linear_a = EXPECTED["case2_ac_a"][0], EXPECTED["case2_linear_a"][0]
    more_kw = (ac_a - linear_a) / EXPECTED["pod4_a_per_kw"][0]
    assert bought["POD4"] == pytest.approx(EXPECTED["case2_pod4_kw"][0] + more_kw, abs=0.05)


def test_both_ends_need_more(session):
    one, both = (session(2, "market.planes=32", f"market.ends={ends}")[0]["POD4"] for ends in ("first", "both"))
    check("trap_both_ends_more_kw", both - one)


def test_case_3_by_the_same_code(session):
    bought, _, result = session(3)
    assert bought["POD4"] == pytest.approx(150.0)
    assert 0.0 < bought["POD2"] < 250.0
    assert "POD7" not in bought
    assert result.cost_eur == pytest.approx(bought["POD4"] + bought["POD2"])


def test_reactive_power_left_behind_turns_the_order(session):
    alone = {name: type(r)(name, name, "load", "AGG", r.up_kw, 0.0) for name, r in RESOURCES.items()}
    bought, _, _ = session(2, "market.planes=32", resources=alone)
    assert set(bought) == {"POD7"}
    assert bought["POD7"] > EXPECTED["case2_pod4_kw"][0] + 15.0


def test_the_band_on_the_reduced_load_needs_less(session):
    baseline, residual = (
        session(2, "market.planes=32", f"market.uncertainty.base={base}")[0]["POD4"]
        for base in ("baseline", "residual")
    )
    less = EXPECTED["case2_pod4_kw"][0] - EXPECTED["trap_residual_kw"][0]
    assert np.isclose(baseline - residual, less, atol=0.06)
