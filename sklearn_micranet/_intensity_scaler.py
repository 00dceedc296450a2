"""IntensityScaler: intensities of any bit depth to the range that a network learns from."""

from functools import partial
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_micranet._stack._numbers import Interval

from ._labels._images import read_images
from ._network_classifier import forget
from ._stack._lazy_stack import LazyStack, as_stack
from .images._intensities import check_no_alpha, check_one_dtype, extremes, scale_image


class IntensityScaler(TransformerMixin, BaseEstimator):
    r"""Scale the intensities of each image, and of each of its channels.

    The first step of a pipeline of images:
    ``make_pipeline(IntensityScaler(), MicraNetClassifier())``.

    With :math:`x` the intensity of a pixel, each `method` gives
    :math:`(x - o) / s`, where

    - ``"minmax"``: :math:`o` is the smallest and :math:`o + s` the largest intensity of the
      channel;
    - ``"standard"``: :math:`o` is the mean and :math:`s` the standard deviation of the channel;
    - ``"dtype"``: :math:`o = 0` and :math:`s` is the largest value of the dtype (255 for uint8,
      65535 for uint16), or :math:`2^b - 1` with the `bit_depth` :math:`b` of the camera. Images
      of a float dtype must be in [0, 1] already, by scikit-image's convention (rounding by up to
      0.001 is tolerated), and are left as they are unless `bit_depth` is given;
    - ``"percentile"``: :math:`o` and :math:`o + s` are the two `percentiles` of the channel, and
      the result is clipped to [0, 1]; a channel whose percentiles coincide uses its range;
    - ``"training_range"``: the rule of the F-actin images [1]_, learned in `fit`,

      .. math:: o = m, \quad s = 0.8 (M - m), \quad m = \mathrm{median}_i(\min x_i), \quad
                M = \mathrm{median}_i(\max x_i) + 3\,\mathrm{std}_i(\max x_i)

      over the channel :math:`x_i` of the training images. Nothing is clipped.

    Where the image itself sets offset and scale, a constant channel becomes zeros.

    Parameters
    ----------
    method : {"minmax", "standard", "dtype", "percentile", "training_range"}, default="minmax"
        How offset and scale are found. All but ``"training_range"`` treat each image by itself.
    per_channel : bool, default=True
        Whether each channel has an offset and a scale of its own, as stains of different
        brightness need. ``False`` scales all channels of an image alike, which keeps colours as
        they are. Makes no difference to ``"dtype"``.
    percentiles : (float, float), default=(1, 99.8)
        Lower and upper percentile, in [0, 100].
    bit_depth : int, default=None
        Number of bits that ``"dtype"`` assumes, such as 12 for a 12-bit camera in uint16.
        ``None`` takes it from the dtype, which must then have at most 16 bits and be the same for
        all images.
    invert : bool, default=False
        Whether to turn the intensities over before they are scaled, so that dark structures
        become bright: :math:`1 - x'`, or :math:`-x'` for ``"standard"``, of the result
        :math:`x'`. Zeros of constant channels stay zeros.
    image_shape : tuple, default=None
        Height, width and, for colour, channels of flattened images. ``None`` takes them as grey.

    Attributes
    ----------
    data_min_, data_max_ : ndarray of shape (n_channels,) or (1,), float64
        :math:`m` and :math:`M` of each channel, or of all, for ``method="training_range"`` only.
    n_channels_in_ : int
        Number of channels of the training images.
    n_features_in_ : int
        Number of features, if the training images were flattened.
    image_shape_ : tuple
        `image_shape`, inferred where it is ``None``, if the training images were flattened.

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
        "per_channel": ["boolean"],
        "percentiles": [tuple, list],
        "bit_depth": [Interval(Integral, 1, 64, closed="both"), None],
        "invert": ["boolean"],
        "image_shape": [tuple, list, None],
    }

    def __init__(
        self,
        *,
        method="minmax",
        per_channel=True,
        percentiles=(1, 99.8),
        bit_depth=None,
        invert=False,
        image_shape=None,
    ):
        self.method = method
        self.per_channel = per_channel
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
            Images of any real dtype, without alpha (transparency). Lazily read arrays are read
            batch by batch, and only by ``method="training_range"``; where images differ in size,
            or might have alpha, any method reads the first.
        y : None
            Ignored.

        Returns
        -------
        self : object
        """
        self._check_dtypes(X)
        forget(self)
        name = type(self).__name__
        images = read_images(
            X, name=name, image_shape=self.image_shape, allow_ragged=True, allow_small=True
        )
        self.n_channels_in_, self.image_shape_ = images.n_channels, images.image_shape
        if images.is_flattened:
            validate_data(self, X, skip_check_array=True)
        if self.n_channels_in_ > 1:
            first = images.stack[:1] if isinstance(images.stack, LazyStack) else images.stack
            check_no_alpha([_unflattened(image, self.image_shape_) for image in first])
        if self.method == "training_range":
            self.data_min_, self.data_max_ = self._learn_range(images)
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
            self._check_range()
        self._check_dtypes(X)
        images = read_images(
            X,
            name=type(self).__name__,
            image_shape=self.image_shape_,
            n_channels=self.n_channels_in_,
            allow_ragged=True,
            allow_small=True,
        )
        if images.is_flattened:
            validate_data(self, X, reset=False, skip_check_array=True)
        stack = as_stack(images.stack)
        scale = partial(
            _scale,
            image_shape=images.image_shape,
            method=self.method,
            per_channel=self.per_channel,
            percentiles=self.percentiles,
            bit_depth=self.bit_depth,
            invert=self.invert,
            training_range=(self.data_min_, self.data_max_) if learned else None,
            # The images of a stack that differ in size may differ in dtype.
            stack_dtype=images.stack.dtype if isinstance(images.stack, LazyStack) else None,
        )
        return stack.map(scale, item_shape=stack.item_shape)

    def _learn_range(self, images):
        function = partial(_extremes, per_channel=self.per_channel, image_shape=images.image_shape)
        shape = (2, self.n_channels_in_ if self.per_channel else 1)
        stack = as_stack(images.stack).map(function, item_shape=shape, dtype=np.float64)
        smallest, largest = np.asarray(stack).swapaxes(0, 1)
        spread = np.std(largest, axis=0)
        return np.median(smallest, axis=0), np.median(largest, axis=0) + 3 * spread

    def _check_range(self):
        check_is_fitted(
            self,
            "data_min_",
            msg='method="training_range" requires the range that fit learns with this method. '
            "Got %(name)s fitted with another one instead: call fit again.",
        )
        if len(self.data_min_) != (self.n_channels_in_ if self.per_channel else 1):
            raise NotFittedError(
                f"per_channel={self.per_channel} requires the range that fit learns with it. "
                f"Got {type(self).__name__} fitted with another value instead: call fit again."
            )

    def _check_dtypes(self, X):
        """Refuse a list of arrays of several dtypes, of which NumPy makes one."""
        is_list = isinstance(X, (list, tuple)) or getattr(X, "dtype", None) == np.dtype(object)
        if is_list and self.method == "dtype" and self.bit_depth is None:
            check_one_dtype([x.dtype for x in X if hasattr(x, "dtype")])

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


def _unflattened(image, image_shape):
    return image if image_shape is None else image.reshape(image_shape)


def _extremes(image, *, per_channel, image_shape):
    return np.array(extremes(_unflattened(image, image_shape), per_channel=per_channel))


def _scale(image, *, image_shape, **parameters):
    return scale_image(_unflattened(image, image_shape), **parameters).reshape(image.shape)
