import numpy as np
import pytest
from cases import instances, mask
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from skimage.measure import regionprops

from sklearn_micranet._stack._lazy_stack import as_stack
from sklearn_micranet.metrics._regions import (
    as_instances,
    as_masks,
    as_points,
    centres,
    check_fit,
)

TWO_MAPS = np.array([instances("11..", "....", "..22"), instances("....", ".3..", "....")])


def test_points_of_instances():
    [points] = as_points(TWO_MAPS[np.newaxis])
    assert_allclose(points, [[0, 0, 0.5], [0, 2, 2.5], [1, 1, 1]])


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_points_of_masks_are_those_of_components(dtype):
    # Pixels that share a corner are one object.
    masks = mask("##..", "....", "#..#", ".##.")[np.newaxis].astype(dtype)
    [points] = as_points([masks])
    assert_allclose(points, [[0, 0, 0.5], [0, 2.5, 1.5]])


def test_points_stay_as_they_are():
    y = [[[0, 1.5, 2]], [], np.empty((0, 3))]
    assert [points.tolist() for points in as_points(y)] == [[[0, 1.5, 2]], [], []]


def test_a_ring_has_its_centre_on_it():
    ring = instances("11111", "1...1", "1.2.1", "1...1", "11111")
    points = centres(ring)
    assert ring[tuple(points.astype(int).T)].tolist() == [1, 2]
    # All four are 2 px away from the centroid, (2, 2).
    assert points[0].tolist() in [[0, 2], [2, 0], [2, 4], [4, 2]]
    assert points[1].tolist() == [2, 2]


@given(arrays(np.int32, (7, 8), elements=st.integers(0, 5)))
@settings(deadline=None, max_examples=50)
def test_centres_are_centroids_where_these_lie_in_the_object(labels):
    objects = regionprops(labels)
    points = centres(labels)
    assert points.shape == (len(objects), 2)
    for point, region in zip(points, objects, strict=True):
        row, column = region.centroid
        distances = np.hypot(*(region.coords - region.centroid).T)
        if np.abs(region.coords - region.centroid).max(axis=1).min() <= 0.5:
            assert_allclose(point, region.centroid)
        else:
            assert labels[tuple(point.astype(int))] == region.label
            assert np.hypot(*(point - (row, column))) == pytest.approx(distances.min())


def test_instances_and_masks():
    assert_array_equal(as_masks(TWO_MAPS[np.newaxis]), TWO_MAPS[np.newaxis] > 0)
    assert_array_equal(as_instances(TWO_MAPS[np.newaxis]), TWO_MAPS[np.newaxis])
    components = as_instances((TWO_MAPS > 0)[np.newaxis])[0]
    assert_array_equal(components, [instances("11..", "....", "..22"), TWO_MAPS[1] > 0])
    # Numbers above 1 in one sample make all samples instances: the first is one object in parts.
    y = [instances("1.1")[np.newaxis], instances("..2")[np.newaxis]]
    assert_array_equal(as_instances(y), y)
    assert_array_equal(as_instances(y[:1]), [[[[1, 0, 2]]]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", np.float16])
def test_floats_of_0_and_1_are_masks(dtype):
    masks = (TWO_MAPS > 0)[np.newaxis]
    assert_array_equal(as_masks(masks.astype(dtype)), masks)
    assert_array_equal(as_instances(masks.astype(dtype)), as_instances(masks))
    assert [rows.tolist() for rows in as_points(masks.astype(dtype))] == [
        rows.tolist() for rows in as_points(masks)
    ]


def test_masks_of_0_and_255_are_no_single_object():
    masks = (TWO_MAPS > 0)[np.newaxis].astype(np.uint8) * 255
    for read in (as_points, as_instances):
        with pytest.raises(ValueError, match=r"Got 0 and 255 only.*masks: pass `y > 0`"):
            read(masks)
    assert_array_equal(as_masks(masks), masks > 0)
    masks[0, 0, 0, 0] = 254  # two objects
    assert_array_equal(as_instances(masks), masks)


def test_regions_that_do_not_fit_a_stack_raise():
    stack = as_stack(np.zeros((2, 1, 3, 4)))
    ragged = as_stack([np.zeros((1, 3, 4)), np.zeros((1, 2, 5))])
    unknown = ragged.map(np.asarray, item_shape=None)
    y = [np.zeros((1, 3, 4), int), np.full((1, 2, 5), 3)]
    for fitting in (ragged, unknown):
        for checked, sample in zip(check_fit(y, fitting), y, strict=True):
            assert_array_equal(checked, sample)
    with pytest.raises(ValueError, match=r"images, \(3, 4\) for sample 1. Got \(2, 5\)"):
        check_fit(y, stack)
    with pytest.raises(ValueError, match=r"one channel per class, 1 in all.*Got 2 for sample 0"):
        check_fit(np.zeros((2, 2, 3, 4), bool), stack)
    for fitting in (stack, ragged, unknown):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            check_fit(y[:1], fitting)


def test_samples_of_different_sizes_and_without_objects():
    y = [np.zeros((1, 3, 4), bool), np.ones((1, 2, 2), bool)]
    assert [points.tolist() for points in as_points(y)] == [[], [[0, 0.5, 0.5]]]
    assert [labels.max() for labels in as_instances(y)] == [0, 1]
    assert as_points([]) == as_masks([]) == as_instances([]) == []


def test_what_is_neither_masks_nor_instances_raises():
    with pytest.raises(ValueError, match=r"\(3, 4\) instead: pass `y\[:, np.newaxis\]`"):
        as_masks(np.zeros((2, 3, 4), bool))
    with pytest.raises(ValueError, match=r"pass `\[mask\[np.newaxis\] for mask in y\]`"):
        as_points(list(np.full((2, 3, 6), 7)))  # whose numbers tell touching objects apart
    with pytest.raises(ValueError, match=r"Got a label, of shape \(\), for sample 0"):
        as_masks([0, 1])
    with pytest.raises(TypeError, match=r"pass names\.index"):
        as_points([[["cell", 1, 2]]])
    with pytest.raises(
        ValueError, match=r"y must hold masks or instances.*Got positions, of shape \(1, 3\)"
    ):
        as_instances([[[0, 1, 2]]])
    with pytest.raises(
        ValueError, match=r"0 and 1 only, or instances.*Got other values of float64"
    ):
        as_points(np.full((1, 1, 3, 4), 0.5))
    with pytest.raises(TypeError, match=r"y must hold numbers.*Got 'a'"):
        as_masks(np.full((1, 1, 3, 4), "a"))
    for y in (None, 7):
        with pytest.raises(ValueError, match=f"y must hold masks or instances. Got {y} instead"):
            as_masks(y)
    with pytest.raises(ValueError, match="must not hold negative numbers"):
        as_masks(np.full((1, 1, 3, 4), -1))
