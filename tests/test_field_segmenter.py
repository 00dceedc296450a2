import os
import pickle
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from test_docs import PAGES, code_blocks

import sklearn_micranet
from sklearn_micranet import (
    FieldSegmenter,
    GradCAMFeatureTransformer,
    HungarianDetector,
    IntensityScaler,
    MicraNetClassifier,
    MicraNetEnsemble,
    PCAFeatureMap,
    ThresholdSegmenter,
)
from sklearn_micranet._fields import _windows
from sklearn_micranet._network._windows import WindowNetworks
from sklearn_micranet._training import _data
from sklearn_micranet.images import extract_crops, measure_objects, read_objects

SIZE, STEP = 32, 16


class ImageAsMap(TransformerMixin, BaseEstimator):
    """Stands for a map step: the map is the image, so that the masks are known."""

    n_windows = 0

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y=None, **fit_params):
        self.estimator_ = clone(self.estimator).fit(X, y, **fit_params)
        return self

    def transform(self, X):
        ImageAsMap.n_windows += len(X)
        return np.asarray(X, dtype=np.float32)[:, np.newaxis]


def make_field(*boxes, shape=(112, 144), seed=0):
    """Dim noise with a bright rectangle for each box."""
    field = np.random.default_rng(seed).integers(0, 60, shape).astype(np.uint8)
    for first_row, first_column, end_row, end_column in boxes:
        field[first_row:end_row, first_column:end_column] += 190
    return field


BOXES = [(20, 70, 32, 80), (60, 20, 70, 34), (80, 100, 92, 110)]
FIELD = make_field(*BOXES)


@pytest.fixture(scope="module")
def classifier():
    """Finds bright rectangles, wherever they are in a window."""
    crops = extract_crops([FIELD, make_field(seed=1)], size=SIZE, step=8, boxes=[BOXES, []])
    labels = (np.asarray(crops.images) > 180).any(axis=(1, 2)).astype(int)
    parameters = {"max_epochs": 6, "lr": 0.01, "validation_fraction": 0, "random_state": 0}
    classifier = MicraNetClassifier(n_filters=4, **parameters).fit(crops.images, labels)
    assert classifier.score(crops.images, labels) > 0.98
    return classifier


@pytest.fixture(scope="module")
def sure(classifier):
    """The same, for windows of which all are to have maps."""
    return pickle.loads(pickle.dumps(classifier)).set_params(threshold=0.0)


def fitted(estimator, **params):
    params = {"size": SIZE, "step": STEP, "random_state": 0} | params
    return FieldSegmenter(FrozenEstimator(estimator), **params).fit([FIELD])


def segmenter_of(classifier, **params):
    pipeline = make_pipeline(
        ImageAsMap(FrozenEstimator(classifier)), ThresholdSegmenter(method="fixed", threshold=180)
    )
    return FieldSegmenter(pipeline, **{"size": SIZE, "step": STEP} | params).fit([FIELD])


# --- scores ---------------------------------------------------------------------------------


@pytest.mark.parametrize("annotation", ["boxes", "points", "masks"])
def test_fit_trains_the_estimator_on_labelled_windows(annotation):
    points = [((r + e - 1) / 2, (c + f - 1) / 2) for r, c, e, f in BOXES]
    y = {"boxes": BOXES, "points": points, "masks": FIELD > 180}[annotation]
    network = MicraNetClassifier(n_filters=2, max_epochs=1, validation_fraction=0, random_state=0)
    segmenter = FieldSegmenter(network, size=SIZE, annotation=annotation).fit([FIELD], [y])
    crops = extract_crops([FIELD], size=SIZE, step=STEP, **{annotation: [y]})
    expected = clone(network).fit(crops.images, crops.labels)
    assert crops.labels.any()
    assert_array_equal(segmenter.classes_, [0, 1])
    assert_array_equal(
        segmenter.estimator_.predict_proba(crops.images), expected.predict_proba(crops.images)
    )


