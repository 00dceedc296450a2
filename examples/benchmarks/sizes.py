"""Time of an epoch and of one image, by the size of images and the number of filters.

Prints the rows of the table in ``docs/guide/speed.rst``: the seconds of an epoch of 1,000 images,
scaled up from an epoch of fewer, and the milliseconds from one image with one class to its mask,
the paper's way. It claims nothing.

Run with ``python examples/benchmarks/sizes.py``; it takes two minutes on two cores.
"""

from statistics import median
from time import perf_counter

import numpy as np
from _side_by_side import classifier_that_finds, print_machine
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)

N_TRAINED = {64: 320, 128: 160, 256: 64}  # images, by their size in px
N_EPOCHS, N_ROUNDS = 3, 10


def seconds_of_epoch(size, n_filters):
    rng = np.random.default_rng(0)
    images = rng.random((N_TRAINED[size], size, size), dtype=np.float32)
    classifier = MicraNetClassifier(
        n_filters=n_filters, max_epochs=N_EPOCHS, validation_fraction=0, random_state=0
    ).fit(images, np.arange(len(images)) % 2)
    return median(row["dur"] for row in classifier.history_) * 1000 / len(images)


def seconds_of_image(size, n_filters):
    images = np.random.default_rng(0).random((N_ROUNDS, 1, size, size), dtype=np.float32)
    classifier = classifier_that_finds([0], n_classes=2, n_filters=n_filters)
    steps = [
        ("cam", GradCAMFeatureTransformer(FrozenEstimator(classifier))),
        ("pca", PCAFeatureMap()),
        ("segment", ThresholdSegmenter()),
    ]
    pipe = Pipeline(steps).fit(images[0])
    pipe.predict(images[0])
    seconds = []
    for image in images:
        start = perf_counter()
        pipe.predict(image)
        seconds.append(perf_counter() - start)
    return median(seconds)


if __name__ == "__main__":
    print_machine("skorch")
    for n_filters in (8, 16, 32):
        cells = [
            f"{seconds_of_epoch(size, n_filters):.0f} s; "
            f"{1000 * seconds_of_image(size, n_filters):.0f} ms"
            for size in N_TRAINED
        ]
        print(f"n_filters={n_filters:<3}", *cells, sep="  |  ", flush=True)
