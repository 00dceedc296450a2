"""Features of images: the global maxima of the last layer, in bounded memory."""

import torch

from sklearn_micranet._stack._sources import take

from ._input import equal_sizes, in_fitting_parts, to_tensor
from ._shape import STRIDE
from ._tiles import in_parts, max_pixels, tiles_of

_VALUES_PER_PIXEL = 4  # for each filter of the first depth, whose convolutions need most


def n_pixels_at_once(network):
    """Return how many pixels a `MicraNet` predicts at a time."""
    weight = network.depths[0].conv_a.weight
    return max_pixels(_VALUES_PER_PIXEL * len(weight), weight.element_size())


@torch.inference_mode()
def features_of(network, images, rows):
    """Return the features of some images, what the linear layer of the network reads.

    As many images are computed at a time as memory is bounded for; larger ones tile by tile.

    Parameters
    ----------
    network : MicraNet
        In evaluation mode.
    images : Images
    rows : ndarray of int

    Returns
    -------
    features : Tensor of shape (n_rows, n_filters)
        On the device of the network.
    """
    n_pixels = n_pixels_at_once(network)
    features = []
    for part in in_parts(rows, images.n_pixels, n_pixels):
        batch = take(images.stack, part)
        of_part = [None] * len(part)
        for places, group in equal_sizes(batch):
            if images.is_flattened:
                group = group.reshape(len(group), *images.image_shape)
            found = in_fitting_parts(lambda x: list(_pooled(network, x, n_pixels)), group)
            for place, of_image in zip(places, found, strict=True):
                of_part[place] = of_image
        features += of_part
    return torch.stack(features)


def _pooled(network, images, n_pixels):
    device, pooled = next(network.parameters()).device, None
    for tile in tiles_of(images.shape[1:3], n_pixels):
        tensor = to_tensor(images[:, *tile.read]).to(device)
        maxima = network.last_layer(tensor)[..., *tile.within(STRIDE)].amax(dim=(2, 3))
        pooled = maxima if pooled is None else torch.maximum(pooled, maxima)
    return pooled
