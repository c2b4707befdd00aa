"""Shares of operators in a common cost."""

from pathlib import Path

import pytest

from cosim.coordination.allocation import allocated
from cosim.coordination.catalogue import load_scheme
from cosim.coordination.read_case import read_case

T1 = Path(__file__).parents[3] / "scenarios" / "cases" / "t1_ring.yaml"
COMMON = 15108.45
TSO_ALONE = 14794.30
DSO_ALONE = 4 * 60.0 + 2 * 10.0 + 2 * 20.0
"""4 MW UP behind the congested line, balanced by the cheapest DOWN that its lines allow."""


@pytest.mark.parametrize(
    ("rule", "dso"),
    [
        ("duals", 240.0),
        ("stand_alone", COMMON * DSO_ALONE / (DSO_ALONE + TSO_ALONE)),
        ("shapley", (DSO_ALONE + COMMON - TSO_ALONE) / 2.0),
    ],
)
def test_three_rules_on_the_ring(rule, dso):
    shares = allocated(read_case(T1), load_scheme("it_coopt"), rule)
    assert shares["DSO"] == pytest.approx(dso, abs=0.01)
    assert sum(shares.values()) == pytest.approx(COMMON, abs=0.01)


def test_nothing_to_share():
    case = read_case(T1, ("transmission.generation_mw=null", "transmission.load_mw=null", "areas.D.load_mw=null"))
    assert allocated(case, load_scheme("it_coopt"), "stand_alone") == {"DSO": 0.0, "TSO": 0.0}
