"""Data sets of the benchmark of outlines: what is trained on, and what is scored.

Digits, textures and fibres are made here, the others are read from a folder with the files
``dsb2018_nuclei_160.npz``, ``ctc_dic_hela_17.npz``, ``mnist_train_10k.npz``, ``bccd_trainval.zip``.
"""

import csv
import io
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_micranet import MicraNetClassifier, datasets
from sklearn_micranet.images import extract_crops

N_FILTERS = 16
BOXES = ("smears",)  # whose objects are known by their boxes


class OutlineSet(NamedTuple):
    """Images to train on with their labels, and unseen images with their truth."""

    images: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    truth: np.ndarray  # masks, bool of shape (n_samples, n_maps, height, width)
    instances: np.ndarray | None  # of the same shape, None: the components of the masks
    options: dict  # of the classifier


def canvases(digits, n_train, size, n_digits, n_test, **options):
    """Canvases of the first digits to train on, and of the others to score."""
    images, labels = digits
    layout = {"image_size": size, "n_digits": n_digits}
    train, test = (
        datasets.make_digit_canvases(
            n, **layout, digits=(images[part], labels[part]), random_state=i
        )
        for i, (n, part) in enumerate([(1500, slice(n_train)), (n_test, slice(n_train, None))])
    )
    return OutlineSet(train.images, train.labels, test.images, test.masks, None, options)


def digits(data):
    source = load_digits()
    images = source.images / 16
    return canvases((images, source.target), 1200, 64, (1, 2, 3, 4), 300, lr=3e-3, max_epochs=20)


def mnist(data):
    with np.load(data / "mnist_train_10k.npz") as file:
        source = file["images"] / 255, file["labels"]
    return canvases(source, 8000, 96, (1, 2, 3, 4, 6), 200, max_epochs=40)


def textures(data):
    return made(datasets.make_texture_canvases, lr=2e-3, max_epochs=20)


def fibres(data):
    return made(datasets.make_fibre_canvases, max_epochs=20)


def made(make, **options):
    train, test = (make(n, random_state=n) for n in (1500, 200))
    return OutlineSet(train.images, train.labels, test.images, test.masks, None, options)


def scaled(images):
    images = images.astype(np.float32)
    low, high = (f(images, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return (images - low) / (high - low)


def nuclei(data):
    with np.load(data / "dsb2018_nuclei_160.npz") as file:
        images, instances = scaled(file["images"]), file["labels"][:, np.newaxis].astype(np.int32)
    train, test = train_test_split(np.arange(len(images)), train_size=110, random_state=0)
    return of_crops(images, instances, train, test, size=64, max_epochs=8)


def cells(data):
    with np.load(data / "ctc_dic_hela_17.npz") as file:
        images, instances = file["images"], file["labels"][:, np.newaxis, ::2, ::2]
    images = scaled(images.reshape(len(images), 256, 2, 256, 2).mean(axis=(2, 4)))
    options = {"max_epochs": 15, "class_weight": "balanced"}
    options["augmentation"] = ["flip", "turn", "intensity"]
    rows = np.arange(len(images))
    instances = instances.astype(np.int32)
    return of_crops(images, instances, rows[:11], rows[11:], size=48, step=16, **options)


def of_crops(images, instances, train, test, *, size, step=None, min_coverage=0.01, **options):
    masks = instances[train, 0] > 0
    crops = extract_crops(
        images[train], size=size, step=step, masks=masks, min_coverage=min_coverage
    )
    seen = np.asarray(crops.images), crops.labels
    return OutlineSet(*seen, images[test], instances[test] > 0, instances[test], options)


def smears(data):
    """White cells, whose boxes are known: 70 smears to train on, 50 to score, at half size."""
    with ZipFile(data / "bccd_trainval.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".jpg"))
        drawn = np.random.default_rng(0).permutation(len(names))[:120]
        images = np.array([halved(archive.read(names[i])) for i in drawn])
        with archive.open("boxes.csv") as file:
            rows = list(csv.DictReader(io.TextIOWrapper(file)))
    instances = np.zeros((len(drawn), 1, *images.shape[1:3]), np.int32)
    for of_image, i in zip(instances[:, 0], drawn, strict=True):
        stem = names[i].removeprefix("images/").removesuffix(".jpg")
        cells = [r for r in rows if r["label"] == "WBC" and r["image"].startswith(stem)]
        for number, row in enumerate(cells, start=1):
            low, high = ([int(row[f"{axis}{end}"]) for axis in "yx"] for end in ("min", "max"))
            of_image[low[0] // 2 : -(-high[0] // 2), low[1] // 2 : -(-high[1] // 2)] = number
    train, test = np.arange(70), np.arange(70, len(drawn))
    options = {"max_epochs": 8, "augmentation": ["flip", "turn"]}
    return of_crops(images, instances, train, test, size=80, step=40, min_coverage=0.05, **options)


def halved(file):
    from skimage.io import imread

    image = imread(io.BytesIO(file))
    return image.reshape(240, 2, 320, 2, 3).mean(axis=(1, 3)).astype(np.float32) / 255


SETS = {f.__name__: f for f in (digits, nuclei, cells, smears, textures, fibres, mnist)}


def network(name, images, labels, options, seed, cache=None):
    """Return the classifier of a data set and seed, trained once if there is a cache."""
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
