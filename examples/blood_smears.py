"""
White blood cells from labels of crops
======================================

Stained blood smears are cut into crops, and a network is told of each crop whether a white cell
reaches into it: whether it holds at least 5 % of the box around one. Where the cells are in whole
images comes from what it has learned. Crops without a white cell cost nothing to come by, so
several ratios of positive to negative crops are compared. So is Otsu's threshold of the colour of
haematoxylin, hard to beat where a stain was made to tell the cells apart.

Images are split into those to train on, those on which the steps after the network are chosen, and
test images, seen only when the table is printed. All networks have the same positive crops and see
about the same number of crops in all: the more negative ones, the less often each positive one.

Takes the data as an argument, a zip file with the images and annotations of the BCCD data set (MIT
licence): ``images/*.jpg``, 480 x 640 px, and ``boxes.csv`` with the columns image, label (RBC, WBC
or Platelets), xmin, ymin, xmax and ymax, px. Takes about five minutes on two cores::

    python examples/blood_smears.py --data bccd_trainval.zip
"""

import argparse
import time
import zipfile
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from skimage.color import rgb2hed
from skimage.transform import downscale_local_mean
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    HungarianDetector,
    IntensityScaler,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet.displays import DetectionDisplay, LocalMapsDisplay
from sklearn_micranet.images import extract_crops, read_images
from sklearn_micranet.metrics import detection_scores

SCALE = 4  # a white cell of 190 px is about 47 px wide in the images used
MAX_DISTANCE = 20  # px of these, about the radius of a white cell
MIN_SIZE = 100  # px, the area of a platelet, stained like the nuclei of white cells
RATIOS = (1, 5, 16)  # negative crops for each positive one
N_SEEN = 24_000  # crops that each network sees in training, those seen again included

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("--data", required=True, help="zip file with images and boxes.csv")
parser.add_argument("--figure", default="blood_smears.png", help="where to save the figure")
parser.add_argument("--seeds", type=int, default=1, help="networks to train for each ratio")
options = parser.parse_args()
SEEDS = range(options.seeds)

