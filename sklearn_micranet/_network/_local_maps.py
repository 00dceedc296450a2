"""Local maps, equations (1) and (2) of the paper, for a batch of images.

For class c with logit y^c and layer l with post-ReLU activations A^{l,k}, k = 1, 2, ...::

    alpha^c_{l,k} = mean over pixels of  d y^c / d A^{l,k}          (1)
    L^{l,c}       = sum_k alpha^c_{l,k} A^{l,k}                     (2)

The gradients are written out by hand instead of left to autograd, because equation (1) asks for
much less than autograd computes:

- batch normalisation is folded into the convolutions, and no weight gradient is formed;
- the gradient at L8 has one pixel per filter (global max-pooling), so that the step to L7 is a
  sum of kernels placed at those pixels instead of a convolution;
- max-pooling moves gradients but keeps their sum, so that the means at L6, L4 and L2 are known
  before the gradient is put back to full resolution;
- the mean at L1 follows from sums of the gradient at L2 and the kernel, corrected at the borders.
"""

from collections import deque
from functools import cached_property
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ._shape import DEPTHS, N_DEPTHS


class _Convolution:
    """A convolution with its batch normalisation folded in.

    Parameters
    ----------
    weight : Tensor of shape (n_out, n_in, 3, 3)
    bias : Tensor of shape (n_out,)
    """

    def __init__(self, weight, bias):
        self.weight = _channels_last(weight)
        self.bias = bias

    @cached_property
    def transposed(self):
        """Weights of shape (n_in, n_out, 3, 3): convolving with them is the backward pass."""
        return _channels_last(self.weight.flip(2, 3).transpose(0, 1))


class FoldedNetwork:
    """The weights of a `MicraNet` in evaluation mode, as the local maps need them.

    Parameters
    ----------
    weights : dict of str to Tensor
        The ``state_dict()`` of the network. It is read, never changed.
    """

    def __init__(self, weights):
        self.convolutions = [
            _fold(weights, f"depth{depth}.{{}}_{half}") for depth in DEPTHS for half in "ab"
        ]
        # Copies, as the folded weights are: later training must not change them.
        self.linear = tuple(weights[f"linear.{name}"].clone() for name in ("weight", "bias"))


def _fold(weights, layer):
    def of(module, name):  # in float64: folding must not cost the float32 result a digit
        return weights[f"{layer.format(module)}.{name}"].double()

    scale = of("norm", "weight") / torch.sqrt(of("norm", "running_var") + _EPSILON)
    weight = of("conv", "weight") * scale[:, None, None, None]
    bias = (of("conv", "bias") - of("norm", "running_mean")) * scale + of("norm", "bias")
    dtype = weights["linear.weight"].dtype
    return _Convolution(weight.to(dtype), bias.to(dtype))


def _channels_last(x):
    # Tensor.contiguous leaves a tensor of one channel as it is, and what is convolved with it is
    # then not in channels_last layout.
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


_EPSILON = nn.BatchNorm2d(1).eps


class Forward(NamedTuple):
    """What a forward pass leaves for the local maps."""

    activations: list[torch.Tensor]  # L1 to L8, (n_samples, n_filters, height, width) each
    pooled: list[torch.Tensor]  # after each of the three max-poolings
    origins: list[torch.Tensor]  # where their maxima come from, as flat indices
    features: torch.Tensor  # global maxima of L8, (n_samples, n_filters)
    peaks: torch.Tensor  # where they are, as flat indices
    logits: torch.Tensor  # (n_samples, n_outputs)


@torch.no_grad()
def forward(folded, images):
    """Compute the logits of images, and keep what the local maps need.

    Parameters
    ----------
    folded : FoldedNetwork
    images : Tensor of shape (n_samples, n_channels, height, width)

    Returns
    -------
    run : Forward
    """
    activations, pooled, origins = _activations(folded, images)
    features, peaks = activations[-1].flatten(2).max(dim=2)
    logits = F.linear(features, *folded.linear)
    return Forward(activations, pooled, origins, features, peaks, logits)


@torch.no_grad()
def local_maps(folded, run, pairs):
    """Compute equations (1) and (2) at the resolution of each layer.

    Memory grows with the activations of the images and of the pairs.

    Parameters
    ----------
    folded : FoldedNetwork
    run : Forward
        Of the images with that network.
    pairs : Tensor of int of shape (n_pairs, 2)
        Image and class index of what to explain.

    Returns
    -------
    maps : list of 8 Tensors of shape (n_pairs, height_l, width_l)
        L1 to L8 of each pair. L8 is run through a ReLU, the others are not.
    """
    alphas = mean_gradients(folded, run, pairs[:, 0], folded.linear[0][pairs[:, 1]])
    maps = [
        weighted_sum(alpha, activation, pairs[:, 0])
        for alpha, activation in zip(alphas, run.activations, strict=True)
    ]
    maps[-1].relu_()
    return maps


def layers(folded, images):
    """Yield the eight activations, one after another, without keeping them."""
    x = _channels_last(images)
    for i, convolution in enumerate(folded.convolutions):
        x = F.conv2d(x, convolution.weight, convolution.bias, padding=1).relu_()
        yield x
        if i % 2 and i < 2 * N_DEPTHS - 1:
            x = F.max_pool2d(x, 2)


def last_layer(folded, images):
    """Return L8 of images, Tensor of shape (n_samples, n_filters, height / 8, width / 8)."""
    return deque(layers(folded, images), maxlen=1).pop()


def _activations(folded, images):
    """Return the eight activations, the three pooled ones and where their maxima come from."""
    x = _channels_last(images)
    activations, pooled, origins = [], [], []
    for i, convolution in enumerate(folded.convolutions):
        x = F.conv2d(x, convolution.weight, convolution.bias, padding=1).relu_()
        activations.append(x)
        if i % 2 and i < 2 * N_DEPTHS - 1:
            x, origin = F.max_pool2d(x, 2, return_indices=True)
            pooled.append(x)
            origins.append(origin)
    return activations, pooled, origins


