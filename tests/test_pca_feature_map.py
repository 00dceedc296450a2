import pickle
from copy import copy, deepcopy
from functools import partial, wraps

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_checks, get_tags

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    MicraNetClassifier,
    MicraNetEnsemble,
    PCAFeatureMap,
    ThresholdSegmenter,
    _gradcam_feature_transformer,
    _pca_feature_map,
)
from sklearn_micranet._network._small_maps import UpsampledMaps
from sklearn_micranet._stack import _large_arrays
from sklearn_micranet._stack._lazy_stack import LazyStack, as_stack

LAYERS = tuple(f"L{i}" for i in range(1, 9))


def random_maps(seed, shape=(3, 2, 8, 12, 17)):
    """Correlated layers of differing signs and sizes; L8 is rectified."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=shape)
    maps += rng.normal(size=(*shape[:3], 1, 1)) * maps[:, :, 7:8]
    maps *= 10 ** rng.uniform(-1, 1, size=(*shape[:3], 1, 1))
    maps[:, :, 7].clip(0, out=maps[:, :, 7])
    return maps.astype(np.float32)


def pca_scores(layers):
    """Scores of scikit-learn's PCA for layers (n_layers, height, width)."""
    pixels = layers.reshape(len(layers), -1).T.astype(np.float64)
    return PCA(n_components=1).fit_transform(pixels).reshape(layers.shape[1:])


def of_each_map(function, maps):
    return np.array([[function(m) for m in sample] for sample in maps])


def oriented_scores(maps):
    scores = pca_scores(maps[:7])
    return -scores if np.sum(scores * maps[7], dtype=np.float64) < 0 else scores


def single(**layers):
    """Local maps of one image and one class; layers that are not given are zero."""
    size = np.shape(next(iter(layers.values())))
    maps = np.zeros((1, 1, 8, *size), dtype=np.float32)
    for name, values in layers.items():
        maps[0, 0, LAYERS.index(name)] = values
    return maps


def with_image(maps, image):
    return np.concatenate([np.broadcast_to(image, maps[:, :, :1].shape), maps], axis=2)


def fuse(maps, **params):
    return np.asarray(PCAFeatureMap(**params).fit_transform(maps))


