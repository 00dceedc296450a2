"""ThresholdSegmenter: feature maps to masks and instances."""

from copy import deepcopy
from functools import partial
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_array, check_is_fitted

from sklearn_micranet._stack._numbers import Interval

from ._labels._hints import refuse_flat_masks
from ._labels._maps import read_maps
from ._labels._masks import are_masks
from ._masks._instances import SPLITS
from ._masks._segment import (
    check_n_classes,
    instances_of,
    learn_thresholds,
    masks_of,
    pixels_of,
)
from ._masks._segment_stack import PIXEL, SegmentStack
from ._masks._thresholds import METHODS, Cut
from ._network_classifier import forget
from .metrics import mask_scorer
from .metrics._regions import as_masks, check_fit

_AXES = "(n_samples, n_classes, height, width)"


class ThresholdSegmenter(TransformerMixin, BaseEstimator):
    """Segment each class where its feature map lies above a threshold, and number the objects.

    Each map is, in this order: compared with its competitors, smoothed, thresholded (pixels
    *above* the threshold form the mask), reduced to one component, filled, and cleaned of small
    components. A constant map, as that of a class predicted absent, has an empty mask. The objects
    of a mask are its components, or parts of these where touching objects are split. Splitting
    changes no mask: touching objects touch.

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
    split : {"shape", "peaks"} or callable, default="shape"
        Where touching objects are split, by a watershed (scikit-image's) from one marker each. A
        component without a marker is one object.

        - "shape": at necks. A marker is a peak of the distance to the background, and a neck is at
          least 2 px narrower than the objects on either side. The distance is flooded.
        - "peaks": between peaks of the feature map, which is flooded. `sigma` smooths it before.
        - callable: maps a mask (bool) and its feature map, both of shape (height, width), to
          markers: an int array of the same shape, a number for each object, elsewhere 0. The
          feature map is flooded.
    min_distance : int, default=None
        Smallest distance in px between the markers of a component, for "shape" and "peaks": of
        peaks closer than that the highest counts. ``None`` splits nothing. A callable splits in
        any case, and does not use it.

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
    sklearn_micranet.images.measure_objects : Turns instances into a table.

    Notes
    -----
    ``method="learned"`` needs masks, if only a few. (The probability from which a class is present
    is another threshold; labels suffice for it: see :class:`TunedThresholdsClassifierCV`.) Among
    at least 2048 equally spaced values over the range of a class's maps, it takes the one with the
    largest mean intersection over union, counted as in `score` but for each class by itself. Maps
    are compared and smoothed before, as in `predict`; `keep`, `max_hole_size` and `min_size` play
    no part. One value serves all images, so their maps should share a scale:
    those of :class:`PCAFeatureMap` do with ``rescale="coarse"``, and otherwise only as far as the
    images are alike. Report a `score` on images whose masks `fit` has not seen.

    With any other method, `fit` reads and learns nothing. Memory grows with the batch; in `predict`
    and `predict_instances` also with what is returned, and for ``method="learned"`` in `fit` by up
    to 0.1 MB for each image and class. Beyond these it grows with one image by 1 byte for each
    pixel of float32 maps, and by 5 ("quantile"), 6 (`ignore_zeros`), 10 (`sigma`,
    ``keep="peak"``), 15 (`min_size`, `max_hole_size`), 28 ("block_otsu") or, where objects are
    split, 100. Connected means that pixels share an edge or a corner.

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

    Two objects that touch:

    >>> two = np.array([[[[0, 7, 9, 7, 5, 6, 8, 6, 0]]]])
    >>> segmenter = ThresholdSegmenter(method="fixed", split="peaks", min_distance=2)
    >>> segmenter.predict_instances(two)
    array([[[[0, 1, 1, 1, 1, 2, 2, 2, 0]]]], dtype=int32)

    With a mask to learn from:

    >>> mask = np.array([[[[False, False, True], [False, False, True]]]])
    >>> segmenter = ThresholdSegmenter(method="learned").fit(feature_map, mask)
    >>> segmenter.thresholds_.round(2)
    array([0.85])
    """

    _parameter_constraints: dict = {
        "method": [StrOptions(set(METHODS)), callable],
        "quantile": [Interval(Real, 0, 1, closed="both")],
        "threshold": [Real],
        "block_size": [Interval(Integral, 2, None, closed="left")],
        "ignore_zeros": ["boolean"],
        "subtract_competitors": ["boolean"],
        "sigma": [Interval(Real, 0, None, closed="left"), "array-like", None],
        "keep": [StrOptions({"all", "peak"})],
        "max_hole_size": [Interval(Integral, 0, None, closed="left")],
        "min_size": [Interval(Integral, 0, None, closed="left")],
        "split": [StrOptions(set(SPLITS)), callable],
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
        split="shape",
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
        self.split = split
        self.min_distance = min_distance

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the thresholds for ``method="learned"``; otherwise check the parameters only.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Feature maps. They are read only for ``method="learned"``, once and batch by batch.
        y : array-like of shape (n_samples, n_classes, height, width), default=None
            True masks or instances, for ``method="learned"``, as in `score`; otherwise ignored.

        Returns
        -------
        self : ThresholdSegmenter

        Raises
        ------
        ValueError
            If ``method="learned"`` and y are not the masks of X.
        """
        stack = read_maps(X, ndim=4, axes=_AXES)
        forget(self)
        if self.method == "learned":
            refuse_flat_masks("y", y, allow_instances=True)
            if not are_masks(y):
                got = None if y is None else getattr(y, "shape", type(y).__name__)
                raise ValueError(
                    'method="learned" needs masks of shape (n_samples, n_classes, height, width) '
                    f'as y. Got {got} instead. Without masks, use another method, such as "otsu".'
                )
            masks = as_masks(check_fit(y, stack))
            self.thresholds_ = learn_thresholds(stack, masks, self._snapshot()["prepare"])
        return self

    def transform(self, X):
        """Return the feature maps inside the masks, and 0 outside.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Feature maps; a list of arrays if the images differ in size.

        Returns
        -------
        segments : LazyStack of shape (n_samples, n_classes, height, width)
            Float32, computed when read. Non-zero exactly where `predict` is true: a value of 0
            inside a mask becomes the smallest positive number. Its attribute `instances` is the
            LazyStack of what `predict_instances` returns, so that a :class:`HungarianDetector`
            finds touching objects; a plain array of segments does not tell them apart.
        """
        return SegmentStack(self._map(pixels_of, X, PIXEL, "objects"))

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
        return self._map(masks_of, X, bool).computed()

    def predict_instances(self, X):
        """Return the masks with a number for each object.

        After the other steps of a pipeline, it is ``pipeline.transform(images).instances``.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Feature maps; a list of arrays if the images differ in size.

        Returns
        -------
        instances : int32 ndarray of shape (n_samples, n_classes, height, width)
            0 for the background; in each image and class 1, 2 and so on for the objects, in the
            order of their first pixels, row by row. Above 0 exactly where `predict` is true. A
            list of arrays if the images differ in size.

        Raises
        ------
        ValueError
            If `split` is a callable that does not return markers.
        """
        return self._map(instances_of, X, np.int32, "objects").computed()

    def score(self, X, y):
        """Return the mean intersection over union of the masks.

        The mean is over the images and classes with a true or a predicted mask: where a class is
        neither there nor found, there is nothing to score.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, height, width)
            Feature maps; a list of arrays if the images differ in size.
        y : array-like of shape (n_samples, n_classes, height, width)
            True masks, of dtype bool or of 0 and 1, or instances, whose pixels above 0 count; a
            list of arrays if the images differ in size.

        Returns
        -------
        score : float
            In [0, 1]. 1 if there is no mask at all.
        """
        self._check_fitted()
        stack = read_maps(X, ndim=4, axes=_AXES)
        return mask_scorer("iou")(self, stack, check_fit(y, stack))

    def _map(self, function, X, dtype, *groups):
        """Return the stack of what a function makes of each sample, with the parameters of now."""
        self._check_fitted()
        stack = read_maps(X, ndim=4, axes=_AXES)
        parameters = self._snapshot()
        if not stack.is_ragged:
            check_n_classes(stack.shape[1], parameters["cut"])
        used = {name: parameters[name] for name in ("prepare", "cut", "clean", *groups)}
        return stack.map(partial(function, **used), item_shape=stack.item_shape, dtype=dtype)

    def _check_fitted(self):
        self._validate_params()
        check_is_fitted(self)

    def _snapshot(self):
        """Return the parameters as they are now, in the groups of what uses them."""
        parameters = deepcopy(self.get_params(deep=False))
        parameters["sigma"] = _sigmas(self)
        parameters["thresholds"] = self.thresholds_ if self._is_learned() else None

        def group(*names):
            return {name: parameters[name] for name in names}

        return {
            "prepare": group("ignore_zeros", "subtract_competitors", "sigma"),
            "cut": Cut(**group(*Cut._fields)),
            "clean": group("keep", "max_hole_size", "min_size"),
            "objects": group("split", "min_distance"),
        }

    def _is_learned(self):
        return self.method == "learned" and hasattr(self, "thresholds_")

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


def _sigmas(step):
    return np.ravel([] if step.sigma is None else step.sigma)
