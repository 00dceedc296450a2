import functools
import pickle

import numpy as np
import pytest
from cases import mask
from scipy import ndimage
from skimage.filters import threshold_li, threshold_local, threshold_otsu
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from sklearn_micranet import PCAFeatureMap, ThresholdSegmenter
from sklearn_micranet._masks._thresholds import quantile
from sklearn_micranet._stack import _large_arrays
from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet.metrics import instance_scorer, iou_score

METHODS = ["otsu", "quantile", "fixed", "block_otsu", threshold_li]


def segment(feature_map, **parameters):
    """Segment one map of shape (height, width)."""
    X = np.asarray(feature_map, dtype=float)[np.newaxis, np.newaxis]
    return ThresholdSegmenter(**parameters).predict(X)[0, 0]


def clean(drawing, **parameters):
    """Pass a mask through the steps that follow the threshold."""
    return segment(drawing, method="fixed", **parameters)


def number(feature_map, **parameters):
    """Number the objects of one map of shape (height, width), above 0.5."""
    X = np.asarray(feature_map, dtype=float)[np.newaxis, np.newaxis]
    return ThresholdSegmenter(method="fixed", **parameters).predict_instances(X)[0, 0]


def blobs(shape=(6, 2, 20, 24), seed=0):
    """Smooth maps, positive and negative, with a few exact zeros."""
    noise = np.random.default_rng(seed).normal(size=shape)
    maps = ndimage.gaussian_filter(noise, 2, axes=(-2, -1)).astype(np.float32)
    maps[..., ::5, ::5] = 0
    return maps


def count(mask):
    """Number of components whose pixels share an edge or a corner."""
    return ndimage.label(mask, structure=np.ones((3, 3)))[1]


# --- thresholds -----------------------------------------------------------------------------


def test_otsu_is_that_of_scikit_image_for_each_class_and_image():
    X = blobs() * np.array([1, 100])[:, np.newaxis, np.newaxis]
    masks = ThresholdSegmenter(method="otsu").predict(X)
    assert masks.dtype == bool
    for i, k in np.ndindex(X.shape[:2]):
        np.testing.assert_array_equal(masks[i, k], X[i, k] > threshold_otsu(X[i, k]))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"method": "fixed", "threshold": 0.01, "ignore_zeros": True},
        {"subtract_competitors": True, "ignore_zeros": True, "sigma": 1},
        {"method": "block_otsu", "keep": "peak"},
        {"method": functools.partial(threshold_local, block_size=5)},
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masks_do_not_depend_on_blocks(params, dtype, monkeypatch):
    X = blobs((2, 3, 50, 24)).astype(dtype)
    segmenter = ThresholdSegmenter(**params)
    expected = segmenter.predict(X), segmenter.predict_instances(X)
    assert 0.01 < expected[0].mean() < 0.9
    monkeypatch.setattr(_large_arrays, "MAX_BYTES", 0)
    monkeypatch.setattr(_large_arrays, "N_VALUES_AT_ONCE", 100)
    np.testing.assert_array_equal(segmenter.predict(X), expected[0])
    np.testing.assert_array_equal(segmenter.predict_instances(X), expected[1])


@pytest.mark.parametrize(("quantile", "n_pixels"), [(0.8, 20), (0.9, 10), (1.0, 0)])
def test_quantile_keeps_the_top_share(quantile, n_pixels):
    ranks = np.random.default_rng(0).permutation(100).reshape(10, 10)
    found = segment(ranks, method="quantile", quantile=quantile)
    np.testing.assert_array_equal(found, ranks >= 100 - n_pixels)


def test_fixed_keeps_what_is_above_the_threshold_not_what_equals_it():
    found = segment([[0.1, 0.5], [0.51, 0.9]], method="fixed", threshold=0.5)
    assert found.tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("method", [threshold_li, np.median, lambda values: 0.25])
def test_callable_returns_the_threshold(method):
    feature_map = blobs()[0, 0]
    np.testing.assert_array_equal(
        segment(feature_map, method=method), feature_map > method(feature_map.astype(float))
    )


def test_callable_may_return_a_threshold_for_each_pixel():
    feature_map = blobs()[0, 0].astype(float)
    local = functools.partial(threshold_local, block_size=7)
    expected = feature_map > threshold_local(feature_map, block_size=7)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(segment(feature_map, method=local), expected)


def test_callable_that_returns_neither_is_refused():
    with pytest.raises(ValueError, match=r"one threshold, or one for each pixel.*\(20,\)"):
        segment(blobs()[0, 0], method=lambda values: values.max(axis=1))
    local = functools.partial(threshold_local, block_size=7)
    with pytest.raises(ValueError, match="Local thresholds need ignore_zeros=False"):
        segment(blobs()[0, 0], method=local, ignore_zeros=True)


# --- Otsu in blocks -------------------------------------------------------------------------


def exact_otsu(values):
    """Try every value as the threshold: largest variance between the two sides."""
    best, threshold = -1, None
    for candidate in np.unique(values)[:-1]:
        low, high = values[values <= candidate], values[values > candidate]
        between = len(low) * len(high) * (low.mean() - high.mean()) ** 2
        if between > best:
            best, threshold = between, candidate
    return threshold


def slow_block_otsu(feature_map, considered, block_size):
    corners = [
        (row, column)
        for row in range(0, feature_map.shape[0], block_size)
        for column in range(0, feature_map.shape[1], block_size)
    ]
    blocks = [np.s_[r : r + block_size, c : c + block_size] for r, c in corners]
    values = [feature_map[block][considered[block]] for block in blocks]
    ranges = np.array([v.max() - v.min() if len(v) else 0 for v in values])
    cut = threshold_otsu(ranges) if len(set(ranges)) > 1 else 0
    found = np.zeros(feature_map.shape, dtype=bool)
    for block, v, extent in zip(blocks, values, ranges, strict=True):
        if extent > cut:
            found[block] = (feature_map[block] > exact_otsu(v)) & considered[block]
    return found