def test_exact_scores_are_those_of_the_classifier_for_each_window(classifier):
    segmenter = fitted(classifier, size=30, step=13, exact=True)
    crops = extract_crops([FIELD], size=30, step=13)
    (logits,), (found,) = segmenter.decision_map([FIELD]), segmenter.predict_proba_map([FIELD])
    expected = classifier.predict_proba(crops.images)
    assert_allclose(found.reshape(-1, 2), expected, atol=1e-6)
    assert logits.shape == found.shape[:2]
    assert_allclose(logits.ravel(), classifier.decision_function(crops.images), atol=1e-4)


def test_shared_scores_are_fitted_to_the_exact_ones(classifier):
    boxes = [(15, 20, 27, 33), (50, 60, 60, 72), (80, 110, 92, 120)]
    field = make_field(*boxes, seed=9)  # another one than that of the fit
    windows = extract_crops([field], size=SIZE, step=8).images
    truth = [(np.asarray(window) > 180).any() for window in windows]
    exact, fitted_, network_s = (
        fitted(classifier, step=8, **params).decision_map([field])[0].ravel()
        for params in ({"exact": True}, {}, {"n_fit_samples": None})
    )
    assert 0.1 < np.mean(truth) < 0.9
    assert np.mean((exact >= 0) == truth) > 0.98
    assert np.mean((network_s >= 0) == truth) < 0.8  # windows of 32 px are all border
    assert np.mean((fitted_ >= 0) == truth) > 0.9
    assert np.corrcoef(fitted_, exact)[0, 1] > 0.85 > np.corrcoef(network_s, exact)[0, 1]
    assert 0.8 < fitted(classifier, step=8).shared_r2_[0, 0] < 1


@pytest.mark.parametrize("tile_size", [8, 40, 500])
def test_scores_do_not_depend_on_the_tiles(classifier, tile_size):
    whole, tiled = (
        fitted(classifier, tile_size=side).decision_map([FIELD])[0] for side in (112, tile_size)
    )
    assert_allclose(tiled, whole, rtol=0, atol=1e-4 * np.abs(whole).max())


def test_several_classes_and_networks_and_channels():
    rng = np.random.default_rng(0)
    X, y = rng.random((12, 16, 16, 2)), np.arange(36).reshape(12, 3) % 5 % 2
    network = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0, validation_fraction=0)
    ensemble = MicraNetEnsemble(network, cv=2, random_state=0).fit(X, y)
    fields = [rng.random((32, 48, 2)), rng.random((40, 40, 2))]
    segmenter = FieldSegmenter(FrozenEstimator(ensemble), size=16, step=8, exact=True).fit(fields)
    exact = segmenter.predict_proba_map(fields)
    shared = clone(segmenter).set_params(exact=False).fit(fields).predict_proba_map(fields)
    assert [p.shape for p in exact] == [p.shape for p in shared] == [(3, 5, 3), (4, 4, 3)]
    windows = extract_crops(fields, size=16, step=8).images
    expected = ensemble.predict_proba(windows)
    assert_allclose(np.concatenate([p.reshape(-1, 3) for p in exact]), expected, atol=1e-6)
    assert all((p >= 0).all() and (p <= 1).all() for p in shared)
    with pytest.raises(ValueError, match=r"X must have 2 channel\(s\).* Got 1 instead"):
        segmenter.predict_proba_map([fields[0][..., 0]])


def test_a_field_is_read_in_tiles(classifier):
    class Field:
        shape, dtype = (2000, 200), np.dtype(np.uint8)
        largest = 0

        def __getitem__(self, key):
            rows, columns = key
            n_rows, n_columns = rows.stop - rows.start, columns.stop - columns.start
            Field.largest = max(Field.largest, n_rows * n_columns)
            return np.zeros((n_rows, n_columns), dtype=np.uint8)

    segmenter = fitted(classifier, tile_size=64)
    assert segmenter.predict_proba_map([Field()])[0].shape == (124, 12, 2)
    assert Field.largest <= (64 + 2 * 32) ** 2


# --- proposals ------------------------------------------------------------------------------


