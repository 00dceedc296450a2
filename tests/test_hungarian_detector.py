import pickle

import numpy as np
import pytest
from cases import DETECTION_CASE, mask
from sklearn.base import clone

from sklearn_micranet import HungarianDetector
from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet.metrics import detection_scores

# Per class: a 2x3 and a 1x1 object, and three pixels that share corners only.
DRAWINGS = [
    mask(
        "###...",
        "###...",
        "......",
        ".....#",
    ),
    mask(
        "#.....",
        ".#....",
        "..#...",
        "......",
    ),
]
MASKS = np.stack(DRAWINGS)[np.newaxis]


def segments():
    """Give the pixels of the drawings values."""
    values = np.zeros(MASKS.shape, dtype=np.float32)
    values[MASKS] = -1.5  # feature maps may be negative inside a mask
    values[0, 0, 1, 2] = 0.75  # the maximum of the first object
    values[0, 0, 3, 5] = 0.25
    values[0, 1, 1, 1] = -0.5
    return values


EXPECTED = [
    [0, 0.5, 1, 0.75],  # class, row, column, score
    [0, 3, 5, 0.25],
    [1, 1, 1, -0.5],
]


def test_detections_by_hand():
    (detections,) = HungarianDetector().predict(segments())
    assert detections.dtype == np.float64
    np.testing.assert_allclose(detections, EXPECTED)


def test_the_centroid_is_that_of_the_pixels_not_of_their_values():
    (detections,) = HungarianDetector().predict([[[[0, 1, 9, 1e-9, 0]]]])
    np.testing.assert_allclose(detections, [[0, 0, 2, 9]])


def test_masks_have_the_score_1():
    for masks in (MASKS, MASKS.astype(np.uint8)):
        (detections,) = HungarianDetector().predict(masks)
        np.testing.assert_allclose(detections[:, :3], np.array(EXPECTED)[:, :3])
        np.testing.assert_array_equal(detections[:, 3], 1)


def test_pixels_that_share_a_corner_are_one_object():
    (detections,) = HungarianDetector().predict([[mask("##..", "##..", "..##", "..##")]])
    np.testing.assert_allclose(detections, [[0, 1.5, 1.5, 1]])


def test_samples_without_objects_have_no_detections():
    X = np.concatenate([np.zeros((1, 2, 4, 6)), MASKS, np.zeros((1, 2, 4, 6))])
    detections = HungarianDetector().predict(X)
    assert isinstance(detections, list)
    assert [d.shape for d in detections] == [(0, 4), (3, 4), (0, 4)]
    assert {d.dtype for d in detections} == {np.dtype(np.float64)}


def test_counts_are_lengths():
    detections = HungarianDetector().predict(MASKS)[0]
    assert np.bincount(detections[:, 0].astype(int)).tolist() == [2, 1]


def test_lists_and_lazy_stacks_of_different_sizes():
    X = [MASKS[0], MASKS[0, :, :3, :4]]
    expected = [HungarianDetector().predict(x[np.newaxis])[0] for x in X]
    assert [len(d) for d in expected] == [3, 2]
    for source in (X, LazyStack(X, list, item_shape=None)):
        detections = HungarianDetector().fit(source).predict(source)
        for found, truth in zip(detections, expected, strict=True):
            np.testing.assert_array_equal(found, truth)


def refuse(batch):
    raise AssertionError("A sample was read.")


def unread(shape=(3, 2, 12, 12)):
    return LazyStack(np.zeros(shape), refuse, item_shape=shape[1:])


def test_predict_reads_a_lazy_stack_batch_by_batch():
    sizes = []

    def record(batch):
        sizes.append(len(batch))
        return batch

    X = np.repeat(MASKS, 5, axis=0)
    stack = LazyStack(X, record, item_shape=X.shape[1:], dtype=bool, batch_size=2)
    assert [len(d) for d in HungarianDetector().fit(stack).predict(stack)] == [3] * 5
    assert sizes == [2, 2, 1]


