"""
Five failures of masks, and the mend
====================================

Five typical failures, provoked on purpose. Each is shown as it looks, with one line that tells it
from the others, and mended. In the pictures blue was found, yellow missed, and orange invented.
"""

# %%
# Images and labels
# -----------------
# Half of the images show cells. That is all that a network is told of them.
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.transform import resize
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    GuidedFeatureMap,
    IntensityScaler,
    MicraNetClassifier,
    ThresholdSegmenter,
)
from sklearn_micranet.displays import MaskDisplay

SIZE = 64  # px


def make_cells(n_samples, radius=8, seed=0):
    """Images, their labels, and the masks of cells of about this radius in px."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((SIZE, SIZE))
    labels = np.where(np.arange(n_samples) % 2 == 1, "cells", "empty")
    images = rng.normal(300, 25, (n_samples, SIZE, SIZE))
    masks = np.zeros((n_samples, 1, SIZE, SIZE), dtype=bool)
    for i in range(1, n_samples, 2):
        for row, column in rng.uniform(10, SIZE - 10, (2, 2)):
            a, b = radius * rng.uniform(0.8, 1.25, 2)
            masks[i, 0] |= ((rows - row) / a) ** 2 + ((columns - column) / b) ** 2 < 1
        images[i] += gaussian_filter(200.0 * masks[i, 0], 1.5)
    return images.astype(np.uint16), labels, masks


def pipeline(segmenter=None, **parameters):
    parameters = {"background_label": "empty", "max_epochs": 12, "random_state": 0} | parameters
    network = MicraNetClassifier(
        n_filters=8, lr=3e-3, early_stopping=False, validation_fraction=0, **parameters
    )
    return make_pipeline(
        IntensityScaler(method="training_range"),
        GuidedFeatureMap(network, random_state=0),
        segmenter or ThresholdSegmenter(method="fixed"),
    )


def compare(images, truth, masks, titles, samples=(1, 3, 5)):
    """Draw a row of images for each set of masks."""
    shape = len(masks), len(samples)
    size = 2.4 * shape[1], 2.5 * shape[0]
    figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for row, found, title in zip(axes, masks, titles, strict=True):
        for ax, i in zip(row, samples, strict=True):
            MaskDisplay.from_predictions(
                images, found, masks_true=truth, sample=i, ax=ax, legend=False
            )
            ax.set_title("")
        row[0].set_title(title, loc="left")
    return figure


images, labels, _ = make_cells(240)
test_images, test_labels, test_masks = make_cells(40, seed=1)
good = pipeline().fit(images, labels)
good_masks = good.predict(test_images)

# %%
# Inverted class
# --------------
# **What it looks like**: images with a structure have no mask, those without are full of it.
# The wrong label was taken for the background.
inverted = pipeline(background_label="cells").fit(images, labels)

# %%
# **Diagnosis**: which class has the maps?
print(inverted[1].map_classes_)

# %%
# **Mend**: name the label of images without structure, ``background_label="empty"``. With labels of
# 0 and 1 let 1 be the structure.
_ = compare(
    test_images,
    test_masks,
    [inverted.predict(test_images), good_masks],
    ['background_label="cells"', 'background_label="empty"'],
    samples=(0, 1, 3),
)

# sphinx_gallery_thumbnail_number = 3

# %%
# Too coarse
# ----------
# **What it looks like**: blocks of 8 px that lie on the cells but do not follow them. They are the
# last local map, which says where, not how far.
frozen = FrozenEstimator(good[1].estimator_)
cam = make_pipeline(good[0], GradCAMFeatureTransformer(frozen)).fit(images)
coarse = [maps > 0 for maps in cam.transform(test_images).layer("L8")]

# %%
# **Diagnosis**: how many image pixels does each value of the map cover?
print(f"the same value on {np.mean(np.diff(np.asarray(coarse), axis=-1) == 0):.0%} of neighbours")

# %%
# **Mend**: take the outline from the image, by :class:`~sklearn_micranet.GuidedFeatureMap`, or from
# the earlier layers, by :class:`~sklearn_micranet.PCAFeatureMap`.
_ = compare(test_images, test_masks, [coarse, good_masks], ["L8 > 0", "guided"])

# %%
# Halo
# ----
# **What it looks like**: each object has a rim of background, objects that lie close are one. The
# outline is drawn too low, or the map was smoothed too much before it was cut.
wide = make_pipeline(*good[:-1], ThresholdSegmenter(method="fixed", sigma=5, threshold=0.2))
halo = wide.predict(test_images)

# %%
# **Diagnosis**: the area found, as a multiple of the true area of a few images.
few_images, few_masks = test_images[1:20:2], test_masks[1:20:2]
print(f"{halo[1:20:2].sum() / few_masks.sum():.2f} times the true area")

# %%
# **Mend**: let these few masks choose.
wide.steps[1] = ("guidedfeaturemap", FrozenEstimator(good[1]))
search = GridSearchCV(
    wide,
    {"thresholdsegmenter__sigma": [0, 1, 5], "thresholdsegmenter__threshold": [0.2, 0.5, 0.8]},
    cv=2,
).fit(few_images, few_masks)
print(search.best_params_)
_ = compare(test_images, test_masks, [halo, search.predict(test_images)], ["halo", "searched"])


# %%
# Short cut in the labels
# -----------------------
# **What it looks like**: the mask lies where the object is not, in many images at the same place.
# Here all images of cells, and no others, carry a scale bar.
def with_mark(images, labels):
    marked = images.copy()
    marked[labels == "cells", 56:60, 4:24] = 700
    return marked


marked = with_mark(images, labels)
misled = pipeline().fit(marked, labels)
misled_masks = misled.predict(with_mark(test_images, test_labels))

# %%
# **Diagnosis**: where the masks of many images agree. Objects do not sit in one place.
where = misled_masks[test_labels == "cells", 0].mean(axis=0)
print(
    f"one pixel is in {where.max():.0%} of the masks: row, column",
    np.argwhere(where == where.max())[0],
)

# %%
# **Mend**: cut the mark off or give it to all images, then train anew. Nothing after the classifier
# can mend it.
unmarked = pipeline().fit(marked[:, :56], labels)
_ = compare(
    with_mark(test_images, test_labels),
    test_masks,
    [
        misled_masks,
        [np.pad(m, ((0, 0), (0, 8), (0, 0))) for m in unmarked.predict(test_images[:, :56])],
    ],
    ["the mark tells the label", "trained without its rows"],
)

# %%
# Wrong scale
# -----------
# **What it looks like**: holes, pieces, missed objects. The images have another pixel size than
# those of the training.
pixel_size, new_pixel_size = 0.65, 0.13  # um
factor = round(pixel_size / new_pixel_size)
large_size = (factor * SIZE, factor * SIZE)
large = np.stack([resize(image, large_size, preserve_range=True) for image in test_images])
large_masks = np.stack([resize(mask[0], large_size, order=0)[np.newaxis] for mask in test_masks])
missed = good.predict(large)

# %%
# **Diagnosis**: how many px does an object of this width have here, and had in the training?
print(f"10 um: {10 / new_pixel_size:.0f} px, in the training {10 / pixel_size:.0f} px")

# %%
# **Mend**: scale new images to the pixel size of the training, and their masks back.
shape = (SIZE, SIZE)
small = [resize(image, shape, preserve_range=True, anti_aliasing=True) for image in large]
mended = [resize(mask[0], large_size, order=0)[np.newaxis] for mask in good.predict(small)]
titles = [f"{factor} times as large", "scaled, masks scaled back"]
_ = compare(large, large_masks, [missed, mended], titles)
plt.show()
