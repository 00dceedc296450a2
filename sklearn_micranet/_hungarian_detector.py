"""HungarianDetector: segments to detections."""

from numbers import Real

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils._param_validation import Interval

from ._labels._maps import read_maps
from ._labels._masks import are_masks, check_masks
from ._masks._shapes import NEIGHBOURS
from ._stack._sources import is_ragged
from .metrics import detection_scores

_AXES = "(n_samples, n_classes, height, width)"


class HungarianDetector(BaseEstimator):
    """Detect and count the objects of segments.

    An object is a connected component (of 8 neighbours) of the segment of a class. Detections are
    scored by matching them one-to-one with the true positions by the Hungarian algorithm, no
    pair farther apart than `max_distance` [1]_.

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
    >>> HungarianDetector().predict(segments)
    [array([[1. , 2.5, 1. , 0.7]])]
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
            Segments.
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
            Segments: zero outside the objects; or masks of dtype bool. A list of arrays if the
            images differ in size.

        Returns
        -------
        detections : list of n_samples float64 ndarray of shape (n_detections, 4)
            Class index, row, column (of the centroid, in px; the centre of the top-left pixel is
            (0, 0)) and score, the largest value of the segment.
        """
        self._validate_params()
        stack = read_maps(X, ndim=4, axes=_AXES)
        return list(stack.map(_objects, item_shape=None, dtype=np.float64))

    def score(self, X, y):
        """Return the detection F1, with the counts of all samples and classes pooled.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Segments, as in `predict`.
        y : list of n_samples array-like of shape (n_objects, 3), or array-like of shape \
                (n_samples, n_classes, height, width)
            True positions (class index, row, column), or masks, whose connected components are
            the true objects.

        Returns
        -------
        f1 : float
        """
        self._validate_params()
        stack = read_maps(X, ndim=4, axes=_AXES)
        if are_masks(y):
            if is_ragged(stack):
                raise ValueError(
                    "Masks are scored for images of one size. Got images of different sizes "
                    "instead: pass the true positions, or score those of each size separately."
                )
            y = check_masks(y, stack, stack.shape[2:], n_classes=stack.shape[1])
            y = [_objects(sample)[:, :3] for sample in y]
        else:  # without detections, to raise before segments are computed
            detection_scores(y, [[]] * len(stack), max_distance=self.max_distance)
        return detection_scores(y, self.predict(stack), max_distance=self.max_distance).f1

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        return tags


def _objects(segments):
    """Return (class index, row, column, score) of the components of (n_classes, height, width)."""
    objects = []
    for k, segment in enumerate(segments):
        labels, n = ndimage.label(segment, structure=NEIGHBOURS)
        index = np.arange(1, n + 1)
        centres = ndimage.center_of_mass(labels > 0, labels, index)
        scores = ndimage.maximum(segment, labels, index)
        objects.extend((k, *centre, score) for centre, score in zip(centres, scores, strict=True))
    return np.array(objects, dtype=np.float64).reshape(-1, 4)
