"""The loss, with weights of classes and of images."""

from collections.abc import Mapping
from numbers import Real

import numpy as np
import torch
from sklearn.utils import compute_class_weight
from torch import nn
from torch.nn import functional as F

from sklearn_micranet._stack._warnings import warn_user


def is_balanced(class_weight):
    """Whether weights are to be worked out from the labels, those of one class at least."""
    return "balanced" in (class_weight if isinstance(class_weight, list) else [class_weight])


def class_weights(class_weight, targets, y):
    """Work out what a present and an absent class weigh in the loss.

    Parameters
    ----------
    class_weight : dict, list of dict, "balanced" or None
        As in :class:`MicraNetClassifier`.
    targets : Targets
    y : ndarray of shape (n_samples,) or (n_samples, n_classes)
        Labels; "balanced" counts them.

    Returns
    -------
    weights : float64 ndarray of shape (2, n_outputs), or (n_classes,) if mutually exclusive
        What each output weighs where it is absent (row 0) and where it is present (row 1), or
        what each class weighs.
    """
    if class_weight is None:
        class_weight = [{}] * targets.n_outputs if targets.kind == "multilabel" else {}
    if targets.kind != "multilabel":
        if not isinstance(class_weight, Mapping) and class_weight != "balanced":
            raise ValueError(
                'class_weight must be a dict {class label: weight}, "balanced" or None: the '
                f"classes are {targets.classes.tolist()}. Got {class_weight!r} instead."
            )
        class_weight = _known(class_weight, targets.classes.tolist())
        _check_weights(class_weight, targets.classes.tolist())
        weights = _of_labels(class_weight, targets.classes, y)
        if targets.kind == "binary":  # of the class that the logit does not stand for, and of it
            weights = weights[[1 - targets.positive, targets.positive], np.newaxis]
        return weights
    if isinstance(class_weight, Mapping):  # the weight of a class where it is present
        _check_weights(class_weight, targets.classes.tolist())
        class_weight = [{1: class_weight.get(k, 1.0)} for k in targets.classes.tolist()]
    elif class_weight == "balanced":
        class_weight = ["balanced"] * targets.n_outputs
    if len(class_weight) != targets.n_outputs:
        raise ValueError(
            f"class_weight must hold one dict per class, {targets.n_outputs}. Got "
            f"{len(class_weight)} instead."
        )
    for of_class in class_weight:
        if not isinstance(of_class, Mapping) and of_class != "balanced":
            raise ValueError(
                'class_weight must hold one dict per class, or "balanced" in its place. Got '
                f"{of_class!r} instead."
            )
        _check_weights(of_class, [0, 1])
    columns = zip(class_weight, y.T, strict=True)
    return np.stack([_of_labels(weight, np.arange(2), column) for weight, column in columns], 1)


def _known(class_weight, labels):
    """Return the weights of labels that there are: a fold may lack a rare one.

    Where all labels have a weight, as in scikit-learn, nothing can be misspelt.
    """
    if not isinstance(class_weight, Mapping):
        return class_weight
    known = {label: weight for label, weight in class_weight.items() if label in labels}
    unknown = [label for label in class_weight if label not in known]
    forgotten = [label for label in labels if label not in known]
    if unknown and forgotten:
        warn_user(
            f"class_weight names {unknown}, which no image has, and leaves {forgotten} at 1. That "
            "is right if these images merely lack a class, as a fold may."
        )
    return known


def _check_weights(class_weight, labels):
    if not isinstance(class_weight, Mapping):
        return
    unknown = [label for label in class_weight if label not in labels]
    if unknown:
        raise ValueError(
            f"class_weight must have keys among {labels}. Got {unknown} instead: for several "
            "labels per image it is {class: weight where present} or a list of dicts with the "
            "keys 0 and 1."
        )
    if not all(isinstance(w, Real) and 0 <= w < np.inf for w in class_weight.values()):
        raise ValueError(
            f"class_weight must hold finite weights >= 0. Got {dict(class_weight)} instead."
        )


def _of_labels(class_weight, labels, y):
    """Weights of labels; "balanced" leaves a label that no image has at 1."""
    if isinstance(class_weight, Mapping):
        return np.array([class_weight.get(label, 1.0) for label in labels.tolist()], dtype=float)
    weights = np.ones(len(labels))
    found = np.isin(labels, y)
    if found.sum() > 1:
        weights[found] = compute_class_weight(class_weight, classes=labels[found], y=y)
    return weights


class WeightedLoss(nn.Module):
    """Cross-entropy, binary for each output or categorical, averaged over a batch.

    Parameters
    ----------
    exclusive : bool
        Whether the classes are mutually exclusive: then the categorical cross-entropy.
    weights : ndarray
        What :func:`class_weights` returned.
    """

    def __init__(self, exclusive, weights):
        super().__init__()
        self.exclusive = exclusive
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float32))

    def forward(self, logits, y):
        """Return the loss of a batch.

        Parameters
        ----------
        logits : Tensor of shape (n_samples, n_outputs)
        y : Tensor, or pair of Tensors
            Targets and, in a pair, the weights of the images, of shape (n_samples,).
        """
        targets, image_weights = y if isinstance(y, (list, tuple)) else (y, None)
        if self.exclusive:
            losses = F.cross_entropy(logits, targets, reduction="none") * self.weights[targets]
        else:
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            absent, present = self.weights
            losses = (losses * torch.where(targets > 0, present, absent)).mean(dim=1)
        return losses.mean() if image_weights is None else (losses * image_weights).mean()
