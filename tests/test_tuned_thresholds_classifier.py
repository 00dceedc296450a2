import warnings
from functools import partial
from unittest import SkipTest

import numpy as np
import pytest
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, fbeta_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    cross_val_predict,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    IntensityScaler,
    MicraNetClassifier,
    MicraNetEnsemble,
)
from sklearn_micranet._stack._lazy_stack import as_stack
from sklearn_micranet._tuned_thresholds_classifier import TunedThresholdsClassifierCV

FOLLOWS_THE_THRESHOLD = {
    "check_classifiers_train": "predictions follow the tuned threshold, not a probability of 0.5"
}
OF_A_NETWORK = {
    "check_sample_weight_equivalence_on_dense_data": (
        "An image that is repeated is in other batches than one of twice the weight."
    )
}
QUICK_NETWORK = MicraNetClassifier(
    n_filters=4, max_epochs=6, lr=2e-2, batch_size=16, random_state=0
)


@parametrize_with_checks(
    [
        TunedThresholdsClassifierCV(LogisticRegression(), cv=3),
        # With 0.5 as the only candidate, all of scikit-learn's checks must hold.
        TunedThresholdsClassifierCV(QUICK_NETWORK, thresholds=[0.5], cv=0.3, refit=False),
    ],
    expected_failed_checks=lambda estimator: (
        FOLLOWS_THE_THRESHOLD if estimator.thresholds == 100 else OF_A_NETWORK
    ),
)
def test_scikit_learn_checks(estimator, check):
    try:
        check(estimator)
    except SkipTest as reason:
        pytest.fail(f"A check was skipped: {reason}")


MULTILABEL = make_multilabel_classification(150, n_classes=3, n_labels=1, random_state=0)
BINARY = make_classification(200, weights=[0.85], class_sep=0.7, random_state=0)
SKLEARN_SCORES = {
    "f1": f1_score,
    "balanced_accuracy": balanced_accuracy_score,
    "accuracy": accuracy_score,
}
LOGISTIC = OneVsRestClassifier(LogisticRegression())


