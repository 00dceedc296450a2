"""Scores of estimators, for searches and cross-validation."""

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import StrOptions, validate_params

from ._detection import detection_scores
from ._instances import InstanceScores, average_precision_score, check_thresholds, instance_scores
from ._matching import check_max_distance
from ._regions import as_instances, as_masks, as_points
from ._segmentation import dice_score, iou_score, symmetric_boundary_dice_score

_MASK_SCORES = {
    "iou": iou_score,
    "dice": dice_score,
    "boundary_dice": symmetric_boundary_dice_score,
}
_INSTANCE_RATIOS = tuple(name for name in InstanceScores._fields if name not in ("tp", "fp", "fn"))


def detection_scorer(*, max_distance):
    """Make a scorer of detections: their F1, with the counts of all samples and classes pooled.

    Parameters
    ----------
    max_distance : float
        Largest distance in px between a detection and its object, inclusive.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)`` returns the F1 of `detection_scores`, in [0, 1], for
        ``estimator.predict(X)``, a list of arrays with rows (map index, row, column, score). It
        can be pickled. `y` holds for each sample points of shape (n_objects, 3) with rows (class
        index, row, column), or masks or instances of shape (n_maps, height, width). An object of
        masks is a connected component. Its position is its centroid, or the pixel of the object
        nearest to the centroid if that lies outside the object, as in a ring. Masks are bool or
        hold 0 and 1 only; other integers are instances. Masks of 0 and 255 raise ValueError.

    Raises
    ------
    TypeError
        If `max_distance` is not a number.
    ValueError
        If `max_distance` is negative or NaN.

    See Also
    --------
    detection_scores : The score.

    Notes
    -----
    Searches need this scorer. The ``score`` of a detector uses the detector's own `max_distance`,
    which is the tolerance of the *judge*: a larger one makes no detection better, but turns false
    ones into matches, so that a search over it with ``score`` always buys F1 with the largest
    tolerance it is offered. Fix the tolerance here, at about one radius of the objects, and search
    the parameters that change the detections.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet import HungarianDetector
    >>> from sklearn_micranet.metrics import detection_scorer
    >>> segments = np.zeros((1, 1, 8, 8))
    >>> segments[0, 0, 1:4, 1:4] = 0.7
    >>> scorer = detection_scorer(max_distance=3)
    >>> scorer(HungarianDetector().fit(segments), segments, [[[0, 2, 3], [0, 6, 6]]])
    0.6666666666666666
    """
    check_max_distance(max_distance)
    return _Scorer("detection_scorer", _score_detections, max_distance=max_distance)


@validate_params({"metric": [StrOptions(set(_MASK_SCORES))]}, prefer_skip_nested_validation=True)
def mask_scorer(metric="iou"):
    """Make a scorer of masks: their mean agreement with the true ones.

    Parameters
    ----------
    metric : {"iou", "dice", "boundary_dice"}, default="iou"
        `iou_score`, `dice_score` or `symmetric_boundary_dice_score`.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)`` returns the mean score, in [0, 1], for ``estimator.predict(X)``,
        bool masks of shape (n_samples, n_maps, height, width), or a list if the images differ in
        size. The mean is over the images and maps with a true or a predicted mask, and 1 if there
        is none at all. It can be pickled. `y` holds masks or instances of the same shape.

    Raises
    ------
    ValueError
        If `metric` is unknown.

    See Also
    --------
    instance_scorer : Objects instead of pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet import ThresholdSegmenter
    >>> from sklearn_micranet.metrics import mask_scorer
    >>> feature_maps = np.array([[[[0.1, 0.9, 0.8]]]])
    >>> segmenter = ThresholdSegmenter(method="fixed").fit(feature_maps)
    >>> mask_scorer("dice")(segmenter, feature_maps, np.array([[[[1, 1, 1]]]]))
    0.8
    """
    return _Scorer("mask_scorer", _score_masks, metric=metric)


