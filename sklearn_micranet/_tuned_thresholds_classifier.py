"""TunedThresholdsClassifierCV: the probability from which each class is present, from labels."""

from copy import copy
from numbers import Integral, Real

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, _fit_context, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, check_array, check_random_state, get_tags, indexable
from sklearn.utils._param_validation import HasMethods, RealNotInt, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from sklearn_micranet._stack._numbers import Interval

from ._fields._windows import groups_parameter
from ._labels._labels import Labels, read_plain_labels
from ._labels._masks import are_masks
from ._labels._overlap import warn_of_overlap
from ._labels._splits import (
    check_groups,
    check_weights,
    split_off_validation,
    stratified_splits,
)
from ._labels._targets import Targets
from ._network_classifier import (
    NetworkClassifier,
    requests_with_those_of,
    routed_to_estimator,
    router_of,
    warn_of_lost_checkpoints,
)
from ._stack._lazy_stack import read_piecewise
from ._stack._sources import n_samples

_SCORES = {  # of the numbers of true positives, false positives, false and true negatives
    "f1": lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn),
    "balanced_accuracy": lambda tp, fp, fn, tn: (tp / (tp + fn) + tn / (tn + fp)) / 2,
    "accuracy": lambda tp, fp, fn, tn: (tp + tn) / (tp + fp + fn + tn),
}


def _explains(self):
    estimator = _thawed(getattr(self, "estimator_", self.estimator))
    return isinstance(estimator, NetworkClassifier)


def _decides(self):
    return hasattr(getattr(self, "estimator_", self.estimator), "decision_function")


