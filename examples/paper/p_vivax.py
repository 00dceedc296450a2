"""Parasites in blood smears: from one microscope to another with 12, 24 or 36 labelled images.

A network is trained on whether crops of smears hold a part of an infected cell, and applied to the
smears of another microscope: as it is (naive), with another decision threshold, and after its
linear layer and its last 0, 1, 2 or 4 depths were trained further on labelled images of these, in
folds that are scored on the other images. Printed are the accuracy of labels, F1 and average
precision of the detected cells, and the precision at several recalls: means over seeds, each over
its folds, with bootstrapped intervals.

``--scale small`` runs on smears that are generated here, in minutes on two cores. ``--scale full``
fetches BBBC041, whose test images come from another laboratory than its training images, and needs
a GPU. With ``--data``, a folder as of ``fetch_p_vivax(data_home=...)``, its smears are used at
either scale::

    python examples/paper/p_vivax.py
    python examples/paper/p_vivax.py --scale full
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
from _common import TRAINING, interval, print_table, read_options
from scipy.ndimage import gaussian_filter
from sklearn.utils import Bunch

from sklearn_micranet import IntensityScaler, MicraNetClassifier
from sklearn_micranet.datasets import fetch_p_vivax
from sklearn_micranet.images import extract_crops
from sklearn_micranet.metrics import detection_precision_recall_curve, detection_scores

sys.path.insert(0, str(Path(__file__).parents[1]))
from _new_microscope import DEPTHS, N_IMAGES, make_pipeline, strategies

SCALES = {
    "small": {
        "seeds": [0, 1, 2],
        "images": 150,
        "n_scored": 30,
        "folds": 2,
        "crop": {"size": 48, "step": 48},
        "radius": 8,  # of a cell, px
        "n_filters": 8,
        "lr": 3e-3,
        "epochs": 15,
        "tuning": {"lr": 1e-3, "batch_size": 12},
        "tuning_epochs": 15,
    },
    "full": {
        "seeds": [0, 1, 2, 3, 4],
        "images": 1207,
        "n_scored": 120,
        "folds": 3,
        "crop": {"size": 256, "step": 192},
        "radius": 60,
        "n_filters": 32,
        "lr": 1e-4,
        "epochs": 200,
        "tuning": {"lr": 1e-5, "batch_size": 64},
        "tuning_epochs": 100,
    },
}
STRATEGIES = ("naive", "threshold only", *(f"depth {depth}" for depth in DEPTHS))
RECALLS = (0.25, 0.5, 0.75)
PAPER = {  # accuracy, detection F1
    "naive": ("78 +- 13 %", "0.44 +- 0.13"),
    "threshold only": ("> 87 %", ""),
    "depth 2": ("> 88 %", "0.82 +- 0.01"),
}


def draw_smear(rng, side=96, radius=8):
    """Return an RGB smear of pale red cells, and the boxes of the cells with a purple parasite."""
    rows, columns = np.indices((side, side))
    colours = {
        "ground": (0.93, 0.88, 0.86),
        "cell": (0.85, 0.62, 0.62),
        "stain": (0.45, 0.25, 0.55),
    }
    image = np.ones((side, side, 3)) * colours["ground"]
    centres, boxes = [], []
    is_infected = rng.random(20) < rng.choice([0.0, 0.25])
    for infected in is_infected:
        row, column = centre = rng.integers(radius + 1, side - radius - 1, 2)
        if any(np.hypot(*(centre - other)) < 2.2 * radius for other in centres):
            continue
        centres.append(centre)
        distance = np.hypot(rows - row, columns - column) / (radius * rng.uniform(0.85, 1))
        image[distance < 1] = colours["cell"]
        image[distance < 0.4] *= 1.08
        if infected:
            boxes.append((row - radius, column - radius, row + radius + 1, column + radius + 1))
            shift = rng.uniform(-0.35, 0.35, 2) * radius
            inside = np.hypot(rows - row - shift[0], columns - column - shift[1])
            image[abs(inside - 2.5) < 1.2 + rng.uniform(0, 1)] = colours["stain"]
        elif rng.random() < 0.2:  # dirt, brown and outside of cells
            image[np.hypot(rows - row - 1.4 * radius, columns - column) < 2] = (0.5, 0.4, 0.3)
    image = gaussian_filter(image, (0.7, 0.7, 0)) + rng.normal(0, 0.02, image.shape)
    return image.clip(0, 1), np.array(boxes, dtype=int).reshape(-1, 4)


def other_microscope(image, rng):
    """Return the smear as another microscope shows it: yellowish, dim, blurred, noisy."""
    light = gaussian_filter(image**1.3, (1, 1, 0)) * (0.85, 0.75, 0.6)
    light *= np.linspace(0.8, 1, image.shape[1])[:, np.newaxis]
    return (light + rng.normal(0, 0.03, image.shape)).clip(0, 1)


def generated(n, *, is_other, random_state):
    """Return smears and boxes as `fetch_p_vivax` does."""
    rng = np.random.default_rng(random_state)
    images, boxes = zip(*(draw_smear(rng) for _ in range(n)), strict=True)
    if is_other:
        images = [other_microscope(image, rng) for image in images]
    return [np.uint8(255 * image) for image in images], list(boxes)


@cache
def smears(subset, data, is_generated, n):
    """Return standardised smears and boxes: of the "train" or "test" microscope."""
    is_other = subset == "test"
    if is_generated:
        images, boxes = generated(n, is_other=is_other, random_state=int(is_other))
    else:
        images, boxes = fetch_p_vivax(subset=subset, data_home=data, return_X_y=True)
        images, boxes = images[:n], boxes[:n]
    return IntensityScaler(method="standard").fit_transform(images), boxes


def data_of(subset, settings):
    n = settings["images"] if subset == "train" else max(N_IMAGES) + settings["n_scored"]
    is_generated = settings["data"] is None and settings["scale"] == "small"
    return smears(subset, settings["data"], is_generated, n)


def cut(images, boxes, settings):
    """Return crops, in half the memory, with labels: whether 5 % of an infected cell is inside."""
    crops = extract_crops(images, boxes=boxes, min_overlap=0.05, **settings["crop"])
    return Bunch(images=np.asarray(crops.images, dtype=np.float16), labels=crops.labels)


def trained(seed, settings):
    crops = cut(*data_of("train", settings), settings)
    return MicraNetClassifier(
        **TRAINING,
        n_filters=settings["n_filters"],
        lr=settings["lr"],
        batch_size=64,
        augmentation=["flip", "turn"],
        class_weight="balanced",
        max_epochs=settings["epochs"],
        checkpoint_dir=settings["checkpoints"],
        random_state=seed,
    ).fit(crops.images, crops.labels)


def scores_of(classifier, images, boxes, settings):
    """Return accuracy of crops, detection F1, average precision, and precision at `RECALLS`."""
    crops, radius = cut(images, boxes, settings), settings["radius"]
    detect = make_pipeline(classifier).set_params(
        segment__sigma=radius / 5, segment__min_size=radius**2 // 2
    )
    found = detect.fit(images).predict(images)
    points = [np.insert((b[:, :2] + b[:, 2:] - 1) / 2, 0, 0, axis=1) for b in boxes]
    f1 = detection_scores(points, found, max_distance=radius).f1
    precision, recall, _ = detection_precision_recall_curve(points, found, max_distance=radius)
    at = [precision[recall >= r].max(initial=0) for r in RECALLS]
    average = -np.sum(np.diff(recall) * precision[:-1])
    return [np.mean(classifier.predict(crops.images) == crops.labels), f1, average, *at]


def scores_of_fold(seed, n_images, fold, settings):
    """Return the scores of each strategy, adapted to a fold of images, on the others."""
    images, boxes = data_of("test", settings)
    order = np.random.default_rng(0).permutation(len(images))
    known, unknown = np.split(np.roll(order, -fold * n_images), [min(n_images, len(images) // 2)])
    classifier = trained(seed, settings)
    adapted = strategies(
        classifier,
        cut([images[i] for i in known], [boxes[i] for i in known], settings),
        None,  # all crops
        seed,
        n_filters=settings["n_filters"],
        max_epochs=settings["tuning_epochs"],
        checkpoint_dir=settings["checkpoints"],
        **settings["tuning"],
    )
    scored = [images[i] for i in unknown], [boxes[i] for i in unknown]
    return {
        name: scores_of(adapted_classifier, *scored, settings)
        for name, adapted_classifier in [("naive", classifier), *adapted]
    }


def main(argv=None):
    options, settings, memory = read_options(
        __doc__, SCALES, argv, data_help="folder of the data sets, that of fetch_p_vivax"
    )
    of_fold = memory.cache(scores_of_fold)
    for n_images in N_IMAGES:
        of_seeds = []
        for seed in options.seeds:
            folds = [of_fold(seed, n_images, fold, settings) for fold in range(settings["folds"])]
            of_seeds.append([[fold[name] for fold in folds] for name in STRATEGIES])
            print(f"{n_images} images, seed {seed}: done", flush=True)
        # Axes of the mean: strategies, scores, seeds.
        means = np.mean(of_seeds, axis=2).transpose(1, 2, 0)
        header = ["accuracy", "the paper", "F1", "the paper", "average precision"]
        header += [f"precision at recall {recall}" for recall in RECALLS]
        rows = {}
        for name, (accuracy, f1, *others) in zip(STRATEGIES, means, strict=True):
            of_accuracy, of_f1 = PAPER.get(name, ("", ""))
            cells = [interval(accuracy), of_accuracy, interval(f1), of_f1, interval(others[0])]
            rows[name] = cells + [f"{np.mean(values):.3f}" for values in others[1:]]
        print_table(f"{n_images} labelled images of the new microscope", header, rows)
    print("\nThe paper: F1 between experts 0.61.")


if __name__ == "__main__":
    sys.exit(main())
