"""What an estimator makes of the windows of a field."""

import numpy as np
from scipy import ndimage
from sklearn import get_config
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

from sklearn_micranet import __version__
from sklearn_micranet._stack._kept import kept
from sklearn_micranet._stack._keys import key_of, key_of_array

from ._heads import Head
from ._objects import pieces_of
from ._scores import cut_windows

_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # connected are pixels that share an edge or a corner


class ScaledNetworks:
    """The networks, between steps that scale each pixel by itself and their linear layers.

    Parameters
    ----------
    steps : list of transformers
    networks : WindowNetworks
    heads : list of Head, default=None
        Linear layers; ``None`` takes those of the networks.
    """

    def __init__(self, steps, networks, heads=None):
        self.steps = steps
        self.networks = networks
        self.heads = [Head(*pair) for pair in networks.linear] if heads is None else heads

    def block_features(self, tile, block):
        return self.networks.block_features(self._scaled(tile), block)

    def crop_features(self, crop):
        return self.networks.crop_features(self._scaled(crop))

    def logits(self, features):
        """Return a list of the logits of each network, of features (n_windows, n_features)."""
        pairs = zip(self.heads, self.split(features), strict=True)
        return [head(own_features) for head, own_features in pairs]

    def split(self, features):
        """Return the features of each network."""
        ends = np.cumsum([head.weight.shape[1] for head in self.heads])
        return np.split(features, ends[:-1], axis=1)

    def _scaled(self, pixels):
        stack = pixels[np.newaxis]
        for step in self.steps:
            stack = step.transform(stack)
        return np.asarray(stack)[0]


def logits_of_windows(image_steps, classifier, windows):
    """Return the logits of windows that were cut out, of shape (n_windows, n_outputs)."""
    for step in image_steps:
        windows = step.transform(windows)
    logits = classifier.decision_function(windows)
    if logits.ndim == 1 and classifier.map_classes_[0] != classifier.classes_[1]:
        logits = -logits  # the logit of the structure, which is the other class
    return logits.reshape(len(logits), -1)


def output_probabilities(targets, logits):
    """Return the probability of each class with maps, from logits of shape (..., n_outputs)."""
    columns = [targets.positive] if targets.kind == "binary" else targets.map_outputs
    probabilities = targets.probabilities(logits.reshape(-1, targets.n_outputs))[:, columns]
    return probabilities.reshape(*logits.shape[:-1], len(columns))


def pieces_of_windows(shared, grid, indices, n_maps, memory, key):
    """Return the objects of some windows.

    Parameters
    ----------
    shared : iterable of a field and a pipeline
        The last step of the pipeline segments: it has `predict_instances`, or `predict` returns
        masks.
    grid : WindowGrid
    indices : ndarray of int
        Of the windows, in row-major order.
    n_maps : int
        Number of classes with maps.
    memory, key : object, str
        Where the objects are kept, and what they depend on besides pixels.

    Returns
    -------
    pieces : list of list of Piece
    """
    field, pipeline = shared
    windows = cut_windows(field, grid, indices)
    if memory is None:
        instances = _instances(pipeline, windows, n_maps)
    else:
        name = key_of("instances", key, key_of_array(windows))
        instances = kept(memory, name, lambda: _instances(pipeline, windows, n_maps))
    return [
        pieces_of(of_window, grid.corner(index), grid.shape)
        for index, of_window in zip(indices, instances, strict=True)
    ]


def _instances(pipeline, windows, n_maps):
    """Return the objects of windows, int32 of shape (n_windows, n_maps, size, size)."""
    maps, segmenter = pipeline[:-1].transform(windows), pipeline[-1]
    finds_instances = hasattr(segmenter, "predict_instances")
    method = segmenter.predict_instances if finds_instances else segmenter.predict
    found = np.asarray(method(maps))
    expected = len(windows), n_maps, *windows.shape[1:3]
    if found.shape != expected:
        raise ValueError(
            "The last step of the estimator must return masks of the shape (n_windows, n_maps, "
            f"size, size), {expected}. Got {found.shape} instead."
        )
    if finds_instances:
        return found.astype(np.int32)
    instances = np.zeros(found.shape, dtype=np.int32)
    for place in np.ndindex(found.shape[:2]):
        ndimage.label(found[place], _NEIGHBOURS, output=instances[place])
    return instances


def network_key(explained):
    """Return a key of the weights that a classifier explains."""
    networks = [
        key_of_array(tensor.numpy(force=True))
        for weights in explained.networks
        for tensor in weights.values()
    ]
    return key_of(__version__, networks)


def step_key(step):
    """Return a key of the parameters of a step and of what it has learned."""
    others = ("estimator", "estimator_", "memory", "batch_size", "verbose", "n_jobs")
    return key_of(type(step), {k: v for k, v in vars(step).items() if k not in others})


def groups_parameter(estimator):
    """Return the name by which the groups of the images reach the classifier, None if none does."""
    return _groups_parameter(estimator)[0]


def fit_with_groups(estimator, X, y, groups):
    """Fit an estimator, whose classifier is given the groups of the images if it takes any.

    With scikit-learn's metadata routing, the classifier is made to ask for them unless it was told
    otherwise.
    """
    name, classifier = _groups_parameter(estimator)
    if groups is None or name is None:
        return estimator.fit(X, y)
    if get_config()["enable_metadata_routing"] and classifier is not estimator:
        asked = get_routing_for_object(classifier).fit.requests.get("groups")
        if asked is None:
            classifier.set_fit_request(groups=True)
        name = asked if isinstance(asked, str) else "groups"
        if asked is False:
            return estimator.fit(X, y)
    return estimator.fit(X, y, **{name: groups})


def _groups_parameter(estimator):
    if has_fit_parameter(estimator, "groups"):
        return "groups", estimator
    for name, step in getattr(estimator, "steps", ()):
        found, classifier = _groups_parameter(step)
        if found is not None:
            return f"{name}__{found}", classifier
    inner = getattr(estimator, "estimator", None)
    return (None, None) if inner is None else _groups_parameter(inner)
