"""``cosim clear`` and ``cosim schemes``."""

import json
from pathlib import Path

import pytest

from cosim.cli import main
from cosim.coordination.catalogue import shipped

T1 = str(Path(__file__).parents[3] / "scenarios" / "cases" / "t1_ring.yaml")


def test_clear_prints_what_matters(capsys):
    assert main(["clear", T1, "--scheme", "smartnet_centralised"]) == 0
    said = capsys.readouterr().out
    for expected in (
        "t1_ring under smartnet_centralised: SmartNet A",
        "Central: central need, TSO buys, single market, TSO reaches distribution",
        "F1 down                         2 MW at    10.00 EUR/MWh, TSO 100%",
        "cost 14794.30 EUR",
        "TSO          pays     14794.30 EUR",
        "D/S1-D2 12000 kW, limit 10000, was 10000",
        "DSO:D -> TSO      RESOURCE_LIST",
    ):
        assert expected in said


def test_clear_says_what_is_not_solved(capsys):
    assert main(["clear", T1, "--scheme", "it_tso_priority_raw"]) == 0
    said = capsys.readouterr().out
    assert "NOT SOLVED in MSL (DSO:D): i_max of D/D2-D3: 2000 kW beyond 6000" in said
    assert "because: hold infeasible" in said
    assert "left out: F1 down, resource activated in MSD" in said
    assert "not all is solved" in said


@pytest.mark.parametrize("name", shipped())
def test_every_scheme_can_be_printed(capsys, name):
    price = ["--set", "areas.D.interface_price_eur_per_mwh=-18.539"]
    assert main(["clear", T1, "--scheme", name, *price]) == 0
    assert "messages" in capsys.readouterr().out


def test_json_holds_all_of_it(capsys):
    assert main(["clear", T1, "--scheme", "smartnet_local", "--need-mw", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["solved"] is True
    assert said["class"]["name"] == "Multi-level"
    assert said["balance"]["need_kw"] == 2000.0
    assert sum(said["paid_eur"].values()) == pytest.approx(said["cost_eur"])
    assert {stage["stage"] for stage in said["stages"]} == {"local", "residual", "AS", "dispatch"}
    assert said["stages"][0]["bought"]["F3 up"]["kw"] == pytest.approx(4000.0)
    assert said["stages"][1]["slopes"]["D"][-1][2] == pytest.approx(0.06)
    assert {(m["sender"], m["receiver"], m["type"]) for m in said["messages"]} >= {("DSO:D", "TSO", "BID_CURVE")}
    assert all(message["size"] > 0 for message in said["messages"])


def test_mistakes_are_one_message_and_exit_code_2(capsys):
    assert main(["clear", T1, "--scheme", "nothing"]) == 2
    assert "no scheme of that name; got nothing" in capsys.readouterr().err
    assert main(["clear", T1, "--scheme", "smartnet_shared_priced"]) == 2
    assert "areas.D.interface_price_eur_per_mwh: the scheme needs a price" in capsys.readouterr().err
    assert main(["clear", "nowhere.yaml", "--scheme", "it_coopt"]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["clear", T1, "--scheme", "it_coopt", "--set", "need_mw=much"]) == 2
    assert "need_mw: a number is expected" in capsys.readouterr().err


def test_schemes_are_listed_with_class_and_messages(capsys):
    assert main(["schemes"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name}: " in said for name in shipped())
    assert "Fragmented: both need, DSO+TSO buys, multi market, TSO does not reach distribution" in said
    assert "pick (TSO), validate (DSO), AS (TSO)" in said
    assert "DSO to TSO: VALIDATION" in said
    assert main(["schemes", "it_coopt", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["class"]["name"] == "Common"
    assert one["messages"]["DSO to IMO"] == ["NETWORK_MODEL", "OPER_DATA", "NEED"]
    assert one["stages"]["market"]["network"] == "TD"
