"""Local maps of three classes of ten: ours against research style and against plain autograd.

Four images of 256 x 256 px, the default network, float32. Exits with 1 if a claim fails:

- `GradCAMFeatureTransformer` is at least 6 times faster than the loop of research code: a forward
  pass for every class, a backward pass with weight gradients, every layer copied to NumPy, scaled
  and upsampled there;
- equations (1) and (2) alone take at most 0.75 times one plain forward pass and one plain
  `torch.autograd.grad` to the eight activations for each class present.

Run with ``python examples/benchmarks/local_maps.py``.
"""

import platform
import sys
from statistics import median
from time import perf_counter

import numpy as np
import skimage
import torch
from skimage.transform import resize
from sklearn.frozen import FrozenEstimator
from torch import nn

from sklearn_micranet import GradCAMFeatureTransformer, MicraNetClassifier
from sklearn_micranet._local_maps import FoldedNetwork, local_maps

PRESENT = [1, 4, 7]
N_CLASSES = 10
N_IMAGES = 4
N_ROUNDS = 5


def trained_classifier():
    """Return a classifier that predicts the classes PRESENT; speed does not depend on more."""
    rng = np.random.default_rng(0)
    images, labels = rng.random((8, 64, 64), dtype=np.float32), rng.integers(0, 2, (8, N_CLASSES))
    classifier = MicraNetClassifier(max_epochs=1, validation_fraction=0, random_state=0)
    return classifier.fit(images, labels).set_params(
        threshold=[0.0 if k in PRESENT else 1.0 for k in range(N_CLASSES)]
    )


def with_activations(network, image):
    """Return the logits and the eight post-ReLU activations of a plain forward pass."""
    activations = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: activations.append(output))
        for module in network.modules()
        if isinstance(module, nn.ReLU)
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


def plain_autograd(network, image):
    """Return the gradients at the activations for the classes present; no map is made of them."""
    logits, activations = with_activations(network, image)
    return [torch.autograd.grad(logits[0, k], activations, retain_graph=True) for k in PRESENT]


def main():
    classifier = trained_classifier()
    network = classifier.module_.to(memory_format=torch.contiguous_format)
    images = torch.rand(N_IMAGES, 1, 1, 256, 256)
    array = images[:, 0, 0].numpy()
    transformer = GradCAMFeatureTransformer(FrozenEstimator(classifier)).fit(array)
    folded = FoldedNetwork(network)
    present = torch.zeros(1, N_CLASSES, dtype=torch.bool)
    present[0, PRESENT] = True
    contenders = {
        "research style": lambda: [research_style(network, image) for image in images],
        "transformer": lambda: np.asarray(transformer.transform(array)),
        "plain autograd": lambda: [plain_autograd(network, image) for image in images],
        "equations only": lambda: [local_maps(folded, x, lambda logits: present) for x in images],
    }
    seconds = {name: [] for name in contenders}
    for run in contenders.values():
        run()  # warm-up
    for _ in range(N_ROUNDS):  # in turns, so that all meet the same noise
        for name, run in contenders.items():
            start = perf_counter()
            run()
            seconds[name].append(perf_counter() - start)

    print(
        f"{platform.machine()}, CPU with {torch.get_num_threads()} threads; torch "
        f"{torch.__version__}, numpy {np.__version__}, scikit-image {skimage.__version__}"
    )
    for name, runs in seconds.items():
        print(f"{name:17} median {median(runs):.3f} s ({min(runs):.3f} to {max(runs):.3f})")
    to_research, to_autograd = (
        median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))
        for one, other in (
            ("research style", "transformer"),
            ("equations only", "plain autograd"),
        )
    )
    claims = {
        f"{to_research:.1f} times faster than research style (claim: 6)": to_research >= 6,
        f"{to_autograd:.2f} times plain autograd (claim: 0.75)": to_autograd <= 0.75,
    }
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
