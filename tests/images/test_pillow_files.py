import io
import struct
import zlib

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from sklearn_micranet.images._image_files import read_header, read_image
from sklearn_micranet.images._read_images import read_images

COLOUR_TYPES = {2: 3, 6: 4, 4: 2, 0: 1}  # of the PNG standard, with their numbers of channels


def png(pixels, colour_type, before=(), after=()):
    """Return the bytes of a PNG file, with chunks before and after its pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = pixels.shape[:2]
    depth = 8 * pixels.dtype.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *before]
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))), *after]
    chunks += [(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*item) for item in chunks)


def exif(orientation):
    """Return the EXIF block that holds the orientation alone."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes().removeprefix(b"Exif\0\0")


def random(shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)


def read(path):
    """Read a file, and check that its header says the same."""
    image = read_image(str(path))
    assert read_header(str(path)) == (image.shape, image.dtype)
    return image


@pytest.mark.parametrize("colour_type", COLOUR_TYPES)
def test_png_keeps_all_16_bits(tmp_path, colour_type):
    pixels = random((5, 7, COLOUR_TYPES[colour_type]))
    if colour_type in (4, 6):
        pixels[..., -1] = 65535  # opaque
    (tmp_path / "a.png").write_bytes(png(pixels, colour_type))
    expected = pixels[..., :3] if colour_type in (2, 6) else pixels[..., 0]
    np.testing.assert_array_equal(read(tmp_path / "a.png"), expected, strict=True)
    from_memory = read_image("a.png", file=io.BytesIO(png(pixels, colour_type)))
    np.testing.assert_array_equal(from_memory, expected, strict=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour_type", [4, 6])
def test_transparent_pixels_are_refused(tmp_path, colour_type, dtype):
    pixels = np.full((5, 7, COLOUR_TYPES[colour_type]), np.iinfo(dtype).max, dtype)
    (tmp_path / "a.png").write_bytes(png(pixels, colour_type))
    assert read(tmp_path / "a.png").shape == ((5, 7) if colour_type == 4 else (5, 7, 3))
    pixels[0, 0, -1] -= 1
    (tmp_path / "a.png").write_bytes(png(pixels, colour_type))
    with pytest.raises(ValueError, match=r"a\.png cannot be read: it has an alpha channel"):
        read_image(str(tmp_path / "a.png"))


def test_a_colour_declared_transparent_is_refused_where_it_occurs(tmp_path):
    pixels = random((5, 7, 3), np.uint8) // 2
    key = [(b"tRNS", struct.pack(">HHH", 255, 255, 255))]
    (tmp_path / "a.png").write_bytes(png(pixels, 2, before=key))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), pixels)
    pixels[1, 2] = 255
    (tmp_path / "a.png").write_bytes(png(pixels, 2, before=key))
    with pytest.raises(ValueError, match=r"a\.png cannot be read: some of its pixels are transp"):
        read_image(str(tmp_path / "a.png"))


def save_palette(path, colours, **kwargs):
    """Write a file whose pixels 0 to 3 are looked up in a table of colours."""
    image = Image.fromarray(np.array([[0, 1], [2, 3], [1, 1]], np.uint8), "L")
    image = image.convert("P")
    image.putpalette(np.ravel(colours).tolist())
    image.save(path, **kwargs)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_palettes_of_grey_values_are_grey(tmp_path, suffix):
    grey = np.array([9, 200, 30, 0])
    save_palette(tmp_path / f"a.{suffix}", np.repeat(grey, 3))
    expected = grey[[[0, 1], [2, 3], [1, 1]]].astype(np.uint8)
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}"), expected, strict=True)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_palettes_of_colours_are_colours(tmp_path, suffix):
    colours = np.array([[1, 2, 3], [200, 0, 0], [0, 99, 0], [7, 7, 7]])
    save_palette(tmp_path / f"a.{suffix}", colours)
    expected = colours[[[0, 1], [2, 3], [1, 1]]].astype(np.uint8)
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}"), expected, strict=True)


def test_transparent_entries_of_a_palette_are_refused_where_they_occur(tmp_path):
    colours = np.repeat([9, 200, 30, 0, 5], 3)
    save_palette(tmp_path / "a.png", colours, transparency=4)
    assert read(tmp_path / "a.png").shape == (3, 2)
    save_palette(tmp_path / "a.png", colours, transparency=2)
    with pytest.raises(ValueError, match=r"a\.png cannot be read: it has an alpha channel"):
        read_image(str(tmp_path / "a.png"))


def test_one_bit_images_are_bool(tmp_path):
    image = random((5, 7), np.uint8) > 100
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), image, strict=True)


# Where the first row and the first column of the stored pixels belong, by the EXIF standard.
UPRIGHT = {
    1: lambda stored: stored,  # top, left
    2: lambda stored: stored[:, ::-1],  # top, right
    3: lambda stored: stored[::-1, ::-1],  # bottom, right
    4: lambda stored: stored[::-1],  # bottom, left
    5: lambda stored: np.moveaxis(stored, 0, 1),  # left, top
    6: lambda stored: np.moveaxis(stored, 0, 1)[:, ::-1],  # right, top
    7: lambda stored: np.moveaxis(stored, 0, 1)[::-1, ::-1],  # right, bottom
    8: lambda stored: np.moveaxis(stored, 0, 1)[::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("place", ["before", "after"])
def test_png_is_turned_upright(tmp_path, orientation, place):
    pixels = random((5, 7, 3))
    chunks = {place: [(b"eXIf", exif(orientation))]}
    (tmp_path / "a.png").write_bytes(png(pixels, 2, **chunks))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), UPRIGHT[orientation](pixels))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_jpeg_is_turned_upright(tmp_path, orientation):
    stored = np.zeros((16, 32), np.uint8)
    stored[:8, :16] = 200
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif(orientation))
    np.testing.assert_allclose(read(tmp_path / "a.jpg"), UPRIGHT[orientation](stored), atol=9)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_several_frames_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(random((5, 7), np.uint8) // n) for n in (1, 2, 3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be read: it holds 3 frames"):
        read_images(tmp_path / f"a.{suffix}")


def test_previews_in_photographs_are_left_out(tmp_path):
    image = Image.fromarray(np.full((16, 16, 3), 90, np.uint8))
    preview = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    image.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.n_frames == 2
    np.testing.assert_array_equal(read(tmp_path / "a.jpg"), np.full((16, 16, 3), 90))


def test_colours_for_printers_are_refused(tmp_path):
    Image.new("CMYK", (9, 9)).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read: its colours are stored as CMYK"):
        read_images(tmp_path)


def test_formats_that_would_lose_bits_are_refused(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 65535\n" + bytes(6))
    with pytest.raises(ValueError, match=r"a\.ppm cannot be read: it is no TIFF, PNG, JPEG"):
        read_images(tmp_path / "a.ppm")


@pytest.mark.parametrize("content", ["png", "tif"])
def test_the_content_decides_not_the_suffix(tmp_path, content):
    image = random((5, 7))
    suffix = {"png": "tif", "tif": "png"}[content]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(imageio.imwrite("<bytes>", image, extension=f".{content}"))
    np.testing.assert_array_equal(read(path), image, strict=True)
