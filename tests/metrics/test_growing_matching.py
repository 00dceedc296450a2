import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial.distance import cdist

from sklearn_micranet.metrics._growing_matching import GrowingMatching

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=14)


@given(POINTS, POINTS, st.sampled_from([0, 1, 1.5, 3, np.inf]))
@settings(deadline=None, max_examples=60)
def test_is_the_largest_matching_after_each_point(points_true, points_pred, max_distance):
    points_true, points_pred = np.array(points_true, float), np.array(points_pred, float)
    near = csr_array(cdist(points_pred, points_true) <= max_distance)
    matching, n_pairs = GrowingMatching(points_true, points_pred, max_distance=max_distance), 0
    for i in range(len(points_pred)):
        n_pairs += matching.add(i)
        # Hopcroft and Karp's algorithm, from nothing.
        assert n_pairs == np.sum(maximum_bipartite_matching(near[: i + 1]) >= 0)


@pytest.mark.parametrize(("order", "grows"), [([0, 1, 2], [1, 1, 0]), ([1, 0, 2], [1, 1, 0])])
def test_others_give_way_along_a_path(order, grows):
    # Two true points. The predicted points are near both, near the first only, near the first only.
    points_true, points_pred = np.array([[0.0], [4.0]]), np.array([[2.0], [-1.0], [-2.0]])
    matching = GrowingMatching(points_true, points_pred[order], max_distance=2)
    assert [matching.add(i) for i in range(3)] == grows
