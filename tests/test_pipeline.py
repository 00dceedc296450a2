import pickle
from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.filters import threshold_li
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import estimator_checks, estimator_html_repr

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    HungarianDetector,
    MicraNetClassifier,
    MicraNetEnsemble,
    PCAFeatureMap,
    ThresholdSegmenter,
    _gradcam_feature_transformer,
    _pca_feature_map,
)
from sklearn_micranet._network._module import MicraNet
from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet.metrics import iou_score
from sklearn_micranet.metrics._regions import centres

SIZE = 16


def squares_and_bars(n_samples=12, size=SIZE):
    """Images of a 4x4 square (class 0), a bar (class 1) or both, and their masks."""
    rng = np.random.default_rng(0)
    masks = np.zeros((n_samples, 2, size, size), dtype=bool)
    for i in range(n_samples):
        if i % 3 != 0:
            row, column = rng.integers(0, size - 4, 2)
            masks[i, 0, row : row + 4, column : column + 4] = True
        if i % 3 != 1:
            masks[i, 1, rng.integers(size)] = True
    noise = rng.normal(0, 0.05, (n_samples, size, size))
    return (masks.any(axis=1) + noise).astype(np.float32), masks


def make_classifier(**parameters):
    return MicraNetClassifier(n_filters=2, max_epochs=2, random_state=0, **parameters)


def make_steps(classifier, detect=False):
    """Explain all classes, so that a network of two epochs leaves no map empty."""
    steps = [
        ("cam", GradCAMFeatureTransformer(classifier, classes="all", batch_size=4)),
        ("pca", PCAFeatureMap()),
        ("segment", ThresholdSegmenter()),
    ]
    return Pipeline([*steps, ("detect", HungarianDetector(max_distance=4))] if detect else steps)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    # On images this small threads only wait for each other, for minutes on a busy machine.
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def data():
    images, masks = squares_and_bars()
    return images, masks, masks.any(axis=(2, 3)).astype(int)


@pytest.fixture(scope="module")
def frozen(data):
    images, _, labels = data
    return FrozenEstimator(make_classifier().fit(images, labels))


@pytest.fixture
def explained(monkeypatch):
    """Count the images that local maps are computed for."""
    counted = []
    original = _gradcam_feature_transformer.forward

    def count(folded, images):
        counted.append(len(images))
        return original(folded, images)

    monkeypatch.setattr(_gradcam_feature_transformer, "forward", count)
    return counted


# --- the pipeline as a whole ----------------------------------------------------------------


def test_predict_is_what_the_steps_compute_one_after_another(data):
    images, _, labels = data
    pipe = make_steps(make_classifier()).fit(images, labels)
    masks = pipe.predict(images)
    assert masks.shape == (12, 2, SIZE, SIZE)
    assert masks.dtype == bool
    assert 0 < masks.mean() < 1
    cam = GradCAMFeatureTransformer(make_classifier(), classes="all").fit(images, labels)
    feature_maps = PCAFeatureMap().transform(np.asarray(cam.transform(images)))
    expected = ThresholdSegmenter().predict(np.asarray(feature_maps))
    np.testing.assert_array_equal(masks, expected)


def test_detections_are_the_objects_of_the_masks(data, frozen):
    images, _, labels = data
    masks = make_steps(frozen).fit(images, labels).predict(images)
    detections = make_steps(frozen, detect=True).fit(images, labels).predict(images)
    assert len(detections) == len(images)
    for found, sample in zip(detections, masks, strict=True):
        for k, segment in enumerate(sample):
            of_class = found[found[:, 0] == k]
            components, n = ndimage.label(segment, structure=np.ones((3, 3)))
            assert len(of_class) == n
            np.testing.assert_allclose(of_class[:, 1:3], centres(components))


def test_masks_may_stand_for_labels(data):
    images, masks, labels = data
    from_masks = make_steps(make_classifier()).fit(images, masks)
    from_labels = make_steps(make_classifier()).fit(images, labels)
    np.testing.assert_array_equal(from_masks.predict(images), from_labels.predict(images))


def test_score_is_the_mean_iou(data, frozen):
    images, masks, labels = data
    pipe = make_steps(frozen).fit(images, labels)
    ious = iou_score(masks, pipe.predict(images), zero_division=np.nan)
    assert pipe.score(images, masks) == pytest.approx(np.nanmean(ious))