class Known(ClassifierMixin, BaseEstimator):
    """Says the probabilities that it is given as X."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        X = np.asarray(X)
        return np.column_stack([1 - X, X]) if X.ndim == 1 else X


def tune(y, probabilities, *, classes=(0, 1), **params):
    """Tune for known probabilities, all of them held out."""
    known = Known().fit(None, classes)
    return TunedThresholdsClassifierCV(known, cv="prefit", **params).fit(probabilities, y)


def best_by_brute_force(y, probabilities, score):
    """Return the best score of all thresholds that find something."""
    return max(score(y, probabilities >= t) for t in np.unique(probabilities))


# --- the threshold of one class -------------------------------------------------------------


def test_separable_classes_are_cut_in_the_middle():
    tuned = tune([0, 1, 0, 1], [0.1, 0.6, 0.2, 0.9])
    assert_allclose(tuned.best_thresholds_, [0.4])
    assert_array_equal(tuned.best_scores_, [1])
    assert_array_equal(tuned.predict(np.array([0.39, 0.41])), [0, 1])


def test_a_number_of_candidates_is_spread_over_the_images_with_the_class():
    y = [0, 1, 1, 0, 1, 1, 1]
    probabilities = [0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    # the least, the middle and the most probable of five, each halfway to the next lower one
    results = tune(y, probabilities, thresholds=3, scoring="accuracy").cv_results_
    assert_allclose(results["thresholds"], [[(0.1 + 0.3) / 2, (0.5 + 0.6) / 2, (0.7 + 0.8) / 2]])
    assert_allclose(results["scores"], [[6 / 7, 5 / 7, 3 / 7]])


def test_the_least_probable_of_all_images_is_halfway_to_zero():
    assert_allclose(tune([1, 1, 0], [0.2, 0.9, 0.8]).best_thresholds_, [0.1])


def test_the_middle_of_equally_good_candidates_is_taken():
    candidates = [0.05, 0.2, 0.3, 0.4, 0.5, 0.55, 0.8]
    tuned = tune([0, 0, 1, 1], [0.0, 0.1, 0.6, 0.9], thresholds=candidates)
    assert_array_equal(tuned.best_thresholds_, [0.4])
    assert_array_equal(tuned.cv_results_["thresholds"], [candidates])
    assert_allclose(tuned.cv_results_["scores"], [[4 / 5, 1, 1, 1, 1, 1, 2 / 3]])


def test_the_widest_of_equally_good_ranges_is_taken():
    # The accuracy is 3/4 from thresholds in (0.1, 0.5] and in (0.6, 0.7], else 2/4.
    y, probabilities = [0, 1, 0, 1], [0.1, 0.5, 0.6, 0.7]
    for candidates, best in [([0.1, 0.12, 0.58, 0.69], 0.12), ([0.1, 0.12, 0.52, 0.69], 0.69)]:
        tuned = tune(y, probabilities, scoring="accuracy", thresholds=candidates)
        assert_array_equal(tuned.best_thresholds_, [best])


def test_candidates_may_come_in_any_order_and_twice():
    tuned = tune([0, 1], [0.2, 0.4], thresholds=[0.9, 0.3, 0.1, 0.3])
    assert_array_equal(tuned.cv_results_["thresholds"], [[0.1, 0.3, 0.9]])
    assert_array_equal(tuned.best_thresholds_, [0.3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_reported_score_is_that_of_the_predictions(dtype):
    """Also where probabilities are so close that rounding decides."""
    y = np.array([0, 1] * 20)
    probabilities = np.full(40, 1, dtype=dtype)
    probabilities[::2] = np.nextafter(dtype(1), dtype(0))
    probabilities[1::4] = np.nextafter(probabilities[0], dtype(0))
    tuned = tune(y, probabilities)
    assert tuned.best_scores_[0] == f1_score(y, tuned.predict(probabilities))


def test_candidates_are_compared_in_the_precision_of_the_probabilities():
    """As MicraNetClassifier does it: 0.7 is reached, though it is 0.69999999 in float32."""
    probabilities = np.array([0.2, 0.7], dtype=np.float32)
    tuned = tune([0, 1], probabilities, thresholds=[0.7])
    assert_array_equal(tuned.best_scores_, [1])
    assert_array_equal(tuned.predict(probabilities), [0, 1])


@pytest.mark.parametrize("scoring", SKLEARN_SCORES)
def test_thresholds_are_the_best_there_are(scoring):
    X, y = MULTILABEL
    fitted = clone(LOGISTIC).fit(X[:100], y[:100])
    tuned = TunedThresholdsClassifierCV(fitted, scoring=scoring, cv="prefit").fit(X[100:], y[100:])
    probabilities, predicted = fitted.predict_proba(X[100:]), tuned.predict(X[100:])
    score = SKLEARN_SCORES[scoring]
    for k in range(3):
        truth = y[100:, k]
        assert_allclose(
            tuned.best_scores_[k], best_by_brute_force(truth, probabilities[:, k], score)
        )
        assert_allclose(tuned.best_scores_[k], score(truth, predicted[:, k]))
        curve = [c[k, ::9] for c in tuned.cv_results_.values()]
        for threshold, result in zip(*curve, strict=True):
            assert_allclose(result, score(truth, probabilities[:, k] >= threshold))


def test_a_callable_is_what_is_maximised():
    X, y = MULTILABEL
    fitted = clone(LOGISTIC).fit(X[:100], y[:100])
    score = partial(fbeta_score, beta=2)
    tuned = TunedThresholdsClassifierCV(fitted, scoring=score, thresholds=30, cv="prefit")
    tuned.fit(X[100:], y[100:])
    assert y[100:].sum(axis=0).max() <= 30
    for k, p in enumerate(fitted.predict_proba(X[100:]).T):
        assert_allclose(tuned.best_scores_[k], best_by_brute_force(y[100:, k], p, score))


def test_a_callable_gets_zeros_and_ones_and_may_be_undefined():
    def score(y_true, y_pred):
        assert y_true.dtype.kind == y_pred.dtype.kind == "i"
        assert set(y_true) | set(y_pred) == {0, 1}
        return np.nan if y_pred.all() else np.mean(y_true == y_pred)

    y, probabilities = ["no", "yes", "yes"], [0.3, 0.2, 0.6]
    tuned = tune(y, probabilities, classes=["no", "yes"], scoring=score)
    assert_allclose(tuned.best_thresholds_, [0.45])
    assert_allclose(tuned.best_scores_, [2 / 3])
    undefined = tune([0, 1], [0.2, 0.3], scoring=lambda y_true, y_pred: np.nan)
    assert_array_equal(undefined.best_thresholds_, [0.5])


def test_classes_that_cannot_be_tuned_keep_one_half():
    y = np.array([[1, 0, 0], [1, 0, 1], [1, 0, 0]])
    probabilities = np.array([[0.9, 0.1, 0.1], [0.8, 0.1, 0.3], [0.3, 0.2, 0.2]])
    tuned = tune(y, probabilities, thresholds=4)
    assert_allclose(tuned.best_thresholds_, [0.5, 0.5, 0.25])
    assert_array_equal(tuned.best_scores_, [np.nan, np.nan, 1])
    assert_array_equal(np.isnan(tuned.cv_results_["scores"]).all(axis=1), [True, True, False])
    for given in ([0, 0], [1, 1]):
        assert_array_equal(tune(given, [0.2, 0.3]).best_thresholds_, [0.5])


def test_rare_classes_are_tuned_however_the_probabilities_are_spread():
    """Neither squeezing probabilities to 0 nor saturating them may change what is predicted."""
    rng = np.random.default_rng(0)
    y = np.zeros(2000, dtype=int)
    y[:20] = 1
    log_odds = rng.normal(2.5 * y, 1)
    predicted = []
    for scale, offset in [(1, 0), (1, -12), (3, -2)]:
        probabilities = 1 / (1 + np.exp(-(scale * log_odds + offset)))
        tuned = tune(y, probabilities, scoring="balanced_accuracy")
        predicted.append(tuned.predict(probabilities))
        assert balanced_accuracy_score(y, predicted[-1]) > 0.85
    assert_array_equal(predicted, predicted[:1] * 3)


# --- what is held out -----------------------------------------------------------------------


def test_only_held_out_images_count():
    """A classifier that learns by heart is perfect on what it saw, and guesses on the rest."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 5)), rng.integers(0, 2, 200)
    by_heart = KNeighborsClassifier(1)
    for cv, is_perfect in [("prefit", True), (5, False), (0.3, False), (KFold(3), False)]:
        estimator = by_heart.fit(X, y) if cv == "prefit" else by_heart
        tuned = TunedThresholdsClassifierCV(
            estimator, cv=cv, scoring="balanced_accuracy", random_state=0
        ).fit(X, y)
        assert tuned.best_scores_[0] == 1 if is_perfect else tuned.best_scores_[0] < 0.65


