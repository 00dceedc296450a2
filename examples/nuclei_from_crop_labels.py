"""
Nuclei from labels of crops
===========================

Fluorescence images are cut into crops, and a network is told of each crop whether it holds a
nucleus: whether nuclei cover at least 1 % of it. Masks and positions of the nuclei in other, whole
images come from what it has learned, in two ways: guided maps, which take outlines from the image
itself, and the paper's maps. They are compared with the coarse masks of the last layer alone and
with Otsu's threshold of the image, hard to beat where nuclei are all that shines.

With ``--unet``, a U-Net is trained on masks of the same images, the baseline that sees all there is
to draw; minutes more. What it costs an expert to annotate them either way is printed, too.

All settings are chosen on the training images. The network and the guided maps see labels of crops
only; the grid search over the steps of the paper's way needs masks, those of 30 training images.

Takes the data as an argument, a file with ``images`` (n, height, width) and instance ``labels`` of
the same shape, 0 for background. The figures of the README belong to 160 fluorescence images of the
2018 Data Science Bowl, BBBC038 of the Broad Bioimage Benchmark Collection (CC0), written with
``np.savez("nuclei.npz", images=images, labels=labels)``::

    python examples/nuclei_from_crop_labels.py --data nuclei.npz
"""

import argparse
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import binary_dilation, center_of_mass
from skimage.filters import threshold_otsu
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline

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
from sklearn_micranet.displays import LocalMapsDisplay, MaskDisplay
from sklearn_micranet.images import extract_crops
from sklearn_micranet.metrics import (
    annotation_effort,
    detection_scores,
    dice_score,
    iou_score,
    symmetric_boundary_dice_score,
)

MAX_DISTANCE = 8  # px, about the radius of a nucleus
N_TRAIN = 110

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("--data", required=True, help="npz file with images and labels")
parser.add_argument("--figure", default="nuclei.png", help="where to save the figure")
parser.add_argument("--unet", action="store_true", help="train a U-Net on masks, too")
options = parser.parse_args()
with np.load(options.data) as data:
    images, instances = data["images"], data["labels"]
train, test = train_test_split(np.arange(len(images)), train_size=N_TRAIN, random_state=0)

# %%
# Training on labels of crops
# ---------------------------
scaler = IntensityScaler(method="minmax").fit(images[train])
scaled = np.asarray(scaler.transform(images))
crops = extract_crops(scaled[train], size=64, masks=instances[train], min_coverage=0.01)
classifier = MicraNetClassifier(
    n_filters=16,
    lr=1e-3,
    lr_schedule="cosine",
    max_epochs=8,
    early_stopping=False,
    validation_fraction=0,
    random_state=0,
)
start = perf_counter()
classifier.fit(np.asarray(crops.images), crops.labels)
print(f"Training on labels: {perf_counter() - start:.0f} s")
unseen = extract_crops(scaled[test], size=64, masks=instances[test], min_coverage=0.01)
accuracy = classifier.score(np.asarray(unseen.images), unseen.labels)
print(f"{len(crops.labels)} crops, {crops.labels.mean():.0%} with nuclei; {accuracy=:.3f}")
effort = annotation_effort(instances[train][:, np.newaxis], crop_size=64)
for how, hours in zip(effort["annotation"], effort["hours"], strict=True):
    print(f"To annotate the {N_TRAIN} training images by {how}: {hours:.1f} hours")

# %%
# Guided maps, from the same labels
# ---------------------------------
# A mask is where a map is above 0.5, and nuclei whose centres are 4 px apart are two.
guided = Pipeline(
    [
        ("map", GuidedFeatureMap(FrozenEstimator(classifier), random_state=0)),
        ("segment", ThresholdSegmenter(method="fixed", min_size=15, min_distance=4)),
    ]
)
guided.fit(np.asarray(crops.images), crops.labels)

