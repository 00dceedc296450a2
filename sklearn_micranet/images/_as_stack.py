"""Arrays on disk in a form that scikit-learn can split."""

from sklearn_micranet._stack._lazy_stack import as_stack as _as_stack
from sklearn_micranet._stack._sources import is_lazy


def as_stack(images):
    """Wrap an array that is read piecewise, so that scikit-learn's searches can split it.

    Estimators of this package read Zarr, HDF5, Dask and memory-mapped arrays, and whatever can be
    sliced, as they are. Searches and cross-validation of scikit-learn take rows of an array before
    any estimator sees it, by an index that Zarr and others refuse.

    Parameters
    ----------
    images : array of shape (n_images, height, width[, n_channels])
        It has a `shape` and a `dtype`, and can be sliced.

    Returns
    -------
    stack : LazyStack of shape (n_images, height, width[, n_channels])
        Of the dtype of the array. Its images are read when they are needed; rows of it are
        another such stack.

    Raises
    ------
    TypeError
        If `images` is no such array.

    See Also
    --------
    read_images : Images from files.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn_micranet import MicraNetClassifier
    >>> from sklearn_micranet.images import as_stack
    >>> y = np.arange(40) % 2
    >>> images = np.random.default_rng(0).random((40, 8, 8)) + y[:, None, None]  # or a Zarr array
    >>> classifier = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    >>> cross_val_score(classifier, as_stack(images), y, cv=2).shape
    (2,)
    """
    if not (is_lazy(images) or getattr(images, "ndim", 0) > 2):
        raise TypeError(
            "images must be an array of shape (n_images, height, width[, n_channels]). Got "
            f"{type(images).__name__} instead."
        )
    return _as_stack(images)
