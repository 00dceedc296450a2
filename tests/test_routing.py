"""What is passed to `fit` reaches the network through every wrapper, with and without routing."""

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_array_equal
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline

from sklearn_micranet import (
    FieldSegmenter,
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    IntensityScaler,
    MicraNetClassifier,
    MicraNetEnsemble,
    ThresholdSegmenter,
    TunedThresholdsClassifierCV,
    UNetSegmenter,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
N = 24
LABELS = np.arange(N) % 2
MASKS = np.zeros((N, 16, 16), dtype=bool)
MASKS[LABELS == 1, 4:10, 4:10] = True
IMAGES = 3 * MASKS + np.random.default_rng(0).normal(size=MASKS.shape)
IMAGES[:, 0, 0] = np.arange(N)  # tells which image it is
GROUPS = np.arange(N) // 4
WEIGHTS = 1 + np.arange(N) / N
GIVEN = {"sample_weight": WEIGHTS, "groups": GROUPS, "X_val": IMAGES[:6], "y_val": LABELS[:6]}


class Recorder(MicraNetClassifier):
    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None):
        X = np.asarray(X)
        SEEN.append(
            {"rows": X[:, 0, 0], "sample_weight": sample_weight, "groups": groups, "X_val": X_val}
        )
        return super().fit(X, y, sample_weight, groups=groups, X_val=X_val, y_val=y_val)


SEEN = []


@pytest.fixture(params=[False, True], ids=["plain", "routing"])
def routing(request):
    SEEN.clear()
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield request.param


def network(routing=False, **parameters):
    classifier = Recorder(n_filters=2, max_epochs=1, random_state=0, **parameters)
    if routing:
        classifier.set_fit_request(sample_weight=True, groups=True, X_val=True, y_val=True)
        classifier.set_score_request(sample_weight=True)
    return classifier


def ensemble(inner):
    return MicraNetEnsemble(inner, n_estimators=2, random_state=0)


def tuned(inner):
    return TunedThresholdsClassifierCV(inner, cv=2, random_state=0)


def searched(inner):
    return GridSearchCV(inner, {"lr": [0.1]}, cv=2, error_score="raise")


WRAPPERS = {
    "ensemble": ensemble,
    "tuned": tuned,
    "search": searched,
    "tuned ensemble": lambda inner: tuned(ensemble(inner)),
    "local maps": GradCAMFeatureTransformer,
    "local maps of an ensemble": lambda inner: GradCAMFeatureTransformer(ensemble(inner)),
    "guided maps": lambda inner: GuidedFeatureMap(inner, random_state=0),
    "maps of a search": lambda inner: GradCAMFeatureTransformer(searched(inner)),
    "search over an ensemble": lambda inner: GridSearchCV(
        ensemble(inner), {"estimator__lr": [0.1]}, cv=2, error_score="raise"
    ),
    "search over tuned": lambda inner: GridSearchCV(
        tuned(inner), {"estimator__lr": [0.1]}, cv=2, error_score="raise"
    ),
}


def assert_all_arrived(given):
    assert SEEN
    for seen in SEEN:
        rows = seen["rows"].astype(int)
        for name in ("sample_weight", "groups"):
            if name in given:
                assert_array_equal(seen[name], given[name][rows])
        if "X_val" in given:
            assert_array_equal(seen["X_val"], given["X_val"])


@pytest.mark.parametrize("name", WRAPPERS)
def test_fit_parameters_reach_the_network(name, routing):
    # Without routing, a search keeps the groups for its own splits, as scikit-learn's own does.
    given = dict(GIVEN)
    if "search" in name and not routing:
        del given["groups"]
    WRAPPERS[name](network(routing)).fit(IMAGES, LABELS, **given)
    assert_all_arrived(given)


@pytest.mark.parametrize("name", ["ensemble", "tuned", "local maps", "guided maps"])
def test_fit_parameters_reach_the_network_through_a_pipeline(name, routing):
    step = WRAPPERS[name](network(routing))
    is_map = "maps" in name
    last = [("cut", ThresholdSegmenter())] if name == "guided maps" else []
    pipeline = Pipeline([("step", step), *last])
    given = GIVEN if routing else {f"step__{k}": v for k, v in GIVEN.items()}
    pipeline.fit(IMAGES, LABELS, **given)
    assert_all_arrived(GIVEN)
    if not is_map:
        assert_array_equal(pipeline.classes_, [0, 1])
        probabilities = pipeline.predict_proba(IMAGES)
        np.testing.assert_allclose(
            np.exp(pipeline.predict_log_proba(IMAGES)), probabilities, rtol=1e-5
        )


