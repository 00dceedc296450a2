from time import process_time

import numpy as np
import pytest
from cases import DETECTION_CASE
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial.distance import cdist
from sklearn.metrics import precision_recall_curve

from sklearn_micranet.metrics import (
    detection_precision_recall_curve,
    detection_scores,
    match_points,
)

OBJECT = [[0, 5, 5]]


def test_known_answer():
    scores = detection_scores(
        DETECTION_CASE.points_true,
        DETECTION_CASE.points_pred,
        max_distance=DETECTION_CASE.max_distance,
    )
    assert scores == {
        "precision": pytest.approx(3 / 6),
        "recall": pytest.approx(3 / 4),
        "f1": pytest.approx(6 / 10),
        "n_true_positives": DETECTION_CASE.n_true_positives,
        "n_false_positives": DETECTION_CASE.n_false_positives,
        "n_false_negatives": DETECTION_CASE.n_false_negatives,
    }


def test_scores_of_detections_play_no_part():
    without_scores = [np.reshape(rows, (-1, 4))[:, :3] for rows in DETECTION_CASE.points_pred]
    with_scores = detection_scores(
        DETECTION_CASE.points_true, DETECTION_CASE.points_pred, max_distance=3
    )
    assert (
        detection_scores(DETECTION_CASE.points_true, without_scores, max_distance=3) == with_scores
    )


@pytest.mark.parametrize(("max_distance", "n_found"), [(0.9, 0), (1, 3), (2, 4)])
def test_max_distance_is_inclusive(max_distance, n_found):
    points_true = [[[0, 10, 10], [0, 20, 20], [1, 10, 10], [1, 20, 20]]]
    points_pred = [[[0, 11, 10], [0, 20, 19], [1, 9, 10], [1, 20, 22]]]
    scores = detection_scores(points_true, points_pred, max_distance=max_distance)
    assert scores.n_true_positives == n_found


@pytest.mark.parametrize(
    "nothing", [[], [[]], [[], []], [np.empty((0, 3))]], ids=["no sample", "one", "two", "array"]
)
@pytest.mark.parametrize("zero_division", [0.0, 1.0, np.nan])
def test_nothing_to_find_and_nothing_detected(nothing, zero_division):
    scores = detection_scores(nothing, nothing, max_distance=3, zero_division=zero_division)
    values = [scores.precision, scores.recall, scores.f1]
    np.testing.assert_array_equal(values, [zero_division] * 3)
    assert scores.n_true_positives == scores.n_false_positives == scores.n_false_negatives == 0


def test_nothing_to_find_and_nothing_detected_is_right_by_default():
    assert detection_scores([[]], [[]], max_distance=3).f1 == 1.0


@pytest.mark.parametrize("zero_division", [1.0, np.nan])
def test_nothing_detected(zero_division):
    scores = detection_scores([OBJECT], [[]], max_distance=3, zero_division=zero_division)
    assert (scores.precision, scores.recall, scores.f1) == (0, 0, 0)
    assert (scores.n_false_positives, scores.n_false_negatives) == (0, 1)


@pytest.mark.parametrize("zero_division", [1.0, np.nan])
def test_nothing_to_find(zero_division):
    scores = detection_scores([[]], [OBJECT], max_distance=3, zero_division=zero_division)
    assert (scores.precision, scores.recall, scores.f1) == (0, 0, 0)
    assert (scores.n_false_positives, scores.n_false_negatives) == (1, 0)


def test_wrong_arrays_raise():
    with pytest.raises(ValueError, match=r"each sample of points_true, 2\. Got 1"):
        detection_scores([OBJECT, OBJECT], [OBJECT], max_distance=3)
    with pytest.raises(ValueError, match=r"points_true\[0\] must have 3 columns.*Got 4"):
        detection_scores([[[0, 5, 5, 0.9]]], [OBJECT], max_distance=3)
    with pytest.raises(ValueError, match=r"points_pred\[1\] must have 3 or 4 columns.*Got 2"):
        detection_scores([OBJECT, OBJECT], [OBJECT, [[5, 5]]], max_distance=3)
    with pytest.raises(ValueError, match=r"Input points_pred\[0\] contains NaN"):
        detection_scores([OBJECT], [[[0, 5, np.nan]]], max_distance=3)


