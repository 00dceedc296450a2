"""Parameters of the training that decide which images it sees, and how much each counts."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score
from skorch.callbacks import Callback
from torch.nn import functional as F
from watched import Watched

from sklearn_micranet import GradCAMFeatureTransformer, MicraNetClassifier

N = 40
RNG = np.random.default_rng(0)
Y = np.repeat([1, 0], [8, 32])
X = RNG.normal(0, 0.3, (N, 8, 8)) + Y[:, None, None] * RNG.random((N, 1, 1))
# Every pixel of an image is its number, the positive ones first.
NUMBERED = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None], (N, 8, 8))
TARGETS = {
    "binary": Y,
    "multiclass": np.arange(N) % 3,
    "multilabel": np.stack([Y, Y * (np.arange(N) % 2)], axis=1),
}


def small(**parameters):
    defaults = {"n_filters": 1, "max_epochs": 2, "batch_size": 8, "random_state": 0}
    return MicraNetClassifier(**(defaults | {"validation_fraction": 0} | parameters))


def have_equal_weights(classifier, other):
    mine, others = classifier.module_.state_dict(), other.module_.state_dict()
    return all(torch.equal(mine[name], others[name]) for name in mine)


class Recorder(Watched):
    """Record the images of each batch, by the value of their first pixel, epoch by epoch."""

    def on_train_begin(self, net, **kwargs):
        self.training, self.validation = [], []

    def on_epoch_begin(self, net, **kwargs):
        self.training.append([])
        self.validation.append([])

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        epochs = self.training if training else self.validation
        epochs[-1].append(batch[0][:, 0, 0, 0].round().int().tolist())


class Untrained(Callback):
    def on_train_begin(self, net, **kwargs):
        raise AssertionError("Training began.")


def local_maps(classifier, X):
    return GradCAMFeatureTransformer(FrozenEstimator(classifier)).fit(X).transform(X)


def flat(batches):
    return [i for batch in batches for i in batch]


# --- sample_weight ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("parameters", [{}, {"validation_fraction": 0.25}])
def test_weight_0_leaves_an_image_out(kind, parameters):
    # Exactly: split, order and batches are drawn for the images that are left, which come in the
    # same order, and the weights have mean 1 over them.
    weights = np.arange(N) % 5 / 2
    used = weights > 0
    y = TARGETS[kind]
    spoilt = np.where(used[:, None, None], X, 1e6)
    classifier = small(**parameters).fit(spoilt, y, sample_weight=weights)
    expected = small(**parameters).fit(X[used], y[used], sample_weight=weights[used])
    assert have_equal_weights(classifier, expected)


def test_weights_of_0_and_1_choose_images():
    used = np.arange(N) % 3 > 0
    classifier = small(class_weight="balanced").fit(X, Y, sample_weight=used)
    expected = small(class_weight="balanced").fit(X[used], Y[used])
    assert Y.mean() != Y[used].mean()  # "balanced" counts the images that are used
    assert have_equal_weights(classifier, expected)


def test_only_ratios_of_weights_matter():
    weights = np.random.default_rng(1).random(N)
    classifier = small().fit(X, Y, sample_weight=weights)
    # By a power of two, so that nothing is rounded.
    assert have_equal_weights(classifier, small().fit(X, Y, sample_weight=4 * weights))
    assert have_equal_weights(small().fit(X, Y), small().fit(X, Y, sample_weight=np.full(N, 8)))
    assert not have_equal_weights(classifier, small().fit(X, Y))


def test_heavy_images_decide():
    # All images are the same, their labels are not.
    same, y = X[:1].repeat(N, axis=0), np.arange(N) % 2
    probabilities = [
        small(max_epochs=6, lr=0.03)
        .fit(same, y, sample_weight=np.where(y == label, 9, 1))
        .predict_proba(same)[0, 1]
        for label in (0, 1)
    ]
    assert probabilities[0] < 0.35 < 0.65 < probabilities[1]


def test_the_validation_loss_is_weighted():
    recorder = Recorder()
    weights = 1 + np.arange(N) % 7
    classifier = small(validation_fraction=0.25, early_stopping=False, callbacks=[recorder])
    classifier.fit(NUMBERED, Y, sample_weight=weights)
    numbers = flat(recorder.validation[-1])
    probabilities = classifier.predict_proba(NUMBERED[numbers])[:, 1].astype(float)
    losses = -np.log(np.where(Y[numbers], probabilities, 1 - probabilities))
    expected = np.mean(losses * weights[numbers] / weights.mean())
    assert classifier.history_[-1, "valid_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.where(np.arange(N) == 3, -1, 1), "weight >= 0 for each of the 40 images. Got negative"),
        (np.zeros(N), "above zero for at least two images. Got 0"),
        (np.arange(N) == 3, "above zero for at least two images. Got 1"),
        (np.ones(N - 1), r"each of the 40 images. Got shape \(39,\) instead"),
    ],
)
def test_wrong_weights_are_refused_before_training(method, weights, match):
    classifier = small(callbacks=[Untrained()])
    classes = {"classes": [0, 1]} if method == "partial_fit" else {}
    with pytest.raises(ValueError, match=match):
        getattr(classifier, method)(X, Y, sample_weight=weights, **classes)


@pytest.mark.parametrize("kind", TARGETS)
def test_images_of_weight_0_do_not_count_as_those_of_a_class(kind):
    y = TARGETS[kind]
    used = (y if y.ndim == 1 else y.any(axis=1)) == 0
    assert used.sum() > 2
    with pytest.raises(ValueError, match=r"also among those of a sample_weight above zero\. Got"):
        small(callbacks=[Untrained()]).fit(X, y, sample_weight=used)
    classifier = small().partial_fit(X, y, classes=np.unique(y), sample_weight=used)
    assert len(classifier.history_) == 1  # a batch may lack classes


def test_partial_fit_weighs_images():
    def trained(X, y, sample_weight):
        classifier = small().partial_fit(X, y, classes=[0, 1], sample_weight=sample_weight)
        return classifier.partial_fit(X, y, sample_weight=sample_weight)

    weights = np.arange(N) % 5 / 2
    used = weights > 0
    classifier = trained(X, Y, weights)
    assert have_equal_weights(classifier, trained(X, Y, 4 * weights))
    assert have_equal_weights(classifier, trained(X[used], Y[used], weights[used]))
    assert not have_equal_weights(classifier, trained(X, Y, None))


def test_score_weighs_images():
    classifier = small().fit(X, Y)
    y_true = np.arange(N) % 2
    weights = np.random.default_rng(1).random(N)
    expected = accuracy_score(y_true, classifier.predict(X), sample_weight=weights)
    assert expected != classifier.score(X, y_true)
    assert classifier.score(X, y_true, sample_weight=weights) == pytest.approx(expected)


# --- negatives_per_positive ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
@pytest.mark.parametrize(("ratio", "n_drawn"), [(0.5, 4), (1, 8), (2.3, 18), (5, 32), (16, 32)])
def test_an_epoch_is_all_positives_and_new_negatives(kind, ratio, n_drawn):
    recorder = Recorder()
    small(negatives_per_positive=ratio, max_epochs=3, callbacks=[recorder]).fit(
        NUMBERED, TARGETS[kind]
    )
    draws = []
    for batches in recorder.training:
        sizes = [len(batch) for batch in batches]
        assert len(sizes) == -(-(8 + n_drawn) // 8)
        assert max(sizes) <= 8
        assert max(sizes) - min(sizes) <= 1
        numbers = np.array(flat(batches))
        assert sorted(numbers[numbers < 8]) == list(range(8))
        draws.append(sorted(numbers[numbers >= 8]))
        assert len(set(draws[-1])) == len(draws[-1]) == n_drawn
    assert (draws[0] != draws[1] != draws[2]) == (n_drawn < 32)


def test_the_random_state_decides_which_negatives():
    def images(random_state):
        recorder = Recorder()
        small(negatives_per_positive=1, callbacks=[recorder], random_state=random_state).fit(
            NUMBERED, Y
        )
        return recorder.training

    assert images(0) == images(0) != images(1)


@pytest.mark.parametrize(("ratio", "n_drawn"), [(1, 2), (2, 4), (0.5, 1), (16, 8)])
def test_validation_images_have_the_same_ratio(ratio, n_drawn):
    recorder = Recorder()
    classifier = small(
        negatives_per_positive=ratio, validation_fraction=0.25, callbacks=[recorder], max_epochs=3
    )
    classifier.fit(NUMBERED, Y)
    first, *others = recorder.validation
    numbers = np.array(flat(first))
    assert (numbers < 8).sum() == 2  # a quarter of the 8
    assert (numbers >= 8).sum() == n_drawn  # of the 8 negatives set aside
    assert all(flat(epoch) == flat(first) for epoch in others)
    training = np.concatenate([flat(epoch) for epoch in recorder.training])
    assert set(training).isdisjoint(numbers)
    assert (training < 8).sum() == 3 * 6
    assert (training >= 8).sum() == 3 * min(24, round(6 * ratio))


def test_validation_images_of_the_user_are_all_used():
    recorder = Recorder()
    classifier = small(negatives_per_positive=1, callbacks=[recorder])
    classifier.fit(NUMBERED, Y, X_val=NUMBERED[::2], y_val=Y[::2])
    assert flat(recorder.validation[0]) == list(range(0, N, 2))


def test_negatives_of_weight_0_are_not_drawn():
    recorder = Recorder()
    classifier = small(negatives_per_positive=1, max_epochs=4, callbacks=[recorder])
    classifier.fit(NUMBERED, Y, sample_weight=np.arange(N) < 20)
    for batches in recorder.training:
        assert len(flat(batches)) == 16
        assert max(flat(batches)) < 20


def test_partial_fit_draws_negatives():
    recorder = Recorder()
    classifier = small(negatives_per_positive=0.5, callbacks=[recorder])
    draws = []
    for _ in range(2):
        classifier.partial_fit(NUMBERED, Y, classes=[0, 1])
        (batches,) = recorder.training
        draws.append({i for i in flat(batches) if i >= 8})
        assert len(flat(batches)) == 12
    assert len(draws[0]) == len(draws[1]) == 4
    assert draws[0] != draws[1]


def test_the_schedule_knows_how_long_an_epoch_is():
    class Rate(Watched):
        def on_batch_end(self, net, training=False, **kwargs):
            self.last = net.optimizer_.param_groups[0]["lr"]

    rate = Rate()
    classifier = small(negatives_per_positive=1, lr_schedule="cosine", lr=1e-2, min_lr=1e-4)
    classifier.set_params(callbacks=[rate], max_epochs=10, early_stopping=False).fit(X, Y)
    assert 1e-4 < rate.last < 4e-4  # one of 20 steps before the end of the cosine


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (TARGETS["multiclass"], "images without any.* Got a multiclass y that lacks"),
        (np.eye(2, dtype=int)[Y], "images without any.* Got a multilabel y that lacks"),
    ],
)
def test_a_ratio_needs_negatives(y, match):
    with pytest.raises(ValueError, match=match):
        small(negatives_per_positive=1, callbacks=[Untrained()]).fit(X, y)


def test_a_ratio_needs_negatives_of_weight():
    classifier = small(negatives_per_positive=1, callbacks=[Untrained()])
    with pytest.raises(ValueError, match=r"images without any.* Got a binary y that lacks"):
        classifier.fit(X, Y, sample_weight=Y)


def test_a_ratio_needs_positives():
    classifier = small(negatives_per_positive=1)
    with pytest.raises(ValueError, match=r"images with a structure.* Got a binary y that lacks"):
        classifier.partial_fit(X, np.zeros_like(Y), classes=[0, 1])
    with pytest.raises(ValueError, match=r"images without any.* Got a multiclass y"):
        classifier.partial_fit(X, TARGETS["multiclass"], classes=[0, 1, 2])


def test_a_ratio_excludes_balanced_weights_but_not_others():
    classifier = small(negatives_per_positive=1, class_weight="balanced", callbacks=[Untrained()])
    with pytest.raises(ValueError, match=r'"balanced" counts all images.* Got both instead'):
        classifier.fit(X, Y)
    classifier.set_params(class_weight=[{}, "balanced"])
    with pytest.raises(ValueError, match=r'"balanced" counts all images.* Got both instead'):
        classifier.fit(X, TARGETS["multilabel"])
    classifier.set_params(class_weight={1: 2.0}, callbacks=None)
    assert len(classifier.fit(X, Y).history_) == 2


# --- class_weight in partial_fit --------------------------------------------------------------


def test_partial_fit_keeps_the_balanced_weights_of_fit():
    classifiers = [
        small(class_weight=class_weight).fit(X, Y).partial_fit(X[::2], Y[::2])
        for class_weight in ("balanced", {0: 40 / 64, 1: 40 / 16})
    ]
    assert have_equal_weights(*classifiers)


@pytest.mark.parametrize(
    ("class_weight", "kind"), [("balanced", "binary"), ([{1: 2.0}, "balanced"], "multilabel")]
)
def test_partial_fit_cannot_balance_what_it_has_not_seen(class_weight, kind, tmp_path):
    y, match = TARGETS[kind], r'in partial_fit\. Got "balanced" instead'
    with pytest.raises(ValueError, match=match):
        small(class_weight=class_weight).partial_fit(X, y, classes=[0, 1])
    small().fit(X, y).save_weights(tmp_path / "net.pt")
    loaded = small(class_weight=class_weight).load_weights(tmp_path / "net.pt")
    with pytest.raises(ValueError, match=match):
        loaded.partial_fit(X, y)
    # After fit its weights stay, as all parameters but lr and batch_size do.
    trained = [small().fit(X, y) for _ in range(2)]
    trained[0].set_params(class_weight=class_weight)
    assert have_equal_weights(*(classifier.partial_fit(X, y) for classifier in trained))


# --- X_val and y_val -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TARGETS)
def test_validation_images_are_monitored_instead_of_a_share(kind):
    recorder = Recorder()
    y = TARGETS[kind]
    classifier = small(validation_fraction=0.5, early_stopping=False, callbacks=[recorder])
    classifier.fit(NUMBERED[:30], y[:30], X_val=NUMBERED[25:], y_val=y[25:])
    for training, validation in zip(recorder.training, recorder.validation, strict=True):
        assert sorted(flat(training)) == list(range(30))
        assert flat(validation) == list(range(25, N))
    logits = torch.from_numpy(classifier.decision_function(NUMBERED[25:]))
    labels = torch.from_numpy(y[25:])
    if kind == "multiclass":
        expected = F.cross_entropy(logits, labels)
    else:
        expected = F.binary_cross_entropy_with_logits(logits, labels.float())
    assert classifier.history_[-1, "valid_loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_masks_stand_for_validation_labels():
    masks = np.zeros((N, 2, 8, 8), dtype=bool)
    masks[:, 0, 2] = Y[:, None]  # an eighth of the image
    masks[:, 1, 0, 0] = True  # a single pixel
    y = np.stack([Y, np.zeros(N)], axis=1)
    losses = [
        small(min_coverage=0.1).fit(X, y, X_val=X, y_val=y_val).history_[:, "valid_loss"]
        for y_val in (y, masks)
    ]
    assert losses[0] == losses[1]


def test_validation_images_may_be_of_another_size():
    classifier = small().fit(X, Y, X_val=np.ones((3, 12, 9)), y_val=[0, 1, 1])
    assert len(classifier.history_[:, "valid_loss"]) == 2


def test_validation_images_need_not_show_every_class():
    assert len(small().fit(X, Y, X_val=X[:8], y_val=Y[:8]).history_[:, "valid_loss"]) == 2


@pytest.mark.parametrize(
    ("X_val", "y_val", "match"),
    [
        (X, None, "X_val and y_val must be passed together. Got no y_val"),
        (None, Y, "X_val and y_val must be passed together. Got no X_val"),
        (X, Y + 1, r"classes \[0, 1\] only. Got \[2\] instead"),
        (X, np.stack([Y, Y], axis=1), r"first call's, binary. Got 2 dimension\(s\)"),
        (X, Y[1:], r"inconsistent numbers of samples: \[40, 39\]"),
        (X[..., None].repeat(3, axis=3), Y, "channel"),
        (np.full_like(X, np.nan), Y, "NaN"),
    ],
)
def test_wrong_validation_images_are_refused_before_training(X_val, y_val, match):
    with pytest.raises(ValueError, match=match):
        small(callbacks=[Untrained()]).fit(X, Y, X_val=X_val, y_val=y_val)


# --- augmentation ----------------------------------------------------------------------------


def test_augmentation_is_for_training_images_only():
    calls = []

    def add_100(images):
        calls.append(images[:, 0, 0, 0].int().tolist())
        return images + 100

    recorder = Recorder()
    classifier = small(augmentation=add_100, validation_fraction=0.25, callbacks=[recorder])
    classifier.fit(NUMBERED, Y)
    validation = flat(recorder.validation[0])
    assert len(validation) == 10
    assert max(validation) < 100
    for epoch in recorder.training:
        assert sorted(i - 100 for i in flat(epoch)) == sorted(set(range(N)) - set(validation))
    assert calls == [[i - 100 for i in batch] for epoch in recorder.training for batch in epoch]

    calls.clear()
    classifier.predict(NUMBERED)
    np.asarray(local_maps(classifier, NUMBERED))
    assert calls == []
    classifier.partial_fit(NUMBERED, Y)
    assert sorted(flat(calls)) == list(range(N))


def test_augmentation_changes_what_is_learned():
    plain, first, again, other = (
        small(augmentation=augmentation, random_state=random_state).fit(X, Y)
        for augmentation, random_state in [(None, 0), ("flip", 0), ("flip", 0), ("flip", 1)]
    )
    assert have_equal_weights(first, again)
    assert not have_equal_weights(first, plain)
    assert not have_equal_weights(first, other)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_wrong_augmentation_is_refused_before_training(method):
    classifier = small(augmentation=["flip", "flop"], callbacks=[Untrained()])
    classes = {"classes": [0, 1]} if method == "partial_fit" else {}
    with pytest.raises(ValueError, match="Got 'flop'"):
        getattr(classifier, method)(X, Y, **classes)


# --- precision -------------------------------------------------------------------------------


def test_auto_is_float32_on_the_cpu():
    classifiers = [small(precision=p, device="cpu").fit(X, Y) for p in ("auto", "float32")]
    assert have_equal_weights(*classifiers)
    for classifier, precision in zip(classifiers, ("auto", "float32"), strict=True):
        assert classifier.module_.precision == precision


def test_bfloat16_changes_training_and_prediction_a_little():
    full, mixed = (small(precision=p, n_filters=4).fit(X, Y) for p in ("float32", "bfloat16"))
    assert not have_equal_weights(full, mixed)
    assert {p.dtype for p in mixed.module_.parameters()} == {torch.float32}
    probabilities = mixed.predict_proba(X)
    assert probabilities.dtype == np.float32
    mixed.set_params(precision="float32")
    difference = abs(probabilities - mixed.predict_proba(X)).max()
    assert 0 < difference < 0.02  # as docs/guide/training.rst says


def test_local_maps_are_always_float32():
    classifier = small(precision="bfloat16", threshold=0).fit(X, Y)  # all images are explained
    mixed = np.asarray(local_maps(classifier, X))
    classifier.set_params(precision="float32")
    assert mixed.any()
    np.testing.assert_array_equal(mixed, np.asarray(local_maps(classifier, X)))
