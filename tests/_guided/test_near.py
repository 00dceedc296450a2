import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

from sklearn_micranet._guided._near import Near, block_means, grow


@pytest.mark.parametrize("size", [(33, 46), (64, 64)])
def test_near_means_are_those_of_a_gaussian(size):
    rng = np.random.default_rng(0)
    view = ndimage.gaussian_filter(rng.normal(50, 10, size), 3)
    part = view > view.mean()
    near = Near(view, 8.0)
    found = [near.enlarge(mean) for mean in near.sides(view, near.view, part)]
    for mean, side in zip(found, (part, ~part), strict=True):
        weight = ndimage.gaussian_filter(side.astype(float), 8.0)
        total = ndimage.gaussian_filter(view * side, 8.0)
        expected = (total + 0.02 * view[side].mean()) / (weight + 0.02)
        assert_allclose(mean, expected, atol=0.05 * np.ptp(view))


def test_block_means_fill_up_with_the_edge():
    image = np.array([[1.0, 3, 5], [1, 3, 7], [2, 2, 9]])
    assert_allclose(block_means(image, 2), [[2, 6], [2, 9]])
    assert_allclose(block_means(image[np.newaxis], 1)[0], image)


@pytest.mark.parametrize("size", [(5, 17_000), (17_000, 5)])
def test_near_means_of_long_strips_need_no_matrices(size):
    view = np.random.default_rng(0).random(size, dtype=np.float32)
    near, means = Near(view, 8.0), block_means(view, 4)
    assert len(near.matrices) == 1
    assert_allclose(near.view, ndimage.gaussian_filter(means, 2.0, truncate=3), rtol=1e-6)
    square = Near(view[:200, :200], 8.0)
    means = ndimage.gaussian_filter(block_means(view[:200, :200], 4), 2.0, truncate=3)
    assert_allclose(square.view, means, rtol=1e-5)


@pytest.mark.parametrize("size", [(40, 60), (5, 90), (2, 3), (1, 1)])
def test_masks_grow_by_a_square(size):
    mask = np.random.default_rng(0).random(size) < 0.05
    for n in (1, 3):
        assert np.array_equal(grow(mask, n), ndimage.maximum_filter(mask, 2 * n + 1))
