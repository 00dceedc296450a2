import os
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_validate
from skorch.callbacks import Callback
from torch import nn

import sklearn_micranet
from sklearn_micranet import GradCAMFeatureTransformer, MicraNetClassifier

N = 12
INDICATOR = np.arange(3 * N).reshape(N, 3) % 5 % 2
IMAGES = np.random.default_rng(0).random((N, 8, 12)) + INDICATOR[:, :1, None]
RGB = np.stack([IMAGES, 1 - IMAGES, IMAGES**2], axis=-1)
LABELS = {
    "binary": np.arange(N) % 2,
    "multiclass": np.arange(N) % 3,
    "multilabel": INDICATOR,
    "two strings": np.array(["no", "yes"])[INDICATOR[:, 0]],
    "strings": np.array(["ring", "fibre", "dendrite"])[np.arange(N) % 3],
    "numbers": np.array([-1.0, 2.0])[INDICATOR[:, 0]],
    "booleans": INDICATOR[:, 0] > 0,
}


BACKGROUND = {"two strings": "no", "numbers": -1.0}


def small(**parameters):
    defaults = {"n_filters": 2, "max_epochs": 2, "batch_size": 4, "random_state": 0}
    return MicraNetClassifier(**(defaults | parameters))


def weights(classifier):
    return {name: tensor.clone() for name, tensor in classifier.module_.state_dict().items()}


def have_equal_weights(classifier, other):
    mine, others = weights(classifier), weights(other)
    return all(torch.equal(mine[name], others[name]) for name in mine)


def local_maps(classifier, X):
    transformer = GradCAMFeatureTransformer(FrozenEstimator(classifier), classes="all")
    return np.asarray(transformer.fit(X).transform(X))


@pytest.fixture(scope="module")
def fitted():
    return {
        name: small(background_label=BACKGROUND.get(name)).fit(IMAGES, y)
        for name, y in LABELS.items()
    }


def through_pickle(classifier, folder):
    return pickle.loads(pickle.dumps(classifier))


def through_joblib(classifier, folder):
    joblib.dump(classifier, folder / "classifier.joblib")
    return joblib.load(folder / "classifier.joblib")


def through_weights(classifier, folder):
    classifier.save_weights(folder / "net.pt")
    return small().load_weights(folder / "net.pt")


# --- round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("through", [through_pickle, through_joblib, through_weights])
@pytest.mark.parametrize("name", LABELS)
def test_predictions_return_bit_for_bit(name, through, fitted, tmp_path):
    classifier = fitted[name]
    returned = through(classifier, tmp_path)
    assert np.array_equal(returned.classes_, classifier.classes_)
    assert returned.classes_.dtype == classifier.classes_.dtype
    for method in ("predict_proba", "decision_function", "predict"):
        found, expected = getattr(returned, method)(IMAGES), getattr(classifier, method)(IMAGES)
        assert np.array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert np.array_equal(local_maps(returned, IMAGES), local_maps(classifier, IMAGES))
    assert returned.score(IMAGES, LABELS[name]) == classifier.score(IMAGES, LABELS[name])


@pytest.mark.parametrize("through", [through_pickle, through_joblib])
def test_a_loaded_classifier_returns_from_a_pickle(through, fitted, tmp_path):
    classifier = fitted["strings"]
    loaded = through_weights(classifier, tmp_path)
    returned = through(loaded, tmp_path)
    assert np.array_equal(returned.predict_proba(IMAGES), classifier.predict_proba(IMAGES))
    assert returned.weights_metadata_ == loaded.weights_metadata_
    for either in (returned, loaded):
        either.partial_fit(IMAGES, LABELS["strings"])
    assert have_equal_weights(returned, loaded)


@pytest.mark.parametrize(
    ("X", "image_shape"),
    [
        (RGB, None),
        (IMAGES.reshape(N, -1), (8, 12)),
        (RGB.reshape(N, -1), (8, 12, 3)),
        (IMAGES[:, :8, :8].reshape(N, -1), None),  # inferred to be square
    ],
)
def test_the_shape_of_images_returns(X, image_shape, tmp_path):
    classifier = small(image_shape=image_shape).fit(X, INDICATOR)
    returned = through_weights(classifier, tmp_path)  # without the parameter image_shape
    assert np.array_equal(returned.predict_proba(X), classifier.predict_proba(X))
    assert np.array_equal(local_maps(returned, X), local_maps(classifier, X))
    assert returned.n_channels_in_ == classifier.n_channels_in_
    for name in ("image_shape_", "n_features_in_"):
        assert getattr(returned, name, None) == getattr(classifier, name, None)
    if X.ndim == 2:
        with pytest.raises(ValueError, match="features"):
            returned.predict(X[:, 1:])


def test_loading_replaces_what_a_classifier_was(fitted, tmp_path):
    flat = small().fit(IMAGES[:, :8, :8].reshape(N, -1), LABELS["multiclass"])
    fitted["two strings"].save_weights(tmp_path / "net.pt")
    flat.load_weights(tmp_path / "net.pt")
    assert flat.image_shape_ is None
    assert not hasattr(flat, "n_features_in_")
    assert len(flat.history_) == 0
    assert np.array_equal(flat.predict(IMAGES), fitted["two strings"].predict(IMAGES))


