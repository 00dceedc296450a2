"""F-actin in neurons: periodic rings and longitudinal fibres from labels of crops.

A network is trained on which of the two nanostructures cover at least 5 % of a crop of a dendrite.
Printed are, for unseen crops, the accuracy of labels, F1, IoU and boundary Dice of the paper's
masks and of guided ones, by what is bright and by texture, and the two scores that ask the image
instead of the expert: how much of the spectrum at the rings' period of 170 to 200 nm a mask loses,
and which share of a mask of fibres is brighter than a threshold. These are also printed for the
experts' own masks. All are means over seeds with bootstrapped intervals.

``--scale small`` runs on dendrites that are generated here, in minutes on two cores. ``--scale
full`` fetches the paper's images and needs a GPU and h5py. With ``--data``, a folder as of
``fetch_f_actin(data_home=...)``, its images are used at either scale::

    python examples/paper/f_actin.py
    python examples/paper/f_actin.py --scale full
"""

import sys
from functools import cache

import numpy as np
from _common import MASK_SCORES, TRAINING, interval, print_table, read_options, score_masks
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.utils import Bunch

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    IntensityScaler,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet.datasets import fetch_f_actin
from sklearn_micranet.images import extract_crops
from sklearn_micranet.metrics import bright_share, bright_threshold, spectrum_change

SCALES = {
    "small": {
        "seeds": [0, 1, 2],
        "images": 80,
        "n_scored": 30,
        "crop": {"size": 64, "step": 48},
        "n_filters": 8,
        "lr": 3e-3,
        "epochs": 15,
    },
    "full": {
        "seeds": [0, 1, 2, 3, 4],
        "images": 10_000,
        "n_scored": 10_000,
        "crop": {"size": 256, "step": 192},
        "n_filters": 32,
        "lr": 1e-3,
        "epochs": 250,
    },
}
NAMES = ("rings", "fibres")
POSITIVE_WEIGHTS = {0: 3.3, 1: 1.6}
PIXEL_SIZE = 20  # nm
PERIOD = 180  # nm, of the generated rings
PAPER = ("75.2 %", "83.7 %")


def draw_dendrite(rng, side=160):
    """Return an image, the masks of its rings and fibres, and that of its dendrite."""
    rows, columns = np.indices((side, side)) - side / 2
    angle = rng.uniform(0, np.pi)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    across += 6 * np.sin(along / 25 + rng.uniform(0, 6)) + rng.uniform(-20, 20)
    dendrite = abs(across) < rng.uniform(18, 30)
    image, masks = 0.05 + 0.15 * dendrite, np.zeros((2, side, side), bool)
    for mask, present in zip(masks, rng.random(2) < 0.6, strict=True):
        middle, length = rng.uniform(-side / 3, side / 3), rng.uniform(25, 45)
        mask |= dendrite & (abs(along - middle) < length) & present
    masks[1] &= ~masks[0]
    image += masks[0] * 0.12 * (1 + np.cos(2 * np.pi * along * PIXEL_SIZE / PERIOD))
    lines = np.cos(2 * np.pi * (across + rng.uniform(0, 20)) / rng.uniform(12, 18))
    image += masks[1] * 0.35 * (lines > 0.8)
    for row, column in rng.integers(0, side, (4, 2)):  # bright spots that say nothing
        image[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] += 0.4
    image = rng.poisson(150 * gaussian_filter(image, 1)) / 150
    return image.astype(np.float32), masks, dendrite


@cache
def neurons(subset, data, is_generated, n):
    """Return images, masks and dendrites as `fetch_f_actin` does."""
    if not is_generated:
        found = fetch_f_actin(subset=subset, data_home=data)
        return found.images[:n], found.masks[:n], found.dendrites[:n]
    rng = np.random.default_rng(subset == "test")
    return tuple(zip(*(draw_dendrite(rng) for _ in range(n)), strict=True))


def crops_of(subset, settings):
    """Return the crops of dendrites with their labels and masks."""
    n = min(settings["images"], settings["n_scored" if subset == "test" else "images"])
    is_generated = settings["data"] is None and settings["scale"] == "small"
    images, masks, dendrites = neurons(subset, settings["data"], is_generated, n)
    cut = {**settings["crop"], "foreground": dendrites, "min_foreground": 0.1}
    crops = extract_crops(images, masks=masks, min_coverage=0.05, **cut)
    of_classes = [extract_crops([m[k] for m in masks], **cut).images for k in range(len(NAMES))]
    masks = np.stack([np.asarray(stack) for stack in of_classes], axis=1)
    return Bunch(images=np.asarray(crops.images), labels=crops.labels, masks=masks)


