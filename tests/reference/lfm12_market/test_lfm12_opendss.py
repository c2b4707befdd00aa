"""OpenDSS by itself, on the scripts of `dss_models/lfm12`, at the worst corner of each plan; see README.md."""

import numpy as np
import pytest
from lfm12_network import FLEXIBLE, P_KW, PODS, Q_KVAR, half_bands, rows_of, study

from cosim.market.clearing import clear
from cosim.market.planes import LimitSettings

EXPECTED = {row["figure"]: (float(row["value"]), float(row["tolerance"])) for row in rows_of("expected.csv")}
BRANCHES = {name: f"Line.{name}" for name in ("2-3", "3-4", "4-5", "5-6", "6-7", "7-8", "8-9")}


@pytest.fixture
def currents_a(opendss):
    """Current of branches 2-3 to 8-9 at the first of their buses [A], with loads of so many kW and kvar."""

    def solve(p_kw, q_kvar):
        dss = opendss("lfm12")
        for pod, p, q in zip(PODS, p_kw, q_kvar, strict=True):
            dss.Text.Command = f"Load.{pod}.kW={p!r}"
            dss.Text.Command = f"Load.{pod}.kvar={q!r}"
        dss.Text.Command = "Solve"
        assert dss.ActiveCircuit.Solution.Converged
        found = []
        for name, element in BRANCHES.items():
            dss.ActiveCircuit.SetActiveElement(element)
            active = dss.ActiveCircuit.ActiveCktElement
            conductor = list(active.BusNames).index(name.partition("-")[0]) * active.NumConductors
            found.append(np.asarray(active.Currents).view(np.complex128)[conductor])
        return np.array(found)

    return solve


def check(figure, found):
    value, tolerance = EXPECTED[figure]
    assert found == pytest.approx(value, abs=tolerance, rel=0.0), figure


def corner(cleared, case):
    """All loads up, with the awards [kW, kvar]."""
    kw = {bid.resource: float(cleared.of(bid.id)[0]) for bid in cleared.bids}
    assert set(kw) == set(FLEXIBLE)
    down = np.array([kw.get(pod, 0.0) for pod in PODS])
    half_p, half_q = half_bands(case)
    return (P_KW - down + half_p).tolist(), (Q_KVAR * (1.0 - down / P_KW) + half_q).tolist()


@pytest.mark.parametrize("case", [1, 2])
def test_worst_corner_after_activation(currents_a, case):
    check(f"case{case}_ac_a", abs(currents_a(*corner(clear(study(case)), case))[0]))


@pytest.mark.parametrize(
    ("planes", "polygon", "figure"),
    [
        (64, "inscribed", "planes64_ac_a"),
        (128, "inscribed", "planes128_ac_a"),
        (4096, "inscribed", "planes4096_ac_a"),
        (32, "circumscribed", "planes32_tangent_ac_a"),
        (64, "circumscribed", "planes64_tangent_ac_a"),
        (128, "circumscribed", "planes128_tangent_ac_a"),
    ],
)
def test_worst_corner_of_other_polygons(currents_a, planes, polygon, figure):
    cleared = clear(study(2, limits=LimitSettings(planes=planes, polygon=polygon)))
    check(figure, abs(currents_a(*corner(cleared, 2))[0]))


@pytest.mark.parametrize("case", [1, 2])
def test_change_with_all_loads_up(currents_a, case):
    half_p, half_q = half_bands(case)
    more = currents_a((P_KW + half_p).tolist(), (Q_KVAR + half_q).tolist())
    change = more - currents_a(P_KW.tolist(), Q_KVAR.tolist())
    check(f"case{case}_ac_delta_re_a", change[0].real)
    check(f"case{case}_ac_delta_im_a", change[0].imag)


def test_case_3_at_its_worst_corner_is_within_the_limit(currents_a):
    linear = clear(study(3))
    network = linear.networks[0]
    z = network.state(linear.solution.x).z[0] + network.protection.effect()[0].sum()
    found = currents_a(*corner(linear, 3))[0]
    assert abs(found) == pytest.approx(abs(z), rel=5e-4)
    assert abs(found) < 117.0