# %%
# Images, boxes and centres
# -------------------------
with TemporaryDirectory() as folder:
    with zipfile.ZipFile(options.data) as archive:
        archive.extractall(folder)
    files = read_images(f"{folder}/images")
    images = np.stack([downscale_local_mean(i, (SCALE, SCALE, 1)) for i in files.images]) / 255
    table = np.genfromtxt(
        f"{folder}/boxes.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
table = table[table["label"] == "WBC"]
# The first pixel is number 1 in the table, and the last one belongs to the box.
corners = [table["ymin"] - 1, table["xmin"] - 1, table["ymax"], table["xmax"]]
corners = np.column_stack(corners) / SCALE
boxes = [corners[[f"{name}." in file for name in table["image"]]] for file in files.filenames]
points = [np.insert((b[:, :2] + b[:, 2:]) / 2 - 0.5, 0, 0, axis=1) for b in boxes]

scaled = np.asarray(IntensityScaler(method="standard").fit_transform(images))
train, valid, test = np.split(np.random.default_rng(0).permutation(len(images)), [180, 230])


def cut(indices):
    crops = extract_crops(scaled[indices], size=48, step=16, boxes=[boxes[i] for i in indices])
    return np.asarray(crops.images), crops.labels


# %%
# As many positive crops as have 16 negative ones each
# ----------------------------------------------------
X, y = cut(train)
n_positive = np.count_nonzero(y == 0) // max(RATIOS)
drawn = np.random.default_rng(0).choice(np.flatnonzero(y), n_positive, replace=False)
used = np.concatenate([drawn, np.flatnonzero(y == 0)])
X, y = X[used], y[used]
X_test, y_test = cut(test)
n_cells = sum(len(points[i]) for i in test)
print(f"Training crops: {n_positive} positive, {len(y) - n_positive} negative")
print(f"Test: {len(test)} images, {n_cells} white cells; {y_test.mean():.0%} of crops positive")

# %%
# A network for each ratio, and the steps after it chosen on validation images
# -----------------------------------------------------------------------------
steps = [
    ("pca", PCAFeatureMap(rescale="coarse")),
    ("segment", ThresholdSegmenter(threshold=0.5, min_size=MIN_SIZE)),
    ("detect", HungarianDetector(max_distance=MAX_DISTANCE)),
]
grid = {
    "pca__layers": [("L5", "L6"), PCAFeatureMap().layers, ("L8",)],
    "segment__method": ["otsu", "fixed"],
    "segment__sigma": [None, 3],
}


def train_and_choose(ratio, seed):
    classifier = MicraNetClassifier(
        n_filters=8,
        lr_schedule="cosine",
        max_epochs=round(N_SEEN / (n_positive * (1 + ratio))),
        early_stopping=False,
        validation_fraction=0,
        augmentation=["flip", "turn"],
        negatives_per_positive=ratio,
        random_state=seed,
    )
    start = time.perf_counter()
    classifier.fit(X, y)
    seconds = time.perf_counter() - start
    # Where few crops are positive the network calls whole images empty, though its maps are good.
    cam = GradCAMFeatureTransformer(FrozenEstimator(classifier), classes="all").fit(scaled)
    search = GridSearchCV(Pipeline(steps), grid, cv=2)
    search.fit(np.asarray(cam.transform(scaled[valid])), [points[i] for i in valid])
    chosen = ", ".join(str(value) for value in search.best_params_.values())
    print(f"1:{ratio} in {seconds:.0f} s; {chosen}; validation F1 {search.best_score_:.3f}")
    return Pipeline([("cam", cam), *search.best_estimator_.steps])


pipes = {(ratio, seed): train_and_choose(ratio, seed) for ratio in RATIOS for seed in SEEDS}

# %%
# Scores on test images
# ---------------------
# Accuracy, balanced accuracy and average precision are those of the crops; next comes the share of
# whole images that the network says to hold a white cell, nearly all of which do. Detections count
# where they lie within the radius of a cell from the centre of a box.


def detection_columns(found):
    scores = detection_scores([points[i] for i in test], found, max_distance=MAX_DISTANCE)
    return f"{scores.precision:9.3f} {scores.recall:7.3f} {scores.f1:6.3f}"


print("ratio      accuracy balanced average_p  images precision  recall     F1")
for (ratio, _), pipe in pipes.items():
    classifier = pipe["cam"].estimator_
    probability = classifier.predict_proba(X_test)[:, 1]
    y_pred = probability >= 0.5
    print(
        f"1:{ratio:<8} {np.mean(y_pred == y_test):8.3f} "
        f"{balanced_accuracy_score(y_test, y_pred):8.3f} "
        f"{average_precision_score(y_test, probability):9.3f} "
        f"{classifier.predict(scaled[test]).mean():7.3f} "
        f"{detection_columns(pipe.predict(scaled[test]))}"
    )
stain = rgb2hed(images)[:, np.newaxis, ..., 0]
by_stain = GridSearchCV(
    Pipeline(steps[1:]), {"segment__method": ["otsu"], "segment__sigma": [None, 3]}, cv=2
)
by_stain.fit(stain[valid], [points[i] for i in valid])
print(f"{'stain':48} {detection_columns(by_stain.predict(stain[test]))}")

# %%
# What it looks like
# ------------------
# The first three test images. A cross inside a circle counts as found.
shown = test[:3]
figure, axes = plt.subplots(3, len(RATIOS) + 2, figsize=(18, 10), layout="constrained")
for ratio, column in zip(RATIOS, axes.T[:-2], strict=True):
    found = pipes[ratio, 0].predict(scaled[shown])
    truth = {"points_true": [points[i] for i in shown], "max_distance": MAX_DISTANCE}
    for i, ax in enumerate(column):
        DetectionDisplay.from_predictions(images[shown], found, sample=i, ax=ax, **truth)
    column[0].set_title(f"1:{ratio}")
local_maps = pipes[RATIOS[-1], 0]["cam"].transform(scaled[shown])
feature_maps = pipes[RATIOS[-1], 0]["pca"].transform(local_maps)
for i, row in enumerate(axes):
    LocalMapsDisplay.from_predictions(
        images[shown], local_maps, feature_maps=feature_maps, sample=i, layers=[], ax=row[-2:]
    )
axes[0, -1].set_title(f"feature map, 1:{RATIOS[-1]}")
figure.savefig(options.figure, dpi=80)
