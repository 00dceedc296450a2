import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import binary_erosion, gaussian_filter
from skimage.draw import polygon2mask
from sklearn.metrics import roc_auc_score

from sklearn_micranet.datasets import make_sparse_field
from sklearn_micranet.datasets._neuropil import draw_neuropil

SMALL = {"shape": (300, 421), "n_objects": 2, "n_distractors": 3, "object_size": 40}


@pytest.fixture(scope="module")
def field():
    return make_sparse_field((1500, 1800), n_objects=8, n_distractors=24, random_state=0)


@pytest.fixture(scope="module")
def small():
    return make_sparse_field(**SMALL, random_state=0)


@pytest.fixture(scope="module")
def tissue():
    return draw_neuropil([0, 1], (0, 800), (0, 800))


def pixels(field, boxes, masks):
    """Return the pixels of each structure."""
    return [
        field.image[first_row:end_row, first_column:end_column][mask].astype(float)
        for (first_row, first_column, end_row, end_column), mask in zip(boxes, masks, strict=True)
    ]


def whole_mask(field, boxes, masks):
    everything = np.zeros(field.image.shape, dtype=bool)
    for (first_row, first_column, end_row, end_column), mask in zip(boxes, masks, strict=True):
        everything[first_row:end_row, first_column:end_column] |= mask
    return everything


def test_shapes_and_dtypes(field):
    assert field.image.shape == (1500, 1800)
    assert field.image.dtype == np.uint8
    assert field.boxes.shape == (8, 4)
    assert field.boxes.dtype == np.int64
    assert field.points.shape == (8, 2)
    assert field.points.dtype == float
    assert [mask.dtype for mask in field.masks] == [bool] * 8
    assert [outline.shape for outline in field.outlines] == [(72, 2)] * 8
    assert field.distractor_boxes.shape == (24, 4)
    assert len(field.distractor_masks) == 24
    assert field.distractor_kinds == ["striped", "smooth", "ring"] * 8
    assert field.DESCR.startswith("Sparse field")


# --- objects and distractors --------------------------------------------------------------------


def test_boxes_hold_their_masks_exactly(field):
    for boxes, masks in [
        (field.boxes, field.masks),
        (field.distractor_boxes, field.distractor_masks),
    ]:
        for box, mask in zip(boxes, masks, strict=True):
            assert mask.shape == (box[2] - box[0], box[3] - box[1])
            assert mask.any(axis=0)[[0, -1]].all()
            assert mask.any(axis=1)[[0, -1]].all()


def test_objects_are_of_the_stated_size(field):
    diameters = [2 * np.sqrt(mask.sum() / np.pi) for mask in field.masks]
    assert min(diameters) > 0.85 * 113 * 0.99
    assert max(diameters) < 1.15 * 113 * 1.01
    assert_allclose(np.mean(diameters), 113, atol=3 * 0.3 * 113 / np.sqrt(12 * 8))
    sides = field.boxes[:, 2:] - field.boxes[:, :2]
    assert_allclose(sides.mean(), 113, rtol=0.15)


def test_object_size_scales_them(small):
    diameters = [2 * np.sqrt(mask.sum() / np.pi) for mask in small.masks]
    assert min(diameters) > 0.85 * 40 * 0.97
    assert max(diameters) < 1.15 * 40 * 1.03


def test_points_are_centroids_and_outlines_the_borders(field):
    for box, point, mask, outline in zip(
        field.boxes, field.points, field.masks, field.outlines, strict=True
    ):
        assert_allclose(point, np.argwhere(mask).mean(axis=0) + box[:2])
        drawn = polygon2mask(mask.shape, outline - box[:2])
        assert (drawn & mask).sum() / (drawn | mask).sum() > 0.98


def test_structures_neither_touch_nor_reach_the_border(field):
    boxes = np.concatenate([field.boxes, field.distractor_boxes])
    masks = field.masks + field.distractor_masks
    assert boxes[:, :2].min() > 0
    assert (boxes[:, 2:].max(axis=0) < field.image.shape).all()
    assert whole_mask(field, boxes, masks).sum() == sum(mask.sum() for mask in masks)


def test_objects_are_dark_in_a_bright_field(field):
    boxes = np.concatenate([field.boxes, field.distractor_boxes])
    masks = field.masks + field.distractor_masks
    dark = whole_mask(field, boxes, masks)
    assert field.image[~dark].mean() > 140
    objects = whole_mask(field, field.boxes, field.masks)
    truth = objects[objects | ~dark][::20]
    assert roc_auc_score(truth, -field.image[objects | ~dark][::20].astype(float)) > 0.97


