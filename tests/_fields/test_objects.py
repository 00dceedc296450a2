import numpy as np
from cases import instances as drawn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from skimage.draw import disk

from sklearn_micranet._fields._grid import WindowGrid
from sklearn_micranet._fields._objects import FieldObjects, Window, pieces_of

CONNECTED = np.ones((3, 3))


def windows_of(truth, grid):
    """What a perfect segmentation of each window would show of a field's mask or instances."""
    for index in range(np.prod(grid.n_windows)):
        row, column = grid.corner(index)
        part = truth[row : row + grid.size, column : column + grid.size]
        labels = ndimage.label(part, CONNECTED)[0] if truth.dtype == bool else part
        pieces = pieces_of(labels[None], (row, column), truth.shape)
        yield Window((row, column), np.array([index / 100]), pieces)


def whole(objects, shape):
    painted = np.zeros((objects.n_maps, *shape), dtype=np.int32)
    for square in objects.squares:
        painted[:, square[0] : square[1], square[2] : square[3]] = objects.paint(square)
    return painted


def put_together(truth, size, step, block_size=32):
    grid = WindowGrid(truth.shape, size, step)
    objects = FieldObjects(list(windows_of(truth, grid)), grid, 1, block_size)
    return objects, whole(objects, truth.shape)[0]


def renumbered(labels):
    """Number objects by their first pixels."""
    values, first = np.unique(labels, return_index=True)
    order = values[np.argsort(first)]
    order = order[order != 0]
    renamed = np.zeros_like(labels)
    for i, value in enumerate(order, start=1):
        renamed[labels == value] = i
    return renamed


@given(
    height=st.integers(32, 90),
    width=st.integers(32, 90),
    size=st.sampled_from([16, 24, 32]),
    step=st.sampled_from([8, 12, 16, 24, 32]),
    block_size=st.integers(5, 100),
    seed=st.integers(0, 10**6),
)
@example(height=54, width=69, size=16, step=16, block_size=5, seed=2)  # corners touch
@settings(deadline=None, max_examples=40)
def test_masks_and_numbers_do_not_depend_on_the_windows(
    height, width, size, step, block_size, seed
):
    step = min(step, size)
    rng = np.random.default_rng(seed)
    truth = np.zeros((height, width), dtype=bool)
    for _ in range(4):
        centre = rng.uniform((0, 0), (height, width))
        truth[disk(centre, rng.uniform(1, 14), shape=truth.shape)] = True
    labels, n = ndimage.label(truth, CONNECTED)
    objects, found = put_together(truth, size, step, block_size)
    assert_array_equal(found > 0, truth)
    assert set(np.unique(found)) - {0} == set(range(1, n + 1))
    assert len(objects.table) == n
    assert_array_equal(renumbered(found), renumbered(labels))


def test_an_object_at_every_place_of_the_grid_has_one_number_and_its_measures():
    size, step = 32, 16
    for row, column in [(r, c) for r in range(20, 37, 3) for c in range(20, 37, 3)]:
        truth = np.zeros((96, 96), dtype=bool)
        truth[row : row + 12, column : column + 9] = True
        objects, found = put_together(truth, size, step)
        assert_array_equal(found, truth)
        assert_allclose(objects.table[:, [0, 1, 2, 4]], [[0, row + 5.5, column + 4, 108]])


def test_an_object_across_windows_that_share_no_pixel_is_one():
    truth = np.zeros((64, 64), dtype=bool)
    truth[20:44, 30:34] = True  # across four windows
    objects, found = put_together(truth, 32, 32)
    assert_array_equal(found, truth)
    assert len(objects.table) == 1


def test_objects_that_touch_stay_apart():
    truth = drawn(*["....11112222...."] * 8)
    objects, found = put_together(truth, 8, 4)
    assert_array_equal(found, truth)
    assert_array_equal(objects.table[:, 4], [32, 32])


def test_a_pixel_is_taken_from_the_nearest_window_that_shows_an_object():
    # The windows disagree: one shows rows 2 to 5 as an object, the other rows 2 to 6.
    one, other = np.zeros((2, 1, 8, 8), dtype=int)
    one[0, 2:6, 2:6] = 1
    other[0, 2:7, :2] = 1  # columns 4 and 5 of the field
    windows = [
        Window((0, column), np.array([score]), pieces_of(labels, (0, column), (8, 12)))
        for column, score, labels in ((0, 0.7, one), (4, 0.9, other))
    ]
    objects = FieldObjects(windows, WindowGrid((8, 12), 8, 4), 1, 100)
    # The centres are at columns 3.5 and 7.5: columns 4 and 5 are nearer to the first.
    assert_array_equal(whole(objects, (8, 12))[0, :, :8], one[0])
    assert_allclose(objects.table, [[0, 3.5, 3.5, 0.9, 16]])


def test_each_map_has_numbers_of_its_own():
    labels = np.zeros((2, 8, 8), dtype=int)
    labels[0, 1:3, 1:3], labels[0, 5:7, 5:7], labels[1, 0, 0] = 1, 2, 1
    window = Window((0, 0), np.array([0.5, 0.6]), pieces_of(labels, (0, 0), (8, 8)))
    objects = FieldObjects([window], WindowGrid((8, 8), 8, 8), 2, 4)
    assert_array_equal(whole(objects, (8, 8)), labels)
    assert_allclose(
        objects.table, [[0, 1.5, 1.5, 0.5, 4], [0, 5.5, 5.5, 0.5, 4], [1, 0, 0, 0.6, 1]]
    )


def test_what_a_window_shows_beyond_the_border_is_no_object():
    labels = np.ones((1, 8, 8), dtype=int)
    (piece,) = pieces_of(labels, (4, 0), (6, 8))
    assert piece.first == (4, 0)
    assert piece.mask.shape == (2, 8)


def test_a_field_without_objects():
    objects = FieldObjects([], WindowGrid((16, 16), 8, 8), 2, 8)
    assert objects.squares == []
    assert objects.table.shape == (0, 5)
