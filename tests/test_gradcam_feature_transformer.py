import pickle
from copy import deepcopy

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from reference import randomize, reference_maps
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import get_tags
from torch.testing import assert_close

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    MicraNetClassifier,
    MicraNetEnsemble,
    PCAFeatureMap,
    ThresholdSegmenter,
    TunedThresholdsClassifierCV,
)
from sklearn_micranet import _gradcam_feature_transformer as implementation
from sklearn_micranet._stack._lazy_stack import LazyStack

LAYERS = ("L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8")
N_IMAGES = 6
LABELS = {
    "binary": np.array(["no", "yes"] * 6),
    "multiclass": np.array(["a", "b", "c"] * 4),
    "multilabel": np.arange(36).reshape(12, 3) % 5 % 2,
}


def fitted(images, kind="multilabel", **params):
    """Fit a classifier, and give it weights that find some classes present and some absent."""
    n_fit = len(LABELS[kind])
    images = np.resize(images, (n_fit, *np.shape(images)[1:]))
    params = {"background_label": "no" if kind == "binary" else None} | params
    classifier = MicraNetClassifier(n_filters=4, max_epochs=1, random_state=0, **params)
    classifier.fit(images, LABELS[kind])
    randomize(classifier.module_, classifier.n_channels_in_)
    logits = classifier.decision_function(images)
    classifier.module_.linear.bias.data -= torch.from_numpy(np.atleast_1d(np.median(logits, 0)))
    return classifier


def frozen(classifier, **params):
    return GradCAMFeatureTransformer(FrozenEstimator(classifier), **params).fit(None)


def random_images(*size, n=N_IMAGES):
    return torch.rand(n, *size).numpy()


def explained(classifier, images):
    """Return which maps there should be, bool of shape (n_samples, n_maps)."""
    y = classifier.predict(images)
    if y.ndim == 2:
        return y.astype(bool)
    present = y[:, np.newaxis] == classifier.classes_
    return present[:, 1:] if len(classifier.classes_) == 2 else present


def maps_by_hand(classifier, images, min_max, present):
    """Equations (1) and (2) for images with continued edges, upsampled by torch."""
    images = images if images.ndim == 4 else images[..., np.newaxis]
    height, width = images.shape[1:3]
    padding = [(0, 0), (0, -height % 8), (0, -width % 8), (0, 0)]
    tensor = torch.from_numpy(np.pad(images, padding, mode="edge")).permute(0, 3, 1, 2)
    maps = [
        torch.nn.functional.interpolate(m, tensor.shape[2:], mode="nearest")
        for m in reference_maps(classifier.module_, tensor)
    ]
    maps = torch.stack(maps, dim=2)[..., :height, :width].numpy()
    if min_max:
        low, high = (f(maps, axis=(3, 4), keepdims=True) for f in (np.min, np.max))
        maps = (maps - low) / np.where(high > low, high - low, np.inf)
    return maps * present[:, :, np.newaxis, np.newaxis, np.newaxis]


def assert_maps_close(actual, expected, relative=1e-5):
    """Compare maps, relative to the largest value of each layer."""
    assert actual.shape == expected.shape
    for i in range(actual.shape[2]):
        atol = relative * np.abs(expected[:, :, i]).max()
        assert_allclose(actual[:, :, i], expected[:, :, i], rtol=0, atol=atol, err_msg=f"L{i + 1}")