def test_validation_images_pass_the_steps_before(routing):
    if not routing:
        pytest.skip("Pipeline(transform_input=...) needs routing")
    steps = [("scale", IntensityScaler()), ("classify", network(routing))]
    given = {"X_val": IMAGES[:6], "y_val": LABELS[:6]}
    Pipeline(steps, transform_input=["X_val"]).fit(IMAGES, LABELS, **given)
    assert_array_equal(SEEN[0]["X_val"], IntensityScaler().fit(IMAGES).transform(IMAGES[:6]))


@pytest.mark.parametrize("wrap", [ensemble, tuned])
def test_a_wrapper_may_ask_itself(wrap, routing):
    if not routing:
        pytest.skip("requests are part of routing")
    wrapped = (
        wrap(network()).set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
    )
    search = GridSearchCV(wrapped, {"estimator__lr": [0.1]}, cv=2, error_score="raise")
    search.fit(IMAGES, LABELS, sample_weight=WEIGHTS)
    assert_all_arrived({"sample_weight": WEIGHTS})


def test_a_search_passes_groups_on_to_its_splits_and_to_the_network():
    with sklearn.config_context(enable_metadata_routing=True):
        SEEN.clear()
        classifier = network().set_fit_request(groups=True)
        search = GridSearchCV(classifier, {"lr": [0.1]}, cv=GroupKFold(3), error_score="raise")
        search.fit(IMAGES, LABELS, groups=GROUPS)
        assert [len(set(seen["groups"])) for seen in SEEN] == [4, 4, 4, 6]
        segmenter = UNetSegmenter(n_filters=2, n_poolings=1, max_epochs=1, random_state=0)
        search = GridSearchCV(
            segmenter.set_fit_request(groups=True),
            {"lr": [0.1]},
            cv=GroupKFold(2),
            error_score="raise",
        )
        search.fit(IMAGES, MASKS, groups=GROUPS)
        with pytest.raises(ValueError, match="groups must hold one entry"):
            segmenter.fit(IMAGES, MASKS, groups=GROUPS[1:])


