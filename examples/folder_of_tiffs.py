"""
From a folder of TIFF files to objects
======================================

TIFF files and a CSV file of labels become a table of objects, ROIs and a picture.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tifffile
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline

import sklearn_micranet as mn

folder, found, rng = Path("tiffs"), Path("found"), np.random.default_rng(0)
folder.mkdir(exist_ok=True)
for i, digit in enumerate(load_digits().images[:300]):  # every other image shows a digit
    image, (row, column) = rng.normal(300, 30, (48, 48)), rng.integers(0, 25, 2)
    image[row : row + 24, column : column + 24] += i % 2 * np.kron(digit, np.full((3, 3), 10))
    tifffile.imwrite(folder / f"{i}.tif", image.astype(np.uint16))
Path("labels.csv").write_text("file,label\n" + "\n".join(f"{i}.tif,{i % 2}" for i in range(300)))
data = mn.images.read_images(folder, labels="labels.csv")
network = mn.MicraNetClassifier(n_filters=8, max_epochs=9, random_state=0)
steps = mn.IntensityScaler(method="standard"), mn.GuidedFeatureMap(network)
model = make_pipeline(*steps, mn.ThresholdSegmenter(method="fixed", sigma=1, min_size=30))
instances = model.fit(data.images, data.labels).transform(data.images).instances
names = {"sample_names": data.filenames, "class_names": ["digit"], "pixel_size": 0.1}  # um
mn.images.write_objects(found / "objects.csv", instances, images=data.images, **names)
mn.images.write_objects(found / "rois" / "{sample}.zip", instances, **names)
for i, ax in enumerate(plt.subplots(3, 5, figsize=(10, 6.6), layout="constrained")[1].flat, 51):
    drawn = {"sample": i, "ax": ax, "legend": False, "pixel_size": 0.1}
    mn.displays.MaskDisplay.from_predictions(data.images, instances, **drawn)
    ax.set_title(data.filenames[i])
plt.savefig(found / "overview.png", dpi=120)
