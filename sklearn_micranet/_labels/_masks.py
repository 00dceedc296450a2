"""Masks that stand for labels, or that are compared with predicted ones."""

import numpy as np
from sklearn.utils.validation import check_consistent_length

from sklearn_micranet._stack._sources import is_ragged, unpacked

from ._hints import n_dims

_MAPS_FIRST = " The axis of the maps is the second: pass `np.moveaxis(masks, -1, 1)`."


def are_masks(y):
    """Whether y is given as masks of shape (n_samples, n_classes, height, width), or instances."""
    y = unpacked(y)
    if isinstance(y, (list, tuple)) or is_ragged(y):
        return len(y) > 0 and n_dims(y[0]) == 3
    return getattr(y, "ndim", 0) == 4


def check_masks(masks, X, size, n_classes=None):
    """Validate masks, or instances, that belong to the images X.

    Parameters
    ----------
    masks : array-like of shape (n_samples, n_classes, height, width)
        Of dtype bool, or of 0 and 1; or instances, integers above 0 inside the objects.
    X : sequence of length n_samples
    size : tuple (height, width) or None
        ``None`` is not compared.
    n_classes : int or None
        ``None`` is not compared.

    Returns
    -------
    masks : ndarray of bool of shape (n_samples, n_classes, height, width)
    """
    if is_ragged(masks):
        shapes = {np.shape(mask) for mask in masks}
        raise ValueError(
            "Masks must all have one shape (n_classes, height, width). Got the shapes "
            f"{sorted(shapes)[:3]} instead."
        )
    masks = np.asarray(masks)
    if masks.ndim != 4:
        raise ValueError(
            "Masks must have the shape (n_samples, n_classes, height, width). Got "
            f"{masks.ndim} dimensions instead."
        )
    check_consistent_length(X, masks)
    if size is not None and masks.shape[2:] != size:
        raise ValueError(
            f"Masks must have the height and width of the images, {size}. Got {masks.shape[2:]} "
            "instead." + (_MAPS_FIRST if masks.shape[1:3] == size else "")
        )
    if n_classes is not None and masks.shape[1] != n_classes:
        raise ValueError(
            f"Masks must have one channel per class, {n_classes} in all; a binary problem has "
            f"one, that of the positive class. Got {masks.shape[1]} instead."
        )
    is_counted = masks.dtype.kind in "iu" and masks.min(initial=0) >= 0
    if masks.dtype != bool and not is_counted and not np.isin(masks, (0, 1)).all():
        raise ValueError(
            "Masks must be bool, or hold 0 and 1 only, and instances must be integers that are not "
            f"negative. Got other values of {masks.dtype} instead. If they mean that, pass "
            "`masks > 0`."
        )
    return masks.astype(bool, copy=False)
