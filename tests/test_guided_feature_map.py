import pickle
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    GuidedFeatureMap,
    IntensityScaler,
    MicraNetClassifier,
    MicraNetEnsemble,
    ThresholdSegmenter,
    TunedThresholdsClassifierCV,
)
from sklearn_micranet._stack._lazy_stack import LazyStack

SIZE = 32
LABELS = {
    "binary": np.array(["no", "yes"] * 12),
    "multiclass": np.array(["a", "b", "c"] * 8),
    "multilabel": np.arange(48).reshape(24, 2) % 3 % 2,
}


def discs(n=24, size=SIZE, n_channels=0, seed=0):
    """Images with a bright disc in every second one, their masks and their labels."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, 1, size, size), bool)
    for mask in masks[1::2, 0]:
        row, column = rng.uniform(9, size - 9, 2)
        mask[np.hypot(*(np.mgrid[:size, :size].T - [row, column]).T) < 6] = True
    images = rng.normal(0.2, 0.02, (n, size, size)) + 0.6 * masks[:, 0]
    if n_channels:
        images = np.stack([images, *rng.random((n_channels - 1, n, size, size))], axis=-1)
    return images.astype(np.float32), masks, masks.any(axis=(2, 3)).astype(int)[:, 0]


def small(**params):
    defaults = {"n_filters": 4, "max_epochs": 2, "validation_fraction": 0, "random_state": 0}
    return MicraNetClassifier(**{**defaults, **params})


def untrained(images, y, **params):
    """A classifier whose classes are found in most images, without the time of training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier = small(max_epochs=1, lr=1e-6, **params).fit(images, y)
    classifier.module_.linear.weight.data.abs_()  # so that L8 sees each class somewhere
    logits = classifier._logits_of(images)  # those of the structure, whatever its label
    quantile = torch.from_numpy(np.quantile(logits, 0.3, axis=0).astype(np.float32))
    classifier.module_.linear.bias.data -= quantile
    return classifier


@cache
def untrained_on(kind):
    """One for all tests: they must not change it."""
    background = "no" if kind == "binary" else None
    return untrained(discs()[0], LABELS[kind], background_label=background)


def guided(images, y, network=None, **params):
    network = network or untrained(images, y)
    return GuidedFeatureMap(FrozenEstimator(network), random_state=0, **params).fit(images, y)


def well_trained(images, y):
    params = {"lr": 1e-2, "lr_schedule": "cosine", "max_epochs": 15, "early_stopping": False}
    return small(batch_size=8, dropout=0.2, **params).fit(images, y)


@pytest.fixture(scope="module")
def trained():
    images, _, y = discs(n=96)
    return well_trained(images, y)


def test_outlines_of_discs_are_found_from_labels(trained):
    images, _, y = discs(n=48, seed=1)
    assert trained.score(images, y) > 0.9
    step = guided(images, y, trained)
    assert step.features_ == ["intensity"]
    assert step.separation_[0] > 0.95
    assert step.polarity_.tolist() == [1]
    assert step.noise_[0].gain * 0.2 + step.noise_[0].offset == pytest.approx(4e-4, rel=0.4)
    assert not step.is_turned_
    unseen, masks, _ = discs(n=24, seed=2)
    segmenter = ThresholdSegmenter(method="fixed").fit(masks)
    assert segmenter.score(step.transform(unseen), masks) > 0.8


def test_dark_discs_have_the_other_polarity(trained):
    images, masks, y = discs(n=96, seed=1)
    step = guided(1 - images, y, well_trained(1 - images, y))
    assert step.polarity_.tolist() == [-1]
    found = np.asarray(step.transform(1 - images)) > 0.5
    present = found.any(axis=(1, 2, 3)) & masks.any(axis=(1, 2, 3))
    iou = (found & masks)[present].sum() / (found | masks)[present].sum()
    assert iou > 0.8


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("features", ["auto", "intensity", "texture", "both"])
def test_every_kind_of_target(kind, features):
    images, _, _ = discs()
    step = guided(images, LABELS[kind], untrained_on(kind), features=features)
    n_maps = {"binary": 1, "multiclass": 3, "multilabel": 2}[kind]
    images = images[:10]
    maps = step.transform(images)
    assert isinstance(maps, LazyStack)
    assert maps.shape == (10, n_maps, SIZE, SIZE)
    names = {"binary": ("yes",), "multiclass": ("a", "b", "c"), "multilabel": (0, 1)}
    assert maps.class_names == tuple(step.map_classes_) == names[kind]
    dense = np.asarray(maps)
    assert dense.dtype == np.float32
    assert dense.min() >= 0
    assert dense.max() <= 1
    assert len(step.features_) == n_maps
    assert features == "auto" or set(step.features_) == {features}
    y = step.estimator_.predict(images)
    present = y.astype(bool) if y.ndim == 2 else y[:, None] == step.classes_
    present = present[:, 1:] if kind == "binary" else present
    assert not present.all()
    assert not dense[~present].any()
    assert dense[present].any()