@pytest.mark.parametrize("cv", [3, GroupKFold(3)])
def test_no_group_is_on_both_sides_of_a_fold(cv):
    SEEN.clear()
    MicraNetEnsemble(network(), cv=cv, random_state=0).fit(IMAGES, LABELS, groups=GROUPS)
    TunedThresholdsClassifierCV(network(), cv=cv, random_state=0).fit(IMAGES, LABELS, groups=GROUPS)
    TunedThresholdsClassifierCV(network(), cv=0.3, random_state=0).fit(
        IMAGES, LABELS, groups=GROUPS
    )
    assert len(SEEN) == 3 + 4 + 2
    trained_on = [set(seen["rows"] // 4) for seen in SEEN]
    assert all(len(seen["rows"]) == 4 * len(of) for seen, of in zip(SEEN, trained_on, strict=True))
    assert [len(of) for of in trained_on] == [4] * 6 + [6] + [4, 6]
    for folds in (trained_on[:3], trained_on[3:6]):
        assert sorted(set(range(6)) - of != set() for of in folds) == [True] * 3
        assert sorted(g for of in folds for g in set(range(6)) - of) == list(range(6))


def test_validation_images_and_folds_exclude_each_other():
    both = MicraNetEnsemble(network(), cv=2)
    with pytest.raises(ValueError, match="X_val must be None with cv"):
        both.fit(IMAGES, LABELS, X_val=IMAGES, y_val=LABELS)


def fields():
    return [
        [np.hstack(stack[:8]), np.hstack(stack[8:16]), np.hstack(stack[16:])]
        for stack in (IMAGES, MASKS)
    ]


@pytest.mark.parametrize("steps", ["network", "ensemble", "pipeline", "maps"])
def test_windows_of_one_field_stay_together(steps, routing):
    inner = {
        "network": network(),
        "ensemble": ensemble(network()),
        "pipeline": Pipeline([("scale", IntensityScaler()), ("classify", network())]),
        "maps": Pipeline([("map", GuidedFeatureMap(network())), ("cut", ThresholdSegmenter())]),
    }[steps]
    images, masks = fields()
    segmenter = FieldSegmenter(inner, size=16, step=16, exact=True)
    segmenter.fit(images, masks)
    assert_array_equal(SEEN[-1]["groups"], np.repeat([0, 1, 2], 8))
    segmenter.fit(images, masks, groups=["a", "b", "a"])
    assert_array_equal(SEEN[-1]["groups"], np.repeat(["a", "b", "a"], 8))
    with pytest.raises(ValueError, match="groups must hold one entry for each of the 3"):
        segmenter.fit(images, masks, groups=["a", "b"])


# --- weights in tuning -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "scoring", ["f1", "balanced_accuracy", "accuracy", sklearn.metrics.f1_score]
)
def test_a_weight_of_2_is_the_image_twice(scoring):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = (X[:, 0] + rng.normal(size=60) > 0.5).astype(int)
    prefit = FrozenEstimator(LogisticRegression().fit(X, y))
    weights = rng.integers(0, 3, 60)
    twice = np.repeat(np.arange(60), weights)
    thresholds = np.linspace(0.05, 0.95, 19)
    weighted, repeated = (
        TunedThresholdsClassifierCV(prefit, scoring=scoring, thresholds=thresholds)
        for _ in range(2)
    )
    weighted.fit(X, y, sample_weight=weights)
    repeated.fit(X[twice], y[twice])
    np.testing.assert_allclose(weighted.cv_results_["scores"], repeated.cv_results_["scores"])
    assert weighted.best_thresholds_ == repeated.best_thresholds_
    expected = np.average(weighted.predict(X) == y, weights=weights)
    assert weighted.score(X, y, sample_weight=weights) == pytest.approx(expected)
    with pytest.raises(ValueError, match="one finite weight >= 0 for each of the 60"):
        weighted.fit(X, y, sample_weight=-weights)


# --- two labels that may be present together --------------------------------------------------

TWO = np.stack([LABELS, np.arange(N) % 3 == 0], axis=1).astype(int)


@pytest.mark.parametrize("wrap", [lambda inner: inner, ensemble, tuned])
@pytest.mark.parametrize("metric", [roc_auc_score, average_precision_score])
def test_scorers_of_probabilities_read_both_of_two_labels(metric, wrap):
    fitted = wrap(network()).fit(IMAGES, TWO)
    assert_array_equal(fitted.classes_, [[0, 1], [0, 1]])
    assert_array_equal(fitted.map_classes_, [0, 1])
    scorer = make_scorer(metric, response_method="predict_proba")
    columns = [metric(TWO[:, k], fitted.predict_proba(IMAGES)[:, k]) for k in (0, 1)]
    assert scorer(fitted, IMAGES, TWO) == pytest.approx(np.mean(columns))
    expected = -log_loss(TWO, fitted.predict_proba(IMAGES))
    with np.errstate(all="ignore"):
        assert sklearn.metrics.get_scorer("neg_log_loss")(fitted, IMAGES, TWO) == expected
    assert np.isfinite(cross_val_score(wrap(network()), IMAGES, TWO, cv=2, scoring=scorer)).all()


@pytest.mark.parametrize("y", [LABELS, np.arange(N) % 3, TWO])
@pytest.mark.parametrize("wrap", [lambda inner: inner, ensemble])
def test_log_probabilities_are_finite_where_probabilities_are_0(y, wrap):
    fitted = wrap(network()).fit(IMAGES, y)
    expected = np.log(fitted.predict_proba(IMAGES))
    np.testing.assert_allclose(fitted.predict_log_proba(IMAGES), expected, rtol=1e-4, atol=1e-6)
    logits = np.array([[-1000.0], [1000.0]], dtype=np.float32)
    binary = network().fit(IMAGES, LABELS)._targets
    assert_array_equal(binary.log_probabilities(logits), [[0, -1000], [-1000, 0]])
