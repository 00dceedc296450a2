"""Images and their masks: what a fully supervised network is trained on."""

import numpy as np
from skimage.morphology import isotropic_dilation
from torch import nn
from torch.nn import functional as F

from sklearn_micranet._labels._overlap import warn_of_overlap
from sklearn_micranet._labels._splits import split_off_validation, warn_of_few_groups
from sklearn_micranet.metrics._regions import as_masks

from ._data import LabelledImages


def with_maps(y):
    """Return a list of samples (n_maps, height, width), also of y (n_samples, height, width)."""
    if not np.iterable(y):
        raise ValueError(f"y must hold masks or instances. Got {y!r} instead.")
    samples = map(np.asarray, y)
    return [sample[np.newaxis] if sample.ndim == 2 else sample for sample in samples]


def read_masks(y, images, n_maps=None):
    """Read masks or instances to train on.

    Parameters
    ----------
    y : array-like of shape (n_samples, n_maps, height, width) or (n_samples, height, width)
        Masks, bool or of 0 and 1; or instances, integers > 0.
    images : Images
        Of one size.
    n_maps : int, default=None
        ``None`` is not compared.

    Returns
    -------
    masks : bool ndarray of shape (n_samples, n_maps, height, width)
        Never y itself.
    """
    masks = as_masks(with_maps(y))
    if len(masks) != len(images):
        raise ValueError(
            f"y must hold masks or instances of each of the {len(images)} images. Got {len(masks)} "
            "instead."
        )
    shapes = sorted({mask.shape for mask in masks})
    if len(shapes) > 1 or shapes[0][1:] != images.size or shapes[0][0] != (n_maps or shapes[0][0]):
        raise ValueError(
            f"y must hold {n_maps or 'as many'} map(s) of {images.size} px for each image. Got the "
            f"shapes {', '.join(map(str, shapes))} instead."
        )
    return np.stack(masks)


class MaskedImages(LabelledImages):
    """Images and masks, indexed by batch; an image is never padded, as its mask is not.

    Parameters
    ----------
    images : ndarray or lazily read array
    masks : Tensor of bool of shape (n_selected, n_maps, height, width)
    indices : ndarray of int of shape (n_selected,), default=None
        The images that belong to this data set; all of them by default.
    """

    def __init__(self, images, masks, indices=None):
        super().__init__(images, masks, None, indices=indices)

    def subset(self, positions):
        """Return the data set of a part of the images."""
        return MaskedImages(self.images, self.targets[positions], self.indices[positions])

    def __getitem__(self, positions):
        images, masks = super().__getitem__(positions)
        height, width = masks.shape[2:]
        return images[..., :height, :width], masks


class PixelLoss(nn.Module):
    """Binary cross-entropy with logits, averaged over pixels, maps and images."""

    def forward(self, logits, masks):
        """Return the loss of a batch; both of shape (n_samples, n_maps, height, width)."""
        return F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype))


def dilated(masks, radius):
    """Return masks that are larger by the pixels whose centres are up to `radius` px away.

    Parameters
    ----------
    masks : bool ndarray of shape (n_samples, n_maps, height, width)
    radius : float

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_micranet._training._masks import dilated
    >>> dilated(np.array([[[[False, False, False, True]]]]), radius=2).tolist()
    [[[[False, True, True, True]]]]
    """
    grown = np.zeros_like(masks)
    for place in np.argwhere(masks.any(axis=(2, 3))):  # distances to nothing are not defined
        place = tuple(place)
        grown[place] = isotropic_dilation(masks[place], radius)
    return grown


def split_off_groups(data, fraction, groups, random_state):
    """Set aside a share of the groups of images, so that every structure is represented.

    Parameters
    ----------
    data : LabelledImages
        Its targets are masks.
    fraction : float in [0, 1)
    groups : ndarray of shape (n_samples,) or None
        Images of one group stay together. ``None`` makes each image a group.
    random_state : RandomState instance

    Returns
    -------
    data : LabelledImages
    valid_data : LabelledImages or None
        None if there are too few groups.
    """
    contains = data.targets.flatten(2).any(dim=2).numpy()
    train, valid = split_off_validation(contains, fraction, random_state, groups)
    if not len(valid):
        warn_of_few_groups(fraction, groups)
        return data, None
    warn_of_overlap(data.images, data.indices[train], data.indices[valid])
    return data.subset(train), data.subset(valid)