class TunedThresholdsClassifierCV(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Classifier whose decision threshold is tuned for each class, on image-level labels.

    A class is predicted present from the probability that scores best on held-out images, for
    each class separately. :class:`sklearn.model_selection.TunedThresholdClassifierCV` does so for
    one threshold and binary problems; here classes need not exclude each other.

    The labels of the images are all it takes. They are used up: report scores on images that
    served neither for training nor for tuning. The cut of :class:`ThresholdSegmenter`, between
    the pixels of a feature map, is another threshold, and tuning it takes masks.

    Parameters
    ----------
    estimator : classifier with `predict_proba`
        Of binary or multi-label problems: :class:`MicraNetClassifier`, :class:`MicraNetEnsemble`,
        or any of scikit-learn's.
        It is cloned and fitted. A :class:`sklearn.frozen.FrozenEstimator` stays as it is: the
        thresholds are tuned on all images, which must not be those it was fitted on.
    scoring : {"f1", "balanced_accuracy", "accuracy"} or callable, default="f1"
        What a threshold is chosen for. "balanced_accuracy" also maximises Youden's J. Precision
        and recall alone are no choice: one finds the most certain image, the other all images. A
        callable ``score(y_true, y_pred)`` gets vectors of 0 and 1 and returns a number that is
        larger the better, such as a function of :mod:`sklearn.metrics`. It also gets
        ``sample_weight`` if the weights of the images differ.
    thresholds : int or array-like of probabilities, default=100
        Candidates for each class. A number of them is spread evenly over the held-out images that
        contain the class, from the least to the most probable one, so that rare classes and
        probabilities close to 0 or 1 are resolved as well as others. Each candidate lies halfway
        between the probability of such an image and the next lower one of any image.
    cv : int, float, splitter, iterable of splits or "prefit", default=None
        Which images are held out from training.

        - int: each of so many folds once, drawn so that every class is represented evenly;
          ``None`` is 5 folds.
        - float in (0, 1): a share of the images, drawn likewise.
        - splitter or iterable of (train, test) indices: as in scikit-learn.

          Images of one of the `groups` of `fit`, such as crops of one image, are in one fold if
          `cv` is a number or a splitter that heeds them, such as
          :class:`sklearn.model_selection.GroupKFold`.
        - "prefit": all images; `estimator` is fitted already and used as it is. Freeze it instead
          where this is cloned, as by a grid search.
    refit : bool, default=True
        Whether the classifier is fitted again on all images after the tuning. Without, it is the
        one fitted in tuning, and `cv` must hold out images once. Not used if it is fitted already.
    n_jobs : int, default=None
        Number of folds fitted at a time, as in :class:`joblib.Parallel`.
    random_state : int, RandomState instance or None, default=None
        Governs which images are held out if `cv` is a number. With ``None`` these are others in
        every `fit`, so that no training without them resumes from a `checkpoint_dir` of
        `estimator`: pass an int.

    Attributes
    ----------
    estimator_ : estimator instance
        The fitted classifier. The `threshold` of a network or an ensemble is `best_thresholds_`;
        of one that was fitted already, this is a copy that shares its network.
    best_thresholds_ : float ndarray of shape (n_classes,)
        Probability, in [0, 1], from which each class is predicted present. A binary problem has
        one: of a network that of the structure, of others that of ``classes_[1]``. A class that all
        held-out images contain, or none, keeps the `threshold` of `estimator`, 0.5 if it has none.
    best_scores_ : float ndarray of shape (n_classes,)
        Held-out score of each threshold; NaN for classes that could not be tuned. Being the best
        of many, it is optimistic.
    cv_results_ : dict of float ndarrays of shape (n_classes, n_thresholds)
        "thresholds", in ascending order, and their "scores"; NaN where there are none.
    classes_ : ndarray of shape (n_classes,)
        Class labels; the column numbers for multi-label targets; of two labels that may be present
        together ``[[0, 1], [0, 1]]``, as of :class:`MicraNetClassifier`.
    n_features_in_ : int
        Number of features, if `estimator_` has it.

    See Also
    --------
    sklearn.model_selection.TunedThresholdClassifierCV : For binary problems, with any scorer.

    Notes
    -----
    Each class is scored once, on the pooled images of all folds: a fold may hold too few images
    of a rare class to score it. Of equally good thresholds, the middle one of the widest range is
    taken. A threshold tuned on few images that contain the class is an uncertain one.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.metrics import f1_score
    >>> from sklearn_micranet import TunedThresholdsClassifierCV
    >>> X, y = make_classification(1000, weights=[0.9], class_sep=0.8, random_state=42)
    >>> classifier = LogisticRegression().fit(X[:500], y[:500])
    >>> f"{f1_score(y[500:], classifier.predict(X[500:])):.2f}"
    '0.40'
    >>> tuned = TunedThresholdsClassifierCV(classifier, random_state=0).fit(X[:500], y[:500])
    >>> f"{f1_score(y[500:], tuned.predict(X[500:])):.2f}, from {tuned.best_thresholds_[0]:.2f}"
    '0.54, from 0.19'
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "scoring": [StrOptions(set(_SCORES)), callable],
        "thresholds": [Interval(Integral, 2, None, closed="left"), "array-like"],
        "cv": [
            "cv_object",
            Interval(RealNotInt, 0, 1, closed="neither"),
            StrOptions({"prefit"}),
        ],
        "refit": ["boolean"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator,
        *,
        scoring="f1",
        thresholds=100,
        cv=None,
        refit=True,
        n_jobs=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.scoring = scoring
        self.thresholds = thresholds
        self.cv = cv
        self.refit = refit
        self.n_jobs = n_jobs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None, **fit_params):
        """Tune the thresholds on held-out images, and fit the classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Images, or what else `estimator` is fitted on. A network or an ensemble that was
            fitted already accepts a list of images of different sizes.
        y : array-like of shape (n_samples,), (n_samples, n_classes) or \
                (n_samples, n_classes, height, width)
            Labels of two classes, or an indicator matrix. Masks are legal if `estimator` is a
            network or an ensemble: they are reduced to labels by its `min_coverage`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0 of the images in training and in the scores of the thresholds.
        groups : array-like of shape (n_samples,), default=None
            Images of one group, such as overlapping crops of one image, are not split between
            training and tuning. They are passed on to an `estimator` whose `fit` has `groups`.
        X_val, y_val : array-like, default=None
            Validation images of the training, and their labels, passed on as they are.
        **fit_params : dict
            Passed to the `fit` of `estimator`, of each fold what has an entry for each image. With
            scikit-learn's metadata routing, an `estimator` that is no network gets what its
            `set_fit_request` asks for. If it is fitted already, only `sample_weight` is used.

        Returns
        -------
        self : TunedThresholdsClassifierCV

        Raises
        ------
        ValueError
            If there are more than two mutually exclusive classes, no images can be held out as
            `cv` says, or weights are not as described.
        NotFittedError
            If `cv` is "prefit" or `estimator` frozen, and it is not fitted.

        Warns
        -----
        UserWarning
            If overlapping crops are both trained on and held out, for lack of `groups`.
        """
        thresholds = self.thresholds
        if not isinstance(thresholds, Integral):
            thresholds = _check_thresholds(thresholds)
        (X,) = indexable(read_piecewise(X))
        is_prefit = isinstance(self.estimator, FrozenEstimator) or (
            isinstance(self.cv, str) and self.cv == "prefit"
        )
        if is_prefit:
            check_is_fitted(self.estimator)
        elif self.cv is None or isinstance(self.cv, Real):
            warn_of_lost_checkpoints(self, "folds")
        y, self._targets = self._read_training(X, y, is_prefit)
        weights = check_weights(sample_weight, n_samples(X))
        if is_prefit:
            estimator, held_out = self.estimator, np.arange(len(y))
            probabilities = _probabilities(estimator, X, self._targets)
        else:
            groups = check_groups(groups, n_samples(X))
            given = {"sample_weight": weights, "groups": groups, "X_val": X_val, "y_val": y_val}
            given = {name: value for name, value in given.items() if value is not None}
            fit_params = self._routed(given | fit_params)
            estimator, probabilities, held_out = self._hold_out(X, y, groups, fit_params)
        present = self._targets.encode(y[held_out]).astype(bool)
        self._tune(
            present, probabilities, thresholds, None if weights is None else weights[held_out]
        )
        self.estimator_ = estimator
        if isinstance(_thawed(estimator), NetworkClassifier):
            # A copy: a classifier that was fitted already must not be changed.
            self.estimator_ = copy(_thawed(estimator)).set_params(threshold=self.best_thresholds_)
        return self

    def predict(self, X):
        """Predict the classes whose probability reaches their threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Images, or what else `estimator` was fitted on.

        Returns
        -------
        y : ndarray of shape (n_samples,), or (n_samples, n_classes) if multi-label
            Class labels, or an indicator matrix.
        """
        check_is_fitted(self)
        probabilities = _probabilities(self.estimator_, X, self._targets)
        present = probabilities >= self.best_thresholds_.astype(probabilities.dtype)
        return self._targets.decode(present)

    def predict_proba(self, X):
        """Return the probabilities of the fitted classifier, in its own layout.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Images, or what else `estimator` was fitted on.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            A list of them for some multi-label classifiers of scikit-learn.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def predict_log_proba(self, X):
        """Return the logarithm of the probabilities, in the layout of `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Images, or what else `estimator` was fitted on.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            Natural logarithms. A list of them for some multi-label classifiers of scikit-learn.
        """
        check_is_fitted(self)
        if hasattr(self.estimator_, "predict_log_proba"):
            return self.estimator_.predict_log_proba(X)
        probabilities = self.estimator_.predict_proba(X)
        with np.errstate(divide="ignore"):
            is_list = isinstance(probabilities, list)
            return [np.log(p) for p in probabilities] if is_list else np.log(probabilities)

    @available_if(_decides)
    def decision_function(self, X):
        """Return the decision function of the fitted classifier, which knows no thresholds.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Images, or what else `estimator` was fitted on.

        Returns
        -------
        decisions : ndarray of shape (n_samples, n_classes), or (n_samples,) if binary
        """
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    def score(self, X, y, sample_weight=None):
        """Return the accuracy of the predicted labels.

        For multi-label targets this is the share of images whose labels are all right, as
        everywhere in scikit-learn.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Images, or what else `estimator` was fitted on.
        y : array-like
            True labels, masks or instances, as in `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the images.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        if isinstance(self.estimator_, NetworkClassifier):
            return self.estimator_.score(X, y, sample_weight)
        return super().score(X, y, sample_weight)

    def get_metadata_routing(self):
        """Return how parameters of `fit` are used here and travel on to `estimator`.

        Returns
        -------
        routing : MetadataRequest or MetadataRouter
            Of a network, this asks for what the network asks for.
        """
        if isinstance(_thawed(self.estimator), NetworkClassifier):
            return requests_with_those_of(super().get_metadata_routing(), self.estimator)
        return router_of(self).add_self_request(self)

    @property
    def classes_(self):
        return self._targets.scorer_classes

    @property
    def n_features_in_(self):
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self):
        return self.estimator_.feature_names_in_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = getattr(inner.classifier_tags, "multi_label", False)
        return tags

    def _read_training(self, X, y, is_prefit):
        """Return the labels, masks reduced to labels in the way of the classifier, and targets."""
        classifier = _thawed(self.estimator)
        if isinstance(classifier, NetworkClassifier):
            if is_prefit:
                labels = classifier._read_labels(classifier._read_images(X), y)
            else:
                labels = classifier._read_training(X, y)[1]
        else:
            labels = self._read_plain_labels(X, y, classifier, is_prefit)
        if labels.targets.kind == "multiclass":
            raise ValueError(
                "Only binary classification is supported, and several classes that may be present "
                f"together. Got {len(labels.targets.classes)} mutually exclusive classes instead: "
                "the most probable one is predicted, without a threshold. Pass an indicator matrix "
                "if classes may be present together."
            )
        return labels

    def _read_plain_labels(self, X, y, classifier, is_prefit):
        if are_masks(y):
            raise ValueError(
                "y must be labels: masks can be reduced to labels by a MicraNetClassifier only. "
                f"Got masks for {type(classifier).__name__} instead. Pass masks.any(axis=(2, 3))."
            )
        y = read_plain_labels(y, n_samples(X), name=type(self).__name__)
        # The held-out images of a classifier that was fitted already may all be of one class.
        targets = Targets.of(np.asarray(classifier.classes_) if is_prefit and y.ndim == 1 else y)
        targets.check(y)
        return Labels(y, targets)

    @available_if(_explains)
    def _explained(self):
        check_is_fitted(self)
        return _thawed(self.estimator_)._explained()

    @available_if(_explains)
    def _refuse_ambiguous(self, y):
        _thawed(self.estimator)._refuse_ambiguous(y)

    @property
    def map_classes_(self):
        return self._targets.map_classes

    def _read_images(self, X):
        return _thawed(self.estimator_)._read_images(X)

    def _read_labels(self, images, y):
        return _thawed(self.estimator_)._read_labels(images, y)

    def _routed(self, given):
        """Return the parameters of the `fit` of the classifier."""
        if isinstance(self.estimator, NetworkClassifier):
            return given
        if get_config()["enable_metadata_routing"]:
            return routed_to_estimator(self, given)
        groups, name = given.pop("groups", None), groups_parameter(self.estimator)
        return given if groups is None or name is None else {name: groups} | given

    def _hold_out(self, X, y, groups, fit_params):
        """Return the fitted classifier, and the probabilities and indices of held-out images."""
        splits = list(self._splits(X, y, groups))
        warn_of_overlap(X, *splits[0], purpose="tuning")
        if not self.refit and len(splits) > 1:
            raise ValueError(
                "cv must hold out images once if refit=False, for example cv=0.2. Got "
                f"{len(splits)} splits instead."
            )
        fitted, probabilities = zip(
            *Parallel(n_jobs=self.n_jobs)(
                delayed(_fit_and_hold_out)(
                    clone(self.estimator),
                    X,
                    y,
                    fit_params,
                    train,
                    test,
                    self._targets,
                    not self.refit,
                )
                for train, test in splits
            ),
            strict=True,
        )
        estimator = clone(self.estimator).fit(X, y, **fit_params) if self.refit else fitted[0]
        held_out = np.concatenate([np.arange(len(y))[test] for _, test in splits])
        return estimator, np.concatenate(probabilities), held_out

    def _splits(self, X, y, groups):
        if not (self.cv is None or isinstance(self.cv, Real)):
            return check_cv(self.cv, y, classifier=True).split(X, y, groups)
        indicator = self._targets.indicator(y)
        random_state = check_random_state(self.random_state)
        if self.cv is None or isinstance(self.cv, Integral):
            return stratified_splits(indicator, self.cv or 5, random_state, groups)
        train, test = split_off_validation(indicator, self.cv, random_state, groups)
        if not len(test):
            raise ValueError(
                "cv must hold out at least one image and leave two to train on. Got a share of "
                f"{self.cv} of {len(y)} images instead."
            )
        return [(train, test)]

    def _tune(self, present, probabilities, thresholds, weights):
        """Choose the thresholds; the first two arrays are of shape (n_samples, n_outputs)."""
        if weights is None:
            weights = np.ones(len(present), dtype=int)
        counts = weights > 0
        present, probabilities, weights = present[counts], probabilities[counts], weights[counts]
        classifier = _thawed(self.estimator)
        default = classifier.threshold if isinstance(classifier, NetworkClassifier) else 0.5
        self.best_thresholds_ = np.array(np.broadcast_to(default, present.shape[1]), dtype=float)
        self.best_scores_ = np.full(present.shape[1], np.nan)
        curves = [
            _curve(*column, thresholds, self.scoring, weights)
            for column in zip(present.T, probabilities.T, strict=True)
        ]
        for k, (candidates, scores) in enumerate(curves):
            if not np.isnan(scores).all():
                best = _middle_of_best(candidates, scores)
                self.best_thresholds_[k], self.best_scores_[k] = candidates[best], scores[best]
        candidates, scores = np.array(curves, dtype=float).swapaxes(0, 1)
        self.cv_results_ = {"thresholds": candidates, "scores": scores}