def test_proposals_find_the_objects_first(classifier):
    table = fitted(classifier).propose([make_field(seed=2), FIELD], as_frame=False)
    assert (table["field"][: len(BOXES)] == 1).all()
    assert (np.diff(table["score"]) <= 0).all()
    found = {
        box
        for i in range(len(BOXES) + 2)
        for box in BOXES
        if table["field"][i] == 1
        and (
            np.minimum(box[2:], (table["end_row"][i], table["end_column"][i]))
            > np.maximum(box[:2], (table["first_row"][i], table["first_column"][i]))
        ).all()
    }
    assert found == set(BOXES)


def test_proposals_do_not_overlap_and_say_what_was_inspected(classifier):
    field = make_field(*BOXES, shape=(100, 144))  # the last row of windows reaches beyond
    segmenter = fitted(classifier)
    table = segmenter.propose([field], as_frame=False)
    seen = np.zeros(field.shape, dtype=int)
    columns = ("first_row", "end_row", "first_column", "end_column")
    for i, (first_row, end_row, first_column, end_column) in enumerate(
        zip(*(table[name] for name in columns), strict=True)
    ):
        seen[first_row:end_row, first_column:end_column] += 1
        assert table["area"][i] == (end_row - first_row) * (end_column - first_column)
        assert table["inspected"][i] == pytest.approx((seen > 0).mean())
    assert seen.max() == 1
    every = segmenter.propose([field], max_overlap=0.99, as_frame=False)
    assert every["inspected"][-1] == pytest.approx(1)
    assert len(every["score"]) > len(table["score"])
    few = segmenter.propose([field], n_windows=2, as_frame=True)
    assert few["score"].tolist() == table["score"][:2].tolist()
    assert set(few["map_index"]) == {0}
    with pytest.raises(ValueError, match=r"map_index must be None or from 0 to 0. Got 1"):
        segmenter.propose([field], map_index=1)
    with pytest.raises(ValueError, match=r"max_overlap must be in \[0, 1\). Got 1 "):
        segmenter.propose([field], max_overlap=1)


# --- masks and objects ----------------------------------------------------------------------


@pytest.mark.parametrize("tile_size", [40, 512])
@pytest.mark.parametrize("step", [8, 16, 32])
def test_masks_and_objects_of_a_field(sure, tile_size, step):
    segmenter = segmenter_of(sure, step=step, tile_size=tile_size)
    truth = FIELD > 180
    (masks,), (instances,) = segmenter.predict([FIELD]), segmenter.predict_instances([FIELD])
    assert masks.dtype == bool
    assert_array_equal(masks, truth[np.newaxis])
    assert instances.dtype == np.int32
    assert_array_equal(instances > 0, truth[np.newaxis])
    table = measure_objects([instances], as_frame=False)
    assert sorted(zip(table["row"], table["column"], strict=True)) == [
        ((r + e - 1) / 2, (c + f - 1) / 2) for r, c, e, f in BOXES
    ]
    (detections,) = segmenter.detect([FIELD])
    order = np.argsort(detections[:, 1])
    assert_allclose(detections[order, 1], sorted(table["row"]))
    assert_array_equal(detections[:, 0], 0)
    assert ((detections[:, 3] > 0.5) & (detections[:, 3] <= 1)).all()


def test_maps_are_computed_for_windows_with_a_class_only(classifier):
    segmenter = segmenter_of(classifier)
    ImageAsMap.n_windows = 0
    empty = make_field(seed=3)
    (masks,), (detections,) = segmenter.predict([empty]), segmenter.detect([empty])
    assert not masks.any()
    assert masks.shape == (1, *empty.shape)
    assert detections.shape == (0, 4)
    assert ImageAsMap.n_windows == 0
    positive = fitted(classifier).predict_proba_map([FIELD])[0][..., 1] >= 0.5
    (masks,) = segmenter.predict([FIELD])
    assert ImageAsMap.n_windows == positive.sum() < positive.size
    assert_array_equal(masks[0], FIELD > 180)


def test_results_of_a_pipeline_of_the_paper(classifier):
    pipeline = make_pipeline(
        GradCAMFeatureTransformer(FrozenEstimator(classifier)),
        PCAFeatureMap(),
        ThresholdSegmenter(),
        HungarianDetector(),
    )
    segmenter = FieldSegmenter(pipeline, size=SIZE).fit([FIELD])
    (detections,) = segmenter.detect([FIELD])
    for first_row, first_column, end_row, end_column in BOXES:
        inside = (detections[:, 1:3] > (first_row - 8, first_column - 8)).all(axis=1)
        inside &= (detections[:, 1:3] < (end_row + 8, end_column + 8)).all(axis=1)
        assert inside.any()


