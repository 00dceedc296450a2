"""Few objects in huge fields: how many unlabelled windows to train on, and what is left to inspect.

Networks are trained on windows around annotated objects and on so many unlabelled ones for each,
2:1 to 1:16 as in the paper's Fig. 6b; they sweep fields that were not trained on, and an expert
inspects what they propose. Printed are, means over seeds with bootstrapped intervals: the share of
the area inspected when 79 % of the objects are found, which is the recall that two experts have of
each other; the accuracy of as many windows with as without an object; and the IoU of the masks of
the objects. A figure shows recall against the area inspected.

The fields are generated, as the paper's electron micrographs are not public. An annotator has
missed 21 % of the objects, which are then among the unlabelled. All ratios train for about the
same number of steps: the more unlabelled windows, the fewer times each positive one is seen.

``--scale small``: objects of 32 px, narrow networks, a quarter of an hour on two cores.
``--scale full``: objects of 113 px in fields of 10,240 px, windows of 512 px, for a GPU::

    python examples/paper/sparse_fields.py --figure recall.png
"""

import sys
from functools import cache

import numpy as np
from _common import TRAINING, interval, print_table, read_options
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    FieldSegmenter,
    GradCAMFeatureTransformer,
    IntensityScaler,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet.datasets import make_sparse_field
from sklearn_micranet.images import extract_crops
from sklearn_micranet.metrics import inspection_curve, iou_score

SCALES = {
    "small": {
        "seeds": [0, 1, 2, 3, 4],
        "images": 3,  # fields to train on
        "side": 1536,  # of a field, px
        "n_objects": 8,
        "object_size": 32,
        "n_scored": 4,  # fields
        "size": 64,  # of a window, px
        "n_filters": 8,
        "lr": 3e-3,
        "epochs": 6,  # at 1:5, and of others so that all see as many windows
    },
    "full": {
        "seeds": [0, 1, 2, 3, 4],
        "images": 20,
        "side": 10240,
        "n_objects": (1, 10),
        "object_size": 113,
        "n_scored": 10,
        "size": 512,
        "n_filters": 32,
        "lr": 1e-4,
        "epochs": 600,
    },
}
RATIOS = {"2:1": 0.5, "1:1": 1, "1:2": 2, "1:5": 5, "1:8": 8, "1:16": 16}
RECALL = 0.79  # of two experts
PAPER = {"area to inspect": "3.13 %", "accuracy": "83-90 %", "IoU": "0.62 +- 0.03 at 1:5"}
INSPECTED = np.concatenate([[0], np.geomspace(0.001, 1, 60)])  # where curves are averaged


@cache
def fields_of(subset, side, n_objects, object_size, n):
    """Return fields and, of each object, whether an annotator has found it."""
    seeds = range(n) if subset == "train" else range(1000, 1000 + n)
    drawn = {"n_objects": n_objects, "object_size": object_size}
    fields = [make_sparse_field((side, side), **drawn, random_state=seed) for seed in seeds]
    rng = np.random.default_rng(0)
    return fields, [rng.random(len(field.boxes)) < RECALL for field in fields]


def segmenter_of(ratio, seed, settings):
    """Return the paper's pipeline, for whole fields."""
    network = MicraNetClassifier(
        **TRAINING,
        n_filters=settings["n_filters"],
        lr=settings["lr"],
        max_epochs=max(1, round(settings["epochs"] * 6 / (1 + ratio))),
        negatives_per_positive=ratio,
        augmentation=["flip", "turn"],
        checkpoint_dir=settings["checkpoints"],
        random_state=seed,
    )
    pipeline = make_pipeline(
        IntensityScaler(method="dtype"),
        GradCAMFeatureTransformer(network),
        PCAFeatureMap(layers=("L7",)),
        ThresholdSegmenter(sigma=2, keep="peak"),
    )
    return FieldSegmenter(pipeline, size=settings["size"], annotation="boxes", random_state=seed)


def find_new_objects(table, fields):
    """Return whether each window, by rank, is the first to show the centre of some object."""
    found, is_new = set(), []
    for i, index in enumerate(table["field"]):
        first = table["first_row"][i], table["first_column"][i]
        end = table["end_row"][i], table["end_column"][i]
        points = fields[index].points
        inside = ((points >= first) & (points < end)).all(axis=1)
        shown = {(index, k) for k in np.flatnonzero(inside)}
        is_new.append(bool(shown - found))
        found |= shown
    return is_new


