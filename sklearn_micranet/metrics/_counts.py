"""How far the number of predicted objects is from that of the true ones."""

from typing import NamedTuple

import numpy as np

from ._regions import check_instance_pairs


class CountErrors(NamedTuple):
    """What `count_errors` returns."""

    mean_error: float
    mean_absolute_error: float
    relative_error: float
    relative_absolute_error: float


def count_errors(instances_true, instances_pred):
    r"""Errors of the numbers of objects.

    With :math:`d_i` the number of predicted objects minus that of true ones, :math:`n_i`, in image
    (and map) :math:`i` of :math:`N`:

    .. math::

        \text{mean error} = \frac{1}{N} \sum_i d_i, \qquad
        \text{mean absolute error} = \frac{1}{N} \sum_i |d_i|,

        \text{relative error} = \frac{\sum_i d_i}{\sum_i n_i}, \qquad
        \text{relative absolute error} = \frac{\sum_i |d_i|}{\sum_i n_i}.

    Objects are counted, not matched: a missed object and an invented one in the same image cancel.

    Parameters
    ----------
    instances_true : array-like of shape (..., height, width), int, or list of such arrays
        True objects: 0 is background, each other number an object. The first axis is that of the
        images, (n_samples, height, width) or (n_samples, n_maps, height, width); a single
        (height, width) is one image. A list if the images differ in size.
    instances_pred : array-like of shape (..., height, width), int, or list of such arrays
        Predicted objects, likewise.

    Returns
    -------
    errors : named tuple
        With the fields `mean_error` and `mean_absolute_error` in objects per image and map, and
        `relative_error` and `relative_absolute_error` in shares of the true number. Too many
        objects have a positive error. Without any images all are 0. Where objects are predicted
        but none is true, the relative errors are infinite.

    Raises
    ------
    TypeError
        If arrays are not of integers.
    ValueError
        If the numbers of images or their shapes differ, or numbers of objects are negative.

    See Also
    --------
    instance_scores : Whether the objects are at the right places, too.

    Examples
    --------
    One of two objects is missed in the first image, two are counted instead of one in the second:

    >>> from sklearn_micranet.metrics import count_errors
    >>> instances_true = [[[1, 0, 2]], [[1, 1, 1]]]
    >>> instances_pred = [[[1, 0, 0]], [[1, 0, 2]]]
    >>> errors = count_errors(instances_true, instances_pred)
    >>> errors.mean_error, errors.mean_absolute_error, round(errors.relative_absolute_error, 2)
    (0.0, 1.0, 0.67)
    """
    counts = [
        (_count(true[index]), _count(pred[index]))
        for true, pred in check_instance_pairs(instances_true, instances_pred)
        for index in np.ndindex(true.shape[:-2])
    ]
    n_true, n_pred = np.reshape(counts, (-1, 2)).T.astype(int)
    errors = np.array([n_pred - n_true, np.abs(n_pred - n_true)]).sum(axis=1)
    relative = errors / n_true.sum() if n_true.any() else np.where(errors, np.inf, 0.0)
    return CountErrors(*(errors / max(len(counts), 1)).tolist(), *relative.tolist())


def _count(labels):
    return len(np.unique(labels[labels != 0]))
