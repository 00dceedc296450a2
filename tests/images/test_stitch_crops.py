import dask.array
import numpy as np
import pytest
import zarr

from sklearn_micranet.images._extract_crops import extract_crops
from sklearn_micranet.images._stitch_crops import stitch_crops

IMAGE = np.arange(35, dtype=np.uint8).reshape(5, 7)


def test_overlapping_predictions_are_averaged_or_the_largest_wins():
    positions = [[0, 0, 0], [0, 0, 1]]
    values = np.array([[[1, 2]], [[4, -8]]])
    mean, untouched = stitch_crops(values, positions, [(1, 4), (1, 1)])
    np.testing.assert_array_equal(mean, [[1, 3, -8, 0]])
    np.testing.assert_array_equal(untouched, [[0]])
    largest = stitch_crops(values, positions, [(1, 4)], method="max")[0]
    np.testing.assert_array_equal(largest, [[1, 4, -8, 0]])
    assert largest.dtype == values.dtype


@pytest.mark.parametrize("method", ["mean", "max"])
def test_many_crops_may_overlap(method):
    n_crops = 2**16
    positions = np.zeros((n_crops, 3), int)
    stitched = stitch_crops(np.ones((n_crops, 1, 1)), positions, [(1, 1)], method=method)
    np.testing.assert_array_equal(stitched[0], [[1]])


@pytest.mark.parametrize("wrap", [zarr.array, dask.array.from_array])
def test_arrays_on_disk_are_stitched(wrap):
    crops = extract_crops([IMAGE, IMAGE[:3]], size=4, step=3)
    order = np.random.default_rng(0).permutation(len(crops.images))
    wrapped = wrap(np.asarray(crops.images[order]))
    stitched = stitch_crops(wrapped, crops.positions[order], crops.image_shapes)
    np.testing.assert_array_equal(stitched[0], IMAGE)
    np.testing.assert_array_equal(stitched[1], IMAGE[:3])


def test_masks_are_stitched_by_class():
    masks = np.zeros((2, 3, 1, 2), bool)
    masks[0, 1] = True
    votes = stitch_crops(masks, [[0, 0, 0], [0, 0, 1]], [(1, 3)])[0]
    np.testing.assert_array_equal(votes[1], [[1, 0.5, 0]])
    assert not votes[[0, 2]].any()
    union = stitch_crops(masks, [[0, 0, 0], [0, 0, 1]], [(1, 3)], method="max")[0]
    np.testing.assert_array_equal(union[1], [[True, True, False]])


def test_positions_must_belong_to_the_crops():
    with pytest.raises(ValueError, match=r"shape \(n_crops, 3\) with n_crops=2"):
        stitch_crops(np.ones((2, 4, 4)), [[0, 0, 0]], [(4, 4)])


@pytest.mark.parametrize("position", [[2, 0, 0], [-1, 0, 0], [0, 5, 0], [1, 0, 3], [0, -4, 0]])
def test_crops_must_lie_in_an_image(position):
    inside = [1, -3, 2]  # shows one pixel of the second image
    stitch_crops(np.ones((1, 4, 4)), [inside], [(5, 7), (2, 3)])
    with pytest.raises(
        ValueError, match=rf"one of the 2 images.*\(4, 4\) px.*\{position}, instead"
    ):
        stitch_crops(np.ones((2, 4, 4)), [inside, position], [(5, 7), (2, 3)])


def test_channels_do_not_count_as_columns_of_crops():
    with pytest.raises(ValueError, match=r"crops of \(2, 3\) px outside"):
        stitch_crops(np.ones((1, 2, 3, 9)), [[0, 0, -3]], [(5, 7)], channels_last=True)