def test_results_are_written_where_one_says(sure, tmp_path):
    zarr = pytest.importorskip("zarr")
    segmenter = segmenter_of(sure, tile_size=48)
    expected = segmenter.predict_instances([FIELD])[0]
    shape = expected.shape
    mapped = np.memmap(tmp_path / "a.raw", np.int32, "w+", shape=shape)
    mapped[:] = 7
    stored = zarr.create_array(tmp_path / "a.zarr", shape=shape, chunks=(1, 48, 48), dtype="int32")
    for out in (mapped, stored):
        assert segmenter.predict_instances([FIELD], out=[out])[0] is out
        assert_array_equal(out[:], expected)
    with pytest.raises(ValueError, match=r"the shape \(1, 112, 144\) and the dtype bool. Got .*i"):
        segmenter.predict([FIELD], out=[mapped])
    with pytest.raises(ValueError, match=r"out must hold one array or path per field, 1. Got 2"):
        segmenter.predict([FIELD], out=[mapped, mapped])


@pytest.mark.parametrize("kind", ["memory map", "zarr", "hdf5"])
def test_arrays_to_write_to_may_hold_anything(sure, tmp_path, kind):
    segmenter = segmenter_of(sure, tile_size=48)
    (expected,) = segmenter.predict([FIELD])
    shape = {"shape": expected.shape, "dtype": bool}
    if kind == "memory map":
        out = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", **shape)
    elif kind == "zarr":
        out = pytest.importorskip("zarr").create_array(tmp_path / "a", chunks=(1, 40, 40), **shape)
    else:
        out = pytest.importorskip("h5py").File(tmp_path / "a.h5", "w").create_dataset("x", **shape)
    out[:] = True
    segmenter.predict([FIELD], out=[out])
    assert_array_equal(out[:], expected)


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name[0] != "."}


def test_empty_chunks_of_a_store_are_not_written(sure, tmp_path):
    zarr = pytest.importorskip("zarr")
    shape = {"shape": (1, *FIELD.shape), "chunks": (1, 16, 16), "dtype": bool}
    stored = zarr.create_array(tmp_path / "a.zarr", zarr_format=2, **shape)
    segmenter_of(sure, tile_size=16).predict([FIELD], out=[stored])
    full = np.argwhere((FIELD > 180).reshape(7, 16, 9, 16).any(axis=(1, 3)))
    assert 0 < len(full) < 63
    assert files_in(tmp_path / "a.zarr") == {f"0.{row}.{column}" for row, column in full}


def test_results_as_ome_zarr_in_levels(sure, tmp_path, monkeypatch):
    zarr = pytest.importorskip("zarr")
    for module in ("_field_segmenter", "images._ome_zarr"):
        monkeypatch.setattr(f"sklearn_micranet.{module}.CHUNK", 40)
    segmenter = segmenter_of(sure, pixel_size=0.5)
    path = tmp_path / "new" / "a.ome.zarr"
    assert segmenter.predict_instances([FIELD], out=[path]) == [path]
    group = zarr.open_group(path, mode="r")
    assert [group[name].shape for name in "012"] == [(1, 112, 144), (1, 56, 72), (1, 28, 36)]
    assert_array_equal(group["0"][0], FIELD)
    means = FIELD.reshape(56, 2, 72, 2).mean(axis=(1, 3))
    assert_array_equal(group["1"][0], np.rint(means))
    labels = group["labels"]["0_1"]
    objects = read_objects(path)
    assert_array_equal(objects.instances, segmenter_of(sure).predict_instances([FIELD])[0])
    assert list(objects.class_names) == ["1"]
    assert_array_equal(labels["2"], labels["0"][::4, ::4])
    for part in (group, labels):
        (multiscale,) = part.attrs["multiscales"]
        scales = [d["coordinateTransformations"][0]["scale"][-1] for d in multiscale["datasets"]]
        assert scales == [0.5, 1.0, 2.0]
    assert [c["label-value"] for c in labels.attrs["image-label"]["colors"]] == [1, 2, 3]
    chunks = {f"{i}/{j}" for i, j in np.ndindex(3, 4) if labels["0"].blocks[i, j].any()}
    assert 0 < len(chunks) < 12
    assert {name for name in files_in(path / "labels" / "0_1" / "0") if "/" in name} == chunks
    with pytest.raises(FileExistsError, match="exists, or is named twice"):
        segmenter.predict([FIELD], out=[path])
    masks = segmenter.predict([FIELD], out=[str(tmp_path / "b.zarr")])
    assert masks == [str(tmp_path / "b.zarr")]
    assert_array_equal(read_objects(masks[0]).instances[0], FIELD > 180)
    (again,) = segmenter.decision_map([path])
    assert_array_equal(again, segmenter.decision_map([FIELD])[0])