def _thawed(estimator):
    return estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator


def _fit_and_hold_out(estimator, X, y, fit_params, train, test, targets, keep):
    """Fit on the training images; return the classifier, if it is to be kept, and what it says."""
    fit_params = {k: _of_rows(k, value, len(y), train) for k, value in fit_params.items()}
    estimator.fit(*(_safe_indexing(data, train) for data in (X, y)), **fit_params)
    X_test = _safe_indexing(X, test)
    return estimator if keep else None, _probabilities(estimator, X_test, targets)


def _of_rows(name, value, n_rows, rows):
    """Return the entries of some images, if there is one for each and they are not others."""
    is_of_others = name.endswith(("X_val", "y_val"))
    has_rows = hasattr(value, "shape") or isinstance(value, list | tuple)
    if is_of_others or not has_rows or n_samples(value) != n_rows:
        return value
    return _safe_indexing(value, rows)


def _probabilities(estimator, X, targets):
    """Return the probability of each output, of shape (n_samples, n_outputs)."""
    probabilities = estimator.predict_proba(X)
    if targets.kind == "binary":
        label = targets.classes[targets.positive]
        return _column(probabilities, estimator.classes_, label)[:, np.newaxis]
    if isinstance(probabilities, list):
        columns = zip(probabilities, estimator.classes_, strict=True)
        probabilities = np.column_stack([_column(p, classes, 1) for p, classes in columns])
    if probabilities.shape[1:] != (targets.n_outputs,):
        raise ValueError(
            f"estimator must have been fitted on the {targets.n_outputs} classes of y. Got "
            f"probabilities of shape {probabilities.shape} instead."
        )
    return probabilities


