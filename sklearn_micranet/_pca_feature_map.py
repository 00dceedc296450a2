"""PCAFeatureMap: local maps to one feature map per class."""

from functools import partial
from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, StrOptions

from sklearn_micranet._stack._large_arrays import blocks_of_rows, let_go, zeros
from sklearn_micranet._stack._numbers import Interval

from ._labels._maps import read_maps
from ._network._shape import COARSE_LAYER, FINE_LAYERS, IMAGE_LAYER, LAYER_NAMES
from ._network._small_maps import LocalMapStack, MapsOfClass, PixelsOfLayers

_AXES = "(n_samples, n_classes, n_layers, height, width)"
_N_AT_ONCE = 2**19  # pixels whose layers are held in float64
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


class PCAFeatureMap(TransformerMixin, BaseEstimator):
    r"""Fuse the local maps of a class into one feature map.

    For each image and class, every pixel is a vector :math:`x_{ij}` of the values of `layers`. The
    feature map is their first principal component [1]_,

    .. math::
        F_{ij} = v^\top (x_{ij} - \bar{x}),

    with :math:`v` the leading eigenvector of the covariance of the layers over the pixels. Its
    sign is arbitrary; it is chosen so that the structure is high: the mean of F, weighted by the
    map of L8, is not negative.

    Parameters
    ----------
    layers : tuple of str, default=("L1", "L2", "L3", "L4", "L5", "L6", "L7")
        Names of the layers to fuse.
    orient : bool, default=True
        Whether to choose the sign by L8. Otherwise, and where the map of L8 is zero, the largest
        entry of v is positive, as in :class:`sklearn.decomposition.PCA`.
    rescale : {"coarse"} or None, default=None
        With "coarse" the feature map is scaled to [0, 1] by its range where L8 > 0, and clipped.
    foreground : callable, default=None
        Maps an image of shape (height, width) to a bool mask of that shape, to which the range
        of `rescale` is limited. Needs the layer "image": see
        :class:`GradCAMFeatureTransformer`, `include_image`.
    min_coarse_peak : float, default=None
        Keeps the connected components of L8 > 0 in which L8 reaches this value, and sets the
        feature map to 0 elsewhere.
    memory : str or object with the joblib.Memory interface, default=None
        A folder in which the feature maps of each image are kept, to be read instead of computed by
        the other candidates and folds of a grid search over later steps, other processes, and
        later runs. They are found by the parameters of this step, and by the image and all
        that its local maps depend on, or by the local maps themselves if those are an array. A
        feature map of 256 x 256 px takes 0.3 MB for each class that is not zero.

    See Also
    --------
    GradCAMFeatureTransformer : Computes the local maps.
    ThresholdSegmenter : Turns feature maps into masks.

    Notes
    -----
    Stateless: `fit` reads nothing. `transform` returns a stack that is computed when it is read;
    memory grows with its batch. The local maps of a :class:`GradCAMFeatureTransformer` are then
    read at the resolution of their layers and upsampled class by class. Large images are computed
    block by block, and their maps lie in temporary files: 11 bytes for each pixel and class that is
    explained, 4 for each pixel and class, and 8 for each pixel. Memory grows with one image by 1
    byte for each pixel with `rescale`, and by 10 with `min_coarse_peak` or `foreground`.

    References
    ----------
    .. [1] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet import PCAFeatureMap
    >>> local_maps = np.random.default_rng(0).random((5, 2, 8, 16, 16))
    >>> PCAFeatureMap().fit_transform(local_maps)
    LazyStack(shape=(5, 2, 16, 16), dtype=float32)
    """

    _parameter_constraints: dict = {
        "layers": ["array-like"],
        "orient": ["boolean"],
        "rescale": [StrOptions({"coarse"}), None],
        "foreground": [callable, None],
        "min_coarse_peak": [Interval(Real, 0, None, closed="left"), None],
        "memory": [str, HasMethods(["cache"]), None],
    }

    def __init__(
        self,
        *,
        layers=FINE_LAYERS,
        orient=True,
        rescale=None,
        foreground=None,
        min_coarse_peak=None,
        memory=None,
    ):
        self.layers = layers
        self.orient = orient
        self.rescale = rescale
        self.foreground = foreground
        self.min_coarse_peak = min_coarse_peak
        self.memory = memory

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check the parameters; nothing is learned, and no sample is read.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, n_layers, height, width)
            Local maps.
        y : ignored

        Returns
        -------
        self : PCAFeatureMap
        """
        self._read(X)
        return self

    def transform(self, X):
        """Return the feature maps, computed when they are read.

        Parameters
        ----------
        X : LazyStack or array-like of shape (n_samples, n_classes, n_layers, height, width)
            Local maps; a list of arrays if the images differ in size.

        Returns
        -------
        feature_maps : LazyStack of shape (n_samples, n_classes, height, width)
            Of dtype float32, zero where all fused layers are constant, as those of classes
            predicted absent are. A sequence of arrays if the images differ in size.

        Raises
        ------
        ValueError
            If X is not as described, or lacks a layer.
        """
        self._validate_params()
        stack, indices = self._read(X)
        fuse = partial(
            fuse_local_maps,
            indices=indices,
            orient=self.orient,
            rescale=self.rescale,
            foreground=self.foreground,
            min_coarse_peak=self.min_coarse_peak,
        )
        item_shape = None if stack.is_ragged else (stack.shape[1], *stack.shape[3:])
        if isinstance(X, LocalMapStack):
            stack = X.upsampled
        return stack.map(fuse, item_shape=item_shape, memory=self.memory)

    def _read(self, X):
        """Return the local maps, and for each network where its layers are."""
        if not len(self.layers):
            raise ValueError("layers must name at least one layer, such as 'L1'. Got none instead.")
        if self.foreground is not None and self.rescale is None:
            raise ValueError(
                'foreground limits the range of rescale="coarse". Got rescale=None instead.'
            )
        stack = read_maps(X, ndim=5, axes=_AXES)
        names = stack.layer_names
        if names is None:
            n_layers = len(stack[0][0]) if stack.is_ragged else stack.shape[2]
            names = {len(n): n for n in (LAYER_NAMES, (IMAGE_LAYER, *LAYER_NAMES))}.get(n_layers)
            if names is None:
                raise ValueError(
                    "X must have 8 layers, L1 to L8, or 9, the image before them. Got "
                    f"{n_layers} instead."
                )
        needed = [*self.layers, COARSE_LAYER, *([IMAGE_LAYER] if self.foreground else [])]
        pairs = [(name, 0) if isinstance(name, str) else name for name in names]
        places = {pair: i for i, pair in enumerate(pairs)}
        indices = [
            Layers(
                tuple(places.get((name, network)) for name in self.layers),
                places.get((COARSE_LAYER, network)),
                places.get((IMAGE_LAYER, 0)),
            )
            for network in sorted({network for _, network in pairs})
        ]
        found = {name for name, _ in pairs}
        if not found.issuperset(needed):
            raise ValueError(
                f"X must have the layers {needed}. Got {list(names)} instead. The layer 'image' "
                "needs GradCAMFeatureTransformer(include_image=True)."
            )
        return stack, indices

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


class Layers(NamedTuple):
    """Where the layers of one network are in its local maps."""

    fused: tuple
    coarse: int
    image: int | None


def fuse_local_maps(local_maps, *, indices, **parameters):
    """Return the feature maps of one image: of an ensemble the mean of those of its networks.

    Parameters
    ----------
    local_maps : ndarray of shape (n_classes, n_layers, height, width), or UpsampledMaps
    indices : list of Layers
        One for each network.
    **parameters : dict
        As in :class:`PCAFeatureMap`.

    Returns
    -------
    feature_maps : float32 ndarray of shape (n_classes, height, width)
    """
    n_classes, _, *size = local_maps.shape
    feature_maps = zeros((n_classes, *size))
    for k, of_class in enumerate(local_maps):
        if of_class is None:
            continue
        if size[0] * size[1] <= _N_AT_ONCE:
            of_class = np.asarray(of_class)
        of_networks = [_fuse(of_class, i, **parameters) for i in indices]
        for rows in blocks_of_rows(feature_maps[k], *of_networks):
            parts = [fused[rows] for fused in of_networks]
            feature_maps[k, rows] = np.mean(parts, axis=0) if len(parts) > 1 else parts[0]
    return feature_maps


def _fuse(local_maps, index, *, orient, rescale, foreground, min_coarse_peak):
    """Return the feature map (height, width) of local maps (n_layers, height, width)."""
    layers, size = _pixels(local_maps, index.fused), local_maps.shape[1:]
    coarse = _pixels(local_maps, (index.coarse,))
    if isinstance(layers, np.ndarray) and not layers.any():
        return zeros(size)
    scores = first_component(layers, coarse if orient else None)
    if rescale:
        inside = True if foreground is None else foreground(local_maps[index.image])
        _rescale(scores, coarse, np.broadcast_to(inside, size).reshape(-1))
    if min_coarse_peak is not None:
        kept = _components_with_peak(local_maps[index.coarse], min_coarse_peak).ravel()
        for block in _blocks(scores):
            scores[block] *= kept[block]
    return scores.reshape(size)


def _pixels(local_maps, places):
    """Return some of the layers, of shape (n_layers, n_pixels)."""
    if isinstance(local_maps, MapsOfClass):
        return PixelsOfLayers(local_maps, places)
    start, stop = places[0], places[0] + len(places)
    is_slice = places == tuple(range(start, stop))  # which is no copy, as a list of places is
    layers = local_maps[start:stop] if is_slice else local_maps[list(places)]
    return layers.reshape(len(layers), -1)


def first_component(layers, weights=None):
    """Project pixels on the first principal component of their layers.

    Parameters
    ----------
    layers : ndarray of shape (n_layers, n_pixels), or PixelsOfLayers
    weights : ndarray of shape (1, n_pixels), or PixelsOfLayers, default=None
        Non-negative. Orients the component: its weighted mean is not negative.

    Returns
    -------
    scores : float64 ndarray of shape (n_pixels,)
        The centred scores, zero if the layers are constant.
    """
    n, n_pixels = layers.shape
    first, mean = layers[:, :1].astype(np.float64), 0.0
    scores = zeros((n_pixels,), np.float64)
    blocks = list(_blocks(scores))

    def centred(block):
        # Less the first pixel: leaves exactly zero of a constant layer, as its mean might not.
        part = layers[:, block].astype(np.float64)
        part -= first
        part -= mean
        return part

    mean = sum(centred(block).sum(axis=1, keepdims=True) for block in blocks) / n_pixels
    covariance = sum(part @ part.T for part in map(centred, blocks))
    variance, vectors = eigh(covariance, subset_by_index=[n - 1, n - 1])
    if not variance[0] > 0:
        return scores
    vector = vectors[:, 0]
    vector = vector * np.sign(vector[np.abs(vector).argmax()])
    weighted_sum = 0.0
    for block in _blocks(scores):
        scores[block] = vector @ centred(block)
        if weights is not None:
            weighted_sum += scores[block] @ weights[:, block][0]
    if weighted_sum < 0:
        for block in _blocks(scores):
            np.negative(scores[block], out=scores[block])
    return scores


def _blocks(*arrays):
    """Yield slices of pixels, and let go of each block of the arrays."""
    for start in range(0, arrays[0].size, _N_AT_ONCE):
        yield slice(start, start + _N_AT_ONCE)
        let_go(*arrays)


def _rescale(scores, coarse, inside):
    """Scale the range where coarse > 0, inside a mask, to [0, 1], in place, and clip.

    All scores become zero where there is no range.
    """
    low, high = np.inf, -np.inf
    for block in _blocks(scores):
        values = scores[block][(coarse[:, block][0] > 0) & inside[block]]
        low = np.minimum(low, values.min(initial=np.inf))
        high = np.maximum(high, values.max(initial=-np.inf))
    for block in _blocks(scores):
        part = scores[block]
        if not high > low:
            part[:] = 0
            continue
        part -= low
        part /= high - low
        np.clip(part, 0, 1, out=part)


def _components_with_peak(coarse, peak):
    """Mask of the connected components of coarse > 0 that reach a value."""
    labels, n = ndimage.label(coarse > 0, structure=_NEIGHBOURS)
    reaches = np.zeros(n + 1, dtype=bool)
    reaches[np.unique(labels[(coarse >= peak) & (coarse > 0)])] = True
    return reaches[labels]
