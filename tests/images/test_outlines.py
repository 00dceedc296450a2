import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from skimage.draw import polygon2mask

from sklearn_micranet.images._outlines import fill_outlines, signed_area, trace_outlines


def filled(rings, shape):
    mask = np.zeros(shape, bool)
    place, inside = fill_outlines(rings, shape)
    mask[place] = inside
    return mask


masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@settings(deadline=None, max_examples=100)
@given(masks.filter(np.any))
def test_outlines_are_valid_polygons_of_the_same_pixels(mask):
    polygons = trace_outlines(mask)
    shapes = shapely.MultiPolygon([(outer, holes) for outer, *holes in polygons])
    assert shapes.is_valid, shapely.is_valid_reason(shapes)
    assert shapes.area == mask.sum()
    rows, columns = np.indices(mask.shape)
    assert_array_equal(shapely.contains_xy(shapes, columns + 0.5, rows + 0.5), mask)
    for outer, *holes in polygons:
        assert signed_area(outer) > 0
        assert all(signed_area(hole) < 0 for hole in holes)
    rings = [ring for polygon in polygons for ring in polygon]
    assert_array_equal(filled(rings, mask.shape), mask)


def test_an_l_has_six_corners():
    ((ring,),) = trace_outlines(np.array([[True, False], [True, True]]))
    assert {tuple(corner) for corner in ring} == {(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (0, 2)}


def test_pieces_that_touch_in_a_corner_are_two_polygons():
    polygons = trace_outlines(np.eye(2, dtype=bool))
    assert [len(polygon) for polygon in polygons] == [1, 1]


def test_holes_that_touch_in_a_corner_are_two_rings():
    mask = np.ones((4, 4), bool)
    mask[1, 1] = mask[2, 2] = False
    ((outer, *holes),) = trace_outlines(mask)
    assert signed_area(outer) == 16
    assert [signed_area(hole) for hole in holes] == [-1, -1]


@pytest.mark.parametrize("seed", range(20))
def test_slanted_outlines_equal_scikit_image(seed):
    ring = np.random.default_rng(seed).uniform(-4, 14, (6, 2))  # it also leaves the image
    expected = polygon2mask((9, 8), ring[:, ::-1] - 0.5)
    assert_array_equal(filled([ring], (9, 8)), expected)


def test_a_centre_on_a_shared_edge_belongs_to_one_area():
    left = filled([[(0, 0), (2.5, 0), (2.5, 3), (0, 3)]], (3, 5))
    right = filled([[(2.5, 0), (5, 0), (5, 3), (2.5, 3)]], (3, 5))
    assert_array_equal(left.sum(axis=0), [3, 3, 0, 0, 0])
    assert_array_equal(left ^ right, np.ones((3, 5)))
    assert not (left & right).any()


def test_outlines_outside_the_image_fill_nothing():
    assert not filled([[(10, 10), (12, 10), (12, 12)]], (5, 5)).any()
    assert not filled([[(-9, -9), (-2, -9), (-2, -2)]], (5, 5)).any()