# %%
# The paper's maps, with settings chosen on training images
# ---------------------------------------------------------
# The local maps of these images are computed once, for all settings.
masks = instances[:, np.newaxis] > 0
cam = GradCAMFeatureTransformer(FrozenEstimator(classifier), classes="all").fit(scaled)
chosen_on = train[:30]
search = GridSearchCV(
    Pipeline([("pca", PCAFeatureMap()), ("segment", ThresholdSegmenter(min_size=15))]),
    {
        "pca__layers": [
            ("L1", "L2"),
            ("L3", "L4"),
            ("L1", "L2", "L3", "L4"),
            PCAFeatureMap().layers,
        ],
        "pca__rescale": [None, "coarse"],
        "segment__method": ["otsu", "quantile"],
        "segment__sigma": [None, 1, 2],
    },
    cv=2,
)
search.fit(np.asarray(cam.transform(scaled[chosen_on])), masks[chosen_on])
print(f"Chosen on 30 training images: {search.best_params_}, mean IoU {search.best_score_:.3f}")
paper = Pipeline([("cam", cam), *search.best_estimator_.steps])
paper.set_params(segment__min_distance=4)

# %%
# Scores on unseen images
# -----------------------
local_maps = cam.transform(scaled[test])
pipes = {"paper": paper, "guided": guided}
predicted = {
    "coarse": np.array([maps > 0 for maps in local_maps.layer("L8")]),
    **{name: pipe.predict(scaled[test]) for name, pipe in pipes.items()},
    "Otsu": np.array([image > threshold_otsu(image) for image in images[test]])[:, np.newaxis],
}
if options.unet:
    # Settings chosen by the loss of a tenth of the training images.
    unet = UNetSegmenter(
        n_filters=8,
        n_poolings=3,
        lr_schedule="cosine",
        max_epochs=20,
        batch_size=4,
        augmentation=["flip", "turn"],
        early_stopping=False,
        validation_fraction=0,
        random_state=0,
    )
    cut = {"size": 128, "step": 128}
    drawn = np.asarray(extract_crops(instances[train], **cut).images)
    start = perf_counter()
    unet.fit(np.asarray(extract_crops(scaled[train], **cut).images), drawn)
    print(f"Training on masks: {perf_counter() - start:.0f} s")
    predicted["U-Net"] = unet.predict(scaled[test])
points = [
    np.array([(0, *c) for c in center_of_mass(i > 0, i, np.unique(i[i > 0]))]).reshape(-1, 3)
    for i in instances[test]
]
detector = HungarianDetector(max_distance=MAX_DISTANCE)
print(f"{'':9}    IoU   Dice  boundary Dice  precision  recall     F1")
for name, found in predicted.items():
    iou, dice, boundary = (
        np.nanmean(score(masks[test], found, zero_division=np.nan))
        for score in (iou_score, dice_score, symmetric_boundary_dice_score)
    )
    # Touching nuclei are one region of a mask, but several objects of the segments.
    segments = pipes[name].transform(scaled[test]) if name in pipes else found
    scores = detection_scores(points, detector.predict(segments), max_distance=MAX_DISTANCE)
    print(
        f"{name:9} {iou:6.3f} {dice:6.3f} {boundary:14.3f} {scores.precision:10.3f} "
        f"{scores.recall:7.3f} {scores.f1:6.3f}"
    )

# Nuclei are 13 px wide, so that half a pixel of their outlines decides between 0.8 and 0.9.
larger = binary_dilation(masks[test], np.array([[[[0, 1, 0], [1, 1, 1], [0, 1, 0]]]]))
ious = iou_score(masks[test], larger, zero_division=np.nan)
print(f"True masks, one pixel larger: IoU {np.nanmean(ious):.3f}")

# %%
# What it looks like
# ------------------
# Of the masks: pixels found, missed, and found where there is no nucleus.
feature_maps = guided[:1].transform(scaled[test])
shown = list(predicted)[1:]
figure, axes = plt.subplots(
    3, 3 + len(shown), figsize=(9 + 3 * len(shown), 10), layout="constrained"
)
for i, row in enumerate(axes):
    LocalMapsDisplay.from_predictions(
        images[test], local_maps, feature_maps=feature_maps, sample=i, layers=["L8"], ax=row[:3]
    )
    row[2].set_title("guided map")
    for ax, name in zip(row[3:], shown, strict=True):
        MaskDisplay.from_predictions(
            images[test], predicted[name], masks_true=masks[test], sample=i, ax=ax
        )
        ax.set_title(name)
figure.savefig(options.figure, dpi=80)
