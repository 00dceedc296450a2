"""Outlines from labels of images: guided maps against the paper's maps and Otsu's threshold.

All methods look through the same networks, one for each data set and seed, trained on labels only.
Masks of the scored images choose nothing. Printed are the mean over images and classes with a true
or a predicted mask, and a bootstrapped 95 % interval over images. Exits with 1 if the guided maps
are more than 0.01 below the best of the others anywhere.

Digits, textures and fibres are made here; nuclei, DIC cells and other handwriting are read from
the folder of ``--data`` (``dsb2018_nuclei_160.npz``, ``ctc_dic_hela_17.npz``,
``mnist_train_10k.npz``)::

    python examples/benchmarks/outlines.py --sets digits fibres --seeds 0 1 2
    python examples/benchmarks/outlines.py --sets nuclei --data folder --ablate
"""

import argparse
import sys
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import joblib
import numpy as np
from scipy.stats import bootstrap
from skimage.filters import threshold_otsu
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet import datasets as made
from sklearn_micranet._guided import _recipe
from sklearn_micranet.images import extract_crops
from sklearn_micranet.metrics import dice_score, iou_score, symmetric_boundary_dice_score

SCORES = {"IoU": iou_score, "Dice": dice_score, "boundary": symmetric_boundary_dice_score}
N_FILTERS = 16
ABLATIONS = {
    "features: intensity": {"features": "intensity"},
    "features: both": {"features": "both"},
    "features: texture": {"features": "texture"},
    "no blur": {"_BLUR": 0.0},
    "no smallest contrast": {"_MIN_CONTRAST": 0.0},
    "no wide features": {"_DENSE_FROM": 2.0},
}


def canvases(digits, n_train, size, n_digits, n_test):
    """Canvases of the first digits to train on, and of the others to score."""
    images, labels = digits
    options = {"image_size": size, "n_digits": n_digits}
    train, test = (
        made.make_digit_canvases(n, **options, digits=(images[part], labels[part]), random_state=i)
        for i, (n, part) in enumerate([(1500, slice(n_train)), (n_test, slice(n_train, None))])
    )
    return train.images, train.labels, test.images, test.masks


def digits(data):
    source = load_digits()
    x = canvases((source.images / 16, source.target), 1200, 64, (1, 2, 3, 4), 300)
    return *x, {"lr": 3e-3, "max_epochs": 20}


def mnist(data):
    with np.load(data / "mnist_train_10k.npz") as file:
        source = file["images"] / 255, file["labels"]
    return *canvases(source, 8000, 96, (1, 2, 3, 4, 6), 200), {"max_epochs": 40}


def textures(data):
    train, test = (made.make_texture_canvases(n, random_state=n) for n in (1500, 200))
    return train.images, train.labels, test.images, test.masks, {"lr": 2e-3, "max_epochs": 20}


def fibres(data):
    train, test = (made.make_fibre_canvases(n, random_state=n) for n in (1500, 200))
    return train.images, train.labels, test.images, test.masks, {"max_epochs": 20}