def _column(probabilities, classes, label):
    """Return the probabilities of one label, 0 if no training image had it."""
    found = np.flatnonzero(np.asarray(classes) == label)
    return probabilities[:, found[0]] if len(found) else np.zeros(len(probabilities))


def _check_thresholds(thresholds):
    thresholds = check_array(thresholds, ensure_2d=False, dtype=float, input_name="thresholds")
    if thresholds.ndim != 1 or not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError(
            "thresholds must be a number of candidates or a list of probabilities in [0, 1]. Got "
            f"{thresholds.tolist()} instead."
        )
    return np.unique(thresholds)


def _curve(present, probabilities, thresholds, scoring, weights):
    """Return the candidates for one class, and their scores: NaN if there is nothing to tune."""
    if isinstance(thresholds, Integral) and present.any():
        thresholds = _candidates(present, probabilities, thresholds)
    elif isinstance(thresholds, Integral):
        thresholds = np.full(thresholds, np.nan)
    if present.all() or not present.any():
        return thresholds, np.full(len(thresholds), np.nan)
    return thresholds, _scores(present, probabilities, thresholds, scoring, weights)


def _candidates(present, probabilities, n_thresholds):
    """Return thresholds just below the probabilities of images with the class, evenly in rank.

    Any score that rises with each image found and falls with each false alarm is best there.
    """
    positive = np.sort(probabilities[present])
    positive = positive[np.linspace(0, len(positive) - 1, n_thresholds).round().astype(int)]
    values = np.unique(probabilities)
    lower = np.append(values[:1] * 0, values)[np.searchsorted(values, positive)]
    return (lower + positive) / 2


