import os
import pickle
from importlib.util import find_spec

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from PIL import Image

from sklearn_micranet.images._extract_crops import extract_crops
from sklearn_micranet.images._read_images import read_images

needs_no_imagecodecs = pytest.mark.skipif(
    find_spec("imagecodecs") is not None, reason="shows what happens without imagecodecs"
)

STACK = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 65536, (3, 8, 9)).astype(np.uint16)


@pytest.fixture
def folder(tmp_path, images):
    """Three 16-bit images, two as TIFF and one as PNG, next to a file that is no image."""
    for name, image in zip(["a.tif", "b.png", "c.TIFF"], images, strict=True):
        imageio.imwrite(tmp_path / name, image, extension=name[1:].lower())
    (tmp_path / "notes.txt").write_text("ignored")
    return tmp_path


def write(path, *lines):
    path.write_text("\n".join(lines))
    return path


def test_folder_becomes_a_lazy_array(folder, images):
    data = read_images(folder)
    assert data.images.shape == (3, 8, 9)
    assert data.images.dtype == np.uint16
    np.testing.assert_array_equal(data.images, images)
    assert data.filenames == [str(folder / name) for name in ("a.tif", "b.png", "c.TIFF")]
    assert data.labels is data.target_names is None
    assert data.skipped == []


