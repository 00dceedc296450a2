"""Agreement of predicted objects with true ones, object by object."""

from numbers import Real
from typing import NamedTuple

import numpy as np

from sklearn_micranet._stack._numbers import check_scalar

from ._matching import assign, connected_groups
from ._regions import check_instance_pairs, check_instances


class InstanceScores(NamedTuple):
    """What `instance_scores` returns."""

    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float
    accuracy: float
    mean_true_score: float
    mean_matched_score: float
    panoptic_quality: float


def match_instances(instances_true, instances_pred, *, threshold=0.5):
    r"""Match the objects of one image one-to-one by their overlap.

    The overlap of two objects is their intersection over union,
    :math:`\mathrm{IoU}(A, B) = |A \cap B| / |A \cup B|`. Among all ways to pair objects with an
    overlap of at least `threshold`, take those with the most pairs, and among these the one with
    the largest sum of overlaps. Above a threshold of 0.5 there is only one way.

    Parameters
    ----------
    instances_true : array-like of shape (height, width), int
        True objects: 0 is background, each other number an object.
    instances_pred : array-like of shape (height, width), int
        Predicted objects, likewise. Numbers mean nothing beyond their own image.
    threshold : float, default=0.5
        Smallest overlap of a pair, inclusive, in (0, 1].

    Returns
    -------
    numbers_true : ndarray of shape (n_pairs,), int
        Numbers of matched true objects, ascending.
    numbers_pred : ndarray of shape (n_pairs,), int
        Numbers of their partners.
    overlaps : float ndarray of shape (n_pairs,)
        Their overlaps, in [`threshold`, 1].

    Raises
    ------
    TypeError
        If the arrays are not of integers, or `threshold` is not a number.
    ValueError
        If the shapes differ, numbers are negative, or `threshold` is not in (0, 1].

    See Also
    --------
    instance_scores : Scores from the numbers of pairs.

    Examples
    --------
    >>> from sklearn_micranet.metrics import match_instances
    >>> numbers_true, numbers_pred, overlaps = match_instances([[1, 1, 0, 2]], [[7, 7, 7, 0]])
    >>> numbers_true.tolist(), numbers_pred.tolist(), overlaps.round(2).tolist()
    ([1], [7], [0.67])
    """
    threshold = check_thresholds(threshold)
    if threshold.ndim:
        raise TypeError(f"threshold must be one number. Got {threshold.tolist()} instead.")
    instances_true = check_instances(instances_true, "instances_true", ndim=2)
    instances_pred = check_instances(instances_pred, "instances_pred", ndim=2)
    [(true, pred)] = check_instance_pairs([instances_true], [instances_pred])
    overlaps = _overlaps(true, pred)
    i, j, iou = _match(overlaps, float(threshold))
    return overlaps.numbers_true[i], overlaps.numbers_pred[j], iou