def _scores(present, probabilities, thresholds, scoring, weights):
    """Return the score of each threshold for one class."""
    thresholds = thresholds.astype(probabilities.dtype)  # compared as in `predict`
    if callable(scoring):
        y_true = present.astype(int)
        named = {} if (weights == weights[:1]).all() else {"sample_weight": weights}
        predictions = ((probabilities >= t).astype(int) for t in thresholds)
        return np.array([scoring(y_true, y_pred, **named) for y_pred in predictions])
    order = np.argsort(probabilities)
    n_absent = np.searchsorted(probabilities[order], thresholds)  # predicted absent
    absent = np.append(0, np.cumsum(weights[order]))
    fn = np.append(0, np.cumsum((weights * present)[order]))
    tp, fn, absent_of = fn[-1] - fn[n_absent], fn[n_absent], absent[n_absent]
    return _SCORES[scoring](tp, absent[-1] - absent_of - tp, fn, absent_of - fn)


def _middle_of_best(thresholds, scores):
    """Return the index of the middle one in the widest run of best scores."""
    is_best = scores == np.nanmax(scores)
    first, end = (
        np.flatnonzero(np.diff(np.concatenate([[False], is_best, [False]]))).reshape(-1, 2).T
    )
    bounds = np.concatenate([[0], thresholds, [1]])  # those of a run lie beside it
    widest = np.argmax(bounds[end + 1] - bounds[first])
    return (first[widest] + end[widest] - 1) // 2
