"""HungarianDetector: segments or instances to detections."""

from numbers import Real

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils.validation import check_consistent_length

from sklearn_micranet._stack._numbers import Interval

from ._labels._maps import read_maps
from ._labels._masks import are_masks
from .metrics import detection_scores
from .metrics._regions import as_instances, as_points, centres, check_fit

_AXES = "(n_samples, n_classes, height, width)"
_MARGIN = 0.01  # of scores, at either end, for values outside [0, 1]


class HungarianDetector(BaseEstimator):
    r"""Detect and count the objects of instances, segments or masks.

    Each object gives one detection. Detections are scored by matching them one-to-one with the
    true positions by the Hungarian algorithm, no pair farther apart than `max_distance` [1]_.

    Parameters
    ----------
    max_distance : float, default=10.0
        Largest distance, in px, between a detection and the true position that it is matched
        with; about one object radius.

    See Also
    --------
    ThresholdSegmenter : Makes the segments.
    sklearn_micranet.metrics.detection_scores : Precision, recall and F1.

    Notes
    -----
    The position of an object is its centroid, or the pixel of the object nearest to the centroid
    if that lies outside the object, as in a ring.

    The score of an object ranks it among those of all images. It follows from :math:`v`, the
    mean value of the segment in the object, and is :math:`v` itself where that lies in
    [0.01, 0.99]. So that the score always lies in [0, 1] and still rises with :math:`v` where the
    feature maps have another range, it is

    .. math::

        s(v) = 1 - \frac{0.01^2}{v - 1 + 0.02} \quad \text{for } v > 0.99, \qquad
        s(v) = 1 - s(1 - v) \quad \text{for } v < 0.01.

    Masks and instances without segments have no values: their score is 1.

    Stateless: `fit` reads nothing. Memory grows with the batch and the number of objects.

    References
    ----------
    .. [1] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet import HungarianDetector
    >>> segments = np.zeros((1, 2, 5, 5))
    >>> segments[0, 1, 2:4, 0:3] = 0.7
    >>> HungarianDetector().predict(segments)[0]
    array([[1. , 2.5, 1. , 0.7]])
    """

    _parameter_constraints: dict = {
        "max_distance": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, *, max_distance=10.0):
        self.max_distance = max_distance

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check the input; nothing is learned, and no sample is read.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Segments, masks or instances, as in `predict`.
        y : ignored

        Returns
        -------
        self : HungarianDetector
        """
        read_maps(X, ndim=4, axes=_AXES)
        return self

    def predict(self, X):
        """Detect the objects of each sample.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            What :meth:`ThresholdSegmenter.transform` returns, whose objects may touch; other
            segments, float and zero outside the objects; masks of dtype bool; or instances, int
            with a number for each object. Objects of segments and masks are connected components:
            their pixels share an edge or a corner. Integers of which none in a sample is above 1
            are masks. A list of arrays if the images differ in size.

        Returns
        -------
        detections : object ndarray of shape (n_samples,)
            For each sample a float64 ndarray of shape (n_detections, 4) with rows (class index,
            row, column, score): the position in px, the centre of the top-left pixel being (0, 0),
            and the score in [0, 1].

        Raises
        ------
        ValueError
            If X are not such arrays; integers must neither be negative nor hold 0 and 255 only.
        """
        self._validate_params()
        stack = read_maps(X, ndim=4, axes=_AXES)
        detections = np.empty(len(stack), dtype=object)  # cross_val_predict concatenates it
        for i, (segments, instances) in enumerate(_with_instances(stack, X)):
            detections[i] = _detections(segments, instances)
        return detections

    def score(self, X, y):
        """Return the detection F1, with the counts of all samples and classes pooled.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Segments, masks or instances, as in `predict`.
        y : list of n_samples array-like of shape (n_objects, 3), or array-like of shape \
                (n_samples, n_classes, height, width)
            True positions (class index, row, column), masks, whose connected components are the
            true objects, or instances. A list of arrays if the images differ in size.

        Returns
        -------
        f1 : float

        Raises
        ------
        ValueError
            If y does not fit X.
        """
        self._validate_params()
        stack = read_maps(X, ndim=4, axes=_AXES)
        points = as_points(check_fit(y, stack) if are_masks(y) else y)
        check_consistent_length(stack, points)
        # Without detections, to raise before segments are computed.
        detection_scores(points, [[]] * len(stack), max_distance=self.max_distance)
        if not stack.is_ragged:
            _check_classes(points, stack.shape[1])
        return detection_scores(points, self.predict(X), max_distance=self.max_distance).f1

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        return tags


def _check_classes(points, n_maps):
    """Raise a ValueError for true positions of a class that has no map, which cannot be found."""
    for i, rows in enumerate(points):
        wrong = [row[0] for row in rows if row[0] >= n_maps]
        if wrong:
            raise ValueError(
                f"y must hold the indices of classes with maps, below {n_maps}, in its first "
                f"column. Got {wrong[0]:g} for sample {i} instead."
            )


def _with_instances(stack, X):
    """Yield (segments, instances) of each sample; segments are None where there are no values."""
    if hasattr(X, "instances"):
        yield from zip(stack, X.instances, strict=True)
        return
    for sample in stack:
        if sample.dtype.kind == "f":
            yield sample, as_instances([sample != 0])[0]
        else:
            yield None, as_instances([sample], "X")[0]


def _detections(segments, instances):
    """Return (class index, row, column, score) of the objects of (n_classes, height, width)."""
    rows = [np.empty((0, 4))]
    for k, labels in enumerate(instances):
        numbers = np.unique(labels[labels > 0])
        scores = np.ones(len(numbers))
        if segments is not None and len(numbers):
            values = segments[k].astype(np.float64)
            scores = _score(np.asarray(ndimage.mean(values, labels, numbers)))
        rows.append(np.column_stack([np.full(len(numbers), k), centres(labels), scores]))
    return np.concatenate(rows)


def _score(values):
    """Return scores in [0, 1] in the order of the values: those inside the margins themselves."""
    inside = np.clip(values, _MARGIN, 1 - _MARGIN)
    rest = _MARGIN**2 / (np.abs(values - inside) + _MARGIN)
    return np.select([values > inside, values < inside], [1 - rest, rest], inside)
