import pickle

import numpy as np
import pytest
import torch
from lazy import OnDisk, objects, unread, unread_ragged

from sklearn_micranet._labels._images import read_images
from sklearn_micranet._labels._maps import read_maps

AXES = "(n_samples, n_classes, height, width)"


@pytest.mark.parametrize("sizes", [(9, 9), (9, 16)])
def test_object_arrays_are_the_lists_of_their_images(sizes):
    arrays = [np.full((12, n, 5), n) for n in sizes]
    checked = [
        (read_maps(X, ndim=4, axes=AXES), read_images(X, name="X", allow_ragged=True).stack)
        for X in (pickle.loads(pickle.dumps(objects(*arrays))), arrays)
    ]
    for of_objects, of_list in zip(*checked, strict=True):
        assert type(of_objects) is type(of_list)
        assert len(of_objects) == len(of_list) == 2
        for one, other in zip(of_objects, of_list, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


def test_stacks_are_passed_on_unread():
    stack = unread()
    assert read_maps(stack, ndim=4, axes=AXES) is stack
    assert read_maps(unread_ragged(), ndim=4, axes=AXES).is_ragged
    on_disk = OnDisk(np.zeros((3, 2, 4, 5)))
    assert read_maps(on_disk, ndim=4, axes=AXES).source is on_disk


def test_arrays_and_lists_of_one_size_become_one_array():
    array = np.ones((3, 2, 4, 5))
    assert read_maps(array, ndim=4, axes=AXES).source is array
    for X in (list(array), array.tolist(), torch.from_numpy(array)):
        checked = read_maps(X, ndim=4, axes=AXES)
        assert checked.shape == array.shape
        np.testing.assert_array_equal(checked.computed(), array)


def test_lists_of_different_sizes_become_ragged_stacks():
    X = [np.ones((2, 4, 5)), np.ones((2, 6, 7))]
    checked = read_maps(X, ndim=4, axes=AXES)
    assert isinstance(checked.computed(), list)
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
        read_maps(X, ndim=4, axes=AXES)
