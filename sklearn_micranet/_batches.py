"""From stacks of images in their own dtype to batches of float32 tensors."""

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from ._lazy_stack import take

MIN_SIZE = 8  # px: three poolings leave one pixel


def to_tensor(images, image_shape=None):
    """Turn a batch of images into what the network reads.

    Parameters
    ----------
    images : ndarray of shape (n, height, width[, n_channels]) or (n, n_features)
    image_shape : tuple, default=None
        (height, width[, n_channels]) of flattened images.

    Returns
    -------
    tensor : float32 Tensor of shape (n, n_channels, max(height, 8), max(width, 8))
        In channels_last layout. Small images are padded with zeros at the bottom and the right.
    """
    if images.ndim == 2:
        images = images.reshape(len(images), *image_shape)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    with np.errstate(over="ignore"):  # reported below
        images = np.array(images, dtype=np.float32, order="C")  # torch refuses read-only views
    if not np.isfinite(images).all():
        raise ValueError(
            "Images must be finite in float32. Got NaN, infinity or a value too large instead."
        )
    height, width = images.shape[1:3]
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    if height < MIN_SIZE or width < MIN_SIZE:
        tensor = F.pad(tensor, (0, max(0, MIN_SIZE - width), 0, max(0, MIN_SIZE - height)))
    return tensor


def equal_sizes(images):
    """Split a batch that may be a list of differently sized images into stacks of one size.

    Yields
    ------
    indices : list of int
        Positions in the batch.
    stack : ndarray of shape (len(indices), height, width[, n_channels])
    """
    if not isinstance(images, list):
        yield list(range(len(images))), images
        return
    groups = {}
    for i, image in enumerate(images):
        groups.setdefault(np.shape(image), []).append(i)
    for indices in groups.values():
        yield indices, np.stack([images[i] for i in indices])


class LabelledImages(Dataset):
    """Images and targets, indexed by batch; images are converted when a batch is made.

    Parameters
    ----------
    images : ndarray or lazily read array
    targets : Tensor of shape (n_selected, ...)
    image_shape : tuple or None
    indices : ndarray of int of shape (n_selected,)
        The images that belong to this data set.
    """

    def __init__(self, images, targets, image_shape, indices):
        self.images = images
        self.targets = targets
        self.image_shape = image_shape
        self.indices = indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, positions):
        images = take(self.images, self.indices[positions])
        return to_tensor(images, self.image_shape), self.targets[positions]


class BatchIterator:
    """Iterate over a data set in batches whose sizes differ by at most one.

    A short last batch would upset batch normalisation, which cannot train on a single value. For
    the same reason no image is alone: an odd one joins a batch of two.

    Parameters
    ----------
    dataset : LabelledImages
    batch_size : int
        Maximal size.
    shuffle : bool, default=False
        Whether each epoch draws a new order, from torch's global generator.
    """

    def __init__(self, dataset, batch_size, shuffle=False):
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle

    def __len__(self):
        n = len(self.dataset)
        return max(1, min(-(-n // self.batch_size), n // 2))

    def __iter__(self):
        n = len(self.dataset)
        order = torch.randperm(n).numpy() if self.shuffle else np.arange(n)
        for positions in np.array_split(order, len(self)):
            yield self.dataset[positions]
