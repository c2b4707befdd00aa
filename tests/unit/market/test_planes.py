from dataclasses import replace

import numpy as np
import pytest
from small_market import network

from cosim.errors import BidError
from cosim.market.planes import LimitSettings, kappa, norm_coefficients, plane_families

ANGLES = np.linspace(0.0, 2.0 * np.pi, 1000, endpoint=False)


def families(settings, **more):
    found = plane_families(network([0.0], v_drop_pu=[1e-3]), settings, **more)
    return {family.kind: family for family in found}


def allowed_modulus(family, angles=ANGLES):
    """Largest modulus at each angle that all planes of the first limit allow."""
    along = (family.weight[0][None, :] * np.exp(1j * angles)[:, None]).real
    with np.errstate(divide="ignore"):
        return np.where(along > 1e-9, family.bound[0] / along, np.inf).min(axis=1)


@pytest.mark.parametrize(("polygon", "low", "high"), [("inscribed", np.cos(np.pi / 32), 1.0),
                                                      ("circumscribed", 1.0, 1.0 / np.cos(np.pi / 32)),
                                                      ("best_fit", 1.0 - 0.002414, 1.0 + 0.002414)])  # fmt: skip
def test_polygons_about_the_circle(polygon, low, high):
    modulus = allowed_modulus(families(LimitSettings(planes=32, polygon=polygon))["i_max"]) / 100.0
    assert low - 1e-9 <= modulus.min() <= low + 1e-4
    assert high - 1e-4 <= modulus.max() <= high + 1e-9


def test_an_inscribed_polygon_has_its_vertices_on_the_circle_the_first_at_angle_0():
    family = families(LimitSettings(planes=32))["i_max"]
    vertices = np.arange(32) * 2.0 * np.pi / 32
    np.testing.assert_allclose(allowed_modulus(family, vertices), 100.0)
    np.testing.assert_allclose(allowed_modulus(family, vertices + np.pi / 32), 117.0 * 0.995185 / 1.17, rtol=1e-6)


def test_kappa_of_the_study():
    assert 117.0 * kappa(32, "inscribed") == pytest.approx(116.4366, abs=1e-4)


def test_overload_moves_the_limit_and_a_ceiling_adds_a_tier():
    found = families(LimitSettings(overload=0.02, overload_ceiling=1.2))
    assert found["i_max"].limit[0] == pytest.approx(102.0)
    assert found["i_ceiling"].limit[0] == pytest.approx(120.0)
    assert found["i_ceiling"].ceiling
    assert not found["i_max"].ceiling
    assert families(LimitSettings(overload=0.02, overload_eur_per_a_h=1.0))["i_max"].limit[0] == 100.0


def test_margins_make_limits_narrower_on_both_sides():
    plain = families(LimitSettings())
    clear = families(LimitSettings(), margin=np.array([[2.0, 0.0], [0.01, 0.02]]))
    np.testing.assert_allclose(plain["i_max"].bound - clear["i_max"].bound, 2.0)
    np.testing.assert_allclose(plain["v_max"].bound - clear["v_max"].bound, 0.01)
    np.testing.assert_allclose(plain["v_min"].bound - clear["v_min"].bound, 0.02)


@pytest.mark.parametrize("voltage", ["projection", "norm"])
@pytest.mark.parametrize("at_deg", [0.0, 29.0, 92.0, -121.0])
def test_voltage_planes_are_safe_about_the_present_angle(voltage, at_deg):
    net = network([0.0], v_drop_pu=[1e-3])
    turned = replace(net, base=net.base * np.exp(1j * np.radians(at_deg)))
    found = {f.kind: f for f in plane_families(turned, LimitSettings(voltage=voltage))}
    angles = np.radians(at_deg + np.linspace(-2.9, 2.9, 59))
    assert (allowed_modulus(found["v_max"], angles) <= 1.1 + 1e-12).all()
    lower = found["v_min"]
    least = lower.bound[0, 0] / (lower.weight[0, 0] * np.exp(1j * angles)).real
    assert (least >= 0.9 - 1e-12).all()
    if voltage == "projection":
        assert least[29] == pytest.approx(0.9)
        assert allowed_modulus(found["v_max"], angles[29:30])[0] == pytest.approx(1.1 * np.cos(np.radians(1.0)))


def test_norm_is_refused_beyond_its_angle():
    net = network([0.0], v_drop_pu=[1e-3])
    turned = replace(net, base=net.base * np.exp(1j * np.radians(14.0)))
    with pytest.raises(BidError, match=r"B\.1.*within 10 degrees"):
        plane_families(turned, LimitSettings(voltage="norm"))


@pytest.mark.parametrize(("deg", "lam", "beta", "error", "lam_below", "beta_below"), [
    (5.0, 0.955884, 0.043640, 4.76e-4, 0.955429, 0.043619),
    (10.0, 0.910772, 0.087322, 1.91e-3, 0.909039, 0.087156),
    (15.0, 0.864617, 0.131087, 4.30e-3, 0.860919, 0.130526),
    (30.0, 0.719363, 0.263305, 1.73e-2, 0.707107, 0.258819),
])  # fmt: skip
def test_coefficients_of_the_voltage_norm(deg, lam, beta, error, lam_below, beta_below):
    theta = np.radians(deg)
    assert norm_coefficients(theta, "best") == pytest.approx((lam, beta), abs=1e-6)
    assert norm_coefficients(theta, "below") == pytest.approx((lam_below, beta_below), abs=1e-6)
    angles = np.linspace(-theta, theta, 201)
    for fit, least, most in (("best", -error, error), ("below", -1.0, 0.0), ("above", 0.0, 1.0)):
        a, b = norm_coefficients(theta, fit)
        off = a * np.cos(angles) + b * (np.cos(angles) + np.abs(np.sin(angles))) - 1.0
        assert least * 1.01 - 1e-12 <= off.min() <= off.max() <= most * 1.01 + 1e-12
    a, b = norm_coefficients(theta, "best")
    assert np.tan(theta / 4.0) ** 2 == pytest.approx(error, rel=5e-3)


def test_settings_report_all_that_is_wrong():
    with pytest.raises(BidError) as error:
        LimitSettings(planes=2, overload=-0.1, norm_angle_deg=0.0)
    assert [fault.key for fault in error.value.faults] == ["planes", "overload", "norm_angle_deg"]
