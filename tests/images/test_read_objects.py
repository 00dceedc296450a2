import json

import numpy as np
import pytest
import roifile
import tifffile
import zarr
from numpy.testing import assert_array_equal

from sklearn_micranet.images import read_objects, write_objects

TWO = np.zeros((1, 2, 6, 6), int)
TWO[0, 0, :2, :2], TWO[0, 0, :2, 3:5], TWO[0, 1, 3:5, :3] = 1, 2, 1


def geojson(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def feature(coordinates, kind="Polygon", **properties):
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def box(x, y, width, height):
    return [[(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]]


# --- GeoJSON ---------------------------------------------------------------------------------


def test_what_is_drawn_in_qupath(tmp_path):
    cell, virus = {"classification": {"name": "cell"}}, {"classification": {"names": ["v", "x"]}}
    path = geojson(
        tmp_path / "drawn.geojson",
        feature(box(0, 0, 2, 1), name="2", **cell),
        feature(box(3, 0, 1, 1), name="2", **cell),  # a copy keeps its name
        feature(box(0, 3, 1.6, 1.4), name="big one", **cell),
        feature(box(3, 3, 9, 1), **virus),  # reaches beyond the image
        feature((2.5, 1.5), "Point", **virus),
        feature([(0.5, 0.5), (4, 5)], "MultiPoint", **cell),
    )
    data = read_objects(path, shape=(5, 5))
    assert data.class_names == ["cell", "v: x"]
    assert_array_equal(
        data.instances,
        [
            [[2, 2, 0, 3, 0], [0] * 5, [0] * 5, [4, 4, 0, 0, 0], [0] * 5],
            [[0] * 5, [0] * 5, [0] * 5, [0, 0, 0, 1, 1], [0] * 5],
        ],
    )
    assert_array_equal(data.points, [[1, 1, 2], [0, 0, 0], [0, 4.5, 3.5]])


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: [f]])
def test_a_single_feature_and_a_list(wrap, tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(wrap(feature(box(0, 0, 1, 1)))))
    data = read_objects(path, shape=(1, 2))
    assert_array_equal(data.instances, [[[1, 0]]])
    assert data.class_names == ["object"]


def test_class_names_set_the_order_and_keep_empty_classes(tmp_path):
    path = geojson(tmp_path / "a.geojson", feature(box(0, 0, 1, 1), classification={"name": "b"}))
    data = read_objects(path, shape=(1, 1), class_names=["a", "b", "c"])
    assert_array_equal(data.instances.ravel(), [0, 1, 0])


def test_overlaps_are_told(tmp_path):
    path = geojson(tmp_path / "a.geojson", feature(box(0, 0, 2, 2)), feature(box(1, 0, 2, 2)))
    with pytest.warns(UserWarning, match=r"2 pixel\(s\).*each belongs to the last"):
        data = read_objects(path, shape=(2, 3))
    assert_array_equal(data.instances, [[[1, 2, 2], [1, 2, 2]]])


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ([feature(box(9, 9, 1, 1), name="7")], {}, r"must have a pixel.*feature 0 \('7'\)"),
        ([feature(box(0.6, 0, 0.3, 1))], {}, "must have a pixel"),
        ([feature(box(1, 1, 1, 1)), feature(box(0, 0, 3, 3))], {}, "under another object"),
        ([feature(box(0, 0, 1, 1))], {"class_names": ["a", "b"]}, "Got None for feature 0"),
        (
            [feature(box(0, 0, 1, 1), classification={"name": "c"})],
            {"class_names": ["a", "b"]},
            r"one of the classes \['a', 'b'\]. Got 'c'",
        ),
        ([feature([(0, 0), (1, 1)], "LineString")], {}, "feature 0.*is a LineString"),
        ([{"type": "Feature", "geometry": None}], {}, "feature 0.*is a feature without a geometry"),
        ([feature([], "Polygon")], {}, "feature 0.*is a Polygon without coordinates"),
        ([feature([[]], "Polygon")], {}, "feature 0.*is a Polygon without coordinates"),
        ([feature([], "MultiPolygon")], {}, "feature 0.*is a MultiPolygon without coordinates"),
        ([feature([[]], "MultiPolygon")], {}, "feature 0.*is a MultiPolygon without coordinates"),
        ([feature([], "Point")], {}, "feature 0.*is a Point without coordinates"),
        (
            [{"type": "Polygon", "coordinates": box(0, 0, 1, 1)}],
            {},
            "must hold a FeatureCollection",
        ),
        ([1, 2], {}, "must hold a FeatureCollection"),
        ([feature(box(0, 0, 1, 1))], {"shape": None}, "shape must be the height and width"),
    ],
)
def test_what_cannot_be_understood_is_refused(features, options, message, tmp_path):
    path = geojson(tmp_path / "a.geojson", *features)
    with pytest.raises(ValueError, match=message):
        read_objects(path, **{"shape": (4, 4)} | options)