@pytest.mark.parametrize("ignore_zeros", [False, True])
@pytest.mark.parametrize("block_size", [2, 5, 8])
@pytest.mark.parametrize("shape", [(16, 16), (13, 19), (3, 30), (8, 8), (1, 9)])
def test_block_otsu_equals_a_loop_over_blocks(shape, block_size, ignore_zeros):
    rng = np.random.default_rng(block_size)
    feature_map = rng.normal(5, rng.uniform(0.1, 3, shape))
    feature_map[rng.random(shape) < 0.3] = 0
    considered = feature_map != 0 if ignore_zeros else np.ones(shape, dtype=bool)
    expected = slow_block_otsu(feature_map, considered, block_size)
    assert expected.any()
    found = segment(
        feature_map, method="block_otsu", block_size=block_size, ignore_zeros=ignore_zeros
    )
    np.testing.assert_array_equal(found, expected)


def test_block_otsu_by_hand():
    feature_map = np.array(
        [
            [0, 9, 50, 51, 0],
            [8, 1, 51, 50, 9],
        ]
    )  # ranges 9, 1 and 9: the middle block is high but has no structure
    found = segment(feature_map, method="block_otsu", block_size=2)
    np.testing.assert_array_equal(found, mask(".#...", "#...#"))


def test_block_otsu_uses_all_blocks_when_their_ranges_are_equal():
    found = segment([[0, 3, 10, 13], [0, 3, 10, 13]], method="block_otsu", block_size=2)
    np.testing.assert_array_equal(found, mask(".#.#", ".#.#"))


def test_block_otsu_is_exact_next_to_a_large_offset():
    feature_map = np.array([[0, 1, 1, 0], [0, 1, 0, 1]]) * 1e-3 + 1e4
    found = segment(feature_map, method="block_otsu", block_size=4)
    np.testing.assert_array_equal(found, mask(".##.", ".#.#"))


# --- zeros, competitors, smoothing ----------------------------------------------------------


def test_ignored_zeros_count_neither_for_the_threshold_nor_for_the_mask():
    feature_map = np.zeros((10, 10))
    feature_map[0, :3] = [-3, -2, -1]
    found = segment(feature_map, method="quantile", quantile=0.5, ignore_zeros=True)
    np.testing.assert_array_equal(np.argwhere(found), [[0, 2]])  # above the median of the three
    # Otherwise the zeros set the threshold.
    assert not segment(feature_map, method="quantile", quantile=0.5).any()


def test_smoothing_does_not_spread_the_mask_over_ignored_zeros():
    feature_map = np.where(np.hypot(*np.mgrid[-10:11, -10:11]) < 5, 1.0, 0)
    feature_map[10, 10] = 2
    parameters = {"method": "fixed", "threshold": 0.1, "sigma": 2}
    assert segment(feature_map, **parameters)[feature_map == 0].any()
    found = segment(feature_map, ignore_zeros=True, **parameters)
    np.testing.assert_array_equal(found, feature_map != 0)


def test_the_largest_competitor_is_subtracted():
    X = np.array([[[[0.8, 0.8, 0.0]], [[0.0, 0.5, 0.8]], [[0.6, 0.1, 0.0]]]])
    # Class 0: 0.2, 0.3, -0.8. Class 1: -0.8, -0.3, 0.8. Class 2: -0.2, -0.7, -0.8.
    segmenter = ThresholdSegmenter(method="fixed", threshold=0.25, subtract_competitors=True)
    masks = segmenter.predict(X)[0, :, 0]
    assert masks.tolist() == [[False, True, False], [False, False, True], [False, False, False]]


def test_a_single_class_has_no_competitors():
    X = blobs()[:, :1]
    np.testing.assert_array_equal(
        ThresholdSegmenter(subtract_competitors=True).predict(X), ThresholdSegmenter().predict(X)
    )


