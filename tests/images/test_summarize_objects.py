import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_micranet.images import measure_objects, summarize_objects

TABLE = {
    "sample": ["a", "a", "b", "a"],
    "class": ["cell", "cell", "cell", "virus"],
    "object": [1, 2, 1, 1],
    "row": [5.0, 6.0, 7.0, 8.0],
    "area": [10, 30, 50, 4],
    "touches_border": [True, False, False, False],
}
SIZES = {"a": (10, 10), "b": (10, 20), "c": (5, 20)}


def rows(summary):
    return list(zip(*(summary[name].tolist() for name in summary), strict=True))


def test_counts_of_zero_where_samples_and_classes_are_named():
    summary = summarize_objects(
        TABLE,
        sample_names=["c", "a", "b"],
        class_names=["virus", "cell", "debris"],
        image_shapes=SIZES,
        pixel_size=0.5,
        as_frame=False,
    )
    assert list(summary) == [
        "sample",
        "class",
        "n_samples",
        "n_objects",
        "density_px2",
        "density_um2",
        "mean_area",
        "mean_touches_border",
    ]
    counts = [(s, c, n) for s, c, _, n, *_ in rows(summary)]
    assert counts == [
        ("c", "virus", 0),
        ("c", "cell", 0),
        ("c", "debris", 0),
        ("a", "virus", 1),
        ("a", "cell", 2),
        ("a", "debris", 0),
        ("b", "virus", 0),
        ("b", "cell", 1),
        ("b", "debris", 0),
    ]
    assert summary["n_samples"].tolist() == [1] * 9
    assert_allclose(summary["density_px2"][3:5], [1 / 100, 2 / 100])
    assert_allclose(summary["density_um2"][3:5], [1 / 25, 2 / 25])
    nan = np.nan
    assert_allclose(summary["mean_area"], [nan, nan, nan, 4, 20, nan, nan, 50, nan])
    assert_allclose(summary["mean_touches_border"][3:5], [0, 0.5])


def test_groups_pool_objects_and_areas():
    summary = summarize_objects(
        TABLE,
        by=["group", "class"],
        sample_names=["a", "b", "c"],
        groups={"a": "control", "b": "drug", "c": "drug"},
        image_shapes=SIZES,
        as_frame=False,
    )
    assert rows({k: summary[k] for k in ("group", "class", "n_samples", "n_objects")}) == [
        ("control", "cell", 1, 2),
        ("control", "virus", 1, 1),
        ("drug", "cell", 2, 1),
        ("drug", "virus", 2, 0),
    ]
    assert_allclose(summary["density_px2"], [2 / 100, 1 / 100, 1 / 300, 0])


def test_rows_of_group_and_sample_are_those_that_exist():
    summary = summarize_objects(
        TABLE, by=("group", "sample"), groups={"a": 1, "b": 2}, as_frame=False
    )
    assert rows({k: summary[k] for k in ("group", "sample", "n_objects")}) == [
        (1, "a", 3),
        (2, "b", 1),
    ]


def test_a_row_of_several_classes_counts_a_sample_once():
    summary = summarize_objects(TABLE, by="class", image_shapes=(10, 10), as_frame=False)
    assert summary["n_samples"].tolist() == [2, 2]
    assert_allclose(summary["density_px2"], [3 / 200, 1 / 200])
    whole = summarize_objects(TABLE, by="sample", image_shapes=(10, 10), as_frame=False)
    assert_allclose(whole["density_px2"], [3 / 100, 1 / 100])


def test_without_any_object():
    table = measure_objects(np.zeros((2, 4, 4), int), as_frame=False)
    assert summarize_objects(table, as_frame=False)["n_objects"].shape == (0,)
    summary = summarize_objects(
        table, sample_names=[0, 1], class_names=["object"], image_shapes=(4, 4), as_frame=False
    )
    assert summary["n_objects"].tolist() == [0, 0]
    assert summary["density_px2"].tolist() == [0, 0]
    assert np.isnan(summary["mean_area"]).all()


def test_frames_in_and_out():
    pd = pytest.importorskip("pandas")
    summary = summarize_objects(pd.DataFrame(TABLE))
    assert isinstance(summary, pd.DataFrame)
    assert summary["n_objects"].tolist() == [2, 1, 1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "colour"}, "by must name some of"),
        ({"by": ("class", "class")}, "each once"),
        ({"by": "group"}, "needs groups"),
        ({"groups": {"a": 1}}, "groups must have an entry for each sample.*'b'"),
        ({"image_shapes": {"a": (1, 1)}}, "image_shapes must have an entry for each.*'b'"),
        ({"sample_names": ["a"]}, "sample_names must name all.*'b'"),
        ({"class_names": ["cell", "cell", "virus"]}, "class_names must differ"),
        ({"pixel_size": 0}, "'pixel_size' .* must be a float in the range"),
    ],
)
def test_wrong_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        summarize_objects(TABLE, **options)


def test_a_name_is_no_list_of_names():
    with pytest.raises(TypeError, match="class_names must be a list of names"):
        summarize_objects(TABLE, class_names="cell")


def test_a_table_without_classes_is_refused():
    with pytest.raises(ValueError, match=r"columns sample and class\. Got no \{'class'\}"):
        summarize_objects({"sample": [1]})
