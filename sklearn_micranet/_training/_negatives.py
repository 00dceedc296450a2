"""How many images without a class an epoch has, and which ones."""

import numpy as np


def n_negatives(is_positive, negatives_per_positive):
    """Return how many images without a class an epoch has, at least one if there is one."""
    wanted = max(1, round(negatives_per_positive * is_positive.sum()))
    return min(int((~is_positive).sum()), wanted)


def draw_negatives(is_positive, negatives_per_positive, permutation):
    """Return the positions of the positive images and of negative ones drawn for them, ascending.

    Parameters
    ----------
    is_positive : ndarray of bool of shape (n_samples,)
    negatives_per_positive : float
    permutation : callable
        Returns the numbers below an int in random order.
    """
    negative = np.flatnonzero(~is_positive)
    n_drawn = n_negatives(is_positive, negatives_per_positive)
    drawn = negative[permutation(len(negative))[:n_drawn]]
    return np.sort(np.concatenate([np.flatnonzero(is_positive), drawn]))
