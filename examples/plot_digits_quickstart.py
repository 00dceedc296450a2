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
from sklearn_micranet.displays import DetectionDisplay, LocalMapsDisplay, MaskDisplay
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
# Maps are shown for one class, masks and detections for all classes. A cross is a detection, a
# circle the distance within which it counts as that of a digit.
samples = [i for i, points in enumerate(test.points) if len(points) >= 3][:3]

figure, axes = plt.subplots(len(samples), 7, figsize=(14, 2.3 * len(samples)), layout="constrained")
for row, i in zip(axes, samples, strict=True):
    shown = int(test.points[i][0, 0])
    LocalMapsDisplay.from_estimator(
        pipe, test.images, sample=i, map_index=shown, layers=["L2", "L5", "L8"], ax=row[:5]
    )
    named = {"sample": i, "class_names": range(10)}
    MaskDisplay.from_predictions(test.images, masks, ax=row[5], **named)
    DetectionDisplay.from_predictions(
        test.images, detections, points_true=test.points, max_distance=14, ax=row[6], **named
    )
    row[5].set_title("masks")
    row[6].set_title("detections")
figure.savefig("quickstart.png", dpi=120)
plt.show()
