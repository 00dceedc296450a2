"""Callbacks of the user: what they score, and what a training leaves of them."""

from copy import deepcopy

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from torch.optim.lr_scheduler import StepLR

from sklearn_micranet import MicraNetClassifier, UNetSegmenter

rng = np.random.default_rng(0)
NUMBERS = np.arange(30) % 3
X = rng.normal(size=(30, 16, 16)) + 2 * (NUMBERS[:, None, None] > 0)
LABELS = {
    "binary": NUMBERS % 2,
    "strings": np.array(["cells", "empty"])[NUMBERS % 2],  # "cells" is the structure
    "multiclass": np.array(["a", "b", "c"])[NUMBERS],
    "two labels": np.stack([NUMBERS > 0, NUMBERS > 1], axis=1).astype(int),
    "three labels": NUMBERS[:, None] == np.arange(3),
}
X_VAL, VAL = X[:12] + 0.1, slice(0, 12)


def score(name, kind, on_train=False, scoring_of=None, **fit_params):
    """Return what a callback records in one epoch, and the classifier."""
    y = LABELS[kind]
    callback = EpochScoring(scoring_of or name, name="own", on_train=on_train)
    classifier = MicraNetClassifier(
        n_filters=2,
        max_epochs=1,
        background_label="empty" if kind == "strings" else None,
        callbacks=[callback],
        random_state=0,
    )
    classifier.fit(X, y, X_val=X_VAL, y_val=y[VAL], **fit_params)
    return classifier.history_[-1, "own"], classifier


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scores_by_name_are_those_of_the_labels(kind):
    y = LABELS[kind][VAL]
    found, classifier = score("accuracy", kind)
    assert found == accuracy_score(y, classifier.predict(X_VAL))
    found, classifier = score("f1_macro", kind)
    assert found == pytest.approx(f1_score(y, classifier.predict(X_VAL), average="macro"))
    if "labels" not in kind:
        found, classifier = score("neg_log_loss", kind)
        assert found == pytest.approx(-log_loss(y, classifier.predict_proba(X_VAL)), rel=1e-5)
    else:
        found, classifier = score("roc_auc", kind)
        assert found == pytest.approx(roc_auc_score(y, classifier.predict_proba(X_VAL)))


@pytest.mark.parametrize("on_train", [False, True])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scores_with_weights_of_images(on_train):
    weights = np.where(np.arange(30) < 20, 2.0, 1.0)
    seen = []

    def look(net, X, y):
        seen.append((np.asarray(y), net.predict_proba(X)))
        return 0.0

    _, classifier = score(None, "binary", on_train, look, sample_weight=weights)
    y, probabilities = seen[0]
    assert len(y) == len(probabilities) == (30 if on_train else 12)
    assert set(y.ravel()) == {0, 1}
    if not on_train:
        assert_allclose(probabilities, classifier.predict_proba(X_VAL), rtol=1e-5)
    assert score("accuracy", "binary", on_train, sample_weight=weights)[0] <= 1


class Counter(Callback):
    def __init__(self, seen):
        self.seen = seen

    def on_epoch_end(self, net, **kwargs):
        self.n_epochs = len(net.history)
        self.seen.append(len(net.history))


MASKS = X[:, :8, :8] > 1
TRAINED = {
    "classifier": lambda callbacks: MicraNetClassifier(
        n_filters=2, max_epochs=3, callbacks=callbacks, random_state=0
    ).fit(X, LABELS["binary"]),
    "partial": lambda callbacks: MicraNetClassifier(
        n_filters=2, callbacks=callbacks, random_state=0
    ).partial_fit(X, LABELS["binary"], classes=[0, 1]),
    "U-Net": lambda callbacks: UNetSegmenter(
        n_filters=2, n_poolings=1, max_epochs=3, callbacks=callbacks, random_state=0
    ).fit(X[:, :8, :8], MASKS),
}


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_training_leaves_the_callbacks_of_the_user_as_they_were(name):
    seen = []
    callbacks = [
        EarlyStopping(monitor="train_loss", patience=50),
        ("rate", LRScheduler(StepLR, step_size=1)),
        Counter(seen),
        Callback,
    ]
    objects = [callbacks[0], callbacks[1][1], callbacks[2]]
    before = [deepcopy(vars(callback)) for callback in objects]
    first = TRAINED[name](callbacks)
    assert seen  # what a callback collects in a list of the user's is there
    seen.clear()
    assert [vars(callback) for callback in objects] == before
    assert first.callbacks is callbacks
    second = TRAINED[name](callbacks)  # the same instances once more
    losses = [classifier.history_[:, "train_loss"] for classifier in (first, second)]
    assert losses[0] == losses[1]
    copies = [c for _, c in second.net_.callbacks_ if isinstance(c, Counter)]
    assert [copy.n_epochs for copy in copies] == [len(losses[1])]