@pytest.mark.parametrize(("X", "y"), [BINARY, MULTILABEL], ids=["binary", "multilabel"])
def test_all_folds_are_scored_together(X, y):
    estimator = LogisticRegression() if y.ndim == 1 else LOGISTIC
    cv = KFold(4, shuffle=True, random_state=0)
    probabilities = cross_val_predict(estimator, X, y, cv=cv, method="predict_proba")
    if y.ndim == 1:
        y, probabilities = y[:, np.newaxis], probabilities[:, 1:]
    tuned = TunedThresholdsClassifierCV(estimator, cv=cv).fit(X, np.squeeze(y))
    assert len(tuned.best_thresholds_) == y.shape[1]
    for k in range(y.shape[1]):
        predicted = probabilities[:, k] >= tuned.best_thresholds_[k]
        assert_allclose(tuned.best_scores_[k], f1_score(y[:, k], predicted))
        curve = [c[k, ::20] for c in tuned.cv_results_.values()]
        for threshold, result in zip(*curve, strict=True):
            assert_allclose(result, f1_score(y[:, k], probabilities[:, k] >= threshold))


class Recorder(ClassifierMixin, BaseEstimator):
    """Notes which images it is fitted on, and which it is asked about."""

    log = []

    def fit(self, X, y):
        self.log.append(("fit", np.ravel(X).tolist()))
        self.fitted_on_ = np.ravel(X).tolist()
        self.classes_ = np.arange(2)
        return self

    def predict_proba(self, X):
        self.log.append(("ask", np.ravel(X).tolist()))
        return np.column_stack([1 - X / 100, X / 100])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(Recorder, "log", [])
    return Recorder()


