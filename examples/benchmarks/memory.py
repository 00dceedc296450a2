"""Memory and time of whole data sets.

Exits with 1 if a claim fails:

- `predict` on 1,000 canvases of 256 x 256 px with 10 classes, the default network: the peak
  resident memory is at most that of the interpreter with its data, the size of the output, and
  1 GiB;
- `Pipeline.fit` on 3,832 crops of 256 x 256 px with 2 classes takes at most 2 % longer than
  `MicraNetClassifier.fit` alone (with a network of 4 filters, so that it is not hidden by the
  training), and its other steps need no memory that grows with the crops;
- one image of 1,024, 2,048, 4,096 and 8,192 px, the default network with two present classes (or
  ``--classes``): `predict` of the classifier, local maps, guided maps and masks take at most 1 GiB
  besides their output;
- training on a memory-mapped array of 8,000 uint8 images (0.5 GB), 8 at a time, needs less than
  0.25 GiB of memory besides the file's.

Run with ``python examples/benchmarks/memory.py``; it takes more than an hour on two cores, and half
an hour with ``--sizes 1024 2048 4096``.
"""

import argparse
import resource
import sys
import tracemalloc
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from _side_by_side import SIZE, classifier_that_finds, print_machine, verdict
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)

GIB = 2**30


def steps_behind(classifier):
    return Pipeline(
        [
            ("cam", GradCAMFeatureTransformer(FrozenEstimator(classifier))),
            ("pca", PCAFeatureMap()),
            ("segment", ThresholdSegmenter()),
        ]
    )


def peak():
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def anonymous():
    """Memory of this process that belongs to no file, in bytes (Linux)."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def predict(n_images):
    """Return the growth of the peak during `predict`, and the size of its output."""
    images = np.random.default_rng(0).random((n_images, SIZE, SIZE), dtype=np.float32)
    pipe = steps_behind(classifier_that_finds([1, 4, 7])).fit(images)
    before = peak()
    masks = pipe.predict(images)
    return peak() - before, masks.nbytes


def fit(n_images):
    """Return the seconds of training, and the seconds and bytes of the steps behind it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (n_images, SIZE, SIZE), dtype=np.uint8)
    labels = rng.integers(0, 2, (n_images, 2))
    classifier = MicraNetClassifier(n_filters=4, max_epochs=1, random_state=0)
    start = perf_counter()
    classifier.fit(images, labels)
    training = perf_counter() - start
    tracemalloc.start()
    start = perf_counter()
    steps_behind(classifier).fit(images, labels)
    return training, perf_counter() - start, tracemalloc.get_traced_memory()[1]


def one_image(what, size, n_classes):
    """Return the growth of the peak for one image, and the size of the output."""
    rng = np.random.default_rng(0)
    labels = np.tril(np.ones((n_classes + 2, n_classes), dtype=int), -1)
    labels[-1, :-1] = 0  # of each class some images with it, and some without
    crops = rng.random((len(labels), 64, 64), dtype=np.float32)
    classifier = MicraNetClassifier(max_epochs=1, threshold=0.0, random_state=0)
    classifier.fit(crops, labels)
    frozen = FrozenEstimator(classifier)
    compute = {
        "predict": lambda: classifier.predict,
        "maps": lambda: GradCAMFeatureTransformer(frozen).fit(crops).transform,
        "guided": lambda: GuidedFeatureMap(frozen, random_state=0).fit(crops, labels).transform,
        "masks": lambda: steps_behind(classifier).fit(crops).predict,
    }[what]()
    image = rng.random((1, size, size), dtype=np.float32)
    before = peak()
    result = np.asarray(compute(image))
    return peak() - before, result.nbytes


def train_from_disk(n_images):
    """Return the growth of the anonymous memory, watched after each batch, and the file's size."""
    from skorch.callbacks import Callback

    class Watch(Callback):
        largest = 0

        def on_batch_end(self, net, **kwargs):
            Watch.largest = max(Watch.largest, anonymous())

    with TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        shape = (n_images, SIZE, SIZE)
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        images[::2, 100:120, 100:120] = 200
        labels = np.arange(n_images) % 2
        classifier = MicraNetClassifier(
            n_filters=2, batch_size=8, max_epochs=1, callbacks=[Watch], random_state=0
        )
        before = anonymous()
        classifier.fit(images, labels)
        return Watch.largest - before, images.nbytes


def alone(function, *arguments):
    """Call a function in a process of its own, whose peak memory is then its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main(n_canvases, n_crops, n_on_disk, sizes, n_classes):
    print_machine("scikit-learn", "skorch")
    growth, output = alone(predict, n_canvases)
    print(f"predict, {n_canvases} canvases: {growth / GIB:.2f} GiB, output {output / GIB:.2f} GiB")
    training, extra, memory = alone(fit, n_crops)
    _, _, memory_of_few = alone(fit, n_crops // 8)
    print(
        f"fit, {n_crops} crops: training {training:.1f} s, other steps {extra:.3f} s and "
        f"{memory / 2**20:.1f} MiB ({memory_of_few / 2**20:.1f} MiB for {n_crops // 8} crops)"
    )
    on_disk, size = alone(train_from_disk, n_on_disk)
    print(f"training from a file of {size / GIB:.2f} GiB: {on_disk / GIB:.2f} GiB")
    of_one_image = {}
    for size in sizes:
        for what in ("predict", "maps", "guided", "masks"):
            growth_of_one, output_of_one = alone(one_image, what, size, n_classes)
            beyond = growth_of_one - output_of_one
            print(
                f"one image of {size} px, {n_classes} classes, {what}: "
                f"{beyond / GIB:.2f} GiB besides its output of {output_of_one / GIB:.2f} GiB"
            )
            of_one_image[f"one image of {size} px, {what}: 1 GiB"] = beyond <= GIB
    return verdict(
        of_one_image
        | {
            "predict: output and 1 GiB": growth <= output + GIB,
            f"Pipeline.fit: {extra / training:.2%} longer (claim: 2 %)": extra <= 0.02 * training,
            "Pipeline.fit: no growth with the crops": memory <= memory_of_few + 2**20,
            "training from a file: 0.25 GiB": on_disk <= 0.25 * GIB,
        }
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--canvases", type=int, default=1000)
    parser.add_argument("--crops", type=int, default=3832)
    parser.add_argument("--on-disk", type=int, default=8000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--classes", type=int, default=2, help="present in the one image")
    options = parser.parse_args()
    sys.exit(main(options.canvases, options.crops, options.on_disk, options.sizes, options.classes))