SIZES = [(32, 32), (51, 38), (17, 8), (51, 38, 3), (24, 33, 3), (5, 6), (3, 20), (30, 9, 3)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("classes", ["predicted", "all"])
@pytest.mark.parametrize("min_max", [False, True])
def test_equals_the_equations(size, classes, min_max):
    images = random_images(*size)
    classifier = fitted(images)
    present = explained(classifier, images)
    assert 0 < present.sum() < present.size  # premise
    if classes == "all":
        present[:] = True

    local_maps = frozen(classifier, classes=classes, min_max=min_max).transform(images)

    dense = np.asarray(local_maps)
    assert local_maps.shape == dense.shape == (N_IMAGES, 3, 8, *size[:2])
    assert local_maps.dtype == dense.dtype == np.float32
    assert local_maps.layer_names == LAYERS
    # Min-max scaling enlarges the rounding errors of maps that vary little.
    expected = maps_by_hand(classifier, images, min_max, present)
    assert_maps_close(dense, expected, 1e-4 if min_max else 1e-5)
    assert (dense[~present] == 0).all()
    assert (np.abs(dense[present]).max(axis=(2, 3))[:, :6] > 0).all()


@pytest.mark.parametrize("classes", ["predicted", "all"])
def test_binary_problems_have_one_map(classes):
    images = random_images(26, 19)
    classifier = fitted(images, "binary")
    present = explained(classifier, images)
    assert present.shape == (N_IMAGES, 1)
    assert 0 < present.sum() < present.size  # premise
    if classes == "all":
        present[:] = True
    local_maps = np.asarray(frozen(classifier, classes=classes, min_max=False).transform(images))
    assert_maps_close(local_maps, maps_by_hand(classifier, images, False, present))
    assert (local_maps[~present] == 0).all()


def test_exclusive_classes_have_one_map_per_image():
    images = random_images(26, 19)
    classifier = fitted(images, "multiclass")
    present = explained(classifier, images)
    assert_array_equal(present.sum(axis=1), 1)
    assert len(np.unique(present, axis=0)) > 1  # premise
    local_maps = np.asarray(frozen(classifier, min_max=False).transform(images))
    assert_maps_close(local_maps, maps_by_hand(classifier, images, False, present))


def test_threshold_of_each_class_is_respected():
    images = random_images(16, 16)
    classifier = fitted(images).set_params(threshold=[0.0, 1.0, 0.5])
    local_maps = np.asarray(frozen(classifier).transform(images))
    present = local_maps.any(axis=(2, 3, 4))
    assert_array_equal(present, explained(classifier, images))
    assert present[:, 0].all()
    assert not present[:, 1].any()


def test_maps_are_nearest_neighbours_of_their_layer():
    images = random_images(32, 16)
    local_maps = np.asarray(frozen(fitted(images), classes="all").transform(images))
    for i, factor in enumerate([1, 1, 2, 2, 4, 4, 8, 8]):
        layer = local_maps[:, :, i]
        small = layer[..., ::factor, ::factor]
        assert_array_equal(layer, small.repeat(factor, axis=2).repeat(factor, axis=3))
        assert small.max() == 1


def test_only_the_last_layer_is_rectified():
    images = random_images(32, 32)
    transformer = frozen(fitted(images), classes="all", min_max=False)
    local_maps = np.asarray(transformer.transform(images))
    assert (local_maps[:, :, :7].min(axis=(0, 1, 3, 4)) < 0).all()
    assert local_maps[:, :, 7].min() == 0
    assert local_maps[:, :, 7].max() > 0


def test_min_max_scales_each_map():
    images = random_images(40, 29)
    transformer = frozen(fitted(images), classes="all", min_max=False)
    raw = np.asarray(transformer.transform(images), dtype=np.float64)
    scaled = np.asarray(transformer.set_params(min_max=True).transform(images))
    low, high = raw.min(axis=(3, 4), keepdims=True), raw.max(axis=(3, 4), keepdims=True)
    varies = (high > low)[..., 0, 0]
    assert varies[:, :, :7].all()
    expected = (raw - low) / np.where(high > low, high - low, np.inf)
    assert_allclose(scaled, expected, rtol=0, atol=1e-5)
    assert_array_equal(scaled.min(axis=(3, 4)), 0)
    assert_array_equal(scaled.max(axis=(3, 4)), varies)


def test_constant_maps_become_zero():
    images = random_images(8, 8)  # L7 and L8 are a single pixel
    transformer = frozen(fitted(images), classes="all", min_max=False)
    raw = np.asarray(transformer.transform(images))
    assert (raw[:, :, 6] != 0).all()  # premise
    scaled = np.asarray(transformer.set_params(min_max=True).transform(images))
    assert_array_equal(scaled[:, :, 6:], 0)
    assert (scaled[:, :, :6].max(axis=(3, 4)) == 1).all()


@pytest.mark.parametrize("level", [0, 0.3])
def test_images_with_constant_regions(level):
    images = random_images(43, 32)
    images[:, :20] = level
    images[:, 30:, 11:] = 1 - level
    classifier = fitted(images)
    present = np.ones((N_IMAGES, 3), dtype=bool)
    local_maps = frozen(classifier, classes="all", min_max=False).transform(images)
    # Rounding decides on ties between pixels of a constant region.
    expected = maps_by_hand(classifier, images, False, present)
    assert_maps_close(np.asarray(local_maps), expected, 1e-4)


@pytest.mark.parametrize("size", [(33, 40), (16, 24, 3)], ids=str)
def test_batch_and_order_do_not_matter(size):
    images = random_images(*size)
    transformer = frozen(fitted(images), min_max=False, batch_size=1)
    expected = np.asarray(transformer.transform(images))
    for batch_size in (2, 4, 100):
        transformer.set_params(batch_size=batch_size)
        assert_maps_close(np.asarray(transformer.transform(images)), expected)
    order = [4, 1, 5, 0, 3, 2]
    assert_maps_close(np.asarray(transformer.transform(images[order])), expected[order])
    assert_maps_close(np.asarray(transformer.transform(images)[order]), expected[order])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, bool])
