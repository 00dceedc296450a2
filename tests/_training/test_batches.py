import threading

import numpy as np
import pytest
import torch

from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet._training import _batches
from sklearn_micranet._training._batches import BatchIterator, _ahead
from sklearn_micranet._training._data import LabelledImages


def numbered(n, indices=None, image_shape=None):
    """Make a data set of n images whose pixels and targets are their number."""
    images = np.broadcast_to(np.arange(n)[:, None, None], (n, 8, 8))
    indices = np.arange(n) if indices is None else np.array(indices)
    return LabelledImages(images, torch.from_numpy(indices), image_shape, indices=indices)


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


def test_masks_may_be_varied_with_their_images():
    def augment(images, masks):
        return images + 1, masks * 10

    iterator = BatchIterator(numbered(6), 3, augment=augment, augments_targets=True)
    images, masks = map(torch.cat, zip(*iterator, strict=True))
    assert images[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert masks.tolist() == [0, 10, 20, 30, 40, 50]
    untouched = BatchIterator(numbered(6), 3, augments_targets=True)
    assert [masks.tolist() for _, masks in untouched] == [[0, 1, 2], [3, 4, 5]]
