"""The batches of an epoch."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from ._negatives import draw_negatives, n_negatives


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
    augments_targets : bool, default=False
        Whether `augment` is given the targets, too, masks that move with the images, and returns
        both.
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
        augments_targets=False,
        device=None,
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
        self.augments_targets = augments_targets
        self.device = device
        self.negatives_per_positive = negatives_per_positive
        self.n_images = len(dataset)
        if negatives_per_positive is not None:
            self.is_positive = dataset.is_positive
            n_drawn = n_negatives(self.is_positive, negatives_per_positive)
            self.n_images = self.is_positive.sum() + n_drawn

    def __len__(self):
        return n_batches(self.n_images, self.batch_size)

    def __iter__(self):
        positions = np.arange(self.n_images)
        if self.negatives_per_positive is not None:
            positions = draw_negatives(self.is_positive, self.negatives_per_positive, _permutation)
        if self.shuffle:
            positions = positions[_permutation(len(positions))]
        batches = (self.dataset[part] for part in np.array_split(positions, len(self)))
        # A net that was trained on a GPU may have been unpickled where there is none.
        if self.device is not None and self.device.type == "cuda" and torch.cuda.is_available():
            batches = _ahead(_to_cuda(batch, self.device) for batch in batches)
        for images, y in batches:
            if self.augment and self.augments_targets:
                images, y = self.augment(images, y)
            elif self.augment:
                images = self.augment(images)
            yield images, y


def n_batches(n_images, batch_size):
    """Return in how many batches images are read, so that none is alone in one."""
    return max(1, min(-(-n_images // batch_size), n_images // 2))


def _permutation(n):
    return torch.randperm(n).numpy()


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