def test_other_files_are_not_written(sure):
    segmenter = segmenter_of(sure)
    with pytest.raises(ValueError, match=r"must end in \.zarr or \.ome\.zarr. Got 'a\.tif'"):
        segmenter.predict([FIELD], out=["a.tif"])
    with pytest.raises(ValueError, match=r"out must hold one array or path per field, 1. Got 'a"):
        segmenter.predict([FIELD], out="a.zarr")
    with pytest.raises(TypeError, match=r"out must hold arrays or paths. Got NoneType instead"):
        segmenter.predict([FIELD], out=[None])


@pytest.mark.parametrize(
    "backend",
    ["threading", pytest.param("loky", marks=pytest.mark.slow)],  # torch is imported in each
)
def test_results_do_not_depend_on_the_workers(sure, backend, tmp_path):
    field = np.memmap(tmp_path / "field.raw", np.uint8, "w+", shape=FIELD.shape)
    field[:] = FIELD
    segmenter = segmenter_of(sure, tile_size=48)
    expected = segmenter.decision_map([field])[0], segmenter.predict_instances([field])[0]
    with joblib.parallel_config(backend=backend, n_jobs=2):
        found = segmenter.decision_map([field])[0], segmenter.predict_instances([field])[0]
    for a, b in zip(found, expected, strict=True):
        assert_array_equal(a, b)


@given(
    height=st.integers(32, 80),
    width=st.integers(32, 80),
    size=st.sampled_from([16, 24, 32]),
    step=st.sampled_from([8, 16, 24, 32]),
    tile_size=st.integers(8, 90),
    corner=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=15)
def test_tiled_results_are_those_of_one_tile(
    sure, height, width, size, step, tile_size, corner, seed
):
    row, column = corner
    box = row, column, min(row + 9, height), min(column + 13, width)
    field = make_field(box, shape=(height, width), seed=seed)
    options = {"size": size, "step": min(step, size), "n_fit_samples": None}
    one, tiled = (segmenter_of(sure, tile_size=n, **options) for n in (104, tile_size))
    expected, found = (s.decision_map([field])[0] for s in (one, tiled))
    assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    expected, found = (s.predict_instances([field])[0] for s in (one, tiled))
    assert_array_equal(found, expected)
    assert_array_equal(found[0] > 0, field > 180)
    assert_allclose(tiled.detect([field])[0][:, :3], one.detect([field])[0][:, :3])


def test_an_object_at_every_offset_to_the_grid_is_the_same(sure):
    segmenter = segmenter_of(sure, tile_size=24, n_fit_samples=None)
    shape, measures = np.zeros((11, 9), dtype=bool), []
    shape[2:9, 1:8] = shape[0, 4] = shape[:, 5] = True
    for row in range(30, 30 + STEP):  # both axes run through all offsets
        column = 40 + 5 * row % STEP
        field = make_field(shape=(96, 96), seed=row)
        field[row : row + 11, column : column + 9] += (190 * shape).astype(np.uint8)
        (instances,), (detections,) = (
            segmenter.predict_instances([field]),
            segmenter.detect([field]),
        )
        assert_array_equal(instances[0, row : row + 11, column : column + 9], shape)
        table = measure_objects([instances], as_frame=False)
        names = ("area", "axis_major_length", "axis_minor_length", "perimeter", "solidity")
        measures.append([table[name] for name in names])
        centre = np.argwhere(shape).mean(axis=0) + np.array([row, column])
        assert_allclose(detections[:, :3], [[0, *centre]])
    assert_allclose(measures, measures[:1] * STEP, rtol=1e-9)