@validate_params(
    {
        "metric": [StrOptions({*_INSTANCE_RATIOS, "average_precision"})],
        "threshold": "no_validation",
    },
    prefer_skip_nested_validation=True,
)
def instance_scorer(metric="f1", *, threshold=0.5):
    """Make a scorer of objects that are matched by their overlap.

    Parameters
    ----------
    metric : {"f1", "precision", "recall", "accuracy", "mean_true_score", "mean_matched_score", \
            "panoptic_quality", "average_precision"}, default="f1"
        A field of `instance_scores`, with the counts of all images and maps pooled, or
        `average_precision_score`, which has thresholds of its own.
    threshold : float, default=0.5
        Smallest overlap (intersection over union) of a pair, inclusive, in (0, 1].

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)`` returns the score, in [0, 1], for
        ``estimator.predict_instances(X)``, int arrays of shape (n_samples, n_maps, height, width),
        or a list if the images differ in size. For a pipeline whose last step has this method,
        the steps before transform X; of a fitted search, the best estimator is scored. It can be
        pickled. `y` holds instances of the same shape, or masks, whose connected components are
        the objects. Masks are bool or hold 0 and 1 only; those of 0 and 255 raise ValueError.

    Raises
    ------
    TypeError
        If `threshold` is not a number.
    ValueError
        If `metric` is unknown or `threshold` not in (0, 1].

    See Also
    --------
    instance_scores : The scores.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet.metrics import instance_scorer
    >>> class NumbersGiven:
    ...     def predict_instances(self, X):
    ...         return X
    >>> instances = np.array([[[[1, 1, 0, 2]]]])
    >>> instance_scorer("recall")(NumbersGiven(), instances, np.array([[[[1, 1, 0, 0]]]]))
    1.0
    """
    if check_thresholds(threshold).ndim:
        raise TypeError(f"threshold must be one number. Got {threshold} instead.")
    return _Scorer("instance_scorer", _score_instances, metric=metric, threshold=threshold)


class _Scorer:
    """Call a score of an estimator with parameters fixed beforehand."""

    def __init__(self, name, score, **parameters):
        self._name = name
        self._score = score
        self._parameters = parameters

    def __call__(self, estimator, X, y):
        return float(self._score(estimator, X, y, **self._parameters))

    def __repr__(self):
        parameters = ", ".join(f"{name}={value!r}" for name, value in self._parameters.items())
        return f"{self._name}({parameters})"


def _score_detections(estimator, X, y, *, max_distance):
    points_true = as_points(y)
    # Without detections, to raise before anything is computed.
    detection_scores(points_true, [[]] * len(points_true), max_distance=max_distance)
    detections = estimator.predict(X)
    if any(np.ndim(sample) > 2 for sample in detections):
        raise TypeError(
            "detection_scorer needs an estimator whose predict returns detections, rows (map "
            "index, row, column, score) for each sample, as that of HungarianDetector. Got arrays "
            f"with {np.ndim(detections[0])} dimensions for each sample instead. For masks, use "
            "mask_scorer or instance_scorer."
        )
    return detection_scores(points_true, detections, max_distance=max_distance).f1


def _score_masks(estimator, X, y, *, metric):
    masks_true = as_masks(y)
    masks_pred = estimator.predict(X)
    _check_same_shapes("mask_scorer", "predict returns masks", masks_true, masks_pred)
    scores = [
        _MASK_SCORES[metric](true, pred, zero_division=np.nan)
        for true, pred in zip(masks_true, masks_pred, strict=True)
    ]
    scores = np.concatenate([np.empty(0), *scores])
    return 1.0 if np.isnan(scores).all() else np.nanmean(scores)


def _score_instances(estimator, X, y, *, metric, threshold):
    instances_true = as_instances(y)
    instances_pred = _predict_instances(estimator, X)
    _check_same_shapes(
        "instance_scorer", "predict_instances returns instances", instances_true, instances_pred
    )
    if metric == "average_precision":
        return average_precision_score(instances_true, instances_pred)
    return getattr(instance_scores(instances_true, instances_pred, threshold=threshold), metric)


def _predict_instances(estimator, X):
    estimator = getattr(estimator, "best_estimator_", estimator)
    while isinstance(estimator, Pipeline):
        if len(estimator) > 1:
            X = estimator[:-1].transform(X)
        estimator = estimator[-1]
    if not hasattr(estimator, "predict_instances"):
        raise TypeError(
            "instance_scorer needs an estimator, or a pipeline that ends in one, with a method "
            f"predict_instances. Got {type(estimator).__name__} instead."
        )
    return estimator.predict_instances(X)


def _check_same_shapes(scorer, returns, true, pred):
    needs = f"{scorer} needs an estimator whose {returns} of the shapes of y"
    if len(pred) != len(true):
        raise ValueError(f"{needs}. Got {len(pred)} samples for {len(true)} instead.")
    for i, shapes in enumerate(zip(map(np.shape, true), map(np.shape, pred), strict=True)):
        if shapes[0] != shapes[1]:
            raise ValueError(f"{needs}, {shapes[0]} for sample {i}. Got {shapes[1]} instead.")
