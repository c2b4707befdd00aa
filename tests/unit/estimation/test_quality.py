import numpy as np
import pytest

from cosim.errors import InputError
from cosim.estimation.quality import error_statistics


def test_by_hand():
    truth = np.array([[10.0, 0.0], [20.0, 0.0], [30.0, 0.0]])
    estimate = np.array([[13.0, 1.0], [16.0, 1.0], [30.0, 1.0]])
    found = error_statistics(estimate, truth)
    np.testing.assert_allclose(found.mean_absolute, [7.0 / 3.0, 1.0])
    np.testing.assert_allclose(found.root_mean_square, [5.0 / np.sqrt(3.0), 1.0])
    np.testing.assert_allclose(found.bias, [-1.0 / 3.0, 1.0])
    np.testing.assert_allclose(found.maximum, [4.0, 1.0])
    np.testing.assert_array_equal(found.count, [3, 3])


def test_instants_with_nan_do_not_count():
    truth = np.zeros((3, 2))
    estimate = np.array([[2.0, np.nan], [np.nan, np.nan], [-4.0, np.nan]])
    found = error_statistics(estimate, truth)
    np.testing.assert_allclose(found.mean_absolute, [3.0, np.nan])
    np.testing.assert_allclose(found.maximum, [4.0, np.nan])
    np.testing.assert_array_equal(found.count, [2, 0])


def test_no_instants_at_all():
    found = error_statistics(np.zeros((0, 2)), np.zeros((0, 2)))
    np.testing.assert_array_equal(found.bias, [np.nan, np.nan])
    np.testing.assert_array_equal(found.count, [0, 0])


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"\(3, 2\), \(3, 1\)"):
        error_statistics(np.zeros((3, 2)), np.zeros((3, 1)))