# --- score ----------------------------------------------------------------------------------


def dots(rows, shape=(2, 40, 40)):
    """Draw single pixels at (class index, row, column)."""
    drawing = np.zeros(shape, dtype=bool)
    for k, row, column, *_ in rows:
        drawing[k, row, column] = True
    return drawing


def test_score_on_points_by_hand():
    # Found: (0, 10, 10) and (1, 20, 20). Missed: (0, 30, 30). Invented: (1, 2, 2) in sample 1.
    X = np.stack([dots([(0, 11, 11), (1, 20, 20)]), dots([(1, 2, 2)])])
    points = [[[0, 10, 10], [0, 30, 30], [1, 20, 20]], []]
    assert HungarianDetector(max_distance=2).score(X, points) == pytest.approx(4 / (4 + 1 + 1))


def test_score_of_a_case_with_doubles_and_confused_classes():
    case = DETECTION_CASE
    X = np.stack([dots(rows) for rows in case.points_pred])
    tp, fp, fn = case.n_true_positives, case.n_false_positives, case.n_false_negatives
    # Two of its detections are 2 px apart, so they stay two objects.
    score = HungarianDetector(max_distance=case.max_distance).score(X, case.points_true)
    assert score == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_score_on_masks_matches_the_centroids_of_their_components():
    true = np.zeros((1, 2, 20, 20), dtype=bool)
    true[0, 0, 2:7, 2:7] = True  # centroid (4, 4)
    true[0, 1, 10:13, 10:13] = True  # centroid (11, 11)
    X = np.zeros(true.shape)
    X[0, 0, 4, 7] = 0.3  # 3 px away, and outside the mask
    X[0, 0, 11, 11] = 0.9  # right, but for the class
    for y in (true, true.astype(int), list(true), true.tolist()):
        assert HungarianDetector(max_distance=3).score(X, y) == pytest.approx(2 / (2 + 1 + 1))
        assert HungarianDetector(max_distance=2.9).score(X, y) == 0


def test_segments_score_perfectly_against_themselves():
    assert HungarianDetector(max_distance=0).score(segments(), MASKS) == 1


@pytest.mark.parametrize(("max_distance", "score"), [(5, 1), (4.999, 0), (100, 1)])
def test_max_distance_is_inclusive(max_distance, score):
    X = dots([(0, 4, 5)])[np.newaxis]
    assert HungarianDetector(max_distance=max_distance).score(X, [[[0, 1, 1]]]) == score


def test_classes_are_not_matched_with_each_other():
    X = dots([(0, 5, 5)])[np.newaxis]
    assert HungarianDetector().score(X, [[[1, 5, 5]]]) == 0
    assert HungarianDetector().score(X, [[[0, 5, 5]]]) == 1


def test_samples_are_not_matched_with_each_other():
    X = np.stack([dots([(0, 5, 5)]), dots([])])
    assert HungarianDetector().score(X, [[], [[0, 5, 5]]]) == 0


def test_each_object_is_matched_once():
    X = dots([(0, 5, 5), (0, 5, 7), (0, 5, 9)])[np.newaxis]
    assert HungarianDetector().score(X, [[[0, 5, 6]]]) == pytest.approx(2 / (2 + 2))


def test_score_without_objects():
    nothing, something = np.zeros((1, 2, 9, 9)), dots([(0, 5, 5)], (2, 9, 9))[np.newaxis]
    assert HungarianDetector().score(nothing, [[]]) == 1
    assert HungarianDetector().score(nothing, nothing.astype(bool)) == 1
    assert HungarianDetector().score(nothing, something) == 0
    assert HungarianDetector().score(something, nothing.astype(bool)) == 0


def test_score_on_points_of_images_of_different_sizes():
    X = [dots([(0, 5, 5)], (1, 9, 9)), dots([(0, 1, 6)], (1, 4, 8))]
    assert HungarianDetector().score(X, [[[0, 5, 5]], [[0, 1, 6]]]) == 1
    with pytest.raises(ValueError, match=r"images of different sizes.*pass the true positions"):
        HungarianDetector().score(X, X)