NUMBERS = np.arange(40.0)[:, np.newaxis]


def held_out(log):
    return [images for what, images in log if what == "ask"]


@pytest.mark.parametrize("cv", [None, 4])
def test_folds_represent_every_class(recorder, cv):
    """Even if images are sorted by their labels, as those of one condition after another are."""
    n_folds = cv or 5
    y = np.zeros((40, 2), dtype=int)
    y[:20, 0] = 1
    y[:n_folds, 1] = 1
    TunedThresholdsClassifierCV(recorder, cv=cv, random_state=0).fit(NUMBERS, y)
    folds = held_out(recorder.log)
    assert len(folds) == n_folds
    assert sorted(np.concatenate(folds)) == list(range(40))
    for fold in folds:
        assert_array_equal(y[np.array(fold, dtype=int)].sum(axis=0), [20 // n_folds, 1])
        assert ("fit", [i for i in range(40) if i not in fold]) in recorder.log
    assert recorder.log[-1] == ("fit", list(range(40)))


def test_a_share_is_held_out_once(recorder):
    y = np.repeat([0, 1], [32, 8])
    tuned = TunedThresholdsClassifierCV(recorder, cv=0.25, random_state=0).fit(NUMBERS, y)
    (fold,) = held_out(recorder.log)
    assert_array_equal(np.bincount(y[np.array(fold, dtype=int)]), [8, 2])
    assert tuned.estimator_.fitted_on_ == list(range(40))
    tuned.set_params(refit=False).fit(NUMBERS, y)
    assert tuned.estimator_.fitted_on_ == [i for i in range(40) if i not in fold]


def test_splitters_and_splits_are_followed(recorder):
    y = np.tile([0, 1], 20)
    groups = np.arange(40) // 4
    for cv, source in [
        (KFold(4), KFold(4).split(NUMBERS)),
        (list(GroupKFold(5).split(NUMBERS, y, groups)), GroupKFold(5).split(NUMBERS, y, groups)),
        (iter([([0, 1, 2], [3, 4]), ([4, 5], [6, 7])]), [(None, [3, 4]), (None, [6, 7])]),
    ]:
        recorder.log.clear()
        TunedThresholdsClassifierCV(recorder, cv=cv).fit(NUMBERS, y)
        assert held_out(recorder.log) == [list(test) for _, test in source]
    TunedThresholdsClassifierCV(recorder, cv=ShuffleSplit(1), refit=False).fit(NUMBERS, y)


@pytest.mark.parametrize("n_images", [3, 10])
def test_as_many_folds_as_images_are_legal(n_images):
    y = np.eye(n_images, 2, dtype=int)
    tuned = TunedThresholdsClassifierCV(Known(), cv=n_images, random_state=0).fit(y / 2, y)
    assert_array_equal(tuned.best_scores_, [1, 1])


@pytest.mark.parametrize("frozen", [False, True])
def test_fitted_classifiers_are_used_as_they_are(recorder, frozen):
    recorder.fit(NUMBERS[:5], None)
    estimator = FrozenEstimator(recorder) if frozen else recorder
    cv = 5 if frozen else "prefit"
    y = np.repeat([0, 1], 20)
    tuned = TunedThresholdsClassifierCV(estimator, cv=cv).fit(NUMBERS, y)
    assert recorder.log == [("fit", list(range(5))), ("ask", list(range(40)))]
    assert tuned.estimator_ is estimator
    assert_allclose(tuned.best_thresholds_, [0.195])


# --- one classifier like others -------------------------------------------------------------


def test_predictions_follow_the_thresholds():
    X, y = BINARY
    names = np.array(["absent", "present"])
    tuned = TunedThresholdsClassifierCV(LogisticRegression(), random_state=0)
    tuned.fit(X[:120], names[y[:120]])
    assert_array_equal(tuned.classes_, names)
    probabilities = tuned.predict_proba(X)
    assert_array_equal(probabilities, tuned.estimator_.predict_proba(X))
    assert_array_equal(tuned.decision_function(X), tuned.estimator_.decision_function(X))
    is_present = (probabilities[:, 1] >= tuned.best_thresholds_).astype(int)
    assert_array_equal(tuned.predict(X), names[is_present])
    assert (tuned.predict(X) != tuned.estimator_.predict(X)).any()
    assert tuned.score(X, names[y]) == np.mean(is_present == y)


def test_tuning_finds_more_of_a_rare_class_in_other_images():
    rng = np.random.default_rng(0)
    y = (rng.random(4000) < 0.03).astype(int)
    X = rng.normal(2 * y, 1)[:, np.newaxis]
    tuned = TunedThresholdsClassifierCV(
        LogisticRegression(), scoring="balanced_accuracy", random_state=0
    ).fit(X[:2000], y[:2000])
    X, y = X[2000:], y[2000:]
    assert balanced_accuracy_score(y, tuned.estimator_.predict(X)) < 0.6
    # Two normal distributions that lie 2 standard deviations apart: 0.841 at best.
    assert 0.8 < balanced_accuracy_score(y, tuned.predict(X)) < 0.86


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(10, random_state=0),  # a list of probabilities
        KNeighborsClassifier(),
        LOGISTIC,  # an array
        make_pipeline(StandardScaler(), LOGISTIC),
    ],
    ids=["forest", "neighbours", "one vs rest", "pipeline"],
)
def test_multi_label_classifiers_of_scikit_learn(estimator):
    X, y = MULTILABEL
    tuned = TunedThresholdsClassifierCV(estimator, cv=3, random_state=0).fit(X, y)
    probabilities = tuned.predict_proba(X)
    if isinstance(probabilities, list):
        probabilities = np.column_stack([p[:, 1] for p in probabilities])
    assert_array_equal(tuned.classes_, [0, 1, 2])
    assert (tuned.best_thresholds_ != 0.5).any()
    assert_array_equal(tuned.predict(X), (probabilities >= tuned.best_thresholds_).astype(int))
    assert tuned.score(X, y) == np.mean((tuned.predict(X) == y).all(axis=1))


