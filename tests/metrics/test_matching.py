import tracemalloc
from itertools import combinations, permutations
from math import dist

import numpy as np
import pytest
from cases import POINT_CASES
from numpy.testing import assert_array_equal
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sklearn_micranet.metrics import match_points


def best_by_brute_force(points_true, points_pred, max_distance):
    """Number of pairs and summed distance of the best of all partial matchings."""
    best = (0, 0.0)
    for n_pairs in range(1, min(len(points_true), len(points_pred)) + 1):
        for chosen in combinations(points_true, n_pairs):
            for partners in permutations(points_pred, n_pairs):
                distances = [dist(a, b) for a, b in zip(chosen, partners, strict=True)]
                if max(distances) <= max_distance:
                    best = min(best, (-n_pairs, sum(distances)))
    return -best[0], best[1]


def total_distance(points_true, points_pred, index_true, index_pred):
    return np.linalg.norm(points_true[index_true] - points_pred[index_pred], axis=1).sum()


@pytest.mark.parametrize("scale", [1e-9, 0.001, 0.1, 1, 1e6])
@pytest.mark.parametrize("case", POINT_CASES.values(), ids=POINT_CASES)
def test_known_answers_in_any_unit(case, scale):
    points_true = scale * np.array(case.points_true)
    points_pred = scale * np.array(case.points_pred)
    index_true, index_pred = match_points(
        points_true, points_pred, max_distance=scale * case.max_distance
    )
    assert list(zip(index_true, index_pred, strict=True)) == case.pairs
    assert total_distance(points_true, points_pred, index_true, index_pred) == pytest.approx(
        scale * case.total_distance
    )


@pytest.mark.parametrize("scale", [1e-3, 1, 1e6])
@pytest.mark.parametrize("max_distance", [0.2, 0.5, np.inf])
def test_equals_brute_force(scale, max_distance):
    rng = np.random.default_rng(0)
    # Of each 5 x 5 case there are 1545 partial matchings: fewer of the large ones suffice.
    sizes = [rng.integers(0, 5, 2) for _ in range(40)] + [(5, 5)] * 3 + [(3, 5), (5, 3)]
    for n_true, n_pred in sizes:
        points_true = scale * rng.random((n_true, 2))
        points_pred = scale * rng.random((n_pred, 2))
        index_true, index_pred = match_points(
            points_true, points_pred, max_distance=scale * max_distance
        )
        n_pairs, distance = best_by_brute_force(points_true, points_pred, scale * max_distance)
        assert len(index_true) == len(index_pred) == n_pairs
        assert total_distance(points_true, points_pred, index_true, index_pred) == pytest.approx(
            distance, rel=1e-9, abs=0
        )


def dense_answer(points_true, points_pred, max_distance):
    """Number of pairs and summed distance when all points are matched at once."""
    costs = cdist(points_true, points_pred)
    allowed = costs <= max_distance
    rows, columns = linear_sum_assignment(np.where(allowed, costs, 1e6))
    made = allowed[rows, columns]
    return made.sum(), costs[rows, columns][made].sum()


@pytest.mark.parametrize("max_distance", [1, 3, 5, 8, 40])
def test_separate_groups_give_the_answer_of_all_points_at_once(max_distance):
    rng = np.random.default_rng(0)
    points_true, points_pred = rng.uniform(0, 100, (300, 2)), rng.uniform(0, 100, (260, 2))
    index_true, index_pred = match_points(points_true, points_pred, max_distance=max_distance)
    assert (np.diff(index_true) > 0).all()
    assert len(np.unique(index_pred)) == len(index_pred)
    n_pairs, distance = dense_answer(points_true, points_pred, max_distance)
    assert len(index_true) == n_pairs
    assert total_distance(points_true, points_pred, index_true, index_pred) == pytest.approx(
        distance
    )


def test_memory_grows_with_the_pairs_that_are_possible():
    rng = np.random.default_rng(0)
    points_true, points_pred = rng.uniform(0, 1000, (2, 4000, 2))
    tracemalloc.start()
    index_true, _ = match_points(points_true, points_pred, max_distance=5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index_true) > 500
    assert peak < 4000 * 4000 * 20 / 50


def test_rounding_does_not_decide_about_max_distance():
    assert 0.4 - 0.3 > 0.1
    index_true, _ = match_points([[0.3]], [[0.4]], max_distance=0.1)
    assert_array_equal(index_true, [0])


def test_a_large_max_distance_costs_no_precision():
    # Near zero, the crossed matching is better by 2e-12, or 1e-18 of max_distance. The points far
    # away make forbidden pairs, of a much larger cost, take part.
    points_true = [[0.0], [3e-12], [-5e6]]
    points_pred = [[2e-12], [1e-12], [5e6]]
    index_true, index_pred = match_points(points_true, points_pred, max_distance=2e6)
    assert_array_equal(index_true, [0, 1])
    assert_array_equal(index_pred, [1, 0])


def test_zero_max_distance_matches_equal_points_only():
    index_true, index_pred = match_points(
        [[1, 2], [3, 4]], [[3, 4], [1, 2.001], [3, 4]], max_distance=0
    )
    assert_array_equal(index_true, [1])
    assert index_pred[0] in (0, 2)


def test_three_dimensions():
    index_true, index_pred = match_points(
        [[0, 0, 0], [0, 0, 9]], [[0, 1, 9], [1, 0, 0]], max_distance=2
    )
    assert_array_equal(index_true, [0, 1])
    assert_array_equal(index_pred, [1, 0])


@pytest.mark.parametrize("empty", [[], np.empty((0, 2))])
@pytest.mark.parametrize("max_distance", [0, 1, np.inf])
def test_no_points_no_pairs(empty, max_distance):
    points = [[0.0, 0.0], [1.0, 1.0]]
    for points_true, points_pred in [(empty, points), (points, empty), (empty, empty)]:
        for index in match_points(points_true, points_pred, max_distance=max_distance):
            assert index.shape == (0,)
            assert index.dtype == np.intp


@pytest.mark.parametrize("max_distance", [-1, -np.inf, np.nan])
def test_impossible_max_distance_raises(max_distance):
    with pytest.raises(ValueError, match=rf"max_distance must be at least 0\. Got {max_distance}"):
        match_points([[0, 0]], [[0, 0]], max_distance=max_distance)


def test_max_distance_that_is_no_number_raises():
    with pytest.raises(TypeError, match="max_distance must be an instance of"):
        match_points([[0, 0]], [[0, 0]], max_distance="3")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_points_that_are_not_finite_raise(value):
    with pytest.raises(ValueError, match="Input points_true contains"):
        match_points([[0, value]], [[0, 0]], max_distance=1)
    with pytest.raises(ValueError, match="Input points_pred contains"):
        match_points([[0, 0]], [[0, value]], max_distance=1)


def test_points_of_wrong_shape_raise():
    with pytest.raises(ValueError, match=r"dimensions of points_true, 2\. Got 3 instead"):
        match_points([[0, 0]], [[0, 0, 0]], max_distance=1)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        match_points([0, 0], [[0, 0]], max_distance=1)
