"""How image-level labels, what a network is trained on, and its logits correspond."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax

# Pairs of labels that say which of them is the structure: the larger one.
_TELLING = ({0, 1}, {-1, 1})


@dataclass(frozen=True, eq=False)
class Targets:
    """Correspondence between labels, what the network is trained on, its logits and its maps.

    Attributes
    ----------
    kind : {"binary", "multiclass", "multilabel"}
    classes : ndarray of shape (n_classes,)
    background : int or None
        Index of the class that stands for images without any structure.
    """

    kind: str
    classes: np.ndarray
    background: int | None = None

    @classmethod
    def of(cls, y, background_label=None):
        """Return the targets of labels.

        Parameters
        ----------
        y : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Labels, or all class labels, of at least two classes; or an indicator matrix.
        background_label : label, default=None
            Of images without any structure.
        """
        if y.ndim == 2:
            if background_label is not None:
                raise ValueError(
                    "background_label must be None for an indicator matrix or masks, in which no "
                    f"class stands for the background. Got {background_label!r} instead."
                )
            return cls("multilabel", np.arange(y.shape[1]))
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(
                "y must hold at least two classes, images with and images without a structure. "
                f"Got one class instead: {classes.tolist()}."
            )
        background = None
        if background_label is not None:
            found = np.flatnonzero(classes == background_label)
            if len(found) != 1:
                raise ValueError(
                    f"background_label must be one of the classes {classes.tolist()}. Got "
                    f"{background_label!r} instead."
                )
            background = int(found[0])
        elif len(classes) == 2 and set(classes.tolist()) in _TELLING:
            background = 0
        return cls("binary" if len(classes) == 2 else "multiclass", classes, background)

    @property
    def n_outputs(self):
        """Number of logits: one for a binary problem, that of the `positive` class."""
        return 1 if self.kind == "binary" else len(self.classes)

    @property
    def positive(self):
        """Index of the class of a binary problem that its logit stands for."""
        return 0 if self.background == 1 else 1

    @property
    def map_outputs(self):
        """Indices of the outputs that have maps."""
        if self.kind == "binary":
            return np.array([0])
        outputs = np.arange(self.n_outputs)
        return outputs if self.background is None else np.delete(outputs, self.background)

    @property
    def map_classes(self):
        """Labels of the classes that have maps, in their order."""
        if self.kind == "binary":
            return self.classes[[self.positive]]
        return self.classes[self.map_outputs]

    @property
    def scorer_classes(self):
        """What scikit-learn's scorers read as `classes_`.

        Two labels that may be present together would look like two classes that exclude each
        other, and a scorer would read one column of the probabilities: each is told to be 0 or 1.
        """
        if self.kind == "multilabel" and self.n_outputs == 2:
            return np.array([[0, 1], [0, 1]])
        return self.classes

    @property
    def encoded(self):
        """Targets of what `encode` returns."""
        if self.kind == "binary":
            return Targets("binary", np.arange(2), background=0)
        return Targets(self.kind, np.arange(self.n_outputs), self.background)

    def check_maps(self):
        """Raise a ValueError if nobody has said which of two labels is the structure."""
        if self.kind == "binary" and self.background is None:
            first, second = self.classes.tolist()
            raise ValueError(
                "Maps are those of the structure. Of two labels, one must be said to be the "
                f"background. Got {first!r} and {second!r} instead, which may mean either. Set "
                f"background_label={first!r} or background_label={second!r} of the classifier."
            )

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
        if isinstance(threshold, dict):
            raise TypeError(
                "threshold must be one number or one per class. Got a dict instead: pass a list "
                f"in the order of the classes, {self.classes.tolist()}."
            )
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
        if self.kind == "binary":
            return self.indicator(y)[:, [self.positive]].astype(np.float32)
        return np.searchsorted(self.classes, y)

    def has_structure(self, y):
        """Return whether each sample contains any class but the background, bool."""
        indicator = self.indicator(y)
        if self.kind == "binary":
            return indicator[:, self.positive]
        return indicator[:, self.map_outputs].any(axis=1)

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
            columns = [1 - probabilities, probabilities]
            return np.hstack(columns if self.positive == 1 else columns[::-1])
        return probabilities

    def log_probabilities(self, logits):
        """Return the logarithm of the probability of each class, finite for any finite logit."""
        if self.kind == "multiclass":
            return log_softmax(logits, axis=1)
        present = log_expit(logits)
        if self.kind == "binary":
            columns = [log_expit(-logits), present]
            return np.hstack(columns if self.positive == 1 else columns[::-1])
        return present

    def decision(self, logits):
        """Return the logits as scikit-learn has them: of a binary problem those of classes[1]."""
        if self.kind != "binary":
            return logits
        return logits[:, 0] if self.positive == 1 else -logits[:, 0]

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
        if self.kind == "binary":
            return self.classes[np.where(present[:, 0], self.positive, 1 - self.positive)]
        return self.classes[present.argmax(axis=1)]
