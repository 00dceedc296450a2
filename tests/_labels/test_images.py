from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sklearn_micranet._labels._images import read_images
from sklearn_micranet._stack._lazy_stack import LazyStack


def test_lazy_images_of_different_sizes_are_checked_when_they_are_read():
    read = []

    def load(images):
        read.extend(image.shape for image in images)
        return images

    def lazy(*shapes):
        return LazyStack([np.zeros(shape) for shape in shapes], load, item_shape=None, batch_size=2)

    assert read_images(lazy((4, 5, 3), (6, 5, 3)), name="X", allow_ragged=True).n_channels == 3
    assert read == [(4, 5, 3)]
    like = {"name": "Net", "n_channels": 3, "allow_ragged": True}
    for shapes, match in [
        (((4, 5, 3), (6, 5, 3), (6, 5)), r"3 channel\(s\).*Net was fitted.* Got 1"),
        (((4, 5, 3), (6, 5, 1)), r"same number of channels. Got \[1, 3\]"),
        (((4, 5, 3), (6, 5, 3, 3)), "Got 4 dimensions"),
    ]:
        read.clear()
        stack = read_images(lazy(*shapes), **like).stack
        assert read == []
        assert stack[0].shape == (4, 5, 3)
        with pytest.raises(ValueError, match=match):
            list(stack)
    for n_channels in (None, 3):
        with pytest.raises(ValueError, match=r"at least one image.*Got the shape \(0,\)"):
            read_images(lazy(), name="X", n_channels=n_channels, allow_ragged=True)


def test_reading_tells_what_a_network_has_to_know():
    grey, colour, flat = (np.zeros(shape) for shape in ((3, 8, 9), (3, 8, 9, 2), (3, 36)))
    read = [read_images(X, name="X") for X in (grey, colour, flat)]
    assert [images.n_channels for images in read] == [1, 2, 1]
    assert [images.size for images in read] == [(8, 9), (8, 9), (6, 6)]
    assert [images.image_shape for images in read] == [None, None, (6, 6)]
    assert [len(images) for images in read] == [3, 3, 3]
    shaped = read_images(flat, name="X", image_shape=(3, 4, 3))
    assert (shaped.size, shaped.n_channels) == ((3, 4), 3)
    sizes = read_images([grey[0], grey[0, :, :5]], name="X", allow_ragged=True)
    assert (sizes.size, sizes.n_channels, sizes.is_flattened) == (None, 1, False)
    with pytest.raises(AttributeError, match="cannot assign"):
        sizes.n_channels = 2


def test_images_are_not_copied():
    X = np.zeros((2, 8, 8), dtype=np.uint8)
    assert read_images(X, name="X").stack is X


@pytest.mark.parametrize(
    "X",
    [
        "a.tif",
        Path("a.tif"),
        ["a.tif"],
        (Path("a.tif"),),
        np.array(["a.tif"]),
        pd.Series(["a.tif"]),
        pd.DataFrame({"file": ["a.tif"]}),
    ],
)
def test_paths_are_refused_with_advice(X):
    with pytest.raises(TypeError, match=r"Got the path 'a.tif' instead: pass read_images\(path\)"):
        read_images(X, name="X")


@pytest.mark.parametrize(
    ("X", "match"),
    [
        ({"images": np.zeros((2, 8, 8))}, "Got a dict instead: pass its images"),
        ((x for x in np.zeros((2, 8, 8))), r"Got an iterator instead: pass list\(X\)"),
        ([(np.zeros((8, 8)), 0), (np.zeros((8, 8)), 1)], "Got pairs .* images and labels apart"),
        (pd.DataFrame({"image": list(np.zeros((2, 8, 8)))}), r"np.stack\(X\[column\]\)"),
    ],
)
def test_what_holds_arrays_but_is_none_is_refused_with_advice(X, match):
    with pytest.raises(TypeError, match=match):
        read_images(X, name="X")


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (np.zeros(24), r"Got the shape \(24,\) instead. Reshape your data"),
        ([], r"0 sample\(s\)"),
        (np.where(np.arange(128).reshape(2, 8, 8) == 70, np.nan, 0), "NaN.*first is in image 1"),
        ([np.zeros((8, 8)), np.zeros((8, 8, 3))], r"number of channels. Got \[1, 3\]"),
        ([np.zeros((8, 8)), np.zeros((8, 9))], "Got images of different sizes instead. Cut them"),
        ([np.zeros((8, 8)), np.zeros((8, 8, 1))], r"an axis of one channel.*image.squeeze\(-1\)"),
        (np.ma.masked_equal(np.arange(128).reshape(2, 8, 8), 70), r"pass X.filled\(value\)"),
        (np.zeros((2, 8, 8), dtype="M8[s]"), r"real numbers. Got the dtype datetime64\[s\]"),
        ([Image.new("P", (8, 8))], r"mode P.*pass image.convert\('L'\)"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_advice(X, match):
    with pytest.raises(ValueError, match=match):
        read_images(X, name="X")


def test_channels_first_in_image_shape_are_refused():
    X = np.zeros((2, 3 * 8 * 9))
    assert read_images(X, name="X", image_shape=(8, 9, 3)).n_channels == 3
    with pytest.raises(ValueError, match=r"\(3, 8, 9\) instead, which looks like channels first"):
        read_images(X, name="X", image_shape=(3, 8, 9))


def test_rows_of_pixels_in_tuples_are_images():
    X = tuple(tuple(tuple(range(9)) for _ in range(8)) for _ in range(2))
    assert read_images(X, name="X").size == (8, 9)


def test_images_of_pillow_are_images():
    X = [Image.fromarray(np.full((9, 8 + i), 7, np.uint8)) for i in range(2)]
    images = read_images(X, name="X", allow_ragged=True)
    assert [image.shape for image in images.stack] == [(9, 8), (9, 9)]
    assert images.stack[0].dtype == np.uint8
    assert np.all(images.stack[0] == 7)