def test_the_f1_of_detections_may_be_scored_with_points_or_masks(data, frozen):
    images, masks, labels = data
    points = []
    for sample in masks:
        present = np.flatnonzero(sample.any(axis=(1, 2)))
        points.append([(k, *ndimage.center_of_mass(sample[k])) for k in present])
    pipe = make_steps(frozen, detect=True).set_params(detect__max_distance=8).fit(images, points)
    score = pipe.score(images, points)
    assert 0 < score < 1
    assert pipe.score(images, masks) == score
    assert pipe.fit(images, labels).score(images, points) == score


def test_predicted_classes_only_are_segmented(data, frozen):
    images, _, _ = data
    classifier = deepcopy(frozen)  # a clone would be the same object
    classifier.estimator.set_params(threshold=[0.0, 1.0])  # always and never
    pipe = make_steps(classifier).set_params(cam__classes="predicted")
    masks = pipe.fit(images).predict(images)
    assert masks[:, 0].any(axis=(1, 2)).all()
    assert not masks[:, 1].any()
    assert pipe[:1].transform(images)[0][0].any()


def test_flattened_digits():
    X, y = load_digits(n_class=3, return_X_y=True)
    pipe = make_steps(make_classifier()).fit(X[:60], y[:60])
    masks = pipe.predict(X[60:70])
    assert masks.shape == (10, 3, 8, 8)
    np.testing.assert_array_equal(pipe.predict(X[64:65])[0], masks[4])


def test_a_binary_problem_has_one_map(data):
    images, masks, _ = data
    names = np.where(masks[:, 0].any(axis=(1, 2)), "square", "no square")
    pipe = make_steps(make_classifier())
    with pytest.raises(ValueError, match=r"Set background_label='no square' or background_label="):
        pipe.fit(images, names)
    pipe.set_params(cam__estimator__background_label="no square").fit(images, names)
    assert pipe["cam"].classes_.tolist() == ["no square", "square"]
    assert pipe["cam"].map_classes_.tolist() == ["square"]
    assert pipe.predict(images).shape == (12, 1, SIZE, SIZE)
    assert 0 <= pipe.score(images, masks[:, :1]) <= 1
    with pytest.raises(ValueError, match="a binary problem has one, that of the positive class"):
        pipe.score(images, masks)


@pytest.mark.parametrize("detect", [False, True])
def test_images_of_different_sizes(data, frozen, detect):
    images = [data[0][0], data[0][1][:9], data[0][2][3:, 1:], data[0][3]]
    pipe = make_steps(frozen, detect=detect).fit(data[0], data[2])
    results = pipe.predict(images)
    assert isinstance(results, np.ndarray if detect else list)
    assert len(results) == 4
    for image, result in zip(images, results, strict=True):
        if not detect:
            assert result.shape == (2, *image.shape)
        np.testing.assert_array_equal(result, pipe.predict(image[np.newaxis])[0])


def test_neither_batch_nor_order_matters(data, frozen):
    images, _, labels = data
    pipe = make_steps(frozen).fit(images, labels)
    expected = pipe.predict(images)
    np.testing.assert_array_equal(pipe.predict(images[::-1])[::-1], expected)
    pipe.set_params(cam__batch_size=7)
    np.testing.assert_array_equal(pipe.predict(images), expected)


# --- laziness -------------------------------------------------------------------------------


def test_fit_computes_no_local_map(data, explained):
    images, masks, labels = data
    for y in (labels, masks):
        pipe = make_steps(make_classifier(), detect=True).fit(images, y)
        stack = pipe[:-1].transform(images)
        assert isinstance(stack, LazyStack)
        assert stack.shape == (12, 2, SIZE, SIZE)
    assert explained == []
    pipe.predict(images)  # the count works
    assert sum(explained) == len(images)


