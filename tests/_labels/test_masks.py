import numpy as np
import pytest
import torch
from lazy import objects

from sklearn_micranet._labels._masks import are_masks, check_masks
from sklearn_micranet._stack._lazy_stack import as_stack


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.zeros((2, 1, 4, 5), dtype=bool), True),
        (torch.zeros(2, 1, 4, 5), True),
        ([np.zeros((1, 4, 5)), np.zeros((1, 6, 5))], True),
        (np.zeros((2, 1, 4, 5), dtype=int).tolist(), True),
        (objects(np.zeros((1, 4, 5)), np.zeros((1, 6, 5))), True),
        (as_stack([np.zeros((1, 4, 5)), np.zeros((1, 6, 5))]), True),
        (as_stack([np.zeros((4, 5)), np.zeros((6, 5))]), False),
        ([["a", "b"], ["a"]], False),
        ([[["a"], ["b", "c"]]], False),
        (objects(np.zeros((0, 3)), np.zeros((2, 3))), False),
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


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, ">u2"])
def test_instances_cover_what_their_masks_do(dtype):
    instances = np.array([[[[0, 7], [2, 0]]]], dtype=dtype)
    assert check_masks(instances, [None], (2, 2)).tolist() == [[[[False, True], [True, False]]]]


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
        (np.full((3, 2, 4, 5), -1), "instances must be integers that are not negative"),
        (np.zeros((3, 4, 5, 2)), r"Got \(5, 2\) instead.*pass `np.moveaxis\(masks, -1, 1\)`"),
        (np.full((3, 2, 4, 5), 0.5), "bool, or hold 0 and 1 only.*pass `masks > 0`"),
        (np.full((3, 2, 4, 5), np.nan), "bool, or hold 0 and 1 only"),
        (np.full((3, 2, 4, 5), "a"), "bool, or hold 0 and 1 only"),
        (
            [np.zeros((2, 4, 5)), np.zeros((2, 4, 6))],
            r"shape .n_classes, height, width.. Got the shapes \[\(2, 4, 5\), \(2, 4, 6\)\]",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, match):
    with pytest.raises(ValueError, match=match):
        check_masks(masks, [None] * 3, (4, 5), n_classes=2)
