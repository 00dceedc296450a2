import numpy as np
import pytest

from sklearn_micranet._labels._coverage import MIN_COVERAGE, is_covered


def test_a_class_covers_at_least_the_share():
    n_pixels = np.array([[0, 2], [3, 4]])  # of 300: 0, 0.67 %, 1 %, 1.33 %
    np.testing.assert_array_equal(is_covered(n_pixels, 300), [[False, False], [True, True]])
    assert MIN_COVERAGE == 0.01


@pytest.mark.parametrize("n_total", [10, 300, 4096, 10**7])
@pytest.mark.parametrize("percent", [1, 3, 7, 29, 58])
def test_the_very_share_counts(n_total, percent):
    n_pixels = -(-n_total * percent // 100)  # rounded up
    assert is_covered(np.array(n_pixels), n_total, percent / 100)
    assert not is_covered(np.array(n_pixels - 1), n_total, percent / 100)


def test_without_a_pixel_nothing_is_covered():
    np.testing.assert_array_equal(is_covered(np.array([0, 1]), 10**6, 0), [False, True])
