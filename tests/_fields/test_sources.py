import pickle
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lazy import objects
from numpy.testing import assert_array_equal

from sklearn_micranet._fields._sources import open_fields, read_block
from sklearn_micranet._stack._lazy_stack import LazyStack

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")
dask_array = pytest.importorskip("dask.array")

IMAGE = np.random.default_rng(0).integers(0, 255, (70, 90), dtype=np.uint8)


@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    corner=st.tuples(st.integers(-40, 20), st.integers(-40, 20)),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
)
@settings(deadline=None, max_examples=60)
def test_a_block_beyond_the_border_is_mirrored(height, width, corner, size):
    field = np.arange(height * width).reshape(height, width)
    padded = np.pad(field, 80, "reflect")
    first = corner[0] + 80, corner[1] + 80
    expected = padded[first[0] : first[0] + size[0], first[1] : first[1] + size[1]]
    block = read_block(field, corner[0], corner[0] + size[0], corner[1], corner[1] + size[1])
    assert_array_equal(block, expected)


def test_a_block_inside_is_a_view():
    block = read_block(IMAGE, 3, 20, 5, 30)
    assert np.shares_memory(block, IMAGE)
    assert_array_equal(block, IMAGE[3:20, 5:30])


def write_zarr(folder, image):
    array = zarr.create_array(folder / "a.zarr", shape=image.shape, chunks=(16, 16), dtype="uint8")
    array[:] = image
    return array


def write_tiled(path, image, **options):
    tifffile.imwrite(path, image, tile=(32, 32), **options)
    return path


KINDS = {
    "list": lambda folder: IMAGE.tolist(),
    "zarr": lambda folder: write_zarr(folder, IMAGE),
    "path of zarr": lambda folder: write_zarr(folder, IMAGE) and folder / "a.zarr",
    "dask": lambda folder: dask_array.from_array(IMAGE, chunks=16),
    "tiled TIFF": lambda folder: write_tiled(folder / "a.tif", IMAGE),
    "TIFF": lambda folder: tifffile.imwrite(folder / "a.tiff", IMAGE) or str(folder / "a.tiff"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_read_piecewise(kind, tmp_path):
    (field,) = open_fields([KINDS[kind](tmp_path)], 32)
    assert field.shape == IMAGE.shape
    assert_array_equal(read_block(field, 10, 80, -5, 40), read_block(IMAGE, 10, 80, -5, 40))


def test_a_tiff_of_several_levels_is_read_at_full_resolution(tmp_path):
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(IMAGE, tile=(32, 32), subifds=1)
        tif.write(IMAGE[::2, ::2], tile=(32, 32), subfiletype=1)
    (field,) = open_fields([path], 32)
    assert_array_equal(field[:], IMAGE)


def test_a_tiff_travels_without_its_open_file(tmp_path):
    (field,) = open_fields([write_tiled(tmp_path / "a.tif", IMAGE)], 32)
    copy = pickle.loads(pickle.dumps(field))
    assert_array_equal(copy[5:20, 3:50], IMAGE[5:20, 3:50])


def test_fields_of_a_stack_and_of_several_channels():
    assert [f.shape for f in open_fields(np.zeros((3, 40, 50)), 32)] == [(40, 50)] * 3
    assert open_fields([np.zeros((40, 50, 3))], 32)[0].shape == (40, 50, 3)


def test_fields_of_a_lazy_stack_and_of_an_array_of_arrays():
    images = [np.zeros((40, 50)), np.ones((60, 70))]
    stack = LazyStack(images, list, item_shape=None)
    for fields in (stack, objects(*images)):
        found = open_fields(fields, 32)
        for field, image in zip(found, images, strict=True):
            assert_array_equal(field[:], image)


@pytest.mark.parametrize("fields", [IMAGE, "a.tif", {"image": IMAGE}])
def test_a_single_field_is_refused(fields):
    with pytest.raises(TypeError, match=r"must be a sequence of fields\. Got a single .*\[field\]"):
        open_fields(fields, 32)


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ([], ValueError, "at least one field. Got none"),
        ([np.zeros((40, 20))], ValueError, "must hold a window of 32 x 32 px. Got the shape"),
        ([np.zeros((3, 40, 40))], ValueError, r"at most 16 channels\. Got \(3, 40, 40\)"),
        ([np.zeros(40)], ValueError, r"must have the shape \(height, width\).* Got \(40,\)"),
        (["nowhere.tif"], FileNotFoundError, "must be a TIFF file or a Zarr array. Got nothing"),
    ],
)
def test_fields_that_are_none(fields, error, match):
    with pytest.raises(error, match=match):
        open_fields(fields, 32)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"an array, a TIFF file or the folder of a Zarr array"):
        open_fields([tmp_path / "a.png"], 32)
    zarr.create_group(tmp_path / "group.zarr")
    with pytest.raises(
        ValueError, match=r"must hold one Zarr array, or an OME-Zarr .* Got a group"
    ):
        open_fields([tmp_path / "group.zarr"], 32)


