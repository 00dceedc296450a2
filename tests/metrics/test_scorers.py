import pickle

import numpy as np
import pytest
from cases import instances
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_micranet import HungarianDetector, ThresholdSegmenter
from sklearn_micranet.metrics import detection_scorer, instance_scorer, mask_scorer

# Two samples, one map. Touching objects; and an object of which one of two pixels is found.
TRUE = np.array([[instances("1122..", "1122..")], [instances("......", "11..22")]])
PRED = np.array([[instances("3344..", "3344..")], [instances("......", "5.....")]])
POINTS = [[[0, 0.5, 0.5], [0, 0.5, 2.5]], [[0, 1, 0.5], [0, 1, 4.5]]]


class Identity(BaseEstimator):
    """Predict X, with the numbers taken away if they are above `largest`."""

    def __init__(self, largest=9):
        self.largest = largest

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def predict(self, X):
        return self.predict_instances(X) > 0

    def predict_instances(self, X):
        return np.where(np.asarray(X) > self.largest, 0, X)


class Detector(BaseEstimator):
    """Predict points next to those in X, `shift` px to the right."""

    def __init__(self, shift=0.0):
        self.shift = shift

    def fit(self, X, y=None):
        return self

    def predict(self, X):
        return [np.array([[0, row, column + self.shift, 0.5] for _, row, column in x]) for x in X]


def test_masks():
    scorer = mask_scorer()
    assert scorer(Identity(), PRED, TRUE) == pytest.approx((1 + 1 / 4) / 2)
    assert mask_scorer("dice")(Identity(), PRED, TRUE) == pytest.approx((1 + 2 / 5) / 2)
    assert mask_scorer("boundary_dice")(Identity(), TRUE, TRUE) == 1
    assert 0 < mask_scorer("boundary_dice")(Identity(), PRED, TRUE) < 1
    assert scorer(Identity(), PRED, TRUE > 0) == scorer(Identity(), PRED, TRUE)


def test_masks_that_are_empty_on_both_sides_do_not_count():
    nothing = np.zeros_like(TRUE)
    both = [np.concatenate([x, nothing]) for x in (PRED, TRUE)]
    assert mask_scorer()(Identity(), *both) == mask_scorer()(Identity(), PRED, TRUE)
    assert mask_scorer()(Identity(), nothing, nothing) == 1
    assert mask_scorer()(Identity(), nothing[:0], nothing[:0]) == 1
    assert mask_scorer()(Identity(), nothing, TRUE) == 0


def test_mask_scorer_is_the_score_of_the_segmenter():
    rng = np.random.default_rng(0)
    feature_maps, masks = rng.random((3, 2, 8, 9)), rng.random((3, 2, 8, 9)) < 0.5
    segmenter = ThresholdSegmenter(method="fixed").fit(feature_maps)
    assert mask_scorer()(segmenter, feature_maps, masks) == pytest.approx(
        segmenter.score(feature_maps, masks)
    )


def test_instances():
    # Two objects are found, one has an overlap of 1/2, one is missed.
    assert instance_scorer()(Identity(), PRED, TRUE) == pytest.approx(6 / 7)
    assert instance_scorer("recall", threshold=0.6)(Identity(), PRED, TRUE) == pytest.approx(2 / 4)
    assert instance_scorer("panoptic_quality")(Identity(), PRED, TRUE) == pytest.approx(2.5 / 3.5)
    assert instance_scorer("average_precision")(Identity(), PRED, TRUE) == pytest.approx(
        (3 / 4 + 9 * 2 / 5) / 10
    )
    # The touching objects are one component of the mask: 1 of 2 pixels twice.
    assert instance_scorer("precision")(Identity(), PRED, TRUE > 0) == pytest.approx(2 / 3)


def test_instances_of_a_pipeline_and_of_a_search():
    double = FunctionTransformer(lambda X: X * 2)
    pipeline = make_pipeline(double, double, Identity(largest=12)).fit(PRED)
    scorer = instance_scorer("recall")
    assert scorer(pipeline, PRED, TRUE) == pytest.approx(1 / 4)  # 3 becomes 12, others more
    assert scorer(Pipeline([("only", Identity())]).fit(PRED), PRED, TRUE) == pytest.approx(3 / 4)
    search = GridSearchCV(Identity(), {"largest": [2, 9]}, scoring=scorer, cv=2).fit(PRED, TRUE)
    assert search.best_params_ == {"largest": 9}
    assert scorer(search, PRED, TRUE) == pytest.approx(3 / 4)


@pytest.mark.parametrize("y", [POINTS, TRUE, list(TRUE)], ids=["points", "instances", "list"])
def test_detections(y):
    scorer = detection_scorer(max_distance=0.8)
    assert scorer(Detector(), POINTS, y) == 1
    assert scorer(Detector(shift=0.8), POINTS, y) == 1
    assert scorer(Detector(shift=0.9), POINTS, y) == 0
    assert scorer(Detector(), [POINTS[0], []], y) == pytest.approx(2 / 3)