def instance_scores(
    instances_true, instances_pred, *, threshold=0.5, per_image=False, zero_division=1.0
):
    r"""Scores of objects that are matched by their overlap.

    In each image (and map), predicted objects are matched one-to-one to true ones by
    `match_instances`. A matched object is a true positive (TP), a predicted one without a partner
    a false positive (FP), a true one without a partner a false negative (FN). With :math:`S` the
    sum of the overlaps of all pairs:

    .. math::

        \text{precision} = \frac{TP}{TP + FP}, \quad
        \text{recall} = \frac{TP}{TP + FN}, \quad
        F_1 = \frac{2 TP}{2 TP + FP + FN}, \quad
        \text{accuracy} = \frac{TP}{TP + FP + FN},

        \text{mean true score} = \frac{S}{TP + FN}, \quad
        \text{mean matched score} = \frac{S}{TP}, \quad
        \text{panoptic quality} = \frac{S}{TP + FP / 2 + FN / 2}.

    Parameters
    ----------
    instances_true : array-like of shape (..., height, width), int, or list of such arrays
        True objects: 0 is background, each other number an object. The first axis is that of the
        images, (n_samples, height, width) or (n_samples, n_maps, height, width); a single
        (height, width) is one image. A list if the images differ in size.
    instances_pred : array-like of shape (..., height, width), int, or list of such arrays
        Predicted objects, likewise.
    threshold : float or array-like of shape (n_thresholds,), default=0.5
        Smallest overlap (IoU) of a pair, inclusive, in (0, 1].
    per_image : bool, default=False
        Whether to score each image. By default, the counts and overlaps of all images are pooled.
    zero_division : float, default=1.0
        Scores where there is nothing to find and nothing is predicted. In any other case a ratio
        without terms is 0.

    Returns
    -------
    scores : named tuple
        With the fields `tp`, `fp`, `fn` (int) and `precision`, `recall`, `f1`, `accuracy`,
        `mean_true_score`, `mean_matched_score`, `panoptic_quality` (float, in [0, 1]). Each is a
        number, or an ndarray of shape (n_thresholds,) for several thresholds, (n_samples,) with
        `per_image`, and (n_samples, n_thresholds) for both.

    Raises
    ------
    TypeError
        If arrays are not of integers, or `threshold` or `zero_division` is not a number.
    ValueError
        If the numbers of images or their shapes differ, numbers of objects are negative, or
        `threshold` is not in (0, 1].

    See Also
    --------
    match_instances : The matching.
    average_precision_score : The mean accuracy over ten thresholds.

    Notes
    -----
    The fields are those of StarDist's ``matching`` [1]_ and have its values, but for two cases:
    without any object its scores are 0, and below a threshold of 0.5, where one object may have
    several possible partners, it chooses among matchings of the same size also by the overlaps
    of pairs that are no matches. `panoptic_quality` is that of [2]_, which demands an overlap
    *above* 0.5: it differs if an overlap is exactly 0.5. Several maps are pooled; for the
    scores of one class, pass ``instances[:, k]``.

    References
    ----------
    .. [1] U. Schmidt et al., "Cell detection with star-convex polygons", MICCAI 2018.
       https://doi.org/10.1007/978-3-030-00934-2_30
    .. [2] A. Kirillov et al., "Panoptic segmentation", CVPR 2019.
       https://doi.org/10.1109/CVPR.2019.00963

    Examples
    --------
    One object is found but for one of three pixels, the other is missed:

    >>> from sklearn_micranet.metrics import instance_scores
    >>> instances_true, instances_pred = [[1, 1, 1, 0, 2, 2]], [[5, 5, 0, 0, 0, 0]]
    >>> scores = instance_scores(instances_true, instances_pred)
    >>> scores.tp, scores.fp, scores.fn, scores.precision, scores.recall
    (1, 0, 1, 1.0, 0.5)
    >>> instance_scores(instances_true, instances_pred, threshold=[0.5, 0.9]).f1.round(2).tolist()
    [0.67, 0.0]
    """
    check_scalar(zero_division, "zero_division", Real)
    thresholds = check_thresholds(threshold)
    pairs = check_instance_pairs(instances_true, instances_pred)
    n_true, n_pred = (np.zeros((len(pairs), 1), dtype=int) for _ in range(2))
    tp = np.zeros((len(pairs), thresholds.size), dtype=int)
    total = np.zeros(tp.shape)
    for sample, (true, pred) in enumerate(pairs):
        for index in np.ndindex(true.shape[:-2]):
            overlaps = _overlaps(true[index], pred[index])
            n_true[sample] += len(overlaps.numbers_true)
            n_pred[sample] += len(overlaps.numbers_pred)
            for k, smallest in enumerate(thresholds.flat):
                _, _, iou = _match(overlaps, smallest)
                tp[sample, k] += len(iou)
                total[sample, k] += iou.sum()
    if not per_image:
        n_true, n_pred, tp, total = (n.sum(axis=0) for n in (n_true, n_pred, tp, total))
    scores = _scores(n_true, n_pred, tp, total, zero_division)
    if thresholds.ndim == 0:
        scores = (score[..., 0] for score in scores)
    return InstanceScores(*(score if score.ndim else score.item() for score in scores))


