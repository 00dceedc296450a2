"""Draw the pictures of the user guide: ``python docs/pictures.py [name ...]`` writes docs/images/.

Two small networks are trained for them, on embedded handwriting, in about a minute on two cores.
Charts of measurements draw the files that scripts of ``examples/benchmarks`` write with ``--out``.
"""

import json
import re
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    HungarianDetector,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet.datasets import (
    make_digit_canvases,
    make_fibre_canvases,
    make_sparse_field,
    make_texture_canvases,
)
from sklearn_micranet.displays import (
    DetectionPrecisionRecallDisplay,
    LocalMapsDisplay,
    MaskDisplay,
    TrainingDisplay,
)
from sklearn_micranet.images import measure_objects
from sklearn_micranet.metrics import iou_score

HERE = Path(__file__).parent
LAYOUT = {"layout": "constrained"}


@cache
def digits():
    """Canvases with digits 0 to 2, to train and to test on, and a network that was trained."""
    source = load_digits(n_class=3)
    writing = (source.images / 16, source.target)
    layout = {"image_size": 64, "n_digits": (1, 2, 3), "digits": writing}
    train, test = (make_digit_canvases(n, **layout, random_state=n) for n in (600, 40))
    for canvases in (train, test):
        canvases.labels, canvases.masks = canvases.labels[:, :3], canvases.masks[:, :3]
    network = MicraNetClassifier(
        n_filters=8, lr=5e-3, max_epochs=12, early_stopping=False, random_state=0
    )
    return train, test, network.fit(train.images, train.labels)


@cache
def guided():
    train, _, network = digits()
    return GuidedFeatureMap(FrozenEstimator(network), random_state=0).fit(
        train.images, train.labels
    )


def draw(ax, image, title=""):
    ax.imshow(image, cmap="gray")
    ax.set_title(title)
    ax.set_axis_off()


def labels():
    """Images with the three kinds of labels."""
    fibres = make_fibre_canvases(12, image_size=64, random_state=1)
    digit_canvases = digits()[1]
    textures = make_texture_canvases(40, random_state=2)
    single = textures.labels.sum(axis=1) < 2
    of_one = textures.labels[single]
    names = np.where(of_one.any(axis=1), np.take(["stripes", "grain"], of_one.argmax(1)), "empty")
    chosen = [int(np.flatnonzero(names == n)[0]) for n in ("stripes", "grain", "empty")]
    is_fibre = [int(np.flatnonzero(fibres.labels == k)[i]) for k, i in ((1, 0), (0, 0), (1, 1))]
    rows = [
        ("binary", fibres.images[is_fibre], ["1", "0", "1"]),
        ("exclusive", textures.images[single][chosen], names[chosen]),
        ("several", digit_canvases.images[:3], digit_canvases.labels[:3].tolist()),
    ]
    figure, axes = plt.subplots(1, 9, figsize=(11.5, 1.8), **LAYOUT)
    for i, (kind, images, titles) in enumerate(rows):
        for k, (image, title) in enumerate(zip(images, titles, strict=True)):
            draw(axes[3 * i + k], image, f"{kind}: {title}" if k == 0 else str(title))
    return figure


def crops():
    """Windows of four sizes around one object, and what they gave."""
    rows = json.loads((HERE / "images" / "crops.json").read_text())
    field = make_sparse_field((512, 512), n_objects=3, object_size=32, random_state=3)
    centre = field.points.round().astype(int)[np.abs(field.points - 256).max(axis=1).argmin()]
    figure, axes = plt.subplots(
        1, 6, figsize=(11, 2.3), width_ratios=[1, 1, 1, 1, 1.6, 1.6], **LAYOUT
    )
    for ax, size in zip(axes, (32, 64, 96, 128), strict=False):
        first = np.clip(centre - size // 2, 0, 512 - size)
        draw(ax, field.image[first[0] : first[0] + size, first[1] : first[1] + size], f"{size} px")
    for ax, of, fixed in (
        (axes[4], "size", ("negatives", 5)),
        (axes[5], "negatives", ("size", 96)),
    ):
        chosen = [row for row in rows if row[fixed[0]] == fixed[1]]
        values = sorted({row[of] for row in chosen})
        for name, colour in (("recall", "C0"), ("precision", "C1")):
            means = [np.mean([r[name] for r in chosen if r[of] == value]) for value in values]
            ax.plot(range(len(values)), means, "o-", color=colour, label=name)
        ax.set_xticks(range(len(values)), values)
        ax.set(ylim=(0, 1.02), xlabel="size, px" if of == "size" else "negatives per positive")
        ax.spines[["top", "right"]].set_visible(False)
    axes[4].legend(frameon=False, loc="lower right")
    return figure


def thresholds():
    """One feature map, outlines at three levels, and the score of all of them."""
    _, test, _ = digits()
    maps = guided().transform(test.images)
    sample, k = 1, int(test.labels[1].argmax())
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), width_ratios=[1, 1, 1.5], **LAYOUT)
    draw(axes[0], test.images[sample], "image")
    axes[1].imshow(maps[sample][k], cmap="magma")
    axes[1].set_title("feature map")
    axes[1].set_axis_off()
    cuts = np.linspace(0.05, 0.95, 19)
    dense = np.asarray(maps)
    scores = [np.nanmean(iou_score(test.masks, dense > c, zero_division=np.nan)) for c in cuts]
    axes[2].plot(cuts, scores, "k.-")
    for cut, colour in ((0.2, "orange"), (0.5, "deepskyblue"), (0.8, "magenta")):
        axes[0].contour(maps[sample][k], [cut], colors=[colour], linewidths=1.2)
        axes[2].axvline(cut, color=colour)
    axes[2].set(xlabel="threshold of a guided map", ylabel="mean IoU")
    axes[2].spines[["top", "right"]].set_visible(False)
    return figure


