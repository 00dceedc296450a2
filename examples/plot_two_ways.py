"""
Two ways to a feature map
=========================

From the same network, trained on labels of images: the paper's way, local maps of all layers fused
by their first principal component, and the guided way, in which the last layer says where a
structure is, and the image where it ends.
"""

# %%
# One image, two maps
# -------------------
# Of one class, the maps and their masks against the truth.
#
# Digits stand out by their brightness, the blobs by their texture alone. What to look at is learned
# from labels, for each class: ``features_`` tells what was chosen.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet.datasets import make_digit_canvases, make_texture_canvases
from sklearn_micranet.displays import LocalMapsDisplay, MaskDisplay
from sklearn_micranet.metrics import iou_score

source = load_digits(n_class=3)  # few, as the training shall be short
digits = (source.images / 16, source.target)
layout = {"image_size": 64, "n_digits": (1, 2, 3), "digits": digits}
SETS = {
    "digits": [make_digit_canvases(n, **layout, random_state=n) for n in (800, 40)],
    "textures": [make_texture_canvases(n, random_state=n) for n in (400, 40)],
}


def both_ways(classifier):
    """The two pipelines on one trained network."""
    frozen = FrozenEstimator(classifier)
    return {
        "paper": make_pipeline(
            GradCAMFeatureTransformer(frozen), PCAFeatureMap(), ThresholdSegmenter()
        ),
        "guided": make_pipeline(
            GuidedFeatureMap(frozen, random_state=0), ThresholdSegmenter(method="fixed")
        ),
    }


fig, axes = plt.subplots(2, 5, figsize=(12, 6.9), layout="constrained")
for row, (name, (train, test)) in zip(axes, SETS.items(), strict=True):
    classifier = MicraNetClassifier(
        n_filters=8,
        lr=5e-3,
        lr_schedule="cosine",
        max_epochs=15,
        early_stopping=False,
        validation_fraction=0,
        random_state=0,
    ).fit(train.images, train.labels)
    image = int(test.labels.sum(axis=1).argmax())
    k = int(test.labels[image].argmax())
    drawn = {"sample": image, "map_index": k}
    for i, (way, pipe) in enumerate(both_ways(classifier).items()):
        pipe.fit(train.images, train.labels)
        masks = pipe.predict(test.images)
        score = iou_score(test.masks, masks, zero_division=float("nan"))
        print(f"{name}, {way}: mean IoU {score[score == score].mean():.2f}")
        panels = row[[0, 1 + 2 * i, 2 + 2 * i]]
        LocalMapsDisplay.from_estimator(pipe[:-1], test.images, layers=[], ax=panels[:2], **drawn)
        MaskDisplay.from_predictions(
            test.images, masks, masks_true=test.masks, ax=panels[2], **drawn
        )
        for ax, title in zip(panels, (name, f"{way}: feature map", f"{way}: mask"), strict=True):
            ax.set_title(title)
    print(f"{name}: {pipe[0].features_[k]}, separation {pipe[0].separation_[k]:.2f}")

# %%
# When to take which
# ------------------
# Take the guided way unless there is a reason not to. It draws outlines where the image has them,
# in one forward pass, and ``level`` says where an outline is drawn between surroundings and object.
#
# Take the paper's way
#
# - to repeat what was published, or to compare with it,
# - to see what each layer of the network has learned, with
#   :class:`~sklearn_micranet.displays.LocalMapsDisplay`,
# - where neither brightness nor fine texture tells a structure from what is around it.
#
# A few masks decide better than any rule: compare the two ``score`` of the pipelines on them.
fig.savefig("two_ways.png", dpi=70)
