import numpy as np
import pytest
from cases import width_at_a_half
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from sklearn_micranet._guided._intensity import (
    NoiseCurve,
    _blur,
    as_map,
    equalise_noise,
    halfway_height,
    noise_curve,
    noise_samples,
    share_out,
)


def poisson_gaussian(gain, sd, seed=0, shape=(400, 400)):
    """Smooth brightness of 10 to 200, with noise of the variance gain * brightness + sd^2."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(10, 200, shape[0])[:, None] * np.ones(shape)
    return gain * rng.poisson(truth / gain) + rng.normal(0, sd, shape), truth


@pytest.mark.parametrize(("gain", "sd"), [(1.0, 3.0), (0.5, 8.0), (4.0, 2.0), (2.0, 0.5)])
def test_noise_curve_recovers_gain_and_offset(gain, sd):
    image, _ = poisson_gaussian(gain, sd)
    curve = noise_curve(noise_samples(image))
    assert curve.gain == pytest.approx(gain, rel=0.1)
    # The offset is what remains at zero brightness: small against the noise in the images.
    assert curve.offset == pytest.approx(sd**2, abs=0.05 * (gain * 105 + sd**2))


def test_noise_curve_without_shot_noise_is_flat():
    image, _ = poisson_gaussian(1e-3, 5.0)
    curve = noise_curve(noise_samples(image))
    assert abs(curve.gain) * 190 < 0.15 * 25
    assert curve.offset == pytest.approx(25, rel=0.1)


@pytest.mark.parametrize("gain", [0.3, 2.0])
def test_equalised_noise_has_the_standard_deviation_one_everywhere(gain):
    image, _ = poisson_gaussian(gain, 4.0)
    flat = equalise_noise(image, noise_curve(noise_samples(image)))
    residual = flat - ndimage.uniform_filter(flat, (1, 401))
    assert_allclose(residual[20:100].std(), 1, atol=0.08)
    assert_allclose(residual[-100:-20].std(), 1, atol=0.08)


def test_equalising_keeps_the_order_beyond_the_range():
    curve = NoiseCurve(2.0, 1.0, 0.0, 10.0)
    values = equalise_noise(np.linspace(-5, 20, 101), curve)
    assert (np.diff(values) > 0).all()
    assert equalise_noise(np.array([4.0]), curve)[0] == pytest.approx(2.0)  # 2 (3 - 1) / 2


@pytest.mark.parametrize("image", [np.zeros((20, 20)), np.eye(20) * 0])
def test_constant_images_do_no_harm(image):
    curve = noise_curve(noise_samples(image))
    assert np.isfinite(equalise_noise(image, curve)).all()
    assert np.isfinite(halfway_height(image, image > 0)).all()


@settings(deadline=None, max_examples=25)
@given(
    radius=st.floats(6, 20),
    contrast=st.floats(0.1, 100),
    offset=st.floats(-50, 50),
    polarity=st.sampled_from([1, -1]),
    blur=st.floats(0, 2),
)
def test_the_outline_of_a_disc_is_the_true_one(radius, contrast, offset, polarity, blur):
    rows, columns = np.mgrid[:96, :96] - 47.3
    disc = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)  # its edge pixels partly filled
    image = offset + polarity * contrast * ndimage.gaussian_filter(disc, blur)
    view = polarity * image
    view = equalise_noise(view, noise_curve(noise_samples(view)))
    start = np.hypot(rows, columns) < 1.5 * radius  # a gate is larger than what it is on
    for level, is_blurred in ((0.5, False), (0.6, True)):
        height = halfway_height(view, start, min_contrast=4, is_blurred=is_blurred)
        found = as_map(height, level) > 0.5
        assert abs(np.sqrt(found.sum() / np.pi) - radius) < 0.5
        edge = np.hypot(rows, columns)[found ^ ndimage.binary_erosion(found)]
        assert (np.abs(edge + 0.5 - radius) < 1.5).all()


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_what_blur_has_widened_is_cut_thinner(width):
    line = np.zeros((64, 64))
    line[8:56, 30 : 30 + width] = 1
    view = 100 * ndimage.gaussian_filter(line, 1.5)
    start = ndimage.binary_dilation(line > 0, iterations=3)
    half = width_at_a_half(as_map(halfway_height(view, start), 0.5)[32])
    cut = width_at_a_half(as_map(halfway_height(view, start, is_blurred=True), 0.6)[32])
    assert half > width + 0.3
    assert width - 0.3 < cut < half - 0.2


def test_the_slope_of_outlines_tells_the_blur():
    half = np.zeros((64, 64), np.float32)
    half[:, 32:] = 1
    found = []
    for blur in (0.2, 0.5, 0.8):
        found.append(_blur(ndimage.gaussian_filter(half, blur).__getitem__, half > 0))
        # Differences of a blurred step are the kernels of the blurs, here at 0 and 1 px.
        kernel = ndimage.gaussian_filter1d(np.eye(1, 65, 32)[0], blur)
        slope = ndimage.gaussian_filter1d(kernel, 0.7)[32:34].mean()
        apparent = 1 / (np.sqrt(2 * np.pi) * slope)
        assert found[-1] == pytest.approx(np.clip(2.5 * (apparent - 0.5), 1, 2), rel=0.02)
    assert 1 < found[0] < found[1] < found[2]
    assert _blur(half.__getitem__, half > 2) == 1  # nothing found, nothing to measure


def test_noise_is_not_cut_where_there_is_no_object():
    image = np.random.default_rng(0).normal(0, 1, (96, 96))
    start = np.zeros((96, 96), bool)
    start[36:60, 36:60] = True  # a gate that opens on nothing
    wild = halfway_height(image, start) > 0.5
    calm = halfway_height(image, start, min_contrast=8) > 0.5
    assert wild.mean() > 0.2
    assert calm.mean() < 0.01


def test_nothing_is_found_outside_the_region():
    image = np.zeros((64, 64))
    image[10:20, 10:20] = image[40:50, 40:50] = 1
    within = np.zeros((64, 64), bool)
    within[:32] = True
    height = halfway_height(image, within, within=within)
    assert height[10:20, 10:20].min() > 0.5
    assert not height[32:].any()


@given(level=st.floats(0.05, 0.95))
def test_a_map_is_a_half_at_the_level(level):
    heights = np.array([-1, 0, level, 1, 2])
    assert_allclose(as_map(heights, level), [0, 0, 0.5, 1, 1], atol=1e-6)


def test_a_connected_foreground_goes_to_the_class_seen_in_it():
    foreground = np.zeros((20, 40), bool)
    foreground[5:15, 2:16] = foreground[5:15, 24:38] = True
    prior = np.full((2, 20, 40), 0.01)
    prior[0, 8:12, 4:8] = 0.5
    prior[1, 8:12, 30:34] = 0.5
    winner = share_out(prior, foreground)
    assert (winner[5:15, 2:16] == 0).all()
    assert (winner[5:15, 24:38] == 1).all()


def test_images_without_an_inside_have_no_noise_to_measure():
    samples = noise_samples(np.ones((1, 9)))
    assert samples.shape == (2, 0)
    image = np.array([[0.5, 2.0]])
    assert_allclose(equalise_noise(image, noise_curve(samples)), image)


@pytest.mark.parametrize("size", [(1, 60), (60, 1)])
def test_images_of_one_row_have_outlines_without_slopes(size):
    view = np.zeros(size, np.float32)
    view.flat[20:40] = 10
    height = halfway_height(view, view > 0, is_blurred=True)
    assert_array_equal(height > 0.6, view > 0)
