from types import MappingProxyType

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from watched import Watched

from sklearn_micranet import GradCAMFeatureTransformer, MicraNetClassifier, PCAFeatureMap

N = 12
LABELS = np.arange(N) % 2
IMAGES = np.random.default_rng(0).random((N, 8, 8)) + LABELS[:, None, None]
LAYERS = ("conv_a", "norm_a", "conv_b", "norm_b")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
LINEAR = ["linear.weight", "linear.bias"]


def small(**parameters):
    defaults = {"n_filters": 4, "max_epochs": 2, "batch_size": 4, "random_state": 0}
    return MicraNetClassifier(**(defaults | {"early_stopping": False} | parameters))


@pytest.fixture(scope="module")
def pretrained():
    return small(random_state=1, max_epochs=3).fit(IMAGES, LABELS)


def weights(classifier):
    state = classifier.module_.state_dict()
    return {
        name: tensor.clone(memory_format=torch.preserve_format) for name, tensor in state.items()
    }


def changed(state, other):
    return {name for name in state if not torch.equal(state[name], other[name])}


def parameters_of(depths):
    names = [
        f"depth{d}.{layer}.{t}" for d in depths for layer in LAYERS for t in ("weight", "bias")
    ]
    return names + LINEAR


def statistics_of(depths):
    return [f"depth{d}.norm_{half}.{t}" for d in depths for half in "ab" for t in STATISTICS]


class Initial(Watched):
    """Record the weights that a training starts from, and which depths it has in which mode."""

    def on_train_begin(self, net, **kwargs):
        self.weights = {k: v.clone() for k, v in net.module_.state_dict().items()}

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.is_training = [depth.norm_a.training for depth in net.module_.depths]


LAST_DEPTHS = {0: [], 1: [4], 2: [3, 4], 3: [2, 3, 4], 4: [1, 2, 3, 4]}


# --- what is updated --------------------------------------------------------------------------


@pytest.mark.parametrize(("fine_tune_depth", "depths"), LAST_DEPTHS.items())
def test_exactly_the_last_depths_change(fine_tune_depth, depths, pretrained):
    initial = Initial()
    classifier = small(
        pretrained=FrozenEstimator(pretrained), fine_tune_depth=fine_tune_depth, callbacks=[initial]
    ).fit(IMAGES, LABELS)
    before = weights(pretrained)
    assert not changed(initial.weights, before)
    assert changed(weights(classifier), before) == {*parameters_of(depths), *statistics_of(depths)}
    assert classifier.updated_parameters_ == parameters_of(depths)
    assert initial.is_training == [d in depths for d in (1, 2, 3, 4)]


@pytest.mark.parametrize("fine_tune_depth", [0, 2])
@pytest.mark.parametrize("start", ["fit", "partial_fit", "load_weights"])
def test_frozen_depths_stay_frozen_in_partial_fit(start, fine_tune_depth, pretrained, tmp_path):
    classifier = small(pretrained=FrozenEstimator(pretrained), fine_tune_depth=fine_tune_depth)
    if start == "fit":
        classifier.fit(IMAGES, LABELS)
    elif start == "load_weights":
        pretrained.save_weights(tmp_path / "net.pt")
        classifier.load_weights(tmp_path / "net.pt")
    depths = LAST_DEPTHS[fine_tune_depth]
    before = weights(classifier) if start == "fit" else weights(pretrained)
    for _ in range(2):
        classifier.partial_fit(IMAGES, LABELS, classes=[0, 1])
        classifier.predict(IMAGES)  # in evaluation mode
    assert changed(weights(classifier), before) == {*parameters_of(depths), *statistics_of(depths)}


def test_without_pretrained_weights_frozen_depths_keep_their_random_ones():
    initial = Initial()
    classifier = small(fine_tune_depth=1, callbacks=[initial]).fit(IMAGES, LABELS)
    expected = {*parameters_of([4]), *statistics_of([4])}
    assert changed(weights(classifier), initial.weights) == expected
    assert classifier.updated_parameters_ == parameters_of([4])


def test_a_new_fit_may_update_another_number_of_depths(pretrained):
    classifier = small(pretrained=FrozenEstimator(pretrained), fine_tune_depth=0)
    classifier.fit(IMAGES, LABELS)
    classifier.set_params(fine_tune_depth=4).fit(IMAGES, LABELS)
    expected = small(pretrained=FrozenEstimator(pretrained)).fit(IMAGES, LABELS)
    assert not changed(weights(classifier), weights(expected))


