"""Cell lines of the Cell Tracking Challenge: labels of crops beside the masks of a U-Net.

Networks are trained on whether crops of the frames hold a cell, U-Nets on the masks of the same
frames: cut into crops of which all are used, or only those with a cell. Printed are, for frames
that were not trained on, the accuracy of labels, the F1 of the detected cells, the IoU of masks,
means over seeds with bootstrapped intervals, and what either annotation of the training frames
costs: hours for outlines of all cells, and for labels of all crops.

``--scale small``: frames at half size, narrow networks, minutes on two cores. ``--scale full``:
crops of 128 px in which a cell is half as wide as the crop, for a GPU. ``--data`` is a file with
``images`` and instance ``labels``, or the folder of ``ctc_dic_hela_17.npz``; without it the
``--lines`` are fetched, all six by default, and those frames used of which every cell is drawn::

    python examples/paper/cell_tracking.py --data ctc_dic_hela_17.npz
    python examples/paper/cell_tracking.py --scale full --lines DIC-C2DH-HeLa PhC-C2DH-U373
"""

import sys
from functools import cache

import numpy as np
from _common import TRAINING, data_file, interval, print_table, read_options, seconds_of
from skimage.transform import resize
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    HungarianDetector,
    IntensityScaler,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
    UNetSegmenter,
)
from sklearn_micranet.datasets import fetch_cell_tracking
from sklearn_micranet.images import extract_crops
from sklearn_micranet.metrics import annotation_effort, detection_scores, iou_score

LINES = (
    "DIC-C2DH-HeLa",
    "Fluo-C2DL-MSC",
    "Fluo-N2DH-GOWT1",
    "Fluo-N2DL-HeLa",
    "PhC-C2DH-U373",
    "PhC-C2DL-PSC",
)
SCALES = {
    "small": {
        "seeds": [0, 1],
        "images": 11,
        "size": 48,
        "step": 16,
        "cell": 56,  # width of a usual cell after rescaling, px
        "n_filters": 8,
        "epochs": 15,
        "unet": {"n_filters": 8, "n_poolings": 3, "lr": 3e-3},
        "unet_step": 48,  # every pixel once
        "unet_epochs": 30,
    },
    "full": {
        "seeds": [0, 1, 2, 3, 4],
        "images": 10_000,
        "size": 128,
        "step": 32,
        "cell": 64,
        "n_filters": 32,
        "epochs": 100,
        "unet": {"n_filters": 64, "n_poolings": 4, "lr": 1e-3},
        "unet_step": 32,
        "unet_epochs": 100,
    },
}
AUGMENTATION = ["flip", "turn", "intensity"]
PAPER = "95.8 +- 0.4 %"


def diameter_of(instances):
    """Return the diameter of a disc as large as the median cell, px."""
    areas = np.concatenate([np.bincount(labels.ravel())[1:] for labels in instances])
    return 2 * np.sqrt(np.median(areas[areas > 0]) / np.pi)


def read_frames(line, data):
    """Return frames and instances of a line, and which frames to train on."""
    if data:
        with np.load(data_file(data, "ctc_dic_hela_17.npz")) as file:
            frames, instances = list(file["images"]), list(file["labels"])
        is_first = np.ones(len(frames), dtype=bool)
    else:
        cells = fetch_cell_tracking(line)
        used = np.flatnonzero(cells.complete)
        frames, instances = ([stack[i] for i in used] for stack in (cells.images, cells.masks))
        is_first = cells.sequences[used] == "01"
    if is_first.all() or not is_first.any():  # of one sequence, the last third is scored
        return frames, instances, np.arange(len(frames)) * 3 < 2 * len(frames) - 1
    return frames, instances, is_first


@cache
def prepared(line, data, width):
    """Return frames in [0, 1] whose usual cell is so many px wide, their instances, and a split.

    The last element is by how much the frames were scaled.
    """
    frames, instances, is_train = read_frames(line, data)
    factor = width / diameter_of(instances)
    shapes = [np.rint(np.array(frame.shape) * factor).astype(int) for frame in frames]
    scaled = [resize(f.astype(np.float32), s) for f, s in zip(frames, shapes, strict=True)]
    nearest = {"order": 0, "preserve_range": True, "anti_aliasing": False}
    instances = [
        resize(labels, shape, **nearest).astype(np.int32)
        for labels, shape in zip(instances, shapes, strict=True)
    ]
    return list(IntensityScaler().fit_transform(scaled)), instances, is_train, factor


def data_of(line, settings):
    """Return frames and instances to train on, and those to score."""
    frames, instances, is_train, _ = prepared(line, settings["data"], settings["cell"])
    train, test = np.flatnonzero(is_train)[: settings["images"]], np.flatnonzero(~is_train)
    test = test[: settings["images"]]
    return *([stack[i] for i in train] for stack in (frames, instances)), *(
        [stack[i] for i in test] for stack in (frames, instances)
    )


def splitting(width):
    """Return how masks are cleaned and split into cells of a usual width, px."""
    return {"min_size": round(0.1 * width**2), "min_distance": round(width / 4)}


def score(segmenter, frames, instances, width):
    """Return the detection F1 and the mean IoU of the masks."""
    found = [segmenter.predict_instances([frame])[0] for frame in frames]
    truth = [labels[np.newaxis] for labels in instances]
    points = HungarianDetector().predict(found)
    f1 = detection_scores(truth, points, max_distance=width / 2).f1
    return f1, np.mean([iou_score(t > 0, f > 0)[0] for t, f in zip(truth, found, strict=True)])


