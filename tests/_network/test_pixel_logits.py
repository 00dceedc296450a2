"""Logits of the pixels of large images are computed tile by tile."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_micranet._network import _tiles
from sklearn_micranet._network._pixel_logits import PixelLogits, n_pixels_at_once
from sklearn_micranet._network._unet import UNet

RNG = np.random.default_rng(0)


def network_of(n_poolings):
    torch.manual_seed(0)
    network = UNet(n_channels=2, n_maps=3, n_filters=2, n_poolings=n_poolings).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize(("n_poolings", "reach"), [(1, 8), (2, 22), (3, 46), (4, 94)])
def test_halo_is_how_far_the_network_reads(n_poolings, reach):
    """A unit of pixels in the middle has gradients in so many pixels around it.

    Where weights are positive and poolings are means, no gradient is lost on its way.
    """
    network = UNet(2, 3, n_filters=2, n_poolings=n_poolings).eval().double()
    network.pool = torch.nn.AvgPool2d(2)
    for parameter in network.parameters():
        parameter.data.fill_(0.1)
    images = torch.rand(1, 2, 256, 256, dtype=torch.double, requires_grad=True)
    unit = 2**n_poolings
    network(images)[..., 128 : 128 + unit, 128 : 128 + unit].sum().backward()
    rows = images.grad.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0]
    assert 128 - rows.min() == rows.max() - (127 + unit) == reach
    assert network.unit == unit
    assert network.halo == -(-reach // unit) * unit


@pytest.mark.parametrize("n_poolings", [1, 3])
@pytest.mark.parametrize("sizes", [[(203, 317)] * 2, [(96, 211), (20, 9), (100, 200)]])
def test_logits_do_not_depend_on_the_tiles(n_poolings, sizes, monkeypatch):
    network, sides = network_of(n_poolings), []
    compute = PixelLogits(network)
    images = [RNG.random((*size, 2), dtype=np.float32) for size in sizes]
    batch = np.array(images) if len(set(sizes)) == 1 else images
    whole = compute(batch)
    network.register_forward_pre_hook(lambda module, args: sides.append(max(args[0].shape[2:])))
    monkeypatch.setattr(_tiles, "MAX_BYTES", 100_000)
    tiled = compute(batch)
    assert n_pixels_at_once(network) < min(np.prod(sizes[0]), np.prod(sizes[-1]))  # the premise
    assert max(sides) <= max(3 * network.halo, 112)
    for a, b, size in zip(tiled, whole, sizes, strict=True):
        assert a.shape == (3, *size)
        assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


def test_images_that_fit_are_computed_together_with_the_logits_of_each(monkeypatch):
    compute = PixelLogits(network_of(1))
    images = RNG.random((5, 20, 30, 2), dtype=np.float32)
    alone = [compute(images[i : i + 1])[0] for i in range(5)]
    assert_array_equal(compute(images), alone)
