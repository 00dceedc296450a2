"""How image-level labels, what a network is trained on, and its logits correspond."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax


@dataclass(frozen=True, eq=False)
class Targets:
    """Correspondence between labels, what the network is trained on, and its logits.

    Attributes
    ----------
    kind : {"binary", "multiclass", "multilabel"}
    classes : ndarray of shape (n_classes,)
    """

    kind: str
    classes: np.ndarray

    @classmethod
    def of(cls, y):
        """Return the targets of labels.

        Parameters
        ----------
        y : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Labels, or all class labels, of at least two classes; or an indicator matrix.
        """
        if y.ndim == 2:
            return cls("multilabel", np.arange(y.shape[1]))
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(
                "y must hold at least two classes, images with and images without a structure. "
                f"Got one class instead: {classes.tolist()}."
            )
        return cls("binary" if len(classes) == 2 else "multiclass", classes)

    @property
    def n_outputs(self):
        """Number of logits: one for a binary problem, that of the positive class ``classes[1]``."""
        return 1 if self.kind == "binary" else len(self.classes)

    def check(self, y):
        """Raise a ValueError if y holds labels that are not among the classes."""
        if (y.ndim == 2) != (self.kind == "multilabel"):
            raise ValueError(
                f"y must be of the kind of the first call's, {self.kind}. Got {y.ndim} "
                "dimension(s) instead."
            )
        unknown = np.setdiff1d(y, self.classes) if y.ndim == 1 else []
        if len(unknown) or (y.ndim == 2 and y.shape[1] != self.n_outputs):
            raise ValueError(
                f"y must hold the classes {self.classes.tolist()} only. Got "
                f"{np.asarray(unknown).tolist() or f'{y.shape[1]} columns'} instead."
            )

    def check_threshold(self, threshold):
        """Raise a ValueError unless there is one probability, or one for each output."""
        threshold = np.asarray(threshold, dtype=float)
        if threshold.shape not in ((), (self.n_outputs,)):
            raise ValueError(
                f"threshold must be one number or one per class, {self.n_outputs}. Got the shape "
                f"{threshold.shape} instead."
            )
        if not ((threshold >= 0) & (threshold <= 1)).all():
            raise ValueError(f"threshold must be in [0, 1]. Got {threshold.tolist()} instead.")

    def encode(self, y):
        """Return what the loss compares the logits with.

        Returns
        -------
        targets : ndarray
            Class indices, int64 of shape (n_samples,), if the classes are mutually exclusive;
            otherwise float32 of shape (n_samples, n_outputs), 1 where a class is present.
        """
        if self.kind == "multilabel":
            return y.astype(np.float32)
        indices = np.searchsorted(self.classes, y)
        return indices[:, np.newaxis].astype(np.float32) if self.kind == "binary" else indices

    def indicator(self, y):
        """Return which classes a sample contains, bool of shape (n_samples, n_classes)."""
        if self.kind == "multilabel":
            return y.astype(bool)
        return y[:, np.newaxis] == self.classes

    def probabilities(self, logits):
        """Return the probability of each class, of shape (n_samples, n_classes)."""
        if self.kind == "multiclass":
            return softmax(logits, axis=1)
        probabilities = expit(logits)
        if self.kind == "binary":
            return np.hstack([1 - probabilities, probabilities])
        return probabilities

    def mean_logits(self, logits):
        """Return the logits of the mean of the probabilities that several arrays of logits mean.

        With p = expit(l), the log-odds are log(sum p) - log(sum(1 - p)); mutually exclusive
        classes have log(mean p).

        Parameters
        ----------
        logits : list of ndarray of shape (n_samples, n_outputs)
        """
        if len(logits) == 1:
            return logits[0]
        logits = np.asarray(logits, dtype=np.float64)
        if self.kind == "multiclass":
            mean = logsumexp(log_softmax(logits, axis=2), axis=0) - np.log(len(logits))
        else:
            present, absent = (logsumexp(log_expit(sign * logits), axis=0) for sign in (1, -1))
            mean = present - absent
        return mean.astype(np.float32)

    def present(self, logits, threshold):
        """Return which outputs are predicted present, bool of shape (n_samples, n_outputs)."""
        if self.kind == "multiclass":
            return np.arange(self.n_outputs) == logits.argmax(axis=1)[:, np.newaxis]
        return expit(logits) >= np.asarray(threshold, dtype=logits.dtype)

    def decode(self, present):
        """Return the labels of what :meth:`present` returned."""
        if self.kind == "multilabel":
            return present.astype(int)
        return self.classes[
            present[:, 0].astype(int) if self.kind == "binary" else present.argmax(axis=1)
        ]
