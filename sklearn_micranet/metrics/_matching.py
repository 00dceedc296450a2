"""One-to-one matching of points."""

from numbers import Real

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist
from sklearn.utils import check_array

from sklearn_micranet._stack._numbers import check_scalar

# Rounding of a distance must not decide whether it lies within `max_distance`: 0.4 - 0.3 > 0.1.
RELATIVE_ROUNDING = 1e-9


def match_points(points_true, points_pred, *, max_distance):
    """Match points one-to-one, as many as possible and then as closely as possible.

    Among all ways to pair points no farther apart than `max_distance`, take those with the most
    pairs, and among these the one with the smallest sum of Euclidean distances (the Hungarian
    algorithm, `scipy.optimize.linear_sum_assignment`).

    Parameters
    ----------
    points_true : array-like of shape (n_points_true, n_dims)
        True points, for example (row, column) in px. ``[]`` stands for no points.
    points_pred : array-like of shape (n_points_pred, n_dims)
        Predicted points, in the same unit.
    max_distance : float
        Largest distance of a pair, inclusive, in the unit of the points; 0 pairs equal points
        only, ``np.inf`` allows any pair. Distances beyond it by less than a billionth of it are
        taken for rounding errors and allowed, so that the choice of unit changes nothing.

    Returns
    -------
    index_true : ndarray of shape (n_pairs,), int
        Indices into `points_true`, ascending.
    index_pred : ndarray of shape (n_pairs,), int
        Indices into `points_pred` of their partners.

    Raises
    ------
    TypeError
        If `max_distance` is not a number.
    ValueError
        If `max_distance` is negative or NaN, if points are not finite or not two-dimensional
        arrays, or if their numbers of dimensions differ.

    Notes
    -----
    Points that no chain of pairs within `max_distance` connects are matched separately. Memory
    grows with the number of pairs within `max_distance`, and with the combinations of true and
    predicted points in the largest group of connected points: at most about 20 bytes for each
    combination of all points, 2 GB for 10,000 points on either side, if `max_distance` is so large
    that it excludes few pairs. Time grows with the cube of the number of points in such a group.

    Examples
    --------
    The closest two points are not a pair here, because that would leave the others alone:

    >>> from sklearn_micranet.metrics import match_points
    >>> index_true, index_pred = match_points([[0, 0], [0, 3]], [[0, 2], [0, 5]], max_distance=3)
    >>> index_true.tolist(), index_pred.tolist()
    ([0, 1], [0, 1])
    """
    check_max_distance(max_distance)
    points_true = check_points(points_true, "points_true")
    points_pred = check_points(points_pred, "points_pred")
    no_pairs = np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    if len(points_true) == 0 or len(points_pred) == 0:
        return no_pairs
    if points_pred.shape[1] != points_true.shape[1]:
        raise ValueError(
            "points_pred must have the number of dimensions of points_true, "
            f"{points_true.shape[1]}. Got {points_pred.shape[1]} instead."
        )

    matched_true, matched_pred = [no_pairs[0]], [no_pairs[1]]
    for group_true, group_pred, *_ in _point_groups(points_true, points_pred, max_distance):
        costs = cdist(points_true[group_true], points_pred[group_pred])
        i, j = assign(costs, costs <= _largest_distance(max_distance))
        matched_true.append(group_true[i])
        matched_pred.append(group_pred[j])
    index_true, index_pred = np.concatenate(matched_true), np.concatenate(matched_pred)
    order = np.argsort(index_true)
    return index_true[order], index_pred[order]


def assign(costs, allowed):
    """Return the indices of the most allowed pairs, and among these of the cheapest together.

    `costs` are not negative; both arrays have the shape (n_true, n_pred). Costs are overwritten.
    """
    # Allowed pairs cost at most 1 whatever the unit, so even all of them together cost less than
    # a single forbidden pair: the number of allowed pairs comes first, their costs second.
    largest = costs.max(where=allowed, initial=0)
    if largest > 0:
        costs /= largest
    costs[~allowed] = min(costs.shape) + 1
    index_true, index_pred = linear_sum_assignment(costs)
    matched = allowed[index_true, index_pred]
    return index_true[matched], index_pred[matched]


def connected_groups(index_true, index_pred):
    """Split pairs into groups that share no point.

    Parameters
    ----------
    index_true, index_pred : ndarray of shape (n_pairs,), int

    Yields
    ------
    group_true, group_pred : ndarray of int
        Indices of the points of a group, ascending.
    pairs : ndarray of int
        Indices of its pairs.
    """
    if len(index_true) == 0:
        return
    true, i = np.unique(index_true, return_inverse=True)
    pred, j = np.unique(index_pred, return_inverse=True)
    n_points = len(true) + len(pred)
    graph = coo_array((np.ones(len(i), dtype=bool), (i, len(true) + j)), shape=(n_points,) * 2)
    _, group = connected_components(graph, directed=False)
    members = (
        (true, group[: len(true)]),
        (pred, group[len(true) :]),
        (np.arange(len(i)), group[i]),
    )
    yield from zip(
        *(
            np.split(index[np.argsort(of, kind="stable")], np.cumsum(np.bincount(of))[:-1])
            for index, of in members
        ),
        strict=True,
    )


def pairs_within(points_true, points_pred, max_distance):
    """Return the indices of all pairs no farther apart than `max_distance`, in no order."""
    pairs = KDTree(points_true).sparse_distance_matrix(
        KDTree(points_pred), _largest_distance(max_distance), output_type="ndarray"
    )
    return pairs["i"], pairs["j"]


def _point_groups(points_true, points_pred, max_distance):
    """Return groups of true and predicted points that can be matched separately."""
    n_true, n_pred = len(points_true), len(points_pred)
    n_pairs = KDTree(points_true).count_neighbors(
        KDTree(points_pred), _largest_distance(max_distance)
    )
    if n_pairs > n_true * n_pred / 8:  # a list of the pairs would need more memory than it saves
        return [(np.arange(n_true), np.arange(n_pred))]
    return connected_groups(*pairs_within(points_true, points_pred, max_distance))


def _largest_distance(max_distance):
    return max_distance * (1 + RELATIVE_ROUNDING)


def check_max_distance(max_distance):
    """Raise unless `max_distance` is a distance."""
    check_scalar(max_distance, "max_distance", Real)
    if not max_distance >= 0:  # also refuses NaN
        raise ValueError(f"max_distance must be at least 0. Got {max_distance} instead.")


def check_points(points, name):
    """Return points as a finite float64 array of shape (n_points, n_dims); ``[]`` is (0, 1)."""
    if np.shape(points) == (0,):
        return np.empty((0, 1))
    if np.asarray(points).dtype.kind not in "iuf":
        raise ValueError(
            f"{name} must hold positions, numbers in px; a class is its index, counted from 0. Got "
            f"{np.asarray(points).dtype} instead."
        )
    return check_array(points, dtype=np.float64, ensure_min_samples=0, input_name=name)