def test_images_of_any_dtype(dtype):
    images = (random_images(20, 23) > 0.5).astype(dtype)
    images.flags.writeable = False
    transformer = frozen(fitted(images.astype(np.float32)))
    assert_array_equal(
        np.asarray(transformer.transform(images)),
        np.asarray(transformer.transform(images.astype(np.float32))),
    )


def test_flattened_images():
    images = random_images(10, 14, 3)
    flat = images.reshape(N_IMAGES, -1)
    classifier = fitted(flat, image_shape=(10, 14, 3))
    local_maps = np.asarray(frozen(classifier).transform(flat))
    assert local_maps.shape == (N_IMAGES, 3, 8, 10, 14)
    assert_array_equal(local_maps, np.asarray(frozen(classifier).transform(images)))


def test_images_of_another_size_than_in_training():
    classifier = fitted(random_images(16, 16))
    images = random_images(21, 45)
    local_maps = frozen(classifier, min_max=False, classes="all").transform(images)
    present = np.ones((N_IMAGES, 3), dtype=bool)
    assert_maps_close(np.asarray(local_maps), maps_by_hand(classifier, images, False, present))


@pytest.mark.parametrize("n_channels", [1, 3])
def test_images_of_different_sizes(n_channels):
    shape = (n_channels,) if n_channels > 1 else ()
    images = [
        random_images(*size, *shape, n=1)[0]
        for size in [(20, 31), (9, 13), (20, 31), (16, 16), (20, 31)]
    ]
    transformer = frozen(fitted(random_images(16, 16, *shape)), classes="all", batch_size=4)
    local_maps = transformer.transform(images)
    assert local_maps.is_ragged
    assert len(local_maps) == 5
    assert [m.shape for m in local_maps] == [(3, 8, *image.shape[:2]) for image in images]
    for one, image in zip(local_maps, images, strict=True):
        alone = np.asarray(transformer.transform(image[np.newaxis]))[0]
        assert_allclose(one, alone, rtol=0, atol=1e-4)
    assert [m.shape for m in local_maps.layer("L8")] == [(3, *i.shape[:2]) for i in images]
    feature_maps = PCAFeatureMap().fit_transform(local_maps)
    assert [m.shape for m in feature_maps] == [(3, *image.shape[:2]) for image in images]


def test_layers_by_name():
    images = random_images(20, 12)
    local_maps = frozen(fitted(images)).transform(images)
    dense = np.asarray(local_maps)
    for i, name in enumerate(LAYERS):
        assert_array_equal(np.asarray(local_maps.layer(name)), dense[:, :, i])


@pytest.mark.parametrize("size", [(18, 23), (9, 12, 3)], ids=str)
def test_image_travels_as_a_layer(size):
    images = random_images(*size)
    classifier = fitted(images)
    local_maps = frozen(classifier, include_image=True).transform(images)
    assert local_maps.shape == (N_IMAGES, 3, 9, *size[:2])
    assert local_maps.layer_names == ("image", *LAYERS)
    dense = np.asarray(local_maps)
    gray = images.mean(axis=3) if images.ndim == 4 else images
    present = explained(classifier, images)[:, :, np.newaxis, np.newaxis]
    assert_allclose(dense[:, :, 0], gray[:, np.newaxis] * present, rtol=1e-6)
    assert_array_equal(dense[:, :, 1:], np.asarray(frozen(classifier).transform(images)))


def test_eight_of_nine_layers_are_not_taken_for_others():
    images = random_images(18, 23)
    local_maps = frozen(fitted(images), include_image=True).transform(images)
    with pytest.raises(ValueError, match=r"must have the layers .*'L8'.* Got \['image', 'L1'"):
        PCAFeatureMap().fit_transform(local_maps[:, :, :8])


@pytest.fixture
def n_computed(monkeypatch):
    """Number of images whose local maps were computed: a list, one entry per batch."""
    computed = []

    def counting(folded, images):
        computed.append(len(images))
        return forward(folded, images)

    forward = implementation.forward
    monkeypatch.setattr(implementation, "forward", counting)
    return computed


def test_nothing_is_computed_until_it_is_read(n_computed):
    images = random_images(16, 16, n=12)
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1)
    pipeline = make_pipeline(GradCAMFeatureTransformer(classifier), PCAFeatureMap())
    feature_maps = pipeline.fit(images, LABELS["multilabel"]).transform(images)
    local_maps = pipeline[0].transform(images)
    assert [len(local_maps[test]) for _, test in KFold(3).split(local_maps)] == [4, 4, 4]
    assert local_maps.layer("L8").shape == feature_maps.shape
    assert n_computed == []

    np.asarray(feature_maps[2:5])
    assert sum(n_computed) == 3
    local_maps[7]
    assert sum(n_computed) == 4
    np.asarray(local_maps[[1, 9]].layer("L8"))
    assert sum(n_computed) == 6
    np.asarray(local_maps)
    assert sum(n_computed) == 18