def test_detections_against_masks():
    # The touching objects are one component with the centroid (0.5, 1.5).
    scorer = detection_scorer(max_distance=1)
    assert scorer(Detector(), [[[0, 0.5, 1.5]], POINTS[1]], TRUE > 0) == 1
    segments = (TRUE > 0).astype(np.float32)
    assert scorer(HungarianDetector().fit(segments), segments, TRUE > 0) == 1


def test_a_search_cannot_buy_f1_with_the_tolerance_of_the_detector():
    segments = np.zeros((4, 1, 20, 20))
    segments[..., 4:7, 4:7] = 0.7  # centre at (5, 5)
    y, grid = [[[0, 5, 12]]] * 4, {"max_distance": [3, 10]}
    bought = GridSearchCV(HungarianDetector(), grid, cv=2).fit(segments, y)
    assert bought.cv_results_["mean_test_score"].tolist() == [0, 1]  # premise
    scorer = detection_scorer(max_distance=3)
    search = GridSearchCV(HungarianDetector(), grid, cv=2, scoring=scorer).fit(segments, y)
    assert search.cv_results_["mean_test_score"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("scorer", "estimator", "X"),
    [
        (detection_scorer(max_distance=2), Detector(), POINTS),
        (mask_scorer("dice"), Identity(), PRED),
        (instance_scorer("accuracy", threshold=0.4), Identity(), PRED),
    ],
    ids=repr,
)
def test_scorers_in_cross_validation_and_pickled(scorer, estimator, X):
    again = pickle.loads(pickle.dumps(scorer))
    assert repr(again) == repr(scorer)
    expected = [scorer(estimator, X[i : i + 1], TRUE[i : i + 1]) for i in (0, 1)]
    assert cross_val_score(estimator, X, TRUE, scoring=again, cv=2).tolist() == expected
    assert isinstance(scorer(estimator, X, TRUE), float)


def test_representation():
    assert repr(detection_scorer(max_distance=2)) == "detection_scorer(max_distance=2)"
    assert repr(instance_scorer()) == "instance_scorer(metric='f1', threshold=0.5)"


def test_images_of_different_sizes():
    true, pred = ([x[0], x[1, :, :, :5]] for x in (TRUE, PRED))

    class Lists(Identity):
        def predict_instances(self, X):
            return X

        def predict(self, X):
            return [x > 0 for x in X]

    assert mask_scorer()(Lists(), pred, true) == pytest.approx((1 + 1 / 3) / 2)
    assert instance_scorer()(Lists(), pred, true) == pytest.approx(6 / 7)


def test_wrong_parameters_raise():
    with pytest.raises(ValueError, match="max_distance must be at least 0"):
        detection_scorer(max_distance=-1)
    with pytest.raises(ValueError, match="The 'metric' parameter of mask_scorer must be a str"):
        mask_scorer("f1")
    with pytest.raises(ValueError, match="The 'metric' parameter of instance_scorer must be a str"):
        instance_scorer("tp")
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        instance_scorer(threshold=0)
    with pytest.raises(TypeError, match="threshold must be one number"):
        instance_scorer(threshold=[0.5, 0.6])


def test_estimators_that_predict_something_else_raise():
    with pytest.raises(TypeError, match="needs an estimator whose predict returns detections"):
        detection_scorer(max_distance=1)(Identity(), TRUE, TRUE)
    with pytest.raises(ValueError, match=r"predict returns masks.*\(1, 2, 6\) for sample 0\. Got"):
        mask_scorer()(Detector(), POINTS, TRUE)
    with pytest.raises(ValueError, match=r"of the shapes of y\. Got 1 samples for 2 instead"):
        mask_scorer()(Identity(), TRUE[:1], TRUE)
    with pytest.raises(TypeError, match=r"method predict_instances\. Got Detector instead"):
        instance_scorer()(make_pipeline(Detector()), POINTS, TRUE)


def test_truth_of_the_wrong_kind_raises_before_anything_is_predicted():
    class Untouched:
        def predict(self, X):
            raise AssertionError("predict must not be called")

        predict_instances = predict

    with pytest.raises(ValueError, match=r"pass `y\[:, np.newaxis\]`"):
        detection_scorer(max_distance=1)(Untouched(), [0], np.zeros((1, 8, 8), int))
    with pytest.raises(ValueError, match="y must hold masks or instances"):
        mask_scorer()(Untouched(), [0], POINTS[:1])
    with pytest.raises(ValueError, match="y must hold masks or instances"):
        instance_scorer()(Untouched(), [0], POINTS[:1])