# --- intensities ----------------------------------------------------------------------------


def test_a_step_that_treats_pixels_alike_is_part_of_the_tiles(classifier):
    pipeline = make_pipeline(IntensityScaler(method="dtype"), MicraNetClassifier())
    pipeline.steps[1] = ("network", FrozenEstimator(classifier))
    scaled = FieldSegmenter(pipeline, size=SIZE, step=STEP, n_fit_samples=None).fit([FIELD])
    by_hand = fitted(classifier, n_fit_samples=None).decision_map(
        [(FIELD / 255).astype(np.float32)]
    )[0]
    assert_allclose(scaled.decision_map([FIELD])[0], by_hand, atol=1e-3)


@pytest.mark.parametrize(
    "step", [IntensityScaler(), FunctionTransformer(np.sqrt)], ids=["minmax", "unknown"]
)
def test_a_step_that_may_treat_windows_differently_needs_exact_scores(classifier, step):
    pipeline = make_pipeline(step, FrozenEstimator(classifier))
    segmenter = FieldSegmenter(pipeline, size=SIZE, step=STEP)
    with pytest.raises(ValueError, match=r"Steps before the network must scale .* exact=True"):
        segmenter.fit([FIELD])
    windows = extract_crops([FIELD], size=SIZE, step=STEP).images
    (found,) = segmenter.set_params(exact=True).fit([FIELD]).decision_map([FIELD])
    expected = segmenter.estimator_.decision_function(windows)
    assert_allclose(found.ravel(), expected, atol=1e-4)


