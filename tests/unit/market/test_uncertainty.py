import numpy as np
import pytest
from small_market import network

from cosim.errors import BidError
from cosim.market.uncertainty import (
    Protection,
    Uncertainty,
    UncertaintySet,
    box,
    budget,
    certain,
    ellipsoid,
    factor_set,
)

U = np.array([3.0, -1.0, 2.0])


def same(rho):
    return np.full((3, 3), rho) + (1.0 - rho) * np.eye(3)


def largest(kind, effect=U):
    return float(kind.largest(kind.factors(effect)))


def test_box_and_budget():
    assert largest(box()) == 6.0
    assert [largest(budget(g)) for g in (0.0, 0.5, 1.0, 2.0, 2.5, 3.0, 9.0)] == [0.0, 1.5, 3.0, 5.0, 5.5, 6.0, 6.0]


def test_ellipsoid_grows_to_the_box_with_the_correlation_of_effects_of_one_sign():
    sizes = [largest(ellipsoid(same(rho), 1.0), np.abs(U)) for rho in (0.0, 0.3, 0.7, 1.0)]
    assert sizes == sorted(sizes)
    assert sizes[0] == pytest.approx(np.sqrt(14.0))
    assert sizes[-1] == pytest.approx(6.0)


def test_correlation_relaxes_effects_of_opposite_sign():
    effect = np.array([3.0, -3.0, 0.0])
    assert largest(ellipsoid(same(0.9), 1.0), effect) < largest(ellipsoid(same(0.0), 1.0), effect)


def test_factor_set_adds_common_and_own_parts():
    kind = factor_set(np.array([[0.8], [0.5], [0.0]]), np.array([0.2, 0.5, 1.0]))
    assert largest(kind) == pytest.approx(abs(3.0 * 0.8 - 0.5) + 0.6 + 0.5 + 2.0)
    assert largest(factor_set(np.ones((3, 1)), np.zeros(3), gamma=1.0)) == pytest.approx(4.0)


@pytest.mark.parametrize("kind", [
    box(), budget(1.5), ellipsoid(same(0.4), 1.3), factor_set(np.ones((3, 1)) * 0.5, np.full(3, 0.5)),
    factor_set(np.ones((3, 1)) * 0.5, np.full(3, 0.5), gamma=1.5), ellipsoid(same(1.0), 1.0),
])  # fmt: skip
def test_the_worst_error_attains_the_largest_effect(kind):
    xi = kind.worst(kind.factors(U))
    assert U @ xi == pytest.approx(largest(kind))


def test_the_worst_error_of_no_effect_is_no_error():
    assert (ellipsoid(same(0.4), 1.0).worst(np.zeros(3)) == 0.0).all()


@pytest.mark.parametrize(
    "make", [lambda: budget(-1.0), lambda: UncertaintySet("ball"), lambda: ellipsoid(same(-0.9), 1.0)]
)
def test_sets_that_make_no_sense_are_refused(make):
    with pytest.raises(BidError):
        make()


def test_cones_and_reim_of_anything_but_a_box_are_refused():
    with pytest.raises(BidError, match="cones") as error:
        Uncertainty(U, U, ellipsoid(same(0.0), 1.0), base="residual", worst_case="reim")
    assert len(error.value.faults) == 2


class TestProtection:
    NET = network([1.0, 1.0], v_drop_pu=[1e-3, 2e-3])

    def of(self, **more):
        return Protection(self.NET, Uncertainty(np.array([10.0, 5.0]), np.zeros(2), box(), **more))

    def rows(self, protection, angle):
        return protection.on(np.array([0]), np.array([[np.exp(-1j * angle)]]), False)[0, 0]

    def test_effect_has_the_sign_of_consumption(self):
        np.testing.assert_allclose(self.of().effect, [[10.0, 5.0], [-0.01, -0.01]])

    def test_depends_on_the_direction_of_the_plane(self):
        assert self.rows(self.of(), 0.0) == pytest.approx(15.0)
        assert self.rows(self.of(), np.pi / 3.0) == pytest.approx(7.5)
        assert self.rows(self.of(), np.pi / 2.0) == pytest.approx(0.0, abs=1e-12)

    def test_reach_bounds_all_planes(self):
        protection = self.of()
        reach = protection.reach(False)
        for angle in np.linspace(0.0, 2.0 * np.pi, 17):
            assert self.rows(protection, angle) <= reach[0] + 1e-12

    def test_scale_of_the_bands(self):
        weight = np.array([[1.0 + 0j]])
        assert self.of().on(np.array([0]), weight, False, np.array([0.5, 0.0]))[0, 0] == pytest.approx(5.0)

    def test_certain_needs_no_protection(self):
        assert self.rows(Protection(self.NET, certain(2)), 0.3) == 0.0

    def test_effect_factor_multiplies(self):
        np.testing.assert_allclose(self.of(effect_factor=np.array([2.0, 1j])).effect[0], [20.0, 5j])


class TestReimOfTheStudy:
    """Sums of the moduli of real and imaginary parts, with the signs of the base current: conservative, or unsafe."""

    def net(self, effect, base):
        net = network([0.0] * len(effect))
        return type(net)(**{**vars(net), "i_by_p": np.array([effect]), "i_a": np.array([base], dtype=complex)})

    def shift(self, effect, base):
        uncertain = Uncertainty(np.ones(len(effect)), np.zeros(len(effect)), box(), worst_case="reim")
        protection = Protection(self.net(effect, base), uncertain)
        weights = np.array([[1.0 + 0j, -1j]])
        real, imaginary = protection.on(np.array([0]), weights, False)[0]
        return complex(real, imaginary)

    def test_over_conservative_when_effects_point_apart(self):
        assert abs(self.shift([10 + 5j, 10 - 5j], 1 + 1j)) == pytest.approx(np.hypot(20.0, 10.0))
        protection = Protection(self.net([10 + 5j, 10 - 5j], 1 + 1j), Uncertainty(np.ones(2), np.zeros(2), box()))
        angles = np.linspace(0.0, 2.0 * np.pi, 721)
        assert protection.on(np.array([0]), np.exp(-1j * angles)[None], False).max() == pytest.approx(20.0, rel=1e-4)

    def test_unsafe_when_the_current_turns(self):
        """10 A with a band of 90: 40 A less are accepted at a limit of 60, though -30 - 90 is 120."""
        shift = self.shift([90.0 + 0j], 10.0 + 0j)
        assert abs(10.0 - 40.0 + shift) == pytest.approx(60.0)
        exact = Protection(self.net([90.0 + 0j], 10.0), Uncertainty(np.ones(1), np.zeros(1), box()))
        assert exact.on(np.array([0]), np.array([[-1.0 + 0j]]), False)[0, 0] + 30.0 == pytest.approx(120.0)
