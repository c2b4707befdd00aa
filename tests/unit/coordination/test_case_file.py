"""Case files: what they become, and that all faults are reported at once with their lines."""

from pathlib import Path

import numpy as np
import pytest

from cosim.coordination.catalogue import load_scheme
from cosim.coordination.coordinate import coordinate
from cosim.coordination.grid import reactive
from cosim.coordination.read_case import read_case
from cosim.domain.market import Direction
from cosim.errors import BidError

ROOT = Path(__file__).parents[3]
T1 = ROOT / "scenarios" / "cases" / "t1_ring.yaml"
FEEDERS = ROOT / "dss_models"


def written(tmp_path, text):
    path = tmp_path / "case.yaml"
    path.write_text(text)
    return path


def refused(path, *overrides):
    with pytest.raises(BidError) as error:
        read_case(path, overrides, FEEDERS)
    return [str(fault).removeprefix(str(path)) for fault in error.value.faults]


def test_units_and_bids():
    case = read_case(T1, ("need_mw=3.5", "mtu=15min"))
    assert (case.need_kw, case.mtu_s, case.mtu_h) == (3500.0, 900, 0.25)
    bids = {bid.id: bid for bid in case.bids}
    assert bids["G3 up"].quantity_kw == (500_000.0,)
    assert bids["G3 up"].steps[0].price_eur_per_kwh == pytest.approx(0.05)
    assert bids["F1 down"].direction is Direction.DOWN
    assert case.resources["F1"].pod == "D/D2"
    assert case.resources["F1"].perimeter == "D"
    assert case.resources["G4"].pod == "T4"
    assert case.interfaces == {"D": "S1"}
    assert (case.rules.shortage_eur_per_kwh, case.rules.violation_eur_per_kwh) == (3.0, 10.0)


COPPER = """name: plate
areas:
  north:
    lines: [{buses: [system, B1], x_pu: 0.1, limit_mw: 1}]
    load_mw: {B1: 1.5}
    generation_mw: {B1: 0.2}
    perimeters: {P1: [B1]}
    schedule_mw: 0.1
    interface_price_eur_per_mwh: 40
resources:
  G: {up: [{mw: 1, eur_per_mwh: 60}, {mw: 1, eur_per_mwh: 80}], down: [{mw: 2, eur_per_mwh: -10}]}
  F: {area: north, bus: B1, up: [{mw: 1, eur_per_mwh: 50}], mvar_per_mw: 0.3, q_up: [{mvar: 0.2, eur_per_mwh: 5}]}
demands:
  B: {mw: 0.5, max_eur_per_mwh: 70}
""".replace("{mvar: 0.2", "{mw: 0.2")


def test_a_copper_plate(tmp_path):
    case = read_case(written(tmp_path, COPPER))
    assert case.transmission.rows.pods == ("system",)
    assert case.transmission.rows.conductors == ()
    area = case.areas["north"]
    assert area.grid.import_kw == pytest.approx(1300.0)
    assert (area.schedule_kw, area.price_eur_per_kwh) == (pytest.approx(100.0), pytest.approx(0.04))
    assert case.resources["F"].perimeter == "P1"
    assert case.resources["F q"].pod == reactive("north/B1")
    assert case.resources["F"].kvar_per_kw == 0.3
    assert case.resources["F q"].kvar_per_kw == 0.0
    assert case.demands[0].max_price_eur_per_kwh == pytest.approx(0.07)
    found = coordinate(case, load_scheme("smartnet_integrated"))
    assert found.solved
    assert {bid: round(kw, 6) for bid, kw in found.dispatch_kw.items()} == {"F up": 500.0 + 300.0 - 300.0}


def test_a_price_below_zero_pays_the_buyer(tmp_path):
    found = coordinate(read_case(written(tmp_path, COPPER), ("need_mw=-0.5",)), load_scheme("central_only"))
    assert found.dispatch_kw == pytest.approx({"G down": 500.0})
    assert found.cost_eur == pytest.approx(-5.0)


