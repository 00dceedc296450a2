"""Precision and recall of detected objects."""

import warnings
from numbers import Real

import numpy as np
from sklearn.utils import Bunch

from sklearn_micranet._stack._numbers import check_scalar

from ._growing_matching import GrowingMatching
from ._matching import check_max_distance, check_points, match_points
from ._regions import as_points


def detection_scores(points_true, points_pred, *, max_distance, zero_division=1.0):
    r"""Precision, recall and F1 of detections.

    Within each sample and class, detections are matched one-to-one to true objects by
    `match_points`. A matched detection is a true positive (TP), one without a partner a false
    positive (FP), a true object without a partner a false negative (FN). Their numbers over all
    samples and classes give

    .. math::

        \text{precision} = \frac{TP}{TP + FP}, \qquad
        \text{recall} = \frac{TP}{TP + FN}, \qquad
        F_1 = \frac{2 TP}{2 TP + FP + FN}.

    Parameters
    ----------
    points_true : list of array-like of shape (n_objects, 3), or masks
        One array for each sample with rows (class index, row, column), positions in px. ``[]``
        stands for no objects. Or masks or instances of shape (n_samples, n_maps, height, width),
        whose objects have the positions that :func:`detection_scorer` describes; a list of arrays
        if the images differ in size.
    points_pred : list of array-like of shape (n_detections, 3) or (n_detections, 4)
        One array for each sample with rows (class index, row, column) or (class index, row,
        column, score). The score plays no part.
    max_distance : float
        Largest distance in px between a detection and its object, inclusive. About the radius of
        an object is usual.
    zero_division : float, default=1.0
        Precision, recall and F1 where there is nothing to find and nothing is detected. In any
        other case a ratio without terms is 0: the precision where nothing is detected though
        there are objects, and the recall where something is detected though there are none.

    Returns
    -------
    scores : :class:`~sklearn.utils.Bunch`
        Dictionary-like, with attributes:

        precision, recall, f1 : float
            Scores in [0, 1].
        n_true_positives, n_false_positives, n_false_negatives : int
            Counts over all samples and classes.

    Raises
    ------
    TypeError
        If `max_distance` or `zero_division` is not a number.
    ValueError
        If the numbers of samples differ, an array has another number of columns, values are not
        finite, class indices are not whole numbers, or `max_distance` is negative or NaN.

    See Also
    --------
    match_points : The matching, and what its memory grows with.
    detection_precision_recall_curve : Precision and recall from each score up.

    Examples
    --------
    One of two objects is found in the first sample; nothing is there in the second:

    >>> from sklearn_micranet.metrics import detection_scores
    >>> points_true = [[[0, 10, 10], [0, 40, 40]], []]
    >>> points_pred = [[[0, 11, 10, 0.9]], []]
    >>> scores = detection_scores(points_true, points_pred, max_distance=3)
    >>> scores.precision, scores.recall, scores.n_false_negatives
    (1.0, 0.5, 1)
    """
    check_scalar(zero_division, "zero_division", Real)
    points_true, points_pred = _check_samples(points_true, points_pred, (3, 4), max_distance)
    n_true, n_pred = (sum(map(len, points)) for points in (points_true, points_pred))
    n_matched = sum(
        _n_matched(objects, detections, max_distance)
        for objects, detections in _by_class(points_true, points_pred)
    )
    # What a ratio without terms is worth depends on whether there was anything at all.
    undefined = 0.0 if n_true + n_pred else float(zero_division)
    return Bunch(
        precision=n_matched / n_pred if n_pred else undefined,
        recall=n_matched / n_true if n_true else undefined,
        f1=2 * n_matched / (n_true + n_pred) if n_true + n_pred else undefined,
        n_true_positives=n_matched,
        n_false_positives=n_pred - n_matched,
        n_false_negatives=n_true - n_matched,
    )


