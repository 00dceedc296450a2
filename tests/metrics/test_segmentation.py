import tracemalloc

import numpy as np
import pytest
from cases import MASK_CASES
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_micranet.metrics import dice_score, iou_score, symmetric_boundary_dice_score

METRICS = [iou_score, dice_score, symmetric_boundary_dice_score]


def boundary(mask):
    height, width = mask.shape
    pixels = []
    for row, column in np.argwhere(mask):
        for r, c in [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]:
            if not (0 <= r < height and 0 <= c < width and mask[r, c]):
                pixels.append((row, column))
                break
    return pixels


def slow_boundary_dice(mask_true, mask_pred, radius):
    rows, columns = np.indices(mask_true.shape)
    local_dice = []
    for row, column in boundary(mask_true) + boundary(mask_pred):
        near = np.hypot(rows - row, columns - column) <= radius
        n_common = (mask_true & mask_pred & near).sum()
        local_dice.append(2 * n_common / ((mask_true & near).sum() + (mask_pred & near).sum()))
    return np.mean(local_dice)


@pytest.mark.parametrize("case", MASK_CASES.values(), ids=MASK_CASES)
def test_known_answers(case):
    assert iou_score(case.mask_true, case.mask_pred) == pytest.approx(case.iou)
    assert dice_score(case.mask_true, case.mask_pred) == pytest.approx(case.dice)
    boundary_dice = symmetric_boundary_dice_score(case.mask_true, case.mask_pred, radius=1)
    assert boundary_dice == pytest.approx(case.boundary_dice)


@pytest.mark.parametrize(
    ("shape", "radius"),
    # The last is large enough to be convolved by FFT, whose rounding errors must not show.
    [((9, 12), 1), ((9, 12), 2), ((9, 12), 4), ((1, 7), 2), ((3, 3), 5), ((50, 60), 15)],
)
def test_boundary_dice_equals_slow_loop(shape, radius):
    rng = np.random.default_rng(0)
    for density in (0.05, 0.5, 0.95):
        mask_true, mask_pred = rng.random((2, *shape)) < density
        mask_true[0, 0] = True  # never both empty
        assert_allclose(
            symmetric_boundary_dice_score(mask_true, mask_pred, radius=radius),
            slow_boundary_dice(mask_true, mask_pred, radius),
            rtol=1e-14,
        )


def test_boundary_dice_with_disc_over_whole_image_is_dice():
    mask_true, mask_pred = np.random.default_rng(0).random((2, 10, 12)) < 0.4
    assert_allclose(
        symmetric_boundary_dice_score(mask_true, mask_pred, radius=16),
        dice_score(mask_true, mask_pred),
    )


@pytest.mark.parametrize("score", METRICS)
def test_leading_axes_are_kept(score):
    masks_true, masks_pred = np.random.default_rng(0).random((2, 2, 3, 6, 5)) < 0.5
    scores = score(masks_true, masks_pred)
    assert scores.shape == (2, 3)
    assert scores.dtype == np.float64
    for index in np.ndindex(2, 3):
        single = score(masks_true[index], masks_pred[index])
        assert type(single) is float
        assert scores[index] == single


@pytest.mark.parametrize("score", METRICS)
def test_no_samples_give_no_scores(score):
    masks = np.empty((0, 2, 4, 4), dtype=bool)
    assert score(masks, masks).shape == (0, 2)


@pytest.mark.parametrize("score", METRICS)
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_bool_and_binary_integers_agree(score, dtype):
    masks_true, masks_pred = np.random.default_rng(0).random((2, 3, 6, 5)) < 0.5
    assert_array_equal(
        score(masks_true.astype(dtype), masks_pred.astype(dtype)), score(masks_true, masks_pred)
    )


@pytest.mark.parametrize("score", METRICS)
def test_both_empty_scores_zero_division(score):
    empty = np.zeros((4, 4), dtype=bool)
    assert score(empty, empty) == 1.0
    assert score(empty, empty, zero_division=0.0) == 0.0
    found = np.ones((4, 4), dtype=bool)
    scores = score(np.stack([empty, found]), np.stack([empty, found]), zero_division=np.nan)
    assert_array_equal(scores, [np.nan, 1.0])
    assert np.nanmean(scores) == 1.0


@pytest.mark.parametrize("score", METRICS)
def test_one_empty_scores_zero_whatever_zero_division(score):
    empty, full = np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool)
    assert score(empty, full, zero_division=np.nan) == 0.0
    assert score(full, empty, zero_division=np.nan) == 0.0


@pytest.mark.parametrize("score", [iou_score, dice_score])
def test_memory_is_that_of_one_image(score):
    masks = np.ones((50, 128, 128), dtype=bool)
    tracemalloc.start()
    score(masks, masks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * masks[0].nbytes


@pytest.mark.parametrize("score", METRICS)
def test_wrong_masks_raise(score):
    masks = np.ones((2, 4, 4), dtype=bool)
    with pytest.raises(ValueError, match=r"shape of masks_true, \(2, 4, 4\)\. Got \(4, 4\)"):
        score(masks, masks[0])
    with pytest.raises(ValueError, match=r"masks_true must have shape .* Got shape \(4,\)"):
        score(masks[0, 0], masks[0, 0])
    with pytest.raises(TypeError, match=r"masks_pred must be bool.*Got float64.*Threshold"):
        score(masks, np.full(masks.shape, np.nan))
    with pytest.raises(ValueError, match=r"masks_true must be bool.*0 to 3.*masks_true > 0"):
        score(np.arange(16).reshape(4, 4) % 4, masks[0])
    with pytest.raises(ValueError, match="Got integers from -1 to 1"):
        score(masks[0], np.where(np.eye(4), 1, -1))
    with pytest.raises(TypeError, match="zero_division must be an instance of"):
        score(masks, masks, zero_division="warn")


def test_wrong_radius_raises():
    mask = np.ones((4, 4), dtype=bool)
    with pytest.raises(ValueError, match="radius == 0, must be >= 1"):
        symmetric_boundary_dice_score(mask, mask, radius=0)
    with pytest.raises(TypeError, match="radius must be an instance of"):
        symmetric_boundary_dice_score(mask, mask, radius=1.5)


def test_masks_of_different_sizes_are_refused_with_advice():
    masks = [np.zeros((4, 5), bool), np.zeros((4, 6), bool)]
    with pytest.raises(
        ValueError, match=r"masks_true must all have one shape.*score them one by one"
    ):
        iou_score(masks, masks)
