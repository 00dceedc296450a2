import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sklearn_micranet.displays._outlines import check_objects, draw_outlines, outline_segments


def as_set(segments):
    return {tuple(map(tuple, segment)) for segment in segments.tolist()}


def test_outline_of_a_rectangle_lies_at_its_pixel_edges():
    mask = np.zeros((6, 8), bool)
    mask[1:3, 2:6] = True
    assert as_set(outline_segments(mask)) == {
        ((1.5, 0.5), (5.5, 0.5)),
        ((1.5, 2.5), (5.5, 2.5)),
        ((1.5, 0.5), (1.5, 2.5)),
        ((5.5, 0.5), (5.5, 2.5)),
    }


def test_objects_at_the_border_are_closed():
    assert as_set(outline_segments(np.ones((1, 1), bool))) == {
        ((-0.5, -0.5), (0.5, -0.5)),
        ((-0.5, 0.5), (0.5, 0.5)),
        ((-0.5, -0.5), (-0.5, 0.5)),
        ((0.5, -0.5), (0.5, 0.5)),
    }


def test_instances_that_touch_have_a_line_between_them():
    instances = np.array([[1, 1, 2, 2]])
    assert ((1.5, -0.5), (1.5, 0.5)) in as_set(outline_segments(instances))
    assert ((1.5, -0.5), (1.5, 0.5)) not in as_set(outline_segments(instances > 0))


def test_an_empty_mask_has_no_outline():
    assert outline_segments(np.zeros((5, 5), bool)).shape == (0, 2, 2)
    drawn = draw_outlines(plt.figure().subplots(), np.zeros((5, 5), bool), "red")
    assert len(drawn.get_path().vertices) == 0


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.int32, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 2))
)
def test_lines_lie_wherever_neighbours_differ_and_nowhere_else(labels):
    padded = np.pad(labels, 1)
    unit_edges = set()
    for (x0, y0), (x1, y1) in outline_segments(labels):
        n = round(x1 - x0 + y1 - y0)
        assert n > 0
        dx, dy = (x1 - x0) / n, (y1 - y0) / n
        unit_edges |= {(x0 + i * dx, y0 + i * dy, dx, dy) for i in range(n)}
    expected = set()
    for row in range(padded.shape[0] - 1):
        for column in range(padded.shape[1] - 1):
            x, y = column - 0.5, row - 0.5  # of the corner right below this pixel
            if padded[row, column] != padded[row + 1, column]:
                expected.add((x - 1, y, 1, 0))
            if padded[row, column] != padded[row, column + 1]:
                expected.add((x, y - 1, 0, 1))
    assert unit_edges == expected


def test_drawn_as_one_path_of_separate_lines():
    mask = np.zeros((6, 8), bool)
    mask[1:3, 2:6] = True
    ax = plt.figure().subplots()
    drawn = draw_outlines(ax, mask, "#123456")
    segments = drawn.get_path().vertices.reshape(-1, 2, 2)
    assert as_set(segments) == as_set(outline_segments(mask))
    assert drawn.get_path().codes.tolist() == [1, 2] * 4  # move, line
    np.testing.assert_allclose(drawn.get_edgecolor()[:3], np.array([0x12, 0x34, 0x56]) / 255)
    assert not drawn.get_fill()


def test_objects_are_checked():
    assert check_objects(np.array([[[0, 0.5]]]), "masks", (1, 2)).tolist() == [[[False, True]]]
    assert check_objects(np.array([[[0, 5]]]), "masks", (1, 2)).tolist() == [[[0, 5]]]
    for shape in [(4, 5), (2, 5, 4), (0, 4, 5)]:
        with pytest.raises(
            ValueError, match=r"shape \(n_maps, height, width\), here \(n_maps, 4, 5"
        ):
            check_objects(np.zeros(shape), "masks", (4, 5))
    with pytest.raises(ValueError, match="Input masks contains NaN"):
        check_objects(np.full((1, 4, 5), np.nan), "masks", (4, 5))