@pytest.mark.parametrize("exact", [False, True])
def test_a_scaler_of_fields_scales_each_by_itself(classifier, exact):
    fields = [FIELD, (FIELD // 2 + 20).astype(np.uint8)]
    scaler = IntensityScaler(method="standard")
    params = {"exact": exact, "n_fit_samples": None}
    segmenter = fitted(classifier, scaler=scaler, **params)
    scaled = list(scaler.fit_transform(fields))
    by_hand = fitted(classifier, **params).decision_map(scaled)
    for found, expected in zip(segmenter.decision_map(fields), by_hand, strict=True):
        assert_allclose(found, expected, atol=1e-3)
    with pytest.raises(ValueError, match=r"The method of scaler must be one of .* Got 'dtype'"):
        fitted(classifier, scaler=IntensityScaler(method="dtype"))


# --- going on -------------------------------------------------------------------------------


SLOW_SWEEP = """
import sys, time
import joblib
from sklearn_micranet._fields import _windows
from sklearn_micranet._network._windows import WindowNetworks

segmenter, field, out = joblib.load(sys.argv[1])


def slow(compute, name):
    def slower(*args):
        print(name, flush=True)
        time.sleep(0.5)
        return compute(*args)

    return slower


WindowNetworks.block_features = slow(WindowNetworks.block_features, "tile")
_windows._instances = slow(_windows._instances, "windows")
segmenter.predict_instances([field], out=[out])
"""


@pytest.mark.parametrize(("stage", "kind"), [("tile", "zarr"), ("windows", "ome.zarr")])
def test_a_killed_sweep_goes_on_after_the_last_finished_tile(
    sure, tmp_path, monkeypatch, stage, kind
):
    zarr = pytest.importorskip("zarr")
    pipeline = make_pipeline(
        GradCAMFeatureTransformer(FrozenEstimator(sure)), PCAFeatureMap(), ThresholdSegmenter()
    )
    segmenter = FieldSegmenter(pipeline, size=SIZE, step=STEP, tile_size=48, random_state=0)
    expected = segmenter.fit([FIELD]).predict_instances([FIELD])[0]
    assert expected.any()
    out = tmp_path / "a.ome.zarr"
    if kind == "zarr":
        out = zarr.create_array(
            tmp_path / "a", shape=expected.shape, dtype="int32", chunks=(1, 48, 48)
        )
    segmenter.set_params(memory=str(tmp_path / "memory"))
    joblib.dump((segmenter, FIELD, out), tmp_path / "job")
    environment = os.environ | {"PYTHONPATH": str(Path(sklearn_micranet.__file__).parents[1])}
    command = [sys.executable, "-c", SLOW_SWEEP, str(tmp_path / "job")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        n_started = 0
        while n_started < 3:  # the third has been started: two are finished
            n_started += process.stdout.readline() == f"{stage}\n".encode()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    computed = []

    def counted(compute, name):
        return lambda *args: computed.append(name) or compute(*args)

    for place, attribute, name in (
        (WindowNetworks, "block_features", "tile"),
        (_windows, "_instances", "windows"),
    ):
        monkeypatch.setattr(place, attribute, counted(getattr(place, attribute), name))
    segmenter.predict_instances([FIELD], out=[out])
    found = out[:] if kind == "zarr" else read_objects(out).instances
    assert_array_equal(found, expected)
    # 3 x 3 tiles, and 6 x 8 windows in batches of 8: only what was being computed is done twice.
    n_tiles, n_batches = (9 - 2, 6) if stage == "tile" else (0, 6 - 2)
    assert computed == ["tile"] * n_tiles + ["windows"] * n_batches


def test_finished_windows_are_kept(sure, tmp_path):
    segmenter = segmenter_of(sure, memory=str(tmp_path))
    expected = segmenter_of(sure).predict_instances([FIELD])[0]
    assert_array_equal(segmenter.predict_instances([FIELD])[0], expected)
    ImageAsMap.n_windows = 0
    assert_array_equal(segmenter.predict_instances([FIELD])[0], expected)
    assert ImageAsMap.n_windows == 0
    segmenter.estimator_[-1].threshold = 255  # all else is the same
    assert not segmenter.predict([FIELD])[0].any()
    assert ImageAsMap.n_windows > 0


def test_a_progress_bar_counts(classifier, capsys):
    fitted(classifier, verbose=1).decision_map([FIELD])
    assert "rows of windows: 100%" in capsys.readouterr().err
    fitted(classifier).decision_map([FIELD])
    assert capsys.readouterr().err == ""


# --- parameters -----------------------------------------------------------------------------


def test_the_scale_of_the_training_is_kept(classifier):
    segmenter = fitted(classifier, pixel_size=20.0)
    expected = segmenter.decision_map([FIELD])[0]
    assert_array_equal(segmenter.decision_map([FIELD], pixel_size=20.1)[0], expected)
    with pytest.raises(
        ValueError, match=r"size of the training, 20\.0\. Got 40\.0 .*factor of 2\."
    ):
        segmenter.decision_map([FIELD], pixel_size=40.0)
    segmenter.set_params(pixel_size=40.0)  # after the training
    assert segmenter.pixel_size_ == 20
    with pytest.raises(ValueError, match=r"size of the training, 20\.0"):
        segmenter.predict_proba_map([FIELD], pixel_size=40.0)
    with pytest.raises(ValueError, match=r"pixel_size=40\.0 needs that of .*call fit again"):
        fitted(classifier).propose([FIELD], pixel_size=40.0)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"size": 30}, r"multiples of 8 px.* Got size=30 and step=16 instead: set exact=True"),
        ({"step": 12}, r"multiples of 8 px.* Got size=32 and step=12 instead"),
        ({"step": 40}, r"step must be at most size.* Got step=40 and size=32"),
        ({"size": 200}, r"Each field must hold a window of 200 x 200 px"),
    ],
)
def test_wrong_parameters(classifier, params, match):
    with pytest.raises(ValueError, match=match):
        fitted(classifier, **params)


def test_what_cannot_be_done(classifier):
    with pytest.raises(TypeError, match="estimator must be a MicraNetClassifier"):
        FieldSegmenter(ThresholdSegmenter(), size=32).fit([FIELD])
    with pytest.raises(NotFittedError, match="not fitted yet"):
        FieldSegmenter(classifier, size=32).predict_proba_map([FIELD])
    segmenter = fitted(classifier, exact=True).set_params(exact=False)
    with pytest.raises(NotFittedError, match="exact=False requires the linear layer that fit"):
        segmenter.decision_map([FIELD])
    for method in ("predict", "predict_instances", "detect"):
        with pytest.raises(TypeError, match="an estimator that ends in a step that segments"):
            getattr(fitted(classifier), method)([FIELD])
    with pytest.raises(TypeError, match=r"pass \[field\]"):
        fitted(classifier).decision_map(FIELD)


