import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import roifile
import shapely
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from skimage.measure import label

from sklearn_micranet.datasets import make_digit_canvases
from sklearn_micranet.images import measure_objects, read_objects, write_objects
from sklearn_micranet.images._outlines import signed_area

# Objects with a hole, in two pieces, in pieces that touch in a corner, and touching one another.
INSTANCES = np.zeros((1, 2, 9, 12), int)
INSTANCES[0, 0, 1:6, 1:6] = 3
INSTANCES[0, 0, 2:4, 2:4] = 0
INSTANCES[0, 0, 1:6, 6:8] = 1
INSTANCES[0, 0, 7, [1, 5]] = 70000
INSTANCES[0, 1, 0, 0] = INSTANCES[0, 1, 1, 1] = 3
NAMES = ["nuclei", "a/b: c"]
SUFFIXES = [".zip", ".geojson", ".tif", ".ome.tif", ".ome.zarr"]


def written(folder, suffix, instances=INSTANCES, class_names=NAMES, **options):
    if suffix.endswith("zarr"):
        options.setdefault("images", np.zeros((1, *np.shape(instances)[-2:])))
    (path,) = write_objects(
        folder / f"objects{suffix}", instances, class_names=class_names, **options
    )
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_of_hard_cases(suffix, tmp_path):
    data = read_objects(written(tmp_path, suffix), shape=(9, 12))
    assert_array_equal(data.instances, INSTANCES[0])
    assert data.instances.dtype == np.int32
    assert data.class_names == NAMES
    assert data.points.shape == (0, 3)


label_images = st.tuples(st.integers(1, 2), st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.sampled_from([0, 0, 1, 2, 300, 70001]))
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, max_examples=25)
@given(sample=label_images)
def test_round_trip_of_any_label_image(suffix, sample, tmp_path_factory):
    names = ["x", "y"][: len(sample)]
    folder = tmp_path_factory.mktemp("round_trip")
    path = written(folder, suffix, sample[np.newaxis], names)
    data = read_objects(path, shape=sample.shape[1:], class_names=names)
    assert_array_equal(data.instances, sample)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_images_without_objects(suffix, tmp_path):
    path = written(tmp_path, suffix, np.zeros((1, 2, 4, 5), int))
    data = read_objects(path, shape=(4, 5), class_names=NAMES)
    assert_array_equal(data.instances, np.zeros((2, 4, 5)))


def test_an_ome_zarr_without_objects_has_no_list_of_colors(tmp_path):
    path = written(tmp_path, ".ome.zarr", np.array([[[[0, 2]], [[0, 0]]]]))
    with_object, without = (
        zarr.open_group(path, mode="r")[f"labels/{name}"].attrs["image-label"]
        for name in ("0_nuclei", "1_a_b__c")
    )
    assert [color["label-value"] for color in with_object["colors"]] == [2]
    assert without == {"version": "0.4", "source": {"image": "../../"}}  # the schema wants one


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["nuclei", "007", "µ\\u und 😀", "a: b  c"])
def test_the_name_of_a_single_class_comes_back(name, suffix, tmp_path):
    path = written(tmp_path, suffix, np.ones((1, 2, 3), int), [name])
    assert read_objects(path, shape=(2, 3)).class_names == [name]


# --- what independent readers see ------------------------------------------------------------


def test_roifile_sees_the_same_objects(tmp_path):
    rois = roifile.roiread(written(tmp_path, ".zip"))
    areas = {}
    for roi in rois:
        rings = [np.asarray(ring, float) for ring in roi.coordinates(multi=True)]
        areas[roi.name] = sum(signed_area(ring) for ring in rings)
        corners = np.concatenate(rings)
        assert_array_equal(corners.min(axis=0), [roi.left, roi.top])
        assert_array_equal(corners.max(axis=0), [roi.right, roi.bottom])
    assert areas == {
        "nuclei-0001": 10,
        "nuclei-0003": 21,
        "nuclei-70000": 2,
        "a_b:_c-0003": 2,
    }
    assert [roi.group for roi in rois] == [1, 1, 1, 2]
    assert [roi.composite for roi in rois] == [False, True, True, True]
    assert rois[0].roitype == roifile.ROI_TYPE.TRACED
    assert rois[0].properties == {"class": "nuclei", "class_index": 0, "object": 1}


def test_shapely_sees_the_same_objects(tmp_path):
    path = written(tmp_path, ".geojson", object_type="detection")
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    assert content["type"] == "FeatureCollection"
    found = {}
    for feature in content["features"]:
        geometry = shapely.from_geojson(json.dumps(feature["geometry"]))
        properties = feature["properties"]
        assert geometry.is_valid
        assert properties["objectType"] == "detection"
        assert properties["measurements"]["area"] == geometry.area
        key = properties["classification"]["name"], properties["name"]
        found[key] = geometry.area, geometry.geom_type, geometry.bounds
    assert found == {
        ("nuclei", "1"): (10, "Polygon", (6, 1, 8, 6)),
        ("nuclei", "3"): (21, "Polygon", (1, 1, 6, 6)),
        ("nuclei", "70000"): (2, "MultiPolygon", (1, 7, 6, 8)),
        ("a/b: c", "3"): (2, "MultiPolygon", (0, 0, 2, 2)),
    }


