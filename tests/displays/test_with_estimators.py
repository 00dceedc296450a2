"""The displays with the estimators that they are made for, hardly trained."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sklearn_micranet import (
    GradCAMFeatureTransformer,
    HungarianDetector,
    IntensityScaler,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet.displays import DetectionDisplay, LocalMapsDisplay, MaskDisplay

DIGITS = load_digits(n_class=3)
IMAGES = np.kron(DIGITS.images[:40], np.ones((2, 2)))  # 16 x 16 px


@pytest.fixture(scope="module")
def pipe():
    classifier = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    classifier.fit(IMAGES / 16, DIGITS.target[:40])
    steps = [
        ("scale", IntensityScaler(method="minmax")),
        ("cam", GradCAMFeatureTransformer(FrozenEstimator(classifier), classes="all")),
        ("pca", PCAFeatureMap()),
        ("segment", ThresholdSegmenter()),
        ("detect", HungarianDetector(max_distance=3)),
    ]
    return Pipeline(steps).fit(IMAGES)


def test_local_maps(pipe):
    display = LocalMapsDisplay.from_estimator(pipe, IMAGES, sample=3, map_index=1, layers=["L8"])
    local_maps, feature_maps = (np.asarray(pipe[:n].transform(IMAGES[3:4])) for n in (2, 3))
    np.testing.assert_array_equal(display.images_[0].get_array(), IMAGES[3])
    np.testing.assert_allclose(display.images_[1].get_array(), local_maps[0, 1, 7])
    np.testing.assert_allclose(display.images_[2].get_array(), feature_maps[0, 1])
    lazy = pipe[:2].transform(IMAGES)
    display = LocalMapsDisplay.from_predictions(IMAGES, lazy, sample=3, map_index=1, layers=["L8"])
    np.testing.assert_allclose(display.images_[1].get_array(), local_maps[0, 1, 7])


def test_masks(pipe):
    display = MaskDisplay.from_estimator(pipe[:-1], IMAGES, sample=3)
    np.testing.assert_array_equal(display.masks, pipe[:-1].predict(IMAGES[3:4])[0])
    assert display.masks.dtype == bool
    display = MaskDisplay.from_predictions(IMAGES, pipe[:-1].transform(IMAGES), sample=3)
    assert set(display.outlines_) <= {"class 0", "class 1", "class 2"}


def test_detections(pipe):
    display = DetectionDisplay.from_estimator(pipe, IMAGES, sample=3)
    rows = pipe.predict(IMAGES[3:4])[0]
    drawn = np.concatenate([marks.get_offsets() for marks in display.marks_.values()])
    np.testing.assert_allclose(drawn, rows[np.argsort(rows[:, 0], kind="stable")][:, 2:0:-1])


def test_images_of_different_size(pipe):
    images = [IMAGES[0], IMAGES[1, :, :12]]
    display = MaskDisplay.from_estimator(pipe[1:-1], images, sample=1)
    assert display.masks.shape == (3, 16, 12)
