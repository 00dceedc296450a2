from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_micranet._network._module import MicraNet
from sklearn_micranet._network._shape import LAYER_NAMES

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


# --- precision -------------------------------------------------------------------------------


def of_each_precision(n_outputs=3):
    """Make the same network three times."""
    networks = {p: MicraNet(2, n_outputs, 4, 0, p) for p in ("float32", "auto", "bfloat16")}
    for network in networks.values():
        network.load_state_dict(networks["float32"].state_dict())
    return networks


@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_is_close_to_float32_and_auto_is_float32_on_the_cpu(training):
    images = torch.rand(6, 2, 20, 17)
    networks = of_each_precision()
    full, auto, mixed = (network.train(training)(images) for network in networks.values())
    assert full.dtype == auto.dtype == mixed.dtype == torch.float32
    assert torch.equal(auto, full)
    assert not torch.equal(mixed, full)
    # Numbers of 8 bits in nine layers, relative to the terms that a logit is the sum of.
    network = networks["float32"]
    read = []
    network.linear.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    network(images)
    scale = read[0].abs() @ network.linear.weight.abs().T + network.linear.bias.abs()
    assert ((mixed - full).abs() / scale).max() < 9 / 256


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_compute_in_the_precision_asked_for(precision):
    network = of_each_precision()[precision]
    _, calls = record_relus(network, torch.rand(2, 2, 8, 8))
    assert {activation.dtype for _, activation in calls} == {getattr(torch, precision)}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_bfloat16_trains_float32_weights():
    network = of_each_precision()["bfloat16"].train()
    network(torch.rand(4, 2, 8, 8)).sum().backward()
    for parameter in network.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


def test_float64_stays_float64_unless_mixed():
    images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    for precision in ("float32", "auto"):
        assert of_each_precision()[precision].double()(images).dtype == torch.float64


# --- frozen depths ---------------------------------------------------------------------------


@pytest.mark.parametrize("n_frozen", [0, 1, 3, 4])
def test_frozen_depths_stay_in_evaluation_mode(n_frozen):
    network = MicraNet(1, 1, 2)
    network.n_frozen = n_frozen
    assert network.train() is network
    modes = [{m.training for m in depth.modules()} for depth in network.depths]
    assert modes == [{False}] * n_frozen + [{True}] * (4 - n_frozen)
    assert network.training
    assert network.dropout.training
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    network(torch.rand(4, 1, 16, 16))
    for name, statistics in network.state_dict().items():
        if "running" in name:
            is_frozen = int(name[len("depth")]) <= n_frozen
            assert torch.equal(statistics, before[name]) == is_frozen
    assert not any(module.training for module in network.eval().modules())
