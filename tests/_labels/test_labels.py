import warnings

import numpy as np
import pandas as pd
import pytest
from lazy import objects
from scipy.sparse import csr_array
from sklearn.exceptions import DataConversionWarning

from sklearn_micranet._labels._images import Images
from sklearn_micranet._labels._labels import labels_from_masks, read_labels, read_plain_labels
from sklearn_micranet._stack._lazy_stack import as_stack

INDICATOR = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]])


NAMES = r"collection of labels for each image instead: pass .*MultiLabelBinarizer\(\)"


def checked(y, n_samples=3):
    return read_plain_labels(y, n_samples, name="MicraNetClassifier")


@pytest.mark.parametrize(
    "y",
    [
        INDICATOR,
        INDICATOR.astype(bool),
        INDICATOR.astype(np.uint8),
        INDICATOR.astype(float),
        INDICATOR.tolist(),
        csr_array(INDICATOR),
        pd.DataFrame(INDICATOR, columns=["a", "b", "c"]),
    ],
)
def test_indicator_matrices_become_integers(y):
    labels = checked(y)
    assert labels.dtype == int
    assert labels.tolist() == INDICATOR.tolist()


@pytest.mark.parametrize(
    "y",
    [
        ["cat", "dog", "cat"],
        np.array(["cat", "dog", "cat"], dtype=object),
        pd.Series(["cat", "dog", "cat"]),
        pd.Series(["cat", "dog", "cat"], dtype="category"),
        [True, False, True],
        [-3, 70, 70],
        [1.0, 2.0, 1.0],
        np.array([1, 2, 1], dtype=object),
        pd.Series([1, 2, 1], dtype=object),
        pd.Series(["cat", "dog", "cat"], dtype="string"),
        pd.Series([1, 2, 1], dtype="Int64"),
        np.array(["cat", "dog", "cat"], dtype=np.dtypes.StringDType()),
    ],
)
def test_class_labels_are_left_as_they_are(y):
    assert checked(y).tolist() == list(y)


def test_numbers_in_arrays_of_objects_become_numbers():
    assert checked(np.array([1, 2, 1], dtype=object)).dtype.kind == "i"
    assert checked(np.array([True, False, True], dtype=object)).dtype == bool


def test_a_column_of_labels_is_flattened_with_a_warning():
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        assert checked([[0], [1], [1]]).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (None, "requires y to be passed, but the target y is None"),
        ([0, 1], r"inconsistent numbers of samples: \[3, 2\]"),
        (INDICATOR[:2], r"inconsistent numbers of samples: \[3, 2\]"),
        ([0.0, np.nan, 1.0], "y contains NaN, None or NA 1 time.*leave out the images"),
        (["a", None, "b"], "y contains NaN, None or NA 1 time"),
        (pd.Series([0, pd.NA, pd.NA], dtype="Int64"), "y contains NaN, None or NA 2 time"),
        (pd.Series(["a", "b", pd.NA], dtype="string"), "y contains NaN, None or NA 1 time"),
        (["a", 1, 2], "labels of one type"),
        (objects("a", 1, 2), "labels of one type"),
        (
            np.array(["a", None, "b"], dtype=np.dtypes.StringDType(na_object=None)),
            "y contains NaN, None or NA 1 time",
        ),
        ([["a", "b"], ["a"], []], NAMES),
        ([("a", "b"), ("a", "c"), ("b", "c")], NAMES),
        ([{"a", "b"}, {"a"}, set()], NAMES),
        ([[0, 1], [0], []], NAMES),
        (pd.Series([["a", "b"], ["a"], []]), NAMES),
        (objects(["a", "b"], ["a"], []), NAMES),
        ([[[0, 1, 2]], [], [[1, 3, 4]]], "Got positions of objects.*extract_crops"),
        (np.zeros((3, 1, 3)), "Unknown label type"),
        (np.zeros((3, 8, 9), dtype=bool), r"\(8, 9\) instead: pass `y\[:, np.newaxis\]`"),
        (np.full((3, 8, 9), 255), r"pass `\(y > 0\)\[:, np.newaxis\]`"),
        ([np.ones((8, 9))] * 3, r"pass `\[mask\[np.newaxis\] for mask in y\]`"),
        (
            [np.full((8, 9 + i), 255) for i in range(3)],
            r"`\[\(mask > 0\)\[np.newaxis\] for mask in y\]`",
        ),
        (as_stack([np.ones((8, 9)), np.ones((9, 9))]), r"pass `\[mask\[np.newaxis\] for mask"),
        ([0.5, 1.5, 2.5], "Unknown label type: continuous"),
        (INDICATOR / 2, "Unknown label type: continuous-multioutput"),
        (INDICATOR + 1, "indicator matrix of 0 and 1 .* several columns of other values"),
        (2 * INDICATOR - 1, "indicator matrix of 0 and 1 .* several columns of other values"),
        ([[0, 1], [2, 3], [0, 0]], "indicator matrix of 0 and 1 .* several columns of other"),
        (np.array([["a", "b"]] * 3), "indicator matrix of 0 and 1 .* several columns of other"),
        (np.zeros((3, 2, 2), dtype=int), "Unknown label type"),
        (np.zeros((3, 0), dtype=int), r"0 feature\(s\)"),
        ([], "0 sample"),
    ],
)
def test_labels_that_do_not_fit_are_refused(y, match):
    with pytest.raises(ValueError, match=match):
        checked(y)


