"""PCAFeatureMap: local maps to one feature map per class."""

from functools import cached_property
from hashlib import sha256
from numbers import Real

import numpy as np
from scipy import ndimage
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context, clone
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_memory

from . import __version__
from ._labels._validation import check_stack, is_ragged
from ._stack._hash import Hasher
from ._stack._lazy_stack import LazyStack

_LAYERS = tuple(f"L{i}" for i in range(1, 9))
_AXES = "(n_samples, n_classes, n_layers, height, width)"
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
        feature map of 256 x 256 px takes 0.3 MB for each class that is not zero. `foreground`
        has to be picklable, no lambda.

    See Also
    --------
    GradCAMFeatureTransformer : Computes the local maps.
    ThresholdSegmenter : Turns feature maps into masks.

    Notes
    -----
    Stateless: `fit` reads nothing. `transform` returns a stack that is computed when it is read;
    memory grows with its batch.

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
        layers=_LAYERS[:7],
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
        self._fuse(X)
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
        stack, fuse = self._fuse(X)
        item_shape = None if is_ragged(stack) else (stack.shape[1], *stack.shape[3:])
        if self.memory is not None:
            known = isinstance(stack, LazyStack) and hasattr(stack.function, "key")
            function = _Keep(stack.function if known else None, fuse, self.memory)
            if known:  # what the local maps are made of is all that is read if they are known
                return stack.then(function, item_shape=item_shape)
            fuse = function
        batch_size = getattr(stack, "batch_size", 1)
        return LazyStack(stack, fuse, item_shape=item_shape, batch_size=batch_size)

    def _fuse(self, X):
        if not len(self.layers):
            raise ValueError("layers must name at least one layer, such as 'L1'. Got none instead.")
        if self.foreground is not None and self.rescale is None:
            raise ValueError(
                'foreground limits the range of rescale="coarse". Got rescale=None instead.'
            )
        stack = check_stack(X, ndim=5, axes=_AXES)
        names = getattr(stack, "layer_names", None)
        if names is None:
            n_layers = len(stack[0][0]) if is_ragged(stack) else stack.shape[2]
            names = {8: _LAYERS, 9: ("image", *_LAYERS)}.get(n_layers)
            if names is None:
                raise ValueError(
                    "X must have 8 layers, L1 to L8, or 9, the image before them. Got "
                    f"{n_layers} instead."
                )
        needed = [*self.layers, "L8", *(["image"] if self.foreground else [])]
        # The layers of an ensemble are L1[0] to L8[0] for its first network, and so on.
        suffixes = [name[2:] for name in names if name.startswith("L8")] or [""]
        indices = [
            {name: name if name == "image" else name + s for name in needed} for s in suffixes
        ]
        missing = [name for name, full in indices[0].items() if full not in names]
        if missing:
            raise ValueError(
                f"X must have the layers {needed}. Got {list(names)} instead. The layer 'image' "
                "needs GradCAMFeatureTransformer(include_image=True)."
            )
        indices = [{name: names.index(full) for name, full in of.items()} for of in indices]
        return stack, _Fuse(self, indices)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


class _Fuse:
    """Fuse a batch of local maps with the parameters that the step had when this was made.

    Parameters
    ----------
    step : PCAFeatureMap
    indices : list of dict of str to int
        For each network of an ensemble, or for the only one, where the layers are.
    """

    def __init__(self, step, indices):
        self.step = clone(step)
        self.indices = indices

    def __call__(self, batch):
        maps = [np.stack([self._fuse(m) for m in sample]) for sample in batch]
        return maps if isinstance(batch, list) else np.stack(maps)

    def _fuse(self, local_maps):
        """Return the feature map (height, width) of local maps (n_layers, height, width)."""
        if len(self.indices) == 1:
            return self._fuse_one(local_maps, self.indices[0])
        return np.mean([self._fuse_one(local_maps, index) for index in self.indices], axis=0)

    def _fuse_one(self, local_maps, index):
        step, size = self.step, local_maps.shape[1:]
        layers = local_maps[[index[name] for name in step.layers]]
        coarse = local_maps[index["L8"]]
        if not layers.any():
            return np.zeros(size, dtype=np.float32)
        feature_map = first_component(
            layers.reshape(len(layers), -1), coarse.ravel() if step.orient else None
        ).reshape(size)
        if step.rescale:
            inside = coarse > 0
            if step.foreground is not None:
                inside &= step.foreground(local_maps[index["image"]])
            feature_map = _rescale(feature_map, inside)
        if step.min_coarse_peak is not None:
            feature_map *= _components_with_peak(coarse, step.min_coarse_peak)
        return feature_map.astype(np.float32)