@pytest.mark.parametrize("features", ["intensity", "both", "texture"])
def test_batches_order_and_lists_play_no_part(features):
    images, _, _ = discs()
    step = guided(images, LABELS["multilabel"], untrained_on("multilabel"), features=features)
    images = images[:10]
    maps = np.asarray(step.transform(images))
    assert_array_equal(np.asarray(step.set_params(batch_size=1).transform(images)), maps)
    assert_array_equal(np.asarray(step.transform(images[::-1]))[::-1], maps)
    ragged = list(step.transform([images[0], images[1][:24], images[2][:, :27]]))
    assert [m.shape for m in ragged] == [(2, 32, 32), (2, 24, 32), (2, 32, 27)]
    assert_array_equal(ragged[0], maps[0])


def test_background_below_and_to_the_right_moves_nothing(trained):
    images, _, y = discs(n=48, seed=1)
    step = guided(images, y, trained)
    image = images[trained.predict(images) == 1][0]
    whole = step.transform([image, image[:8]])[0]
    padded = step.transform([np.pad(image, ((0, 8), (0, 16)), mode="edge"), image])[0]
    assert (whole > 0.5).any()
    changed = (padded[:, :SIZE, :SIZE] > 0.5) ^ (whole > 0.5)
    assert changed.sum() <= 0.05 * (whole > 0.5).sum()


def test_the_order_of_training_images_plays_no_part():
    images, _, _ = discs()
    y = LABELS["multilabel"]
    classifier = untrained_on("multilabel")
    one = guided(images, y, classifier, features="texture")
    other = guided(images[::-1], y[::-1], classifier, features="texture")
    assert_allclose(one.separation_, other.separation_)
    assert_allclose(one.area_, other.area_)
    a, b = (np.asarray(step.transform(images)) for step in (one, other))
    assert np.mean(np.abs(a - b)) < 0.01


def test_colour():
    images, _, y = discs(n_channels=3)
    step = guided(images, y)
    assert step.channel_weights_.shape == (1, 3)
    assert np.asarray(step.transform(images)).shape == (24, 1, SIZE, SIZE)
    with pytest.raises(ValueError, match=r"3 channel\(s\)"):
        step.transform(images[..., 0])


def test_flattened_images():
    X, y = load_digits(n_class=3, return_X_y=True)
    step = guided(X[:40], y[:40], untrained(X[:40], y[:40]))
    assert np.asarray(step.transform(X[:4])).shape == (4, 3, 8, 8)
    assert step.n_features_in_ == 64


@pytest.mark.parametrize("size", [(5, 6), (1, 10)])
def test_images_smaller_than_a_pixel_of_the_last_layer(size):
    images = np.random.default_rng(0).random((24, *size))
    y = LABELS["multilabel"]
    step = guided(images, y, untrained(images, y))
    assert step.separation_.tolist() == [0.5, 0.5]  # nothing was compared
    maps = np.asarray(step.transform(images))
    assert maps.shape == (24, 2, *size)
    assert np.isfinite(maps).all()


@pytest.mark.filterwarnings("ignore:The network predicts hardly better")
@pytest.mark.parametrize("labelled", ["labels", "masks"])
@pytest.mark.parametrize("wrap", [MicraNetEnsemble, TunedThresholdsClassifierCV])
def test_ensembles_and_tuned_thresholds(wrap, labelled):
    images, masks, y = discs()
    params = {"n_estimators": 2} if wrap is MicraNetEnsemble else {"cv": 2}
    classifier = wrap(small(max_epochs=1), random_state=0, **params)
    step = GuidedFeatureMap(classifier, random_state=0)
    step.fit(images, masks if labelled == "masks" else y)
    assert np.asarray(step.transform(images)).shape == (24, 1, SIZE, SIZE)


def test_a_background_class_has_no_map():
    images, _, _ = discs()
    classifier = untrained(images, LABELS["multiclass"], background_label="b")
    step = guided(images, LABELS["multiclass"], classifier)
    maps = step.transform(images)
    assert maps.shape == (24, 2, SIZE, SIZE)
    assert maps.class_names == ("a", "c")
    assert len(step.features_) == len(step.separation_) == 2
    found = classifier.predict(images)
    assert (found == "b").any()
    assert not np.asarray(maps)[found == "b"].any()


def test_masks_of_exclusive_classes_have_a_channel_for_each_map():
    images, _, _ = discs()
    y = LABELS["multiclass"]
    classifier = untrained(images, y, background_label="b")
    masks = np.zeros((24, 2, SIZE, SIZE), bool)
    masks[y == "a", 0, :8] = masks[y == "c", 1, :8] = True
    by_masks, by_labels = (guided(images, of, classifier) for of in (masks, y))
    assert_array_equal(by_masks.separation_, by_labels.separation_)
    with pytest.raises(ValueError, match=r"one channel for each class that has a map, 2 in all"):
        guided(images, masks[:, :1], classifier)