@pytest.mark.parametrize("y", [1, "cells", {0: "a"}, (label for label in "abc")])
def test_what_is_no_sequence_of_labels_is_refused(y):
    with pytest.raises(TypeError, match="a label for each image, in an array or a list"):
        checked(y)


def test_masks_become_labels_by_their_coverage():
    masks = np.zeros((2, 3, 10, 10), dtype=bool)
    masks[0, 0, 0, :7] = True  # 7 %
    masks[0, 1, 0, :6] = True  # 6 %
    masks[1, 0, 9, 9] = True  # 1 %
    masks[1, 1] = True  # 100 %
    assert labels_from_masks(masks).tolist() == [[1, 1, 0], [1, 1, 0]]
    # Exactly 7 %, although 0.07 * 100 is more than 7 in floating point.
    assert labels_from_masks(masks, 0.07).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert labels_from_masks(masks, 0.071).tolist() == [[0, 0, 0], [0, 1, 0]]
    assert labels_from_masks(masks, 1.0).tolist() == [[0, 0, 0], [0, 1, 0]]


def test_masks_of_other_shapes_cover_their_own_image():
    masks = np.zeros((1, 1, 2, 50), dtype=bool)
    masks[0, 0, 1, :5] = True
    assert labels_from_masks(masks, 0.05).tolist() == [[1]]
    assert labels_from_masks(masks, 0.06).tolist() == [[0]]


def masks_of_sizes(*sizes):
    """Masks of one class in images of 20 x 40 px, of so many px each."""
    masks = np.zeros((len(sizes), 1, 800), dtype=bool)
    for mask, size in zip(masks, sizes, strict=True):
        mask[0, :size] = True
    return masks.reshape(-1, 1, 20, 40)


def read_masks(*sizes, **parameters):
    images = Images(np.zeros((len(sizes), 20, 40)), 1)
    return read_labels(masks_of_sizes(*sizes), images, name="X", **parameters).y.tolist()


def test_small_masks_are_not_lost_in_silence():
    with warnings.catch_warnings(action="error"):
        assert read_masks(0, 3, 40, 400) == [0, 0, 1, 1]
        assert read_masks(0, 3, 40, 400, min_coverage=0) == [0, 1, 1, 1]
        assert read_masks(0, 3, 40, 400, min_coverage=0.5) == [0, 0, 0, 1]  # as was asked for
    with pytest.warns(UserWarning, match=r"2 of 3 masks of class 0 cover less .* Set min_cov") as w:
        assert read_masks(0, 3, 7, 400) == [0, 0, 0, 1]
    assert w[0].filename == __file__