def scores_from_labels(line, seed, settings):
    """Return accuracy, share of crops with cells, seconds of training, and (F1, IoU)."""
    frames, instances, test, truth = data_of(line, settings)
    cut = {name: settings[name] for name in ("size", "step")}
    crops, unseen = (
        extract_crops(images, masks=masks, min_coverage=0.01, **cut)
        for images, masks in ((frames, instances), (test, truth))
    )
    classifier = MicraNetClassifier(
        **TRAINING,
        n_filters=settings["n_filters"],
        class_weight="balanced",
        augmentation=AUGMENTATION,
        max_epochs=settings["epochs"],
        checkpoint_dir=settings["checkpoints"],
        random_state=seed,
    ).fit(np.asarray(crops.images), crops.labels)
    accuracy = classifier.score(np.asarray(unseen.images), unseen.labels)
    frozen, split = FrozenEstimator(classifier), splitting(settings["cell"])
    paper = make_pipeline(
        GradCAMFeatureTransformer(frozen),
        PCAFeatureMap(rescale="coarse"),
        ThresholdSegmenter(method="otsu", sigma=3, **split),
    )
    guided = make_pipeline(
        GuidedFeatureMap(frozen, random_state=0), ThresholdSegmenter(method="fixed", **split)
    )
    scores = {
        name: score(Instances(pipe.fit(crops.images, crops.labels)), test, truth, settings["cell"])
        for name, pipe in (("precise", paper), ("guided", guided))
    }
    return accuracy, crops.labels.mean(), seconds_of(classifier), scores


class Instances:
    """A pipeline whose last step numbers the objects."""

    def __init__(self, pipe):
        self.pipe = pipe

    def predict_instances(self, images):
        return self.pipe[-1].predict_instances(self.pipe[:-1].transform(images))


def scores_from_masks(line, seed, with_negatives, settings):
    """Return seconds of training, and (F1, IoU), of a U-Net."""
    frames, instances, test, truth = data_of(line, settings)
    cut = {"size": settings["size"], "step": settings["unet_step"]}
    crops = extract_crops(frames, masks=instances, min_coverage=0.01, **cut)
    masks = np.asarray(extract_crops(instances, **cut).images) > 0
    used = np.flatnonzero((crops.labels == 1) | with_negatives)
    segmenter = UNetSegmenter(
        **TRAINING,
        **settings["unet"],
        **splitting(settings["cell"]),
        augmentation=AUGMENTATION,
        max_epochs=settings["unet_epochs"],
        checkpoint_dir=settings["checkpoints"],
        random_state=seed,
    ).fit(np.asarray(crops.images)[used], masks[used])
    return seconds_of(segmenter), score(segmenter, test, truth, settings["cell"])


def print_effort(line, settings):
    """Print what annotating the training frames costs, in the pixels they were taken with."""
    _, instances, is_train = read_frames(line, settings["data"])
    factor = prepared(line, settings["data"], settings["cell"])[-1]
    drawn = [instances[i][np.newaxis] for i in np.flatnonzero(is_train)[: settings["images"]]]
    cut = {"crop_size": "size", "step": "step"}
    effort = annotation_effort(
        drawn, **{name: round(settings[key] / factor) for name, key in cut.items()}
    )
    rows = {
        name: [f"{n}", f"{decisions}", f"{hours:.2f}"]
        for name, n, decisions, hours in zip(
            *(effort[k] for k in ("annotation", "n_items", "decisions", "hours")), strict=True
        )
    }
    print_table(
        f"{line}: effort for {len(drawn)} training frames", ["items", "decisions", "hours"], rows
    )


def main(argv=None):
    more = {"--lines": {"nargs": "+", "choices": LINES, "default": LINES}}
    options, settings, memory = read_options(
        __doc__, SCALES, argv, data_help="file of frames and instances", more=more
    )
    from_labels, from_masks = (memory.cache(f) for f in (scores_from_labels, scores_from_masks))
    lines = [options.data.stem] if options.data else options.lines
    accuracies = {}
    for line in lines:
        scores, seconds = {}, {}
        for seed in options.seeds:
            accuracy, share, of_training, found = from_labels(line, seed, settings)
            accuracies.setdefault(line, []).append(accuracy)
            seconds.setdefault("labels", []).append(of_training)
            for with_negatives, name in ((True, "U-Net"), (False, "U-Net, no negatives")):
                of_training, found[name] = from_masks(line, seed, with_negatives, settings)
                seconds.setdefault(name, []).append(of_training)
            for name, values in found.items():
                scores.setdefault(name, []).append(values)
            print(f"{line}, seed {seed}: accuracy {accuracy:.3f}; {share:.0%} of crops with cells")
            sys.stdout.flush()
        rows = {name: [interval(of) for of in np.transpose(v)] for name, v in scores.items()}
        print_table(f"{line}: cells and masks", ["detection F1", "IoU"], rows)
        print(
            "Seconds of training: " + ", ".join(f"{k} {np.mean(v):.0f}" for k, v in seconds.items())
        )
        print_effort(line, settings)
    rows = {line: ["", interval(values)] for line, values in accuracies.items()}
    mean = np.mean(list(accuracies.values()), axis=0)
    print_table(
        "accuracy of labels", ["the paper", "here"], rows | {"all lines": [PAPER, interval(mean)]}
    )


if __name__ == "__main__":
    sys.exit(main())