def test_files_are_decoded_when_they_are_read(folder, images):
    data = read_images(folder)
    tifffile.imwrite(folder / "a.tif", images[0] // 2)
    np.testing.assert_array_equal(data.images[0], images[0] // 2)


def test_paths_and_patterns(folder, images):
    np.testing.assert_array_equal(read_images(folder / "b.png").images, images[1:2])
    np.testing.assert_array_equal(read_images(str(folder / "[ab].*")).images, images[:2])
    np.testing.assert_array_equal(
        read_images([folder / "c.TIFF", str(folder / "*.png")]).images, images[[2, 1]]
    )
    odd = folder / "well[1].png"
    imageio.imwrite(odd, images[0])
    np.testing.assert_array_equal(read_images(odd).images, images[:1])


@pytest.mark.parametrize("pattern", ["*", "**"])
def test_patterns_take_images_only(folder, images, pattern):
    (folder / "sub").mkdir()
    np.testing.assert_array_equal(read_images(str(folder / pattern)).images, images)


def test_patterns_with_a_suffix_take_what_they_name(tmp_path, images):
    image = images[0].astype(np.uint8)
    imageio.imwrite(tmp_path / "a.bmp", image)
    np.testing.assert_array_equal(read_images(str(tmp_path / "*.bmp")).images, image[np.newaxis])


def test_any_path_like_is_accepted(folder, images):
    write(folder / "y.csv", "file,label", "a.tif,x", "b.png,y", "c.TIFF,x")
    entries = {entry.name: entry for entry in os.scandir(folder)}
    data = read_images(entries["b.png"], labels=entries["y.csv"])
    np.testing.assert_array_equal(data.images, images[1:2])
    assert data.labels.tolist() == ["y"]


def test_brackets_in_names_need_escaping(tmp_path, images):
    (tmp_path / "plate[1]").mkdir()
    imageio.imwrite(tmp_path / "plate[1]" / "a.png", images[0])
    with pytest.raises(FileNotFoundError, match=r"belong to a name through glob\.escape\.$"):
        read_images(tmp_path / "plate[1]" / "*.png")
    with pytest.raises(FileNotFoundError, match=r"Got no such file\.$"):
        read_images(tmp_path / "*.png")


def test_jpeg_and_colour(tmp_path):
    image = np.full((8, 9, 3), [200, 100, 50], dtype=np.uint8)
    imageio.imwrite(tmp_path / "a.jpg", image)
    data = read_images(tmp_path)
    assert data.images.shape == (1, 8, 9, 3)
    np.testing.assert_allclose(data.images[0], image, atol=3)


def test_images_of_different_sizes_become_a_ragged_stack(folder):
    tifffile.imwrite(folder / "d.tif", np.ones((12, 4), np.uint16))
    data = read_images(folder)
    assert data.images.is_ragged
    assert [image.shape for image in data.images] == [(8, 9)] * 3 + [(12, 4)]
    crops = extract_crops(data.images, size=4)
    np.testing.assert_array_equal(crops.groups, [0] * 6 + [1] * 6 + [2] * 6 + [3] * 3)
    np.testing.assert_array_equal(crops.images[-1], np.ones((4, 4)))


def test_images_of_different_dtypes_keep_their_own(folder):
    tifffile.imwrite(folder / "d.tif", np.ones((8, 9), np.uint8))
    assert [image.dtype.name for image in read_images(folder).images] == ["uint16"] * 3 + ["uint8"]


def test_stack_can_be_pickled(folder, images):
    back = pickle.loads(pickle.dumps(read_images(folder)))
    np.testing.assert_array_equal(back.images, images)


def test_class_labels(folder):
    rows = ["b.png,empty", "", "sub/c.TIFF, cells", "a.tif,cells"]
    data = read_images(folder, labels=write(folder / "y.csv", "file,label", *rows))
    assert data.labels.tolist() == ["cells", "empty", "cells"]
    assert data.target_names == ["cells", "empty"]


def test_numeric_class_labels_become_integers(folder):
    csv = write(folder / "y.csv", "\ufefffile,label", "a.tif,1", "b.png,0", "c.TIFF,10")
    data = read_images(folder, labels=csv)
    np.testing.assert_array_equal(data.labels, [1, 0, 10])
    assert data.target_names == ["0", "1", "10"]


def test_negative_class_labels_become_integers(folder):
    csv = write(folder / "y.csv", "file,label", "a.tif,1", "b.png,-1", "c.TIFF,1")
    data = read_images(folder, labels=csv)
    np.testing.assert_array_equal(data.labels, [1, -1, 1])
    assert data.labels.dtype == np.int64
    assert data.target_names == ["-1", "1"]


def test_numbers_too_long_for_int64_stay_strings(folder):
    csv = write(folder / "y.csv", "file,label", "a.tif,1", "b.png,9223372036854775808", "c.TIFF,1")
    assert read_images(folder, labels=csv).labels.tolist() == ["1", "9223372036854775808", "1"]


@pytest.mark.parametrize("header", ["file,label", "file,rings,fibres"])
def test_empty_cells_are_missing_labels(folder, header):
    cells = ",1" * header.count(",")
    rows = [f"a.tif{cells}", f"b.png{cells}", f"c.TIFF{cells[:-1]} "]
    csv = write(folder / "y.csv", header, *rows)
    with pytest.raises(ValueError, match=r"c\.TIFF has no label in .*y\.csv: .*an empty cell"):
        read_images(folder, labels=csv)
    with pytest.warns(UserWarning, match=r"1 file\(s\) skipped:\n.*c\.TIFF has no label"):
        data = read_images(folder, labels=csv, on_error="skip")
    assert data.labels.all()
    assert [name for name, _ in data.skipped] == [str(folder / "c.TIFF")]


def test_indicator_labels(folder):
    csv = write(folder / "y.csv", "file,rings,fibres", "a.tif,1,0", "b.png,1,1", "c.TIFF,0,0")
    data = read_images(folder, labels=csv)
    np.testing.assert_array_equal(data.labels, [[1, 0], [1, 1], [0, 0]])
    assert data.target_names == ["rings", "fibres"]


def test_one_indicator_column(folder):
    csv = write(folder / "y.csv", "file,rings", "a.tif,1", "b.png,0", "c.TIFF,1")
    data = read_images(folder, labels=csv)
    np.testing.assert_array_equal(data.labels, [1, 0, 1])
    assert data.target_names == ["rings"]


def test_rows_of_files_that_are_not_read_are_ignored(folder):
    csv = write(folder / "y.csv", "file,label", "a.tif,x", "b.png,y", "c.TIFF,x")
    assert read_images(folder / "*.png", labels=csv).labels.tolist() == ["y"]


@pytest.mark.parametrize("form", ["ome", "imagej"])
def test_planes_by_axis(tmp_path, form):
    path = tmp_path / ("a.ome.tif" if form == "ome" else "a.tif")
    tifffile.imwrite(path, STACK, imagej=form == "imagej", metadata={"axes": "TZCYX"})
    one = read_images(path, plane={"T": 1, "C": 2, "Z": 0}).images
    assert one.shape == (1, 5, 6)
    np.testing.assert_array_equal(one[0], STACK[1, 0, 2])
    channels = read_images(path, plane={"T": 1, "Z": 2}).images
    assert channels.shape == (1, 5, 6, 4)
    np.testing.assert_array_equal(channels[0], np.moveaxis(STACK[1, 2], 0, -1))
    np.testing.assert_array_equal(read_images(path, plane=5).images[0], STACK[0, 1, 1])
    with pytest.raises(ValueError, match=r"a\.(ome\.)?tif cannot be read.*choose one with plane"):
        read_images(path)
    with pytest.raises(ValueError, match="names axes that are not among its axes 'TZC'"):
        read_images(path, plane={"P": 0})


def test_pages_of_plain_tiff(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for page in STACK[0, 0]:
            tif.write(page, contiguous=False)
    np.testing.assert_array_equal(read_images(tmp_path, plane=2).images[0], STACK[0, 0, 2])
    np.testing.assert_array_equal(read_images(tmp_path, plane=-1).images[0], STACK[0, 0, 3])
    with pytest.raises(ValueError, match=r"holds several planes.*4 pages"):
        read_images(tmp_path)
    with pytest.raises(ValueError, match=r"a\.tif cannot be read"):
        read_images(tmp_path, plane=4)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_channels_come_last(tmp_path, planar):
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    stored = image if planar == "contig" else np.moveaxis(image, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    images = read_images(tmp_path).images
    assert images.shape == (1, 5, 6, 3)
    np.testing.assert_array_equal(images[0], image)


def test_planes_stored_as_one_block_are_refused_with_advice(tmp_path):
    planes = STACK[0, :, 0]
    tifffile.imwrite(tmp_path / "a.tif", planes, truncate=True, photometric="minisblack")
    with pytest.raises(ValueError, match=r"open it with tifffile\.memmap"):
        read_images(tmp_path, plane={"Q": 1})


def test_plane_of_png_is_refused(folder):
    with pytest.raises(ValueError, match=r"b\.png cannot be read: plane=0 chooses among"):
        read_images(folder / "b.png", plane=0)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "rgb"])
def test_lzw_needs_no_imagecodecs(tmp_path, images, kind):
    image = np.stack([images[0] % 256] * 3, axis=-1) if kind == "rgb" else images[0] / 3
    image = image.astype("uint8" if kind == "rgb" else kind)
    Image.fromarray(image).save(tmp_path / "a.tif", compression="tiff_lzw")
    stack = read_images(tmp_path).images
    assert (stack.shape, stack.dtype) == ((1, *image.shape), image.dtype)
    np.testing.assert_array_equal(stack[0], image, strict=True)


def save_jpeg(path, image):
    Image.fromarray(image).save(path, compression="jpeg")


def save_two_pages(path, image):
    page = Image.fromarray(image)
    page.save(path, compression="tiff_lzw", save_all=True, append_images=[page])


def save_turned(path, image):
    Image.fromarray(image).save(path, compression="tiff_lzw", tiffinfo={274: 3})


def save_zstd(path, image):
    """Write a file of which the header says ZSTD, but whose pixels nothing can decode."""
    tifffile.imwrite(path, image)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["Compression"].overwrite(50000)


@needs_no_imagecodecs
def test_files_that_pillow_takes_for_a_bomb_are_named_at_once(tmp_path, images, monkeypatch):
    image = Image.fromarray(images[0].astype(np.uint8))
    image.save(tmp_path / "a.tif", compression="tiff_lzw")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", images[0].size)
    assert len(read_images(tmp_path).images) == 1
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", images[0].size - 1)
    with pytest.raises(ValueError, match=r"encoding \(LZW, 8 bits\) requires imagecodecs"):
        read_images(tmp_path)


@needs_no_imagecodecs
@pytest.mark.parametrize(
    ("save", "encoding"),
    [
        (save_jpeg, "JPEG, 8 bits"),
        (save_two_pages, "LZW, 8 bits"),
        (save_turned, "LZW, 8 bits"),
        pytest.param(
            save_zstd,
            "ZSTD, 8 bits",
            marks=pytest.mark.skipif(
                find_spec("compression") is not None, reason="Python 3.14 decodes ZSTD"
            ),
        ),
    ],
)
def test_files_that_need_imagecodecs_are_named_at_once(folder, images, save, encoding):
    save(folder / "d.tif", images[0].astype(np.uint8))
    message = rf"d\.tif cannot be read: its encoding \({encoding}\) requires imagecodecs.*"
    message += r'pip install "sklearn-micranet\[tiff\]"'
    with pytest.raises(ValueError, match=message):
        read_images(folder / "d.tif", plane=0)
    with pytest.warns(UserWarning, match=message):
        data = read_images([folder / "a.tif", folder / "d.tif"], plane=0, on_error="skip")
    np.testing.assert_array_equal(data.images, images[:1])


def test_unknown_compression_is_noticed_at_once(tmp_path, images):
    tifffile.imwrite(tmp_path / "a.tif", images[0])
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages[0].tags["Compression"].overwrite(33333)
    with pytest.raises(
        ValueError, match=r"a\.tif cannot be read: 33333 is not a known COMPRESSION"
    ):
        read_images(tmp_path)


def test_messages_name_the_cause(folder, monkeypatch):
    (folder / "bad.png").write_text("no image")
    with pytest.raises(
        ValueError, match=r"bad\.png cannot be read: Pillow can not read .*bad\.png"
    ):
        read_images(folder / "bad.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(
        ValueError, match=r"b\.png cannot be read: Image size \(72 pixels\) exceeds"
    ):
        read_images(folder / "b.png")


def spoil(folder):
    """Add a file that is no TIFF and a JPEG whose second half is missing."""
    (folder / "bad.tif").write_text("no image")
    noise = np.random.default_rng(0).integers(0, 256, (99, 99)).astype(np.uint8)
    encoded = imageio.imwrite("<bytes>", noise, extension=".jpg")
    (folder / "cut.jpg").write_bytes(encoded[: len(encoded) // 2])


def test_bad_files_are_named(folder):
    spoil(folder)
    with pytest.raises(ValueError, match=r"bad\.tif cannot be read: not a TIFF file"):
        read_images(folder)
    cut = read_images(folder / "cut.jpg")  # Its header is whole.
    with pytest.raises(ValueError, match=r"cut\.jpg cannot be read: .*truncated"):
        cut.images[0]
    with pytest.raises(ValueError, match=r"none\.tif cannot be read: .*No such file"):
        read_images(folder / "none.tif")


def test_bad_files_can_be_skipped(folder, images):
    spoil(folder)
    rows = ["a.tif,x", "bad.tif,y", "c.TIFF,y", "cut.jpg,y", "gone.tif,x"]
    csv = write(folder / "y.csv", "file,label", *rows)
    with pytest.warns(UserWarning, match=r"4 file\(s\) skipped") as caught:
        data = read_images(folder, labels=csv, on_error="skip")
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(data.images, images[[0, 2]])
    assert data.labels.tolist() == ["x", "y"]
    names, reasons = zip(*data.skipped, strict=True)
    assert names == tuple(
        str(folder / name) for name in ("b.png", "bad.tif", "cut.jpg", "gone.tif")
    )
    assert "b.png has no label in" in reasons[0]
    assert "not a TIFF file" in reasons[1]
    assert "truncated" in reasons[2]
    assert "No such file" in reasons[3]


def test_nothing_left_is_an_error(folder):
    spoil(folder)
    with pytest.raises(ValueError, match=r"No file could be read:\n.*bad\.tif"):
        read_images(folder / "bad.tif", on_error="skip")
    with pytest.raises(ValueError, match="No file could be read"):
        read_images([])


def test_files_and_rows_must_fit(folder):
    rows = ["a.tif,x", "b.png,x"]
    with pytest.raises(ValueError, match=r"c\.TIFF has no label in .*y\.csv"):
        read_images(folder, labels=write(folder / "y.csv", "file,label", *rows))
    rows += ["c.TIFF,x", "gone.tif,x"]
    with pytest.raises(ValueError, match=r"gone\.tif cannot be read"):
        read_images(folder, labels=write(folder / "y.csv", "file,label", *rows))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file;label", "a.tif;x"], "separated by commas"),
        ([""], "must have a header"),
        (["file,label", "a.tif,x,y"], "rows of the same length"),
        (["file,label", "a.tif,x", "a.tif,y"], "Got a name twice instead"),
        (["file,class", "a.tif,x"], "class must hold 0 or 1.*must be named label"),
    ],
)
def test_csv_errors(folder, lines, message):
    with pytest.raises(ValueError, match=message):
        read_images(folder / "a.tif", labels=write(folder / "y.csv", *lines))


def test_files_of_the_same_name_cannot_share_a_label(folder, images):
    (folder / "sub").mkdir()
    tifffile.imwrite(folder / "sub" / "a.tif", images[0])
    csv = write(folder / "y.csv", "file,label", "a.tif,x")
    with pytest.raises(ValueError, match="Files must differ in name"):
        read_images(folder / "**" / "a.tif", labels=csv)


@pytest.mark.parametrize("name", ["empty", "*.gif"])
def test_nothing_found(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="must be an image, a pattern or a folder"):
        read_images(tmp_path / name)