def test_memory_is_bounded_by_the_batch(n_computed):
    images = random_images(16, 16, n=12)
    local_maps = iter(frozen(fitted(images), batch_size=5).transform(images))
    next(local_maps)
    assert sum(n_computed) <= 5
    list(local_maps)
    assert sum(n_computed) == 12


def test_images_are_read_when_maps_are(n_computed):
    reads = []

    class Images:
        shape, ndim, dtype = (1000, 16, 16), 3, np.dtype(np.uint8)

        def __len__(self):
            return 1000

        def __getitem__(self, key):
            reads.append(key)
            return np.zeros((1000, 16, 16), dtype=np.uint8)[key]

    local_maps = frozen(fitted(random_images(16, 16))).transform(Images())
    assert local_maps.shape == (1000, 3, 8, 16, 16)
    assert reads == []
    np.asarray(local_maps[600:610])
    assert [reads[0].start, reads[-1].stop] == [600, 610]


def snapshot(module):
    return (
        deepcopy(module.state_dict()),
        [m.training for m in module.modules()],
        [p.requires_grad for p in module.parameters()],
        [len(m._forward_hooks) + len(m._backward_hooks) for m in module.modules()],
        [p.grad for p in module.parameters()],
    )


@pytest.mark.parametrize("classes", ["predicted", "all"])
def test_explaining_does_not_change_the_network(classes):
    images = random_images(16, 20)
    before = images.copy()
    classifier = fitted(images)
    module = classifier.module_
    module.zero_grad(set_to_none=True)
    module.depth2.train()  # flags that no common state restores by chance
    expected = snapshot(module)

    np.asarray(frozen(classifier, classes=classes).transform(images))

    actual = snapshot(module)
    assert_close(actual[0], expected[0], rtol=0, atol=0)
    assert actual[1:] == expected[1:]
    assert actual[4] == [None] * len(actual[4])
    assert torch.is_grad_enabled()
    assert_array_equal(images, before)


def test_failing_does_not_change_the_network():
    images = random_images(16, 16)
    classifier = fitted(images)
    expected = snapshot(classifier.module_)
    images[4, 3, 2] = np.nan
    lazily_read = LazyStack(images, np.copy, item_shape=(16, 16))
    local_maps = frozen(classifier).transform(lazily_read)
    with pytest.raises(ValueError, match="must be finite"):
        np.asarray(local_maps)
    actual = snapshot(classifier.module_)
    assert_close(actual[0], expected[0], rtol=0, atol=0)
    assert actual[1:4] == expected[1:4]


def test_gradients_of_a_training_step_survive():
    images = random_images(16, 16)
    classifier = fitted(images)
    for parameter in classifier.module_.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    np.asarray(frozen(classifier).transform(images))
    assert all((parameter.grad == 7).all() for parameter in classifier.module_.parameters())


def test_stack_survives_a_refit():
    images = random_images(16, 16, n=12)
    transformer = GradCAMFeatureTransformer(
        MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0), classes="all"
    ).fit(images, LABELS["multilabel"])
    local_maps = transformer.transform(images)
    before = np.asarray(local_maps)
    transformer.set_params(estimator__random_state=1, classes="predicted", min_max=False)
    transformer.fit(images, LABELS["multilabel"][::-1])
    assert_array_equal(np.asarray(local_maps), before)
    assert (np.asarray(transformer.transform(images)) != before).any()


def test_stack_survives_further_training_of_a_frozen_classifier():
    images = random_images(16, 16, n=12)
    classifier = fitted(images)
    local_maps = frozen(classifier, classes="all").transform(images)
    before = np.asarray(local_maps)
    classifier.partial_fit(images, LABELS["multilabel"])
    assert_array_equal(np.asarray(local_maps), before)


def test_fit_trains_a_clone():
    images = random_images(16, 16, n=12)
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    transformer = GradCAMFeatureTransformer(classifier)
    assert transformer.fit(images, LABELS["multiclass"]) is transformer
    assert not hasattr(classifier, "net_")
    assert transformer.estimator is classifier
    assert_array_equal(transformer.classes_, ["a", "b", "c"])
    expected = clone(classifier).fit(images, LABELS["multiclass"]).module_.state_dict()
    assert_close(transformer.estimator_.module_.state_dict(), expected, rtol=0, atol=0)


def test_fit_is_idempotent():
    images = random_images(16, 16, n=12)
    transformer = GradCAMFeatureTransformer(
        MicraNetClassifier(n_filters=2, max_epochs=1, background_label="no", random_state=0)
    )
    first = np.asarray(transformer.fit(images, LABELS["binary"]).transform(images))
    assert_array_equal(np.asarray(transformer.fit_transform(images, LABELS["binary"])), first)
    other = clone(transformer)
    assert not hasattr(other, "estimator_")
    assert_array_equal(np.asarray(other.fit_transform(images, LABELS["binary"])), first)


