"""GradCAMFeatureTransformer: images to local maps."""

from functools import cached_property, partial
from numbers import Integral

import numpy as np
import torch
from sklearn.base import BaseEstimator, MetaEstimatorMixin, TransformerMixin, _fit_context, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_micranet._stack._numbers import Interval

from . import __version__
from ._network._input import equal_sizes, in_fitting_parts, to_tensor
from ._network._local_maps import FoldedNetwork, forward, local_maps
from ._network._shape import IMAGE_LAYER, LAYER_NAMES
from ._network._small_maps import LocalMapStack, SmallMaps, UpsampledMaps
from ._network._tiled_maps import TiledImage, n_pixels_of_tile, n_whole, scan, tiled_local_maps
from ._network_classifier import classifier_explained_by, routed_to_estimator, router_of
from ._stack._keys import key_of, key_of_array
from ._stack._large_arrays import blocks_of_rows, zeros
from ._stack._lazy_stack import LazyStack


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
        keep its weights. A search or a pipeline that ends in one of these stands for it. The maps
        of an ensemble are those of each of its networks.
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
        Number of images computed at a time, fewer if they are large. Memory grows neither with the
        number of images nor, but for the maps of one image, with their size.

    Attributes
    ----------
    estimator_ : MicraNetClassifier
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    map_classes_ : ndarray of shape (n_maps,)
        Labels of the classes that have maps, in their order.
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
        "estimator": [HasMethods(["fit"])],
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
            Passed to the `fit` of the classifier, such as ``sample_weight``. With scikit-learn's
            metadata routing, what its `set_fit_request` asks for.

        Returns
        -------
        self : GradCAMFeatureTransformer

        Raises
        ------
        TypeError
            If `estimator` is none of those described.
        """
        _, classifier = classifier_explained_by(self.estimator)
        if not isinstance(self.estimator, FrozenEstimator):
            classifier._refuse_ambiguous(y)
        routed = routed_to_estimator(self, fit_params)
        self.estimator_ = clone(self.estimator).fit(X, y, **routed)
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
        local_maps : LazyStack of shape (n_samples, n_maps, n_layers, height, width)
            Of dtype float32. Its ``layer_names`` are "L1" to "L8"; of an ensemble pairs such as
            ("L8", 2), the layer and the network. Its ``class_names`` are those of `map_classes_`.
            A sequence of arrays of shape (n_maps, n_layers,
            height, width) if the images differ in size.
        """
        self._validate_params()
        check_is_fitted(self)
        steps, classifier = classifier_explained_by(self.estimator_)
        explained = classifier._explained()
        explained.targets.check_maps()
        for step in steps:
            X = step.transform(X)
        images = classifier._read_images(X)
        explain = _Explain(explained, self.classes, self.include_image)
        names = _layer_names(len(explained.networks), self.include_image)
        n_maps = len(explained.targets.map_outputs)
        small_maps = LazyStack(
            images.stack,
            explain,
            item_shape=None,
            batch_size=images.batch_size(self.batch_size, n_maps * len(names)),
            memory=self.memory,
        )
        upsample = partial(UpsampledMaps, n_maps=n_maps, min_max=self.min_max)
        upsampled = small_maps.map(upsample, item_shape=None)
        upsampled.class_names = tuple(explained.targets.map_classes.tolist())
        item_shape = images.size and (n_maps, len(names), *images.size)
        return LocalMapStack(upsampled, item_shape=item_shape, layer_names=names)

    def get_metadata_routing(self):
        """Return how parameters of `fit` travel on to `estimator`.

        Returns
        -------
        routing : MetadataRouter
        """
        return router_of(self)

    @property
    def map_classes_(self):
        check_is_fitted(self)
        return classifier_explained_by(self.estimator_)[1].map_classes_

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


def _layer_names(n_networks, include_image):
    """Return what the layers are called: names, or pairs of a name and a network if several."""
    names = LAYER_NAMES
    if n_networks > 1:
        names = tuple((name, network) for network in range(n_networks) for name in LAYER_NAMES)
    return (IMAGE_LAYER, *names) if include_image else names


