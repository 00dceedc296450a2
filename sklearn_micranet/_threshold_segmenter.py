"""ThresholdSegmenter: feature maps to masks."""

from copy import deepcopy
from numbers import Integral, Real

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.morphology import reconstruction, remove_small_holes, remove_small_objects
from skimage.segmentation import watershed
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import assert_all_finite, check_array, check_is_fitted

from ._labels._validation import are_masks, check_masks, check_ndim, check_stack, is_lazy, is_ragged
from ._masks._block_otsu import block_otsu_thresholds
from ._masks._learned_threshold import best_threshold, count_levels
from ._stack._lazy_stack import LazyStack
from .metrics import iou_score

_AXES = "(n_samples, n_classes, height, width)"
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


class ThresholdSegmenter(TransformerMixin, BaseEstimator):
    """Segment each class where its feature map lies above a threshold.

    Each map is, in this order: compared with its competitors, smoothed, thresholded (pixels
    *above* the threshold form the mask), reduced to one component, filled, cleaned of small
    components, and split. A constant map, as that of a class predicted absent, has an empty mask.

    Parameters
    ----------
    method : {"otsu", "quantile", "fixed", "block_otsu", "learned"} or callable, default="otsu"
        How the threshold of a map is found.

        - "otsu": Otsu's method [1]_.
        - "quantile": the `quantile` of the map's pixels; 0.8 keeps the top 20 %.
        - "fixed": `threshold`.
        - "block_otsu": Otsu's method inside each block of `block_size` whose range (largest minus
          smallest value) is above the Otsu threshold of all blocks' ranges; other blocks are empty.
        - "learned": `thresholds_`, one for each class, which `fit` learns from masks.
        - callable: maps a feature map to a threshold or an array of thresholds, such as
          ``skimage.filters.threshold_li``. With `ignore_zeros` it gets the pixels that count, as
          an array of shape (n_pixels,).
    quantile : float in [0, 1], default=0.8
        Used by "quantile".
    threshold : float, default=0.5
        Used by "fixed".
    block_size : int, default=8
        Side of the blocks of "block_otsu", in px.
    ignore_zeros : bool, default=False
        Whether pixels that are exactly 0 are left out of the threshold's calculation and of the
        mask. :class:`PCAFeatureMap` writes 0 outside the components that it keeps.
    subtract_competitors : bool, default=False
        Whether the largest map of the other classes is subtracted first.
    sigma : float or sequence of float, default=None
        Standard deviation of a Gaussian filter, in px; several are applied one after another.
    keep : {"all", "peak"}, default="all"
        Whether to keep all connected components or the one that holds the maximum of the map.
    max_hole_size : int, default=0
        Holes, background that a component encloses, of up to so many px are filled.
    min_size : int, default=0
        Components of fewer px are removed.
    min_distance : int, default=None
        Touching objects are split by a watershed from the peaks of the distance transform that lie
        at least so many px apart, with a neck between them that is at least 2 px narrower than
        either; a line of background one px wide parts them.

    Attributes
    ----------
    thresholds_ : float64 ndarray of shape (n_classes,)
        The learned thresholds, for ``method="learned"`` only. ``inf``, which leaves all masks
        empty, for a class without any true mask and where no threshold finds a pixel of one;
        ``-inf`` where it is best to keep all pixels that count.

    See Also
    --------
    PCAFeatureMap : Makes the feature maps.
    HungarianDetector : Turns segments into detections.

    Notes
    -----
    ``method="learned"`` needs masks, if only a few. (The probability from which a class is present
    is another threshold; labels suffice for it: see :class:`TunedThresholdsClassifierCV`.) Among
    at least 2048 equally spaced values over the range of a class's maps, it takes the one with the
    largest mean intersection over union, counted as in `score` but for each class by itself. Maps
    are compared and smoothed before, as in `predict`; `keep`, `max_hole_size`, `min_size` and
    `min_distance` play no part. One value serves all images, so their maps should share a scale:
    those of :class:`PCAFeatureMap` do with ``rescale="coarse"``, and otherwise only as far as the
    images are alike. Report a `score` on images whose masks `fit` has not seen.

    With any other method, `fit` reads and learns nothing. Memory grows with the batch; in `predict`
    also with the bool masks that are returned, and for ``method="learned"`` in `fit` by up to
    0.1 MB for each image and class. Connected means that pixels share an edge or a corner.

    References
    ----------
    .. [1] Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on
       Systems, Man, and Cybernetics 9, 1979. :doi:`10.1109/TSMC.1979.4310076`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet import ThresholdSegmenter
    >>> feature_map = np.array([[[[0.1, 0.2, 0.9], [0.1, 0.8, 0.9]]]])
    >>> ThresholdSegmenter(method="fixed", threshold=0.5).predict(feature_map).astype(int)
    array([[[[0, 0, 1],
             [0, 1, 1]]]])

    With a mask to learn from:

    >>> mask = np.array([[[[False, False, True], [False, False, True]]]])
    >>> segmenter = ThresholdSegmenter(method="learned").fit(feature_map, mask)
    >>> segmenter.thresholds_.round(2)
    array([0.85])
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"otsu", "quantile", "fixed", "block_otsu", "learned"}), callable],
        "quantile": [Interval(Real, 0, 1, closed="both")],
        "threshold": [Real],
        "block_size": [Interval(Integral, 2, None, closed="left")],
        "ignore_zeros": ["boolean"],
        "subtract_competitors": ["boolean"],
        "sigma": [Interval(Real, 0, None, closed="left"), "array-like", None],
        "keep": [StrOptions({"all", "peak"})],
        "max_hole_size": [Interval(Integral, 0, None, closed="left")],
        "min_size": [Interval(Integral, 0, None, closed="left")],
        "min_distance": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        *,
        method="otsu",
        quantile=0.8,
        threshold=0.5,
        block_size=8,
        ignore_zeros=False,
        subtract_competitors=False,
        sigma=None,
        keep="all",
        max_hole_size=0,
        min_size=0,
        min_distance=None,
    ):
        self.method = method
        self.quantile = quantile
        self.threshold = threshold
        self.block_size = block_size
        self.ignore_zeros = ignore_zeros
        self.subtract_competitors = subtract_competitors
        self.sigma = sigma
        self.keep = keep
        self.max_hole_size = max_hole_size
        self.min_size = min_size
        self.min_distance = min_distance

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the thresholds for ``method="learned"``; otherwise check the parameters only.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Feature maps. They are read only for ``method="learned"``, once and batch by batch.
        y : array-like of shape (n_samples, n_classes, height, width), default=None
            True masks, of dtype bool or of 0 and 1, for ``method="learned"``; otherwise ignored.

        Returns
        -------
        self : ThresholdSegmenter

        Raises
        ------
        ValueError
            If ``method="learned"`` and y are not the masks of X.
        """
        stack = check_stack(X, ndim=4, axes=_AXES)
        vars(self).pop("thresholds_", None)
        if self.method == "learned":
            if not are_masks(y):
                got = None if y is None else getattr(y, "shape", type(y).__name__)
                raise ValueError(
                    'method="learned" needs masks of shape (n_samples, n_classes, height, width) '
                    f'as y. Got {got} instead. Without masks, use another method, such as "otsu".'
                )
            self.thresholds_ = _learn_thresholds(stack, _check_masks(y, stack), self)
        return self

    def transform(self, X):
        """Return the feature maps inside the masks, and 0 outside.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Feature maps; a list of arrays if the images differ in size.

        Returns
        -------
        segments : float32 ndarray of shape (n_samples, n_classes, height, width)
            Non-zero exactly where `predict` is true: a value of 0 inside a mask becomes the
            smallest positive number. A LazyStack if X is one, a list if X is one.
        """
        stack = self._check_maps(X)
        segment = _Segment(self, as_mask=False)
        if is_lazy(stack):
            shape = None if is_ragged(stack) else stack.shape[1:]
            batch_size = getattr(stack, "batch_size", 1)
            return LazyStack(stack, segment, item_shape=shape, batch_size=batch_size)
        return segment(stack)

    def predict(self, X):
        """Return the masks.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Feature maps; a list of arrays if the images differ in size.

        Returns
        -------
        masks : bool ndarray of shape (n_samples, n_classes, height, width)
            A list of arrays if the images differ in size.
        """
        stack = self._check_maps(X)
        segment = _Segment(self, as_mask=True)
        if is_ragged(stack):
            return [segment([sample])[0] for sample in stack]
        masks = np.empty(stack.shape, dtype=bool)
        for i, sample in enumerate(stack):
            masks[i] = segment([sample])[0]
        return masks

    def score(self, X, y):
        """Return the mean intersection over union of the masks.

        The mean is over the images and classes with a true or a predicted mask: where a class is
        neither there nor found, there is nothing to score.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Feature maps.
        y : array-like of shape (n_samples, n_classes, height, width)
            True masks, of dtype bool or of 0 and 1.

        Returns
        -------
        score : float
            In [0, 1]. 1 if there is no mask at all.
        """
        stack = self._check_maps(X)
        y = _check_masks(y, stack)
        ious = iou_score(y, self.predict(stack), zero_division=np.nan)
        return 1.0 if np.isnan(ious).all() else float(np.nanmean(ious))

    def _check_maps(self, X):
        self._validate_params()
        check_is_fitted(self)
        return check_stack(X, ndim=4, axes=_AXES)

    def _validate_params(self):
        super()._validate_params()
        sigmas = check_array(
            _sigmas(self), ensure_2d=False, ensure_min_samples=0, input_name="sigma"
        )
        if (sigmas < 0).any():
            raise ValueError(f"sigma must not be negative. Got {self.sigma} instead.")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = tags.target_tags.required = self.method == "learned"
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


