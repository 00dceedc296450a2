"""What one network and several have in common, and what the map steps ask of a classifier."""

import warnings
from abc import ABCMeta, abstractmethod
from dataclasses import dataclass

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    get_routing_for_object,
    process_routing,
)
from sklearn.utils.validation import check_is_fitted

from ._labels._hints import refuse_paths, refuse_what_is_no_label
from ._labels._labels import read_plain_labels
from ._labels._masks import are_masks
from ._labels._targets import Targets
from ._stack._sources import n_samples


@dataclass(frozen=True)
class Explained:
    """What a classifier explains, as it is now.

    Attributes
    ----------
    networks : tuple of dict of str to Tensor
        Copies of the weights of each network.
    targets : Targets
    threshold : float or array-like of shape (n_classes,)
        Probability from which a class is present, of the mean of the networks.
    image_shape : tuple of int or None
        Shape of flattened images.
    """

    networks: tuple
    targets: Targets
    threshold: object
    image_shape: tuple | None


def classifier_explained_by(estimator):
    """Return the classifier inside a frozen estimator, a search or a pipeline.

    Returns
    -------
    steps : list of transformers
        Those that its images pass before.
    classifier : estimator instance
        It has the methods `_explained` and `_read_images`.

    Raises
    ------
    TypeError
        If there is none that tells what it explains.
    """
    if isinstance(estimator, FrozenEstimator):
        return classifier_explained_by(estimator.estimator)
    if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        return classifier_explained_by(getattr(estimator, "best_estimator_", estimator.estimator))
    if isinstance(estimator, Pipeline):
        steps, classifier = classifier_explained_by(estimator[-1])
        return [*(step for _, step in estimator.steps[:-1]), *steps], classifier
    if not hasattr(estimator, "_explained"):
        raise TypeError(
            "estimator must be a MicraNetClassifier, a MicraNetEnsemble, one of these with tuned "
            "thresholds, or a search or pipeline that ends in one of these, also in a "
            f"FrozenEstimator. Got {type(estimator).__name__} instead."
        )
    return [], estimator


def forget(estimator):
    """Be unfitted: a training that is refused must not leave an old network with new classes."""
    for name in [n for n in vars(estimator) if n.endswith("_") and not n.startswith("_")]:
        delattr(estimator, name)


def warn_of_lost_checkpoints(wrapper, drawn):
    """Warn if a wrapper without a seed draws what the checkpoints of its classifier depend on."""
    is_kept = any(
        value is not None and name.endswith("__checkpoint_dir") and "pretrained" not in name
        for name, value in wrapper.get_params().items()
    )
    if wrapper.random_state is None and is_kept:
        name = type(wrapper).__name__
        warnings.warn(
            f"{name} draws other {drawn} in every fit because its random_state is None: trainings "
            "with them never resume from checkpoint_dir. Pass an int as random_state of "
            f"{name}.",
            UserWarning,
            stacklevel=4,  # who called fit, which is wrapped by scikit-learn
        )


def requests_with_those_of(own, estimator):
    """Return the metadata requests of a wrapper that hands all that it is given to a network.

    What the network asks for, the wrapper asks for, unless it was told otherwise itself.

    Parameters
    ----------
    own : MetadataRequest
        What the wrapper itself was told to ask for; it is added to.
    estimator : NetworkClassifier
    """
    inner = get_routing_for_object(estimator)
    for method in ("fit", "score"):
        requests = getattr(own, method)
        for name, alias in getattr(inner, method).requests.items():
            if requests.requests.get(name) is None:
                requests.add_request(param=name, alias=alias)
    return own


def router_of(wrapper):
    """Return how what is passed to the `fit` of a wrapper travels on to that of its estimator."""
    mapping = MethodMapping().add(caller="fit", callee="fit")
    if hasattr(wrapper, "fit_transform"):
        mapping.add(caller="fit_transform", callee="fit")
    return MetadataRouter(owner=wrapper).add(estimator=wrapper.estimator, method_mapping=mapping)