BROKEN = """name: broken
transmission:
  slack: A
  lines:
    - {buses: [A, B], x_pu: 0.1}
    - {buses: [C, E], x_pu: 0.1}
    - {buses: [A, A], x_pu: 0.1}
  load_mw: {Z: 3}
areas:
  north:
    bus: Q
    lines: [{buses: [Q, N1], x_pu: 0.1}]
    load_mw: {N9: 1}
    perimeters: {P1: [N1], P2: [N1, N8]}
resources:
  G: {bus: X, up: [{mw: 1, eur_per_mwh: 5}]}
  H: {area: south, up: [{mw: 1, eur_per_mwh: 5}]}
  I: {area: north, bus: N7, down: [{mw: 1, eur_per_mwh: 5}, {mw: 1, eur_per_mwh: 4}]}
  J: {area: north, bus: N1}
"""


def test_all_faults_at_once_with_their_lines(tmp_path):
    faults = refused(written(tmp_path, BROKEN))
    for expected in (
        ":4: transmission.lines: no line connects it to A; got C",
        ":4: transmission.lines: no line connects it to A; got E",
        ":7: transmission.lines.2.buses: a line has two ends; got A-A",
        ":8: transmission.load_mw.Z: no such bus; got Z; allowed: A, B, C, E",
        ":11: areas.north.bus: no such bus of transmission; got Q; allowed: A, B, C, E",
        ":13: areas.north.load_mw.N9: no such place in the area; got N9; allowed: Q, N1",
        ":14: areas.north.perimeters.P2.0: in perimeter P1 already; got N1; allowed: one perimeter",
        ":14: areas.north.perimeters.P2.1: no such place in the area; got N8; allowed: Q, N1",
        ":16: resources.G.bus: no such place; got X; allowed: A, B, C, E",
        ":17: resources.H.area: no such area; got south; allowed: north",
        ":18: resources.I.bus: no such place; got N7; allowed: Q, N1",
        ":18: resources.I.down: prices of steps must increase; got [5.0, 4.0]",
        ":19: resources.J: offers nothing; allowed: up, down, q_up, q_down",
    ):
        assert expected in faults
    assert len(faults) == 13


def test_faults_of_form(tmp_path):
    text = COPPER.replace("mw: 1, eur_per_mwh: 60", "mw: -1, eur_per_mwh: sixty").replace("limit_mw", "limit_mva")
    faults = refused(written(tmp_path, text))
    assert any("areas.north.lines.0.limit_mva: unknown key; did you mean limit_mw?" in fault for fault in faults)
    assert any(":11: resources.G.up.0.mw: out of range; got -1" in fault for fault in faults)
    assert any("resources.G.up.0.eur_per_mwh: a number is expected" in fault for fault in faults)


def test_an_area_is_of_lines_or_a_feeder(tmp_path):
    text = "name: x\nareas: {D: {load_mw: {}}}\nresources: {G: {up: [{mw: 1, eur_per_mwh: 5}]}}\n"
    assert refused(written(tmp_path, text)) == [":2: areas.D: an area is either of lines or of a feeder"]


def test_a_feeder_that_does_not_exist(tmp_path):
    text = "name: x\nareas: {D: {feeder: mv9}}\nresources: {G: {up: [{mw: 1, eur_per_mwh: 5}]}}\n"
    (fault,) = refused(written(tmp_path, text))
    assert fault.startswith(":2: areas.D.feeder: unknown feeder; got mv9; allowed: ")
    assert "mv5" in fault


MV5 = """name: mv5
need_mw: 0.3
mtu: 15min
areas:
  city:
    feeder: mv5
    level: {load: 1.0, pv: 0.1}
    load_mw: {SS3.load: 0.25}
    limits: {vm_min_pu: 0.95, vm_max_pu: 1.05}
    errors: {half_band: 0.02}
    perimeters: {west: [SS1.load, SS1.pv], east: [SS2.load, SS2.pv, SS3.load, SS3.pv, SS4.pv, SS5.load, SS5.pv]}
resources:
  G: {up: [{mw: 2, eur_per_mwh: 90}], down: [{mw: 2, eur_per_mwh: 10}]}
  L1: {area: city, bus: SS1.load, up: [{mw: 0.5, eur_per_mwh: 120}], mvar_per_mw: 0.33}
  L2: {area: city, bus: SS2.load, up: [{mw: 0.4, eur_per_mwh: 110}], mvar_per_mw: 0.33}
  L5: {area: city, bus: SS5.load, up: [{mw: 0.3, eur_per_mwh: 100}], down: [{mw: 0.1, eur_per_mwh: 5}]}
  P4: {area: city, bus: SS4.pv, down: [{mw: 0.1, eur_per_mwh: 3}]}
"""


