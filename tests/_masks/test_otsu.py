import numpy as np
import pytest
from skimage.filters import threshold_otsu

from sklearn_micranet import ThresholdSegmenter
from sklearn_micranet._masks._otsu import otsu
from sklearn_micranet._stack import _large_arrays


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-6, 1, 300])
def test_the_threshold_is_that_of_scikit_image(scale, dtype):
    rng = np.random.default_rng(0)
    for _ in range(5):
        values = (rng.gamma(2, scale, (20, 20)) - scale).astype(dtype)
        assert otsu(values) == threshold_otsu(values)


def test_values_are_counted_block_by_block(monkeypatch):
    values = np.random.default_rng(0).gamma(2, 1, (50, 40)).astype(np.float32)
    monkeypatch.setattr(_large_arrays, "N_VALUES_AT_ONCE", 100)
    for part in (values, values[values > 1]):
        assert otsu(part) == threshold_otsu(part)


@pytest.mark.parametrize("exponent", [-120, -90, 60, 120])
def test_the_threshold_has_the_unit_of_the_values(exponent):
    values = np.random.default_rng(0).gamma(2, 1, 400).astype(np.float32)
    expected = np.ldexp(threshold_otsu(values), exponent)
    assert otsu(np.ldexp(values, exponent)) == expected
    assert 0 < (np.ldexp(values, exponent) > expected).sum() < 400


def exact_otsu(values):
    """Try every value as the threshold, in Python's integers of units in the last place."""
    low, unit = values.min(), np.spacing(values.max())
    steps = [round(float((value - low) / unit)) for value in values.astype(np.float64)]
    best, threshold = -1, None
    for candidate in sorted(set(steps))[:-1]:
        below, above = ([s for s in steps if (s > candidate) is side] for side in (False, True))
        between = len(below) * len(above) * (np.mean(below) - np.mean(above)) ** 2
        if between > best:
            best, threshold = between, candidate
    return low.astype(np.float64) + threshold * float(unit)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_steps", [2, 3, 20, 250])
@pytest.mark.parametrize("offset", [1, 4096, 0.75])
def test_values_that_are_closer_than_bins_can_be_have_the_exact_threshold(offset, n_steps, dtype):
    steps = np.random.default_rng(0).integers(n_steps, size=50)
    values = dtype(offset) + steps.astype(dtype) * np.spacing(dtype(offset))
    assert len(np.unique(values)) > 1
    assert otsu(values) == exact_otsu(values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f8"])
@pytest.mark.parametrize("method", ["otsu", "block_otsu", "quantile", "learned"])
@pytest.mark.parametrize("low", [0.0, 1.0, -3.0, 1e4])
def test_two_values_one_step_apart_are_told_apart(low, method, dtype):
    pattern = np.random.default_rng(0).random((2, 1, 8, 8)) < 0.15
    low = np.float32(low) if dtype is np.longdouble else np.dtype(dtype).type(low)
    X = np.where(pattern, np.nextafter(low, low.dtype.type(np.inf)), low).astype(dtype)
    assert len(np.unique(X)) == 2
    segmenter = ThresholdSegmenter(method=method, quantile=0.8).fit(X, pattern)
    np.testing.assert_array_equal(segmenter.predict(X), pattern)


def test_equal_values_are_the_threshold():
    for value in (0.0, -2.5, 1e30):
        assert otsu(np.full(4, value, dtype=np.float32)) == np.float32(value)


def test_blocks_whose_ranges_are_one_step_apart():
    X = np.zeros((1, 1, 2, 4))
    X[..., 0, 0], X[..., 0, 2] = 1, np.nextafter(1, 2)
    masks = ThresholdSegmenter(method="block_otsu", block_size=2).predict(X)
    assert np.argwhere(masks[0, 0]).tolist() == [[0, 2]]  # the range that is above the other
