import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.history import History
from watched import Watched

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet._network._module import MicraNet
from sklearn_micranet._stack._lazy_stack import LazyStack

N = 24
MASKS = np.zeros((N, 3, 16, 20), dtype=bool)  # a square, a line, and a frame, present in some
MASKS[0::2, 0, 3:8, 4:9] = True
MASKS[0::3, 1, :, 15] = True
MASKS[1::3, 2, 0] = MASKS[1::3, 2, -1] = True
INDICATOR = MASKS.any(axis=(2, 3)).astype(int)
IMAGES = MASKS.any(axis=1) + np.random.default_rng(0).normal(0, 0.1, (N, 16, 20))
TARGETS = {
    "binary": INDICATOR[:, 0],
    "multiclass": np.arange(N) % 3,
    "multilabel": INDICATOR,
}


def small(**parameters):
    defaults = {"n_filters": 2, "max_epochs": 2, "batch_size": 8, "random_state": 0}
    return MicraNetClassifier(**(defaults | parameters))


@pytest.fixture(scope="module")
def fitted():
    return {kind: small().fit(IMAGES, y) for kind, y in TARGETS.items()}


def weights(classifier):
    return {name: tensor.clone() for name, tensor in classifier.module_.state_dict().items()}


def have_equal_weights(classifier, other):
    mine, others = weights(classifier), weights(other)
    return all(torch.equal(mine[name], others[name]) for name in mine)


# --- what is learned -------------------------------------------------------------------------


def test_learns_which_structures_an_image_contains():
    rng = np.random.default_rng(1)
    classifier = small(n_filters=4, max_epochs=15, lr=1e-2)
    masks = np.concatenate([MASKS] * 3)
    X = masks.any(axis=1) + rng.normal(0, 0.1, (3 * N, 16, 20))
    classifier.fit(X[:-N], masks[:-N])
    assert classifier.score(X[-N:], masks[-N:]) > 0.9


def test_cross_validation_of_digits_as_scikit_learn_loads_them():
    digits = load_digits()
    classifier = small(n_filters=8, max_epochs=5, lr=5e-3, batch_size=16, dropout=0.2)
    scores = cross_val_score(classifier, digits.data[:400], digits.target[:400], cv=2)
    assert (scores > 0.5).all()  # five times as good as chance


def test_attributes(fitted):
    for kind, n_outputs in [("binary", 1), ("multiclass", 3), ("multilabel", 3)]:
        classifier = fitted[kind]
        assert classifier.classes_.tolist() == list(range(2 if kind == "binary" else 3))
        assert classifier.n_channels_in_ == 1
        assert not hasattr(classifier, "n_features_in_")
        assert isinstance(classifier.net_, NeuralNet)
        assert classifier.module_ is classifier.net_.module_
        assert isinstance(classifier.module_, MicraNet)
        assert classifier.module_.linear.out_features == n_outputs
        assert classifier.module_.depth1.conv_a.out_channels == 2
        assert isinstance(classifier.history_, History)
        assert np.isfinite(classifier.history_[:, ("train_loss", "valid_loss")]).all()
        assert len(classifier.history_) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["absent", "present"],
        [False, True],
        [-7, 1000],
        [0.0, 2.0],
        ["a", "b", "c"],
        [5, 2, 90],
        np.array(["x", "yy", "zzz"], dtype=object),
    ],
)
def test_classes_may_have_any_names(names):
    names = np.asarray(names)
    y = names[np.arange(N) % len(names)]
    classifier = small().fit(IMAGES, y)
    assert classifier.classes_.tolist() == sorted(names)
    prediction = classifier.predict(IMAGES)
    assert prediction.dtype == classifier.classes_.dtype
    assert set(prediction) <= set(names)
    # The names matter to nobody but the reader: numbers in their order give the same network.
    numbered = small().fit(IMAGES, np.searchsorted(classifier.classes_, y))
    assert have_equal_weights(classifier, numbered)
    assert (classifier.classes_[numbered.predict(IMAGES)] == prediction).all()


def test_dropout_reaches_the_module():
    assert small(dropout=0.2, max_epochs=1).fit(IMAGES, INDICATOR).module_.dropout.p == 0.2


