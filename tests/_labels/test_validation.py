import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sklearn_micranet._labels._validation import (
    are_masks,
    check_images,
    check_masks,
    check_stack,
    is_lazy,
    is_ragged,
)
from sklearn_micranet._stack._lazy_stack import LazyStack

AXES = "(n_samples, n_classes, height, width)"
RAGGED = {"reset": True, "allow_ragged": True}


def refuse(batch):
    raise AssertionError("A sample was read.")


def unread(shape=(3, 2, 4, 5)):
    return LazyStack(np.zeros(shape), refuse, item_shape=shape[1:])


def unread_ragged():
    return LazyStack([np.zeros((2, 4, 5)), np.zeros((2, 6, 7))], refuse, item_shape=None)


def objects(*arrays):
    array = np.empty(len(arrays), dtype=object)
    array[:] = arrays
    return array


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        ([np.zeros((2, 4, 5)), np.zeros((2, 6, 5))], True),
        ((np.zeros((4, 5)), np.zeros((4, 6))), True),
        (objects(np.zeros((4, 5)), np.zeros((6, 5))), True),
        ([np.zeros((2, 4, 5)), np.zeros((2, 4, 5))], False),
        ([np.zeros((2, 4, 5))], False),
        ([], False),
        ([[1.0, 2.0], [3.0, 4.0]], False),
        ([np.zeros(3), np.zeros(4)], False),  # rows of features that do not fit, no images
        ("text", False),
        (None, False),
        (np.zeros((3, 4, 5)), False),
    ],
)
def test_ragged_is_a_sequence_of_images_that_differ_in_shape(X, expected):
    assert is_ragged(X) is expected


def test_a_lazy_stack_knows_whether_it_is_ragged():
    assert is_ragged(unread_ragged())
    assert not is_ragged(unread())