class _Segment:
    """Segment a batch with the parameters and thresholds that the step had when this was made."""

    def __init__(self, step, as_mask):
        self.step = deepcopy(step)
        self.as_mask = as_mask

    def __call__(self, batch):
        samples = [self._segment(_as_float(sample)) for sample in batch]
        return samples if isinstance(batch, list) else np.stack(samples)

    def _segment(self, feature_maps):
        """Segment one sample of shape (n_classes, height, width)."""
        check_ndim(feature_maps.ndim + 1, ndim=4, axes=_AXES)
        if self.step.method == "learned" and len(feature_maps) != len(self.step.thresholds_):
            raise ValueError(
                f"X must have {len(self.step.thresholds_)} class(es), as the feature maps that "
                f"ThresholdSegmenter was fitted on. Got {len(feature_maps)} instead."
            )
        masks = np.zeros(feature_maps.shape, dtype=bool)
        for k, feature_map, considered in _prepare(feature_maps, self.step):
            above = _above_threshold(feature_map, considered, self.step, k)
            masks[k] = _clean(above, feature_map, self.step)
        if self.as_mask:
            return masks
        segments = np.zeros(feature_maps.shape, dtype=np.float32)
        inside = feature_maps[masks].astype(np.float32)
        # A value of 0 would look like background to whoever reads the segment.
        inside[inside == 0] = np.finfo(np.float32).tiny
        segments[masks] = inside
        return segments


