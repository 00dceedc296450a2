"""The U-Net: images to one map of logits for each structure; and its weights on disk."""

from collections.abc import Mapping
from os import PathLike

import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.nn import functional as F

from ._module import DTYPE, Depth, Freezable, autocast
from ._shape import n_filters_of
from ._weights import read_tensors, write_tensors

_FORMAT, _VERSION = "sklearn-micranet U-Net weights", 1


class UNet(Freezable):
    """U-Net: a contracting path, an expanding path, and a bridge between them at each size.

    As in the paper [1]_, but for three things that are usual today: convolutions are padded, so
    that the output has the size of the image, followed by batch normalisation, and without dropout.

    Parameters
    ----------
    n_channels : int
        Channels of the input images.
    n_maps : int
        Number of output maps.
    n_filters : int, default=32
        Filters at the size of the image; after each pooling there are twice as many.
    n_poolings : int, default=4
        Number of 2 x 2 max-poolings.
    precision : {"auto", "float32", "bfloat16"}, default="float32"
        As of :class:`MicraNet`. The logits are float32.

    References
    ----------
    .. [1] Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation",
       MICCAI 2015. :doi:`10.1007/978-3-319-24574-4_28`
    """

    def __init__(self, n_channels, n_maps, n_filters=32, n_poolings=4, precision="float32"):
        super().__init__()
        self.precision = precision
        self.n_poolings = n_poolings
        widths = [n_filters_of(depth, n_filters) for depth in range(1, n_poolings + 2)]
        pairs = list(zip([n_channels, *widths[:-1]], widths, strict=True))
        self.down = nn.ModuleList(Depth(n_in, n_out) for n_in, n_out in pairs)
        upwards = pairs[:0:-1]  # (filters above, filters below), from the smallest size
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, stride=2, dtype=DTYPE) for a, b in upwards
        )
        self.merge = nn.ModuleList(Depth(2 * a, a) for a, _ in upwards)
        self.head = nn.Conv2d(n_filters, n_maps, kernel_size=1, dtype=DTYPE)
        self.pool = nn.MaxPool2d(2)

    @property
    def depths(self):
        """Each size of the contracting path, then of the expanding path: input to output."""
        upwards = zip(self.up, self.merge, strict=True)
        return (*self.down, *(nn.ModuleList(pair) for pair in upwards))

    @property
    def unit(self):
        """What the sides of images are padded to a multiple of, in px."""
        return 2**self.n_poolings

    @property
    def halo(self):
        """How far around a tile, in px, its logits depend on the image, a multiple of `unit`."""
        n = 0  # pixels of a depth, around those that cover the tile
        for _ in range(self.n_poolings):
            n = -(-(n + 2) // 2)  # two convolutions, and the pixels below that cover these
        n += 2
        for _ in range(self.n_poolings):
            n = 2 * n + 2
        return -(-n // self.unit) * self.unit

    def forward(self, x):
        """Return the logits, shape (n_samples, n_maps, height, width), of images.

        Those, of shape (n_samples, n_channels, height, width), may have any size: they are padded
        with their edge values at the bottom and the right, to a multiple of ``2 ** n_poolings``,
        and the logits cropped.
        """
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.unit, 0, -height % self.unit), mode="replicate")
        with autocast(x, self.precision):
            bridges = []
            for depth in self.down[:-1]:
                bridges.append(depth(x))
                x = self.pool(bridges[-1])
            x = self.down[-1](x)
            for up, merge in zip(self.up, self.merge, strict=True):
                x = merge(torch.cat([bridges.pop(), up(x)], dim=1))
            logits = self.head(x)
        return logits[..., :height, :width].float()


def write_unet_weights(path, state_dict, metadata):
    """Write the state dict of a `UNet`, and a dict of plain values, without pickle."""
    content = {"metadata": metadata, "state_dict": state_dict}
    write_tensors(path, {"format": _FORMAT, "version": _VERSION, **content})


def read_unet_weights(path):
    """Return the state dict of a `UNet` and the metadata that a file holds.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or of another kind.
    """
    content = read_tensors(path)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(
            f"{path} must be a file of UNetSegmenter.save_weights. Got another file instead."
        )
    if content["version"] != _VERSION:
        raise ValueError(
            f"{path} must be of version {_VERSION}. Got version {content['version']} instead: "
            "update sklearn-micranet."
        )
    try:
        unet_architecture_of(content["state_dict"])
    except ValueError as error:
        raise ValueError(f"{path} must hold the weights of a U-Net. {error}") from error
    return content["state_dict"], content["metadata"]


def unet_architecture_of(state_dict):
    """Return the sizes of the `UNet` that a state dict belongs to, or raise a ValueError.

    Examples
    --------
    >>> from sklearn_micranet._network._unet import UNet, unet_architecture_of
    >>> unet_architecture_of(UNet(n_channels=3, n_maps=2, n_filters=8, n_poolings=2).state_dict())
    {'n_channels': 3, 'n_maps': 2, 'n_filters': 8, 'n_poolings': 2}
    """
    try:
        n_filters, n_channels = state_dict["down.0.conv_a.weight"].shape[:2]
        sizes = {
            "n_channels": n_channels,
            "n_maps": len(state_dict["head.weight"]),
            "n_filters": n_filters,
            "n_poolings": sum(f"up.{i}.weight" in state_dict for i in range(len(state_dict))),
        }
        got = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        sizes, got = None, {}
    if sizes is None or got != _shapes(**sizes):
        raise ValueError(
            "A dict of the tensors of a UNet, down.0.conv_a.weight to head.bias, is required. Got "
            f"{type(state_dict).__name__} of other names or shapes instead. Save the weights with "
            "UNetSegmenter.save_weights."
        )
    return sizes


def pretrained_unet_weights(pretrained):
    """Return the state dict that `pretrained` names.

    Parameters
    ----------
    pretrained : str, path-like, Mapping, or fitted UNetSegmenter, possibly frozen
    """
    if isinstance(pretrained, str | PathLike):
        return read_unet_weights(pretrained)[0]
    if isinstance(pretrained, Mapping):
        return dict(pretrained)
    estimator = pretrained.estimator if isinstance(pretrained, FrozenEstimator) else pretrained
    if not isinstance(getattr(estimator, "module_", None), UNet):
        is_unfitted = hasattr(type(estimator), "module_") and not hasattr(estimator, "net_")
        raise (NotFittedError if is_unfitted else TypeError)(
            "pretrained must be a file, a state dict, or a fitted UNetSegmenter in a "
            "FrozenEstimator (a clone of one that is not frozen loses its weights). Got "
            f"{pretrained!r} instead."
        )
    return estimator.module_.state_dict()


def load_pretrained_unet(network, weights):
    """Load trained weights; those of the last convolution only if it is for as many maps."""
    try:
        given = unet_architecture_of(weights)
    except ValueError as error:
        raise ValueError(f"pretrained must hold the weights of a U-Net: {error}") from error
    needed = unet_architecture_of(network.state_dict())
    for name in ("n_channels", "n_filters", "n_poolings"):
        if given[name] != needed[name]:
            raise ValueError(
                f"The weights must be for {name}={needed[name]}. Got {given[name]} instead."
            )
    if given["n_maps"] != needed["n_maps"]:
        weights = {k: v for k, v in weights.items() if not k.startswith("head.")}
    network.load_state_dict(weights, strict=False)  # the names were compared above


def _shapes(**sizes):
    with torch.device("meta"):  # takes neither memory nor random numbers
        network = UNet(**sizes)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