def test_outputs_agree_with_each_other(fitted):
    logits = fitted["binary"].decision_function(IMAGES)
    assert logits.shape == (N,)
    positive = expit(logits)
    probabilities = fitted["binary"].predict_proba(IMAGES)
    np.testing.assert_allclose(probabilities, np.stack([1 - positive, positive], 1), rtol=1e-5)
    np.testing.assert_array_equal(fitted["binary"].predict(IMAGES), logits >= 0)

    logits = fitted["multiclass"].decision_function(IMAGES)
    probabilities = fitted["multiclass"].predict_proba(IMAGES)
    np.testing.assert_allclose(probabilities, softmax(logits, axis=1), rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(fitted["multiclass"].predict(IMAGES), logits.argmax(axis=1))

    logits = fitted["multilabel"].decision_function(IMAGES)
    assert logits.shape == (N, 3)
    assert logits.dtype == np.float32
    probabilities = fitted["multilabel"].predict_proba(IMAGES)
    np.testing.assert_allclose(probabilities, expit(logits), rtol=1e-5)
    np.testing.assert_array_equal(fitted["multilabel"].predict(IMAGES), logits >= 0)


def test_logits_are_those_of_the_module(fitted):
    with torch.no_grad():
        padded = np.pad(IMAGES, [(0, 0), (0, 0), (0, 4)], mode="edge")
        expected = fitted["multilabel"].module_(torch.from_numpy(padded[:, None]).float())
    logits = fitted["multilabel"].decision_function(IMAGES)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


def test_each_class_has_its_threshold(fitted):
    classifier = clone(fitted["multilabel"]).fit(IMAGES, INDICATOR)
    probabilities = classifier.predict_proba(IMAGES)
    thresholds = np.sort(probabilities, axis=0)[[0, N // 2, N - 3], [0, 1, 2]]
    for container in (list, tuple, np.asarray):
        prediction = classifier.set_params(threshold=container(thresholds)).predict(IMAGES)
        np.testing.assert_array_equal(prediction, probabilities >= thresholds)
    assert prediction.sum(axis=0).tolist() == [N, N - N // 2, 3]
    assert classifier.set_params(threshold=0.0).predict(IMAGES).all()
    assert not classifier.set_params(threshold=1.0).predict(IMAGES).any()


def test_threshold_of_a_binary_problem_is_that_of_the_positive_class():
    y = np.where(TARGETS["binary"], "yes", "no")
    classifier = small().fit(IMAGES, y)
    assert set(classifier.set_params(threshold=0.0).predict(IMAGES)) == {"yes"}
    assert set(classifier.set_params(threshold=[1.0]).predict(IMAGES)) == {"no"}


def test_threshold_is_not_used_for_exclusive_classes(fitted):
    classifier = clone(fitted["multiclass"]).set_params(threshold=1.0)
    prediction = classifier.fit(IMAGES, TARGETS["multiclass"]).predict(IMAGES)
    np.testing.assert_array_equal(prediction, fitted["multiclass"].predict(IMAGES))


def test_score_is_the_accuracy(fitted):
    for kind, y in TARGETS.items():
        wrong = (fitted[kind].predict(IMAGES) != y).reshape(N, -1).any(axis=1)
        assert fitted[kind].score(IMAGES, y) == pytest.approx(1 - wrong.mean())


# --- masks for labels ------------------------------------------------------------------------


def test_masks_stand_for_the_labels_of_their_coverage():
    # Squares of 25, lines of 16 and frames of 40 pixels cover 7.8, 5 and 12.5 % of 320 pixels.
    classifier = small(min_coverage=0.05).fit(IMAGES, MASKS)
    assert have_equal_weights(classifier, small().fit(IMAGES, INDICATOR))
    classifier = small(min_coverage=0.06).fit(IMAGES, MASKS)
    assert have_equal_weights(classifier, small().fit(IMAGES, INDICATOR * [1, 0, 1]))
    assert classifier.score(IMAGES, MASKS) == classifier.score(IMAGES, INDICATOR * [1, 0, 1])


def test_the_network_does_not_see_where_masks_are():
    moved = np.roll(MASKS, (5, 7), axis=(2, 3))
    assert have_equal_weights(small().fit(IMAGES, moved), small().fit(IMAGES, MASKS))


def numbered(masks):
    """Return instances: a number for each mask."""
    return masks * np.arange(1, masks[:, :, 0, 0].size + 1).reshape(*masks.shape[:2], 1, 1)


@pytest.mark.parametrize("make", [np.uint8, float, list, np.ndarray.tolist, numbered])
def test_masks_of_other_types(make, fitted):
    masks = MASKS.astype(make) if isinstance(make, type) and make is not list else make(MASKS)
    assert have_equal_weights(small().fit(IMAGES, masks), fitted["multilabel"])


def test_masks_of_a_single_class_are_a_binary_problem(fitted):
    classifier = small().fit(IMAGES, MASKS[:, :1])
    assert classifier.classes_.tolist() == [0, 1]
    assert have_equal_weights(classifier, fitted["binary"])
    named = small(background_label="no").fit(IMAGES, np.where(TARGETS["binary"], "yes", "no"))
    assert named.score(IMAGES, MASKS[:, :1]) == classifier.score(IMAGES, TARGETS["binary"])


def test_masks_stand_for_named_classes(fitted):
    masks, y = MASKS[:, :1], np.where(TARGETS["binary"], "yes", "no")
    named = partial(small, background_label="no")
    losses = [
        named().fit(IMAGES, y, X_val=IMAGES, y_val=y_val).history_[:, "valid_loss"]
        for y_val in (y, masks)
    ]
    assert losses[0] == losses[1]
    classifiers = [
        named().partial_fit(IMAGES, labels, classes=["no", "yes"]).partial_fit(IMAGES, labels)
        for labels in (y, masks)
    ]
    assert classifiers[1].classes_.tolist() == ["no", "yes"]
    assert have_equal_weights(*classifiers)


def test_masks_of_another_number_of_classes_are_refused(fitted):
    for kind, y, n_wrong, n_right in [("binary", MASKS, 3, 1), ("multilabel", MASKS[:, :1], 1, 3)]:
        classifier = pickle.loads(pickle.dumps(fitted[kind]))
        for method in ("partial_fit", "score"):
            with pytest.raises(
                ValueError, match=f"one channel per class, {n_right} in all.* Got {n_wrong}"
            ):
                getattr(classifier, method)(IMAGES, y)


def test_masks_cannot_stand_for_classes_that_exclude_each_other(fitted):
    match = r"y must hold labels of the classes \[0, 1, 2\], which exclude .* Got masks instead"
    y, classifier = TARGETS["multiclass"], pickle.loads(pickle.dumps(fitted["multiclass"]))
    with pytest.raises(ValueError, match=match):
        small(callbacks=[Untrained()]).fit(IMAGES, y, X_val=IMAGES, y_val=MASKS)
    with pytest.raises(ValueError, match=match):
        small(callbacks=[Untrained()]).partial_fit(IMAGES, MASKS[:, :1], classes=[0, 1, 2])
    for method in ("partial_fit", "score"):
        for masks in (MASKS, MASKS[:, :1]):
            with pytest.raises(ValueError, match=match):
                getattr(classifier, method)(IMAGES, masks)


def test_masks_of_images_of_different_sizes_are_scored(fitted):
    classifier = fitted["multilabel"]
    images = [image[:9, :13] if i % 3 else image for i, image in enumerate(IMAGES)]
    y = classifier.predict(images)
    y[::4] ^= 1
    masks = [labels[:, None, None].repeat(9, 1).repeat(13, 2) for labels in y]
    with pytest.raises(ValueError, match=r"height and width of the images, \(16, 20\)"):
        classifier.score(images, masks)
    masks[::3] = [labels[:, None, None].repeat(16, 1).repeat(20, 2) for labels in y[::3]]
    assert classifier.score(images, masks) == 0.75
    stack = LazyStack(images, list, item_shape=None)
    assert classifier.score(stack, masks) == 0.75
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[24, 23\]"):
        classifier.score(images, masks[1:])


def test_masks_of_flattened_images(fitted):
    classifier = small(image_shape=(16, 20)).fit(IMAGES.reshape(N, -1), MASKS)
    assert have_equal_weights(classifier, fitted["multilabel"])


# --- images ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [(16, 16), (16, 16, 1), (17, 31), (1, 5), (9, 8, 3), (3, 40), (8, 9, 3), (24, 10, 5)],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_images_of_any_size_and_number_of_channels(shape, dtype):
    X = (np.random.default_rng(0).random((N, *shape)) * 255).astype(dtype)
    classifier = small().fit(X, INDICATOR)
    assert classifier.n_channels_in_ == (shape[2] if len(shape) == 3 else 1)
    assert np.isfinite(classifier.decision_function(X)).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_the_type_of_the_intensities_does_not_matter(dtype):
    X = (255 * expit(IMAGES)).astype(np.uint8)
    classifier, other = small().fit(X, INDICATOR), small().fit(X.astype(dtype), INDICATOR)
    assert have_equal_weights(classifier, other)


@pytest.mark.parametrize("image_shape", [(16, 20), [16, 20, 1], np.array([8, 10, 4])])
def test_flattened_images_are_put_back_into_shape(image_shape):
    flat = IMAGES.reshape(N, -1)
    classifier = small(image_shape=image_shape).fit(flat, INDICATOR)
    X = flat.reshape(N, *image_shape)
    assert classifier.image_shape_ == tuple(image_shape)
    assert classifier.n_features_in_ == 320
    assert have_equal_weights(classifier, small().fit(X, INDICATOR))
    np.testing.assert_array_equal(
        classifier.decision_function(flat), classifier.decision_function(X)
    )


@pytest.mark.parametrize(("n_features", "expected"), [(64, (8, 8)), (1, (1, 1)), (10, (1, 10))])
def test_flattened_images_of_unknown_shape_are_squares_or_rows(n_features, expected):
    X = np.random.default_rng(0).random((N, n_features))
    assert small().fit(X, INDICATOR).image_shape_ == expected


def test_a_new_fit_forgets_the_shape_of_flattened_images():
    frame = pd.DataFrame(IMAGES.reshape(N, -1)).rename(columns=str)
    classifier = small(image_shape=(16, 20)).fit(frame, INDICATOR).fit(IMAGES, INDICATOR)
    assert classifier.image_shape_ is None
    for name in ("n_features_in_", "feature_names_in_"):
        assert not hasattr(classifier, name)
    with pytest.raises(ValueError, match="was fitted on images of shape"):
        classifier.predict(frame)


def test_data_frames(fitted):
    frame = pd.DataFrame(IMAGES.reshape(N, -1)).rename(columns="pixel {}".format)
    labels = pd.DataFrame(INDICATOR, columns=["square", "line", "frame"])
    classifier = small(image_shape=(16, 20)).fit(frame, labels)
    assert have_equal_weights(classifier, fitted["multilabel"])
    assert classifier.feature_names_in_.tolist() == frame.columns.tolist()
    np.testing.assert_array_equal(classifier.predict(frame), fitted["multilabel"].predict(IMAGES))
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(frame.rename(columns=str.upper))


def test_images_of_different_sizes_at_inference(fitted):
    rng = np.random.default_rng(0)
    images = [rng.random(size) for size in [(16, 20), (9, 40), (3, 3), (16, 20), (9, 40)] * 4]
    images[3] = images[3][..., np.newaxis]
    for classifier in fitted.values():
        alone = [classifier.decision_function(image[np.newaxis])[0] for image in images]
        np.testing.assert_allclose(classifier.decision_function(images), alone, atol=1e-5)
        assert len(classifier.predict(images)) == len(classifier.predict_proba(images)) == 20
    in_an_array = np.empty(20, dtype=object)
    in_an_array[:] = images
    np.testing.assert_array_equal(classifier.predict(in_an_array), classifier.predict(images))


def test_a_list_of_images_of_one_size_is_an_array(fitted):
    classifier = small().fit(list(IMAGES), INDICATOR)
    assert have_equal_weights(classifier, fitted["multilabel"])
    np.testing.assert_array_equal(
        classifier.predict(list(IMAGES)), fitted["multilabel"].predict(IMAGES)
    )


# --- memory ----------------------------------------------------------------------------------


class SharesMemory(Watched):
    """Record whether the training images are those of an array, and not a copy."""

    def __init__(self, array):
        self.array = array

    def on_train_begin(self, net, X=None, **kwargs):
        self.answer = np.shares_memory(X.images, self.array)


@pytest.mark.parametrize("shape", [(N, 16, 20), (N, 320)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_memory_mapped_images_are_not_copied(shape, dtype, tmp_path):
    X = (255 * expit(IMAGES)).astype(dtype).reshape(shape)
    np.save(tmp_path / "images.npy", X)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    watch = SharesMemory(mapped)
    classifier = small(callbacks=[watch], image_shape=(16, 20)).fit(mapped, INDICATOR)
    assert watch.answer
    assert have_equal_weights(classifier, small(image_shape=(16, 20)).fit(X, INDICATOR))
    np.testing.assert_array_equal(classifier.predict(mapped), classifier.predict(X))


def test_lazily_read_images_are_read_batch_by_batch(fitted):
    sizes = []

    def load(numbers):
        sizes.append(len(numbers))
        return IMAGES[numbers]

    stack = LazyStack(list(range(N)), load, item_shape=(16, 20), batch_size=100, dtype=float)
    classifier = small().fit(stack, INDICATOR)
    assert max(sizes) <= 8
    sizes.clear()
    classifier.predict(stack)
    assert max(sizes) <= 32  # whatever the batch of the training
    assert have_equal_weights(classifier, fitted["multilabel"])


def test_a_pickle_holds_no_image_and_does_not_grow_with_them():
    rng = np.random.default_rng(0)
    X = rng.random((400, 16, 20), dtype=np.float32)
    y = np.arange(400) % 2
    few, many = (small(validation_fraction=0.5).fit(X[:n], y[:n]) for n in (40, 400))
    assert "valid_loss" in many.history_[0]
    stored = pickle.dumps(many)
    assert not any(image[3].tobytes() in stored for image in X)
    # What is left is the history: the loss and the size of every batch.
    assert len(stored) - len(pickle.dumps(few)) < 0.02 * (X[40:].nbytes)


def test_a_pickle_holds_the_network_and_its_optimiser_once():
    classifier = small(n_filters=8).fit(IMAGES, INDICATOR)
    n_bytes = sum(4 * p.numel() for p in classifier.module_.parameters())
    # The weights, and Adam's two moments of each; a tenth more for everything else.
    assert len(pickle.dumps(classifier)) < 3.5 * n_bytes


# --- training --------------------------------------------------------------------------------


def test_the_module_is_in_evaluation_mode_and_stays_there(fitted):
    for classifier in fitted.values():
        assert not any(module.training for module in classifier.module_.modules())
        restored = pickle.loads(pickle.dumps(classifier))
        assert not any(module.training for module in restored.module_.modules())


def test_prediction_does_not_depend_on_the_mode_that_the_module_was_left_in():
    classifier = small().fit(IMAGES, INDICATOR)
    expected, before = classifier.decision_function(IMAGES), weights(classifier)
    classifier.module_.train()
    np.testing.assert_array_equal(classifier.decision_function(IMAGES), expected)
    assert all(torch.equal(before[name], w) for name, w in weights(classifier).items())


@pytest.mark.parametrize("name", list(TARGETS))
def test_partial_fit_trains_one_epoch_at_a_time(name):
    y = TARGETS[name]
    classifier = small()
    classifier.partial_fit(IMAGES, y, classes=None if name == "multilabel" else np.unique(y))
    assert len(classifier.history_) == 1
    before, first_loss = weights(classifier), classifier.history_[0, "train_loss"]
    for _ in range(10):
        classifier.partial_fit(IMAGES, y)
    assert len(classifier.history_) == 11
    assert not torch.equal(before["linear.weight"], weights(classifier)["linear.weight"])
    assert classifier.history_[-1, "train_loss"] < first_loss
    assert not classifier.module_.training


def test_partial_fit_accepts_batches_that_lack_classes():
    classifier = small()
    classifier.partial_fit(IMAGES[:4], ["b", "a", "a", "b"], classes=["c", "a", "b"])
    classifier.partial_fit(IMAGES[:2], ["c", "c"])
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    assert classifier.predict_proba(IMAGES).shape == (N, 3)
    empty = small().partial_fit(IMAGES[:4], np.zeros((4, 2), dtype=int))
    assert empty.classes_.tolist() == [[0, 1], [0, 1]]  # of two labels, what each can be


def test_partial_fit_takes_masks():
    assert small().partial_fit(IMAGES, MASKS).classes_.tolist() == [0, 1, 2]
    assert small().partial_fit(IMAGES[1:2], MASKS[1:2, :1]).classes_.tolist() == [0, 1]


@pytest.mark.parametrize("lr_schedule", ["cosine", "plateau"])
def test_partial_fit_continues_after_fit_at_the_current_lr(lr_schedule):
    classifier = small(lr_schedule=lr_schedule, lr=1e-2).fit(IMAGES, INDICATOR)
    before, momentum = weights(classifier), classifier.net_.optimizer_.state_dict()["state"]
    assert momentum
    classifier.partial_fit(IMAGES, INDICATOR)
    assert len(classifier.history_) == 3
    (group,) = classifier.net_.optimizer_.param_groups
    assert group["lr"] == 1e-2
    change = (weights(classifier)["linear.weight"] - before["linear.weight"]).abs().max()
    assert 0 < change < 0.1  # a few steps of Adam, not another network
    classifier.set_params(lr=1e-9).partial_fit(IMAGES, INDICATOR)
    assert group["lr"] == 1e-9


def test_fit_starts_anew(fitted):
    classifier = small().fit(IMAGES, TARGETS["multiclass"]).fit(IMAGES, INDICATOR)
    assert len(classifier.history_) == 2
    assert have_equal_weights(classifier, fitted["multilabel"])


def test_random_state_instances_advance():
    random_state = np.random.RandomState(0)
    first = small(random_state=random_state).fit(IMAGES, INDICATOR)
    second = small(random_state=random_state).fit(IMAGES, INDICATOR)
    again = small(random_state=np.random.RandomState(0)).fit(IMAGES, INDICATOR)
    assert have_equal_weights(first, again)
    assert not have_equal_weights(first, second)


def test_without_random_state_numpy_s_global_one_decides():
    first, second = (small(random_state=None).fit(IMAGES, INDICATOR) for _ in range(2))
    np.random.seed(0)
    third = small(random_state=None).fit(IMAGES, INDICATOR)
    assert have_equal_weights(first, third)  # conftest.py seeds with 0, too
    assert not have_equal_weights(first, second)


@pytest.mark.slow  # two processes that import torch
def test_processes_train_the_same_network():
    results = [
        cross_validate(small(), IMAGES, INDICATOR, cv=2, return_estimator=True, n_jobs=n_jobs)
        for n_jobs in (None, 2)
    ]
    for here, there in zip(*(result["estimator"] for result in results), strict=True):
        for tensor, other in zip(weights(here).values(), weights(there).values(), strict=True):
            torch.testing.assert_close(tensor, other, rtol=1e-3, atol=1e-5)


def test_grid_search():
    search = GridSearchCV(small(), {"n_filters": [1, 3], "lr": [1e-3]}, cv=2)
    search.fit(IMAGES, INDICATOR)
    best = search.best_estimator_
    assert best.module_.depth1.conv_a.out_channels == search.best_params_["n_filters"]
    assert search.score(IMAGES, INDICATOR) == best.score(IMAGES, INDICATOR)


def test_each_epoch_shuffles_the_images():
    class Order(Watched):
        def on_train_begin(self, net, **kwargs):
            self.labels = []

        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            self.labels.append(batch[1].tolist())

    order = Order()
    small(callbacks=[order], batch_size=N, validation_fraction=0).fit(IMAGES, INDICATOR)
    first, second = order.labels
    assert sorted(first) == sorted(second) == sorted(INDICATOR.tolist())
    assert first != second


def test_an_odd_image_joins_a_batch_of_two():
    # Alone, an image of 8 px would leave batch normalisation a single value.
    classifier = small(batch_size=2, validation_fraction=0)
    classifier.fit(IMAGES[:5, :8, :8], [0, 1, 1, 0, 1])
    assert classifier.net_.history[-1, "batches", :, "train_batch_size"] == [3, 2]


def test_callbacks_run_and_others_stay_out():
    class Count(Watched):
        n = 0

        def on_epoch_end(self, net, **kwargs):
            self.n += 1

    count = Count()
    classifier = small(callbacks=[("count", count)]).fit(IMAGES, INDICATOR)
    assert count.n == 2
    classifier.partial_fit(IMAGES, INDICATOR)
    assert count.n == 3
    assert dict(classifier.net_.callbacks_)["count"] is count


def test_verbose_reports_one_line_per_epoch(capsys):
    small().fit(IMAGES, INDICATOR)
    assert capsys.readouterr().out == ""
    small(verbose=1, max_epochs=3).fit(IMAGES, INDICATOR)
    lines = capsys.readouterr().out.splitlines()
    assert "train_loss" in lines[0]
    assert "valid_loss" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == ["1", "2", "3"]


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "auto"])
def test_device(device):
    classifier = small(device=device, max_epochs=1).fit(IMAGES, INDICATOR)
    expected = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
    assert {p.device.type for p in classifier.module_.parameters()} == {expected}


# --- wrong input -----------------------------------------------------------------------------


class Untrained(Callback):
    def on_train_begin(self, net, **kwargs):
        raise AssertionError("Training began.")


def spoilt(value):
    X = IMAGES.copy()
    X[-1, 3, 4] = value
    return X


WRONG_IMAGES = {
    "NaN": (spoilt(np.nan), "X contains NaN"),
    "infinite": (spoilt(np.inf), "X contains infinity"),
    "too large": (spoilt(1e39), "X must be finite in float32"),
    "too small": (spoilt(-1e39), "X must be finite in float32"),
    "1 dimension": (IMAGES[:, 0, 0], r"Got the shape \(24,\) instead. Reshape your data"),
    "5 dimensions": (IMAGES[..., None, None], r"n_samples, height, width\).*Got 5 dimensions"),
    "empty": (IMAGES[:0], r"0 sample\(s\)"),
    "no pixel": (IMAGES[:, :0], r"at least one pixel. Got the shape \(24, 0, 20\)"),
    "text": (IMAGES.astype(str), "not compatible with arrays of bytes/strings"),
    "objects": (np.full((N, 8, 8), "x", dtype=object), "could not convert string to float"),
    "complex": (IMAGES + 1j, "Complex data not supported"),
}


@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_wrong_images_are_refused_before_training(name):
    X, match = WRONG_IMAGES[name]
    with pytest.raises(ValueError, match=match):
        small(callbacks=[Untrained()]).fit(X, INDICATOR)
    with pytest.raises(ValueError, match=match):
        small(callbacks=[Untrained()]).partial_fit(X, INDICATOR)


def test_images_of_different_sizes_are_refused_before_training():
    X = [*IMAGES[:-1], IMAGES[-1, :, 1:]]
    with pytest.raises(ValueError, match=r"must all have one shape.*Cut them into crops"):
        small(callbacks=[Untrained()]).fit(X, INDICATOR)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (None, "requires y to be passed"),
        (np.zeros(N), r"at least two classes.*Got one class instead: \[0.0\]"),
        (["cat"] * N, r"at least two classes.*Got one class instead: \['cat'\]"),
        (np.zeros((N, 2), dtype=int), "images with and images without a class"),
        (np.ones((N, 2), dtype=int), "images with and images without a class"),
        (INDICATOR[:-1], r"inconsistent numbers of samples: \[24, 23\]"),
        (TARGETS["binary"][:-1], r"inconsistent numbers of samples: \[24, 23\]"),
        (INDICATOR + 1, "indicator matrix of 0 and 1"),
        (np.linspace(0, 1, N), "Unknown label type: continuous"),
        (MASKS[:-1], r"inconsistent numbers of samples: \[24, 23\]"),
        (MASKS[..., :-1], r"height and width of the images, \(16, 20\). Got \(16, 19\)"),
        (MASKS.swapaxes(2, 3), r"height and width of the images, \(16, 20\). Got \(20, 16\)"),
        (MASKS * 0.5, "bool, or hold 0 and 1 only"),
        (np.zeros_like(MASKS), "images with and images without a class"),
        (np.zeros_like(MASKS[:, :1]), "at least two classes, images with and images without"),
    ],
)
def test_wrong_labels_are_refused_before_training(y, match):
    with pytest.raises(ValueError, match=match):
        small(callbacks=[Untrained()]).fit(IMAGES, y)


@pytest.mark.parametrize(
    ("image_shape", "match"),
    [
        ((16, 21), r"multiply to the number of features, 320. Got \(16, 21\)"),
        ((16, 20, 3), "multiply to the number of features, 320"),
        ((320,), r"\(height, width\) or \(height, width, n_channels\), in px. Got \(320,\)"),
        ((4, 4, 4, 5), r"\(height, width\) or \(height, width, n_channels\), in px"),
        ((-16, -20), r"\(height, width\) or .* Got \(-16, -20\)"),
        ((16.0, 20.0), r"\(height, width\) or .* Got \(16.0, 20.0\)"),
        (("16", "20"), r"\(height, width\) or .* Got \('16', '20'\)"),
    ],
)
def test_wrong_image_shapes_are_refused_before_training(image_shape, match):
    with pytest.raises(ValueError, match=match):
        small(image_shape=image_shape, callbacks=[Untrained()]).fit(
            IMAGES.reshape(N, -1), INDICATOR
        )


@pytest.mark.parametrize(
    "parameters",
    [
        {"image_shape": 16},
        {"n_filters": 0},
        {"dropout": 1.0},
        {"lr": 0.0},
        {"lr_schedule": "linear"},
        {"min_lr": -1e-5},
        {"patience": -1},
        {"batch_size": 1},
        {"max_epochs": 0},
        {"early_stopping": 1.5},
        {"n_iter_no_change": 0},
        {"validation_fraction": 1.0},
        {"threshold": 1.5},
        {"threshold": "0.5"},
        {"min_coverage": 2},
        {"device": 3},
        {"callbacks": Callback()},
        {"random_state": "seed"},
        {"verbose": -1},
    ],
    ids=str,
)
def test_wrong_parameters_are_refused_before_training(parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"The '{name}' parameter of MicraNetClassifier must be"):
        small(**({"callbacks": [Untrained()]} | parameters)).fit(IMAGES, INDICATOR)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_wrong_parameters_are_refused_before_prediction(method, fitted):
    classifier = pickle.loads(pickle.dumps(fitted["multilabel"])).set_params(batch_size=0)
    with pytest.raises(ValueError, match="The 'batch_size' parameter of MicraNetClassifier must"):
        getattr(classifier, method)(IMAGES)


# A single image of up to 15 px leaves each filter of the last depth a single pixel.
@pytest.mark.parametrize("shape", [(8, 8), (15, 15), (1, 3), (15, 9, 3)])
def test_a_single_value_cannot_be_normalised(shape):
    X, y = np.random.default_rng(0).random((2, *shape)), [[0, 1], [1, 1]]
    match = r"at least two images, or one of at least 16 px.* Got one image of \(\d+, \d+\) px"
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=match):
            getattr(small(callbacks=[Untrained()]), method)(X[:1], y[:1])
        getattr(small(fine_tune_depth=0), method)(X[:1], y[:1])  # nothing is normalised anew
        classifier = getattr(small(), method)(X, y)
        with pytest.raises(ValueError, match=match):
            classifier.partial_fit(X[:1], y[:1])
    frozen = small(fine_tune_depth=0).fit(X, y).set_params(fine_tune_depth=4)
    frozen.partial_fit(X[:1], y[:1])  # with the depth of the first call


@pytest.mark.parametrize("shape", [(16, 1), (8, 16)])
def test_a_single_image_of_two_values_is_trained_on(shape):
    X = np.random.default_rng(0).random((1, *shape))
    for method in ("fit", "partial_fit"):
        assert getattr(small(), method)(X, [[0, 1]]).history_


@pytest.mark.parametrize("threshold", [[0.5, 0.5], [[0.5, 0.5, 0.5]], [0.1, 0.2, 1.2]])
def test_wrong_thresholds_are_refused_before_work_is_done(threshold, fitted):
    with pytest.raises(ValueError, match="threshold must be"):
        small(threshold=threshold, callbacks=[Untrained()]).fit(IMAGES, INDICATOR)
    classifier = pickle.loads(pickle.dumps(fitted["multilabel"])).set_params(threshold=threshold)
    refuse_to_run(classifier)
    with pytest.raises(ValueError, match="threshold must be"):
        classifier.predict(IMAGES)


def refuse_to_run(classifier):
    def refuse(*args):
        raise AssertionError("The network ran.")

    classifier.module_.depths[0].register_forward_pre_hook(refuse)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        *WRONG_IMAGES.values(),
        (IMAGES[0], "was fitted on images.*pass a single image as image"),
        (IMAGES.reshape(N, -1), "was fitted on images of shape"),
        (np.zeros((N, 16, 20, 3)), r"must have 1 channel\(s\).*Got 3 instead"),
        (np.zeros((16, 20, 3))[None], r"must have 1 channel\(s\).*Got 3 instead"),
        ([IMAGES[0], np.zeros((9, 9, 3))], r"same number of channels. Got \[1, 3\]"),
        ([np.zeros((9, 9, 3)), np.zeros((8, 9, 3))], r"must have 1 channel\(s\).*Got 3"),
        ([IMAGES[:2, ..., None], IMAGES[:3, ..., None]], "height, width.*Got 4 dimensions"),
        ([IMAGES[0], np.full((9, 9), np.nan)], "X contains NaN"),
        ([IMAGES[0], np.full((9, 9), 1e39)], "X must be finite in float32"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_wrong_images_are_refused_before_prediction(method, X, match, fitted):
    classifier = pickle.loads(pickle.dumps(fitted["multilabel"]))
    refuse_to_run(classifier)
    with pytest.raises(AssertionError, match="The network ran"):
        getattr(classifier, method)(IMAGES)
    with pytest.raises(ValueError, match=match):
        getattr(classifier, method)(X)


def test_a_single_rgb_image_says_what_to_do():
    classifier = small().fit(np.zeros((4, 9, 9, 3)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"single colour image as image\[np.newaxis\]"):
        classifier.predict(np.zeros((9, 9, 3)))


def test_another_number_of_features_is_refused():
    classifier = small().fit(np.zeros((4, 64)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="X has 81 features, but MicraNetClassifier is expecting"):
        classifier.predict(np.zeros((4, 81)))
    # But images that are not flattened may have any size.
    assert classifier.predict(np.zeros((4, 9, 9))).shape == (4,)


def test_wrong_labels_are_refused_by_score(fitted):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted["multilabel"].score(IMAGES, INDICATOR[1:])
    with pytest.raises(ValueError, match="Masks must have the height and width"):
        fitted["multilabel"].score(IMAGES, MASKS[..., 1:])


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_unfitted(method):
    classifier = small()
    with pytest.raises(NotFittedError, match="MicraNetClassifier instance is not fitted yet"):
        getattr(classifier, method)(IMAGES)
    with pytest.raises(ValueError, match="one class"):
        classifier.fit(IMAGES, np.zeros(N))
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(classifier, method)(IMAGES)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        classifier.score(IMAGES, MASKS)
    for name in ("module_", "net_", "history_"):
        assert not hasattr(classifier, name)


@pytest.mark.parametrize(
    ("parameters", "X", "y", "match"),
    [
        ({"threshold": [0.5, 0.5]}, IMAGES, TARGETS["multiclass"], "threshold must be"),
        ({"n_filters": 3}, IMAGES, TARGETS["multiclass"], "filters at depth 1"),
        ({"class_weight": {1: -1}}, IMAGES, TARGETS["multiclass"], "class_weight must"),
        ({}, np.zeros((N, 16, 20, 3)), np.zeros(N), "one class"),
        ({}, IMAGES.reshape(N, -1), INDICATOR + 1, "indicator matrix"),
    ],
)
def test_a_refused_fit_leaves_no_old_network_with_new_classes(parameters, X, y, match, fitted):
    classifier = small(pretrained=fitted["binary"].module_.state_dict())
    classifier.fit(IMAGES, TARGETS["binary"]).set_params(**parameters)
    with pytest.raises(ValueError, match=match):
        classifier.fit(X, y)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        classifier.predict_proba(IMAGES)


@pytest.mark.parametrize(
    ("y", "classes", "match"),
    [
        (TARGETS["multiclass"], None, None),
        (TARGETS["multiclass"] + 1, None, r"y must hold the classes \[0, 1, 2\] only. Got \[3\]"),
        (["a"] * N, None, r"y must hold the classes \[0, 1, 2\] only"),
        (INDICATOR, None, "first call's, multiclass"),
        (TARGETS["multiclass"], [0, 1], r"those of the first call, \[0, 1, 2\]. Got \[0, 1\]"),
    ],
)
def test_new_classes_are_refused_by_partial_fit(y, classes, match):
    for classifier in (
        small().fit(IMAGES, TARGETS["multiclass"]),
        small().partial_fit(IMAGES, TARGETS["multiclass"], classes=[0, 1, 2]),
    ):
        n_epochs = len(classifier.history_)
        if match is None:  # the premise: nothing else is wrong
            classifier.partial_fit(IMAGES, y, classes=classes)
            assert len(classifier.history_) == n_epochs + 1
        else:
            with pytest.raises(ValueError, match=match):
                classifier.partial_fit(IMAGES, y, classes=classes)
            assert len(classifier.history_) == n_epochs


def test_first_call_of_partial_fit_needs_classes():
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        small().partial_fit(IMAGES, TARGETS["multiclass"])
    with pytest.raises(ValueError, match=r"at least two classes.*Got one class instead: \[0\]"):
        small().partial_fit(IMAGES, np.zeros(N, dtype=int), classes=[0])
    with pytest.raises(ValueError, match=r"y must hold the classes \[0, 1\] only. Got \[2\]"):
        small(callbacks=[Untrained()]).partial_fit(IMAGES, TARGETS["multiclass"], classes=[0, 1])


def test_other_channels_are_refused_by_partial_fit():
    classifier = small().partial_fit(IMAGES, INDICATOR)
    with pytest.raises(ValueError, match=r"must have 1 channel\(s\).*Got 3 instead"):
        classifier.partial_fit(np.zeros((N, 16, 20, 3)), INDICATOR)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_training_that_diverges_says_so(method):
    classifier = small(lr=1e30)
    with pytest.raises(ValueError, match=r"Training diverged.*Lower lr, or scale the images"):
        getattr(classifier, method)(IMAGES, INDICATOR)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        classifier.predict(IMAGES)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.zeros((24, 16, 20), dtype=bool), r"pass `y\[:, np.newaxis\]`"),
        ([["a", "b"], ["a"]] * 12, "MultiLabelBinarizer"),
        ([[[0, 1, 2]]] * 24, "Got positions"),
        ([0, 1], r"inconsistent numbers of samples: \[24, 2\]"),
    ],
)
def test_score_refuses_what_are_no_labels(y, match):
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1).fit(IMAGES, TARGETS["binary"])
    with pytest.raises(ValueError, match=match):
        classifier.score(IMAGES, y)
