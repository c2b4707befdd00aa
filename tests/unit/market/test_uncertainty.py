import itertools
from dataclasses import replace

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
        np.testing.assert_allclose(self.of().effect(), [[10.0, 5.0], [-0.01, -0.01]])

    def test_depends_on_the_direction_of_the_plane(self):
        assert self.rows(self.of(), 0.0) == pytest.approx(15.0)
        assert self.rows(self.of(), np.pi / 3.0) == pytest.approx(7.5)
        assert self.rows(self.of(), np.pi / 2.0) == pytest.approx(0.0, abs=1e-12)

    def test_reach_bounds_all_planes(self):
        protection = self.of()
        reach = protection.reach(False)
        for angle in np.linspace(0.0, 2.0 * np.pi, 17):
            assert self.rows(protection, angle) <= reach[0] + 1e-12

    def test_reach_is_that_of_the_set_or_of_all_errors_whichever_was_asked_for_before(self):
        of_one = Uncertainty(np.array([10.0, 5.0]), np.zeros(2), budget(1.0))
        protection, other = Protection(self.NET, of_one), Protection(self.NET, of_one)
        for ceiling in (False, True, False):
            assert protection.reach(ceiling)[0] == pytest.approx(15.0 if ceiling else 10.0)
        for ceiling in (True, False):
            np.testing.assert_array_equal(other.reach(ceiling), protection.reach(ceiling))
        assert protection.reach(False, np.array([0.5, 2.0]))[0] == pytest.approx(10.0)
        assert protection.reach(True, np.array([0.5, 2.0]))[0] == pytest.approx(15.0)
        assert not protection.reach(True).flags.writeable

    def test_scale_of_the_bands(self):
        weight = np.array([[1.0 + 0j]])
        assert self.of().on(np.array([0]), weight, False, np.array([0.5, 0.0]))[0, 0] == pytest.approx(5.0)

    def test_certain_needs_no_protection(self):
        assert self.rows(Protection(self.NET, certain(2)), 0.3) == 0.0

    def test_effect_factor_multiplies(self):
        np.testing.assert_allclose(self.of(effect_factor=np.array([2.0, 1j])).effect()[0], [20.0, 5j])


class TestReimOfTheStudy:
    """Sums of the moduli of real and imaginary parts, with the signs of the base current: conservative, or unsafe."""

    def net(self, effect, base):
        net = network([0.0] * len(effect))
        return replace(net, by_p=np.array([effect]), base=np.array([base], dtype=complex))

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