def test_brightness_does_not_tell_objects_from_distractors(field):
    objects = np.concatenate(pixels(field, field.boxes, field.masks))
    distractors = pixels(field, field.distractor_boxes, field.distractor_masks)
    for kind in ("striped", "smooth", "ring"):
        chosen = [p for p, k in zip(distractors, field.distractor_kinds, strict=True) if k == kind]
        chosen = np.concatenate(chosen)
        assert_allclose(chosen.mean(), objects.mean(), atol=4)
        assert_allclose(chosen.std(), objects.std(), rtol=0.1)
        truth = np.repeat([1, 0], [len(objects), len(chosen)])
        assert_allclose(roc_auc_score(truth, np.concatenate([objects, chosen])), 0.5, atol=0.05)


def coherence_and_roughness(image, box, mask):
    """Return how much one direction prevails, and the share of variance of what is fine."""
    patch = image[box[0] : box[2], box[1] : box[3]].astype(float)
    inside = binary_erosion(mask, iterations=6)
    row, column = np.gradient(gaussian_filter(patch, 1))
    doubled = ((column + 1j * row) ** 2)[inside].mean()
    coherence = np.abs(doubled) / (column**2 + row**2)[inside].mean()
    return coherence, 1 - gaussian_filter(patch, 4)[inside].var() / patch[inside].var()


