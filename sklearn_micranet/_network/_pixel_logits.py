"""Logits of the pixels of images, as what a lazy stack computes, in bounded memory."""

from functools import cached_property

import numpy as np
import torch

from sklearn_micranet import __version__
from sklearn_micranet._stack._keys import key_of, key_of_array

from ._input import equal_sizes, in_fitting_parts, to_tensor
from ._tiles import max_pixels, tiles_of

_VALUES_PER_PIXEL = 4  # for each filter at the size of the image; the peak is below twice that


class PixelLogits:
    """Compute the logits of a batch of images.

    Parameters
    ----------
    network : UNet
        In evaluation mode.
    """

    def __init__(self, network):
        self.network = network

    @cached_property
    def key(self):
        """Key of all that the logits depend on besides the image."""
        weights = [key_of_array(t.numpy(force=True)) for t in self.network.state_dict().values()]
        return key_of(__version__, weights, self.network.precision)

    def __call__(self, batch):
        logits = [None] * len(batch)
        for indices, images in equal_sizes(batch):
            of_one_size = in_fitting_parts(self._compute, images)
            for i, of_image in zip(indices, of_one_size, strict=True):
                logits[i] = of_image
        return logits

    @torch.inference_mode()
    def _compute(self, images):
        size, n_pixels = images.shape[1:3], n_pixels_at_once(self.network)
        logits = np.empty((len(images), self.network.head.out_channels, *size), dtype=np.float32)
        is_cpu = next(self.network.parameters()).device.type == "cpu"
        # A CPU is fastest when the activations of what it works on fit its cache.
        n_images = 1 if is_cpu else max(1, n_pixels // (size[0] * size[1]))
        tiles = tiles_of(size, n_pixels, halo=self.network.halo, unit=self.network.unit)
        for start in range(0, len(images), n_images):
            part = slice(start, start + n_images)
            for tile in tiles:
                of_tile = self._logits_of(images[part, *tile.read])
                logits[part, :, *tile.inside] = of_tile[..., *tile.within()]
        return logits

    def _logits_of(self, images):
        height, width = images.shape[1:3]
        tensor = to_tensor(images)[..., :height, :width]  # the network has a padding of its own
        return self.network(tensor.to(next(self.network.parameters()).device)).cpu().numpy()


def n_pixels_at_once(network):
    """Return how many pixels a `UNet` predicts at a time."""
    return max_pixels(_VALUES_PER_PIXEL * network.head.in_channels)