@pytest.mark.parametrize("dtype", [">f4", np.longdouble, np.float16])
def test_floats_of_every_kind_are_treated_alike(dtype):
    X = blobs().astype(dtype)
    for parameters in ({"subtract_competitors": True}, {"sigma": 2}, {"method": "block_otsu"}):
        segmenter = ThresholdSegmenter(min_distance=2, **parameters)
        expected = segmenter.predict_instances(X.astype(np.float32))
        np.testing.assert_array_equal(segmenter.predict_instances(X), expected)
        np.testing.assert_array_equal(np.asarray(segmenter.transform(X)) != 0, expected > 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_integers_and_bools_are_treated_as_numbers(dtype):
    X = (np.random.default_rng(0).random((2, 3, 12, 12)) * 3).astype(dtype)
    for parameters in ({"subtract_competitors": True}, {"sigma": 2}, {"method": "block_otsu"}):
        segmenter = ThresholdSegmenter(**parameters)
        np.testing.assert_array_equal(segmenter.predict(X), segmenter.predict(X.astype(float)))


def gaussian(sigma):
    """Sampled Gaussian of sum 1, cut at 4 standard deviations."""
    x = np.arange(-int(4 * sigma), int(4 * sigma) + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


@pytest.mark.parametrize("sigma", [2, [2], (1, 3), np.array([1.0, 3.0]), [3, 0, 1]])
def test_sigmas_are_applied_one_after_another(sigma):
    point = np.zeros((51, 51))
    point[25, 25] = 1
    profile = np.ones(1)
    for s in np.ravel(sigma):
        profile = np.convolve(profile, gaussian(s)) if s else profile
    smooth = np.zeros((51, 51))
    reach = len(profile) // 2
    smooth[25 - reach : 26 + reach, 25 - reach : 26 + reach] = np.outer(profile, profile)
    expected = smooth > 0.004
    assert expected.sum() > 10
    np.testing.assert_array_equal(
        segment(point, method="fixed", threshold=0.004, sigma=sigma), expected
    )


@pytest.mark.parametrize("sigma", [0, (), [0, 0]])
def test_no_sigma_does_not_smooth(sigma):
    X = blobs()
    np.testing.assert_array_equal(
        ThresholdSegmenter(sigma=sigma).predict(X), ThresholdSegmenter().predict(X)
    )


# --- cleaning -------------------------------------------------------------------------------

HOLES = mask(
    "...........",
    ".####.####.",
    ".#..#.#..#.",
    ".####.#..#.",
    "......####.",
    ".###...####",
    ".#.#...#...",
    ".##....####",
)  # holes of 2, 4 and 1 px, the last open at a corner only, and a bay open at the border


@pytest.mark.parametrize(("max_hole_size", "n_filled"), [(0, 0), (1, 1), (2, 3), (3, 3), (4, 7)])
def test_holes_up_to_a_size_are_filled(max_hole_size, n_filled):
    found = clean(HOLES, max_hole_size=max_hole_size)
    assert (found & HOLES).sum() == HOLES.sum()
    assert found.sum() - HOLES.sum() == n_filled


def test_background_at_the_border_is_no_hole():
    found = clean(HOLES, max_hole_size=2499)
    np.testing.assert_array_equal(found, ndimage.binary_fill_holes(HOLES))
    assert not found[6, 8:].any()  # the bay


def test_an_empty_mask_stays_empty_however_large_holes_may_be():
    assert not segment(blobs()[0, 0], method="fixed", threshold=99, max_hole_size=2499).any()


SPECKLES = mask(
    "#....##..",
    "......#..",
    ".........",
    "#....###.",
    ".#...#...",
    "..#......",
    "...#.....",
)  # 1 px, 3 px, 4 px, and 4 px that share corners


@pytest.mark.parametrize(("min_size", "sizes"), [(0, [1, 3, 4, 4]), (2, [3, 4, 4]), (4, [4, 4])])
def test_components_of_fewer_pixels_are_removed(min_size, sizes):
    labels, _ = ndimage.label(clean(SPECKLES, min_size=min_size), structure=np.ones((3, 3)))
    assert sorted(np.bincount(labels.ravel())[1:]) == sizes


def test_holes_are_filled_before_small_components_are_removed():
    ring = mask("###", "#.#", "###")
    drawing = np.pad(ring, 2)
    assert clean(drawing, max_hole_size=1, min_size=9).sum() == 9
    assert clean(drawing, min_size=9).sum() == 0


def test_keep_peak_keeps_the_component_that_holds_the_maximum_of_each_class():
    first = [[0.6, 0.6, 0.0, 0.0, 0.0], [0.6, 0.6, 0.0, 0.0, 0.9], [0.0, 0.0, 0.0, 0.7, 0.0]]
    second = [[0.6, 0.6, 0.0, 0.0, 0.0], [0.6, 5.0, 0.0, 0.0, 0.9], [0.0, 0.0, 0.0, 0.7, 0.0]]
    masks = ThresholdSegmenter(method="fixed", keep="peak").predict([[first, second]])[0]
    np.testing.assert_array_equal(masks[0], mask(".....", "....#", "...#."))
    np.testing.assert_array_equal(masks[1], mask("##...", "##...", "....."))


def test_keep_peak_looks_at_the_smoothed_map():
    feature_map = np.zeros((15, 30))
    feature_map[7, 7] = 2
    feature_map[4:11, 18:25] = 1
    parameters = {"method": "fixed", "threshold": 0.1, "keep": "peak"}
    assert np.argwhere(segment(feature_map, **parameters)).tolist() == [[7, 7]]
    found = segment(feature_map, sigma=1, **parameters)
    assert found[7, 21]
    assert not found[7, 7]


# --- splitting ------------------------------------------------------------------------------

ROWS, COLUMNS = np.mgrid[:60, :60]


def disc(row, column, radius):
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 <= radius**2


def rod(angle, length=40, width=7):
    u = np.cos(angle) * (COLUMNS - 30) + np.sin(angle) * (ROWS - 30)
    v = np.cos(angle) * (ROWS - 30) - np.sin(angle) * (COLUMNS - 30)
    return (abs(u) <= length / 2) & (abs(v) <= width / 2)


@pytest.mark.parametrize("min_distance", [2, 5])
@pytest.mark.parametrize("angle", [0, 0.4, np.pi / 4, np.pi / 2])
@pytest.mark.parametrize("overlap", [0, 3])
def test_two_touching_discs_are_split(angle, overlap, min_distance):
    apart = 2 * 9 - overlap
    other = 15 + apart * np.sin(angle), 15 + apart * np.cos(angle)
    touching = disc(15, 15, 9) | disc(*other, 9)
    assert count(touching) == 1
    labels = number(touching, min_distance=min_distance)
    assert labels.max() == 2
    assert labels[15, 15] != labels[tuple(np.round(other).astype(int))]
    np.testing.assert_array_equal(labels > 0, touching)  # no line is lost
    shares = np.bincount(labels[touching])[1:] / touching.sum()
    assert shares == pytest.approx(0.5, abs=0.05)


def test_discs_that_touch_at_a_corner_are_split():
    touching = mask("###....", "###....", "###....", "...###.", "...###.", "...###.")
    assert count(touching) == 1
    np.testing.assert_array_equal(
        number(touching, min_distance=1), touching * np.where(np.arange(7) < 3, 1, 2)
    )


@pytest.mark.parametrize(
    "drawing",
    [
        disc(30, 30, 10),
        disc(30.4, 29.7, 6),
        (ROWS - 30) ** 2 / 4 + (COLUMNS - 30) ** 2 <= 12**2,
        rod(0),
        rod(0.3),
        rod(np.pi / 4),
        rod(0, width=1),
        disc(15, 15, 9) | disc(45, 45, 3),
        ROWS == 0,
        (ROWS == 5) & (COLUMNS == 5),
        np.zeros((60, 60), dtype=bool),
    ],
    ids=str,
)
@pytest.mark.parametrize("min_distance", [2, 5])
def test_objects_without_a_neck_are_left_as_they_are(drawing, min_distance):
    labels, n = ndimage.label(drawing, structure=np.ones((3, 3)))
    assert n == count(drawing)
    np.testing.assert_array_equal(number(drawing, min_distance=min_distance), labels)


@pytest.mark.parametrize("split", ["shape", "peaks"])
def test_a_mask_without_background_is_one_object(split):
    assert (number([[1, 2, 3]] * 3, split=split, min_distance=1) == 1).all()


def test_a_mask_that_fills_the_image_is_split_in_no_time():
    # scikit-image's watershed with watershed_line=True does not end for it.
    full = np.ones((30, 40), dtype=bool)
    full[0, 0] = full[-2, -1] = full[-1, -1] = full[-1, -2] = False
    found = number(full, min_distance=4)
    assert found.max() == 2
    np.testing.assert_array_equal(found > 0, full)


def test_min_distance_decides_how_near_two_objects_may_be():
    touching = disc(30, 20, 6) | disc(30, 31, 6)
    assert number(touching, min_distance=5).max() == 2
    assert number(touching, min_distance=20).max() == 1
    assert number(touching, min_distance=None).max() == 1


# --- maps without structure -----------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 0.7, -1])
@pytest.mark.parametrize("method", METHODS)
def test_a_constant_map_has_an_empty_mask(method, level):
    segmenter = ThresholdSegmenter(method=method, threshold=-9, max_hole_size=99, min_distance=2)
    X = np.full((1, 1, 12, 12), level, dtype=float)
    assert not segmenter.predict(X).any()
    assert not segmenter.predict_instances(X).any()
    assert not np.asarray(segmenter.transform(X)).any()


@pytest.mark.parametrize("subtract_competitors", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_an_absent_class_stays_empty_beside_one_that_is_present(method, subtract_competitors):
    X = blobs(shape=(1, 2, 16, 16))
    X[0, 1] = 0
    segmenter = ThresholdSegmenter(
        method=method, threshold=0.0, subtract_competitors=subtract_competitors
    )
    masks = segmenter.predict(X)[0]
    assert masks[0].any()
    assert not masks[1].any()


# --- containers -----------------------------------------------------------------------------

STEPS = {
    "otsu": {},
    "all pixels": {"method": "fixed", "threshold": -99},
    "cleaned": {
        "method": "quantile",
        "sigma": 1,
        "keep": "peak",
        "max_hole_size": 9,
        "min_distance": 3,
    },
}


@pytest.mark.parametrize("parameters", STEPS.values(), ids=STEPS)
def test_transform_is_nonzero_exactly_where_predict_is_true(parameters):
    X = blobs()
    segmenter = ThresholdSegmenter(**parameters)
    masks, segments = segmenter.predict(X), np.asarray(segmenter.transform(X))
    assert segments.dtype == np.float32
    np.testing.assert_array_equal(segments != 0, masks)
    unchanged = masks & (X != 0)
    np.testing.assert_array_equal(segments[unchanged], X[unchanged])


def test_values_that_float32_cannot_hold_are_not_lost_from_a_segment():
    X = np.array([[[[0, 1e-60, 1e-50, 1.0]]]])
    segmenter = ThresholdSegmenter(method="fixed", threshold=1e-70)
    assert (np.asarray(segmenter.transform(X)) != 0).tolist() == [[[[False, True, True, True]]]]


def test_zeros_inside_a_mask_become_the_smallest_positive_number():
    X = np.array([[[[-2, -1, 0, 1]]]])
    segments = ThresholdSegmenter(method="fixed", threshold=-1.5).transform(X)
    np.testing.assert_array_equal(segments, [[[[0, -1, np.finfo(np.float32).tiny, 1]]]])


class Recorder:
    """Pass batches on and remember how many samples each had."""

    def __init__(self):
        self.sizes = []

    def __call__(self, batch):
        self.sizes.append(len(batch))
        return batch


def recorded_stack(X, batch_size=4):
    recorder = Recorder()
    shape = None if isinstance(X, list) else X.shape[1:]
    return LazyStack(X, recorder, item_shape=shape, batch_size=batch_size), recorder


def test_segments_are_computed_when_they_are_read():
    X = blobs()
    segmenter = ThresholdSegmenter()
    dense = np.asarray(segmenter.transform(X))
    stack, recorder = recorded_stack(X)
    lazy = segmenter.fit(stack).transform(stack)
    assert isinstance(lazy, LazyStack)
    assert (lazy.shape, lazy.dtype, lazy.batch_size) == (X.shape, np.float32, 4)
    assert recorder.sizes == []  # nothing is computed before it is read
    np.testing.assert_array_equal(np.asarray(lazy), dense)
    assert recorder.sizes == [4, 2]


def test_predict_reads_a_lazy_stack_batch_by_batch():
    X = blobs((10, 2, 9, 9))
    stack, recorder = recorded_stack(X)
    masks = ThresholdSegmenter().predict(stack)
    assert recorder.sizes == [4, 4, 2]
    np.testing.assert_array_equal(masks, ThresholdSegmenter().predict(X))


def test_images_of_different_sizes_give_a_list():
    X = [blobs((2, height, 12), seed=height) for height in (8, 12, 8, 9)]
    segmenter = ThresholdSegmenter(sigma=1)
    expected = [segmenter.predict(x[np.newaxis])[0] for x in X]
    for source in (X, recorded_stack(X, batch_size=3)[0]):
        masks = segmenter.fit(source).predict(source)
        assert isinstance(masks, list)
        segments = segmenter.transform(source)
        for i, (one, two, truth) in enumerate(zip(masks, segments, expected, strict=True)):
            assert one.dtype == bool, i
            assert two.dtype == np.float32, i
            np.testing.assert_array_equal(one, truth)
            np.testing.assert_array_equal(two != 0, truth)


def test_a_lazy_stack_of_segments_keeps_the_parameters_it_was_made_with():
    X = blobs()
    stack, _ = recorded_stack(X)
    segmenter = ThresholdSegmenter(method="quantile", quantile=0.5)
    lazy, expected = segmenter.transform(stack), segmenter.transform(X)
    segmenter.set_params(quantile=0.9)
    np.testing.assert_array_equal(np.asarray(lazy), expected)


# --- learned thresholds ---------------------------------------------------------------------


def masked_blobs(seed=0):
    """Maps of three classes, their ranges being unlike, with masks that they tell in part."""
    X = blobs((5, 3, 10, 12), seed) * np.array([1, 1.7, 0.6], dtype=np.float32)[:, None, None]
    truth = X + blobs(X.shape, seed + 100) * X.std(axis=(0, 2, 3), keepdims=True) * 5
    y = truth > np.quantile(truth, 0.7, axis=(0, 2, 3), keepdims=True)
    y[:2, 0] = y[3, 1] = False  # absent, although the map varies
    X[4, 1:] = y[4, 2] = 0  # predicted absent: class 1 is missed
    return X, y


def mean_iou(masks_true, masks_pred):
    return np.nanmean(iou_score(masks_true, masks_pred, zero_division=np.nan))


def best_iou(maps, considered, masks):
    """Try each threshold of the documented grid that makes a difference."""
    values = maps[considered]
    step = 2 ** (np.floor(np.log2(np.ptp(values))) - 11)  # 2048 to 4096 of them
    thresholds = np.unique(np.ceil(values / step)) * step - step
    assert len(thresholds) > 100
    return max(mean_iou(masks, (maps > threshold) & considered) for threshold in thresholds)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"ignore_zeros": True},
        {"subtract_competitors": True},
        {"sigma": 1.5},
        {"ignore_zeros": True, "subtract_competitors": True, "sigma": (1, 0.5)},
    ],
    ids=str,
)
def test_no_threshold_has_a_larger_mean_iou_than_the_learned_one(parameters, seed):
    X, y = masked_blobs(seed)
    segmenter = ThresholdSegmenter(method="learned", **parameters).fit(X, y)
    assert segmenter.thresholds_.shape == (3,)
    masks = segmenter.predict(X)
    varies = np.ptp(X, axis=(2, 3), keepdims=True) > 0
    for k in range(3):
        maps = X[:, k]
        if "subtract_competitors" in parameters:
            maps = maps - np.maximum(X[:, (k + 1) % 3], X[:, (k + 2) % 3])
        for sigma in np.ravel(parameters.get("sigma", ())):
            maps = ndimage.gaussian_filter(maps, sigma, axes=(1, 2))
        considered = np.broadcast_to(varies[:, k], maps.shape)
        if "ignore_zeros" in parameters:
            considered = considered & (X[:, k] != 0)
        best = best_iou(maps.astype(np.float64), considered, y[:, k])
        assert 0 < best < 1
        assert mean_iou(y[:, k], masks[:, k]) == pytest.approx(best, rel=1e-12)