def routed_to_estimator(wrapper, fit_params):
    """Return the parameters of the `fit` of the estimator; all that are given without routing."""
    if not get_config()["enable_metadata_routing"]:
        return fit_params
    return process_routing(wrapper, "fit", **fit_params).estimator.fit


class NetworkClassifier(ClassifierMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of the classifiers of images.

    A subclass has the parameter `threshold` and, when fitted, `_targets`.
    """

    @property
    def map_classes_(self):
        check_is_fitted(self)
        return self._targets.map_classes

    def _refuse_ambiguous(self, y):
        """Raise a ValueError for labels of which maps would be refused after the training."""
        if y is not None and not are_masks(y) and not hasattr(y, "toarray"):
            refuse_what_is_no_label(y)
        is_table = isinstance(y, list) and len(y) and np.ndim(y[0])
        y = np.empty(0) if y is None or is_table else np.asarray(y)
        if y.ndim == 1 and y.dtype.kind != "c" and len(set(y.tolist())) > 1:
            Targets.of(y, self.background_label).check_maps()

    @abstractmethod
    def _read_training(self, X, y):
        """Return the Images and Labels that `fit` would train on; nothing is remembered."""

    @abstractmethod
    def _read_images(self, X):
        """Return Images like those that were trained on."""

    @abstractmethod
    def _read_labels(self, images, y):
        """Return Labels like those that were trained on."""

    @abstractmethod
    def _logits(self, images):
        """Return the logits of Images, float32 ndarray of shape (n_samples, n_outputs)."""

    @abstractmethod
    def _explained(self):
        """Return what this classifier explains, as `Explained`."""

    def _logits_of(self, X):
        check_is_fitted(self)
        self._check_parameters()
        return self._logits(self._read_images(X))

    def _check_parameters(self):
        """Check the parameters that count after fit, too: they may have been set since."""
        self._validate_params()
        self._targets.check_threshold(self.threshold)

    def decision_function(self, X):
        """Return the logits of the classes.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `fit`; their size may differ from that of the training images and, in
            a list, from each other.

        Returns
        -------
        logits : float32 ndarray of shape (n_samples, n_classes), or (n_samples,) if binary
        """
        logits = self._logits_of(X)
        return self._targets.decision(logits)

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `decision_function`.

        Returns
        -------
        probabilities : float32 ndarray of shape (n_samples, n_classes)
            In [0, 1]. Rows sum to 1 unless the problem is multi-label.
        """
        logits = self._logits_of(X)
        return self._targets.probabilities(logits)

    def predict_log_proba(self, X):
        """Return the logarithm of the probability of each class.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `decision_function`.

        Returns
        -------
        log_probabilities : float32 ndarray of shape (n_samples, n_classes)
            Natural logarithms, at most 0; finite also where `predict_proba` is 0.
        """
        logits = self._logits_of(X)
        return self._targets.log_probabilities(logits)

    def predict(self, X):
        """Predict the classes that an image contains.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `decision_function`.

        Returns
        -------
        y : ndarray of shape (n_samples,), or (n_samples, n_classes) if multi-label
            Class labels, or an indicator matrix.
        """
        logits = self._logits_of(X)
        return self._targets.decode(self._targets.present(logits, self.threshold))

    def score(self, X, y, sample_weight=None):
        """Return the accuracy of the predicted labels.

        For multi-label targets this is the share of images whose labels are all right, as
        everywhere in scikit-learn.

        Parameters
        ----------
        X : array-like, or list of n_samples ndarray
            Images, as in `decision_function`.
        y : array-like
            True labels, masks or instances, as in `fit`; a list of masks or instances if the images
            differ in size.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the images.

        Returns
        -------
        score : float

        Raises
        ------
        ValueError
            If y holds masks, and two labels do not say which of them the masks show.
        """
        check_is_fitted(self)
        if are_masks(y):
            y = self._read_labels(self._read_images(X), y).y
        else:
            refuse_paths("X", X)
            y = read_plain_labels(y, n_samples(X), name=type(self).__name__)
        return super().score(X, y, sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.classifier_tags.multi_label = True
        return tags