def test_a_class_that_a_fold_lacks_is_improbable_there():
    X = np.arange(8.0)[:, np.newaxis]
    y = np.array([[0, 1], [0, 0], [0, 1], [0, 0], [1, 1], [0, 0], [0, 1], [1, 0]])
    forest = RandomForestClassifier(5, random_state=0)
    halves = [(np.arange(4), np.arange(4, 8)), (np.arange(4, 8), np.arange(4))]
    assert len(clone(forest).fit(X[:4], y[:4]).classes_[0]) == 1
    tuned = TunedThresholdsClassifierCV(forest, cv=halves).fit(X, y)
    # Held out, the images with class 0 have the probability 0, so that all images are found.
    assert_array_equal((tuned.best_thresholds_[0], tuned.best_scores_[0]), (0, 2 * 2 / (2 + 8)))
    bayes = TunedThresholdsClassifierCV(GaussianNB(), cv=halves).fit(X, y[:, 0])
    assert_array_equal(bayes.best_thresholds_, [0])


def test_tags_are_those_of_the_classifier():
    for estimator, is_multi_label, is_sparse in [
        (LogisticRegression(), False, True),
        (RandomForestClassifier(), True, True),
        (MicraNetClassifier(), True, False),
    ]:
        tags = get_tags(TunedThresholdsClassifierCV(estimator))
        assert tags.classifier_tags.multi_label is is_multi_label
        assert tags.classifier_tags.multi_class is False
        assert tags.input_tags.sparse is is_sparse
    assert tags.input_tags.three_d_array