def test_predict_computes_each_map_once_and_never_the_whole_stack(data, frozen, monkeypatch):
    images, _, labels = data
    dense = []
    original = LazyStack.__array__

    def record(self, *args, **kwargs):
        dense.append(self.ndim)
        return original(self, *args, **kwargs)

    batches = []
    explain = _gradcam_feature_transformer._Explain.__call__

    def count(self, batch):
        batches.append(len(batch))
        return explain(self, batch)

    monkeypatch.setattr(LazyStack, "__array__", record)
    monkeypatch.setattr(_gradcam_feature_transformer._Explain, "__call__", count)
    pipe = make_steps(frozen, detect=True).set_params(cam__batch_size=5).fit(images, labels)
    pipe[:-1].predict(images)
    assert batches == [5, 5, 2]
    pipe.predict(images)
    assert batches == [5, 5, 2] * 2
    assert set(dense) == {4}  # masks, as they are returned, but no local maps


def test_a_slice_is_all_that_is_computed(data, frozen, explained):
    images, _, labels = data
    pipe = make_steps(frozen).fit(images, labels)
    segments = pipe.transform(images)
    assert explained == []
    np.testing.assert_array_equal(np.asarray(segments[5:7]) != 0, pipe.predict(images[5:7]))
    assert sum(explained) == 4


@pytest.mark.parametrize("place", ["cam", "pca"])
def test_grid_search_computes_what_is_kept_once(
    data, frozen, explained, monkeypatch, place, tmp_path
):
    fused = []
    first_component = _pca_feature_map.first_component

    def count(layers, weights):
        fused.append(1)
        return first_component(layers, weights)

    monkeypatch.setattr(_pca_feature_map, "first_component", count)
    images, masks, _ = data
    pipe = make_steps(frozen).set_params(segment__method="quantile")
    grid = {"segment__quantile": [0.5, 0.7, 0.9], "segment__sigma": [None, 1]}
    search = GridSearchCV(pipe, grid, cv=3, refit=False, error_score="raise")
    expected = search.fit(images, masks).cv_results_["mean_test_score"]
    assert len(set(expected)) > 1
    assert sum(explained) == 6 * len(images)  # premise
    explained.clear()
    fused.clear()
    pipe.set_params(**{f"{place}__memory": str(tmp_path)})
    scores = search.fit(images, masks).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(scores, expected)
    assert sum(explained) == len(images)
    assert len(fused) == 2 * len(images) * (6 if place == "cam" else 1)


# --- little memory on the device ------------------------------------------------------------


@pytest.fixture
def device(monkeypatch):
    """Return a namespace whose `n_fitting` is the number of images that the device can take."""
    device = SimpleNamespace(n_fitting=np.inf)

    def limited(compute):
        def compute_if_it_fits(self, images):
            if len(images) > device.n_fitting:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return compute(self, images)

        return compute_if_it_fits

    for owner, name in (
        (MicraNet, "last_layer"),
        (_gradcam_feature_transformer._Explain, "_explain"),
    ):
        monkeypatch.setattr(owner, name, limited(getattr(owner, name)))
    return device


@pytest.mark.parametrize("n_fitting", [1, 3])
def test_batches_that_do_not_fit_are_halved(data, frozen, device, n_fitting):
    images, _, labels = data
    pipe = make_steps(frozen)[:1].set_params(cam__batch_size=12).fit(images, labels)
    sizes = [image[: 12 + i % 2] for i, image in enumerate(images)]
    computations = (
        lambda: np.asarray(pipe.transform(images)),
        lambda: frozen.predict_proba(images),
        lambda: np.concatenate(list(pipe.transform(sizes)), axis=2),
        lambda: frozen.predict_proba(sizes),
    )
    for compute, n_first in zip(computations, (12, 12, 6, 6), strict=True):
        device.n_fitting = np.inf
        expected = compute()
        device.n_fitting = n_fitting
        with pytest.warns(RuntimeWarning, match="does not fit in the memory") as warnings:
            actual = compute()
        message = str(warnings[0].message)
        assert message.startswith(f"A batch of {n_first} images does not fit")
        assert f"A batch_size of {n_first // 2} or less avoids" in message
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_one_image_that_does_not_fit_is_an_error(data, frozen, device):
    pipe = make_steps(frozen).fit(data[0])
    device.n_fitting = 0
    for predict in (pipe.predict, frozen.predict):
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            predict(data[0][:1])


# --- ensembles ------------------------------------------------------------------------------