@pytest.mark.parametrize("y", [None, LABELS["multilabel"]], ids=["without y", "with y"])
def test_frozen_classifier_keeps_its_weights(y):
    images = random_images(16, 16, n=12)
    classifier = fitted(images)
    before = deepcopy(classifier.module_.state_dict())
    expected = np.asarray(frozen(classifier).transform(images))
    transformer = GradCAMFeatureTransformer(FrozenEstimator(classifier))
    for copy in (
        transformer,
        clone(transformer),
        clone(make_pipeline(transformer, PCAFeatureMap()))[0],
    ):
        assert_array_equal(np.asarray(copy.fit(images, y).transform(images)), expected)
        assert copy.estimator_.module_ is classifier.module_
    assert_close(classifier.module_.state_dict(), before, rtol=0, atol=0)


def test_trains_on_masks():
    images = random_images(16, 16, n=12)
    masks = np.zeros((12, 2, 16, 16), dtype=bool)
    masks[:6, 0, 2, 2] = masks[4:, 1, 3, 3] = True
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1, min_coverage=0, random_state=0)
    on_masks = GradCAMFeatureTransformer(classifier).fit(images, masks).transform(images)
    labels = masks.any(axis=(2, 3)).astype(int)
    on_labels = GradCAMFeatureTransformer(classifier).fit(images, labels).transform(images)
    assert_array_equal(np.asarray(on_masks), np.asarray(on_labels))


def test_tags():
    classifier = MicraNetClassifier()
    tags = get_tags(GradCAMFeatureTransformer(classifier))
    assert tags.target_tags.required
    assert tags.input_tags.three_d_array
    assert tags.requires_fit
    assert tags.transformer_tags.preserves_dtype == []
    frozen = GradCAMFeatureTransformer(FrozenEstimator(classifier))
    assert not get_tags(frozen).target_tags.required


def test_describes_the_training_data():
    X, y = load_digits(n_class=3, return_X_y=True, as_frame=True)
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    transformer = GradCAMFeatureTransformer(classifier).fit(X, y)
    assert transformer.n_features_in_ == 64
    assert_array_equal(transformer.feature_names_in_, X.columns)
    assert transformer.transform(X).shape == (len(X), 3, 8, 8, 8)


@pytest.mark.parametrize("copy", ["pickle", "joblib"])
def test_round_trip(copy, tmp_path):
    images = random_images(16, 16)
    transformer = frozen(fitted(images))
    local_maps = transformer.transform(images)
    if copy == "pickle":
        restored = pickle.loads(pickle.dumps((transformer, local_maps[2:])))
    else:
        joblib.dump((transformer, local_maps[2:]), tmp_path / "both")
        restored = joblib.load(tmp_path / "both")
    assert_array_equal(np.asarray(restored[0].transform(images)), np.asarray(local_maps))
    assert_array_equal(np.asarray(restored[1]), np.asarray(local_maps[2:]))


GOOD = np.random.default_rng(0).random((6, 16, 16), dtype=np.float32)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (np.where(GOOD < 0.1, np.nan, GOOD), "contains NaN"),
        (np.where(GOOD < 0.1, np.inf, GOOD), "contains infinity"),
        (GOOD[0], "pass a single image as image"),
        (np.zeros((2, 2, 16, 16, 1)), "Got 5 dimensions instead"),
        (np.zeros((2, 16, 16, 3)), r"must have 1 channel\(s\).* Got 3 instead"),
        (GOOD[:0], "0 sample|at least one image"),
        (GOOD[:, :0], "at least one pixel"),
        (np.full((2, 16, 16), "a"), "not compatible with arrays of bytes/strings"),
        ([GOOD[0], np.zeros((9, 9, 3))], "same number of channels"),
        ([GOOD[0], np.full((9, 9), np.nan)], "contains NaN"),
    ],
)
def test_wrong_images_are_refused_before_work_is_done(images, match, n_computed):
    with pytest.raises(ValueError, match=match):
        frozen(fitted(GOOD)).transform(images)
    assert n_computed == []


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"classes": "present"}, "'classes' parameter of GradCAMFeatureTransformer"),
        ({"min_max": 2}, "'min_max' parameter"),
        ({"include_image": None}, "'include_image' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"batch_size": 1.5}, "'batch_size' parameter"),
        ({"estimator": None}, "'estimator' parameter"),
    ],
)
def test_wrong_parameters_are_refused(params, match):
    params = {"estimator": MicraNetClassifier(n_filters=2, max_epochs=1), **params}
    images = random_images(16, 16, n=12)
    with pytest.raises(ValueError, match=match):
        GradCAMFeatureTransformer(**params).fit(images, LABELS["binary"])


