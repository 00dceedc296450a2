"""Shape, dtype and label contracts shared by the estimators, with worded errors."""

from functools import partial
from math import isqrt
from numbers import Integral

import numpy as np
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    validate_data,
)

from sklearn_micranet._stack._lazy_stack import LazyStack, as_stack


def is_ragged(X):
    """Whether X is a sequence of arrays that differ in shape."""
    if hasattr(X, "is_ragged"):
        return X.is_ragged
    if not isinstance(X, (list, tuple)) and getattr(X, "dtype", None) != np.dtype(object):
        return False
    shapes = {getattr(x, "shape", ()) for x in X}
    return len(shapes) > 1 and min(map(len, shapes)) > 1


def is_lazy(X):
    """Whether X is a stack that is read piecewise: a lazy stack, an HDF5 or a Zarr array."""
    return isinstance(X, LazyStack) or (
        not isinstance(X, np.ndarray)
        and all(hasattr(X, name) for name in ("shape", "dtype", "__getitem__"))
        and not hasattr(X, "detach")  # a torch tensor is in memory, and may hide gradients
        and len(X.shape) > 2
    )


def _unpacked(X):
    """Return an object array of arrays as the list that it stands for."""
    is_packed = getattr(X, "dtype", None) == np.dtype(object) and X.ndim == 1
    return list(X) if is_packed else X


def check_images(estimator, X, *, reset, allow_ragged=False):
    """Validate images and record, or compare with, what `estimator` was fitted on.

    Parameters
    ----------
    estimator : estimator instance
        Has the parameter `image_shape`. With ``reset=True`` it gets ``n_channels_in_`` and, for
        flattened images, ``n_features_in_`` and ``image_shape_``.
    X : array-like, lazily read array, or list of ndarray
    reset : bool
        Whether to record (in `fit`) or to compare (at inference).
    allow_ragged : bool, default=False
        Whether images may differ in size.

    Returns
    -------
    images : ndarray, LazyStack, or list of ndarray
        Not copied if it is an array of a real dtype already. The images of a lazy stack that
        differ in size are checked when they are read; here, only ``reset=True`` reads the first.
    """
    X = _unpacked(X)
    if is_ragged(X):
        if not allow_ragged:
            raise ValueError(
                "Training images must all have one size. Got images of different sizes instead. "
                "Cut them into crops of one size."
            )
        if is_lazy(X):
            _check_not_empty(X)
            n_channels = _common_channels([X[0]]) if reset else estimator.n_channels_in_
            check = partial(_check_read, n_channels=n_channels, name=type(estimator).__name__)
            images = LazyStack(X, check, item_shape=None, dtype=X.dtype, batch_size=X.batch_size)
        else:
            images = [_check_array(estimator, x) for x in X]
            n_channels = _common_channels(images)
    else:
        images = as_stack(X) if is_lazy(X) else _check_array(estimator, X)
        if images.ndim == 2:
            n_channels = _check_flattened(estimator, X, images.shape[1], reset)
        elif images.ndim in (3, 4):
            n_channels = images.shape[3] if images.ndim == 4 else 1
        else:
            raise ValueError(
                "X must have the shape (n_samples, height, width), (n_samples, height, width, "
                "n_channels) or, flattened, (n_samples, n_features). Got "
                f"{images.ndim} dimensions instead."
            )
        _check_not_empty(images)
    if reset:
        estimator.n_channels_in_ = n_channels
        if getattr(images, "ndim", 3) != 2:  # an earlier fit may have been on flattened images
            for name in ("image_shape_", "n_features_in_", "feature_names_in_"):
                vars(estimator).pop(name, None)
    else:
        _check_channels(n_channels, estimator.n_channels_in_, type(estimator).__name__)
    return images


def _check_read(images, *, n_channels, name):
    _check_channels(_common_channels(images), n_channels, name)
    return images


def _check_channels(got, n_channels, name):
    if got != n_channels:
        raise ValueError(
            f"X must have {n_channels} channel(s), as the images that {name} was fitted on. Got "
            f"{got} instead. X is a stack of images, channels last: pass a single image as "
            "image[np.newaxis]."
        )


def _check_not_empty(images):
    if 0 in images.shape:
        raise ValueError(
            "X must hold at least one image of at least one pixel. Got the shape "
            f"{images.shape} instead."
        )


def _check_array(estimator, X):
    images = check_array(X, allow_nd=True, estimator=estimator, input_name="X")
    is_wide = images.dtype.kind == "f" and images.dtype.itemsize > 4 and images.size
    if is_wide and max(images.max(), -images.min()) > np.finfo(np.float32).max:
        raise ValueError(
            "X must be finite in float32. Got a value too large instead: scale the images."
        )
    return images


