"""Large images are computed tile by tile, with the result of the whole image."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
    _pca_feature_map,
)
from sklearn_micranet._network import _tiles
from sklearn_micranet._network._input import to_tensor
from sklearn_micranet._network._local_maps import FoldedNetwork, forward, local_maps
from sklearn_micranet._network._module import MicraNet
from sklearn_micranet._network._tiled_maps import TiledImage, scan, tiled_local_maps
from sklearn_micranet._network._tiles import HALO, in_parts, tiles_of
from sklearn_micranet._stack import _large_arrays

RNG = np.random.default_rng(0)
LARGE = RNG.random((2, 203, 317, 2), dtype=np.float32)  # sides that are no multiple of 8
LARGE[:, 60:120, :40] += 1  # two structures, one at the border
LARGE[:, :30, 200:260] -= 1
SMALL_TILES = 100_000  # bytes: for 2 filters tiles of the smallest side, 32 px, and their halo


@pytest.fixture(scope="module")
def classifier():
    y = np.array([[0, 1], [1, 0], [1, 1], [0, 0]] * 2)
    X = RNG.random((8, 16, 16, 2)) + y.sum(axis=1)[:, None, None, None]
    classifier = MicraNetClassifier(
        n_filters=2, max_epochs=3, validation_fraction=0, threshold=0.0, random_state=0
    )
    return classifier.fit(X, y)


def network_of(dtype, n_filters=4):
    torch.manual_seed(0)
    network = MicraNet(n_channels=2, n_outputs=3, n_filters=n_filters).eval().to(dtype)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


# --- tiles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (203, 317), (1, 5000), (640, 640), (97, 33)])
@pytest.mark.parametrize("n_pixels", [1, 96**2, 150**2, 10**9])
def test_tiles_cover_each_pixel_once_and_read_its_halo(size, n_pixels):
    times = np.zeros(size, dtype=int)
    for tile in tiles_of(size, n_pixels):
        times[tile.inside] += 1
        assert all(part.start % 8 == 0 for part in (*tile.inside, *tile.read))
        for inside, read, n in zip(tile.inside, tile.read, size, strict=True):
            assert read.start == max(0, inside.start - HALO)
            assert read.stop == min(n, inside.stop + HALO)
        assert_array_equal(
            np.zeros(size)[tile.read][tile.within()].shape, np.zeros(size)[tile.inside].shape
        )
    assert (times == 1).all()
    if size[0] * size[1] <= n_pixels:
        assert len(tiles_of(size, n_pixels)) == 1


def test_a_tile_is_as_large_as_it_may_be():
    reads = [tile.read for tile in tiles_of((2048, 2048), 600_000)]
    areas = [np.prod([part.stop - part.start for part in read]) for read in reads]
    assert 400_000 < max(areas) <= 610_000


def test_images_are_read_together_up_to_so_many_pixels():
    sizes = [3, 4, 9, 1, 1, 1, 12, 2, None, 2]
    parts = [part.tolist() for part in in_parts(range(10), sizes.__getitem__, 10)]
    assert parts == [[0, 1], [2, 3], [4, 5], [6], [7], [8], [9]]


# --- predictions ------------------------------------------------------------------------------


def test_predictions_of_large_images_are_those_of_whole_images(classifier, monkeypatch):
    images = [LARGE[0], LARGE[1], LARGE[0, :70, :90], LARGE[1, :8, :9]]
    whole = classifier.decision_function(images), classifier.decision_function(LARGE)
    sides = []
    classifier.module_.depths[0].register_forward_pre_hook(
        lambda module, args: sides.append(max(args[0].shape[2:]))
    )
    monkeypatch.setattr(_tiles, "MAX_BYTES", SMALL_TILES)
    tiled = classifier.decision_function(images), classifier.decision_function(LARGE)
    assert max(sides) <= 104  # 40 px with a halo of 32 px at both sides
    for a, b in zip(tiled, whole, strict=True):
        assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


@pytest.mark.parametrize("batch_size", [2, 3, 500])
def test_predictions_do_not_depend_on_the_batches_of_the_training(classifier, batch_size):
    X = RNG.random((40, 16, 16, 2))
    expected = classifier.decision_function(X)
    before = classifier.batch_size
    try:
        found = classifier.set_params(batch_size=batch_size).decision_function(X)
    finally:
        classifier.set_params(batch_size=before)
    assert_array_equal(found, expected)


# --- local maps -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_pixels", [1, 110**2, 10**9])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-7), (torch.float32, 5e-6)])
def test_local_maps_of_tiles_are_those_of_the_whole_image(dtype, rounding, n_pixels):
    """In float64 the maps, which are float32, differ by their own rounding only."""
    folded = FoldedNetwork(network_of(dtype).state_dict())
    image = LARGE[0]
    run = forward(folded, to_tensor(image[None]).to(dtype))
    expected = local_maps(folded, run, torch.tensor([[0, 0], [0, 2]]))
    tiled = TiledImage(image, n_pixels, folded.linear[0])
    of_image = scan(folded, tiled)
    assert_array_equal(of_image.rows * 40 + of_image.columns, run.peaks)
    assert_allclose(of_image.logits, run.logits, rtol=rounding)
    found = tiled_local_maps(folded, tiled, of_image, torch.tensor([0, 2]))
    for i, (one, whole) in enumerate(zip(found, expected, strict=True)):
        assert one.shape == whole.shape
        used = ..., *(slice(-(-n // 2 ** (i // 2))) for n in image.shape[:2])  # without padding
        assert whole.abs().max() > 0
        assert_allclose(one[used], whole[used], rtol=0, atol=rounding * whole.abs().max())


def test_of_equal_maxima_the_first_one_counts():
    folded = FoldedNetwork(network_of(torch.float64).state_dict())
    image = np.tile(RNG.random((8, 8, 2), dtype=np.float32), (30, 30, 1))
    run = forward(folded, to_tensor(image[None]).double())
    layer = run.activations[-1].flatten(2)
    assert ((layer == layer.amax(2, keepdim=True)).sum(2) > 1).any()  # the premise
    of_image = scan(folded, TiledImage(image, 1, folded.linear[0]))
    assert_array_equal(of_image.rows * 30 + of_image.columns, run.peaks)


@pytest.mark.parametrize("parameters", [{}, {"min_max": False, "include_image": True}])
def test_transformed_images_do_not_depend_on_the_tiles(classifier, parameters, monkeypatch):
    step = GradCAMFeatureTransformer(classifier, classes="all", **parameters)
    step.estimator_ = classifier
    whole = np.asarray(step.transform(LARGE))
    assert whole[:, :, -1].max() > 0
    monkeypatch.setattr(_tiles, "MAX_BYTES", SMALL_TILES)
    scale = np.abs(whole).max(axis=(3, 4), keepdims=True)
    tiled = np.asarray(step.transform(LARGE))
    assert_allclose(tiled / scale, whole / scale, rtol=0, atol=1e-5)


def test_masks_of_tiles_do_not_depend_on_what_lies_in_files(classifier, monkeypatch):
    pipe = make_pipeline(
        GradCAMFeatureTransformer(FrozenEstimator(classifier), include_image=True),
        PCAFeatureMap(rescale="coarse"),
        ThresholdSegmenter(),
    ).fit(LARGE, [[0, 1], [1, 0]])

    def results():
        local_maps = pipe[0].transform(LARGE[:1])
        return np.asarray(local_maps), pipe[1].transform(local_maps)[0], pipe.predict(LARGE[:1])

    monkeypatch.setattr(_tiles, "MAX_BYTES", SMALL_TILES)
    monkeypatch.setattr(_pca_feature_map, "_N_AT_ONCE", 5000)
    expected = results()
    assert 0.1 < expected[2].mean() < 0.9
    monkeypatch.setattr(_large_arrays, "MAX_BYTES", 0)
    monkeypatch.setattr(_large_arrays, "N_VALUES_AT_ONCE", 3000)
    for found, one in zip(results(), expected, strict=True):
        assert type(found) is np.ndarray
        assert_array_equal(found, one)


@pytest.mark.parametrize("features", ["intensity", "texture", "both"])
def test_guided_maps_do_not_depend_on_the_tiles(classifier, features, monkeypatch):
    step = GuidedFeatureMap(FrozenEstimator(classifier), features=features, random_state=0)
    step.fit(LARGE, np.array([[0, 1], [1, 1]]))
    whole = step.transform(LARGE)[0]
    assert 0.01 < (whole > 0.5).mean() < 0.99
    monkeypatch.setattr(_tiles, "MAX_BYTES", SMALL_TILES)
    tiled = step.transform(LARGE)[0]
    assert_allclose(tiled, whole, rtol=0, atol=1e-4)
    monkeypatch.setattr(_large_arrays, "MAX_BYTES", 0)
    monkeypatch.setattr(_large_arrays, "N_VALUES_AT_ONCE", 3000)
    in_files = step.transform(LARGE)[0]
    assert type(in_files) is np.ndarray
    rounding = 0 if features == "texture" else 1e-6  # means are those of sums of blocks
    assert_allclose(in_files, tiled, rtol=0, atol=rounding)
