import warnings

import numpy as np
import pytest
import torch

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet._network._input import equal_sizes, in_fitting_parts, to_tensor


def test_channels_move_first():
    images = np.arange(2 * 8 * 16 * 3).reshape(2, 8, 16, 3)
    tensor = to_tensor(images)
    assert tensor.shape == (2, 3, 8, 16)
    assert tensor.dtype == torch.float32
    assert tensor[1, 2, 3, 4] == images[1, 3, 4, 2]
    assert tensor.stride() == (384, 128, 16, 1)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.float16, np.float64])
def test_intensities_keep_their_values(dtype):
    images = np.zeros((1, 8, 8), dtype=dtype)
    images[0, 2, 5] = 1
    expected = torch.zeros(1, 1, 8, 8)
    expected[0, 0, 2, 5] = 1
    assert torch.equal(to_tensor(images), expected)
    assert to_tensor(images.astype(float) * 200).max() == 200


@pytest.mark.parametrize("shape", [(9, 10), (9, 10, 1), (9, 10, 3)])
def test_flattened_images_are_put_back_into_shape(shape):
    images = np.random.default_rng(0).random((4, *shape))
    assert torch.equal(to_tensor(images.reshape(4, -1), shape), to_tensor(images))


@pytest.mark.parametrize("size", [(1, 2), (8, 3), (5, 20), (7, 7), (9, 16), (17, 31)])
def test_edges_are_continued_at_the_bottom_and_the_right(size):
    images = np.random.default_rng(0).random((2, *size, 3), dtype=np.float32)
    padding = [(0, 0), (0, -size[0] % 8), (0, -size[1] % 8), (0, 0)]
    expected = np.pad(images, padding, mode="edge").transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(to_tensor(images), expected)


def test_read_only_images_neither_warn_nor_share_memory():
    images = np.ones((2, 8, 8), dtype=np.float32)
    images.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = to_tensor(images)
    tensor.zero_()
    assert (images == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_float32_does_not_hold_are_refused(value):
    images = np.zeros((2, 8, 8))
    images[1, 2, 3] = value
    with pytest.raises(ValueError, match="Images must be finite in float32"):
        to_tensor(images)


def test_an_array_is_one_group():
    images = np.random.default_rng(0).random((3, 4, 5))
    ((indices, stack),) = equal_sizes(images)
    assert indices == [0, 1, 2]
    assert stack is images


def test_a_list_is_grouped_by_shape():
    images = [np.full(shape, i) for i, shape in enumerate([(4, 5), (5, 4), (4, 5), (4, 5, 1)])]
    groups = list(equal_sizes(images))
    assert [indices for indices, _ in groups] == [[0, 2], [1], [3]]
    for indices, stack in groups:
        assert [image.flat[0] for image in stack] == indices
        assert stack.shape == (len(indices), *images[indices[0]].shape)


class Device:
    """Double images, at most so many at once."""

    def __init__(self, n_fitting):
        self.n_fitting = n_fitting
        self.sizes = []

    def __call__(self, images):
        self.sizes.append(len(images))
        if len(images) > self.n_fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * images


@pytest.mark.parametrize(
    ("n_fitting", "sizes"),
    [
        (7, [7]),
        (4, [7, 3, 4]),
        (3, [7, 3, 4, 2, 2]),
        (1, [7, 3, 1, 2, 1, 1, 4, 2, 1, 1, 2, 1, 1]),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_until_it_does(n_fitting, sizes):
    images = np.random.default_rng(0).random((7, 8, 9))
    device = Device(n_fitting)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = in_fitting_parts(device, images)
    np.testing.assert_array_equal(result, 2 * images)
    assert device.sizes == sizes
    assert len(caught) == sum(size > n_fitting for size in sizes)


def test_halving_says_so():
    match = "A batch of 5 images does not fit .* is halved. A batch_size of 2 or less avoids"
    with pytest.warns(RuntimeWarning, match=match):
        in_fitting_parts(Device(3), np.zeros((5, 8, 8)))


def test_an_image_that_does_not_fit_is_an_error():
    device = Device(0)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        in_fitting_parts(device, np.zeros((1, 8, 8)))
    assert device.sizes == [1]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def compute(images):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        in_fitting_parts(compute, np.zeros((4, 8, 8)))


def test_predictions_do_not_depend_on_the_memory():
    X = np.random.default_rng(0).random((10, 8, 8))
    classifier = MicraNetClassifier(n_filters=1, max_epochs=1, random_state=0)
    classifier.fit(X, np.arange(10) % 2)
    expected = classifier.decision_function(X)

    def limit(module, args):
        if len(args[0]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    classifier.module_.depths[0].register_forward_pre_hook(limit)
    with pytest.warns(RuntimeWarning, match="does not fit in the memory of the device"):
        logits = classifier.decision_function(X)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