class OnDisk:
    """What HDF5 and Zarr arrays have in common."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.ndim = array.ndim

    def __len__(self):
        return len(self.array)

    def __getitem__(self, key):
        return self.array[key]


def test_lazy_arrays_are_those_that_are_not_in_memory():
    assert is_lazy(unread())
    assert is_lazy(unread_ragged())
    assert is_lazy(OnDisk(np.zeros((2, 3, 4))))
    assert not is_lazy(OnDisk(np.zeros((2, 3))))  # a table
    assert not is_lazy(np.zeros((2, 3, 4)))
    assert not is_lazy(torch.zeros(2, 3, 4))
    assert not is_lazy([np.zeros((3, 4))])


@pytest.mark.parametrize("sizes", [(4, 4), (4, 6)])
def test_object_arrays_are_the_lists_of_their_images(sizes):
    arrays = [np.full((2, n, 5), n) for n in sizes]
    checked = [
        (check_stack(X, ndim=4, axes=AXES), check_images(SimpleNamespace(), X, **RAGGED))
        for X in (pickle.loads(pickle.dumps(objects(*arrays))), arrays)
    ]
    for of_objects, of_list in zip(*checked, strict=True):
        assert type(of_objects) is type(of_list)
        for one, other in zip(of_objects, of_list, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


def test_lazy_images_of_different_sizes_are_checked_when_they_are_read():
    read = []

    def load(images):
        read.extend(image.shape for image in images)
        return images

    def lazy(*shapes):
        return LazyStack([np.zeros(shape) for shape in shapes], load, item_shape=None, batch_size=2)

    estimator = SimpleNamespace()
    check_images(estimator, lazy((4, 5, 3), (6, 5, 3)), **RAGGED)
    assert estimator.n_channels_in_ == 3
    assert read == [(4, 5, 3)]
    for shapes, match in [
        (((4, 5, 3), (6, 5, 3), (6, 5)), r"3 channel\(s\).*SimpleNamespace was fitted.* Got 1"),
        (((4, 5, 3), (6, 5, 1)), r"same number of channels. Got \[1, 3\]"),
        (((4, 5, 3), (6, 5, 3, 3)), "Got 4 dimensions"),
    ]:
        read.clear()
        images = check_images(estimator, lazy(*shapes), reset=False, allow_ragged=True)
        assert read == []
        assert images[0].shape == (4, 5, 3)
        with pytest.raises(ValueError, match=match):
            list(images)
    for reset in (True, False):
        with pytest.raises(ValueError, match=r"at least one image.*Got the shape \(0,\)"):
            check_images(estimator, lazy(), reset=reset, allow_ragged=True)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.zeros((2, 1, 4, 5), dtype=bool), True),
        (torch.zeros(2, 1, 4, 5), True),
        ([np.zeros((1, 4, 5)), np.zeros((1, 6, 5))], True),
        (np.zeros((2, 1, 4, 5), dtype=int).tolist(), True),
        (["cat", "dog"], False),
        ([0, 1], False),
        (np.zeros((2, 3)), False),
        ([[[0, 1.5, 2.5]], []], False),  # points
        ([np.empty((0, 3))], False),
        ([], False),
        ("text", False),
        (None, False),
    ],
)
def test_masks_are_told_from_labels_and_points(y, expected):
    assert are_masks(y) is expected


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_masks_of_0_and_1_become_bool(dtype):
    masks = np.array([[[[0, 1], [1, 0]]]], dtype=dtype)
    checked = check_masks(masks, [None], (2, 2), n_classes=1)
    assert checked.dtype == bool
    assert checked.tolist() == [[[[False, True], [True, False]]]]
    assert check_masks(masks.tolist(), [None], None).tolist() == checked.tolist()


def test_bool_masks_are_not_copied():
    masks = np.zeros((1, 1, 2, 2), dtype=bool)
    assert check_masks(masks, [None], None) is masks


@pytest.mark.parametrize(
    ("masks", "match"),
    [
        (np.zeros((3, 4, 5)), r"\(n_samples, n_classes, height, width\). Got 3 dimensions"),
        (None, "Got 0 dimensions instead"),
        ("text", "Got 0 dimensions instead"),
        (np.zeros((2, 2, 4, 5)), "inconsistent numbers of samples"),
        (np.zeros((3, 2, 5, 4)), r"height and width of the images, \(4, 5\). Got \(5, 4\)"),
        (np.zeros((3, 1, 4, 5)), "one channel per class, 2 in all.*Got 1 instead"),
        (np.full((3, 2, 4, 5), 2), "bool, or hold 0 and 1 only"),
        (np.full((3, 2, 4, 5), 0.5), "bool, or hold 0 and 1 only"),
        (np.full((3, 2, 4, 5), np.nan), "bool, or hold 0 and 1 only"),
        (np.full((3, 2, 4, 5), "a"), "bool, or hold 0 and 1 only"),
        ([np.zeros((2, 4, 5)), np.zeros((2, 4, 6))], "Got masks of different sizes instead"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, match):
    with pytest.raises(ValueError, match=match):
        check_masks(masks, [None] * 3, (4, 5), n_classes=2)


def test_stacks_are_passed_on_unread():
    for stack in (unread(), unread_ragged()):
        assert check_stack(stack, ndim=4, axes=AXES) is stack
    on_disk = OnDisk(np.zeros((3, 2, 4, 5)))
    assert check_stack(on_disk, ndim=4, axes=AXES).source is on_disk


def test_arrays_and_lists_of_one_size_become_one_array():
    array = np.ones((3, 2, 4, 5))
    assert check_stack(array, ndim=4, axes=AXES) is array
    for X in (list(array), array.tolist(), torch.from_numpy(array)):
        checked = check_stack(X, ndim=4, axes=AXES)
        assert isinstance(checked, np.ndarray)
        np.testing.assert_array_equal(checked, array)


def test_lists_of_different_sizes_stay_lists():
    X = [np.ones((2, 4, 5)), np.ones((2, 6, 7))]
    checked = check_stack(X, ndim=4, axes=AXES)
    assert [x.shape for x in checked] == [(2, 4, 5), (2, 6, 7)]


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (np.zeros((2, 4, 5)), r"the shape \(n_samples, n_classes, height, width\). Got 3 dim"),
        (np.zeros((1, 2, 8, 4, 5)), "Got 5 dimensions instead"),
        (unread((3, 2, 8, 4, 5)), "Got 5 dimensions instead"),
        ([np.zeros((4, 5)), np.zeros((4, 6))], "Got 3 dimensions instead"),
        ([np.zeros((2, 4, 5)), np.zeros((1, 4, 6))], "differ in height and width only"),
        ([np.zeros((2, 4, 5)), np.zeros((4, 5))], "differ in height and width only"),
        (np.zeros((0, 2, 4, 5)), r"at least one sample.*\(0, 2, 4, 5\)"),
        (unread((0, 2, 4, 5)), r"at least one sample.*\(0, 2, 4, 5\)"),
        (np.zeros((1, 2, 0, 5)), r"at least one pixel.*\(1, 2, 0, 5\)"),
        ([], "Got 1 dimensions instead"),
        (None, "Got 0 dimensions instead"),
        (np.full((1, 2, 4, 5), np.nan), "contains NaN"),
        ([np.zeros((2, 4, 5)), np.full((2, 4, 6), np.inf)], "contains infinity"),
        (np.full((1, 2, 4, 5), "a"), "strings"),
        (np.full((1, 2, 4, 5), 1j), "Complex data not supported"),
    ],
)
def test_stacks_that_do_not_fit_are_refused(X, match):
    with pytest.raises(ValueError, match=match):
        check_stack(X, ndim=4, axes=AXES)
