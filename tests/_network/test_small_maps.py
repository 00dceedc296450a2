"""Local maps that are upsampled where they are read."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_micranet._network._small_maps import PixelsOfLayers, SmallMaps, UpsampledMaps

RNG = np.random.default_rng(0)
SIZE, PADDED = (13, 18), (16, 24)


def maps_of(*, min_max=False, with_image=False):
    layers = [
        RNG.random((2, PADDED[0] // 2**d, PADDED[1] // 2**d), dtype=np.float32)
        for d in (0, 0, 1, 1, 2, 2, 3, 3)
    ]
    layers[2][1] = 0.25  # constant
    image = RNG.random(SIZE, dtype=np.float32) if with_image else None
    small = SmallMaps(np.array([0, 2]), layers, image, SIZE, PADDED)
    return small, UpsampledMaps(small, n_maps=4, min_max=min_max)


def by_hand(small, place, layer, min_max):
    factor = PADDED[0] // small.layers[layer].shape[1]
    full = np.kron(small.layers[layer][place], np.ones((factor, factor), dtype=np.float32))
    full = full[: SIZE[0], : SIZE[1]]
    if not min_max:
        return full
    return (full - full.min()) / (np.ptp(full) or np.inf)


@pytest.mark.parametrize("min_max", [False, True])
def test_an_array_of_all_maps(min_max):
    small, maps = maps_of(min_max=min_max)
    full = np.asarray(maps)
    assert full.dtype == np.float32
    assert full.shape == maps.shape == (4, 8, *SIZE)
    assert not full[[1, 3]].any()
    for place, k in enumerate([0, 2]):
        for layer in range(8):
            assert_array_equal(full[k, layer], by_hand(small, place, layer, min_max))


@pytest.mark.parametrize("with_image", [False, True])
def test_parts_are_those_of_the_array(with_image):
    small, maps = maps_of(min_max=True, with_image=with_image)
    full = np.asarray(maps)
    if with_image:
        assert_array_equal(full[2, 0], small.image)
    for k, of_class in enumerate(maps):
        assert (of_class is None) == (k not in (0, 2))
        if of_class is None:
            continue
        assert_array_equal(np.asarray(of_class), full[k])
        assert_array_equal(of_class[3], full[k, 3])
        pixels = PixelsOfLayers(of_class, (6, 1, 3))
        flat = full[k, [6, 1, 3]].reshape(3, -1)
        assert pixels.shape == flat.shape
        for block in (slice(None, 1), slice(5, 50), slice(18, 36), slice(200, 999), slice(None)):
            assert_array_equal(pixels[:, block], flat[:, block])