def test_a_step_that_returns_something_else_than_masks_is_refused(sure):
    class Labels(ThresholdSegmenter):
        def predict_instances(self, X):
            return super().predict_instances(X)[:, :, 0]

    pipeline = make_pipeline(ImageAsMap(FrozenEstimator(sure)), Labels())
    segmenter = FieldSegmenter(pipeline, size=SIZE, random_state=0).fit([FIELD])
    with pytest.raises(ValueError, match=r"must return masks of the shape .* Got \(8, 1, 32\)"):
        segmenter.predict([FIELD])


def test_fields_are_the_groups_of_the_windows():
    class Grouped(MicraNetClassifier):
        def fit(self, X, y, sample_weight=None, *, groups=None):
            found.append(groups)
            return super().fit(X, y, sample_weight)

    found = []
    network = Grouped(n_filters=2, max_epochs=1, validation_fraction=0, random_state=0)
    pipeline = make_pipeline(
        IntensityScaler(method="dtype"), GradCAMFeatureTransformer(network), PCAFeatureMap()
    )
    segmenter = FieldSegmenter(pipeline, size=SIZE, annotation="boxes")
    segmenter.fit([FIELD, FIELD], [BOXES, BOXES])
    crops_of_field = extract_crops([FIELD], size=SIZE, step=STEP)
    assert_array_equal(found, [np.repeat([0, 1], len(crops_of_field.images))])
    segmenter.fit([FIELD], [BOXES])
    column_of = crops_of_field.positions[:, 2] // STEP
    assert_array_equal(found[1], column_of)  # nine bands across the longer side


def test_windows_of_a_single_field_are_monitored_by_others(monkeypatch):
    parts, split_off = [], _data.split_off

    def recorded(*args, **kwargs):
        parts.append(split_off(*args, **kwargs))
        return parts[-1]

    for module in [m for m in sys.modules.values() if getattr(m, "split_off", None) is split_off]:
        monkeypatch.setattr(module, "split_off", recorded)
    network = MicraNetClassifier(
        n_filters=2, max_epochs=1, validation_fraction=0.2, early_stopping=False, random_state=0
    )
    segmenter = FieldSegmenter(network, size=SIZE, annotation="boxes", n_fit_samples=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        segmenter.fit([FIELD], [BOXES])
    ((train, valid),) = parts
    crops = extract_crops([FIELD], size=SIZE, step=STEP, boxes=[BOXES])
    corners = crops.positions[:, 1:]
    distances = np.abs(corners[train.indices][:, None] - corners[valid.indices]).max(axis=2)
    assert (distances >= SIZE).all()
    assert crops.labels[train.indices].any()
    assert crops.labels[valid.indices].any()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_field_with_too_few_objects_to_monitor_says_so():
    network = MicraNetClassifier(n_filters=2, max_epochs=1, random_state=0)
    segmenter = FieldSegmenter(network, size=SIZE, annotation="boxes", n_fit_samples=None)
    with pytest.warns(UserWarning, match=r"group\(s\) of images with a class are too few"):
        segmenter.fit([FIELD], [BOXES[:1]])
    assert "valid_loss" not in segmenter.estimator_.history_[-1]


def test_a_fitted_segmenter_can_be_pickled(sure):
    segmenter = segmenter_of(sure)
    copy = pickle.loads(pickle.dumps(segmenter))
    assert_array_equal(copy.detect([FIELD])[0], segmenter.detect([FIELD])[0])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of two epochs
def test_the_page_on_fields_runs(tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    page = {}
    exec(code_blocks(PAGES["guide/fields.rst"])[0], page)
    assert page["table"]["inspected"][-1] < 0.3
    found = read_objects("found.ome.zarr").instances
    assert found.shape == (1, *page["field"].image.shape)
