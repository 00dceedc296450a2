"""Local maps of an image in bounded memory: tile by tile, with the network run three times.

1. The global maxima of L8, and where they are: the logits follow, and which classes to explain.
2. The mean gradients, equation (1). The gradient of a logit starts at these maxima and goes no
   further than the halo of a tile, and it is linear in them: the sums over the pixels are those
   of the tiles, each with the maxima that lie inside it.
3. The weighted sums, equation (2), with the activations of one layer at a time.

The activations are those of the whole image, bit for bit where the convolutions round alike for
tiles of any size. The mean gradients are sums in another order: they differ by rounding.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from sklearn_micranet._stack._large_arrays import let_go, zeros

from ._input import to_tensor
from ._local_maps import forward, last_layer, layers, mean_gradients, weighted_sum
from ._shape import LAYER_NAMES, N_DEPTHS, STRIDE
from ._tiles import max_pixels, tiles_of

# For each pixel and filter of the first depth.
KEPT_VALUES = 5  # what `forward` keeps
GRADIENT_VALUES = 2  # what the gradient of one logit takes
_MAX_WHOLE = 1.75  # of `MAX_BYTES`: so far it is faster to compute an image as a whole


def n_whole(folded, n_pixels):
    """Return how many logits are explained at a time if an image, or batch, is read as a whole.

    Parameters
    ----------
    folded : list of FoldedNetwork
        What all of them have computed is kept until it is known which classes to explain.
    n_pixels : int
        Of all images together.

    Returns
    -------
    n_pairs : int
        0 if the image has to be read tile by tile.
    """
    weight = folded[0].convolutions[0].weight
    n_values = _MAX_WHOLE * max_pixels(len(weight), weight.element_size()) / n_pixels
    return max(0, int((n_values - KEPT_VALUES * len(folded)) / GRADIENT_VALUES))


def n_pixels_of_tile(folded):
    """Return how many pixels of an image are read at a time if it is read tile by tile."""
    weight = folded.convolutions[0].weight
    return max_pixels(2 * KEPT_VALUES * len(weight), weight.element_size())


class TiledImage:
    """An image, read tile by tile.

    Parameters
    ----------
    image : ndarray of shape (height, width[, n_channels])
    n_pixels : int
        Of a tile, about.
    like : Tensor
        Its dtype and device are those to compute with.
    """

    def __init__(self, image, n_pixels, like):
        self.image = image
        self.like = like
        self.size = image.shape[:2]
        self.padded_size = tuple(-(-n // STRIDE) * STRIDE for n in self.size)
        self.tiles = tiles_of(self.size, n_pixels)

    def read(self, tile):
        """Return what the network reads of a tile, with its halo."""
        return to_tensor(self.image[tile.read][None]).to(self.like)


class Scan(NamedTuple):
    """What the first run leaves."""

    features: torch.Tensor  # global maxima of L8, (1, n_filters)
    rows: torch.Tensor  # where they are in L8, (1, n_filters)
    columns: torch.Tensor
    logits: torch.Tensor  # (1, n_outputs)


@torch.no_grad()
def scan(folded, tiled):
    """Compute the logits of a `TiledImage`, and where they come from, as a `Scan`."""
    best = None
    for tile in tiled.tiles:
        layer = last_layer(folded, tiled.read(tile))[..., *tile.within(STRIDE)]
        features, places = layer.flatten(2).max(dim=2)
        row, column = (inside.start // STRIDE for inside in tile.inside)
        found = torch.stack([row + places // layer.shape[3], column + places % layer.shape[3]])
        if best is None:
            best = features, found
            continue
        # Of equal maxima the first in row-major order counts, as in a whole image.
        at = tiled.padded_size[1] // STRIDE
        is_first = found[0] * at + found[1] < best[1][0] * at + best[1][1]
        is_better = (features > best[0]) | ((features == best[0]) & is_first)
        best = torch.where(is_better, features, best[0]), torch.where(is_better, found, best[1])
    features, (rows, columns) = best
    return Scan(features, rows, columns, F.linear(features, *folded.linear))


@torch.no_grad()
def tiled_local_maps(folded, tiled, of_image, outputs):
    """Compute equations (1) and (2) at the resolution of each layer, as `local_maps` does.

    Parameters
    ----------
    folded : FoldedNetwork
    tiled : TiledImage
    of_image : Scan
    outputs : Tensor of int of shape (n_explained,)
        Which logits to explain.

    Returns
    -------
    maps : list of 8 float32 ndarray of shape (n_explained, height_l, width_l)
        Large ones in files. 0 where only the padding of the image is covered.
    """
    strides = [2 ** (i // 2) for i in range(len(LAYER_NAMES))]
    height, width = tiled.padded_size
    if len(outputs):  # before there are maps, as this takes most memory
        alphas = _alphas(folded, tiled, of_image, folded.linear[0][outputs])
    maps = [zeros((len(outputs), height // s, width // s)) for s in strides]
    if not len(outputs):
        return maps
    image = torch.zeros(1, dtype=torch.long, device=outputs.device)
    for tile in tiled.tiles:
        activations = layers(folded, tiled.read(tile))
        for full, stride, alpha, activation in zip(maps, strides, alphas, activations, strict=True):
            within = activation[..., *tile.within(stride)]
            rows, columns = (
                slice(p.start // stride, p.start // stride + n)
                for p, n in zip(tile.inside, within.shape[2:], strict=True)
            )
            for k, of_class in enumerate(alpha):
                weighted = weighted_sum(of_class[None], within, image)[0]
                full[k, rows, columns] = weighted.numpy(force=True)
                let_go(full)
    np.maximum(maps[-1], 0, out=maps[-1])
    return maps


def _alphas(folded, tiled, of_image, linear_weight):
    """Equation (1): eight tensors of shape (n_explained, n_filters_l)."""
    n_cells = tiled.padded_size[0] * tiled.padded_size[1] / STRIDE**2
    # The number of pixels of each layer but the last, whose gradient is the same for all images.
    n_pixels = [n_cells * 4 ** (N_DEPTHS - 1 - i // 2) for i in range(len(LAYER_NAMES) - 1)]
    sums = [0.0] * len(n_pixels)
    image = torch.zeros(1, dtype=torch.long, device=linear_weight.device)
    for tile in tiled.tiles:
        (top, bottom), (left, right) = (
            (p.start // STRIDE, -(-p.stop // STRIDE)) for p in tile.inside
        )
        rows, columns = of_image.rows, of_image.columns
        mine = (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
        if not (mine & (of_image.features > 0)).any():
            continue
        run = forward(folded, tiled.read(tile))
        row, column = (p.start // STRIDE for p in tile.read)
        places = (rows - row) * run.activations[-1].shape[3] + columns - column
        run = run._replace(features=of_image.features * mine, peaks=places * mine)
        n_of_tile = [a.shape[2] * a.shape[3] for a in run.activations[:-1]]
        of_tile = [mean_gradients(folded, run, image, w[None])[:-1] for w in linear_weight]
        for i, n in enumerate(n_of_tile):
            sums[i] = sums[i] + torch.cat([one[i].double() for one in of_tile]) * n
    alphas = [
        (s / n).to(linear_weight.dtype)
        if torch.is_tensor(s)
        else linear_weight.new_zeros(len(linear_weight), convolution.weight.shape[0])
        for s, n, convolution in zip(sums, n_pixels, folded.convolutions[:-1], strict=True)
    ]
    return [*alphas, linear_weight / n_cells]
