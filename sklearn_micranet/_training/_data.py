"""Images and targets: what a network is trained on and monitored by."""

import numpy as np
import torch
from sklearn.utils import check_array
from torch.utils.data import Dataset

from sklearn_micranet._labels._overlap import apart_from, warn_of_overlap
from sklearn_micranet._labels._splits import split_off_validation, warn_of_few_groups
from sklearn_micranet._network._input import to_tensor
from sklearn_micranet._network._shape import MIN_SIZE
from sklearn_micranet._stack._sources import take

from ._negatives import draw_negatives


class LabelledImages(Dataset):
    """Images and targets, indexed by batch; images are converted when a batch is made.

    Parameters
    ----------
    images : ndarray or lazily read array
    targets : Tensor of shape (n_selected, ...)
    image_shape : tuple or None
    weights : Tensor of shape (n_selected,), default=None
        What each image weighs in the loss. With weights, a batch holds (targets, weights).
    indices : ndarray of int of shape (n_selected,), default=None
        The images that belong to this data set; all of them by default.
    is_positive : ndarray of bool of shape (n_selected,), default=None
        Whether each image contains any structure; by default, whether any target is not 0.
    """

    def __init__(self, images, targets, image_shape, weights=None, indices=None, is_positive=None):
        self.images = images
        self.targets = targets
        self.image_shape = image_shape
        self.weights = weights
        self.indices = np.arange(len(targets)) if indices is None else indices
        self.is_positive = is_positive
        if is_positive is None:
            self.is_positive = targets.reshape(len(targets), -1).any(dim=1).numpy()

    def subset(self, positions):
        """Return the data set of a part of the images."""
        weights = None if self.weights is None else self.weights[positions]
        return LabelledImages(
            self.images,
            self.targets[positions],
            self.image_shape,
            weights,
            self.indices[positions],
            self.is_positive[positions],
        )

    @property
    def size(self):
        """Height and width of the images, in px."""
        return tuple(self.image_shape or self.images.shape[1:])[:2]

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, positions):
        images = np.asarray(take(self.images, self.indices[positions]))
        images, targets = to_tensor(images, self.image_shape), self.targets[positions]
        return images, targets if self.weights is None else [targets, self.weights[positions]]


def labelled_images(images, labels, sample_weight=None):
    """Return images with what the loss compares the logits with; images of weight 0 are left out.

    Parameters
    ----------
    images : Images
    labels : Labels
    sample_weight : array-like of shape (n_samples,), default=None
    """
    targets = torch.from_numpy(labels.targets.encode(labels.y))
    is_positive = labels.targets.has_structure(labels.y)
    weights = None if sample_weight is None else check_sample_weight(sample_weight, len(images))
    data = LabelledImages(
        images.stack, targets, images.image_shape, weights, is_positive=is_positive
    )
    return data if weights is None else data.subset(weights.nonzero()[:, 0])


def check_sample_weight(sample_weight, n_samples):
    """Return weights of mean 1 over the images of non-zero weight, a float32 Tensor."""
    weights = check_array(
        sample_weight, ensure_2d=False, allow_nd=True, dtype=float, input_name="sample_weight"
    )
    if weights.shape != (n_samples,) or (weights < 0).any():
        got = "negative weights" if weights.shape == (n_samples,) else f"shape {weights.shape}"
        raise ValueError(
            f"sample_weight must hold one weight >= 0 for each of the {n_samples} images. Got "
            f"{got} instead."
        )
    used = weights > 0
    if used.sum() < 2:
        raise ValueError(
            "sample_weight must be above zero for at least two images. Got "
            f"{used.sum()} such image(s) instead."
        )
    return torch.from_numpy((weights / weights[used].mean()).astype(np.float32))


def split_off(data, labels, fraction, negatives_per_positive, random_state, groups=None):
    """Set aside a share of the images of every class, with negatives at the ratio of the training.

    Parameters
    ----------
    data : LabelledImages
    labels : Labels
        Of all images, those that were left out of `data` included.
    fraction : float in [0, 1)
    negatives_per_positive : float or None
    random_state : RandomState instance
    groups : ndarray of shape (n_samples,), default=None
        Of all images; those of one group stay together, and of crops those of other groups that
        show pixels of them are left out, unless a class would be lost.

    Returns
    -------
    data : LabelledImages
    valid_data : LabelledImages or None
        None if there are too few images, or too few groups with a class.
    """
    indicator = labels.targets.indicator(labels.y[data.indices])
    groups = None if groups is None else groups[data.indices]
    train, valid = split_off_validation(indicator, fraction, random_state, groups)
    if not len(valid):
        warn_of_few_groups(fraction, groups)
        return data, None
    if groups is not None and not data.is_positive[valid].any():  # they would praise a "never"
        warn_of_few_groups(fraction, groups, data.is_positive)
        return data, None
    if groups is None:
        warn_of_overlap(data.images, data.indices[train], data.indices[valid])
    else:  # those of one group may show pixels of another one, as windows of one field do
        apart = apart_from(data.images, data.indices[train], data.indices[valid])
        is_kept, of_train = np.isin(data.indices[train], apart), indicator[train]
        is_lost = of_train.any(axis=0) & ~of_train[is_kept].any(axis=0)
        train = train[is_kept | of_train[:, is_lost].any(axis=1)]
    valid_data = data.subset(valid)
    if negatives_per_positive is not None:
        drawn = draw_negatives(
            valid_data.is_positive, negatives_per_positive, random_state.permutation
        )
        valid_data = valid_data.subset(drawn)
    return data.subset(train), valid_data


def check_trainable(data, labels):
    """Raise a ValueError if some images do not differ in their labels."""
    if len(np.unique(labels.y[data.indices])) < 2:
        raise ValueError(
            "y must hold images with and images without a class, also among those of a "
            "sample_weight above zero. Got the same labels in all of them and for all classes "
            "instead."
        )


def check_epoch(data, targets, *, n_updated, negatives_per_positive, is_balanced):
    """Raise a ValueError if an epoch of some images cannot be trained on.

    Parameters
    ----------
    data : LabelledImages
    targets : Targets
    n_updated : int
        Number of depths that are updated.
    negatives_per_positive : float or None
    is_balanced : bool
        Whether the weights of the classes are worked out from the labels.
    """
    if len(data) == 1 and max(data.size) < 2 * MIN_SIZE and n_updated:
        raise ValueError(
            f"X must hold at least two images, or one of at least {2 * MIN_SIZE} px in height "
            "or width: batch normalisation cannot train on a single value. Got one image of "
            f"{data.size} px instead. Pass several images at a time."
        )
    if negatives_per_positive is None:
        return
    targets.check_maps()  # of two labels, it must be known which of them is the structure
    if len(np.unique(data.is_positive)) < 2:
        raise ValueError(
            "negatives_per_positive needs images with a structure and images without any: a row "
            "of zeros in an indicator matrix, or images of the background_label. Got a "
            f"{targets.kind} y that lacks one of them instead."
        )
    if is_balanced:
        raise ValueError(
            'class_weight="balanced" counts all images, negatives_per_positive changes how '
            "many are used. Got both instead of one of them."
        )