def bright_surroundings(image):
    """The dendrite, as the network's own images show it."""
    blurred = gaussian_filter(image, 20)
    return blurred > threshold_otsu(blurred)


def ask_image(images, masks, threshold):
    """Return the mean change of the spectrum by masks of rings, and share of bright fibres."""
    change = [
        spectrum_change(image, mask, pixel_size=PIXEL_SIZE)
        for image, mask in zip(images, masks[:, 0], strict=True)
        if mask.any()
    ]
    share = [
        bright_share(image, mask, threshold=threshold)
        for image, mask in zip(images, masks[:, 1], strict=True)
        if mask.any()
    ]
    return [np.mean(values) if values else np.nan for values in (change, share)]


def scores_of_seed(seed, settings):
    """Return the accuracy of each class, the scores of masks, and what the images say of masks."""
    train, test = (crops_of(subset, settings) for subset in ("train", "test"))
    scaler = IntensityScaler(method="training_range").fit(train.images)
    images, unseen = (np.asarray(scaler.transform(crops.images)) for crops in (train, test))
    classifier = MicraNetClassifier(
        **TRAINING,
        n_filters=settings["n_filters"],
        lr=settings["lr"],
        batch_size=64,
        class_weight=POSITIVE_WEIGHTS,
        augmentation=["flip", "intensity", "gamma"],
        max_epochs=settings["epochs"],
        checkpoint_dir=settings["checkpoints"],
        random_state=seed,
    ).fit(images, train.labels)
    frozen = FrozenEstimator(classifier)
    paper = make_pipeline(
        GradCAMFeatureTransformer(frozen, min_max=True, include_image=True),
        PCAFeatureMap(orient=True, rescale="coarse", foreground=bright_surroundings),
        ThresholdSegmenter(sigma=1, method="quantile", quantile=0.8),
    )
    # Experts outline areas in which there are stripes, whatever lies between these: a texture.
    guided = {
        name: make_pipeline(
            GuidedFeatureMap(frozen, features=features, random_state=0),
            ThresholdSegmenter(method="fixed"),
        )
        for name, features in (("guided", "auto"), ("guided, texture", "texture"))
    }
    # The experts' masks of fibres teach how bright a fibre is; they train nothing.
    threshold = bright_threshold(train.images, train.masks[:, 1])
    scores, by_image = {}, {"experts": ask_image(test.images, test.masks, threshold)}
    for name, pipe in {"precise": paper, **guided}.items():
        masks = np.asarray(pipe.fit(images, train.labels).predict(unseen))
        of_masks = score_masks(
            lambda part, masks=masks: masks[part], np.arange(len(masks)), test.masks
        )
        scores[name] = np.nanmean(of_masks, axis=1)
        by_image[name] = ask_image(test.images, masks, threshold)
    return np.mean(classifier.predict(unseen) == test.labels, axis=0), scores, by_image


def main(argv=None):
    options, settings, memory = read_options(
        __doc__, SCALES, argv, data_help="folder of the data sets, that of fetch_f_actin"
    )
    of_seed = memory.cache(scores_of_seed)
    results = []
    for seed in options.seeds:
        results.append(of_seed(seed, settings))
        print(f"seed {seed}: accuracy {results[-1][0].round(3)}", flush=True)
    accuracies, scores, by_image = zip(*results, strict=True)
    rows = {
        name: [paper, interval(values)]
        for name, paper, values in zip(NAMES, PAPER, np.transpose(accuracies), strict=True)
    }
    print_table("accuracy of labels", ["the paper", "here"], rows)
    for k, name in enumerate(NAMES):
        rows = {
            method: [interval(v) for v in np.transpose([s[method][:, k] for s in scores])]
            for method in scores[0]
        }
        print_table(f"masks of {name}", list(MASK_SCORES), rows)
    rows = {
        method: [interval(values) for values in np.transpose([s[method] for s in by_image])]
        for method in by_image[0]
    }
    print_table("what the image says", ["rings: change of spectrum", "fibres: bright share"], rows)


if __name__ == "__main__":
    sys.exit(main())