def scaled(images):
    images = images.astype(np.float32)
    low, high = (f(images, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return (images - low) / (high - low)


def nuclei(data):
    with np.load(data / "dsb2018_nuclei_160.npz") as file:
        images, masks = scaled(file["images"]), file["labels"] > 0
    train, test = train_test_split(np.arange(len(images)), train_size=110, random_state=0)
    crops = extract_crops(images[train], size=64, masks=masks[train], min_coverage=0.01)
    scored = images[test], masks[test][:, np.newaxis]
    return np.asarray(crops.images), crops.labels, *scored, {"max_epochs": 8}


def cells(data):
    with np.load(data / "ctc_dic_hela_17.npz") as file:
        images, masks = file["images"], file["labels"][:, ::2, ::2] > 0
    images = scaled(images.reshape(len(images), 256, 2, 256, 2).mean(axis=(2, 4)))
    crops = extract_crops(images[:11], size=48, step=16, masks=masks[:11], min_coverage=0.01)
    options = {"max_epochs": 15, "class_weight": "balanced"}
    options["augmentation"] = ["flip", "turn", "intensity"]
    scored = images[11:], masks[11:, np.newaxis]
    return np.asarray(crops.images), crops.labels, *scored, options


SETS = {f.__name__: f for f in (digits, textures, fibres, nuclei, mnist, cells)}


def network(name, images, labels, options, seed, cache):
    """Train once for each data set and seed."""
    path = cache and Path(cache) / f"outlines_{name}_{seed}.joblib"
    if path and path.exists():
        return joblib.load(path)
    classifier = MicraNetClassifier(
        n_filters=N_FILTERS,
        lr_schedule="cosine",
        early_stopping=False,
        validation_fraction=0,
        random_state=seed,
        **options,
    ).fit(images, labels)
    if path:
        joblib.dump(classifier, path)
    return classifier


def otsu_of_image(images, coarse):
    """Otsu's threshold of the image; each pixel goes to the class whose L8 is the largest."""
    masks = np.zeros(coarse.shape, dtype=bool)
    for mask, image, maps in zip(masks, images, coarse, strict=True):
        present = maps.any(axis=(1, 2))
        winner = np.where(present, maps.transpose(1, 2, 0) + 1e-9, 0).argmax(axis=2)
        classes = np.arange(len(maps))[:, np.newaxis, np.newaxis]
        mask[:] = (image > threshold_otsu(image)) & (winner == classes)
        mask[~present] = False
    return masks


def masks_of_methods(classifier, images, labels, test):
    """Yield the name of each method, its masks, and seconds an image."""
    frozen = FrozenEstimator(classifier)
    local_maps = GradCAMFeatureTransformer(frozen).fit(images).transform(test)
    coarse = np.array(list(local_maps.layer("L8")))
    yield "coarse", coarse > 0, np.nan
    start = perf_counter()
    feature_maps = PCAFeatureMap().fit_transform(local_maps)
    paper = ThresholdSegmenter().fit(feature_maps).predict(feature_maps)
    yield "paper", paper, (perf_counter() - start) / len(test)
    start = perf_counter()
    yield "Otsu", otsu_of_image(test, coarse), (perf_counter() - start) / len(test)
    yield "guided", *guided_masks(frozen, images, labels, test)


def guided_masks(frozen, images, labels, test, **params):
    step = GuidedFeatureMap(frozen, random_state=0, **params)
    start = perf_counter()
    step.fit(images, labels)
    print(
        f"  {sorted(set(step.features_))}, separation {step.separation_.round(2)}, half turn "
        f"{step.is_turned_}, fit {perf_counter() - start:.1f} s"
    )
    start = perf_counter()
    masks = np.array([maps > 0.5 for maps in step.transform(test)])
    return masks, (perf_counter() - start) / len(test)


def report(name, truth, masks, seconds):
    """Print the scores of a method; return its mean IoU."""
    line, found = f"  {name:22}", {}
    for score_name, score in SCORES.items():
        scores = score(truth, masks, zero_division=np.nan)
        counts = ~np.isnan(scores)
        sums, n = np.where(counts, scores, 0).sum(axis=1), counts.sum(axis=1)
        found[score_name] = sums.sum() / n.sum()
        low, high = bootstrap(
            (sums, n),
            lambda s, k, axis: s.sum(axis=axis) / k.sum(axis=axis),
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=2000,
            rng=0,
        ).confidence_interval
        line += f" {score_name} {found[score_name]:.3f} ({low:.3f} to {high:.3f})"
    print(f"{line}  {seconds:.3f} s", flush=True)
    return found["IoU"]


def ablate(classifier, images, labels, test, truth):
    for name, changes in ABLATIONS.items():
        params = {k: v for k, v in changes.items() if not k.startswith("_")}
        constants = {k: v for k, v in changes.items() if k.startswith("_")}
        with patch.multiple(_recipe, **constants) if constants else patch.dict({}):
            masks, seconds = guided_masks(
                FrozenEstimator(classifier), images, labels, test, **params
            )
        report(name, truth, masks, seconds)


def main(options):
    behind = []
    for name in options.sets:
        images, labels, test, truth, params = SETS[name](options.data)
        if options.n_test:
            test, truth = test[: options.n_test], truth[: options.n_test]
        for seed in options.seeds:
            print(f"{name}, seed {seed}: {len(images)} images, {len(test)} scored", flush=True)
            classifier = network(name, images, labels, params, seed, options.cache)
            iou = {
                method: report(method, truth, masks, seconds)
                for method, masks, seconds in masks_of_methods(classifier, images, labels, test)
            }
            if iou["guided"] < max(iou["paper"], iou["Otsu"]) - 0.01:
                behind.append(f"{name}, seed {seed}")
            if options.ablate:
                ablate(classifier, images, labels, test, truth)
    print(f"Behind the best of the others: {behind or 'nowhere'}")
    return bool(behind)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["digits", "textures", "fibres"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder of the data sets that are not made here")
    parser.add_argument("--cache", help="folder in which trained networks are kept")
    parser.add_argument("--n-test", type=int, help="score so many images only")
    parser.add_argument("--ablate", action="store_true", help="leave out each ingredient in turn")
    sys.exit(main(parser.parse_args()))
