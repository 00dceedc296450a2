import warnings

import numpy as np
import pytest

from sklearn_micranet import (
    IntensityScaler,
    MicraNetClassifier,
    MicraNetEnsemble,
    TunedThresholdsClassifierCV,
    UNetSegmenter,
)
from sklearn_micranet._labels._overlap import apart_from, warn_of_overlap
from sklearn_micranet.images import extract_crops

IMAGES = np.random.default_rng(0).normal(size=(3, 64, 48))
MASKS = np.zeros(IMAGES.shape, dtype=bool)
MASKS[:, :16, 20:30] = True
WARNS = "set aside for validation show pixels that are trained on"


def crops_of(step, images=IMAGES):
    return extract_crops(images, size=16, step=step, masks=MASKS)


def warns(stack, valid):
    train = np.setdiff1d(np.arange(len(stack)), valid)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_overlap(stack, train.tolist(), valid)
    assert all(WARNS in str(warning.message) for warning in caught)
    return bool(caught)


@pytest.mark.parametrize("kind", ["lazy", "scaled", "in memory"])
@pytest.mark.parametrize(
    ("step", "expected"), [(4, True), ((16, 12), True), ((8, 16), True), (16, False)]
)
def test_overlap_of_a_monitored_crop(kind, step, expected):
    crops = crops_of(step)
    stack = crops.images if kind != "in memory" else np.asarray(crops.images)
    if kind == "scaled":
        stack = IntensityScaler(method="standard").fit(stack).transform(stack[::-1])[::-1]
    assert crops.overlap is expected
    n = len(crops.groups)
    valid = [np.flatnonzero(crops.groups == 1)[0]]
    assert warns(stack, valid) is expected
    # A whole image is monitored: none of its crops is trained on.
    assert not warns(stack, np.flatnonzero(crops.groups == 1))
    assert n == len(stack)


def test_flat_background_is_no_overlap():
    images = np.zeros((3, 64, 48))
    images[:, 30:34, 30:34] = 1
    assert not warns(np.asarray(crops_of(16, images).images), [0, 5])
    digits = np.random.default_rng(0).integers(0, 2, (50, 8, 8))
    assert not warns(digits, np.arange(5))


def test_images_that_are_much_alike_are_compared_a_bounded_number_of_times(monkeypatch):
    n_compared = 0
    equal = np.array_equal

    def counted(*arrays):
        nonlocal n_compared
        n_compared += 1
        return equal(*arrays)

    monkeypatch.setattr(np, "array_equal", counted)
    flat = np.zeros((200, 64, 64))
    flat[::2, 20:30, 20:30] = 1
    assert not warns(flat, np.arange(20))
    assert n_compared == 0
    ramps = np.broadcast_to(np.arange(8.0).repeat(8), (200, 64, 64)).copy()
    assert not warns(ramps, np.arange(20))
    assert n_compared == 4 * 1000 // 2  # turned images have constant rows


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fit_without_groups_warns(in_memory):
    crops = crops_of(8)
    X = np.asarray(crops.images) if in_memory else crops.images
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    with pytest.warns(UserWarning, match=WARNS):
        classifier.fit(X, crops.labels)
    whole = crops_of(16)
    for data, given in (
        ((X, crops.labels), {"groups": crops.groups}),
        ((X, crops.labels), {"X_val": X[:9], "y_val": crops.labels[:9]}),
        ((whole.images, whole.labels), {}),
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*set aside for validation")
            classifier.fit(*data, **given)
            classifier.set_params(validation_fraction=0).fit(X, crops.labels)
        classifier.set_params(validation_fraction=0.1)


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize(
    ("wrapper", "words"),
    [
        (MicraNetEnsemble, WARNS),
        (TunedThresholdsClassifierCV, "held out to tune thresholds show pixels that are trained"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_folds_without_groups_warn(wrapper, words, in_memory):
    crops = crops_of(8)
    X = np.asarray(crops.images) if in_memory else crops.images
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1, validation_fraction=0)
    folds = wrapper(classifier, cv=3, random_state=0)
    with pytest.warns(UserWarning, match=words):
        folds.fit(X, crops.labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*show pixels that are trained on")
        folds.fit(X, crops.labels, groups=crops.groups)
    bands = crops.positions[:, 1] // 8  # of one image
    with pytest.warns(UserWarning, match=words):
        folds.fit(X, crops.labels, groups=bands)


def test_a_segmenter_that_learns_from_masks_warns():
    images = np.asarray(crops_of(8).images)
    masks = np.asarray(extract_crops(MASKS, size=16, step=8).images)
    segmenter = UNetSegmenter(n_filters=2, n_poolings=1, max_epochs=1, random_state=0)
    with pytest.warns(UserWarning, match=WARNS):
        segmenter.fit(images, masks)


@pytest.mark.parametrize("kind", ["lazy", "scaled", "in memory"])
def test_crops_that_show_no_pixel_of_those_held_out(kind):
    crops = crops_of(8)  # 8 rows of 6 crops of 16 px, of which the last ones reach beyond
    stack = crops.images if kind != "in memory" else np.asarray(crops.images)
    if kind == "scaled":
        stack = IntensityScaler(method="standard").fit(stack).transform(stack)
    positions = [tuple(position) for position in crops.positions]
    held_out = np.array([positions.index((1, 16, 8))])
    train = np.setdiff1d(np.arange(len(stack)), held_out)
    found = apart_from(stack, train, held_out)
    near = {(1, r, c) for r in (8, 16, 24) for c in (0, 8, 16)} - {(1, 16, 8)}
    expected = set() if kind == "in memory" else near
    assert {positions[i] for i in np.setdiff1d(train, found)} == expected
    assert apart_from(stack, train, held_out[:0]) is train
