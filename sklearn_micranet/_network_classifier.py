"""What one network and several have in common: from logits to labels."""

from abc import ABCMeta, abstractmethod

from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted


class NetworkClassifier(ClassifierMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of the classifiers of images.

    A subclass has the parameter `threshold` and, when fitted, `_targets`.
    """

    @abstractmethod
    def _logits(self, X):
        """Return the logits of images, float32 ndarray of shape (n_samples, n_outputs)."""

    @abstractmethod
    def _labels(self, X, y):
        """Return labels as they are, and masks as labels."""

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
        logits = self._logits(X)
        return logits[:, 0] if self._targets.kind == "binary" else logits

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
        logits = self._logits(X)
        return self._targets.probabilities(logits)

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
        check_is_fitted(self)
        self._targets.check_threshold(self.threshold)  # it may have been set after fit
        logits = self._logits(X)
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
            True labels or masks, as in `fit`; a list of masks if the images differ in size.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the images.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        return super().score(X, self._labels(X, y), sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.classifier_tags.multi_label = True
        return tags