def test_score_agrees_with_the_metric():
    rng = np.random.default_rng(0)
    X = rng.random((4, 2, 30, 30)) > 0.97
    points = [np.c_[rng.integers(2, size=20), rng.uniform(0, 30, (20, 2))] for _ in X]
    expected = detection_scores(points, HungarianDetector().predict(X), max_distance=2.5).f1
    assert 0.2 < expected < 0.9
    assert HungarianDetector(max_distance=2.5).score(X, points) == expected


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.zeros((3, 2, 12, 11), dtype=bool), r"height and width of the images, \(12, 12\)"),
        (np.zeros((3, 1, 12, 12), dtype=bool), "one channel per class, 2 in all"),
        (np.zeros((2, 2, 12, 12), dtype=bool), "inconsistent numbers of samples"),
        (np.full((3, 2, 12, 12), 7), "0 and 1 only"),
        ([[[0, 1, 1]]], "one array for each sample"),
        ([[[0, 1]], [], []], r"points_true\[0\] must have 3 columns"),
        ([[[0.5, 1, 1]], [], []], "class indices"),
        ([[[0, np.nan, 1]], [], []], "contains NaN"),
        ("abc", "could not convert string"),
        ([0, 1, 1], "Expected 2D array"),
    ],
)
def test_truth_that_does_not_fit_is_refused_before_anything_is_computed(y, match):
    with pytest.raises(ValueError, match=match):
        HungarianDetector().score(unread(), y)


# --- manners --------------------------------------------------------------------------------


@pytest.mark.parametrize("max_distance", [-1, np.nan, "far", None])
def test_wrong_parameters_are_refused(max_distance):
    detector = HungarianDetector(max_distance=max_distance)
    for method in (detector.fit, detector.predict):
        with pytest.raises(ValueError, match="'max_distance' parameter"):
            method(MASKS)
    with pytest.raises(ValueError, match="'max_distance' parameter"):
        detector.score(MASKS, MASKS)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (MASKS[0], r"\(n_samples, n_classes, height, width\). Got 3 dimensions"),
        (np.full((1, 1, 4, 4), np.nan), "contains NaN"),
        (np.zeros((0, 1, 4, 4)), "at least one sample"),
        ("text", "strings"),
    ],
)
def test_wrong_segments_are_refused(X, match):
    for method in ("fit", "predict"):
        with pytest.raises(ValueError, match=match):
            getattr(HungarianDetector(), method)(X)


def test_computed_segments_of_different_sizes_and_wrong_dimensions_are_refused():
    stack = LazyStack([np.zeros((2, 8, 6, 5)), np.zeros((2, 8, 4, 5))], list, item_shape=None)
    with pytest.raises(ValueError, match=r"n_classes, height, width\). Got 5 dimensions instead"):
        HungarianDetector().predict(stack)


def test_fit_reads_and_learns_nothing():
    detector = HungarianDetector()
    assert detector.fit(unread(), y="ignored") is detector
    assert vars(detector) == {"max_distance": 10.0}


def test_the_input_is_left_as_it_is():
    X = segments()
    X.setflags(write=False)
    detector = HungarianDetector().fit(X)
    detector.predict(X)
    detector.score(X, MASKS)
    np.testing.assert_array_equal(X, segments())


def test_order_does_not_matter():
    X = np.stack([dots([(0, 5, 5)]), dots([(1, 2, 2), (1, 8, 8)])])
    forward, backward = HungarianDetector().predict(X), HungarianDetector().predict(X[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_clone_and_pickle():
    detector = HungarianDetector(max_distance=3)
    for copy in (clone(detector), pickle.loads(pickle.dumps(detector))):
        assert copy.get_params() == {"max_distance": 3}
        np.testing.assert_array_equal(copy.predict(MASKS)[0], detector.predict(MASKS)[0])