def test_the_learned_threshold_lies_halfway_between_the_pixels_that_it_parts():
    X = np.array([[[[0.25, 0.25, 0.75, 1.0]]]])
    segmenter = ThresholdSegmenter(method="learned").fit(X, X > 0.5)
    assert segmenter.thresholds_ == pytest.approx([0.5], abs=0.75 / 2048)


def test_the_learned_threshold_weighs_images_as_score_does():
    X = np.array([[[[0.0, 0.4, 0.6, 0.8]]], [[[0.0, 0.0, 0.5, 0.5]]]])
    y = np.array([[[[0, 1, 1, 1]]], [[[0, 0, 0, 0]]]])
    # Above 0: 3/3 and an invented mask, 0. Above 0.5: 2/3 and nothing. Above 0.6: 1/3.
    segmenter = ThresholdSegmenter(method="learned").fit(X, y)
    assert segmenter.thresholds_ == pytest.approx([0.55], abs=0.8 / 2048)
    assert segmenter.score(X, y) == pytest.approx(2 / 3)


def test_a_small_mask_weighs_as_much_as_a_large_one():
    X = np.array([[[[0, 4, 4, 4, 4, 8, 8]]], [[[0, 0, 4, 4, 4, 4, 8]]]])
    y = np.array([[[[0, 1, 1, 1, 1, 1, 1]]], [[[0, 0, 0, 0, 0, 0, 1]]]])
    # Above 0: 6/6 and 1/5. Above 4: 2/6 and 1/1. Of all pixels together, 7/11 and 3/7.
    segmenter = ThresholdSegmenter(method="learned").fit(X, y)
    assert segmenter.thresholds_ == pytest.approx([6], abs=8 / 2048)
    assert segmenter.score(X, y) == pytest.approx((2 / 6 + 1) / 2)