def _check_masks(y, stack):
    if is_ragged(stack):
        raise ValueError(
            "Masks are compared with images of one size. Got images of different sizes instead: "
            "pass those of each size separately."
        )
    return check_masks(y, stack, stack.shape[2:], n_classes=stack.shape[1])


def _sigmas(step):
    return np.ravel([] if step.sigma is None else step.sigma)


def _as_float(sample):
    """Return a sample as an array that can be subtracted and smoothed: integers would wrap."""
    sample = np.asarray(sample)
    return sample.astype(np.result_type(sample, np.float32), copy=False)


def _prepare(feature_maps, step):
    """Yield (class index, map to threshold, pixels that count) of the maps that vary."""
    for k, feature_map in enumerate(feature_maps):
        if feature_map.min() == feature_map.max():
            continue
        considered = feature_map != 0 if step.ignore_zeros else np.ones(feature_map.shape, bool)
        if step.subtract_competitors and len(feature_maps) > 1:
            feature_map = feature_map - np.delete(feature_maps, k, axis=0).max(axis=0)
        for sigma in _sigmas(step):
            feature_map = ndimage.gaussian_filter(feature_map, sigma)
        yield k, feature_map, considered


def _above_threshold(feature_map, considered, step, k):
    """Return the considered pixels above the threshold of the step's method."""
    if step.method == "block_otsu":
        threshold = block_otsu_thresholds(feature_map, considered, step.block_size)
    elif step.method == "fixed":
        threshold = step.threshold
    elif step.method == "learned":
        threshold = step.thresholds_[k]
    else:
        find = {"otsu": threshold_otsu, "quantile": lambda v: _quantile(v, step.quantile)}
        find = step.method if callable(step.method) else find[step.method]
        threshold = find(feature_map[considered] if step.ignore_zeros else feature_map)
        if np.shape(threshold) not in ((), feature_map.shape):
            raise ValueError(
                "method must return one threshold, or one for each pixel of a feature map. Got the "
                f"shape {np.shape(threshold)} instead. Local thresholds need ignore_zeros=False."
            )
    return (feature_map > threshold) & considered