def test_the_file_says_what_it_is_of(tmp_path):
    y = LABELS["strings"]
    classifier = small(threshold=[0.1, 0.2, 0.75], image_shape=(8, 12))
    classifier.fit(IMAGES.reshape(N, -1), INDICATOR).save_weights(tmp_path / "net.pt")
    loaded = small().load_weights(tmp_path / "net.pt")
    assert loaded.weights_metadata_ == {
        "kind": "multilabel",
        "classes": [0, 1, 2],
        "background_label": None,
        "image_shape": (8, 12),
        "threshold": [0.1, 0.2, 0.75],
    }
    assert loaded.threshold == 0.5  # a parameter is the user's
    small().fit(IMAGES, y).save_weights(str(tmp_path / "net.pt"))
    metadata = small().load_weights(str(tmp_path / "net.pt")).weights_metadata_
    assert metadata == {
        "kind": "multiclass",
        "classes": ["dendrite", "fibre", "ring"],
        "background_label": None,
        "image_shape": None,
        "threshold": 0.5,
    }


# --- what a loaded classifier does --------------------------------------------------------------


@pytest.mark.parametrize("name", ["binary", "strings", "multilabel"])
def test_training_goes_on_after_loading(name, fitted, tmp_path):
    loaded, again, other = (through_weights(fitted[name], tmp_path) for _ in range(3))
    assert have_equal_weights(loaded, fitted[name])
    loaded.partial_fit(IMAGES, LABELS[name])
    assert not have_equal_weights(loaded, fitted[name])
    assert loaded.module_.depth1.norm_a.num_batches_tracked > (
        fitted[name].module_.depth1.norm_a.num_batches_tracked
    )
    assert have_equal_weights(loaded, again.partial_fit(IMAGES, LABELS[name]))
    other = small(random_state=1).load_weights(tmp_path / "net.pt")
    assert not have_equal_weights(loaded, other.partial_fit(IMAGES, LABELS[name]))
    with pytest.raises(ValueError, match="y must"):
        loaded.partial_fit(IMAGES, np.arange(N))


def test_a_refused_file_is_named_by_what_does_not_fit(fitted, tmp_path):
    fitted["binary"].save_weights(tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"n_filters must be 2, as in .*net.pt. Got 3 instead"):
        small(n_filters=3).load_weights(tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"one number or one per class, 1\. Got the shape \(2,\)"):
        small(threshold=[0.1, 0.2]).load_weights(tmp_path / "net.pt")


def test_refused_weights_leave_no_old_network_with_new_classes(fitted, tmp_path):
    fitted["binary"].save_weights(tmp_path / "net.pt")
    classifier = through_weights(fitted["strings"], tmp_path).set_params(threshold=[0.1, 0.2])
    fitted["binary"].save_weights(tmp_path / "net.pt")
    with pytest.raises(ValueError, match="one number or one per class, 1"):
        classifier.load_weights(tmp_path / "net.pt")
    with pytest.raises(NotFittedError, match="not fitted yet"):
        classifier.predict_proba(IMAGES)
    assert not hasattr(classifier, "weights_metadata_")


def test_flattened_images_have_the_given_shape_if_the_file_has_none(fitted, tmp_path):
    fitted["multilabel"].save_weights(tmp_path / "net.pt")
    classifier = small(image_shape=[8, 12]).load_weights(tmp_path / "net.pt")
    expected = fitted["multilabel"].predict_proba(IMAGES)
    assert np.array_equal(classifier.predict_proba(IMAGES.reshape(N, -1)), expected)
    assert np.array_equal(classifier.predict_proba(IMAGES), expected)
    assert (classifier.image_shape_, classifier.n_features_in_) == ((8, 12), 96)
    with pytest.raises(ValueError, match=r"image_shape must be \(height, width\) or"):
        small(image_shape=(96,)).load_weights(tmp_path / "net.pt")


class Authors(nn.Module):
    """The layout of the authors' weights, from its description."""

    def __init__(self, n_channels, n_outputs, n_filters):
        super().__init__()
        n_in = n_channels
        for depth in range(1, 5):
            n_out = n_filters * 2 ** (depth - 1)
            for half in "ab":
                setattr(self, f"conv{depth}{half}", nn.Conv2d(n_in, n_out, 3, padding=1))
                setattr(self, f"bnorm{depth}{half}", nn.BatchNorm2d(n_out))
                n_in = n_out
        self.linear1 = nn.Linear(n_in, n_outputs)

    def forward(self, x):
        for depth in range(1, 5):
            for half in "ab":
                x = getattr(self, f"conv{depth}{half}")(x)
                x = getattr(self, f"bnorm{depth}{half}")(x).relu()
            x = nn.functional.max_pool2d(x, 2) if depth < 4 else x.amax((2, 3))
        return self.linear1(x)


