"""
The five recipes of the paper
=============================

From the local maps of a network to masks, the paper takes another way for each of its data sets.
All five are pipelines of the same three steps, and differ in their public parameters only. Each is
written below with the paper's own sizes in px, and then run on generated images that pose the same
problem. These are smaller than the paper's, so that the five trainings take a few minutes on two
cores; where sizes in px are scaled with them, that is said.
"""

# %%
# The recipes
# -----------
# Intensities are scaled by the paper's rule for each data set before the network sees them. The
# classifier is trained on labels of whole images and then frozen.
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    IntensityScaler,
    MicraNetClassifier,
    MicraNetEnsemble,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet.datasets import (
    make_digit_canvases,
    make_fibre_canvases,
    make_sparse_field,
    make_texture_canvases,
)
from sklearn_micranet.displays import LocalMapsDisplay, MaskDisplay
from sklearn_micranet.images import extract_crops
from sklearn_micranet.metrics import iou_score


def recipe(cam, pca, segment):
    return lambda classifier: Pipeline(
        [
            ("cam", GradCAMFeatureTransformer(FrozenEstimator(classifier), **cam)),
            ("pca", PCAFeatureMap(**pca)),
            ("segment", ThresholdSegmenter(**segment)),
        ]
    )


def bright_surroundings(image):
    """The dendrite: Otsu's threshold of the blurred image (the paper blurs MAP2 by 20 px)."""
    blurred = gaussian_filter(image, 10)
    return blurred > threshold_otsu(blurred)


RECIPES = {
    "F-actin": recipe(
        cam={"min_max": True, "include_image": True},
        pca={"orient": True, "rescale": "coarse", "foreground": bright_surroundings},
        segment={"sigma": 1, "method": "quantile", "quantile": 0.8},
    ),
    "cell lines": recipe(
        cam={"min_max": True},
        pca={"orient": False, "rescale": "coarse"},
        segment={"subtract_competitors": True, "sigma": 3, "method": "otsu", "min_distance": 10},
    ),
    "SEM": recipe(
        cam={"min_max": False},
        pca={"orient": True, "rescale": "coarse"},
        segment={
            "sigma": (1, 5),
            "method": "quantile",
            "quantile": 0.9,
            "keep": "peak",
            "max_hole_size": 2500,
        },
    ),
    "P. vivax": recipe(
        cam={"min_max": False},
        pca={"orient": False},  # of an ensemble, the mean of the networks' feature maps
        segment={"sigma": (3, 10), "method": "otsu", "keep": "peak", "max_hole_size": 2500},
    ),
    "modified MNIST": recipe(
        cam={"min_max": True},
        pca={"orient": False, "min_coarse_peak": 0.3},
        segment={"method": "block_otsu", "block_size": 8, "ignore_zeros": True},
    ),
}

# %%
# Images, labels and classifiers
# ------------------------------
# Thin fibres for actin; two textures that compete for cells and their background; a field with a
# few dark objects for electron micrographs and, with an ensemble, for blood smears; digits.
start = perf_counter()


def network(**parameters):
    return MicraNetClassifier(
        n_filters=8,
        lr_schedule="cosine",
        early_stopping=False,
        validation_fraction=0,
        random_state=0,
        **parameters,
    )


def sparse_crops(random_state):
    """Return crops of 64 px of a field, their labels, and the masks of their objects."""
    field = make_sparse_field(
        (1024, 1024), n_objects=40, n_distractors=20, object_size=40, random_state=random_state
    )
    mask = np.zeros((1, *field.image.shape), dtype=np.uint8)
    for (top, left, bottom, right), of_object in zip(field.boxes, field.masks, strict=True):
        mask[0, top:bottom, left:right] |= of_object
    cut = {"size": 64, "points": [field.points], "center_on_points": True}
    crops = extract_crops(field.image[np.newaxis], **cut)
    masks = np.asarray(extract_crops(mask, **cut).images)[:, np.newaxis] > 0
    return np.asarray(crops.images), crops.labels, masks


small = {"image_size": 64}
fibres, fibres_test = (make_fibre_canvases(n, **small, random_state=n) for n in (300, 40))
textures, textures_test = (make_texture_canvases(n, **small, random_state=n) for n in (300, 40))
digits = load_digits(n_class=5)
canvas = {**small, "n_digits": (1, 2, 3), "random_state": 0}
canvases, canvases_test = (
    make_digit_canvases(n, digits=(digits.images[part] / 16, digits.target[part]), **canvas)
    for n, part in ((500, slice(0, 600)), (40, slice(600, None)))
)
crops, crop_labels, _ = sparse_crops(0)
crops_test, crop_labels_test, crop_masks_test = sparse_crops(1)

factin = make_pipeline(IntensityScaler(method="training_range"), network(lr=3e-3, max_epochs=10))
factin.fit(fibres.images, fibres.labels)
cells = make_pipeline(IntensityScaler(), network(lr=2e-3, max_epochs=15))
cells.fit(textures.images, textures.labels)
sem = make_pipeline(IntensityScaler(method="dtype", invert=True), network(lr=2e-3, max_epochs=12))
sem.fit(crops, crop_labels)
networks = MicraNetEnsemble(network(lr=2e-3, max_epochs=12), n_estimators=2, random_state=0)
vivax = make_pipeline(IntensityScaler(method="standard"), networks).fit(crops, crop_labels)
mnist = network(lr=3e-3, max_epochs=15).fit(canvases.images, canvases.labels[:, :5])
print(f"Five trainings: {perf_counter() - start:.0f} s")

# %%
# Masks
# -----
is_object = crop_labels_test == 1
objects = crops_test[is_object], crop_masks_test[is_object]
CASES = {
    "F-actin": (factin, fibres_test.images, fibres_test.masks),
    "cell lines": (cells, textures_test.images, textures_test.masks),
    "SEM": (sem, *objects),
    "P. vivax": (vivax, *objects),
    "modified MNIST": (mnist, canvases_test.images, canvases_test.masks[:, :5]),
}
# The paper's objects are about 113 px wide, those of the field 40 px; and an object covers a third
# of its crop, in the paper a twentieth.
SCALED = {
    "SEM": {
        "segment__sigma": (0.4, 1.8),
        "segment__quantile": 0.7,
        "segment__max_hole_size": 300,
    },
    "P. vivax": {"segment__sigma": (1, 3.5), "segment__max_hole_size": 300},
}

figure, axes = plt.subplots(3, 5, figsize=(15, 9), layout="constrained")
for column, (name, (classifier, images, masks_true)) in zip(axes.T, CASES.items(), strict=True):
    pipe = RECIPES[name](classifier).set_params(**SCALED.get(name, {})).fit(images)
    masks = pipe.predict(images)
    ious = iou_score(masks_true, masks, zero_division=np.nan)
    print(f"{name:15} mean IoU {np.nanmean(ious):.2f}")
    from_median = abs(ious - np.nanmedian(ious))  # shown is a usual mask, not a beautiful one
    sample, shown = np.unravel_index(np.nanargmin(from_median), ious.shape)
    drawn = {"sample": sample, "map_index": shown}
    LocalMapsDisplay.from_estimator(pipe[:-1], images, layers=[], ax=column[:2], **drawn)
    MaskDisplay.from_predictions(images, masks, masks_true=masks_true, ax=column[2], **drawn)
    column[0].set_title(name)
    column[2].set_title("mask and truth")
print(f"All: {perf_counter() - start:.0f} s")
figure.savefig("recipes.png", dpi=120)
plt.show()
