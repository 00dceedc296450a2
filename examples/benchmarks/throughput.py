"""Time of whole pipelines, from images to masks, as the images and the classes present grow.

Images of 256 x 256 px with 10 classes, the default network, float32. Prints the tables, and exits
with 1 if the time per image varies by more than a quarter between 100 and 800 images, or if a
straight line through the times for 1, 2, 4 and 8 classes misses one of them by more than 15 %.

Run with ``python examples/benchmarks/throughput.py``.
"""

import argparse
import sys

import numpy as np
from _side_by_side import SIZE, classifier_that_finds, print_machine, side_by_side, verdict
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sklearn_micranet import GradCAMFeatureTransformer, PCAFeatureMap, ThresholdSegmenter

N_PRESENT = (1, 2, 4, 8)


def pipeline(images, n_present, device):
    classifier = classifier_that_finds(range(n_present), device=device)
    steps = [
        ("cam", GradCAMFeatureTransformer(FrozenEstimator(classifier), batch_size=8)),
        ("pca", PCAFeatureMap()),
        ("segment", ThresholdSegmenter()),
    ]
    return Pipeline(steps).fit(images)


def main(device, n_rounds, numbers):
    images = np.random.default_rng(0).random((max(numbers), SIZE, SIZE), dtype=np.float32)
    print_machine(device=device)
    of_three = pipeline(images, 3, device)
    n_few = min(numbers) // 5
    of_three.predict(images[:n_few])
    by_number = side_by_side(
        {f"{n} images, 3 classes": lambda n=n: of_three.predict(images[:n]) for n in numbers},
        n_rounds,
        warm_up=False,
    )
    pipes = {k: pipeline(images, k, device) for k in N_PRESENT}
    by_class = side_by_side(
        {
            f"{n_few} images, {k} classes": lambda pipe=pipe: pipe.predict(images[:n_few])
            for k, pipe in pipes.items()
        },
        3 * n_rounds,
    )
    per_image = [np.median(s) / n for s, n in zip(by_number.values(), numbers, strict=True)]
    print("ms per image:", *(f"{1e3 * s:.0f}" for s in per_image))
    times = np.array([np.median(s) for s in by_class.values()]) / n_few
    slope, intercept = np.polyfit(N_PRESENT, times, 1, w=1 / times)
    error = np.abs((intercept + slope * np.array(N_PRESENT)) / times - 1).max()
    print(f"ms per image: {1e3 * intercept:.0f} + {1e3 * slope:.0f} for each class present")
    spread = max(per_image) / min(per_image)
    return verdict(
        {
            f"time per image varies by a factor of {spread:.2f} (claim: 1.25)": spread <= 1.25,
            f"a line through the classes misses by {error:.0%} (claim: 15 %)": error <= 0.15,
        }
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--numbers", type=int, nargs="+", default=[100, 200, 400, 800])
    options = parser.parse_args()
    sys.exit(main(options.device, options.rounds, options.numbers))
