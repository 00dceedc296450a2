import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.utils import estimator_checks, get_tags

from sklearn_micranet import GradCAMFeatureTransformer, MicraNetClassifier, PCAFeatureMap
from sklearn_micranet._lazy_stack import LazyStack

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
        ("maps", ValueError, "not compatible with arrays of bytes/strings"),
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
    classifier = MicraNetClassifier(n_filters=4, max_epochs=5, threshold=0.1, random_state=0)
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

    for i, image in enumerate(images):
        for k in range(2):
            expected = recipe_by_hand(local_maps[i, k], image, orient, rescale, foreground)
            assert_allclose(actual[i, k], expected, rtol=1e-4, atol=1e-5 * np.ptp(expected))
