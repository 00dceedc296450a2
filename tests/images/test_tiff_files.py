from importlib.util import find_spec

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from sklearn_micranet.images._read_images import read_images

needs_no_imagecodecs = pytest.mark.skipif(
    find_spec("imagecodecs") is not None, reason="shows what happens without imagecodecs"
)

STACK = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)


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


def test_axes_of_one_plane_may_be_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[:1, :, :1], metadata={"axes": "TZCYX"})
    images = read_images(tmp_path, plane={"T": 0, "Z": 2, "C": 0}).images
    np.testing.assert_array_equal(images[0], STACK[0, 2, 0])
    with pytest.raises(ValueError, match=r"plane=\{'T': 1, 'Z': 0\} lies beyond an axis"):
        read_images(tmp_path, plane={"T": 1, "Z": 0})


@pytest.mark.parametrize("index", [[0, 1], slice(0, 2), 0.0])
def test_several_planes_of_an_axis_are_refused(tmp_path, index):
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0, :, 0], metadata={"axes": "ZYX"})
    with pytest.raises(ValueError, match=r"a\.ome\.tif cannot be read: plane must hold one int"):
        read_images(tmp_path, plane={"Z": index})


@pytest.mark.parametrize("page", range(8))
def test_frames_of_other_sizes_are_refused(tmp_path, page):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for i in range(9):
            tif.write(np.full((5, 6 + (i > page)), i, np.uint8), contiguous=False)
    with pytest.raises(ValueError, match=r"a\.tif cannot be read: it holds several planes"):
        read_images(tmp_path)


COLOURS = np.random.default_rng(0).integers(0, 200, (5, 6, 4)).astype(np.uint8)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_alpha_is_dropped_if_opaque(tmp_path, kind, planar, dtype):
    image = COLOURS.astype(dtype)
    options = {"photometric": "rgb", "extrasamples": [kind], "planarconfig": planar}
    for opaque in (True, False):
        image[..., 3] = 1 if dtype is np.float32 else np.iinfo(dtype).max
        image[2, 3, 3] -= not opaque
        stored = image if planar == "contig" else np.moveaxis(image, -1, 0)
        tifffile.imwrite(tmp_path / "a.tif", stored, **options)
        stack = read_images(tmp_path).images
        assert stack.shape == (1, 5, 6, 3)
        if opaque:
            np.testing.assert_array_equal(stack[0], image[..., :3])
    with pytest.raises(ValueError, match=r"a\.tif cannot be read: it has an alpha channel"):
        stack[0]


def test_grey_with_alpha_is_grey(tmp_path):
    image = np.stack([COLOURS[..., 0], np.full((5, 6), 255, np.uint8)], axis=-1)
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", image, **options, extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_images(tmp_path).images, COLOURS[np.newaxis, ..., 0])


def test_channels_that_are_no_alpha_are_kept(tmp_path):
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", COLOURS, **options)
    np.testing.assert_array_equal(read_images(tmp_path).images, COLOURS[np.newaxis])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pages_are_turned_upright_as_pillow_does(tmp_path, orientation):
    image = COLOURS[..., :3]
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extratags=tags)
    with Image.open(tmp_path / "a.tif") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    stack = read_images(tmp_path).images
    assert stack.shape == (1, *expected.shape)
    np.testing.assert_array_equal(stack[0], expected)


def test_lookup_tables_and_inverted_grey_are_left_alone(tmp_path):
    image = COLOURS[..., 0]
    table = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="palette", colormap=table)
    tifffile.imwrite(tmp_path / "b.tif", image, photometric="miniswhite")
    np.testing.assert_array_equal(read_images(tmp_path).images, [image, image])


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_white_is_true_in_black_and_white(tmp_path, photometric):
    white = COLOURS[..., 0] > 99
    stored = white if photometric == "minisblack" else ~white
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric)
    with Image.open(tmp_path / "a.tif") as opened:
        np.testing.assert_array_equal(opened, white)
    np.testing.assert_array_equal(read_images(tmp_path).images, [white])


@pytest.mark.parametrize("colours", ["separated", "ycbcr", "cielab", "cfa"])
def test_other_colours_are_refused(tmp_path, colours):
    n = {"separated": 4, "cfa": 1}.get(colours, 3)
    tifffile.imwrite(tmp_path / "a.tif", COLOURS[..., :3], photometric="rgb")
    if n != 3:
        image = COLOURS if n == 4 else COLOURS[..., 0]
        tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", planarconfig="contig")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages[0].tags["PhotometricInterpretation"].overwrite(
            tifffile.PHOTOMETRIC[colours.upper()]
        )
    with pytest.raises(ValueError, match=rf"colours are stored as {colours.upper()}\. Save it as"):
        read_images(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"rowsperstrip": 4}, {"bigtiff": True}],
)
def test_files_cut_short_are_named(tmp_path, options):
    image = np.random.default_rng(0).integers(0, 65536, (64, 64)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.tif cannot be read"):
        np.asarray(read_images(tmp_path).images)


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"bigtiff": True}, {"byteorder": ">"}])
def test_stacks_cut_short_are_no_image(tmp_path, options):
    with tifffile.TiffWriter(tmp_path / "a.tif", **options) as tif:
        for page in range(3):
            tif.write(np.full((64, 64), page, np.uint16), contiguous=bool(options.get("imagej")))
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) * 5 // 12])
    with pytest.raises(ValueError, match=r"a\.tif cannot be read: it is cut short after [12] page"):
        read_images(tmp_path)
    np.testing.assert_array_equal(read_images(tmp_path, plane=0).images, np.zeros((1, 64, 64)))


def test_pages_that_the_metadata_leaves_out_are_no_surprise(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK[0, 0, 0])
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        text = tif.ome_metadata
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        for page in range(2):
            options = {"description": text if page == 0 else None, "metadata": None}
            tif.write(STACK[0, 0, page], contiguous=False, **options)
    with pytest.raises(ValueError, match=r"its metadata describes 1 of its 2 pages\. Choose"):
        read_images(tmp_path)
    np.testing.assert_array_equal(read_images(tmp_path, plane=1).images[0], STACK[0, 0, 1])


@pytest.mark.parametrize("subifds", [0, 2])
def test_smaller_levels_of_a_pyramid_are_left_out(tmp_path, subifds):
    image = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(image, tile=(16, 16), subifds=subifds)
        for step in (2, 4)[:subifds]:
            tif.write(image[::step, ::step], tile=(16, 16), subfiletype=1)
    np.testing.assert_array_equal(read_images(tmp_path).images, [image])
