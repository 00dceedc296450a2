"""A one-to-one matching that stays as large as possible while points are added."""

import numpy as np
from scipy.sparse import coo_array

from ._matching import pairs_within


class GrowingMatching:
    """The largest matching of true points with the predicted points added so far.

    A point adds a pair if, and only if, an augmenting path leads from it to a true point without
    a partner (Berge 1957, https://doi.org/10.1073/pnas.43.9.842). The path is found breadth first.

    Parameters
    ----------
    points_true, points_pred : ndarray of shape (n_points, n_dims)
        Points, none added yet. Memory grows with the number of pairs within `max_distance`.
    max_distance : float
        Largest distance of a pair, as in `match_points`.
    """

    def __init__(self, points_true, points_pred, *, max_distance):
        i, j = pairs_within(points_true, points_pred, max_distance)
        shape = len(points_pred), len(points_true)
        pairs = coo_array((np.ones(len(i), dtype=bool), (j, i)), shape=shape).tocsr()
        self._near = np.split(pairs.indices, pairs.indptr[1:-1])
        self._true_of = np.full(len(points_pred), -1)
        self._pred_of = np.full(len(points_true), -1)
        self._came_from = np.empty(len(points_true), dtype=int)  # the predicted point before
        self._in_search = np.full(len(points_true), -1)  # the last one that reached a true point

    def add(self, index):
        """Add a predicted point; indices must ascend. Return whether there is one pair more."""
        queue = [index]
        for pred in queue:
            reached = self._near[pred]
            reached = reached[self._in_search[reached] < index]
            self._in_search[reached], self._came_from[reached] = index, pred
            partners = self._pred_of[reached]
            if (partners < 0).any():
                self._augment(reached[partners.argmin()])
                return True
            queue.extend(partners.tolist())
        # From what was reached in vain no later search would reach a free true point either.
        self._in_search[self._in_search == index] = len(self._near)
        return False

    def _augment(self, free):
        """Give each predicted point on the path to a free true point the one it led to."""
        while free >= 0:
            pred = self._came_from[free]
            self._pred_of[free] = pred
            self._true_of[pred], free = free, self._true_of[pred]