def test_classes_that_masks_or_maps_tell_nothing_about_are_left_empty():
    X = blobs((4, 4, 9, 9))
    X[:, 1] = 0.3
    X[:, 3, :4] = 0
    y = X > 0.05
    y[:, 1] = True
    y[:, 2] = False
    y[:, 3] = X[:, 3] == 0
    segmenter = ThresholdSegmenter(method="learned", ignore_zeros=True).fit(X, y)
    assert np.isfinite(segmenter.thresholds_[0])
    assert segmenter.thresholds_[1:].tolist() == [np.inf] * 3
    assert not segmenter.predict(blobs((4, 4, 9, 9), seed=1))[:, 1:].any()


@pytest.mark.parametrize("level", [1, 1e-30, 3.0])
def test_where_all_pixels_are_best_all_that_count_are_kept(level):
    X = np.zeros((2, 1, 5, 5))
    X[:, :, 1:4, 1:3] = level
    segmenter = ThresholdSegmenter(method="learned", ignore_zeros=True).fit(X, X != 0)
    assert segmenter.thresholds_.tolist() == [-np.inf]
    np.testing.assert_array_equal(segmenter.predict(X), X != 0)


def test_what_follows_the_threshold_plays_no_part_in_learning_it():
    X, y = masked_blobs()
    expected = ThresholdSegmenter(method="learned").fit(X, y)
    cleaned = ThresholdSegmenter(
        method="learned", keep="peak", max_hole_size=9, min_size=3, min_distance=2
    ).fit(X, y)
    assert cleaned.thresholds_.tolist() == expected.thresholds_.tolist()
    assert (cleaned.predict(X) != expected.predict(X)).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
