"""
From image-level labels to masks and detections
===============================================

A network is told which digits an image contains, never where. From what it has learned on the
way come masks of the digits, their positions and their number.

The handwriting is real: it is the part of scikit-learn's digits that the network has not seen,
scattered over canvases. So that training takes a few minutes on two cores, the canvases are small
(64 px with one to four digits instead of 256 px with up to 55), the network has half the paper's
filters, and its learning rate follows a cosine over a fixed number of epochs, because there is no
time to wait for plateaus.
"""

# %%
# The data
# --------
# Training and test canvases use disjoint handwriting: scikit-learn's digits are ordered by writer.
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import hamming_loss
from sklearn.pipeline import Pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    HungarianDetector,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet.datasets import make_digit_canvases
from sklearn_micranet.metrics import (
    detection_scores,
    dice_score,
    iou_score,
    symmetric_boundary_dice_score,
)

start = perf_counter()
digits = load_digits()
writing, target = digits.images / 16, digits.target
canvas = {"image_size": 64, "n_digits": (1, 2, 3, 4)}
train = make_digit_canvases(1500, **canvas, digits=(writing[:1200], target[:1200]), random_state=0)
test = make_digit_canvases(300, **canvas, digits=(writing[1200:], target[1200:]), random_state=1)

# %%
# Training on image-level labels
# ------------------------------
classifier = MicraNetClassifier(
    n_filters=16,
    lr=3e-3,
    lr_schedule="cosine",
    max_epochs=20,
    early_stopping=False,
    validation_fraction=0,
    random_state=0,
)
classifier.fit(train.images, train.labels)
print(f"Trained on {len(train.images)} canvases: {perf_counter() - start:.0f} s")

# %%
# From labels to masks and detections
# -----------------------------------
# A digit counts where the last layer sees it clearly: parts of the map of L8 that do not reach 0.3
# of its range are dropped, as in the paper. On canvases as small as these, one Otsu threshold per
# image is enough.
pipe = Pipeline(
    [
        ("cam", GradCAMFeatureTransformer(FrozenEstimator(classifier))),
        ("pca", PCAFeatureMap(min_coarse_peak=0.3)),
        ("segment", ThresholdSegmenter(sigma=1, min_size=30)),
        ("detect", HungarianDetector(max_distance=14)),
    ]
)
pipe.fit(train.images)  # computes no map: the classifier is frozen, the other steps learn nothing
masks = pipe[:-1].predict(test.images)
detections = pipe.predict(test.images)

# %%
# The coarse masks, for comparison, are where the last layer alone is positive.
local_maps = pipe["cam"].transform(test.images)
coarse_masks = np.array([maps > 0 for maps in local_maps.layer("L8")])


# %%
# Scores on unseen handwriting
# ----------------------------
def mean_score(score, masks):
    """Mean over the images and classes with a true or a predicted mask."""
    return np.nanmean(score(test.masks, masks, zero_division=np.nan))


found = detection_scores(test.points, detections, max_distance=14)
accuracy = 1 - hamming_loss(test.labels, classifier.predict(test.images))
print(f"class-wise accuracy     {accuracy:.3f}\n")
print("masks                   coarse  precise")
for name, score in [
    ("mean IoU", iou_score),
    ("mean Dice", dice_score),
    ("mean boundary Dice", symmetric_boundary_dice_score),
]:
    print(f"{name:22} {mean_score(score, coarse_masks):7.3f} {mean_score(score, masks):8.3f}")
print("\ndetection               precision  recall     F1")
print(f"{'within 14 px':22} {found.precision:10.3f} {found.recall:7.3f} {found.f1:6.3f}")
print(f"\nTraining and evaluation: {perf_counter() - start:.0f} s")

# %%
# What the network has seen
# -------------------------
# Maps are shown for one class, written on the left; masks and detections for all classes. A cross
# is a detection, a circle the true position, each in the colour of its class.
COLOURS = plt.get_cmap("tab10").colors
LAYERS = ("L2", "L5", "L8")
samples = [i for i, points in enumerate(test.points) if len(points) >= 3][:3]

figure, axes = plt.subplots(len(samples), 7, figsize=(14, 2.1 * len(samples)), layout="constrained")
titles = [
    "image",
    *(f"local map {layer}" for layer in LAYERS),
    "feature map",
    "masks",
    "detections",
]
for ax, title in zip(axes[0], titles, strict=True):
    ax.set_title(title)
for row, i in zip(axes, samples, strict=True):
    shown = int(test.points[i][0, 0])
    maps = local_maps[i][shown]
    for ax in row[[0, 5, 6]]:
        ax.imshow(test.images[i], cmap="gray", vmin=0, vmax=1)
    for ax, layer in zip(row[1:4], LAYERS, strict=True):
        ax.imshow(maps[local_maps.layer_names.index(layer)], cmap="magma", vmin=0, vmax=1)
    row[4].imshow(pipe[:2].transform(test.images[[i]])[0][shown], cmap="magma", vmin=0)
    for k in range(10):
        if masks[i, k].any():
            row[5].contour(masks[i, k], levels=[0.5], colors=[COLOURS[k]], linewidths=1.5)
            row[5].imshow(
                np.where(masks[i, k], 1.0, np.nan), cmap=ListedColormap([COLOURS[k]]), alpha=0.4
            )
    for k, y, x in test.points[i]:
        row[6].scatter(x, y, s=200, facecolors="none", edgecolors=[COLOURS[int(k)]], linewidths=1.5)
    for k, y, x, _ in detections[i]:
        row[6].scatter(x, y, s=60, marker="x", color=[COLOURS[int(k)]], linewidths=2)
        row[6].annotate(int(k), (x, y), xytext=(6, 6), textcoords="offset points", color="white")
    row[0].set_ylabel(f'"{shown}"', rotation=0, fontsize=14, labelpad=14, va="center")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
figure.savefig("quickstart.png", dpi=120)
plt.show()
