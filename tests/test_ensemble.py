import pickle
import re
import warnings
from copy import deepcopy

import h5py
import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from skorch.callbacks import Callback

from sklearn_micranet import MicraNetClassifier, MicraNetEnsemble
from sklearn_micranet._stack._lazy_stack import LazyStack

N = 24
MASKS = np.zeros((N, 3, 16, 20), dtype=bool)  # a square, a line, and a frame, present in some
MASKS[0::2, 0, 3:8, 4:9] = True
MASKS[0::3, 1, :, 15] = True
MASKS[1::3, 2, 0] = MASKS[1::3, 2, -1] = True
INDICATOR = MASKS.any(axis=(2, 3)).astype(int)
IMAGES = MASKS.any(axis=1) + np.random.default_rng(0).normal(0, 0.1, (N, 16, 20))
IMAGES = IMAGES.astype(np.float32)
IMAGES[:, 0, 0] = np.arange(N)  # tells which image it is
TARGETS = {
    "binary": np.array(["no", "yes"])[INDICATOR[:, 0]],
    "multiclass": np.array(["a", "b", "c"])[np.arange(N) % 3],
    "multilabel": INDICATOR,
}
KINDS = list(TARGETS)


def small(**parameters):
    defaults = {"n_filters": 2, "max_epochs": 1, "batch_size": N}
    return MicraNetClassifier(**(defaults | parameters))


def make_ensemble(estimator=None, **parameters):
    defaults = {"n_estimators": 2, "random_state": 0}
    return MicraNetEnsemble(estimator or small(), **(defaults | parameters))


def logits_of(member):
    return member.decision_function(IMAGES).reshape(N, -1)


@pytest.fixture(scope="module")
def at_odds():
    """Return an ensemble of one sure and two unsure networks for each kind of target."""
    ensembles = {kind: make_ensemble(n_estimators=3).fit(IMAGES, y) for kind, y in TARGETS.items()}
    generator = torch.Generator().manual_seed(0)
    for ensemble in ensembles.values():
        for member, scale in zip(ensemble.estimators_, (8, 0.5, 0.5), strict=True):
            linear = member.module_.linear
            linear.weight.data *= scale / logits_of(member).std()
            middle = torch.from_numpy(np.median(logits_of(member), axis=0))
            linear.bias.data += scale * torch.randn(middle.shape, generator=generator) - middle
    return ensembles


def weights(classifier):
    return [tensor.clone() for tensor in classifier.module_.state_dict().values()]


def are_equal(one, other):
    """Whether two classifiers, or ensembles, have the same weights."""
    ones, others = (getattr(x, "estimators_", [x]) for x in (one, other))
    return len(ones) == len(others) and all(
        torch.equal(mine, its)
        for member, match in zip(ones, others, strict=True)
        for mine, its in zip(weights(member), weights(match), strict=True)
    )


# --- what it predicts ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_the_means_of_the_networks(at_odds, kind):
    ensemble = at_odds[kind]
    of_each = [member.predict_proba(IMAGES) for member in ensemble.estimators_]
    assert np.ptp(of_each, axis=0).max() > 0.5  # premise: they disagree
    mean = np.mean(of_each, axis=0)
    assert_allclose(ensemble.predict_proba(IMAGES), mean, atol=1e-6)

    log_odds = ensemble.decision_function(IMAGES)

    assert log_odds.dtype == np.float32
    if kind == "binary":
        assert_allclose(log_odds, np.log(mean[:, 1] / mean[:, 0]), rtol=1e-3, atol=1e-5)
    elif kind == "multilabel":
        assert_allclose(log_odds, np.log(mean / (1 - mean)), rtol=1e-3, atol=1e-5)
    else:
        assert_allclose(log_odds, np.log(mean), rtol=1e-3, atol=1e-5)
    mean_of_logits = np.mean([m.decision_function(IMAGES) for m in ensemble.estimators_], axis=0)
    assert np.abs(log_odds - mean_of_logits).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_follow_from_the_mean_probabilities(at_odds, kind):
    ensemble = at_odds[kind]
    probabilities = ensemble.predict_proba(IMAGES)
    expected = {
        "binary": ensemble.classes_[(probabilities[:, -1] >= 0.5).astype(int)],
        "multiclass": ensemble.classes_[probabilities.argmax(axis=1)],
        "multilabel": (probabilities >= 0.5).astype(int),
    }[kind]
    assert_array_equal(ensemble.predict(IMAGES), expected)
    # It is no vote of the networks.
    of_each = [member.predict(IMAGES) == expected for member in ensemble.estimators_]
    assert (np.mean(of_each, axis=0) < 0.5).any()