def test_thresholds_are_learned_from_maps_of_any_dtype(dtype):
    X = (np.random.default_rng(0).random((3, 2, 8, 8)) * 200).astype(dtype)
    expected = ThresholdSegmenter(method="learned", sigma=1).fit(X.astype(np.float32), X > 90)
    segmenter = ThresholdSegmenter(method="learned", sigma=1).fit(X, X > 90)
    np.testing.assert_allclose(segmenter.thresholds_, expected.thresholds_, atol=0.2)


def test_a_large_offset_takes_nothing_from_a_learned_threshold():
    X = np.float32(4096) + np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4) / 2048
    y = np.arange(16).reshape(X.shape) > 9
    assert ThresholdSegmenter(method="learned").fit(X, y).score(X, y) == 1


def test_thresholds_are_learned_in_one_pass_batch_by_batch(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("The whole stack became an array.")

    X, y = masked_blobs()
    expected = ThresholdSegmenter(method="learned").fit(X, y).thresholds_
    stack, recorder = recorded_stack(X, batch_size=2)
    monkeypatch.setattr(LazyStack, "__array__", refuse)
    segmenter = ThresholdSegmenter(method="learned").fit(stack, y)
    assert recorder.sizes == [2, 2, 1]
    assert segmenter.thresholds_.tolist() == expected.tolist()


def test_a_lazy_stack_of_segments_keeps_the_thresholds_it_was_made_with():
    X, y = masked_blobs()
    segmenter = ThresholdSegmenter(method="learned").fit(X, y)
    expected = segmenter.transform(X)
    stack, recorder = recorded_stack(X)
    lazy = segmenter.transform(stack)
    assert isinstance(lazy, LazyStack)
    assert recorder.sizes == []
    segmenter.fit(X, X > 0)
    assert (segmenter.transform(X) != expected).any()
    np.testing.assert_array_equal(np.asarray(lazy), expected)


@pytest.mark.parametrize("method", METHODS)
def test_the_other_methods_read_nothing_in_fit(method):
    stack, recorder = recorded_stack(blobs())
    ThresholdSegmenter(method=method).fit(stack, blobs() > 0)
    assert recorder.sizes == []


def test_learned_thresholds_serve_images_of_other_sizes():
    X, y = masked_blobs()
    segmenter = ThresholdSegmenter(method="learned").fit(X, y)
    masks = segmenter.predict([X[0], X[1][:, :7]])
    np.testing.assert_array_equal(masks[0], segmenter.predict(X)[0])
    np.testing.assert_array_equal(masks[1], segmenter.predict(X[1:2, :, :7])[0])


@pytest.mark.parametrize("method", ["predict", "transform", "score"])
def test_learned_thresholds_need_a_fit(method):
    X, y = masked_blobs()
    stack, recorder = recorded_stack(X)
    arguments = (stack, y) if method == "score" else (stack,)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(ThresholdSegmenter(method="learned"), method)(*arguments)
    assert recorder.sizes == []


def test_a_fit_with_another_method_forgets_the_learned_thresholds():
    X, y = masked_blobs()
    segmenter = ThresholdSegmenter(method="learned").fit(X, y).set_params(method="otsu").fit(X, y)
    assert not hasattr(segmenter, "thresholds_")
    np.testing.assert_array_equal(segmenter.predict(X), ThresholdSegmenter().predict(X))
    with pytest.raises(NotFittedError, match="not fitted yet"):
        segmenter.set_params(method="learned").predict(X)


@pytest.mark.parametrize("method", [*METHODS, "learned"])
def test_tags_say_whether_fit_and_masks_are_needed(method):
    tags = get_tags(ThresholdSegmenter(method=method))
    assert tags.requires_fit == tags.target_tags.required == (method == "learned")


@pytest.mark.parametrize("method", ["predict", "predict_instances", "transform"])
def test_maps_of_other_classes_than_those_learned_are_refused(method):
    X, y = masked_blobs()
    segmenter = ThresholdSegmenter(method="learned").fit(X, y)
    for wrong in (X[:, :2], X[:, [0, 1, 2, 2]]):
        with pytest.raises(ValueError, match=rf"3 class\(es\).*Got {wrong.shape[1]} instead"):
            getattr(segmenter, method)(wrong)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (None, 'needs masks of shape.*Got None instead.*such as "otsu"'),
        (np.zeros(6), r"needs masks of shape.*Got \(6,\) instead"),
        (np.zeros((6, 2)), r"needs masks of shape.*Got \(6, 2\) instead"),
        (np.zeros((6, 20, 24)), r"pass `y\[:, np.newaxis\]`"),
        ([np.zeros((20, 24))] * 6, r"pass `\[mask\[np.newaxis\] for mask in y\]`"),
        (["a", "b"] * 3, "needs masks of shape.*Got list instead"),
        ([np.zeros((n, 3)) for n in range(6)], "needs masks of shape.*Got list instead"),
        (np.zeros((6, 2, 24, 20)), r"height and width of the images, \(20, 24\)"),
        (np.zeros((6, 1, 20, 24)), "one channel per class, 2 in all"),
        (np.zeros((5, 2, 20, 24)), "inconsistent numbers of samples"),
        (np.full((6, 2, 20, 24), 0.5), "0 and 1 only, or instances.*Got other values of float64"),
        (np.full((6, 2, 20, 24), -1), r"y\[0\] must not hold negative numbers"),
    ],
)
def test_thresholds_are_not_learned_without_masks_that_fit(y, match):
    stack, recorder = recorded_stack(blobs())
    with pytest.raises(ValueError, match=match):
        ThresholdSegmenter(method="learned").fit(stack, y)
    assert recorder.sizes == []


def test_thresholds_are_learned_from_instances_and_from_images_of_different_sizes():
    X, y = masked_blobs()
    expected = ThresholdSegmenter(method="learned").fit(X, y).thresholds_
    found = ThresholdSegmenter(method="learned").fit(X, y * 7).thresholds_
    assert found.tolist() == expected.tolist()
    # The cut of the first image is between 1 and 3, that of the second between 2 and 4.
    X = [np.array([[[1.0, 3.0, 9.0]]]), np.array([[[2.0], [4.0]]])]
    y = [np.array([[[0, 1, 2]]]), np.array([[[0], [1]]])]
    segmenter = ThresholdSegmenter(method="learned").fit(X, y)
    assert segmenter.thresholds_ == pytest.approx([2.5], abs=8 / 2048)
    assert segmenter.score(X, y) == 1