def test_there_is_a_decision_function_where_the_classifier_has_one():
    assert hasattr(TunedThresholdsClassifierCV(LogisticRegression()), "decision_function")
    assert not hasattr(TunedThresholdsClassifierCV(GaussianNB()), "decision_function")


def test_random_state_and_clones_reproduce_the_thresholds():
    X, y = MULTILABEL
    tuned = TunedThresholdsClassifierCV(LOGISTIC, cv=2, random_state=0).fit(X, y)
    copy = clone(tuned)
    assert not hasattr(copy, "estimator_")
    assert_array_equal(copy.fit(X, y).best_thresholds_, tuned.best_thresholds_)
    with parallel_config(backend="threading"):
        in_parallel = clone(tuned).set_params(n_jobs=2).fit(X, y)
    assert_array_equal(in_parallel.best_thresholds_, tuned.best_thresholds_)
    other = clone(tuned).set_params(random_state=1).fit(X, y)
    assert (other.best_thresholds_ != tuned.best_thresholds_).all()


def test_a_grid_search_walks_its_parameters():
    X, y = BINARY
    grid = {"scoring": ["f1", "accuracy"], "estimator__C": [0.01, 1]}
    tuned = TunedThresholdsClassifierCV(LogisticRegression(), cv=0.3, random_state=0)
    search = GridSearchCV(tuned, grid, cv=2, scoring="f1", error_score="raise").fit(X, y)
    assert len(np.unique(search.cv_results_["mean_test_score"])) == 4
    best = search.best_estimator_
    assert best.estimator_.get_params()["C"] == search.best_params_["estimator__C"]
    assert best.scoring == search.best_params_["scoring"]


# --- MICRA-Net ------------------------------------------------------------------------------


N = 24
MASKS = np.zeros((N, 2, 16, 16), dtype=bool)  # a square in half of the images, a line in a third
MASKS[0::2, 0, 3:8, 4:9] = True
MASKS[0::3, 1, :, 13] = True
LABELS = MASKS.any(axis=(2, 3)).astype(int)
IMAGES = (MASKS.any(axis=1) + np.random.default_rng(0).normal(0, 0.3, (N, 16, 16))).astype("f4")


def small(**params):
    return MicraNetClassifier(n_filters=2, max_epochs=2, batch_size=8, random_state=0, **params)


def tuned_small():
    return TunedThresholdsClassifierCV(small(), cv=2, random_state=0)


@pytest.fixture(scope="module")
def tuned():
    return tuned_small().fit(IMAGES, LABELS)


def test_the_network_gets_the_thresholds(tuned):
    assert isinstance(tuned.estimator_, MicraNetClassifier)
    assert_array_equal(tuned.estimator_.threshold, tuned.best_thresholds_)
    assert (tuned.best_thresholds_ != 0.5).all()
    expected = small().fit(IMAGES, LABELS).predict_proba(IMAGES)
    assert_array_equal(tuned.predict_proba(IMAGES), expected)
    assert not hasattr(tuned, "n_features_in_")


def test_the_network_predicts_and_explains_the_classes_that_reach_the_thresholds():
    classifier = small().fit(IMAGES, LABELS)
    tuned = TunedThresholdsClassifierCV(
        FrozenEstimator(classifier), scoring="balanced_accuracy"
    ).fit(IMAGES, LABELS)
    predicted = tuned.predict(IMAGES)
    assert (predicted != classifier.predict(IMAGES)).any()
    assert_array_equal(tuned.estimator_.predict(IMAGES), predicted)
    assert_array_equal(tuned.predict_proba(IMAGES) >= tuned.best_thresholds_, predicted)
    assert tuned.score(IMAGES, LABELS) == np.mean((predicted == LABELS).all(axis=1))
    cam = GradCAMFeatureTransformer(FrozenEstimator(tuned.estimator_)).fit(IMAGES)
    is_explained = np.asarray(cam.transform(IMAGES)).any(axis=(2, 3, 4))
    assert_array_equal(is_explained, predicted.astype(bool))


