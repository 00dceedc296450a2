"""GradCAMFeatureTransformer: images to local maps."""

from functools import cached_property
from hashlib import sha256
from numbers import Integral

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator, MetaEstimatorMixin, TransformerMixin, _fit_context, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, check_memory
from torch.nn import functional as F

from . import __version__
from ._classifier import MicraNetClassifier
from ._ensemble import MicraNetEnsemble
from ._labels._validation import check_images, image_size
from ._network._local_maps import FoldedNetwork, forward, local_maps
from ._network._module import LAYER_NAMES
from ._stack._lazy_stack import LazyStack
from ._training._batches import equal_sizes, in_fitting_parts, to_tensor
from ._tuned_thresholds_classifier import TunedThresholdsClassifierCV


class GradCAMFeatureTransformer(TransformerMixin, MetaEstimatorMixin, BaseEstimator):
    r"""Local maps of a :class:`MicraNetClassifier`: where each layer sees each class.

    For class :math:`c` with logit :math:`y^c` and layer :math:`l` with post-ReLU activations
    :math:`A^{l,k}` [1]_:

    .. math::
        \alpha^c_{l,k} = \operatorname{mean}_{ij} \frac{\partial y^c}{\partial A^{l,k}_{ij}},
        \qquad L^{l,c} = \sum_k \alpha^c_{l,k} A^{l,k}

    A ReLU is applied to the map of L8, the last layer, only. The maps are scaled to [0, 1] and
    upsampled to the image with nearest neighbour.

    Parameters
    ----------
    estimator : MicraNetClassifier, MicraNetEnsemble or TunedThresholdsClassifierCV
        It is cloned and fitted. Wrap a fitted one in :class:`sklearn.frozen.FrozenEstimator` to
        keep its weights. The maps of an ensemble are those of each of its networks, named
        "L1[0]" to "L8[0]" for the first, "L1[1]" to "L8[1]" for the second, and so on.
    classes : {"predicted", "all"}, default="predicted"
        Whether to explain the classes that are predicted present in an image, leaving the maps
        of the others zero, or all classes.
    min_max : bool, default=True
        Whether to scale each map to [0, 1] over the image. A constant map becomes zero.
    include_image : bool, default=False
        Whether the image itself, the mean of its channels, travels before L1 as a layer named
        "image", for steps that need it.
    memory : str or object with the joblib.Memory interface, default=None
        A folder in which the computed maps of each image are kept, to be read instead of computed
        by the other candidates and folds of a grid search, other processes, and later runs, on any
        device. They are found by the network's weights, the threshold and the image, so that a
        change of any of these computes them anew. An image of 256 x 256 px takes 0.7 MB for each
        class explained.
    batch_size : int, default=8
        Number of images computed at a time. Memory grows with it, not with the number of images.

    Attributes
    ----------
    estimator_ : MicraNetClassifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Number of features of flattened training images.

    See Also
    --------
    PCAFeatureMap : Fuses the local maps.

    Notes
    -----
    `transform` computes nothing: it returns a stack whose samples are computed when they are read,
    `batch_size` at a time, and not kept. ``np.asarray`` makes the whole array.

    References
    ----------
    .. [1] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_micranet import GradCAMFeatureTransformer, MicraNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> classifier = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    >>> GradCAMFeatureTransformer(classifier).fit(X, y).transform(X)
    LazyStack(shape=(537, 3, 8, 8, 8), dtype=float32)
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "decision_function"])],
        "classes": [StrOptions({"predicted", "all"})],
        "min_max": ["boolean"],
        "include_image": ["boolean"],
        "memory": [str, HasMethods(["cache"]), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator,
        *,
        classes="predicted",
        min_max=True,
        include_image=False,
        memory=None,
        batch_size=8,
    ):
        self.estimator = estimator
        self.classes = classes
        self.min_max = min_max
        self.include_image = include_image
        self.memory = memory
        self.batch_size = batch_size

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **fit_params):
        """Fit the classifier, unless it is frozen.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width), \
                (n_samples, height, width, n_channels) or (n_samples, n_features)
            Images of any real dtype, channels last.
        y : array-like of shape (n_samples,), (n_samples, n_classes) or \
                (n_samples, n_classes, height, width)
            Labels or masks, as in :meth:`MicraNetClassifier.fit`.
        **fit_params : dict
            Passed to the `fit` of the classifier, such as ``sample_weight``.

        Returns
        -------
        self : GradCAMFeatureTransformer

        Raises
        ------
        TypeError
            If `estimator` is none of those described.
        """
        source = _source_of_maps(self.estimator)
        if not isinstance(source, (MicraNetClassifier, MicraNetEnsemble)):
            raise TypeError(
                "estimator must be a MicraNetClassifier, a MicraNetEnsemble, one of these with "
                "tuned thresholds, or a fitted one of these in a FrozenEstimator. Got "
                f"{type(source).__name__} instead."
            )
        self.estimator_ = clone(self.estimator).fit(X, y, **fit_params)
        return self

    def transform(self, X):
        """Return the local maps, computed when they are read.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `fit`; their size may differ from that of the training images and, in
            a list, from each other.

        Returns
        -------
        local_maps : LazyStack of shape (n_samples, n_classes, n_layers, height, width)
            Of dtype float32. Layers L1 to L8 are named by its ``layer_names``. A binary problem
            has one class, the positive one. A sequence of arrays of shape (n_classes, n_layers,
            height, width) if the images differ in size.
        """
        self._validate_params()
        check_is_fitted(self)
        classifier = _source_of_maps(self.estimator_)
        check_is_fitted(classifier)
        classifier._targets.check_threshold(classifier.threshold)  # it may have been set after fit
        members = getattr(classifier, "estimators_", [classifier])
        images = check_images(members[0], X, reset=False, allow_ragged=True)
        explain = _Explain(
            members,
            classifier.threshold,
            self.classes,
            self.min_max,
            self.include_image,
            self.memory,
        )
        size = image_size(images, explain.image_shape)
        return LazyStack(
            images,
            explain,
            item_shape=size and (explain.n_maps, len(explain.layer_names), *size),
            batch_size=self.batch_size,
            layer_names=explain.layer_names,
        )

    @property
    def classes_(self):
        return self.estimator_.classes_

    @property
    def n_features_in_(self):
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self):
        return self.estimator_.feature_names_in_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = not isinstance(self.estimator, FrozenEstimator)
        tags.transformer_tags.preserves_dtype = []
        return tags


def _source_of_maps(estimator):
    """Return the classifier or ensemble inside a frozen or a tuned one."""
    if isinstance(estimator, FrozenEstimator):
        return _source_of_maps(estimator.estimator)
    if isinstance(estimator, TunedThresholdsClassifierCV):
        return _source_of_maps(getattr(estimator, "estimator_", estimator.estimator))
    return estimator


class _Explain:
    """Compute the local maps of a batch with the weights the networks had when this was made.

    Parameters
    ----------
    members : list of MicraNetClassifier
        Fitted; those of an ensemble are averaged to find the classes that are present.
    threshold, classes, min_max, include_image, memory
        As in the classifier and in :class:`GradCAMFeatureTransformer`.
    """

    def __init__(self, members, threshold, classes, min_max, include_image, memory):
        # Copies, as later training must not change them, folded and hashed when first needed.
        self.weights = [
            {name: tensor.clone() for name, tensor in member.module_.state_dict().items()}
            for member in members
        ]
        self.device = self.weights[0]["linear.weight"].device
        self.targets = members[0]._targets
        self.threshold = threshold
        self.image_shape = getattr(members[0], "image_shape_", None)
        self.classes = classes
        self.min_max = min_max
        self.n_maps = self.targets.n_outputs
        self.layer_names = (
            LAYER_NAMES
            if len(members) == 1
            else tuple(f"{name}[{i}]" for i in range(len(members)) for name in LAYER_NAMES)
        )
        if include_image:
            self.layer_names = ("image", *self.layer_names)
        self.memory = memory

    @cached_property
    def folded(self):
        return [FoldedNetwork(weights) for weights in self.weights]

    @cached_property
    def small_key(self):
        """Hash of all that the maps at each layer's resolution depend on besides the image."""
        weights = sha256(__version__.encode())
        for tensor in (t for of_one in self.weights for t in of_one.values()):
            weights.update(np.ascontiguousarray(tensor.numpy(force=True)))
        threshold = np.asarray(self.threshold, dtype=float)
        return joblib.hash([weights.hexdigest(), self.targets.kind, threshold, self.classes])

    @cached_property
    def key(self):
        """Hash of all that what is returned depends on besides the image."""
        return joblib.hash([self.small_key, self.min_max, self.image_shape, self.layer_names])

    @cached_property
    def cached(self):
        if self.memory is None:
            return None
        return check_memory(self.memory).cache(_maps_of, ignore=["explain"])

    def __getstate__(self):
        lazily_made = ("folded", "cached")
        return {k: v for k, v in vars(self).items() if k not in lazily_made}

    def __call__(self, batch):
        if not isinstance(batch, list):
            return in_fitting_parts(self._explain, batch)
        maps = [None] * len(batch)
        for indices, images in equal_sizes(batch):
            explained = in_fitting_parts(self._explain, images)
            for i, local_map in zip(indices, explained, strict=True):
                maps[i] = local_map
        return maps

    def _explain(self, images):
        """Return (n_samples, n_maps, n_layers, height, width) for images of one size."""
        size = image_size(images, self.image_shape)
        images = to_tensor(images, self.image_shape).to(self.device)
        shape = (len(images), self.n_maps, len(self.layer_names), *size)
        on_cpu = self.device.type == "cpu"
        if on_cpu:  # NumPy's zeros take no memory and no time for the classes that are absent
            out = torch.from_numpy(np.zeros(shape, dtype=np.float32))
        else:
            out = torch.zeros(shape, device=self.device)
        # A CPU is fastest when the activations of what it works on fit its cache.
        n_at_once = 1 if on_cpu or self.cached else len(images)
        for start in range(0, len(images), n_at_once):
            part = images[start : start + n_at_once]
            if self.cached:
                part = part.cpu().numpy()  # what the network reads is what the maps are found by
                pairs, maps = self.cached(self, self.small_key, part)
                pairs, maps = pairs.to(self.device), [m.to(self.device) for m in maps]
            else:
                pairs, maps = self.maps_of(part)
            if not len(pairs):
                continue
            image, k = pairs[:, 0] + start, pairs[:, 1]
            n_first = len(self.layer_names) - len(maps)  # 1 with the image, otherwise 0
            if n_first:
                out[image, k, 0] = images.mean(dim=1)[image, : size[0], : size[1]]
            for i, layer_maps in enumerate(maps, start=n_first):
                out[image, k, i] = _upsample(layer_maps, size, images.shape[2:], self.min_max)
        return out.cpu().numpy()

    def maps_of(self, images):
        """Return the (image, class) pairs to explain, and their maps at each layer's resolution."""
        passed = [forward(folded, images) for folded in self.folded]
        pairs = self._select([p.logits for p in passed]).nonzero()
        maps = [
            layer
            for folded, p in zip(self.folded, passed, strict=True)
            for layer in local_maps(folded, p, pairs)
        ]
        return pairs, maps

    def _select(self, logits):
        """Choose the (image, class) pairs to explain."""
        if self.classes == "all":
            return torch.ones_like(logits[0], dtype=torch.bool)
        logits = self.targets.mean_logits([of_one.cpu().numpy() for of_one in logits])
        return torch.from_numpy(self.targets.present(logits, self.threshold)).to(self.device)


def _maps_of(explain, key, image):
    """Compute the local maps of one image; joblib keeps them by `key` and `image`.

    They are kept on the CPU, as they may be read where there is no other device.
    """
    pairs, maps = explain.maps_of(torch.from_numpy(image).to(explain.device))
    return pairs.cpu(), [m.cpu() for m in maps]


def _upsample(maps, size, padded_size, min_max):
    """Scale maps to [0, 1] and upsample them to the image, without its padding."""
    # The part that the image covers; scaling it before upsampling has less to read.
    used = [
        (n - 1) * n_map // n_padded + 1
        for n, n_map, n_padded in zip(size, maps.shape[1:], padded_size, strict=True)
    ]
    if min_max:
        covered = maps[:, : used[0], : used[1]]
        low, high = (m[:, None, None] for m in (covered.amin((1, 2)), covered.amax((1, 2))))
        spread = high - low
        maps = (maps - low) / torch.where(spread > 0, spread, torch.inf)
    full = F.interpolate(maps[None], size=tuple(padded_size), mode="nearest")[0]
    return full[:, : size[0], : size[1]]