def test_thresholds_are_not_learned_from_computed_maps_that_are_not_finite():
    X = blobs()
    X[4, 1, 3, 3] = np.nan
    with pytest.raises(ValueError, match="X contains NaN"):
        ThresholdSegmenter(method="learned").fit(recorded_stack(X)[0], np.zeros(X.shape))


def test_grid_search_may_choose_learned_thresholds():
    X, y = masked_blobs()
    grid = {"method": ["otsu", "learned"], "sigma": [None, 1]}
    search = GridSearchCV(ThresholdSegmenter(), grid, cv=5, error_score="raise").fit(X, y)
    for parameters, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        folds = []
        for i in range(5):
            rest = np.arange(5) != i
            segmenter = ThresholdSegmenter(**parameters).fit(X[rest], y[rest])
            folds.append(segmenter.score(X[i : i + 1], y[i : i + 1]))
        assert score == pytest.approx(np.mean(folds))
    assert search.best_params_["method"] == "learned"
    assert search.best_estimator_.thresholds_.shape == (3,)


def test_thresholds_are_learned_in_a_pipeline():
    maps = blobs((6, 2, 8, 16, 16))
    y = maps[:, :, :7].sum(axis=2) > 0.1
    pipe = make_pipeline(PCAFeatureMap(rescale="coarse"), ThresholdSegmenter(method="learned"))
    with pytest.raises(NotFittedError, match="not fitted yet"):
        pipe.predict(maps)
    pipe.fit(maps, y)
    feature_maps = np.asarray(PCAFeatureMap(rescale="coarse").transform(maps))
    expected = ThresholdSegmenter(method="learned").fit(feature_maps, y)
    np.testing.assert_array_equal(pipe.predict(maps), expected.predict(feature_maps))
    assert pipe.score(maps, y) == expected.score(feature_maps, y)
    for labels in (y.any(axis=(2, 3)), y[:, 0].any(axis=(1, 2))):
        with pytest.raises(ValueError, match="needs masks of shape"):
            pipe.fit(maps, labels)


def test_learned_thresholds_are_pickled_and_not_cloned():
    X, y = masked_blobs()
    segmenter = ThresholdSegmenter(method="learned").fit(X, y)
    copy = pickle.loads(pickle.dumps(segmenter))
    np.testing.assert_array_equal(copy.predict(X), segmenter.predict(X))
    lazy = pickle.loads(pickle.dumps(segmenter.transform(recorded_stack(X)[0])))
    np.testing.assert_array_equal(np.asarray(lazy), segmenter.transform(X))
    assert not hasattr(clone(segmenter), "thresholds_")


# --- score ----------------------------------------------------------------------------------


def test_score_is_the_mean_iou_of_pairs_with_a_true_or_a_predicted_mask():
    X = np.array(
        [
            [[[0.9, 0.9, 0.0]], [[0.0, 0.0, 0.0]]],
            [[[0.0, 0.0, 0.9]], [[0.9, 0.0, 0.0]]],
        ]
    )
    y = np.array(
        [
            [[[1, 0, 1]], [[0, 0, 0]]],  # one common pixel of three; nothing there, nothing found
            [[[0, 0, 1]], [[0, 0, 0]]],  # found; invented
        ]
    )
    segmenter = ThresholdSegmenter(method="fixed", threshold=0.5)
    for masks in (y, y.astype(bool), y.astype(float), y.tolist()):
        assert segmenter.score(X, masks) == pytest.approx((1 / 3 + 1 + 0) / 3)


def test_score_is_one_without_any_mask_and_zero_when_all_are_missed():
    X = np.zeros((2, 2, 4, 4))
    assert ThresholdSegmenter().score(X, np.zeros(X.shape, dtype=bool)) == 1.0
    assert ThresholdSegmenter().score(X, np.ones(X.shape, dtype=bool)) == 0.0


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.zeros((6, 2, 24, 20)), r"height and width of the images, \(20, 24\)"),
        (np.zeros((6, 1, 20, 24)), "one channel per class, 2 in all"),
        (np.zeros((5, 2, 20, 24)), "inconsistent numbers of samples"),
        (np.full((6, 2, 20, 24), 0.5), "0 and 1 only, or instances.*Got other values of float64"),
        (np.full((6, 2, 20, 24), -1), r"y\[0\] must not hold negative numbers"),
        (np.zeros((6, 2)), r"must hold masks or instances.*Got a row of labels, of shape \(2,\)"),
        (None, "must hold masks or instances. Got None instead"),
    ],
)
def test_masks_that_do_not_fit_are_refused_before_anything_is_computed(y, match):
    stack, recorder = recorded_stack(blobs())
    with pytest.raises(ValueError, match=match):
        ThresholdSegmenter().score(stack, y)
    assert recorder.sizes == []


def test_score_of_images_of_different_sizes_and_of_instances():
    X = [np.array([[[0.9, 0.9, 0.0]]]), np.array([[[0.0], [0.9]]])]
    y = [np.array([[[1, 0, 1]]]), np.array([[[0], [1]]])]
    packed = np.empty(2, dtype=object)
    packed[:] = y
    segmenter = ThresholdSegmenter(method="fixed")
    for truth in (y, [masks * 3 for masks in y], [masks > 0 for masks in y], packed):
        assert segmenter.score(X, truth) == pytest.approx((1 / 3 + 1) / 2)
        assert segmenter.score(recorded_stack(X)[0], truth) == pytest.approx((1 / 3 + 1) / 2)
    with pytest.raises(ValueError, match=r"height and width of the images, \(2, 1\) for sample 1"):
        segmenter.score(X, y[:1] * 2)
    with pytest.raises(ValueError, match="of the shapes of y"):
        segmenter.score(recorded_stack(X)[0], y[:1] * 2)


