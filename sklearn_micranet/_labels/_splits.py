"""Splits in which every class is represented."""

import numpy as np

from sklearn_micranet._stack._warnings import warn_user

from ._hints import is_missing


def check_groups(groups, n_samples):
    """Return the groups of samples as an array; None stays None."""
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != (n_samples,):
        raise ValueError(
            f"groups must hold one entry for each of the {n_samples} images. Got the shape "
            f"{groups.shape} instead."
        )
    if is_missing(groups).any():
        raise ValueError(
            "groups must hold the group of each image. Got None, NaN or NA instead: give images "
            "that belong to no group a group of their own."
        )
    return groups


def check_weights(sample_weight, n_samples):
    """Return the weights of samples as an array of float; None stays None."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=float)
    if weights.shape != (n_samples,) or not ((weights >= 0) & (weights < np.inf)).all():
        raise ValueError(
            f"sample_weight must hold one finite weight >= 0 for each of the {n_samples} images. "
            f"Got {sample_weight!r:.80} instead."
        )
    return weights


def split_off_validation(indicator, fraction, random_state, groups=None):
    """Set aside a share of the samples of every class.

    Classes are served rarest first (iterative stratification [1]_): of the samples of a class
    that are not given to either part yet, as many are drawn as its share still lacks. What is
    rounded off is carried over to the next class, and one sample of each class is left for
    training.

    Parameters
    ----------
    indicator : ndarray of bool of shape (n_samples, n_classes)
        Classes that a sample contains.
    fraction : float in [0, 1)
    random_state : RandomState instance
    groups : ndarray of shape (n_samples,), default=None
        Samples of one group, such as crops of one image, stay together: then the share is one of
        the groups, and a group contains the classes of its samples.

    Returns
    -------
    train, valid : ndarrays of int
        Indices in ascending order. `valid` is empty if the fraction amounts to less than one
        sample or leaves fewer than two for training, and where every sample is needed there.

    References
    ----------
    .. [1] Sechidis et al., "On the stratification of multi-label data", ECML PKDD 2011.
       :doi:`10.1007/978-3-642-23808-6_10`
    """
    if groups is not None:
        of_groups, number = _indicator_of_groups(indicator, groups)
        is_valid = np.isin(number, split_off_validation(of_groups, fraction, random_state)[1])
        return np.flatnonzero(~is_valid), np.flatnonzero(is_valid)
    n_samples = len(indicator)
    n_valid = round(fraction * n_samples)
    if n_valid < 1 or n_samples - n_valid < 2:
        return np.arange(n_samples), np.arange(0)
    is_free = np.ones(n_samples, dtype=bool)
    is_valid = np.zeros(n_samples, dtype=bool)
    carried = 0.0
    for k in np.argsort(indicator.sum(axis=0), kind="stable"):
        members = np.flatnonzero(indicator[:, k] & is_free)
        n_train = (indicator[:, k] & ~is_valid).sum()
        lacking = fraction * indicator[:, k].sum() - is_valid[indicator[:, k]].sum() + carried
        n_drawn = max(0, min(round(lacking), len(members), n_train - 1))
        carried = float(np.clip(lacking - n_drawn, -0.5, 0.5))
        is_valid[random_state.permutation(members)[:n_drawn]] = True
        is_free[members] = False
    lacking = n_valid - is_valid.sum()
    is_valid[random_state.permutation(np.flatnonzero(is_free))[: max(0, lacking)]] = True
    return np.flatnonzero(~is_valid), np.flatnonzero(is_valid)


def _indicator_of_groups(indicator, groups):
    """Return which classes each group contains, and the number of the group of each sample."""
    names, number = np.unique(groups, return_inverse=True)
    of_groups = np.zeros((len(names), indicator.shape[1]), dtype=bool)
    np.logical_or.at(of_groups, number, indicator)
    return of_groups, number


def warn_of_few_groups(fraction, groups, shows_class=None):
    """Warn if a share of the images was to be set aside, and their groups are too few for it.

    Those of the images that show a class, if `shows_class`, bool of shape (n_samples,), is given.
    """
    if fraction and groups is not None and round(fraction * len(groups)) >= 1:
        of, used = (
            ("images", groups)
            if shows_class is None
            else ("images with a class", groups[shows_class])
        )
        warn_user(
            f"No image is set aside to monitor the training: {len(np.unique(used))} group(s) of "
            f"{of} are too few for validation_fraction={fraction}. Pass X_val and y_val, or "
            "validation_fraction=0."
        )


def stratified_splits(indicator, n_folds, random_state, groups=None):
    """Return (train, test) indices of folds in which every class is represented evenly.

    Samples of one group, such as crops of one image, are in one fold.
    """
    if groups is not None:
        of_groups, number = _indicator_of_groups(indicator, groups)
        parts = stratified_splits(of_groups, n_folds, random_state)
        return [tuple(np.flatnonzero(np.isin(number, part)) for part in pair) for pair in parts]
    everything = left = np.arange(len(indicator))
    if len(left) < max(n_folds, 3):
        raise ValueError(
            "cv must not be more folds than there are images, or groups of them, at least three. "
            f"Got {n_folds} folds of {len(left)} image(s) or group(s) instead."
        )
    folds = []
    for n_left in range(n_folds, 1, -1):
        fraction = 1 / 3 if len(left) == 3 else 1 / n_left  # of three, a half would leave one
        kept, drawn = split_off_validation(indicator[left], fraction, random_state)
        folds.append(left[drawn])
        left = left[kept]
    # Two images are never split: the last two of as many folds as images are one.
    return [(np.setdiff1d(everything, fold), fold) for fold in [*folds, left] if len(fold)]


def check_folds(parts, indicator, classes):
    """Raise a ValueError if a network would be trained with a class in none or all images."""
    for train, _ in parts:
        part = indicator[train]
        lost = (part == part[:1]).all(axis=0) & (indicator != indicator[:1]).any(axis=0)
        if lost.any():
            raise ValueError(
                "The images outside each fold of cv must include some with and some without each "
                f"class. Got a fold that leaves {classes[lost].tolist()} in all or none of the "
                "images to train on instead. Use fewer folds, or pass other ones as cv; where a "
                "class is in a single image, or in all but one, train without cv."
            )