# --- ROIs ------------------------------------------------------------------------------------


def edited(tmp_path, edit):
    (path,) = write_objects(tmp_path / "rois.zip", TWO, class_names=["cell", "virus"])
    rois = edit(roifile.roiread(path))
    roifile.roiwrite(path, rois, mode="w")
    return path


def test_rois_of_all_kinds_drawn_in_fiji(tmp_path):
    types, options = roifile.ROI_TYPE, roifile.ROI_OPTIONS
    rectangle = roifile.ImagejRoi(roitype=types.RECT, top=0, left=1, bottom=2, right=3)
    oval = roifile.ImagejRoi(roitype=types.OVAL, top=3, left=0, bottom=8, right=5)
    polygon = roifile.ImagejRoi.frompoints([[6, 0], [9, 0], [9, 3]])
    exact = roifile.ImagejRoi.frompoints([[6.4, 5.4], [8.6, 5.4], [8.6, 6.6], [6.4, 6.6]])
    points = roifile.ImagejRoi.frompoints([[4, 2], [7, 8]])
    points.roitype = types.POINT
    assert exact.options & options.SUB_PIXEL_RESOLUTION
    path = tmp_path / "drawn.zip"
    rois = [rectangle, oval, polygon, exact, points]
    roifile.roiwrite(path, rois, name=list("abcde"))
    data = read_objects(path, shape=(8, 9))
    assert_array_equal(
        data.instances[0],
        [
            [0, 1, 1, 0, 0, 0, 3, 3, 3],
            [0, 1, 1, 0, 0, 0, 0, 3, 3],
            [0, 0, 0, 0, 0, 0, 0, 0, 3],
            [0, 2, 2, 2, 0, 0, 0, 0, 0],
            [2, 2, 2, 2, 2, 0, 0, 0, 0],
            [2, 2, 2, 2, 2, 0, 4, 4, 4],
            [2, 2, 2, 2, 2, 0, 4, 4, 4],
            [0, 2, 2, 2, 0, 0, 0, 0, 0],
        ],
    )
    assert_array_equal(data.points, [[0, 2, 4], [0, 8, 7]])
    rectangle.tofile(tmp_path / "one.roi")
    assert read_objects(tmp_path / "one.roi", shape=(8, 9)).instances.sum() == 4


def test_deleted_moved_and_new_rois(tmp_path):
    def edit(rois):
        rois[1].left, rois[1].right = 4, 6
        new = roifile.ImagejRoi.frompoints([[4, 4], [6, 4], [6, 6], [4, 6]], name="0004-0004")
        new.group = 2
        return [*rois[1:], new]

    data = read_objects(edited(tmp_path, edit), shape=(6, 6))
    expected = np.zeros((2, 6, 6), int)
    expected[0, :2, 4:], expected[1, 3:5, :3], expected[1, 4:, 4:] = 2, 1, 2
    assert_array_equal(data.instances, expected)


def test_a_new_group_is_a_new_class(tmp_path):
    def edit(rois):
        rois[0].group = 2
        return rois

    data = read_objects(edited(tmp_path, edit), shape=(6, 6))
    assert_array_equal(data.instances[0] > 0, TWO[0, 0] == 2)
    assert_array_equal(data.instances[1] > 0, (TWO[0, 1] > 0) | (TWO[0, 0] == 1))


def test_groups_are_places_among_all_classes_not_among_those_left(tmp_path):
    def edit(rois):
        rois[2].group = 1
        return rois[2:]  # no ROI is left that says what group 1 is

    path = edited(tmp_path, edit)
    with pytest.raises(ValueError, match=r"Got 'group 1' for ROI 'virus-0001'.*pass class_names"):
        read_objects(path, shape=(6, 6))
    data = read_objects(path, shape=(6, 6), class_names=["cell", "virus"])
    assert_array_equal(data.instances[0] > 0, TWO[0, 1] > 0)


