"""Each way in which a market can be asked the impossible gives one clear error."""

import math
import stat
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from small_market import bid, case, kw, network, resources

from cosim.domain.market import Direction, Resource, to_json
from cosim.errors import BidError, MarketError, SolverError
from cosim.market.book import bids_from_json, check_case
from cosim.market.case import HOLD, ClearingSettings
from cosim.market.clearing import clear
from cosim.market.reference import CBC_VARIABLE, Reference
from cosim.market.uncertainty import Uncertainty, box

NET = network([50.0, 50.0])
GOOD = bid("P0 a", 20.0, 1.0)
HARD = {"slack_eur_per_kwh": None}
DOCUMENT = to_json(GOOD)


def faults(made):
    with pytest.raises(BidError) as error:
        check_case(made)
    return [str(fault) for fault in error.value.faults]


@pytest.mark.parametrize(("wrong", "words"), [
    ({"steps": [{"quantity_kw": 20.0}]}, "bid P0 a: steps.0.price_eur_per_kwh: Field required"),
    ({"steps": [{"quantity_kw": 20.0, "price_eur_per_kwh": None}]},
     "bid P0 a: steps.0.price_eur_per_kwh: Input should be a valid number; got None"),
    ({"steps": [{"quantity_kw": 20.0, "price_eur_per_kwh": "dear"}]}, "unable to parse string as a number; got dear"),
    ({"colour": "red"}, "bid P0 a: colour: Unexpected keyword argument; got red"),
])  # fmt: skip
def test_bids_of_json(wrong, words):
    assert bids_from_json([DOCUMENT]) == (GOOD,)
    with pytest.raises(BidError) as error:
        bids_from_json([DOCUMENT, DOCUMENT | wrong])
    (fault,) = error.value.faults
    assert words in str(fault)


def test_bids_of_json_report_all_faults_at_once():
    nameless = {key: value for key, value in DOCUMENT.items() if key not in ("id", "t_s")}
    with pytest.raises(BidError) as error:
        bids_from_json([DOCUMENT | {"direction": "sideways"}, DOCUMENT, nameless])
    assert [fault.key for fault in error.value.faults] == ["bid P0 a", "bid number 3", "bid number 3"]


def test_price_that_is_no_number():
    assert faults(case([bid("P0 a", 20.0, math.nan)], NET)) == ["bid P0 a: a price must be a number; got nan"]


def test_negative_capacity():
    own = {"P0": Resource("P0", "P0", "load", "A", -5.0, 0.0)}
    found = faults(case([bid("P0 a", 0.0, 1.0)], NET, own))
    assert "resource P0: up_kw must be a number of 0 or more; got -5.0" in found


def test_unknown_pod():
    own = {"P0": replace(resources(1)["P0"], pod="P7")}
    assert faults(case([GOOD], NET, own)) == ["resource P0: no POD of that name; got P7; allowed: P0, P1"]


@pytest.mark.parametrize("gate_s", [None, 60, 61])
def test_bid_after_gate_closure(gate_s):
    made = case([bid("P0 late", 20.0, 1.0, submitted_s=61)], NET, gate_s=gate_s)
    if gate_s == 60:
        assert faults(made) == ["bid P0 late: submitted after gate closure; got 61 s; allowed: 60 s"]
    else:
        check_case(made)


def test_two_bids_for_one_pod_beyond_its_capability():
    (found,) = faults(case([bid("P0 a", 700.0, 1.0), bid("P0 b", 400.0, 2.0)], NET))
    assert "bids P0 a, P0 b offer more up than is registered, in MTU 0; got 1100 kW; allowed: 1000 kW" in found


def test_half_bands_that_do_not_fit():
    one = Uncertainty(np.ones(1), np.ones(1), box())
    two = Uncertainty(np.array([1.0, math.nan]), np.array([1.0, math.inf]), box())
    assert faults(case([GOOD], NET, uncertainty=(one,))) == [
        "uncertainty in MTU 0: of other PODs; got 1 PODs; allowed: 2 PODs"
    ]
    found = faults(case([GOOD], NET, uncertainty=(two, two)))
    assert found[0] == "uncertainty: of other MTUs; got 2 MTUs; allowed: 1 MTUs"
    assert found[1] == "uncertainty in MTU 0: half_p_kw must be numbers; got not at P1"
    assert len(found) == 5


def test_hold_that_cannot_be_says_why():
    with pytest.raises(MarketError, match=r"hold infeasible.*i_max of L@A\.1 in MTU 0.*downstream of the violated row"):
        clear(case([GOOD], network([80.0, 40.0]), settings={"interface_kw": HOLD} | HARD))


def test_infeasible_model_names_the_rows():
    with pytest.raises(MarketError, match=r"no plan: these cannot be met together.*i_max of L@A\.1 in MTU 0"):
        clear(case([bid("P0 a", 5.0, 1.0)], network([80.0, 40.0]), settings=HARD))


@pytest.mark.parametrize("solver", [None, "cbc", "highs"])
def test_cost_without_a_bound_names_the_bid(solver):
    bids = [GOOD, bid("P1 endless", math.inf, -1.0)]
    with pytest.raises(MarketError, match=r"no bound: a price below zero .* quantity: bid P1 endless$"):
        clear(case(bids, NET), None if solver is None else Reference(solver))


@pytest.mark.parametrize("price", [-1.0, math.nan])
def test_a_limit_whose_violation_is_paid_for_is_refused(price):
    with pytest.raises(BidError, match="slack_eur_per_kwh: must be 0 or more; got"):
        ClearingSettings(slack_eur_per_kwh=price)


@pytest.mark.parametrize(
    ("package", "module", "room"), [("highspy", "highspy", "highs"), ("pyomo", "pyomo.environ", "reference")]
)
def test_solver_that_is_not_installed(package, module, room):
    """In a process that cannot import it."""
    program = f"import sys; sys.modules[{module!r}] = None; import cosim.market.{room}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"is not installed: get it with 'pip install {package}'" in ended.stderr.splitlines()[-1]
    assert ended.stderr.splitlines()[-1].startswith("cosim.errors.SolverError")


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "no program"])
def test_cbc_that_does_not_run(text, tmp_path, monkeypatch):
    fake = tmp_path / "mycbc"
    fake.write_text(text)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(CBC_VARIABLE, str(fake))
    with pytest.raises(SolverError, match=r"CBC at .*mycbc does not run"):
        clear(case([GOOD], network([80.0, 40.0])), Reference("cbc"))


def test_good_input_is_cleared():
    made = case([GOOD, bid("P1 d", 5.0, 1.0, Direction.DOWN)], network([60.0, 45.0]))
    check_case(made)
    assert kw(clear(made)) == pytest.approx({"P0 a": 5.0, "P1 d": 0.0})
