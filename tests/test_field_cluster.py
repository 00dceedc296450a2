"""FieldSegmenter and a grid search on a cluster of two processes."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

from sklearn_micranet import (
    FieldSegmenter,
    GradCAMFeatureTransformer,
    IntensityScaler,
    MicraNetClassifier,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet._network._windows import WindowNetworks
from sklearn_micranet.images import extract_crops

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow  # processes that import torch are started

SIZE, STEP = 32, 16
BOXES = [(20, 70, 32, 80), (60, 20, 70, 34), (80, 100, 92, 110)]
NETWORK = MicraNetClassifier(
    n_filters=4, max_epochs=6, lr=0.01, validation_fraction=0, random_state=0
)


@pytest.fixture(scope="module")
def client():
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(n_workers=2, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def save_field(path, shape):
    field = np.random.default_rng(0).integers(0, 60, shape).astype(np.uint8)
    for first_row, first_column, end_row, end_column in BOXES:
        field[first_row:end_row, first_column:end_column] += 190
    np.save(path, field)
    return np.load(path, mmap_mode="r")


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    return save_field(tmp_path_factory.mktemp("fields") / "field.npy", (112, 144))


@pytest.fixture(scope="module")
def segmenter(field):
    crops = extract_crops([field], size=SIZE, step=8, boxes=[BOXES])
    classifier = FrozenEstimator(NETWORK.fit(crops.images, crops.labels))
    pipeline = make_pipeline(
        GradCAMFeatureTransformer(classifier), PCAFeatureMap(), ThresholdSegmenter()
    )
    return FieldSegmenter(pipeline, size=SIZE, step=STEP, tile_size=32, random_state=0).fit([field])


@pytest.mark.parametrize("source", ["file", "memory", "scaled", "dask"])
def test_a_cluster_gives_the_results_of_one_process(client, segmenter, field, source):
    field = field if source == "file" else np.array(field)
    if source == "dask":  # computed by the cluster that sweeps it
        field = pytest.importorskip("dask.array").from_array(field, chunks=40)
    if source == "scaled":
        segmenter = FieldSegmenter(
            segmenter.estimator, size=SIZE, step=STEP, tile_size=32, random_state=0
        )
        segmenter.set_params(scaler=IntensityScaler(method="minmax"), n_fit_samples=None)
        segmenter.fit([field])
    expected = segmenter.decision_map([field])[0], segmenter.predict_instances([field])[0]
    with joblib.parallel_config(backend="dask"):
        found = segmenter.decision_map([field])[0], segmenter.predict_instances([field])[0]
    assert expected[1].any() or source == "scaled"
    for a, b in zip(found, expected, strict=True):
        assert_array_equal(a, b)


def test_weights_travel_once_in_a_sweep(client, segmenter, field, monkeypatch):
    sent, state_of = [], WindowNetworks.__getstate__
    monkeypatch.setattr(WindowNetworks, "__getstate__", lambda n: sent.append(n) or state_of(n))
    with joblib.parallel_config(backend="dask"):
        segmenter.decision_map([field])
    assert len(sent) == 1  # for 20 tiles; the workers pass them on to each other


def test_a_search_on_a_cluster_gives_the_results_of_one_process(client, field):
    crops = extract_crops([field, field[:, ::-1]], size=SIZE, step=STEP, boxes=[BOXES, []])
    labels = (np.asarray(crops.images) > 180).any(axis=(1, 2)).astype(int)
    network = MicraNetClassifier(n_filters=2, max_epochs=2, validation_fraction=0, random_state=0)
    search = GridSearchCV(network, {"lr": [0.001, 0.01]}, cv=GroupKFold(2), scoring="neg_log_loss")
    expected = search.fit(crops.images, labels, groups=crops.groups).cv_results_["mean_test_score"]
    assert expected[0] != expected[1]
    with joblib.parallel_config(backend="dask"):
        search.fit(crops.images, labels, groups=crops.groups)
    assert_array_equal(search.cv_results_["mean_test_score"], expected)


def test_a_worker_that_is_killed_changes_nothing(client, segmenter, tmp_path):
    field = save_field(tmp_path / "large.npy", (1024, 1024))
    expected = segmenter.decision_map([field])[0]
    processes = client.run(os.getpid)

    def sweep():
        with joblib.parallel_config(backend="dask"):
            return segmenter.decision_map([field])[0]

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(sweep)
        deadline = time.monotonic() + 60
        while not all(client.processing().values()) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)  # some tiles are finished
        assert not future.done()
        os.kill(min(processes.values()), signal.SIGKILL)
        assert_array_equal(future.result(), expected)
    client.wait_for_workers(2)
    assert set(client.run(os.getpid).values()) != set(processes.values())
