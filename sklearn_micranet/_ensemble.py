"""MicraNetEnsemble: several networks that are asked together."""

from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from sklearn.base import MetaEstimatorMixin, _fit_context, clone
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from sklearn_micranet._stack._numbers import Interval

from ._classifier import MicraNetClassifier
from ._labels._overlap import warn_of_overlap
from ._labels._splits import check_folds, check_groups, stratified_splits
from ._network_classifier import (
    NetworkClassifier,
    requests_with_those_of,
    warn_of_lost_checkpoints,
)
from ._stack._lazy_stack import read_piecewise


class MicraNetEnsemble(MetaEstimatorMixin, NetworkClassifier):
    """Several networks of different seeds or folds, whose predictions are averaged.

    It can take the place of one classifier. Its probabilities are the means of the networks', its
    decision function their log-odds. In :class:`GradCAMFeatureTransformer` the maps of each network
    travel on, to be averaged by :class:`PCAFeatureMap` as feature maps, as for the P. vivax images
    of the paper [1]_.

    Parameters
    ----------
    estimator : MicraNetClassifier
        It is cloned and fitted several times.
    n_estimators : int, default=5
        Number of networks, each with a seed of its own. Not used with `cv`.
    cv : int, cross-validation splitter or iterable, default=None
        With it there is a network for each fold: trained on the other folds, and monitored on
        that one. ``None`` trains all networks on all images. The folds of an int are drawn so that
        every class is represented evenly; images of one of the `groups` of `fit`, such as crops
        of one image, are in one fold.
    threshold : float or array-like of shape (n_classes,), default=0.5
        Mean probability from which a class is predicted present, as in
        :class:`MicraNetClassifier`. The thresholds of the single networks are not used.
    n_jobs : int, default=None
        Number of networks that are trained at a time, as in :class:`joblib.Parallel`.
    random_state : int, RandomState instance or None, default=None
        Governs the seeds of the networks, and the folds if `cv` is an int. With ``None`` these
        are others in every `fit`, so that no training resumes from a `checkpoint_dir` of
        `estimator`: pass an int.

    Attributes
    ----------
    estimators_ : list of MicraNetClassifier
        The fitted networks.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    map_classes_ : ndarray of shape (n_maps,)
        Labels of the classes that have maps, see :class:`MicraNetClassifier`.
    n_features_in_ : int
        Number of features of flattened training images.

    See Also
    --------
    GradCAMFeatureTransformer : Local maps of one or several networks.

    References
    ----------
    .. [1] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_micranet import MicraNetClassifier, MicraNetEnsemble
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> classifier = MicraNetClassifier(n_filters=2, max_epochs=5, lr=1e-2)
    >>> ensemble = MicraNetEnsemble(classifier, n_estimators=3, random_state=0)
    >>> ensemble.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.9
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "decision_function"])],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "cv": ["cv_object"],
        "threshold": [Interval(Real, 0, 1, closed="both"), "array-like"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator,
        *,
        n_estimators=5,
        cv=None,
        threshold=0.5,
        n_jobs=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.cv = cv
        self.threshold = threshold
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None):
        """Train the networks.

        Parameters
        ----------
        X : array-like
            Images, as in :meth:`MicraNetClassifier.fit`.
        y : array-like
            Labels or masks, as in :meth:`MicraNetClassifier.fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the images.
        groups : array-like of shape (n_samples,), default=None
            Images of one group, such as overlapping crops of one image, are not split between
            training and validation: in no network, and with `cv` in no fold.
        X_val : array-like, default=None
            Validation images of all networks, as in :meth:`MicraNetClassifier.fit`; not with `cv`.
        y_val : array-like, default=None
            Labels or masks of X_val.

        Returns
        -------
        self : MicraNetEnsemble

        Raises
        ------
        TypeError
            If `estimator` is not a MicraNetClassifier.
        ValueError
            If X or y are not as described, or a fold leaves no image of a class, or no image
            without it, to train on, or validation images are passed although `cv` chooses them.

        Warns
        -----
        UserWarning
            If with `cv` overlapping crops are both trained on and monitored, for lack of `groups`.
        """
        if not isinstance(self.estimator, MicraNetClassifier):
            raise TypeError(
                "estimator must be a MicraNetClassifier. Got "
                f"{type(self.estimator).__name__} instead."
            )
        if self.cv is not None and not (X_val is None and y_val is None):
            raise ValueError(
                "X_val must be None with cv, by which each network is monitored on a fold. Got "
                "both instead: set cv=None to monitor all networks on X_val."
            )
        warn_of_lost_checkpoints(self, "seeds")
        X = read_piecewise(X)
        images, (labels, targets) = self._read_training(X, y)
        groups = check_groups(groups, len(images))
        targets.check_threshold(self.threshold)
        random_state = check_random_state(self.random_state)
        parts = [(None, None)] * self.n_estimators
        if self.cv is not None:
            indicator = targets.indicator(labels)
            parts = list(self._splits(X, labels, indicator, groups, random_state))
            check_folds(parts, indicator, targets.classes)
            warn_of_overlap(images.stack, *parts[0])
        given = {"sample_weight": sample_weight, "groups": groups, "X_val": X_val, "y_val": y_val}
        given = {name: value for name, value in given.items() if value is not None}
        seeds = random_state.randint(2**31, size=len(parts))
        self.estimators_ = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_member)(
                clone(self.estimator).set_params(random_state=int(seed)), X, y, given, *part
            )
            for seed, part in zip(seeds, parts, strict=True)
        )
        return self

    def _refuse_ambiguous(self, y):
        self.estimator._refuse_ambiguous(y)

    @property
    def classes_(self):
        return self.estimators_[0].classes_

    @property
    def n_features_in_(self):
        return self.estimators_[0].n_features_in_

    @property
    def feature_names_in_(self):
        return self.estimators_[0].feature_names_in_

    @property
    def _targets(self):
        return self.estimators_[0]._targets

    def _read_training(self, X, y):
        return self.estimator._read_training(X, y)

    def _read_images(self, X):
        return self.estimators_[0]._read_images(X)

    def _read_labels(self, images, y):
        return self.estimators_[0]._read_labels(images, y)

    def _logits(self, images):
        return self._targets.mean_logits([member._logits(images) for member in self.estimators_])

    def _explained(self):
        check_is_fitted(self)
        self._check_parameters()
        members = [member._explained() for member in self.estimators_]
        networks = tuple(network for member in members for network in member.networks)
        return replace(members[0], networks=networks, threshold=self.threshold)

    def get_metadata_routing(self):
        """Return which parameters of `fit` are asked for: by this or by `estimator`.

        Returns
        -------
        routing : MetadataRequest
        """
        return requests_with_those_of(super().get_metadata_routing(), self.estimator)

    def _splits(self, X, labels, indicator, groups, random_state):
        if not isinstance(self.cv, Integral):
            return check_cv(self.cv).split(X, labels, groups)
        # Of a class that most images contain, the images without it are those to be spread.
        is_frequent = 2 * indicator.sum(axis=0) > len(indicator)
        return stratified_splits(indicator ^ is_frequent, self.cv, random_state, groups)


def _fit_member(classifier, X, y, given, train, test):
    """Fit a network on all images, or on some of them with the others to be monitored."""
    if train is None:
        return classifier.fit(X, y, **given)
    X_train, y_train, X_test, y_test = (
        _safe_indexing(data, part) for part in (train, test) for data in (X, y)
    )
    weights = given.get("sample_weight")
    weights = None if weights is None else np.asarray(weights)[train]
    return classifier.fit(X_train, y_train, weights, X_val=X_test, y_val=y_test)
