"""A whole field of view: window scores, against cutting every window and a plain forward pass.

A memory-mapped field of 10,240 x 10,240 px (uint8), 16 filters at depth 1, windows of 256 px at an
overlap of 75 %. Exits with 1 if a claim fails:

- the scores of all windows are at least 10 times faster than cutting and predicting every window
  (measured on 48 windows, and extrapolated);
- they take at most 1.3 times as long as one forward pass over the same pixels without overlap, in
  squares of 256 px, on which the network is fastest;
  (these are timed in turns on a square of 2,048 px of the field, so that all meet the same noise);
- their peak memory is at most 1.5 GiB, and the same within 10 % for a field of twice the height.

Time and memory of objects and masks, written to Zarr, are reported: of the objects with the sweep,
of the masks from what `memory` has kept of it. Run with
``python examples/benchmarks/fields.py``; ``--side 2048`` is quicker. Memory is read from Linux's
/proc, without the pages of the file.
"""

import argparse
import sys
import threading
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from _side_by_side import SIZE, classifier_that_finds, print_machine, ratio, side_by_side, verdict
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    FieldSegmenter,
    GradCAMFeatureTransformer,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet._fields._grid import WindowGrid, blocks_of
from sklearn_micranet._fields._scores import cut_windows

STEP = SIZE // 4
N_FILTERS = 16
TIMED = 2048  # px, side of what the contenders are timed on
N_CUT = 48  # windows that are cut out to extrapolate from
GIB = 2**30


def make_field(path, shape):
    field = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    rng = np.random.default_rng(0)
    for row in range(0, shape[0], 1024):
        field[row : row + 1024] = rng.integers(0, 255, field[row : row + 1024].shape)
    field.flush()


def sweeper(estimator):
    parameters = {"size": SIZE, "step": STEP, "n_fit_samples": None}
    crop = np.zeros((1, SIZE, SIZE), dtype=np.uint8)
    return FieldSegmenter(FrozenEstimator(estimator), **parameters).fit(crop)


def classifier():
    return classifier_that_finds([], n_classes=2, n_filters=N_FILTERS)


@torch.inference_mode()
def forward(network, field):
    for first_row, end_row, first_column, end_column in blocks_of(field.shape, SIZE):
        square = field[first_row:end_row, first_column:end_column].astype(np.float32)
        network(torch.from_numpy(square)[None, None])


def anonymous():
    """Memory of this process that belongs to no file, in bytes (Linux)."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def peak_of(run):
    """Return the seconds that a function takes and by how much memory grows meanwhile."""
    before, largest, done = anonymous(), [0], threading.Event()

    def watch():
        while not done.wait(0.01):
            largest[0] = max(largest[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    start = perf_counter()
    run()
    seconds = perf_counter() - start
    done.set()
    thread.join()
    return seconds, largest[0] - before


def sweep(path):
    field, segmenter = np.load(path, mmap_mode="r"), sweeper(classifier())
    return peak_of(lambda: segmenter.decision_map([field]))


def segment(path):
    """Return seconds and memory of objects and then masks, with maps of one window in 500."""
    import zarr

    field, found = np.load(path, mmap_mode="r"), classifier()
    for parameter in found.module_.linear.parameters():
        parameter.data /= 1000  # or every window of unscaled pixels has the probability 0 or 1
    (probabilities,) = sweeper(found).predict_proba_map([field])
    found.set_params(threshold=[float(np.quantile(probabilities[..., 0], 0.998)), 1.0])
    pipeline = make_pipeline(
        GradCAMFeatureTransformer(FrozenEstimator(found)), PCAFeatureMap(), ThresholdSegmenter()
    )
    segmenter = sweeper(pipeline.fit(np.zeros((1, SIZE, SIZE), dtype=np.uint8)))
    segmenter.set_params(memory=str(path.with_suffix("")))

    def store(name, dtype):
        shape = {"shape": (2, *field.shape), "chunks": (1, 512, 512), "dtype": dtype}
        return zarr.create_array(path.with_suffix(f".{name}.zarr"), **shape)

    objects, masks = store("objects", "int32"), store("masks", "bool")
    return (
        peak_of(lambda: segmenter.predict_instances([field], out=[objects])),
        peak_of(lambda: segmenter.predict([field], out=[masks])),
    )


def alone(function, *arguments):
    """Call a function in a process of its own, whose memory is then its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def time_scores(field, n_rounds):
    """Return how many times as long as the scores cutting takes, and they as a forward pass."""
    network = classifier()
    segmenter, grid = sweeper(network), WindowGrid(field.shape, SIZE, STEP)
    n_windows = int(np.prod(grid.n_windows))
    some = np.linspace(0, n_windows - 1, N_CUT).astype(int)
    print(f"{field.shape} px, {n_windows} windows, of which {N_CUT} are cut out:")
    contenders = {
        "all windows, shared": lambda: segmenter.decision_map([field]),
        "one forward pass": lambda: forward(network.module_, field),
        "some windows, cut out": lambda: network.decision_function(cut_windows(field, grid, some)),
    }
    seconds = side_by_side(contenders, n_rounds)
    cut = ratio(seconds, "some windows, cut out", "all windows, shared") * n_windows / N_CUT
    return cut, ratio(seconds, "all windows, shared", "one forward pass")


def main(side, n_rounds):
    print_machine("scikit-learn")
    with TemporaryDirectory() as folder:
        path, tall = Path(folder, "field.npy"), Path(folder, "tall.npy")
        make_field(path, (side, side))
        make_field(tall, (2 * side, side))
        cut, to_plain = time_scores(np.load(path, mmap_mode="r")[:TIMED, :TIMED], n_rounds)
        time, memory = alone(sweep, path)
        print(f"scores of {side} x {side} px: {time:.0f} s, {memory / GIB:.3f} GiB")
        time, of_tall = alone(sweep, tall)
        print(f"of {2 * side} x {side} px: {time:.0f} s, {of_tall / GIB:.3f} GiB")
        for name, (time, peak) in zip(("objects", "masks"), alone(segment, path), strict=True):
            print(f"{name} to Zarr: {time:.0f} s, {peak / GIB:.3f} GiB")
    return verdict(
        {
            f"{cut:.0f} times faster than cutting every window (claim: 10)": cut >= 10,
            f"{to_plain:.2f} of the time of a forward pass (claim: 1.3)": to_plain <= 1.3,
            f"{memory / GIB:.2f} GiB (claim: 1.5)": memory <= 1.5 * GIB,
            f"{of_tall / memory:.2f} of it if twice as tall (claim: 1.1)": of_tall <= 1.1 * memory,
        }
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=10240)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sys.exit(main(options.side, options.rounds))