@pytest.mark.parametrize("cv", [None, 2])
@pytest.mark.parametrize("kind", ["frozen", "trainable"])
def test_an_ensemble_takes_the_place_of_a_classifier(data, kind, cv):
    images, masks, labels = data
    ensemble = MicraNetEnsemble(make_classifier(), n_estimators=2, cv=cv, random_state=0)
    if kind == "frozen":
        ensemble = FrozenEstimator(ensemble.fit(images, labels))
    pipe = make_steps(ensemble).fit(images, labels)
    networks = pipe["cam"].estimator_.estimators_
    feature_maps = [
        np.asarray(make_steps(FrozenEstimator(one))[:2].fit(images).transform(images))
        for one in networks
    ]
    expected = ThresholdSegmenter().predict(np.mean(feature_maps, axis=0))
    np.testing.assert_array_equal(pipe.predict(images), expected)
    assert (expected != ThresholdSegmenter().predict(feature_maps[0])).any()
    ious = iou_score(masks, expected, zero_division=np.nan)
    assert pipe.score(images, masks) == pytest.approx(np.nanmean(ious))
    restored = pickle.loads(pickle.dumps(pipe))
    np.testing.assert_array_equal(restored.predict(images), expected)


def test_grid_search_over_an_ensemble(data):
    images, masks, _ = data
    pipe = make_steps(MicraNetEnsemble(make_classifier(), random_state=0))
    grid = {"cam__estimator__n_estimators": [1, 2], "cam__estimator__estimator__n_filters": [3]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(images, masks)
    ensemble = search.best_estimator_["cam"].estimator_
    assert len(ensemble.estimators_) == search.best_params_["cam__estimator__n_estimators"]
    assert ensemble.estimators_[0].n_filters == 3
    assert search.predict(images).shape == masks.shape


def test_fit_parameters_reach_the_network(data):
    images, _, labels = data
    pipe = make_steps(make_classifier(validation_fraction=0))
    weight = np.arange(len(images), dtype=float)
    pipe.fit(images, labels, cam__sample_weight=weight)
    weighted = make_classifier(validation_fraction=0).fit(images, labels, sample_weight=weight)
    np.testing.assert_array_equal(
        pipe["cam"].estimator_.predict_proba(images), weighted.predict_proba(images)
    )
    plain = make_classifier(validation_fraction=0).fit(images, labels)
    assert (plain.predict_proba(images) != weighted.predict_proba(images)).any()


# --- what scikit-learn's users do -----------------------------------------------------------


def test_set_params_reaches_every_step(data, frozen):
    images, _, labels = data
    pipe = make_steps(frozen).fit(images, labels)
    pipe.set_params(segment__method="quantile", segment__quantile=0.75)
    masks = pipe.predict(images)  # no step after the network needs to be fitted again
    np.testing.assert_allclose(masks.mean(axis=(2, 3)), 0.25, atol=0.05)
    trainable = make_steps(make_classifier())
    trainable.set_params(cam__estimator__n_filters=3, cam__batch_size=2, pca__orient=False)
    parameters = trainable.get_params()
    assert parameters["cam__estimator__n_filters"] == 3
    assert parameters["cam__batch_size"] == 2
    assert parameters["pca__orient"] is False


@pytest.mark.parametrize("kind", ["frozen", "trainable"])
def test_grid_search_over_the_threshold(data, frozen, kind):
    images, masks, _ = data
    pipe = make_steps(frozen if kind == "frozen" else make_classifier())
    grid = {"segment__method": ["otsu", "quantile", threshold_li]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(images, masks)
    scores = search.cv_results_["mean_test_score"]
    assert len(set(scores)) == 3
    assert search.best_params_["segment__method"] in grid["segment__method"]
    np.testing.assert_array_equal(search.predict(images), search.best_estimator_.predict(images))
    if kind == "frozen":
        first, second = images[:6], images[6:]
        for method, score in zip(grid["segment__method"], scores, strict=True):
            pipe.set_params(segment__method=method).fit(images, masks)
            halves = pipe.score(first, masks[:6]), pipe.score(second, masks[6:])
            assert score == pytest.approx(np.mean(halves))


def test_grid_search_over_the_network(data):
    images, masks, _ = data
    pipe = make_steps(make_classifier())
    search = GridSearchCV(pipe, {"cam__estimator__n_filters": [2, 3]}, cv=2, error_score="raise")
    search.fit(images, masks)
    best = search.best_estimator_["cam"].estimator_
    assert best.n_filters == search.best_params_["cam__estimator__n_filters"]


def test_grid_search_over_detections_with_points(data, frozen):
    images, masks, _ = data
    points = [np.argwhere(sample)[:1] for sample in masks]
    pipe = make_steps(frozen, detect=True)
    grid = {"segment__sigma": [None, 1], "detect__max_distance": [2, 20]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(images, points)
    assert search.best_params_["detect__max_distance"] == 20


@pytest.mark.parametrize("detect", [False, True])
def test_cross_val_score(data, detect):
    images, masks, _ = data
    pipe = make_steps(make_classifier(), detect=detect)
    scores = cross_val_score(pipe, images, masks, cv=3, error_score="raise")
    assert scores.shape == (3,)
    assert (scores >= 0).all()
    assert scores.max() > 0


def test_clone_is_unfitted_and_equal(data, frozen):
    images, _, labels = data
    pipe = make_steps(make_classifier(), detect=True).fit(images, labels)
    copy = clone(pipe)
    assert estimator_html_repr(copy) != estimator_html_repr(pipe)
    with pytest.raises(NotFittedError, match="GradCAMFeatureTransformer instance is not fitted"):
        copy.predict(images)
    detections = copy.fit(images, labels).predict(images)
    for one, other in zip(detections, pipe.predict(images), strict=True):
        np.testing.assert_array_equal(one, other)
    # A frozen network keeps its weights.
    kept = clone(make_steps(frozen)).fit(images, labels).predict(images)
    np.testing.assert_array_equal(kept, make_steps(frozen).fit(images, labels).predict(images))


@pytest.mark.parametrize("kind", ["frozen", "trainable"])
def test_dump_and_load(data, frozen, kind, tmp_path):
    images, masks, labels = data
    pipe = make_steps(frozen if kind == "frozen" else make_classifier()).fit(images, labels)
    joblib.dump(pipe, tmp_path / "pipe.joblib")
    loaded = joblib.load(tmp_path / "pipe.joblib")
    expected, score = pipe.predict(images), pipe.score(images, masks)
    for copy in (loaded, pickle.loads(pickle.dumps(pipe))):
        np.testing.assert_array_equal(copy.predict(images), expected)
        assert copy.score(images, masks) == score


def test_memory_of_the_pipeline(data, tmp_path):
    images, _, labels = data
    pipe = make_steps(make_classifier())
    expected = pipe.fit(images, labels).predict(images)
    for _ in range(2):  # written, then read
        pipe.set_params(memory=str(tmp_path)).fit(images, labels)
        np.testing.assert_array_equal(pipe.predict(images), expected)


def test_html_diagram_shows_every_step(frozen):
    for pipe in (make_steps(frozen, detect=True), make_steps(make_classifier(), detect=True)):
        html = estimator_html_repr(pipe)
        for name in (
            "GradCAMFeatureTransformer",
            "MicraNetClassifier",
            "PCAFeatureMap",
            "ThresholdSegmenter",
            "HungarianDetector",
        ):
            assert name in html


@pytest.mark.parametrize("container", ["pandas", "default"])
def test_output_containers_leave_stacks_alone(data, frozen, container):
    images, _, labels = data
    expected = make_steps(frozen).fit(images, labels).predict(images)
    with config_context(transform_output=container):
        pipe = make_steps(frozen).fit(images, labels)
        np.testing.assert_array_equal(pipe.predict(images), expected)
        assert isinstance(pipe.transform(images), LazyStack)


def test_make_pipeline(data, frozen):
    images, _, labels = data
    steps = [GradCAMFeatureTransformer(frozen), PCAFeatureMap(), ThresholdSegmenter()]
    masks = make_pipeline(*steps).fit(images, labels).predict(images)
    assert masks.shape == (12, 2, SIZE, SIZE)


def test_the_images_are_left_as_they_are():
    images, masks = squares_and_bars()
    before = images.copy()
    images.setflags(write=False)
    masks.setflags(write=False)
    pipe = make_steps(make_classifier()).fit(images, masks)
    pipe.score(images, masks)
    np.testing.assert_array_equal(images, before)


# --- wrong input ----------------------------------------------------------------------------

WRONG_MASKS = [
    (lambda masks: masks[:, :, :8], r"height and width of the images, \(16, 16\)"),
    (lambda masks: masks[:5], "inconsistent numbers of samples"),
    (lambda masks: masks * 0.5, "0 and 1 only"),
]


@pytest.mark.parametrize(
    ("spoil", "match"), [*WRONG_MASKS, (lambda masks: masks * -1, "0 and 1 only")]
)
def test_wrong_masks_are_refused_before_the_network_trains(data, spoil, match, monkeypatch):
    def refuse(self, *args):
        raise AssertionError("The network was made.")

    images, masks, _ = data
    monkeypatch.setattr(MicraNetClassifier, "_build_net", refuse)
    with pytest.raises(ValueError, match=match):
        make_steps(make_classifier()).fit(images, spoil(masks))


@pytest.mark.parametrize("detect", [False, True])
@pytest.mark.parametrize(
    ("spoil", "match"), [*WRONG_MASKS, (lambda masks: masks[:, :1], "one channel per class, 2")]
)
def test_wrong_masks_are_refused_before_a_map_is_computed(
    data, frozen, explained, detect, spoil, match
):
    images, masks, labels = data
    pipe = make_steps(frozen, detect=detect).fit(images, labels)
    with pytest.raises(ValueError, match=match):
        pipe.score(images, spoil(masks))
    assert explained == []


def test_wrong_points_are_refused_before_a_map_is_computed(data, frozen, explained):
    images, _, labels = data
    pipe = make_steps(frozen, detect=True).fit(images, labels)
    with pytest.raises(ValueError, match=r"points_true\[0\] must have 3 columns"):
        pipe.score(images, [[[1, 2]]] * len(images))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        pipe.score(images, [[[0, 1, 2]]])
    assert explained == []


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda images: images[0], "Got a 2-dimensional X instead"),
        (lambda images: images[..., np.newaxis].repeat(3, axis=3), r"1 channel\(s\).*Got 3"),
        (lambda images: np.where(images > 0.5, np.nan, images), "contains NaN"),
        (lambda images: images[:0], r"0 sample\(s\)"),
        (lambda images: images.astype(str), "strings"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "transform"])
def test_wrong_images_are_refused_before_a_map_is_computed(
    data, frozen, explained, method, spoil, match
):
    images, _, labels = data
    pipe = make_steps(frozen).fit(images, labels)
    with pytest.raises(ValueError, match=match):
        getattr(pipe, method)(spoil(images))
    assert explained == []


def test_an_unfitted_pipeline_says_so(data):
    images, masks, _ = data
    pipe = make_steps(make_classifier())
    for call in (pipe.predict, pipe.transform, partial(pipe.score, y=masks)):
        with pytest.raises(NotFittedError, match="not fitted"):
            call(images)


def test_a_step_in_the_wrong_place_says_what_it_needs(data, frozen):
    images, _, labels = data
    cam = GradCAMFeatureTransformer(frozen)
    with pytest.raises(ValueError, match=r"n_layers, height, width\). Got 3 dimensions"):
        make_pipeline(PCAFeatureMap(), ThresholdSegmenter()).fit(images)
    with pytest.raises(ValueError, match=r"n_classes, height, width\). Got 5 dimensions"):
        make_pipeline(cam, ThresholdSegmenter()).fit(images, labels)
    with pytest.raises(ValueError, match=r"n_classes, height, width\). Got 5 dimensions"):
        make_pipeline(cam, HungarianDetector()).fit(images, labels)


# --- scikit-learn's own checks that need no data, or refuse it ------------------------------

CHECKS = [
    "check_complex_data",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_estimator_tags_renamed",
    "check_estimators_empty_data_messages",
    "check_fit1d",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_param_validation",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]


@pytest.mark.parametrize("stage", [PCAFeatureMap, ThresholdSegmenter, HungarianDetector])
@pytest.mark.parametrize("check", CHECKS)
def test_scikit_learn_checks_of_the_later_stages(stage, check):
    getattr(estimator_checks, check)(stage.__name__, stage())


# --- the recipes of the paper's data sets, each a pipeline with public parameters -----------


def bright(image):
    return image > 0.5


RECIPES = {
    "F-actin": (
        {"min_max": True, "include_image": True},
        {"orient": True, "rescale": "coarse", "foreground": bright},
        {"sigma": 1, "method": "quantile", "quantile": 0.8},
    ),
    "cell lines": (
        {"min_max": True},
        {"orient": False, "rescale": "coarse"},
        {"sigma": 3, "method": "otsu", "subtract_competitors": True, "min_distance": 5},
    ),
    "SEM": (
        {"min_max": False},
        {"orient": True, "rescale": "coarse"},
        {
            "sigma": (1, 5),
            "method": "quantile",
            "quantile": 0.9,
            "keep": "peak",
            "max_hole_size": 2499,
        },
    ),
    "P. vivax": (
        {"min_max": False},
        {"orient": False},
        {"sigma": (3, 10), "method": "otsu", "keep": "peak", "max_hole_size": 2499},
    ),
    "modified MNIST": (
        {"min_max": True},
        {"orient": False, "min_coarse_peak": 0.3},
        {"method": "block_otsu", "block_size": 8, "ignore_zeros": True},
    ),
}


def recipe(name, classifier=None, **changes):
    """Return the pipeline of a data set; without a classifier, what follows the network."""
    cam, pca, segment = RECIPES[name]
    steps = [
        ("cam", GradCAMFeatureTransformer(classifier, **cam)),
        ("pca", PCAFeatureMap(**pca)),
        ("segment", ThresholdSegmenter(**segment)),
    ]
    return Pipeline(steps if classifier else steps[1:]).set_params(**changes)


def local_maps(signal, coarse, *, sign=1, image=None):
    """Make L1 to L7 multiples of a signal, so that its order is the feature map's; L8 is given."""
    layers = [sign * weight * signal for weight in (0.2, 0.4, 0.3, 0.5, 1.0, 0.9, 0.6)]
    return np.stack([*([] if image is None else [image]), *layers, coarse])


def disc(shape, row, column, radius):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(rows - row, columns - column) <= radius


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_run_from_images_to_masks(name, data, frozen):
    images, masks, _ = data
    pipe = recipe(name, frozen, cam__classes="all").fit(images, masks)
    assert pipe.predict(images).shape == masks.shape
    assert 0 <= pipe.score(images, masks) <= 1


def test_recipe_for_f_actin():
    # A band of 20 % of the pixels. A hot pixel, outside the foreground, would set the range.
    band = np.zeros((20, 20))
    band[8:12] = 1
    signal = band.copy()
    signal[2, 2] = 100
    image = np.ones((20, 20))
    image[2, 2] = 0
    coarse = 0.1 + band
    # The network sees the second class in the dark: its maps are low where L8 is high.
    maps = [[local_maps(signal, coarse, sign=sign, image=image) for sign in (1, -1)]]
    pipe = recipe("F-actin")
    masks = pipe.fit(maps).predict(maps)[0]
    assert masks.mean() == 0.2
    np.testing.assert_array_equal(masks[0], band)
    np.testing.assert_array_equal(masks[1], band)
    for change in (
        {"pca__foreground": None},
        {"pca__foreground": None, "pca__rescale": None},
    ):
        assert (recipe("F-actin", **change).fit(maps).predict(maps)[0, 0] != band).any(), change
    unoriented = recipe("F-actin", pca__orient=False).fit(maps).predict(maps)[0]
    np.testing.assert_array_equal(unoriented[0], band)
    assert not (unoriented[1] & (band > 0)).any()


def test_recipe_for_cell_lines():
    # Two touching cells of class 0, which also answers to the cell of class 1.
    shape = (64, 64)
    left, right, other = (disc(shape, *centre, 10) for centre in ((40, 15), (40, 36), (12, 50)))
    first = (left | right) + 0.6 * other
    second = 1.0 * other
    maps = [[local_maps(signal, signal + 0.1) for signal in (first, second)]]
    pipe = recipe("cell lines").fit(maps)
    masks = pipe.predict(maps)[0]
    (instances,) = pipe.transform(maps).instances
    np.testing.assert_array_equal(instances > 0, masks)
    assert instances[0].max() == 2
    np.testing.assert_allclose(
        sorted(centres(instances[0]), key=lambda c: c[1]), [(40, 15), (40, 36)], atol=1
    )
    assert iou_score(left | right, masks[0]) > 0.85

    together = recipe("cell lines", segment__min_distance=None).fit(maps).transform(maps)
    assert together.instances[0][0].max() == 1
    alone = recipe("cell lines", segment__subtract_competitors=False).fit(maps).predict(maps)[0]
    assert alone[0][other].any()
    assert not masks[0][other].any()


def test_recipe_for_sem():
    # A ring and, elsewhere, a weaker disc. The local maps are neither scaled nor positive.
    shape = (80, 80)
    ring = disc(shape, 35, 35, 16) & ~disc(shape, 35, 35, 12)
    weaker = disc(shape, 68, 68, 7)
    signal = 40 * (1.0 * ring + 0.45 * weaker) + 7
    coarse = 1.0 * ring + 0.5
    maps = [[local_maps(signal, coarse, sign=-1)]]
    (mask,) = recipe("SEM").fit(maps).predict(maps)[0]
    assert ndimage.label(mask)[1] == 1
    assert iou_score(disc(shape, 35, 35, 16), mask) > 0.85
    assert mask[35, 35]
    assert not mask[weaker].any()

    (hollow,) = recipe("SEM", segment__max_hole_size=0).fit(maps).predict(maps)[0]
    assert not hollow[35, 35]
    (everything,) = recipe("SEM", segment__keep="all").fit(maps).predict(maps)[0]
    assert everything[weaker].any()
    assert not recipe("SEM", pca__orient=False).fit(maps).predict(maps)[0, 0, 35, 19:24].any()


def test_recipe_for_p_vivax():
    # Each of three networks sees the cell, and something else more strongly.
    shape = (150, 150)
    cell = disc(shape, 75, 75, 14)
    elsewhere = [disc(shape, *centre, 14) for centre in ((25, 25), (25, 125), (125, 25))]
    networks = [np.array([[local_maps(30 * cell + 36 * wrong, 1.0 * cell)]]) for wrong in elsewhere]
    pca, segment = recipe("P. vivax").named_steps.values()
    feature_maps = [np.asarray(pca.fit(maps).transform(maps)) for maps in networks]
    (mask,) = segment.fit(feature_maps[0]).predict(np.mean(feature_maps, axis=0))[0]
    assert ndimage.label(mask)[1] == 1
    np.testing.assert_allclose(ndimage.center_of_mass(mask), (75, 75), atol=1)
    assert mask[cell].all()
    for feature_map, wrong in zip(feature_maps, elsewhere, strict=True):
        assert segment.predict(feature_map)[0, 0][wrong].all()  # one network alone is misled


def test_recipe_for_modified_mnist():
    # Strokes in two components of L8, one of a low peak, and outside both. The background rises
    # from 0 to above the strokes at the top: no single threshold finds them all.
    shape = (32, 32)
    high, low = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    high[:18, :18] = low[24:, 24:] = True
    strokes = np.eye(32, dtype=bool)
    strokes[8:16, 8:16] = False  # a block without structure
    strokes[:16, 5] = True
    background = np.linspace(0.01, 1.2, 32)[:, np.newaxis] * np.ones(32)
    signal = np.where(strokes, background + 0.5, background)
    assert signal[strokes & high].min() < signal[~strokes & high].max()
    maps = [[local_maps(signal, 0.9 * high + 0.2 * low)]]
    (mask,) = recipe("modified MNIST").fit(maps).predict(maps)[0]
    np.testing.assert_array_equal(mask, strokes & high)

    (both,) = recipe("modified MNIST", pca__min_coarse_peak=0.1).fit(maps).predict(maps)[0]
    np.testing.assert_array_equal(both, strokes & (high | low))
    (plain,) = recipe("modified MNIST", segment__method="otsu").fit(maps).predict(maps)[0]
    assert (plain & ~strokes).any() or (strokes & high & ~plain).any()
    (zeros,) = recipe("modified MNIST", segment__ignore_zeros=False).fit(maps).predict(maps)[0]
    assert (zeros != mask).any()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_leave_absent_classes_empty(name):
    absent = np.zeros((1, 1, 9, 40, 40))
    absent[:, :, 0] = 1  # the image
    assert not recipe(name).fit(absent).predict(absent).any()
