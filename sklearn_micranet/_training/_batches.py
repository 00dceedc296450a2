"""From stacks of images in their own dtype to batches of float32 tensors."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from sklearn_micranet._stack._lazy_stack import take

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
        Small images are padded with zeros at the bottom and the right.
    """
    if images.ndim == 2:
        images = images.reshape(len(images), *image_shape)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    with np.errstate(over="ignore"):  # reported below
        # A copy, as torch refuses read-only views, in C order, also of its strides: those of a
        # single channel would tell torch to use another layout.
        images = np.array(images.transpose(0, 3, 1, 2), dtype=np.float32, order="C")
    if not np.isfinite(images).all():
        raise ValueError(
            "Images must be finite in float32. Got NaN, infinity or a value too large instead."
        )
    height, width = images.shape[2:]
    tensor = torch.from_numpy(images)
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
    weights : Tensor of shape (n_selected,), default=None
        What each image weighs in the loss. With weights, a batch holds (targets, weights).
    indices : ndarray of int of shape (n_selected,), default=None
        The images that belong to this data set; all of them by default.
    """

    def __init__(self, images, targets, image_shape, weights=None, indices=None):
        self.images = images
        self.targets = targets
        self.image_shape = image_shape
        self.weights = weights
        self.indices = np.arange(len(targets)) if indices is None else indices

    def subset(self, positions):
        """Return the data set of a part of the images."""
        weights = None if self.weights is None else self.weights[positions]
        return LabelledImages(
            self.images,
            self.targets[positions],
            self.image_shape,
            weights,
            self.indices[positions],
        )

    @property
    def is_positive(self):
        """Whether each image contains any class, bool ndarray of shape (n_selected,)."""
        return self.targets.flatten(1).any(dim=1).numpy()

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, positions):
        images = to_tensor(take(self.images, self.indices[positions]), self.image_shape)
        targets = self.targets[positions]
        return images, targets if self.weights is None else [targets, self.weights[positions]]


class BatchIterator:
    """Iterate over a data set in batches whose sizes differ by at most one.

    A short last batch would upset batch normalisation, which cannot train on a single value. For
    the same reason no image is alone: an odd one joins a batch of two. All random numbers come
    from torch's global generators.

    Parameters
    ----------
    dataset : LabelledImages
    batch_size : int
        Maximal size.
    shuffle : bool, default=False
        Whether each epoch draws a new order.
    negatives_per_positive : float, default=None
        Each epoch consists of the images with any class and, for each of them, so many of those
        without: drawn anew every epoch, all of them if there are not more.
    augment : callable, default=None
        Maps a batch of images to another.
    device : torch.device, default=None
        To a CUDA device, if there still is one, a batch is read and copied while the one before
        is computed.
    """

    def __init__(
        self,
        dataset,
        batch_size,
        shuffle=False,
        negatives_per_positive=None,
        augment=None,
        device=None,
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
        self.device = device
        self.negative = np.arange(0)
        self.always = np.arange(len(dataset))
        self.n_drawn = 0
        if negatives_per_positive is not None:
            is_positive = dataset.is_positive
            self.always, self.negative = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
            self.n_drawn = n_negatives(is_positive, negatives_per_positive)

    def __len__(self):
        n = len(self.always) + self.n_drawn
        return max(1, min(-(-n // self.batch_size), n // 2))

    def __iter__(self):
        positions = self.always
        if len(self.negative):
            drawn = self.negative[torch.randperm(len(self.negative)).numpy()[: self.n_drawn]]
            positions = np.concatenate([positions, np.sort(drawn)])
        if self.shuffle:
            positions = positions[torch.randperm(len(positions)).numpy()]
        batches = (self.dataset[part] for part in np.array_split(positions, len(self)))
        # A net that was trained on a GPU may have been unpickled where there is none.
        if self.device is not None and self.device.type == "cuda" and torch.cuda.is_available():
            batches = _ahead(_to_cuda(batch, self.device) for batch in batches)
        for images, y in batches:
            yield (self.augment(images) if self.augment else images), y


def n_negatives(is_positive, negatives_per_positive):
    """Return how many images without a class an epoch has, at least one if there is one."""
    wanted = max(1, round(negatives_per_positive * is_positive.sum()))
    return min(int((~is_positive).sum()), wanted)


def _ahead(batches):
    """Yield batches, each made in a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, batches, None)
        while (batch := pending.result()) is not None:
            pending = pool.submit(next, batches, None)
            yield batch


def _to_cuda(batch, device):
    images, y = batch
    y = [t.pin_memory().to(device, non_blocking=True) for t in y] if isinstance(y, list) else y
    return images.pin_memory().to(device, non_blocking=True), y


def in_fitting_parts(compute, images):
    """Compute a batch; in halves if it does not fit in the memory of the device.

    Parameters
    ----------
    compute : callable
        Maps images to an ndarray with one row per image.
    images : ndarray of shape (n_samples, ...)
    """
    try:
        return compute(images)
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise
    # Outside the handler: its exception would keep what was computed so far alive.
    half = len(images) // 2
    warnings.warn(
        f"A batch of {len(images)} images does not fit in the memory of the device and is halved. "
        f"A batch_size of {half} or less avoids the attempt.",
        RuntimeWarning,
        stacklevel=2,
    )
    return np.concatenate([in_fitting_parts(compute, part) for part in np.split(images, [half])])
