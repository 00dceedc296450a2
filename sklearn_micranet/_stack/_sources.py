"""What samples are read from: arrays in memory and on disk, lists, and lazy stacks."""

import numpy as np


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
    return hasattr(X, "is_ragged") or (
        not isinstance(X, np.ndarray)
        and all(hasattr(X, name) for name in ("shape", "dtype", "__getitem__"))
        and not hasattr(X, "detach")  # a torch tensor is in memory, and may hide gradients
        and len(X.shape) > 2
    )


def unpacked(X):
    """Return an object array of arrays as the list that it stands for."""
    is_packed = getattr(X, "dtype", None) == np.dtype(object) and X.ndim == 1
    return list(X) if is_packed else X


def n_samples(source):
    """Return the length of a list or an array; Zarr arrays have a shape only."""
    return source.shape[0] if hasattr(source, "shape") else len(source)


def take(source, indices):
    """Read the samples `indices` of a source: in an array, or in a list as a list or stack does."""
    if isinstance(source, (list, tuple)):
        return [source[i] for i in indices]
    if hasattr(source, "is_ragged"):
        return source.read(indices)
    if len(indices) and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        part = source[int(indices[0]) : int(indices[0]) + len(indices)]  # a view where possible
    elif isinstance(source, np.ndarray):
        part = source[indices]
    else:  # HDF5 reads increasing indices only, and Zarr has an indexer of its own
        unique, inverse = np.unique(indices, return_inverse=True)
        try:
            part = np.asarray(getattr(source, "oindex", source)[unique])[inverse]
        except (IndexError, NotImplementedError, TypeError, ValueError):
            part = _read_runs(source, unique)[inverse]
    return np.asarray(part)


def _read_runs(source, indices):
    """Read ascending indices of an array that knows slices only, each run of them at once."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return np.concatenate([source[int(run[0]) : int(run[-1]) + 1] for run in runs])