def detection_precision_recall_curve(points_true, points_pred, *, max_distance):
    """Precision and recall of the detections from each score up.

    At each threshold, the detections with ``score >= threshold`` are matched anew to the true
    objects, and precision and recall are those of :func:`detection_scores`.

    Parameters
    ----------
    points_true : list of array-like of shape (n_objects, 3), or array-like of shape \
            (n_samples, n_maps, height, width)
        Positions, masks or instances, as in :func:`detection_scores`.
    points_pred : list of array-like of shape (n_detections, 4)
        One array for each sample with rows (class index, row, column, score). One threshold is
        for all samples and classes: pass the rows of one class for a curve of its own.
    max_distance : float
        Largest distance in px between a detection and its object, inclusive.

    Returns
    -------
    precision : float ndarray of shape (n_thresholds + 1,)
        Element i, in [0, 1], is for the detections with ``score >= thresholds[i]``. The last is 1.
    recall : float ndarray of shape (n_thresholds + 1,)
        Likewise; never rising. The last is 0. The first is the share of objects that are found by
        all detections, which may be less than 1. Without any objects it is 1 at each threshold,
        as in scikit-learn, with a warning.
    thresholds : float ndarray of shape (n_thresholds,)
        The scores that occur, each once, ascending; empty without detections.

    Raises
    ------
    TypeError
        If `max_distance` is not a number.
    ValueError
        If the numbers of samples differ, an array has another number of columns, values are not
        finite, class indices are not whole numbers, or `max_distance` is negative or NaN.

    See Also
    --------
    detection_scores : Precision, recall and F1 of all detections.
    sklearn.metrics.precision_recall_curve : The curve of a classifier, in the same order.
    sklearn.metrics.PrecisionRecallDisplay : Plots ``(precision, recall)``.

    Notes
    -----
    A cumulative sum over the pairs of a single matching would be wrong: of two detections of one
    object, that matching takes the closer one, even if the other has the higher score and is right
    where the closer one is not detected yet. Recall never falls as the threshold falls, because
    :func:`match_points` finds as many pairs as possible, and those of fewer detections are
    possible among more. Precision may do either.

    One matching of each sample and class grows from the highest score down: a further detection
    adds a pair if, and only if, an augmenting path leads from it to an object without a partner
    (Berge's theorem [1]_). Memory grows with the number of pairs within `max_distance`.

    References
    ----------
    .. [1] C. Berge, "Two theorems in graph theory", Proceedings of the National Academy of
       Sciences 43(9), 1957. https://doi.org/10.1073/pnas.43.9.842

    Examples
    --------
    The most certain detection is right, the second one is not, the third finds the other object:

    >>> from sklearn_micranet.metrics import detection_precision_recall_curve
    >>> points_true = [[[0, 10, 10], [0, 40, 40]]]
    >>> points_pred = [[[0, 11, 10, 0.9], [0, 25, 25, 0.75], [0, 40, 41, 0.5]]]
    >>> precision, recall, thresholds = detection_precision_recall_curve(
    ...     points_true, points_pred, max_distance=3
    ... )
    >>> precision.round(2).tolist()
    [0.67, 0.5, 1.0, 1.0]
    >>> recall.tolist()
    [1.0, 0.5, 0.5, 0.0]
    >>> thresholds.tolist()
    [0.5, 0.75, 0.9]
    """
    points_true, points_pred = _check_samples(points_true, points_pred, (4,), max_distance)
    scores = np.concatenate([np.empty(0), *(rows[:, 3] for rows in points_pred)])
    thresholds, n_new = np.unique(scores, return_counts=True)
    n_new_matched = np.zeros(len(thresholds), dtype=int)
    for objects, detections in _by_class(points_true, points_pred):
        detections = detections[np.argsort(-detections[:, 3], kind="stable")]
        matching = GrowingMatching(objects[:, 1:3], detections[:, 1:3], max_distance=max_distance)
        grows = [matching.add(i) for i in range(len(detections))]
        np.add.at(n_new_matched, np.searchsorted(thresholds, detections[grows, 3]), 1)
    n_pred, n_matched = (np.cumsum(n[::-1])[::-1] for n in (n_new, n_new_matched))
    if n_true := sum(map(len, points_true)):
        recall = n_matched / n_true
    else:
        warnings.warn(
            "There are no objects in points_true: recall is set to one at each threshold.",
            UserWarning,
            stacklevel=2,
        )
        recall = np.ones(len(thresholds))
    return np.append(n_matched / n_pred, 1.0), np.append(recall, 0.0), thresholds


def _check_samples(points_true, points_pred, n_columns, max_distance):
    """Return the rows of all samples as arrays; `n_columns` are those legal for detections."""
    check_max_distance(max_distance)
    points_true = as_points(points_true, "points_true")
    if len(points_pred) != len(points_true):
        raise ValueError(
            "points_pred must hold one array for each sample of points_true, "
            f"{len(points_true)}. Got {len(points_pred)} instead."
        )
    return (
        [_check_rows(rows, f"points_true[{i}]", (3,)) for i, rows in enumerate(points_true)],
        [_check_rows(rows, f"points_pred[{i}]", n_columns) for i, rows in enumerate(points_pred)],
    )


def _check_rows(rows, name, n_columns):
    if np.ndim(rows) != 2 and np.shape(rows) != (0,):
        raise ValueError(
            f"{name} must be a table of shape (n_objects, {' or '.join(map(str, n_columns))}), "
            "positions with their class index: one table for each image. Got the shape "
            f"{np.shape(rows)} instead."
        )
    rows = check_points(rows, name)
    if len(rows) == 0:
        return np.empty((0, max(n_columns)))
    if rows.shape[1] not in n_columns:
        raise ValueError(
            f"{name} must have {' or '.join(map(str, n_columns))} columns, the first three of them "
            f"class index, row and column. Got {rows.shape[1]} columns instead."
        )
    if np.any(rows[:, 0] % 1) or np.any(rows[:, 0] < 0):
        raise ValueError(
            f"The first column of {name} must hold class indices, whole numbers from 0. "
            f"Got {rows[:, 0]} instead."
        )
    return rows


def _by_class(points_true, points_pred):
    """Yield the objects and the detections of each sample and class that has both."""
    for objects, detections in zip(points_true, points_pred, strict=True):
        for class_index in np.intersect1d(objects[:, 0], detections[:, 0]):
            yield (rows[rows[:, 0] == class_index] for rows in (objects, detections))


def _n_matched(objects, detections, max_distance):
    index_true, _ = match_points(objects[:, 1:3], detections[:, 1:3], max_distance=max_distance)
    return len(index_true)