def test_certain_networks_keep_their_certainty():
    # Where expit(logit) rounds to 1, the log-odds are still those of the mean probability:
    # p = 1 - (exp(-60) + exp(-50)) / 2, and p = exp(-100) twice.
    ensemble = make_ensemble(n_estimators=2).fit(IMAGES, INDICATOR[:, :2])
    for member, biases in zip(ensemble.estimators_, ([60, -100], [50, -100]), strict=True):
        member.module_.linear.weight.data.zero_()
        member.module_.linear.bias.data[:] = torch.tensor(biases)
    expected = [-np.log((np.exp(-60) + np.exp(-50)) / 2), -100]
    assert_allclose(ensemble.decision_function(IMAGES[:1])[0], expected, rtol=1e-6)


def test_threshold_of_each_class(at_odds):
    ensemble = deepcopy(at_odds["multilabel"])
    probabilities = ensemble.predict_proba(IMAGES)
    thresholds = np.quantile(probabilities, [0.2, 0.5, 0.8], axis=0).diagonal()
    ensemble.set_params(threshold=thresholds)
    expected = (probabilities >= thresholds).astype(int)
    assert_array_equal(ensemble.predict(IMAGES), expected)
    assert (expected != (probabilities >= 0.5)).any()
    for member in ensemble.estimators_:  # theirs are not used
        member.set_params(threshold=1.0)
    assert_array_equal(ensemble.predict(IMAGES), expected)


def test_score_is_the_accuracy(at_odds):
    for kind, y in TARGETS.items():
        score = at_odds[kind].score(IMAGES, y)
        assert score == pytest.approx(np.mean(accuracy_score(y, at_odds[kind].predict(IMAGES))))
        assert score < 1
    weight = np.arange(N)
    right = at_odds["binary"].predict(IMAGES) == TARGETS["binary"]
    assert_allclose(
        at_odds["binary"].score(IMAGES, TARGETS["binary"], weight),
        np.average(right, weights=weight),
    )
    with pytest.raises(ValueError, match="Set background_label="):
        at_odds["binary"].score(IMAGES, MASKS[:, :1])
    expected = at_odds["multilabel"].score(IMAGES, INDICATOR)
    assert at_odds["multilabel"].score(IMAGES, MASKS) == expected


def test_images_of_different_sizes(at_odds):
    images = [IMAGES[0], IMAGES[1, :9], IMAGES[2, 3:, 2:], IMAGES[3]]
    ensemble = at_odds["multilabel"]
    expected = np.concatenate([ensemble.predict_proba(image[np.newaxis]) for image in images])
    assert_allclose(ensemble.predict_proba(images), expected, atol=1e-5)


# --- how it is trained -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_network_is_a_classifier_of_its_own_seed(kind):
    estimator = small(random_state=7)
    ensemble = make_ensemble(estimator).fit(IMAGES, TARGETS[kind])
    assert len(ensemble.estimators_) == 2
    for member in ensemble.estimators_:
        alone = small(random_state=member.random_state).fit(IMAGES, TARGETS[kind])
        assert are_equal(member, alone)
    assert not are_equal(*ensemble.estimators_[:2])
    assert not hasattr(estimator, "net_")  # it is cloned
    assert ensemble.classes_.tolist() == np.unique(TARGETS[kind]).tolist() or kind == "multilabel"


