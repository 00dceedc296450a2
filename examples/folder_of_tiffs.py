"""From a folder of TIFF files and a CSV file of labels to objects: a table, and ROIs for Fiji."""

from pathlib import Path

import numpy as np
import tifffile
from skimage.measure import label
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline

import sklearn_micranet as mn

folder, rng = Path("tiffs"), np.random.default_rng(0)
folder.mkdir(exist_ok=True)
for i, digit in enumerate(load_digits().images[:300]):  # every other image shows a digit
    image, (row, column) = rng.normal(300, 30, (48, 48)), rng.integers(0, 25, 2)
    image[row : row + 24, column : column + 24] += i % 2 * np.kron(digit, np.full((3, 3), 10))
    tifffile.imwrite(folder / f"{i}.tif", image.astype(np.uint16))
rows = ["file,label", *(f"{i}.tif,{i % 2}" for i in range(300))]
(folder / "labels.csv").write_text("\n".join(rows))
data = mn.images.read_images(folder, labels=folder / "labels.csv")
scaler, fusion = mn.IntensityScaler(method="standard"), mn.PCAFeatureMap()
cam = mn.GradCAMFeatureTransformer(mn.MicraNetClassifier(n_filters=8, max_epochs=9, random_state=0))
model = make_pipeline(scaler, cam, fusion, mn.ThresholdSegmenter()).fit(data.images, data.labels)
instances = [label(mask[0]) for mask in model.predict(data.images)]
names = {"sample_names": data.filenames, "class_names": ["digit"]}
mn.images.write_objects(folder / "objects.csv", instances, images=data.images, **names)
mn.images.write_objects(folder / "rois" / "{sample}.zip", instances, **names)
