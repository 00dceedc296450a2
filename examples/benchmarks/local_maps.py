"""Local maps of three classes of ten: ours, research style, torchcam, captum, plain autograd.

Images of 256 x 256 px, the default network, float32. Exits with 1 if a claim fails:

- `GradCAMFeatureTransformer` is at least 10 times faster than the loop of research code: for every
  class a forward pass, a backward pass with weight gradients, every layer copied to NumPy, scaled
  and upsampled there;
- it is at least 1.5 times faster than the best of torchcam and captum, which make the eight maps of
  the same classes, upsampled here in the same way;
- equations (1) and (2) alone take at most 0.6 times one plain forward pass and one plain
  `torch.autograd.grad` to the eight activations for each class present.

Run with ``python examples/benchmarks/local_maps.py``, after ``pip install
"sklearn-micranet[benchmarks]"``.
"""

import argparse
import sys

import numpy as np
import torch
from _side_by_side import (
    N_CLASSES,
    SIZE,
    classifier_that_finds,
    in_processes,
    print_machine,
    ratio,
    side_by_side,
    verdict,
)
from captum.attr import LayerGradCam
from skimage.transform import resize
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.nn.functional import interpolate
from torchcam.methods import GradCAM

from sklearn_micranet import GradCAMFeatureTransformer
from sklearn_micranet._network._local_maps import FoldedNetwork, forward, local_maps
from sklearn_micranet._network._shape import LAYER_NAMES

PRESENT = [1, 4, 7]
N_IMAGES = 4
SLOW = ("research style", "captum")
FAST = ("torchcam", "plain autograd", "equations only", "transformer")


def relus(network):
    """Return the eight modules whose outputs are the layers L1 to L8."""
    return [module for module in network.modules() if isinstance(module, nn.ReLU)]


def with_activations(network, image):
    """Return the logits and the eight post-ReLU activations of a plain forward pass."""
    activations = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: activations.append(output))
        for module in relus(network)
    ]
    logits = network(image)
    for hook in hooks:
        hook.remove()
    return logits, activations


def research_style(network, image):
    """Return the maps of all classes, class by class and layer by layer."""
    maps = []
    for k in range(N_CLASSES):
        network.zero_grad()
        logits, activations = with_activations(network, image)
        for activation in activations:
            activation.retain_grad()
        logits[0, k].backward()
        for activation in activations:
            values, gradient = activation.detach().numpy()[0], activation.grad.numpy()[0]
            layer_map = np.zeros(values.shape[1:], dtype=np.float32)
            for alpha, channel in zip(gradient.mean(axis=(1, 2)), values, strict=True):
                layer_map += alpha * channel
            spread = np.ptp(layer_map) or 1
            full = resize((layer_map - layer_map.min()) / spread, image.shape[2:], order=0)
            maps.append(full)
    return maps


def with_torchcam(network, image):
    """Return the maps of the classes present, all layers of a class at once."""
    maps = np.zeros((N_CLASSES, len(LAYER_NAMES), SIZE, SIZE), dtype=np.float32)
    with GradCAM(network, target_layer=relus(network)) as extractor:
        logits = network(image)
        for k in PRESENT:
            for i, scaled in enumerate(extractor(k, logits, retain_graph=True)):
                maps[k, i] = interpolate(scaled[None], SIZE)[0, 0]
    return maps


def with_captum(network, image):
    """Return the maps of the classes present, layer by layer, not scaled."""
    maps = np.zeros((N_CLASSES, len(LAYER_NAMES), SIZE, SIZE), dtype=np.float32)
    for k in PRESENT:
        for i, layer in enumerate(relus(network)):
            layer_map = LayerGradCam(network, layer).attribute(image, target=k)
            maps[k, i] = interpolate(layer_map.detach(), SIZE)[0, 0]
    return maps


def plain_autograd(network, image):
    """Return the gradients at the activations for the classes present; no map is made of them."""
    logits, activations = with_activations(network, image)
    return [torch.autograd.grad(logits[0, k], activations, retain_graph=True) for k in PRESENT]


def equations(folded, image):
    """Return the maps of the classes present at the resolution of each layer."""
    pairs = torch.tensor([[0, k] for k in PRESENT])
    return local_maps(folded, forward(folded, image), pairs)


def prepare(contender):
    """Return what makes the maps of all images with that contender."""
    classifier = classifier_that_finds(PRESENT)
    images = torch.rand(N_IMAGES, 1, 1, SIZE, SIZE)
    if contender == "transformer":
        transformer = GradCAMFeatureTransformer(FrozenEstimator(classifier))
        array = images[:, 0, 0].numpy()
        transformer.fit(array)
        return lambda: np.asarray(transformer.transform(array))
    network = classifier.module_.to(memory_format=torch.contiguous_format)
    function, source = {
        "research style": (research_style, network),
        "captum": (with_captum, network),
        "torchcam": (with_torchcam, network),
        "plain autograd": (plain_autograd, network),
        "equations only": (equations, FoldedNetwork(network.state_dict())),
    }[contender]

    def run():
        for image in images:
            function(source, image)

    return run


def main(n_rounds):
    print_machine("torchcam", "captum", "scikit-image")
    print(f"{N_IMAGES} images, each contender in a process of its own:")
    with in_processes(prepare, SLOW + FAST) as contenders:
        to_slow = side_by_side({k: contenders[k] for k in (*SLOW, "transformer")}, n_rounds)
        print("the fast ones, in more rounds:")
        seconds = side_by_side({k: contenders[k] for k in FAST}, 3 * n_rounds)
    to_research = ratio(to_slow, "research style", "transformer")
    to_peers = min(
        ratio(to_slow, "captum", "transformer"), ratio(seconds, "torchcam", "transformer")
    )
    to_autograd = ratio(seconds, "equations only", "plain autograd")
    return verdict(
        {
            f"{to_research:.1f} times faster than research style (claim: 10)": to_research >= 10,
            f"{to_peers:.2f} times faster than the best peer (claim: 1.5)": to_peers >= 1.5,
            f"{to_autograd:.2f} times plain autograd (claim: 0.6)": to_autograd <= 0.6,
        }
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    sys.exit(main(parser.parse_args().rounds))
