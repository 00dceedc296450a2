import matplotlib.pyplot as plt
import numpy as np
import pytest
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from sklearn_micranet.displays._image import (
    NM_PER_UNIT,
    bar_length,
    check_image,
    check_percentiles,
    check_scale,
    contrast_limits,
    image_like,
    pick_sample,
    show_image,
)
from sklearn_micranet.images._instances import UNITS

RAMP = np.arange(101).reshape(1, 101)


@pytest.mark.parametrize(
    ("dtype", "factor"), [(np.uint8, 2), (np.uint16, 40), (">u2", 600), (np.float32, 1e-4)]
)
def test_contrast_is_the_same_for_all_bit_depths(dtype, factor):
    image = (RAMP * factor).astype(dtype)
    low, high = contrast_limits(image, (10, 90))
    np.testing.assert_allclose([low, high], [10 * factor, 90 * factor], rtol=1e-5)


def test_contrast_without_percentiles_is_the_range_of_the_dtype():
    assert contrast_limits(RAMP.astype(np.uint8), None) == (0, 255)
    assert contrast_limits(RAMP.astype(np.uint16), None) == (0, 65535)
    assert contrast_limits(RAMP / 1000, None) == (0, 1)
    assert contrast_limits(RAMP > 3, None) == (0, 1)


def test_few_bright_spots_are_not_lost():
    image = np.zeros((100, 100), np.uint8)
    image[50, 50] = 9
    assert np.percentile(image, 99.9) == 0
    assert contrast_limits(image, (0.1, 99.9)) == (0, 9)


def test_contrast_of_flat_images_and_of_values_that_are_not_finite():
    assert contrast_limits(np.full((4, 4), 7), (0.1, 99.9)) == (7, 8)
    assert contrast_limits(np.full((4, 4), np.nan), (0.1, 99.9)) == (0, 1)
    image = np.where(RAMP == 50, np.inf, RAMP.astype(float))
    assert contrast_limits(image, (0, 100)) == (0, 100)


def test_contrast_of_a_large_image_is_that_of_a_sample_of_its_pixels():
    image = np.tile(np.arange(3000, dtype=np.uint16), (3000, 1))
    low, high = contrast_limits(image, (1, 99))
    np.testing.assert_allclose([low, high], [30, 2970], atol=5)


def test_grey_images_keep_their_values():
    ax = plt.figure().subplots()
    drawn = show_image(ax, RAMP, percentiles=(10, 90))
    np.testing.assert_array_equal(drawn.get_array(), RAMP)
    assert drawn.get_clim() == (10, 90)
    assert drawn.get_cmap().name == "gray"
    assert drawn.get_extent() == [-0.5, 100.5, 0.5, -0.5]
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0


def test_colours_are_stretched_together():
    image = np.zeros((1, 3, 3), np.uint16)
    image[0, :, 0], image[0, :, 1] = [0, 1000, 2000], [0, 500, 1000]
    drawn = show_image(plt.figure().subplots(), image, percentiles=(0, 100))
    np.testing.assert_allclose(drawn.get_array()[0, 1], [0.5, 0.25, 0])


@pytest.mark.parametrize(
    ("width", "length"),
    [(4, 1), (8, 2), (20, 5), (40, 10), (39.9, 5), (256 * 0.325, 20), (4000, 1000), (0.4, 0.1)],
)
def test_bar_is_a_round_length_of_at_most_a_quarter(width, length):
    assert bar_length(width) == pytest.approx(length)


@pytest.mark.parametrize(
    ("pixel_size", "unit", "n_px", "label"),
    [
        (0.5, "um", 20, "10 µm"),
        (500, "nm", 20, "10 µm"),
        (15, "nm", 200 / 15, "200 nm"),
        (0.015, "um", 200 / 15, "200 nm"),
        (80, "um", 25, "2 mm"),
        (0.08, "mm", 25, "2 mm"),
        (0.01, "nm", 20, "0.2 nm"),
    ],
)
def test_scale_bar(pixel_size, unit, n_px, label):
    figure, ax = plt.subplots()
    show_image(ax, np.zeros((50, 100)), percentiles=None, pixel_size=pixel_size, unit=unit)
    (bar,) = (artist for artist in ax.artists if isinstance(artist, AnchoredSizeBar))
    (line,) = bar.size_bar.get_children()
    assert line.get_width() == pytest.approx(n_px)
    assert bar.txt_label.get_text() == label
    figure.canvas.draw()  # the bar is as long on the screen as n_px pixels of the image
    x = ax.transData.transform([(0, 0), (n_px, 0)])[:, 0]
    assert line.get_window_extent().width == pytest.approx(x[1] - x[0], abs=1)


def test_no_scale_bar_without_pixel_size():
    ax = plt.figure().subplots()
    show_image(ax, RAMP, percentiles=None)
    assert len(ax.artists) == 0


def test_channels():
    image = np.random.default_rng(0).random((4, 5, 2))
    np.testing.assert_array_equal(check_image(image, channel=1), image[..., 1])
    np.testing.assert_array_equal(check_image(image[..., :1]), image[..., 0])
    assert check_image(np.zeros((4, 5, 3))).shape == (4, 5, 3)
    with pytest.raises(ValueError, match=r"Got 2 instead. Pass channel=0, or another of 0 to 1"):
        check_image(image)
    with pytest.raises(ValueError, match="channel == 2, must be <= 1"):
        check_image(image, channel=2)


@pytest.mark.parametrize(
    "image", [np.zeros(9), np.zeros((1, 2, 3, 4)), np.zeros((0, 4)), np.zeros((4, 4), complex)]
)
def test_no_image(image):
    with pytest.raises(ValueError, match=r"An image must be numbers .* a single one as image\[np"):
        check_image(image)


def test_flattened_images_get_the_size_of_their_maps():
    image = np.arange(24)
    np.testing.assert_array_equal(image_like(image, (4, 6)), image.reshape(4, 6))
    np.testing.assert_array_equal(image_like(image, (2, 4)), image.reshape(2, 4, 3))
    assert image_like(np.zeros((4, 6)), (4, 6)).shape == (4, 6)


def test_samples_of_different_size():
    images = [np.zeros((4, 5)), np.ones((6, 3))]
    np.testing.assert_array_equal(pick_sample(images, 1, "images"), images[1])
    np.testing.assert_array_equal(pick_sample(images, -2, "images", 2), images[0])
    with pytest.raises(ValueError, match=r"one of the 2 images, from 0 on. Got 2 instead"):
        pick_sample(images, 2, "images")
    with pytest.raises(ValueError, match="masks must hold one array for each of the 3 images"):
        pick_sample(images, 0, "masks", 3)
    with pytest.raises(TypeError, match="sample must be an instance of int"):
        pick_sample(images, 0.5, "images")


def test_settings_are_checked():
    for wrong in ((5, 1), (0, 101), (-1, 5), (1,), 3):
        with pytest.raises(ValueError, match="percentiles must be two ascending numbers"):
            check_percentiles(wrong)
    with pytest.raises(ValueError, match=r'unit must be "um", "nm" or "mm"\. Got .cm. instead'):
        check_scale(1, "cm")
    assert set(NM_PER_UNIT) == UNITS
    with pytest.raises(ValueError, match="pixel_size == 0, must be > 0"):
        check_scale(0, "nm")
    with pytest.raises(ValueError, match=r"pixel_size must be finite. Got inf instead"):
        check_scale(np.inf, "nm")
