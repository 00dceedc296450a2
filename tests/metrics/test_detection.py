import numpy as np
import pytest
from cases import DETECTION_CASE

from sklearn_micranet.metrics import detection_scores

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


def test_wrong_parameters_raise_even_without_points():
    with pytest.raises(ValueError, match="max_distance must be at least 0"):
        detection_scores([], [], max_distance=-1)
    with pytest.raises(TypeError, match="zero_division must be an instance of"):
        detection_scores([], [], max_distance=3, zero_division="warn")
