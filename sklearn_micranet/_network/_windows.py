"""Scores of windows that overlap, with what they share computed once.

Up to its global maximum the network is convolutional. The last layer, L8, of a large image
therefore holds that of every window in it, and the maximum over a window is one of maxima over
blocks. Only the rounding of the convolutions depends on the size of the tiles: by about 1e-6 of
what a logit is summed from.

A window that is cut out differs in one respect: each of its convolutions is padded with zeros. What
lies less than `RADIUS` px from its border is then computed from these zeros, here from the pixels
around the window.
"""

from functools import cached_property

import numpy as np
import torch
from torch.nn import functional as F

from ._input import to_tensor
from ._local_maps import FoldedNetwork, last_layer
from ._shape import STRIDE
from ._tiles import HALO


class WindowNetworks:
    """The networks of a classifier, applied to a large image tile by tile.

    Parameters
    ----------
    networks : tuple of dict of str to Tensor
        Their weights.
    """

    def __init__(self, networks):
        self.networks = networks

    @cached_property
    def folded(self):
        return [FoldedNetwork(weights) for weights in self.networks]

    def __getstate__(self):
        return {"networks": self.networks}

    @torch.inference_mode()
    def block_features(self, tile, block):
        """Return the maxima of L8 over the blocks of a tile, after it was cut from its halo.

        Parameters
        ----------
        tile : ndarray of shape (2 HALO + height, 2 HALO + width[, n_channels])
            A piece of the image, of height and width that are multiples of `block`. It starts at
            a multiple of 8 px.
        block : int
            Side of the blocks, px, a multiple of 8.

        Returns
        -------
        features : ndarray of shape (height / block, width / block, n_features)
            Those of all networks one after another, in the dtype of their weights: float32.
        """
        inside = slice(HALO // STRIDE, -HALO // STRIDE)
        tensor = to_tensor(tile[np.newaxis]).to(self.folded[0].linear[0])  # its device and dtype
        features = [
            F.max_pool2d(last_layer(folded, tensor)[..., inside, inside], block // STRIDE)
            for folded in self.folded
        ]
        return torch.cat(features, dim=1)[0].permute(1, 2, 0).contiguous().cpu().numpy()

    @torch.inference_mode()
    def crop_features(self, crop):
        """Return the maxima of L8 over a crop, which every convolution pads with zeros.

        Parameters
        ----------
        crop : ndarray of shape (height, width[, n_channels])

        Returns
        -------
        features : ndarray of shape (n_features,)
            Those of all networks one after another.
        """
        tensor = to_tensor(crop[np.newaxis]).to(self.folded[0].linear[0])
        features = [last_layer(folded, tensor).amax(dim=(2, 3))[0] for folded in self.folded]
        return torch.cat(features).cpu().numpy()

    @property
    def linear(self):
        """Weight and bias of the linear layer of each network, float64 ndarrays."""
        return [
            tuple(parameter.double().cpu().numpy() for parameter in folded.linear)
            for folded in self.folded
        ]
