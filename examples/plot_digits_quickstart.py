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
    GuidedFeatureMap,
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
# The last layer says where a digit is, the image itself where it ends: `GuidedFeatureMap` learns
# from the labels which of its properties to look at, and 0.5 of its maps is the outline.
frozen = FrozenEstimator(classifier)
pipe = Pipeline(
    [
        ("map", GuidedFeatureMap(frozen, random_state=0)),
        ("segment", ThresholdSegmenter(method="fixed", min_size=30)),
        ("detect", HungarianDetector(max_distance=14)),
    ]
)
pipe.fit(train.images, train.labels)
masks = pipe[:-1].predict(test.images)
detections = pipe.predict(test.images)

# %%
# For comparison, the paper's way: local maps of all layers, fused by their first principal
# component where the last layer sees a digit clearly, and one Otsu threshold per image.
paper = Pipeline(
    [
        ("cam", GradCAMFeatureTransformer(frozen)),
        ("pca", PCAFeatureMap(min_coarse_peak=0.3)),
        ("segment", ThresholdSegmenter(sigma=1, min_size=30)),
        ("detect", HungarianDetector(max_distance=14)),
    ]
)
paper.fit(train.images)  # computes no map: the classifier is frozen, the other steps learn nothing
all_masks = {
    "coarse": [maps > 0 for maps in paper["cam"].transform(test.images).layer("L8")],
    "paper's": paper[:-1].predict(test.images),
    "guided": masks,
}


# %%
# Scores on unseen handwriting
# ----------------------------
def mean_score(score, masks):
    """Mean over the images and classes with a true or a predicted mask."""
    return np.nanmean(score(test.masks, masks, zero_division=np.nan))


accuracy = 1 - hamming_loss(test.labels, classifier.predict(test.images))
print(f"class-wise accuracy     {accuracy:.3f}\n")
print(f"{'masks':22}" + "".join(f"{name:>9}" for name in all_masks))
for name, score in [
    ("mean IoU", iou_score),
    ("mean Dice", dice_score),
    ("mean boundary Dice", symmetric_boundary_dice_score),
]:
    scores = [mean_score(score, np.array(masks)) for masks in all_masks.values()]
    print(f"{name:22}" + "".join(f"{score:9.3f}" for score in scores))
print("\ndetection within 14 px precision   recall       F1")
for name, points in [("paper's", paper.predict(test.images)), ("guided", detections)]:
    found = detection_scores(test.points, points, max_distance=14)
    print(f"{name:22}{found.precision:9.3f}{found.recall:9.3f}{found.f1:9.3f}")
print(f"\nTraining and evaluation: {perf_counter() - start:.0f} s")

# %%
# What the network has seen
# -------------------------
# Maps are shown for one class, masks and detections for all classes. A cross is a detection, a
# circle the distance within which it counts as that of a digit.
samples = [i for i, points in enumerate(test.points) if len(points) >= 3][:3]

figure, axes = plt.subplots(len(samples), 6, figsize=(13, 2.3 * len(samples)), layout="constrained")
for row, i in zip(axes, samples, strict=True):
    shown = int(test.points[i][0, 0])
    LocalMapsDisplay.from_estimator(
        paper[:-1], test.images, sample=i, map_index=shown, layers=["L8"], ax=row[:3]
    )
    named = {"sample": i, "class_names": range(10)}
    for ax, name in zip(row[3:5], ("paper's", "guided"), strict=True):
        MaskDisplay.from_predictions(test.images, all_masks[name], ax=ax, **named)
        ax.set_title(f"{name} masks")
    DetectionDisplay.from_predictions(
        test.images, detections, points_true=test.points, max_distance=14, ax=row[5], **named
    )
    row[5].set_title("detections")
figure.savefig("quickstart.png", dpi=120)
plt.show()
