import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

from sklearn_micranet._guided._near import Near, block_means


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