def objects():
    """Numbered objects and their table."""
    _, test, _ = digits()
    pipe = make_pipeline(guided(), ThresholdSegmenter(method="fixed", min_size=20)).fit(test.images)
    instances = pipe.transform(test.images).instances
    table = measure_objects(
        instances, test.images, pixel_size=0.5, class_names=["zero", "one", "two"], as_frame=False
    )
    counts = np.array([[objects.max() for objects in sample] for sample in instances])
    true = np.array([np.bincount(p[:, 0].astype(int), minlength=3)[:3] for p in test.points])
    sample = np.flatnonzero((counts == true).all(axis=1) & (true.sum(axis=1) == 3))[0]
    rows = np.flatnonzero(np.asarray(table["sample"]) == sample)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.6), width_ratios=[1, 2.6], **LAYOUT)
    MaskDisplay.from_predictions(test.images, instances, sample=sample, ax=left, legend=False)
    left.set_title("")
    columns = ["class", "object", "area_um2", "intensity_mean"]
    cells = [
        [f"{v:.2f}" if isinstance(v, float) else str(v) for c in columns for v in [table[c][i]]]
        for i in rows
    ]
    right.set_axis_off()
    drawn = right.table(
        cells, colLabels=columns, loc="center", cellLoc="left", colLoc="left", edges="horizontal"
    )
    drawn.scale(1, 1.6)
    return figure


def searches():
    """What a search over two parameters looks like."""
    _, test, _ = digits()
    levels, sigmas = [0.3, 0.4, 0.5, 0.6, 0.7], [0, 0.5, 1, 2]
    scores = np.empty((len(sigmas), len(levels)))
    for j, level in enumerate(levels):
        maps = np.asarray(guided().set_params(level=level).transform(test.images))
        for i, sigma in enumerate(sigmas):
            masks = ThresholdSegmenter(method="fixed", sigma=sigma).fit(maps).predict(maps)
            scores[i, j] = np.nanmean(iou_score(test.masks, masks, zero_division=np.nan))
    guided().set_params(level=0.6)
    figure, ax = plt.subplots(figsize=(5.2, 2.8), **LAYOUT)
    ax.imshow(scores, cmap="viridis", aspect="auto")
    for (i, j), score in np.ndenumerate(scores):
        colour = "white" if score < scores.mean() else "black"
        ax.text(j, i, f"{score:.2f}", ha="center", va="center", color=colour)
    ax.set_xticks(range(len(levels)), levels)
    ax.set_yticks(range(len(sigmas)), sigmas)
    ax.set(xlabel="map__level", ylabel="segment__sigma", title="mean IoU of each candidate")
    return figure


