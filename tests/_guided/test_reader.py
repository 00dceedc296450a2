import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from reference import random_network, reference_maps

from sklearn_micranet._guided._gate import cell_gates
from sklearn_micranet._guided._reader import (
    BOTH,
    TURNED,
    UPRIGHT,
    Reader,
    one_by_one,
    survives_half_turn,
)
from sklearn_micranet._guided._recipe import _features_at
from sklearn_micranet._labels._targets import Targets
from sklearn_micranet._network import _tiles
from sklearn_micranet._network_classifier import Explained
from sklearn_micranet._stack._lazy_stack import LazyStack

MULTILABEL = Targets.of(np.eye(3))
MULTICLASS = Targets.of(np.array(["a", "b", "c"]), background_label="b")


def reader(*networks, targets=MULTILABEL, threshold=0.5, image_shape=None):
    weights = tuple(network.state_dict() for network in networks)
    return Reader(Explained(weights, targets, threshold, image_shape))


def random_image(*size):
    return np.random.default_rng(0).random(size, dtype=np.float32)


def test_gates_are_the_local_maps_of_the_last_layer():
    network, image = random_network(), random_image(32, 40)
    coarse = reference_maps(network, torch.from_numpy(image)[None, None])[-1][0].numpy()
    peak = coarse.max(axis=(1, 2), keepdims=True)
    assert (peak > 0).any()
    gates = cell_gates(reader(network)(image).scores)
    assert_allclose(gates, coarse / np.where(peak > 0, peak, 1), atol=1e-5)


def test_exclusive_classes_are_compared_and_the_background_has_no_map():
    network, image = random_network(), random_image(32, 40)
    scores = reader(network)(image).scores
    reading = reader(network, targets=MULTICLASS)(image)
    assert_allclose(reading.scores, (scores - scores.mean(axis=0))[[0, 2]], atol=1e-6)
    assert reading.present.shape == (2,)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_presence_is_what_the_logits_say(kind):
    network, image = random_network(), random_image(32, 40)
    logits = network(torch.from_numpy(image)[None, None]).detach().numpy()[0]
    if kind == "multiclass":
        present = reader(network, targets=MULTICLASS)(image).present
        assert present.tolist() == (np.arange(3) == logits.argmax())[[0, 2]].tolist()
    else:
        threshold = 1 / (1 + np.exp(-np.sort(logits)[1]))  # the second largest is still present
        present = reader(network, threshold=threshold - 1e-4)(image).present
        assert present.tolist() == (logits >= np.sort(logits)[1]).tolist()


def test_a_turned_reading_is_that_of_the_turned_image_turned_back():
    network, image = random_network(), random_image(32, 40)
    upright = reader(network)
    of_turned = upright(image[::-1, ::-1])
    turned = upright.turned(TURNED)(image)
    assert_allclose(turned.scores, of_turned.scores[:, ::-1, ::-1], atol=1e-6)
    both = upright.turned(BOTH)(image)
    assert_allclose(both.scores, (upright(image).scores + turned.scores) / 2, atol=1e-6)
    for layers in zip(
        both.parts[0].activations,
        upright(image).parts[0].activations,
        turned.parts[0].activations,
        strict=True,
    ):
        assert_allclose(layers[0], (layers[1] + layers[2]) / 2, atol=1e-6)
    assert_array_equal(both.present, upright(image).present)  # the turned one has no say


def test_networks_are_averaged_and_their_features_stand_side_by_side():
    networks, image = [random_network(), random_network()], random_image(32, 40)
    one, other = (reader(network)(image) for network in networks)
    assert np.abs(one.scores - other.scores).max() > 0.01
    together = reader(*networks)(image)
    assert_allclose(together.scores, (one.scores + other.scores) / 2, atol=1e-6)
    for layers in zip(
        together.parts[0].activations,
        one.parts[0].activations,
        other.parts[0].activations,
        strict=True,
    ):
        assert_allclose(layers[0], np.concatenate(layers[1:]), atol=1e-6)


def test_layers_have_pixels_of_1_2_and_4_px():
    reading = reader(random_network())(random_image(30, 41))
    assert [a.shape[1:] for a in reading.parts[0].activations] == [(32, 48), (16, 24), (8, 12)]
    assert reading.scores.shape == (3, 4, 6)


def test_without_layers_the_rest_is_the_same():
    read, image = reader(random_network()), random_image(24, 16)
    full, short = read(image), read(image, with_layers=False)
    assert_array_equal(short.scores, full.scores)
    assert_array_equal(short.present, full.present)
    assert short.parts == []


def test_flattened_images_are_those_of_the_image_shape():
    network, image = random_network(), random_image(24, 16)
    flat = reader(network, image_shape=(24, 16))(image.ravel())
    assert_array_equal(flat.scores, reader(network)(image).scores)


def test_a_half_turn_is_compared_with_labels():
    read = reader(random_network(), threshold=[0, 0, 1])  # so that the same is found everywhere
    images = [random_image(16, 16)] * 2
    assert survives_half_turn(read, images, None)
    assert survives_half_turn(read, images, np.array([[True, False, True]] * 2))


def test_images_are_read_a_few_at_a_time():
    sizes = []

    def read(batch):
        sizes.append(len(batch))
        return batch

    stack = LazyStack(np.arange(7.0), read, item_shape=())
    assert list(one_by_one(stack, np.array([0, 2, 3, 6, 5]), 2)) == [0, 2, 3, 6, 5]
    assert sizes == [2, 2, 1]


def test_the_key_is_of_all_that_counts():
    network = random_network()
    same, copy = reader(network), pickle.loads(pickle.dumps(reader(network)))
    assert same.key == copy.key
    others = [
        reader(random_network()),
        reader(network, threshold=0.4),
        reader(network, targets=MULTICLASS),
        reader(network, image_shape=(8, 8)),
        same.turned(BOTH),
    ]
    assert len({same.key, *(other.key for other in others)}) == 6


@pytest.mark.parametrize("turns", [UPRIGHT, BOTH])
@pytest.mark.parametrize("targets", [MULTILABEL, MULTICLASS])
def test_a_large_image_is_read_tile_by_tile_with_the_reading_of_the_whole(
    turns, targets, monkeypatch
):
    networks, image = [random_network(), random_network()], random_image(203, 317)
    read = reader(*networks, targets=targets).turned(turns)
    whole = read(image)
    (whole_part,) = whole.parts
    monkeypatch.setattr(_tiles, "MAX_BYTES", 2**20)
    tiled = read(image)
    assert len(list(tiled.parts)) > 4
    scale = np.abs(whole.scores).max()
    assert_allclose(tiled.scores, whole.scores, rtol=0, atol=5e-6 * scale)
    assert_array_equal(tiled.present, whole.present)
    rows, columns = (np.arange(n)[::7] for n in image.shape)
    rows, columns = (at.ravel() for at in np.meshgrid(rows, columns, indexing="ij"))
    expected = _features_at(whole.parts, rows, columns)
    for scale, found in _features_at(tiled.parts, rows, columns).items():
        assert not np.isnan(found).any()
        largest = np.abs(expected[scale]).max()
        assert_allclose(found, expected[scale], rtol=0, atol=5e-6 * largest)
    assert whole_part.size == image.shape