class _Explain:
    """Compute the local maps of a batch, at the resolution of each layer.

    Parameters
    ----------
    explained : Explained
    classes, include_image
        As in :class:`GradCAMFeatureTransformer`.
    """

    def __init__(self, explained, classes, include_image):
        self.explained = explained
        self.classes = classes
        self.include_image = include_image

    @cached_property
    def folded(self):
        return [FoldedNetwork(weights) for weights in self.explained.networks]

    @cached_property
    def key(self):
        """Key of all that the maps depend on besides the image."""
        explained = self.explained
        networks = [
            key_of_array(tensor.numpy(force=True))
            for weights in explained.networks
            for tensor in weights.values()
        ]
        threshold = np.asarray(explained.threshold, dtype=float)
        targets = explained.targets
        settings = [targets.kind, targets.map_outputs, threshold, explained.image_shape]
        return key_of(__version__, networks, settings, self.classes, self.include_image)

    def __getstate__(self):
        return {k: v for k, v in vars(self).items() if k != "folded"}

    def __call__(self, batch):
        maps = [None] * len(batch)
        for indices, images in equal_sizes(batch):
            for i, of_image in zip(indices, in_fitting_parts(self._explain, images), strict=True):
                maps[i] = of_image
        return maps

    def _explain(self, images):
        """Return the maps of images of one size."""
        if images.ndim == 2:
            images = images.reshape(len(images), *self.explained.image_shape)
        size = tuple(images.shape[1:3])
        n_pixels = size[0] * size[1]
        if not n_whole(self.folded, n_pixels):
            return [self._explain_tiled(image) for image in images]
        device, n_images = self.folded[0].linear[0].device, 1
        # A CPU is fastest when the activations of what it works on fit its cache.
        while device.type != "cpu" and n_whole(self.folded, n_pixels * (n_images + 1)):
            n_images += 1
        parts = to_tensor(images).to(device).split(n_images)
        return [maps for part in parts for maps in self._explain_part(part, size)]

    def _explain_part(self, images, size):
        runs = [forward(folded, images) for folded in self.folded]
        pairs = self._select([run.logits for run in runs]).nonzero()
        explained = torch.stack([pairs[:, 0], self._outputs(pairs[:, 1])], dim=1)
        n_pairs = n_whole(self.folded, len(images) * images.shape[2] * images.shape[3])
        layers = []
        for folded, run in zip(self.folded, runs, strict=True):
            parts = [local_maps(folded, run, part) for part in explained.split(max(1, n_pairs))]
            layers += [torch.cat(of_layer).cpu().numpy() for of_layer in zip(*parts, strict=True)]
        pairs = pairs.cpu().numpy()
        for i, image in enumerate(images):
            mine = pairs[:, 0] == i
            of_image = [layer[mine] for layer in layers]
            grey = None
            if self.include_image:
                grey = image[:, : size[0], : size[1]].mean(dim=0).cpu().numpy()
            yield SmallMaps(pairs[mine, 1], of_image, grey, size, tuple(images.shape[2:]))

    def _explain_tiled(self, image):
        """Return the maps of a large image."""
        like = self.folded[0].linear[0]
        tiled = TiledImage(image, n_pixels_of_tile(self.folded[0]), like)
        scans = [scan(folded, tiled) for folded in self.folded]
        classes = self._select([found.logits for found in scans])[0].nonzero()[:, 0]
        outputs = self._outputs(classes)
        layers = [
            layer
            for folded, found in zip(self.folded, scans, strict=True)
            for layer in tiled_local_maps(folded, tiled, found, outputs)
        ]
        grey = None
        if self.include_image:
            grey = zeros(tiled.size)
            for rows in blocks_of_rows(grey):
                channels = image[rows].reshape(*grey[rows].shape, -1)
                channels.mean(axis=2, dtype=np.float32, out=grey[rows])
        return SmallMaps(classes.cpu().numpy(), layers, grey, tiled.size, tiled.padded_size)

    def _outputs(self, classes):
        """Return the outputs of the network that belong to classes with maps."""
        return torch.from_numpy(self.explained.targets.map_outputs).to(classes.device)[classes]

    def _select(self, logits):
        """Choose the (image, map) pairs to explain."""
        targets = self.explained.targets
        mean = targets.mean_logits([one.cpu().numpy() for one in logits])
        present = targets.present(mean, self.explained.threshold)[:, targets.map_outputs]
        if self.classes == "all":
            present[:] = True
        return torch.from_numpy(present).to(logits[0].device)
