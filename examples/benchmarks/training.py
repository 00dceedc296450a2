"""One training epoch: ours against a plain torch loop of the same network, batch and data.

64 images of 256 x 256 px, the default network, float32; skorch's bookkeeping included. The plain
loop trains the same module on tensors that are ready. Exits with 1 unless an epoch of
`MicraNetClassifier` takes at most 0.9 times one of the plain loop: it keeps the memory of freed
tensors for the next ones. (A channels-last layout was no faster on a CPU.) They take turns, each in
a process of its own, as the plain loop would otherwise go on with the memory that ours kept.

With ``--device cuda`` it trains there, on 1,024 images, compares with bfloat16 too, and the claim
is 1.1 times a plain loop.

Run with ``python examples/benchmarks/training.py``.
"""

import argparse
import sys
from functools import partial

import numpy as np
import torch
from _side_by_side import (
    N_CLASSES,
    SIZE,
    in_processes,
    print_machine,
    ratio,
    side_by_side,
    verdict,
)

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet._network._module import MicraNet

BATCH_SIZE = 16


def plain_loop(network, optimizer, images, targets):
    """Train for one epoch; images and targets are on the device already."""
    network.train()
    for batch in torch.randperm(len(images), device=images.device).split(BATCH_SIZE):
        optimizer.zero_grad()
        logits = network(images[batch])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets[batch])
        loss.backward()
        optimizer.step()
        loss.item()  # to be reported


def prepare(contender, device):
    """Return what trains that contender for an epoch."""
    n_images = 1024 if device == "cuda" else 64
    rng = np.random.default_rng(0)
    images = rng.random((n_images, SIZE, SIZE), dtype=np.float32)
    labels = rng.integers(0, 2, (n_images, N_CLASSES))
    if contender == "plain torch":
        network = MicraNet(1, N_CLASSES).to(device)
        optimizer = torch.optim.Adam(network.parameters())
        images = torch.from_numpy(images)[:, None].to(device)
        labels = torch.from_numpy(labels).float().to(device)
        return partial(plain_loop, network, optimizer, images, labels)
    ours = MicraNetClassifier(batch_size=BATCH_SIZE, device=device, precision=contender)
    return partial(ours.partial_fit, images, labels)


def main(device, n_rounds):
    print_machine("skorch", device=device)
    names = ["plain torch", "float32"] + (["bfloat16"] if device == "cuda" else [])
    with in_processes(partial(prepare, device=device), names) as contenders:
        seconds = side_by_side(contenders, n_rounds)
    to_plain = ratio(seconds, "float32", "plain torch")
    claim = 0.9 if device == "cpu" else 1.1
    return verdict({f"{to_plain:.2f} times a plain loop (claim: {claim})": to_plain <= claim})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sys.exit(main(options.device, options.rounds))