def test_texture_and_shape_tell_objects_from_distractors(field):
    def measured(boxes, masks):
        return np.array(
            [coherence_and_roughness(field.image, *pair) for pair in zip(boxes, masks, strict=True)]
        ).T

    coherence, roughness = measured(field.boxes, field.masks)
    assert coherence.max() < 0.25
    assert roughness.min() > 0.8
    kinds = np.array(field.distractor_kinds)
    for kind in ("striped", "smooth"):
        chosen = np.flatnonzero(kinds == kind)
        coherence, roughness = measured(
            field.distractor_boxes[chosen], [field.distractor_masks[index] for index in chosen]
        )
        if kind == "striped":
            assert coherence.min() > 0.5
        else:
            assert roughness.max() < 0.7
    for kind, mask in zip(kinds, field.distractor_masks, strict=True):
        middle = mask[tuple(np.array(mask.shape) // 2)]
        assert middle == (kind != "ring")


# --- numbers ------------------------------------------------------------------------------------


def test_number_of_objects_is_drawn_within_its_range():
    numbers = [
        len(make_sparse_field((256, 256), n_objects=(1, 3), object_size=32, random_state=i).boxes)
        for i in range(20)
    ]
    assert set(numbers) == {1, 2, 3}


@pytest.mark.parametrize(("shape", "expected"), [((288, 288), 1), ((288, 289), 2)])
def test_distractors_per_area(shape, expected):
    field = make_sparse_field(shape, n_objects=1, object_size=32, random_state=0)
    assert len(field.distractor_boxes) == expected


def test_nothing_but_tissue():
    field = make_sparse_field((128, 128), n_objects=0, n_distractors=0, object_size=32)
    assert field.boxes.shape == (0, 4)
    assert field.points.shape == (0, 2)
    assert field.distractor_boxes.shape == (0, 4)
    assert field.masks == field.outlines == field.distractor_masks == []


# --- tiles --------------------------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@example(tile_size=1000)
@given(tile_size=st.integers(60, 500))
def test_pixels_do_not_depend_on_the_tile_size(tile_size):
    whole, tiled = (
        make_sparse_field(**SMALL, tile_size=size, random_state=0) for size in (300, tile_size)
    )
    assert_array_equal(tiled.image, whole.image)
    assert_array_equal(tiled.boxes, whole.boxes)
    assert_array_equal(tiled.points, whole.points)


@settings(max_examples=15, deadline=None)
@given(
    first=st.tuples(st.integers(0, 700), st.integers(0, 700)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_any_window_of_the_tissue_is_that_of_the_whole(tissue, first, size):
    rows, columns = ((start, start + length) for start, length in zip(first, size, strict=True))
    windows = draw_neuropil([0, 1], rows, columns)
    for window, whole in zip(windows, tissue, strict=True):
        assert_array_equal(window, whole[slice(*rows), slice(*columns)], strict=True)


def test_noise_has_no_seams_and_no_repeats():
    _, white = draw_neuropil([0], (0, 1024), (0, 512))
    assert_allclose(white.mean(), 0, atol=4 / np.sqrt(white.size))
    assert_allclose(white.var(), 1, atol=4 * np.sqrt(2 / white.size))
    blocks = white.reshape(4, 256, 2, 256).swapaxes(1, 2).reshape(8, -1)
    correlation = np.corrcoef(blocks) - np.eye(8)
    assert np.abs(correlation).max() < 4.5 / 256
    tissue, _ = draw_neuropil([0], (0, 1024), (0, 512))
    steps = np.abs(np.diff(tissue, axis=0)).mean(axis=1)
    at_seams = steps[255::256]
    assert_allclose(at_seams, steps.mean(), rtol=0.25)


def peak_memory(shape, tile_size):
    out = np.empty(shape, dtype=np.uint8)
    tracemalloc.start()
    make_sparse_field(
        shape, n_objects=1, n_distractors=0, tile_size=tile_size, out=out, random_state=0
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_is_that_of_a_tile():
    peak_memory((300, 300), 300)  # what is imported and cached once
    field, four_fields, one_tile = (
        peak_memory(shape, size)
        for shape, size in [((800, 800), 400), ((1600, 1600), 400), ((1600, 1600), 1600)]
    )
    assert four_fields < 1.1 * field
    assert one_tile > 8 * four_fields
    assert one_tile < 40 * 1600**2


# --- out ----------------------------------------------------------------------------------------


def test_memory_mapped_file(tmp_path, small):
    out = np.memmap(tmp_path / "field.raw", np.uint8, "w+", shape=SMALL["shape"])
    field = make_sparse_field(**SMALL, tile_size=100, out=out, random_state=0)
    assert field.image is out
    out.flush()
    written = np.fromfile(tmp_path / "field.raw", np.uint8).reshape(SMALL["shape"])
    assert_array_equal(written, small.image)


def test_zarr_store(tmp_path, small):
    zarr = pytest.importorskip("zarr")
    out = zarr.create_array(
        tmp_path / "field.zarr", shape=SMALL["shape"], chunks=(64, 64), dtype="uint8"
    )
    field = make_sparse_field(**SMALL, tile_size=128, out=out, random_state=0)
    assert field.image is out
    assert_array_equal(zarr.open_array(tmp_path / "field.zarr")[:], small.image)


@pytest.mark.parametrize(
    ("out", "match"),
    [
        (np.zeros((300, 420), np.uint8), r"Got ndarray of shape \(300, 420\) and dtype uint8"),
        (np.zeros((300, 421)), r"Got ndarray of shape \(300, 421\) and dtype float64"),
        ([[0]], "Got list of shape None and dtype None"),
    ],
)
def test_wrong_out(out, match):
    with pytest.raises(ValueError, match=match):
        make_sparse_field(**SMALL, out=out)


# --- randomness and errors ----------------------------------------------------------------------


def test_same_seed_same_field(small):
    again, other = (make_sparse_field(**SMALL, random_state=seed) for seed in (0, 1))
    assert_array_equal(again.image, small.image)
    assert_array_equal(again.boxes, small.boxes)
    assert not np.array_equal(other.image, small.image)
    assert not np.array_equal(other.boxes, small.boxes)


def test_random_state_instance_is_advanced_and_the_global_one_left_alone():
    random_state = np.random.RandomState(0)
    before = np.random.get_state()
    first, second = (make_sparse_field(**SMALL, random_state=random_state) for _ in range(2))
    assert not np.array_equal(first.image, second.image)
    assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"shape": 300}, "'shape' parameter"),
        ({"shape": (300,)}, r"shape must be \(height, width\).*Got \(300,\)"),
        ({"shape": (300, 225)}, r"of at least 226, twice the object_size. Got \(300, 225\)"),
        ({"shape": (300, 300.0)}, r"both ints.*Got \(300, 300.0\)"),
        ({"n_objects": -1}, "'n_objects' parameter .* Got -1"),
        ({"n_objects": (1,)}, r"\(smallest, largest\).*Got \(1,\)"),
        ({"n_objects": (3, 2)}, r"\(smallest, largest\).*Got \(3, 2\)"),
        ({"n_objects": (1, 2.5)}, r"both ints from 0 on. Got \(1, 2.5\)"),
        ({"n_distractors": -1}, "'n_distractors' parameter .* Got -1"),
        ({"object_size": 31}, r"'object_size' parameter .* range \[32, inf\). Got 31"),
        ({"tile_size": 0}, "'tile_size' parameter .* Got 0"),
        ({"random_state": "a"}, "'random_state' parameter"),
    ],
)
def test_wrong_parameters(parameters, match):
    with pytest.raises(ValueError, match=match):
        make_sparse_field(**{"shape": (300, 300), **parameters})


def test_too_many_structures(monkeypatch):
    out = np.full((300, 300), 7, dtype=np.uint8)
    with pytest.raises(
        ValueError, match=r"room for 12 objects and distractors.*Got \(300, 300\) instead, where \d"
    ):
        make_sparse_field((300, 300), n_objects=10, n_distractors=2, out=out, random_state=0)
    assert (out == 7).all()