def test_masks_are_reduced_to_labels(tuned):
    from_masks = tuned_small().fit(IMAGES, MASKS)
    assert_array_equal(from_masks.best_thresholds_, tuned.best_thresholds_)
    assert from_masks.score(IMAGES, MASKS) == tuned.score(IMAGES, LABELS)
    flat = IMAGES.reshape(N, -1)
    assert_array_equal(tuned_small().fit(flat, MASKS).best_thresholds_, tuned.best_thresholds_)
    # The square covers 25 px of 256, the line 16 px.
    covered = tuned_small().set_params(estimator__min_coverage=20 / 256).fit(IMAGES, MASKS)
    assert_array_equal(np.isnan(covered.best_scores_), [False, True])
    assert covered.best_thresholds_[1] == 0.5


@pytest.mark.parametrize("frozen", [False, True])
def test_a_fitted_network_is_not_changed(frozen):
    names = np.array(["none", "square"])
    classifier = small(threshold=[0.25], background_label="none")
    classifier.fit(IMAGES, names[LABELS[:, 0]])
    estimator = FrozenEstimator(classifier) if frozen else classifier
    tuned = TunedThresholdsClassifierCV(estimator, cv=None if frozen else "prefit")
    tuned.fit(IMAGES, MASKS[:, :1])
    assert classifier.threshold == [0.25]
    assert tuned.estimator_.net_ is classifier.net_
    assert tuned.estimator_.threshold == tuned.best_thresholds_ != 0.25
    assert_array_equal(tuned.estimator_.predict(IMAGES), tuned.predict(IMAGES))
    assert tuned.score(IMAGES, MASKS[:, :1]) == tuned.score(IMAGES, names[LABELS[:, 0]])
    assert_array_equal(tuned.fit(IMAGES[::2], MASKS[::2, :1]).best_thresholds_, [0.25])
    with pytest.raises(ValueError, match="kind of the first call's, binary"):
        tuned.fit(IMAGES, LABELS)


def test_images_on_disk_are_read_piecewise(tuned, tmp_path, monkeypatch):
    on_disk = np.memmap(tmp_path / "images", IMAGES.dtype, "w+", shape=IMAGES.shape)
    on_disk[:] = IMAGES
    fitted_on = []
    fit = MicraNetClassifier.fit
    monkeypatch.setattr(
        MicraNetClassifier, "fit", lambda self, X, y: fitted_on.append(X) or fit(self, X, y)
    )
    again = tuned_small().fit(on_disk, LABELS)
    assert [type(X) for X in fitted_on] == [type(as_stack(IMAGES))] * 3
    assert_array_equal(again.best_thresholds_, tuned.best_thresholds_)


