import sys
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from skimage.measure import regionprops_table

from sklearn_micranet._stack._lazy_stack import LazyStack
from sklearn_micranet.images import measure_objects

# One map of 6 x 8 px: a rectangle with a gap, in two pieces, and a single pixel at the border.
INSTANCES = np.zeros((1, 6, 8), int)
INSTANCES[0, 1:3, 1:5] = 9
INSTANCES[0, 1:3, 3] = 0
INSTANCES[0, 5, 6] = 4

COLUMNS = [
    "sample",
    "class",
    "object",
    "row",
    "column",
    "first_row",
    "first_column",
    "end_row",
    "end_column",
    "area",
    "axis_major_length",
    "axis_minor_length",
    "perimeter",
    "solidity",
    "border_distance",
    "touches_border",
]


def test_values_worked_out_by_hand():
    image = np.arange(48.0).reshape(1, 6, 8)
    feature_maps = image[:, np.newaxis] / 10
    detections = [[[0, 1.4, 1.6, 0.25], [0, 2, 4, 0.75], [0, 0, 0, 0.99]]]
    table = measure_objects(
        INSTANCES,
        image,
        feature_maps=feature_maps,
        detections=detections,
        class_names=["cell"],
        sample_names=["a.tif"],
        pixel_size=0.5,
        unit="nm",
        as_frame=False,
    )
    assert list(table)[: len(COLUMNS)] == COLUMNS
    expected = {
        "sample": ["a.tif", "a.tif"],
        "class": ["cell", "cell"],
        "object": [4, 9],
        "row": [5, 1.5],
        "column": [6, (1 + 2 + 4) / 3],
        "first_row": [5, 1],
        "first_column": [6, 1],
        "end_row": [6, 3],
        "end_column": [7, 5],
        "area": [1, 6],
        "border_distance": [0, 1],
        "touches_border": [True, False],
        "intensity_mean": [46, np.mean([9, 10, 12, 17, 18, 20])],
        "intensity_min": [46, 9],
        "intensity_max": [46, 20],
        "feature_map_mean": [4.6, np.mean([9, 10, 12, 17, 18, 20]) / 10],
        "score": [np.nan, 0.75],
        "row_nm": [2.5, 0.75],
        "area_nm2": [0.25, 1.5],
        "border_distance_nm": [0, 0.5],
    }
    for name, values in expected.items():
        if name in ("sample", "class"):
            assert table[name].tolist() == values
        else:
            assert_allclose(table[name], values, err_msg=name)
    assert table["solidity"][0] == 1
    assert_allclose(table["solidity"][1], 6 / 8)  # the hull is the rectangle
    # Of 2 x n pixels, the variance across is 1/4 + 1/12: the axes are 4 standard deviations.
    square = measure_objects(np.pad(np.ones((1, 2, 2), int), 1)[1:2], as_frame=False)
    assert_allclose(square["axis_major_length"], 4 * np.sqrt(1 / 4), rtol=1e-6)
    assert square["perimeter"] == 4


def test_no_object_gives_all_columns_of_the_same_dtypes():
    options = {"pixel_size": 2.0, "detections": [np.empty((0, 4))], "as_frame": False}
    image = np.ones((1, 6, 8, 3), np.uint8)
    full = measure_objects(INSTANCES, image, **options)
    empty = measure_objects(np.zeros_like(INSTANCES), image, **options)
    assert list(empty) == list(full)
    for name, values in empty.items():
        assert values.shape == (0,)
        assert values.dtype == full[name].dtype, name
    assert {full[name].dtype.kind for name in full} == set("iUbf")


def test_axes_are_those_of_scikit_image():
    rng = np.random.default_rng(0)
    instances = np.kron(np.arange(20).reshape(4, 5), np.ones((9, 11), int))
    instances[rng.random(instances.shape) < 0.4] = 0
    instances[:9, 11:22] = np.tri(9, 11, dtype=int) - np.tri(9, 11, -1, dtype=int)  # a diagonal
    table = measure_objects([instances], as_frame=False)
    expected = regionprops_table(instances, properties=("axis_major_length", "axis_minor_length"))
    for name, lengths in expected.items():
        assert_allclose(table[name], lengths, atol=1e-6)
    assert table["axis_minor_length"][0] == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 5), (4, 1), (2, 2), (3, 2)])
def test_tiny_objects_are_measured_without_warnings(shape):
    instances = np.zeros((1, 9, 9), np.uint16)
    instances[0, 2 : 2 + shape[0], 3 : 3 + shape[1]] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = measure_objects(instances, as_frame=False)
    assert table["area"] == shape[0] * shape[1]
    assert table["solidity"] == 1
    assert all(np.isfinite(table[name]).all() for name in COLUMNS[2:])


def test_an_object_that_fills_the_image_without_background():
    table = measure_objects(np.full((1, 3, 4), 2_000_000_000), as_frame=False)
    assert table["object"].tolist() == [2_000_000_000]
    assert table["area"].tolist() == [12]


def test_lists_of_samples_of_different_sizes_and_maps():
    first, second = np.zeros((2, 4, 5), int), np.zeros((2, 7, 3), int)
    first[1, 0, 0], second[0, 6, 2] = 3, 1
    table = measure_objects([first, second], class_names=[10, 20], as_frame=False)
    assert table["sample"].tolist() == [0, 1]
    assert table["class"].tolist() == [20, 10]
    assert table["object"].tolist() == [3, 1]
    assert table["row"].tolist() == [0, 6]


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">u2", "uint8", "bool"])
def test_intensities_of_any_dtype(dtype):
    image = (np.arange(48) % 2).reshape(1, 6, 8).astype(dtype)
    table = measure_objects(INSTANCES, image, as_frame=False)
    assert_allclose(table["intensity_mean"], [0, 2 / 6])