def test_random_state():
    first = make_ensemble().fit(IMAGES, INDICATOR)
    again = clone(first)
    assert not hasattr(again, "estimators_")
    assert are_equal(again.fit(IMAGES, INDICATOR), first)
    assert are_equal(again.fit(IMAGES, INDICATOR), first)
    assert not are_equal(make_ensemble(random_state=1).fit(IMAGES, INDICATOR), first)
    drawn = [make_ensemble(random_state=np.random.RandomState(3)) for _ in range(2)]
    assert are_equal(*(ensemble.fit(IMAGES, INDICATOR) for ensemble in drawn))
    # A longer ensemble begins with the same networks.
    longer = make_ensemble(n_estimators=3).fit(IMAGES, INDICATOR)
    assert are_equal(longer.estimators_[0], first.estimators_[0])


class Recorder(Callback):
    """Record which images are trained on and monitored, and with which weights."""

    records = []

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        record = {}
        for name, data in (("train", dataset_train), ("valid", dataset_valid)):
            images, y = data[np.arange(len(data))]
            record[name] = images[:, 0, 0, 0].int().tolist()
            record[f"{name} weights"] = y[1].tolist() if isinstance(y, list) else None
        self.records.append(record)


@pytest.fixture
def recorded():
    Recorder.records = []
    return Recorder.records


def folds_of(splits):
    return [(train.tolist(), test.tolist()) for train, test in splits]


PAIRS = np.arange(N).reshape(-1, 2, 2)
GROUPED = [(np.arange(8, N), np.arange(8)), (PAIRS[:, 0].ravel(), PAIRS[:, 1].ravel())]


@pytest.mark.parametrize(
    ("kind", "cv", "splits"),
    [
        ("binary", StratifiedKFold(3), [*StratifiedKFold(3).split(IMAGES, TARGETS["binary"])]),
        ("multilabel", KFold(4), [*KFold(4).split(IMAGES)]),
        ("multiclass", KFold(2, shuffle=True, random_state=1), None),
        ("multilabel", GROUPED, GROUPED),
    ],
)
@pytest.mark.parametrize("form", ["array", "list"])
def test_each_network_of_cv_is_monitored_on_its_fold(kind, cv, splits, form, recorded):
    splits = folds_of(splits if splits is not None else cv.split(IMAGES))
    images = IMAGES if form == "array" else list(IMAGES)
    ensemble = make_ensemble(small(callbacks=[Recorder()]), n_estimators=99, cv=cv)
    ensemble.fit(images, TARGETS[kind])
    assert len(ensemble.estimators_) == len(splits)
    assert [(r["train"], r["valid"]) for r in recorded] == splits
    for member, (train, test) in zip(ensemble.estimators_, splits, strict=True):
        y = TARGETS[kind]
        alone = small(random_state=member.random_state)
        alone.fit(IMAGES[train], y[train], X_val=IMAGES[test], y_val=y[test])
        assert are_equal(member, alone)