@pytest.mark.parametrize("params", [{"classes": "al"}, {"batch_size": 0}, {"min_max": "no"}])
def test_wrong_parameters_set_after_fit_are_refused(params):
    transformer = frozen(fitted(GOOD)).set_params(**params)
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter"):
        transformer.transform(GOOD)


class Other(BaseEstimator):
    def fit(self, X, y=None):
        raise AssertionError("fitted")

    def decision_function(self, X):
        raise AssertionError("called")


@pytest.mark.parametrize("estimator", [Other(), FrozenEstimator(Other())], ids=["plain", "frozen"])
def test_other_estimators_are_refused(estimator):
    with pytest.raises(
        TypeError, match=r"must be a MicraNetClassifier, a MicraNetEnsemble.* Got Other"
    ):
        GradCAMFeatureTransformer(estimator).fit(GOOD)


def test_not_fitted():
    transformer = GradCAMFeatureTransformer(MicraNetClassifier())
    with pytest.raises(NotFittedError, match="GradCAMFeatureTransformer instance is not fitted"):
        transformer.transform(GOOD)
    assert not hasattr(transformer, "classes_")
    assert not hasattr(transformer, "n_features_in_")
    transformer = GradCAMFeatureTransformer(FrozenEstimator(MicraNetClassifier()))
    with pytest.raises(NotFittedError, match="MicraNetClassifier instance is not fitted"):
        transformer.fit(GOOD)


def test_memory_keeps_the_maps_of_each_image(n_computed, tmp_path):
    images = random_images(16, 20)
    classifier = fitted(images)
    expected = np.asarray(frozen(classifier, classes="all").transform(images))
    n_computed.clear()
    transformer = frozen(classifier, classes="all", memory=str(tmp_path))
    assert_array_equal(np.asarray(transformer.transform(images)), expected)
    assert sum(n_computed) == N_IMAGES
    # Another order, other batches, another object, another scaling: nothing is computed again.
    again = clone(transformer).set_params(batch_size=2).fit(images)
    assert_array_equal(np.asarray(again.transform(images[::-1])), expected[::-1])
    raw = clone(transformer).set_params(min_max=False).fit(images).transform(images[:1])
    assert not np.array_equal(np.asarray(raw), expected[:1])
    assert sum(n_computed) == N_IMAGES


