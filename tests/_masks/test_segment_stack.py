import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing

from sklearn_micranet import HungarianDetector, ThresholdSegmenter
from sklearn_micranet._stack._lazy_stack import LazyStack

ROWS, COLUMNS = np.mgrid[:24, :40]


def two_discs(apart):
    """Two discs of radius 8, the second somewhat less high."""
    first, second = (np.hypot(ROWS - 11, COLUMNS - column) <= 8 for column in (10.0, 10.0 + apart))
    return np.where(first, 0.9, np.where(second, 0.7, 0.0)).astype(np.float32)


X = np.array([[two_discs(apart)] for apart in (15, 14, 20, 16, 13)])
SEGMENTER = ThresholdSegmenter(method="fixed", min_distance=4)
EXPECTED = SEGMENTER.predict_instances(X)


class Recorder:
    def __init__(self):
        self.sizes = []

    def __call__(self, batch):
        self.sizes.append(len(batch))
        return batch


def containers():
    yield X
    yield list(X)
    yield LazyStack(X, Recorder(), item_shape=X.shape[1:], batch_size=2)
    yield LazyStack(list(X), Recorder(), item_shape=None, batch_size=2)


@pytest.mark.parametrize("source", list(containers()), ids=["array", "list", "stack", "ragged"])
def test_a_pipeline_finds_touching_objects_one_by_one(source):
    pipe = make_pipeline(clone(SEGMENTER), HungarianDetector(max_distance=2)).fit(source)
    detections = pipe.predict(source)
    for found, apart in zip(detections, (15, 14, 20, 16, 13), strict=True):
        np.testing.assert_allclose(found[:, :3], [[0, 11, 10], [0, 11, 10 + apart]], atol=0.7)
        np.testing.assert_allclose(found[:, 3], [0.9, 0.7], atol=0.02)
    assert pipe.score(source, EXPECTED) == 1
    merged = pipe.set_params(thresholdsegmenter__min_distance=None).predict(source)
    assert [len(found) for found in merged] == [1, 1, 2, 1, 1]


@pytest.mark.parametrize(
    "key", [slice(1, 4), slice(None, None, -2), [3, 0], np.arange(5) > 2, slice(0, 0)], ids=str
)
def test_a_selection_keeps_its_instances(key):
    segments = SEGMENTER.transform(X)
    for selected in (segments[key], segments[key][:], pickle.loads(pickle.dumps(segments[key]))):
        assert (selected.instances.dtype, selected.instances.shape[1:]) == (np.int32, X.shape[1:])
        assert_array_equal(selected.instances, EXPECTED[key])
        assert_array_equal(np.asarray(selected) > 0, EXPECTED[key] > 0)
    assert_array_equal(segments[key][..., :5], np.asarray(segments)[key][..., :5])


def test_sklearn_selects_from_it():
    assert_array_equal(_safe_indexing(SEGMENTER.transform(X), [2, 1]).instances, EXPECTED[[2, 1]])


@pytest.mark.parametrize("item_shape", [X.shape[1:], None])
def test_segments_and_instances_are_computed_once_and_batch_by_batch(item_shape, monkeypatch):
    recorder, calls = Recorder(), []

    def split(mask, feature_map):
        calls.append(mask.any())
        return np.zeros(mask.shape, dtype=int)

    source = X if item_shape else list(X)
    stack = LazyStack(source, recorder, item_shape=item_shape, batch_size=2)
    segments = ThresholdSegmenter(method="fixed", split=split).transform(stack)
    assert recorder.sizes == []
    HungarianDetector().predict(segments)
    assert recorder.sizes == [2, 2, 1]
    assert len(calls) == len(X)


def test_a_plain_array_of_segments_does_not_tell_touching_objects_apart():
    segments = np.asarray(SEGMENTER.transform(X))
    assert [len(found) for found in HungarianDetector().predict(segments)] == [1, 1, 2, 1, 1]


def test_keys_tell_what_instances_depend_on():
    segments = SEGMENTER.transform(X)
    other = ThresholdSegmenter(method="fixed", min_distance=9).transform(X)
    assert segments.keys() == SEGMENTER.transform(X).keys() != other.keys()
    assert segments.instances.keys() != segments.keys()
    assert len(set(segments.keys())) == len(X)