def test_a_roi_without_a_class_among_several_is_refused(tmp_path):
    new = roifile.ImagejRoi.frompoints([[4, 4], [6, 4], [6, 6]], name="mine")
    path = edited(tmp_path, lambda rois: [*rois, new])
    with pytest.raises(ValueError, match=r"Got None for ROI 'mine'.*in Fiji its group"):
        read_objects(path, shape=(6, 6))


@pytest.mark.parametrize("change", ["line", "spline", "text", "rounded", "curve"])
def test_rois_that_are_no_polygons_are_refused(change, tmp_path):
    roi = roifile.ImagejRoi.frompoints([[0, 0], [4, 0], [4, 4]], name="mine")
    if change == "line":
        roi.roitype = roifile.ROI_TYPE.FREELINE
    elif change == "spline":
        roi.options |= roifile.ROI_OPTIONS.SPLINE_FIT
    elif change == "text":
        roi.subtype = roifile.ROI_SUBTYPE.TEXT
    else:
        roi = roifile.ImagejRoi(name="mine", roitype=roifile.ROI_TYPE.RECT, bottom=4, right=4)
        if change == "curve":
            roi.multi_coordinates = np.array([0, 0, 0, 2, 1, 1, 2, 2, 4], np.float32)
            roi.shape_roi_size = 9
        else:
            roi.rounded_rect_arc_size = 2
    roifile.roiwrite(tmp_path / "a.zip", [roi], mode="w")
    with pytest.raises(ValueError, match=r"a\.zip cannot be read: its ROI 'mine' is a line"):
        read_objects(tmp_path / "a.zip", shape=(6, 6))


@pytest.mark.parametrize("kind", ["POLYGON", "TRACED", "POINT"])
def test_rois_without_coordinates_are_refused(kind, tmp_path):
    roi = roifile.ImagejRoi(name="nothing", roitype=roifile.ROI_TYPE[kind])
    roifile.roiwrite(tmp_path / "a.zip", [roi], mode="w")
    with pytest.raises(ValueError, match="its ROI 'nothing' has no coordinates"):
        read_objects(tmp_path / "a.zip", shape=(6, 6))


# --- label images ----------------------------------------------------------------------------


def test_a_plain_label_tiff_of_another_program(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", TWO[0, 0].astype(np.int32))
    data = read_objects(tmp_path / "a.tif")
    assert_array_equal(data.instances, TWO[0, :1])
    assert data.class_names == ["object"]
    data = read_objects(tmp_path / "a.tif", shape=(6, 6), class_names=["cell"])
    assert data.class_names == ["cell"]


def test_ome_zarr_0_5_of_another_program(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    labels = root.create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": ["cells"]}
    cells = labels.create_group("cells")
    cells.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [{"path": "s0"}]}]}
    cells.create_array("s0", data=TWO[:, 0])
    data = read_objects(tmp_path / "a.zarr")
    assert_array_equal(data.instances, TWO[0, :1])
    assert data.class_names == ["cells"]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.full((3, 3), 0.5, np.float32), {}, "must hold integers"),
        (np.full((3, 3), -1, np.int16), {}, "must hold integers"),
        (np.ones((3, 3), np.uint8), {"shape": (4, 3)}, r"height and width \(4, 3\). Got \(3, 3\)"),
        (np.ones((2, 3, 3), np.uint8), {}, "class_names must be given.*2 maps"),
        (np.ones((2, 2, 3, 3), np.uint8), {}, "its axes are QQYX"),
        (np.ones((9, 9, 3), np.uint8), {"photometric": "rgb"}, "its axes are YXS"),
    ],
)
def test_images_that_are_no_label_images_are_refused(values, options, message, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric=options.pop("photometric", "minisblack"))
    with pytest.raises(ValueError, match=message):
        read_objects(path, **options)


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".zip", ".roi", ".geojson", ".tif"])
def test_damaged_files_are_named(suffix, tmp_path):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=f"damaged{suffix} cannot be read: "):
        read_objects(path, shape=(3, 3))


def test_missing_files_and_unknown_suffixes(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.zip must be a file of objects"):
        read_objects(tmp_path / "missing.zip", shape=(3, 3))
    with pytest.raises(ValueError, match=r"path must end in \.zip.* Got 'a\.csv' instead"):
        read_objects(tmp_path / "a.csv", shape=(3, 3))
