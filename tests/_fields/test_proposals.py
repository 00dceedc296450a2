import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_micranet._fields._grid import WindowGrid
from sklearn_micranet._fields._proposals import proposal_table, rank_windows

# Windows of 4 px, 2 px apart, in a field of 4 x 8 px: they start at columns 0, 2 and 4.
GRID = WindowGrid((4, 8), 4, 2)


def test_windows_that_overlap_a_better_one_are_left_out():
    scores = np.array([[0.5, 0.9, 0.7]])
    ranked, areas = rank_windows([scores], [GRID], max_overlap=0)
    assert_array_equal(ranked, [[0, 0, 1]])
    assert_array_equal(areas, [16])


def test_half_of_a_window_may_have_been_seen():
    scores = np.array([[0.5, 0.9, 0.7]])
    ranked, areas = rank_windows([scores], [GRID], max_overlap=0.5)
    assert_array_equal(ranked, [[0, 0, 1], [0, 0, 2], [0, 0, 0]])
    assert_array_equal(areas, [16, 8, 8])


def test_windows_of_several_fields_are_ranked_together():
    scores = [np.array([[0.5, 0.1, 0.7]]), np.array([[0.6, 0.1, 0.2]])]
    ranked, _ = rank_windows(scores, [GRID, GRID], max_overlap=0)
    assert_array_equal(ranked, [[0, 0, 2], [1, 0, 0], [0, 0, 0], [1, 0, 2]])
    ranked, _ = rank_windows(scores, [GRID, GRID], max_overlap=0, n_windows=2)
    assert_array_equal(ranked, [[0, 0, 2], [1, 0, 0]])


def test_only_what_lies_in_the_field_counts():
    grid = WindowGrid((3, 5), 4, 2)  # windows at columns 0 and 2, the second of 3 x 3 px
    ranked, areas = rank_windows([np.array([[0.1, 0.2]])], [grid], max_overlap=0.7)
    assert_array_equal(ranked, [[0, 0, 1], [0, 0, 0]])
    assert_array_equal(areas, [9, 6])


def test_the_table_of_two_maps():
    scores = np.array([[[0.1, 0.6], [0.0, 0.0], [0.9, 0.2]]])
    table = proposal_table([scores], [GRID], None, 0, None)
    assert_array_equal(table["map_index"], [0, 1])
    assert_allclose(table["score"], [0.9, 0.6])
    assert_array_equal(table["first_column"], [4, 0])
    assert_array_equal(table["end_column"], [8, 4])
    assert_allclose(table["inspected"], [0.5, 1])
    table = proposal_table([scores], [GRID], 1, 0, None)
    assert_array_equal(table["map_index"], [1, 1])
    assert_allclose(table["score"], [0.6, 0.2])


def test_no_proposal():
    table = proposal_table([np.zeros((1, 3, 1))], [GRID], None, 0, 0)
    assert {len(column) for column in table.values()} == {0}