@pytest.mark.parametrize(("n_outputs", "classes"), [(1, [0, 1]), (3, [0, 1, 2])])
def test_the_authors_weights_predict_and_are_fine_tuned(n_outputs, classes, tmp_path):
    authors = Authors(n_channels=1, n_outputs=n_outputs, n_filters=2)
    authors(torch.rand(4, 1, 8, 12))  # statistics of its own
    torch.save(authors.state_dict(), tmp_path / "params.net")
    authors.eval()
    classifier = small().load_weights(tmp_path / "params.net")
    assert classifier.classes_.tolist() == classes
    assert classifier.weights_metadata_ == {}
    with torch.no_grad():
        padded = np.pad(IMAGES, [(0, 0), (0, 0), (0, 4)], mode="edge")  # to multiples of 8
        logits = authors(torch.from_numpy(padded[:, None].astype(np.float32))).numpy()
    assert logits.std() > 0
    found = classifier.decision_function(IMAGES).reshape(logits.shape)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-6)
    y = LABELS["binary"] if n_outputs == 1 else INDICATOR
    tuned = small(pretrained=tmp_path / "params.net", fine_tune_depth=0).fit(IMAGES, y)
    theirs = authors.state_dict()["conv4b.weight"]
    assert torch.equal(tuned.module_.depth4.conv_b.weight, theirs)
    assert not torch.equal(tuned.module_.linear.weight, authors.state_dict()["linear1.weight"])


# --- the same random_state, the same weights ------------------------------------------------------

ALL_NEW = {
    "background_label": "no",
    "augmentation": "microscopy",
    "negatives_per_positive": 0.5,
    "fine_tune_depth": 2,
    "lr_schedule": "cosine",
}
PRINT_HASH = """
import sys, joblib, torch
torch.set_num_threads(1)  # as conftest.py does
classifier, X, y = joblib.load(sys.argv[1])
classifier.fit(X, y)
state = classifier.module_.state_dict()
print(joblib.hash({name: tensor.numpy() for name, tensor in state.items()}))
"""


def test_a_fresh_process_trains_the_same_network(tmp_path):
    y = LABELS["two strings"]
    joblib.dump((small(**ALL_NEW), IMAGES, y), tmp_path / "job")
    path = [str(Path(sklearn_micranet.__file__).parents[1]), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-c", PRINT_HASH, str(tmp_path / "job")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    state = small(**ALL_NEW).fit(IMAGES, y).module_.state_dict()
    expected = joblib.hash({name: tensor.numpy() for name, tensor in state.items()})
    assert run.stdout.strip() == expected, run.stderr


class Threads(Callback):
    def on_batch_begin(self, net, **kwargs):
        net.history.record("n_threads", torch.get_num_threads())


def test_the_number_of_threads_can_be_fixed():
    classifier = small(n_threads=1, callbacks=[Threads])
    fits = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        try:
            fits.append(clone(classifier).fit(IMAGES, LABELS["two strings"]))
            assert torch.get_num_threads() == n_threads
        finally:
            torch.set_num_threads(1)  # as conftest.py does
    assert all(set(fit.history_[:, "n_threads"]) == {1} for fit in fits)
    assert have_equal_weights(*fits)
    two = clone(classifier).set_params(n_threads=2).fit(IMAGES, LABELS["two strings"])
    assert set(two.history_[:, "n_threads"]) == {2}


@pytest.mark.slow  # two processes that import torch
def test_processes_train_the_same_networks():
    def estimators(n_jobs):
        return cross_validate(
            small(**ALL_NEW, n_threads=2),  # neither that of this process nor that of the others
            IMAGES,
            LABELS["two strings"],
            cv=2,
            n_jobs=n_jobs,
            return_estimator=True,
            error_score="raise",
        )["estimator"]

    here, there = estimators(n_jobs=1), estimators(n_jobs=2)
    assert all(have_equal_weights(*pair) for pair in zip(here, there, strict=True))
    assert not have_equal_weights(*here)


def states_of_random_numbers():
    kind, keys, *rest = np.random.get_state()
    return [kind, keys.tolist(), rest, torch.get_rng_state().tolist()]


@pytest.mark.parametrize("random_state", [0, "instance"])
def test_global_random_numbers_are_left_alone(random_state, fitted, tmp_path):
    if random_state == "instance":
        random_state = np.random.RandomState(0)
    fitted["two strings"].save_weights(tmp_path / "net.pt")
    before = states_of_random_numbers()
    X, y = IMAGES, LABELS["two strings"]
    classifier = small(
        **ALL_NEW,
        pretrained=tmp_path / "net.pt",
        checkpoint_dir=tmp_path / "checkpoints",
        random_state=random_state,
    )
    for _ in range(2):  # the second returns what was finished, if random_state is an int
        classifier.fit(X, y, np.arange(N) + 1)
        assert states_of_random_numbers() == before
    classifier.partial_fit(X, y)
    classifier.load_weights(tmp_path / "net.pt")
    local_maps(classifier, X)
    assert states_of_random_numbers() == before