def write_ome_zarr(path, planes, axes, *, nested=False):
    """Two levels, the second of every other pixel."""
    group = zarr.create_group(path, zarr_format=3 if nested else 2)
    datasets = []
    for name, values in {"0": planes, "1": planes[..., ::2, ::2]}.items():
        group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=values.shape)
        group[name][...] = values
        datasets.append({"path": name})
    metadata = {"multiscales": [{"axes": [{"name": axis} for axis in axes], "datasets": datasets}]}
    group.attrs.update({"ome": metadata} if nested else metadata)
    return path


@pytest.mark.parametrize("nested", [False, True], ids=["0.4", "0.5"])
def test_levels_of_ome_zarr(tmp_path, nested):
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    path = write_ome_zarr(tmp_path / "a.zarr", np.moveaxis(image, 2, 0), "cyx", nested=nested)
    for name, expected in {"": image, "0": image, "1": image[::2, ::2]}.items():
        (field,) = open_fields([path / name], 32)
        assert field.shape == expected.shape
        assert_array_equal(read_block(field, 5, 30, -2, 40), read_block(expected, 5, 30, -2, 40))
        assert_array_equal(pickle.loads(pickle.dumps(field))[3:9, 4:7], expected[3:9, 4:7])


def test_single_planes_of_ome_zarr(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", IMAGE[None, None, None], "tczyx")
    (field,) = open_fields([path], 32)
    assert_array_equal(field[:], IMAGE)
    path = write_ome_zarr(tmp_path / "b.zarr", np.stack([IMAGE, IMAGE]), "zyx")
    with pytest.raises(ValueError, match=r"must have one plane.* Got the axes ZYX .*\(2, 70, 90\)"):
        open_fields([path], 32)


@pytest.mark.parametrize("axes", ["CYX", "YXS", "ZYX"])
def test_channels_of_tiff(tmp_path, axes):
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    planes = image if axes == "YXS" else np.moveaxis(image, 2, 0)
    photometric = "rgb" if axes == "YXS" else "minisblack"
    path = write_tiled(
        tmp_path / "a.ome.tif", planes, metadata={"axes": axes}, photometric=photometric
    )
    if axes == "ZYX":
        with pytest.raises(ValueError, match=r"must have one plane.* Got the axes ZYX"):
            open_fields([path], 32)
        return
    (field,) = open_fields([path], 32)
    assert_array_equal(read_block(field, 10, 80, -5, 40), read_block(image, 10, 80, -5, 40))


@pytest.mark.skipif(find_spec("imagecodecs") is not None, reason="it would decode the tiles")
def test_only_the_tiles_of_a_tiff_that_show_a_block_are_decoded(tmp_path, monkeypatch):
    path = write_tiled(tmp_path / "a.tif", IMAGE, compression="zlib")
    (field,) = open_fields([path], 32)
    decoded, decode = [], zlib.decompress
    monkeypatch.setattr(zlib, "decompress", lambda *args: decoded.append(0) or decode(*args))
    assert_array_equal(read_block(field, 33, 60, 33, 60), IMAGE[33:60, 33:60])
    assert len(decoded) == 1  # of nine