@pytest.mark.parametrize("seed", range(5))
def test_equals_pca_up_to_orientation(seed):
    maps = random_maps(seed)
    expected = of_each_map(oriented_scores, maps)
    assert_allclose(fuse(maps), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_without_orientation_has_the_sign_of_pca(seed):
    maps = random_maps(seed)
    expected = of_each_map(lambda m: pca_scores(m[:7]), maps)
    assert (of_each_map(oriented_scores, maps) != expected).any()  # premise: there is a choice
    assert_allclose(fuse(maps, orient=False), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_mean_weighted_by_l8_is_not_negative(seed):
    maps = random_maps(seed, shape=(10, 4, 8, 6, 7))
    weighted = (fuse(maps) * maps[:, :, 7]).sum(axis=(2, 3))
    assert (weighted >= -1e-4).all()


def test_structure_is_high_where_the_sign_of_pca_is_wrong():
    structure = np.zeros((9, 9), dtype=bool)
    structure[2:6, 3:7] = True
    # The layers see the structure as darker than its surroundings; L8 knows better.
    maps = single(**{name: ~structure * (1 + i) for i, name in enumerate(LAYERS[:7])}, L8=structure)
    raw = pca_scores(maps[0, 0, :7])
    assert raw[structure].max() < raw[~structure].min()  # premise

    feature_map = fuse(maps)[0, 0]

    assert feature_map[structure].min() > 0 > feature_map[~structure].max()
    assert_allclose(feature_map, -raw, rtol=1e-5)
    assert_allclose(fuse(maps, orient=False)[0, 0], raw, rtol=1e-5)


def test_where_l8_is_zero_has_the_sign_of_pca():
    maps = random_maps(0)
    maps[:, :, 7] = 0
    expected = of_each_map(lambda m: pca_scores(m[:7]), maps)
    assert_allclose(fuse(maps), expected, rtol=1e-5, atol=1e-5)


def test_each_image_and_class_is_fused_by_itself():
    maps = random_maps(0)
    expected = fuse(maps)
    assert_array_equal(fuse(maps[::-1, ::-1]), expected[::-1, ::-1])
    assert_array_equal(fuse(maps[1:2, :1]), expected[1:2, :1])


@pytest.mark.parametrize("layers", [("L1", "L2", "L3"), ["L7", "L2"], ("L5",), np.array(LAYERS)])
def test_subset_of_layers(layers):
    maps = random_maps(1)
    chosen = [LAYERS.index(name) for name in layers]
    expected = of_each_map(lambda m: np.abs(pca_scores(m[chosen])), maps)
    actual = fuse(maps, layers=layers)
    assert_allclose(np.abs(actual), expected, rtol=1e-5, atol=1e-5)
    assert ((actual * maps[:, :, 7]).sum(axis=(2, 3)) >= -1e-4).all()


def test_one_layer_is_centred_by_hand():
    maps = single(L3=[[1, 2], [3, 10]], L8=[[0, 0], [0, 1]])
    assert_allclose(fuse(maps, layers=["L3"])[0, 0], [[-3, -2], [-1, 6]], rtol=1e-6)


def test_two_layers_by_hand():
    # Both layers vary together, the second twice as much: v = (1, 2) / sqrt(5), mean (1, 2).
    maps = single(L1=[[0, 1, 2]], L2=[[0, 2, 4]], L8=[[1, 0, 0]])
    root = np.sqrt(5)
    assert_allclose(fuse(maps)[0, 0], [[root, 0, -root]], rtol=1e-6, atol=1e-6)
    assert_allclose(fuse(maps, orient=False)[0, 0], [[-root, 0, root]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rescale", [None, "coarse"])
@pytest.mark.parametrize("value", [0, 1, 0.1, -1 / 3, 1e6 / 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_layers_become_zero(value, dtype, rescale):
    maps = np.full((1, 2, 8, 7, 9), value, dtype=dtype)
    maps[:, :, 7, 2:4] = 1
    assert_array_equal(fuse(maps, rescale=rescale), np.zeros((1, 2, 7, 9), np.float32), strict=True)


def test_classes_predicted_absent_stay_zero():
    maps = random_maps(0)
    maps[1, 0] = 0
    for params in ({}, {"orient": False}, {"rescale": "coarse"}, {"min_coarse_peak": 0.3}):
        feature_maps = fuse(maps, **params)
        assert (feature_maps[1, 0] == 0).all()
        assert (feature_maps[1, 1] != 0).any()


def test_one_pixel():
    assert_array_equal(fuse(np.ones((1, 1, 8, 1, 1))), np.zeros((1, 1, 1, 1)))


# Mean 26 / 6. Where L8 > 0 the component is 3, 5 and 7 less the mean: its sum is 15 - 13 > 0.
TO_RESCALE = single(L1=[[0, 3, 5], [7, 9, 2]], L8=[[0, 0.2, 0.2], [0.2, 0, 0]])


def test_rescale_by_the_range_where_l8_is_positive():
    # (x - 3) / (7 - 3), clipped.
    expected = [[0, 0, 0.5], [1, 1, 0]]
    assert_allclose(fuse(TO_RESCALE, rescale="coarse")[0, 0], expected, atol=1e-6)


def test_rescale_by_the_range_in_the_foreground():
    # The pixel of value 7 is dark, the one of value 9 is bright but L8 is zero there:
    # (x - 3) / (5 - 3), clipped.
    maps = with_image(TO_RESCALE, [[9, 8, 8], [1, 8, 1]])
    actual = fuse(maps, rescale="coarse", foreground=lambda image: image > 5)
    assert_allclose(actual[0, 0], [[0, 0, 1], [1, 1, 0]], atol=1e-6)


def test_foreground_gets_the_image_of_each_sample():
    maps = with_image(random_maps(0), np.arange(3)[:, None, None, None, None])
    seen = []

    def foreground(image):
        seen.append(image.copy())
        return np.ones(image.shape, dtype=bool)

    actual = fuse(maps, rescale="coarse", foreground=foreground)
    assert [image.shape for image in seen] == [(12, 17)] * 6
    assert [image.max() for image in seen] == [0, 0, 1, 1, 2, 2]
    assert_array_equal(actual, fuse(maps, rescale="coarse"))


def test_rescale_without_any_range():
    maps = with_image(TO_RESCALE, 1)
    nowhere = {"foreground": lambda image: image < 0}
    assert_array_equal(fuse(maps, rescale="coarse", **nowhere), np.zeros((1, 1, 2, 3)))
    maps[:, :, 8] = 0
    assert_array_equal(fuse(maps, rescale="coarse"), np.zeros((1, 1, 2, 3)))


def test_rescale_on_one_pixel_has_no_range():
    maps = single(L1=[[0, 3, 5]], L8=[[0, 0, 1]])
    assert_array_equal(fuse(maps, rescale="coarse"), np.zeros((1, 1, 1, 3)))


def test_rescaled_maps_are_between_zero_and_one():
    actual = fuse(random_maps(2), rescale="coarse")
    assert actual.min() == 0
    assert actual.max() == 1


# Three components where L8 > 0: the upper left one touches by a corner only and reaches 0.5, the
# right one reaches 0.2, the lower one 0.3.
COMPONENTS = np.array(
    [
        [0.1, 0.0, 0.0, 0.0, 0.2],
        [0.0, 0.5, 0.0, 0.0, 0.1],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [0.3, 0.1, 0.1, 0.0, 0.0],
    ]
)
UPPER_LEFT = np.zeros((4, 5), dtype=bool)
UPPER_LEFT[[0, 1], [0, 1]] = True
RIGHT = np.zeros((4, 5), dtype=bool)
RIGHT[:2, 4] = True
LOWER = np.zeros((4, 5), dtype=bool)
LOWER[3, :3] = True


@pytest.mark.parametrize(
    ("peak", "kept"),
    [
        (0, UPPER_LEFT | RIGHT | LOWER),
        (0.15, UPPER_LEFT | RIGHT | LOWER),
        (0.25, UPPER_LEFT | LOWER),
        (0.4, UPPER_LEFT),
        (0.5, UPPER_LEFT),
        (0.6, np.zeros((4, 5), dtype=bool)),
    ],
)
def test_components_with_a_coarse_peak_are_kept(peak, kept):
    maps = random_maps(3, shape=(1, 1, 8, 4, 5))
    maps[0, 0, 7] = COMPONENTS
    actual = fuse(maps, min_coarse_peak=peak)
    assert_array_equal(actual, np.where(kept, fuse(maps), 0))


def lazy(maps, names=None, batch_size=2):
    return LazyStack(
        maps, np.copy, item_shape=maps.shape[1:], batch_size=batch_size, layer_names=names
    )


@pytest.mark.parametrize("params", [{}, {"rescale": "coarse", "min_coarse_peak": 0.1}])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_stack_and_array_give_equal_maps(params, batch_size):
    maps = random_maps(4)
    expected = fuse(maps, **params)
    assert_array_equal(fuse(lazy(maps, LAYERS, batch_size), **params), expected, strict=True)
    assert_array_equal(fuse(lazy(maps, None, batch_size), **params), expected, strict=True)
    assert_array_equal(fuse(maps.tolist(), **params), expected, strict=True)


def test_layers_are_found_by_name():
    maps = random_maps(5)
    names = ("L8", "image", *LAYERS[:7])
    shuffled = np.concatenate([maps[:, :, 7:], np.ones_like(maps[:, :, :1]), maps[:, :, :7]], 2)
    assert_array_equal(fuse(lazy(shuffled, names)), fuse(maps))


def test_image_layer_comes_first_in_an_array():
    maps = random_maps(5)
    assert_array_equal(fuse(with_image(maps, 7)), fuse(maps))


@pytest.mark.parametrize("dtype", [np.float64, np.int16])
def test_dtype_of_the_maps_is_float32(dtype):
    maps = np.round(100 * random_maps(0)).astype(dtype)
    actual = fuse(maps)
    assert actual.dtype == np.float32
    assert_array_equal(actual, fuse(maps.astype(np.float32)))


def test_maps_of_different_sizes():
    maps = [random_maps(i, shape=(1, 2, 8, 5 + i, 9))[0] for i in range(3)]
    feature_maps = PCAFeatureMap().fit(maps).transform(maps)
    assert feature_maps.is_ragged
    assert len(feature_maps) == 3
    for one, other in zip(feature_maps, maps, strict=True):
        assert_array_equal(one, fuse(other[np.newaxis])[0])


def test_reads_nothing_until_it_is_read():
    computed = []

    def compute(batch):
        computed.append(len(batch))
        return np.copy(batch)

    maps = random_maps(0, shape=(6, 1, 8, 4, 4))
    stack = LazyStack(maps, compute, item_shape=maps.shape[1:], batch_size=2, layer_names=LAYERS)
    feature_maps = PCAFeatureMap().fit(stack).transform(stack)
    assert computed == []
    assert (feature_maps.shape, feature_maps.dtype) == ((6, 1, 4, 4), np.float32)
    assert_array_equal(np.asarray(feature_maps[1:4]), fuse(maps[1:4]))
    assert computed == [2, 1]


def test_stack_keeps_the_parameters_it_was_made_with():
    maps = random_maps(0)
    step = PCAFeatureMap().fit(maps)
    feature_maps = step.transform(maps)
    step.set_params(layers=["L1"], rescale="coarse")
    assert_array_equal(np.asarray(feature_maps), fuse(maps))


def is_bright(image):
    return image > 0.2


def test_pickle():
    maps = with_image(random_maps(0), np.random.default_rng(0).random((12, 17)))
    step = PCAFeatureMap(rescale="coarse", foreground=is_bright)
    feature_maps = step.fit_transform(maps)
    assert_array_equal(np.asarray(pickle.loads(pickle.dumps(feature_maps))), feature_maps)
    assert_array_equal(np.asarray(pickle.loads(pickle.dumps(step)).transform(maps)), feature_maps)


def test_is_stateless():
    maps = random_maps(0)
    maps.flags.writeable = False
    step = PCAFeatureMap()
    assert not get_tags(step).requires_fit
    assert_array_equal(np.asarray(step.transform(maps)), fuse(maps))
    before = vars(step).copy()
    assert step.fit(maps) is step
    assert vars(step) == before
    assert_array_equal(np.asarray(clone(step).transform(maps)), fuse(maps))


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_mixin_order,
        estimator_checks.check_param_validation,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
    ],
    ids=lambda check: check.__name__,
)
def test_sklearn_checks(check):
    check("PCAFeatureMap", PCAFeatureMap())


def filled(value):
    maps = random_maps(0)
    maps[1, 1, 2, 3, 4] = value
    return maps


GOOD = random_maps(0)


@pytest.mark.parametrize(
    ("maps", "error", "match"),
    [
        (GOOD[0], ValueError, r"n_layers, height, width\). Got 4 dimensions instead"),
        (GOOD[0, 0, 0], ValueError, "Got 2 dimensions instead"),
        (GOOD[np.newaxis], ValueError, "Got 6 dimensions instead"),
        (GOOD[:, :, :7], ValueError, "8 layers, L1 to L8, or 9.* Got 7 instead"),
        (np.zeros((1, 1, 10, 4, 4)), ValueError, "Got 10 instead"),
        (lazy(GOOD[0]), ValueError, "Got 4 dimensions instead"),
        (lazy(GOOD[:, :, :5]), ValueError, "Got 5 instead"),
        (filled(np.nan), ValueError, "contains NaN"),
        (filled(np.inf), ValueError, "contains infinity"),
        (GOOD[:0], ValueError, "at least one sample"),
        ([], ValueError, "Got 1 dimensions instead"),
        (None, ValueError, "Got 0 dimensions instead"),
        (np.full((1, 1, 8, 4, 4), "a"), ValueError, "not compatible with arrays of bytes/strings"),
        ("maps", TypeError, "Got the path 'maps' instead: pass what the steps before return"),
        (1j * GOOD, ValueError, "Complex data not supported"),
        ([GOOD[0], GOOD[0, :, :, :3, :3], filled(np.nan)[1]], ValueError, "contains NaN"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_wrong_maps_are_refused(maps, error, match, method):
    with pytest.raises(error, match=match):
        getattr(PCAFeatureMap(), method)(maps)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"layers": ("L1", "L9")}, r"layers \['L1', 'L9', 'L8'\]. Got \['L1'"),
        ({"layers": ("image",)}, "include_image=True"),
        ({"layers": ()}, "at least one layer"),
        ({"layers": "L1"}, "'layers' parameter of PCAFeatureMap must be an array-like"),
        ({"orient": "L8"}, "'orient' parameter"),
        ({"rescale": "image"}, "'rescale' parameter"),
        ({"foreground": 0.5}, "'foreground' parameter"),
        ({"foreground": is_bright}, "foreground limits the range of rescale"),
        (
            {"foreground": is_bright, "rescale": "coarse"},
            "'image' needs GradCAMFeatureTransformer",
        ),
        ({"min_coarse_peak": -0.1}, "'min_coarse_peak' parameter"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_wrong_parameters_are_refused(params, match, method):
    with pytest.raises(ValueError, match=match):
        getattr(PCAFeatureMap(**params), method)(GOOD)


@pytest.fixture(scope="module")
def structures():
    """Images with one of two structures, and a classifier that takes both for present."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    images = rng.random((40, 24, 24)) / 4
    images[y == 0, 4:12, 4:12] += 0.7
    images[y == 1, 14:17, 3:20] += 0.7
    labels = np.eye(2, dtype=int)[y]
    classifier = MicraNetClassifier(
        n_filters=4, max_epochs=10, lr=3e-3, threshold=0.0, validation_fraction=0, random_state=0
    )
    return images, classifier.fit(images, labels)


RECIPES = {
    # min_max, orient, rescale, foreground
    "F-actin": (True, True, "coarse", is_bright),
    "cell lines": (True, False, "coarse", None),
    "SEM": (False, True, "coarse", None),
    "P. vivax": (False, False, None, None),
    "modified MNIST": (True, False, None, None),
}


def recipe_by_hand(maps, image, orient, rescale, foreground):
    feature_map = oriented_scores(maps) if orient else pca_scores(maps[:7])
    if rescale:
        inside = (maps[7] > 0) & (foreground(image) if foreground else True)
        if not inside.any():  # L8 sees nothing of the class
            return np.zeros_like(feature_map)
        low, high = feature_map[inside].min(), feature_map[inside].max()
        feature_map = ((feature_map - low) / (high - low)).clip(0, 1)
    return feature_map


@pytest.mark.parametrize(
    ("min_max", "orient", "rescale", "foreground"), RECIPES.values(), ids=RECIPES
)
def test_recipes_of_the_paper(structures, min_max, orient, rescale, foreground):
    images, classifier = structures
    images = images[:6]
    cam = GradCAMFeatureTransformer(
        FrozenEstimator(classifier), min_max=min_max, include_image=foreground is not None
    )
    pca = PCAFeatureMap(orient=orient, rescale=rescale, foreground=foreground)
    stack = cam.fit(images).transform(images)
    local_maps = np.asarray(stack)[:, :, -8:]
    assert (local_maps.max() == 1) == min_max
    assert local_maps.any(axis=(2, 3, 4)).all()

    actual = np.asarray(pca.fit_transform(stack))

    assert local_maps[:, :, 7].any(axis=(2, 3)).mean() >= 0.5
    for i, image in enumerate(images):
        for k in range(2):
            expected = recipe_by_hand(local_maps[i, k], image, orient, rescale, foreground)
            assert_allclose(actual[i, k], expected, rtol=1e-4, atol=1e-5 * np.ptp(expected))


# --- ensembles -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ensemble(structures):
    images, classifier = structures
    labels = np.eye(2, dtype=int)[np.arange(40) % 2]
    classifier = clone(classifier).set_params(max_epochs=2)
    ensemble = MicraNetEnsemble(classifier, n_estimators=3, random_state=0)
    ensemble.fit(images, labels)
    return images[:6], ensemble


def explained(estimator, images, **params):
    return (
        GradCAMFeatureTransformer(FrozenEstimator(estimator), **params).fit(None).transform(images)
    )


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"layers": ("L7", "L3")},
        {"rescale": "coarse", "orient": False},
        {"rescale": "coarse", "foreground": is_bright, "min_coarse_peak": 0.4},
    ],
)
def test_feature_maps_of_an_ensemble_are_means(ensemble, params):
    images, ensemble = ensemble
    step, cam = PCAFeatureMap(**params), {"classes": "all", "include_image": "foreground" in params}

    actual = np.asarray(step.fit_transform(explained(ensemble, images, **cam)))

    of_each = [
        np.asarray(step.fit_transform(explained(member, images, **cam)))
        for member in ensemble.estimators_
    ]
    assert not np.allclose(of_each[0], of_each[1], atol=1e-2)  # premise
    assert actual.dtype == np.float32
    assert_allclose(actual, np.mean(of_each, axis=0), atol=1e-6)


def test_an_ensemble_explains_the_classes_of_the_mean_probability(ensemble):
    images, ensemble = ensemble
    probabilities = ensemble.predict_proba(images)
    ensemble = copy(ensemble).set_params(threshold=float(np.median(probabilities)))
    present = ensemble.predict(images).astype(bool)
    assert 0 < present.sum() < present.size  # premise
    every = fuse(explained(ensemble, images, classes="all"))
    expected = every * present[:, :, np.newaxis, np.newaxis]
    assert_allclose(fuse(explained(ensemble, images)), expected, atol=1e-5)
    assert_array_equal(fuse(explained(ensemble, images)).any(axis=(2, 3)), present)
    assert expected[present].any(axis=(1, 2)).all()


def test_ensemble_of_one(structures):
    images, classifier = structures
    ensemble = MicraNetEnsemble(classifier, n_estimators=1)
    ensemble.estimators_ = [classifier]
    alone = explained(ensemble.estimators_[0], images[:3], classes="all")
    assert_array_equal(fuse(explained(ensemble, images[:3], classes="all")), fuse(alone))


def test_ensemble_on_images_of_different_sizes(ensemble):
    images, ensemble = ensemble
    images = [images[0], images[1, :17], images[2, 4:, 3:]]
    feature_maps = PCAFeatureMap().fit_transform(explained(ensemble, images, classes="all"))
    assert [m.shape for m in feature_maps] == [(2, *image.shape) for image in images]
    for one, image in zip(feature_maps, images, strict=True):
        alone = fuse(explained(ensemble, image[np.newaxis], classes="all"))[0]
        assert_allclose(one, alone, atol=1e-4)


def test_layers_of_an_ensemble_are_found_by_name():
    networks = [random_maps(seed) for seed in (1, 2)]
    names = [(name, i) for i in range(2) for name in LAYERS]
    order = np.random.default_rng(0).permutation(16)
    shuffled = np.concatenate(networks, axis=2)[:, :, order]
    actual = fuse(lazy(shuffled, tuple(names[i] for i in order)))
    assert_allclose(actual, np.mean([fuse(maps) for maps in networks], axis=0), atol=1e-5)
    with pytest.raises(ValueError, match=r"layers \['L9', 'L8'\]. Got \[\('L1', 0\)"):
        PCAFeatureMap(layers=["L9"]).fit(lazy(shuffled[:, :, :], tuple(names)))


# --- memory ----------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """Count the forward passes of images, and the fusions of the maps of a class."""
    counts = {"forward": 0, "fuse": 0}

    def count(module, name, key):
        original = getattr(module, name)

        def counting(*args, **kwargs):
            counts[key] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, counting)

    count(_gradcam_feature_transformer, "forward", "forward")
    count(_pca_feature_map, "eigh", "fuse")
    return counts


def reset(counts):
    counts.update(forward=0, fuse=0)


NOTHING = {"forward": 0, "fuse": 0}


@pytest.mark.parametrize("kind", ["folder", "joblib"])
@pytest.mark.parametrize("source", ["classifier", "ensemble"])
@pytest.mark.parametrize("params", [{}, {"rescale": "coarse", "foreground": is_bright}])
def test_memory_keeps_feature_maps(structures, ensemble, counted, tmp_path, kind, source, params):
    images = structures[0][:6]
    estimator = structures[1] if source == "classifier" else ensemble[1]
    cam = {"include_image": "foreground" in params}
    expected = fuse(explained(estimator, images, **cam), **params)
    memory = str(tmp_path) if kind == "folder" else joblib.Memory(tmp_path, verbose=0)
    params = {**params, "memory": memory}
    reset(counted)
    first = PCAFeatureMap(**params).fit_transform(explained(estimator, images, **cam))
    assert counted == NOTHING
    assert repr(first) == "LazyStack(shape=(6, 2, 24, 24), dtype=float32)"
    assert_array_equal(np.asarray(first), expected, strict=True)
    assert counted["forward"] == 6 * len(getattr(estimator, "estimators_", [1]))
    assert counted["fuse"] > 0
    reset(counted)
    # Other objects, batches, orders and folds: nothing is computed again.
    again = clone(PCAFeatureMap(**params)).fit_transform(
        explained(estimator, images[[4, 1, 0]], batch_size=2, **cam)
    )
    assert_array_equal(np.asarray(again), expected[[4, 1, 0]])
    assert_array_equal(again[1:][0], expected[1])
    assert_array_equal(np.asarray(first[::2]), expected[::2])
    assert_array_equal(np.asarray(pickle.loads(pickle.dumps(first))), expected)
    assert counted == NOTHING


def test_without_a_folder_nothing_is_kept(structures, counted):
    maps = explained(structures[1], structures[0][:2])
    stack = PCAFeatureMap(memory=joblib.Memory(None)).fit_transform(maps)
    assert_array_equal(np.asarray(stack), fuse(maps))
    reset(counted)
    np.asarray(
        PCAFeatureMap(memory=joblib.Memory(None)).fit_transform(
            explained(structures[1], structures[0][:2])
        )
    )
    assert counted["forward"] == 2


def is_very_bright(image):
    return image > 0.5


CHANGES = {
    "layers": {"layers": ("L1", "L2")},
    "orient": {"orient": False},
    "rescale": {"rescale": None, "foreground": None},
    "foreground": {"foreground": is_very_bright},
    "min_coarse_peak": {"min_coarse_peak": 0.5},
    "classes": {},
    "min_max": {},
    "weights": {},
    "threshold": {},
    "image": {},
}


@pytest.mark.parametrize("change", CHANGES)
def test_memory_is_never_stale(structures, counted, tmp_path, change):
    images = structures[0][:2].copy()
    classifier = deepcopy(structures[1]).set_params(threshold=0.0)
    cam = {"include_image": True}
    params = {"rescale": "coarse", "foreground": is_bright, "memory": str(tmp_path)}
    before = fuse(explained(classifier, images, **cam), **params)
    if change == "weights":
        classifier.module_.depth1.conv_a.weight.data *= -1
    elif change == "threshold":
        classifier.set_params(threshold=1.0)
    elif change in ("classes", "min_max"):
        cam[change] = {"classes": "all", "min_max": False}[change]
    elif change == "image":
        images[1, 3, 3] += 1
    params |= CHANGES[change]
    reset(counted)
    after = fuse(explained(classifier, images, **cam), **params)
    assert counted["forward"] == (1 if change == "image" else 2)
    assert np.array_equal(after, before) == (change == "classes")
    assert_array_equal(
        after, fuse(explained(classifier, images, **cam), **params | {"memory": None})
    )


def decorated(function):
    @wraps(function)
    def wrapper(image):
        return function(image)

    return wrapper


@pytest.mark.parametrize("wrap", [lambda f: f, partial, decorated])
def test_a_foreground_that_was_edited_is_another(tmp_path, wrap):
    # As when a cell of a notebook is changed and run again: module and name stay the same.
    maps = with_image(random_maps(0), np.random.default_rng(0).random((12, 17)))
    params = {"rescale": "coarse", "foreground": wrap(is_bright)}
    before = fuse(maps, **params, memory=str(tmp_path))

    def edited(image):
        return image > 0.7

    edited.__name__ = edited.__qualname__ = "is_bright"
    params["foreground"] = wrap(edited)
    after = fuse(maps, **params, memory=str(tmp_path))
    assert not np.array_equal(after, before)
    assert_array_equal(after, fuse(maps, **params))


@pytest.mark.parametrize("form", ["array", "list", "stack"])
def test_memory_of_local_maps(counted, tmp_path, form):
    maps = random_maps(0)
    maps[1, 0] = 0
    expected = fuse(maps)
    wrap = {"array": np.asarray, "list": list, "stack": lazy}[form]
    for n_fused in (5, 0):
        reset(counted)
        assert_array_equal(fuse(wrap(maps), memory=str(tmp_path)), expected, strict=True)
        assert counted["fuse"] == n_fused
    maps[2, 1, 3, 4, 5] += 1
    changed = fuse(wrap(maps), memory=str(tmp_path))
    assert counted["fuse"] == 2  # the two classes of one image
    assert_array_equal(changed, fuse(maps))
    # Names decide what the layers are.
    if form == "stack":
        renamed = lazy(maps, (*LAYERS[:6], "L8", "L7"))
        assert not np.array_equal(fuse(renamed, memory=str(tmp_path)), changed)
        assert_array_equal(fuse(renamed, memory=str(tmp_path)), fuse(renamed))


@pytest.mark.parametrize("form", ["maps", "images"])
def test_memory_of_different_sizes(structures, counted, tmp_path, form):
    if form == "maps":
        X = [random_maps(i, shape=(1, 2, 8, 5 + i, 9))[0] for i in range(3)]
    else:
        images = [structures[0][0], structures[0][1, :15], structures[0][2, 2:, 1:]]
        X = explained(structures[1], images)
    expected = list(PCAFeatureMap().fit_transform(X))
    for _ in range(2):
        stack = PCAFeatureMap(memory=str(tmp_path)).fit_transform(X)
        assert stack.is_ragged
        for one, other in zip(stack, expected, strict=True):
            assert_array_equal(one, other, strict=True)
    reset(counted)
    list(PCAFeatureMap(memory=str(tmp_path)).fit_transform(X))
    assert counted == NOTHING


def test_absent_classes_are_zero_and_take_no_room(structures, tmp_path):
    images = structures[0][:2]
    classifier = deepcopy(structures[1])
    sizes = {}
    for name, threshold in {"none": 1.0, "one": [0.0, 1.0], "both": 0.0}.items():
        maps = explained(classifier.set_params(threshold=threshold), images)
        for _ in range(2):
            feature_maps = fuse(maps, memory=str(tmp_path / name))
            present = feature_maps.any(axis=(2, 3)).tolist()
            assert present == [np.broadcast_to(np.array(threshold) < 1, 2).tolist()] * 2
        sizes[name] = sum(f.stat().st_size for f in (tmp_path / name).rglob("output.pkl"))
    one_map = 24 * 24 * 4
    assert sizes["one"] - sizes["none"] == pytest.approx(2 * one_map, rel=0.1)
    assert sizes["both"] - sizes["one"] == pytest.approx(2 * one_map, rel=0.1)


def test_both_memories(structures, counted, tmp_path):
    images = structures[0][:3]
    cam, pca = {"memory": str(tmp_path)}, {"memory": str(tmp_path)}
    expected = fuse(explained(structures[1], images))
    assert_array_equal(fuse(explained(structures[1], images, **cam), **pca), expected)
    reset(counted)
    # Other parameters of this step read the local maps that the step before kept.
    other = fuse(explained(structures[1], images, **cam), orient=False, **pca)
    assert counted["forward"] == 0
    assert counted["fuse"] > 0
    reset(counted)
    # Feature maps are found without local maps, kept or not.
    assert_array_equal(fuse(explained(structures[1], images), **pca), expected)
    assert_array_equal(fuse(explained(structures[1], images), orient=False, **pca), other)
    assert counted == NOTHING


def test_memory_in_the_way_of_another_step(structures, counted, tmp_path):
    # A part of the local maps, as of one class, is no longer found by its image.
    maps = explained(structures[1], structures[0][:2])[:, 1:]
    for _ in range(2):
        assert_array_equal(fuse(maps, memory=str(tmp_path)), fuse(maps))
    reset(counted)
    fuse(maps, memory=str(tmp_path))
    assert counted["fuse"] == 0


def test_memory_is_shared_with_other_processes(structures, tmp_path):
    images, classifier = structures
    images, masks = images[:6], images[:6, np.newaxis].repeat(2, axis=1) > 0.5
    pipe = Pipeline(
        [
            ("cam", GradCAMFeatureTransformer(FrozenEstimator(classifier))),
            ("pca", PCAFeatureMap(memory=str(tmp_path))),
            ("segment", ThresholdSegmenter(method="fixed")),
        ]
    )
    grid = {"segment__threshold": [0.0, 0.2]}
    search = GridSearchCV(pipe, grid, cv=3, n_jobs=2, refit=False, error_score="raise")
    search.fit(images, masks)
    # To count calls by other functions in their place would be another key in this process.
    kept = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert kept
    assert_array_equal(
        np.asarray(pipe[:2].fit_transform(images)), fuse(explained(classifier, images))
    )
    search.set_params(n_jobs=None).fit(images, masks)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_memory_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="'memory' parameter of PCAFeatureMap"):
        PCAFeatureMap(memory=3).fit(GOOD)


# --- large images -----------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["classifier", "ensemble"])
@pytest.mark.parametrize("is_list", [False, True])
@pytest.mark.parametrize(
    "params",
    [{}, {"rescale": "coarse", "foreground": is_bright}, {"orient": False, "min_coarse_peak": 0.5}],
)
def test_large_images_are_fused_block_by_block_from_small_maps(
    structures, ensemble, monkeypatch, source, is_list, params
):
    images = structures[0][:2]
    estimator = structures[1] if source == "classifier" else ensemble[1]
    if is_list:
        images = [images[0], images[1][:, :-3]]
    local_maps = explained(estimator, images, include_image=True)
    monkeypatch.setattr(_pca_feature_map, "_N_AT_ONCE", 100)  # pixels
    dense = as_stack(local_maps.computed())
    dense.layer_names = local_maps.layer_names
    expected = list(PCAFeatureMap(**params).transform(dense))
    assert all(maps.any() for maps in expected)

    def refuse(self, *args, **kwargs):
        raise AssertionError("upsampled as a whole")

    monkeypatch.setattr(UpsampledMaps, "__array__", refuse)
    monkeypatch.setattr(_large_arrays, "MAX_BYTES", 0)
    monkeypatch.setattr(_large_arrays, "N_VALUES_AT_ONCE", 100)
    found = PCAFeatureMap(**params).transform(local_maps)
    assert found.class_names == local_maps.class_names
    for a, b in zip(found, expected, strict=True):
        assert_array_equal(a, b)