def training():
    """Losses of a training."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), **LAYOUT)
    TrainingDisplay.from_estimator(digits()[2], ax=axes[0])
    probability = digits()[2].predict_proba(digits()[1].images)
    truth = digits()[1].labels
    for value, name in ((1, "images with the digit"), (0, "without")):
        axes[1].hist(probability[truth == value], np.linspace(0, 1, 21), alpha=0.7, label=name)
    axes[1].set(xlabel="probability on unseen images", ylabel="images and classes")
    axes[1].legend(frameon=False)
    return figure


class StopOnce(Callback):
    """Stop the training after its fourth epoch, in the first run only."""

    def __init__(self, flag):
        self.flag = flag

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 4 and not self.flag.exists():
            self.flag.touch()
            raise InterruptedError


def reproducibility():
    """A training that was stopped after its fourth epoch, and one that was not."""

    X, y = load_digits(n_class=3, return_X_y=True)
    parameters = {"n_filters": 4, "max_epochs": 10, "random_state": 0, "early_stopping": False}
    whole = MicraNetClassifier(**parameters).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        stopping = [("stop", StopOnce(Path(folder, "stopped")))]
        resumed = MicraNetClassifier(**parameters, callbacks=stopping, checkpoint_dir=folder)
        with suppress(InterruptedError):
            resumed.fit(X, y)
        resumed.fit(X, y)
    figure, ax = plt.subplots(figsize=(6, 2.8), **LAYOUT)
    epochs = range(1, 11)
    ax.plot(epochs, whole.history_[:, "train_loss"], "k-", label="never interrupted")
    ax.plot(epochs[:4], resumed.history_[:, "train_loss"][:4], "o", color="C1", label="interrupted")
    ax.plot(epochs[4:], resumed.history_[:, "train_loss"][4:], "o", color="C0", label="run again")
    ax.set(xlabel="epoch", ylabel="training loss")
    ax.legend(frameon=False)
    return figure


def inside():
    """All layers of one image."""
    train, test, network = digits()
    pipe = make_pipeline(
        GradCAMFeatureTransformer(FrozenEstimator(network)),
        PCAFeatureMap(),
    ).fit(train.images)
    figure, axes = plt.subplots(2, 5, figsize=(11, 4.8), **LAYOUT)
    LocalMapsDisplay.from_estimator(
        pipe, test.images, sample=1, map_index=int(test.labels[1].argmax()), ax=axes.ravel()
    )
    return figure


def scores():
    """Masks against the truth, and precision against recall."""
    _, test, _ = digits()
    pipe = make_pipeline(
        guided(),
        ThresholdSegmenter(method="fixed", min_size=20),
        HungarianDetector(max_distance=14),
    ).fit(test.images)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), **LAYOUT)
    shown = {"sample": 1, "map_index": int(test.labels[1].argmax())}
    MaskDisplay.from_estimator(pipe[:-1], test.images, test.masks, ax=left, **shown)
    DetectionPrecisionRecallDisplay.from_estimator(
        pipe, test.images, test.points, max_distance=14, ax=right
    )
    return figure


def speed():
    """Seconds of an epoch, from the table of the page."""
    text = (HERE / "guide" / "speed.rst").read_text(encoding="utf-8")
    rows = re.findall(r"``n_filters=(\d+)``.*\n((?:     - .* s; .* ms\n)+)", text)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), **LAYOUT)
    for n_filters, cells in rows:
        epoch, image = np.array(re.findall(r"- (\d+) s; (\d+) ms", cells), float).T
        left.loglog([64, 128, 256], epoch, "o-", label=f"n_filters={n_filters}")
        right.loglog([64, 128, 256], image, "o-")
    left.set(ylabel="s, an epoch of 1,000 images")
    right.set(ylabel="ms, an image to its mask")
    for ax in (left, right):
        ax.set_xticks([64, 128, 256], ["64 px", "128 px", "256 px"], minor=False)
        ax.minorticks_off()
    left.legend(frameon=False)
    return figure


def empty_fields():
    """False objects in images of background."""
    rows = json.loads((HERE / "images" / "empty_fields.json").read_text())
    names = list(dict.fromkeys(row["name"] for row in rows))
    means = [np.mean([row["invented"] for row in rows if row["name"] == name]) for name in names]
    figure, ax = plt.subplots(figsize=(7, 2.2), **LAYOUT)
    words = [n.replace("Otsu", "Otsu's threshold").replace("of b", "images of b") for n in names]
    bars = ax.barh(words[::-1], means[::-1], color=["C0"] * (len(names) - 1) + ["grey"])
    ax.bar_label(bars, fmt="%.2f", padding=3)
    ax.set(xlabel="false objects in an image of background", xlim=(0, 1.15 * max(means)))
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def which_tool():
    """Scores on nuclei, from the table of the page."""
    text = (HERE / "guide" / "which_tool.rst").read_text(encoding="utf-8")
    rows = re.findall(r"   \* - (.*)\n     - [*]*(0\.\d+)[*]*\n     - (.*)\n", text)
    names = [f"{name.strip('*')}\n{annotated}" for name, _, annotated in rows][::-1]
    figure, ax = plt.subplots(figsize=(7, 2.6), **LAYOUT)
    colours = ["C0" if "guided" in name else "lightgrey" for name in names]
    bars = ax.barh(names, [float(score) for _, score, _ in rows][::-1], color=colours)
    ax.bar_label(bars, fmt="%.2f", padding=3)
    ax.set(xlabel="mean IoU of nuclei", xlim=(0, 1))
    ax.spines[["top", "right"]].set_visible(False)
    return figure


PICTURES = (
    labels,
    crops,
    thresholds,
    objects,
    searches,
    training,
    reproducibility,
    inside,
    scores,
    speed,
    empty_fields,
    which_tool,
)

if __name__ == "__main__":
    plt.switch_backend("Agg")
    chosen = sys.argv[1:] or [picture.__name__ for picture in PICTURES]
    for picture in PICTURES:
        if picture.__name__ in chosen:
            picture().savefig(HERE / "images" / f"{picture.__name__}.png", dpi=110)
            print(picture.__name__)
