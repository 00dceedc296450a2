import os
import pickle

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from PIL import Image

from sklearn_micranet.images._extract_crops import extract_crops
from sklearn_micranet.images._read_images import read_images


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


@pytest.mark.parametrize("paths", [np.zeros((2, 8, 8)), [None], [Image.new("L", (8, 8))]])
def test_what_is_no_path_is_refused(paths):
    with pytest.raises(TypeError, match="paths must be paths"):
        read_images(paths)


def test_plane_of_png_is_refused(folder):
    with pytest.raises(ValueError, match=r"b\.png cannot be read: plane=0 chooses among"):
        read_images(folder / "b.png", plane=0)


def test_messages_name_the_cause(folder, monkeypatch):
    (folder / "bad.png").write_text("no image")
    with pytest.raises(
        ValueError, match=r"bad\.png cannot be read: it is no TIFF, PNG, JPEG, .* file\.$"
    ):
        read_images(folder / "bad.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(
        ValueError,
        match=r"b\.png cannot be read: Image size \(72 pixels\) exceeds.*MAX_IMAGE_PIXELS = None",
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


@pytest.mark.parametrize("name", ["empty", "*.gif"])
def test_nothing_found(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="must be an image, a pattern or a folder"):
        read_images(tmp_path / name)


@pytest.mark.parametrize("name", ["._a.tif", ".DS_Store", ".hidden.png"])
def test_hidden_files_are_ignored(folder, images, name):
    (folder / name).write_bytes(b"\0\5\x16\7 of macOS")
    for pattern in ("", "*", "*.*", "**/*"):
        np.testing.assert_array_equal(read_images(folder / pattern).images, images)
    with pytest.raises(FileNotFoundError, match="Got no such file"):
        read_images(folder / ".*")
    with pytest.raises(ValueError, match="cannot be read"):
        read_images(folder / name)


def test_folders_named_like_images_are_ignored(folder, images):
    (folder / "z.tif").mkdir()
    np.testing.assert_array_equal(read_images(folder).images, images)
    np.testing.assert_array_equal(read_images(folder / "*.tif").images, images[:1])


def test_paths_may_be_a_generator(folder, images):
    csv = write(folder / "y.csv", "file,label", "a.tif,x", "b.png,y", "c.TIFF,x")
    data = read_images((folder / name for name in ("b.png", "a.tif")), labels=csv)
    np.testing.assert_array_equal(data.images, images[[1, 0]])
    assert data.labels.tolist() == ["y", "x"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_named_by_file(tmp_path, value):
    image = np.ones((5, 6), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", image)
    image[1:3, 2] = value
    tifffile.imwrite(tmp_path / "b.tif", image)
    stack = read_images(tmp_path).images
    np.testing.assert_array_equal(stack[0], np.ones((5, 6)))
    message = r"b\.tif cannot be read: 2 of its pixels are NaN or infinite.*on_error='skip'"
    with pytest.raises(ValueError, match=message):
        np.asarray(stack)
    with pytest.warns(UserWarning, match="2 of its pixels are NaN or infinite"):
        data = read_images(tmp_path, on_error="skip")
    assert data.filenames == [str(tmp_path / "a.tif")]


def test_complex_pixels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((5, 6), np.complex64))
    with pytest.raises(ValueError, match=r"a\.tif cannot be read: .*complex64, which is not real"):
        read_images(tmp_path)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_grey_among_colours_is_named_by_file(tmp_path, on_error):
    for name, shape in {"a": (8, 9, 3), "b": (8, 9), "c": (7, 9, 3)}.items():
        imageio.imwrite(tmp_path / f"{name}.png", np.zeros(shape, np.uint8))
    with pytest.raises(
        ValueError, match=r"Got 3 in 2, such as .*a\.png; 1 in 1, such as .*b\.png inst"
    ):
        read_images(tmp_path, on_error=on_error)


def test_files_of_either_byte_order_are_one_array(tmp_path, images):
    for order, image in zip("<>", images, strict=False):
        tifffile.imwrite(tmp_path / f"{ord(order)}.tif", image, byteorder=order)
    stack = read_images(tmp_path).images
    np.testing.assert_array_equal(stack, images[:2])
    for image in stack:
        assert image.dtype.isnative


def test_files_that_have_changed_are_named(folder, images):
    stack = read_images(folder).images
    tifffile.imwrite(folder / "a.tif", images[0, :-1])
    with pytest.raises(ValueError, match=r"a\.tif has changed.*\(8, 9\) and uint16. Got \(7, 9\)"):
        stack[0]


@pytest.mark.parametrize("suffix", [".tif", "_mask.tif", " (1).tif"])
def test_numbers_in_names_are_sorted_by_value(tmp_path, suffix):
    for number in (1, 2, 10, 9, 100):
        image = np.full((3, 4), number, np.uint8)
        tifffile.imwrite(tmp_path / f"img{number}{suffix}", image)
    for paths in (tmp_path, tmp_path / "*", [tmp_path / "*.tif"]):
        assert [image.max() for image in read_images(paths).images] == [1, 2, 9, 10, 100]
