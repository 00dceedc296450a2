from copy import deepcopy

import pytest
import torch
from reference import explain, random_network, reference_maps
from torch import nn
from torch.testing import assert_close

from sklearn_micranet._network._local_maps import FoldedNetwork

SIZES = [(64, 64), (51, 38), (8, 8), (9, 15), (17, 40), (62, 13)]


def every_pair(logits):
    return torch.ones_like(logits, dtype=torch.bool)


def assert_maps_equal(actual, expected, relative):
    """Compare maps, relative to the largest value of their layer."""
    for layer, (one, other) in enumerate(zip(actual, expected, strict=True), start=1):
        atol = relative * other.abs().max().item() if other.numel() else 0
        assert_close(one.double(), other, rtol=0, atol=atol, msg=lambda m, i=layer: f"L{i}: {m}")


@pytest.mark.parametrize("n_images", [1, 3])
@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_equal_the_equations(n_images, n_channels, size, dtype, relative):
    network = random_network(n_channels).to(dtype)
    images = torch.rand(n_images, n_channels, *size, dtype=dtype)

    pairs, maps = explain(FoldedNetwork(network.state_dict()), images, every_pair)

    assert pairs.tolist() == [[i, c] for i in range(n_images) for c in range(3)]
    assert all(m.dtype == dtype for m in maps)
    expected = [m.flatten(0, 1) for m in reference_maps(network, images)]
    assert_maps_equal(maps, expected, relative)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_layout_does_not_matter(memory_format):
    network = random_network(3).to(memory_format=memory_format)
    images = torch.rand(2, 3, 24, 30).to(memory_format=memory_format)
    _, maps = explain(FoldedNetwork(network.state_dict()), images, every_pair)
    assert_maps_equal(maps, [m.flatten(0, 1) for m in reference_maps(network, images)], 1e-5)


@pytest.mark.parametrize(("n_outputs", "n_filters"), [(1, 4), (5, 1), (2, 16)])
def test_numbers_of_outputs_and_filters(n_outputs, n_filters):
    network = random_network(1, n_outputs, n_filters).double()
    images = torch.rand(2, 1, 25, 33, dtype=torch.float64)
    _, maps = explain(FoldedNetwork(network.state_dict()), images, every_pair)
    assert_maps_equal(maps, [m.flatten(0, 1) for m in reference_maps(network, images)], 1e-10)


def test_only_selected_pairs_are_computed():
    network = random_network()
    images = torch.rand(4, 1, 20, 26)
    selected = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1]], dtype=torch.bool)

    pairs, maps = explain(FoldedNetwork(network.state_dict()), images, lambda logits: selected)

    assert pairs.tolist() == [[0, 1], [2, 0], [2, 2], [3, 0], [3, 1], [3, 2]]
    assert_maps_equal(maps, [m[selected] for m in reference_maps(network, images)], 1e-5)


@pytest.mark.parametrize("n_images", [1, 2])
def test_no_pair_selected(n_images):
    shapes = [(20, 26), (20, 26), (10, 13), (10, 13), (5, 6), (5, 6), (2, 3), (2, 3)]
    pairs, maps = explain(
        FoldedNetwork(random_network().state_dict()),
        torch.rand(n_images, 1, 20, 26),
        lambda logits: logits > torch.inf,
    )
    assert pairs.shape == (0, 2)
    assert [tuple(m.shape) for m in maps] == [(0, *shape) for shape in shapes]


def test_pairs_are_selected_by_the_logits_of_the_network():
    network = random_network(3)
    images = torch.rand(4, 3, 19, 22)
    seen = []

    def select(logits):
        seen.append(logits)
        return logits > 0

    explain(FoldedNetwork(network.state_dict()), images, select)
    with torch.no_grad():
        assert_close(torch.cat(seen), network(images), rtol=1e-5, atol=1e-5)


def test_batch_does_not_matter():
    folded = FoldedNetwork(random_network(3).state_dict())
    images = torch.rand(5, 3, 21, 30)
    _, together = explain(folded, images, every_pair)
    one_by_one = [explain(folded, image[None], every_pair)[1] for image in images]
    assert_maps_equal(
        together, [torch.cat(layer).double() for layer in zip(*one_by_one, strict=True)], 1e-5
    )


def test_only_the_last_layer_is_rectified():
    network = random_network()
    _, maps = explain(FoldedNetwork(network.state_dict()), torch.rand(4, 1, 32, 32), every_pair)
    assert all((m < 0).any() for m in maps[:7])
    assert (maps[7] >= 0).all()
    assert (maps[7] == 0).any()  # premise: there was something to cut off