def test_local_maps_do_not_depend_on_what_is_frozen(pretrained, tmp_path):
    frozen = small(pretrained=FrozenEstimator(pretrained), fine_tune_depth=0).fit(IMAGES, LABELS)
    frozen.save_weights(tmp_path / "net.pt")
    free = small().load_weights(tmp_path / "net.pt")
    maps, expected = (
        np.asarray(
            GradCAMFeatureTransformer(FrozenEstimator(c), classes="all").fit(None).transform(IMAGES)
        )
        for c in (frozen, free)
    )
    assert expected.any()
    assert_array_equal(maps, expected)


# --- where the weights come from --------------------------------------------------------------


def test_all_kinds_of_pretrained_weights_are_equal(pretrained, tmp_path):
    pretrained.save_weights(tmp_path / "net.pt")
    state = pretrained.module_.state_dict()
    torch.save(state, tmp_path / "state.pt")
    expected = small(pretrained=FrozenEstimator(pretrained)).fit(IMAGES, LABELS)
    assert changed(weights(expected), weights(small().fit(IMAGES, LABELS)))  # they matter
    for given in (
        tmp_path / "net.pt",
        str(tmp_path / "net.pt"),
        tmp_path / "state.pt",
        state,
        MappingProxyType(state),
        pretrained,
    ):
        classifier = small(pretrained=given).fit(IMAGES, LABELS)
        assert not changed(weights(classifier), weights(expected)), type(given)


def test_the_pretrained_estimator_does_not_change(pretrained):
    before, parameters = weights(pretrained), pretrained.get_params()
    needs_grad = [p.requires_grad for p in pretrained.module_.parameters()]
    state = pretrained.module_.state_dict()
    for given in (FrozenEstimator(pretrained), pretrained, state):
        classifier = small(pretrained=given, fine_tune_depth=1).fit(IMAGES, LABELS)
        classifier.partial_fit(IMAGES, LABELS)
        assert not changed(weights(pretrained), before)
    assert [p.requires_grad for p in pretrained.module_.parameters()] == needs_grad
    assert all(needs_grad)
    assert not pretrained.module_.training
    assert pretrained.get_params() == parameters


def test_another_number_of_classes_starts_the_linear_layer_anew(pretrained):
    initial, again = Initial(), Initial()
    for random_state, callback in ((0, initial), (1, again)):
        small(
            pretrained=FrozenEstimator(pretrained),
            fine_tune_depth=0,
            callbacks=[callback],
            random_state=random_state,
        ).fit(IMAGES, np.arange(N) % 3)
    before = weights(pretrained)
    assert initial.weights["linear.weight"].shape == (3, 32)
    assert changed(initial.weights, again.weights) == set(LINEAR)  # random, not zero
    for name in before.keys() - LINEAR:
        assert torch.equal(initial.weights[name], before[name]), name


def test_the_same_number_of_classes_keeps_the_linear_layer(pretrained):
    initial = Initial()
    names = np.array(["no", "yes"])[LABELS]
    small(pretrained=FrozenEstimator(pretrained), callbacks=[initial]).fit(IMAGES, names)
    assert not changed(initial.weights, weights(pretrained))


def test_weights_of_another_size_are_refused(pretrained, tmp_path):
    pretrained.save_weights(tmp_path / "net.pt")
    for given in (FrozenEstimator(pretrained), tmp_path / "net.pt"):
        with pytest.raises(
            ValueError, match=r"3 filters at depth 1\. Got 4 instead: set n_filters"
        ):
            small(pretrained=given, n_filters=3).fit(IMAGES, LABELS)
        with pytest.raises(ValueError, match=r"2 channels per image\. Got 1 instead"):
            small(pretrained=given).fit(np.stack([IMAGES] * 2, axis=-1), LABELS)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_an_unfitted_estimator_is_refused(method):
    arguments = {"classes": [0, 1]} if method == "partial_fit" else {}
    for given, error in (
        (FrozenEstimator(small()), NotFittedError),
        (small(), NotFittedError),
        (FrozenEstimator(LogisticRegression()), TypeError),
    ):
        classifier = small(pretrained=given)
        with pytest.raises(error, match="a fitted MicraNetClassifier in a FrozenEst"):
            getattr(classifier, method)(IMAGES, LABELS, **arguments)


def test_a_clone_of_an_estimator_that_is_not_frozen_says_why_its_weights_are_lost(pretrained):
    with pytest.raises(NotFittedError, match="a classifier that is not frozen loses its weights"):
        clone(small(pretrained=pretrained)).fit(IMAGES, LABELS)


def test_a_missing_file_leaves_a_classifier_as_it_was(pretrained, tmp_path):
    classifier = small(max_epochs=1).fit(IMAGES, LABELS)
    probabilities = classifier.predict_proba(IMAGES)
    classifier.set_params(pretrained=tmp_path / "absent.pt")
    with pytest.raises(FileNotFoundError, match=r"absent\.pt must be a file"):
        classifier.fit(IMAGES, np.array(["a", "b", "c"])[np.arange(N) % 3])
    assert_array_equal(classifier.predict_proba(IMAGES), probabilities)
    assert classifier.classes_.tolist() == [0, 1]


