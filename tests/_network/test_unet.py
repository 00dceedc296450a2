from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from torch.nn import functional as F

from sklearn_micranet import MicraNetClassifier, UNetSegmenter
from sklearn_micranet._network._module import MicraNet
from sklearn_micranet._network._unet import (
    UNet,
    load_pretrained_unet,
    pretrained_unet_weights,
    read_unet_weights,
    unet_architecture_of,
    write_unet_weights,
)
from sklearn_micranet._network._weights import write_tensors


def convolved(x, weights, name):
    """Convolve, normalise with the running statistics and rectify, twice."""
    for half in "ab":
        conv, norm = f"{name}.conv_{half}", f"{name}.norm_{half}"
        x = F.conv2d(x, weights[f"{conv}.weight"], weights[f"{conv}.bias"], padding=1)
        mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        scale = weights[f"{norm}.weight"] / torch.sqrt(var + 1e-5)
        x = (x - mean[:, None, None]) * scale[:, None, None]
        x = F.relu(x + weights[f"{norm}.bias"][:, None, None])
    return x


@torch.no_grad()
def by_hand(network, x):
    """The U-Net of two poolings, written out."""
    w = network.state_dict()
    whole = convolved(x, w, "down.0")
    half = convolved(F.max_pool2d(whole, 2), w, "down.1")
    quarter = convolved(F.max_pool2d(half, 2), w, "down.2")
    up = F.conv_transpose2d(quarter, w["up.0.weight"], w["up.0.bias"], stride=2)
    half = convolved(torch.cat([half, up], 1), w, "merge.0")
    up = F.conv_transpose2d(half, w["up.1.weight"], w["up.1.bias"], stride=2)
    whole = convolved(torch.cat([whole, up], 1), w, "merge.1")
    return F.conv2d(whole, w["head.weight"], w["head.bias"])


def random_unet(**sizes):
    """A network in evaluation mode with the statistics of some random batches."""
    network = UNet(**({"n_channels": 2, "n_maps": 3, "n_filters": 4, "n_poolings": 2} | sizes))
    for _ in range(5):
        network(torch.rand(4, sizes.get("n_channels", 2), 32, 32))
    return network.eval()


def test_computes_what_is_written_out():
    network, x = random_unet(), torch.rand(2, 2, 24, 16)
    torch.testing.assert_close(network(x), by_hand(network, x), rtol=1e-4, atol=1e-5)


def test_has_the_convolutions_of_the_original():
    def twice(n_in, n_out):
        return 9 * n_in * n_out + n_out + 9 * n_out * n_out + n_out

    filters = [64, 128, 256, 512, 1024]
    expected = twice(1, 64) + 64 * 2 + 2  # the last convolution has two outputs
    for above, below in pairwise(filters):
        expected += twice(above, below) + 4 * below * above + above + twice(2 * above, above)
    with torch.device("meta"):
        network = UNet(n_channels=1, n_maps=2, n_filters=64)
    parameters = {n: p.numel() for n, p in network.named_parameters() if "norm" not in n}
    assert sum(parameters.values()) == expected == 31_030_658


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (16, 16), (17, 31), (50, 8)])
@pytest.mark.parametrize("n_poolings", [1, 2, 4])
def test_any_size_is_padded_with_its_edges_and_cropped(size, n_poolings):
    network = random_unet(n_channels=1, n_poolings=n_poolings)
    x = torch.rand(2, 1, *size)
    logits = network(x)
    assert logits.shape == (2, 3, *size)
    height, width = size
    unit = 2**n_poolings
    to = [-(-n // unit) * unit for n in size]
    padded = np.pad(x, [(0, 0), (0, 0), (0, to[0] - height), (0, to[1] - width)], mode="edge")
    expected = network(torch.from_numpy(padded))[..., :height, :width]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_receptive_field_ends():
    # Two convolutions at 1, 2 and 4 px each, those at 1 and 2 px twice: 8 + 8 + 8 px, and up to
    # 3 px from the corner of a block of the last pooling.
    network = random_unet(n_channels=1, n_maps=1)
    x = torch.rand(1, 1, 96, 96, requires_grad=True)
    network(x)[0, 0, 48, 48].backward()
    rows = x.grad[0, 0].abs().sum(dim=1).nonzero()[:, 0]
    assert 48 - 27 <= rows.min() < 48 - 8
    assert 48 + 8 < rows.max() <= 48 + 27


@pytest.mark.parametrize(("given", "dtype"), [("float32", torch.float32), ("bfloat16", None)])
def test_logits_are_float32_in_any_precision(given, dtype):
    network = random_unet(precision=given)
    logits = network(torch.rand(1, 2, 16, 16))
    assert logits.dtype is torch.float32
    rounded = logits.to(torch.bfloat16).float()
    assert torch.equal(logits, rounded) == (dtype is None)


# --- weights --------------------------------------------------------------------------------


def test_weights_return_from_a_file_with_their_metadata(tmp_path):
    network = random_unet()
    write_unet_weights(tmp_path / "unet.pt", network.state_dict(), {"threshold": 0.25})
    weights, metadata = read_unet_weights(tmp_path / "unet.pt")
    assert metadata == {"threshold": 0.25}
    assert list(weights) == list(network.state_dict())
    assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_channels": 3, "n_maps": 1, "n_filters": 5, "n_poolings": 1},
        {"n_channels": 1, "n_maps": 4, "n_filters": 2, "n_poolings": 4},
    ],
)
def test_the_architecture_is_read_from_the_weights(sizes):
    assert unet_architecture_of(UNet(**sizes).state_dict()) == sizes


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"a": torch.ones(2)}, "must be a file of UNetSegmenter.save_weights"),
        (MicraNet(1, 1, 2).state_dict(), "must be a file of UNetSegmenter.save_weights"),
        (
            {"format": "sklearn-micranet U-Net weights", "version": 9},
            r"of version 1. Got version 9 instead: update",
        ),
        (
            {
                "format": "sklearn-micranet U-Net weights",
                "version": 1,
                "metadata": {},
                "state_dict": {"down.0.conv_a.weight": torch.ones(2, 1, 3, 3)},
            },
            "must hold the weights of a U-Net. A dict of the tensors",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, content, match):
    write_tensors(tmp_path / "other.pt", dict(content))
    with pytest.raises(ValueError, match=match):
        read_unet_weights(tmp_path / "other.pt")