def whole_numbered_network(n_channels, n_outputs=2, n_filters=4):
    """Return a float64 network that computes exactly, so that equal pixels stay equal."""
    network = random_network(n_channels, n_outputs, n_filters).double()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.copy_(torch.randint(-1, 2, module.weight.shape))
            module.bias.data.copy_(torch.randint(-1, 2, module.bias.shape))
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randint(-1, 2, module.running_mean.shape))
            module.running_var.fill_(4 - module.eps)
            module.weight.data.copy_(torch.randint(1, 3, module.weight.shape))
            module.bias.data.copy_(torch.randint(0, 2, module.bias.shape))
    return network


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (43, 29), (16, 50)])
@pytest.mark.parametrize("n_levels", [1, 2, 3])
def test_ties_of_maxima_go_to_the_first_pixel(n_channels, size, n_levels):
    network = whole_numbered_network(n_channels)
    blocks = torch.randint(1, n_levels + 1, (4, n_channels, 7, 7), dtype=torch.float64)
    images = nn.functional.interpolate(blocks, size)
    with torch.no_grad():  # premise: windows of depth 1 have ties that pass a gradient
        windows = network.depth1(images).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
        ties = (windows == windows.amax(dim=4, keepdim=True)).sum(dim=4) > 1
        assert (ties & (windows.amax(dim=4) > 0)).any()

    _, maps = explain(FoldedNetwork(network.state_dict()), images, every_pair)

    expected = [m.flatten(0, 1) for m in reference_maps(network, images)]
    assert all((m != 0).any() for m in expected[:7])
    assert_maps_equal(maps, expected, 1e-10)


@pytest.mark.parametrize("level", [0, 0.5])
def test_constant_images(level):
    network = random_network().double()
    images = torch.full((1, 1, 30, 35), level, dtype=torch.float64)
    _, maps = explain(FoldedNetwork(network.state_dict()), images, every_pair)
    assert all(m.isfinite().all() for m in maps)
    # Where ties go is a matter of rounding here; L8 does not depend on it.
    expected = reference_maps(network, images)[7].flatten(0, 1)
    assert_maps_equal(maps[7:], [expected], 1e-10)


@pytest.mark.parametrize("bias", [0, -1])
@pytest.mark.parametrize("depth", ["depth1", "depth2", "depth4"])
def test_dead_filters_pass_no_gradient(depth, bias):
    network = random_network().double()
    norm = getattr(network, depth).norm_b
    norm.weight.data[:2] = 0
    norm.bias.data[:2] = bias
    images = torch.rand(2, 1, 27, 32, dtype=torch.float64)
    _, maps = explain(FoldedNetwork(network.state_dict()), images, every_pair)
    assert_maps_equal(maps, [m.flatten(0, 1) for m in reference_maps(network, images)], 1e-10)


def test_dead_network_has_zero_maps():
    network = random_network()
    network.depth4.norm_b.weight.data.zero_()
    network.depth4.norm_b.bias.data.fill_(-1)
    _, maps = explain(FoldedNetwork(network.state_dict()), torch.rand(2, 1, 16, 16), every_pair)
    assert all((m == 0).all() for m in maps)


def test_network_is_not_changed():
    network = random_network()
    network.depth2.train()  # flags that no common state restores by chance
    network.linear.bias.requires_grad_(False)
    before = deepcopy(network.state_dict())
    training = [module.training for module in network.modules()]
    requires_grad = [parameter.requires_grad for parameter in network.parameters()]

    explain(FoldedNetwork(network.state_dict()), torch.rand(2, 1, 16, 16), every_pair)

    assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [module.training for module in network.modules()] == training
    assert [parameter.requires_grad for parameter in network.parameters()] == requires_grad
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
    assert torch.is_grad_enabled()


def test_images_are_not_changed():
    images = torch.rand(2, 1, 16, 16)
    before = images.clone()
    explain(FoldedNetwork(random_network().state_dict()), images, every_pair)
    assert_close(images, before, rtol=0, atol=0)


def test_training_statistics_are_not_used():
    network = random_network()
    images = torch.rand(2, 1, 16, 16)
    _, evaluating = explain(FoldedNetwork(network.state_dict()), images, every_pair)
    _, training = explain(FoldedNetwork(network.train().state_dict()), images, every_pair)
    assert_close(training, evaluating, rtol=0, atol=0)


def test_folded_network_does_not_follow_later_updates():
    network = random_network()
    images = torch.rand(2, 1, 16, 16)
    folded = FoldedNetwork(network.state_dict())
    _, before = explain(folded, images, every_pair)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.mul_(2)
    _, after = explain(folded, images, every_pair)
    assert_close(after, before, rtol=0, atol=0)