def _common_channels(images):
    wrong = {image.ndim for image in images} - {2, 3}
    if wrong:
        raise ValueError(
            "Images of different sizes must each have the shape (height, width) or (height, width, "
            f"n_channels). Got {wrong.pop()} dimensions instead."
        )
    channels = {image.shape[2] if image.ndim == 3 else 1 for image in images}
    if len(channels) > 1:
        raise ValueError(
            f"All images must have the same number of channels. Got {sorted(channels)} instead."
        )
    return channels.pop()


def _check_flattened(estimator, X, n_features, reset):
    if not reset and not hasattr(estimator, "image_shape_"):
        raise ValueError(
            f"{type(estimator).__name__} was fitted on images of shape (n_samples, height, width) "
            "or (n_samples, height, width, n_channels). Got a 2-dimensional X instead: pass a "
            "single image as image[np.newaxis]."
        )
    # X, not the checked array: the feature names are those of the data frame.
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    if reset:
        estimator.image_shape_ = resolve_image_shape(estimator.image_shape, n_features)
    return estimator.image_shape_[2] if len(estimator.image_shape_) == 3 else 1


def resolve_image_shape(image_shape, n_features):
    if image_shape is None:
        side = isqrt(n_features)
        return (side, side) if side * side == n_features else (1, n_features)
    shape = tuple(image_shape)
    if len(shape) not in (2, 3) or not all(isinstance(n, Integral) and n > 0 for n in shape):
        raise ValueError(
            "image_shape must be (height, width) or (height, width, n_channels), in px. Got "
            f"{shape} instead."
        )
    if np.prod(shape) != n_features:
        raise ValueError(
            f"image_shape must multiply to the number of features, {n_features}. Got {shape} "
            "instead."
        )
    return shape


def image_size(images, image_shape=None):
    """Return (height, width) of validated images, ``None`` if they differ in size."""
    if is_ragged(images):
        return None
    return tuple(image_shape[:2] if images.ndim == 2 else images.shape[1:3])


def are_masks(y):
    """Whether labels are given as masks of shape (n_samples, n_classes, height, width)."""
    if isinstance(y, (list, tuple)):
        return len(y) > 0 and np.ndim(y[0]) == 3
    return getattr(y, "ndim", 0) == 4


def check_masks(masks, X, size, n_classes=None):
    """Validate masks that belong to the images X.

    Parameters
    ----------
    masks : array-like of shape (n_samples, n_classes, height, width)
        Of dtype bool, or of 0 and 1.
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
        raise ValueError("Masks must all have one size. Got masks of different sizes instead.")
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
            "instead."
        )
    if n_classes is not None and masks.shape[1] != n_classes:
        raise ValueError(
            f"Masks must have one channel per class, {n_classes} in all; a binary problem has "
            f"one, that of the positive class. Got {masks.shape[1]} instead."
        )
    if masks.dtype != bool:
        if not np.isin(masks, (0, 1)).all():
            raise ValueError("Masks must be bool, or hold 0 and 1 only. Got other values instead.")
        masks = masks.astype(bool)
    return masks


def check_stack(X, *, ndim, axes):
    """Validate the input of a stage that follows the network.

    Parameters
    ----------
    X : ndarray, lazily read array, or list of ndarray
    ndim : int
        Number of dimensions of the whole stack.
    axes : str
        Names of the axes, for the error.

    Returns
    -------
    X : ndarray, LazyStack, or list of ndarray
        A list when the samples differ in size. Those of a lazy stack are not read here: who reads
        them calls :func:`check_ndim`.
    """
    X = _unpacked(X)
    if is_lazy(X):
        stack, got = as_stack(X), ndim if is_ragged(X) else X.ndim
    elif is_ragged(X):
        stack = [check_array(x, allow_nd=True, ensure_2d=False, input_name="X") for x in X]
        got = stack[0].ndim + 1
        if len({x.shape[:-2] for x in stack}) > 1:
            raise ValueError(
                f"X must have the shape {axes}; samples may differ in height and width only. Got "
                f"the shapes {sorted({x.shape for x in stack})} instead."
            )
    else:
        stack = check_array(X, allow_nd=True, ensure_2d=False, ensure_min_samples=0, input_name="X")
        got = stack.ndim
    check_ndim(got, ndim=ndim, axes=axes)
    if 0 in getattr(stack, "shape", ()):
        raise ValueError(
            "X must hold at least one sample of at least one pixel. Got the shape "
            f"{stack.shape} instead."
        )
    return stack


def check_ndim(got, *, ndim, axes):
    """Raise a ValueError if a stack has not `ndim` dimensions."""
    if got != ndim:
        raise ValueError(f"X must have the shape {axes}. Got {got} dimensions instead.")
