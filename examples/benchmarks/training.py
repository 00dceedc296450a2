"""One training epoch: ours against a plain torch loop of the same network, batch and data.

128 images of 256 x 256 px, the default network, float32; skorch's bookkeeping included. The plain
loop trains the same module on tensors that are ready. Exits with 1 unless an epoch of
`MicraNetClassifier` takes at most 0.9 times one of the plain loop: it keeps the memory of freed
tensors for the next ones. (A channels-last layout was no faster on a CPU.)

With ``--device cuda`` it trains there, on 1,024 images, compares with bfloat16 too, and the claim
is 1.1 times a plain loop.

Run with ``python examples/benchmarks/training.py``.
"""

import argparse
import sys

import numpy as np
import torch
from _side_by_side import N_CLASSES, SIZE, print_machine, ratio, side_by_side, verdict

from sklearn_micranet import MicraNetClassifier
from sklearn_micranet._network import MicraNet

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


def main(device, n_rounds):
    n_images = 1024 if device == "cuda" else 128
    rng = np.random.default_rng(0)
    images = rng.random((n_images, SIZE, SIZE), dtype=np.float32)
    labels = rng.integers(0, 2, (n_images, N_CLASSES))
    network = MicraNet(1, N_CLASSES).to(device)
    optimizer = torch.optim.Adam(network.parameters())
    images_there = torch.from_numpy(images)[:, None].to(device)
    targets_there = torch.from_numpy(labels).float().to(device)
    contenders = {
        "plain torch": lambda: plain_loop(network, optimizer, images_there, targets_there)
    }
    for precision in ["float32"] if device == "cpu" else ["float32", "bfloat16"]:
        ours = MicraNetClassifier(batch_size=BATCH_SIZE, device=device, precision=precision)
        contenders[f"ours, {precision}"] = lambda ours=ours: ours.partial_fit(images, labels)
    print_machine("skorch", device=device)
    print(f"one epoch of {n_images} images:")
    seconds = side_by_side(contenders, n_rounds)
    to_plain = ratio(seconds, "ours, float32", "plain torch")
    claim = 0.9 if device == "cpu" else 1.1
    return verdict({f"{to_plain:.2f} times a plain loop (claim: {claim})": to_plain <= claim})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sys.exit(main(options.device, options.rounds))