def test_digits_are_as_many_and_as_large_for_independent_readers(tmp_path):
    canvases = make_digit_canvases(1, n_digits=(10,), random_state=0)
    instances = np.stack([label(mask, connectivity=2) for mask in canvases.masks[0]])
    areas = measure_objects([instances], class_names=range(10), as_frame=False)["area"]
    assert len(areas) >= 6
    of_rois = [
        sum(signed_area(np.asarray(ring, float)) for ring in roi.coordinates(multi=True))
        for roi in roifile.roiread(written(tmp_path, ".zip", [instances], range(10)))
    ]
    assert_array_equal(of_rois, areas)
    with open(written(tmp_path, ".geojson", [instances], range(10)), encoding="utf-8") as file:
        features = json.load(file)["features"]
    shapes = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features]
    assert_array_equal([shape.area for shape in shapes], areas)


@pytest.mark.parametrize("pixel_size", [0.25, np.float32(0.25)])
def test_label_tiff_opens_in_imagej_with_its_pixel_size(pixel_size, tmp_path):
    small = np.minimum(INSTANCES, 900)
    path = written(tmp_path, ".tif", small, pixel_size=pixel_size)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_imagej
        assert tif.series[0].axes == "CYX"
        assert tif.series[0].dtype == np.uint16
        assert tif.imagej_metadata["unit"] == "um"
        assert tif.imagej_metadata["Labels"] == NAMES
        assert tif.imagej_metadata["max"] == 900
        for tag in ("XResolution", "YResolution"):
            numerator, denominator = tif.pages[0].tags[tag].value
            assert numerator / denominator == 4
    large = tifffile.imread(written(tmp_path, ".tif"))
    assert large.dtype == np.float32  # ImageJ has no 32-bit integers


def test_ome_tiff_has_physical_sizes_and_channel_names(tmp_path):
    path = written(tmp_path, ".ome.tif", pixel_size=65, unit="nm")
    with tifffile.TiffFile(path) as tif:
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == 65
    assert pixels["PhysicalSizeXUnit"] == "nm"
    assert pixels["SizeC"] == 2
    assert [channel["Name"] for channel in pixels["Channel"]] == NAMES


def test_ome_zarr_holds_the_image_and_its_labels(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1, 9, 12, 3), dtype=np.uint8)
    root = zarr.open_group(written(tmp_path, ".zarr", images=image, pixel_size=0.5), mode="r")
    assert root.metadata.zarr_format == 2
    (multiscale,) = root.attrs["multiscales"]
    assert multiscale["version"] == "0.4"
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    assert multiscale["axes"][1] == {"name": "y", "type": "space", "unit": "micrometer"}
    assert multiscale["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 0.5, 0.5]}
    ]
    assert_array_equal(root["0"], np.moveaxis(image[0], -1, 0))
    folders = root["labels"].attrs["labels"]
    assert folders == ["0_nuclei", "1_a_b__c"]
    for folder, label_image in zip(folders, INSTANCES[0], strict=True):
        labels = root["labels"][folder]
        assert labels.attrs["image-label"]["source"] == {"image": "../../"}
        assert len(labels.attrs["multiscales"][0]["datasets"]) == 1
        assert_array_equal(labels["0"], label_image)


def test_csv_holds_the_table(tmp_path):
    options = {"class_names": NAMES, "pixel_size": 0.5, "sample_names": ["a"]}
    detections = [[[0, 1, 1, 0.5]]]
    table = measure_objects(INSTANCES, detections=detections, as_frame=False, **options)
    path = written(tmp_path, ".csv", table=table, sample_names=["a"])
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == list(table)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    assert columns["class"] == ("nuclei", "nuclei", "nuclei", "a/b: c")
    assert columns["score"] == ("", "0.5", "", "")
    for name in ("row", "area_um2", "solidity"):
        assert_array_equal(np.array(columns[name], float), table[name])  # no digit is lost
    written(tmp_path, ".csv", pixel_size=0.5)
    with open(path, encoding="utf-8") as file:  # measured now, and replaced
        assert file.readline().startswith("sample,class,object,row,column")


# --- files -----------------------------------------------------------------------------------


def test_one_file_per_sample_of_any_size(tmp_path):
    instances = [np.eye(4, 5, dtype=int), np.ones((3, 3), int)]
    paths = write_objects(
        tmp_path / "rois" / "{sample}.zip", instances, sample_names=["x/p.ome.tif", "x/q.tif"]
    )
    assert paths == [str(tmp_path / "rois" / f"{name}.zip") for name in "pq"]
    for path, expected in zip(paths, instances, strict=True):
        assert_array_equal(read_objects(path, shape=expected.shape).instances[0], expected)


def test_a_dot_in_a_name_is_no_suffix(tmp_path):
    names = ["day 1.5", "day 1.6", "a/day.1.TIF"]
    paths = write_objects(tmp_path / "{sample}.zip", np.ones((3, 1, 2, 2), int), sample_names=names)
    assert paths == [str(tmp_path / f"{name}.zip") for name in ("day 1.5", "day 1.6", "day.1")]