SORTED = np.repeat([[1, 0], [0, 1]], N // 2, axis=0)


@pytest.mark.parametrize("cv", [2, 4])
@pytest.mark.parametrize("y", [SORTED, SORTED[:, 0]], ids=["multilabel", "binary"])
def test_folds_of_a_number_represent_every_class(y, cv, recorded):
    """Even if images are sorted by their labels, as those of one condition after another are."""
    make_ensemble(small(callbacks=[Recorder()]), cv=cv).fit(IMAGES, y)
    folds = [record["valid"] for record in recorded]
    assert len(folds) == cv
    assert sorted(np.concatenate(folds)) == list(range(N))
    for record in recorded:
        assert record["train"] == [i for i in range(N) if i not in record["valid"]]
        assert_array_equal(SORTED[record["valid"]].sum(axis=0), N // 2 // cv)
    make_ensemble(small(callbacks=[Recorder()]), cv=cv, random_state=1).fit(IMAGES, y)
    assert [record["valid"] for record in recorded[cv:]] != folds


def test_folds_of_a_number_spread_the_images_without_a_frequent_class(recorded):
    y = SORTED.copy()
    y[:, 1] = 1
    y[[3, 5], 1] = 0
    for seed in range(10):
        make_ensemble(small(callbacks=[Recorder()]), cv=2, random_state=seed).fit(IMAGES, y)
    assert {sum(y[record["valid"], 1] == 0) for record in recorded} == {1}


def test_without_cv_every_network_sees_all_images(recorded):
    make_ensemble(small(callbacks=[Recorder()])).fit(IMAGES, INDICATOR)
    assert len(recorded) == 2
    for record in recorded:
        assert sorted(record["train"] + record["valid"]) == list(range(N))
    assert recorded[0]["valid"] != recorded[1]["valid"]  # each sets aside a share of its own


@pytest.mark.parametrize("cv", [None, KFold(3)], ids=["all", "cv"])
def test_sample_weight(cv, recorded):
    weight = np.arange(N, dtype=float)  # the first image weighs nothing
    ensemble = make_ensemble(small(callbacks=[Recorder()]), cv=cv)
    ensemble.fit(IMAGES, INDICATOR, sample_weight=weight.tolist())
    for record in recorded:
        assert 0 not in record["train"]
        ratio = np.array(record["train weights"]) / weight[record["train"]]
        assert_allclose(ratio, ratio[0], rtol=1e-5)
    if cv:
        assert recorded[0]["valid"] == list(range(8))  # held-out images count alike
        assert recorded[0]["valid weights"] is None
    assert not are_equal(ensemble, clone(ensemble).fit(IMAGES, INDICATOR))


@pytest.mark.parametrize("cv", [None, 2])
def test_processes_give_the_same_networks(cv):
    ensemble = make_ensemble(cv=cv).fit(IMAGES, INDICATOR)
    parallel = clone(ensemble).set_params(n_jobs=2).fit(IMAGES, INDICATOR)
    assert are_equal(parallel, ensemble)


@pytest.mark.parametrize("cv", [None, 2])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_masks_stand_for_labels(cv, n_classes):
    masks = MASKS[:, :n_classes]
    labels = INDICATOR[:, 0] if n_classes == 1 else INDICATOR
    on_masks = make_ensemble(cv=cv).fit(IMAGES, masks)
    assert are_equal(on_masks, make_ensemble(cv=cv).fit(IMAGES, labels))
    assert are_equal(on_masks, make_ensemble(cv=cv).fit(IMAGES, list(masks)))
    lines_are_too_small = make_ensemble(small(min_coverage=0.06), cv=cv).fit(IMAGES, MASKS)
    without_lines = INDICATOR * np.array([1, 0, 1])
    assert are_equal(lines_are_too_small, make_ensemble(cv=cv).fit(IMAGES, without_lines))


def on_disk(form, folder):
    if form == "memmap":
        np.save(folder / "images.npy", IMAGES)
        return np.load(folder / "images.npy", mmap_mode="r")
    with h5py.File(folder / "images.h5", "w") as file:
        file["images"] = IMAGES
    return h5py.File(folder / "images.h5")["images"]


@pytest.mark.parametrize("form", ["memmap", "hdf5"])
@pytest.mark.parametrize("cv", [None, KFold(2, shuffle=True, random_state=0)], ids=["all", "cv"])
def test_arrays_on_disk_are_read_piecewise(form, cv, tmp_path, monkeypatch):
    expected = make_ensemble(cv=cv).fit(IMAGES, INDICATOR)
    passed = []
    fit = MicraNetClassifier.fit

    def spy(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        passed.extend([X] if X_val is None else [X, X_val])
        return fit(self, X, y, sample_weight, X_val=X_val, y_val=y_val)

    monkeypatch.setattr(MicraNetClassifier, "fit", spy)
    images = on_disk(form, tmp_path)
    ensemble = make_ensemble(cv=cv).fit(images, INDICATOR)
    assert are_equal(ensemble, expected)
    assert passed
    assert all(isinstance(X, LazyStack | np.memmap) for X in passed)
    assert_array_equal(ensemble.predict_proba(images), expected.predict_proba(IMAGES))


@pytest.mark.parametrize("cv", [None, 3])
def test_stacks_are_read_batch_by_batch(cv):
    sizes = []

    def halve(batch):
        sizes.append(len(batch))
        return batch / 2

    stack = LazyStack(2 * IMAGES, halve, item_shape=(16, 20), batch_size=4)
    classifier = small(batch_size=8)
    ensemble = make_ensemble(classifier, cv=cv).fit(stack, INDICATOR)
    assert are_equal(ensemble, make_ensemble(classifier, cv=cv).fit(IMAGES, INDICATOR))
    assert max(sizes) <= 8 < N


@pytest.mark.parametrize("cv", [None, 2])
def test_flattened_images(cv):
    X, y = load_digits(n_class=3, return_X_y=True, as_frame=True)
    X, y = X[:60], y[:60]
    ensemble = make_ensemble(cv=cv).fit(X, y)
    assert ensemble.n_features_in_ == 64
    assert_array_equal(ensemble.feature_names_in_, X.columns)
    assert ensemble.classes_.tolist() == [0, 1, 2]
    images = X.to_numpy().reshape(-1, 8, 8)
    assert are_equal(ensemble, make_ensemble(cv=cv).fit(images, y.to_numpy()))
    assert_array_equal(ensemble.predict_proba(X), ensemble.predict_proba(images))


def test_learns_and_is_searched():
    X, y = load_digits(n_class=2, return_X_y=True)
    X, y = X[:120] / 16, y[:120]
    ensemble = make_ensemble(small(n_filters=4, max_epochs=4, lr=2e-2, batch_size=8))
    grid = {"n_estimators": [2, 1], "estimator__lr": [1e-6, 2e-2]}
    search = GridSearchCV(ensemble, grid, cv=[(np.arange(80), np.arange(80, 120))]).fit(X, y)
    assert search.best_score_ > 0.9
    assert search.best_params_["estimator__lr"] == 2e-2
    assert len(search.best_estimator_.estimators_) == search.best_params_["n_estimators"]


def test_checkpoints_that_never_resume_are_warned_of(tmp_path):
    classifier = small(checkpoint_dir=tmp_path)
    for _ in range(2):
        with pytest.warns(UserWarning, match="MicraNetEnsemble draws other seeds") as caught:
            make_ensemble(classifier, random_state=None).fit(IMAGES, INDICATOR)
    assert caught[0].filename == __file__
    assert len(list(tmp_path.iterdir())) == 4
    with warnings.catch_warnings(action="error"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(2):
            make_ensemble(classifier, cv=2).fit(IMAGES, INDICATOR)
        make_ensemble(random_state=None).fit(IMAGES, INDICATOR)
        pretrained = FrozenEstimator(classifier.fit(IMAGES, INDICATOR))
        make_ensemble(small(pretrained=pretrained), random_state=None).fit(IMAGES, INDICATOR)
    assert len(list(tmp_path.iterdir())) == 6  # classifier itself has no seed


@pytest.mark.parametrize("copy", ["pickle", "joblib"])
def test_round_trip(at_odds, copy, tmp_path):
    for ensemble in at_odds.values():
        if copy == "pickle":
            restored = pickle.loads(pickle.dumps(ensemble))
        else:
            joblib.dump(ensemble, tmp_path / "ensemble")
            restored = joblib.load(tmp_path / "ensemble")
        assert_array_equal(restored.predict_proba(IMAGES), ensemble.predict_proba(IMAGES))
        assert_array_equal(restored.predict(IMAGES), ensemble.predict(IMAGES))


# --- errors ----------------------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(MicraNetClassifier, "fit", fail)


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), make_ensemble()], ids=["other", "ensemble"]
)
def test_other_estimators_are_refused(estimator):
    name = type(estimator).__name__
    with pytest.raises(TypeError, match=f"must be a MicraNetClassifier. Got {name} instead"):
        MicraNetEnsemble(estimator).fit(IMAGES, INDICATOR)


EVEN, ODD = np.arange(0, N, 2), np.arange(1, N, 2)  # the first class is in the even images
WITHOUT_C = np.flatnonzero(np.arange(N) % 3 < 2)


@pytest.mark.parametrize(
    ("kind", "train", "lost"),
    [
        ("multiclass", WITHOUT_C, "['c']"),
        ("binary", ODD, "['no', 'yes']"),
        ("multilabel", ODD, "[0]"),
        ("multilabel", EVEN, "[0]"),
        ("multilabel", [], "[0, 1, 2]"),
    ],
)
def test_a_fold_that_leaves_a_class_in_all_or_no_images_is_refused(kind, train, lost, no_training):
    cv = [(np.arange(N), np.arange(4)), (train, np.arange(4))]
    with pytest.raises(
        ValueError, match=re.escape(f"Got a fold that leaves {lost} in all or none")
    ):
        make_ensemble(cv=cv).fit(IMAGES, TARGETS[kind])


def test_a_single_image_of_a_class_cannot_be_in_every_training(no_training):
    with pytest.raises(ValueError, match=r"Got a fold that leaves \[1\] in all or none"):
        make_ensemble(cv=4).fit(IMAGES, np.column_stack([np.arange(N) % 2, np.arange(N) == 7]))


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_estimators": 0}, "'n_estimators' parameter of MicraNetEnsemble"),
        ({"n_estimators": 2.5}, "'n_estimators' parameter"),
        ({"cv": "prefit"}, "'cv' parameter"),
        ({"threshold": 1.5}, "'threshold' parameter"),
        ({"threshold": [0.5, 0.5]}, r"one per class, 3. Got the shape \(2,\) instead"),
        ({"threshold": [0.5, 0.5, -0.1]}, r"must be in \[0, 1\]"),
        ({"random_state": "seed"}, "'random_state' parameter"),
        ({"n_jobs": 0.5}, "'n_jobs' parameter"),
    ],
)
def test_wrong_parameters_are_refused_before_training(parameters, match, no_training):
    with pytest.raises(ValueError, match=match):
        make_ensemble(**parameters).fit(IMAGES, INDICATOR)


@pytest.mark.parametrize(
    ("images", "y", "match"),
    [
        (np.where(IMAGES == 3, np.nan, IMAGES), INDICATOR, "contains NaN"),
        (IMAGES[:-1], INDICATOR, "inconsistent numbers of samples"),
        (IMAGES, np.zeros(N), "at least two classes"),
        (IMAGES, None, "requires y to be passed"),
    ],
)
def test_wrong_images_and_labels_are_refused(images, y, match, no_training):
    with pytest.raises(ValueError, match=match):
        make_ensemble().fit(images, y)


def test_threshold_may_be_set_after_fit(at_odds):
    ensemble = deepcopy(at_odds["multilabel"]).set_params(threshold=[0.5, 0.5])
    with pytest.raises(ValueError, match="one per class, 3"):
        ensemble.predict(IMAGES)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="MicraNetEnsemble instance is not fitted"):
        getattr(make_ensemble(), method)(IMAGES)
    with pytest.raises(NotFittedError, match="MicraNetEnsemble instance is not fitted"):
        make_ensemble().score(IMAGES, INDICATOR)
    assert not hasattr(make_ensemble(), "classes_")
    assert not hasattr(make_ensemble(), "n_features_in_")
