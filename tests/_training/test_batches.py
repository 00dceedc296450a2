import threading
import warnings

import numpy as np
import pytest
import torch

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet._training import _batches
from sklearn_micranet._training._batches import (
    BatchIterator,
    LabelledImages,
    _ahead,
    equal_sizes,
    in_fitting_parts,
    to_tensor,
)


def test_channels_move_first():
    images = np.arange(2 * 9 * 10 * 3).reshape(2, 9, 10, 3)
    tensor = to_tensor(images)
    assert tensor.shape == (2, 3, 9, 10)
    assert tensor.dtype == torch.float32
    assert tensor[1, 2, 3, 4] == images[1, 3, 4, 2]
    assert tensor.stride() == (270, 90, 10, 1)


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


def test_a_part_of_a_data_set_keeps_targets_and_weights_with_their_images():
    data = numbered(10, indices=[1, 4, 7, 8])
    data.weights = data.targets / 10
    part = data.subset(np.array([3, 1, 0])).subset(np.array([0, 2]))
    images, (targets, weights) = part[np.arange(2)]
    assert len(part) == 2
    assert images[:, 0, 0, 0].tolist() == targets.tolist() == part.indices.tolist() == [8, 1]
    np.testing.assert_allclose(weights, [0.8, 0.1])
    assert data.subset(np.array([2])).images is data.images


@pytest.mark.parametrize(
    "targets", [[[0.0], [1], [1]], [[0, 0, 0], [0, 0, 1], [1, 0, 1]]], ids=["binary", "multilabel"]
)
def test_an_image_with_any_class_is_positive(targets):
    data = LabelledImages(np.zeros((3, 8, 8)), torch.tensor(targets), None)
    assert data.is_positive.tolist() == [False, True, True]


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


# --- drawn negatives -------------------------------------------------------------------------


def positives_and_negatives(n_positives, n_negatives):
    """Make numbered images, the first of which are positive."""
    n = n_positives + n_negatives
    images = np.broadcast_to(np.arange(n)[:, None, None], (n, 8, 8))
    targets = (torch.arange(n) < n_positives).float()[:, None]
    return LabelledImages(images, targets, None)


def epoch(iterator):
    """Return the numbers of the images of each batch, having checked their targets."""
    batches = []
    for images, targets in iterator:
        numbers = images[:, 0, 0, 0].int()
        assert targets[:, 0].tolist() == iterator.dataset.targets[numbers, 0].tolist()
        batches.append(numbers.tolist())
    return batches


@pytest.mark.parametrize(
    ("ratio", "n_drawn"),
    [(0.5, 2), (1, 4), (5, 20), (16, 50), (0.4, 2), (0.1, 1), (2.3, 9)],
)
def test_an_epoch_is_all_positives_and_drawn_negatives(ratio, n_drawn):
    iterator = BatchIterator(
        positives_and_negatives(4, 50), 8, shuffle=True, negatives_per_positive=ratio
    )
    draws = []
    for _ in range(3):
        batches = epoch(iterator)
        assert len(batches) == len(iterator)
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= 8
        assert max(sizes) - min(sizes) <= 1
        numbers = np.concatenate(batches)
        assert sorted(numbers[numbers < 4]) == [0, 1, 2, 3]
        negatives = set(numbers[numbers >= 4].tolist())
        assert len(negatives) == len(numbers) - 4 == n_drawn
        draws.append(negatives)
    assert (draws[0] != draws[1]) == (n_drawn < 50)  # drawn anew, where there is a choice


def test_every_negative_is_drawn_equally_often():
    iterator = BatchIterator(positives_and_negatives(5, 20), 16, negatives_per_positive=1)
    counts = np.bincount(np.concatenate([np.concatenate(epoch(iterator)) for _ in range(400)]))
    assert (counts[:5] == 400).all()
    # Binomial: 100 on average, of standard deviation sqrt(400 / 4 * 3 / 4) = 8.7.
    assert abs(counts[5:] - 100).max() < 4 * 8.7


def test_torch_s_seed_decides_which_negatives_are_drawn():
    def draw(seed):
        torch.manual_seed(seed)
        return epoch(BatchIterator(positives_and_negatives(3, 30), 6, negatives_per_positive=2))

    assert draw(0) == draw(0) != draw(1)


def test_positives_and_negatives_are_mixed():
    iterator = BatchIterator(
        positives_and_negatives(20, 40), 10, shuffle=True, negatives_per_positive=1
    )
    assert all(0 < sum(i < 20 for i in batch) < 10 for batch in epoch(iterator))


# --- augmentation and prefetching ------------------------------------------------------------


def test_augmentation_sees_each_batch_once_and_no_target():
    seen = []

    def augment(images):
        seen.append(images.clone())
        return images + 100

    iterator = BatchIterator(numbered(7), 3, augment=augment)
    for (images, targets), before in zip(iterator, seen, strict=True):
        assert torch.equal(images, before + 100)
        assert (images[:, 0, 0, 0] - 100).tolist() == targets.tolist()
    assert len(seen) == len(iterator) == 3


def test_batches_are_made_one_ahead_in_another_thread():
    made, threads, second_is_made = [], set(), threading.Event()

    def make():
        for i in range(5):
            made.append(i)
            threads.add(threading.get_ident())
            if i == 1:
                second_is_made.set()
            yield i

    batches = _ahead(make())
    assert made == []
    assert next(batches) == 0
    assert second_is_made.wait(timeout=30)  # although nobody has asked for it
    assert made == [0, 1]
    assert list(batches) == [1, 2, 3, 4]
    assert threads.isdisjoint({threading.get_ident()})


@pytest.mark.parametrize("n", [0, 1, 2, 6])
def test_prefetching_neither_loses_nor_adds_a_batch(n):
    assert list(_ahead(iter(range(n)))) == list(range(n))


def test_an_error_in_a_batch_comes_after_the_batches_before_it():
    def make():
        yield 0
        yield 1
        raise OSError("the disk is gone")

    batches = _ahead(make())
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_prefetching_stops_when_nobody_wants_more():
    before, made = set(threading.enumerate()), []

    def make():
        for i in range(100):
            made.append(i)
            yield i

    batches = _ahead(make())
    next(batches)
    batches.close()  # waits for the batch that has been begun
    assert made == [0, 1]
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("is_available", [True, False])
def test_batches_for_a_gpu_are_those_for_the_cpu(is_available, monkeypatch):
    copied = []

    def copy(batch, device):
        copied.append(device)
        return batch

    monkeypatch.setattr(_batches, "_to_cuda", copy)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    device = torch.device("cuda")
    torch.manual_seed(0)
    expected = list(BatchIterator(numbered(20), 6, shuffle=True, device=torch.device("cpu")))
    assert copied == []
    torch.manual_seed(0)
    batches = list(BatchIterator(numbered(20), 6, shuffle=True, device=device))
    for (images, targets), (other, others) in zip(batches, expected, strict=True):
        assert torch.equal(images, other)
        assert torch.equal(targets, others)
    # A net that was trained on a GPU is unpickled where there is none, and trained on.
    assert copied == ([device] * 4 if is_available else [])


# --- batches that do not fit into memory -----------------------------------------------------


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

    classifier.module_.register_forward_pre_hook(limit)
    with pytest.warns(RuntimeWarning, match="does not fit in the memory of the device"):
        logits = classifier.decision_function(X)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