class _Keep:
    """Fuse a batch, and keep the feature maps of each of its samples in a folder.

    Parameters
    ----------
    explain : callable with the attribute `key`, or None
        Makes the local maps of a batch of images; None if local maps are given.
    fuse : _Fuse
    memory : str or joblib.Memory
    """

    def __init__(self, explain, fuse, memory):
        self.explain = explain
        self.fuse = fuse
        self.cached = check_memory(memory).cache(_feature_maps_of, ignore=["keep", "sample"])

    @cached_property
    def key(self):
        parameters = self.fuse.step.get_params()
        del parameters["memory"]
        explained = getattr(self.explain, "key", None)
        return Hasher().hash([__version__, explained, parameters, self.fuse.indices])

    def __call__(self, batch):
        samples = [batch[i : i + 1] for i in range(len(batch))]
        kept = [self.cached(self, self.key, _digest(sample[0]), sample) for sample in samples]
        if isinstance(batch, list):
            out = [np.zeros(shape, dtype=np.float32) for shape, _, _ in kept]
        else:
            out = np.zeros((len(batch), *kept[0][0]), dtype=np.float32)
        for maps, (_, present, of_present) in zip(out, kept, strict=True):
            maps[present] = of_present
        return out

    def compute(self, batch):
        return self.fuse(self.explain(batch) if self.explain else batch)


def _digest(sample):
    """Hash an array, several times faster than joblib does."""
    digest = sha256(f"{sample.dtype} {sample.shape}".encode())
    digest.update(np.ascontiguousarray(sample))
    return digest.hexdigest()


def _feature_maps_of(keep, key, digest, sample):
    """Compute the feature maps of one sample; joblib keeps them by `key` and `digest`."""
    (maps,) = keep.compute(sample)
    present = np.flatnonzero(maps.any(axis=(1, 2)))
    return maps.shape, present, maps[present]


def first_component(layers, weights=None):
    """Project pixels on the first principal component of their layers.

    Parameters
    ----------
    layers : ndarray of shape (n_layers, n_pixels)
    weights : ndarray of shape (n_pixels,), default=None
        Non-negative. Orients the component: its weighted mean is not negative.

    Returns
    -------
    scores : float64 ndarray of shape (n_pixels,)
        The centred scores, zero if the layers are constant.
    """
    layers = layers.astype(np.float64)
    layers -= layers[:, :1]  # leaves exactly zero of a constant layer, as its mean might not
    layers -= layers.mean(axis=1, keepdims=True)
    covariance = layers @ layers.T
    n = len(covariance)
    variance, vectors = eigh(covariance, subset_by_index=[n - 1, n - 1])
    if not variance[0] > 0:
        return np.zeros(layers.shape[1])
    vector = vectors[:, 0]
    scores = (vector * np.sign(vector[np.abs(vector).argmax()])) @ layers
    return -scores if weights is not None and scores @ weights < 0 else scores


def _rescale(feature_map, inside):
    """Scale the range inside a mask to [0, 1], and clip; zero without any range."""
    low, high = (f(feature_map[inside]) if inside.any() else 0.0 for f in (np.min, np.max))
    if not high > low:
        return np.zeros_like(feature_map)
    return np.clip((feature_map - low) / (high - low), 0, 1)


def _components_with_peak(coarse, peak):
    """Mask of the connected components of coarse > 0 that reach a value."""
    labels, n = ndimage.label(coarse > 0, structure=_NEIGHBOURS)
    reaches = np.zeros(n + 1, dtype=bool)
    reaches[np.unique(labels[(coarse >= peak) & (coarse > 0)])] = True
    return reaches[labels]
