from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_micranet._network import LAYER_NAMES, MicraNet

PATHS = [f"depth{depth}.relu_{half}" for depth in (1, 2, 3, 4) for half in "ab"]


def record_relus(network, images):
    """Run the network; return the path and the output of each ReLU, in the order of the calls."""
    calls = []
    handles = [
        module.register_forward_hook(lambda *args, path=path: calls.append((path, args[2])))
        for path, module in network.named_modules()
        if isinstance(module, nn.ReLU)
    ]
    with torch.no_grad():
        logits = network(images)
    for handle in handles:
        handle.remove()
    return logits, calls


def test_layers_are_named_l1_to_l8():
    assert LAYER_NAMES == ("L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8")


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (17, 40), (64, 24), (8, 100)])
def test_eight_relus_in_order_with_halved_sizes_and_doubled_filters(size):
    network = MicraNet(n_channels=2, n_outputs=3, n_filters=5).eval()
    logits, calls = record_relus(network, torch.rand(4, 2, *size))
    assert [path for path, _ in calls] == PATHS
    for depth, (_, activation) in enumerate(calls[0::2] + calls[1::2]):
        scale = 2 ** (depth % 4)
        assert activation.shape == (4, 5 * scale, size[0] // scale, size[1] // scale)
        assert activation.min() >= 0
    assert logits.shape == (4, 3)


def test_the_paper_s_filters_are_the_default():
    _, calls = record_relus(MicraNet(1, 10).eval(), torch.rand(1, 1, 8, 8))
    assert [a.shape[1] for _, a in calls] == [32, 32, 64, 64, 128, 128, 256, 256]


@pytest.mark.parametrize(("n_channels", "n_outputs", "n_filters"), [(1, 1, 32), (3, 7, 4)])
def test_number_of_parameters(n_channels, n_outputs, n_filters):
    widths = [n_channels, *(n_filters * k for k in (1, 1, 2, 2, 4, 4, 8, 8))]
    # Kernels, biases, and the scale and shift of batch normalisation; then the linear layer.
    expected = sum(9 * i * o + o + 2 * o for i, o in pairwise(widths))
    expected += (widths[-1] + 1) * n_outputs
    network = MicraNet(n_channels, n_outputs, n_filters)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_forward_follows_the_paper():
    network = MicraNet(n_channels=1, n_outputs=3, n_filters=2).double().eval()
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            tensor.uniform_(0.5, 1.5)
    x = images = torch.randn(3, 1, 21, 30, dtype=torch.float64)
    for i, depth in enumerate((network.depth1, network.depth2, network.depth3, network.depth4)):
        x = F.max_pool2d(x, 2) if i else x
        for conv, norm in ((depth.conv_a, depth.norm_a), (depth.conv_b, depth.norm_b)):
            x = F.conv2d(x, conv.weight, conv.bias, padding=1)
            mean, scale = norm.running_mean, norm.weight / (norm.running_var + norm.eps) ** 0.5
            x = (x - mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
            x = x.clamp(min=0)
    expected = x.amax(dim=(2, 3)) @ network.linear.weight.T + network.linear.bias
    torch.testing.assert_close(network(images), expected)


def test_dropout_acts_on_the_pooled_features_in_training_only():
    network = MicraNet(n_channels=1, n_outputs=1, dropout=0.25)
    pooled, read = [], []
    network.global_pool.register_forward_hook(lambda *args: pooled.append(args[2].flatten(1)))
    network.linear.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.no_grad():
        network.train()(torch.rand(16, 1, 16, 16))
        network.eval()(torch.rand(16, 1, 16, 16))
    is_dropped = (read[0] == 0) & (pooled[0] > 0)
    assert (is_dropped.sum() / (pooled[0] > 0).sum()).item() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(read[0][~is_dropped], pooled[0][~is_dropped] / 0.75)
    assert torch.equal(read[1], pooled[1])