class OnGPU(torch.Tensor):
    """A tensor that is not on the CPU until it is copied there."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_memory_keeps_arrays(tmp_path):
    images = random_images(16, 20, n=1)
    transformer = frozen(fitted(images), classes="all", memory=str(tmp_path))
    np.asarray(transformer.transform(images))
    (kept,) = tmp_path.rglob("output.pkl")
    maps = joblib.load(kept)  # may be read where there is no other device
    assert [type(array) for array in (maps.classes, *maps.layers)] == [np.ndarray] * 9


@pytest.mark.parametrize("change", ["weights", "threshold", "classes", "image"])
def test_memory_is_never_stale(change, n_computed, tmp_path):
    images = random_images(16, 20, n=1)
    classifier = fitted(random_images(16, 20)).set_params(threshold=0.0)  # every class is present
    transformer = frozen(classifier, memory=str(tmp_path))
    before = np.asarray(transformer.transform(images))
    n_computed.clear()
    if change == "weights":
        with torch.no_grad():
            classifier.module_.depth1.conv_a.weight *= -1
    elif change == "threshold":
        classifier.threshold = 1.0
    elif change == "classes":
        transformer.set_params(classes="all")
    else:
        images[0, 3, 3] += 1
    after = np.asarray(transformer.transform(images))
    assert sum(n_computed) == 1
    assert np.array_equal(after, before) == (change == "classes")


def test_memory_is_shared_by_the_candidates_and_folds_of_a_grid_search(n_computed, tmp_path):
    images = random_images(16, 20)
    masks = random_images(3, 16, 20) > 0.5
    cam = frozen(fitted(images), classes="all", memory=str(tmp_path))
    pipe = Pipeline([("cam", cam), ("pca", PCAFeatureMap()), ("segment", ThresholdSegmenter())])
    n_computed.clear()
    GridSearchCV(pipe, {"segment__quantile": [0.5, 0.8], "pca__orient": [True, False]}, cv=3).fit(
        images, masks
    )
    assert sum(n_computed) == N_IMAGES


@pytest.mark.parametrize("memory", [False, True])
def test_an_unread_stack_keeps_the_weights_it_was_made_with(memory, tmp_path):
    images = random_images(16, 20)
    classifier = fitted(images)
    transformer = frozen(classifier, memory=str(tmp_path) if memory else None)
    expected = np.asarray(frozen(classifier).transform(images))
    local_maps = transformer.transform(images)  # nothing of it is read yet
    with torch.no_grad():
        for parameter in classifier.module_.parameters():
            parameter *= -0.5
    classifier.set_params(threshold=[0.1, 0.9, 0.4])
    assert_array_equal(np.asarray(local_maps), expected)
    # Nor is anything kept under the name of the new weights.
    changed = np.asarray(transformer.transform(images))
    assert not np.array_equal(changed, expected)
    assert_array_equal(changed, np.asarray(frozen(classifier).transform(images)))


def test_pickled_stacks_read_what_is_kept(n_computed, tmp_path):
    images = random_images(16, 20)
    local_maps = frozen(fitted(images), memory=str(tmp_path)).transform(images)
    unread = pickle.dumps(local_maps)
    expected = np.asarray(local_maps)
    n_computed.clear()
    for pickled in (unread, pickle.dumps(local_maps)):
        assert_array_equal(np.asarray(pickle.loads(pickled)), expected)
    assert n_computed == []


def test_fit_parameters_are_those_of_the_classifier():
    images = random_images(16, 16, n=12)
    y = LABELS["multilabel"]
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    weight = np.arange(12.0)
    for fit_params in (
        {"sample_weight": weight},
        {"sample_weight": weight, "X_val": images[:4], "y_val": y[:4]},
    ):
        transformer = GradCAMFeatureTransformer(classifier).fit(images, y, **fit_params)
        expected = clone(classifier).fit(images, y, **fit_params).module_.state_dict()
        assert_close(transformer.estimator_.module_.state_dict(), expected, rtol=0, atol=0)
        plain = clone(classifier).fit(images, y).module_.state_dict()
        assert any(not torch.equal(plain[name], tensor) for name, tensor in expected.items())
    with pytest.raises(TypeError, match="unexpected keyword argument 'epochs'"):
        GradCAMFeatureTransformer(classifier).fit(images, y, epochs=3)


# --- tuned thresholds ------------------------------------------------------------------------


@pytest.mark.parametrize("is_ensemble", [False, True], ids=["classifier", "ensemble"])
@pytest.mark.parametrize("is_frozen", [False, True], ids=["trained", "frozen"])
def test_classes_are_present_by_the_tuned_thresholds(is_ensemble, is_frozen):
    images, y = random_images(16, 16, n=12), LABELS["multilabel"]
    estimator = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    if is_ensemble:
        estimator = MicraNetEnsemble(estimator, n_estimators=2, random_state=0)
    tuned = TunedThresholdsClassifierCV(estimator, cv=3, random_state=0)
    if is_frozen:
        tuned = FrozenEstimator(tuned.fit(images, y))
    transformer = GradCAMFeatureTransformer(tuned).fit(images, y)
    present = transformer.estimator_.predict(images).astype(bool)
    untuned = transformer.estimator_.predict_proba(images) >= 0.5
    assert (present != untuned).any()  # premise
    local_maps = np.asarray(transformer.transform(images))
    assert_array_equal(local_maps.any(axis=(2, 3, 4)), present)
    assert_array_equal(transformer.classes_, [0, 1, 2])


# --- ensembles -------------------------------------------------------------------------------


def fitted_ensemble(images, kind="multilabel", n_estimators=3, **params):
    """Fit an ensemble, and give its networks weights that disagree."""
    n_fit = len(LABELS[kind])
    ensemble = MicraNetEnsemble(
        MicraNetClassifier(n_filters=2, max_epochs=1, **params),
        n_estimators=n_estimators,
        random_state=0,
    ).fit(np.resize(images, (n_fit, *np.shape(images)[1:])), LABELS[kind])
    ensemble.estimators_ = [fitted(images, kind, **params) for _ in range(n_estimators)]
    for member, certainty in zip(ensemble.estimators_, (5, 1, 0.2), strict=False):
        for parameter in member.module_.linear.parameters():
            parameter.data *= certainty
    return ensemble


@pytest.mark.parametrize("include_image", [False, True])
@pytest.mark.parametrize("kind", LABELS)
def test_maps_of_an_ensemble_are_those_of_each_network(kind, include_image):
    images = random_images(18, 23)
    ensemble = fitted_ensemble(images, kind)
    parameters = {"classes": "all", "include_image": include_image, "batch_size": 4}

    local_maps = frozen(ensemble, **parameters).transform(images)

    n_first = 1 if include_image else 0
    names = [(name, i) for i in range(3) for name in LAYERS]
    assert local_maps.layer_names == ("image", *names)[1 - n_first :]
    n_maps = 1 if kind == "binary" else 3
    assert local_maps.shape == (N_IMAGES, n_maps, n_first + 24, 18, 23)
    dense = np.asarray(local_maps)
    for i, member in enumerate(ensemble.estimators_):
        alone = np.asarray(frozen(member, **parameters).transform(images))
        assert_array_equal(dense[:, :, n_first + 8 * i : n_first + 8 * (i + 1)], alone[:, :, -8:])
        assert_array_equal(np.asarray(local_maps.layer(("L8", i))), alone[:, :, -1])
        if include_image:
            assert_array_equal(dense[:, :, 0], alone[:, :, 0])


@pytest.mark.parametrize("kind", LABELS)
def test_classes_are_present_by_the_mean_probability(kind):
    images = random_images(18, 23)
    ensemble = fitted_ensemble(images, kind)
    present = explained(ensemble, images)
    of_each = np.array([explained(member, images) for member in ensemble.estimators_])
    assert 0 < present.sum() < present.size  # premises
    assert (of_each != present).any(axis=(1, 2)).sum() >= 2
    local_maps = np.asarray(frozen(ensemble).transform(images))
    of_networks = local_maps.reshape(*present.shape, 3, -1).any(axis=3)
    assert_array_equal(of_networks, present[:, :, np.newaxis].repeat(3, axis=2))


def test_threshold_of_an_ensemble_may_be_set_after_fit():
    images = random_images(16, 16)
    ensemble = fitted_ensemble(images).set_params(threshold=[0.0, 1.0, 0.5])
    for member in ensemble.estimators_:
        member.threshold = 1.0  # is not used
    present = np.asarray(frozen(ensemble).transform(images)).any(axis=(2, 3, 4))
    assert_array_equal(present, explained(ensemble, images))
    assert_array_equal(present[:, :2], [[True, False]] * N_IMAGES)
    with pytest.raises(ValueError, match="one per class, 3"):
        frozen(ensemble.set_params(threshold=[0.5])).transform(images)


def test_an_ensemble_of_one_is_the_classifier():
    images = random_images(16, 20)
    ensemble = fitted_ensemble(images, n_estimators=1)
    local_maps = frozen(ensemble).transform(images)
    assert local_maps.layer_names == LAYERS
    alone = np.asarray(frozen(ensemble.estimators_[0]).transform(images))
    assert_array_equal(np.asarray(local_maps), alone)
    assert alone.any()


def test_parts_of_the_maps_of_an_ensemble_are_fused():
    images = random_images(16, 20)
    local_maps = frozen(fitted_ensemble(images), classes="all").transform(images)
    expected = np.asarray(PCAFeatureMap().fit_transform(local_maps))
    assert expected.any()
    assert_array_equal(PCAFeatureMap().fit_transform(local_maps[1:, :1]), expected[1:, :1])


def test_ensembles_are_cloned_and_fitted():
    images, y = random_images(16, 20, n=12), LABELS["multilabel"]
    ensemble = MicraNetEnsemble(
        MicraNetClassifier(n_filters=2, max_epochs=1), n_estimators=2, random_state=0
    )
    transformer = GradCAMFeatureTransformer(ensemble, classes="all").fit(images, y)
    assert not hasattr(ensemble, "estimators_")
    expected = np.asarray(frozen(clone(ensemble).fit(images, y), classes="all").transform(images))
    assert_array_equal(np.asarray(transformer.transform(images)), expected)
    restored = pickle.loads(pickle.dumps((transformer, transformer.transform(images))))
    assert_array_equal(np.asarray(restored[0].transform(images)), expected)
    assert_array_equal(np.asarray(restored[1]), expected)


def test_ensemble_on_images_of_different_sizes():
    ensemble = fitted_ensemble(random_images(16, 16), n_estimators=2)
    images = [random_images(*size, n=1)[0] for size in [(20, 31), (5, 9), (20, 31)]]
    transformer = frozen(ensemble, classes="all")
    local_maps = transformer.transform(images)
    assert [m.shape for m in local_maps] == [(3, 16, *image.shape) for image in images]
    for one, image in zip(local_maps, images, strict=True):
        assert_allclose(one, transformer.transform(image[np.newaxis])[0], rtol=0, atol=1e-4)


def test_memory_of_an_ensemble(n_computed, tmp_path):
    images = random_images(16, 20)
    ensemble = fitted_ensemble(images)
    expected = np.asarray(frozen(ensemble).transform(images))
    transformer = frozen(ensemble, memory=str(tmp_path))
    n_computed.clear()
    for _ in range(2):
        assert_array_equal(np.asarray(transformer.transform(images)), expected)
        assert sum(n_computed) == 3 * N_IMAGES
    # A change of any of the networks, or of their order, counts.
    with torch.no_grad():
        ensemble.estimators_[2].module_.depth1.conv_a.weight *= -1
    changed = np.asarray(transformer.transform(images))
    assert_array_equal(changed, np.asarray(frozen(ensemble).transform(images)))
    assert not np.array_equal(changed, expected)
    ensemble.estimators_.reverse()
    swapped = np.asarray(transformer.transform(images))
    assert_array_equal(swapped[:, :, :8], changed[:, :, 16:])