def _quantile(values, quantile):
    """Return what np.quantile does, several times faster: one partition instead of two."""
    values = np.ravel(values)
    position = quantile * (len(values) - 1)
    k = int(position)
    values = np.partition(values, k)
    above = values[k + 1 :].min() if k + 1 < len(values) else values[k]
    return values[k] + (above - values[k]) * (position - k)


def _learn_thresholds(stack, masks, step):
    """Return the best threshold of each class, reading each sample once and keeping counts only."""
    pairs = [[] for _ in range(masks.shape[1])]
    for sample, sample_masks in zip(stack, masks, strict=True):
        assert_all_finite(sample, input_name="X")
        for k, feature_map, considered in _prepare(_as_float(sample), step):
            inside = sample_masks[k]
            pairs[k].append(
                (inside.sum(), *count_levels(feature_map[considered], inside[considered]))
            )
    n_present = masks.any(axis=(2, 3)).sum(axis=0)
    return np.array([best_threshold(*of_class) for of_class in zip(pairs, n_present, strict=True)])


def _clean(mask, feature_map, step):
    """Reduce a mask to one component, fill, remove small components, and split."""
    if step.keep == "peak" and mask.any():
        labels, _ = ndimage.label(mask, structure=_NEIGHBOURS)
        mask = labels == labels.flat[np.where(mask, feature_map, -np.inf).argmax()]
    if step.max_hole_size:
        # `remove_small_holes` alone also fills small background at the border of the image.
        filled = remove_small_holes(mask, max_size=step.max_hole_size)
        mask = filled & ndimage.binary_fill_holes(mask)
    if step.min_size:
        mask = remove_small_objects(mask, max_size=step.min_size - 1, connectivity=2)
    if step.min_distance is not None:
        mask = _split(mask, step.min_distance)
    return mask


def _split(mask, min_distance):
    """Part touching objects by a watershed of the distance to the background."""
    components, _ = ndimage.label(mask, structure=_NEIGHBOURS)
    distance = ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(
        distance, min_distance=min_distance, labels=components, exclude_border=False
    )
    # A peak floods the ridge around it, down to 1 px lower, so that a rod remains one object.
    summits, _ = ndimage.label(distance > reconstruction(distance - 1, distance), _NEIGHBOURS)
    markers = np.where(np.isin(summits, summits[tuple(peaks.T)]), summits, 0)
    # watershed_line=True takes minutes and gigabytes for some masks: the line is drawn here.
    objects = watershed(-distance, markers, connectivity=2, mask=mask)
    return (objects > 0) & (objects == ndimage.maximum_filter(objects, footprint=_NEIGHBOURS))
