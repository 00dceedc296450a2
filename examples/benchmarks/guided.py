"""Guided maps against the paper's maps and their principal component: time from image to map.

Images of 256 x 256 px, of whose ten classes three are present, with the default network, one by
one and eight at a time. Exits with 1 if guided maps that follow the brightness take more than 0.6
of the time of the paper's, or if learning from 2,000 crops of 64 x 64 px takes more than a tenth of
the training, of `MAX_EPOCHS` epochs. Maps that classify pixels take longer; that is printed only.

Run with ``python examples/benchmarks/guided.py``; it takes about five minutes on two cores.
"""

import argparse
import sys
from functools import partial
from time import perf_counter

import numpy as np
from _side_by_side import (
    N_CLASSES,
    SIZE,
    in_processes,
    print_machine,
    ratio,
    side_by_side,
    verdict,
)
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    MicraNetClassifier,
    PCAFeatureMap,
)
from sklearn_micranet.datasets import make_digit_canvases

PRESENT = [1, 4, 7]
MAX_EPOCHS = 20  # of a short training, as that of the quickstart
LEARNING_RATE = 3e-3  # with it, five epochs are enough to see the classes where they are


def transform_of(ways, n_images, name):
    """Return what computes the maps of some images in one of the ways."""
    images = make_digit_canvases(n_images, image_size=SIZE, random_state=1).images
    return lambda: np.asarray(ways[name].transform(images))


def main(n_rounds, n_crops, n_epochs):
    print_machine()
    crops = make_digit_canvases(n_crops, image_size=64, random_state=0)
    start = perf_counter()
    classifier = MicraNetClassifier(
        max_epochs=n_epochs,
        lr=LEARNING_RATE,
        validation_fraction=0,
        early_stopping=False,
        random_state=0,
    ).fit(crops.images, crops.labels)
    training = (perf_counter() - start) / n_epochs
    ways, claims, budget = {}, {}, training * MAX_EPOCHS / 10
    for features in ("intensity", "both", "texture"):
        ways[features] = GuidedFeatureMap(
            FrozenEstimator(classifier), features=features, random_state=0
        )
        start = perf_counter()
        ways[features].fit(crops.images, crops.labels)
        learning = perf_counter() - start
        print(f"Learning by {features}: {learning:.1f} s, an epoch: {training:.1f} s")
        claims[f"learning by {features}: a tenth of the training"] = learning <= budget

    thresholds = [0.0 if k in PRESENT else 1.0 for k in range(N_CLASSES)]
    classifier.set_params(threshold=thresholds)
    ways["paper"] = make_pipeline(
        GradCAMFeatureTransformer(FrozenEstimator(classifier)), PCAFeatureMap()
    ).fit(crops.images)
    print("Image to map, each way in a process of its own:")
    for n in (1, 8):
        with in_processes(partial(transform_of, ways, n), ways) as contenders:
            seconds = side_by_side(contenders, n_rounds)
        for name in ways:
            share = ratio(seconds, name, "paper")
            print(f"{name}, {n} at a time: {share:.2f} of the paper's time")
            if name == "intensity":
                claims[f"{n} at a time: 0.6 of the paper's time"] = share <= 0.6
    return verdict(claims)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--crops", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=5, help="of the training that is timed")
    arguments = parser.parse_args()
    sys.exit(main(arguments.rounds, arguments.crops, arguments.epochs))