def test_a_feeder_as_an_area(tmp_path):
    case = read_case(written(tmp_path, MV5), feeders=FEEDERS)
    area = case.areas["city"]
    rows = area.grid.rows
    loads = dict(zip(rows.pods, rows.p_kw, strict=True))
    assert loads["city/SS1.load"] == pytest.approx(900.0)
    assert loads["city/SS3.load"] == pytest.approx(250.0)
    assert loads["city/SS4.pv"] == pytest.approx(-120.0)
    assert loads["city/SS3.battery"] == 0.0
    assert area.grid.import_kw == pytest.approx(rows.p_kw.sum(), rel=0.05)
    assert case.transmission.rows.p_kw[0] == pytest.approx(area.grid.import_kw)
    assert 1.0 < rows.head_by_p[rows.pods.index("city/SS5.load")] < 1.1
    np.testing.assert_allclose(area.grid.uncertainty.half_p_kw, 0.02 * np.abs(rows.p_kw))
    assert {entry.dso_perimeter for entry in area.matrix.entries} == {"west", "east"}


def test_schemes_on_a_feeder_as_theory_says(tmp_path):
    """mv5 is overloaded at two transformers: whoever sees that cures it, the centralised scheme does not."""
    case = read_case(written(tmp_path, MV5), feeders=FEEDERS)
    found = {name: coordinate(case, load_scheme(name)) for name in ("it_coopt", "it_dso_priority", "central_only")}
    over = {name: {each.element for each in result.overloads if each.excess > 0.0} for name, result in found.items()}
    assert over["central_only"]
    assert not over["it_coopt"]
    assert not over["it_dso_priority"]
    assert found["central_only"].cost_eur < found["it_coopt"].cost_eur
    curves = coordinate(case, load_scheme("smartnet_common_decentral"))
    assert curves.cost_eur == pytest.approx(found["it_coopt"].cost_eur, abs=1e-4)
    assert found["it_coopt"].balance.missing_kw == pytest.approx(0.0, abs=1e-6)
    assert abs(found["it_dso_priority"].balance.missing_kw) > 0.1  # losses behind the interface, which a TSO cannot see


def test_two_sellers_at_one_pod(tmp_path):
    text = MV5 + "  M1: {area: city, bus: SS1.load, up: [{mw: 0.1, eur_per_mwh: 1}], aggregator: other}\n"
    (fault,) = refused(written(tmp_path, text))
    assert "POD city/SS1.load: one aggregator sells all of a POD" in fault


def test_voltages_at_transmission_follow_reactive_power(tmp_path):
    """The second stage of the two-stage scheme buys reactive power of an area for a voltage that is too low."""
    text = COPPER.replace(
        "areas:",
        """transmission:
  slack: A
  lines: [{buses: [A, system], x_pu: 0.05}]
  voltage: {base_mva: 10, vm_pu: {system: 0.9495}}
areas:""",
    ).replace("lines: [{buses: [system, B1]", "bus: system\n    lines: [{buses: [system, B1]")
    case = read_case(written(tmp_path, text))
    found = coordinate(case, load_scheme("usman_two_stage"))
    assert found.solved
    change, paid = found.of("Q_clear").on_curve["north"]
    (curve,) = found.of("Q_range").curves
    assert curve.base_kw == pytest.approx(0.3 * found.dispatch_kw["F up"])
    assert curve.base_kw + change == pytest.approx(0.0005 / 0.05 * 10_000.0)
    assert paid == pytest.approx(change * 0.005)
    assert found.dispatch_kw == pytest.approx({"G down": 300.0, "F up": 300.0, "F q up": change})
    (voltage,) = (each for each in found.overloads if each.kind == "v_min")
    assert voltage.before < 0.95 <= voltage.value + 1e-9
