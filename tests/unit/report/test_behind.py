"""What a branch feeds, on a small feeder with a loop."""

import pytest

from cosim.report.behind import buses_behind

TERMINALS = (
    "T@HV",
    "T@S",
    "L1@S",
    "L1@A",
    "L2@A",
    "L2@B",
    "L3@B",
    "L3@C",
    "L4@C",
    "L4@D",
    "L5@D",
    "L5@B",
    "L6@X",
    "L6@Y",
)
"""HV - S - A - B, the loop B - C - D - B, and X - Y on its own."""


@pytest.mark.parametrize(
    ("branch", "behind"),
    [("L1", "ABCD"), ("L2", "BCD"), ("L3", ""), ("L5", ""), ("L6", ""), ("T", ("HV",)), ("unknown", "")],
)
def test_buses_reached_only_through_a_branch(branch: str, behind: str) -> None:
    assert buses_behind(TERMINALS, branch, "S") == frozenset(behind)