@pytest.mark.parametrize("kind", ["network", "ensemble"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_fitted_network_is_tuned_on_images_of_different_sizes(kind, frozen):
    classifier = small() if kind == "network" else MicraNetEnsemble(small(), n_estimators=2)
    ragged = [image[: 16 - i % 5] for i, image in enumerate(IMAGES)]
    with pytest.raises(ValueError, match="Training images must all have one shape"):
        TunedThresholdsClassifierCV(classifier).fit(ragged, LABELS)
    classifier.fit(IMAGES, LABELS)
    estimator = FrozenEstimator(classifier) if frozen else classifier
    tuned = TunedThresholdsClassifierCV(estimator, cv="prefit").fit(ragged, LABELS)
    expected = tune(LABELS, classifier.predict_proba(ragged))
    assert_array_equal(tuned.best_thresholds_, expected.best_thresholds_)
    assert_array_equal(tuned.predict(ragged), expected.predict(classifier.predict_proba(ragged)))


def test_checkpoints_that_never_resume_are_warned_of(tmp_path):
    def fit(classifier, **params):
        return TunedThresholdsClassifierCV(classifier, **params).fit(IMAGES, LABELS)

    classifier = small(checkpoint_dir=tmp_path)
    drawn_anew = "TunedThresholdsClassifierCV draws other folds in every fit"
    ensemble = MicraNetEnsemble(classifier, n_estimators=1, random_state=0)
    for estimator in (make_pipeline(IntensityScaler(), classifier), classifier, ensemble):
        with pytest.warns(UserWarning, match=drawn_anew) as caught:
            tuned = fit(estimator, cv=2)
        assert caught[0].filename == __file__
    n_before = len(list(tmp_path.iterdir()))
    with warnings.catch_warnings(action="error"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(2):
            fit(classifier, cv=2, random_state=1)
        assert len(list(tmp_path.iterdir())) == n_before + 2  # all images were trained on before
        fit(classifier, cv=KFold(2))
        fit(FrozenEstimator(tuned.estimator_))
        fit(small(), cv=2)


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"estimator": LinearSVC()}, "'estimator' parameter .* must be an object implementing"),
        ({"scoring": "recall"}, "'scoring' parameter .* must be a str among"),
        ({"thresholds": 1}, "'thresholds' parameter .* must be an int in the range"),
        ({"thresholds": [0.2, 1.5]}, r"probabilities in \[0, 1\]. Got \[0.2, 1.5\] instead"),
        ({"thresholds": [[0.2]]}, r"probabilities in \[0, 1\]. Got \[\[0.2\]\] instead"),
        ({"cv": 1}, "'cv' parameter"),
        ({"cv": 1.0}, "'cv' parameter"),
        ({"cv": 201}, "Got 201 folds of 200 image"),
        ({"cv": 0.001}, "Got a share of 0.001 of 200 images instead"),
        ({"refit": False}, "if refit=False, for example cv=0.2. Got 5 splits instead"),
    ],
)
def test_parameters_are_checked(params, match):
    with pytest.raises(ValueError, match=match):
        TunedThresholdsClassifierCV(**({"estimator": LogisticRegression()} | params)).fit(*BINARY)


@pytest.mark.parametrize(
    ("estimator", "y", "match"),
    [
        (LogisticRegression(), np.arange(N) % 3, "Got 3 mutually exclusive classes instead"),
        (small(), np.arange(N) % 3, "Got 3 mutually exclusive classes instead"),
        (LogisticRegression(), np.zeros(N), "at least two classes"),
        (LogisticRegression(), MASKS, r"Got masks for LogisticRegression instead. Pass masks.any"),
        (small(), [np.zeros((1, 2))] * N, "Got positions of objects instead"),
        (LogisticRegression(), None, "requires y to be passed"),
        (LogisticRegression(), LABELS[1:, 0], "inconsistent numbers of samples"),
    ],
)
def test_labels_are_checked(estimator, y, match):
    with pytest.raises(ValueError, match=match):
        TunedThresholdsClassifierCV(estimator).fit(IMAGES.reshape(N, -1), y)


def test_labels_must_be_those_of_a_fitted_classifier():
    X, y = MULTILABEL
    fitted = FrozenEstimator(clone(LOGISTIC).fit(X, y))
    with pytest.raises(ValueError, match=r"on the 2 classes of y. Got .* shape \(150, 3\)"):
        TunedThresholdsClassifierCV(fitted).fit(X, y[:, :2])
    fitted = FrozenEstimator(LogisticRegression().fit(X, y[:, 0]))
    with pytest.raises(ValueError, match=r"the classes \[0, 1\] only. Got \[2\] instead"):
        TunedThresholdsClassifierCV(fitted).fit(X, 2 * y[:, 0])


@pytest.mark.parametrize("estimator", [LogisticRegression(), FrozenEstimator(small())])
def test_a_classifier_must_be_fitted_to_be_used_as_it_is(estimator):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        TunedThresholdsClassifierCV(estimator, cv="prefit").fit(IMAGES, LABELS)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_nothing_is_predicted_before_fit(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(TunedThresholdsClassifierCV(LogisticRegression()), method)(BINARY[0])
    with pytest.raises(NotFittedError, match="not fitted yet"):
        TunedThresholdsClassifierCV(LogisticRegression()).score(*BINARY)