@pytest.mark.parametrize("class_index", [0.5, -1])
def test_wrong_class_index_raises(class_index):
    with pytest.raises(ValueError, match=r"first column of points_pred\[0\] .* whole numbers"):
        detection_scores([OBJECT], [[[class_index, 5, 5]]], max_distance=3)


def test_truth_may_be_masks_or_instances():
    true = np.zeros((2, 1, 9, 9), int)
    true[0, 0, 1:4, 1:4], true[0, 0, 1:4, 4:7] = 1, 2  # they touch
    found = [[[0, 2, 2, 0.9], [0, 2, 5, 0.8]], []]
    for truth, n_objects in ((true, 2), ([*true], 2), (true > 0, 1)):
        scores = detection_scores(truth, found, max_distance=2)
        assert (scores.n_true_positives, scores.n_false_negatives) == (n_objects, 0)
        _, recall, _ = detection_precision_recall_curve(truth, found, max_distance=2)
        assert_array_equal(recall, [1, 1 / n_objects, 0])


def test_wrong_parameters_raise_even_without_points():
    with pytest.raises(ValueError, match="max_distance must be at least 0"):
        detection_scores([], [], max_distance=-1)
    with pytest.raises(TypeError, match="zero_division must be an instance of"):
        detection_scores([], [], max_distance=3, zero_division="warn")


# --- precision-recall curve -----------------------------------------------------------------


def test_known_curve():
    precision, recall, thresholds = detection_precision_recall_curve(
        DETECTION_CASE.points_true, DETECTION_CASE.points_pred, max_distance=3
    )
    # From the most certain detection on: right, wrong, right, right, wrong, wrong; of 4 objects.
    assert_array_equal(thresholds, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert_allclose(precision, [3 / 6, 3 / 5, 3 / 4, 2 / 3, 1 / 2, 1, 1])
    assert_allclose(recall, [3 / 4, 3 / 4, 3 / 4, 2 / 4, 1 / 4, 1 / 4, 0])


def test_each_threshold_is_matched_anew():
    points_true, points_pred = [OBJECT], [[[0, 5, 7, 0.9], [0, 5, 6, 0.5]]]
    scores = detection_scores(points_true, points_pred, max_distance=3)
    _, taken = match_points([[5, 5]], [[5, 7], [5, 6]], max_distance=3)
    assert taken.tolist() == [1]  # premise: of both detections, the uncertain one is taken
    precision, recall, _ = detection_precision_recall_curve(
        points_true, points_pred, max_distance=3
    )
    assert_array_equal(precision, [scores.precision, 1, 1])
    assert_array_equal(recall, [scores.recall, 1, 0])


def random_points(rng, *, with_scores):
    """Return crowded points of three samples and classes, a score being that of several."""
    samples = []
    for n in rng.integers(0, 15, 3):
        rows = [rng.integers(0, 3, n), *rng.integers(0, 17, (2, n)) / 2]
        samples.append(np.column_stack([*rows, rng.integers(0, 6, n) / 5] if with_scores else rows))
    return samples


def most_pairs(objects, detections, max_distance):
    """Count the pairs of one sample with another algorithm, that of Hopcroft and Karp."""
    if not (len(objects) and len(detections)):
        return 0
    same_class = objects[:, :1] == detections[:, 0]
    near = cdist(objects[:, 1:3], detections[:, 1:3]) <= max_distance
    return (maximum_bipartite_matching(csr_array(same_class & near)) >= 0).sum()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 0.5, 1, 2, 4, np.inf]))
@settings(deadline=None, max_examples=30)
def test_curve_is_that_of_one_matching_for_each_threshold(seed, max_distance):
    rng = np.random.default_rng(seed)
    points_true = random_points(rng, with_scores=False)
    points_pred = random_points(rng, with_scores=True)
    assume(sum(map(len, points_true)) > 0)
    assume(sum(map(len, points_pred)) > 0)
    precision, recall, thresholds = detection_precision_recall_curve(
        points_true, points_pred, max_distance=max_distance
    )
    assert_array_equal(thresholds, np.unique(np.concatenate(points_pred)[:, 3]))
    assert len(precision) == len(recall) == len(thresholds) + 1
    assert (precision[-1], recall[-1]) == (1, 0)
    for i, threshold in enumerate(thresholds):
        kept = [rows[rows[:, 3] >= threshold] for rows in points_pred]
        scores = detection_scores(points_true, kept, max_distance=max_distance)
        assert_allclose((precision[i], recall[i]), (scores.precision, scores.recall))
        n_pairs = sum(
            most_pairs(*points, max_distance) for points in zip(points_true, kept, strict=True)
        )
        assert scores.n_true_positives == n_pairs
    assert (np.diff(recall) <= 0).all()