def balanced_accuracy(segmenter, fields):
    """Return the accuracy of windows, with and without an object counting alike."""
    images, step = [field.image for field in fields], segmenter.step or segmenter.size // 2
    crops = extract_crops(images, size=segmenter.size, step=step, boxes=[f.boxes for f in fields])
    found = np.concatenate([p[..., 1].ravel() for p in segmenter.predict_proba_map(images)]) >= 0.5
    return np.mean([np.mean(found[crops.labels == label] == label) for label in (0, 1)])


def iou_of_masks(segmenter, fields):
    """Return the mean IoU of the masks in windows around the objects."""
    size, windows, truth = segmenter.size, [], []
    for field in fields:
        whole = np.zeros(field.image.shape, dtype=bool)
        for (row, column, end_row, end_column), mask in zip(field.boxes, field.masks, strict=True):
            whole[row:end_row, column:end_column] |= mask
        for point in field.points:
            corner = np.clip(point.astype(int) - size // 2, 0, np.subtract(whole.shape, size))
            window = tuple(slice(c, c + size) for c in corner)
            windows.append(field.image[window])
            truth.append(whole[window][np.newaxis])
    masks = np.asarray(segmenter.estimator_.predict(np.stack(windows)))
    return float(np.mean(iou_score(np.stack(truth), masks)))


def scores_of(seed, name, settings):
    """Return the area to inspect, accuracy and IoU of a network, and its recall at `INSPECTED`."""
    drawing = [settings[key] for key in ("side", "n_objects", "object_size")]
    train, is_annotated = fields_of("train", *drawing, settings["images"])
    test, _ = fields_of("test", *drawing, settings["n_scored"])
    segmenter = segmenter_of(RATIOS[name], seed, settings).fit(
        [field.image for field in train],
        [field.boxes[found] for field, found in zip(train, is_annotated, strict=True)],
    )
    accuracy = balanced_accuracy(segmenter, test)
    segmenter.set_params(step=settings["size"] // 4)
    images = [field.image for field in test]
    table = segmenter.propose(images, max_overlap=0.5, as_frame=False)
    n_true = sum(len(field.points) for field in test)
    curve = inspection_curve(
        table["score"],
        find_new_objects(table, test),
        areas=table["area"],
        total_area=sum(image.size for image in images),
        n_true=n_true,
    )
    reached = np.flatnonzero(curve.recall >= RECALL)
    area = curve.inspected[reached[0]] if len(reached) else 1.0
    places = np.searchsorted(curve.inspected, INSPECTED, side="right") - 1
    return [area, accuracy, iou_of_masks(segmenter, test)], curve.recall[places]


def draw(curves, path):
    """Draw the mean recall of each ratio against the area inspected."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(layout="constrained")
    for i, (name, recalls) in enumerate(curves.items()):
        color = plt.get_cmap("viridis")(i / len(curves))
        ax.plot(INSPECTED, np.mean(recalls, axis=0), color=color, label=name)
        low, high = np.min(recalls, axis=0), np.max(recalls, axis=0)
        ax.fill_between(INSPECTED, low, high, color=color, alpha=0.1, linewidth=0)
    ax.axhline(RECALL, color="grey", linestyle=":", label="two experts")
    ax.plot(0.0313, RECALL, "k*", markersize=10, label="the paper")
    ax.set(xscale="log", xlim=(0.001, 1), ylim=(0, 1.02))
    ax.set(xlabel="share of the area inspected", ylabel="recall of objects, mean and range")
    ax.legend(title="positive : unlabelled", loc="lower right")
    figure.savefig(path, dpi=150)


def main(argv=None):
    more = {"--figure": {"help": "file in which recall is drawn against the area inspected"}}
    options, settings, memory = read_options(
        __doc__, SCALES, argv, data_help="not used: the fields are generated", more=more
    )
    of_network = memory.cache(scores_of)
    found = {name: [] for name in RATIOS}
    for seed in options.seeds:
        for name, of_ratio in found.items():
            of_ratio.append(of_network(seed, name, settings))
            area, accuracy, iou = of_ratio[-1][0]
            print(
                f"seed {seed}, {name}: {area:.1%} to inspect, accuracy {accuracy:.3f}, "
                f"IoU {iou:.3f}",
                flush=True,
            )
    rows, curves = {}, {}
    for name, of_ratio in found.items():
        scores, curves[name] = zip(*of_ratio, strict=True)
        rows[name] = [interval(values) for values in np.transpose(scores)]
    rows["the paper"] = list(PAPER.values())
    print_table("networks by positive : unlabelled windows", list(PAPER), rows)
    if options.figure:
        draw(curves, options.figure)


if __name__ == "__main__":
    sys.exit(main())
