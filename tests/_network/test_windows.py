import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import Parallel
from numpy.testing import assert_allclose, assert_array_equal
from reference import random_network

from sklearn_micranet._fields._grid import WindowGrid
from sklearn_micranet._fields._scores import shared_logits
from sklearn_micranet._fields._windows import ScaledNetworks
from sklearn_micranet._network._local_maps import FoldedNetwork
from sklearn_micranet._network._tiles import HALO, RADIUS
from sklearn_micranet._network._windows import WindowNetworks, last_layer


@torch.inference_mode()
def layer_8(network, images):
    """L8 of the network as it is trained, of images (n, height, width)."""
    x = torch.from_numpy(images)[:, None].to(network.linear.weight)
    for i, depth in enumerate(network.depths):
        x = depth(x if i == 0 else network.pool(x))
    return x


def logits_of_tiles(field, networks, tile_size, size, step):
    grid = WindowGrid(field.shape[:2], size, step)
    windows = WindowNetworks(tuple(network.state_dict() for network in networks))
    windows = ScaledNetworks([], windows)
    with Parallel(n_jobs=1) as parallel:
        strips = list(
            shared_logits(field, grid, windows, halo=HALO, tile_size=tile_size, parallel=parallel)
        )
    return [np.concatenate(of_one) for of_one in zip(*strips, strict=True)]


def test_last_layer_is_that_of_the_network_as_it_is_trained():
    network, images = random_network(n_filters=2), np.random.default_rng(0).random((2, 48, 40))
    found = last_layer(
        FoldedNetwork(network.state_dict()), torch.from_numpy(images[:, None]).float()
    )
    assert_allclose(found, layer_8(network, images), rtol=1e-4, atol=1e-5)


def test_a_pixel_of_the_last_layer_depends_on_the_radius_around_it_and_on_no_more():
    network = random_network(n_filters=2)
    image = np.full((1, 136, 136), 0.5)
    seen = np.zeros((136, 136), dtype=bool)
    place = 8  # covers 64 to 71
    for row in range(136):
        changed = image.copy()
        changed[0, row] += np.random.default_rng(row).random(136) * 20
        before, after = (layer_8(network, x)[0, :, place] for x in (image, changed))
        seen[row] = bool((before != after).any())
    assert_array_equal(np.flatnonzero(seen[:, 0])[[0, -1]], [64 - RADIUS, 71 + RADIUS])
    assert RADIUS == 30
    assert HALO == 32


@given(
    height=st.integers(32, 150),
    width=st.integers(32, 150),
    size=st.sampled_from([16, 24, 32]),
    step=st.sampled_from([8, 16, 24, 32]),
    tile_size=st.integers(8, 200),
)
@settings(deadline=None, max_examples=25)
def test_logits_of_tiles_are_those_of_the_whole_field(height, width, size, step, tile_size):
    step = min(step, size)
    network = random_network(n_filters=2).double()
    field = np.random.default_rng(height).random((height, width), dtype=np.float32)
    (found,) = logits_of_tiles(field, [network], tile_size, size, step)

    n_rows, n_columns = found.shape[:2]
    padded = np.pad(field, ((HALO, HALO + size + step), (HALO, HALO + size + step)), "reflect")
    padded = padded[: len(padded) // 8 * 8, : padded.shape[1] // 8 * 8]
    inside = layer_8(network, padded[np.newaxis])[0, :, HALO // 8 :, HALO // 8 :]
    for i in range(n_rows):
        for j in range(n_columns):
            rows, columns = (slice(k * step // 8, (k * step + size) // 8) for k in (i, j))
            maxima = inside[:, rows, columns].amax(dim=(1, 2))
            with torch.inference_mode():
                expected = network.linear(maxima)
            assert_allclose(found[i, j], expected, rtol=1e-9, atol=1e-9)
    assert (n_rows - 1) * step + size >= height
    assert (n_rows - 2) * step + size < height or n_rows == 1


def test_logits_in_float32_depend_on_the_tiles_within_rounding():
    network = random_network(n_filters=2)
    field = np.random.default_rng(0).random((150, 230), dtype=np.float32)
    (whole,) = logits_of_tiles(field, [network], 400, 32, 8)
    for tile_size in (8, 56, 128):
        (tiled,) = logits_of_tiles(field, [network], tile_size, 32, 8)
        assert_allclose(tiled, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


def test_away_from_the_border_of_a_window_the_features_are_those_of_its_crop():
    network = random_network(n_filters=2)
    image = np.random.default_rng(0).random((1, 256, 256))
    crop = image[:, 64:192, 64:192]
    inside = slice(HALO // 8, -HALO // 8)
    shared, of_crop = layer_8(network, image)[..., 8:24, 8:24], layer_8(network, crop)
    assert_allclose(shared[..., inside, inside], of_crop[..., inside, inside], atol=1e-5)
    assert not np.allclose(shared, of_crop, atol=1e-3)


def test_networks_of_an_ensemble_have_logits_of_their_own():
    networks = [random_network(n_filters=2), random_network(n_filters=2)]
    field = np.random.default_rng(0).random((64, 64))
    both = logits_of_tiles(field, networks, 64, 32, 16)
    assert len(both) == 2
    for network, found in zip(networks, both, strict=True):
        assert_array_equal(found, logits_of_tiles(field, [network], 64, 32, 16)[0])


def test_features_of_a_crop_are_those_of_the_network():
    networks = [random_network(n_filters=2), random_network(n_filters=2)]
    crop = np.random.default_rng(0).random((40, 48), dtype=np.float32)
    windows = WindowNetworks(tuple(network.state_dict() for network in networks))
    features = np.split(windows.crop_features(crop), 2)
    for network, found, (weight, bias) in zip(networks, features, windows.linear, strict=True):
        with torch.inference_mode():
            expected = network(torch.from_numpy(crop)[None, None])[0]
        assert_allclose(weight @ found + bias, expected, rtol=1e-4, atol=1e-4)


def test_networks_travel_without_what_they_have_computed():
    windows = WindowNetworks((random_network(n_filters=2).state_dict(),))
    tile = np.random.default_rng(0).random((80, 80))
    features = windows.block_features(tile, 8)
    assert features.shape == (2, 2, 16)
    copy = pickle.loads(pickle.dumps(windows))
    assert "folded" not in vars(copy)
    assert_array_equal(copy.block_features(tile, 8), features)


def test_a_tile_with_nan_is_refused():
    windows = WindowNetworks((random_network(n_filters=2).state_dict(),))
    tile = np.full((80, 80), np.nan)
    with pytest.raises(ValueError, match="Images must be finite"):
        windows.block_features(tile, 8)