def test_curve_of_well_separated_objects_is_that_of_a_classifier():
    rng = np.random.default_rng(0)
    is_object, scores = rng.random(50) < 0.4, rng.integers(0, 20, 50) / 20
    points = np.column_stack([np.zeros(50), np.arange(50) * 10, np.zeros(50)])
    found = detection_precision_recall_curve(
        [points[is_object]], [np.column_stack([points, scores])], max_distance=3
    )
    for array, expected in zip(found, precision_recall_curve(is_object, scores), strict=True):
        assert_allclose(array, expected)


@pytest.mark.parametrize(("n_objects", "max_distance"), [(2000, 16), (600, np.inf)])
def test_curve_of_many_objects_takes_less_than_a_second(n_objects, max_distance):
    rng = np.random.default_rng(0)
    objects, detections = rng.uniform(0, 1000, (2, 2000, 2))
    objects, detections = (np.insert(points, 0, 0, axis=1) for points in (objects, detections))
    objects, detections = objects[:n_objects], np.column_stack([detections, rng.random(2000)])
    start = process_time()
    _, recall, thresholds = detection_precision_recall_curve(
        [objects], [detections], max_distance=max_distance
    )
    assert process_time() - start < 1
    assert len(thresholds) == 2000
    for i in (0, 500, 1500):
        kept = detections[detections[:, 3] >= thresholds[i]]
        assert recall[i] == most_pairs(objects, kept, max_distance) / n_objects


def test_curve_without_detections():
    for points_pred in ([[], []], [np.empty((0, 4)), []]):
        curve = detection_precision_recall_curve([OBJECT, []], points_pred, max_distance=3)
        assert [array.tolist() for array in curve] == [[1], [0], []]


def test_curve_without_objects_warns_as_scikit_learn_does():
    with pytest.warns(UserWarning, match="No positive class found"):
        expected = precision_recall_curve([0, 0], [0.5, 0.9])
    points_pred = [[[0, 5, 5, 0.5]], [[1, 5, 5, 0.9]]]
    with pytest.warns(UserWarning, match="no objects in points_true: recall is set to one") as w:
        curve = detection_precision_recall_curve([[], []], points_pred, max_distance=3)
    assert w[0].filename == __file__
    for array, other in zip(curve, expected, strict=True):
        assert_array_equal(array, other)
    with pytest.warns(UserWarning, match="no objects in points_true"):
        curve = detection_precision_recall_curve([], [], max_distance=3)
    assert [array.tolist() for array in curve] == [[1], [0], []]


@pytest.mark.parametrize(
    ("points_pred", "max_distance", "match"),
    [
        ([OBJECT], 3, r"points_pred\[0\] must have 4 columns.*Got 3"),
        ([[[0, 5, 5, np.nan]]], 3, r"Input points_pred\[0\] contains NaN"),
        ([[[0, 5, 5, np.inf]]], 3, r"Input points_pred\[0\] contains infinity"),
        ([[[0.5, 5, 5, 0.9]]], 3, r"first column of points_pred\[0\] .* whole numbers"),
        ([[], []], 3, r"each sample of points_true, 1\. Got 2"),
        ([[]], -1, "max_distance must be at least 0"),
    ],
)
def test_wrong_input_of_the_curve_raises(points_pred, max_distance, match):
    with pytest.raises(ValueError, match=match):
        detection_precision_recall_curve([OBJECT], points_pred, max_distance=max_distance)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([["cell", 1, 2]], r"the index of its map, .* Got 'cell' instead.*names\.index"),
        (np.zeros((8, 3), dtype=bool), r"masks of shape \(n_maps, .* Got some of shape \(8, 3\)"),
        (np.full((1, 8, 8), 0.5), "must hold masks, of dtype bool .*, or instances"),
        ([0, 1, 2], r"must be a table of shape .* Got the shape \(3,\)"),
    ],
)
def test_what_are_no_positions_is_refused_with_advice(rows, match):
    with pytest.raises((TypeError, ValueError), match=match):
        detection_scores([rows], [[]], max_distance=1)
