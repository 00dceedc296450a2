import warnings

import numpy as np
import pytest
import torch

from sklearn_micranet._batches import BatchIterator, LabelledImages, equal_sizes, to_tensor
from sklearn_micranet._lazy_stack import LazyStack


def test_channels_move_first():
    images = np.arange(2 * 9 * 10 * 3).reshape(2, 9, 10, 3)
    tensor = to_tensor(images)
    assert tensor.shape == (2, 3, 9, 10)
    assert tensor.dtype == torch.float32
    assert tensor[1, 2, 3, 4] == images[1, 3, 4, 2]
    assert tensor.is_contiguous(memory_format=torch.channels_last)


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


@pytest.mark.parametrize("size", [(1, 2), (8, 3), (5, 20), (7, 7)])
def test_small_images_are_padded_at_the_bottom_and_the_right(size):
    tensor = to_tensor(np.ones((2, *size, 3)))
    expected = torch.zeros(2, 3, max(8, size[0]), max(8, size[1]))
    expected[:, :, : size[0], : size[1]] = 1
    assert torch.equal(tensor, expected)


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


def numbered(n, indices=None, image_shape=None):
    """Make a data set of n images whose pixels and targets are their number."""
    images = np.broadcast_to(np.arange(n)[:, None, None], (n, 8, 8))
    indices = np.arange(n) if indices is None else np.array(indices)
    return LabelledImages(images, torch.from_numpy(indices), image_shape, indices=indices)


def test_a_data_set_reads_its_own_images_in_the_order_asked_for():
    data = numbered(10, indices=[1, 4, 7])
    images, targets = data[np.array([2, 0])]
    assert len(data) == 3
    assert images[:, 0, 0, 0].tolist() == targets.tolist() == [7, 1]


def test_images_are_read_when_their_batch_is_made():
    read = []

    def load(numbers):
        read.extend(numbers)
        return np.stack([np.full((8, 8), number) for number in numbers])

    images = LazyStack(list(range(100)), load, item_shape=(8, 8), batch_size=100)
    batches = iter(BatchIterator(LabelledImages(images, torch.arange(20), None), 5))
    assert read == []
    next(batches)
    assert read == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        (6, 3, [3, 3]),
        (7, 3, [3, 2, 2]),
        (33, 32, [17, 16]),
        (5, 100, [5]),
        (4, 2, [2, 2]),
        (5, 2, [3, 2]),  # no image alone
        (3, 2, [3]),
        (2, 2, [2]),
        (1, 2, [1]),
    ],
)
def test_batches_are_of_like_size_and_hold_every_image_once(n, batch_size, sizes, shuffle):
    iterator = BatchIterator(numbered(n), batch_size, shuffle=shuffle)
    batches = [targets.tolist() for _, targets in iterator]
    assert [len(batch) for batch in batches] == sizes
    assert len(iterator) == len(sizes)
    flat = [i for batch in batches for i in batch]
    assert sorted(flat) == list(range(n))
    assert shuffle or flat == list(range(n))


def test_each_epoch_draws_a_new_order_from_torch():
    iterator = BatchIterator(numbered(50), 8, shuffle=True)

    def epoch():
        return torch.cat([targets for _, targets in iterator]).tolist()

    torch.manual_seed(3)
    first, second = epoch(), epoch()
    torch.manual_seed(3)
    assert epoch() == first != second
