"""Image-level labels, and the masks that stand for them."""

from typing import NamedTuple

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d

from sklearn_micranet._stack._sources import is_ragged

from ._coverage import MIN_COVERAGE, is_covered, warn_of_small
from ._hints import refuse_what_is_no_label
from ._masks import are_masks, check_masks
from ._targets import Targets


class Labels(NamedTuple):
    """Labels that were read."""

    y: np.ndarray  # class labels of shape (n_samples,), or an indicator matrix
    targets: Targets


def read_labels(y, images, *, name, targets=None, background_label=None, min_coverage=MIN_COVERAGE):
    """Read the labels of images, or the masks that stand for them.

    Parameters
    ----------
    y : array-like of shape (n_samples,), (n_samples, n_classes) or \
            (n_samples, n_classes, height, width)
    images : Images
    name : str
        Class of the estimator, for the errors.
    targets : Targets, default=None
        What the labels must correspond to. ``None`` takes it from them.
    background_label : label, default=None
        Of images without any structure; not used with `targets`.
    min_coverage : float in [0, 1], default=0.01
        Share of an image that the mask of a class has to cover for the class to be present.

    Returns
    -------
    labels : Labels
    """
    y = read_y(y, images, name=name, targets=targets, min_coverage=min_coverage)
    if targets is None:
        return Labels(y, Targets.of(y, background_label))
    targets.check(y)
    return Labels(y, targets)


def read_y(y, images, *, name, targets=None, min_coverage=MIN_COVERAGE):
    """Return labels as an array of shape (n_samples,), or an indicator matrix of int.

    Parameters are those of `read_labels`. Without `targets` masks become 0 and 1, of shape
    (n_samples,) for a single class.
    """
    if are_masks(y):
        return _labels_of_masks(y, images, targets, min_coverage)
    return read_plain_labels(y, len(images), name=name)


def read_plain_labels(y, n_samples, *, name):
    """Read labels that cannot be masks: class labels, or an indicator matrix of int."""
    if y is None:
        raise ValueError(f"{name} requires y to be passed, but the target y is None.")
    if hasattr(y, "toarray"):
        y = y.toarray()
    refuse_what_is_no_label(y)
    if getattr(getattr(y, "dtype", None), "kind", "") == "T":  # NumPy's strings of any length
        y = np.array(y.tolist())
    y = check_array(y, ensure_2d=False, allow_nd=True, dtype=None, input_name="y")
    if y.dtype == object and not any(isinstance(label, str) for label in y.ravel()):
        y = np.array(y.tolist())  # numbers, of whose dtype pandas lost track
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    check_consistent_length(np.empty(n_samples), y)
    check_classification_targets(y)
    if y.ndim == 2 and not np.isin(y, (0, 1)).all():
        raise ValueError(
            "y must be class labels of shape (n_samples,), an indicator matrix of 0 and 1 of "
            "shape (n_samples, n_classes), or masks of shape (n_samples, n_classes, height, "
            "width). Got several columns of other values instead."
        )
    return y.astype(int) if y.ndim == 2 else y


def labels_from_masks(masks, min_coverage=MIN_COVERAGE):
    """Return which classes cover enough of each image.

    Parameters
    ----------
    masks : ndarray of bool of shape (n_samples, n_classes, height, width)
    min_coverage : float in [0, 1], default=0.01

    Returns
    -------
    labels : ndarray of int of shape (n_samples, n_classes)
    """
    n_pixels = np.count_nonzero(masks, axis=(2, 3))
    return is_covered(n_pixels, masks.shape[2] * masks.shape[3], min_coverage).astype(int)


def _labels_of_masks(masks, images, targets, min_coverage):
    if targets is not None and targets.kind == "multiclass":
        raise ValueError(
            f"y must hold labels of the classes {targets.classes.tolist()}, which exclude each "
            "other. Got masks instead, which cannot stand for them."
        )
    if targets is not None:
        targets.check_maps()
    n_classes = None if targets is None else targets.n_outputs
    if is_ragged(images.stack):  # they are reduced one by one
        check_consistent_length(np.empty(len(images)), masks)
        pairs = zip(images.stack, masks, strict=True)
        checked = [check_masks([mask], [x], x.shape[:2], n_classes) for x, mask in pairs]
    else:
        checked = [check_masks(masks, np.empty(len(images)), images.size, n_classes)]
    labels, any_pixel = (
        np.concatenate([labels_from_masks(part, least) for part in checked])
        for least in (min_coverage, 0)
    )
    if min_coverage == MIN_COVERAGE:
        warn_of_small(labels, any_pixel, "image")
    if targets is not None:
        return targets.decode(labels)
    return labels[:, 0] if labels.shape[1] == 1 else labels