def test_a_search_scores_images_of_different_sizes():
    X = [blobs((1, height, 12), seed=height).astype(float) for height in (8, 12, 9, 10)]
    y = [x > 0.1 for x in X]
    grid = {"threshold": [0.0, 0.1, 0.2]}
    search = GridSearchCV(ThresholdSegmenter(method="fixed"), grid, cv=2, error_score="raise")
    assert search.fit(X, y).best_params_ == {"threshold": 0.1}
    assert search.best_score_ == 1


def test_a_search_walks_the_ways_to_split():
    touching = np.array([[disc(15, 15, 9) | disc(15, 31, 9)], [disc(30, 20, 9) | disc(47, 20, 9)]])
    X = touching.astype(float)
    y = ThresholdSegmenter(method="fixed", min_distance=5).predict_instances(X)
    assert y.max(axis=(1, 2, 3)).tolist() == [2, 2]
    grid = {"split": ["peaks", "shape", lambda m, f: m.astype(int)], "min_distance": [None, 5, 30]}
    search = GridSearchCV(
        ThresholdSegmenter(method="fixed"), grid, cv=2, scoring=instance_scorer(), refit=False
    ).fit(X, y)
    assert search.best_params_ == {"split": "shape", "min_distance": 5}
    assert search.best_score_ == 1
    assert sorted(search.cv_results_["mean_test_score"])[-2] < 1


# --- manners --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fit", "transform", "predict", "predict_instances"])
@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"method": "nonsense"}, "'method' parameter"),
        ({"quantile": 1.1}, "'quantile' parameter"),
        ({"threshold": "high"}, "'threshold' parameter"),
        ({"block_size": 1}, "'block_size' parameter"),
        ({"sigma": -1}, "'sigma' parameter"),
        ({"sigma": "wide"}, "'sigma' parameter"),
        ({"sigma": [1, -2]}, r"sigma must not be negative. Got \[1, -2\]"),
        ({"sigma": [1, np.nan]}, "sigma contains NaN"),
        ({"sigma": ["wide"]}, "strings"),
        ({"keep": "largest"}, "'keep' parameter"),
        ({"max_hole_size": -1}, "'max_hole_size' parameter"),
        ({"min_size": 1.5}, "'min_size' parameter"),
        ({"min_distance": 0}, "'min_distance' parameter"),
        ({"split": "colour"}, "'split' parameter"),
        ({"split": None}, "'split' parameter"),
    ],
)
def test_wrong_parameters_are_refused(method, parameters, match):
    with pytest.raises(ValueError, match=match):
        getattr(ThresholdSegmenter(**parameters), method)(blobs())


@pytest.mark.parametrize("method", ["fit", "transform", "predict", "predict_instances"])
@pytest.mark.parametrize(
    ("X", "match"),
    [
        (np.zeros((2, 20, 24)), r"\(n_samples, n_classes, height, width\). Got 3 dimensions"),
        (np.full((1, 1, 4, 4), np.nan), "contains NaN"),
        (np.full((1, 1, 4, 4), np.inf), "contains infinity"),
        (np.zeros((0, 1, 4, 4)), "at least one sample"),
        (np.full((1, 1, 4, 4), "a"), "strings"),
    ],
)
def test_wrong_maps_are_refused(method, X, match):
    with pytest.raises(ValueError, match=match):
        getattr(ThresholdSegmenter(), method)(X)


@pytest.mark.parametrize("method", ["transform", "predict"])
def test_computed_maps_of_different_sizes_and_wrong_dimensions_are_refused(method):
    stack, _ = recorded_stack([np.zeros((2, 8, 6, 5)), np.zeros((2, 8, 4, 5))])
    with pytest.raises(ValueError, match=r"n_classes, height, width\). Got 5 dimensions instead"):
        list(getattr(ThresholdSegmenter(), method)(stack))


@pytest.mark.parametrize("parameters", STEPS.values(), ids=STEPS)
def test_the_input_is_left_as_it_is(parameters):
    X = blobs()
    before = X.copy()
    X.setflags(write=False)
    segmenter = ThresholdSegmenter(subtract_competitors=True, ignore_zeros=True, **parameters)
    np.asarray(segmenter.fit(X).transform(X))
    segmenter.predict(X)
    segmenter.predict_instances(X)
    np.testing.assert_array_equal(X, before)


def test_needs_no_fit_and_learns_nothing():
    X = blobs()
    segmenter = ThresholdSegmenter()
    expected = segmenter.predict(X)
    before = dict(vars(segmenter))
    assert segmenter.fit(X[:1], y="ignored") is segmenter
    assert vars(segmenter) == before
    np.testing.assert_array_equal(segmenter.predict(X), expected)
    np.testing.assert_array_equal(segmenter.fit_transform(X), segmenter.transform(X))


def test_batch_and_order_do_not_matter():
    X = blobs()
    segmenter = ThresholdSegmenter(sigma=1, method="block_otsu")
    expected = segmenter.predict(X)
    np.testing.assert_array_equal(segmenter.predict(X[::-1]), expected[::-1])
    for i in range(len(X)):
        np.testing.assert_array_equal(segmenter.predict(X[i : i + 1])[0], expected[i])


def test_clone_and_pickle():
    X = blobs()
    segmenter = ThresholdSegmenter(method=threshold_li, sigma=(1, 2), min_size=3)
    for copy in (clone(segmenter), pickle.loads(pickle.dumps(segmenter))):
        assert copy.get_params() == segmenter.get_params()
        np.testing.assert_array_equal(copy.predict(X), segmenter.predict(X))
    lazy = segmenter.transform(LazyStack(X, np.asarray, item_shape=X.shape[1:]))
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(lazy))), np.asarray(lazy))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_quantiles_are_those_of_numpy(n, dtype):
    values = np.random.default_rng(n).normal(size=n).astype(dtype)
    values[: n // 3] = 0  # ties
    for q in (0, 0.2, 0.5, 0.8, 0.99, 1):
        expected = np.quantile(values, q)
        assert quantile(values, q) == pytest.approx(expected, rel=1e-6, abs=1e-9)
