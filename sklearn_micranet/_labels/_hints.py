"""What is passed for something else, recognised so that the error can say what to do."""

import os

import numpy as np

from sklearn_micranet._stack._sources import is_ragged, unpacked

_MAX_COLUMNS = 5  # of positions and boxes, with a class index or a score
_COLLECTIONS = (list, tuple, set, frozenset)


def refuse_paths(name, value, how="read_images(path).images"):
    """Raise a TypeError if paths, or what was read from them, are passed for arrays.

    Parameters
    ----------
    name : str
        Of the argument, for the error.
    value : object
    how : str
        What reads the arrays from a path.
    """
    if isinstance(value, dict) and not hasattr(value, "shape"):  # some sparse arrays are dicts
        raise TypeError(
            f"{name} must be arrays. Got a {type(value).__name__} instead: pass its images."
        )
    if hasattr(value, "__next__"):
        raise TypeError(f"{name} must be arrays. Got an iterator instead: pass list({name}).")
    first = value if isinstance(value, (str, os.PathLike)) else _first_element(value)
    if isinstance(first, tuple) and first and len(getattr(first[0], "shape", ())) > 1:
        raise TypeError(
            f"{name} must be arrays. Got pairs of them instead: pass images and labels apart."
        )
    if isinstance(first, (str, os.PathLike)):
        raise TypeError(f"{name} must be arrays. Got the path {str(first)!r} instead: pass {how}.")
    if getattr(value, "ndim", 0) == 2 and np.ndim(first):
        raise TypeError(
            f"{name} must be arrays. Got a table of them instead: pass one column of it, as "
            f"np.stack({name}[column])."
        )


def _first_element(value):
    """Return the first element of a list, a column or a table, None of a stack of arrays."""
    if hasattr(value, "iloc"):
        value = value.to_numpy().ravel()
    is_column = getattr(value, "ndim", len(getattr(value, "shape", (1,)))) == 1
    is_column = is_column and not hasattr(value, "is_ragged")
    return next(iter(value), None) if is_column and np.iterable(value) else None


def refuse_what_is_no_label(y):
    """Raise an error for a y of masks without an axis of maps, positions, or lists of labels.

    Parameters
    ----------
    y : object
        Anything but masks, as :func:`._masks.are_masks` knows them.
    """
    y = unpacked(y) if hasattr(y, "__len__") or not hasattr(y, "__array__") else np.asarray(y)
    if not np.iterable(y) or isinstance(y, (str, bytes, dict)) or hasattr(y, "__next__"):
        raise TypeError(
            f"y must hold a label for each image, in an array or a list. Got {y!r:.60} instead."
        )
    refuse_flat_masks("y", y)
    if _are_collections(y):
        _refuse_collections(y)
    _refuse_missing(y)
    elements = y if isinstance(y, list) or getattr(y, "dtype", None) == np.dtype(object) else []
    if {isinstance(label, str) for label in elements} == {True, False}:
        raise ValueError(
            "y must hold labels of one type. Got text and others instead: pass "
            "[str(label) for label in y]."
        )


def refuse_flat_masks(name, y, *, allow_instances=False):
    """Raise a ValueError if y holds one mask of shape (height, width) for each image.

    Parameters
    ----------
    name : str
        Of the argument, for the error.
    y : object
    allow_instances : bool, default=False
        Whether numbers of objects are legal, or have to become masks.
    """
    y = unpacked(y)
    if isinstance(y, (list, tuple)) or is_ragged(y):
        samples = [sample for sample in y if n_dims(sample) == 2]
        array, mask = f"[{{}}[np.newaxis] for mask in {name}]", "mask"
    else:
        samples = y[:1] if getattr(y, "ndim", 0) == 3 else []
        array, mask = "{}[:, np.newaxis]", name
    if not any(_is_mask(np.asarray(sample)) for sample in samples):
        return
    is_legal = allow_instances or all(np.isin(np.asarray(sample), (0, 1)).all() for sample in y)
    raise ValueError(
        f"{name} must hold masks of shape (n_maps, height, width) for each image. Got some of "
        f"shape {np.shape(samples[0])} instead: pass "
        f"`{array.format(mask if is_legal else f'({mask} > 0)')}`."
    )


def _is_mask(sample):
    return sample.dtype == bool or sample.shape[1] > _MAX_COLUMNS


def _are_collections(y):
    return isinstance(y, (list, tuple)) and any(
        isinstance(sample, _COLLECTIONS) or n_dims(sample) == 2 for sample in y
    )


def _refuse_collections(y):
    """Raise a ValueError unless y is an indicator matrix in a list of lists."""
    if any(n_dims(sample) != 1 for sample in y if not isinstance(sample, (set, frozenset))):
        raise ValueError(
            "y must be labels or masks. Got positions of objects instead, which a network "
            "cannot be trained on. Cut crops that are labelled by them, "
            "images.extract_crops(X, size=..., points=...), or wrap a fitted classifier in a "
            "FrozenEstimator to score its detections."
        )
    are_sets = any(isinstance(sample, (set, frozenset)) for sample in y)
    lengths = {len(sample) for sample in y}
    hold_text = any(isinstance(label, str) for sample in y for label in sample)
    if are_sets or len(lengths) > 1 or (hold_text and lengths != {1}):
        raise ValueError(
            "y must be class labels of shape (n_samples,), or an indicator matrix of 0 and 1 of "
            "shape (n_samples, n_classes). Got a collection of labels for each image instead: "
            "pass sklearn.preprocessing.MultiLabelBinarizer().fit_transform(y)."
        )


def _refuse_missing(y):
    """Raise a ValueError if y holds None, NaN, or NA of pandas."""
    missing = is_missing(np.asarray(y) if n_dims(y) is not None else np.empty(0))
    if missing.any():
        raise ValueError(
            f"y must hold a label for each image. Input y contains NaN, None or NA "
            f"{missing.sum()} time(s) instead: leave out the images whose label is not known."
        )


def is_missing(values):
    """Return which values of an array are None, NaN, or NA of pandas."""
    if values.dtype.kind == "T":
        values = values.astype(object)
    if values.dtype != object:
        return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
    missing = [v is None or type(v).__name__ == "NAType" or bool(v != v) for v in values.ravel()]
    return np.reshape(missing, values.shape).astype(bool)


def n_dims(value):
    """Return the number of dimensions, None of a sequence of samples that differ in length."""
    try:
        return np.ndim(value)
    except ValueError:
        return None