def test_channels_have_columns_of_their_own():
    image = np.ones((1, 6, 8, 3)) * [1, 2, 3]
    table = measure_objects(INSTANCES, image, as_frame=False)
    assert [table[f"intensity_max_{c}"].tolist() for c in range(3)] == [[1, 1], [2, 2], [3, 3]]


def test_lazy_stacks_are_read_one_sample_at_a_time():
    read = []

    def compute(batch):
        read.append(len(batch))
        return batch

    source = np.repeat(INSTANCES, 5, axis=0)
    stack = LazyStack(source, compute, item_shape=(6, 8), dtype=int, batch_size=4)
    table = measure_objects(stack, as_frame=False)
    assert read == [1] * 5
    assert_array_equal(table["object"], [4, 9] * 5)


def test_frame_with_pandas_and_dict_without(monkeypatch):
    pd = pytest.importorskip("pandas")
    frame = measure_objects(INSTANCES)
    assert isinstance(frame, pd.DataFrame)
    assert frame["area"].tolist() == [1, 6]
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert isinstance(measure_objects(INSTANCES), dict)
    with pytest.raises(ImportError, match="as_frame=True requires pandas"):
        measure_objects(INSTANCES, as_frame=True)


@pytest.mark.parametrize(
    ("instances", "options", "error", "message"),
    [
        (INSTANCES > 0, {}, TypeError, "instances must be integers.*Got bool"),
        (-INSTANCES, {}, ValueError, "instances must be from 0.*Got -9"),
        (INSTANCES[0], {}, ValueError, "shape \\(n_samples.*pass \\[image\\]"),
        (INSTANCES[:0], {}, ValueError, "at least one sample"),
        (np.zeros((1, 2, 4, 4), int), {}, ValueError, "class_names must be given.*2 maps"),
        (INSTANCES, {"class_names": ["a", "b"]}, ValueError, "one name per map, 1"),
        (np.zeros((1, 2, 4, 4), int), {"class_names": [1, "1"]}, ValueError, "class_names must"),
        (INSTANCES, {"sample_names": ["a", "b"]}, ValueError, "one entry per sample, 1. Got 2"),
        ([*INSTANCES] * 2, {"sample_names": ["a", "a"]}, ValueError, "sample_names must differ"),
        (INSTANCES, {"images": np.ones((1, 8, 6))}, ValueError, "images must have the height"),
        (INSTANCES, {"images": np.ones((2, 6, 8))}, ValueError, "images must have one entry"),
        (INSTANCES, {"feature_maps": np.ones((1, 6, 8))}, ValueError, "feature_maps must have"),
        (INSTANCES, {"detections": [[[0, 9, 1, 1]]]}, ValueError, "detections must lie inside"),
        (INSTANCES, {"detections": [[[0, 9, 1]]]}, ValueError, "tables of 4 columns"),
        (INSTANCES, {"properties": ["area", "feret"]}, ValueError, r"some of.*Got \['feret'\]"),
        (INSTANCES, {"properties": ["intensity_min"]}, ValueError, "no intensities without images"),
        (INSTANCES, {"properties": "area"}, ValueError, "'properties' .* must be an array-like"),
        (INSTANCES, {"pixel_size": -1}, ValueError, "'pixel_size' .* must be a float in the range"),
        (
            [*INSTANCES] * 2,
            {"images": [np.ones((6, 8)), np.ones((6, 8, 3))]},
            ValueError,
            "same channels",
        ),
    ],
)
def test_wrong_input_is_refused(instances, options, error, message):
    with pytest.raises(error, match=message):
        measure_objects(instances, **options)


@pytest.mark.parametrize(
    ("properties", "columns"),
    [
        ([], []),
        (["solidity"], ["solidity"]),
        (["touches_border", "axis_minor_length"], ["axis_minor_length", "touches_border"]),
        (["intensity_max", "area"], ["area", "intensity_max_0", "intensity_max_1"]),
    ],
)
def test_what_is_chosen_is_as_in_the_whole_table(properties, columns):
    given = {"images": np.arange(96.0).reshape(1, 6, 8, 2), "pixel_size": 2}
    given["feature_maps"] = np.arange(48.0).reshape(1, 1, 6, 8)
    whole = measure_objects(INSTANCES, **given, as_frame=False)
    table = measure_objects(INSTANCES, **given, properties=properties, as_frame=False)
    places = COLUMNS[: COLUMNS.index("area")]
    in_um = {"area": "area_um2", "axis_minor_length": "axis_minor_length_um"}
    expected = [*places, *columns, "feature_map_mean", "row_um", "column_um"]
    assert list(table) == expected + [in_um[name] for name in columns if name in in_um]
    for name, values in table.items():
        assert_array_equal(values, whole[name])


def test_without_solidity_no_convex_hull_is_computed(monkeypatch):
    def fail(region):
        raise RuntimeError("a convex hull")

    place = "skimage.measure._regionprops.RegionProperties.image_convex"
    monkeypatch.setattr(place, property(fail))
    with pytest.raises(RuntimeError, match="a convex hull"):
        measure_objects(INSTANCES)
    table = measure_objects(INSTANCES, properties=["area"], as_frame=False)
    assert table["area"].tolist() == [1, 6]
