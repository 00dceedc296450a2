"""IntensityScaler: intensities of any bit depth to the range that a network learns from."""

from functools import partial
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ._labels._images import read_images
from ._network_classifier import forget
from ._stack._lazy_stack import as_stack


class IntensityScaler(TransformerMixin, BaseEstimator):
    r"""Scale the intensities of each image.

    The first step of a pipeline of images:
    ``make_pipeline(IntensityScaler(), MicraNetClassifier())``.

    With :math:`x` the intensity of a pixel, each `method` gives
    :math:`(x - o) / s`, where

    - ``"minmax"``: :math:`o` is the smallest and :math:`o + s` the largest intensity of the image;
    - ``"standard"``: :math:`o` is the mean and :math:`s` the standard deviation of each channel of
      the image;
    - ``"dtype"``: :math:`o = 0` and :math:`s` is the largest value of the dtype (255 for uint8,
      65535 for uint16), or :math:`2^b - 1` with the `bit_depth` :math:`b` of the camera. Images
      of a float dtype are in [0, 1] already, by scikit-image's convention, and are left as they
      are unless `bit_depth` is given;
    - ``"percentile"``: :math:`o` and :math:`o + s` are the two `percentiles` of the image, and
      the result is clipped to [0, 1]; an image whose percentiles coincide uses its range;
    - ``"training_range"``: the rule of the F-actin images [1]_, learned in `fit`,

      .. math:: o = m, \quad s = 0.8 (M - m), \quad m = \mathrm{median}_i(\min x_i), \quad
                M = \mathrm{median}_i(\max x_i) + 3\,\mathrm{std}_i(\max x_i)

      over the training images :math:`x_i`. Nothing is clipped.

    Where the image itself sets offset and scale, a constant image (for ``"standard"``, a constant
    channel) becomes zeros.

    Parameters
    ----------
    method : {"minmax", "standard", "dtype", "percentile", "training_range"}, default="minmax"
        How offset and scale are found. All but ``"training_range"`` treat each image by itself.
    percentiles : (float, float), default=(1, 99.8)
        Lower and upper percentile, in [0, 100].
    bit_depth : int, default=None
        Number of bits that ``"dtype"`` assumes, such as 12 for a 12-bit camera in uint16.
        ``None`` takes it from the dtype, which must then have at most 16 bits.
    invert : bool, default=False
        Whether to turn the intensities over before they are scaled, so that dark structures
        become bright: :math:`1 - x'`, or :math:`-x'` for ``"standard"``, of the result
        :math:`x'`. Zeros of constant images stay zeros.
    image_shape : tuple, default=None
        Height, width and, for colour, channels of flattened images. ``None`` takes them as grey.

    Attributes
    ----------
    data_min_, data_max_ : float
        :math:`m` and :math:`M`, for ``method="training_range"`` only.
    n_channels_in_ : int
        Number of channels of the training images.
    n_features_in_ : int
        Number of features, if the training images were flattened.
    image_shape_ : tuple or None
        `image_shape`, inferred where it is ``None``; ``None`` if the images were not flattened.

    See Also
    --------
    MicraNetClassifier : Learns image-level labels from the scaled images.

    References
    ----------
    .. [1] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet import IntensityScaler
    >>> images = np.array([[[0, 10], [20, 40]], [[7, 7], [7, 7]]], dtype=np.uint16)
    >>> np.asarray(IntensityScaler().fit_transform(images))
    array([[[0.  , 0.25],
            [0.5 , 1.  ]],
    <BLANKLINE>
           [[0.  , 0.  ],
            [0.  , 0.  ]]], dtype=float32)
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"minmax", "standard", "dtype", "percentile", "training_range"})],
        "percentiles": [tuple, list],
        "bit_depth": [Interval(Integral, 1, 64, closed="both"), None],
        "invert": ["boolean"],
        "image_shape": [tuple, list, None],
    }

    def __init__(
        self,
        *,
        method="minmax",
        percentiles=(1, 99.8),
        bit_depth=None,
        invert=False,
        image_shape=None,
    ):
        self.method = method
        self.percentiles = percentiles
        self.bit_depth = bit_depth
        self.invert = invert
        self.image_shape = image_shape

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check the images; for ``method="training_range"``, learn the range from them.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width), \
                (n_samples, height, width, n_channels) or (n_samples, n_features), or list of images
            Images of any real dtype. Lazily read arrays are read batch by batch, and only by
            ``method="training_range"``; where images differ in size, any method reads the first.
        y : None
            Ignored.

        Returns
        -------
        self : object
        """
        forget(self)
        name = type(self).__name__
        images = read_images(X, name=name, image_shape=self.image_shape, allow_ragged=True)
        self.n_channels_in_, self.image_shape_ = images.n_channels, images.image_shape
        if images.is_flattened:
            validate_data(self, X, skip_check_array=True)
        if self.method == "training_range":
            stack = as_stack(images.stack)
            extremes = np.asarray(stack.map(_extremes, item_shape=(2,), dtype=np.float64))
            self.data_min_ = float(np.median(extremes[:, 0]))
            self.data_max_ = float(np.median(extremes[:, 1]) + 3 * np.std(extremes[:, 1]))
        return self

    def transform(self, X):
        """Scale images.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width), \
                (n_samples, height, width, n_channels) or (n_samples, n_features), or list of images
            Images of any real dtype; those of a list may differ in size.

        Returns
        -------
        scaled : LazyStack of float32 of the shape of X
            Each image is scaled when it is read and not kept, so that memory grows with what is
            read at a time. ``np.asarray(scaled)`` is the array.
        """
        self._validate_params()
        check_is_fitted(self)
        learned = self.method == "training_range"
        if learned:
            check_is_fitted(
                self,
                "data_min_",
                msg='method="training_range" requires the range that fit learns with this method. '
                "Got %(name)s fitted with another one instead: call fit again.",
            )
        images = read_images(
            X,
            name=type(self).__name__,
            image_shape=self.image_shape_,
            n_channels=self.n_channels_in_,
            allow_ragged=True,
        )
        if images.is_flattened:
            validate_data(self, X, reset=False, skip_check_array=True)
        scale = partial(
            _scale,
            image_shape=images.image_shape,
            method=self.method,
            percentiles=self.percentiles,
            bit_depth=self.bit_depth,
            invert=self.invert,
            training_range=(self.data_min_, self.data_max_) if learned else None,
        )
        stack = as_stack(images.stack)
        return stack.map(scale, item_shape=stack.item_shape)

    def _validate_params(self):
        super()._validate_params()
        low_high = self.percentiles
        if len(low_high) != 2 or not 0 <= low_high[0] < low_high[1] <= 100:
            raise ValueError(
                f"percentiles must be two increasing numbers in [0, 100]. Got {low_high!r} instead."
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _extremes(image):
    return np.array([image.min(), image.max()], dtype=np.float64)


def _scale(image, *, image_shape, **parameters):
    """Scale one image, flattened or not, to float32."""
    shape, image = image.shape, image.reshape(image_shape or image.shape)
    offset, scale = _offset_and_scale(image, **parameters)
    # Up to 16 bits float32 is exact; beyond, the difference must be taken in float64.
    scaled = np.subtract(image, offset, dtype=np.result_type(image.dtype, np.float32))
    scaled /= np.where(scale == 0, np.inf, scale)
    if parameters["method"] == "percentile":
        np.clip(scaled, 0, 1, out=scaled)
    return scaled.astype(np.float32, copy=False).reshape(shape)


def _offset_and_scale(image, *, method, percentiles, bit_depth, invert, training_range):
    if method == "standard":
        constant = image.min(axis=(0, 1)) == image.max(axis=(0, 1))
        # Rounding would leave a constant channel with a tiny standard deviation.
        scale = np.where(constant, 0, image.std(axis=(0, 1), dtype=np.float64))
        return image.mean(axis=(0, 1), dtype=np.float64), -scale if invert else scale
    low, high = image.min(), image.max()
    if method == "dtype":
        low, high = 0, _largest_intensity(image.dtype, bit_depth)
    elif method == "training_range":
        low = training_range[0]
        high = low + 0.8 * (training_range[1] - low)
    elif method == "percentile":
        # NumPy takes no percentiles of bool.
        values = image.view(np.uint8) if image.dtype == bool else image
        lower, upper = np.percentile(values, percentiles)
        low, high = (lower, upper) if lower < upper else (low, high)
    if invert:
        low, high = high, low
    return low, float(high) - float(low)


def _largest_intensity(dtype, bit_depth):
    if bit_depth is not None:
        return 2**bit_depth - 1
    if dtype.kind in "bf":
        return 1
    if dtype.itemsize > 2:
        raise ValueError(
            f'method="dtype" requires images of at most 16 bits. Got {dtype} instead, which no '
            "camera fills: set bit_depth to the number of bits that are used."
        )
    return np.iinfo(dtype).max