class TestPAndQApart:
    NET = network([1.0, 1.0], effect=[1.0, 0.5 + 0.5j], v_drop_pu=[1e-3, 2e-3])
    HALF_P, HALF_Q = np.array([10.0, 6.0]), np.array([3.0, 4.0])

    def of(self, kind=None, **more):
        return Uncertainty(self.HALF_P, self.HALF_Q, kind or box(), reactive="independent", **more)

    def on(self, uncertainty, angle, scale=None):
        """Protection of the conductor's row along ``angle``."""
        weight = np.array([[np.exp(-1j * angle)]])
        return float(Protection(self.NET, uncertainty).on(np.array([0]), weight, False, scale)[0, 0])

    def effects(self, angle, scale=(1.0, 1.0)):
        """Effects of the errors of P0, P1, Q0, Q1 on that row."""
        by_p, by_q = self.NET.by_p[0], self.NET.by_q[0]
        changes = np.concatenate([by_p * self.HALF_P * scale, by_q * self.HALF_Q * scale])
        return (np.exp(-1j * angle) * changes).real

    @pytest.mark.parametrize("angle", np.linspace(0.0, 2.0 * np.pi, 9))
    def test_a_box_is_the_worst_of_all_corners_of_the_rectangles(self, angle):
        corners = np.array(list(itertools.product((-1.0, 1.0), repeat=4)))
        assert self.on(self.of(), angle) == pytest.approx((corners @ self.effects(angle)).max())
        half = np.array([0.5, 0.25])
        assert self.on(self.of(), angle, half) == pytest.approx((corners @ self.effects(angle, half)).max())

    def test_a_budget_counts_p_and_q_of_a_pod_as_two(self):
        angle = np.pi / 5.0
        first, second, *_ = np.sort(np.abs(self.effects(angle)))[::-1]
        assert self.on(self.of(budget(1.5)), angle) == pytest.approx(first + 0.5 * second)
        assert self.on(self.of(budget(4.0)), angle) == pytest.approx(self.on(self.of(), angle))

    def test_full_correlation_in_a_ball_is_p_and_q_together(self):
        """The correlation of each POD's P with its Q is 1, between PODs 0."""
        tied = np.tile(np.eye(2), (2, 2))
        together = Uncertainty(self.HALF_P, self.HALF_Q, ellipsoid(np.eye(2), 1.3))
        for angle in (0.0, 0.7, 2.0):
            assert self.on(self.of(ellipsoid(tied, 1.3)), angle) == pytest.approx(self.on(together, angle))

    def test_factors_load_p_and_q_each(self):
        weather = np.array([[1.0], [1.0], [0.0], [0.0]])
        kind = factor_set(weather, np.array([0.0, 0.0, 1.0, 1.0]))
        u = self.effects(0.7)
        assert self.on(self.of(kind), 0.7) == pytest.approx(abs(u[0] + u[1]) + abs(u[2]) + abs(u[3]))

    def test_the_worst_error_attains_it(self):
        protection, weight = Protection(self.NET, self.of()), np.exp(-0.7j)
        xi = protection.worst(0, weight, False)
        assert xi.shape == (4,)
        more_kw, more_kvar = self.of().errors(xi)
        assert np.abs(more_kw) == pytest.approx(self.HALF_P)
        assert np.abs(more_kvar) == pytest.approx(self.HALF_Q)
        reached = self.NET.at(more_kw, more_kvar) - self.NET.base
        assert (weight * reached[0]).real == pytest.approx(self.on(self.of(), 0.7))

    def test_errors_of_many_cases(self):
        xi = np.array([[1.0, 0.0, 0.0, -1.0], [0.0, 0.5, 0.5, 0.0]])
        more_kw, more_kvar = self.of().errors(xi)
        np.testing.assert_allclose(more_kw, [[10.0, 0.0], [0.0, 3.0]])
        np.testing.assert_allclose(more_kvar, [[0.0, -4.0], [1.5, 0.0]])

    def test_errors_together_have_one_xi_for_both(self):
        more_kw, more_kvar = Uncertainty(self.HALF_P, self.HALF_Q, box()).errors(np.array([1.0, -0.5]))
        np.testing.assert_allclose(more_kw, [10.0, -3.0])
        np.testing.assert_allclose(more_kvar, [3.0, -2.0])

    def test_effect_factor_multiplies_both(self):
        factor = np.array([2.0, 1j])
        twice, once = (Protection(self.NET, self.of(**way)).effect() for way in ({"effect_factor": factor}, {}))
        np.testing.assert_allclose(twice, once * [2.0, 1j, 2.0, 1j])

    def test_wrong_shapes_and_reim_are_refused(self):
        with pytest.raises(BidError, match="an xi for each POD's P and Q; got 2; allowed: 4"):
            self.of(ellipsoid(np.eye(2), 1.0))
        with pytest.raises(BidError, match="an xi for each POD's power; got 3; allowed: 2"):
            Uncertainty(self.HALF_P, self.HALF_Q, ellipsoid(np.eye(3), 1.0))
        with pytest.raises(BidError, match="of the same PODs; got 2 and 3"):
            Uncertainty(self.HALF_P, np.zeros(3), box())
        with pytest.raises(BidError, match="P and Q together only"):
            self.of(worst_case="reim")
