"""
From one microscope to another with 36 labelled images
======================================================

A network that was trained on the images of one microscope fails on those of the next, although
they show the same kind of objects. A few images of the new microscope are enough to repair it, and
all one has to say of each is which objects it contains, not where.

After Fig. 5 of the paper: a network trained on microscope A is applied to microscope B as it is
(naive), with other decision thresholds, and after its linear layer and its last 0, 1, 2 or 4 depths
were trained further on 12, 24 or 36 images of B. The microscopes are simulated, the handwriting
they look at is real. One seed is shown; ``benchmarks/new_microscope.py`` repeats this with three.
"""

# %%
# Two microscopes
# ---------------
# ``_new_microscope.py`` beside this script describes them. B has less contrast, on an uneven
# background, another gamma, more blur and more noise. Both are rescaled image by image, the first
# thing to try; it is not enough. Training, fine-tuning and test scenes have disjoint handwriting.
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from _new_microscope import (
    DEPTHS,
    MAX_DISTANCE,
    N_CLASSES,
    N_IMAGES,
    detection_f1,
    make_data,
    make_pipeline,
    search,
    strategies,
    train,
)

from sklearn_micranet.displays import DetectionDisplay

SEED = 0
start = perf_counter()
data = make_data(SEED)

# %%
# The network of microscope A
# ---------------------------
# It learns from image-level labels; the F1 is that of the digits found, each within half a digit of
# its true position, on test scenes that served for nothing else.
classifier = train(data.train_a, SEED)
f1_a = detection_f1(classifier, data.test_a)
f1_naive = detection_f1(classifier, data.test_b)
print(f"F1 on microscope A            {f1_a:.3f}")
print(f"F1 on microscope B, naive     {f1_naive:.3f}   ({perf_counter() - start:.0f} s)\n")


# %%
# Adapting it to microscope B
# ---------------------------
# Thresholds and weights are adapted by the labels of the images of B alone.
def share_won_back(f1):
    return (f1 - f1_naive) / (f1_a - f1_naive)


f1 = {}
for n_images in N_IMAGES:
    for name, adapted in strategies(classifier, data.tune_b, n_images, SEED):
        f1[name, n_images] = detection_f1(adapted, data.test_b)
print("images of B     " + "".join(f"{n:>8}" for n in N_IMAGES))
for name in ["threshold only", *(f"depth {depth}" for depth in DEPTHS)]:
    print(f"{name:16}" + "".join(f"{f1[name, n]:8.3f}" for n in N_IMAGES))

# %%
# How deep to fine-tune, and how fast, need not be guessed: a grid search by the average precision
# of the labels finds it, without a single mask or position.
searched = search(classifier, data.tune_b, SEED)
fine_tuned = searched.best_estimator_
f1_searched = detection_f1(fine_tuned, data.test_b)
print(f"\ngrid search: {searched.best_params_}, F1 {f1_searched:.3f}")
print(f"share of the drop won back: {share_won_back(f1_searched):.0%}")
print(f"all: {perf_counter() - start:.0f} s")

# %%
# What the network finds before and after
# ---------------------------------------
# A cross is a detection, a circle the distance within which it counts as that of a digit of its
# class, written beside it. On the left, crosses are the truth, which no network was shown.
n_digits = [len(points) for points in data.test_b.points]
shown = [n_digits.index(n) for n in (1, 2, 3, 4)]  # the first test scenes of so many digits
figure = plt.figure(figsize=(15, 11), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
axes = left.subplots(len(shown), 4)
titles = [
    "microscope A\nand the truth",
    "the same scene\nunder microscope B",
    f"B, naive\n(F1 {f1_naive:.2f})",
    f"B, fine-tuned on 36 images\n(F1 {f1_searched:.2f})",
]
scenes = data.test_b
drawn = {"class_names": range(N_CLASSES), "percentiles": None}
for row, i in zip(axes, shown, strict=True):
    DetectionDisplay.from_predictions(scenes.seen_by_a, scenes.points, sample=i, ax=row[0], **drawn)
    nothing = [[]] * len(scenes.raw)
    DetectionDisplay.from_predictions(scenes.raw, nothing, sample=i, ax=row[1], **drawn)
    for ax, shown_classifier in zip(row[2:], (classifier, fine_tuned), strict=True):
        pipe = make_pipeline(shown_classifier).fit(scenes.images)
        DetectionDisplay.from_estimator(
            pipe, scenes.images, scenes.points, max_distance=MAX_DISTANCE, sample=i, ax=ax, **drawn
        )
for ax in axes.flat:
    ax.set_title("")
for ax, title in zip(axes[0], titles, strict=True):
    ax.set_title(title)

chart = right.subplots()
chart.axhline(f1_a, color="black", linestyle="--")
chart.axhline(f1_naive, color="black", linestyle=":")
chart.annotate("on microscope A", (12, f1_a), (0, 5), textcoords="offset points")
chart.annotate("naive: B as it is", (12, f1_naive), (0, -14), textcoords="offset points")
lines = {"threshold only": ("thresholds only", "grey")}
updated = ("linear layer", "+ last depth", "+ last 2 depths", "+ all 4 depths")
greens = plt.get_cmap("viridis_r")(np.linspace(0.25, 0.85, len(DEPTHS)))
for depth, words, colour in zip(DEPTHS, updated, greens, strict=True):
    lines[f"depth {depth}"] = (words, colour)
label = 0
for name in sorted(lines, key=lambda name: f1[name, 36]):
    words, colour = lines[name]
    chart.plot(N_IMAGES, [f1[name, n] for n in N_IMAGES], "o-", color=colour)
    label = max(label + 0.025, f1[name, 36])  # words do not overlap
    on_white = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # hides the dashed line
    chart.text(38, label, words, color=colour, va="center", bbox=on_white)
chart.plot(36, f1_searched, "*", markersize=18, color="crimson", label="choice of the grid search")
chart.legend(loc="lower right", frameon=False)
chart.set(xlabel="labelled images of microscope B", xticks=N_IMAGES, xlim=(10, 53), ylim=(0, 1))
chart.set_ylabel("detection F1 on other images of B")
chart.set_title("how much of the network is adapted to B")
chart.spines[["top", "right"]].set_visible(False)
figure.savefig("new_microscope.png", dpi=120)
plt.show()
