"""Precision and recall of detected objects."""

from numbers import Real

import numpy as np
from sklearn.utils import Bunch, check_scalar

from ._matching import check_max_distance, check_points, match_points


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
    points_true : list of array-like of shape (n_objects, 3)
        One array for each sample with rows (class index, row, column), positions in px. ``[]``
        stands for no objects.
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
    check_max_distance(max_distance)
    check_scalar(zero_division, "zero_division", Real)
    if len(points_pred) != len(points_true):
        raise ValueError(
            "points_pred must hold one array for each sample of points_true, "
            f"{len(points_true)}. Got {len(points_pred)} instead."
        )
    n_true = n_pred = n_matched = 0
    for sample, (objects, detections) in enumerate(zip(points_true, points_pred, strict=True)):
        objects = _check_rows(objects, f"points_true[{sample}]", (3,))
        detections = _check_rows(detections, f"points_pred[{sample}]", (3, 4))
        n_true += len(objects)
        n_pred += len(detections)
        for class_index in np.intersect1d(objects[:, 0], detections[:, 0]):
            index_true, _ = match_points(
                objects[objects[:, 0] == class_index, 1:3],
                detections[detections[:, 0] == class_index, 1:3],
                max_distance=max_distance,
            )
            n_matched += len(index_true)

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


def _check_rows(rows, name, n_columns):
    rows = check_points(rows, name)
    if len(rows) == 0:
        return np.empty((0, 3))
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
