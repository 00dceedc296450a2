"""Logits of the pixels of images, as what a lazy stack computes."""

from functools import cached_property

import numpy as np
import torch

from sklearn_micranet import __version__
from sklearn_micranet._stack._keys import key_of, key_of_array

from ._input import equal_sizes, in_fitting_parts, to_tensor


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
        height, width = images.shape[1:3]
        device = next(self.network.parameters()).device
        # A CPU is fastest when the activations of what it works on fit its cache.
        parts = to_tensor(images).split(1 if device.type == "cpu" else len(images))
        logits = [self.network(p[..., :height, :width].to(device)).cpu().numpy() for p in parts]
        return np.concatenate(logits)
