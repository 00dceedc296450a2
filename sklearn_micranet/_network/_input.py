"""From stacks of images in their own dtype to what the network reads."""

import warnings

import numpy as np
import torch
from torch.nn import functional as F

from ._shape import STRIDE


def to_tensor(images, image_shape=None):
    """Turn a batch of images into what the network reads.

    Parameters
    ----------
    images : ndarray of shape (n, height, width[, n_channels]) or (n, n_features)
    image_shape : tuple, default=None
        (height, width[, n_channels]) of flattened images.

    Returns
    -------
    tensor : float32 Tensor of shape (n, n_channels, padded height, padded width)
        Sides that are no multiple of `STRIDE` are continued at the bottom and the right with the
        values of the edge, so that each pixel of a map covers the same pixels of every image.
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
    if height % STRIDE or width % STRIDE:
        tensor = F.pad(tensor, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
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


def in_fitting_parts(compute, images):
    """Compute a batch; in halves if it does not fit in the memory of the device.

    Parameters
    ----------
    compute : callable
        Maps images to an ndarray with one row per image, or to a list.
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
    first, second = (in_fitting_parts(compute, part) for part in np.split(images, [half]))
    return [*first, *second] if isinstance(first, list) else np.concatenate([first, second])