def test_tensors_of_other_shapes_are_refused():
    weights = UNet(1, 1, 4, 2).state_dict() | {"merge.0.conv_a.weight": torch.ones(8, 8, 3, 3)}
    with pytest.raises(ValueError, match="of other names or shapes instead"):
        unet_architecture_of(weights)
    with pytest.raises(ValueError, match="Got list of other names"):
        unet_architecture_of([1, 2])


def test_pretrained_weights_are_loaded():
    source, network = random_unet(), random_unet()
    load_pretrained_unet(network, source.state_dict())
    x = torch.rand(1, 2, 16, 16)
    assert torch.equal(network(x), source(x))


def test_the_last_convolution_starts_anew_for_other_maps():
    source, network = random_unet(n_maps=2), random_unet(n_maps=3)
    head = network.head.weight.clone()
    load_pretrained_unet(network, source.state_dict())
    assert torch.equal(network.head.weight, head)
    assert torch.equal(network.down[1].conv_a.weight, source.down[1].conv_a.weight)


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ({"n_channels": 1}, "for n_channels=2. Got 1 instead"),
        ({"n_filters": 8}, "for n_filters=4. Got 8 instead"),
        ({"n_poolings": 3}, "for n_poolings=2. Got 3 instead"),
    ],
)
def test_pretrained_weights_of_other_sizes_are_refused(sizes, match):
    with pytest.raises(ValueError, match=match):
        load_pretrained_unet(random_unet(), random_unet(**sizes).state_dict())


def test_what_pretrained_may_be(tmp_path):
    images = np.random.default_rng(0).random((4, 8, 8))
    fitted = UNetSegmenter(n_filters=2, n_poolings=1, max_epochs=1).fit(images, images > 0.5)
    fitted.save_weights(tmp_path / "unet.pt")
    expected = fitted.module_.state_dict()
    for pretrained in (tmp_path / "unet.pt", expected, fitted, FrozenEstimator(fitted)):
        weights = pretrained_unet_weights(pretrained)
        assert all(torch.equal(weights[k], v) for k, v in expected.items())
    with pytest.raises(NotFittedError, match="must be a file, a state dict, or a fitted"):
        pretrained_unet_weights(UNetSegmenter())
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1).fit(images, [0, 1, 0, 1])
    with pytest.raises(TypeError, match=r"fitted UNetSegmenter.*Got MicraNetClassifier"):
        pretrained_unet_weights(classifier)
