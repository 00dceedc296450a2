"""The network of the paper as a torch module."""

from contextlib import nullcontext

import torch
from torch import nn

from ._shape import DEPTHS, n_filters_of

DTYPE = torch.float32  # of images and weights, whatever the user has made torch's default


class Depth(nn.Module):
    """Twice 3x3 convolution, batch normalisation and ReLU, at one resolution."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.conv_a = nn.Conv2d(n_in, n_out, kernel_size=3, padding=1, dtype=DTYPE)
        self.norm_a = nn.BatchNorm2d(n_out, dtype=DTYPE)
        self.relu_a = nn.ReLU(inplace=True)
        self.conv_b = nn.Conv2d(n_out, n_out, kernel_size=3, padding=1, dtype=DTYPE)
        self.norm_b = nn.BatchNorm2d(n_out, dtype=DTYPE)
        self.relu_b = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu_a(self.norm_a(self.conv_a(x)))
        return self.relu_b(self.norm_b(self.conv_b(x)))


class Freezable(nn.Module):
    """A network whose first `n_frozen` of its `depths` stay in evaluation mode.

    Their batch normalisation keeps its statistics. `depths` are modules, from the input on.
    """

    n_frozen = 0

    def train(self, mode=True):
        """Set the mode of all but the frozen depths."""
        super().train(mode)
        for depth in self.depths[: self.n_frozen]:
            depth.eval()
        return self


class MicraNet(Freezable):
    """MICRA-Net: four depths of two convolutions, global max-pooling and one linear layer.

    The eight post-ReLU activations are the layers L1 (``depth1.relu_a``) to L8
    (``depth4.relu_b``) of the paper [1]_.

    Parameters
    ----------
    n_channels : int
        Channels of the input images.
    n_outputs : int
        Number of logits.
    n_filters : int, default=32
        Filters at depth 1; every following depth has twice as many.
    dropout : float, default=0.5
        Share of the pooled features that is dropped in training.
    precision : {"auto", "float32", "bfloat16"}, default="float32"
        "bfloat16" computes with automatic mixed precision, "auto" does so on a CUDA device that
        supports it. The logits are float32.

    Attributes
    ----------
    n_frozen : int
        Number of depths, from the input, that stay in evaluation mode: their batch normalisation
        keeps its statistics.

    References
    ----------
    .. [1] Bilodeau et al., "Microscopy analysis neural network to solve detection, enumeration
       and segmentation from image-level annotations", Nature Machine Intelligence 4, 2022.
       :doi:`10.1038/s42256-022-00472-w`
    """

    def __init__(self, n_channels, n_outputs, n_filters=32, dropout=0.5, precision="float32"):
        super().__init__()
        self.precision = precision
        n_in = n_channels
        for depth in DEPTHS:
            n_out = n_filters_of(depth, n_filters)
            self.add_module(f"depth{depth}", Depth(n_in, n_out))
            n_in = n_out
        self.pool = nn.MaxPool2d(2)
        self.global_pool = nn.AdaptiveMaxPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(n_in, n_outputs, dtype=DTYPE)

    @property
    def depths(self):
        """The depths, from the input to the output."""
        return tuple(self.get_submodule(f"depth{depth}") for depth in DEPTHS)

    def forward(self, x):
        """Return the logits, shape (n_samples, n_outputs), of images (n_samples, channels, h, w).

        Height and width must be at least `MIN_SIZE` px, so that the poolings leave one pixel.
        """
        return self.logits(self.global_pool(self.last_layer(x)).flatten(1))

    def last_layer(self, x):
        """Return L8 of images, shape (n_samples, n_filters, height / 8, width / 8)."""
        with self._autocast(x):
            *pooled, last = self.depths
            for depth in pooled:
                x = self.pool(depth(x))
            return last(x)

    def logits(self, features):
        """Return the logits of the global maxima of L8, shape (n_samples, n_filters)."""
        with self._autocast(features):
            logits = self.linear(self.dropout(features))
        return logits.float() if logits.dtype is torch.bfloat16 else logits

    def _autocast(self, x):
        return autocast(x, self.precision)


def autocast(x, precision):
    """Return the context in which `precision` holds for what is computed from a tensor."""
    if x.is_meta:  # shapes only
        return nullcontext()
    is_mixed = precision == "bfloat16"
    if precision == "auto":
        is_mixed = x.is_cuda and torch.cuda.is_bf16_supported()
    return torch.autocast(x.device.type, torch.bfloat16, enabled=is_mixed)
