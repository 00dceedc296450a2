"""One-to-one matching of points."""

from numbers import Real

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.utils import check_array, check_scalar

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
    Memory grows with ``n_points_true * n_points_pred``, about 20 bytes for each combination:
    2 GB for 10,000 points on either side. Time grows with the cube of the number of points in
    the worst case.

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

    costs = cdist(points_true, points_pred)
    allowed = costs <= max_distance * (1 + RELATIVE_ROUNDING)
    if not allowed.any():
        return no_pairs
    # Allowed pairs cost at most 1 whatever the unit, so even all of them together cost less than
    # a single forbidden pair: the number of allowed pairs comes first, their distances second.
    largest = costs.max(where=allowed, initial=0)
    if largest > 0:
        costs /= largest
    costs[~allowed] = min(costs.shape) + 1
    index_true, index_pred = linear_sum_assignment(costs)
    matched = allowed[index_true, index_pred]
    return index_true[matched], index_pred[matched]


def check_max_distance(max_distance):
    """Raise unless `max_distance` is a distance."""
    check_scalar(max_distance, "max_distance", Real)
    if not max_distance >= 0:  # also refuses NaN
        raise ValueError(f"max_distance must be at least 0. Got {max_distance} instead.")


def check_points(points, name):
    """Return points as a finite float64 array of shape (n_points, n_dims); ``[]`` is (0, 1)."""
    if np.shape(points) == (0,):
        return np.empty((0, 1))
    return check_array(points, dtype=np.float64, ensure_min_samples=0, input_name=name)
