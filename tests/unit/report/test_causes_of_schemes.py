"""Causes of violations that only schemes of coordination have: nobody buys for a limit, or somebody who does not know
the network."""

from dataclasses import replace

import numpy as np
import pytest
from test_causes import CASE, errors, main

from cosim.coordination.catalogue import load_scheme, shipped
from cosim.coordination.classify import grid_safe
from cosim.report.causes import Cause, Rules, Slack, causes_of
from cosim.report.market_run import buys_unseen, keeps_limits

UNSERVED = Rules(served=False)


def test_nobody_buys_for_a_limit_that_the_forecast_shows_to_break() -> None:
    foreseen = replace(CASE, worst_percent=112.34)
    assert main(foreseen, UNSERVED) == (
        Cause.UNSERVED,
        "foreseen: 112.3 % of the limit with the worst errors",
    )
    assert main(replace(foreseen, errors=errors({"B.pv": -90.0})), UNSERVED)[0] is Cause.UNSERVED
    assert main(foreseen)[0] is Cause.UNEXPLAINED
    assert main(CASE, UNSERVED)[0] is Cause.UNEXPLAINED


def test_what_was_bought_without_the_network_counts_as_far_as_it_makes_it_worse() -> None:
    bought = (("A.load", -5.0), ("B.pv", -40.0), ("C.battery", -60.0))
    case = replace(CASE, unseen_kw=bought, toward=(-1.0, 0.0), behind=frozenset({"A.load", "B.pv"}))
    assert main(case) == (Cause.UNSEEN, "B.pv: -40.0 kW; 1 more POD")
    assert main(replace(case, toward=(1.0, 0.0)))[0] is Cause.UNEXPLAINED
    assert main(replace(case, behind=frozenset({"nothing"})))[0] is Cause.UNEXPLAINED


@pytest.mark.parametrize(("error_kw", "cause"), [(-25.0, Cause.UNSEEN), (-90.0, Cause.ERROR)])
def test_the_larger_power_is_the_cause(error_kw: float, cause: Cause) -> None:
    """The error is outside its half-band of 20 kW by 5 and by 70 kW; 40 kW were bought."""
    case = replace(CASE, errors=errors({"B.pv": error_kw}), unseen_kw=(("C.battery", -40.0),), toward=(-1.0, 0.0))
    found = causes_of(case, Rules())
    assert {each.cause for each in found} == {Cause.UNSEEN, Cause.ERROR}
    assert found[0].cause is cause


def test_what_a_plan_leaves_at_the_element_comes_before_what_was_bought_unseen() -> None:
    slack = (Slack("i_max", "Line.L2@A.1", 3.0),)
    case = replace(CASE, unsolved=slack, unseen_kw=(("C.battery", -40.0),), toward=(-1.0, 0.0))
    assert [each.cause for each in causes_of(case, Rules())] == [Cause.UNSOLVED, Cause.UNSEEN]


@pytest.mark.parametrize("name", shipped())
def test_stages_that_buy_unseen_are_what_makes_a_scheme_not_grid_safe(name: str) -> None:
    scheme = load_scheme(name)
    assert grid_safe(scheme) == (not any(buys_unseen(stage) for stage in scheme.stages.values()))


def test_who_keeps_limits() -> None:
    assert keeps_limits(None)
    keeping = {name for name in shipped() if keeps_limits(load_scheme(name))}
    central = {"central_only", "smartnet_centralised", "givisiez_dso", "givisiez_dso_curve", "givisiez_hybrid"}
    assert keeping.isdisjoint(central)
    assert {"it_dso_priority", "it_tso_priority", "it_coopt", "local_only", "givisiez_tso"} <= keeping
    assert np.isnan(CASE.worst_percent)