def average_precision_score(instances_true, instances_pred, *, thresholds=None, zero_division=1.0):
    r"""Mean over thresholds of the accuracy of matched objects, StarDist's average precision.

    .. math:: \mathrm{AP} = \frac{1}{|T|} \sum_{t \in T} \frac{TP_t}{TP_t + FP_t + FN_t}

    with the counts of `instance_scores` at the overlap :math:`t`, pooled over all images.

    Parameters
    ----------
    instances_true : array-like of shape (..., height, width), int, or list of such arrays
        True objects, as in `instance_scores`.
    instances_pred : array-like of shape (..., height, width), int, or list of such arrays
        Predicted objects, likewise.
    thresholds : array-like of shape (n_thresholds,), default=None
        Smallest overlaps (IoU) of a pair, in (0, 1]. None stands for 0.5, 0.55, ..., 0.95.
    zero_division : float, default=1.0
        Score where there is nothing to find and nothing is predicted.

    Returns
    -------
    score : float
        In [0, 1].

    Raises
    ------
    TypeError
        If arrays are not of integers, or `thresholds` or `zero_division` are not numbers.
    ValueError
        If the numbers of images or their shapes differ, numbers of objects are negative, or
        `thresholds` are empty or not in (0, 1].

    See Also
    --------
    instance_scores : Also of each image, whose mean some contests use instead.
    detection_precision_recall_curve : What the other average precision is the area below.

    Notes
    -----
    This is the score of StarDist and of the Data Science Bowl 2018. It is *not* the average
    precision of detection contests (COCO, Pascal VOC): that one is the area below the
    precision-recall curve over the scores of the objects. Here objects have no scores.

    Examples
    --------
    An overlap of 2/3 counts at the four thresholds 0.5 to 0.65 of ten:

    >>> from sklearn_micranet.metrics import average_precision_score
    >>> average_precision_score([[1, 1, 1, 0]], [[1, 1, 0, 0]])
    0.4
    """
    # Not np.arange(0.5, 1, 0.05), whose 0.6 is above 0.6.
    thresholds = np.ravel(np.arange(50, 100, 5) / 100 if thresholds is None else thresholds)
    if len(thresholds) == 0:
        raise ValueError("thresholds must hold at least one number. Got none instead.")
    scores = instance_scores(
        instances_true, instances_pred, threshold=thresholds, zero_division=zero_division
    )
    return float(np.mean(scores.accuracy))


class _Overlaps(NamedTuple):
    """The objects of two label images, and their pairs that share pixels."""

    numbers_true: np.ndarray
    numbers_pred: np.ndarray
    index_true: np.ndarray  # of each pair, into the numbers
    index_pred: np.ndarray
    iou: np.ndarray


def _overlaps(true, pred):
    covered = (true != 0) | (pred != 0)
    # With one background pixel more, index 0 is the background and 1.. the objects.
    (numbers_true, true), (numbers_pred, pred) = (
        np.unique(np.append(labels[covered], 0), return_inverse=True) for labels in (true, pred)
    )
    pairs, n_common = np.unique(true * len(numbers_pred) + pred, return_counts=True)
    i, j = np.divmod(pairs, len(numbers_pred))
    iou = n_common / (np.bincount(true)[i] + np.bincount(pred)[j] - n_common)
    both = (i > 0) & (j > 0)
    return _Overlaps(numbers_true[1:], numbers_pred[1:], i[both] - 1, j[both] - 1, iou[both])


def _match(overlaps, threshold):
    """Return the indices of the matched objects, and their overlaps."""
    enough = overlaps.iou >= threshold
    i, j, iou = overlaps.index_true[enough], overlaps.index_pred[enough], overlaps.iou[enough]
    alone = (np.bincount(i)[i] == 1) & (np.bincount(j)[j] == 1)
    matched = alone.copy()
    contested = np.flatnonzero(~alone)
    for group_true, group_pred, pairs in connected_groups(i[contested], j[contested]):
        pairs = contested[pairs]
        place = np.searchsorted(group_true, i[pairs]), np.searchsorted(group_pred, j[pairs])
        costs, pair_at = np.full((2, len(group_true), len(group_pred)), -1.0)
        costs[place], pair_at[place] = 1 - iou[pairs], pairs
        matched[pair_at[assign(costs, costs >= 0)].astype(int)] = True
    return i[matched], j[matched], iou[matched]


def _scores(n_true, n_pred, tp, total, zero_division):
    n = n_true + n_pred
    undefined = np.where(n, 0.0, zero_division) * np.ones(tp.shape)

    def ratio(numerator, denominator):
        denominator = np.broadcast_to(denominator, tp.shape)
        return np.divide(numerator, denominator, out=undefined.copy(), where=denominator > 0)

    return (
        tp,
        n_pred - tp,
        n_true - tp,
        ratio(tp, n_pred),
        ratio(tp, n_true),
        ratio(2 * tp, n),
        ratio(tp, n - tp),
        ratio(total, n_true),
        ratio(total, tp),
        ratio(2 * total, n),
    )


def check_thresholds(threshold):
    thresholds = np.asarray(threshold)
    if thresholds.dtype.kind not in "iuf":
        raise TypeError(f"Thresholds must be numbers. Got {threshold!r} instead.")
    if thresholds.ndim > 1 or not np.all((thresholds > 0) & (thresholds <= 1)):
        raise ValueError(
            "Thresholds must be one number or a sequence of numbers above 0 and up to 1, the "
            f"smallest intersection over union of a pair. Got {threshold} instead."
        )
    return thresholds
