"""The linear layer of windows that share their features, fitted to that of windows cut out."""

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from ._sources import read_block

_ALPHAS = np.logspace(-1, 5, 13)


class Head(NamedTuple):
    """A linear layer."""

    weight: np.ndarray  # (n_outputs, n_features)
    bias: np.ndarray  # (n_outputs,)

    def __call__(self, features):
        # In float64, so that a logit does not depend on how many others are computed with it.
        logits = features.astype(np.float64) @ self.weight.T + self.bias
        return logits.astype(features.dtype)


def fit_head(head, features, logits):
    """Correct a linear layer of shared features, so that its logits come near those of crops.

    The correction is a ridge regression of their difference: with little to learn from, it becomes
    a constant.

    Parameters
    ----------
    head : Head
        The linear layer of the network.
    features : ndarray of shape (n_windows, n_features)
    logits : ndarray of shape (n_windows, n_outputs)
        Of the same windows, cut out.

    Returns
    -------
    head : Head
    r2 : ndarray of shape (n_outputs,)
        Share of the variance of the logits that is explained, of each window by the others.
    """
    scaler = StandardScaler().set_output(transform="default").fit(features.astype(np.float64))
    scaled = scaler.transform(features.astype(np.float64))
    missing = logits - head(features.astype(np.float64))
    ridge = RidgeCV(_ALPHAS, alpha_per_target=True, store_cv_results=True).fit(scaled, missing)
    steps = np.reshape(ridge.coef_, (len(head.bias), -1)) / scaler.scale_
    bias = head.bias + ridge.intercept_ - steps @ scaler.mean_
    squares = ridge.cv_results_.reshape(*logits.shape, -1).mean(axis=0).min(axis=-1)
    variance = logits.var(axis=0)
    r2 = 1 - squares / np.where(variance > 0, variance, np.inf)
    return Head(head.weight + steps, bias), r2


def choose_windows(scores, n, random_state):
    """Return half of the windows by the highest scores, half at random, as indices in order.

    Parameters
    ----------
    scores : ndarray of shape (n_windows,)
    n : int
    random_state : numpy RandomState
    """
    if len(scores) <= n:
        return np.arange(len(scores))
    order = np.argsort(-scores, kind="stable")
    others = random_state.permutation(order[n // 2 :])[: n - n // 2]
    return np.sort(np.concatenate([order[: n // 2], others]))


def read_with_halo(field, corner, size, halo):
    """Return a window with the pixels around it, mirrored beyond the border of the field."""
    (first_row, first_column), end = corner, size + halo
    return read_block(
        field, first_row - halo, first_row + end, first_column - halo, first_column + end
    )
