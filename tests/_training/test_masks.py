import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_micranet._labels._images import read_images
from sklearn_micranet._training._masks import (
    MaskedImages,
    PixelLoss,
    dilated,
    read_masks,
    split_off_groups,
)

IMAGES = read_images(np.zeros((3, 8, 9)), name="UNetSegmenter")
MASKS = np.random.default_rng(0).random((3, 2, 8, 9)) > 0.5


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, ">f8"])
def test_masks_of_any_dtype_are_read(dtype):
    masks = read_masks(MASKS.astype(dtype), IMAGES, n_maps=2)
    assert masks.dtype == bool
    np.testing.assert_array_equal(masks, MASKS)
    np.testing.assert_array_equal(read_masks(list(MASKS.astype(dtype)), IMAGES), MASKS)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, ">i4"])
def test_instances_are_the_pixels_above_zero(dtype):
    numbers = np.random.default_rng(1).integers(0, 300, (3, 8, 9)).astype(dtype)
    masks = read_masks(numbers, IMAGES)
    assert masks.shape == (3, 1, 8, 9)
    np.testing.assert_array_equal(masks[:, 0], numbers > 0)


def test_masks_that_are_read_are_a_copy_in_c_order():
    masks = read_masks(MASKS[..., ::-1], IMAGES)
    assert masks.flags.c_contiguous
    assert not np.may_share_memory(masks, MASKS)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (None, "must hold masks or instances. Got None instead"),
        ([0, 1, 0], r"Got a label, of shape \(\), for sample 0"),
        (MASKS[:, :, :3], r"2 map\(s\) of \(8, 9\) px.* Got the shapes \(2, 3, 9\) instead"),
        (MASKS[:2], "each of the 3 images. Got 2 instead"),
        (MASKS[:, :1], r"2 map\(s\) of \(8, 9\) px.* Got the shapes \(1, 8, 9\) instead"),
        (-1 * MASKS, "must not hold negative numbers"),
        (0.5 * MASKS, "Got other values of float64 instead"),
        (np.full(MASKS.shape, "a"), "must hold numbers.*Got 'a' instead"),
        (np.where(MASKS, np.nan, 0), "Got other values of float64 instead"),
        ([*MASKS[:2], MASKS[2, :1]], r"Got the shapes \(1, 8, 9\), \(2, 8, 9\) instead"),
    ],
)
def test_other_masks_are_refused(y, match):
    with pytest.raises((TypeError, ValueError), match=match):
        read_masks(y, IMAGES, n_maps=2)


def test_the_loss_is_the_mean_cross_entropy_of_the_pixels():
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(size=(2, 3, 4, 5)), rng.random((2, 3, 4, 5)) > 0.5
    p = 1 / (1 + np.exp(-logits))
    expected = -np.where(masks, np.log(p), np.log(1 - p)).mean()
    loss = PixelLoss()(torch.from_numpy(logits), torch.from_numpy(masks))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 1, 1.5, 2, 5, 10]))
def test_dilated_masks_are_those_of_a_disc(seed, radius):
    rng = np.random.default_rng(seed)
    masks = rng.random((2, 2, 9, 12)) > 0.97
    pixels = np.indices((9, 12)).reshape(2, -1).T
    expected = np.zeros_like(masks)
    for i, k, row, column in np.argwhere(masks):
        near = ((pixels - (row, column)) ** 2).sum(axis=1) <= radius**2
        expected[i, k] |= near.reshape(9, 12)
    before = masks.copy()
    np.testing.assert_array_equal(dilated(masks, radius), expected)
    np.testing.assert_array_equal(masks, before)


def test_small_images_are_not_padded_as_their_masks_are_not():
    images = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
    data = MaskedImages(images, torch.zeros(2, 1, 3, 5, dtype=bool))
    batch, masks = data[np.array([1])]
    assert masks.shape == (1, 1, 3, 5)
    np.testing.assert_array_equal(batch[0, 0], images[1])


def numbered(masks):
    masks = torch.as_tensor(np.asarray(masks))
    images = np.broadcast_to(np.arange(len(masks))[:, None, None], (len(masks), 8, 8))
    return MaskedImages(images, masks)


def test_a_subset_holds_the_images_of_its_masks():
    masks = np.random.default_rng(0).random((6, 2, 8, 8)) > 0.5
    part = numbered(masks).subset(np.array([4, 1])).subset(np.array([1]))
    images, of_part = part[np.array([0])]
    assert images.unique().tolist() == [1]
    np.testing.assert_array_equal(of_part[0], masks[1])


def test_a_share_of_the_images_of_every_structure_is_set_aside():
    masks = np.zeros((40, 2, 8, 8), dtype=bool)
    masks[:20, 0, 3, 3] = masks[30:, 1, 2, 2] = True
    train, valid = split_off_groups(numbered(masks), 0.1, None, np.random.RandomState(0))
    assert len(valid) == 4
    assert valid.targets[:, 0].any(dim=(1, 2)).sum() == 2
    assert valid.targets[:, 1].any(dim=(1, 2)).sum() == 1
    assert sorted([*train.indices, *valid.indices]) == list(range(40))


@pytest.mark.parametrize("seed", range(5))
def test_images_of_one_group_stay_together(seed):
    groups = np.repeat(list("abcdefghij"), 4)
    masks = np.random.default_rng(seed).random((40, 1, 8, 8)) > 0.99
    train, valid = split_off_groups(numbered(masks), 0.2, groups, np.random.RandomState(seed))
    assert len(valid) == 8
    assert not set(groups[train.indices]) & set(groups[valid.indices])


def test_too_few_groups_are_not_split():
    masks = np.ones((6, 1, 8, 8), dtype=bool)
    data = numbered(masks)
    assert split_off_groups(data, 0.0, None, np.random.RandomState(0)) == (data, None)
    with pytest.warns(UserWarning, match=r"1 group\(s\) .* too few for validation_fraction=0.5"):
        together = split_off_groups(data, 0.5, np.zeros(6), np.random.RandomState(0))
    assert together == (data, None)
