import numpy as np
from numpy.testing import assert_array_equal

from sklearn_micranet._fields._grid import WindowGrid, bands_of, blocks_of


def test_a_grid_by_hand():
    grid = WindowGrid((50, 100), size=40, step=24)
    assert grid.n_windows == (2, 4)  # rows 0 and 24; columns 0, 24, 48 and 72
    assert grid.corner(5) == (24, 24)
    assert grid.block == 8
    assert grid.n_blocks == (8, 14)  # 24 + 40 and 72 + 40 px


def test_tiles_cover_the_blocks_in_multiples_of_them():
    grid = WindowGrid((50, 100), size=40, step=24)
    rows = list(grid.rows_of_tiles(50))  # 56 px
    assert rows == [[(0, 56, 0, 56), (0, 56, 56, 112)], [(56, 64, 0, 56), (56, 64, 56, 112)]]


def test_a_field_of_one_window():
    grid = WindowGrid((40, 40), size=40, step=24)
    assert grid.n_windows == (1, 1)
    assert list(grid.rows_of_tiles(100)) == [[(0, 40, 0, 40)]]


def test_squares_of_a_field():
    assert blocks_of((5, 7), 4) == [(0, 4, 0, 4), (0, 4, 4, 7), (4, 5, 0, 4), (4, 5, 4, 7)]


def test_bands_lie_across_the_longer_side():
    corners = np.array([(row, column) for row in (0, 16) for column in range(0, 16 * 21, 16)])
    expected = [0, 0, 0, *np.repeat(range(1, 10), 2)]  # of 21 columns
    assert_array_equal(bands_of(corners), expected * 2)
    assert_array_equal(bands_of(corners[:3]), [0, 1, 2])
    assert_array_equal(bands_of(corners[:1]), [0])