def mean_gradients(folded, run, image, linear_weight):
    """Equation (1) for each pair: eight tensors of shape (n_pairs, n_filters_l)."""
    activations, pooled, origins, features, peaks, _ = run

    def per_pair(x):
        # A single image is broadcast instead of copied.
        return x.expand(len(image), *x.shape[1:]) if len(x) == 1 else x[image]

    def through_relu_(gradient, activation):
        torch.ops.aten.threshold_backward.grad_input(
            gradient, per_pair(activation), 0, grad_input=gradient
        )

    n_pixels = [activation.shape[2] * activation.shape[3] for activation in activations]
    alphas = [None] * len(activations)
    alphas[-1] = linear_weight / n_pixels[-1]
    gradient = _gradient_before_last(
        folded.convolutions[-1].weight,
        linear_weight * per_pair((features > 0).to(features.dtype)),
        peaks[image],
        activations[-2].shape[2:],
    )
    # Index of the first layer of a depth, from the last depth on; `gradient` is the one there.
    for first in range(2 * (N_DEPTHS - 1), 0, -2):
        alphas[first] = gradient.mean(dim=(2, 3))
        through_relu_(gradient, activations[first])
        gradient = F.conv2d(gradient, folded.convolutions[first].transposed, padding=1)
        alphas[first - 1] = gradient.sum(dim=(2, 3)) / n_pixels[first - 1]
        # A maximum of zero passes no gradient on.
        through_relu_(gradient, pooled[first // 2 - 1])
        origin = per_pair(origins[first // 2 - 1])
        if first > 2:
            gradient = F.max_unpool2d(gradient, origin, 2, output_size=activations[first - 1].shape)
            gradient = F.conv2d(gradient, folded.convolutions[first - 1].transposed, padding=1)
    sums = _tap_sums(gradient, origin, activations[1].shape[2:])
    alphas[0] = torch.einsum("poyx,oiyx->pi", sums, folded.convolutions[1].weight) / n_pixels[0]
    return alphas


def _gradient_before_last(kernel, coefficients, peaks, size):
    """Gradient at the last layer but one: kernels placed at the peaks of the last layer."""
    n_pairs, (height, width) = len(coefficients), size
    n_in = kernel.shape[1]
    # One border pixel around the map takes what falls outside, and is cut off in the end.
    rows = (peaks // width)[..., None] + torch.arange(3, device=peaks.device)
    columns = (peaks % width)[..., None] + torch.arange(3, device=peaks.device)
    target = rows[..., :, None] * (width + 2) + columns[..., None, :]
    pair = torch.arange(n_pairs, device=peaks.device)[:, None, None, None]
    target = target + pair * (height + 2) * (width + 2)
    placed = coefficients[:, :, None, None, None] * kernel.permute(0, 2, 3, 1)
    gradient = placed.new_zeros(n_pairs * (height + 2) * (width + 2), n_in)
    gradient.index_add_(0, target.flatten(), placed.reshape(-1, n_in))
    gradient = gradient.view(n_pairs, height + 2, width + 2, n_in)[:, 1:-1, 1:-1]
    return gradient.permute(0, 3, 1, 2)


def _tap_sums(gradient, origin, size):
    """Sum the gradient before pooling over the pixels that each tap of a 3x3 kernel reaches.

    A tap that looks one row up reaches all rows but the first, and so on: the sum over all pixels,
    less that over a border row, less that over a border column, plus that of their corner.

    Parameters
    ----------
    gradient : Tensor of shape (n_pairs, n_filters, height // 2, width // 2)
        Gradient at the pooled activation, 0 where that is 0. It is never put back to full size.
    origin : Tensor of int of the same shape
        Where its pixels come from, as flat indices before pooling.
    size : tuple of int
        Height and width before pooling.

    Returns
    -------
    sums : Tensor of shape (n_pairs, n_filters, 3, 3)
    """
    height, width = size
    edges = {0: slice(0, 1), 1: slice(None), 2: slice(-1, None)}  # of pooled rows or columns

    def edge_sum(row, column):
        # The sum over the first (0), the last (2) or every (1) row and column before pooling.
        part = ..., edges[row], edges[column]
        edge, source = gradient[part], origin[part]
        if row != 1:  # a last odd row is not pooled: nothing comes from it
            edge = edge * (source // width == (0 if row == 0 else height - 1))
        if column != 1:
            edge = edge * (source % width == (0 if column == 0 else width - 1))
        return edge.sum(dim=(2, 3))

    total = edge_sum(1, 1)
    rows = {k: edge_sum(k, 1) for k in (0, 2)} | {1: 0}
    columns = {k: edge_sum(1, k) for k in (0, 2)} | {1: 0}
    sums = [
        total - rows[i] - columns[k] + (edge_sum(i, k) if i != 1 and k != 1 else 0)
        for i in range(3)
        for k in range(3)
    ]
    return torch.stack(sums, dim=2).unflatten(2, (3, 3))


def weighted_sum(alpha, activation, image):
    """Equation (2): shape (n_pairs, height, width)."""
    if len(activation) == 1 and len(alpha):  # a convolution has one filter at least
        # Contiguous, since what reads a map reads it whole.
        return F.conv2d(activation, alpha[:, :, None, None])[0].contiguous()
    flat = activation.permute(0, 2, 3, 1).flatten(1, 2)  # a view, in channels_last layout
    maps = torch.bmm(flat[image], alpha[:, :, None])[:, :, 0]
    return maps.unflatten(1, activation.shape[2:])
