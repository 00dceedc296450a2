"""Images: what is accepted, and what is known of them once they were read."""

from dataclasses import dataclass
from functools import partial
from math import isqrt
from numbers import Integral

import numpy as np
from sklearn.utils.validation import assert_all_finite, check_array

from sklearn_micranet._stack._lazy_stack import LazyStack, as_stack
from sklearn_micranet._stack._sources import is_lazy, is_ragged, unpacked
from sklearn_micranet._stack._warnings import warn_user

from ._hints import refuse_paths

MAX_CHANNELS = 16  # of a plausible image
_N_COLOURS = (3, 4)  # RGB and RGBA
_N_FEATURES_OF_AN_IMAGE = 256
_MAX_VALUES = 2**26  # of a batch of maps, in all
_MIN_SIDE = 8  # px, of a plausible image with channels


@dataclass(frozen=True)
class Images:
    """Images that were read.

    Attributes
    ----------
    stack : ndarray, LazyStack, or list of ndarray
        A list, or a ragged stack, if they differ in size.
    n_channels : int
    image_shape : tuple of int or None
        (height, width) or (height, width, n_channels) of flattened images, None for others.
    """

    stack: object
    n_channels: int
    image_shape: tuple | None = None

    def __len__(self):
        return len(self.stack)

    @property
    def is_flattened(self):
        return self.image_shape is not None

    @property
    def size(self):
        """Height and width, in px; None if the images differ in size."""
        if is_ragged(self.stack):
            return None
        return tuple(self.image_shape[:2] if self.is_flattened else self.stack.shape[1:3])

    def n_pixels(self, row):
        """Return the pixels of an image; None if they are not known before it is read."""
        size = self.size
        if size is None and isinstance(self.stack, list):
            size = self.stack[row].shape[:2]
        return size and size[0] * size[1]

    def batch_size(self, at_most, n_values):
        """Return how many images are computed at a time, with so many values for each pixel."""
        if self.size is None and not isinstance(self.stack, list):
            return 1  # their sizes are not known before they are read
        n_pixels = max(self.n_pixels(row) for row in range(len(self) if self.size is None else 1))
        return max(1, min(at_most, _MAX_VALUES // (n_pixels * n_values)))


def read_images(
    X, *, name, image_shape=None, n_channels=None, allow_ragged=False, allow_small=False
):
    """Read images, to be trained on or like those of a training.

    Parameters
    ----------
    X : array-like, lazily read array, or list of ndarray
    name : str
        Class of the estimator, for the errors.
    image_shape : tuple of int or None
        Shape of flattened images. In training, ``None`` makes a square number of features a square
        image and anything else one row; later, it means that flattened images were not trained on.
    n_channels : int, default=None
        Of the images that were trained on; ``None`` in training.
    allow_ragged : bool, default=False
        Whether images may differ in size.
    allow_small : bool, default=False
        Whether images with channels may have sides of fewer than 8 px.

    Returns
    -------
    images : Images
        Not copied if X is an array of a real dtype already. The images of a lazy stack that
        differ in size are checked when they are read; here, only training reads the first.
    """
    refuse_paths("X", X)
    X = _with_arrays(unpacked(X))
    if is_ragged(X):
        images = _read_ragged(X, name, n_channels)
        if not allow_ragged:
            _refuse_ragged(images.stack)
        return images
    stack = as_stack(X) if is_lazy(X) else _check_array(X, name)
    if stack.ndim == 2:
        image_shape = _shape_of_flattened(stack.shape[1], name, image_shape, n_channels)
        return Images(stack, image_shape[2] if len(image_shape) == 3 else 1, image_shape)
    if stack.ndim not in (3, 4):
        raise ValueError(
            "X must have the shape (n_samples, height, width), (n_samples, height, width, "
            "n_channels) or, flattened, (n_samples, n_features). Got "
            f"{stack.ndim} dimensions instead."
        )
    _check_not_empty(stack)
    _check_layout(stack.shape, 1 if allow_small else _MIN_SIDE)
    got = stack.shape[3] if stack.ndim == 4 else 1
    if n_channels is not None:
        _check_channels(got, n_channels, name)
    return Images(stack, got)


def resolve_image_shape(image_shape, n_features):
    """Return the shape of flattened images, inferred where it is None."""
    if image_shape is None:
        side = isqrt(n_features)
        return (side, side) if side * side == n_features else (1, n_features)
    shape = tuple(image_shape)
    if len(shape) not in (2, 3) or not all(isinstance(n, Integral) and n > 0 for n in shape):
        raise ValueError(
            "image_shape must be (height, width) or (height, width, n_channels), in px. Got "
            f"{shape} instead."
        )
    if np.prod(shape) != n_features:
        raise ValueError(
            f"image_shape must multiply to the number of features, {n_features}. Got {shape} "
            "instead."
        )
    if len(shape) == 3 and shape[0] < _MIN_SIDE <= min(shape[1:]):
        raise ValueError(
            f"image_shape must be (height, width, n_channels). Got {shape} instead, which looks "
            f"like channels first: pass np.moveaxis(X.reshape(-1, *{shape}), 1, -1) as X."
        )
    return shape


def _check_layout(shape, min_side):
    """Refuse what is no stack of images with channels last."""
    if len(shape) == 3:
        if shape[2] in _N_COLOURS and shape[1] >= _MIN_SIDE:
            raise ValueError(
                "X of 3 dimensions must have the shape (n_samples, height, width). Got "
                f"{shape}, which would be images of {shape[2]} px width, instead: pass a single "
                "colour image as image[np.newaxis]."
            )
        return
    if shape[3] > MAX_CHANNELS or min(shape[1:3]) < min_side:
        channels_first = shape[1] <= MAX_CHANNELS and min(shape[2:]) >= _MIN_SIDE
        mend = "np.moveaxis(X, 1, -1)" if channels_first else f"images of at least {_MIN_SIDE} px"
        raise ValueError(
            "X of 4 dimensions must have the shape (n_samples, height, width, n_channels), with "
            f"sides of at least {_MIN_SIDE} px and at most {MAX_CHANNELS} channels. Got {shape} "
            f"instead: pass {mend}."
        )


def _read_ragged(X, name, n_channels):
    if not is_lazy(X):
        stack = [_check_array(x, name) for x in X]
        got = _common_channels(stack)
        if n_channels is not None:
            _check_channels(got, n_channels, name)
        return Images(stack, got)
    _check_not_empty(X)
    if n_channels is None:
        n_channels = _common_channels([X[0]])
    check = partial(_check_read, n_channels=n_channels, name=name)
    stack = LazyStack(X, check, item_shape=None, dtype=X.dtype, batch_size=X.batch_size)
    return Images(stack, n_channels)


def _refuse_ragged(images):
    got, advice = "images of different sizes", "Cut them into crops of one size."
    if isinstance(images, list) and len({image.shape[:2] for image in images}) == 1:
        got = "images with and without an axis of one channel"
        advice = "Pass image.squeeze(-1) of those with it."
    raise ValueError(f"Training images must all have one shape. Got {got} instead. {advice}")


def _check_read(images, *, n_channels, name):
    _check_channels(_common_channels(images), n_channels, name)
    return images


def _shape_of_flattened(n_features, name, image_shape, n_channels):
    if n_channels is None:
        shape = resolve_image_shape(image_shape, n_features)
        if image_shape is None and shape[0] == 1 and n_features >= _N_FEATURES_OF_AN_IMAGE:
            warn_user(
                f"The {n_features} features of a sample are taken for the pixels of one row, as "
                f"{n_features} is no square number. Set image_shape=(height, width, n_channels), "
                "or pass images of that shape."
            )
        return shape
    if image_shape is None:
        raise ValueError(
            f"{name} was fitted on images of shape (n_samples, height, width) or (n_samples, "
            "height, width, n_channels). Got a 2-dimensional X instead: pass a single image as "
            "image[np.newaxis]."
        )
    return image_shape


def _check_channels(got, n_channels, name):
    if got != n_channels:
        raise ValueError(
            f"X must have {n_channels} channel(s), as the images that {name} was fitted on. Got "
            f"{got} instead. X is a stack of images, channels last: pass a single image as "
            "image[np.newaxis]."
        )


def _check_not_empty(images):
    if 0 in images.shape:
        raise ValueError(
            "X must hold at least one image of at least one pixel. Got the shape "
            f"{images.shape} instead."
        )


def _check_array(X, name):
    if np.ma.is_masked(X):
        raise ValueError(
            "X must hold a value for every pixel. Got a masked array with masked pixels instead: "
            "pass X.filled(value)."
        )
    images = check_array(
        X,
        allow_nd=True,
        ensure_2d=False,
        ensure_all_finite=False,
        estimator=name,
        input_name="X",
    )
    if images.ndim < 2:
        raise ValueError(
            "X must have the shape (n_samples, height, width), (n_samples, height, width, "
            f"n_channels) or, flattened, (n_samples, n_features). Got the shape {images.shape} "
            "instead. Reshape your data, a single sample as sample[np.newaxis]."
        )
    if images.dtype.kind not in "buif":
        raise ValueError(f"X must hold real numbers. Got the dtype {images.dtype} instead.")
    _check_finite(images)
    is_wide = images.dtype.kind == "f" and images.dtype.itemsize > 4 and images.size
    if is_wide and max(images.max(), -images.min()) > np.finfo(np.float32).max:
        raise ValueError(
            "X must be finite in float32. Got a value too large instead: scale the images."
        )
    return images


def _check_finite(images):
    try:
        assert_all_finite(images, input_name="X")
    except ValueError as error:
        wrong = next(i for i, image in enumerate(images) if not np.isfinite(image).all())
        raise ValueError(
            f"X must be finite. {error} The first is in image {wrong}: leave such images out, or "
            "replace their values, as np.nan_to_num does."
        ) from None


def _with_arrays(X):
    """Return a list with the arrays of the images of Pillow that it holds, which know no shape."""
    if not isinstance(X, (list, tuple)):
        return X
    if any(getattr(x, "mode", None) == "P" and hasattr(x, "getpalette") for x in X):
        raise ValueError(
            "X must hold intensities. Got an image of Pillow in mode P, which holds indices of a "
            "palette, instead: pass image.convert('L') or image.convert('RGB')."
        )
    return [
        np.asarray(x) if not hasattr(x, "shape") and hasattr(type(x), "__array_interface__") else x
        for x in X
    ]


def _common_channels(images):
    wrong = {image.ndim for image in images} - {2, 3}
    if wrong:
        raise ValueError(
            "Images of different sizes must each have the shape (height, width) or (height, width, "
            f"n_channels). Got {wrong.pop()} dimensions instead."
        )
    channels = {image.shape[2] if image.ndim == 3 else 1 for image in images}
    if len(channels) > 1:
        raise ValueError(
            f"All images must have the same number of channels. Got {sorted(channels)} instead."
        )
    return channels.pop()