def test_measurements_come_from_the_table(tmp_path):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"sample": [0], "class": ["object"], "object": [1]})
    table["score"], table["other"] = 0.5, np.nan
    path = written(tmp_path, ".geojson", np.ones((1, 2, 2), int), None, table=table)
    with open(path, encoding="utf-8") as file:
        (feature,) = json.load(file)["features"]
    assert feature["properties"]["measurements"] == {"score": 0.5}  # JSON has no NaN


@pytest.mark.parametrize("suffix", [".zip", ".geojson", ".tif", ".ome.tif", ".csv", ".zarr"])
def test_a_failure_leaves_the_old_file_and_no_other(suffix, tmp_path):
    too_large = np.full((1, 2, 2), 2**31)  # no format takes it
    path = tmp_path / f"objects{suffix}"
    if suffix != ".zarr":
        path.write_text("old")
    with pytest.raises(ValueError, match="instances must be from 0 to"):
        write_objects(path, too_large, images=np.ones((1, 2, 2)))
    assert [p.name for p in tmp_path.iterdir()] == ([] if suffix == ".zarr" else [path.name])


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "objects.zip"
    path.write_text("old")

    def fail(part, *args, **kwargs):
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(roifile, "roiwrite", fail)
    with pytest.raises(OSError, match="disk full"):
        write_objects(path, np.ones((1, 2, 2), int))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_ome_zarr_is_never_replaced(tmp_path):
    path = written(tmp_path, ".zarr")
    with pytest.raises(FileExistsError, match="may hold images"):
        written(tmp_path, ".zarr")
    assert_array_equal(read_objects(path).instances, INSTANCES[0])


def test_coordinates_beyond_signed_shorts(tmp_path):
    wide = np.zeros((1, 2, 70_000), np.int32)
    wide[0, :, 65_000:65_010], wide[0, 0, 40_000:40_003], wide[0, 1, 30_000] = 1, 2, 3
    path = written(tmp_path, ".zip", wide, None)
    assert_array_equal(read_objects(path, shape=(2, 70_000)).instances, wide)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("objects.png", {}, ValueError, r"path must end in .*\.geojson.* Got 'objects\.png'"),
        ("objects.zip", {"class_names": None}, ValueError, "class_names must be given"),
        ("objects.zip", {"sample_names": ["a", "b"]}, ValueError, "one entry per sample"),
        ("objects.zarr", {}, ValueError, "Got images=None"),
        ("objects.zarr", {"images": np.ones((1, 2, 2))}, ValueError, "images must have the height"),
        ("objects.tif", {"pixel_size": "1 um"}, ValueError, "'pixel_size' .* must be a float"),
        (
            "objects.ome.tif",
            {"class_names": ["a\nb", "c"]},
            ValueError,
            r"line breaks.*Got 'a\\nb'",
        ),
        ("objects.ome.tif", {"class_names": ["\x01", "c"]}, ValueError, "control characters"),
        ("objects.geojson", {"class_names": ["a", ""]}, ValueError, "must not be empty"),
        ("objects.geojson", {"table": {"sample": []}}, ValueError, "table must have the columns"),
        (
            "objects.geojson",
            {"table": {"sample": [0], "class": ["nuclei"], "object": [1]}},
            ValueError,
            "Got none for object 3 of class 'nuclei'",
        ),
    ],
)
def test_wrong_input_is_refused(name, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        write_objects(tmp_path / name, INSTANCES, **{"class_names": NAMES} | options)
    assert not list(tmp_path.iterdir())


def test_several_samples_need_several_names(tmp_path):
    two = np.zeros((2, 3, 3), int)
    with pytest.raises(ValueError, match=r"path must hold \{sample\} for 2 samples"):
        write_objects(tmp_path / "objects.zip", two)
    with pytest.raises(ValueError, match="must differ without their folders"):
        write_objects(tmp_path / "{sample}.zip", two, sample_names=["a/1.tif", "b/1.tif"])


@pytest.mark.parametrize(
    ("suffix", "module", "extra"), [(".zip", "roifile", "roi"), (".zarr", "zarr", "zarr")]
)
def test_missing_packages_are_named(suffix, module, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{module} is required.*sklearn-micranet\[{extra}\]"'):
        written(tmp_path, suffix)


def test_numbers_that_label_images_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"hold numbers below 16777216\. Got 16777216"):
        written(tmp_path, ".tif", np.full((1, 2, 2), 2**24), None)


def test_periods_in_the_names_of_samples_are_kept(tmp_path):
    names = ["iso.2334", "iso.2335.tif", "iso.2336.ome.tif", "0.5 uM"]
    paths = write_objects(
        tmp_path / "{sample}.geojson", np.zeros((4, 1, 3, 3), int), sample_names=names
    )
    expected = ["iso.2334", "iso.2335", "iso.2336", "0.5 uM"]
    assert [Path(path).name for path in paths] == [f"{name}.geojson" for name in expected]