def test_the_structure_is_what_is_not_the_background():
    images, _, y = discs()
    words = np.where(y == 1, "cell", "nothing")  # the structure comes first in the alphabet
    by_words = guided(images, words, untrained(images, words, background_label="nothing"))
    by_numbers = guided(images, y, untrained(images, y))
    assert by_words.map_classes_.tolist() == ["cell"]
    maps = np.asarray(by_numbers.transform(images))
    assert maps.any()
    assert_array_equal(np.asarray(by_words.transform(images)), maps)


def test_steps_before_the_classifier_come_first():
    images, _, y = discs()
    scaler = IntensityScaler().fit(images)
    scaled = np.asarray(scaler.transform(images))
    classifier = untrained(scaled, y)
    alone = guided(scaled, y, classifier)
    piped = guided(images, y, make_pipeline(scaler, classifier))
    assert_array_equal(piped.separation_, alone.separation_)
    maps = np.asarray(alone.transform(scaled))
    assert maps.any()
    assert_array_equal(np.asarray(piped.transform(images)), maps)


def test_two_labels_without_a_background_are_refused_before_the_training():
    images, _, _ = discs()
    step = GuidedFeatureMap(small())
    with pytest.raises(ValueError, match="must be said to be the background"):
        step.fit(images, LABELS["binary"])
    assert not hasattr(step, "estimator_")


def test_masks_stand_for_labels():
    images, masks, y = discs()
    classifier = untrained(images, y)
    by_masks, by_labels = (guided(images, of, classifier) for of in (masks, y))
    assert_array_equal(by_masks.separation_, by_labels.separation_)


def test_without_labels_predictions_stand_for_them():
    images, _, y = discs()
    classifier = untrained(images, y)
    step = guided(images, None, classifier)
    assert_array_equal(
        step.separation_, guided(images, classifier.predict(images), classifier).separation_
    )


def test_a_half_turn_is_averaged_only_if_labels_survive_it(trained):
    images, _, y = discs(seed=1)
    assert guided(images, y, trained, features="texture").is_turned_
    # Nothing but the upper half counts: a half turn swaps the labels.
    halves = np.zeros((24, SIZE, SIZE), np.float32)
    halves[::2, :12] = halves[1::2, -12:] = 1
    up = np.arange(24) % 2
    classifier = small(lr=1e-2, max_epochs=30, early_stopping=False).fit(halves, up)
    assert classifier.score(halves, up) == 1
    assert classifier.score(halves[:, ::-1, ::-1], up) < 0.5
    assert not guided(halves, up, classifier, features="texture").is_turned_


def test_the_classifier_of_pixels_is_a_parameter():
    images, _, y = discs()
    pixels = GaussianNB()
    step = guided(images, y, features="texture", classifier=pixels)
    assert np.isfinite(np.asarray(step.transform(images))).all()
    assert not hasattr(pixels, "classes_")  # a clone is fitted


def test_memory_keeps_maps(tmp_path, monkeypatch):
    images, _, y = discs()
    step = guided(images, y, memory=str(tmp_path))
    maps = np.asarray(step.transform(images))
    monkeypatch.setattr("sklearn_micranet._guided._reader.guided_maps", None)
    assert_array_equal(np.asarray(step.transform(images)), maps)
    with pytest.raises(TypeError, match="not callable"):
        np.asarray(step.set_params(level=0.3).transform(images))


def test_clone_pickle_and_later_training():
    images, _, y = discs()
    step = guided(images, y)
    stack = step.transform(images)
    maps = np.asarray(stack)
    assert_array_equal(np.asarray(pickle.loads(pickle.dumps(step)).transform(images)), maps)
    assert_array_equal(np.asarray(pickle.loads(pickle.dumps(stack))), maps)
    assert clone(step).get_params()["level"] == 0.6
    step.estimator_.estimator.module_.linear.weight.data.zero_()
    assert_array_equal(np.asarray(stack), maps)


def test_a_grid_search_over_the_level(trained):
    images, masks, _ = discs(n=12, seed=3)
    pipe = make_pipeline(
        GuidedFeatureMap(FrozenEstimator(trained), random_state=0),
        ThresholdSegmenter(method="fixed"),
    )
    search = GridSearchCV(pipe, {"guidedfeaturemap__level": [0.05, 0.5]}, cv=2)
    search.fit(images, masks)
    assert search.best_params_ == {"guidedfeaturemap__level": 0.5}


def test_refusals():
    images, _, y = discs()
    with pytest.raises(TypeError, match="estimator must be a MicraNetClassifier"):
        GuidedFeatureMap(MyNetwork()).fit(images, y)
    with pytest.raises(ValueError, match="'level' parameter"):
        GuidedFeatureMap(small(), level=1.0).fit(images, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        guided(images, y[:5], untrained(images, y))
    with pytest.raises(NotFittedError, match="not fitted"):
        GuidedFeatureMap(small()).transform(images)


def test_a_refused_fit_leaves_nothing_of_the_one_before():
    images, _, y = discs()
    step = guided(images, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        step.fit(images, y[:5])
    with pytest.raises(NotFittedError, match="not fitted"):
        step.transform(images)


class MyNetwork(GaussianNB):
    def decision_function(self, X):
        raise NotImplementedError