def test_a_classifier_may_start_from_its_own_weights():
    initial, classifier = Initial(), small()
    before = weights(classifier.fit(IMAGES, LABELS))
    classifier.set_params(pretrained=FrozenEstimator(classifier), callbacks=[initial])
    classifier.fit(IMAGES, LABELS)
    assert not changed(initial.weights, before)


def test_files_and_dicts_that_are_no_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pt must be a file\. Got nothing instead"):
        small(pretrained=tmp_path / "absent.pt").fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match="A dict of the 58 tensors"):
        small(pretrained={"a": torch.zeros(1)}).fit(IMAGES, LABELS)


@pytest.mark.parametrize("fine_tune_depth", [-1, 5, 1.5, "all", None])
def test_wrong_depths_are_refused(fine_tune_depth):
    with pytest.raises(
        ValueError, match=r"'fine_tune_depth' .* must be an int in the range \[0, 4"
    ):
        small(fine_tune_depth=fine_tune_depth).fit(IMAGES, LABELS)


# --- scikit-learn's meta-estimators -----------------------------------------------------------


def given_as(kind, classifier, folder):
    if kind == "path":
        classifier.save_weights(folder / "net.pt")
        return folder / "net.pt"
    return FrozenEstimator(classifier) if kind == "frozen" else classifier.module_.state_dict()


@pytest.mark.parametrize("kind", ["path", "dict", "frozen"])
def test_clones_keep_the_weights(kind, pretrained, tmp_path):
    classifier = small(pretrained=given_as(kind, pretrained, tmp_path), fine_tune_depth=0)
    twice = clone(clone(classifier)).fit(IMAGES, LABELS)
    assert not changed(weights(twice), weights(classifier.fit(IMAGES, LABELS)))
    assert changed(weights(twice), weights(pretrained)) == set(LINEAR)


def make_scorer(pretrained, get_module):
    """Return a scorer: the number of depths that are bit for bit those of the pretrained network.

    It is not a function of this module, which the processes of joblib cannot import.
    """
    before = weights(pretrained)

    def n_kept(estimator, X, y=None):
        state = get_module(estimator).state_dict()
        kept = [
            all(np.array_equal(state[k], before[k]) for k in before if k.startswith(f"depth{d}"))
            for d in (1, 2, 3, 4)
        ]
        return sum(kept)

    return n_kept


@pytest.mark.parametrize(
    ("kind", "n_jobs"),
    [
        ("path", None),
        ("dict", None),
        ("frozen", None),
        pytest.param("frozen", 2, marks=pytest.mark.slow),  # two processes that import torch
    ],
)
def test_a_grid_search_walks_the_depths(kind, n_jobs, pretrained, tmp_path):
    grid = {"fine_tune_depth": [0, 1, 2, 4], "lr": [1e-3, 1e-2]}
    search = GridSearchCV(
        small(pretrained=given_as(kind, pretrained, tmp_path), max_epochs=1),
        grid,
        cv=[(np.arange(N), np.arange(N))],
        scoring=make_scorer(pretrained, lambda classifier: classifier.module_),
        n_jobs=n_jobs,
        error_score="raise",
    )
    search.fit(IMAGES, LABELS)
    assert search.cv_results_["mean_test_score"].tolist() == [4, 4, 3, 3, 2, 2, 0, 0]
    assert search.best_params_ == {"fine_tune_depth": 0, "lr": 1e-3}
    assert changed(weights(search.best_estimator_), weights(pretrained)) == set(LINEAR)


def test_a_grid_search_of_a_pipeline_walks_the_depths(pretrained):
    classifier = small(pretrained=FrozenEstimator(pretrained), max_epochs=1)
    transformer = GradCAMFeatureTransformer(classifier, classes="all")
    search = GridSearchCV(
        Pipeline([("maps", transformer), ("pca", PCAFeatureMap())]),
        {"maps__estimator__fine_tune_depth": [0, 1, 2, 4]},
        cv=[(np.arange(N), np.arange(N))],
        scoring=make_scorer(pretrained, lambda pipe: pipe["maps"].estimator_.module_),
        error_score="raise",
    )
    search.fit(IMAGES, LABELS)
    assert search.cv_results_["mean_test_score"].tolist() == [4, 3, 2, 0]


def test_the_result_is_reproducible(pretrained):
    first, second, other = (
        small(pretrained=FrozenEstimator(pretrained), random_state=seed).fit(IMAGES, LABELS)
        for seed in (0, 0, 1)
    )
    assert not changed(weights(first), weights(second))
    assert changed(weights(first), weights(other))
