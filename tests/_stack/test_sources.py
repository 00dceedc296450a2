import numpy as np
import pytest
import torch
from lazy import OnDisk, objects, unread, unread_ragged

from sklearn_micranet._stack._sources import is_lazy, is_ragged


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


def test_lazy_arrays_are_those_that_are_not_in_memory():
    assert is_lazy(unread())
    assert is_lazy(unread_ragged())
    assert is_lazy(OnDisk(np.zeros((2, 3, 4))))
    assert not is_lazy(OnDisk(np.zeros((2, 3))))  # a table
    assert not is_lazy(np.zeros((2, 3, 4)))
    assert not is_lazy(torch.zeros(2, 3, 4))
    assert not is_lazy([np.zeros((3, 4))])
