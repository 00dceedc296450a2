"""Handwritten digits scattered over canvases, with exactly known masks and positions."""

from functools import cache
from numbers import Integral

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.stats import qmc
from sklearn.datasets import load_digits
from sklearn.utils import Bunch, check_array, check_consistent_length, check_random_state
from sklearn.utils._param_validation import validate_params

from sklearn_micranet._stack._numbers import Interval

N_CLASSES = 10
DIGIT_SIDE = 28  # px
# Holds a digit turned by 30 degrees (38.2 px wide) wherever between two pixels its middle lies.
PATCH_SIDE = 42
MIN_DISTANCE = 25  # px
MAX_ANGLE = np.deg2rad(30)
MAX_BLUR = 2  # px
NOISE_RATE = np.sqrt(255) / 2  # grey levels of 255


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "image_size": [Interval(Integral, DIGIT_SIDE, None, closed="left")],
        "n_digits": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "digits": [tuple, list, None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_digit_canvases(
    n_samples=100,
    *,
    image_size=256,
    n_digits=(1, 2, 3, 4, 5, 10, 15, 20, None),
    digits=None,
    random_state=None,
):
    r"""Scatter handwritten digits over canvases: the modified MNIST of MICRA-Net.

    The recipe of the paper [1]_. Each canvas shows a random number of digits, turned, blurred and
    noisy. Which classes it shows are its image-level labels; the digits' own pixels and positions
    are the truth to compare segmentation and detection with.

    Parameters
    ----------
    n_samples : int, default=100
        Number of canvases. The first canvases do not depend on it.
    image_size : int, default=256
        Height and width of a canvas, px; at least 28, the side of a digit.
    n_digits : int, None or array-like of int or None, default=(1, 2, 3, 4, 5, 10, 15, 20, None)
        Digits on a canvas, or several numbers of which each canvas draws one. None stands for as
        many as fit, and so does any number above it (mostly 1 to 3 on 64 px, about 55 on 256 px).
    digits : tuple (images, labels), default=None
        Handwriting to draw from. None takes that of :func:`sklearn.datasets.load_digits`. Pass
        disjoint parts to train and test, or MNIST's training and test digits.

        images : array-like of shape (n_images, height, width)
            One digit each, bright on black. Unsigned integers are scaled by the range of their
            dtype, any other dtype must lie in [0, 1]. The longer side is resized to 28 px.
        labels : array-like of int of shape (n_images,)
            The digit, 0 to 9.
    random_state : int, RandomState instance or None, default=None
        Determines everything drawn. Pass an int for the same canvases in every call.

    Returns
    -------
    canvases : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : ndarray of shape (n_samples, image_size, image_size), float32
            Canvases, in [0, 1].
        labels : ndarray of shape (n_samples, 10), int
            1 where the digit is on the canvas, else 0.
        masks : ndarray of shape (n_samples, 10, image_size, image_size), bool
            The pixels of the digits of each class. Where digits of two classes overlap, each keeps
            its own; those of one class merge.
        points : list of n_samples ndarray of shape (n_digits_on_canvas, 3), float64
            Class, row and column of each digit: the centroid of its own pixels, as detections
            have the centroid of theirs. The centre of the top-left pixel is (0, 0), px.

    Raises
    ------
    ValueError
        If a parameter or the handwriting is not as described above.

    Notes
    -----
    **Positions** are a Poisson-disc sample [2]_: the middles of the 28 px squares, which lie inside
    the canvas, are at least 25 px apart. The canvas is filled and a random part of the sample kept,
    because a sample that stops early crowds around its first point. A digit whose strokes reach
    the corners of its square may lose their tips when turned at the border: about one pixel on
    average with the embedded handwriting.

    **Appearance**: handwriting is drawn uniformly, resized and turned by U(-30, 30) degrees by one
    cubic interpolation. Where digits overlap the brighter one shows. Then follow, in random order,
    a Gaussian blur with :math:`\sigma \sim U[0, 2)` px and noise, and a clip to [0, 1].

    **Masks** hold the pixels above half the maximum of the turned digit, before blur and noise:
    the width of a stroke at half maximum.

    **Noise**: :math:`x + k / 255` with :math:`k \sim \mathrm{Poisson}(\lambda)`,
    :math:`\lambda = \sqrt{255} / 2`, for each pixel. We read "normalised" as grey levels divided by
    the 255 of white, for :math:`\lambda` is itself half the shot noise of a white 8-bit pixel.
    This is a camera's dark signal, 0.031 +- 0.011. Divided by its mean instead, the noise would
    vary by 0.35 and drown the strokes.

    **Memory** is `n_samples` x `image_size` :sup:`2` x 14 bytes, 10 of them for the masks (0.9 MB a
    canvas of 256 px), and a float32 copy of the handwriting.

    References
    ----------
    .. [1] A. Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`. Preprint: :doi:`10.21203/rs.3.rs-95613/v1`
    .. [2] R. Bridson, "Fast Poisson disk sampling in arbitrary dimensions", SIGGRAPH sketches
       (2007). :doi:`10.1145/1278780.1278807`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_micranet.datasets import make_digit_canvases
    >>> X, y = load_digits().images / 16, load_digits().target
    >>> train = make_digit_canvases(4, digits=(X[:1000], y[:1000]), random_state=0)
    >>> test = make_digit_canvases(2, n_digits=3, digits=(X[1000:], y[1000:]), random_state=1)
    >>> train.images.shape, train.labels.shape, train.masks.shape
    ((4, 256, 256), (4, 10), (4, 10, 256, 256))
    >>> [len(points) for points in test.points]
    [3, 3]
    """
    n_digits = _check_n_digits(n_digits)
    handwriting, classes = _embedded_digits() if digits is None else _check_digits(digits)
    images = np.empty((n_samples, image_size, image_size), dtype=np.float32)
    masks = np.zeros((n_samples, N_CLASSES, image_size, image_size), dtype=bool)
    points = []
    entropy = check_random_state(random_state).randint(2**31, size=4, dtype=np.int64).tolist()
    # A stream for each canvas: what one draws leaves the others as they are.
    for index, stream in enumerate(np.random.SeedSequence(entropy).spawn(n_samples)):
        rng = np.random.default_rng(stream)
        wanted = n_digits[rng.integers(len(n_digits))]
        positions = _scatter(rng, wanted, image_size)
        canvas, canvas_points = _draw(rng, positions, handwriting, classes, masks[index])
        images[index] = _degrade(rng, canvas)
        points.append(canvas_points)
    labels = masks.any(axis=(2, 3)).astype(int)
    return Bunch(images=images, labels=labels, masks=masks, points=points)


def _check_n_digits(n_digits):
    is_scalar = n_digits is None or isinstance(n_digits, Integral)
    choices = (n_digits,) if is_scalar else tuple(n_digits)
    if not choices or not all(
        choice is None or (isinstance(choice, Integral) and choice >= 1) for choice in choices
    ):
        raise ValueError(
            "n_digits must be a positive int, None (as many as fit), or hold at least one of "
            f"these. Got {n_digits!r} instead."
        )
    return choices


@cache  # reading the file takes a fifth of the time of a full canvas
def _embedded_digits():
    embedded = load_digits()
    return (embedded.images / 16).astype(np.float32), embedded.target


def _check_digits(digits):
    """Return images of shape (n_images, height, width), float32 in [0, 1], and their labels."""
    if len(digits) != 2:
        raise ValueError(
            f"digits must be a tuple (images, labels). Got {len(digits)} elements instead."
        )
    images = check_array(digits[0], allow_nd=True, ensure_2d=False, input_name="digits")
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(
            "The images of digits must have the shape (n_images, height, width). Got "
            f"{images.shape} instead. Flattened images need images.reshape(-1, height, width)."
        )
    if images.dtype.kind == "u":
        images = images / np.float32(np.iinfo(images.dtype).max)
    if images.min() < 0 or images.max() > 1:
        raise ValueError(
            "The images of digits must be of an unsigned integer dtype or lie in [0, 1]. Got "
            f"{images.dtype} from {images.min():g} to {images.max():g} instead. Divide them by the "
            "value of white."
        )
    blank = np.flatnonzero(images.max(axis=(1, 2)) == 0)
    if blank.size:
        raise ValueError(
            "Every image of digits must show a digit. Got blank images instead, the first at "
            f"index {blank[0]}. Leave them out."
        )
    return images.astype(np.float32, copy=False), _check_labels(digits[1], images)


def _check_labels(labels, images):
    labels = np.asarray(labels)
    check_consistent_length(images, labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            "The labels of digits must be ints of shape (n_images,). Got "
            f"{labels.dtype} of shape {labels.shape} instead. Convert them with .astype(int)."
        )
    if labels.min() < 0 or labels.max() >= N_CLASSES:
        raise ValueError(
            "The labels of digits must lie between 0 and 9. Got "
            f"{labels.min()} to {labels.max()} instead."
        )
    return labels


def _scatter(rng, n, image_size):
    """Return up to n positions (row, column), px, at least `MIN_DISTANCE` apart; None: all."""
    extent = image_size - DIGIT_SIDE
    # On a canvas of the size of a digit there is one position: any radius will do.
    sampler = qmc.PoissonDisk(d=2, radius=MIN_DISTANCE / max(extent, 1), rng=rng)
    return rng.permutation(sampler.fill_space())[:n] * extent + (DIGIT_SIDE - 1) / 2


def _draw(rng, positions, handwriting, classes, masks):
    """Draw a digit at each position; `masks`, of shape (10, height, width), is written to.

    Returns
    -------
    canvas : ndarray of shape (height, width), float32, in [0, 1]
    points : ndarray of shape (n_positions, 3)
        Class, row, column.
    """
    canvas = np.zeros(masks.shape[1:], dtype=np.float32)
    side = min(PATCH_SIDE, len(canvas))
    points = []
    for position in positions:
        drawn = rng.integers(len(handwriting))
        corner = np.clip(position.astype(int) - PATCH_SIDE // 2, 0, len(canvas) - side)
        angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
        patch = _turn(handwriting[drawn], angle, position - corner, side)
        own_pixels = patch > patch.max() / 2
        window = tuple(slice(start, start + side) for start in corner)
        canvas[window] = np.maximum(canvas[window], patch)
        masks[classes[drawn]][window] |= own_pixels
        points.append((classes[drawn], *(corner + np.argwhere(own_pixels).mean(axis=0))))
    return canvas, np.array(points)


def _turn(image, angle, middle, side):
    """Return a square patch of `side` px with the digit resized, turned, and placed at `middle`."""
    scale = max(image.shape) / DIGIT_SIDE
    if scale > 1:  # against aliasing, as skimage.transform.resize does
        image = gaussian_filter(image, (scale - 1) / 2)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = scale * np.array([[cos, sin], [-sin, cos]])
    offset = (np.array(image.shape) - 1) / 2 - matrix @ middle
    patch = affine_transform(
        image, matrix, offset, output_shape=(side, side), order=3, mode="grid-constant"
    )
    return patch.clip(0, image.max())  # a cubic spline overshoots


def _degrade(rng, canvas):
    sigma = rng.uniform(0, MAX_BLUR)
    noise = rng.poisson(NOISE_RATE, canvas.shape) / 255
    if rng.random() < 0.5:
        canvas = gaussian_filter(canvas, sigma) + noise
    else:
        canvas = gaussian_filter(canvas + noise, sigma)
    return canvas.clip(0, 1)
